//! Reads a segment whole and checks every byte of it: heads, tables, both checksums of each record,
//! and that what should be zero is.
//!
//! It walks with the same [`Scanner`] that readers and the start use. What does not read right is
//! read once more through a new handle before it is called damaged, past the page cache where the
//! file system allows that: neither a moment's fault nor a page that somebody else got wrong is
//! damage on the disk.

use std::io;

use broker_proto::{RoomId, Seq};
use bytes::Bytes;

use super::batch::HEAD_BYTES;
use super::damage::{DamagePart, Place};
use super::position::LogPosition;
use super::scan::{BatchView, Scanner, Step};
use super::segment::{DATA_OFFSET, HEADER_BYTES, HEADER_COPY_OFFSET, SegmentHeader};
use super::state_record::RawRecord;
use super::storage::{Storage, StorageFile};
use super::window::Window;

/// Read this much at a time.
const READ_AHEAD: usize = 1 << 20;

/// One record of a batch that was looked at whole.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CheckedRecord {
    /// `RoomId::NONE` for state records.
    pub(crate) room: RoomId,
    /// `Seq::NONE` for state records.
    pub(crate) seq: Seq,
    /// Where it lies, counted from the start of the batch.
    pub(crate) offset: usize,
    pub(crate) length: usize,
    /// Whether every byte of it is right.
    pub(crate) is_whole: bool,
}

/// A batch that was looked at whole.
#[derive(Debug)]
pub(crate) struct CheckedBatch {
    pub(crate) view: BatchView,
    pub(crate) records: Vec<CheckedRecord>,
    /// All of its bytes that the file has.
    pub(crate) bytes: Bytes,
    /// What is damaged in it.
    pub(crate) damage: Vec<Place>,
}

/// What a check comes upon.
#[derive(Debug)]
pub(crate) enum Checked {
    /// A batch, whole or in part.
    Batch(Box<CheckedBatch>),
    /// A stretch of the log that cannot be read.
    Lost(Place),
    /// Everything up to the limit has been seen.
    End,
}

impl Checked {
    fn is_clean(&self) -> bool {
        match self {
            Self::Batch(batch) => batch.damage.is_empty(),
            Self::Lost(_) => false,
            Self::End => true,
        }
    }
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct SegmentCheck<F> {
    scanner: Scanner<F>,
    header: SegmentHeader,
    limit: LogPosition,
}

impl<F: StorageFile> SegmentCheck<F> {
    /// Checks from a batch at `from` up to `limit`.
    ///
    /// # Errors
    /// Those of the disk.
    pub(crate) fn new<S: Storage<File = F>>(
        storage: &S,
        header: &SegmentHeader,
        from: LogPosition,
        limit: LogPosition,
    ) -> io::Result<Self> {
        Ok(Self {
            scanner: scanner(storage, header, from, limit)?,
            header: header.clone(),
            limit,
        })
    }

    /// Where the next batch is expected.
    pub(crate) fn at(&self) -> LogPosition {
        self.scanner.at()
    }

    /// Where the check ends.
    pub(crate) fn limit(&self) -> LogPosition {
        self.limit
    }

    /// The segment that is checked.
    pub(crate) fn header(&self) -> &SegmentHeader {
        &self.header
    }

    /// Checks the next batch.
    ///
    /// # Errors
    /// Those of the disk.
    pub(crate) fn step<S: Storage<File = F>>(&mut self, storage: &S) -> io::Result<Checked> {
        let at = self.at();
        // What was found together with a damaged place has been read a second time with it.
        let is_known = self.scanner.has_found();
        let checked = self.look()?;
        if checked.is_clean() || is_known {
            return Ok(checked);
        }
        self.scanner = scanner(storage, &self.header, at, self.limit)?;
        self.look()
    }

    fn look(&mut self) -> io::Result<Checked> {
        Ok(match self.scanner.step()? {
            Step::Batch(view) => Checked::Batch(Box::new(check_batch(
                &mut self.scanner.window,
                &self.header,
                view,
            )?)),
            Step::Lost { from, upto } => {
                Checked::Lost(Place::new(&self.header, from, upto, DamagePart::Batch))
            }
            Step::End => Checked::End,
        })
    }
}

fn scanner<S: Storage>(
    storage: &S,
    header: &SegmentHeader,
    from: LogPosition,
    limit: LogPosition,
) -> io::Result<Scanner<S::File>> {
    let file = open_past_cache(storage, &header.name.file())?;
    let window = Window::new(file, header.clone(), READ_AHEAD);
    Ok(Scanner::new(window, from, limit).whole())
}

/// Opens a file so that the disk itself is asked, as far as that is possible without the right to
/// write. Nothing is ever written to it.
///
/// # Errors
/// Those of the disk.
pub(crate) fn open_past_cache<S: Storage>(storage: &S, name: &str) -> io::Result<S::File> {
    match storage.open(name) {
        Ok(file) => Ok(file),
        Err(_) => storage.open_read(name),
    }
}

/// Checks all of a batch that was found.
///
/// # Errors
/// Those of the disk.
pub(crate) fn check_batch<F: StorageFile>(
    window: &mut Window<F>,
    header: &SegmentHeader,
    view: BatchView,
) -> io::Result<CheckedBatch> {
    let head = view.head;
    let bytes = window.up_to(head.position, head.length as usize)?;
    let mut damage = batch_damage(header, &view);
    let mut records = Vec::new();
    let mut lengths = view.all_lengths().into_iter();
    let mut end = HEAD_BYTES;
    for run in view.runs() {
        end = run.offset as usize;
        for seq in (run.first_seq.get()..).take(run.count as usize) {
            let Some(length) = lengths.next() else { break };
            let length = length as usize;
            let raw = bytes.get(end..end + length);
            let record = CheckedRecord {
                room: run.room,
                seq: if run.room.is_none() {
                    Seq::NONE
                } else {
                    Seq::new(seq)
                },
                offset: end,
                length,
                is_whole: raw.is_some_and(|raw| is_whole(raw, run.room, seq, head.position)),
            };
            if !record.is_whole {
                damage.push(record_place(header, head.position, &record));
            }
            records.push(record);
            end += length;
        }
    }
    let table = head.table as usize;
    let padding = bytes.get(end.min(table)..table).unwrap_or_default();
    if !view.is_partial() && padding.iter().any(|byte| *byte != 0) {
        let at = |offset: usize| head.position.plus(offset as u64);
        damage.push(Place::new(header, at(end), at(table), DamagePart::Padding));
    }
    Ok(CheckedBatch {
        view,
        records,
        bytes,
        damage,
    })
}

fn is_whole(raw: &[u8], room: RoomId, seq: u64, batch: LogPosition) -> bool {
    let expected = if room.is_none() { batch.get() } else { seq };
    RawRecord::parse(raw).is_some_and(|record| {
        record.bytes.len() == raw.len()
            && record.head.room == room
            && record.head.seq.get() == expected
            && record.payload_is_whole()
    })
}

fn record_place(header: &SegmentHeader, batch: LogPosition, record: &CheckedRecord) -> Place {
    let from = batch.plus(record.offset as u64);
    let upto = from.plus(record.length as u64);
    let place = Place::new(header, from, upto, DamagePart::Record);
    if record.room.is_none() {
        place
    } else {
        place.of_message(record.room, record.seq)
    }
}

/// What had to be put together of a batch, or could not be, apart from its single records.
pub(crate) fn batch_damage(header: &SegmentHeader, view: &BatchView) -> Vec<Place> {
    let head = &view.head;
    if !view.damaged {
        return Vec::new();
    }
    let at = |offset: u32| head.position.plus(u64::from(offset));
    let place = |from, upto, part| Place::new(header, at(from), at(upto), part);
    let head_bytes = u32::try_from(HEAD_BYTES).unwrap_or(u32::MAX);
    let Some(found) = view.found_without_table() else {
        return vec![place(0, head_bytes, DamagePart::BatchHead)];
    };
    let mut damage = vec![place(head.table, head.length, DamagePart::BatchTable)];
    if view.is_partial() {
        damage.push(place(found, head.table, DamagePart::Records));
    }
    damage
}

/// What is wrong with the first bytes of a segment file, whose header is known one way or the other.
pub(crate) fn header_damage(block: &[u8], header: &SegmentHeader) -> Vec<Place> {
    let name = || header.name.file();
    let is_good = |at: usize| SegmentHeader::parse_copy_at(block, at).as_ref() == Some(header);
    let bad: Vec<usize> = [0, HEADER_COPY_OFFSET]
        .into_iter()
        .filter(|at| !is_good(*at))
        .collect();
    let place = |offset: usize, part| Place::of_file(name(), offset as u64, header.base, part);
    let mut damage: Vec<Place> = match bad.as_slice() {
        [] => Vec::new(),
        [at] => vec![place(*at, DamagePart::HeaderCopy)],
        _ => vec![place(0, DamagePart::Header)],
    };
    let data = usize::try_from(DATA_OFFSET).unwrap_or(usize::MAX);
    let gaps = [
        (HEADER_BYTES, HEADER_COPY_OFFSET),
        (HEADER_COPY_OFFSET + HEADER_BYTES, data),
    ];
    for (from, upto) in gaps {
        let gap = block.get(from..upto).unwrap_or_default();
        if let Some(at) = gap.iter().position(|byte| *byte != 0) {
            damage.push(place(from + at, DamagePart::Padding));
        }
    }
    damage
}

/// Reads what lies before the batches of a segment.
///
/// # Errors
/// Those of the disk.
pub(crate) fn header_block<F: StorageFile>(file: &F) -> io::Result<Vec<u8>> {
    let mut block = vec![0; usize::try_from(DATA_OFFSET).unwrap_or(0) + HEAD_BYTES];
    let read = file.read_at(0, &mut block)?;
    block.truncate(read);
    Ok(block)
}
