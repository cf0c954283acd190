//! What can be asked and changed of rooms, cursors and the store, beside messages.

use broker_proto::{
    Epoch, Micros, Position, RoomChange, RoomId, RoomName, RoomSettings, SenderName, Seq,
    StoreChange, StoreSettings,
};

use super::rooms::{RoomTable, after};
use super::{RoomInfo, StoreError};

/// What a store can be asked for.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Ask {
    /// All that is known of a room: [`Answer::Room`].
    Room(RoomName),
    /// Rooms: [`Answer::Found`].
    Find(FindRooms),
    /// The cursors of a room: [`Answer::Cursors`].
    Cursors(ListCursors),
    /// What is set of the store: [`Answer::Store`].
    Store,
    /// Another setting of a room: [`Answer::Room`]. What it does away with is gone soon after.
    ChangeRoom(ChangeRoom),
    /// That a room's oldest messages go: [`Answer::Room`]. True for every reader when the answer comes. It never brings
    /// messages back, and never lowers the next seq.
    Trim(TrimRoom),
    /// That a room goes: [`Answer::Room`], how it was.
    Remove(RemoveRoom),
    /// Another setting of the store: [`Answer::Store`].
    ChangeStore(ChangeStore),
}

/// What a store answers.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Answer {
    /// How a room is now; after its removal, how it was.
    Room(Box<RoomState>),
    /// Some rooms.
    Found(FoundRooms),
    /// Some cursors.
    Cursors(CursorsPage),
    /// What is set of the store now.
    Store(StoreState),
}

/// All that is known of a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomState {
    /// Where its history begins and ends.
    pub info: RoomInfo,
    /// Bytes of the records that are kept.
    pub bytes: u64,
    /// When it was made.
    pub created: Micros,
    /// By whom; nobody knows of rooms that are older than this knowledge.
    pub created_by: Option<SenderName>,
    /// How often its settings were changed.
    pub version: u64,
    /// What is set of it.
    pub settings: RoomSettings,
}

impl RoomState {
    /// How many messages are kept. Seqs have no holes.
    #[must_use]
    pub fn messages(&self) -> u64 {
        (self.info.head.get() + 1).saturating_sub(self.info.first.get())
    }
}

/// A change of a room's settings.
#[derive(Debug, Clone)]
pub struct ChangeRoom {
    /// Which room.
    pub room: RoomName,
    /// Only if its settings were changed so often.
    pub expected: Option<u64>,
    /// What changes.
    pub change: RoomChange,
}

/// Removal of a room's oldest messages.
#[derive(Debug, Clone)]
pub struct TrimRoom {
    /// Which room.
    pub room: RoomName,
    /// Only in this history; an epoch of 0 is any.
    pub epoch: Epoch,
    /// The oldest seq to keep; one past the head removes all there are.
    pub before: Seq,
}

impl TrimRoom {
    /// The room that is meant, if it can be trimmed so.
    pub(crate) fn check(&self, rooms: &RoomTable) -> Result<RoomId, StoreError> {
        let found = rooms.find(&self.room);
        let (id, slot) = found.ok_or_else(|| StoreError::NoSuchRoom {
            room: self.room.clone(),
        })?;
        if self.epoch.get() != 0 && self.epoch != slot.epoch {
            return Err(StoreError::WrongEpoch {
                room: self.room.clone(),
                expected: self.epoch,
                found: slot.epoch,
            });
        }
        if self.before > after(slot.head) {
            return Err(StoreError::BadPosition {
                room: self.room.clone(),
                asked: self.before,
                head: slot.head,
            });
        }
        Ok(id)
    }
}

/// Removal of a room with all that is known of it. Made again, it has another epoch.
#[derive(Debug, Clone)]
pub struct RemoveRoom {
    /// Which room.
    pub room: RoomName,
    /// Only this history; an epoch of 0 is any.
    pub epoch: Epoch,
}

/// Which rooms are wanted, in the order of their names.
#[derive(Debug, Clone, Default)]
pub struct FindRooms {
    /// Only rooms whose name sorts after this.
    pub after: String,
    /// Most rooms wanted.
    pub limit: u32,
    /// Only rooms whose name begins so.
    pub prefix: String,
    /// Only rooms with all of these labels; one without a value may have any.
    pub labels: Vec<(String, Option<String>)>,
}

/// Some of the rooms that were asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FoundRooms {
    /// They, in the order of their names.
    pub rooms: Vec<RoomState>,
    /// Ask again after this name; `None` at the end. There may be more although none was found: one answer looks at so many
    /// rooms only.
    pub next: Option<String>,
}

/// A change of the store's settings.
#[derive(Debug, Clone, Copy)]
pub struct ChangeStore {
    /// Only if they were changed so often.
    pub expected: Option<u64>,
    /// What changes.
    pub change: StoreChange,
}

/// What is set of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StoreState {
    /// How often that was changed.
    pub version: u64,
    /// What is set.
    pub settings: StoreSettings,
}

/// Which cursors are wanted, in the order of their names.
#[derive(Debug, Clone)]
pub struct ListCursors {
    /// Of which room.
    pub room: RoomName,
    /// Only cursors whose name sorts after this.
    pub after: String,
    /// Most cursors wanted.
    pub limit: u32,
}

/// Where a cursor stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CursorState {
    /// Its name.
    pub name: String,
    /// Where it stands.
    pub position: Position,
    /// When it was moved last.
    pub moved: Micros,
}

/// Some of the cursors of a room, in the order of their names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CursorsPage {
    /// They.
    pub cursors: Vec<CursorState>,
    /// Whether more follow; ask again after the last name.
    pub more: bool,
}

/// How near a store is to its limit of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
#[non_exhaustive]
pub enum Fullness {
    /// Below 80 %, or without a limit.
    #[default]
    Fine,
    /// From 80 % on: worth a warning.
    Warning,
    /// From 95 % on: the oldest messages go from rooms that allow it.
    Trimming,
    /// At the limit: publishes are refused.
    Full,
}

impl Fullness {
    /// Where a use of `bytes` stands, of at most `max`.
    #[must_use]
    pub fn of(bytes: u64, max: Option<u64>) -> Self {
        let Some(max) = max else { return Self::Fine };
        let (bytes, max) = (u128::from(bytes) * 100, u128::from(max));
        match bytes {
            _ if bytes >= max * 100 => Self::Full,
            _ if bytes >= max * 95 => Self::Trimming,
            _ if bytes >= max * 80 => Self::Warning,
            _ => Self::Fine,
        }
    }

    /// The word for people and scripts.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fine => "fine",
            Self::Warning => "warning",
            Self::Trimming => "trimming",
            Self::Full => "full",
        }
    }
}

/// What the disk is used for, and what retention has done since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct SpaceInfo {
    /// Bytes of log that lie on the disk.
    pub log_bytes: u64,
    /// How many there may be.
    pub bytes_max: Option<u64>,
    /// How near that is.
    pub fullness: Fullness,
    /// Rooms at 80 % of their limit or more.
    pub rooms_near_limit: u64,
    /// Messages that were removed.
    pub messages_trimmed: u64,
    /// Bytes of segments that were deleted, or made smaller.
    pub bytes_freed: u64,
    /// Bytes that were written anew for that.
    pub bytes_rewritten: u64,
    /// Segments that were deleted.
    pub segments_deleted: u64,
    /// Segments that were written anew.
    pub segments_packed: u64,
    /// Bytes of segments in which nothing is wanted any more, and that wait for a checkpoint.
    pub bytes_waiting: u64,
    /// Bytes of checkpoints written.
    pub checkpoint_bytes: u64,
}

/// Footers of sealed segments that were missing or damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct FootersInfo {
    /// How many were made again since the start.
    pub made_again: u64,
    /// How many are being made now.
    pub in_making: u64,
    /// Bytes of the log that are still to be read for these.
    pub bytes_left: u64,
}

/// How cursors do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct CursorsInfo {
    /// How many there are.
    pub count: u64,
    /// Moves that are not on stable storage yet; nobody waits for them.
    pub pending: u64,
    /// Records of moves that were written since the start.
    pub written: u64,
    /// In what time a move that nobody waits for is stored, in milliseconds; more than 1,000 when there are too many.
    pub interval_ms: u64,
}
