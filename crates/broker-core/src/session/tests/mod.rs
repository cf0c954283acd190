//! Conversations with a session on a virtual clock: no runtime, no sockets, no real time.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test may panic"
)]

mod delivering;
mod ending;
mod greeting;
mod managing;
mod peer;
mod publishing;
mod requesting;
mod store;
mod verifying;
