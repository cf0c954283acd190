//! The daemon as a process: started, refused, stopped, killed, and talked to by strangers.
#![expect(clippy::unwrap_used, reason = "a test may panic")]
#![expect(clippy::indexing_slicing, reason = "a test may panic")]

mod kill;
mod lost_suffix;
mod refusals;
mod scrub;
mod stalled_leader;
mod start;
mod strangers;
mod support;
mod wrong_door;
