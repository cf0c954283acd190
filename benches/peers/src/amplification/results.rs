//! What is kept of each run.

use serde::{Deserialize, Serialize};

use super::case::Case;
use super::counts::{Counts, Settled};
use crate::starts::Files;
use crate::stats::{Quantiles, float};

/// A run and what came of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct RunResult {
    pub(crate) case: Case,
    /// Bytes of a message.
    pub(crate) size: usize,
    pub(crate) outcome: Outcome,
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Outcome {
    /// Publishing was measured and verified.
    Published(Box<Published>),
    /// Merging was.
    Merged(Box<Merged>),
    /// It went wrong.
    Failed(String),
}

/// What was measured of publishing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Published {
    /// Payload that was acknowledged.
    pub(crate) payload_bytes: u64,
    pub(crate) acks_per_second: f64,
    pub(crate) ack_us: Quantiles,
    /// Bytes of segments that were written anew before the last acknowledgement.
    pub(crate) rewritten_meanwhile: u64,
    /// From the first message until the server had settled.
    pub(crate) counts: Counts,
    pub(crate) settled: Settled,
    /// At the end.
    pub(crate) files: Files,
    /// Messages at the end: acknowledged, and stored.
    pub(crate) verified: u64,
}

/// What became of small segments.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Merged {
    pub(crate) kills: u32,
    /// Payload that was acknowledged before them.
    pub(crate) payload_bytes: u64,
    /// What the servers wrote that were killed, from when they were started.
    pub(crate) killed: Counts,
    /// Segments after the last start.
    pub(crate) segments_before: u64,
    /// What was written then, while nothing was published.
    pub(crate) merging: Counts,
    pub(crate) settled: Settled,
    pub(crate) segments_after: u64,
    pub(crate) files: Files,
    /// Messages at the end: acknowledged, and stored.
    pub(crate) verified: u64,
}

/// Bytes written for each byte of payload.
pub(crate) fn for_a_byte(written: u64, payload_bytes: u64) -> f64 {
    float(written) / float(payload_bytes.max(1))
}
