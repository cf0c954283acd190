//! Gives back the space of what is dead: deletes the dead front of the log, and packs neighbours in its middle.
//!
//! A segment is looked at once, by its index, and again when something was trimmed; what is dead stays dead. Only what lies
//! wholly before the older of the two newest checkpoints is touched: all but the messages in it is in both of them.
//!
//! Looking again goes in rounds, from the front of the log to its end, and no faster than [`Reclaimer::allow_looks`] says: with
//! thousands of segments a look at all of them after every trim would keep the disk busy with their footers. What is trimmed
//! while a round is under way is found by the next one. So space follows within the time of two rounds, which is twice as many
//! seconds as the log has segments by the number that is allowed in one. Until then more is taken to be wanted of a segment
//! than is, never less.
//!
//! **Invariant:** a file is deleted only after the one that stands for it is durable under its name, or when all that is older
//! has been deleted durably: the log never has a hole.

use std::collections::{HashMap, HashSet};
use std::io;

use super::pack::{Job, PackFault, Packed, Source, pack};
use super::position::{LogPosition, Marker};
use super::recovery::FEATURE_LEVEL;
use super::segment::{DATA_OFFSET, SegmentHeader, SegmentName};
use super::segments::{Segment, Segments};
use super::storage::{Storage, StorageFile};
use crate::planted::{Bug, planted};
use crate::sync::Arc;

pub(crate) use super::pack::{Live, Pace};

/// Most segments that are packed into one.
const RUN_MAX: usize = 64;
/// Fewer small neighbours than this are not worth a file of their own.
const MERGED_MIN: usize = 4;

/// What has been done since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Reclaimed {
    /// Segments deleted at the front of the log.
    pub(crate) deleted: u64,
    /// Segments replaced because they were dead for the most part.
    pub(crate) packed: u64,
    /// Segments replaced because they were small.
    pub(crate) merged: u64,
    /// Segments that are left alone until the next start: part of them cannot be read.
    pub(crate) spoiled: u64,
    /// Bytes of files that are gone, less those of the files in their place.
    pub(crate) bytes_freed: u64,
    /// Bytes of files that were written for that.
    pub(crate) bytes_written: u64,
}

/// What is left to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Left {
    /// Nothing, until something is trimmed or written.
    Idle,
    /// More of the same: step again.
    MoreToDo,
    /// Nothing until more looks are allowed; see `Waits` for the bytes.
    Later {
        /// How many.
        bytes: u64,
    },
    /// Nothing until there are newer checkpoints: so many bytes are dead that no two of them cover yet.
    Waits {
        /// How many.
        bytes: u64,
    },
}

/// What is known of a segment.
#[derive(Debug, Clone, Copy)]
struct Look {
    /// Bytes of its batches.
    bytes: u64,
    /// Bytes of the messages in them.
    messages: u64,
    /// Bytes of those that are still wanted, at most.
    live: u64,
    /// Whether there may be more in it than its index tells.
    is_partial: bool,
}

impl Look {
    fn is_dead(&self) -> bool {
        self.live == 0 && !self.is_partial
    }

    fn is_mostly_dead(&self) -> bool {
        self.live.saturating_mul(2) < self.messages && !self.is_partial
    }

    /// Bytes that would be left of it, at most.
    fn kept(&self) -> u64 {
        if self.is_dead() {
            return 0;
        }
        self.bytes
            .saturating_sub(self.messages.saturating_sub(self.live))
    }
}

/// What to do with a run of neighbours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Deed {
    Delete,
    Pack,
    Merge,
}

/// How far looking again got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Again {
    /// There is nothing to look at again.
    Done,
    /// One was, and there may be more.
    Looked,
    /// There are more, once they may be.
    Later,
}

/// A sealed segment, where the next one begins, and what is known of it.
type Seen = (Arc<Segment>, LogPosition, Option<Look>);

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Reclaimer {
    /// Bytes that a segment has at most.
    segment_bytes_max: u64,
    looks: HashMap<SegmentName, Look>,
    spoiled: HashSet<SegmentName>,
    /// How often segments had come or gone when those that are gone were forgotten.
    forgot_at: Option<u64>,
    /// Something was trimmed since this round of looks began, or the last one.
    trimmed: bool,
    /// Segments from here on are looked at again.
    again_from: Option<LogPosition>,
    /// How many may be.
    looks_left: u32,
    /// What there was when nothing was left to do, and what was said then.
    rested: Option<((u64, LogPosition), Left)>,
    /// Whether a file has its name is not known: nothing more is done until the next start.
    stopped: bool,
    done: Reclaimed,
}

impl Reclaimer {
    /// For a log whose segments are to have at most so many bytes.
    pub(crate) fn new(segment_bytes_max: u64) -> Self {
        Self {
            segment_bytes_max,
            looks: HashMap::new(),
            spoiled: HashSet::new(),
            forgot_at: None,
            trimmed: false,
            again_from: None,
            looks_left: 0,
            rested: None,
            stopped: false,
            done: Reclaimed::default(),
        }
    }

    /// Something was trimmed: look again.
    pub(crate) fn note_trimmed(&mut self) {
        self.trimmed = true;
    }

    /// Segments are to have at most so many bytes from now on.
    pub(crate) fn limit_segments(&mut self, largest: u64) {
        self.segment_bytes_max = largest;
    }

    /// So many segments may be looked at again until this is called the next time.
    pub(crate) fn allow_looks(&mut self, most: u32) {
        self.looks_left = most;
    }

    /// What has been done since the start.
    pub(crate) fn done(&self) -> Reclaimed {
        Reclaimed {
            spoiled: self.spoiled.len() as u64,
            ..self.done
        }
    }

    /// Looks at one segment, first at those that were not looked at, and does at most one thing: deletes the dead front, or
    /// packs one run of neighbours. `covered` is where the older of the two newest checkpoints begins, `marker` draws the marker of a new
    /// file, and `pace` says how many bytes may be gone through next; with `None` the file is given up.
    ///
    /// # Errors
    /// Those of the disk; it may be tried again.
    pub(crate) fn step<S: Storage>(
        &mut self,
        segments: &Segments<S>,
        covered: LogPosition,
        live: Live<'_>,
        marker: &mut dyn FnMut() -> u64,
        pace: Pace<'_>,
    ) -> io::Result<Left> {
        let now = (segments.changes(), covered);
        if let Some((seen, left)) = self.rested
            && seen == now
            && !self.trimmed
            && self.again_from.is_none()
        {
            return Ok(left);
        }
        self.rested = None;
        // Only a program that knows of missing segments may open the store from now on.
        let newest = segments.newest();
        let newest = newest.filter(|newest| newest.feature_level >= FEATURE_LEVEL);
        let Some(newest) = newest.filter(|_| !self.stopped) else {
            return Ok(self.rest(now, Left::Idle));
        };
        let spans = segments.spans();
        self.forget_gone(&spans, now.0);
        let looked = self.look_at_new(segments, &spans, live);
        let again = match looked {
            true => Again::Looked,
            false => self.look_again(segments, &spans, live),
        };
        let spans = self.seen(spans);
        if let Some((deed, run)) = self.plan(&spans, covered) {
            self.carry_out(segments, deed, run, newest, live, marker, pace)?;
            return Ok(Left::MoreToDo);
        }
        let bytes = waiting(&spans, covered);
        let left = match (again, bytes) {
            (Again::Looked, _) => return Ok(Left::MoreToDo),
            (Again::Later, bytes) => return Ok(Left::Later { bytes }),
            (Again::Done, 0) => Left::Idle,
            (Again::Done, bytes) => Left::Waits { bytes },
        };
        Ok(self.rest(now, left))
    }

    fn rest(&mut self, now: (u64, LogPosition), left: Left) -> Left {
        self.rested = Some((now, left));
        left
    }

    fn forget_gone(&mut self, spans: &[(Arc<Segment>, LogPosition)], changes: u64) {
        let is_new = self.forgot_at.replace(changes) != Some(changes);
        if is_new && self.looks.len() + self.spoiled.len() > 0 {
            let names: HashSet<SegmentName> = spans
                .iter()
                .map(|(segment, _)| segment.header.name)
                .collect();
            self.looks.retain(|name, _| names.contains(name));
            self.spoiled.retain(|name| names.contains(name));
        }
    }

    /// Looks at the first segment that was not looked at; says whether there was one.
    fn look_at_new<S: Storage>(
        &mut self,
        segments: &Segments<S>,
        spans: &[(Arc<Segment>, LogPosition)],
        live: Live<'_>,
    ) -> bool {
        let is_new = |name| !self.looks.contains_key(name) && !self.spoiled.contains(name);
        let mut spans = spans.iter().map(|(segment, _)| segment);
        let new = spans.find(|segment| is_new(&segment.header.name));
        if let Some(segment) = new {
            self.look(segments, segment, live);
        }
        new.is_some()
    }

    /// Looks at the next segment of the round that follows a trim.
    fn look_again<S: Storage>(
        &mut self,
        segments: &Segments<S>,
        spans: &[(Arc<Segment>, LogPosition)],
        live: Live<'_>,
    ) -> Again {
        let begins = self.again_from.is_none() && std::mem::take(&mut self.trimmed);
        let begin = begins.then_some(LogPosition::START);
        let Some(from) = self.again_from.take().or(begin) else {
            return Again::Done;
        };
        let from = spans.partition_point(|(segment, _)| segment.header.base < from);
        let rest = spans.get(from..).unwrap_or_default().iter();
        let is_alive = |name| self.looks.get(name).is_some_and(|look| !look.is_dead());
        let mut alive = rest.filter(|(segment, _)| is_alive(&segment.header.name));
        let Some((segment, next)) = alive.next() else {
            return match self.trimmed {
                true => Again::Looked,
                false => Again::Done,
            };
        };
        if self.looks_left == 0 {
            self.again_from = Some(segment.header.base);
            return Again::Later;
        }
        self.again_from = Some(*next);
        self.looks_left -= 1;
        self.look(segments, segment, live);
        Again::Looked
    }

    /// Finds out what is wanted of a segment.
    fn look<S: Storage>(&mut self, segments: &Segments<S>, segment: &Segment, live: Live<'_>) {
        let name = segment.header.name;
        match segments.look(segment) {
            Ok(index) => {
                let end = segment.end().unwrap_or(segment.header.base);
                let rooms = index.rooms().map(|(id, room)| {
                    let wanted = live(id).map_or(0, |first| room.bytes_from(first));
                    (room.bytes, wanted)
                });
                let (messages, live) =
                    rooms.fold((0, 0), |all, one| (all.0 + one.0, all.1 + one.1));
                let look = Look {
                    bytes: end.since(segment.header.base),
                    messages,
                    live,
                    is_partial: index.is_partial(),
                };
                self.looks.insert(name, look);
            }
            Err(error) => {
                tracing::warn!(file = name.file(), %error, "a segment cannot be read and keeps its space");
                self.looks.remove(&name);
                self.spoiled.insert(name);
            }
        }
    }

    fn seen(&self, spans: Vec<(Arc<Segment>, LogPosition)>) -> Vec<Seen> {
        let look = |segment: &Segment| self.looks.get(&segment.header.name).copied();
        let seen = spans.into_iter();
        seen.map(|(segment, next)| {
            let look = look(&segment);
            (segment, next, look)
        })
        .collect()
    }

    /// What is most worth doing, and the segments that it is done to.
    fn plan<'a>(&self, spans: &'a [Seen], covered: LogPosition) -> Option<(Deed, &'a [Seen])> {
        let is_old = |next| next <= covered || planted(Bug::DeletedUncovered);
        let old = spans.partition_point(|(_, next, _)| is_old(*next));
        let old = spans.get(..old)?;
        let is_dead = |seen: &&Seen| seen.2.is_some_and(|look| look.is_dead());
        let front = old.iter().take_while(is_dead).count();
        if front > 0 {
            return Some((Deed::Delete, old.get(..front.min(RUN_MAX))?));
        }
        // How far a run reaches is known only when all were looked at.
        let is_known = |(segment, _, look): &Seen| {
            look.is_some() || self.spoiled.contains(&segment.header.name)
        };
        if !old.iter().all(is_known) {
            return None;
        }
        let starts = || (0..old.len()).filter_map(|from| old.get(from..));
        let dead = starts().find_map(|rest| Some((Deed::Pack, self.dead_run(rest)?)));
        dead.or_else(|| starts().find_map(|rest| Some((Deed::Merge, self.small_run(rest)?))))
    }

    /// The segments from the first of `rest` on that are dead for the most part, if that one is.
    fn dead_run<'a>(&self, rest: &'a [Seen]) -> Option<&'a [Seen]> {
        let (mut bytes, mut count) = (DATA_OFFSET, 0);
        let mut is_worth_it = false;
        for (segment, _, look) in rest.iter().take(RUN_MAX) {
            let Some(look) = look else { break };
            let is_spoiled = self.spoiled.contains(&segment.header.name);
            let may_go = look.is_dead() || (look.is_mostly_dead() && !is_spoiled);
            bytes += look.kept();
            if !may_go || (count > 0 && bytes > self.segment_bytes_max) {
                break;
            }
            // A file without anything in it already stands for dead ones.
            is_worth_it |= look.bytes > 0 || segment.header.packed_end().is_none();
            count += 1;
        }
        rest.get(..count).filter(|_| is_worth_it)
    }

    /// The longest run of small neighbours from the first of `rest` on. As none of them is more than half of the new file,
    /// no byte is written more often than the largest segment can be halved.
    fn small_run<'a>(&self, rest: &'a [Seen]) -> Option<&'a [Seen]> {
        let (mut bytes, mut largest, mut best) = (0, 0, None);
        for (at, (segment, _, look)) in rest.iter().enumerate().take(RUN_MAX) {
            let Some(look) = look else { break };
            if look.is_partial || self.spoiled.contains(&segment.header.name) {
                break;
            }
            bytes += look.kept();
            largest = look.kept().max(largest);
            if bytes.saturating_add(DATA_OFFSET) > self.segment_bytes_max {
                break;
            }
            if at + 1 >= MERGED_MIN && largest.saturating_mul(2) <= bytes {
                best = rest.get(..=at);
            }
        }
        best
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "what `step` was given, and what was planned"
    )]
    fn carry_out<S: Storage>(
        &mut self,
        segments: &Segments<S>,
        deed: Deed,
        run: &[Seen],
        newest: SegmentHeader,
        live: Live<'_>,
        marker: &mut dyn FnMut() -> u64,
        pace: Pace<'_>,
    ) -> io::Result<()> {
        let old: Vec<Arc<Segment>> = run
            .iter()
            .map(|(segment, ..)| Arc::clone(segment))
            .collect();
        if deed == Deed::Delete {
            segments.replace(&old, None);
            let deleted = self.delete_front(&**segments.storage(), &old);
            // Behind a file that may come back nothing may go before the next start: the log would have a hole.
            self.stopped |= deleted.is_err();
            return deleted;
        }
        let source = |(segment, _, look): &Seen| Source {
            header: segment.header.clone(),
            end: segment.end().unwrap_or(segment.header.base),
            is_dead: look.is_some_and(|look| look.is_dead()),
        };
        let job = Job {
            run: run.iter().map(source).collect(),
            end: run.last().map_or(LogPosition::START, |(_, next, _)| *next),
            newest,
            marker: Marker(marker()),
        };
        match pack(&**segments.storage(), &job, live, pace) {
            Ok(packed) => self.put_in_place(segments, deed, &old, packed),
            Err(PackFault::Spoiled(name)) => {
                tracing::warn!(
                    file = name.file(),
                    "a segment is damaged and keeps its space"
                );
                self.spoiled.insert(name);
                Ok(())
            }
            Err(PackFault::Stopped) => Ok(()),
            Err(PackFault::Disk(error)) => Err(error),
            Err(PackFault::Unnamed(error)) => {
                self.stopped = true;
                Err(error)
            }
        }
    }

    /// Has readers use the new file, and deletes the old ones.
    fn put_in_place<S: Storage>(
        &mut self,
        segments: &Segments<S>,
        deed: Deed,
        old: &[Arc<Segment>],
        packed: Packed,
    ) -> io::Result<()> {
        let count = old.len() as u64;
        match deed {
            Deed::Merge => self.done.merged += count,
            _ => self.done.packed += count,
        }
        self.done.bytes_written += packed.bytes;
        let storage = &**segments.storage();
        let Some(new) = segments.replace(old, Some((packed.header, packed.index))) else {
            return Ok(());
        };
        if let Err(error) = segments.write_footer(&new) {
            tracing::debug!(%error, "the footer of a packed segment is made when it is needed");
        }
        let mut freed = 0;
        for segment in old {
            freed += delete(storage, segment.header.name)?;
        }
        self.done.bytes_freed += freed.saturating_sub(packed.bytes);
        storage.sync_dir()
    }

    /// Deletes the oldest segments, each before the next: what is left of the log at any moment has no hole.
    fn delete_front<S: Storage>(&mut self, storage: &S, old: &[Arc<Segment>]) -> io::Result<()> {
        for segment in old {
            self.done.bytes_freed += delete(storage, segment.header.name)?;
            storage.sync_dir()?;
            self.done.deleted += 1;
        }
        Ok(())
    }
}

/// Deletes a segment and its footer; gives the bytes of the segment's file.
fn delete<S: Storage>(storage: &S, name: SegmentName) -> io::Result<u64> {
    let bytes = storage.open_read(&name.file()).and_then(|file| file.len());
    match storage.delete(&name.file()) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // One that stays is deleted at the next start.
    let _ = storage.delete(&name.footer());
    Ok(bytes.unwrap_or(0))
}

/// Bytes that are dead and not covered.
fn waiting(spans: &[Seen], covered: LogPosition) -> u64 {
    let new = spans.iter().filter(|(_, next, _)| *next > covered);
    new.filter_map(|(.., look)| *look)
        .filter(|look| look.is_dead() || look.is_mostly_dead())
        .map(|look| look.bytes - look.kept())
        .sum()
}

#[cfg(test)]
mod tests;
