//! Conversations between a client and a scripted peer.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod connecting;
mod lost_suffix;
mod managing;
mod peer;
mod random;
mod requests;
mod sending;
mod served;
mod silence;
mod subscribing;
mod window;
