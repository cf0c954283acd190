//! Records that are not messages: rooms, producers, cursors, checkpoints.
//!
//! They have the same fixed head as a message's record, with time 0 and, in place of a seq, the
//! position of the batch that holds them: a record that a disk wrote to the wrong place is not taken
//! for one that belongs there. Their payload is one frozen postcard struct. A kind that is not known is kept and skipped, unless its critical bit
//! says that the store cannot be understood without it.

use broker_proto::record::{RECORD_FIXED_BYTES, RECORD_LENGTH_END, RecordHead};
use broker_proto::{Micros, RoomId, Seq};
use postcard::ser_flavors::Flavor;
use serde::{Deserialize, Serialize};

use super::bytes::{Fields, crc32c, put};
use super::position::LogPosition;
use super::storage::AlignedBuf;

/// The kinds of records; frozen numbers.
pub(crate) mod kind {
    pub(crate) const MESSAGE: u16 = broker_proto::record::KIND_MESSAGE;
    pub(crate) const ROOM: u16 = 2;
    pub(crate) const PRODUCER_RUN: u16 = 3;
    pub(crate) const PRODUCER_DROP: u16 = 4;
    pub(crate) const CURSOR: u16 = 5;
    pub(crate) const CHECKPOINT_CHUNK: u16 = 8;
    pub(crate) const CHECKPOINT_END: u16 = 9;
    pub(crate) const DOUBT: u16 = 10;
    pub(crate) const IN_DOUBT: u16 = 11;
    pub(crate) const ROOM_STATE: u16 = 12;
    pub(crate) const ROOM_SETTINGS: u16 = 13;
    pub(crate) const ROOM_TRIM: u16 = 14;
    pub(crate) const ROOM_REMOVED: u16 = 15;
    pub(crate) const CURSOR_MOVE: u16 = 16;
    pub(crate) const STORE_SETTINGS: u16 = 17;
    /// Set in a kind that a reader must understand.
    pub(crate) const CRITICAL: u16 = broker_proto::record::KIND_CRITICAL;
}

/// A room's name and identity, as earlier versions wrote it; see [`RoomStateRecord`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RoomRecord<'a> {
    pub(crate) room: u32,
    pub(crate) name: &'a str,
    pub(crate) epoch: u64,
    pub(crate) parent_epoch: u64,
    pub(crate) fork: u64,
    pub(crate) first: u64,
    pub(crate) head: u64,
    pub(crate) last_time: i64,
    /// Where the newest message lies.
    pub(crate) last_at: u64,
}

/// A room's name, identity and extent. Written when the room is made, and again before its first message
/// in every further segment, so that each segment can be read on its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RoomStateRecord<'a> {
    pub(crate) room: u32,
    pub(crate) name: &'a str,
    pub(crate) epoch: u64,
    pub(crate) parent_epoch: u64,
    pub(crate) fork: u64,
    pub(crate) first: u64,
    pub(crate) head: u64,
    pub(crate) last_time: i64,
    /// Where the newest message lies.
    pub(crate) last_at: u64,
    /// Bytes of the records from `first` to `head`.
    pub(crate) bytes: u64,
    pub(crate) created: i64,
    /// Empty when it is not known.
    pub(crate) created_by: &'a str,
}

impl<'a> RoomStateRecord<'a> {
    /// Reads a record of either kind.
    pub(crate) fn parse(kind: u16, payload: &'a [u8]) -> Option<Self> {
        if kind == kind::ROOM_STATE {
            return postcard::from_bytes(payload).ok();
        }
        let old: RoomRecord<'a> = postcard::from_bytes(payload).ok()?;
        Some(Self {
            room: old.room,
            name: old.name,
            epoch: old.epoch,
            parent_epoch: old.parent_epoch,
            fork: old.fork,
            first: old.first,
            head: old.head,
            last_time: old.last_time,
            last_at: old.last_at,
            bytes: 0,
            created: 0,
            created_by: "",
        })
    }
}

/// Whether a record of this kind names a room.
pub(crate) fn names_room(kind: u16) -> bool {
    kind == kind::ROOM || kind == kind::ROOM_STATE
}

/// What is set of a room.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RoomSettingsRecord<'a> {
    pub(crate) room: u32,
    /// How often it was changed.
    pub(crate) version: u64,
    /// The list of `broker_proto::settings`.
    pub(crate) list: &'a [u8],
}

/// What is set of the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoreSettingsRecord<'a> {
    /// How often it was changed.
    pub(crate) version: u64,
    /// The list of `broker_proto::settings`.
    pub(crate) list: &'a [u8],
}

/// The oldest seq that a room still keeps, and how many bytes of records there are from it to the newest message before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RoomTrimRecord {
    pub(crate) room: u32,
    pub(crate) first: u64,
    pub(crate) bytes: u64,
}

/// A room that was removed: its number is never used again, its name may be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RoomRemovedRecord {
    pub(crate) room: u32,
}

/// Numbers of a producer that were stored in this batch, or before, in a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProducerRunRecord<'a> {
    pub(crate) sender: &'a str,
    pub(crate) producer: [u8; 16],
    pub(crate) claimed: bool,
    pub(crate) used: i64,
    pub(crate) room: u32,
    pub(crate) first_number: u64,
    pub(crate) count: u32,
    pub(crate) first_seq: u64,
    /// Whether what was known of the producer before is void: its numbers begin anew after it was
    /// forgotten, which the log does not tell.
    pub(crate) begins: bool,
}

/// A producer that will never resend anything.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProducerDropRecord<'a> {
    pub(crate) sender: &'a str,
    pub(crate) producer: [u8; 16],
}

/// Where a cursor stands now, and when it was moved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CursorMoveRecord<'a> {
    pub(crate) room: u32,
    pub(crate) name: &'a str,
    pub(crate) present: bool,
    pub(crate) epoch: u64,
    pub(crate) seq: u64,
    pub(crate) moved: i64,
}

/// The same, as earlier versions wrote it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CursorRecord<'a> {
    pub(crate) room: u32,
    pub(crate) name: &'a str,
    pub(crate) present: bool,
    pub(crate) epoch: u64,
    pub(crate) seq: u64,
}

/// Part of a checkpoint: records as above, one after the other, each `u16 kind, u32 length, bytes`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CheckpointChunk<'a> {
    /// Where this checkpoint begins: replay goes on from there.
    pub(crate) begin: u64,
    /// Which chunk, from 0.
    pub(crate) number: u32,
    pub(crate) records: &'a [u8],
}

/// The end of a checkpoint: from here on it counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CheckpointEnd {
    pub(crate) begin: u64,
    pub(crate) chunks: u32,
    pub(crate) rooms: u64,
}

/// A batch that had been acknowledged could not be read at all: which rooms it held is not known,
/// so every room that nothing later proves goes on [`DOUBT_SEQS`] higher.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DoubtRecord {
    /// Where the damage ends; rooms with a message after it are sure of their seqs.
    pub(crate) upto: u64,
}

/// Messages of one sender in one room that can be read, while the record that told which numbers they
/// are is lost. With room 0 and no sender: there are more than are remembered, and the one message
/// says no more than the time that none of them is newer than.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct InDoubtRecord<'a> {
    pub(crate) sender: &'a str,
    pub(crate) room: u32,
    pub(crate) messages: Vec<InDoubtMessage>,
}

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct InDoubtMessage {
    pub(crate) seq: u64,
    /// When it was stored.
    pub(crate) time: i64,
    /// Bytes of the payload.
    pub(crate) length: u32,
    /// CRC of the payload.
    pub(crate) crc: u32,
}

/// How far seqs jump after a doubt: more than one batch can hold.
pub(crate) const DOUBT_SEQS: u64 = 1 << 20;

/// Encodes one state record, fixed head and payload.
pub(crate) fn encode<T: Serialize>(kind: u16, room: RoomId, payload: &T, out: &mut Vec<u8>) {
    let start = out.len();
    out.resize(start + RECORD_FIXED_BYTES, 0);
    // Every publish brings a record, so it must not need a buffer of its own. It cannot fail: see `Sink`.
    let _ = postcard::serialize_with_flavor::<T, _, ()>(payload, Sink(out));
    finish(kind, room, out.get_mut(start..).unwrap_or_default());
}

/// Lets postcard write at the end of a buffer that grows.
struct Sink<'a>(&'a mut Vec<u8>);

impl Flavor for Sink<'_> {
    type Output = ();

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.push(byte);
        Ok(())
    }

    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

fn finish(kind: u16, room: RoomId, record: &mut [u8]) {
    let length = u32::try_from(record.len() - RECORD_LENGTH_END).unwrap_or(u32::MAX);
    let payload_crc = crc32c(&[record.get(RECORD_FIXED_BYTES..).unwrap_or_default()]);
    put(record, 4, &kind.to_le_bytes());
    put(record, 8, &room.get().to_le_bytes());
    put(record, 12, &length.to_le_bytes());
    put(record, 32, &payload_crc.to_le_bytes());
    let crc = crc32c(&[record.get(4..RECORD_FIXED_BYTES).unwrap_or_default()]);
    put(record, 0, &crc.to_le_bytes());
}

/// Says in an encoded state record which batch it belongs to.
pub(crate) fn stamp(record: &mut [u8], at: LogPosition) {
    put(record, 16, &at.get().to_le_bytes());
    let crc = crc32c(&[record.get(4..RECORD_FIXED_BYTES).unwrap_or_default()]);
    put(record, 0, &crc.to_le_bytes());
}

/// The head of a message's record, ready to be followed by message head and payload.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MessageHead<'a> {
    pub(crate) room: RoomId,
    pub(crate) seq: Seq,
    pub(crate) time: Micros,
    pub(crate) payload_crc: u32,
    pub(crate) payload_bytes: usize,
    /// The parts of the message head: what the session stamped, and the publisher's extensions.
    pub(crate) head: &'a [u8],
    pub(crate) extensions: &'a [u8],
}

impl MessageHead<'_> {
    /// The fixed bytes of the record, without its checksum.
    fn fixed(&self) -> [u8; RECORD_FIXED_BYTES] {
        let head_bytes = self.head.len() + self.extensions.len();
        let length = RECORD_FIXED_BYTES - RECORD_LENGTH_END + head_bytes + self.payload_bytes;
        let fixed = RecordHead {
            crc: 0,
            kind: kind::MESSAGE,
            head_bytes: u16::try_from(head_bytes).unwrap_or(u16::MAX),
            room: self.room,
            length: u32::try_from(length).unwrap_or(u32::MAX),
            seq: self.seq,
            time: self.time,
            payload_crc: self.payload_crc,
        };
        fixed.to_bytes()
    }

    /// Appends the record. The checksum is taken of the bytes where they lie: three short pieces, one
    /// after the other, cost it twice the time.
    pub(crate) fn write(&self, payload: &[u8], buf: &mut AlignedBuf) {
        let start = buf.len();
        let head_bytes = RECORD_FIXED_BYTES + self.head.len() + self.extensions.len();
        buf.reserve(head_bytes + payload.len());
        buf.extend_from_slice(&self.fixed());
        buf.extend_from_slice(self.head);
        buf.extend_from_slice(self.extensions);
        let record = buf.as_mut_slice().get_mut(start..).unwrap_or_default();
        stamp_crc(record);
        buf.extend_from_slice(payload);
    }

    /// As [`Self::write`], into memory of any kind.
    pub(crate) fn write_to_vec(&self, payload: &[u8], out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&self.fixed());
        out.extend_from_slice(self.head);
        out.extend_from_slice(self.extensions);
        stamp_crc(out.get_mut(start..).unwrap_or_default());
        out.extend_from_slice(payload);
    }
}

/// Puts the checksum of a record's head into it.
fn stamp_crc(head: &mut [u8]) {
    let crc = crc32c(&[head.get(4..).unwrap_or_default()]);
    put(head, 0, &crc.to_le_bytes());
}

/// A record as it lies in a batch, with its own checksum verified.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RawRecord<'a> {
    pub(crate) head: RecordHead,
    pub(crate) bytes: &'a [u8],
}

impl<'a> RawRecord<'a> {
    /// Takes the record at the front of `bytes`; `None` when its length or checksum is wrong.
    pub(crate) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let fixed: &[u8; RECORD_FIXED_BYTES] = bytes.first_chunk()?;
        let head = RecordHead::parse(fixed);
        let total = RECORD_LENGTH_END.checked_add(head.length as usize)?;
        let covered = RECORD_FIXED_BYTES.checked_add(usize::from(head.head_bytes))?;
        if covered > total {
            return None;
        }
        let bytes = bytes.get(..total)?;
        (head.crc == crc32c(&[bytes.get(4..covered)?])).then_some(Self { head, bytes })
    }

    /// Takes the state record at the front of `bytes`; `None` unless all of it is right and it belongs
    /// to the batch at this position.
    pub(crate) fn parse_state(bytes: &'a [u8], at: LogPosition) -> Option<Self> {
        Self::parse(bytes)
            .filter(|record| record.head.seq.get() == at.get() && record.payload_is_whole())
    }

    /// The payload, without its checksum being looked at.
    pub(crate) fn payload(&self) -> &'a [u8] {
        self.bytes
            .get(RECORD_FIXED_BYTES + usize::from(self.head.head_bytes)..)
            .unwrap_or_default()
    }

    /// Whether the payload is as it was written.
    pub(crate) fn payload_is_whole(&self) -> bool {
        self.head.payload_crc == crc32c(&[self.payload()])
    }
}

/// Splits the records of a checkpoint chunk.
pub(crate) fn chunk_records(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let fields = Fields(bytes.get(..6)?);
        let (kind, length) = (fields.u16(0), fields.u32(2) as usize);
        let payload = bytes.get(6..6_usize.checked_add(length)?)?;
        bytes = bytes.get(6 + length..)?;
        Some((kind, payload))
    })
}

/// Appends one record to a checkpoint chunk.
pub(crate) fn push_chunk_record<T: Serialize>(kind: u16, payload: &T, out: &mut Vec<u8>) {
    if let Ok(bytes) = postcard::to_allocvec(payload) {
        out.extend_from_slice(&kind.to_le_bytes());
        out.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes());
        out.extend_from_slice(&bytes);
    }
}
