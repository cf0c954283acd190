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
    bytes: Bytes,
    bytes_offset: u32,
    /// Ordered by room.
    runs: Box<[Kept]>,
    /// Where each record ends in `bytes`, so that a reader that wants a part finds its bounds without
    /// touching the records: walking them took a quarter of the work of a server with many readers.
    ends: Box<[u32]>,
}

/// One room's records in a batch.
#[derive(Debug, Clone, Copy)]
struct Kept {
    run: BatchRun,
    /// The place of the room's newest message before this batch.
    previous: LogPosition,
    /// The first of its records, counted over the batch.
    first: usize,
}

impl TailBatch {
    /// A batch from `at` to `end` whose messages are `bytes`. `runs` are its rooms in order, each with
    /// the place of the room's newest message before; `lengths` those of the records, in their order.
    pub(crate) fn new(
        at: LogPosition,
        end: LogPosition,
        bytes: Bytes,
        runs: impl IntoIterator<Item = (BatchRun, LogPosition)>,
        lengths: &[u32],
    ) -> Self {
        let mut first = 0;
        let runs: Box<[Kept]> = runs
            .into_iter()
            .map(|(run, previous)| {
                let kept = Kept {
                    run,
                    previous,
                    first,
                };
                first += run.count as usize;
                kept
            })
            .collect();
        // Without bytes nothing is served from here.
        let lengths = if bytes.is_empty() { &[] } else { lengths };
        let mut record_end = 0_u32;
        let ends = lengths
            .iter()
            .map(|length| {
                record_end = record_end.saturating_add(*length);
                record_end
            })
            .collect();
        Self {
            at,
            end,
            bytes_offset: runs.first().map_or(0, |kept| kept.run.offset),
            bytes,
            runs,
            ends,
        }
    }

    /// Whether it has messages, and not their bytes.
    pub(crate) fn is_hollow(&self) -> bool {
        self.bytes.is_empty() && !self.runs.is_empty()
    }

    fn run(&self, room: RoomId) -> Option<&Kept> {
        let at = self
            .runs
            .binary_search_by_key(&room, |kept| kept.run.room)
            .ok()?;
        self.runs.get(at)
    }

    fn cost(&self) -> usize {
        self.bytes.len()
            + self.runs.len() * size_of::<Kept>()
            + self.ends.len() * size_of::<u32>()
            + size_of::<Self>()
    }

    fn records(&self, kept: &Kept) -> Option<TailRun<'_>> {
        let run = kept.run;
        let start = run.offset.checked_sub(self.bytes_offset)? as usize;
        let last = kept.first.checked_add(run.count as usize)?;
        let ends = self.ends.get(kept.first..last)?;
        let is_whole = ends.last().copied()? as usize == start.checked_add(run.bytes as usize)?;
        (is_whole && self.bytes.len() >= start + run.bytes as usize).then_some(TailRun {
            run,
            bytes: &self.bytes,
            start,
            ends,
            end: self.end,
        })
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
pub(crate) struct TailRun<'a> {
    pub(crate) run: BatchRun,
    /// The messages of all rooms of the batch.
    bytes: &'a Bytes,
    /// Where the records of this room begin in them.
    start: usize,
    /// Where each of the records ends in them.
    ends: &'a [u32],
    /// The place behind the batch.
    pub(crate) end: LogPosition,
}

impl TailRun<'_> {
    /// The records from the one with index `skip` on: at most `count_max`, and at most `bytes_max`
    /// bytes of them or, with `at_least_one`, one. Gives also how many they are and whether they are
    /// all that is left.
    pub(crate) fn part(
        &self,
        skip: usize,
        count_max: usize,
        bytes_max: usize,
        at_least_one: bool,
    ) -> (Bytes, u32, bool) {
        let start = match skip.checked_sub(1) {
            None => self.start,
            Some(before) => match self.ends.get(before) {
                Some(end) => *end as usize,
                None => return (Bytes::new(), 0, true),
            },
        };
        let left = self.ends.get(skip..).unwrap_or_default();
        let most = left.get(..count_max.min(left.len())).unwrap_or_default();
        let limit = start.saturating_add(bytes_max);
        let mut taken = most.partition_point(|end| *end as usize <= limit);
        if at_least_one {
            taken = taken.max(most.len().min(1));
        }
        let end = match taken.checked_sub(1).and_then(|last| most.get(last)) {
            Some(end) => *end as usize,
            None => start,
        };
        let count = u32::try_from(taken).unwrap_or(u32::MAX);
        (self.bytes.slice(start..end), count, taken == left.len())
    }
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
            let kept = self.batches.get(place)?.run(room)?;
            if kept.run.first_seq <= seq {
                return Some(place);
            }
            at = kept.previous;
        }
    }

    /// The room's runs from a cached batch on.
    pub(crate) fn runs(&self, room: RoomId, from: usize) -> impl Iterator<Item = TailRun<'_>> {
        self.batches
            .range(from..)
            .filter_map(move |batch| batch.records(batch.run(room)?))
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    /// A batch of two rooms with records of these lengths, each filled with its index.
    fn batch(rooms: [&[u32]; 2]) -> TailBatch {
        let lengths: Vec<u32> = rooms.concat();
        let mut bytes = Vec::new();
        for (index, length) in (0..).zip(&lengths) {
            bytes.extend(std::iter::repeat_n(index, *length as usize));
        }
        let mut offset = 100;
        let runs = [7, 9].into_iter().zip(rooms).map(|(room, lengths)| {
            let run = BatchRun {
                room: RoomId::new(room),
                offset,
                bytes: lengths.iter().sum(),
                count: u32::try_from(lengths.len()).unwrap(),
                first_seq: Seq::new(5),
            };
            offset += run.bytes;
            (run, LogPosition::NONE)
        });
        let (at, end) = (LogPosition::new(8), LogPosition::new(800));
        TailBatch::new(at, end, bytes.into(), runs, &lengths)
    }

    #[test]
    fn a_part_is_cut_at_records_and_at_the_limits() {
        let mut tail = Tail::new(1 << 20);
        tail.push(batch([&[30, 40], &[50, 60, 70]]));
        let runs: Vec<_> = tail.runs(RoomId::new(9), 0).collect();
        let [run] = runs.as_slice() else {
            panic!("{} runs", runs.len())
        };
        let all = |len: usize, value: u8| vec![value; len];
        let cases: [(_, (Vec<u8>, u32, bool)); 8] = [
            (
                (0, 9, 999, true),
                ([all(50, 2), all(60, 3), all(70, 4)].concat(), 3, true),
            ),
            (
                (0, 2, 999, true),
                ([all(50, 2), all(60, 3)].concat(), 2, false),
            ),
            (
                (0, 9, 110, true),
                ([all(50, 2), all(60, 3)].concat(), 2, false),
            ),
            ((0, 9, 109, true), (all(50, 2), 1, false)),
            ((1, 9, 3, true), (all(60, 3), 1, false)),
            ((1, 9, 3, false), (Vec::new(), 0, false)),
            ((2, 9, 70, false), (all(70, 4), 1, true)),
            ((3, 9, 999, true), (Vec::new(), 0, true)),
        ];
        for ((skip, count, bytes, least), expected) in cases {
            let (part, count, is_rest) = run.part(skip, count, bytes, least);
            assert_eq!((part.to_vec(), count, is_rest), expected);
        }
    }

    #[test]
    fn a_batch_without_its_bytes_gives_no_records() {
        let mut hollow = batch([&[30], &[50]]);
        assert!(!hollow.is_hollow());
        hollow = TailBatch::new(
            hollow.at,
            hollow.end,
            Bytes::new(),
            hollow.runs.iter().map(|kept| (kept.run, kept.previous)),
            &[30, 50],
        );
        assert!(hollow.is_hollow());
        let mut tail = Tail::new(1 << 20);
        tail.push(hollow);
        assert_eq!(tail.runs(RoomId::new(7), 0).count(), 0);
    }
}
