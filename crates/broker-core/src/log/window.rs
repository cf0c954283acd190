//! Reads a segment through a window, so that small reads beside each other cost one.

use std::io;
use std::mem;

use bytes::{Bytes, BytesMut};

use super::batch::BatchHead;
use super::blocks::Blocks;
use super::position::LogPosition;
use super::segment::SegmentHeader;
use super::storage::StorageFile;
use crate::sync::Arc;

/// A segment file, and the part of it that was read last.
#[derive(Debug)]
pub(crate) struct Window<F> {
    file: Arc<F>,
    header: SegmentHeader,
    /// Read at least this much at a time.
    ahead: usize,
    /// The same, as long as nothing is passed over.
    ahead_usual: usize,
    held: Bytes,
    held_at: LogPosition,
    /// Whether heads and tables are read beside what is held.
    sparse: bool,
    beside: Bytes,
    beside_at: LogPosition,
    /// The length of the file when it was asked for last.
    file_bytes: u64,
    /// Where reading ends, if the length of the file need not be asked for.
    limit: Option<u64>,
    /// Where to take memory from that is worth sharing.
    blocks: Option<Blocks>,
    /// Whether only what is in memory is read.
    at_once: bool,
    /// Whether the disk was waited for.
    waited: bool,
}

/// What is read beside the window, at least.
const BESIDE_BYTES: usize = 4 << 10;

/// Batches of so many bytes are passed over: reading them takes a disk as long as three small reads.
const SKIM_BYTES: u32 = 256 << 10;

/// Whether who skims a batch has its messages passed over.
pub(crate) const fn is_passed_over(head: &BatchHead) -> bool {
    head.length >= SKIM_BYTES
}

/// Most that is read while somebody does not wait: copying it takes some microseconds.
const AT_ONCE_BYTES: usize = 256 << 10;

impl<F: StorageFile> Window<F> {
    pub(crate) fn new(file: F, header: SegmentHeader, ahead: usize) -> Self {
        Self::of(Arc::new(file), header, ahead)
    }

    /// On a file that others read as well, of which nothing behind `limit` is asked for.
    pub(crate) fn shared(
        file: Arc<F>,
        header: SegmentHeader,
        ahead: usize,
        limit: LogPosition,
    ) -> Self {
        let end = header.offset_of(limit);
        Self {
            limit: Some(end),
            ..Self::of(file, header, ahead)
        }
    }

    fn of(file: Arc<F>, header: SegmentHeader, ahead: usize) -> Self {
        let held_at = header.base;
        Self {
            file,
            header,
            ahead,
            ahead_usual: ahead,
            held: Bytes::new(),
            held_at,
            sparse: false,
            beside: Bytes::new(),
            beside_at: held_at,
            file_bytes: 0,
            limit: None,
            blocks: None,
            at_once: false,
            waited: false,
        }
    }

    /// Has it read into blocks that others have used before.
    pub(crate) fn into_blocks(mut self, blocks: &Blocks) -> Self {
        self.blocks = Some(blocks.clone());
        self
    }

    /// Has it read nothing that the disk would have to be waited for, and no more than [`AT_ONCE_BYTES`] at a time: all else is
    /// [`io::ErrorKind::WouldBlock`].
    pub(crate) fn at_once(mut self) -> Self {
        self.at_once = true;
        self
    }

    /// Whether the disk was waited for since the window was opened.
    pub(crate) fn has_waited(&self) -> bool {
        self.waited
    }

    /// Fails where somebody does not wait.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] then.
    pub(crate) fn wait(&self) -> io::Result<()> {
        if self.at_once {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(())
    }

    /// Has [`Self::bytes`] read nothing ahead: for who takes a part out of large batches, whose head, table and records lie far
    /// from each other. Otherwise each of the three would be read with as much behind it as is wanted of the records.
    pub(crate) fn sparse(mut self) -> Self {
        self.sparse = true;
        self
    }

    /// Begins as if a large batch had been passed over: how large the first one is nobody knows yet.
    pub(crate) fn careful(mut self) -> Self {
        self.ahead = self.ahead_usual.min(BESIDE_BYTES);
        self
    }

    /// For who wants of a batch its head, its table and its state records alone: has the messages of a large one passed over,
    /// and those of small ones read, which takes less time than asking the disk three times for each.
    pub(crate) fn skim(&mut self, head: &BatchHead) {
        self.ahead = if is_passed_over(head) {
            self.ahead_usual.min(BESIDE_BYTES)
        } else {
            self.ahead_usual
        };
    }

    /// Another window on the same file.
    pub(crate) fn again(&self) -> Self {
        Self {
            file: Arc::clone(&self.file),
            header: self.header.clone(),
            ahead: self.ahead_usual,
            ahead_usual: self.ahead_usual,
            held: Bytes::new(),
            held_at: self.header.base,
            sparse: self.sparse,
            beside: Bytes::new(),
            beside_at: self.header.base,
            file_bytes: self.file_bytes,
            limit: self.limit,
            blocks: self.blocks.clone(),
            at_once: self.at_once,
            waited: self.waited,
        }
    }

    pub(crate) fn header(&self) -> &SegmentHeader {
        &self.header
    }

    /// How much memory the part that was read last takes.
    pub(crate) fn held_bytes(&self) -> usize {
        self.held.len()
    }

    /// Exactly `len` bytes from `at` on; `None` when the file ends before that.
    ///
    /// # Errors
    /// Those of the disk.
    pub(crate) fn bytes(&mut self, at: LogPosition, len: usize) -> io::Result<Option<Bytes>> {
        let got = if self.sparse {
            self.peek(at, len)?
        } else {
            self.up_to(at, len)?
        };
        Ok((got.len() == len).then_some(got))
    }

    /// As [`Self::up_to`], and what is held stays so.
    fn peek(&mut self, at: LogPosition, len: usize) -> io::Result<Bytes> {
        if at < self.header.base {
            return Ok(Bytes::new());
        }
        let found = self.slice(at, len);
        if let Some(found) = found.or_else(|| part(&self.beside, self.beside_at, at, len)) {
            return Ok(found);
        }
        self.beside = self.read(at, len.max(BESIDE_BYTES), Bytes::new())?;
        self.beside_at = at;
        Ok(self.beside.slice(..len.min(self.beside.len())))
    }

    /// At most `len` bytes from `at` on; fewer only at the end of the file.
    ///
    /// # Errors
    /// Those of the disk.
    pub(crate) fn up_to(&mut self, at: LogPosition, len: usize) -> io::Result<Bytes> {
        self.up_to_with(at, len, usize::MAX)
    }

    /// As [`Self::up_to`], with at most so much read at a time because of what may be wanted next.
    ///
    /// # Errors
    /// Those of the disk.
    pub(crate) fn up_to_with(
        &mut self,
        at: LogPosition,
        len: usize,
        ahead: usize,
    ) -> io::Result<Bytes> {
        if at < self.header.base {
            return Ok(Bytes::new());
        }
        if let Some(held) = self.slice(at, len) {
            return Ok(held);
        }
        self.fill(at, len.max(self.ahead.min(ahead)))?;
        Ok(self.held.slice(..len.min(self.held.len())))
    }

    fn slice(&self, at: LogPosition, len: usize) -> Option<Bytes> {
        part(&self.held, self.held_at, at, len)
    }

    fn fill(&mut self, at: LogPosition, len: usize) -> io::Result<()> {
        let used = mem::take(&mut self.held);
        self.held = self.read(at, len, used)?;
        self.held_at = at;
        Ok(())
    }

    /// Where a read of so many bytes has to end at the latest.
    fn end(&mut self, offset: u64, len: usize) -> io::Result<u64> {
        if let Some(limit) = self.limit {
            return Ok(limit);
        }
        if offset.saturating_add(len as u64) > self.file_bytes {
            self.file_bytes = self.file.len()?;
        }
        Ok(self.file_bytes)
    }

    /// Reads into the memory of `used` when nobody shares it any more.
    fn read(&mut self, at: LogPosition, len: usize, used: Bytes) -> io::Result<Bytes> {
        let offset = self.header.offset_of(at);
        // Not more than there is: most segments of small stores are far shorter than what is read ahead.
        let rest = self.end(offset, len)?.saturating_sub(offset);
        let len = len.min(usize::try_from(rest).unwrap_or(usize::MAX));
        if let Some(blocks) = &self.blocks {
            // Back first: it may be the one that is taken.
            drop(used);
            return match blocks.take(len) {
                Some(mut block) => {
                    let read = self.read_file(offset, block.as_mut())?;
                    Ok(block.freeze(read))
                }
                None => self.read_anew(offset, len, BytesMut::new()),
            };
        }
        let buf = match used.try_into_mut() {
            Ok(buf) => buf,
            Err(_) => BytesMut::new(),
        };
        self.read_anew(offset, len, buf)
    }

    fn read_file(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        if buf.len() > AT_ONCE_BYTES {
            self.wait()?;
        }
        let done = self.file.read_cached_at(offset, buf)?;
        let Some(rest) = buf.get_mut(done..).filter(|rest| !rest.is_empty()) else {
            return Ok(done);
        };
        self.wait()?;
        self.waited = true;
        Ok(done
            + self
                .file
                .read_at(offset.saturating_add(done as u64), rest)?)
    }

    fn read_anew(&mut self, offset: u64, len: usize, mut buf: BytesMut) -> io::Result<Bytes> {
        buf.resize(len, 0);
        let read = self.read_file(offset, &mut buf)?;
        buf.truncate(read);
        Ok(buf.freeze())
    }
}

/// `len` bytes from `at` on of bytes that were read at `held_at`, when they are among them.
fn part(held: &Bytes, held_at: LogPosition, at: LogPosition, len: usize) -> Option<Bytes> {
    let start = usize::try_from(at.get().checked_sub(held_at.get())?).ok()?;
    let end = start.checked_add(len)?;
    (end <= held.len()).then(|| held.slice(start..end))
}
