//! Named durable positions of readers.

use std::collections::HashMap;

use broker_proto::{Position, RoomId};

/// A store keeps no more cursors than this.
pub(crate) const CURSORS_MAX: usize = 1_000_000;

/// Which cursor.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct CursorKey {
    pub(crate) room: RoomId,
    pub(crate) name: String,
}

/// All cursors.
#[derive(Debug, Default)]
pub(crate) struct Cursors {
    map: HashMap<CursorKey, Position>,
}

impl Cursors {
    pub(crate) fn len(&self) -> usize {
        self.map.len()
    }

    pub(crate) fn get(&self, key: &CursorKey) -> Option<Position> {
        self.map.get(key).copied()
    }

    /// Moves or deletes a cursor; gives what stood there before.
    pub(crate) fn set(&mut self, key: CursorKey, to: Option<Position>) -> Option<Position> {
        match to {
            Some(position) => self.map.insert(key, position),
            None => self.map.remove(&key),
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&CursorKey, Position)> {
        self.map.iter().map(|(key, position)| (key, *position))
    }
}
