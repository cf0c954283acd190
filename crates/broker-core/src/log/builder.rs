//! Builds one batch in the writer's buffer.

use broker_proto::{RoomId, Seq};

use super::batch::{BatchHead, BatchKind, BatchRun, HEAD_BYTES, RUN_BYTES, TRAILER_BYTES};
use super::bytes::{crc32c, put, round_up};
use super::position::{LogPosition, Marker};
use super::storage::AlignedBuf;

/// What the head of a batch says beside its size.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stamp {
    pub(crate) marker: Marker,
    pub(crate) position: LogPosition,
    pub(crate) durable_upto: LogPosition,
    pub(crate) term: u64,
    pub(crate) time: i64,
    pub(crate) checkpoint: LogPosition,
}

/// The batch that is being built, at the end of a buffer that may hold other bytes before it.
#[derive(Debug, Default)]
pub(crate) struct BatchBuilder {
    start: usize,
    runs: Vec<BatchRun>,
    lengths: Vec<u32>,
}

impl BatchBuilder {
    /// Bytes that a batch takes beside its records.
    pub(crate) fn overhead(runs: usize, records: usize) -> usize {
        HEAD_BYTES + TRAILER_BYTES + runs * RUN_BYTES + records * 4 + 16
    }

    /// Begins a batch at the end of `buf`.
    pub(crate) fn begin(&mut self, buf: &mut AlignedBuf) {
        self.start = buf.len();
        self.runs.clear();
        self.lengths.clear();
        buf.extend_from_slice(&[0; HEAD_BYTES]);
    }

    /// Appends one record; `write` puts its bytes at the end of the buffer.
    pub(crate) fn record(
        &mut self,
        buf: &mut AlignedBuf,
        room: RoomId,
        seq: Seq,
        write: impl FnOnce(&mut AlignedBuf),
    ) {
        let before = buf.len();
        write(buf);
        let bytes = cut(buf.len() - before);
        self.lengths.push(bytes);
        match self.runs.last_mut() {
            Some(run) if run.room == room => {
                run.bytes += bytes;
                run.count += 1;
            }
            _ => self.runs.push(BatchRun {
                room,
                offset: cut(before - self.start),
                bytes,
                count: 1,
                first_seq: seq,
            }),
        }
    }

    /// The rows so far.
    pub(crate) fn runs(&self) -> &[BatchRun] {
        &self.runs
    }

    /// The length of every message. State records come before all messages.
    pub(crate) fn message_lengths(&self) -> &[u32] {
        let states = self.runs.iter().take_while(|run| run.room.is_none());
        let states: usize = states.map(|run| run.count as usize).sum();
        self.lengths.get(states..).unwrap_or_default()
    }

    /// Where the messages begin, counted from the start of the batch; `None` without any.
    pub(crate) fn messages_offset(&self) -> Option<usize> {
        let first = self.runs.iter().find(|run| !run.room.is_none())?;
        Some(first.offset as usize)
    }

    /// Closes the batch and gives its head. Its bytes are `buf[start..]`.
    pub(crate) fn finish(
        &mut self,
        buf: &mut AlignedBuf,
        kind: BatchKind,
        stamp: &Stamp,
    ) -> BatchHead {
        pad(buf, self.start);
        let table = buf.len();
        for run in &self.runs {
            let mut row = [0; RUN_BYTES];
            put(&mut row, 0, &run.room.get().to_le_bytes());
            put(&mut row, 4, &run.offset.to_le_bytes());
            put(&mut row, 8, &run.bytes.to_le_bytes());
            put(&mut row, 12, &run.count.to_le_bytes());
            put(&mut row, 16, &run.first_seq.get().to_le_bytes());
            buf.extend_from_slice(&row);
        }
        for length in &self.lengths {
            buf.extend_from_slice(&length.to_le_bytes());
        }
        pad(buf, self.start);
        let length = cut(buf.len() - self.start + TRAILER_BYTES);
        let head = BatchHead {
            length,
            position: stamp.position,
            durable_upto: stamp.durable_upto,
            term: stamp.term,
            time: stamp.time,
            count: cut(self.lengths.len()),
            table: cut(table - self.start),
            checkpoint: stamp.checkpoint,
            kind,
        };
        let mut trailer = [0; TRAILER_BYTES];
        put(&mut trailer, 0, &stamp.position.get().to_le_bytes());
        put(&mut trailer, 8, &cut(self.runs.len()).to_le_bytes());
        put(&mut trailer, 12, &head.count.to_le_bytes());
        put(&mut trailer, 16, &length.to_le_bytes());
        let crc = crc32c(&[
            buf.as_slice().get(table..).unwrap_or_default(),
            trailer.get(..20).unwrap_or_default(),
        ]);
        put(&mut trailer, 20, &crc.to_le_bytes());
        buf.extend_from_slice(&trailer);
        put(buf.as_mut_slice(), self.start, &head.encode(stamp.marker));
        head
    }
}

/// Gives a finished batch another marker and another word on what is durable, as when it is
/// written again into a new segment. Its place stays.
pub(crate) fn restamp(
    batch: &mut [u8],
    head: &BatchHead,
    marker: Marker,
    durable_upto: LogPosition,
) -> BatchHead {
    let head = BatchHead {
        durable_upto,
        ..*head
    };
    put(batch, 0, &head.encode(marker));
    head
}

fn pad(buf: &mut AlignedBuf, start: usize) {
    let len = buf.len() - start;
    let padded = usize::try_from(round_up(len as u64, super::batch::BATCH_ALIGN)).unwrap_or(len);
    buf.resize(start + padded);
}

/// Sizes inside a batch stay far below 4 GiB, because the writer closes a batch long before.
fn cut(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}
