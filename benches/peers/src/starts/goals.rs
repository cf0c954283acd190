//! What a start is to reach.

use super::store::Content;

/// Newest messages of a room that nothing was said in for long, in milliseconds.
pub(super) const COLD_ROOM_MS: f64 = 5.0;

/// What a started server is to reach.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Goal {
    /// The first acknowledgement after a clean end, in milliseconds.
    pub(super) acks_ms: f64,
    /// Memory, in bytes, where it is to have a bound.
    pub(super) rss: Option<f64>,
}

/// The goal for a store; `None` beyond all goals.
pub(super) fn of(content: Content) -> Option<Goal> {
    const MEBIBYTES: f64 = 1_048_576.0;
    let goal = |acks_ms, rss| Some(Goal { acks_ms, rss });
    match content {
        Content::Messages { count, .. } if count <= 1_000_000 => goal(20.0, None),
        Content::Messages { .. } => goal(300.0, None),
        Content::Rooms { count } if count <= 100_000 => goal(25.0, Some(30.0 * MEBIBYTES)),
        Content::Rooms { count } if count <= 1_000_000 => goal(500.0, Some(160e6)),
        Content::Rooms { .. } => None,
    }
}
