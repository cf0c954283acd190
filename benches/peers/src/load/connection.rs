//! [`Connection`]: a bare socket with a codec: one read takes what has come, one write sends what was encoded.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::codec::{Decode, Event};

/// Bytes that one read takes, and where buffers begin.
const READ_BYTES: usize = 64 << 10;
/// How long the greeting may take.
const GREETING_MAX: Duration = Duration::from_secs(10);

/// A connection to a peer.
pub(crate) struct Connection {
    stream: TcpStream,
    decoder: Box<dyn Decode>,
    input: Input,
    /// What is to be written.
    pub(crate) out: Vec<u8>,
    written: usize,
}

/// Bytes that were read, and those of them that were not taken yet.
struct Input {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Input {
    fn unread(&self) -> &[u8] {
        self.bytes.get(self.start..self.end).unwrap_or_default()
    }

    fn take(&mut self, len: usize) {
        self.start += len;
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
    }

    /// Space for the next read: the rest of a message is moved to the front, a large message gets more.
    fn space(&mut self) -> &mut [u8] {
        if self.bytes.len() - self.end < READ_BYTES / 2 {
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        if self.bytes.len() - self.end < READ_BYTES / 2 {
            self.bytes.resize(2 * self.bytes.len(), 0);
        }
        self.bytes.get_mut(self.end..).unwrap_or_default()
    }
}

impl Connection {
    /// Connects, sends `greeting` and waits for `acks` answers to it.
    pub(crate) async fn open(
        address: SocketAddr,
        decoder: Box<dyn Decode>,
        greeting: &[u8],
        acks: usize,
    ) -> Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let mut connection = Self {
            stream,
            decoder,
            input: Input {
                bytes: vec![0; READ_BYTES],
                start: 0,
                end: 0,
            },
            out: greeting.to_vec(),
            written: 0,
        };
        let greeted = timeout(GREETING_MAX, connection.greet(acks)).await;
        greeted.context("the greeting is not answered")??;
        Ok(connection)
    }

    async fn greet(&mut self, acks: usize) -> Result<()> {
        self.send(|_| Ok(())).await?;
        let mut left = acks;
        while left > 0 {
            self.exchange().await?;
            self.events(|event| {
                if matches!(event, Event::Ack(_)) {
                    left = left.saturating_sub(1);
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Writes what is to be written as far as the socket takes it, and reads at least something.
    pub(crate) async fn exchange(&mut self) -> Result<()> {
        poll_fn(|cx| {
            // What cannot be written now wakes this task later; reading goes on meanwhile.
            if let Poll::Ready(Err(error)) = self.poll_write(cx) {
                return Poll::Ready(Err(error));
            }
            self.poll_read(cx)
        })
        .await
    }

    /// Writes everything that is to be written, and takes what comes meanwhile.
    pub(crate) async fn send(
        &mut self,
        mut take: impl FnMut(Event<'_>) -> Result<()>,
    ) -> Result<()> {
        poll_fn(|cx| {
            loop {
                if self.poll_write(cx)?.is_ready() {
                    return Poll::Ready(Ok(()));
                }
                ready!(self.poll_read(cx)?);
                self.events(&mut take)?;
            }
        })
        .await
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        while let Some(rest @ [_, ..]) = self.out.get(self.written..) {
            self.written += ready!(Pin::new(&mut self.stream).poll_write(cx, rest)?);
        }
        self.out.clear();
        self.written = 0;
        Poll::Ready(Ok(()))
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let mut space = ReadBuf::new(self.input.space());
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut space)?);
        let read = space.filled().len();
        if read == 0 {
            return Poll::Ready(Err(anyhow::anyhow!("the server closed a connection")));
        }
        self.input.end += read;
        Poll::Ready(Ok(()))
    }

    /// Takes all events that have come.
    pub(crate) fn events(&mut self, mut take: impl FnMut(Event<'_>) -> Result<()>) -> Result<()> {
        while let Some((event, len)) = self.decoder.decode(self.input.unread())? {
            match event {
                Event::Answer(bytes) => self.out.extend_from_slice(bytes),
                event => take(event)?,
            }
            self.input.take(len);
        }
        Ok(())
    }
}

/// For connections on which only greetings are answered.
pub(crate) fn no_events(event: &Event<'_>) -> Result<()> {
    match event {
        Event::Message(_) => bail!("a message came to a publisher"),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    #[test]
    fn input_moves_and_grows_without_losing_anything() {
        let mut input = Input {
            bytes: vec![0; READ_BYTES],
            start: 0,
            end: 0,
        };
        let mut next_in = 0_u8;
        let mut next_out = 0_u8;
        let mut put = |input: &mut Input, count: usize| {
            for byte in input.space().get_mut(..count).unwrap() {
                *byte = next_in;
                next_in = next_in.wrapping_add(1);
            }
            input.end += count;
        };
        let mut take = |input: &mut Input, count: usize| {
            for &byte in input.unread().get(..count).unwrap() {
                assert_eq!(byte, next_out);
                next_out = next_out.wrapping_add(1);
            }
            input.take(count);
        };
        put(&mut input, 30_000);
        take(&mut input, 10_000);
        put(&mut input, 30_000);
        assert_eq!(input.bytes.len(), READ_BYTES, "there was space");
        put(&mut input, 30_000);
        assert!(input.bytes.len() > READ_BYTES, "80,000 bytes wait");
        take(&mut input, 79_999);
        take(&mut input, 1);
        assert_eq!((input.start, input.end), (0, 0));
    }
}
