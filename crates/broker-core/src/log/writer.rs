//! The one writer: puts batches on stable storage, one write and one sync each.
//!
//! ```text
//!             carry  batch ........................  zeros
//! buffer     [#####][##############################][00000]
//! file    ...|        |        |        |        |        |   blocks
//! ```
//!
//! Writes go in whole blocks straight to the disk. The bytes of the partial block that the batch
//! before left (the *carry*) are written again, the same as they were; they are on stable storage
//! already, and a disk does not harm bytes that are written again unchanged (see
//! `docs/log-format.md` for what is assumed of disks).
//!
//! After a failed write or sync nothing more is asked of that file: the batch is written once more,
//! from memory, into a new segment that cuts the old one off at the batch's start. If that fails
//! too, the log is read-only.

use std::fmt;
use std::io;

use broker_proto::StoreId;
use bytes::Bytes;

use super::batch::{BatchHead, BatchKind, MARK_BYTES};
use super::builder::{BatchBuilder, Stamp, restamp};
use super::bytes::{round_down, round_up};
use super::position::{LogPosition, Marker};
use super::segment::{DATA_OFFSET, SegmentHeader, SegmentId, SegmentName};
use super::spare::{FILL_BYTES, Spare, make_spare, spare_name};
use super::storage::{AlignedBuf, Storage, StorageFile};
use crate::planted::{Bug, planted};
use crate::sync::Arc;

mod copy;

/// Unit of writes. A multiple of every block size that a disk may have.
const WRITE_UNIT: u64 = 4096;
/// A segment made in a hurry, because no prepared one was there, is no larger than its first batch
/// or this: filling it with zeros holds the writer up.
const HURRIED_BYTES: u64 = 4 << 20;
/// A writer of so many bytes a microsecond might have filled its segment before a spare is ready that is begun when half of it
/// is full and made at leisure.
const FAST_BYTES_PER_MICRO: u64 = 32;
/// So many bytes a microsecond are as much as a spare gets that is made at leisure.
const HURRY_BYTES_PER_MICRO: u64 = 160;
/// A leader that has written so much, or a 64th of the segment, is one that writes.
const SPARE_AFTER_BYTES: u64 = 256 << 10;
/// The buffer is given back when an unusually large batch has made it larger than this.
const BUFFER_BYTES_KEPT: usize = 8 << 20;

/// Why a batch is not on stable storage.
#[derive(Debug)]
pub(crate) enum WriteFault {
    /// No space; nothing of the batch will ever be seen.
    NoSpace(io::Error),
    /// No space, and whether the batch will be seen after a restart is not known.
    NoSpaceUnknown(io::Error),
    /// The disk failed twice: nothing more is written, and the batch's fate is not known.
    Failed(io::Error),
}

/// Why a segment could not be installed.
struct InstallFault {
    error: io::Error,
    /// The file may have the segment's name all the same, and then it cuts off the segment before.
    named: bool,
}

/// A segment that was begun, and that the one before it ends at.
#[derive(Debug, Clone)]
pub(crate) struct Begun {
    pub(crate) header: SegmentHeader,
    /// Rooms whose newest message lies at or behind this place are named in it.
    pub(crate) mentioned_from: LogPosition,
}

/// What a successful write has done.
#[derive(Debug)]
pub(crate) struct Written {
    pub(crate) head: BatchHead,
    /// A copy of the messages, from the first one to the room table, if it was asked for.
    pub(crate) records: Option<Bytes>,
}

struct Active<F> {
    header: SegmentHeader,
    file: F,
    /// Bytes that the file has room for.
    bytes: u64,
}

/// Where a batch will go, decided before it is built.
enum Target<F> {
    InPlace,
    NewSegment {
        header: SegmentHeader,
        spare: Spare<F>,
    },
}

/// What a leader starts writing with.
#[derive(Debug)]
pub(crate) struct Start {
    pub(crate) store: StoreId,
    pub(crate) term: u64,
    pub(crate) feature_level: u32,
    /// Where the next batch goes; everything before is durable.
    pub(crate) end: LogPosition,
    pub(crate) checkpoint: LogPosition,
    /// The highest segment number ever used.
    pub(crate) last_segment: SegmentId,
    /// The smallest and the largest segment.
    pub(crate) segment_bytes: (u64, u64),
    /// The segment to go on in, with the size of its file.
    pub(crate) resume: Option<(SegmentHeader, u64)>,
    /// Spares up to this number are there already, of leaders before.
    pub(crate) spares_made: u64,
}

/// See the module's documentation.
pub(crate) struct LogWriter<S: Storage> {
    storage: Arc<S>,
    store: StoreId,
    feature_level: u32,
    term: u64,
    segment_bytes: (u64, u64),
    active: Option<Active<S::File>>,
    last_segment: SegmentId,
    /// Where the next batch goes. Everything before is durable.
    end: LogPosition,
    /// Where this writer began.
    begun_at: LogPosition,
    pub(crate) checkpoint: LogPosition,
    buf: AlignedBuf,
    carry: usize,
    target: Target<S::File>,
    /// Nobody asked yet which segment was begun.
    begun: Option<Begun>,
    spare: Option<Spare<S::File>>,
    spares_made: u64,
    /// The disk had no space for a spare.
    starved: bool,
    /// A batch that was given up may still lie behind the end of the log.
    uncut: bool,
    /// Incremented when a batch had to be written a second time.
    pub(crate) rescued: u64,
    failed: bool,
    marked: bool,
    /// Draws the markers of new segments.
    chance: Chance,
    /// The time of the batch being written.
    now: i64,
    /// Where the messages of the batch begin, if a copy of them is wanted.
    keep: Option<usize>,
    /// The next batch begins a new segment, if that can be had.
    rolls: bool,
}

/// A source of random numbers.
pub(crate) type Chance = Box<dyn FnMut() -> u64 + Send>;

impl<S: Storage> LogWriter<S> {
    /// A writer that goes on where the log ends.
    ///
    /// # Errors
    /// When the partial block cannot be read back.
    pub(crate) fn start(storage: Arc<S>, start: Start, chance: Chance) -> io::Result<Self> {
        let mut writer = Self {
            storage,
            store: start.store,
            feature_level: start.feature_level,
            term: start.term,
            segment_bytes: (
                round_up(start.segment_bytes.0, WRITE_UNIT).max(2 * WRITE_UNIT),
                round_up(start.segment_bytes.1.max(start.segment_bytes.0), WRITE_UNIT)
                    .max(2 * WRITE_UNIT),
            ),
            active: None,
            last_segment: start.last_segment,
            end: start.end,
            begun_at: start.end,
            checkpoint: start.checkpoint,
            buf: AlignedBuf::new(),
            carry: 0,
            target: Target::InPlace,
            begun: None,
            spare: None,
            spares_made: start.spares_made,
            starved: false,
            uncut: false,
            rescued: 0,
            failed: false,
            marked: false,
            chance,
            now: 0,
            keep: None,
            rolls: false,
        };
        if let Some((header, bytes)) = start.resume {
            let file = writer.storage.open(&header.name.file())?;
            writer.resume(header, file, bytes)?;
        }
        Ok(writer)
    }

    fn resume(&mut self, header: SegmentHeader, file: S::File, bytes: u64) -> io::Result<()> {
        let offset = header.offset_of(self.end);
        let block = round_down(offset, WRITE_UNIT);
        self.carry = usize::try_from(offset - block).map_err(io::Error::other)?;
        self.buf.resize(self.carry);
        let read = file.read_at(block, self.buf.as_mut_slice())?;
        if read < self.carry {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!("{} is shorter than its content", header.name.file()),
            ));
        }
        // The file may be shorter than a whole number of blocks; then nothing more fits into it.
        self.active = Some(Active {
            header,
            file,
            bytes: round_down(bytes, WRITE_UNIT),
        });
        Ok(())
    }

    /// The segment that was begun since the last time this was asked, also by a mark or by a batch
    /// that was refused.
    pub(crate) fn take_begun(&mut self) -> Option<Begun> {
        self.begun.take()
    }

    /// Where the next batch goes; everything before is on stable storage.
    pub(crate) fn end(&self) -> LogPosition {
        self.end
    }

    /// The segment that is being written.
    pub(crate) fn segment(&self) -> Option<&SegmentHeader> {
        self.active.as_ref().map(|active| &active.header)
    }

    fn remaining(&self) -> u64 {
        self.active.as_ref().map_or(0, |active| {
            active
                .bytes
                .saturating_sub(active.header.offset_of(self.end))
        })
    }

    /// The size of a spare that should be made now: the active segment is half full, or a 16th of it is
    /// and filled up fast; there is no spare; and this leader is one that writes. Without the last,
    /// each of a thousand short commands would begin a large file and throw it away.
    pub(crate) fn wants_spare(&self) -> Option<u64> {
        let active = self.active.as_ref()?;
        let writes = self.end.get().saturating_sub(self.begun_at.get())
            >= (active.bytes / 64).min(SPARE_AFTER_BYTES);
        let enough = if self.fills_faster(active, FAST_BYTES_PER_MICRO) {
            16
        } else {
            2
        };
        let begun = self.remaining() < active.bytes - active.bytes / enough;
        let wanted = self.spare.is_none() && !self.failed && writes && begun;
        let (smallest, largest) = self.segment_bytes;
        wanted.then_some((active.bytes * 2).clamp(smallest, largest))
    }

    /// Whether the writer will soon wait for the spare that is being made.
    pub(crate) fn needs_spare_soon(&self) -> bool {
        self.spare.is_none()
            && self.active.as_ref().is_some_and(|active| {
                self.remaining() < active.bytes / 4
                    || self.fills_faster(active, HURRY_BYTES_PER_MICRO)
            })
    }

    /// Whether the active segment has filled up with more than so many bytes a microsecond.
    fn fills_faster(&self, active: &Active<S::File>, bytes_per_micro: u64) -> bool {
        let micros = self.now.saturating_sub(active.header.created);
        let limit = u64::try_from(micros).map(|micros| micros.saturating_mul(bytes_per_micro));
        limit.is_ok_and(|limit| self.end.since(active.header.base) > limit)
    }

    /// A name for the next spare.
    pub(crate) fn spare_name(&mut self) -> String {
        self.spares_made += 1;
        spare_name(self.spares_made)
    }

    /// Takes a spare that was made elsewhere, or hears why there is none.
    pub(crate) fn offer_spare(&mut self, made: io::Result<Spare<S::File>>) {
        match made {
            Ok(spare) => {
                self.starved = false;
                // It was begun before the limit was set.
                if self.is_large(spare.bytes) {
                    self.discard(&spare);
                } else {
                    self.spare = Some(spare);
                }
            }
            Err(error) => self.starved = is_no_space(&error),
        }
    }

    /// Whether a segment is much larger than they are to be.
    fn is_large(&self, bytes: u64) -> bool {
        bytes > 2 * self.segment_bytes.1
    }

    /// Whether the disk was full when space was wanted last.
    pub(crate) fn is_starved(&self) -> bool {
        self.starved
    }

    /// Whether a batch of at most this many bytes can be written so that `reserve` bytes are left.
    ///
    /// # Errors
    /// When the disk is full: nothing has been written.
    pub(crate) fn check_space(&mut self, bytes: u64, reserve: u64) -> io::Result<()> {
        if !self.starved || self.remaining() >= bytes.saturating_add(reserve) {
            return Ok(());
        }
        // Starved a moment ago; space may have come back.
        let size = self.segment_bytes_for(bytes).max(self.segment_bytes.0);
        let name = self.spare_name();
        match make_spare(&*self.storage, &name, size, &mut || Some(FILL_BYTES)) {
            Ok(spare) => {
                self.starved = false;
                self.spare = Some(spare);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Has the next batch begin a new segment.
    pub(crate) fn roll(&mut self) {
        self.rolls = self.active.is_some();
    }

    /// Whether it is to.
    pub(crate) fn will_roll(&self) -> bool {
        self.rolls
    }

    /// Sees to it that a new segment can begin with a batch of so many bytes; says whether it can.
    pub(crate) fn secure_spare(&mut self, bytes: u64) -> bool {
        match self.take_spare(bytes) {
            Ok(spare) => {
                self.spare = Some(spare);
                true
            }
            Err(_) => false,
        }
    }

    /// Has segments from now on no larger than this. The next batch begins a new one if the present one is much larger.
    pub(crate) fn limit_segments(&mut self, largest: u64) {
        let largest = round_up(largest, WRITE_UNIT).max(self.segment_bytes.0);
        if largest != std::mem::replace(&mut self.segment_bytes.1, largest) {
            if let Some(spare) = self.spare.take() {
                self.offer_spare(Ok(spare));
            }
            self.rolls |= self
                .active
                .as_ref()
                .is_some_and(|it| self.is_large(it.bytes));
        }
    }

    /// Begins a batch of at most `bytes` bytes: chooses where it goes. It is built in
    /// [`Self::buffer`].
    ///
    /// # Errors
    /// When a new segment is needed and cannot be made: nothing has been written.
    pub(crate) fn begin(&mut self, bytes: u64, now: i64) -> io::Result<()> {
        self.now = now;
        if self.failed {
            return Err(io::Error::other("the log is read-only after a disk error"));
        }
        let fits = bytes + MARK_BYTES as u64 <= self.remaining();
        let spare = match (fits, std::mem::take(&mut self.rolls)) {
            (true, false) => None,
            // It is only a wish.
            (true, true) => self.take_spare(bytes).ok(),
            (false, _) => Some(self.take_spare(bytes)?),
        };
        if let Some(spare) = spare {
            let header = self.next_header(self.end);
            self.buf.clear();
            self.buf.extend_from_slice(&header.encode());
            self.target = Target::NewSegment { header, spare };
        } else {
            self.target = Target::InPlace;
            self.buf.truncate(self.carry);
        }
        Ok(())
    }

    fn segment_bytes_for(&self, batch: u64) -> u64 {
        round_up(DATA_OFFSET + batch + MARK_BYTES as u64, WRITE_UNIT)
    }

    fn take_spare(&mut self, batch: u64) -> io::Result<Spare<S::File>> {
        let needed = self.segment_bytes_for(batch);
        if let Some(spare) = self.spare.take() {
            if spare.bytes >= needed {
                return Ok(spare);
            }
            self.discard(&spare);
        }
        let doubled = self.active.as_ref().map_or(0, |active| active.bytes * 2);
        let (smallest, largest) = self.segment_bytes;
        let largest = largest.min(HURRIED_BYTES).max(smallest);
        let size = needed.max(doubled.clamp(smallest, largest));
        let name = self.spare_name();
        let made = make_spare(&*self.storage, &name, size, &mut || Some(FILL_BYTES));
        self.starved = made.as_ref().is_err_and(is_no_space);
        made
    }

    fn discard(&self, spare: &Spare<S::File>) {
        // A left-over is deleted again at the next start, so a failure here costs only space.
        let _ = self.storage.delete(&spare.name);
    }

    fn next_header(&mut self, base: LogPosition) -> SegmentHeader {
        let id = SegmentId(self.last_segment.0 + 1);
        SegmentHeader {
            store: self.store,
            name: SegmentName { id, generation: 0 },
            covers_last: id,
            marker: Marker((self.chance)()),
            base,
            term: self.term,
            created: self.now,
            previous: self.last_segment,
            checkpoint: self.checkpoint,
            batch_align: u32::try_from(WRITE_UNIT).unwrap_or(0),
            feature_level: self.feature_level,
            data_end: LogPosition::START,
            sources: 0,
        }
    }

    /// Finishes the batch that [`Self::begin`] began, writes it and syncs it.
    ///
    /// # Errors
    /// [`WriteFault`]; the batch is then not acknowledged.
    pub(crate) fn commit(
        &mut self,
        builder: &mut BatchBuilder,
        kind: BatchKind,
        keep: bool,
    ) -> Result<Written, WriteFault> {
        let marker = match &self.target {
            Target::NewSegment { header, .. } => header.marker,
            Target::InPlace => self
                .active
                .as_ref()
                .map_or(Marker(0), |active| active.header.marker),
        };
        let durable_upto = if planted(Bug::DurableUptoNeverAdvances) {
            LogPosition::START
        } else {
            self.end
        };
        let stamp = Stamp {
            marker,
            position: self.end,
            durable_upto,
            term: self.term,
            time: self.now,
            checkpoint: self.checkpoint,
        };
        let start = self.batch_start();
        let head = builder.finish(&mut self.buf, kind, &stamp);
        self.keep = keep.then(|| builder.messages_offset()).flatten();
        self.marked = kind.is_mark();
        match std::mem::replace(&mut self.target, Target::InPlace) {
            Target::InPlace => self.write_in_place(head, start),
            Target::NewSegment { header, spare } => self.write_new(head, header, spare, start),
        }
    }

    /// A copy of exactly the messages: readers keep it, and must not keep the writer's buffer.
    fn copy_messages(&mut self, head: &BatchHead, start: usize) -> Option<Bytes> {
        let from = start + self.keep.take()?;
        let messages = self.buf.as_slice().get(from..start + head.table as usize)?;
        Some(Bytes::copy_from_slice(messages))
    }

    /// Whether the batch that was begun goes into a new segment.
    pub(crate) fn begins_segment(&self) -> bool {
        matches!(self.target, Target::NewSegment { .. })
    }

    /// The buffer of the batch that was begun.
    pub(crate) fn buffer(&mut self) -> &mut AlignedBuf {
        &mut self.buf
    }

    fn batch_start(&self) -> usize {
        match &self.target {
            Target::InPlace => self.carry,
            Target::NewSegment { .. } => usize::try_from(DATA_OFFSET).unwrap_or(0),
        }
    }

    fn write_in_place(&mut self, head: BatchHead, start: usize) -> Result<Written, WriteFault> {
        let Some(active) = &self.active else {
            return Err(WriteFault::Failed(io::Error::other("no segment is open")));
        };
        let offset = active.header.offset_of(head.position) - start as u64;
        pad(&mut self.buf);
        let written = if planted(Bug::AckBeforeSync) || planted(Bug::DeliveredBeforeDurable) {
            active.file.write_at(offset, self.buf.as_slice())
        } else if planted(Bug::SyncOfAnotherFile)
            && let Some(spare) = &self.spare
        {
            let written = active.file.write_at(offset, self.buf.as_slice());
            written.and_then(|()| spare.file.sync())
        } else {
            write_and_sync(&active.file, offset, self.buf.as_slice())
        };
        match written {
            Ok(()) => {
                let records = self.copy_messages(&head, start);
                self.advance(head, offset);
                Ok(Written { head, records })
            }
            Err(error) => self.rescue(head, start, error),
        }
    }

    /// The file is not to be trusted any more: cut it off at the batch's start and write the batch
    /// elsewhere, once.
    fn rescue(
        &mut self,
        head: BatchHead,
        start: usize,
        error: io::Error,
    ) -> Result<Written, WriteFault> {
        self.rescued += 1;
        let batch: Vec<u8> = self
            .buf
            .as_slice()
            .get(start..start + head.length as usize)
            .unwrap_or_default()
            .to_vec();
        let header = self.next_header(head.position);
        self.active = None;
        self.carry = 0;
        let full = is_no_space(&error);
        // Nothing of a refused batch may come back, so a mark takes its place. A mark gives way to one that says less: nobody may
        // go on in the new segment before its name is safe.
        let says_less = head.kind.is_mark() && !planted(Bug::SecondMarkVouches);
        let (batch, head) = if full || says_less {
            let mut buf = AlignedBuf::new();
            let mut builder = BatchBuilder::default();
            builder.begin(&mut buf);
            let stamp = Stamp {
                marker: header.marker,
                position: head.position,
                durable_upto: head.position,
                term: self.term,
                time: head.time,
                checkpoint: self.checkpoint,
            };
            let mark = builder.finish(&mut buf, BatchKind::CutMark, &stamp);
            (buf.as_slice().to_vec(), mark)
        } else {
            let mut batch = batch;
            let head = restamp(&mut batch, &head, header.marker, head.durable_upto);
            (batch, head)
        };
        self.uncut = true;
        let written = self.write_elsewhere(header, &batch, head);
        match written {
            Ok(_) if full => Err(WriteFault::NoSpace(error)),
            Err(_) if full => Err(WriteFault::NoSpaceUnknown(error)),
            Ok(written) => Ok(written),
            Err(second) => {
                self.failed = true;
                tracing::error!(first = %error, %second, "the disk failed twice, the log is read-only now");
                Err(WriteFault::Failed(error))
            }
        }
    }

    fn write_elsewhere(
        &mut self,
        header: SegmentHeader,
        batch: &[u8],
        head: BatchHead,
    ) -> io::Result<Written> {
        let spare = self.take_spare(batch.len() as u64)?;
        self.buf.clear();
        self.buf.extend_from_slice(&header.encode());
        let batch_start = self.buf.len();
        self.buf.extend_from_slice(batch);
        pad(&mut self.buf);
        let installed = self.install(header.clone(), spare);
        installed.map_err(|fault| fault.error)?;
        let records = self.copy_messages(&head, batch_start);
        self.advance(head, 0);
        // The batch was built for another segment and does not name all of its rooms.
        self.begun = Some(Begun {
            header,
            mentioned_from: self.end,
        });
        Ok(Written { head, records })
    }

    fn write_new(
        &mut self,
        head: BatchHead,
        header: SegmentHeader,
        spare: Spare<S::File>,
        start: usize,
    ) -> Result<Written, WriteFault> {
        pad(&mut self.buf);
        let Err(InstallFault { error, named }) = self.install(header.clone(), spare) else {
            let records = self.copy_messages(&head, start);
            self.advance(head, 0);
            self.begun = Some(Begun {
                mentioned_from: header.base,
                header,
            });
            return Ok(Written { head, records });
        };
        if is_no_space(&error) && !named {
            // The old segment is untouched and nobody will ever look at the new file.
            self.restore_carry();
            return Err(WriteFault::NoSpace(error));
        }
        self.rescue(head, start, error)
    }

    /// After a new segment could not be made, the old one goes on: read its partial block back.
    fn restore_carry(&mut self) {
        let Some(active) = self.active.take() else {
            return;
        };
        self.buf.clear();
        if let Err(error) = self.resume(active.header, active.file, active.bytes) {
            // Without its partial block the old segment cannot be written; the next batch begins a
            // new one.
            tracing::warn!(%error, "cannot go on in the active segment");
            self.carry = 0;
            self.buf.clear();
        }
    }

    /// Writes the buffer into a spare and gives it its name: only then does the segment exist.
    fn install(
        &mut self,
        header: SegmentHeader,
        spare: Spare<S::File>,
    ) -> Result<(), InstallFault> {
        let written = if planted(Bug::NoSyncAtRoll) {
            spare.file.write_at(0, self.buf.as_slice())
        } else {
            write_and_sync(&spare.file, 0, self.buf.as_slice())
        };
        self.give_name(header, spare, written)
    }

    /// Gives a file its name as a segment, if all that it begins with was `written` and synced.
    fn give_name(
        &mut self,
        header: SegmentHeader,
        spare: Spare<S::File>,
        written: io::Result<()>,
    ) -> Result<(), InstallFault> {
        // Whatever happens, the name is not used a second time.
        self.last_segment = header.name.id;
        let named = written.is_ok();
        let result = written.and_then(|()| {
            self.storage.rename(&spare.name, &header.name.file())?;
            if planted(Bug::NoDirectorySync) {
                return Ok(());
            }
            self.storage.sync_dir()
        });
        if let Err(error) = result {
            self.discard(&spare);
            return Err(InstallFault { error, named });
        }
        self.active = Some(Active {
            header,
            file: spare.file,
            bytes: spare.bytes,
        });
        self.uncut = false;
        Ok(())
    }

    /// Notes that a batch is durable, and keeps its partial block for the next write. `offset` is
    /// where in the file the buffer begins.
    fn advance(&mut self, head: BatchHead, offset: u64) {
        self.end = head.end();
        let Some(active) = &self.active else { return };
        let next = active.header.offset_of(self.end);
        let block = round_down(next, WRITE_UNIT);
        self.carry = usize::try_from(next - block).unwrap_or(0);
        let drop = usize::try_from(block.saturating_sub(offset)).unwrap_or(0);
        self.buf.drop_front(drop);
        self.buf.truncate(self.carry);
        if self.buf.capacity() > BUFFER_BYTES_KEPT {
            let mut smaller = AlignedBuf::new();
            smaller.extend_from_slice(self.buf.as_slice());
            self.buf = smaller;
        }
    }

    /// Writes a mark, unless the last thing written is one.
    ///
    /// # Errors
    /// As [`Self::commit`].
    pub(crate) fn mark(&mut self, kind: BatchKind, time: i64) -> Result<(), WriteFault> {
        let nothing_to_say =
            self.active.is_none() || self.failed || (self.marked && kind == BatchKind::IdleMark);
        if nothing_to_say || self.remaining() < MARK_BYTES as u64 {
            return Ok(());
        }
        self.now = time;
        self.target = Target::InPlace;
        self.buf.truncate(self.carry);
        let mut builder = BatchBuilder::default();
        builder.begin(&mut self.buf);
        self.commit(&mut builder, kind, false).map(|_| ())
    }

    /// Syncs the active segment, for the bug that shows a batch before that.
    pub(crate) fn sync_too_late(&self) -> io::Result<()> {
        self.active
            .as_ref()
            .map_or(Ok(()), |active| active.file.sync())
    }

    /// Whether a mark is the last thing written.
    pub(crate) fn is_marked(&self) -> bool {
        self.marked || self.active.is_none()
    }

    /// Whether a batch that was given up may be found at the next start: nothing cuts it off yet.
    pub(crate) fn is_uncut(&self) -> bool {
        self.uncut
    }

    /// Whether the log is read-only.
    pub(crate) fn has_failed(&self) -> bool {
        self.failed
    }

    /// Deletes the spare; called when the writer will not need it.
    pub(crate) fn drop_spare(&mut self) {
        if let Some(spare) = self.spare.take() {
            self.discard(&spare);
        }
    }
}

impl<S: Storage> fmt::Debug for LogWriter<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogWriter")
            .field("end", &self.end)
            .field("segment", &self.segment().map(|header| header.name))
            .finish_non_exhaustive()
    }
}

fn write_and_sync<F: StorageFile>(file: &F, offset: u64, bytes: &[u8]) -> io::Result<()> {
    file.write_at(offset, bytes)?;
    let synced = file.sync();
    if synced.is_err() && planted(Bug::SyncAgainAfterError) {
        return file.sync();
    }
    synced
}

fn pad(buf: &mut AlignedBuf) {
    let padded = usize::try_from(round_up(buf.len() as u64, WRITE_UNIT)).unwrap_or(buf.len());
    buf.resize(padded);
}

/// Whether an error says that the disk or the quota is full.
pub(crate) fn is_no_space(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}
