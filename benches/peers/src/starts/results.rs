//! What is kept of each store.

use serde::{Deserialize, Serialize};

use super::files::Files;
use super::store::Content;
use crate::stats::Spread;

/// A store and what came of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct StoreResult {
    pub(crate) content: Content,
    pub(crate) outcome: Outcome,
}

/// How its measurement ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Outcome {
    /// It was measured and verified.
    Measured(Box<Measured>),
    /// It went wrong.
    Failed(String),
}

/// How the server had ended that is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Ended {
    /// It was asked to.
    Clean,
    /// It was killed.
    Killed,
}

/// Whether the system has the files in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Cache {
    /// As far as they were read or written through it before.
    Warm,
    /// Nothing of them.
    Cold,
}

/// Times from the start of the process on, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Start {
    pub(crate) ended: Ended,
    pub(crate) cache: Cache,
    /// Until it takes connections.
    pub(crate) listens_ms: f64,
    /// Until it has welcomed a client.
    pub(crate) welcomes_ms: f64,
    /// Until it has acknowledged a message.
    pub(crate) acks_ms: f64,
}

/// Listing all rooms, a page after the other.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Listing {
    pub(crate) rooms: u64,
    pub(crate) pages: u64,
    pub(crate) all_ms: f64,
    pub(crate) page_p50_us: f64,
    pub(crate) page_p99_us: f64,
}

/// How long reading the newest messages takes of a room that got its last one before everything else was stored, in
/// milliseconds, each value a reading.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ColdRoom {
    /// The first one after a start with the files out of the system's memory.
    pub(crate) first_ms: Vec<f64>,
    /// Those after the last of these.
    pub(crate) again_ms: Vec<f64>,
    /// Each after as many other places of the store were read as there are segments, or more.
    pub(crate) after_others_ms: Vec<f64>,
}

/// What was measured of one store.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Measured {
    /// Memory of the server that has just begun, has filled it, and has been started with it.
    pub(crate) rss_empty: f64,
    pub(crate) rss_filled: f64,
    pub(crate) rss_started: f64,
    pub(crate) files: Files,
    /// Every start, in their order.
    pub(crate) starts: Vec<Start>,
    pub(crate) listing: Listing,
    /// Where messages are stored.
    pub(crate) cold_room: Option<ColdRoom>,
    /// Messages at the end: acknowledged, and stored.
    pub(crate) verified: u64,
}

impl Measured {
    /// Times to the first acknowledgement.
    pub(crate) fn acks_ms(&self, ended: Ended, cache: Cache) -> Option<Spread> {
        self.spread(ended, cache, |start| start.acks_ms)
    }

    /// Some times of the starts of one sort.
    pub(crate) fn spread(
        &self,
        ended: Ended,
        cache: Cache,
        time: impl Fn(&Start) -> f64,
    ) -> Option<Spread> {
        let of_sort = |start: &&Start| start.ended == ended && start.cache == cache;
        Spread::of(self.starts.iter().filter(of_sort).map(time))
    }
}
