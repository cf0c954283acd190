//! A server as its peers see it: over real sockets, with frames made by hand.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::print_stdout,
    reason = "a test may panic, and prints its seed"
)]

mod calls;
mod doors;
mod flow;
mod hostile;
mod lifecycle;
mod node;
mod order;
mod peer;
mod takeover;
