//! Writes one file in the place of several neighbouring segments, without what is dead in them.
//!
//! It is made under a temporary name, synced, renamed, and the directory synced: until then nobody looks at it, and from then
//! on it supersedes those that it was made of. Its batches are those of the old files, in their order, less what is dead, and
//! follow each other without a gap from the base of the first one on; so they lie within the places that the file stands for.
//!
//! **Invariant:** nothing that cannot be read is left out, unless it is sure to be dead: then the segment stays as it is.
//! Memory is bounded by two batches and one room record for each room of the run.

use std::collections::HashMap;
use std::io;

use broker_proto::{RoomId, Seq};

use super::batch::{BATCH_BYTES_MAX, BatchKind};
use super::builder::{BatchBuilder, Stamp};
use super::bytes::{round_down, round_up};
use super::check::{Checked, CheckedBatch, SegmentCheck};
use super::damage::{DamagePart, Place};
use super::index::{IndexBuilder, SegmentIndex};
use super::position::{LogPosition, Marker};
use super::recovery::FEATURE_LEVEL;
use super::segment::{DATA_OFFSET, SegmentHeader, SegmentName};
use super::state_record::{RawRecord, RoomStateRecord, names_room, stamp};
use super::storage::{AlignedBuf, Storage, StorageFile};
use crate::planted::{Bug, planted};

/// Unit of writes.
const WRITE_UNIT: u64 = 4096;
/// Written at a time, about.
const WRITE_BYTES: usize = 1 << 20;

/// What is still wanted of a room: its oldest kept seq; `None` when the room was removed, and nothing is.
pub(crate) type Live<'a> = &'a dyn Fn(RoomId) -> Option<Seq>;

/// Asked how many bytes may be gone through next, and waits until that is so; `None` when there is no time left.
pub(crate) type Pace<'a> = &'a mut dyn FnMut() -> Option<u64>;

/// One of the segments that are replaced.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) header: SegmentHeader,
    /// Where its batches end.
    pub(super) end: LogPosition,
    /// Whether all of it is dead, so that it need not be read.
    pub(super) is_dead: bool,
}

/// What is to be done.
#[derive(Debug)]
pub(super) struct Job {
    /// Neighbours, in the order of the log.
    pub(super) run: Vec<Source>,
    /// Where the segment behind them begins.
    pub(super) end: LogPosition,
    /// The header of the segment that is being written.
    pub(super) newest: SegmentHeader,
    /// Heads the batches of the new file.
    pub(super) marker: Marker,
}

/// A file that has its name.
#[derive(Debug)]
pub(super) struct Packed {
    pub(super) header: SegmentHeader,
    pub(super) index: SegmentIndex,
    /// Bytes of the file.
    pub(super) bytes: u64,
}

/// Why there is no new file.
#[derive(Debug)]
pub(super) enum PackFault {
    /// Something in this segment cannot be read, and may be alive.
    Spoiled(SegmentName),
    /// There was no time left.
    Stopped,
    /// The disk; nothing has changed.
    Disk(io::Error),
    /// The disk, while the file got its name: whether it has it is not known.
    Unnamed(io::Error),
}

impl From<io::Error> for PackFault {
    fn from(error: io::Error) -> Self {
        Self::Disk(error)
    }
}

/// The name of a packed file that is being written.
fn pack_name(name: SegmentName) -> String {
    format!("pack-{:08x}.tmp", name.id.0 & u64::from(u32::MAX))
}

/// Whether a file of that name is a left-over of a leader that was killed while it packed.
pub(super) fn is_pack_name(name: &str) -> bool {
    let digits = name
        .strip_prefix("pack-")
        .and_then(|rest| rest.strip_suffix(".tmp"));
    digits.is_some_and(|digits| {
        let is_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        digits.len() == 8 && digits.bytes().all(is_hex)
    })
}

/// Writes the file that stands for all of a run; it is durable, and has its name, when this returns.
///
/// # Errors
/// [`PackFault`]; the old files are as they were.
pub(super) fn pack<S: Storage>(
    storage: &S,
    job: &Job,
    live: Live<'_>,
    pace: Pace<'_>,
) -> Result<Packed, PackFault> {
    let header = header_of(job).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    let temporary = pack_name(header.name);
    match storage.delete(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let file = storage.create(&temporary)?;
    let written = write_all(storage, job, header, &file, live, pace);
    let packed = match written {
        Ok(packed) => packed,
        Err(fault) => {
            drop(file);
            // A left-over is deleted at the next start, so a failure here costs only space.
            let _ = storage.delete(&temporary);
            return Err(fault);
        }
    };
    if planted(Bug::DeletedBeforeRename) {
        for source in &job.run {
            storage.delete(&source.header.name.file())?;
        }
    }
    let named = storage.rename(&temporary, &packed.header.name.file());
    named
        .and_then(|()| storage.sync_dir())
        .map_err(PackFault::Unnamed)?;
    Ok(packed)
}

/// The header, but for where the data ends.
fn header_of(job: &Job) -> Option<SegmentHeader> {
    let (first, last) = (&job.run.first()?.header, &job.run.last()?.header);
    let headers = || job.run.iter().map(|source| &source.header);
    let generation = headers().map(|header| header.name.generation).max()?;
    Some(SegmentHeader {
        store: job.newest.store,
        name: SegmentName {
            id: first.name.id,
            generation: generation.checked_add(1)?,
        },
        covers_last: *last.covers().end(),
        marker: job.marker,
        base: first.base,
        term: job.newest.term,
        created: headers().map(|header| header.created).max()?,
        previous: first.previous,
        checkpoint: last.checkpoint,
        batch_align: u32::try_from(WRITE_UNIT).unwrap_or(0),
        feature_level: FEATURE_LEVEL,
        data_end: first.base,
        sources: SegmentHeader::fingerprint(headers().map(|header| header.name)),
    })
}

fn write_all<S: Storage>(
    storage: &S,
    job: &Job,
    header: SegmentHeader,
    file: &S::File,
    live: Live<'_>,
    pace: Pace<'_>,
) -> Result<Packed, PackFault> {
    let mut packer = Packer::new(header, file);
    let mut budget = 0;
    for source in job.run.iter().filter(|source| !source.is_dead) {
        let name = source.header.name;
        let spoiled = |error: io::Error| {
            tracing::warn!(file = name.file(), %error, "a segment cannot be read and keeps its space");
            PackFault::Spoiled(name)
        };
        let check = SegmentCheck::new(storage, &source.header, source.header.base, source.end);
        let mut check = check.map_err(spoiled)?;
        loop {
            let before = check.at();
            match check.step(storage).map_err(spoiled)? {
                Checked::Batch(batch) => {
                    if !packer.take(&batch, live) {
                        return Err(PackFault::Spoiled(name));
                    }
                }
                Checked::Lost(_) => return Err(PackFault::Spoiled(name)),
                Checked::End => break,
            }
            if packer.at > job.end {
                // Whatever made it longer, it must not reach into the next segment.
                return Err(PackFault::Spoiled(name));
            }
            spend(&mut budget, check.at().since(before), pace)?;
            packer.write(WRITE_BYTES)?;
        }
    }
    Ok(packer.finish()?)
}

/// Waits until so many bytes may be gone through.
fn spend(budget: &mut u64, bytes: u64, pace: Pace<'_>) -> Result<(), PackFault> {
    while *budget < bytes {
        let more = pace().ok_or(PackFault::Stopped)?;
        *budget = budget.saturating_add(more.max(1));
    }
    *budget -= bytes;
    Ok(())
}

/// The file that is being written.
struct Packer<'a, F> {
    header: SegmentHeader,
    file: &'a F,
    /// Where the next batch goes.
    at: LogPosition,
    /// What is not written yet, and where in the file it begins.
    buf: AlignedBuf,
    buf_at: u64,
    builder: BatchBuilder,
    index: IndexBuilder,
    /// The newest record that names a room, of those that no kept message of the room has followed yet.
    rooms: HashMap<RoomId, Vec<u8>>,
}

impl<'a, F: StorageFile> Packer<'a, F> {
    fn new(header: SegmentHeader, file: &'a F) -> Self {
        Self {
            file,
            at: header.base,
            buf: AlignedBuf::new(),
            buf_at: DATA_OFFSET,
            builder: BatchBuilder::default(),
            index: IndexBuilder::new(header.base),
            rooms: HashMap::new(),
            header,
        }
    }

    /// Takes what is alive of a batch; false when something of it cannot be read that may be alive.
    fn take(&mut self, batch: &CheckedBatch, live: Live<'_>) -> bool {
        if !batch.damage.iter().all(|place| is_dead(place, live)) {
            return false;
        }
        let raw = |offset: usize, length| batch.bytes.get(offset..offset + length);
        let mut kept: Vec<(RoomId, Seq, &[u8])> = Vec::new();
        let mut room = (RoomId::NONE, None);
        for record in &batch.records {
            let Some(bytes) = raw(record.offset, record.length) else {
                return false;
            };
            if record.room.is_none() {
                if let Some(named) = named_room(bytes) {
                    self.rooms.insert(named, bytes.to_vec());
                }
                continue;
            }
            if room.0 != record.room {
                room = (record.room, live(record.room));
            }
            if room.1.is_some_and(|first| record.seq >= first) {
                kept.push((record.room, record.seq, bytes));
            }
        }
        if kept.is_empty() {
            return true;
        }
        self.put(batch, &kept)
    }

    /// Writes a batch of the messages that are kept, and of the records that name their rooms.
    fn put(&mut self, batch: &CheckedBatch, kept: &[(RoomId, Seq, &[u8])]) -> bool {
        let start = self.buf.len();
        self.builder.begin(&mut self.buf);
        let mut last = RoomId::NONE;
        for (room, _, _) in kept {
            if *room != last
                && let Some(mut record) = self.rooms.remove(room)
            {
                stamp(&mut record, self.at);
                let write = |buf: &mut AlignedBuf| buf.extend_from_slice(&record);
                self.builder
                    .record(&mut self.buf, RoomId::NONE, Seq::NONE, write);
            }
            last = *room;
        }
        for (room, seq, bytes) in kept {
            let write = |buf: &mut AlignedBuf| buf.extend_from_slice(bytes);
            self.builder.record(&mut self.buf, *room, *seq, write);
        }
        let head = &batch.view.head;
        let stamp = Stamp {
            marker: self.header.marker,
            position: self.at,
            durable_upto: self.header.base,
            term: head.term,
            time: head.time,
            checkpoint: LogPosition::NONE,
        };
        let made = self
            .builder
            .finish(&mut self.buf, BatchKind::Records, &stamp);
        for run in self.builder.runs() {
            if run.room.is_none() {
                let from = start + run.offset as usize;
                let records = self.buf.as_slice().get(from..from + run.bytes as usize);
                self.index
                    .state_records(records.unwrap_or_default(), made.position);
            } else {
                let time = broker_proto::Micros::new(made.time);
                self.index.messages(run, made.position, time);
            }
        }
        self.at = made.end();
        made.length as usize <= BATCH_BYTES_MAX
    }

    /// Writes whole blocks, if there are so many bytes.
    fn write(&mut self, least: usize) -> io::Result<()> {
        if self.buf.len() < least {
            return Ok(());
        }
        let whole = round_down(self.buf.len() as u64, WRITE_UNIT);
        let whole = usize::try_from(whole).unwrap_or(0);
        let bytes = self.buf.as_slice().get(..whole).unwrap_or_default();
        for (piece, at) in bytes
            .chunks(WRITE_BYTES)
            .zip((self.buf_at..).step_by(WRITE_BYTES))
        {
            self.file.write_at(at, piece)?;
        }
        self.buf_at += whole as u64;
        self.buf.drop_front(whole);
        Ok(())
    }

    /// Writes the rest and the header, and syncs all of it.
    fn finish(mut self) -> io::Result<Packed> {
        let padded = round_up(self.buf.len() as u64, WRITE_UNIT);
        self.buf.resize(usize::try_from(padded).unwrap_or(0));
        self.write(1)?;
        self.header.data_end = self.at;
        self.buf.clear();
        self.buf.extend_from_slice(&self.header.encode());
        self.file.write_at(0, self.buf.as_slice())?;
        if !planted(Bug::PackedUnsynced) {
            self.file.sync_all()?;
        }
        Ok(Packed {
            header: self.header,
            index: self.index.finish(),
            bytes: self.buf_at,
        })
    }
}

/// The room that a state record names, if it is such a record.
fn named_room(bytes: &[u8]) -> Option<RoomId> {
    let record = RawRecord::parse(bytes)?;
    let kind = Some(record.head.kind).filter(|kind| names_room(*kind))?;
    let named = RoomStateRecord::parse(kind, record.payload())?;
    Some(RoomId::new(named.room))
}

/// Whether what is damaged is sure to hold nothing that is alive.
fn is_dead(place: &Place, live: Live<'_>) -> bool {
    match (place.part, &place.room) {
        (DamagePart::Padding, _) => true,
        (DamagePart::Record, Some(span)) => live(span.room).is_none_or(|first| span.last < first),
        _ => false,
    }
}
