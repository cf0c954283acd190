//! Conversations with a store, without any socket.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

mod basics;
mod checkpoints;
mod conformance;
mod cursors;
mod damage;
mod earlier_footers;
mod fuzzing;
mod golden;
mod leaving;
mod limits;
mod model;
mod ops;
mod regressions;
mod retention;
mod scene;
mod subject;
mod talk;
