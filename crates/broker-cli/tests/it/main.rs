//! The command line, through the real binary: what it prints, what it stores, how it ends.
#![expect(clippy::unwrap_used, reason = "a test may panic")]
#![expect(clippy::indexing_slicing, reason = "a test may panic")]

mod admin;
mod arguments;
mod bench;
mod demo;
mod keeping;
mod listing;
mod refusals;
mod send_and_read;
mod servers;
mod signals;
mod stalled;
mod support;
