//! Which rooms a segment holds, and where.
//!
//! The index of the active segment grows in memory as batches are written. When the segment is
//! sealed it is kept in a *footer*, a file beside the segment. A footer only helps to find things:
//! it is never synced, it is believed only if its checksum is right, and it is made again from the
//! segment when it is not there. An *early* footer tells of the active segment up to a place within it
//! (see [`early`](super::early)).
//!
//! Per room the index keeps an entry for the first batch, and further ones no closer than
//! [`ENTRY_SPACING`] bytes apart, so its size follows the size of the segment and not the number of
//! messages.

use std::collections::HashMap;

use broker_proto::{Micros, RoomId, Seq};

use super::batch::BatchRun;
use super::bytes::{Fields, crc32c, put};
use super::position::{LogPosition, Marker};
use super::segment::SegmentName;
use super::state_record::{RawRecord, RoomStateRecord, names_room};
use crate::planted::{Bug, planted};

/// Bytes of log between two entries of one room.
pub(crate) const ENTRY_SPACING: u64 = 32 << 10;

/// Stands for "the latest time before", when that is not known.
const UNKNOWN_TIME: Micros = Micros::new(i64::MIN);

const MAGIC: [u8; 8] = *b"BRKRIDX\n";
const VERSION: u32 = 2;
const HEAD_BYTES: usize = 64;
const ROOM_BYTES: usize = 48;
const ENTRY_BYTES: usize = 32;
/// Set in the head of a footer when part of the segment could not be read.
const PARTIAL: u32 = 1;

/// A place to begin reading a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    /// The first seq at or after this place.
    pub(crate) seq: Seq,
    /// The batch.
    pub(crate) at: LogPosition,
    /// The latest time of any message of the room before this place.
    pub(crate) time_before: Micros,
    /// Bytes of the room's records in this segment before this place.
    pub(crate) bytes_before: u64,
}

/// One room within one segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RoomIndex {
    pub(crate) last_seq: Seq,
    /// The latest time of any message of the room up to the end of this segment.
    pub(crate) last_time: Micros,
    /// Where the room's newest message before this segment lies; `NONE` if this segment has its
    /// first.
    pub(crate) previous: LogPosition,
    /// Bytes of the room's records in this segment.
    pub(crate) bytes: u64,
    pub(crate) entries: Vec<Entry>,
}

impl RoomIndex {
    /// Bytes of the records of which a reader can still ask, when it may ask for none before `first`: at
    /// least these, as what is known of places is coarser.
    pub(crate) fn bytes_from(&self, first: Seq) -> u64 {
        if first > self.last_seq {
            return 0;
        }
        let before = self.entry_for(first);
        let before = before.map_or(0, |(entry, _)| entry.bytes_before);
        self.bytes.saturating_sub(before)
    }

    /// The first seq of the room in this segment.
    pub(crate) fn first_seq(&self) -> Seq {
        self.entries.first().map_or(Seq::NONE, |entry| entry.seq)
    }

    /// Whether the times before this segment are known. They are not where the segment holds the
    /// room's messages without having named the room, as in a tail that was copied: then what the
    /// entries say of times may be too low.
    pub(crate) fn knows_times(&self) -> bool {
        self.previous == LogPosition::NONE
            || self
                .entries
                .first()
                .is_some_and(|entry| entry.time_before != UNKNOWN_TIME)
    }

    /// The last entry at or before a seq, and where the next one lies.
    pub(crate) fn entry_for(&self, seq: Seq) -> Option<(Entry, Option<LogPosition>)> {
        let after = self.entries.partition_point(|entry| entry.seq <= seq);
        self.entry_and_next(after.checked_sub(1)?)
    }

    /// The last entry before which no message has this time, and where the next one lies.
    pub(crate) fn entry_for_time(&self, time: Micros) -> Option<(Entry, Option<LogPosition>)> {
        let after = self
            .entries
            .partition_point(|entry| entry.time_before < time);
        self.entry_and_next(after.checked_sub(1)?)
    }

    /// The last entry behind which there are more than so many bytes of records, with the place and the seq of the next one.
    pub(crate) fn entry_exceeding(
        &self,
        bytes: u64,
    ) -> Option<(Entry, Option<(LogPosition, Seq)>)> {
        let after = self
            .entries
            .partition_point(|entry| self.bytes.saturating_sub(entry.bytes_before) > bytes);
        let entry = self.entries.get(after.checked_sub(1)?)?;
        let next = self.entries.get(after).map(|next| (next.at, next.seq));
        Some((*entry, next))
    }

    fn entry_and_next(&self, at: usize) -> Option<(Entry, Option<LogPosition>)> {
        Some((
            *self.entries.get(at)?,
            self.entries.get(at + 1).map(|next| next.at),
        ))
    }
}

/// All rooms within one segment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct SegmentIndex {
    rooms: HashMap<RoomId, RoomIndex>,
    /// Whether part of the segment could not be read, so that there may be more than it tells.
    is_partial: bool,
}

impl SegmentIndex {
    /// Notes the messages of one room in one batch. `previous` and `time_before` tell of the room
    /// before this batch.
    pub(crate) fn add(
        &mut self,
        run: &BatchRun,
        at: LogPosition,
        time: Micros,
        previous: LogPosition,
        time_before: Micros,
    ) {
        let room = self.rooms.entry(run.room).or_insert_with(|| RoomIndex {
            last_seq: Seq::NONE,
            last_time: time_before,
            previous,
            bytes: 0,
            entries: Vec::new(),
        });
        if room
            .entries
            .last()
            .is_none_or(|last| at.since(last.at) >= ENTRY_SPACING)
        {
            room.entries.push(Entry {
                seq: run.first_seq,
                at,
                time_before: room.last_time,
                bytes_before: room.bytes,
            });
        }
        room.bytes += u64::from(run.bytes);
        room.last_seq = run.last_seq();
        room.last_time = room.last_time.max(time);
    }

    pub(crate) fn room(&self, room: RoomId) -> Option<&RoomIndex> {
        self.rooms.get(&room)
    }

    /// All rooms, in no order.
    pub(crate) fn rooms(&self) -> impl Iterator<Item = (RoomId, &RoomIndex)> {
        self.rooms.iter().map(|(id, room)| (*id, room))
    }

    /// Whether the segment may hold more than this tells.
    pub(crate) fn is_partial(&self) -> bool {
        self.is_partial
    }

    /// What its footer takes at least, found out without looking at every room.
    pub(crate) fn bytes_least(&self) -> usize {
        self.rooms.len() * (ROOM_BYTES + ENTRY_BYTES)
    }

    /// Roughly how many bytes of memory it takes.
    pub(crate) fn memory_bytes(&self) -> usize {
        let entries: usize = self.rooms.values().map(|room| room.entries.len()).sum();
        self.rooms.len() * (ROOM_BYTES + 32) + entries * ENTRY_BYTES
    }

    /// The footer of a segment of which this is everything before `end`.
    pub(crate) fn encode(&self, name: SegmentName, marker: Marker, end: LogPosition) -> Vec<u8> {
        let mut ids: Vec<RoomId> = self.rooms.keys().copied().collect();
        ids.sort_unstable();
        let mut rooms = Vec::with_capacity(ids.len() * ROOM_BYTES);
        let mut entries = Vec::new();
        for id in &ids {
            let Some(room) = self.rooms.get(id) else {
                continue;
            };
            let mut row = [0; ROOM_BYTES];
            put(&mut row, 0, &id.get().to_le_bytes());
            put(
                &mut row,
                4,
                &u32::try_from(room.entries.len()).unwrap_or(0).to_le_bytes(),
            );
            put(&mut row, 8, &room.last_seq.get().to_le_bytes());
            put(&mut row, 16, &room.last_time.get().to_le_bytes());
            put(&mut row, 24, &room.previous.get().to_le_bytes());
            put(&mut row, 32, &room.bytes.to_le_bytes());
            rooms.extend_from_slice(&row);
            for entry in &room.entries {
                let mut row = [0; ENTRY_BYTES];
                put(&mut row, 0, &entry.seq.get().to_le_bytes());
                put(&mut row, 8, &entry.at.get().to_le_bytes());
                put(&mut row, 16, &entry.time_before.get().to_le_bytes());
                put(&mut row, 24, &entry.bytes_before.to_le_bytes());
                entries.extend_from_slice(&row);
            }
        }
        let mut head = [0; HEAD_BYTES];
        put(&mut head, 0, &MAGIC);
        put(&mut head, 12, &VERSION.to_le_bytes());
        put(&mut head, 16, &name.id.0.to_le_bytes());
        put(&mut head, 24, &name.generation.to_le_bytes());
        put(
            &mut head,
            28,
            &u32::try_from(ids.len()).unwrap_or(0).to_le_bytes(),
        );
        put(&mut head, 32, &end.get().to_le_bytes());
        let flags = if self.is_partial { PARTIAL } else { 0 };
        put(&mut head, 40, &flags.to_le_bytes());
        put(&mut head, 48, &marker.0.to_le_bytes());
        let crc = footer_crc(&head, &rooms, &entries);
        put(&mut head, 8, &crc.to_le_bytes());
        [&head[..], &rooms, &entries].concat()
    }

    /// Reads the footer of the segment `name` with this marker, and up to where it tells; `None` unless
    /// every byte is right. The marker tells a file of that name from another one: in a directory that
    /// was put together from several states of the store.
    pub(crate) fn decode(
        bytes: &[u8],
        name: SegmentName,
        marker: Marker,
    ) -> Option<(Self, LogPosition)> {
        let head = bytes.get(..HEAD_BYTES)?;
        let fields = Fields(head);
        let ours = head.get(..8)? == MAGIC
            && fields.u32(12) == VERSION
            && fields.u64(16) == name.id.0
            && fields.u32(24) == name.generation
            && fields.u64(48) == marker.0
            && (fields.u32(8) == footer_crc(head, bytes.get(HEAD_BYTES..)?, &[])
                || planted(Bug::NoSpaceIgnoredOnIndex));
        if !ours {
            return None;
        }
        let count = fields.u32(28) as usize;
        let mut rows_end = HEAD_BYTES.checked_add(count.checked_mul(ROOM_BYTES)?)?;
        if planted(Bug::NoSpaceIgnoredOnIndex) {
            rows_end = rows_end.min(bytes.len());
        }
        let mut entries = bytes.get(rows_end..)?.chunks_exact(ENTRY_BYTES).map(|row| {
            let fields = Fields(row);
            Entry {
                seq: Seq::new(fields.u64(0)),
                at: LogPosition::new(fields.u64(8)),
                time_before: Micros::new(fields.i64(16)),
                bytes_before: fields.u64(24),
            }
        });
        let mut rooms = HashMap::with_capacity(count);
        for row in bytes.get(HEAD_BYTES..rows_end)?.chunks_exact(ROOM_BYTES) {
            let fields = Fields(row);
            let room = RoomIndex {
                last_seq: Seq::new(fields.u64(8)),
                last_time: Micros::new(fields.i64(16)),
                previous: LogPosition::new(fields.u64(24)),
                bytes: fields.u64(32),
                entries: entries.by_ref().take(fields.u32(4) as usize).collect(),
            };
            rooms.insert(RoomId::new(fields.u32(0)), room);
        }
        let is_partial = fields.u32(40) & PARTIAL != 0;
        let end = LogPosition::new(fields.u64(32));
        Some((Self { rooms, is_partial }, end))
    }
}

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

fn footer_crc(head: &[u8], rooms: &[u8], entries: &[u8]) -> u32 {
    crc32c(&[
        head.get(..8).unwrap_or_default(),
        head.get(12..).unwrap_or_default(),
        rooms,
        entries,
    ])
}

#[cfg(test)]
mod tests {
    #![expect(
        clippy::unwrap_used,
        clippy::indexing_slicing,
        reason = "a test may panic"
    )]
    use super::super::segment::SegmentId;
    use super::*;

    fn index() -> (SegmentIndex, SegmentName) {
        let mut index = SegmentIndex::default();
        for n in 0..100_u64 {
            let run = BatchRun {
                room: RoomId::new(1 + u32::try_from(n % 3).unwrap()),
                offset: 72,
                bytes: 400,
                count: 4,
                first_seq: Seq::new(n / 3 * 4 + 1),
            };
            let time = i64::try_from(n).unwrap();
            index.add(
                &run,
                LogPosition::new(n * 9000),
                Micros::new(time),
                LogPosition::NONE,
                Micros::new(0),
            );
        }
        (
            index,
            SegmentName {
                id: SegmentId(4),
                generation: 0,
            },
        )
    }

    #[test]
    fn entries_are_spaced_and_lead_to_their_seqs() {
        let (index, _) = index();
        let room = index.room(RoomId::new(1)).unwrap();
        assert!(
            room.entries
                .windows(2)
                .all(|pair| pair[1].at.since(pair[0].at) >= ENTRY_SPACING)
        );
        let (entry, next) = room.entry_for(Seq::new(50)).unwrap();
        assert!(entry.seq <= Seq::new(50) && next.unwrap() > entry.at);
        let (entry, _) = room.entry_for_time(Micros::new(50)).unwrap();
        assert!(entry.time_before < Micros::new(50));
        assert_eq!(room.first_seq(), Seq::FIRST);
        let (entry, next) = room.entry_for(Seq::new(50)).unwrap();
        assert!(entry.bytes_before <= 49 * 100 && next.is_some());
        assert_eq!(
            room.bytes_from(Seq::new(50)),
            room.bytes - entry.bytes_before
        );
        assert_eq!(room.bytes_from(Seq::FIRST), room.bytes);
        assert_eq!(room.bytes, 34 * 400);
        assert_eq!(room.bytes_from(Seq::new(137)), 0);
    }

    #[test]
    fn a_footer_is_believed_only_when_every_bit_is_right() {
        let (index, name) = index();
        let mut index = index;
        index.is_partial = true;
        let marker = Marker(0x1122_3344_5566_7788);
        let bytes = index.encode(name, marker, LogPosition::new(900_000));
        assert_eq!(
            SegmentIndex::decode(&bytes, name, marker),
            Some((index, LogPosition::new(900_000)))
        );
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(
                SegmentIndex::decode(&damaged, name, marker),
                None,
                "bit {bit}"
            );
        }
        assert_eq!(
            SegmentIndex::decode(
                &bytes,
                SegmentName {
                    id: SegmentId(5),
                    generation: 0
                },
                marker
            ),
            None
        );
        assert_eq!(SegmentIndex::decode(&bytes, name, Marker(7)), None);
    }
}
