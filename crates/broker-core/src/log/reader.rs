//! Reads rooms out of the log: from memory when the reader follows along, from the disk otherwise.
//!
//! **Invariant:** a record is handed out only after both of its checksums were found right, or it
//! comes from memory, where it has been since it was written. Seqs have no gaps, so whatever is
//! missing between two records is damage, and is told as such.

use std::io;

use broker_proto::{RoomId, Seq, SkipRange, SkipReason};
use bytes::Bytes;

use super::check::batch_damage;
use super::damage::{DamagePart, FoundBy, Place};
use super::layouts::RunLayout;
use super::position::LogPosition;
use super::scan::{Scanner, Step};
use super::segment::SegmentName;
use super::segments::{IndexView, Segment, Segments};
use super::state_record::RawRecord;
use super::storage::{Storage, StorageFile};
use super::tail::{Tail, TailRun};
use super::window::Window;
use crate::planted::{Bug, planted};
use crate::store::{Hint, ReadReply};
use crate::sync::Arc;

/// Most that one read takes from the disk at a time, in bytes.
const READ_AHEAD: usize = 256 << 10;
/// How often a read begins again because a segment was replaced under way.
const RESTARTS_MAX: usize = 8;
/// What is handed out is copied when it is less than this part of what it would keep in memory.
const PIN_SHARE: usize = 4;

/// A room as it was when the read began, and what is wanted of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted {
    pub(crate) room: RoomId,
    pub(crate) from: Seq,
    pub(crate) head: Seq,
    /// Where the newest message lies.
    pub(crate) last_at: LogPosition,
    pub(crate) count_max: u32,
    pub(crate) bytes_max: u32,
    pub(crate) hint: Hint,
    /// Everything before is durable: nothing beyond is read.
    pub(crate) durable: LogPosition,
    /// Whether only what is in memory is read, and nothing that is damaged: all else is an error of the kind
    /// [`io::ErrorKind::WouldBlock`].
    pub(crate) at_once: bool,
}

/// Collects records until there are enough.
struct Collected {
    next: Seq,
    count_left: u32,
    bytes_left: usize,
    count: u32,
    records: Vec<Bytes>,
    skip: Option<SkipRange>,
    hint: Hint,
    /// Whether the disk was waited for.
    waited: bool,
}

impl Collected {
    fn new(wanted: &Wanted) -> Self {
        Self {
            next: wanted.from,
            count_left: wanted.count_max,
            bytes_left: wanted.bytes_max as usize,
            count: 0,
            records: Vec::new(),
            skip: None,
            hint: wanted.hint,
            waited: false,
        }
    }

    fn is_full(&self) -> bool {
        self.count_left == 0 || (self.count > 0 && self.bytes_left == 0)
    }

    /// Takes the next records.
    fn push(&mut self, count: u32, records: Bytes) {
        self.count += count;
        self.count_left = self.count_left.saturating_sub(count);
        self.bytes_left = self.bytes_left.saturating_sub(records.len());
        self.next = Seq::new(self.next.get() + u64::from(count));
        self.records.push(records);
    }

    /// Takes records from a cached run, after passing over those before `next`. Says whether there is
    /// room for more.
    fn take_cached(&mut self, run: &TailRun<'_>) -> bool {
        let skip = self.next.get().saturating_sub(run.run.first_seq.get());
        let (records, count, is_rest) = run.part(
            usize::try_from(skip).unwrap_or(usize::MAX),
            self.count_left as usize,
            self.bytes_left,
            // One whole message always fits, however large it is.
            self.count == 0,
        );
        if count > 0 {
            self.push(count, records);
        }
        is_rest && !self.is_full()
    }

    /// Says that seqs up to `upto` will not come; false when records were collected before, which
    /// have to be handed out first.
    fn miss(&mut self, upto: Seq) -> bool {
        if self.count > 0 {
            return false;
        }
        let from = self.skip.map_or(self.next, |skip| skip.from);
        self.skip = Some(SkipRange {
            from,
            to: upto,
            reason: SkipReason::DAMAGED,
        });
        self.next = Seq::new(upto.get() + 1);
        true
    }

    fn into_reply(self, mut reply: ReadReply) -> ReadReply {
        reply.next = self.next;
        reply.skip = self.skip;
        reply.count = self.count;
        reply.records = self.records;
        reply.hint = self.hint;
        reply
    }
}

/// Reads from the cached batches; `None` when the first wanted message is not among them.
pub(crate) fn read_tail(tail: &Tail, wanted: &Wanted, reply: ReadReply) -> Option<ReadReply> {
    let from = tail.find(wanted.room, wanted.from, wanted.last_at)?;
    let mut collected = Collected::new(wanted);
    for cached in tail.runs(wanted.room, from) {
        if cached.run.first_seq > collected.next {
            // A gap within the cache cannot be; the disk has the last word.
            break;
        }
        let more = collected.take_cached(&cached);
        if collected.next > cached.run.last_seq() {
            collected.hint = Hint(cached.end.get());
        }
        if !more || collected.next > wanted.head {
            break;
        }
    }
    (collected.count > 0).then(|| collected.into_reply(reply))
}

/// Reads what of the disk is in memory, without waiting; `None` when not all of it is, or when any of it is damaged:
/// [`read_disk`] looks closer then.
pub(crate) fn read_cached<S: Storage>(
    segments: &Segments<S>,
    wanted: &Wanted,
    reply: ReadReply,
) -> Option<ReadReply> {
    let wanted = Wanted {
        at_once: true,
        ..*wanted
    };
    let (found, _) = read_segments(segments, &wanted, reply).ok()?;
    (found.skip.is_none() && found.count > 0).then_some(found)
}

/// Reads from the disk; says also whether the disk was waited for.
///
/// # Errors
/// Those of the disk; damage is not an error but a skip.
pub(crate) fn read_disk<S: Storage>(
    segments: &Segments<S>,
    wanted: &Wanted,
    reply: ReadReply,
) -> io::Result<(ReadReply, bool)> {
    let found = until_found(|| read_segments(segments, wanted, reply.clone()))?;
    if found.0.skip.is_none() || wanted.hint == Hint::default() {
        return Ok(found);
    }
    // Nobody vouches for a hint: one that leads behind what is wanted makes whole messages look
    // lost.
    let unhinted = Wanted {
        hint: Hint::default(),
        ..*wanted
    };
    until_found(|| read_segments(segments, &unhinted, reply.clone()))
}

/// Begins again, with the segments as they are then, when one of them was replaced under way: that happens to one read
/// after the other only if files are gone that should not be.
///
/// # Errors
/// Those of `read`.
pub(super) fn until_found<T>(mut read: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    for _ in 0..RESTARTS_MAX {
        match read() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => return other,
        }
    }
    read()
}

fn read_segments<S: Storage>(
    segments: &Segments<S>,
    wanted: &Wanted,
    reply: ReadReply,
) -> io::Result<(ReadReply, bool)> {
    let mut collected = Collected::new(wanted);
    let Some(mut segment) = find_segment(segments, wanted)? else {
        collected.miss(wanted.head);
        return Ok((collected.into_reply(reply), true));
    };
    loop {
        let more =
            read_segment(segments, &segment, wanted, &mut collected).inspect_err(|error| {
                if error.kind() != io::ErrorKind::WouldBlock {
                    segments.files().close(segment.header.name);
                }
            })?;
        if !more || collected.next > wanted.head {
            break;
        }
        match segments.after(&segment)? {
            Some(next) => segment = next,
            None => {
                // The end of the log: what has not come up to the head is gone.
                collected.miss(wanted.head);
                break;
            }
        }
    }
    let waited = collected.waited;
    Ok((collected.into_reply(reply), waited))
}

/// The segment in which to look for the first wanted message: the last one whose messages of the
/// room begin at or before it.
fn find_segment<S: Storage>(
    segments: &Segments<S>,
    wanted: &Wanted,
) -> io::Result<Option<Arc<Segment>>> {
    if let Some(segment) = hinted_segment(segments, wanted)? {
        return Ok(Some(segment));
    }
    let mut at = segments.holding(wanted.last_at);
    let mut earliest = None;
    while let Some(segment) = at {
        let (found, previous) = {
            let index = index(segments, &segment, wanted)?;
            match index.room(wanted.room) {
                Some(room) => (room.first_seq() <= wanted.from, Some(room.previous)),
                None => (false, None),
            }
        };
        if found {
            return Ok(Some(segment));
        }
        at = match previous {
            Some(LogPosition::NONE) => return Ok(Some(segment)),
            Some(previous) => {
                let next = segments
                    .holding(previous)
                    .filter(|next| next.header.name < segment.header.name);
                earliest = Some(segment);
                next
            }
            // Not in this one, though the chain led here: part of it is lost.
            None => segments.before(&segment)?,
        };
    }
    Ok(earliest)
}

/// The segment that the hint leads to, when its index says that the first wanted message is there: whoever reads on would
/// otherwise walk back through all segments for every read.
fn hinted_segment<S: Storage>(
    segments: &Segments<S>,
    wanted: &Wanted,
) -> io::Result<Option<Arc<Segment>>> {
    if wanted.hint == Hint::default() {
        return Ok(None);
    }
    let Some(segment) = segments.holding(LogPosition::new(wanted.hint.0)) else {
        return Ok(None);
    };
    let is_there = {
        let index = index(segments, &segment, wanted)?;
        index
            .room(wanted.room)
            .is_some_and(|room| (room.first_seq()..=room.last_seq).contains(&wanted.from))
    };
    Ok(is_there.then_some(segment))
}

/// Collects from one segment; says whether there is room for more.
fn read_segment<S: Storage>(
    segments: &Segments<S>,
    segment: &Arc<Segment>,
    wanted: &Wanted,
    collected: &mut Collected,
) -> io::Result<bool> {
    let limit = segment.end().unwrap_or(wanted.durable).min(wanted.durable);
    let mut window = None;
    let mut at = segment.header.base;
    loop {
        let (entry, next, last_seq) = {
            let index = index(segments, segment, wanted)?;
            let Some(room) = index.room(wanted.room) else {
                return Ok(true);
            };
            let found = room
                .entry_for(collected.next)
                .map(|(entry, next)| (entry.at, next));
            // Before its first message here, begin at that one; the gap shows there.
            let first = || room.first_entry().map(|(entry, next)| (entry.at, next));
            let Some((entry, next)) = found.or_else(first) else {
                return Ok(true);
            };
            (entry, next, room.last_seq.min(wanted.head))
        };
        if last_seq < collected.next {
            return Ok(true);
        }
        let hint = LogPosition::new(collected.hint.0);
        let hinted = hint > entry && next.is_none_or(|next| hint < next);
        let start = if hinted { at.max(hint) } else { at.max(entry) };
        if start >= limit {
            // The whole segment has been looked through.
            return Ok(collected.miss(last_seq));
        }
        let held = match window.take() {
            Some(held) => held,
            None => open(segments, segment, wanted, limit)?,
        };
        // Look beyond the next entry, so that dense rooms are read in long strides.
        let stop = next.map_or(limit, |next| next.max(start.plus(READ_AHEAD as u64)));
        let mut scanner = Scanner::new(held, start, limit).stop_at(stop);
        let more = read_batches(segments, segment, &mut scanner, wanted, collected)?;
        collected.waited |= scanner.window.has_waited();
        if !more {
            return Ok(false);
        }
        at = scanner.at();
        window = Some(scanner.window);
    }
}

fn index<'a, S: Storage>(
    segments: &'a Segments<S>,
    segment: &Arc<Segment>,
    wanted: &Wanted,
) -> io::Result<IndexView<'a>> {
    if wanted.at_once {
        let index = segments.index_in_memory(segment);
        return index.ok_or_else(|| io::ErrorKind::WouldBlock.into());
    }
    segments.index(segment)
}

pub(super) fn open<S: Storage>(
    segments: &Segments<S>,
    segment: &Segment,
    wanted: &Wanted,
    limit: LogPosition,
) -> io::Result<Window<S::File>> {
    let name = segment.header.name;
    let file = if wanted.at_once {
        let file = segments.files().find(name);
        file.ok_or(io::ErrorKind::WouldBlock)?
    } else {
        segments.files().get(segments.storage(), name)?
    };
    if !segments.lists(name) {
        // Kept open, a file that was deleted would go on taking space.
        segments.files().close(name);
        return Err(io::ErrorKind::NotFound.into());
    }
    let ahead = (wanted.bytes_max as usize).clamp(16 << 10, READ_AHEAD);
    let window = Window::shared(file, segment.header.clone(), ahead, limit);
    let window = window.into_blocks(segments.blocks()).sparse();
    Ok(if wanted.at_once {
        window.at_once()
    } else {
        window
    })
}

/// Collects from the batches of a scanner; says whether there is room for more.
fn read_batches<S: Storage>(
    segments: &Segments<S>,
    segment: &Segment,
    scanner: &mut Scanner<S::File>,
    wanted: &Wanted,
    collected: &mut Collected,
) -> io::Result<bool> {
    let name = segment.header.name;
    loop {
        let layout = match known_run(segments, name, scanner, wanted) {
            Some(layout) => {
                scanner.pass(layout.end);
                layout
            }
            None => match next_run(segments, segment, scanner, wanted)? {
                Found::Run(layout) => layout,
                Found::Nothing => continue,
                Found::End => return Ok(true),
            },
        };
        let last_seq = layout.run.last_seq();
        if last_seq < collected.next {
            continue;
        }
        let mut more;
        loop {
            let before = collected.next;
            more = read_run(segments, segment, &mut scanner.window, &layout, collected)?;
            // Behind a damaged record its neighbours are still to be read.
            let is_done = collected.next > last_seq || collected.next == before;
            if !more || is_done {
                break;
            }
        }
        if collected.next > last_seq {
            collected.hint = Hint(layout.end.get());
        } else {
            // The next read goes on in this batch.
            collected.hint = Hint(layout.at.get());
            segments.layouts().keep(name, layout);
        }
        if !more || collected.next > wanted.head {
            return Ok(false);
        }
    }
}

/// The layout of the next batch, when an earlier read has left it.
fn known_run<S: Storage>(
    segments: &Segments<S>,
    name: SegmentName,
    scanner: &Scanner<S::File>,
    wanted: &Wanted,
) -> Option<Arc<RunLayout>> {
    if scanner.has_found() {
        // What was saved comes first: it lies before.
        return None;
    }
    segments.layouts().find(name, scanner.at(), wanted.room)
}

/// What a scanner comes upon next.
enum Found {
    Run(Arc<RunLayout>),
    /// Nothing of this room.
    Nothing,
    End,
}

fn next_run<S: Storage>(
    segments: &Segments<S>,
    segment: &Segment,
    scanner: &mut Scanner<S::File>,
    wanted: &Wanted,
) -> io::Result<Found> {
    // A hint may lead into the middle of a batch, and what lies there is no damage.
    let is_sure = wanted.hint == Hint::default();
    let view = match scanner.step()? {
        Step::Batch(view) => view,
        // Whatever was lost there shows as a gap before the next message.
        Step::Lost { from, upto } => {
            if is_sure {
                let place = Place::new(&segment.header, from, upto, DamagePart::Batch);
                segments.damage().note(place, FoundBy::Reader);
            }
            return Ok(Found::Nothing);
        }
        Step::End => return Ok(Found::End),
    };
    if view.damaged && is_sure {
        for place in batch_damage(&segment.header, &view) {
            segments.damage().note(place, FoundBy::Reader);
        }
    }
    let run = view.run(wanted.room);
    Ok(run.map_or(Found::Nothing, |run| {
        Found::Run(Arc::new(RunLayout::new(&view, run)))
    }))
}

/// Collects from one room's records in one batch; says whether there is room for more.
fn read_run<S: Storage>(
    segments: &Segments<S>,
    segment: &Segment,
    window: &mut Window<S::File>,
    layout: &RunLayout,
    collected: &mut Collected,
) -> io::Result<bool> {
    let run = &layout.run;
    if run.first_seq > collected.next && !collected.miss(Seq::new(run.first_seq.get() - 1)) {
        return Ok(false);
    }
    let first = collected.next;
    let skip = usize::try_from(first.get() - run.first_seq.get()).unwrap_or(usize::MAX);
    if collected.is_full() {
        return Ok(false);
    }
    // Read no more of a large run than can be handed out now.
    let mut count = layout.fitting(skip, collected.count_left as usize, collected.bytes_left);
    let start = layout.start_of(skip);
    if collected.count > 0 && layout.start_of(skip + count) - start > collected.bytes_left {
        return Ok(false);
    }
    let is_rest = skip + count >= layout.count();
    let at = layout.at.plus(u64::from(run.offset) + start as u64);
    let wanted_bytes = layout.start_of(skip + count) - start;
    // Beyond the rest of a run the next batch begins, and may be wanted as well.
    let ahead = if is_rest { collected.bytes_left } else { 0 };
    let records = window.up_to_with(at, wanted_bytes, ahead)?;
    let (mut place, mut bad) = (0, None);
    for (index, seq) in (0..count).zip(first.get()..) {
        let end = layout.start_of(skip + index + 1) - start;
        let bytes = records.get(place..end);
        if !bytes.is_some_and(|bytes| is_intact(bytes, run.room, Seq::new(seq))) {
            bad = Some(end - place);
            count = index;
            break;
        }
        place = end;
    }
    if count > 0 {
        let intact = unpin(records.slice(..place), window);
        collected.push(u32::try_from(count).unwrap_or(u32::MAX), intact);
    }
    match bad {
        None => Ok(is_rest && !collected.is_full()),
        // Hand out what came before it.
        Some(_) if count > 0 => Ok(false),
        Some(len) => {
            window.wait()?;
            bad_record(segments, segment, at, len, run.room, collected)
        }
    }
}

/// A record did not read as it was written: ask the disk itself, and only then call it damaged.
fn bad_record<S: Storage>(
    segments: &Segments<S>,
    segment: &Segment,
    at: LogPosition,
    len: usize,
    room: RoomId,
    collected: &mut Collected,
) -> io::Result<bool> {
    let direct = segments.storage().open(&segment.header.name.file())?;
    let mut bytes = vec![0; len];
    let read = direct.read_at(segment.header.offset_of(at), &mut bytes)?;
    if read == len && is_intact(&bytes, room, collected.next) {
        tracing::warn!(file = segment.header.name.file(), position = %at, "the page cache had a record wrong that is right on the disk");
        collected.push(1, Bytes::from(bytes));
        return Ok(!collected.is_full());
    }
    let seq = collected.next;
    let place = Place::new(&segment.header, at, at.plus(len as u64), DamagePart::Record);
    let place = place.of_message(room, seq);
    segments.damage().note(place, FoundBy::Reader);
    Ok(collected.miss(seq))
}

fn is_intact(bytes: &[u8], room: RoomId, seq: Seq) -> bool {
    if planted(Bug::ServedUnchecked) {
        return true;
    }
    RawRecord::parse(bytes).is_some_and(|record| {
        record.bytes.len() == bytes.len()
            && record.head.room == room
            && record.head.seq == seq
            && record.payload_is_whole()
    })
}

/// Copies small pieces, so that they do not keep a large window in memory.
fn unpin<F: StorageFile>(records: Bytes, window: &Window<F>) -> Bytes {
    if records.len() * PIN_SHARE < window.held_bytes() {
        Bytes::copy_from_slice(&records)
    } else {
        records
    }
}
