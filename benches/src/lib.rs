//! What the benchmarks share. Each file in `benches/` answers one question.
//!
//! | bench | question |
//! |---|---|
//! | `codec` | how long do frames and records take to encode and decode? |
//! | `sequencer` | how long does the writer take to decide on a batch and to build it, without a disk? |
//! | `append` | how many messages does the log take on the disk of `TMPDIR`, and how many share a sync? |
//! | `fan_out` | how long does one batch take to reach the outboxes of its subscribers? |
//! | `recovery` | how long does a store take to open, and to be read again? |
//! | `client` | how long does the client library take to send and to receive, without a broker? |
//! | `instructions` | how many instructions does each hot path take for a message? |
//!
//! # How to run them
//! `cargo bench -p broker-benches --bench fan_out` runs one, and `-- NAME` only what has this in its name. All but
//! `instructions` measure time with criterion, which compares with the run before; on a machine that does something else
//! too, their numbers mean little.
//!
//! `cargo bench -p broker-benches --bench instructions` counts what `valgrind --tool=callgrind` executes. The counts are the
//! same in every run, on a busy machine too, so a change of one per cent is a change of the code. Without valgrind it says
//! so and measures nothing. Each line stands beside the number that was written down last; with `-- --check` more than a
//! tenth above it is a failure. The profiles stay in `target/tmp/PATH.callgrind`, for `callgrind_annotate`.
//!
//! How often the same paths ask for memory is a test, not a benchmark:
//! `cargo test -p broker-core --test allocations -- --nocapture`.
//!
//! Both kinds of benchmarks are compiled by `cargo check -p broker-benches --all-targets`, and
//! `cargo test -p broker-benches --benches` runs each once.
//!
//! # Why the instructions are counted by hand
//! `gungraun` does it too, but needs a second program installed in exactly its own version, without which every
//! `cargo bench` fails, and brings a dozen crates. It counts a whole call, whereas here the same path runs with two numbers
//! of messages and the difference is what one message costs: beginning, warming up and ending fall out.
//!
//! # Beside other brokers
//! `peers/` is a package of its own: `cargo run --release -p broker-peers -- run`, see its README.

pub mod callgrind;
pub mod clients;
pub mod nowhere;
pub mod paths;
pub mod sessions;
pub mod stores;

pub use nowhere::Nowhere;
pub use stores::{Bench, Publisher};
