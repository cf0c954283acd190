//! Opens a log: finds its segments, its end, and the state that it tells.
//!
//! ```text
//!            checkpoint                    D = proven durable      end
//!                 |                              |                  |
//!   ..............|==============================|xxxxxxxxx|????????|
//!   not read      replayed; what is not          whole     torn:
//!                 readable here is damage        batches:  set aside
//!                                                copied
//! ```
//!
//! Everything before `D`, the highest `durable_upto` that any batch vouches for, was acknowledged:
//! what does not read back there is damage, reported and isolated, never the end of the log.
//! Behind `D` a batch counts only if every byte of it is right. Unless a mark proves that nothing
//! is missing, that tail is copied into a new segment before anybody is served, because after a
//! failed sync the page cache may show what the disk does not have.

use std::{io, mem};

use broker_proto::StoreId;
use bytes::Bytes;

use super::batch::{BATCH_BYTES_MAX, BatchHead, BatchKind};
use super::catalog::{Catalog, before, delete_leftovers, io_of};
use super::check::batch_damage;
use super::checkpoints::older_checkpoint;
use super::damage::{DamagePart, Place};
use super::early::read_early;
use super::error::RecoveryError;
use super::index::{IndexBuilder, SegmentIndex};
use super::position::LogPosition;
use super::replay::{Pass, Replay};
use super::scan::{Scanner, Step, head_at, next_head, whole_batch};
use super::segment::{SegmentHeader, SegmentId};
use super::spare::spare_number;
use super::storage::{Storage, StorageFile};
use super::window::Window;

use crate::planted::{Bug, planted};

/// What this program understands of a store: from 2 on, segments may have been rewritten or deleted.
pub const FEATURE_LEVEL: u32 = 2;

/// Read this much at a time while replaying.
const READ_AHEAD: usize = 1 << 20;
/// Torn tails that are kept for a look.
const TORN_FILES_MAX: usize = 16;
/// Of each, at most this many bytes.
const TORN_BYTES_MAX: usize = 4 << 20;

/// A log, as it was found.
#[derive(Debug)]
pub(crate) struct Recovered {
    pub(crate) state: Replay,
    /// In the order of the log, with where each ends.
    pub(crate) segments: Vec<(SegmentHeader, LogPosition)>,
    /// What the last segment holds.
    pub(crate) last_index: SegmentIndex,
    /// Up to where an early footer told that; `NONE` without one.
    pub(crate) early: LogPosition,
    /// Everything before is proven to be on stable storage.
    pub(crate) proven: LogPosition,
    /// Whole batches behind that.
    pub(crate) tail: Vec<(BatchHead, Vec<u8>)>,
    /// A mark ends the log: writing goes on in the last segment.
    pub(crate) clean: bool,
    /// Size of the last segment's file.
    pub(crate) last_file_bytes: u64,
    /// Where the checkpoint begins that was taken over; `NONE` without one.
    pub(crate) checkpoint: LogPosition,
    /// Where the older of the two newest complete checkpoints begins: of what lies wholly before, only messages are still
    /// wanted.
    pub(crate) covered: LogPosition,
    pub(crate) last_term: u64,
    pub(crate) last_segment: SegmentId,
    /// Bytes behind the last whole batch that were not zero.
    pub(crate) torn_bytes: u64,
    /// Files that a leader before had prepared, to be deleted once there is time. No spare may be made under one of their names.
    pub(crate) spares: Vec<String>,
}

impl Recovered {
    /// The highest number of a spare that is still there.
    pub(crate) fn spares_made(&self) -> u64 {
        let numbers = self.spares.iter().filter_map(|name| spare_number(name));
        numbers.max().unwrap_or(0)
    }
}

/// Told how far the replay is: bytes done, bytes in all.
pub(crate) type Progress<'a> = &'a mut dyn FnMut(u64, u64);

/// The leader before, as far as something else than the log knows: what it wrote there last, if that is a close mark.
///
/// Nothing is written behind a close mark but by a later leader, and a later leader is known by its term. So a close mark of this
/// one needs no look at what lies behind it, where otherwise a write over the mark could have been dropped by the disk: only what
/// was written after that one would tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastLeader {
    /// Its term: nobody has led under a higher one and written anything.
    pub term: u64,
    /// It has led since then: wall clock, microseconds since 1970 UTC.
    pub since: i64,
}

impl LastLeader {
    /// Whether it is this leader that closed the log with this mark.
    fn has_closed(self, mark: &BatchHead) -> bool {
        mark.kind == BatchKind::CloseMark && mark.term == self.term && mark.time >= self.since
    }
}

/// Reads the log of a store; changes nothing but that files are deleted that hold nothing, and, when all has been read,
/// those that another file stands for.
///
/// # Errors
/// [`RecoveryError`]; nothing is lost then.
pub(crate) fn recover<S: Storage>(
    storage: &S,
    store: StoreId,
    last_leader: Option<LastLeader>,
    progress: Progress<'_>,
) -> Result<Recovered, RecoveryError> {
    let catalog = Catalog::read(storage, store)?;
    let segments = &catalog.headers;
    let Some(last) = segments.last().cloned() else {
        return Ok(Recovered {
            spares: catalog.spares,
            ..empty()
        });
    };
    let last_term = segments.iter().map(|header| header.term).max().unwrap_or(0);
    let mut window = open(storage, &last)?;
    let last_file_bytes = io_of(
        &last.name.file(),
        storage
            .open_read(&last.name.file())
            .and_then(|file| file.len()),
    )?;
    let early = read_early(storage, &mut window);
    let known = early.as_ref().map_or(last.base, |(_, upto)| *upto);
    let mut ends = in_file(&last, find_end(&mut window, known, last_leader))?;
    // Only when all that came after it are gone.
    ends.proven = ends.proven.max(last.packed_end().unwrap_or_default());
    let checkpoint = ends
        .checkpoint
        .or(Some(last.checkpoint))
        .filter(|at| *at != LogPosition::NONE);
    let mut recovered = Recovered {
        state: Replay::default(),
        segments: Vec::new(),
        last_index: SegmentIndex::default(),
        early: early.as_ref().map_or(LogPosition::NONE, |(_, upto)| *upto),
        proven: ends.proven,
        tail: Vec::new(),
        clean: false,
        last_file_bytes,
        checkpoint: checkpoint.unwrap_or(LogPosition::NONE),
        last_term: last_term.max(ends.term),
        covered: LogPosition::START,
        last_segment: *last.covers().end(),
        torn_bytes: 0,
        spares: catalog.spares.clone(),
    };
    let next = segments.iter().skip(1).map(|header| header.base);
    let limits = next.chain([ends.proven]).zip(segments.iter());
    recovered.segments = limits
        .map(|(limit, header)| (header.clone(), header.packed_end().unwrap_or(limit)))
        .collect();
    let mended = recovered.segments.iter().map(|(header, _)| header);
    let mended = mended.filter(|header| header.store.is_none());
    let mut places: Vec<Place> = mended
        .map(|header| Place::of_file(header.name.file(), 0, header.base, DamagePart::Header))
        .collect();
    let hollow = catalog.hollow.iter();
    places.extend(
        hollow.map(|name| Place::of_file(name.file(), 0, LogPosition::START, DamagePart::Header)),
    );
    replay_proven(storage, &mut recovered, early, progress)?;
    places
        .into_iter()
        .for_each(|place| recovered.state.damage(place));
    in_file(&last, read_tail(&mut window, &mut recovered))?;
    recovered.state.know_rooms_of_producers();
    let producers = &recovered.state.producers;
    recovered.state.in_doubt.settle(producers);
    if let Some(doubt) = recovered.state.doubt {
        tracing::error!(upto = %doubt, "part of the log cannot be read; all rooms that may have lost messages go on with higher seqs");
        recovered.state.raise(doubt);
    }
    if let Some((kind, at)) = recovered.state.unknown {
        return Err(RecoveryError::UnknownRecord { kind, at });
    }
    if planted(Bug::ProducersForgotten) {
        recovered.state.producers = crate::store::Producers::default();
    }
    delete_leftovers(storage, &catalog);
    Ok(recovered)
}

fn empty() -> Recovered {
    Recovered {
        state: Replay::default(),
        segments: Vec::new(),
        last_index: SegmentIndex::default(),
        early: LogPosition::NONE,
        proven: LogPosition::START,
        tail: Vec::new(),
        clean: false,
        last_file_bytes: 0,
        checkpoint: LogPosition::NONE,
        covered: LogPosition::START,
        last_term: 0,
        last_segment: SegmentId(0),
        torn_bytes: 0,
        spares: Vec::new(),
    }
}

fn open<S: Storage>(storage: &S, header: &SegmentHeader) -> Result<Window<S::File>, RecoveryError> {
    let name = header.name.file();
    let file = io_of(&name, storage.open_read(&name))?;
    Ok(Window::new(file, header.clone(), READ_AHEAD).careful())
}

/// What the heads of the last segment tell.
#[derive(Debug)]
pub(crate) struct Ends {
    /// The highest place that any of them vouches for.
    pub(crate) proven: LogPosition,
    pub(crate) checkpoint: Option<LogPosition>,
    term: u64,
}

impl Ends {
    fn take(&mut self, head: &BatchHead) {
        self.proven = self.proven.max(head.durable_upto);
        self.term = self.term.max(head.term);
        if head.checkpoint != LogPosition::NONE {
            self.checkpoint = self.checkpoint.max(Some(head.checkpoint));
        }
    }
}

/// Looks at every head of the last segment, also behind places that do not read as a batch: what a
/// later batch vouches for was durable, whatever lies there now. It begins at the base, or where an
/// early footer leads: everything before was durable when the segment got its name, or the head there
/// was written.
pub(crate) fn find_end<F: StorageFile>(
    window: &mut Window<F>,
    from: LogPosition,
    last_leader: Option<LastLeader>,
) -> io::Result<Ends> {
    let mut ends = Ends {
        proven: from,
        checkpoint: None,
        term: 0,
    };
    let mut at = from;
    loop {
        let head = match head_at(window, at)? {
            Some(head) => Some(head),
            None if planted(Bug::TruncateAtFirstBad) => None,
            None => next_head(window, at, at.plus(BATCH_BYTES_MAX as u64))?,
        };
        let Some(head) = head else { return Ok(ends) };
        ends.take(&head);
        at = head.end();
        window.skim(&head);
        if last_leader.is_some_and(|leader| leader.has_closed(&head)) {
            return Ok(ends);
        }
        if head.kind.is_mark() {
            // Usually nothing follows. But if the disk has dropped the write that took the mark's
            // place, those after it tell.
            let Some(after) = next_head(window, at, at.plus(BATCH_BYTES_MAX as u64))? else {
                return Ok(ends);
            };
            ends.take(&after);
            at = after.end();
        }
    }
}

/// Takes over the newest checkpoint, or the one before it where that is damaged; says where to go on from. Without either
/// that is the beginning: whatever a checkpoint said is in the log as well, as long as nothing of it was given up.
fn start_from_checkpoint<S: Storage>(
    storage: &S,
    recovered: &mut Recovered,
) -> Result<LogPosition, RecoveryError> {
    let newest = recovered.checkpoint;
    if newest == LogPosition::NONE {
        return Ok(LogPosition::START);
    }
    let older = older_checkpoint(storage, &recovered.segments, newest);
    let older = io_of("the log at its last checkpoint", older)?;
    if apply_checkpoint(storage, recovered, newest)? {
        recovered.covered = older.unwrap_or(LogPosition::START);
        return Ok(newest);
    }
    recovered.checkpoint = LogPosition::NONE;
    if let Some(older) = older
        && apply_checkpoint(storage, recovered, older)?
    {
        recovered.checkpoint = older;
        return Ok(older);
    }
    tracing::warn!("no checkpoint can be read; the whole log is replayed");
    Ok(LogPosition::START)
}

/// Applies the checkpoint and everything after its beginning, up to what is proven.
fn replay_proven<S: Storage>(
    storage: &S,
    recovered: &mut Recovered,
    early: Option<(SegmentIndex, LogPosition)>,
    progress: Progress<'_>,
) -> Result<(), RecoveryError> {
    let first = start_from_checkpoint(storage, recovered)?;
    recovered.state.told_upto = first;
    let last_base = recovered
        .segments
        .last()
        .map_or(first, |(header, _)| header.base);
    // The last segment is read from its base on for its index, or from where that is known; replaying more than needed does no
    // harm.
    let known = early.as_ref().map_or(last_base, |(_, upto)| *upto);
    let last_from = last_base.max(first.min(known));
    let mut builder = Some(match early {
        Some((index, upto)) => IndexBuilder::resume(last_base, index, upto),
        None => IndexBuilder::new(last_base),
    });
    let total = recovered.proven.since(first.min(last_from));
    let begins = recovered.segments.first().map(|(header, _)| header.base);
    if let Some(begins) = begins.filter(|begins| *begins > first) {
        recovered.state.doubt(begins);
        if let Some((header, _)) = recovered.segments.first() {
            let name = before(header);
            let place = Place::missing(name, LogPosition::START, begins);
            recovered.state.damage(place);
        }
    }
    for (at, (header, end)) in recovered.segments.iter().enumerate() {
        let is_last = at + 1 == recovered.segments.len();
        if *end <= first && !is_last {
            continue;
        }
        let from = if is_last {
            last_from
        } else {
            header.base.max(first)
        };
        let mut scanner = Scanner::new(open(storage, header)?, from, *end).skimming();
        let mut builder = if is_last { builder.take() } else { None };
        let mut tell = |at: LogPosition| progress(at.since(first), total);
        in_file(
            header,
            replay(
                &mut scanner,
                &mut recovered.state,
                Pass::Everything,
                builder.as_mut(),
                &mut tell,
            ),
        )?;
        if let Some(builder) = builder {
            recovered.last_index = builder.finish();
        }
    }
    Ok(())
}

/// Takes over what a checkpoint says; false when part of it cannot be read, and then nothing of it
/// is taken.
fn apply_checkpoint<S: Storage>(
    storage: &S,
    recovered: &mut Recovered,
    begin: LogPosition,
) -> Result<bool, RecoveryError> {
    for (header, end) in &recovered.segments {
        if *end > begin && !recovered.state.checkpoint_is_whole {
            let from = header.base.max(begin);
            let mut scanner = Scanner::new(open(storage, header)?, from, *end).skimming();
            in_file(
                header,
                replay(
                    &mut scanner,
                    &mut recovered.state,
                    Pass::Checkpoint(begin),
                    None,
                    &mut |_| {},
                ),
            )?;
        }
    }
    let is_whole = recovered.state.checkpoint_is_whole || planted(Bug::CheckpointBelievedInPart);
    if !is_whole {
        tracing::warn!(%begin, "a checkpoint is damaged and not used");
        let places = mem::take(&mut recovered.state).places;
        places
            .into_iter()
            .for_each(|place| recovered.state.damage(place));
        let holding = recovered.segments.iter().find(|(_, end)| *end > begin);
        if let Some((header, _)) = holding.or(recovered.segments.last()) {
            let place = Place::new(header, begin, begin, DamagePart::Checkpoint);
            recovered.state.damage(place);
        }
    }
    Ok(is_whole)
}

fn replay<F: StorageFile>(
    scanner: &mut Scanner<F>,
    state: &mut Replay,
    pass: Pass,
    mut index: Option<&mut IndexBuilder>,
    tell: &mut dyn FnMut(LogPosition),
) -> io::Result<()> {
    loop {
        match scanner.step()? {
            Step::Batch(view) => {
                if view.damaged && pass == Pass::Everything {
                    for place in batch_damage(scanner.window.header(), &view) {
                        state.damage(place);
                    }
                    if view.is_partial() {
                        if let Some(index) = &mut index {
                            index.miss();
                        }
                        state.doubt(view.head.end());
                    }
                }
                state.batch(&view, &mut scanner.window, pass, index.as_deref_mut())?;
            }
            Step::Lost { from, upto } if pass == Pass::Everything => {
                let header = scanner.window.header();
                state.damage(Place::new(header, from, upto, DamagePart::Batch));
                state.doubt(upto);
                if let Some(index) = &mut index {
                    index.miss();
                }
            }
            Step::Lost { .. } => {}
            Step::End => return Ok(()),
        }
        if matches!(pass, Pass::Checkpoint(_)) && state.checkpoint_is_whole {
            return Ok(());
        }
        tell(scanner.at());
    }
}

/// Reads what lies behind the proven part.
fn read_tail<F: StorageFile>(window: &mut Window<F>, recovered: &mut Recovered) -> io::Result<()> {
    let mut at = recovered.proven;
    while let Some((head, bytes)) = whole_batch(window, at)? {
        if head.kind.is_mark() {
            // A segment of which nothing but its first write is there may not have its name on the
            // disk yet, though the page cache shows it: whoever went on in it could lose it all.
            recovered.clean = recovered.tail.is_empty()
                && head.durable_upto == at
                && (head.kind != BatchKind::CutMark || planted(Bug::CutMarkIgnored));
            return Ok(());
        }
        apply_tail_batch(window, &head, recovered)?;
        recovered.tail.push((head, bytes.to_vec()));
        at = head.end();
    }
    recovered.torn_bytes = torn_len(window, at)? as u64;
    Ok(())
}

fn apply_tail_batch<F: StorageFile>(
    window: &mut Window<F>,
    head: &BatchHead,
    recovered: &mut Recovered,
) -> io::Result<()> {
    let limit = head.end();
    // The scanner needs a window of its own; the bytes were just read and lie in the page cache.
    let mut scanner = Scanner::new(window.again(), head.position, limit).skimming();
    replay(
        &mut scanner,
        &mut recovered.state,
        Pass::Everything,
        None,
        &mut |_| {},
    )
}

/// What was written behind the last whole batch, without the zeros at its end.
pub(crate) fn torn_bytes<F: StorageFile>(
    window: &mut Window<F>,
    at: LogPosition,
) -> io::Result<Bytes> {
    let len = torn_len(window, at)?;
    window.up_to(at, len)
}

/// How many bytes that is, at most [`TORN_BYTES_MAX`].
fn torn_len<F: StorageFile>(window: &mut Window<F>, at: LogPosition) -> io::Result<usize> {
    // Nearly always all of it is zeros, so these are passed over many at a time.
    let is_zero = |piece: &[u8]| piece.iter().fold(0, |all, byte| all | byte) == 0;
    let (mut len, mut seen) = (0, 0);
    while seen < TORN_BYTES_MAX {
        let wanted = READ_AHEAD.min(TORN_BYTES_MAX - seen);
        let bytes = window.up_to(at.plus(seen as u64), wanted)?;
        for (n, piece) in bytes.chunks(256).enumerate() {
            if !is_zero(piece) {
                let last = piece.iter().rposition(|byte| *byte != 0);
                len = seen + n * 256 + last.map_or(0, |last| last + 1);
            }
        }
        seen += bytes.len();
        if bytes.len() < wanted {
            break;
        }
    }
    Ok(len)
}

/// Keeps torn bytes for a look, in one of at most [`TORN_FILES_MAX`] files.
pub(crate) fn set_aside<S: Storage>(
    storage: &S,
    header: &SegmentHeader,
    at: LogPosition,
) -> io::Result<()> {
    let file = storage.open_read(&header.name.file())?;
    let torn = torn_bytes(&mut Window::new(file, header.clone(), READ_AHEAD), at)?;
    if torn.is_empty() {
        return Ok(());
    }
    let mut kept: Vec<String> = storage
        .list()?
        .into_iter()
        .filter(|name| is_torn_name(name))
        .collect();
    kept.sort_unstable();
    while kept.len() >= TORN_FILES_MAX {
        storage.delete(&kept.remove(0))?;
    }
    let name = format!("torn-{:016x}.bin", at.get());
    match storage.delete(&name) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    storage.create(&name)?.write_at(0, &torn)
}

fn is_torn_name(name: &str) -> bool {
    let digits = name
        .strip_prefix("torn-")
        .and_then(|rest| rest.strip_suffix(".bin"));
    digits.is_some_and(|digits| {
        digits.len() == 16 && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
    })
}

fn in_file<T>(header: &SegmentHeader, result: io::Result<T>) -> Result<T, RecoveryError> {
    io_of(&header.name.file(), result)
}

#[cfg(test)]
mod tests;
