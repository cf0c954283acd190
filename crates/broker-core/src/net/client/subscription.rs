//! [`Subscription`]: a room's messages as a stream, history first and then what comes.

use std::future::{Future, IntoFuture, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use broker_proto::block::IntoMessages;
use broker_proto::{
    Block, BlockError, Epoch, Position, RecordError, RoomName, Seq, SkipRange, StartAt,
};
use bytes::Bytes;
use futures_core::Stream;

use super::error::{Error, ErrorKind, Result};
use super::feed::{Entry, Feed};
use super::handle::Client;
use super::message::{BatchItem, Item, Message, MessageBatch};
use super::room::Room;
use crate::planted::{Bug, planted};

/// How often the same message may arrive damaged before the subscription gives up.
const DAMAGED_MAX: u8 = 3;

/// A subscription that is about to begin: await it.
#[derive(Debug, Clone)]
#[must_use = "nothing is subscribed before it is awaited"]
pub struct Subscribing {
    room: Room,
    start: StartAt,
    window: u32,
    waits: bool,
}

impl Subscribing {
    pub(super) fn new(room: Room, start: StartAt) -> Self {
        let window = room.client().shared().config.window_bytes;
        Self {
            room,
            start,
            window,
            waits: false,
        }
    }

    /// Bytes that may be under way or unread; default as the client's, 1 MiB.
    pub fn window_bytes(mut self, bytes: u32) -> Self {
        self.window = bytes.max(1);
        self
    }

    /// Whether to wait for a room that does not exist, instead of failing. Default: not.
    pub const fn wait(mut self, waits: bool) -> Self {
        self.waits = waits;
        self
    }

    async fn begin(self) -> Result<Subscription> {
        let client = self.room.client().clone();
        let shared = client.shared();
        let begun = shared.update(|core, _| match core.check_open(shared) {
            Some(error) => Err(error),
            None => core.subscribe(self.room.name(), self.start, self.waits, self.window),
        });
        // From here on dropping it unsubscribes, also while the broker has not answered.
        let mut subscription = Subscription {
            feed: begun?,
            client: client.clone(),
            current: None,
            epoch: Epoch::NONE,
            next: Seq::NONE,
            head: Seq::NONE,
            damaged: (Seq::NONE, 0),
            ended: false,
        };
        let opened = poll_fn(|cx| subscription.feed.poll_opened(cx)).await?;
        subscription.epoch = opened.epoch;
        subscription.next = opened.next;
        subscription.head = opened.head;
        Ok(subscription)
    }
}

impl IntoFuture for Subscribing {
    type Output = Result<Subscription>;
    type IntoFuture = Pin<Box<dyn Future<Output = Result<Subscription>> + Send>>;

    /// Begins the subscription; ready when the broker has begun it. Dropping the future ends it.
    ///
    /// # Errors
    /// `Absent` when the room does not exist and was not to be waited for, `Gap` for a position in lost history, `Timeout`.
    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.begin())
    }
}

/// The messages of a room, in order, without gaps or doubles, over lost connections.
///
/// A [`Stream`] with an inherent [`next`](Self::next). While it is not read the connection goes on: messages are queued up to
/// the window, then the broker waits. Dropping it unsubscribes. After its last item, and after an error that
/// [ends](Self::has_ended) it, it gives `None`.
///
/// Sending and asking over the same client while reading is fine: nothing of a connection waits for a reader.
///
/// # Examples
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # use broker_core::{Item, StartAt};
/// # let broker = broker_core::Broker::open(dir.path()).await?;
/// # let room = broker.client().room("lobby")?;
/// room.send_all(["one", "two"]).await?.await?;
/// let mut messages = room.subscribe(StartAt::last(1)).await?;
/// match messages.next().await.expect("the client is open")? {
///     Item::Message(message) => assert_eq!(message.payload, "two"),
///     other => println!("no message: {other:?}"),
/// }
/// // A reader that stores this goes on exactly here, after a restart too.
/// let seen = messages.position();
/// room.send("three").await?;
/// let mut later = room.subscribe(StartAt::position(seen)).await?;
/// let next = later.next_message().await.expect("the client is open")?;
/// assert_eq!(next.payload, "three");
/// # broker.shutdown().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Subscription {
    client: Client,
    feed: Arc<Feed>,
    /// The frame that is being taken apart.
    current: Option<Current>,
    epoch: Epoch,
    /// The next message that has to come.
    next: Seq,
    head: Seq,
    /// The message that arrived damaged last, and how often.
    damaged: (Seq, u8),
    ended: bool,
}

#[derive(Debug)]
struct Current {
    /// What was found right, and was not taken out yet.
    messages: IntoMessages,
    /// What is wrong with what follows that.
    wrong: Option<BlockError>,
    bytes: u64,
    /// The place after its last message.
    next: Seq,
}

/// What is told beside messages.
enum News {
    Skip(SkipRange),
    Reset {
        previous: Epoch,
        epoch: Epoch,
        next: Seq,
    },
}

impl From<News> for Item {
    fn from(news: News) -> Self {
        match news {
            News::Skip(range) => Self::Skip(range),
            News::Reset {
                previous,
                epoch,
                next,
            } => Self::Reset {
                previous,
                epoch,
                next,
            },
        }
    }
}

impl From<News> for BatchItem {
    fn from(news: News) -> Self {
        match news {
            News::Skip(range) => Self::Skip(range),
            News::Reset {
                previous,
                epoch,
                next,
            } => Self::Reset {
                previous,
                epoch,
                next,
            },
        }
    }
}

impl Subscription {
    /// The room.
    #[must_use]
    pub fn room(&self) -> &RoomName {
        &self.feed.room
    }

    /// The position to subscribe from to go on after the last item that was taken out. Its epoch is `NONE` while the room
    /// is waited for.
    #[must_use]
    pub const fn position(&self) -> Position {
        Position::new(self.epoch, self.next)
    }

    /// The newest message that was stored when the subscription began; what is later is live.
    #[must_use]
    pub const fn head_at_start(&self) -> Seq {
        self.head
    }

    /// Whether no more will come.
    #[must_use]
    pub const fn has_ended(&self) -> bool {
        self.ended
    }

    /// The next item; `None` at the end, which is when the client was shut down. Dropping the future loses nothing.
    ///
    /// # Errors
    /// `Damaged` when a message did not match its checksum on its way: it is fetched again and comes next. `Gap` when
    /// history was lost, `Absent` when the room is gone, and what else the broker refused: these end the subscription.
    pub async fn next(&mut self) -> Option<Result<Item>> {
        poll_fn(|cx| self.poll_item(cx)).await
    }

    /// The next message, passing over what is not one; otherwise as [`next`](Self::next).
    ///
    /// # Errors
    /// As [`next`](Self::next).
    pub async fn next_message(&mut self) -> Option<Result<Message>> {
        loop {
            match self.next().await? {
                Ok(Item::Message(message)) => return Some(Ok(message)),
                Ok(_) => {}
                Err(error) => return Some(Err(error)),
            }
        }
    }

    /// What came next, as many messages at once as came together: for readers of very many messages. The messages of a batch
    /// share one piece of memory and are looked at without an allocation or a reference count for each; [`next`](Self::next)
    /// has to make each a value of its own. Both ways can be mixed. Otherwise as [`next`](Self::next).
    ///
    /// # Errors
    /// As [`next`](Self::next).
    ///
    /// # Examples
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # use broker_core::{BatchItem, StartAt};
    /// # let broker = broker_core::Broker::open(dir.path()).await?;
    /// # let room = broker.client().room("lobby")?;
    /// room.send_all(["one", "two", "three"]).await?.await?;
    /// let mut messages = room.subscribe(StartAt::START).await?;
    /// let mut bytes = 0;
    /// while messages.position().seq.get() <= 3 {
    ///     match messages.next_batch().await.expect("the client is open")? {
    ///         BatchItem::Messages(batch) => {
    ///             bytes += batch.iter().map(|message| message.payload.len()).sum::<usize>();
    ///         }
    ///         other => println!("no messages: {other:?}"),
    ///     }
    /// }
    /// assert_eq!(bytes, "onetwothree".len());
    /// # broker.shutdown().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn next_batch(&mut self) -> Option<Result<BatchItem>> {
        poll_fn(|cx| self.poll_batch(cx)).await
    }

    fn poll_item(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Item>>> {
        loop {
            if let Some(current) = &mut self.current {
                if let Some(stored) = current.messages.next() {
                    self.next = after(stored.seq);
                    let room = self.feed.room.clone();
                    let message = Message::new(room, self.epoch, stored);
                    return Poll::Ready(Some(Ok(Item::Message(message))));
                }
                if let Some(error) = self.leave_current() {
                    return Poll::Ready(Some(Err(error)));
                }
            }
            if let Some(news) = ready!(self.poll_entry(cx)) {
                return Poll::Ready(news.map(|news| news.map(Item::from)));
            }
        }
    }

    fn poll_batch(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<BatchItem>>> {
        loop {
            if let Some(current) = &mut self.current {
                let block = std::mem::take(&mut current.messages).into_block();
                if !block.is_empty() {
                    let first = block.first().get();
                    self.next = Seq::new(first.saturating_add(block.len().into()));
                    if current.wrong.is_none() && current.next == self.next {
                        // Nothing to say when the batch has been looked at, so the broker may go on now.
                        self.leave_current();
                    }
                    let batch = MessageBatch::new(self.feed.room.clone(), self.epoch, block);
                    return Poll::Ready(Some(Ok(BatchItem::Messages(batch))));
                }
                if let Some(error) = self.leave_current() {
                    return Poll::Ready(Some(Err(error)));
                }
            }
            if let Some(news) = ready!(self.poll_entry(cx)) {
                return Poll::Ready(news.map(|news| news.map(BatchItem::from)));
            }
        }
    }

    /// Takes in what the connection has queued next: `None` when that are messages, else what to tell, which is `None` at the
    /// end.
    fn poll_entry(&mut self, cx: &Context<'_>) -> Poll<Option<Option<Result<News>>>> {
        loop {
            if self.ended {
                return Poll::Ready(Some(None));
            }
            let news = match ready!(self.feed.poll_entry(cx)) {
                None => {
                    self.ended = true;
                    None
                }
                Some(Entry::Records { body, count, next }) => {
                    self.take_records(body, count, next);
                    return Poll::Ready(None);
                }
                Some(Entry::Skip(range)) => Some(self.take_skip(range)),
                Some(Entry::Epoch { epoch, next }) => self.take_epoch(epoch, next).map(Ok),
                Some(Entry::Failed(error)) => Some(Err(self.end(error))),
            };
            if news.is_some() {
                return Poll::Ready(Some(news));
            }
        }
    }

    /// Checks the messages of a frame, all of them at once.
    fn take_records(&mut self, body: Bytes, count: u32, next: Seq) {
        let bytes = body.len() as u64;
        let first = (!planted(Bug::ResumeOneLate)).then_some(self.next);
        let (block, wrong) = Block::check(body, count, first);
        self.current = Some(Current {
            messages: block.into_iter(),
            wrong,
            bytes,
            next,
        });
    }

    /// Done with the messages of the current frame; an error when they were not all that had to come.
    fn leave_current(&mut self) -> Option<Error> {
        let current = self.current.take()?;
        match current.wrong {
            Some(BlockError::Record(error)) => Some(self.take_damage(error)),
            Some(wrong) => Some(self.break_off(&wrong.to_string())),
            None if current.next != self.next => {
                let text = format!("message {} is missing", self.next);
                Some(self.break_off(&text))
            }
            None => {
                self.consumed(current.bytes);
                None
            }
        }
    }

    fn consumed(&self, bytes: u64) {
        if self.feed.consumed(bytes) {
            self.client
                .shared()
                .update(|core, _| core.credit(&self.feed));
        }
    }

    fn take_skip(&mut self, range: SkipRange) -> Result<News> {
        if range.from != self.next {
            return Err(self.break_off(&format!(
                "messages {} to {} are skipped instead of {}",
                range.from, range.to, self.next
            )));
        }
        self.next = after(range.to);
        Ok(News::Skip(range))
    }

    fn take_epoch(&mut self, epoch: Epoch, next: Seq) -> Option<News> {
        let previous = self.epoch;
        self.epoch = epoch;
        if previous.is_none() {
            self.next = next;
        }
        if previous.is_none() || previous == epoch {
            return None;
        }
        Some(News::Reset {
            previous,
            epoch,
            next,
        })
    }

    /// Bytes do not match their checksum: the connection cannot be trusted, and its successor goes on with this message.
    fn take_damage(&mut self, error: RecordError) -> Error {
        let (seq, times) = self.damaged;
        self.damaged = (
            self.next,
            if seq == self.next {
                times.saturating_add(1)
            } else {
                1
            },
        );
        let text = format!(
            "message {} of room \"{}\" arrived damaged",
            self.next, self.feed.room
        );
        if self.damaged.1 >= DAMAGED_MAX {
            let text = format!("{text} {DAMAGED_MAX} times, so the subscription ends");
            return self.end(Error::new(ErrorKind::Damaged, text).with_source(error));
        }
        let error = Error::new(ErrorKind::Damaged, format!("{text}, it is fetched again"))
            .with_source(error)
            .retryable();
        self.current = None;
        self.client.shared().update(|core, _| {
            self.feed.rewind(Position::new(self.epoch, self.next));
            core.hang_up(error.clone());
        });
        error
    }

    /// The broker left something out, or sends it twice.
    fn break_off(&mut self, what: &str) -> Error {
        let text = format!(
            "the broker breaks the order of room \"{}\": {what}",
            self.feed.room
        );
        self.end(Error::protocol(text))
    }

    fn end(&mut self, error: Error) -> Error {
        self.ended = true;
        self.current = None;
        error
    }
}

/// The place after a message. Seqs end only with the u64; a broker that gets there has other troubles.
fn after(seq: Seq) -> Seq {
    seq.next().unwrap_or(seq)
}

impl Stream for Subscription {
    type Item = Result<Item>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Item>>> {
        self.get_mut().poll_item(cx)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.client
            .shared()
            .update(|core, _| core.unsubscribe(self.feed.id));
    }
}
