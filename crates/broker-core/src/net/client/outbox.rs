//! [`Outbox`]: the bytes that are on their way into the stream.
//!
//! Small pieces are copied together, because a piece of a vectored write costs more than copying 4 KiB; large ones are
//! shared. One write takes as many pieces as the system allows at little cost.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::AsyncWrite;

/// Pieces of at least this many bytes are written from where they are.
const SHARE_BYTES_MIN: usize = 4096;
/// Pieces of one write.
const SLICES_MAX: usize = 64;
/// Bytes of copied pieces after which a new buffer is begun.
const FLAT_BYTES_MAX: usize = 64 << 10;

/// Bytes on their way into a stream.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    parts: VecDeque<Bytes>,
    /// Copied pieces, after all `parts`.
    flat: BytesMut,
    bytes: usize,
}

impl Outbox {
    pub(super) fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Bytes that are not written yet.
    pub(super) fn len(&self) -> usize {
        self.bytes
    }

    /// Appends bytes.
    pub(super) fn push(&mut self, part: &Bytes) {
        if part.len() < SHARE_BYTES_MIN {
            self.copy(part);
            return;
        }
        self.seal();
        self.bytes += part.len();
        self.parts.push_back(part.clone());
    }

    /// Appends bytes by copying.
    pub(super) fn copy(&mut self, part: &[u8]) {
        if self.flat.len() + part.len() > FLAT_BYTES_MAX {
            self.seal();
        }
        self.flat.extend_from_slice(part);
        self.bytes += part.len();
    }

    fn seal(&mut self) {
        if !self.flat.is_empty() {
            self.parts.push_back(self.flat.split().freeze());
        }
    }

    /// Writes what the stream takes; ready when all is written, with the number of bytes written now.
    pub(super) fn poll_write<S: AsyncWrite + Unpin>(
        &mut self,
        stream: &mut S,
        cx: &mut Context<'_>,
        written: &mut usize,
    ) -> Poll<io::Result<()>> {
        self.seal();
        while !self.parts.is_empty() {
            let taken = ready!(self.poll_write_once(stream, cx))?;
            if taken == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            *written += taken;
            self.advance(taken);
        }
        Pin::new(stream).poll_flush(cx)
    }

    fn poll_write_once<S: AsyncWrite + Unpin>(
        &self,
        stream: &mut S,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let stream = Pin::new(stream);
        match self.parts.front() {
            Some(front) if self.parts.len() == 1 || !stream.is_write_vectored() => {
                stream.poll_write(cx, front)
            }
            _ => {
                let mut slices = [IoSlice::new(&[]); SLICES_MAX];
                for (slice, part) in slices.iter_mut().zip(&self.parts) {
                    *slice = IoSlice::new(part);
                }
                let count = self.parts.len().min(SLICES_MAX);
                stream.poll_write_vectored(cx, slices.split_at(count).0)
            }
        }
    }

    fn advance(&mut self, mut taken: usize) {
        self.bytes = self.bytes.saturating_sub(taken);
        while let Some(front) = self.parts.front_mut() {
            if taken < front.len() {
                front.advance(taken);
                return;
            }
            taken -= front.len();
            self.parts.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use super::Outbox;
    use bytes::Bytes;
    use std::future::poll_fn;
    use tokio::io::AsyncReadExt;

    #[tokio::test]
    async fn all_pieces_arrive_in_order_through_a_narrow_stream() {
        let mut outbox = Outbox::default();
        let mut expected = Vec::new();
        for (round, size) in [0, 1, 100, 4095, 4096, 70_000, 3, 65_000, 65_536]
            .into_iter()
            .cycle()
            .take(90)
            .enumerate()
        {
            let part = Bytes::from(vec![u8::try_from(round).unwrap(); size]);
            expected.extend_from_slice(&part);
            outbox.push(&part);
        }
        assert_eq!(outbox.len(), expected.len());
        let (mut near, mut far) = tokio::io::duplex(1000);
        let reader = tokio::spawn(async move {
            let mut got = Vec::new();
            far.read_to_end(&mut got).await.unwrap();
            got
        });
        let mut written = 0;
        poll_fn(|cx| outbox.poll_write(&mut near, cx, &mut written))
            .await
            .unwrap();
        assert!(outbox.is_empty());
        assert_eq!(written, expected.len());
        drop(near);
        assert!(reader.await.unwrap() == expected);
    }
}
