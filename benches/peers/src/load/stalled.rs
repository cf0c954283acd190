//! [`Stalled`]: a subscriber that has stopped: it greets, subscribes, and then reads nothing from its socket, answers no ping
//! and admits nothing more, as a process does that was stopped. The public client would go on reading its socket.
//!
//! **Invariant:** what comes is looked at in [`Stalled::read_on`] only.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use broker_proto::limits::FRAME_BYTES_MAX;
use broker_proto::{
    Credit, Decoder, Deliver, Frame, Hello, KnownHeads, Pong, ProducerId, RoomName, SenderName,
    StartAt, StoreId, Subscribe,
};
use bytes::BytesMut;
use rustix::net::sockopt::set_socket_recv_buffer_size;

use super::room_name;

/// The window that the public client admits by default.
const WINDOW_BYTES: u32 = 1 << 20;
/// Bytes that the socket of every other one takes.
const SMALL_BUFFER_BYTES: usize = 8 << 10;
/// Bytes of one read.
const READ_BYTES: usize = 256 << 10;
/// How long an answer may take.
const ANSWER_MAX: Duration = Duration::from_secs(20);
/// The number of the one subscription.
const SUB: u32 = 1;

/// A subscriber that does not read.
pub(crate) struct Stalled {
    stream: TcpStream,
    decoder: Decoder,
    input: BytesMut,
    space: Vec<u8>,
    /// The last message that was read, or was there before.
    read: u64,
    /// Bytes that were read and not admitted again.
    owed: u32,
}

impl Stalled {
    /// Greets and subscribes to a room of which `after` messages are stored, from its end on, and reads no more.
    pub(crate) fn connect(
        address: SocketAddr,
        number: usize,
        room: usize,
        after: u64,
    ) -> Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        if !number.is_multiple_of(2) {
            // The system's buffers may take a whole window. These let the socket fill up before.
            set_socket_recv_buffer_size(&stream, SMALL_BUFFER_BYTES)?;
        }
        stream.set_read_timeout(Some(ANSWER_MAX))?;
        stream.set_write_timeout(Some(ANSWER_MAX))?;
        let mut stalled = Self {
            stream,
            decoder: Decoder::new(),
            input: BytesMut::new(),
            space: Vec::new(),
            read: after,
            owed: 0,
        };
        let number = number as u128 + 1;
        stalled.send(Frame::from(Hello {
            build: "broker-peers".to_owned(),
            sender: SenderName::parse("stalled")?,
            producer: ProducerId::new(number.to_le_bytes()),
            feature_level: 1,
            known_store: StoreId::NONE,
            nonce: number.to_le_bytes(),
            known_heads: KnownHeads::default(),
        }))?;
        stalled.answer("welcome", |frame| matches!(frame, Frame::Welcome(_)))?;
        stalled.send(Frame::from(Subscribe {
            sub: SUB,
            room: RoomName::parse(&room_name(room))?,
            start: StartAt::END,
            window: WINDOW_BYTES,
            flags: Subscribe::WAIT,
        }))?;
        stalled.answer("subscribed", |frame| matches!(frame, Frame::Subscribed(_)))?;
        // A thousand of them need none before they read on.
        stalled.space = Vec::new();
        Ok(stalled)
    }

    /// Reads on after all, until it has everything up to `head`: every message once and in order.
    pub(crate) fn read_on(&mut self, head: u64) -> Result<()> {
        while self.read < head {
            match self.next()? {
                Frame::Deliver(deliver) => self.take(&deliver)?,
                Frame::Ping(ping) => self.send(Frame::from(Pong { nonce: ping.nonce }))?,
                // Sent again when a room that was waited for is there.
                Frame::Subscribed(_) => {}
                other => bail!("{:?} came instead of messages", other.kind()),
            }
        }
        Ok(())
    }

    fn take(&mut self, deliver: &Deliver) -> Result<()> {
        let count = u64::from(deliver.count);
        let first = deliver.next.get().saturating_sub(count);
        if first != self.read + 1 {
            bail!("message {first} came instead of {}", self.read + 1);
        }
        self.read += count;
        self.owed += u32::try_from(deliver.body.len())?;
        if self.owed >= WINDOW_BYTES / 2 {
            let bytes = std::mem::take(&mut self.owed);
            self.send(Frame::from(Credit { sub: SUB, bytes }))?;
        }
        Ok(())
    }

    fn send(&mut self, frame: Frame) -> Result<()> {
        let mut bytes = BytesMut::new();
        frame.encode(&mut bytes);
        Ok(self.stream.write_all(&bytes)?)
    }

    /// Reads until the frame that is waited for; one that ends the connection is an error.
    fn answer(&mut self, what: &str, is_it: impl Fn(&Frame) -> bool) -> Result<()> {
        loop {
            match self.next().with_context(|| format!("no {what} came"))? {
                frame if is_it(&frame) => return Ok(()),
                Frame::Starting(_) => {}
                other => bail!("{other:?} came instead of {what}"),
            }
        }
    }

    fn next(&mut self) -> Result<Frame> {
        loop {
            if let Some(frame) = self.decoder.take(&mut self.input, FRAME_BYTES_MAX)? {
                return Ok(frame);
            }
            self.space.resize(READ_BYTES, 0);
            let read = self.stream.read(&mut self.space)?;
            if read == 0 {
                bail!("the server closed the connection");
            }
            self.input
                .extend_from_slice(self.space.get(..read).unwrap_or_default());
        }
    }
}
