//! Looks at the log of a store without opening the store: every segment, batch and record, and what
//! is wrong with them.
//!
//! It takes no lock and changes nothing, and a leader may go on writing meanwhile: what was proven
//! durable when the look began is judged, and nothing behind it is ever called damage. It works on
//! any [`Storage`], and finds its way with the same code as the start of a store and its readers.

mod record;
mod walk;

use std::collections::HashMap;
use std::io;

use broker_proto::{RoomId, Seq, StoreId};

use super::batch::BatchKind;
use super::catalog::{before, put_together};
use super::check::{header_block, header_damage, open_past_cache};
use super::checkpoints::older_checkpoint;
use super::damage::{DamagePart, Place};
use super::index::SegmentIndex;
use super::position::LogPosition;
use super::recovery::{FEATURE_LEVEL, find_end};
use super::segment::{HeaderFault, SegmentHeader, SegmentId, SegmentName};
use super::storage::{Storage, StorageFile};
use super::window::Window;

pub use record::{Field, kind_name};

/// Read this much at a time.
const READ_AHEAD: usize = 1 << 20;

/// What a finding means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum FindingClass {
    /// It was proven durable and cannot be read back.
    Damaged,
    /// It lies behind what was proven durable: a write that was cut short, or that is under way.
    /// Nothing of it was acknowledged.
    Tail,
    /// A newer program wrote it. It says nothing of damage.
    Newer,
    /// It belongs to another store, or claims a part of the log that is another segment's.
    Misplaced,
    /// A footer that is not right. It only helps to find things and is made again.
    Footer,
}

impl FindingClass {
    /// One word, the same in every version: for scripts.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Damaged => "damaged",
            Self::Tail => "tail",
            Self::Newer => "newer",
            Self::Misplaced => "misplaced",
            Self::Footer => "footer",
        }
    }
}

/// Something that is not as it should be, or not yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What it means.
    pub class: FindingClass,
    /// Where it is.
    pub place: Place,
    /// More words for people, if there are any to say.
    pub detail: Option<String>,
}

/// A segment file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentSeen {
    /// What its name says.
    pub name: SegmentName,
    /// Its header, or what could be put together of it; without one its content cannot be placed.
    pub header: Option<SegmentHeader>,
    /// Where it ends; of the last one, what was proven durable when the look began.
    pub end: LogPosition,
    /// Whether the log ends in it.
    pub is_last: bool,
    /// Size of the file, in bytes.
    pub file_bytes: u64,
    /// What came between it and the next one in the list, if something is not there or unreadable.
    gap: Option<(SegmentName, DamagePart)>,
}

/// A batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchSeen {
    /// Where in the segment's file it begins.
    pub offset: u64,
    /// Where in the log it begins.
    pub position: LogPosition,
    /// Bytes of all of it.
    pub length: u32,
    /// What it is for.
    pub kind: BatchKind,
    /// Which leadership wrote it; 0 if its head is damaged.
    pub term: u64,
    /// When: microseconds since 1970 UTC; 0 if its head is damaged.
    pub time: i64,
    /// What was durable when it was written.
    pub durable_upto: LogPosition,
    /// How many records it has, as far as that is known.
    pub records: u32,
    /// Whether its head could be read.
    pub head_ok: bool,
    /// Whether its table could be read.
    pub table_ok: bool,
    /// Whether it lies behind what was proven durable.
    pub is_tail: bool,
}

/// A record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordSeen<'a> {
    /// Where in the segment's file it begins.
    pub offset: u64,
    /// Where in the log it begins.
    pub position: LogPosition,
    /// Bytes of all of it.
    pub length: usize,
    /// Its kind, if its head could be read; see [`kind_name`].
    pub kind: Option<u16>,
    /// Number of its room; none for state records.
    pub room: RoomId,
    /// Name of its room, if the part of the log that was walked so far tells.
    pub room_name: Option<&'a str>,
    /// Which message of its room; none for state records.
    pub seq: Seq,
    /// When it was stored, microseconds since 1970 UTC; 0 for state records.
    pub time: i64,
    /// Whether the checksum of its head is right, and it is the record that belongs here.
    pub head_ok: bool,
    /// Whether the checksum of its payload is right.
    pub payload_ok: bool,
    /// Whether it lies behind what was proven durable.
    pub is_tail: bool,
    /// Its payload, as far as the head tells where that is.
    pub payload: &'a [u8],
    /// What it says, if it is a record that this program knows.
    pub fields: Vec<(&'static str, Field<'a>)>,
}

/// What a walk comes upon. The records of a batch follow it, and then what is wrong with it.
#[derive(Debug)]
#[non_exhaustive]
pub enum Seen<'a> {
    /// A batch.
    Batch(BatchSeen),
    /// A record.
    Record(RecordSeen<'a>),
    /// Something that is not right.
    Finding(Finding),
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Inspector<'a, S: Storage> {
    storage: &'a S,
    segments: Vec<SegmentSeen>,
    findings: Vec<Finding>,
    checkpoint: Option<LogPosition>,
    proven: LogPosition,
    names: HashMap<RoomId, String>,
    /// Parts of the last checkpoint seen so far, none of them missing.
    chunks: u64,
    checkpoint_is_whole: bool,
}

impl<'a, S: Storage> Inspector<'a, S> {
    /// Reads the headers of all segments and finds the end of the log. `log` is whose the segments
    /// should be, if that is known.
    ///
    /// # Errors
    /// Those of the disk, of the directory or of the end of the log.
    pub fn open(storage: &'a S, log: Option<StoreId>) -> io::Result<Self> {
        let mut inspector = Self {
            storage,
            segments: Vec::new(),
            findings: Vec::new(),
            checkpoint: None,
            proven: LogPosition::START,
            names: HashMap::new(),
            chunks: 0,
            checkpoint_is_whole: false,
        };
        let mut names: Vec<SegmentName> = storage
            .list()?
            .iter()
            .filter_map(|file| SegmentName::parse(file))
            .collect();
        names.sort_unstable();
        for name in names {
            inspector.look_at(name)?;
        }
        inspector.remove_superseded();
        inspector.remove_misplaced(log);
        inspector.find_ends()?;
        Ok(inspector)
    }

    /// All segments, in the order of the log.
    #[must_use]
    pub fn segments(&self) -> &[SegmentSeen] {
        &self.segments
    }

    /// What is wrong with headers, footers and the order of the segments. A walk tells the rest.
    #[must_use]
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// Everything before was proven durable when the look began.
    #[must_use]
    pub fn durable(&self) -> LogPosition {
        self.proven
    }

    /// Where the last complete checkpoint begins, if there is one.
    #[must_use]
    pub fn checkpoint(&self) -> Option<LogPosition> {
        self.checkpoint
    }

    /// The name of a room, if what was walked so far tells it.
    #[must_use]
    pub fn room_name(&self, room: RoomId) -> Option<&str> {
        self.names.get(&room).map(String::as_str)
    }

    /// To be asked when all segments were walked: a checkpoint that the log relies on and that is
    /// not whole. What it said is in the log as well.
    #[must_use]
    pub fn broken_checkpoint(&self) -> Option<Finding> {
        // In a segment that cannot be placed it may be whole.
        let is_known = self.segments.iter().all(|seen| seen.header.is_some());
        let begin = self
            .checkpoint
            .filter(|_| is_known && !self.checkpoint_is_whole)?;
        let holding = self.segments.iter().filter_map(|seen| seen.header.as_ref());
        let header = holding.take_while(|header| header.base <= begin).last()?;
        Some(Finding {
            class: FindingClass::Damaged,
            place: Place::new(header, begin, begin, DamagePart::Checkpoint),
            detail: None,
        })
    }

    fn look_at(&mut self, name: SegmentName) -> io::Result<()> {
        let file = name.file();
        let opened = match open_past_cache(self.storage, &file) {
            Ok(opened) => opened,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        let block = header_block(&opened)?;
        let header = match SegmentHeader::parse(&block) {
            Ok(header) if header.name == name => Some(header),
            Err(HeaderFault::Newer { version }) => {
                let detail = format!("format version {version}");
                self.header_finding(FindingClass::Newer, &file, Some(detail));
                None
            }
            _ => {
                let header = put_together(open_past_cache(self.storage, &file)?, &block, name)?;
                if header.is_none() {
                    let detail = "neither header nor first batch can be read";
                    self.header_finding(FindingClass::Damaged, &file, Some(detail.to_owned()));
                }
                header
            }
        };
        if let Some(header) = &header {
            let damage = header_damage(&block, header).into_iter();
            self.findings.extend(damage.map(damaged));
            if header.feature_level > FEATURE_LEVEL {
                let detail = format!("feature level {}", header.feature_level);
                self.header_finding(FindingClass::Newer, &file, Some(detail));
            }
        }
        self.segments.push(SegmentSeen {
            name,
            header,
            end: LogPosition::START,
            is_last: false,
            file_bytes: opened.len()?,
            gap: None,
        });
        Ok(())
    }

    fn header_finding(&mut self, class: FindingClass, file: &str, detail: Option<String>) {
        let base = LogPosition::START;
        self.findings.push(Finding {
            class,
            place: Place::of_file(file.to_owned(), 0, base, DamagePart::Header),
            detail,
        });
    }

    /// Leaves out files that another one stands for: they are deleted when the store is opened.
    fn remove_superseded(&mut self) {
        let headers = self.segments.iter().filter_map(|seen| seen.header.clone());
        let headers: Vec<SegmentHeader> = headers.collect();
        self.segments.retain(|seen| {
            !headers.iter().any(|other| match &seen.header {
                Some(header) => other.supersedes(header),
                None => {
                    other.name.generation > seen.name.generation
                        && other.covers().contains(&seen.name.id)
                }
            })
        });
    }

    /// Leaves out segments of another store, and those that lie before the one before them.
    fn remove_misplaced(&mut self, log: Option<StoreId>) {
        let first = self.segments.iter().filter_map(|seen| seen.header.as_ref());
        let log = log.or_else(|| {
            let mut known = first.map(|header| header.store);
            known.find(|store| !store.is_none())
        });
        let mut previous: Option<SegmentHeader> = None;
        for seen in std::mem::take(&mut self.segments) {
            let Some(header) = &seen.header else {
                self.segments.push(seen);
                continue;
            };
            let foreign = !header.store.is_none() && log.is_some_and(|log| log != header.store);
            let before = previous.as_ref();
            let detail = if foreign {
                format!("it belongs to the log {}", header.store)
            } else if let Some(before) =
                before.filter(|before| before.covers().contains(&header.name.id))
            {
                let other = before.name.file();
                format!("{other} stands for some of the same segments")
            } else if before.is_some_and(|before| header.base < reach(before)) {
                format!("it begins at {}, before its predecessor does", header.base)
            } else {
                previous = Some(header.clone());
                self.segments.push(seen);
                continue;
            };
            self.header_finding(FindingClass::Misplaced, &seen.name.file(), Some(detail));
        }
    }

    /// Finds where each segment ends, and what is missing between them.
    fn find_ends(&mut self) -> io::Result<()> {
        let listed = self.segments.iter().map(|seen| match &seen.header {
            Some(header) => header.covers(),
            None => seen.name.id..=seen.name.id,
        });
        let listed: Vec<_> = listed.collect();
        let is_there = |id: SegmentId| listed.iter().any(|covered| covered.contains(&id));
        let mut next: Option<SegmentHeader> = None;
        for seen in self.segments.iter_mut().rev() {
            let Some(header) = seen.header.clone() else {
                continue;
            };
            match &next {
                Some(next) => {
                    seen.end = header.packed_end().unwrap_or(next.base);
                    let between = before(next);
                    let is_gap = !header.covers().contains(&between.id);
                    if is_gap && header.packed_end().is_none() {
                        let part = if is_there(between.id) {
                            DamagePart::Header
                        } else {
                            DamagePart::Missing
                        };
                        seen.gap = Some((between, part));
                    } else if is_gap && !is_there(between.id) {
                        let place = Place::missing(between, seen.end, next.base);
                        self.findings.push(damaged(place));
                    }
                }
                None => {
                    let file = open_past_cache(self.storage, &seen.name.file())?;
                    let mut window = Window::new(file, header.clone(), READ_AHEAD);
                    let ends = find_end(&mut window, header.base, None)?;
                    seen.end = ends.proven.max(reach(&header));
                    seen.is_last = true;
                    self.proven = seen.end;
                    let named = Some(header.checkpoint).filter(|at| *at != LogPosition::NONE);
                    self.checkpoint = ends.checkpoint.or(named);
                }
            }
            next = Some(header);
        }
        let covered = self.covered()?;
        // What the older checkpoint covers may have been deleted.
        if let Some(first) = next.filter(|first| first.base > covered) {
            let name = before(&first);
            let place = Place::missing(name, LogPosition::START, first.base);
            // One that is there and cannot be placed has been told.
            if !is_there(name.id) {
                self.findings.insert(0, damaged(place));
            }
        }
        self.look_at_footers();
        Ok(())
    }

    /// Where the older of the two newest complete checkpoints begins.
    fn covered(&self) -> io::Result<LogPosition> {
        let Some(newest) = self.checkpoint else {
            return Ok(LogPosition::START);
        };
        let placed = self.segments.iter().filter_map(|seen| {
            let header = seen.header.clone()?;
            Some((header, seen.end))
        });
        let placed: Vec<_> = placed.collect();
        Ok(older_checkpoint(self.storage, &placed, newest)?.unwrap_or(LogPosition::START))
    }

    fn look_at_footers(&mut self) {
        for seen in self.segments.iter().filter(|seen| !seen.is_last) {
            // Where it ended when its footer was written is not known without the next one.
            if seen.gap.is_some() {
                continue;
            }
            let Some(header) = &seen.header else { continue };
            let name = seen.name.footer();
            // One that is missing has not been written yet, or was never needed.
            let Ok(file) = self.storage.open_read(&name) else {
                continue;
            };
            let length = file.len().ok().and_then(|len| usize::try_from(len).ok());
            let mut bytes = vec![0; length.unwrap_or(0)];
            let read = file.read_at(0, &mut bytes).unwrap_or(0);
            bytes.truncate(read);
            let decoded = SegmentIndex::decode(bytes, seen.name, header.marker);
            // An early one, of a leader that was killed, is as good as none.
            if decoded.is_none_or(|(_, end)| end > seen.end) {
                self.findings.push(Finding {
                    class: FindingClass::Footer,
                    place: Place::of_file(name, 0, header.base, DamagePart::Footer),
                    detail: Some("it is made again when it is needed".to_owned()),
                });
            }
        }
    }
}

/// How far a segment reaches, as far as it says so itself.
fn reach(header: &SegmentHeader) -> LogPosition {
    header.packed_end().unwrap_or(header.base)
}

fn damaged(place: Place) -> Finding {
    Finding {
        class: FindingClass::Damaged,
        place,
        detail: None,
    }
}

/// The segment that a file name is of, for a look at one of them.
#[must_use]
pub fn segment_id(name: &str) -> Option<SegmentId> {
    SegmentName::parse(name).map(|name| name.id)
}
