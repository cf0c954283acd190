//! The layout of a footer: a head, a row for every room in the order of their numbers, and a row for every entry.
//!
//! ```text
//! head, 64 bytes: magic, crc, version, segment, generation, rooms, end, flags, marker
//! room, 48 bytes: number, entries, last seq, last time, previous, bytes, first entry
//! entry, 32 bytes: seq, place, time before, bytes before
//! ```
//!
//! The checksum is over everything. Once it is found right, rooms and entries are read where they lie.

use broker_proto::{Micros, RoomId, Seq};

use super::{Entries, Entry, Extent, RoomIndex};
use crate::log::bytes::{Fields, crc32c, put};
use crate::log::position::{LogPosition, Marker};
use crate::log::segment::SegmentName;
use crate::planted::{Bug, planted};

const MAGIC: [u8; 8] = *b"BRKRIDX\n";
const VERSION: u32 = 3;
const HEAD_BYTES: usize = 64;
pub(super) const ROOM_BYTES: usize = 48;
pub(super) const ENTRY_BYTES: usize = 32;
/// Set in the head of a footer when part of the segment could not be read.
const PARTIAL: u32 = 1;

/// The bytes of a footer that is believed, or none.
#[derive(Debug, Clone, Default)]
pub(super) struct Rows {
    bytes: Vec<u8>,
    rooms: usize,
}

/// The entries of one room.
#[derive(Debug, Clone, Copy)]
pub(super) struct EntryRows<'a>(&'a [u8]);

impl Rows {
    /// `None` unless every byte is right, and the footer is of this segment.
    pub(super) fn believe(bytes: Vec<u8>, name: SegmentName, marker: Marker) -> Option<Self> {
        let head = bytes.get(..HEAD_BYTES)?;
        let fields = Fields(head);
        let is_ours = head.get(..8)? == MAGIC
            && fields.u32(12) == VERSION
            && fields.u64(16) == name.id.0
            && fields.u32(24) == name.generation
            && fields.u64(48) == marker.0
            && (fields.u32(8) == footer_crc(head, bytes.get(HEAD_BYTES..)?)
                || planted(Bug::NoSpaceIgnoredOnIndex));
        let rooms = fields.u32(28) as usize;
        let rows_end = HEAD_BYTES.checked_add(rooms.checked_mul(ROOM_BYTES)?)?;
        let is_whole = rows_end <= bytes.len() || planted(Bug::NoSpaceIgnoredOnIndex);
        (is_ours && is_whole).then_some(Self { bytes, rooms })
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Up to where it tells of the segment.
    pub(super) fn end(&self) -> LogPosition {
        LogPosition::new(Fields(&self.bytes).u64(32))
    }

    pub(super) fn is_partial(&self) -> bool {
        Fields(&self.bytes).u32(40) & PARTIAL != 0
    }

    pub(super) fn room(&self, id: RoomId) -> Option<RoomIndex<'_>> {
        let rows = self.rows();
        let at = rows.partition_point(|row| number(row) < id);
        let row = rows.get(at)?;
        (number(row) == id).then(|| self.view(row))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (RoomId, RoomIndex<'_>)> {
        let rows = self.rows().iter();
        rows.map(|row| (number(row), self.view(row)))
    }

    fn rows(&self) -> &[[u8; ROOM_BYTES]] {
        let rows = self.bytes.get(HEAD_BYTES..).unwrap_or_default();
        let rows = rows.as_chunks().0;
        rows.get(..self.rooms).unwrap_or(rows)
    }

    fn view(&self, row: &[u8]) -> RoomIndex<'_> {
        let fields = Fields(row);
        let begin = HEAD_BYTES + self.rooms * ROOM_BYTES;
        let from = begin.saturating_add(fields.u32(40) as usize * ENTRY_BYTES);
        let upto = from.saturating_add(fields.u32(4) as usize * ENTRY_BYTES);
        RoomIndex {
            extent: Extent {
                last_seq: Seq::new(fields.u64(8)),
                last_time: Micros::new(fields.i64(16)),
                previous: LogPosition::new(fields.u64(24)),
                bytes: fields.u64(32),
            },
            entries: Entries::Kept(EntryRows(self.bytes.get(from..upto).unwrap_or_default())),
        }
    }
}

impl EntryRows<'_> {
    pub(super) fn len(self) -> usize {
        self.0.len() / ENTRY_BYTES
    }

    pub(super) fn get(self, at: usize) -> Option<Entry> {
        let from = at.checked_mul(ENTRY_BYTES)?;
        let fields = Fields(self.0.get(from..from + ENTRY_BYTES)?);
        Some(Entry {
            seq: Seq::new(fields.u64(0)),
            at: LogPosition::new(fields.u64(8)),
            time_before: Micros::new(fields.i64(16)),
            bytes_before: fields.u64(24),
        })
    }
}

fn number(row: &[u8]) -> RoomId {
    RoomId::new(Fields(row).u32(0))
}

/// The footer of a segment with these rooms, in the order of their numbers.
pub(super) fn encode(
    rooms: &[(RoomId, RoomIndex<'_>)],
    is_partial: bool,
    name: SegmentName,
    marker: Marker,
    end: LogPosition,
) -> Vec<u8> {
    let number = |n: usize| u32::try_from(n).unwrap_or(0).to_le_bytes();
    let mut bytes = vec![0; HEAD_BYTES];
    bytes.reserve(rooms.len() * (ROOM_BYTES + ENTRY_BYTES));
    let mut entries = 0;
    for (id, room) in rooms {
        let mut row = [0; ROOM_BYTES];
        put(&mut row, 0, &id.get().to_le_bytes());
        put(&mut row, 4, &number(room.entries.len()));
        put(&mut row, 8, &room.last_seq.get().to_le_bytes());
        put(&mut row, 16, &room.last_time.get().to_le_bytes());
        put(&mut row, 24, &room.previous.get().to_le_bytes());
        put(&mut row, 32, &room.bytes.to_le_bytes());
        put(&mut row, 40, &number(entries));
        bytes.extend_from_slice(&row);
        entries += room.entries.len();
    }
    for entry in rooms.iter().flat_map(|(_, room)| room.entries.iter()) {
        let mut row = [0; ENTRY_BYTES];
        put(&mut row, 0, &entry.seq.get().to_le_bytes());
        put(&mut row, 8, &entry.at.get().to_le_bytes());
        put(&mut row, 16, &entry.time_before.get().to_le_bytes());
        put(&mut row, 24, &entry.bytes_before.to_le_bytes());
        bytes.extend_from_slice(&row);
    }
    let mut head = [0; HEAD_BYTES];
    put(&mut head, 0, &MAGIC);
    put(&mut head, 12, &VERSION.to_le_bytes());
    put(&mut head, 16, &name.id.0.to_le_bytes());
    put(&mut head, 24, &name.generation.to_le_bytes());
    put(&mut head, 28, &number(rooms.len()));
    put(&mut head, 32, &end.get().to_le_bytes());
    let flags = if is_partial { PARTIAL } else { 0 };
    put(&mut head, 40, &flags.to_le_bytes());
    put(&mut head, 48, &marker.0.to_le_bytes());
    let crc = footer_crc(&head, bytes.get(HEAD_BYTES..).unwrap_or_default());
    put(&mut head, 8, &crc.to_le_bytes());
    put(&mut bytes, 0, &head);
    bytes
}

fn footer_crc(head: &[u8], rest: &[u8]) -> u32 {
    let before = head.get(..8).unwrap_or_default();
    let after = head.get(12..).unwrap_or_default();
    crc32c(&[before, after, rest])
}
