//! Finds places in a room: by time, and by how much of it is kept; and which rooms a segment holds.
//!
//! The indexes lead to the right segment and close to the place in it; from there on batches are walked.

use std::io;

use broker_proto::{Micros, Seq};

use super::index::Entry;
use super::position::LogPosition;
use super::reader::{Wanted, open, until_found};
use super::scan::{Scanner, Step};
use super::segments::{Segment, Segments};
use super::storage::Storage;

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
    until_found(|| time_in(segments, wanted, time))
}

fn time_in<S: Storage>(segments: &Segments<S>, wanted: &Wanted, time: Micros) -> io::Result<Seq> {
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
                    room.first_seq() <= wanted.from,
                )
            })
        };
        let Some((entry, previous, is_sure, is_oldest)) = found else {
            at = segments.before(&segment)?;
            continue;
        };
        // What is not wanted any more is not looked for further back, and may be gone.
        if entry.is_none() && (is_oldest || previous == LogPosition::NONE) {
            return Ok(wanted.from);
        }
        let earlier = segments
            .holding(previous)
            .filter(|earlier| earlier.header.name < segment.header.name);
        start = entry.map(|entry| (segment, entry));
        if start.is_some() && (is_sure || is_oldest) {
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
        match segments.after(&segment)? {
            Some(next) => segment = next,
            None => return Ok(end),
        }
        from = segment.header.base;
    }
}

/// The oldest seq such that the records from it to the head have at most `bytes` bytes; one past the head when even the newest
/// alone has more. Never one before `wanted.from`.
///
/// # Errors
/// Those of the disk.
pub(crate) fn find_bytes<S: Storage>(
    segments: &Segments<S>,
    wanted: &Wanted,
    bytes: u64,
) -> io::Result<Seq> {
    until_found(|| bytes_in(segments, wanted, bytes))
}

/// What the index of a segment says of how much there is.
enum Share {
    /// Less than is looked for, and where the room's newest message before lies.
    Less(u64, LogPosition),
    /// More: the last entry behind which there is more than is looked for, what there is, and where the next one lies.
    More(Entry, u64, Option<(LogPosition, Seq)>),
    /// As [`Self::Less`], and nothing older is wanted.
    Last,
}

fn bytes_in<S: Storage>(segments: &Segments<S>, wanted: &Wanted, bytes: u64) -> io::Result<Seq> {
    let end = Seq::new(wanted.head.get() + 1);
    let mut left = bytes;
    let mut at = segments.holding(wanted.last_at);
    while let Some(segment) = at {
        let share = {
            let index = segments.index(&segment)?;
            let room = index.room(wanted.room);
            room.map(|room| match room.entry_exceeding(left) {
                Some((entry, next)) => Share::More(entry, room.bytes - entry.bytes_before, next),
                None if room.first_seq() <= wanted.from => Share::Last,
                None => Share::Less(room.bytes, room.previous),
            })
        };
        match share {
            Some(Share::More(entry, there, next)) => {
                let found = bytes_from(segments, &segment, wanted, (entry, there), next, left)?;
                return Ok(found.clamp(wanted.from.min(end), end));
            }
            Some(Share::Last) => break,
            Some(Share::Less(here, previous)) => {
                left -= here;
                let earlier = segments.holding(previous);
                at = earlier.filter(|earlier| earlier.header.name < segment.header.name);
            }
            None => at = segments.before(&segment)?,
        }
    }
    Ok(wanted.from)
}

/// Walks from an entry, behind which the segment has `there` bytes of the room, to where it has at most `left`.
fn bytes_from<S: Storage>(
    segments: &Segments<S>,
    segment: &Segment,
    wanted: &Wanted,
    (entry, mut there): (Entry, u64),
    next: Option<(LogPosition, Seq)>,
    left: u64,
) -> io::Result<Seq> {
    let durable = segment.end().unwrap_or(wanted.durable).min(wanted.durable);
    let limit = next.map_or(durable, |(at, _)| at.min(durable));
    let window = open(segments, segment, wanted, durable)?;
    let mut scanner = Scanner::new(window, entry.at, durable).stop_at(limit);
    // Behind the next entry there is no more than is looked for. Where nothing can be read, rather more is kept.
    let mut found = next.map_or(entry.seq, |(_, seq)| seq);
    loop {
        match scanner.step()? {
            Step::Batch(view) => {
                let Some(run) = view.run(wanted.room) else {
                    continue;
                };
                for (seq, length) in (run.first_seq.get()..).zip(view.lengths(&run)) {
                    if there <= left {
                        return Ok(Seq::new(seq));
                    }
                    there = there.saturating_sub(u64::from(length));
                    if next.is_none() {
                        found = Seq::new(seq + 1);
                    }
                }
            }
            Step::Lost { .. } => {}
            Step::End => return Ok(found),
        }
    }
}
