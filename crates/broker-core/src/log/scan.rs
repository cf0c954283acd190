//! Walks the batches of a segment, and saves what can be saved where they are damaged.
//!
//! A scanner is told up to where the log is known to have been written. Below that, whatever does
//! not read as a batch is damage, never the end: the scanner looks for the next batch by the
//! segment's secret marker, then for room tables before it, and says what could not be explained.

use std::collections::VecDeque;
use std::io;

use broker_proto::RoomId;
use broker_proto::record::RecordHead;
use bytes::Bytes;

use super::batch::{
    BATCH_ALIGN, BATCH_BYTES_MAX, BatchHead, BatchKind, BatchRun, HEAD_BYTES, TRAILER_BYTES, Table,
    table_fits,
};
use super::bytes::{Fields, round_up};
use super::position::{LogPosition, Marker};
use super::state_record::RawRecord;
use super::storage::StorageFile;
use super::window::{Window, is_passed_over};
use crate::planted::{Bug, planted};

/// A batch that was found.
#[derive(Debug, Clone)]
pub(crate) struct BatchView {
    /// Its head; put together from the table when the head itself was damaged.
    pub(crate) head: BatchHead,
    /// Room table and trailer, or what the records tell when those were damaged.
    layout: Layout,
    /// Whether head or table had to be put together.
    pub(crate) damaged: bool,
}

#[derive(Debug, Clone)]
enum Layout {
    Table(Bytes),
    Salvaged {
        runs: Vec<BatchRun>,
        lengths: Vec<u32>,
    },
}

impl BatchView {
    /// The rooms in this batch, state records first.
    pub(crate) fn runs(&self) -> Vec<BatchRun> {
        match &self.layout {
            Layout::Table(bytes) => Table::parse_at_end(bytes)
                .map(|table| table.runs().collect())
                .unwrap_or_default(),
            Layout::Salvaged { runs, .. } => runs.clone(),
        }
    }

    /// One room's records.
    pub(crate) fn run(&self, room: RoomId) -> Option<BatchRun> {
        match &self.layout {
            Layout::Table(bytes) => Table::parse_trusted(bytes)?.run(room),
            Layout::Salvaged { runs, .. } => runs.iter().find(|run| run.room == room).copied(),
        }
    }

    /// Whether records are missing, so that nobody knows whose they were.
    pub(crate) fn is_partial(&self) -> bool {
        match &self.layout {
            Layout::Table(_) => false,
            Layout::Salvaged { lengths, .. } => lengths.len() < self.head.count as usize,
        }
    }

    /// Where the records end that were found one after the other, counted from the start of the
    /// batch; `None` when there was a table.
    pub(crate) fn found_without_table(&self) -> Option<u32> {
        match &self.layout {
            Layout::Table(_) => None,
            Layout::Salvaged { runs, .. } => Some(runs.last().map_or_else(
                || u32::try_from(HEAD_BYTES).unwrap_or(u32::MAX),
                |run| run.offset + run.bytes,
            )),
        }
    }

    /// The length of every record, in the order of the runs.
    pub(crate) fn all_lengths(&self) -> Vec<u32> {
        match &self.layout {
            Layout::Table(bytes) => Table::parse_trusted(bytes)
                .map(|table| table.all_lengths().collect())
                .unwrap_or_default(),
            Layout::Salvaged { lengths, .. } => lengths.clone(),
        }
    }

    /// The length of every record of a run.
    pub(crate) fn lengths(&self, run: &BatchRun) -> Vec<u32> {
        match &self.layout {
            Layout::Table(bytes) => Table::parse_trusted(bytes)
                .map(|table| table.lengths(run).collect())
                .unwrap_or_default(),
            Layout::Salvaged { runs, lengths } => {
                let before: usize = runs
                    .iter()
                    .take_while(|other| other.offset != run.offset)
                    .map(|other| other.count as usize)
                    .sum();
                lengths
                    .iter()
                    .skip(before)
                    .take(run.count as usize)
                    .copied()
                    .collect()
            }
        }
    }
}

/// What a scanner comes upon.
#[derive(Debug)]
pub(crate) enum Step {
    /// A batch.
    Batch(BatchView),
    /// A stretch of the log of which nothing can be said any more.
    Lost {
        from: LogPosition,
        upto: LogPosition,
    },
    /// Everything up to the limit has been seen.
    End,
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Scanner<F> {
    pub(crate) window: Window<F>,
    at: LogPosition,
    /// Everything before was written.
    limit: LogPosition,
    /// No batch that begins here or later is asked for.
    stop: LogPosition,
    found: VecDeque<Step>,
    wants: Wants,
}

/// What is read of a batch beside its head and its table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wants {
    /// What the caller asks for.
    Parts,
    /// The state records, which a small batch is read whole for.
    State,
    /// Everything.
    All,
}

impl<F: StorageFile> Scanner<F> {
    /// Walks from a batch at `from` up to `limit`.
    pub(crate) fn new(window: Window<F>, from: LogPosition, limit: LogPosition) -> Self {
        Self {
            window,
            at: from,
            limit,
            stop: limit,
            found: VecDeque::new(),
            wants: Wants::Parts,
        }
    }

    /// For who wants all of every batch: they are read whole. Otherwise what stands at the end of one is read first, and its
    /// beginning again later.
    pub(crate) fn whole(mut self) -> Self {
        self.wants = Wants::All;
        self
    }

    /// For who wants no messages: those of large batches are not read.
    pub(crate) fn skimming(mut self) -> Self {
        self.wants = Wants::State;
        self
    }

    /// Stops earlier, at a place that need not be the end of a batch.
    pub(crate) fn stop_at(mut self, stop: LogPosition) -> Self {
        self.stop = stop.min(self.limit);
        self
    }

    /// Where the next batch is expected.
    pub(crate) fn at(&self) -> LogPosition {
        self.at
    }

    /// Goes on behind a batch that is known already.
    pub(crate) fn pass(&mut self, end: LogPosition) {
        self.at = end;
    }

    /// Whether more was found already than was told.
    pub(crate) fn has_found(&self) -> bool {
        !self.found.is_empty()
    }

    /// The next batch, or what is there instead.
    ///
    /// # Errors
    /// Those of the disk.
    pub(crate) fn step(&mut self) -> io::Result<Step> {
        if let Some(step) = self.found.pop_front() {
            return Ok(step);
        }
        if self.at >= self.stop {
            return Ok(Step::End);
        }
        // A mark below the limit is one that should have been written over.
        if let Some(head) = head_at(&mut self.window, self.at)?
            && !head.kind.is_mark()
            && head.end() <= self.limit
        {
            self.at = head.end();
            if self.wants == Wants::State {
                self.window.skim(&head);
            }
            return self.with_head(head).map(Step::Batch);
        }
        self.salvage()?;
        Ok(self.found.pop_front().unwrap_or(Step::End))
    }

    fn with_head(&mut self, head: BatchHead) -> io::Result<BatchView> {
        let is_read_whole = match self.wants {
            Wants::Parts => false,
            Wants::State => !is_passed_over(&head),
            Wants::All => true,
        };
        if is_read_whole {
            self.window.up_to(head.position, head.length as usize)?;
        }
        let table_bytes = (head.length - head.table) as usize;
        let at = head.position.plus(u64::from(head.table));
        if let Some(bytes) = self.window.bytes(at, table_bytes)?
            && table_of(&head, &bytes).is_some()
        {
            return Ok(BatchView {
                head,
                layout: Layout::Table(bytes),
                damaged: false,
            });
        }
        self.window.wait()?;
        let records = self.window.up_to(
            head.position.plus(HEAD_BYTES as u64),
            head.table as usize - HEAD_BYTES,
        )?;
        Ok(BatchView {
            head,
            layout: walk(&records, &head),
            damaged: true,
        })
    }

    /// Finds the next batch by its marker, and the ones before it by their tables.
    fn salvage(&mut self) -> io::Result<()> {
        self.window.wait()?;
        let from = self.at;
        let next = next_head(&mut self.window, from, self.limit)?;
        let upto = next.map_or(self.limit, |head| head.position);
        let mut end = upto;
        while end > from {
            let Some(view) = self.table_before(end, from)? else {
                break;
            };
            end = view.head.position;
            self.found.push_front(Step::Batch(view));
        }
        if end > from {
            self.found.push_front(Step::Lost { from, upto: end });
        }
        self.at = upto;
        Ok(())
    }

    /// The batch whose trailer ends at `end`, if it lies wholly behind `from`.
    fn table_before(
        &mut self,
        end: LogPosition,
        from: LogPosition,
    ) -> io::Result<Option<BatchView>> {
        let span = end.since(from).min(BATCH_BYTES_MAX as u64);
        let Ok(len) = usize::try_from(span) else {
            return Ok(None);
        };
        let start = LogPosition::new(end.get() - span);
        let Some(bytes) = self.window.bytes(start, len)? else {
            return Ok(None);
        };
        let Some(table) = Table::parse_at_end(&bytes) else {
            return Ok(None);
        };
        let length = u64::from(table.batch_bytes());
        let Some(position) = Table::position_at_end(&bytes) else {
            return Ok(None);
        };
        if position < from || position.plus(length) != end {
            return Ok(None);
        }
        let count: u64 = table.runs().map(|run| u64::from(run.count)).sum();
        let Ok(count) = u32::try_from(count) else {
            return Ok(None);
        };
        let data: u64 =
            HEAD_BYTES as u64 + table.runs().map(|run| u64::from(run.bytes)).sum::<u64>();
        let Ok(table_at) = u32::try_from(round_up(data, BATCH_ALIGN)) else {
            return Ok(None);
        };
        let head = BatchHead {
            length: table.batch_bytes(),
            position,
            durable_upto: LogPosition::START,
            term: 0,
            time: 0,
            count,
            table: table_at,
            checkpoint: LogPosition::NONE,
            kind: BatchKind::Records,
        };
        if !table_fits(&head, &table) {
            return Ok(None);
        }
        let kept = (head.length - head.table) as usize;
        let layout = Layout::Table(bytes.slice(bytes.len() - kept..));
        Ok(Some(BatchView {
            head,
            layout,
            damaged: true,
        }))
    }
}

/// The head of the batch at a place, if there is one.
///
/// # Errors
/// Those of the disk.
pub(crate) fn head_at<F: StorageFile>(
    window: &mut Window<F>,
    at: LogPosition,
) -> io::Result<Option<BatchHead>> {
    let marker = window.header().marker;
    Ok(window
        .bytes(at, HEAD_BYTES)?
        .and_then(|bytes| BatchHead::parse(&bytes, marker, at)))
}

/// What looks like the head of a batch, under any marker; for the bug that believes in it.
fn any_head<F: StorageFile>(
    window: &mut Window<F>,
    at: LogPosition,
) -> io::Result<Option<BatchHead>> {
    Ok(window.bytes(at, HEAD_BYTES)?.and_then(|bytes| {
        let marker = Marker(Fields(&bytes).u64(0));
        BatchHead::parse(&bytes, marker, at)
    }))
}

/// So many bytes are looked at together, most of them zeros: a multiple of [`BATCH_ALIGN`].
const LOOK: usize = 512;

/// Whether one of the words is the marker. All are compared before any is asked about: that takes a fraction of the time.
fn holds(words: &[u8], marker: Marker) -> bool {
    let words = words.chunks_exact(8);
    words.fold(false, |held, word| {
        let word = <[u8; 8]>::try_from(word).map_or(0, u64::from_le_bytes);
        held | (word == marker.0)
    })
}

/// The first head that begins among these words, which lie at `from`, and before `last`.
fn head_among<F: StorageFile>(
    window: &mut Window<F>,
    words: &[u8],
    (from, last): (LogPosition, LogPosition),
) -> io::Result<Option<BatchHead>> {
    let marker = window.header().marker;
    for (n, word) in words.chunks_exact(8).enumerate() {
        let place = from.plus(n as u64 * BATCH_ALIGN);
        let found = if Fields(word).u64(0) == marker.0 && place < last {
            head_at(window, place)?
        } else if planted(Bug::ResyncUnchecked) {
            any_head(window, place)?
        } else {
            None
        };
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

/// The first head behind `from`, looked for by its marker: no further than one batch can reach.
///
/// # Errors
/// Those of the disk.
pub(crate) fn next_head<F: StorageFile>(
    window: &mut Window<F>,
    from: LogPosition,
    limit: LogPosition,
) -> io::Result<Option<BatchHead>> {
    const PIECE: usize = 1 << 20;
    let marker = window.header().marker;
    let last = limit.min(from.plus(BATCH_BYTES_MAX as u64));
    let mut at = from.plus(BATCH_ALIGN);
    if planted(Bug::LengthBeforeChecksum)
        && let Some(bytes) = window.bytes(from, HEAD_BYTES)?
        && bytes.starts_with(&marker.0.to_le_bytes())
    {
        at = from.plus(round_up(u64::from(Fields(&bytes).u32(12)), BATCH_ALIGN));
    }
    while at < last {
        let rest = usize::try_from(last.since(at)).unwrap_or(usize::MAX);
        let piece = window.up_to(at, PIECE.min(rest.saturating_add(HEAD_BYTES)))?;
        if piece.len() < HEAD_BYTES {
            break;
        }
        for (n, part) in piece.chunks(LOOK).enumerate() {
            let from = at.plus((n * LOOK) as u64);
            if (holds(part, marker) || planted(Bug::ResyncUnchecked))
                && let Some(head) = head_among(window, part, (from, last))?
            {
                return Ok(Some(head));
            }
        }
        at = at.plus(round_up(piece.len() as u64 - 7, BATCH_ALIGN));
    }
    Ok(None)
}

/// The table of a batch whose head is known, from its bytes up to the batch's end.
fn table_of<'a>(head: &BatchHead, bytes: &'a [u8]) -> Option<Table<'a>> {
    let table = Table::parse_at_end(bytes)?;
    let same =
        table.batch_bytes() == head.length && Table::position_at_end(bytes) == Some(head.position);
    (same && table_fits(head, &table)).then_some(table)
}

/// Finds the records of a batch one after the other, up to the first that is damaged.
fn walk(records: &[u8], head: &BatchHead) -> Layout {
    let (mut runs, mut lengths) = (Vec::<BatchRun>::new(), Vec::new());
    let mut at = 0;
    while let Some(record) = records.get(at..).and_then(RawRecord::parse) {
        if !belongs(&record.head, head, runs.last()) {
            break;
        }
        let bytes = u32::try_from(record.bytes.len()).unwrap_or(u32::MAX);
        match runs.last_mut() {
            Some(run) if run.room == record.head.room => {
                run.bytes += bytes;
                run.count += 1;
            }
            _ => runs.push(BatchRun {
                room: record.head.room,
                offset: u32::try_from(HEAD_BYTES + at).unwrap_or(u32::MAX),
                bytes,
                count: 1,
                first_seq: record.head.seq,
            }),
        }
        lengths.push(bytes);
        at += record.bytes.len();
    }
    Layout::Salvaged { runs, lengths }
}

/// Whether a whole record is one of this batch, and comes next: a disk may have put a block of
/// another batch in its place, and then only what the record says of itself tells.
fn belongs(record: &RecordHead, head: &BatchHead, last: Option<&BatchRun>) -> bool {
    if record.room.is_none() {
        return record.seq.get() == head.position.get()
            && last.is_none_or(|run| run.room.is_none());
    }
    let follows = match last {
        Some(run) if run.room == record.room => {
            record.seq.get() == run.first_seq.get() + u64::from(run.count)
        }
        Some(run) => run.room < record.room,
        None => true,
    };
    follows && record.time.get() == head.time
}

/// Reads a whole batch and checks every byte of it; `None` unless all is right.
///
/// # Errors
/// Those of the disk.
pub(crate) fn whole_batch<F: StorageFile>(
    window: &mut Window<F>,
    at: LogPosition,
) -> io::Result<Option<(BatchHead, Bytes)>> {
    let Some(head) = head_at(window, at)? else {
        return Ok(None);
    };
    let Some(bytes) = window.bytes(at, head.length as usize)? else {
        return Ok(None);
    };
    if head.kind.is_mark() {
        let whole = Table::parse(&bytes, at).is_some_and(|table| table.is_empty());
        return Ok(whole.then_some((head, bytes)));
    }
    Ok(is_whole(&head, &bytes).then_some((head, bytes)))
}

fn is_whole(head: &BatchHead, bytes: &[u8]) -> bool {
    let Some(table) = bytes
        .get(head.table as usize..)
        .and_then(|rest| table_of(head, rest))
    else {
        return false;
    };
    table.runs().all(|run| {
        let mut at = run.offset as usize;
        let mut seq = run.first_seq.get();
        table.lengths(&run).all(|length| {
            let record = bytes
                .get(at..at + length as usize)
                .and_then(RawRecord::parse);
            at += length as usize;
            let expected = match run.room.is_none() {
                true => head.position.get(),
                false => seq,
            };
            seq = seq.saturating_add(1);
            record.is_some_and(|record| {
                record.bytes.len() == length as usize
                    && record.head.room == run.room
                    && record.head.seq.get() == expected
                    && record.payload_is_whole()
            })
        })
    })
}

const _: () = assert!(TRAILER_BYTES < HEAD_BYTES);
