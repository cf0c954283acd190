//! Changes of rooms and of the store beside messages: settings, trims, removals.
//!
//! **Invariant:** a change and messages never share a batch, so a change always sees rooms as they are committed, and what comes
//! after it sees what it did.

use broker_proto::{RoomId, RoomName, RoomSettings, Seq, StoreSettings};

use super::super::rooms::{RoomTable, Versioned, after};
use super::super::{ChangeRoom, ChangeStore, RemoveRoom, RoomState, StoreError, StoreState};
use super::Sequencer;

/// What a batch changes.
#[derive(Debug, Clone)]
pub(crate) enum Change {
    Settings(RoomId, Versioned<RoomSettings>),
    Trim(RoomId, Trimmed),
    Remove(RoomId, RoomName),
    Store(Versioned<StoreSettings>),
}

/// How much of a room is kept from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Trimmed {
    pub(crate) first: Seq,
    /// Bytes of the records from there on.
    pub(crate) bytes: u64,
}

/// A trim that was worked out beforehand: it takes a look at the disk to know how many bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Trimming {
    pub(crate) room: RoomId,
    /// The oldest seq that was kept when this was worked out.
    pub(crate) from: Seq,
    /// The oldest one to keep.
    pub(crate) first: Seq,
    /// Bytes of the records between.
    pub(crate) removed: u64,
}

impl Sequencer {
    /// What the batch changes.
    pub(crate) fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// Stages other settings of a room; gives how it will be.
    pub(crate) fn change_room(
        &mut self,
        rooms: &RoomTable,
        change: &ChangeRoom,
    ) -> Result<Box<RoomState>, StoreError> {
        let id = known(rooms, &change.room)?;
        let mut state = rooms.state(id).ok_or_else(|| missing(&change.room))?;
        expect_version(change.expected, state.version)?;
        state
            .settings
            .apply(&change.change)
            .map_err(StoreError::BadSetting)?;
        state.version += 1;
        let set = Versioned {
            version: state.version,
            settings: state.settings.clone(),
        };
        self.changes.push(Change::Settings(id, set));
        Ok(Box::new(state))
    }

    /// Stages other settings of the store; gives how they will be.
    pub(crate) fn change_store(&mut self, change: &ChangeStore) -> Result<StoreState, StoreError> {
        let mut set = self.settings.clone();
        expect_version(change.expected, set.version)?;
        set.settings
            .apply(&change.change)
            .map_err(StoreError::BadSetting)?;
        set.version += 1;
        let state = StoreState {
            version: set.version,
            settings: set.settings,
        };
        self.changes.push(Change::Store(set));
        Ok(state)
    }

    /// Stages a trim; false when the room was trimmed or removed since this was worked out.
    pub(crate) fn trim(&mut self, rooms: &RoomTable, trim: &Trimming) -> bool {
        let Some(slot) = rooms.get(trim.room).filter(|slot| slot.first == trim.from) else {
            return false;
        };
        let trimmed = Trimmed {
            first: trim.first.min(after(slot.head)),
            bytes: slot.bytes.saturating_sub(trim.removed),
        };
        if trimmed.first > slot.first {
            self.changes.push(Change::Trim(trim.room, trimmed));
        }
        true
    }

    /// Stages the removal of a room; gives how it was.
    pub(crate) fn remove_room(
        &mut self,
        rooms: &RoomTable,
        remove: &RemoveRoom,
    ) -> Result<Box<RoomState>, StoreError> {
        let id = known(rooms, &remove.room)?;
        let state = rooms.state(id).ok_or_else(|| missing(&remove.room))?;
        if remove.epoch.get() != 0 && remove.epoch != state.info.epoch {
            return Err(StoreError::WrongEpoch {
                room: remove.room.clone(),
                expected: remove.epoch,
                found: state.info.epoch,
            });
        }
        self.changes.push(Change::Remove(id, remove.room.clone()));
        Ok(Box::new(state))
    }

    /// Shows readers what the batch has changed.
    pub(super) fn commit_changes(&mut self, rooms: &mut RoomTable) {
        for change in self.changes.drain(..) {
            match change {
                Change::Settings(id, set) => rooms.set_settings(id, set),
                Change::Trim(id, trimmed) => rooms.trim(id, trimmed.first, trimmed.bytes),
                Change::Remove(id, _) => {
                    rooms.remove(id);
                    self.cursors.forget_room(id);
                }
                Change::Store(set) => self.settings = set,
            }
        }
    }
}

fn missing(room: &RoomName) -> StoreError {
    StoreError::NoSuchRoom { room: room.clone() }
}

fn known(rooms: &RoomTable, room: &RoomName) -> Result<RoomId, StoreError> {
    rooms.id(room).ok_or_else(|| missing(room))
}

fn expect_version(expected: Option<u64>, found: u64) -> Result<(), StoreError> {
    match expected {
        Some(expected) if expected != found => Err(StoreError::WrongVersion { expected, found }),
        _ => Ok(()),
    }
}
