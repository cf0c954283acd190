//! A batch: what one write and one sync put on the disk together.
//!
//! ```text
//! head      72 bytes   marker, checksum, length, position, what was durable when it was written
//! records              those of one room lie together; state records first
//! padding              zeros, to a multiple of 8
//! room table           where each room's records are, and how long each record is
//! trailer   24 bytes   position, counts, length, checksum of table and trailer
//! ```
//!
//! Head, table and each record have checksums of their own, so that damage stays where it is: a
//! record is found by the table when its neighbour is unreadable, and by its neighbour when the
//! table is. The exact bytes are in `docs/log-format.md`.
//!
//! A batch without records is a *mark*: it says that everything before it is on stable storage.
//! The next batch takes its place.

use std::cmp::Ordering;

use broker_proto::record::RECORD_FIXED_BYTES;
use broker_proto::{RoomId, Seq};

use super::bytes::{Fields, crc32c, put, round_up};
use super::position::{LogPosition, Marker};
use crate::planted::{Bug, planted};

/// Bytes of a batch's head.
pub const HEAD_BYTES: usize = 72;
/// Bytes of a batch's trailer.
pub const TRAILER_BYTES: usize = 24;
/// Bytes of one row of the room table.
pub const RUN_BYTES: usize = 24;
/// Batches begin at multiples of this, counted from the start of the segment's data.
pub const BATCH_ALIGN: u64 = 8;
/// The smallest batch: a mark.
pub const MARK_BYTES: usize = HEAD_BYTES + TRAILER_BYTES;
/// The largest batch that a reader believes in: one with a single message of the largest size has
/// to fit, and nothing larger is ever written.
pub const BATCH_BYTES_MAX: usize = 32 << 20;

/// What a batch is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BatchKind {
    /// Records.
    Records,
    /// Written by a leader that closed the store.
    CloseMark,
    /// Written by a leader that had nothing to do.
    IdleMark,
    /// Written together with the segment that cuts another one off. It says less than the other
    /// marks: whether the segment's name has reached the disk was not known yet.
    CutMark,
}

impl BatchKind {
    fn number(self) -> u16 {
        match self {
            Self::Records => 0,
            Self::CloseMark => 1,
            Self::IdleMark => 2,
            Self::CutMark => 3,
        }
    }

    fn from_number(number: u16) -> Option<Self> {
        [
            Self::Records,
            Self::CloseMark,
            Self::IdleMark,
            Self::CutMark,
        ]
        .into_iter()
        .find(|kind| kind.number() == number)
    }

    /// Whether it is a mark.
    #[must_use]
    pub fn is_mark(self) -> bool {
        self != Self::Records
    }
}

/// The head of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchHead {
    /// Bytes of the whole batch.
    pub length: u32,
    /// Where it lies.
    pub position: LogPosition,
    /// Everything before this place was on stable storage when the batch was written.
    pub durable_upto: LogPosition,
    /// The leadership that wrote it.
    pub term: u64,
    /// Wall clock, microseconds since 1970 UTC.
    pub time: i64,
    /// Number of records.
    pub count: u32,
    /// Where the room table begins, counted from the start of the batch.
    pub table: u32,
    /// Where the last complete checkpoint begins; `NONE` before the first.
    pub checkpoint: LogPosition,
    /// What it is for.
    pub kind: BatchKind,
}

impl BatchHead {
    /// The bytes on disk.
    #[must_use]
    pub fn encode(&self, marker: Marker) -> [u8; HEAD_BYTES] {
        let mut out = [0; HEAD_BYTES];
        put(&mut out, 0, &marker.0.to_le_bytes());
        put(&mut out, 12, &self.length.to_le_bytes());
        put(&mut out, 16, &self.position.get().to_le_bytes());
        put(&mut out, 24, &self.durable_upto.get().to_le_bytes());
        put(&mut out, 32, &self.term.to_le_bytes());
        put(&mut out, 40, &self.time.to_le_bytes());
        put(&mut out, 48, &self.count.to_le_bytes());
        put(&mut out, 52, &self.table.to_le_bytes());
        put(&mut out, 56, &self.checkpoint.get().to_le_bytes());
        put(&mut out, 64, &self.kind.number().to_le_bytes());
        let crc = head_crc(&out);
        put(&mut out, 8, &crc.to_le_bytes());
        out
    }

    /// Reads a head that belongs to a segment with this marker and to this place; `None` when
    /// anything about it is wrong.
    #[must_use]
    pub fn parse(bytes: &[u8], marker: Marker, at: LogPosition) -> Option<Self> {
        let head = Self::parse_any(bytes, marker)?;
        if planted(Bug::PositionUnchecked) {
            return Some(Self {
                position: at,
                durable_upto: head.durable_upto.min(at),
                ..head
            });
        }
        (head.position == at).then_some(head)
    }

    /// As [`Self::parse`], wherever it says it belongs.
    #[must_use]
    pub fn parse_any(bytes: &[u8], marker: Marker) -> Option<Self> {
        let bytes = bytes.get(..HEAD_BYTES)?;
        let fields = Fields(bytes);
        if fields.u64(0) != marker.0 || fields.u32(8) != head_crc(bytes) {
            return None;
        }
        let head = Self {
            length: fields.u32(12),
            position: LogPosition::new(fields.u64(16)),
            durable_upto: LogPosition::new(fields.u64(24)),
            term: fields.u64(32),
            time: fields.i64(40),
            count: fields.u32(48),
            table: fields.u32(52),
            checkpoint: LogPosition::new(fields.u64(56)),
            kind: BatchKind::from_number(fields.u16(64))?,
        };
        head.is_sane().then_some(head)
    }

    fn is_sane(&self) -> bool {
        let length = self.length as usize;
        let table = self.table as usize;
        let least = if self.kind.is_mark() {
            0
        } else {
            RUN_BYTES + 4
        };
        (MARK_BYTES..=BATCH_BYTES_MAX).contains(&length)
            && u64::from(self.length).is_multiple_of(BATCH_ALIGN)
            && table >= HEAD_BYTES
            && table.saturating_add(least).saturating_add(TRAILER_BYTES) <= length
            && self.durable_upto <= self.position
            && self.position <= LogPosition::LAST
            && self.kind.is_mark() == (self.count == 0)
    }

    /// The place after this batch. A mark takes no place: the next batch is written over it.
    #[must_use]
    pub fn end(&self) -> LogPosition {
        if self.kind.is_mark() {
            self.position
        } else {
            self.position.plus(u64::from(self.length))
        }
    }
}

fn head_crc(head: &[u8]) -> u32 {
    let marker = head.get(..8).unwrap_or_default();
    let from = if planted(Bug::LengthNotInChecksum) {
        16
    } else {
        12
    };
    let rest = head.get(from..HEAD_BYTES).unwrap_or_default();
    crc32c(&[marker, rest])
}

/// One row of the room table: a room's records within a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchRun {
    /// Whose; `RoomId::NONE` for state records.
    pub room: RoomId,
    /// Where they begin, counted from the start of the batch.
    pub offset: u32,
    /// How many bytes they take together.
    pub bytes: u32,
    /// How many they are.
    pub count: u32,
    /// The seq of the first; `Seq::NONE` for state records.
    pub first_seq: Seq,
}

impl BatchRun {
    /// The seq of the last; `Seq::NONE` for state records.
    #[must_use]
    pub fn last_seq(&self) -> Seq {
        Seq::new((self.first_seq.get() + u64::from(self.count)).saturating_sub(1))
    }
}

/// The room table of a batch, checked.
#[derive(Debug, Clone, Copy)]
pub struct Table<'a> {
    runs: &'a [u8],
    lengths: &'a [u8],
    length: u32,
}

impl<'a> Table<'a> {
    /// Finds the table of the batch that ends where `batch` ends, without needing its head; `None`
    /// when the trailer or the table is damaged or belongs elsewhere.
    #[must_use]
    pub fn parse(batch: &'a [u8], at: LogPosition) -> Option<Self> {
        let table = Self::parse_at_end(batch)?;
        let position = Fields(batch.get(batch.len().checked_sub(TRAILER_BYTES)?..)?).u64(0);
        (table.length as usize == batch.len() && position == at.get()).then_some(table)
    }

    /// As [`Self::parse`], when it is not known where the batch begins: it begins
    /// [`Self::batch_bytes`] before the end.
    #[must_use]
    pub fn parse_at_end(bytes: &'a [u8]) -> Option<Self> {
        let at = bytes.len().checked_sub(TRAILER_BYTES)?;
        let trailer = bytes.get(at..)?;
        let fields = Fields(trailer);
        let (runs, count, length) = (
            fields.u32(8) as usize,
            fields.u32(12) as usize,
            fields.u32(16),
        );
        if (length as usize) < MARK_BYTES || length as usize > BATCH_BYTES_MAX {
            return None;
        }
        let runs_bytes = runs.checked_mul(RUN_BYTES)?;
        let lengths_bytes = count.checked_mul(4)?;
        let table_bytes = usize::try_from(round_up(
            runs_bytes.checked_add(lengths_bytes)? as u64,
            BATCH_ALIGN,
        ))
        .ok()?;
        if table_bytes > (length as usize).checked_sub(MARK_BYTES)? {
            return None;
        }
        let table = bytes.get(at.checked_sub(table_bytes)?..at)?;
        if fields.u32(20) != crc32c(&[table, trailer.get(..20)?]) {
            return None;
        }
        Some(Self {
            runs: table.get(..runs_bytes)?,
            lengths: table.get(runs_bytes..runs_bytes + lengths_bytes)?,
            length,
        })
    }

    /// As [`Self::parse_at_end`], for bytes that were checked before.
    #[must_use]
    pub fn parse_trusted(bytes: &'a [u8]) -> Option<Self> {
        let at = bytes.len().checked_sub(TRAILER_BYTES)?;
        let fields = Fields(bytes.get(at..)?);
        let runs_bytes = (fields.u32(8) as usize).checked_mul(RUN_BYTES)?;
        let lengths_bytes = (fields.u32(12) as usize).checked_mul(4)?;
        let table_bytes = usize::try_from(round_up(
            runs_bytes.checked_add(lengths_bytes)? as u64,
            BATCH_ALIGN,
        ))
        .ok()?;
        let table = bytes.get(at.checked_sub(table_bytes)?..at)?;
        Some(Self {
            runs: table.get(..runs_bytes)?,
            lengths: table.get(runs_bytes..runs_bytes + lengths_bytes)?,
            length: fields.u32(16),
        })
    }

    /// Where the trailer says that the batch lies.
    #[must_use]
    pub fn position_at_end(bytes: &[u8]) -> Option<LogPosition> {
        let trailer = bytes.get(bytes.len().checked_sub(TRAILER_BYTES)?..)?;
        Some(LogPosition::new(Fields(trailer).u64(0)))
    }

    /// Bytes of the whole batch, as the trailer says.
    #[must_use]
    pub fn batch_bytes(&self) -> u32 {
        self.length
    }

    /// The rows, in the order of rooms.
    pub fn runs(&self) -> impl Iterator<Item = BatchRun> + 'a {
        self.runs.chunks_exact(RUN_BYTES).map(row)
    }

    /// The row of one room. Rows are ordered by room, so this looks at few of them.
    #[must_use]
    pub fn run(&self, room: RoomId) -> Option<BatchRun> {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low.midpoint(high);
            let found = row(self
                .runs
                .get(middle * RUN_BYTES..(middle + 1) * RUN_BYTES)?);
            match found.room.cmp(&room) {
                Ordering::Equal => return Some(found),
                Ordering::Less => low = middle + 1,
                Ordering::Greater => high = middle,
            }
        }
        None
    }

    /// The length in bytes of every record of one run.
    pub fn lengths(&self, wanted: &BatchRun) -> impl Iterator<Item = u32> + 'a {
        let before: usize = self
            .runs()
            .take_while(|run| run.offset != wanted.offset)
            .map(|run| run.count as usize)
            .sum();
        self.lengths
            .chunks_exact(4)
            .skip(before)
            .take(wanted.count as usize)
            .map(|length| Fields(length).u32(0))
    }

    /// The length in bytes of every record of the batch.
    pub fn all_lengths(&self) -> impl Iterator<Item = u32> + 'a {
        self.lengths
            .chunks_exact(4)
            .map(|length| Fields(length).u32(0))
    }

    /// Number of rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.runs.len() / RUN_BYTES
    }

    /// Whether there is no row, as in a mark.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }
}

fn row(bytes: &[u8]) -> BatchRun {
    let fields = Fields(bytes);
    BatchRun {
        room: RoomId::new(fields.u32(0)),
        offset: fields.u32(4),
        bytes: fields.u32(8),
        count: fields.u32(12),
        first_seq: Seq::new(fields.u64(16)),
    }
}

/// Whether the rows of a table describe what the head promises, in bounds and without overlap.
#[must_use]
pub fn table_fits(head: &BatchHead, table: &Table<'_>) -> bool {
    let mut at = HEAD_BYTES as u64;
    let mut records = 0_u64;
    // Rows and lengths are in the same order.
    let mut lengths = table.all_lengths().map(u64::from);
    for run in table.runs() {
        if u64::from(run.offset) != at || run.count == 0 {
            return false;
        }
        let bytes: u64 = lengths.by_ref().take(run.count as usize).sum();
        let least = u64::from(run.count).saturating_mul(RECORD_FIXED_BYTES as u64);
        if bytes != u64::from(run.bytes) || bytes < least {
            return false;
        }
        at += bytes;
        records += u64::from(run.count);
    }
    records == u64::from(head.count) && round_up(at, BATCH_ALIGN) == u64::from(head.table)
}
