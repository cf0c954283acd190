//! Reads rooms out of the log: from memory when the reader follows along, from the disk otherwise.
//!
//! **Invariant:** a record is handed out only after both of its checksums were found right, or it
//! comes from memory, where it has been since it was written. Seqs have no gaps, so whatever is
//! missing between two records is damage, and is told as such.

use std::io;

use broker_proto::{Micros, RoomId, Seq, SkipRange, SkipReason};
use bytes::Bytes;

use super::batch::BatchRun;
use super::check::batch_damage;
use super::damage::{DamagePart, FoundBy, Place};
use super::position::LogPosition;
use super::scan::{BatchView, Scanner, Step};
use super::segments::{Segment, Segments};
use super::state_record::RawRecord;
use super::storage::{Storage, StorageFile};
use super::tail::{Tail, TailRun};
use super::window::Window;
use crate::planted::{Bug, planted};
use crate::store::{Hint, ReadReply};
use crate::sync::Arc;

/// Most that one read takes from the disk at a time, in bytes.
const READ_AHEAD: usize = 256 << 10;
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
        }
    }

    fn is_full(&self) -> bool {
        self.count_left == 0 || (self.count > 0 && self.bytes_left == 0)
    }

    /// Takes whole records from the front of a run that begins with seq `first`, after passing over
    /// those before `next`. Says whether there is room for more.
    fn take(&mut self, first: Seq, records: &Bytes) -> bool {
        let mut at = 0;
        let mut seq = first;
        while seq < self.next {
            let Some(len) = record_len(records, at) else {
                return true;
            };
            at += len;
            seq = Seq::new(seq.get() + 1);
        }
        let start = at;
        let mut full = false;
        while let Some(len) = record_len(records, at) {
            // One whole message always fits, however large it is.
            if self.count_left == 0 || (len > self.bytes_left && self.count > 0) {
                full = true;
                break;
            }
            at += len;
            self.count += 1;
            self.count_left -= 1;
            self.bytes_left = self.bytes_left.saturating_sub(len);
            self.next = Seq::new(self.next.get() + 1);
        }
        if at > start {
            self.records.push(records.slice(start..at));
        }
        !full && !self.is_full()
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
        self.bytes_left = self.bytes_left.saturating_sub(records.len());
        self.count += count;
        self.count_left = self.count_left.saturating_sub(count);
        self.next = Seq::new(self.next.get() + u64::from(count));
        if count > 0 {
            self.records.push(records);
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

/// The length of the record at an offset of checked records.
fn record_len(records: &[u8], at: usize) -> Option<usize> {
    let length: &[u8; 4] = records.get(at.checked_add(12)?..)?.first_chunk()?;
    let len = 16 + u32::from_le_bytes(*length) as usize;
    (at + len <= records.len()).then_some(len)
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

/// Reads from the disk.
///
/// # Errors
/// Those of the disk; damage is not an error but a skip.
pub(crate) fn read_disk<S: Storage>(
    segments: &Segments<S>,
    wanted: &Wanted,
    reply: ReadReply,
) -> io::Result<ReadReply> {
    let found = read_segments(segments, wanted, reply.clone())?;
    if found.skip.is_none() || wanted.hint == Hint::default() {
        return Ok(found);
    }
    // Nobody vouches for a hint: one that leads behind what is wanted makes whole messages look
    // lost.
    let unhinted = Wanted {
        hint: Hint::default(),
        ..*wanted
    };
    read_segments(segments, &unhinted, reply)
}

fn read_segments<S: Storage>(
    segments: &Segments<S>,
    wanted: &Wanted,
    reply: ReadReply,
) -> io::Result<ReadReply> {
    let mut collected = Collected::new(wanted);
    let Some(mut segment) = find_segment(segments, wanted)? else {
        collected.miss(wanted.head);
        return Ok(collected.into_reply(reply));
    };
    loop {
        let more = read_segment(segments, &segment, wanted, &mut collected)
            .inspect_err(|_| segments.files().close(segment.header.name))?;
        if !more || collected.next > wanted.head {
            break;
        }
        match segments.after(&segment) {
            Some(next) => segment = next,
            None => {
                // The end of the log: what has not come up to the head is gone.
                collected.miss(wanted.head);
                break;
            }
        }
    }
    Ok(collected.into_reply(reply))
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
            let index = segments.index(&segment)?;
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
            None => segments.before(&segment),
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
        let index = segments.index(&segment)?;
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
            let index = segments.index(segment)?;
            let Some(room) = index.room(wanted.room) else {
                return Ok(true);
            };
            let found = room
                .entry_for(collected.next)
                .map(|(entry, next)| (entry.at, next));
            // Before its first message here, begin at that one; the gap shows there.
            let first = || {
                room.entries
                    .first()
                    .map(|entry| (entry.at, room.entries.get(1).map(|next| next.at)))
            };
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
        if !read_batches(segments, segment, &mut scanner, wanted, collected)? {
            return Ok(false);
        }
        at = scanner.at();
        window = Some(scanner.window);
    }
}

fn open<S: Storage>(
    segments: &Segments<S>,
    segment: &Segment,
    wanted: &Wanted,
    limit: LogPosition,
) -> io::Result<Window<S::File>> {
    let name = segment.header.name;
    let file = segments.files().get(segments.storage(), name)?;
    let ahead = (wanted.bytes_max as usize).clamp(16 << 10, READ_AHEAD);
    let window = Window::shared(file, segment.header.clone(), ahead, limit);
    Ok(window.into_blocks(segments.blocks()).sparse())
}

/// Collects from the batches of a scanner; says whether there is room for more.
fn read_batches<S: Storage>(
    segments: &Segments<S>,
    segment: &Segment,
    scanner: &mut Scanner<S::File>,
    wanted: &Wanted,
    collected: &mut Collected,
) -> io::Result<bool> {
    // A hint may lead into the middle of a batch, and what lies there is no damage.
    let is_sure = wanted.hint == Hint::default();
    loop {
        let view = match scanner.step()? {
            Step::Batch(view) => view,
            // Whatever was lost there shows as a gap before the next message.
            Step::Lost { from, upto } => {
                if is_sure {
                    let place = Place::new(&segment.header, from, upto, DamagePart::Batch);
                    segments.damage().note(place, FoundBy::Reader);
                }
                continue;
            }
            Step::End => return Ok(true),
        };
        if view.damaged && is_sure {
            for place in batch_damage(&segment.header, &view) {
                segments.damage().note(place, FoundBy::Reader);
            }
        }
        let Some(run) = view.run(wanted.room) else {
            continue;
        };
        if run.last_seq() < collected.next {
            continue;
        }
        let mut more;
        loop {
            let before = collected.next;
            more = read_run(
                segments,
                segment,
                &mut scanner.window,
                &view,
                &run,
                collected,
            )?;
            // Behind a damaged record its neighbours are still to be read.
            let is_done = collected.next > run.last_seq() || collected.next == before;
            if !more || is_done {
                break;
            }
        }
        if collected.next > run.last_seq() {
            collected.hint = Hint(view.head.position.plus(u64::from(view.head.length)).get());
        }
        if !more || collected.next > wanted.head {
            return Ok(false);
        }
    }
}

/// Collects from one room's records in one batch; says whether there is room for more.
fn read_run<S: Storage>(
    segments: &Segments<S>,
    segment: &Segment,
    window: &mut Window<S::File>,
    view: &BatchView,
    run: &BatchRun,
    collected: &mut Collected,
) -> io::Result<bool> {
    if run.first_seq > collected.next && !collected.miss(Seq::new(run.first_seq.get() - 1)) {
        return Ok(false);
    }
    let lengths = view.lengths(run);
    let skip = usize::try_from(collected.next.get() - run.first_seq.get()).unwrap_or(usize::MAX);
    let before: u64 = lengths.iter().take(skip).map(|len| u64::from(*len)).sum();
    // Read no more of a large run than can be handed out now.
    let mut wanted_bytes = 0;
    for len in lengths.iter().skip(skip) {
        if wanted_bytes > 0 && wanted_bytes + *len as usize > collected.bytes_left {
            break;
        }
        wanted_bytes += *len as usize;
    }
    let at = view.head.position.plus(u64::from(run.offset) + before);
    let records = window.up_to(at, wanted_bytes)?;
    let mut place = 0;
    for (seq, len) in (collected.next.get()..).zip(lengths.iter().skip(skip)) {
        let len = *len as usize;
        if place >= wanted_bytes {
            break;
        }
        let intact = records
            .get(place..place + len)
            .is_some_and(|bytes| is_intact(bytes, run.room, Seq::new(seq)));
        if !intact {
            return bad_record(
                segments,
                segment,
                at.plus(place as u64),
                len,
                run.room,
                &records.slice(..place.min(records.len())),
                collected,
            );
        }
        place += len;
    }
    let first = collected.next;
    Ok(collected.take(first, &unpin(records.slice(..place), window)))
}

/// A record did not read as it was written: hand out what came before it, ask the disk itself, and
/// only then call it damaged.
fn bad_record<S: Storage>(
    segments: &Segments<S>,
    segment: &Segment,
    at: LogPosition,
    len: usize,
    room: RoomId,
    before: &Bytes,
    collected: &mut Collected,
) -> io::Result<bool> {
    if !before.is_empty() {
        let first = collected.next;
        collected.take(first, before);
        return Ok(false);
    }
    let direct = segments.storage().open(&segment.header.name.file())?;
    let mut bytes = vec![0; len];
    let read = direct.read_at(segment.header.offset_of(at), &mut bytes)?;
    if read == len && is_intact(&bytes, room, collected.next) {
        tracing::warn!(file = segment.header.name.file(), position = %at, "the page cache had a record wrong that is right on the disk");
        let first = collected.next;
        return Ok(collected.take(first, &Bytes::from(bytes)));
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

/// Finds the first message whose running maximum of time is `time` or later; one past the head when
/// there is none.
///
/// # Errors
/// Those of the disk.
pub(crate) fn find_time<S: Storage>(
    segments: &Segments<S>,
    wanted: &Wanted,
    time: Micros,
) -> io::Result<Seq> {
    let end = Seq::new(wanted.head.get() + 1);
    let mut at = segments.holding(wanted.last_at);
    let mut start = None;
    while let Some(segment) = at {
        let found = {
            let index = segments.index(&segment)?;
            index.room(wanted.room).map(|room| {
                (
                    room.entry_for_time(time).map(|(entry, _)| entry),
                    room.previous,
                    room.knows_times(),
                )
            })
        };
        let Some((entry, previous, is_sure)) = found else {
            at = segments.before(&segment);
            continue;
        };
        if entry.is_none() && previous == LogPosition::NONE {
            return Ok(wanted.from);
        }
        let earlier = segments
            .holding(previous)
            .filter(|earlier| earlier.header.name < segment.header.name);
        start = entry.map(|entry| (segment, entry));
        if start.is_some() && is_sure {
            break;
        }
        // It lies further back, or may do so.
        at = earlier;
    }
    let Some((mut segment, entry)) = start else {
        return Ok(wanted.from);
    };
    let mut from = entry.at;
    loop {
        let limit = segment.end().unwrap_or(wanted.durable).min(wanted.durable);
        let mut scanner = Scanner::new(open(segments, &segment, wanted, limit)?, from, limit);
        loop {
            match scanner.step()? {
                // Times never differ within a batch, and only a later batch raises the maximum.
                Step::Batch(view) if view.head.time >= time.get() => {
                    if let Some(run) = view.run(wanted.room) {
                        return Ok(run.first_seq.max(wanted.from));
                    }
                }
                Step::Batch(_) | Step::Lost { .. } => {}
                Step::End => break,
            }
        }
        match segments.after(&segment) {
            Some(next) => segment = next,
            None => return Ok(end),
        }
        from = segment.header.base;
    }
}
