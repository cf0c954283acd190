//! [`Room`]: sending to one room and reading it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use broker_proto::limits::PAYLOAD_BYTES_MAX;
use broker_proto::{CursorName, Frame, ProducerId, Read, RoomName, StartAt};
use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::cursor::Cursor;
use super::error::{Error, ErrorKind, Result};
use super::frames::{Key, Outgoing};
use super::handle::{Client, unexpected};
use super::message::{Ack, Message, Page};
use super::shared::Shared;
use super::subscription::Subscribing;
use super::ticket::{BulkTicket, Ticket};

/// Messages that a bulk send takes from its iterator at a time.
const BULK_MESSAGES: usize = 256;
/// Payload bytes that a bulk send takes from its iterator at a time, beyond one message.
const BULK_BYTES: usize = 256 << 10;

/// A room of a client's store. Cloning is cheap; so is making one again with [`Client::room`].
#[derive(Debug, Clone)]
pub struct Room {
    client: Client,
    name: RoomName,
}

impl Room {
    pub(super) const fn new(client: Client, name: RoomName) -> Self {
        Self { client, name }
    }

    /// Its name.
    #[must_use]
    pub const fn name(&self) -> &RoomName {
        &self.name
    }

    /// Its client.
    #[must_use]
    pub const fn client(&self) -> &Client {
        &self.client
    }

    /// Sends a message and waits until it is on stable storage.
    ///
    /// Over lost connections it is sent again and stored once. Dropping the future before it was queued sends nothing;
    /// after that it does not take the message back.
    ///
    /// # Errors
    /// `TooLarge` before anything is sent; what the broker refused; `Timeout` when nothing moves for the timeout, which
    /// then says whether the message may have been stored.
    pub async fn send(&self, payload: impl Into<Bytes>) -> Result<Ack> {
        self.queue(payload).await?.await
    }

    /// Queues a message; the [`Ticket`] is a future of its answer. Messages of one client keep the order of their queueing.
    ///
    /// It waits only while 4,096 messages or 8 MiB are unanswered, first come, first served. Dropping the future while it
    /// waits sends nothing and costs nobody their turn.
    ///
    /// # Errors
    /// `TooLarge`, `Closed`, or `Timeout` when there was no space in the window and nothing moved for the timeout. The
    /// message was not sent then.
    ///
    /// # Examples
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # let broker = broker_core::Broker::open(dir.path()).await?;
    /// # let room = broker.client().room("lobby")?;
    /// let first = room.queue("one").await?; // on its way
    /// let second = room.queue("two").await?;
    /// assert!(first.await?.seq < second.await?.seq); // both stored
    /// # broker.shutdown().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn queue(&self, payload: impl Into<Bytes>) -> Result<Ticket> {
        self.queue_as(Key::Own, payload.into()).await
    }

    /// Sends a message under an id of your own, so that sending it again, from any process, stores it once.
    ///
    /// The id is `key` together with the sender, this room and `number`, which counts from 1: a single message has 1, the
    /// lines of a file have their line numbers, sent in rising order. The broker remembers an id for days (the welcome
    /// says how long). Dropping the future is as for [`send`](Self::send).
    ///
    /// # Errors
    /// As [`send`](Self::send), and `Usage` when `number` is zero.
    ///
    /// # Examples
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # let broker = broker_core::Broker::open(dir.path()).await?;
    /// # let room = broker.client().room("lobby")?;
    /// let once = room.send_with_id("build-71", 1, "done").await?;
    /// let again = room.send_with_id("build-71", 1, "done").await?;
    /// assert_eq!(once, again); // stored once
    /// # broker.shutdown().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn send_with_id(
        &self,
        key: &str,
        number: u64,
        payload: impl Into<Bytes>,
    ) -> Result<Ack> {
        self.queue_with_id(key, number, payload).await?.await
    }

    /// Queues a message under an id of your own; see [`send_with_id`](Self::send_with_id) and [`queue`](Self::queue).
    ///
    /// # Errors
    /// As [`queue`](Self::queue), and `Usage` when `number` is zero.
    pub async fn queue_with_id(
        &self,
        key: &str,
        number: u64,
        payload: impl Into<Bytes>,
    ) -> Result<Ticket> {
        if number == 0 {
            return Err(Error::new(
                ErrorKind::Usage,
                "numbers under an id count from 1",
            ));
        }
        let producer = producer_of(self.client.sender(), &self.name, key);
        self.queue_as(Key::Given { producer, number }, payload.into())
            .await
    }

    async fn queue_as(&self, key: Key, payload: Bytes) -> Result<Ticket> {
        check_payload(self.client.shared(), &self.name, &payload)?;
        let crc = crc32c::crc32c(&payload);
        let queueing = Queueing {
            shared: self.client.shared(),
            room: &self.name,
            key,
            payload,
            crc,
            place: None,
        };
        queueing.await
    }

    /// Queues many messages with one ticket for all: the fastest way to send, without a future for each message.
    ///
    /// The iterator is drawn from as space in the window allows. The returned ticket covers everything that was queued; if
    /// queueing stopped before the end (a payload over the limit, a closed client), it says so as its error, behind the
    /// outcomes of those that were queued. Dropping this future leaves what was queued so far on its way.
    ///
    /// # Errors
    /// As [`queue`](Self::queue), when not even the first message could be queued.
    ///
    /// # Examples
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # let broker = broker_core::Broker::open(dir.path()).await?;
    /// # let room = broker.client().room("lobby")?;
    /// let ticket = room.send_all((0..10_000).map(|number| format!("line {number}"))).await?;
    /// let stored = ticket.await?;
    /// assert_eq!(stored.count, 10_000);
    /// # broker.shutdown().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn send_all<I>(&self, payloads: I) -> Result<BulkTicket>
    where
        I: IntoIterator,
        I::Item: Into<Bytes>,
    {
        let mut payloads = payloads.into_iter();
        let mut ticket = BulkTicket::new();
        loop {
            let mut chunk = Chunk::draw(self.client.shared(), &self.name, &mut payloads);
            let queued = QueueingAll {
                shared: self.client.shared(),
                room: &self.name,
                chunk: &mut chunk,
                ticket: &mut ticket,
                place: None,
            };
            let stopped = queued.await.err().or(chunk.stopped.take());
            if let Some(error) = stopped {
                if ticket.is_empty() {
                    return Err(error);
                }
                ticket.stop(error);
                return Ok(ticket);
            }
            if chunk.is_last {
                return Ok(ticket);
            }
        }
    }

    /// One page of the room: at most `count_max` messages and about `bytes_max` bytes, at least one message if there is any.
    ///
    /// Go on with [`Page::next_position`] until [`Page::is_last`]. Dropping the future is safe.
    ///
    /// # Errors
    /// `Absent` for a room that does not exist, `Gap` for a position in lost history, `Damaged` when a message does not
    /// match its checksum, `Timeout` when nothing moves for the timeout.
    ///
    /// # Examples
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # use broker_core::StartAt;
    /// # let broker = broker_core::Broker::open(dir.path()).await?;
    /// # let room = broker.client().room("lobby")?;
    /// room.send_all(["one", "two", "three"]).await?.await?;
    /// let mut start = StartAt::START;
    /// let mut texts = Vec::new();
    /// loop {
    ///     let page = room.read(start, 2, 1 << 20).await?;
    ///     texts.extend(page.messages.iter().map(|message| message.payload.clone()));
    ///     if page.is_last() {
    ///         break;
    ///     }
    ///     start = StartAt::position(page.next_position());
    /// }
    /// assert_eq!(texts, ["one", "two", "three"]);
    /// # broker.shutdown().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn read(&self, start: StartAt, count_max: u32, bytes_max: u32) -> Result<Page> {
        let what = format!("reading room \"{}\"", self.name);
        let frame = |correlation| {
            Frame::Read(Read {
                correlation,
                room: self.name.clone(),
                start,
                count_max,
                bytes_max,
            })
        };
        match self.client.ask(what.clone(), true, &frame).await? {
            Frame::Page(page) => self.page(&page),
            other => Err(unexpected(&what, &other)),
        }
    }

    fn page(&self, page: &broker_proto::Page) -> Result<Page> {
        let mut messages = Vec::new();
        for stored in page.messages() {
            let stored = stored.map_err(|error| {
                let text = format!(
                    "a message of room \"{}\" is damaged on its way, read again",
                    self.name
                );
                Error::new(ErrorKind::Damaged, text)
                    .with_source(error)
                    .retryable()
            })?;
            messages.push(Message::new(self.name.clone(), page.head.epoch, stored));
        }
        Ok(Page {
            epoch: page.head.epoch,
            first: page.head.first,
            head: page.head.head,
            next: page.head.next,
            skip: page.head.skip,
            messages,
        })
    }

    /// Subscribes from a place on: history first, then what comes, without a seam. Await it to begin.
    pub fn subscribe(&self, start: StartAt) -> Subscribing {
        Subscribing::new(self.clone(), start)
    }

    /// A named position of a reader in this room.
    ///
    /// # Errors
    /// When the name breaks the rules of names.
    pub fn cursor(&self, name: &str) -> Result<Cursor> {
        Ok(Cursor::new(self.clone(), CursorName::parse(name)?))
    }
}

/// The producer of an id: the first 16 bytes of SHA-256 over sender, room and key, each after its length as a
/// little-endian u64, so that no two ids run into each other.
fn producer_of(sender: &str, room: &str, key: &str) -> ProducerId {
    let mut hash = Sha256::new();
    for text in [sender, room, key] {
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text.as_bytes());
    }
    let mut id = [0; 16];
    for (to, from) in id.iter_mut().zip(hash.finalize()) {
        *to = from;
    }
    ProducerId::new(id)
}

fn check_payload(shared: &Shared, room: &RoomName, payload: &Bytes) -> Result<()> {
    let max = shared.payload_bytes_max();
    if payload.len() <= max {
        return Ok(());
    }
    let whose = if max == PAYLOAD_BYTES_MAX {
        "of any broker"
    } else {
        "of this broker"
    };
    let text = format!(
        "a payload of {} bytes for room \"{room}\" is over the limit {whose}, {max} bytes",
        payload.len()
    );
    Err(Error::new(ErrorKind::TooLarge, text))
}

/// A message that is being queued.
struct Queueing<'a> {
    shared: &'a Shared,
    room: &'a RoomName,
    key: Key,
    payload: Bytes,
    crc: u32,
    /// The place in the queue for the window.
    place: Option<u64>,
}

impl Future for Queueing<'_> {
    type Output = Result<Ticket>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Ticket>> {
        let this = &mut *self;
        let message = Outgoing {
            room: this.room,
            key: this.key,
            payload: &this.payload,
            crc: this.crc,
        };
        let place = &mut this.place;
        this.shared.update(|core, wakes| {
            core.poll_push(this.shared, &message, place, cx, wakes)
                .map_ok(|(batch, index)| Ticket::new((Arc::clone(batch), index)))
        })
    }
}

impl Drop for Queueing<'_> {
    fn drop(&mut self) {
        leave(self.shared, self.place.take());
    }
}

/// Gives up a place in the queue for the window.
fn leave(shared: &Shared, place: Option<u64>) {
    if let Some(place) = place {
        shared.update(|core, wakes| {
            core.waiting.leave(place);
            core.hand_on(wakes);
        });
    }
}

/// Some messages of a bulk send, checked and with their checksums.
struct Chunk {
    messages: std::vec::IntoIter<(Bytes, u32)>,
    /// The message whose turn it is.
    next: Option<(Bytes, u32)>,
    is_last: bool,
    /// Why no further messages are drawn.
    stopped: Option<Error>,
}

impl Chunk {
    fn draw<P: Into<Bytes>>(
        shared: &Shared,
        room: &RoomName,
        payloads: &mut impl Iterator<Item = P>,
    ) -> Self {
        let mut messages = Vec::with_capacity(payloads.size_hint().0.min(BULK_MESSAGES));
        let (mut bytes, mut stopped, mut is_last) = (0, None, false);
        while messages.len() < BULK_MESSAGES && bytes < BULK_BYTES {
            let Some(payload) = payloads.next() else {
                is_last = true;
                break;
            };
            let payload = payload.into();
            if let Err(error) = check_payload(shared, room, &payload) {
                stopped = Some(error);
                break;
            }
            bytes += payload.len();
            let crc = crc32c::crc32c(&payload);
            messages.push((payload, crc));
        }
        let mut messages = messages.into_iter();
        Self {
            next: messages.next(),
            messages,
            is_last,
            stopped,
        }
    }
}

/// A chunk that is being queued.
struct QueueingAll<'a> {
    shared: &'a Shared,
    room: &'a RoomName,
    chunk: &'a mut Chunk,
    ticket: &'a mut BulkTicket,
    place: Option<u64>,
}

impl Future for QueueingAll<'_> {
    type Output = Result<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let this = &mut *self;
        let shared = this.shared;
        shared.update(|core, wakes| {
            while let Some((payload, crc)) = &this.chunk.next {
                let message = Outgoing {
                    room: this.room,
                    key: Key::Own,
                    payload,
                    crc: *crc,
                };
                match core.poll_push(shared, &message, &mut this.place, cx, wakes) {
                    Poll::Ready(Ok(pushed)) => this.ticket.add(pushed),
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending => return Poll::Pending,
                }
                this.chunk.next = this.chunk.messages.next();
            }
            Poll::Ready(Ok(()))
        })
    }
}

impl Drop for QueueingAll<'_> {
    fn drop(&mut self) {
        leave(self.shared, self.place.take());
    }
}

#[cfg(test)]
mod tests {
    use super::producer_of;

    #[test]
    fn an_id_is_what_it_is_documented_to_be() {
        // printf '\3\0\0\0\0\0\0\0ann\3\0\0\0\0\0\0\0ops\2\0\0\0\0\0\0\0k1' | sha256sum
        assert_eq!(
            format!("{:#}", producer_of("ann", "ops", "k1")),
            "1a8120036f65310d6e9267e09f62c66d"
        );
        assert_ne!(
            producer_of("ann", "ops", "k1"),
            producer_of("ann", "opsk", "1")
        );
    }
}
