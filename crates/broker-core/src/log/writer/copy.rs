//! Copies what a killed leader left behind the proven part of the log into a segment of its own.

use std::io;

use super::super::batch::{BatchHead, BatchKind, MARK_BYTES};
use super::super::builder::{BatchBuilder, Stamp, restamp};
use super::super::bytes::round_up;
use super::super::segment::SegmentHeader;
use super::super::spare::make_begun;
use super::super::storage::Storage;
use super::{InstallFault, LogWriter, WRITE_UNIT, pad};
use crate::planted::{Bug, planted};

impl<S: Storage> LogWriter<S> {
    /// Writes batches that were found at the end of the log, and that nothing proves to be on
    /// stable storage, into a new segment; after that they are. Without any, a mark alone cuts the
    /// old segment off.
    ///
    /// # Errors
    /// Those of the disk; nothing has changed then.
    pub(crate) fn copy_tail(
        &mut self,
        tail: &[(BatchHead, Vec<u8>)],
        now: i64,
    ) -> io::Result<SegmentHeader> {
        self.now = now;
        let bytes: usize = tail.iter().map(|(_, batch)| batch.len()).sum::<usize>() + MARK_BYTES;
        let header = self.next_header(self.end);
        self.buf.clear();
        self.buf.extend_from_slice(&header.encode());
        let mut last = None;
        for (head, batch) in tail {
            let start = self.buf.len();
            self.buf.extend_from_slice(batch);
            let place = self.buf.as_mut_slice().get_mut(start..).unwrap_or_default();
            last = Some(restamp(place, head, header.marker, header.base));
        }
        let end = last.map_or(self.end, |head| head.end());
        // Without any copies, the mark is what says that the segment is in use.
        let mut builder = BatchBuilder::default();
        builder.begin(&mut self.buf);
        let stamp = Stamp {
            marker: header.marker,
            position: end,
            durable_upto: header.base,
            term: self.term,
            time: now,
            checkpoint: self.checkpoint,
        };
        let mark = builder.finish(&mut self.buf, BatchKind::CutMark, &stamp);
        pad(&mut self.buf);
        self.install_whole(&header, bytes as u64)
            .map_err(|fault| fault.error)?;
        self.advance(mark, 0);
        Ok(header)
    }

    /// Makes a segment of the buffer, which holds batches of so many bytes. Nothing was prepared, and so there are no zeros to be
    /// written over first: content and zeros behind it go to the disk with one sync.
    fn install_whole(&mut self, header: &SegmentHeader, bytes: u64) -> Result<(), InstallFault> {
        let unnamed = |error| InstallFault {
            error,
            named: false,
        };
        if planted(Bug::NoSyncAtRoll) {
            let spare = self.take_spare(bytes).map_err(unnamed)?;
            return self.install(header.clone(), spare);
        }
        let smallest = self.segment_bytes.0;
        // The next batch finds room, or whoever waits for it would wait for another segment as well.
        let room = round_up(smallest / 4, WRITE_UNIT);
        let size = smallest.max(self.segment_bytes_for(bytes) + room);
        let name = self.spare_name();
        let made = make_begun(&*self.storage, &name, self.buf.as_slice(), size);
        let spare = made.map_err(unnamed)?;
        self.give_name(header.clone(), spare, Ok(()))
    }
}
