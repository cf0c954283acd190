//! Writes a checkpoint, a piece at a time, while publishing goes on.
//!
//! A checkpoint begins at a place of the log and copies the state that rooms, producers and cursors
//! have at the moment each piece is written. It is *fuzzy*: pieces are of different moments, but
//! none older than the beginning, so pieces plus a replay from the beginning give the state at the
//! end.

use broker_proto::RoomId;

use super::super::cursors::CursorKey;
use super::super::producers::{Producer, Run};
use super::super::rooms::RoomTable;
use super::super::sequencer::Sequencer;
use super::super::{ProducerKey, RoomSlot};
use crate::log::position::LogPosition;
use crate::log::state::{
    CheckpointChunk, CheckpointEnd, CursorRecord, ProducerRunRecord, RoomRecord, encode, kind,
    push_chunk_record,
};

/// Largest piece, in bytes.
const CHUNK_BYTES_MAX: usize = 256 << 10;
/// Room that one more record takes at most in a piece.
pub(super) const RECORD_BYTES_MAX: usize = 1024;

/// A checkpoint in the making.
#[derive(Debug)]
pub(super) struct Checkpoint {
    pub(super) begin: LogPosition,
    chunks: u32,
    bytes: u64,
    next_room: u32,
    producers: Vec<ProducerKey>,
    /// The producer whose runs did not all fit, and the first number that is still to come.
    partial: Option<(ProducerKey, u64)>,
    cursors: Vec<CursorKey>,
    finished: bool,
}

/// One piece: the encoded record, and whether it is the last.
#[derive(Debug)]
pub(super) struct Piece {
    pub(super) record: Vec<u8>,
    pub(super) is_last: bool,
}

impl Checkpoint {
    /// Bytes that a piece takes at most in a batch.
    pub(super) const PIECE_BYTES_MAX: usize = CHUNK_BYTES_MAX + 2 * RECORD_BYTES_MAX;

    /// Begins a checkpoint at the end of the log.
    pub(super) fn begin(begin: LogPosition, sequencer: &Sequencer) -> Self {
        Self {
            begin,
            chunks: 0,
            bytes: 0,
            next_room: 1,
            producers: sequencer
                .producers
                .iter()
                .map(|(key, _)| key.clone())
                .collect(),
            partial: None,
            cursors: sequencer
                .cursors
                .iter()
                .map(|(key, _)| key.clone())
                .collect(),
            finished: false,
        }
    }

    /// Bytes written so far.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The next piece.
    pub(super) fn piece(&mut self, rooms: &RoomTable, sequencer: &Sequencer) -> Piece {
        let mut record = Vec::new();
        if self.finished {
            let end = CheckpointEnd {
                begin: self.begin.get(),
                chunks: self.chunks,
                rooms: rooms.len() as u64,
            };
            encode(kind::CHECKPOINT_END, RoomId::NONE, &end, &mut record);
            return Piece {
                record,
                is_last: true,
            };
        }
        let mut records = Vec::new();
        self.add_rooms(rooms, &mut records);
        self.add_producers(sequencer, &mut records);
        self.add_cursors(sequencer, &mut records);
        self.finished = rooms.get(RoomId::new(self.next_room)).is_none()
            && self.producers.is_empty()
            && self.partial.is_none()
            && self.cursors.is_empty();
        let chunk = CheckpointChunk {
            begin: self.begin.get(),
            number: self.chunks,
            records: &records,
        };
        encode(kind::CHECKPOINT_CHUNK, RoomId::NONE, &chunk, &mut record);
        self.chunks += 1;
        self.bytes += record.len() as u64;
        Piece {
            record,
            is_last: false,
        }
    }

    fn add_rooms(&mut self, rooms: &RoomTable, records: &mut Vec<u8>) {
        while records.len() < CHUNK_BYTES_MAX {
            let id = RoomId::new(self.next_room);
            let Some(slot) = rooms.get(id) else { break };
            push_chunk_record(kind::ROOM, &room_record(rooms, id, slot), records);
            self.next_room += 1;
        }
    }

    fn add_producers(&mut self, sequencer: &Sequencer, records: &mut Vec<u8>) {
        while records.len() < CHUNK_BYTES_MAX {
            let next = self.partial.take();
            let Some((key, from)) = next.or_else(|| Some((self.producers.pop()?, 0))) else {
                break;
            };
            if let Some(producer) = sequencer.producers.get(&key) {
                let rest = add_producer(&key, producer, from, records);
                self.partial = rest.map(|number| (key, number));
            }
        }
    }

    fn add_cursors(&mut self, sequencer: &Sequencer, records: &mut Vec<u8>) {
        while records.len() < CHUNK_BYTES_MAX {
            let Some(key) = self.cursors.pop() else { break };
            if let Some(position) = sequencer.cursors.get(&key) {
                push_chunk_record(kind::CURSOR, &cursor_record(&key, Some(position)), records);
            }
        }
    }
}

/// What the log says of a room.
pub(super) fn room_record<'a>(rooms: &RoomTable, id: RoomId, slot: &'a RoomSlot) -> RoomRecord<'a> {
    let parent = rooms.parent(id);
    RoomRecord {
        room: id.get(),
        name: slot.name.as_str(),
        epoch: slot.epoch.get(),
        parent_epoch: parent.map_or(0, |parent| parent.epoch.get()),
        fork: parent.map_or(0, |parent| parent.fork.get()),
        first: slot.first.get(),
        head: slot.head.get(),
        last_time: slot.last_time.get(),
        last_at: slot.last_at,
    }
}

/// What the log says of a cursor.
pub(super) fn cursor_record(
    key: &CursorKey,
    position: Option<broker_proto::Position>,
) -> CursorRecord<'_> {
    let at = position.unwrap_or(broker_proto::Position::NONE);
    CursorRecord {
        room: key.room.get(),
        name: &key.name,
        present: position.is_some(),
        epoch: at.epoch.get(),
        seq: at.seq.get(),
    }
}

/// What the log says of numbers that were stored.
pub(super) fn run_record<'a>(
    key: &'a ProducerKey,
    claimed: bool,
    used: i64,
    run: Run,
) -> ProducerRunRecord<'a> {
    ProducerRunRecord {
        sender: key.sender.as_str(),
        producer: *key.producer.as_bytes(),
        claimed,
        used,
        room: run.room.get(),
        first_number: run.first,
        count: run.count,
        first_seq: run.seq.get(),
    }
}

/// Adds the runs of a producer from a number on; gives the number that the next piece begins with
/// when not all of them fit. What changes meanwhile is in the log behind the beginning anyway.
fn add_producer(
    key: &ProducerKey,
    producer: &Producer,
    from: u64,
    records: &mut Vec<u8>,
) -> Option<u64> {
    for run in producer.runs.iter().filter(|run| run.first >= from) {
        if records.len() >= CHUNK_BYTES_MAX {
            return Some(run.first);
        }
        let record = run_record(key, producer.claimed, producer.used.get(), *run);
        push_chunk_record(kind::PRODUCER_RUN, &record, records);
    }
    None
}
