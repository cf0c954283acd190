//! Puts a decided batch together: state records first, then the messages, room by room.

use broker_proto::record::RECORD_FIXED_BYTES;
use broker_proto::{Micros, RoomId, Seq, publish};
use serde::Serialize;

use super::super::super::Append;
use super::super::super::producers::Run;
use super::super::super::rooms::RoomTable;
use super::super::super::sequencer::{Change, Placed, Sequencer};
use super::super::checkpoint::{
    Checkpoint, Piece, RECORD_BYTES_MAX, SETTINGS_RECORD_BYTES_MAX, cursor_record, new_room_record,
    room_record, run_record, with_settings, with_store_settings,
};
use super::{Admitted, Engine};
use crate::log::BatchBuilder;
use crate::log::batch::RUN_BYTES;
use crate::log::position::LogPosition;
use crate::log::state::{self, MessageHead, RoomRemovedRecord, RoomTrimRecord, kind};
use crate::log::storage::{AlignedBuf, Storage};
use crate::sync::read;

/// What an append brings beside its messages, at most: a row of the room table, the record of the
/// room's name (some 400 bytes) and that of the producer's run (some 160).
pub(super) const STATE_BYTES_MAX: usize = 640;
const _: () = assert!(RUN_BYTES + 400 + 160 < STATE_BYTES_MAX);

/// What the record of a trim or a removal takes at most, with its length in the table.
const CHANGE_BYTES_MAX: usize = 96;

fn sets_something(change: &Change) -> bool {
    matches!(change, Change::Settings(..) | Change::Store(_))
}

impl<S: Storage> Engine<S> {
    /// An upper limit of the size of the batch.
    pub(super) fn bytes_needed(&self) -> u64 {
        let pending = self.pending.iter().map(|record| record.len() + 4);
        let mut bytes = BatchBuilder::overhead(1, 0) + pending.sum::<usize>();
        bytes += (self.cursor_moves.len() + self.relaxed_moves.len()) * RECORD_BYTES_MAX;
        bytes += self.sequencer.changes().len() * CHANGE_BYTES_MAX;
        if self.sequencer.changes().iter().any(sets_something) {
            bytes += SETTINGS_RECORD_BYTES_MAX;
        }
        for (append, placed) in placed(&self.admitted) {
            let per_message = RECORD_FIXED_BYTES + append.head.len() + 4;
            bytes += append.entries.len() + placed.count as usize * per_message;
            bytes += STATE_BYTES_MAX;
        }
        if self.checkpoint.is_some() {
            bytes += Checkpoint::PIECE_BYTES_MAX;
        }
        bytes as u64
    }

    /// Puts all records of the batch into the writer's buffer.
    pub(super) fn build(&mut self, now: Micros) -> Option<Piece> {
        let rooms = read(&self.shared.rooms);
        let named_from = if self.writer.begins_segment() {
            self.writer.end()
        } else {
            self.mentioned_from
        };
        let mut assembly =
            Assembly::begin(self.writer.end(), &mut self.builder, self.writer.buffer());
        for record in &mut self.pending {
            assembly.encoded(record);
        }
        let mut order: Vec<(RoomId, usize)> = Vec::with_capacity(self.admitted.len());
        for (n, admitted) in self.admitted.iter().enumerate() {
            if let Some(placed) = &admitted.decision.placed {
                order.push((placed.room, n));
            }
        }
        order.sort_unstable();
        assembly.new_rooms(&rooms, &self.sequencer);
        assembly.old_rooms(&rooms, &order, named_from);
        for (append, placed) in placed(&self.admitted) {
            assembly.producer_run(append, placed, now);
        }
        let awaited = self
            .cursor_moves
            .iter()
            .filter_map(|moved| moved.key.as_ref());
        for key in self.relaxed_moves.iter().chain(awaited) {
            let stand = self.sequencer.cursors.stand(key);
            assembly.state(kind::CURSOR_MOVE, &cursor_record(key, stand));
        }
        for change in self.sequencer.changes() {
            assembly.change(change);
        }
        let mut piece = self
            .checkpoint
            .as_mut()
            .map(|checkpoint| checkpoint.piece(&rooms, &self.sequencer));
        if let Some(piece) = &mut piece {
            assembly.encoded(&mut piece.record);
        }
        for (_, n) in order {
            if let Some(admitted) = self.admitted.get(n)
                && let Some(placed) = &admitted.decision.placed
            {
                assembly.messages(&admitted.append, placed, now);
            }
        }
        piece
    }
}

/// The appends of which something is to be stored.
fn placed(admitted: &[Admitted]) -> impl Iterator<Item = (&Append, &Placed)> {
    admitted.iter().filter_map(|admitted| {
        let placed = admitted.decision.placed.as_ref()?;
        Some((&admitted.append, placed))
    })
}

/// A batch in the making, in the writer's buffer.
pub(super) struct Assembly<'a> {
    at: LogPosition,
    builder: &'a mut BatchBuilder,
    buf: &'a mut AlignedBuf,
    /// Where a state record is encoded; one for all.
    record: Vec<u8>,
}

impl<'a> Assembly<'a> {
    /// Begins the batch that will lie at `at`.
    pub(super) fn begin(
        at: LogPosition,
        builder: &'a mut BatchBuilder,
        buf: &'a mut AlignedBuf,
    ) -> Self {
        builder.begin(buf);
        Self {
            at,
            builder,
            buf,
            record: Vec::new(),
        }
    }

    /// A state record that is encoded already.
    pub(super) fn encoded(&mut self, record: &mut [u8]) {
        state::stamp(record, self.at);
        self.builder
            .record(self.buf, RoomId::NONE, Seq::NONE, |buf| {
                buf.extend_from_slice(record);
            });
    }

    fn state<T: Serialize>(&mut self, kind: u16, payload: &T) {
        let mut record = std::mem::take(&mut self.record);
        record.clear();
        state::encode(kind, RoomId::NONE, payload, &mut record);
        self.encoded(&mut record);
        self.record = record;
    }

    /// The names of the rooms that this batch makes.
    fn new_rooms(&mut self, rooms: &RoomTable, sequencer: &Sequencer) {
        for (id, name, maker, slot) in sequencer.new_rooms(rooms) {
            let record = new_room_record(id, name, maker, &slot);
            self.state(kind::ROOM_STATE, &record);
        }
    }

    /// The names of the rooms that get their first message of this segment: every segment can be
    /// read on its own.
    fn old_rooms(&mut self, rooms: &RoomTable, order: &[(RoomId, usize)], named_from: LogPosition) {
        let mut last = RoomId::NONE;
        for (room, _) in order {
            if *room == last {
                continue;
            }
            last = *room;
            if let Some(slot) = rooms.get(*room)
                && (slot.last_at < named_from.get() || slot.head.is_none())
            {
                self.state(kind::ROOM_STATE, &room_record(rooms, *room, slot));
            }
        }
    }

    fn change(&mut self, change: &Change) {
        match change {
            Change::Settings(id, set) => with_settings(*id, set, |record| {
                self.state(kind::ROOM_SETTINGS, record);
            }),
            Change::Store(set) => with_store_settings(set, |record| {
                self.state(kind::STORE_SETTINGS, record);
            }),
            Change::Trim(id, trimmed) => self.state(
                kind::ROOM_TRIM,
                &RoomTrimRecord {
                    room: id.get(),
                    first: trimmed.first.get(),
                    bytes: trimmed.bytes,
                },
            ),
            Change::Remove(id, _) => {
                self.state(kind::ROOM_REMOVED, &RoomRemovedRecord { room: id.get() });
            }
        }
    }

    fn producer_run(&mut self, append: &Append, placed: &Placed, now: Micros) {
        let run = Run {
            first: placed.first_number,
            count: placed.count,
            room: placed.room,
            seq: placed.first_seq,
        };
        let begins = placed.begins;
        let record = run_record(&append.key, append.claimed, now.get(), run, begins);
        self.state(kind::PRODUCER_RUN, &record);
    }

    fn messages(&mut self, append: &Append, placed: &Placed, now: Micros) {
        let entries = publish::entries(&append.entries).skip(placed.skip as usize);
        for (n, entry) in (0..u64::from(placed.count)).zip(entries) {
            let seq = Seq::new(placed.first_seq.get() + n);
            let head = MessageHead {
                room: placed.room,
                seq,
                time: now,
                payload_crc: entry.crc,
                payload_bytes: entry.payload.len(),
                head: &append.head,
                extensions: entry.extensions,
            };
            self.builder.record(self.buf, placed.room, seq, |buf| {
                head.write(entry.payload, buf);
            });
        }
    }
}
