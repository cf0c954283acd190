//! What the disk is used for, as those who ask are told: figures, and where checkpoints reach.

use broker_proto::StoreSettings;

use super::super::{CursorsInfo, Fullness, SpaceInfo, cursors};
use crate::log::position::LogPosition;
use crate::log::reclaim::Reclaimed;
use crate::sync::{AtomicBool, AtomicU64, Mutex, Ordering, lock};

/// Space is given back by whole segments, so that a log with a limit has at least so many of them ...
const SEGMENTS_OF_LIMIT: u64 = 16;
/// ... but none smaller than this, which takes two full batches, ...
const SEGMENT_BYTES_FLOOR: u64 = 8 << 20;
/// ... unless the limit has not even so many of these.
const SEGMENTS_OF_LIMIT_MIN: u64 = 4;

/// How large segments may be in a log with this limit, of at most so many bytes.
pub(super) fn segment_bytes_max(most: u64, settings: &StoreSettings) -> u64 {
    let Some(limit) = settings.bytes_max else {
        return most;
    };
    let floor = SEGMENT_BYTES_FLOOR.min(limit / SEGMENTS_OF_LIMIT_MIN);
    most.min((limit / SEGMENTS_OF_LIMIT).max(floor))
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Space {
    /// Everything before is in two checkpoints.
    covered: AtomicU64,
    checkpoints: AtomicU64,
    checkpoint_bytes: AtomicU64,
    checkpoints_written: AtomicU64,
    near_limit: AtomicU64,
    waiting: AtomicU64,
    /// Whether some of a log with a limit is about to be freed.
    follows: AtomicBool,
    trimmed: AtomicU64,
    cursors: AtomicU64,
    moves_pending: AtomicU64,
    moves_written: AtomicU64,
    reclaimed: Mutex<Reclaimed>,
}

impl Space {
    pub(super) fn new(covered: LogPosition) -> Self {
        let space = Self::default();
        space.covered.store(covered.get(), Ordering::Relaxed);
        space
    }

    /// A checkpoint is complete: everything before the one before it began is in both.
    pub(super) fn note_checkpoint(&self, covered: LogPosition, bytes: u64) {
        self.covered.store(covered.get(), Ordering::Release);
        self.checkpoint_bytes.store(bytes, Ordering::Relaxed);
        self.checkpoints.fetch_add(1, Ordering::Release);
        self.checkpoints_written.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn covered(&self) -> LogPosition {
        LogPosition::new(self.covered.load(Ordering::Acquire))
    }

    /// How many checkpoints this leader has completed, and the size of the last one.
    pub(super) fn checkpoints(&self) -> (u64, u64) {
        let count = self.checkpoints.load(Ordering::Acquire);
        (count, self.checkpoint_bytes.load(Ordering::Relaxed))
    }

    pub(super) fn note_near_limit(&self, rooms: u64) {
        self.near_limit.store(rooms, Ordering::Relaxed);
    }

    pub(super) fn note_waiting(&self, bytes: u64) {
        self.waiting.store(bytes, Ordering::Relaxed);
    }

    /// Whether a log that is at its limit is about to get shorter, as far as is known.
    pub(super) fn note_follows(&self, follows: bool) {
        self.follows.store(follows, Ordering::Relaxed);
    }

    /// Whether it is worth waiting for a log that is at its limit.
    pub(super) fn follows(&self) -> bool {
        self.follows.load(Ordering::Relaxed)
    }

    pub(super) fn note_trimmed(&self, messages: u64) {
        self.trimmed.fetch_add(messages, Ordering::Relaxed);
    }

    pub(super) fn note_reclaimed(&self, totals: Reclaimed) {
        *lock(&self.reclaimed) = totals;
    }

    pub(super) fn bytes_freed(&self) -> u64 {
        lock(&self.reclaimed).bytes_freed
    }

    pub(super) fn note_cursors(&self, count: usize, pending: usize) {
        self.cursors.store(count as u64, Ordering::Relaxed);
        self.moves_pending.store(pending as u64, Ordering::Relaxed);
    }

    pub(super) fn note_moves(&self, written: usize) {
        self.moves_written
            .fetch_add(written as u64, Ordering::Relaxed);
    }

    pub(super) fn info(&self, log_bytes: u64, settings: &StoreSettings) -> SpaceInfo {
        let reclaimed = *lock(&self.reclaimed);
        SpaceInfo {
            log_bytes,
            bytes_max: settings.bytes_max,
            fullness: Fullness::of(log_bytes, settings.bytes_max),
            rooms_near_limit: self.near_limit.load(Ordering::Relaxed),
            messages_trimmed: self.trimmed.load(Ordering::Relaxed),
            bytes_freed: reclaimed.bytes_freed,
            bytes_rewritten: reclaimed.bytes_written,
            segments_deleted: reclaimed.deleted,
            segments_packed: reclaimed.packed,
            bytes_waiting: self.waiting.load(Ordering::Relaxed),
            checkpoint_bytes: self.checkpoints_written.load(Ordering::Relaxed),
        }
    }

    pub(super) fn cursors_info(&self) -> CursorsInfo {
        let pending = self.moves_pending.load(Ordering::Relaxed);
        let interval = cursors::interval(usize::try_from(pending).unwrap_or(usize::MAX));
        CursorsInfo {
            count: self.cursors.load(Ordering::Relaxed),
            pending,
            written: self.moves_written.load(Ordering::Relaxed),
            interval_ms: u64::try_from(interval.as_millis()).unwrap_or(u64::MAX),
        }
    }
}
