//! Reads a segment through a window, so that small reads beside each other cost one.

use std::io;

use bytes::{Bytes, BytesMut};

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
    held: Bytes,
    held_at: LogPosition,
}

impl<F: StorageFile> Window<F> {
    pub(crate) fn new(file: F, header: SegmentHeader, ahead: usize) -> Self {
        let held_at = header.base;
        Self {
            file: Arc::new(file),
            header,
            ahead,
            held: Bytes::new(),
            held_at,
        }
    }

    /// Another window on the same file.
    pub(crate) fn again(&self) -> Self {
        Self {
            file: Arc::clone(&self.file),
            header: self.header.clone(),
            ahead: self.ahead,
            held: Bytes::new(),
            held_at: self.header.base,
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
        let got = self.up_to(at, len)?;
        Ok((got.len() == len).then_some(got))
    }

    /// At most `len` bytes from `at` on; fewer only at the end of the file.
    ///
    /// # Errors
    /// Those of the disk.
    pub(crate) fn up_to(&mut self, at: LogPosition, len: usize) -> io::Result<Bytes> {
        if at < self.header.base {
            return Ok(Bytes::new());
        }
        if let Some(held) = self.slice(at, len) {
            return Ok(held);
        }
        self.fill(at, len.max(self.ahead))?;
        Ok(self.held.slice(..len.min(self.held.len())))
    }

    fn slice(&self, at: LogPosition, len: usize) -> Option<Bytes> {
        let start = usize::try_from(at.get().checked_sub(self.held_at.get())?).ok()?;
        let end = start.checked_add(len)?;
        (end <= self.held.len()).then(|| self.held.slice(start..end))
    }

    fn fill(&mut self, at: LogPosition, len: usize) -> io::Result<()> {
        // Not more than there is: most segments of small stores are far shorter than what is read ahead.
        let rest = self.file.len()?.saturating_sub(self.header.offset_of(at));
        let len = len.min(usize::try_from(rest).unwrap_or(usize::MAX));
        // The memory is used again when nobody shares it any more.
        let mut buf = match std::mem::take(&mut self.held).try_into_mut() {
            Ok(buf) => buf,
            Err(_) => BytesMut::new(),
        };
        buf.resize(len, 0);
        let read = self.file.read_at(self.header.offset_of(at), &mut buf)?;
        buf.truncate(read);
        self.held = buf.freeze();
        self.held_at = at;
        Ok(())
    }
}
