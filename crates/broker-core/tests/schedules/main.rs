//! The schedules of the store's threads: group commit, queue, watches, segment changes, shutdown.
//!
//! An explorer runs the real store, one thread at a time, and decides at every lock, wait and
//! atomic which thread goes on: half of the schedules by plain chance, half with few changes of
//! thread at chosen places, which finds what chance seldom does. A thread that waits for ever is
//! found by it, and every test looks for acknowledgements that came before the sync.
//!
//! Needs a build of its own: `RUSTFLAGS='--cfg broker_schedules' cargo test -p broker-core
//! --no-default-features --test schedules --target-dir target/schedules`. `BROKER_SEED` says where
//! chance begins, `BROKER_SCHEDULES` and `BROKER_DEPTH` how many are tried; a failure prints its
//! schedule, and `BROKER_SCHEDULE` runs that one alone.
#![cfg(broker_schedules)]
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]
#![expect(clippy::print_stdout, reason = "a test says what it did")]

mod cases;
mod explore;
mod peer;
mod witness;
