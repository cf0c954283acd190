//! How a store on disk behaves.

use std::time::Duration;

use broker_proto::{StoreId, limits};

use super::inbox::LONE_MIN_DEFAULT;
use crate::clock::{Clock, Random, SystemClock, SystemRandom};
use crate::log::LastLeader;
use crate::log::segment::{SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN};
use crate::log::tail::TAIL_BYTES_DEFAULT;
use crate::store::producers;
use crate::sync::Arc;

/// Within what time all sealed segments are read once, unless something else is set.
pub const SCRUB_EVERY_DEFAULT: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// How a store on disk behaves. The defaults are durable and bounded.
#[derive(Debug)]
pub struct EmbeddedConfig {
    /// Which store it is, for peers.
    pub store: StoreId,
    /// Which log it is: segments of another one are refused. The same as `store` unless the store
    /// was given a new identity.
    pub log: StoreId,
    /// The term of the last leader that anybody knows of: this one's is higher. A leader that wrote
    /// nothing leaves no trace of its term in the log. Default 0.
    pub term_floor: u64,
    /// Who led before, if it is sure that nobody has led since: saves looking for writes behind its last mark. Default `None`.
    pub last_leader: Option<LastLeader>,
    /// Draw a new epoch for every room before anything else, because the directory is a copy.
    /// Default false.
    pub renew_epochs: bool,
    /// Largest payload, in bytes. Default 1 MiB.
    pub payload_bytes_max: u32,
    /// How long an idle producer is remembered, in seconds. Default 7 days.
    pub producer_idle_secs: u32,
    /// A batch is closed when it has so many bytes; one append may be larger. Default 4 MiB, at
    /// most 8 MiB.
    pub batch_bytes_max: usize,
    /// Appends that wait for the writer, in bytes. Default 16 MiB.
    pub queue_bytes_max: usize,
    /// After so many messages that came one at a time, the next is stored by the thread that brings it, where a server runs
    /// [`Store::settle`](crate::store::Store::settle): two changes of threads less for who waits for each answer. Default 8.
    pub lone_min: u32,
    /// A checkpoint is due after so much log, or four times its own size. Default 64 MiB.
    pub checkpoint_bytes_min: u64,
    /// Newest batches kept in memory for readers that follow along, in bytes. Default 8 MiB.
    pub tail_bytes_max: usize,
    /// The first segment has this size, and each one twice that of the one before. Default 1 MiB;
    /// only tests, which want to see many segments, have a reason for less.
    pub segment_bytes_min: u64,
    /// Up to this size. Default 64 MiB.
    pub segment_bytes_max: u64,
    /// Within what time all sealed segments are read once and checked, in the background; `None`
    /// never does. Default 7 days. A store that is driven by hand is scrubbed by hand.
    pub scrub_every: Option<Duration>,
    /// The wall clock.
    pub clock: Arc<dyn Clock>,
    /// Where epochs and markers come from.
    pub random: Box<dyn Random>,
}

impl EmbeddedConfig {
    /// The defaults, for this store.
    #[must_use]
    pub fn new(store: StoreId) -> Self {
        Self {
            store,
            log: store,
            term_floor: 0,
            last_leader: None,
            renew_epochs: false,
            payload_bytes_max: u32::try_from(limits::PAYLOAD_BYTES_DEFAULT).unwrap_or(u32::MAX),
            producer_idle_secs: producers::IDLE_SECS_DEFAULT,
            batch_bytes_max: 4 << 20,
            queue_bytes_max: 16 << 20,
            lone_min: LONE_MIN_DEFAULT,
            checkpoint_bytes_min: 64 << 20,
            tail_bytes_max: TAIL_BYTES_DEFAULT,
            segment_bytes_min: SEGMENT_BYTES_MIN,
            segment_bytes_max: SEGMENT_BYTES_MAX,
            scrub_every: Some(SCRUB_EVERY_DEFAULT),
            clock: Arc::new(SystemClock::new()),
            random: Box::new(SystemRandom),
        }
    }
}
