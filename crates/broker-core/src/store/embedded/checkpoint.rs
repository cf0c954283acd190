//! Writes a checkpoint, a piece at a time, while publishing goes on.
//!
//! A checkpoint begins at a place of the log and copies the state that rooms, producers and cursors
//! have at the moment each piece is written. It is *fuzzy*: pieces are of different moments, but
//! none older than the beginning, so pieces plus a replay from the beginning give the state at the
//! end.

use broker_proto::settings::SETTINGS_BYTES_MAX;
use broker_proto::{RoomId, RoomName, RoomSettings, SenderName, StoreSettings};

use super::super::cursors::{CursorKey, Stand};
use super::super::in_doubt::InDoubt;
use super::super::producers::{Producer, Run};
use super::super::rooms::{Parent, RoomTable, Versioned};
use super::super::sequencer::Sequencer;
use super::super::{ProducerKey, RoomSlot};
use crate::log::position::LogPosition;
use crate::log::state::{
    CheckpointChunk, CheckpointEnd, CursorMoveRecord, InDoubtMessage, InDoubtRecord,
    ProducerRunRecord, RoomRemovedRecord, RoomSettingsRecord, RoomStateRecord, StoreSettingsRecord,
    encode, kind, push_chunk_record,
};

/// Largest piece, in bytes.
const CHUNK_BYTES_MAX: usize = 256 << 10;
/// What one more record takes at most, but for settings.
pub(super) const RECORD_BYTES_MAX: usize = 1024;
/// What the record of a room's settings takes at most.
pub(super) const SETTINGS_RECORD_BYTES_MAX: usize = SETTINGS_BYTES_MAX + RECORD_BYTES_MAX;
/// Messages in doubt of one record, so that it stays below that.
const IN_DOUBT_MESSAGES: usize = 24;

/// A checkpoint in the making.
#[derive(Debug)]
pub(super) struct Checkpoint {
    pub(super) begin: LogPosition,
    chunks: u32,
    bytes: u64,
    next_room: u32,
    producers: Vec<ProducerKey>,
    /// Where the last one of these goes on, when its runs did not fit into one piece.
    from_number: u64,
    cursors: Vec<CursorKey>,
    /// Records of messages in doubt; they do not change after the start, but that they expire.
    in_doubt: Vec<Vec<u8>>,
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
    pub(super) const PIECE_BYTES_MAX: usize =
        CHUNK_BYTES_MAX + SETTINGS_RECORD_BYTES_MAX + 2 * RECORD_BYTES_MAX;

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
            from_number: 0,
            cursors: sequencer
                .cursors
                .iter()
                .map(|(key, _)| key.clone())
                .collect(),
            in_doubt: in_doubt_chunk_records(&sequencer.in_doubt),
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
        if self.chunks == 0 && sequencer.settings.version > 0 {
            with_store_settings(&sequencer.settings, |record| {
                push_chunk_record(kind::STORE_SETTINGS, record, &mut records);
            });
        }
        self.add_rooms(rooms, &mut records);
        self.add_producers(sequencer, &mut records);
        self.add_cursors(sequencer, &mut records);
        self.add_in_doubt(&mut records);
        self.finished = self.next_room as usize > rooms.numbers()
            && self.producers.is_empty()
            && self.cursors.is_empty()
            && self.in_doubt.is_empty();
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
        while records.len() < CHUNK_BYTES_MAX && self.next_room as usize <= rooms.numbers() {
            let id = RoomId::new(self.next_room);
            if let Some(slot) = rooms.get(id) {
                push_chunk_record(kind::ROOM_STATE, &room_record(rooms, id, slot), records);
            } else {
                let removed = RoomRemovedRecord { room: id.get() };
                push_chunk_record(kind::ROOM_REMOVED, &removed, records);
            }
            if let Some(set) = rooms.settings(id) {
                with_settings(id, set, |record| {
                    push_chunk_record(kind::ROOM_SETTINGS, record, records);
                });
            }
            self.next_room += 1;
        }
    }

    fn add_producers(&mut self, sequencer: &Sequencer, records: &mut Vec<u8>) {
        while records.len() < CHUNK_BYTES_MAX {
            let Some(key) = self.producers.last() else {
                break;
            };
            let rest = sequencer.producers.get(key);
            match rest.and_then(|producer| add_runs(key, producer, self.from_number, records)) {
                Some(next) => self.from_number = next,
                None => {
                    self.producers.pop();
                    self.from_number = 0;
                }
            }
        }
    }

    fn add_cursors(&mut self, sequencer: &Sequencer, records: &mut Vec<u8>) {
        while records.len() < CHUNK_BYTES_MAX {
            let Some(key) = self.cursors.pop() else { break };
            if let Some(stand) = sequencer.cursors.stand(&key) {
                push_chunk_record(
                    kind::CURSOR_MOVE,
                    &cursor_record(&key, Some(stand)),
                    records,
                );
            }
        }
    }

    fn add_in_doubt(&mut self, records: &mut Vec<u8>) {
        while records.len() < CHUNK_BYTES_MAX {
            let Some(record) = self.in_doubt.pop() else {
                break;
            };
            records.extend_from_slice(&record);
        }
    }
}

/// What the log says of a room.
pub(super) fn room_record<'a>(
    rooms: &'a RoomTable,
    id: RoomId,
    slot: &RoomSlot,
) -> RoomStateRecord<'a> {
    let maker = rooms.maker(id);
    record_of(id, rooms.name(id), maker, slot, rooms.parent(id))
}

/// What the log says of a room that is being made.
pub(super) fn new_room_record<'a>(
    id: RoomId,
    name: &'a RoomName,
    maker: &'a SenderName,
    slot: &RoomSlot,
) -> RoomStateRecord<'a> {
    record_of(id, name, Some(maker), slot, None)
}

fn record_of<'a>(
    id: RoomId,
    name: &'a str,
    maker: Option<&'a SenderName>,
    slot: &RoomSlot,
    parent: Option<Parent>,
) -> RoomStateRecord<'a> {
    RoomStateRecord {
        room: id.get(),
        name,
        epoch: slot.epoch.get(),
        parent_epoch: parent.map_or(0, |parent| parent.epoch.get()),
        fork: parent.map_or(0, |parent| parent.fork.get()),
        first: slot.first.get(),
        head: slot.head.get(),
        last_time: slot.last_time.get(),
        last_at: slot.last_at,
        bytes: slot.bytes,
        created: slot.created.get(),
        created_by: maker.map_or("", |maker| maker.as_str()),
    }
}

/// What the log says of a room's settings.
pub(super) fn with_settings<R>(
    id: RoomId,
    set: &Versioned<RoomSettings>,
    take: impl FnOnce(&RoomSettingsRecord<'_>) -> R,
) -> R {
    let mut list = Vec::new();
    set.settings.encode(&mut list);
    take(&RoomSettingsRecord {
        room: id.get(),
        version: set.version,
        list: &list,
    })
}

/// What the log says of the store's settings.
pub(super) fn with_store_settings<R>(
    set: &Versioned<StoreSettings>,
    take: impl FnOnce(&StoreSettingsRecord<'_>) -> R,
) -> R {
    let mut list = Vec::new();
    set.settings.encode(&mut list);
    take(&StoreSettingsRecord {
        version: set.version,
        list: &list,
    })
}

/// What the log says of a cursor.
pub(super) fn cursor_record(key: &CursorKey, stand: Option<Stand>) -> CursorMoveRecord<'_> {
    let at = stand.map_or(broker_proto::Position::NONE, |stand| stand.at);
    CursorMoveRecord {
        room: key.room.get(),
        name: &key.name,
        present: stand.is_some(),
        epoch: at.epoch.get(),
        seq: at.seq.get(),
        moved: stand.map_or(0, |stand| stand.moved.get()),
    }
}

/// What the log says of messages in doubt: all of them, or those that no record tells of yet.
fn in_doubt_records(in_doubt: &InDoubt, only_untold: bool) -> Vec<InDoubtRecord<'_>> {
    let mut records: Vec<InDoubtRecord<'_>> = Vec::new();
    for (message, time) in in_doubt.list(only_untold) {
        let (sender, room) = (message.sender.as_str(), message.room.get());
        let told = InDoubtMessage {
            seq: message.seq.get(),
            time: time.get(),
            length: message.length,
            crc: message.crc,
        };
        match records.last_mut() {
            Some(last)
                if last.sender == sender
                    && last.room == room
                    && last.messages.len() < IN_DOUBT_MESSAGES =>
            {
                last.messages.push(told);
            }
            _ => records.push(InDoubtRecord {
                sender,
                room,
                messages: vec![told],
            }),
        }
    }
    records.extend(in_doubt.more(only_untold).map(|time| InDoubtRecord {
        sender: "",
        room: 0,
        messages: vec![InDoubtMessage {
            seq: 0,
            time: time.get(),
            length: 0,
            crc: 0,
        }],
    }));
    records
}

fn in_doubt_chunk_records(in_doubt: &InDoubt) -> Vec<Vec<u8>> {
    let chunk_record = |record| {
        let mut out = Vec::new();
        push_chunk_record(kind::IN_DOUBT, &record, &mut out);
        out
    };
    let records = in_doubt_records(in_doubt, false);
    records.into_iter().map(chunk_record).collect()
}

/// The records that tell later leaders of the messages in doubt of which no record tells yet.
pub(super) fn untold_records(in_doubt: &InDoubt) -> Vec<Vec<u8>> {
    let state_record = |record| {
        let mut out = Vec::new();
        encode(kind::IN_DOUBT, RoomId::NONE, &record, &mut out);
        out
    };
    let records = in_doubt_records(in_doubt, true);
    records.into_iter().map(state_record).collect()
}

/// What the log says of numbers that were stored.
pub(super) fn run_record<'a>(
    key: &'a ProducerKey,
    claimed: bool,
    used: i64,
    run: Run,
    begins: bool,
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
        begins,
    }
}

/// Adds the runs of a producer from a number on; gives the number to go on with in the next piece,
/// unless all are told. What changes in between is in the log behind the beginning.
fn add_runs(
    key: &ProducerKey,
    producer: &Producer,
    from: u64,
    records: &mut Vec<u8>,
) -> Option<u64> {
    let mut begins = from == 0;
    for run in producer.runs.iter().filter(|run| run.first >= from) {
        if records.len() >= CHUNK_BYTES_MAX {
            return Some(run.first);
        }
        let used = producer.used.get();
        let record = run_record(key, producer.claimed, used, *run, begins);
        push_chunk_record(kind::PRODUCER_RUN, &record, records);
        begins = false;
    }
    None
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]
    use broker_proto::{ProducerId, SenderName, Seq};

    use super::*;
    use crate::log::state::{RawRecord, chunk_records};

    #[test]
    fn a_producer_with_very_many_runs_is_told_in_several_pieces() {
        let mut sequencer = Sequencer::new(1);
        let key = ProducerKey {
            sender: SenderName::parse(&"a".repeat(64)).unwrap(),
            producer: ProducerId::new([7; 16]),
        };
        for number in 1..=10_000_u64 {
            // No two of them join.
            sequencer.producers.entry(&key).push(Run {
                first: number,
                count: 1,
                room: RoomId::new(1),
                seq: Seq::new(number * 2),
            });
        }
        let mut checkpoint = Checkpoint::begin(LogPosition::START, &sequencer);
        let (mut pieces, mut numbers) = (0, Vec::new());
        loop {
            let piece = checkpoint.piece(&RoomTable::default(), &sequencer);
            assert!(piece.record.len() <= Checkpoint::PIECE_BYTES_MAX);
            if piece.is_last {
                break;
            }
            pieces += 1;
            let record = RawRecord::parse(&piece.record).unwrap();
            let chunk: CheckpointChunk<'_> = postcard::from_bytes(record.payload()).unwrap();
            for (_, payload) in chunk_records(chunk.records) {
                let run: ProducerRunRecord<'_> = postcard::from_bytes(payload).unwrap();
                assert_eq!(run.begins, numbers.is_empty());
                numbers.push(run.first_number);
            }
        }
        assert!(pieces > 1);
        assert_eq!(numbers, (1..=10_000).collect::<Vec<_>>());
    }
}
