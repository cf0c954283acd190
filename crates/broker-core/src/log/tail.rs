//! The newest batches, kept in memory for the readers that follow along.
//!
//! Readers share the bytes that were written. The cache is bounded by what it holds in memory; a
//! reader that falls behind it reads from the disk instead.

use std::collections::VecDeque;

use broker_proto::{RoomId, Seq};
use bytes::Bytes;

use super::batch::BatchRun;
use super::position::LogPosition;

/// Memory that the cache may take by default, in bytes.
pub(crate) const TAIL_BYTES_DEFAULT: usize = 8 << 20;

/// One batch in memory.
#[derive(Debug, Clone)]
pub(crate) struct TailBatch {
    pub(crate) at: LogPosition,
    pub(crate) end: LogPosition,
    /// The messages of the batch; `bytes[0]` lies at `bytes_offset` of the batch.
    pub(crate) bytes: Bytes,
    pub(crate) bytes_offset: u32,
    /// Ordered by room; each with the place of the room's newest message before this batch.
    pub(crate) runs: Box<[(BatchRun, LogPosition)]>,
}

impl TailBatch {
    fn run(&self, room: RoomId) -> Option<&(BatchRun, LogPosition)> {
        let at = self
            .runs
            .binary_search_by_key(&room, |(run, _)| run.room)
            .ok()?;
        self.runs.get(at)
    }

    fn cost(&self) -> usize {
        self.bytes.len()
            + self.runs.len() * size_of::<(BatchRun, LogPosition)>()
            + size_of::<Self>()
    }

    fn records(&self, run: &BatchRun) -> Option<Bytes> {
        let start = run.offset.checked_sub(self.bytes_offset)? as usize;
        let end = start.checked_add(run.bytes as usize)?;
        (end <= self.bytes.len()).then(|| self.bytes.slice(start..end))
    }
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Tail {
    batches: VecDeque<TailBatch>,
    bytes: usize,
    bytes_max: usize,
}

/// The records of one room in one cached batch.
#[derive(Debug)]
pub(crate) struct TailRun {
    pub(crate) run: BatchRun,
    pub(crate) records: Bytes,
    /// The place behind the batch.
    pub(crate) end: LogPosition,
}

impl Tail {
    /// Keeps at most so many bytes, but always the newest batch.
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self {
            batches: VecDeque::new(),
            bytes: 0,
            bytes_max,
        }
    }

    pub(crate) fn push(&mut self, batch: TailBatch) {
        // What is kept must be without a gap, or a reader would believe that nothing lay between.
        if self.batches.back().is_some_and(|last| last.end != batch.at) {
            self.clear();
        }
        self.bytes += batch.cost();
        self.batches.push_back(batch);
        while self.bytes > self.bytes_max && self.batches.len() > 1 {
            if let Some(oldest) = self.batches.pop_front() {
                self.bytes -= oldest.cost();
            }
        }
    }

    pub(crate) fn clear(&mut self) {
        self.batches.clear();
        self.bytes = 0;
    }

    fn at(&self, position: LogPosition) -> Option<usize> {
        self.batches
            .binary_search_by_key(&position, |batch| batch.at)
            .ok()
    }

    /// The cached batch that holds `seq` of a room whose newest message lies at `last_at`, or
    /// `None` if that is only on disk.
    pub(crate) fn find(&self, room: RoomId, seq: Seq, last_at: LogPosition) -> Option<usize> {
        let mut at = last_at;
        loop {
            let place = self.at(at)?;
            let (run, previous) = self.batches.get(place)?.run(room)?;
            if run.first_seq <= seq {
                return Some(place);
            }
            at = *previous;
        }
    }

    /// The room's runs from a cached batch on.
    pub(crate) fn runs(&self, room: RoomId, from: usize) -> impl Iterator<Item = TailRun> {
        self.batches.range(from..).filter_map(move |batch| {
            let (run, _) = batch.run(room)?;
            Some(TailRun {
                run: *run,
                records: batch.records(run)?,
                end: batch.end,
            })
        })
    }
}
