//! What a reader gets: [`Message`], [`Item`], [`Page`]; and what a sender gets: [`Ack`].

use broker_proto::block::{IntoMessages, Views};
use broker_proto::{
    Block, ByteStr, Epoch, Extensions, Level, Micros, Position, RoomName, Seq, SkipRange,
};
use bytes::Bytes;

/// A stored message. Its bytes are shared with the frame it came in, so cloning is cheap.
///
/// Sharing means that a small message kept for long keeps a read buffer of up to 128 KiB alive. Who collects few messages
/// out of many copies what is to stay: `Bytes::copy_from_slice(&message.payload)`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Message {
    /// The room that it is in.
    pub room: RoomName,
    /// The room's history that it is in.
    pub epoch: Epoch,
    /// Its place in the room.
    pub seq: Seq,
    /// The broker's wall clock when it was stored.
    pub time: Micros,
    /// Who sent it, as the broker stamped it.
    pub sender: ByteStr,
    /// Its payload, with the checksum of its publisher verified.
    pub payload: Bytes,
    /// What else it carries. A reader that acts on messages must leave alone what carries a critical extension it does
    /// not know, see [`Extensions::unknown_critical`].
    pub extensions: Extensions,
}

impl Message {
    /// Where the message is: its epoch and seq.
    #[must_use]
    pub const fn position(&self) -> Position {
        Position::new(self.epoch, self.seq)
    }

    pub(super) fn new(room: RoomName, epoch: Epoch, stored: broker_proto::Message) -> Self {
        Self {
            room,
            epoch,
            seq: stored.seq,
            time: stored.time,
            sender: stored.sender,
            payload: stored.payload,
            extensions: stored.extensions,
        }
    }
}

/// What comes out of a subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Item {
    /// The next message.
    Message(Message),
    /// Messages that will not come, and why. Nothing is ever left out without this.
    Skip(SkipRange),
    /// The room's history has a new identity. What was received before is still a part of it.
    ///
    /// Positions stored from now on have the new epoch.
    Reset {
        /// The identity until now.
        previous: Epoch,
        /// The identity from now on.
        epoch: Epoch,
        /// The next message.
        next: Seq,
    },
}

impl Item {
    /// The message, when it is one.
    #[must_use]
    pub fn into_message(self) -> Option<Message> {
        match self {
            Self::Message(message) => Some(message),
            _ => None,
        }
    }
}

/// Messages that came together: they follow each other in one room without gaps, and are shared as one piece.
///
/// Looking at them through [`iter`](Self::iter) costs no allocation and no reference count, and their checksums were
/// verified before. Taken apart with `into_iter` they become [`Message`]s.
#[derive(Debug, Clone)]
pub struct MessageBatch {
    room: RoomName,
    epoch: Epoch,
    block: Block,
}

impl MessageBatch {
    pub(super) const fn new(room: RoomName, epoch: Epoch, block: Block) -> Self {
        Self { room, epoch, block }
    }

    /// The room that they are in.
    #[must_use]
    pub const fn room(&self) -> &RoomName {
        &self.room
    }

    /// The room's history that they are in.
    #[must_use]
    pub const fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The place of the first of them.
    #[must_use]
    pub const fn first(&self) -> Seq {
        self.block.first()
    }

    /// How many there are, at least one.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.block.len() as usize
    }

    /// Never: a batch has at least one message.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.block.is_empty()
    }

    /// The messages, in order.
    #[must_use]
    pub fn iter(&self) -> Views<'_> {
        self.block.views()
    }
}

impl<'a> IntoIterator for &'a MessageBatch {
    type Item = broker_proto::MessageView<'a>;
    type IntoIter = Views<'a>;

    fn into_iter(self) -> Views<'a> {
        self.iter()
    }
}

impl IntoIterator for MessageBatch {
    type Item = Message;
    type IntoIter = BatchMessages;

    fn into_iter(self) -> BatchMessages {
        let Self { room, epoch, block } = self;
        BatchMessages {
            room,
            epoch,
            stored: block.into_iter(),
        }
    }
}

/// The messages of a [`MessageBatch`].
#[derive(Debug, Clone)]
pub struct BatchMessages {
    room: RoomName,
    epoch: Epoch,
    stored: IntoMessages,
}

impl Iterator for BatchMessages {
    type Item = Message;

    fn next(&mut self) -> Option<Message> {
        let stored = self.stored.next()?;
        Some(Message::new(self.room.clone(), self.epoch, stored))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.stored.size_hint()
    }
}

impl ExactSizeIterator for BatchMessages {}

impl std::iter::FusedIterator for BatchMessages {}

/// What comes out of a subscription that is read by the batch.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum BatchItem {
    /// The next messages.
    Messages(MessageBatch),
    /// As [`Item::Skip`].
    Skip(SkipRange),
    /// As [`Item::Reset`].
    Reset {
        /// The identity until now.
        previous: Epoch,
        /// The identity from now on.
        epoch: Epoch,
        /// The next message.
        next: Seq,
    },
}

impl BatchItem {
    /// The messages, when it is some.
    #[must_use]
    pub fn into_messages(self) -> Option<MessageBatch> {
        match self {
            Self::Messages(batch) => Some(batch),
            _ => None,
        }
    }
}

/// A part of a room, read at once.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Page {
    /// The room's history.
    pub epoch: Epoch,
    /// The oldest message kept; one after the head when there is none.
    pub first: Seq,
    /// The newest message that is stored.
    pub head: Seq,
    /// Where the next page begins.
    pub next: Seq,
    /// A range before the messages that cannot be read any more.
    pub skip: Option<SkipRange>,
    /// The messages, in order.
    pub messages: Vec<Message>,
}

impl Page {
    /// The position to go on reading from.
    #[must_use]
    pub const fn next_position(&self) -> Position {
        Position::new(self.epoch, self.next)
    }

    /// Whether the room had nothing more when it was read.
    #[must_use]
    pub fn is_last(&self) -> bool {
        self.next > self.head
    }
}

/// A message is stored as safely as `level` says.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Ack {
    /// The room.
    pub room: RoomName,
    /// The room's history.
    pub epoch: Epoch,
    /// The place that the message got in the room.
    pub seq: Seq,
    /// How safe it is; [`Level::SYNCED`] is on stable storage.
    pub level: Level,
    /// The number under which this client, or the id given, sent it.
    pub number: u64,
}

impl Ack {
    /// Where the message is: its epoch and seq.
    #[must_use]
    pub const fn position(&self) -> Position {
        Position::new(self.epoch, self.seq)
    }
}

/// Consecutive messages of one [`send_all`](super::room::Room::send_all) that got consecutive places.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct AckRun {
    /// The room.
    pub room: RoomName,
    /// The room's history.
    pub epoch: Epoch,
    /// Place of the first message.
    pub first_seq: Seq,
    /// Number under which the first message was sent.
    pub first_number: u64,
    /// How many messages there are.
    pub count: u32,
    /// How safe they are.
    pub level: Level,
}
