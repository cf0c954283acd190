//! Builds the index of a segment from the segment.

use std::collections::HashMap;

use broker_proto::Micros;

use super::{SegmentIndex, UNKNOWN_TIME};
use crate::log::batch::BatchRun;
use crate::log::position::LogPosition;
use crate::log::state_record::{RawRecord, RoomStateRecord, names_room};

/// Builds the index of a segment from the segment alone: every segment says of each of its rooms,
/// before the first message, where the room stood until then.
#[derive(Debug, Default)]
pub(crate) struct IndexBuilder {
    index: SegmentIndex,
    before: HashMap<u32, (LogPosition, Micros)>,
    base: LogPosition,
    /// Messages before this place are in the index already.
    known: LogPosition,
}

impl IndexBuilder {
    /// For a segment that begins at `base`.
    pub(crate) fn new(base: LogPosition) -> Self {
        Self {
            base,
            ..Self::default()
        }
    }

    /// Goes on with an index that tells of everything before `known`.
    pub(crate) fn resume(base: LogPosition, index: SegmentIndex, known: LogPosition) -> Self {
        Self {
            index,
            known,
            ..Self::new(base)
        }
    }

    /// Takes the state records of the batch at `batch`.
    pub(crate) fn state_records(&mut self, records: &[u8], batch: LogPosition) {
        let mut at = 0;
        while let Some(record) = records.get(at..).and_then(RawRecord::parse) {
            if names_room(record.head.kind)
                && RawRecord::parse_state(record.bytes, batch).is_some()
                && let Some(room) = RoomStateRecord::parse(record.head.kind, record.payload())
            {
                let previous = match room.head {
                    0 => LogPosition::NONE,
                    _ => LogPosition::new(room.last_at),
                };
                self.before
                    .entry(room.room)
                    .or_insert((previous, Micros::new(room.last_time)));
            }
            at += record.bytes.len();
        }
    }

    /// Notes that part of the segment cannot be read.
    pub(crate) fn miss(&mut self) {
        self.index.is_partial = true;
    }

    /// Takes the messages of one room in one batch.
    pub(crate) fn messages(&mut self, run: &BatchRun, at: LogPosition, time: Micros) {
        if at < self.known {
            return;
        }
        // A room that is not named here was named in a part that was copied or is lost: look
        // further back from the segment before.
        let somewhere = match self.base {
            LogPosition::START => LogPosition::NONE,
            base => LogPosition::new(base.get() - 1),
        };
        let (previous, time_before) = self
            .before
            .get(&run.room.get())
            .copied()
            .unwrap_or((somewhere, UNKNOWN_TIME));
        self.index.add(run, at, time, previous, time_before);
    }

    pub(crate) fn finish(self) -> SegmentIndex {
        self.index
    }
}
