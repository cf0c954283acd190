//! How often the hot paths ask the allocator for memory: a constant number of times a batch, and not for each message.
//!
//! Everything that is counted runs on the thread of its test: a server and a client each on a runtime of one thread, the
//! store's writer stepped by hand. The other end of each connection is played by the test and not counted, and neither is
//! what threads of their own do in production (preparing segments). So the numbers are the same in every run, and each
//! bound is what holds today: who makes a path better lowers its bound, who breaks it hears of it.
//!
//! To see where a path allocates, run its test alone under `valgrind --tool=dhat`.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test may panic, and prints what it counted"
)]

mod client;
mod count;
mod peer;
mod server;
