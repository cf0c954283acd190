//! What is known to be damaged: places of the log that did not read back as they were written.
//!
//! One place is counted, listed and logged once, whoever comes upon it and however often: the start,
//! a reader, the scrub.
//!
//! **Limits:** the newest [`LISTED_MAX`] places are listed, [`KNOWN_MAX`] are told apart and counted
//! (the count stays there), and 256 are logged.

use std::collections::{HashSet, VecDeque};
use std::fmt;

use broker_proto::{RoomId, Seq};

use super::position::LogPosition;
use super::segment::{DATA_OFFSET, SegmentHeader, SegmentName};
use crate::sync::{Mutex, lock};

/// Places that are listed.
pub const LISTED_MAX: usize = 16;
/// Places that are told apart and counted.
pub const KNOWN_MAX: usize = 1 << 16;
/// Places that are logged.
const LOGGED_MAX: usize = 256;

/// What a damaged place was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum DamagePart {
    /// Both copies of a segment's header; it was put together from the first batch, or cannot be.
    Header,
    /// One of the two copies of a segment's header.
    HeaderCopy,
    /// The head of a batch, which was found by its table; its records are there.
    BatchHead,
    /// The room table of a batch; its records were found one after the other.
    BatchTable,
    /// One or several batches of which nothing can be read.
    Batch,
    /// The rest of a batch's records, behind the first that is damaged in a batch without a table.
    Records,
    /// One record.
    Record,
    /// Bytes that hold nothing and are no longer zero.
    Padding,
    /// The footer of a segment. It is never synced, holds nothing of its own and is made again.
    Footer,
    /// A checkpoint that is not whole. What it said is in the log as well.
    Checkpoint,
    /// What named a room, which therefore has a name that the broker gave it.
    RoomName,
    /// A segment that is not there.
    Missing,
    /// The disk does not give the bytes at all.
    ReadError,
    /// The file `store`, which says whose the log is.
    Identity,
}

impl DamagePart {
    /// One word, the same in every version: for scripts.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Header => "header",
            Self::HeaderCopy => "header_copy",
            Self::BatchHead => "batch_head",
            Self::BatchTable => "batch_table",
            Self::Batch => "batch",
            Self::Records => "records",
            Self::Record => "record",
            Self::Padding => "padding",
            Self::Footer => "footer",
            Self::Checkpoint => "checkpoint",
            Self::RoomName => "room_name",
            Self::Missing => "segment_missing",
            Self::ReadError => "read_error",
            Self::Identity => "store_file",
        }
    }
}

impl fmt::Display for DamagePart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// Who came upon a damaged place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FoundBy {
    /// The replay of the log when the store was opened.
    Start,
    /// Somebody who read messages.
    Reader,
    /// The scrub, which reads everything now and then.
    Scrub,
}

impl FoundBy {
    /// One word, the same in every version: for scripts.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Reader => "reader",
            Self::Scrub => "scrub",
        }
    }
}

/// Messages of one room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomSpan {
    /// Its number.
    pub room: RoomId,
    /// Its name, if whoever tells knows it.
    pub name: Option<String>,
    /// The first of them.
    pub first: Seq,
    /// The last of them.
    pub last: Seq,
}

/// A part of the log, and what it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The segment file.
    pub file: String,
    /// Where in that file it begins, in bytes.
    pub offset: u64,
    /// Where in the log it begins.
    pub from: LogPosition,
    /// Where in the log it ends; the same as `from` for what is no part of the log, such as a header.
    pub upto: LogPosition,
    /// What it was.
    pub part: DamagePart,
    /// The messages that it held, if that is known.
    pub room: Option<RoomSpan>,
}

impl Place {
    /// Bytes of batches in a segment.
    pub(crate) fn new(
        header: &SegmentHeader,
        from: LogPosition,
        upto: LogPosition,
        part: DamagePart,
    ) -> Self {
        Self {
            file: header.name.file(),
            offset: header.offset_of(from),
            from,
            upto,
            part,
            room: None,
        }
    }

    /// Something of a segment's file that is no part of the log.
    pub(crate) fn of_file(file: String, offset: u64, base: LogPosition, part: DamagePart) -> Self {
        Self {
            file,
            offset,
            from: base,
            upto: base,
            part,
            room: None,
        }
    }

    /// A segment that is not there.
    pub(crate) fn missing(name: SegmentName, from: LogPosition, upto: LogPosition) -> Self {
        Self {
            file: name.file(),
            offset: DATA_OFFSET,
            from,
            upto,
            part: DamagePart::Missing,
            room: None,
        }
    }

    /// Says which message it held.
    pub(crate) fn of_message(mut self, room: RoomId, seq: Seq) -> Self {
        self.room = Some(RoomSpan {
            room,
            name: None,
            first: seq,
            last: seq,
        });
        self
    }
}

/// A damaged place, and who came upon it first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// Where it is, and what it was.
    pub place: Place,
    /// Who came upon it first.
    pub found_by: FoundBy,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(crate) struct DamageLog {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    known: HashSet<(LogPosition, DamagePart)>,
    newest: VecDeque<Damage>,
}

impl DamageLog {
    /// Counts, lists and logs a place, unless it is known.
    pub(crate) fn note(&self, place: Place, found_by: FoundBy) {
        let known = {
            let mut inner = lock(&self.inner);
            if inner.known.len() >= KNOWN_MAX || !inner.known.insert((place.from, place.part)) {
                return;
            }
            if inner.newest.len() == LISTED_MAX {
                inner.newest.pop_front();
            }
            inner.newest.push_back(Damage {
                place: place.clone(),
                found_by,
            });
            inner.known.len()
        };
        tell(&place, found_by, known);
    }

    /// How many places are known, at most [`KNOWN_MAX`].
    pub(crate) fn total(&self) -> u64 {
        lock(&self.inner).known.len() as u64
    }

    /// The newest of them, the newest last.
    pub(crate) fn newest(&self) -> Vec<Damage> {
        lock(&self.inner).newest.iter().cloned().collect()
    }
}

fn tell(place: &Place, found_by: FoundBy, known: usize) {
    if known > LOGGED_MAX {
        return;
    }
    let (room, seq) = match &place.room {
        Some(span) => (Some(span.room.get()), Some(span.first.get())),
        None => (None, None),
    };
    tracing::error!(
        file = place.file,
        offset = place.offset,
        position = %place.from,
        upto = %place.upto,
        part = place.part.word(),
        found_by = found_by.word(),
        room,
        seq,
        "part of the log is damaged; everything else is served. `broker admin verify` lists all damage; if this part matters, stop the broker and restore the file from a backup, and have the disk looked at"
    );
    if known == LOGGED_MAX {
        tracing::error!(
            "no more damaged places are logged until the next start; `broker admin verify` lists them"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(at: u64, part: DamagePart) -> Place {
        Place {
            file: "0000000000000001-0000.seg".to_owned(),
            offset: DATA_OFFSET + at,
            from: LogPosition::new(at),
            upto: LogPosition::new(at + 8),
            part,
            room: None,
        }
    }

    #[test]
    fn one_place_is_counted_and_listed_once_whoever_finds_it() {
        let log = DamageLog::default();
        log.note(place(8, DamagePart::Record), FoundBy::Reader);
        log.note(place(8, DamagePart::Record), FoundBy::Scrub);
        log.note(place(16, DamagePart::Record), FoundBy::Scrub);
        assert_eq!(log.total(), 2);
        let found: Vec<FoundBy> = log.newest().iter().map(|damage| damage.found_by).collect();
        assert_eq!(found, [FoundBy::Reader, FoundBy::Scrub]);
        // The head of a batch and all of it are different things to know.
        log.note(place(16, DamagePart::Batch), FoundBy::Start);
        assert_eq!(log.total(), 3);
    }

    #[test]
    fn the_newest_are_listed_and_all_are_counted_up_to_the_limit() {
        let log = DamageLog::default();
        for at in 0..100 {
            log.note(place(at * 8, DamagePart::Record), FoundBy::Scrub);
        }
        let listed = log.newest();
        assert_eq!((log.total(), listed.len()), (100, LISTED_MAX));
        let last = listed.last().map(|damage| damage.place.from.get());
        let first = listed.first().map(|damage| damage.place.from.get());
        assert_eq!((first, last), (Some(84 * 8), Some(99 * 8)));
        for at in 0..KNOWN_MAX as u64 + 9 {
            log.note(place(at * 8, DamagePart::Record), FoundBy::Scrub);
        }
        assert_eq!(log.total(), KNOWN_MAX as u64);
    }
}
