//! What happened in a run of real processes: each process writes its own [`Event`]s down, and [`check`] tells whether all of
//! them together keep the promises.
//!
//! ```text
//!  agent 0, its 1st life --> a000.001.history --+
//!  agent 0, its 2nd life --> a000.002.history --+--> Checker <-- the rooms as they are in the end, read by nobody of them
//!  agent 1, its 1st life --> a001.001.history --+        |
//!                                                       v
//!                                                    Verdict
//! ```
//! A process may be killed at any instruction, so each event is one `write` to a file opened for appending: what was written
//! is there, at most the last line is torn, and that one is passed over. A line has the monotonic clock of the machine,
//! which is the same for all processes on it, and is readable as it is:
//!
//! ```text
//! 81234567890123 begun 3.1.17 ops
//! 81234567999999 acked 3.1.17 ops 5d8a1c00e6f2b913/41
//! ```
//! **Invariants:** a send is written down before it is begun, and an ack after it came. So a time that stands for the
//! beginning is never too late, and one that stands for the end never too early: an order that the times prove is real.

pub mod check;
mod event;
mod file;
pub mod pause;

pub use event::{Event, Id, Place};
pub use file::{Recorder, monotonic_nanos, read};
