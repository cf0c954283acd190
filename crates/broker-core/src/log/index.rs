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
//!
//! A footer is looked into as it lies in the file: a start with very many rooms does not take it apart.
//! What is noted of its rooms afterwards is kept beside it.

mod builder;
mod rows;

use std::collections::HashMap;

use broker_proto::{Micros, RoomId, Seq};

pub(crate) use self::builder::IndexBuilder;
use self::rows::{ENTRY_BYTES, EntryRows, ROOM_BYTES, Rows};
use super::batch::BatchRun;
use super::position::{LogPosition, Marker};
use super::segment::SegmentName;

/// Bytes of log between two entries of one room.
pub(crate) const ENTRY_SPACING: u64 = 32 << 10;

/// Stands for "the latest time before", when that is not known.
const UNKNOWN_TIME: Micros = Micros::new(i64::MIN);

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

/// What is known of one room within one segment, but for the entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) last_seq: Seq,
    /// The latest time of any message of the room up to the end of this segment.
    pub(crate) last_time: Micros,
    /// Where the room's newest message before this segment lies; `NONE` if this segment has its
    /// first.
    pub(crate) previous: LogPosition,
    /// Bytes of the room's records in this segment.
    pub(crate) bytes: u64,
}

/// One room within one segment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RoomIndex<'a> {
    pub(crate) extent: Extent,
    entries: Entries<'a>,
}

impl std::ops::Deref for RoomIndex<'_> {
    type Target = Extent;

    fn deref(&self) -> &Extent {
        &self.extent
    }
}

/// The entries of a room, at least one.
#[derive(Debug, Clone, Copy)]
enum Entries<'a> {
    Made(&'a Made),
    Kept(EntryRows<'a>),
}

impl Entries<'_> {
    fn len(self) -> usize {
        match self {
            Self::Made(made) => 1 + made.more.len(),
            Self::Kept(rows) => rows.len(),
        }
    }

    fn get(self, at: usize) -> Option<Entry> {
        match (self, at.checked_sub(1)) {
            (Self::Kept(rows), _) => rows.get(at),
            (Self::Made(made), None) => Some(made.first),
            (Self::Made(made), Some(at)) => made.more.get(at).copied(),
        }
    }

    fn iter(self) -> impl Iterator<Item = Entry> {
        (0..self.len()).map_while(move |at| self.get(at))
    }

    /// How many of the first ones this is true of; it is of none behind them.
    fn partition_point(self, is_before: impl Fn(Entry) -> bool) -> usize {
        let (mut from, mut upto) = (0, self.len());
        while from < upto {
            let middle = from.midpoint(upto);
            match self.get(middle).is_some_and(&is_before) {
                true => from = middle + 1,
                false => upto = middle,
            }
        }
        from
    }
}

impl RoomIndex<'_> {
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
        self.entries.get(0).map_or(Seq::NONE, |entry| entry.seq)
    }

    /// Whether the times before this segment are known. They are not where the segment holds the
    /// room's messages without having named the room, as in a tail that was copied: then what the
    /// entries say of times may be too low.
    pub(crate) fn knows_times(&self) -> bool {
        let first = || self.entries.get(0);
        self.previous == LogPosition::NONE
            || first().is_some_and(|entry| entry.time_before != UNKNOWN_TIME)
    }

    /// The first entry, and where the next one lies.
    pub(crate) fn first_entry(&self) -> Option<(Entry, Option<LogPosition>)> {
        self.entry_and_next(0)
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
        Some((entry, next))
    }

    fn entry_and_next(&self, at: usize) -> Option<(Entry, Option<LogPosition>)> {
        let next = self.entries.get(at + 1).map(|next| next.at);
        Some((self.entries.get(at)?, next))
    }
}

impl PartialEq for RoomIndex<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.extent == other.extent && self.entries.iter().eq(other.entries.iter())
    }
}

/// One room of an index in the making. Most rooms have one entry in a segment.
#[derive(Debug, Clone)]
struct Made {
    extent: Extent,
    first: Entry,
    more: Vec<Entry>,
}

impl Made {
    fn copy(room: RoomIndex<'_>) -> Option<Self> {
        let mut entries = room.entries.iter();
        Some(Self {
            extent: room.extent,
            first: entries.next()?,
            more: entries.collect(),
        })
    }

    fn view(&self) -> RoomIndex<'_> {
        RoomIndex {
            extent: self.extent,
            entries: Entries::Made(self),
        }
    }
}

/// All rooms within one segment.
#[derive(Debug, Clone, Default)]
pub(crate) struct SegmentIndex {
    /// What a footer tells.
    rows: Rows,
    /// Rooms that it does not tell of, or of which it does not tell all.
    made: HashMap<RoomId, Made>,
    /// Entries of these, but for their first ones.
    more: usize,
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
        let entry = |extent: &Extent| Entry {
            seq: run.first_seq,
            at,
            time_before: extent.last_time,
            bytes_before: extent.bytes,
        };
        let room = self.made.entry(run.room).or_insert_with(|| {
            let kept = self.rows.room(run.room).and_then(Made::copy);
            let new = || {
                let extent = Extent {
                    last_seq: Seq::NONE,
                    last_time: time_before,
                    previous,
                    bytes: 0,
                };
                Made {
                    extent,
                    first: entry(&extent),
                    more: Vec::new(),
                }
            };
            let room = kept.unwrap_or_else(new);
            self.more += room.more.len();
            room
        });
        let last = room.more.last().unwrap_or(&room.first);
        if at.since(last.at) >= ENTRY_SPACING {
            room.more.push(entry(&room.extent));
            self.more += 1;
        }
        room.extent.bytes += u64::from(run.bytes);
        room.extent.last_seq = run.last_seq();
        room.extent.last_time = room.extent.last_time.max(time);
    }

    pub(crate) fn room(&self, room: RoomId) -> Option<RoomIndex<'_>> {
        let made = self.made.get(&room).map(Made::view);
        made.or_else(|| self.rows.room(room))
    }

    /// All rooms, in no order.
    pub(crate) fn rooms(&self) -> impl Iterator<Item = (RoomId, RoomIndex<'_>)> {
        let kept = self.rows.iter();
        let kept = kept.filter(|(id, _)| !self.made.contains_key(id));
        kept.chain(self.made.iter().map(|(id, room)| (*id, room.view())))
    }

    /// Whether the segment may hold more than this tells.
    pub(crate) fn is_partial(&self) -> bool {
        self.is_partial
    }

    /// Roughly how many bytes its footer takes: not less than that.
    pub(crate) fn footer_bytes(&self) -> usize {
        self.rows.bytes().len()
            + self.made.len() * (ROOM_BYTES + ENTRY_BYTES)
            + self.more * ENTRY_BYTES
    }

    /// Roughly how many bytes of memory it takes.
    pub(crate) fn memory_bytes(&self) -> usize {
        // A table is between seven eighths and seven sixteenths full.
        let slot = size_of::<(RoomId, Made)>() + 1;
        self.rows.bytes().len() + self.made.capacity() * slot * 8 / 7 + self.more * ENTRY_BYTES
    }

    /// The footer of a segment of which this is everything before `end`.
    pub(crate) fn encode(&self, name: SegmentName, marker: Marker, end: LogPosition) -> Vec<u8> {
        let mut rooms: Vec<_> = self.rooms().collect();
        rooms.sort_unstable_by_key(|(id, _)| *id);
        rows::encode(&rooms, self.is_partial, name, marker, end)
    }

    /// Reads the footer of the segment `name` with this marker, and up to where it tells; `None` unless
    /// every byte is right. The marker tells a file of that name from another one: in a directory that
    /// was put together from several states of the store.
    pub(crate) fn decode(
        bytes: Vec<u8>,
        name: SegmentName,
        marker: Marker,
    ) -> Option<(Self, LogPosition)> {
        let rows = Rows::believe(bytes, name, marker)?;
        let (is_partial, end) = (rows.is_partial(), rows.end());
        let index = Self {
            rows,
            is_partial,
            ..Self::default()
        };
        Some((index, end))
    }

    /// Whether all of it lies as in its footer.
    pub(crate) fn is_kept(&self) -> bool {
        self.made.is_empty()
    }
}

impl PartialEq for SegmentIndex {
    fn eq(&self, other: &Self) -> bool {
        let has_all =
            |one: &Self, other: &Self| one.rooms().all(|(id, room)| other.room(id) == Some(room));
        self.is_partial == other.is_partial && has_all(self, other) && has_all(other, self)
    }
}

#[cfg(test)]
mod tests;
