//! The segments that readers know of, and the indexes that lead into them.
//!
//! The writer adds a segment and moves the end of the active one; readers find the segment of a
//! place and its index. Indexes of sealed segments are read from their footers when they are first
//! asked for, or made again, and only so many are kept in memory.

use std::collections::VecDeque;
use std::io;

use broker_proto::Micros;

use super::batch::{BatchHead, BatchRun, Table};
use super::blocks::Blocks;
use super::damage::{DamageLog, FoundBy, Place};
use super::early::{Early, Made, Wanted};
use super::index::{IndexBuilder, SegmentIndex};
use super::layouts::Layouts;
use super::making::Footers;
use super::open_files::OpenFiles;
use super::position::LogPosition;
use super::scan::{Scanner, Step};
use super::segment::{SegmentHeader, SegmentName};
use super::storage::{Storage, StorageFile};
use super::window::Window;
use crate::sync::{Arc, AtomicBool, AtomicU64, Mutex, Ordering, RwLock, lock, read, write};

/// Indexes of sealed segments that stay in memory, in bytes altogether.
const INDEX_BYTES_KEPT: usize = 8 << 20;
/// Read this much at a time when an index has to be made again.
const REBUILD_AHEAD: usize = 1 << 20;

/// One segment.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) header: SegmentHeader,
    /// Where it ends; `NONE` while it is the active one.
    end: AtomicU64,
    index: Mutex<Option<Arc<SegmentIndex>>>,
    /// A reader had to make the index again. Readers change nothing on the disk: whoever keeps the store writes the footer.
    lacks_footer: AtomicBool,
}

impl Segment {
    fn new(header: SegmentHeader, end: LogPosition, index: Option<Arc<SegmentIndex>>) -> Self {
        Self {
            header,
            end: AtomicU64::new(end.get()),
            index: Mutex::new(index),
            lacks_footer: AtomicBool::new(false),
        }
    }

    /// Where it ends, if it is sealed.
    pub(crate) fn end(&self) -> Option<LogPosition> {
        let end = LogPosition::new(self.end.load(Ordering::Acquire));
        (end != LogPosition::NONE).then_some(end)
    }

    /// Bytes of its batches, if it is sealed.
    fn sealed_bytes(&self) -> u64 {
        self.end().map_or(0, |end| end.since(self.header.base))
    }
}

fn sealed_bytes(segments: &[Arc<Segment>]) -> u64 {
    segments.iter().map(|segment| segment.sealed_bytes()).sum()
}

/// All segments.
#[derive(Debug)]
pub(crate) struct Segments<S: Storage> {
    storage: Arc<S>,
    files: OpenFiles<S>,
    blocks: Blocks,
    layouts: Layouts,
    list: RwLock<Vec<Arc<Segment>>>,
    /// Bytes of the batches in all that are sealed. Changes with the list, under its lock: the writer asks for every batch.
    sealed_bytes: AtomicU64,
    active: RwLock<SegmentIndex>,
    /// Which sealed segments have their index in memory, oldest first, with its size.
    loaded: Mutex<VecDeque<(SegmentName, usize)>>,
    /// Rises whenever the list changes.
    changes: AtomicU64,
    damage: DamageLog,
    early: Mutex<Early>,
    /// Those that were made again.
    footers: Footers,
}

/// Looks into the index of a segment, whether it is in the making or kept.
pub(crate) enum IndexView<'a> {
    Active(crate::sync::RwLockReadGuard<'a, SegmentIndex>),
    Sealed(Arc<SegmentIndex>),
}

impl std::ops::Deref for IndexView<'_> {
    type Target = SegmentIndex;

    fn deref(&self) -> &SegmentIndex {
        match self {
            Self::Active(guard) => guard,
            Self::Sealed(index) => index,
        }
    }
}

impl<S: Storage> Segments<S> {
    /// The segments of a recovered log, all of them sealed at the given places but the last, which
    /// is active if `last_is_active`.
    pub(crate) fn new(
        storage: Arc<S>,
        found: Vec<(SegmentHeader, LogPosition)>,
        last_index: SegmentIndex,
        last_is_active: bool,
    ) -> Self {
        let count = found.len();
        let list = found.into_iter().enumerate().map(|(at, (header, end))| {
            let active = last_is_active && at + 1 == count;
            let end = if active { LogPosition::NONE } else { end };
            Arc::new(Segment::new(header, end, None))
        });
        let list: Vec<Arc<Segment>> = list.collect();
        Self {
            storage,
            files: OpenFiles::new(),
            blocks: Blocks::default(),
            layouts: Layouts::default(),
            sealed_bytes: AtomicU64::new(sealed_bytes(&list)),
            list: RwLock::new(list),
            active: RwLock::new(last_index),
            loaded: Mutex::new(VecDeque::new()),
            changes: AtomicU64::new(0),
            damage: DamageLog::default(),
            early: Mutex::default(),
            footers: Footers::default(),
        }
    }

    /// What is known to be damaged.
    pub(crate) fn damage(&self) -> &DamageLog {
        &self.damage
    }

    /// Notes what the replay of the log came upon.
    pub(crate) fn note_found_at_start(&self, places: &[Place]) {
        for place in places {
            self.damage.note(place.clone(), FoundBy::Start);
        }
    }

    /// Footers that had to be made again.
    pub(crate) fn footers(&self) -> &Footers {
        &self.footers
    }

    /// All sealed segments, in the order of the log.
    pub(crate) fn sealed(&self) -> Vec<Arc<Segment>> {
        let list = read(&self.list);
        let sealed = list.iter().filter(|segment| segment.end().is_some());
        sealed.cloned().collect()
    }

    /// All sealed segments, each with the place where the next one begins.
    pub(crate) fn spans(&self) -> Vec<(Arc<Segment>, LogPosition)> {
        let list = read(&self.list);
        let pairs = list.iter().zip(list.iter().skip(1));
        let sealed = pairs.filter(|(segment, _)| segment.end().is_some());
        sealed
            .map(|(segment, next)| (Arc::clone(segment), next.header.base))
            .collect()
    }

    /// The header of the newest segment.
    pub(crate) fn newest(&self) -> Option<SegmentHeader> {
        Some(read(&self.list).last()?.header.clone())
    }

    /// Rises whenever a segment comes or goes.
    pub(crate) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// Whether a segment is still one of the log.
    pub(crate) fn lists(&self, name: SegmentName) -> bool {
        place_of(&read(&self.list), name).is_ok()
    }

    pub(crate) fn storage(&self) -> &Arc<S> {
        &self.storage
    }

    /// The files that are read from.
    pub(crate) fn files(&self) -> &OpenFiles<S> {
        &self.files
    }

    /// The memory that is read into.
    pub(crate) fn blocks(&self) -> &Blocks {
        &self.blocks
    }

    /// The layouts of batches that are being read.
    pub(crate) fn layouts(&self) -> &Layouts {
        &self.layouts
    }

    pub(crate) fn len(&self) -> usize {
        read(&self.list).len()
    }

    /// The oldest segment.
    pub(crate) fn oldest(&self) -> Option<Arc<Segment>> {
        read(&self.list).first().cloned()
    }

    /// Bytes of batches that lie on the disk, when the log is durable up to here.
    pub(crate) fn log_bytes(&self, durable: LogPosition) -> u64 {
        let list = read(&self.list);
        let sealed = self.sealed_bytes.load(Ordering::Relaxed);
        debug_assert_eq!(sealed, sealed_bytes(&list), "the sum is out of step");
        let active = list.last().filter(|last| last.end().is_none());
        sealed + active.map_or(0, |active| durable.since(active.header.base))
    }

    /// The segment that holds a place.
    pub(crate) fn holding(&self, at: LogPosition) -> Option<Arc<Segment>> {
        let list = read(&self.list);
        let after = list.partition_point(|segment| segment.header.base <= at);
        list.get(after.checked_sub(1)?).cloned()
    }

    /// The segment before another.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] when that one has been replaced: what came before it may lie in the same file now.
    pub(crate) fn before(&self, segment: &Segment) -> io::Result<Option<Arc<Segment>>> {
        let list = read(&self.list);
        let before = place_of(&list, segment.header.name)?.checked_sub(1);
        Ok(before.and_then(|at| list.get(at)).cloned())
    }

    /// The segment after another.
    ///
    /// # Errors
    /// As [`Self::before`].
    pub(crate) fn after(&self, segment: &Segment) -> io::Result<Option<Arc<Segment>>> {
        let list = read(&self.list);
        Ok(list.get(place_of(&list, segment.header.name)? + 1).cloned())
    }

    /// Puts one segment, or none, in the place of sealed neighbours, and lets go of their files: at any moment readers find
    /// either the old ones or the new one. Nothing is done unless all of them are there.
    pub(crate) fn replace(
        &self,
        run: &[Arc<Segment>],
        new: Option<(SegmentHeader, SegmentIndex)>,
    ) -> Option<Arc<Segment>> {
        let new = new.map(|(header, index)| {
            let bytes = index.memory_bytes();
            let end = header.packed_end().unwrap_or(header.base);
            let segment = Arc::new(Segment::new(header, end, Some(Arc::new(index))));
            (segment, bytes)
        });
        {
            let mut list = write(&self.list);
            let from = place_of(&list, run.first()?.header.name).ok()?;
            let there = list.get(from..from + run.len())?;
            let is_same = there
                .iter()
                .zip(run)
                .all(|(one, other)| one.header.name == other.header.name && one.end().is_some());
            if !is_same {
                return None;
            }
            let gone = sealed_bytes(there);
            let come = new.as_ref().map_or(0, |(new, _)| new.sealed_bytes());
            self.sealed_bytes.fetch_sub(gone, Ordering::Relaxed);
            self.sealed_bytes.fetch_add(come, Ordering::Relaxed);
            let new = new.iter().map(|(segment, _)| Arc::clone(segment));
            list.splice(from..from + run.len(), new);
            self.changes.fetch_add(1, Ordering::AcqRel);
        }
        for segment in run {
            self.files.close(segment.header.name);
            lock(&self.loaded).retain(|(name, _)| *name != segment.header.name);
        }
        let (segment, bytes) = new?;
        self.account(segment.header.name, bytes);
        Some(segment)
    }

    /// Notes a batch in the index of the active segment.
    pub(crate) fn note(
        &self,
        notes: impl Iterator<Item = (BatchRun, LogPosition, Micros)>,
        at: LogPosition,
        time: Micros,
    ) {
        let mut active = write(&self.active);
        for (run, previous, time_before) in notes {
            active.add(&run, at, time, previous, time_before);
        }
    }

    /// Seals the active segment at the base of a new one and makes that active; gives the sealed
    /// one, whose footer can be written now.
    pub(crate) fn begin(&self, header: SegmentHeader) -> Option<Arc<Segment>> {
        let begun = Arc::new(Segment::new(header, LogPosition::NONE, None));
        let mut list = write(&self.list);
        let mut active = write(&self.active);
        let sealed = list.last().filter(|last| last.end().is_none()).cloned();
        let index = Arc::new(std::mem::take(&mut *active));
        if let Some(sealed) = &sealed {
            *lock(&sealed.index) = Some(Arc::clone(&index));
            sealed.end.store(begun.header.base.get(), Ordering::Release);
            self.sealed_bytes
                .fetch_add(sealed.sealed_bytes(), Ordering::Relaxed);
        }
        list.push(begun);
        self.changes.fetch_add(1, Ordering::AcqRel);
        drop(active);
        drop(list);
        if let Some(sealed) = &sealed {
            self.account(sealed.header.name, index.memory_bytes());
        }
        sealed
    }

    /// Notes the batches of a tail that was copied into the active segment, which begins at `base`.
    pub(crate) fn note_tail(&self, tail: &[(BatchHead, Vec<u8>)], base: LogPosition) {
        let mut builder = IndexBuilder::new(base);
        for (head, batch) in tail {
            let Some(table) = Table::parse(batch, head.position) else {
                continue;
            };
            for run in table.runs() {
                if run.room.is_none() {
                    let from = run.offset as usize;
                    let records = batch.get(from..from + run.bytes as usize);
                    builder.state_records(records.unwrap_or_default(), head.position);
                } else {
                    builder.messages(&run, head.position, Micros::new(head.time));
                }
            }
        }
        *write(&self.active) = builder.finish();
    }

    /// Whether the newest segment is written past the page cache.
    pub(crate) fn is_direct(&self) -> bool {
        let newest = read(&self.list)
            .last()
            .map(|segment| segment.header.name.file());
        newest
            .and_then(|name| self.storage.open(&name).ok())
            .is_some_and(|file| file.is_direct())
    }

    /// The index of a segment.
    ///
    /// # Errors
    /// Those of the disk, when it has to be made again.
    pub(crate) fn index(&self, segment: &Arc<Segment>) -> io::Result<IndexView<'_>> {
        if let Some(index) = self.index_in_memory(segment) {
            return Ok(index);
        }
        let (index, is_made_again) = self.load(segment)?;
        let index = Arc::new(index);
        if is_made_again {
            segment.lacks_footer.store(true, Ordering::Relaxed);
        }
        self.remember(segment, Arc::clone(&index));
        Ok(IndexView::Sealed(index))
    }

    /// The index of a sealed segment, for who goes through all of them: it takes no place in memory from those that readers
    /// use. A footer that had to be made again is written, also where it was a reader who made it.
    ///
    /// # Errors
    /// Those of the disk, when it has to be made again.
    pub(crate) fn look(&self, segment: &Segment) -> io::Result<Arc<SegmentIndex>> {
        let in_memory = lock(&segment.index).clone();
        let (index, is_made_again) = match in_memory {
            Some(index) => (index, segment.lacks_footer.load(Ordering::Relaxed)),
            None => {
                let (index, is_made_again) = self.load(segment)?;
                (Arc::new(index), is_made_again)
            }
        };
        let end = segment.end().filter(|_| self.lists(segment.header.name));
        if is_made_again && let Some(end) = end {
            // It is only a hint.
            let _ = self.put_footer(&segment.header, end, &index);
            segment.lacks_footer.store(false, Ordering::Relaxed);
        }
        Ok(index)
    }

    /// As [`Self::index`]; `None` when it is not in memory.
    pub(crate) fn index_in_memory(&self, segment: &Arc<Segment>) -> Option<IndexView<'_>> {
        {
            let active = read(&self.active);
            // Looked at under the lock: `begin` moves the index and the end together.
            if segment.end().is_none() {
                return Some(IndexView::Active(active));
            }
        }
        lock(&segment.index).clone().map(IndexView::Sealed)
    }

    fn remember(&self, segment: &Arc<Segment>, index: Arc<SegmentIndex>) {
        let bytes = index.memory_bytes();
        *lock(&segment.index) = Some(index);
        self.account(segment.header.name, bytes);
    }

    /// Notes that an index is in memory, and drops the oldest ones beyond the limit.
    fn account(&self, name: SegmentName, bytes: usize) {
        let mut dropped = Vec::new();
        {
            let mut loaded = lock(&self.loaded);
            loaded.retain(|(other, _)| *other != name);
            loaded.push_back((name, bytes));
            let mut total: usize = loaded.iter().map(|(_, bytes)| bytes).sum();
            while total > INDEX_BYTES_KEPT && loaded.len() > 1 {
                let Some((name, bytes)) = loaded.pop_front() else {
                    break;
                };
                total -= bytes;
                dropped.push(name);
            }
        }
        let list = read(&self.list);
        for segment in list
            .iter()
            .filter(|segment| dropped.contains(&segment.header.name))
        {
            *lock(&segment.index) = None;
        }
    }

    /// The index of a sealed segment, and whether it had to be made again.
    fn load(&self, segment: &Segment) -> io::Result<(SegmentIndex, bool)> {
        let name = segment.header.name;
        if let Some(bytes) = read_whole(&*self.storage, &name.footer())
            && let Some((index, end)) = SegmentIndex::decode(bytes, name, segment.header.marker)
            && Some(end) == segment.end()
        {
            return Ok((index, false));
        }
        Ok((self.rebuild(segment)?, true))
    }

    /// Makes an index again by reading the segment.
    fn rebuild(&self, segment: &Segment) -> io::Result<SegmentIndex> {
        let header = &segment.header;
        let end = segment.end().unwrap_or(header.base);
        let mut making = self.footers.begin(header.name, header.base, end);
        let file = self.storage.open_read(&header.name.file())?;
        let mut scanner = Scanner::new(
            Window::new(file, header.clone(), REBUILD_AHEAD),
            header.base,
            end,
        )
        .skimming();
        let mut builder = IndexBuilder::new(header.base);
        loop {
            match scanner.step()? {
                Step::Batch(view) => {
                    let at = view.head.position;
                    if view.is_partial() {
                        builder.miss();
                    }
                    for run in view.runs() {
                        if run.room.is_none() {
                            let place = at.plus(u64::from(run.offset));
                            let records = scanner.window.up_to(place, run.bytes as usize)?;
                            builder.state_records(&records, at);
                        } else {
                            builder.messages(&run, at, Micros::new(view.head.time));
                        }
                    }
                }
                Step::Lost { .. } => builder.miss(),
                Step::End => break,
            }
            making.reach(scanner.at());
        }
        making.finish();
        Ok(builder.finish())
    }

    /// Writes the footer of a sealed segment. It is only a hint, so it is not synced.
    ///
    /// # Errors
    /// Those of the disk; the footer is then made again when it is needed.
    pub(crate) fn write_footer(&self, segment: &Arc<Segment>) -> io::Result<()> {
        // One that was replaced meanwhile needs none.
        let end = segment.end().filter(|_| self.lists(segment.header.name));
        let Some(end) = end else {
            return Ok(());
        };
        let index = self.look(segment)?;
        lock(&self.early).forget(segment.header.name);
        let bytes = index.encode(segment.header.name, segment.header.marker, end);
        let written = self.put_bytes(segment.header.name, &bytes);
        self.keep_as_written(segment, bytes);
        written
    }

    /// Keeps the index of a segment, if it is in memory, as it lies in its footer: that takes a third of what it took while
    /// it was made.
    fn keep_as_written(&self, segment: &Segment, footer: Vec<u8>) {
        let name = segment.header.name;
        let Some((kept, _)) = SegmentIndex::decode(footer, name, segment.header.marker) else {
            return;
        };
        let bytes = kept.memory_bytes();
        let is_replaced = {
            let mut index = lock(&segment.index);
            let is_made = index.as_ref().is_some_and(|index| !index.is_kept());
            if is_made {
                *index = Some(Arc::new(kept));
            }
            is_made
        };
        if is_replaced {
            self.account(name, bytes);
        }
    }

    fn put_footer(
        &self,
        header: &SegmentHeader,
        end: LogPosition,
        index: &SegmentIndex,
    ) -> io::Result<()> {
        let bytes = index.encode(header.name, header.marker, end);
        self.put_bytes(header.name, &bytes)
    }

    fn put_bytes(&self, name: SegmentName, bytes: &[u8]) -> io::Result<()> {
        match self.storage.delete(&name.footer()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        self.storage.create(&name.footer())?.write_at(0, bytes)
    }

    /// Notes that the active segment has an early footer already.
    pub(crate) fn note_early(&self, upto: LogPosition) {
        if let Some(header) = self.newest() {
            lock(&self.early).note(header.name, upto);
        }
    }

    /// Makes an early footer of the active segment, if that is worth it, and writes the one that can be written. The caller
    /// sees to it that the index tells of everything before `upto`, which is durable, and of nothing else: nothing is noted
    /// while it holds `still`.
    ///
    /// # Errors
    /// Those of the disk; then there is none.
    pub(crate) fn write_early<G>(
        &self,
        upto: LogPosition,
        wanted: Wanted,
        still: G,
    ) -> io::Result<()> {
        // Held to the end: a footer that is written later has not been made earlier.
        let mut early = lock(&self.early);
        let made = {
            let list = read(&self.list);
            let active = read(&self.active);
            let Some(segment) = list.last().filter(|last| last.end().is_none()) else {
                return Ok(());
            };
            let (name, base) = (segment.header.name, segment.header.base);
            if upto < base || !early.is_worth(name, (base, upto), &active, wanted) {
                return Ok(());
            }
            Made {
                name,
                upto,
                bytes: active.encode(name, segment.header.marker, upto),
            }
        };
        drop(still);
        if let Some(made) = early.take(made, wanted)
            && self.is_active(made.name)
        {
            self.put_bytes(made.name, &made.bytes)?;
        }
        Ok(())
    }

    fn is_active(&self, name: SegmentName) -> bool {
        let list = read(&self.list);
        let last = list.last().filter(|last| last.end().is_none());
        last.is_some_and(|last| last.header.name == name)
    }
}

/// All of a small file; `None` when it cannot be read.
pub(super) fn read_whole<S: Storage>(storage: &S, name: &str) -> Option<Vec<u8>> {
    let file = storage.open_read(name).ok()?;
    let mut bytes = vec![0; usize::try_from(file.len().ok()?).ok()?];
    let read = file.read_at(0, &mut bytes).ok()?;
    bytes.truncate(read);
    Some(bytes)
}

/// Where in the list a segment stands.
fn place_of(list: &[Arc<Segment>], name: SegmentName) -> io::Result<usize> {
    let found = list.binary_search_by_key(&name, |other| other.header.name);
    found.map_err(|_| {
        let what = format!("{} was replaced", name.file());
        io::Error::new(io::ErrorKind::NotFound, what)
    })
}
