//! Who assigns seqs: the seam between everything that talks to peers and whatever keeps the rooms.
//!
//! A [`Store`] takes appends of whole room batches, gives every message its seq, recognises what it
//! has already stored, and serves ranges. It says everything through a [`Mailbox`]: no future is
//! boxed, no lock is taken per message, and no caller depends on how long a store takes, so a
//! store may as well live in another process or on other machines.
//!
//! Nothing above this seam computes a seq, assumes a local file, or reads synchronously.

mod cursors;
mod embedded;
mod in_doubt;
mod losses;
mod mailbox;
mod managing;
mod memory;
mod producers;
mod relay;
mod rooms;
mod sequencer;
mod watchers;

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use broker_proto::{
    Epoch, ErrorCode, Level, Micros, Position, ProducerId, RoomId, RoomName, SenderName, Seq,
    SkipRange, StartAt, StoreId, Term,
};
use bytes::Bytes;

pub use embedded::{Beat, EmbeddedConfig, EmbeddedStore, Engine, Pulse, SCRUB_EVERY_DEFAULT};
pub use losses::{Claims, Loss};
pub use mailbox::Mailbox;
pub use managing::{
    Answer, Ask, ChangeRoom, ChangeStore, CursorState, CursorsInfo, CursorsPage, FindRooms,
    FootersInfo, FoundRooms, Fullness, ListCursors, RemoveRoom, RoomState, SpaceInfo, StoreState,
    TrimRoom,
};
pub use memory::MemoryStore;

pub(crate) use cursors::{CursorKey, Cursors, Stand};
pub(crate) use in_doubt::{Doubtful, InDoubt};
pub(crate) use mailbox::wake_all;
pub(crate) use producers::{Producers, Run};
#[cfg(feature = "net")]
pub(crate) use relay::Relay;
pub(crate) use rooms::{Parent, RoomSlot, RoomTable, Versioned, is_nameless};

use crate::log::damage::Damage;
use crate::sync::Arc;

/// One connection's identity within the life of a leader; 0 is nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct SessionId(pub u64);

/// What makes a publish idempotent, together with its number.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ProducerKey {
    /// Whom the broker knows the peer as.
    pub sender: SenderName,
    /// What the peer calls this run of numbers.
    pub producer: ProducerId,
}

/// Consecutive numbers of one producer for one room, checked by the session: names, sizes and
/// checksums are right.
#[derive(Debug, Clone)]
pub struct Append {
    /// The connection it came over, for fencing; `SessionId(0)` is never fenced.
    pub session: SessionId,
    /// Who numbered it.
    pub key: ProducerKey,
    /// Whether the producer is the connection's own (claimed by its hello) rather than an explicit
    /// one given with the publish. Explicit ones are forgotten by age only.
    pub claimed: bool,
    /// Where it goes. The room is made by its first message.
    pub room: RoomName,
    /// The first number, from 1.
    pub first_number: u64,
    /// How many messages, at least 1.
    pub count: u32,
    /// The encoded message head for entries without extensions; its sender is stamped.
    pub head: Bytes,
    /// The entries of the publish frame, checked.
    pub entries: Bytes,
    /// Store only if the room's last seq is this one.
    pub expected_head: Option<Seq>,
    /// Whether the peer says that it sent these numbers before. What is sent under an explicit
    /// producer may always have been sent before.
    pub resend: bool,
}

impl Append {
    /// Whether some of it may have been handed to an earlier leader.
    pub(crate) fn may_be_resent(&self) -> bool {
        self.resend || !self.claimed
    }
}

/// Acknowledged messages: consecutive numbers with consecutive seqs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AckRun {
    /// The room they are in.
    pub room: RoomName,
    /// Its epoch.
    pub epoch: Epoch,
    /// The first number.
    pub first_number: u64,
    /// How many.
    pub count: u32,
    /// The seq of the first.
    pub first_seq: Seq,
    /// What "acknowledged" means here.
    pub level: Level,
}

/// What a store says to a session.
#[derive(Debug)]
pub enum Notice {
    /// Messages are on stable storage.
    Acked {
        /// Whose numbers.
        producer: ProducerId,
        /// Which.
        run: AckRun,
    },
    /// Messages were not stored.
    Refused {
        /// Whose numbers.
        producer: ProducerId,
        /// The first one.
        first_number: u64,
        /// How many.
        count: u32,
        /// Why, for programs.
        code: ErrorCode,
        /// Why, for people.
        detail: String,
        /// When to try again, in milliseconds; 0 says nothing about it.
        retry_after_ms: u32,
    },
    /// An append that was answered [`Busy`] can be tried again.
    Space,
    /// A watch fired; it has to be set anew.
    Grown {
        /// What the watcher called it.
        tag: u64,
    },
    /// The answer of a read.
    Read {
        /// What the reader called it.
        tag: u64,
        /// What was read.
        result: Result<ReadReply, StoreError>,
    },
    /// The answer of a cursor request.
    Cursor {
        /// What the caller called it.
        tag: u64,
        /// Where the cursor stands now.
        result: Result<Option<Position>, StoreError>,
    },
    /// The answer of a room listing.
    Rooms {
        /// What the caller called it.
        tag: u64,
        /// One page of it.
        result: Result<RoomsPage, StoreError>,
    },
    /// The answer of [`Store::ask`].
    Answer {
        /// What the caller called it.
        tag: u64,
        /// The answer.
        result: Result<Answer, StoreError>,
    },
    /// The answer of [`Store::verify`].
    Verified {
        /// What the store does not have; empty when it has everything.
        losses: Vec<Loss>,
    },
}

/// The queue into the store is full; the append comes back, and [`Notice::Space`] follows.
#[derive(Debug)]
pub struct Busy(pub Append);

/// Where a reader last was, for a store that can start faster from there. Opaque, never trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Hint(pub u64);

/// A wish to read part of a room.
#[derive(Debug, Clone)]
pub struct ReadRange {
    /// Which room.
    pub room: RoomName,
    /// Where to begin.
    pub from: StartAt,
    /// At most this many messages; 0 is taken for 1, so that every read gets further.
    pub count_max: u32,
    /// Stop before this many bytes of records, but never before one whole message.
    pub bytes_max: u32,
    /// From the reply before, if there was one.
    pub hint: Hint,
}

/// Part of a room. Empty records with `next` after `head` mean that the reader has caught up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadReply {
    /// Internal number of the room.
    pub room: RoomId,
    /// The room's epoch.
    pub epoch: Epoch,
    /// The oldest seq that is kept.
    pub first: Seq,
    /// The newest durable seq; `Seq::NONE` for an empty room.
    pub head: Seq,
    /// What to read next.
    pub next: Seq,
    /// Told before the records: a range that will never come.
    pub skip: Option<SkipRange>,
    /// How many records.
    pub count: u32,
    /// Records in order, as stored, in as many pieces as is cheapest.
    pub records: Vec<Bytes>,
    /// For the next read.
    pub hint: Hint,
}

/// Why a store did not do what it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Nobody has ever published there.
    #[error("room {room} does not exist; it is made by its first message")]
    NoSuchRoom {
        /// The name that was asked for.
        room: RoomName,
    },
    /// The position lies beyond what the room has ever held.
    #[error("room {room} has messages up to {head} and seq {asked} is beyond them")]
    BadPosition {
        /// Which room.
        room: RoomName,
        /// What was asked for.
        asked: Seq,
        /// What there is.
        head: Seq,
    },
    /// The reader has seen what this store never had, or has no more.
    #[error(
        "room {room} lost its suffix: the reader was at seq {expected} of epoch {expected_epoch}, the store has epoch {epoch} up to seq {head}"
    )]
    LostSuffix {
        /// Which room.
        room: RoomName,
        /// The epoch that the reader knows.
        expected_epoch: Epoch,
        /// The seq that the reader knows.
        expected: Seq,
        /// The epoch that the store has.
        epoch: Epoch,
        /// The last seq that the store has.
        head: Seq,
    },
    /// Compare-and-set found something else.
    #[error("the cursor stands at {}, not where the caller expected", Shown(.found))]
    Conflict {
        /// What it found.
        found: Option<Position>,
    },
    /// The settings were changed meanwhile.
    #[error(
        "the settings were changed {found} times, not {expected}: somebody else has changed them"
    )]
    WrongVersion {
        /// How often the caller believes that they were changed.
        expected: u64,
        /// How often they were.
        found: u64,
    },
    /// The room is not the one that the caller means.
    #[error("room {room} has epoch {found}, not {expected}: it was removed and made again")]
    WrongEpoch {
        /// Which room.
        room: RoomName,
        /// Which history the caller means.
        expected: Epoch,
        /// Which one it has.
        found: Epoch,
    },
    /// A setting has a value that it cannot have.
    #[error("{0}")]
    BadSetting(broker_proto::SettingsError),
    /// A limit of the store.
    #[error("{what}")]
    Limit {
        /// Which, and what to do.
        what: String,
    },
    /// No room for it on the disk.
    #[error("the disk has no space left for the store: {what}")]
    NoSpace {
        /// What was tried.
        what: String,
    },
    /// The store does not write any more.
    #[error("the store is read-only: {reason}")]
    ReadOnly {
        /// Why, and what to do.
        reason: String,
    },
    /// The disk did not answer as it should.
    #[error("cannot read the log: {what}")]
    Io {
        /// Which file, which place, which error.
        what: String,
    },
    /// The store has been closed.
    #[error("the store is closed")]
    Closed,
}

struct Shown<'a>(&'a Option<Position>);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(position) => write!(f, "seq {} of epoch {}", position.seq, position.epoch),
            None => f.write_str("no position"),
        }
    }
}

impl StoreError {
    /// The stable code that a peer is told.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::NoSuchRoom { .. } => ErrorCode::NO_SUCH_ROOM,
            Self::BadPosition { .. } => ErrorCode::BAD_POSITION,
            Self::LostSuffix { .. } => ErrorCode::LOST_SUFFIX,
            Self::Conflict { .. } | Self::WrongVersion { .. } | Self::WrongEpoch { .. } => {
                ErrorCode::CONFLICT
            }
            Self::BadSetting(error) => error.code(),
            Self::Limit { .. } => ErrorCode::LIMIT,
            Self::NoSpace { .. } => ErrorCode::NO_SPACE,
            Self::ReadOnly { .. } => ErrorCode::READ_ONLY,
            Self::Io { .. } => ErrorCode::INTERNAL,
            Self::Closed => ErrorCode::GOING_AWAY,
        }
    }
}

/// One page of the rooms, in the order of their names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomsPage {
    /// The rooms.
    pub rooms: Vec<RoomInfo>,
    /// Whether more follow; ask again after the last name.
    pub more: bool,
}

/// What is known of a room without reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomInfo {
    /// Its name.
    pub name: RoomName,
    /// The identity of its history.
    pub epoch: Epoch,
    /// The oldest seq that is kept.
    pub first: Seq,
    /// The newest durable seq.
    pub head: Seq,
    /// The latest time of any message in it.
    pub last_time: Micros,
}

/// A move of a named durable position.
#[derive(Debug, Clone)]
pub struct SetCursor {
    /// Which room.
    pub room: RoomName,
    /// Which cursor, 1 to 128 bytes.
    pub name: String,
    /// Where to; `None` deletes it.
    pub to: Option<Position>,
    /// Only if it stands here now; the outer `None` does not compare.
    pub expected: Option<Option<Position>>,
    /// Answer before it is durable: it is stored within about a second, together with others, and the last of several moves
    /// stands for all of them. Not with `expected`, and not for a deletion.
    pub relaxed: bool,
}

/// What a store knows of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreInfo {
    /// Which store.
    pub store: StoreId,
    /// Which leadership.
    pub term: Term,
    /// What the store's files need of a program.
    pub feature_level: u32,
    /// Largest payload, in bytes.
    pub payload_bytes_max: u32,
    /// How long an idle producer is remembered, in seconds.
    pub producer_window_secs: u32,
    /// How many rooms.
    pub rooms: u64,
    /// Bytes of log that are on stable storage.
    pub log_bytes: u64,
    /// Segments on disk.
    pub segments: u64,
    /// Whether the log bypasses the page cache.
    pub direct_io: bool,
    /// Places in the log that could not be read back.
    pub damaged: u64,
    /// Why nothing is written any more, if so.
    pub read_only: Option<String>,
    /// Batches written, each with one sync, since the start.
    pub batches: u64,
    /// Messages stored since the start.
    pub messages: u64,
    /// The newest of the places counted in `damaged`, the newest last.
    pub damage: Vec<Damage>,
    /// How the scrub does.
    pub scrub: ScrubInfo,
    /// What the disk is used for.
    pub space: SpaceInfo,
    /// Footers that had to be made again.
    pub footers: FootersInfo,
    /// How cursors do.
    pub cursors: CursorsInfo,
}

/// How the reading of everything in the background does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ScrubInfo {
    /// Within what time everything is read once, in seconds; none when nothing is.
    pub every_secs: Option<u64>,
    /// Bytes of the log read since the start.
    pub bytes: u64,
    /// How often everything was read since the start.
    pub passes: u64,
    /// When everything had been read last.
    pub pass_ended: Option<Micros>,
}

/// A task of a store; see [`Store::settle`].
pub type Settling = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The kept rooms. See the module's documentation for the manner of its answers.
pub trait Store: Send + Sync + 'static {
    /// What it knows of itself.
    fn info(&self) -> StoreInfo;

    /// Hands messages in. Their outcome is posted as runs of [`Notice::Acked`] and
    /// [`Notice::Refused`] that together name every number once.
    ///
    /// # Errors
    /// [`Busy`] when the queue is full: keep the append, stop reading from the peer, and try again
    /// at [`Notice::Space`].
    #[expect(
        clippy::result_large_err,
        reason = "the append comes back as it is, in the rare case that the queue is full"
    )]
    fn append(&self, append: Append, to: &Arc<Mailbox>) -> Result<(), Busy>;

    /// The task that stores lone messages on the thread that brings them, where the store has one: whoever runs the sessions
    /// may run it beside them, once. It ends with the store.
    fn settle(&self) -> Option<Settling> {
        None
    }

    /// Says that a session refused these numbers itself, so that the ones after them are known to
    /// follow.
    fn hole(&self, key: &ProducerKey, session: SessionId, first_number: u64, count: u32);

    /// Makes `session` the only one whose publishes of this producer count from now on.
    fn claim(&self, key: &ProducerKey, session: SessionId);

    /// Says that the session has ended; `forget` when the producer will never resend anything.
    fn release(&self, key: &ProducerKey, session: SessionId, forget: bool);

    /// Reads. `Some` is the answer from memory; after `None` a [`Notice::Read`] follows.
    fn read(
        &self,
        range: ReadRange,
        tag: u64,
        to: &Arc<Mailbox>,
    ) -> Option<Result<ReadReply, StoreError>>;

    /// Asks for one [`Notice::Grown`] when the room's durable head passes `after`; false when it
    /// already has. A room that does not exist has head 0.
    fn watch(&self, room: &RoomName, after: Seq, tag: u64, to: &Arc<Mailbox>) -> bool;

    /// Takes a watch back. One that has fired already is posted all the same.
    fn unwatch(&self, room: &RoomName, tag: u64, to: &Arc<Mailbox>);

    /// Asks which of the places that a peer knows are missing here. The outcome is posted as
    /// [`Notice::Verified`]; the store does not change.
    fn verify(&self, claims: &Claims, to: &Arc<Mailbox>);

    /// Lists the rooms whose names come after `after`, at most `limit` of them.
    fn rooms(&self, after: &str, limit: u32, tag: u64, to: &Arc<Mailbox>);

    /// Asks where a cursor stands.
    fn cursor(&self, room: &RoomName, name: &str, tag: u64, to: &Arc<Mailbox>);

    /// Moves a cursor; durable when the notice comes, unless it is relaxed.
    fn set_cursor(&self, set: SetCursor, tag: u64, to: &Arc<Mailbox>);

    /// Asks for something, or for a change, of a room, the cursors of a room, or the store itself. The outcome is posted as
    /// [`Notice::Answer`]; changes are durable then.
    fn ask(&self, ask: Ask, tag: u64, to: &Arc<Mailbox>);
}
