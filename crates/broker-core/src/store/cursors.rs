//! Named durable positions of readers.
//!
//! A move that somebody waits for is written at once. A *relaxed* one is not: it waits in [`Relaxed`] for others, the last of
//! several moves of a cursor stands for all of them, and so many are written a second that readers who move all the time cost
//! the log next to nothing.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Bound;
use std::time::Duration;

use broker_proto::{Micros, Position, RoomId};

use super::{CursorState, CursorsPage};

/// A store keeps no more cursors than this.
pub(crate) const CURSORS_MAX: usize = 1_000_000;

/// Relaxed moves are written after about so long, if there are not too many.
pub(crate) const RELAXED_AFTER: Duration = Duration::from_secs(1);
/// So many of them a second, or ...
const RELAXED_PER_SEC: u64 = 1000;
/// ... as many as take this part of the log, if that is more.
const RELAXED_SHARE: u64 = 100;
/// What a move takes in the log, about: record, row and length, and its part of a batch.
const MOVE_BYTES: u64 = 128;

/// Which cursor.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct CursorKey {
    pub(crate) room: RoomId,
    pub(crate) name: String,
}

/// Where a cursor stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stand {
    pub(crate) at: Position,
    /// When it was moved; 0 when that is not known.
    pub(crate) moved: Micros,
}

/// All cursors.
#[derive(Debug, Default)]
pub(crate) struct Cursors {
    map: BTreeMap<CursorKey, Stand>,
}

impl Cursors {
    pub(crate) fn len(&self) -> usize {
        self.map.len()
    }

    pub(crate) fn get(&self, key: &CursorKey) -> Option<Position> {
        self.stand(key).map(|stand| stand.at)
    }

    pub(crate) fn stand(&self, key: &CursorKey) -> Option<Stand> {
        self.map.get(key).copied()
    }

    /// Moves or deletes a cursor; gives what stood there before.
    pub(crate) fn set(&mut self, key: CursorKey, to: Option<Stand>) -> Option<Stand> {
        match to {
            Some(stand) => self.map.insert(key, stand),
            None => self.map.remove(&key),
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&CursorKey, Stand)> {
        self.map.iter().map(|(key, stand)| (key, *stand))
    }

    /// Those of a room, in the order of their names.
    fn of(&self, room: RoomId, after: &str) -> impl Iterator<Item = (&CursorKey, &Stand)> {
        let from = CursorKey {
            room,
            name: after.to_owned(),
        };
        let from = match after {
            "" => Bound::Included(from),
            _ => Bound::Excluded(from),
        };
        self.map
            .range((from, Bound::Unbounded))
            .take_while(move |(key, _)| key.room == room)
    }

    /// One page of the cursors of a room; `now` may know newer places.
    pub(crate) fn page(
        &self,
        room: RoomId,
        after: &str,
        limit: usize,
        now: impl Fn(&CursorKey) -> Option<Stand>,
    ) -> CursorsPage {
        let mut of_room = self.of(room, after);
        let shown = of_room.by_ref().take(limit.max(1)).map(|(key, stand)| {
            let stand = now(key).unwrap_or(*stand);
            CursorState {
                name: key.name.clone(),
                position: stand.at,
                moved: stand.moved,
            }
        });
        let cursors = shown.collect();
        CursorsPage {
            cursors,
            more: of_room.next().is_some(),
        }
    }

    /// Forgets those of a room that is no more.
    pub(crate) fn forget_room(&mut self, room: RoomId) {
        let gone: Vec<CursorKey> = self.of(room, "").map(|(key, _)| key.clone()).collect();
        for key in gone {
            self.map.remove(&key);
        }
    }

    /// Forgets those that have not moved for `idle`, but for what `moves` says.
    pub(crate) fn expire(&mut self, now: Micros, idle: Duration, moves: &Relaxed) {
        let idle = i64::try_from(idle.as_micros()).unwrap_or(i64::MAX);
        let limit = now.get().saturating_sub(idle);
        let is_alive = |stand: &Stand| stand.moved.get() == 0 || stand.moved.get() >= limit;
        self.map
            .retain(|key, stand| is_alive(stand) || moves.get(key).is_some());
    }
}

/// Moves that nobody waits for and that are not written yet.
#[derive(Debug, Default)]
pub(crate) struct Relaxed {
    moves: HashMap<CursorKey, (Stand, Is)>,
    /// How many of them are of cursors that are not stored yet.
    new: usize,
    /// In the order in which they came.
    order: VecDeque<CursorKey>,
}

/// Whether a cursor is stored already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Is {
    New,
    Stored,
}

impl Relaxed {
    /// How many cursors there are that are not stored yet.
    pub(crate) fn new_cursors(&self) -> usize {
        self.new
    }

    pub(crate) fn len(&self) -> usize {
        self.moves.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.moves.is_empty()
    }

    pub(crate) fn get(&self, key: &CursorKey) -> Option<Stand> {
        self.moves.get(key).map(|(stand, _)| *stand)
    }

    fn insert(&mut self, key: CursorKey, to: Stand, is: Is) -> bool {
        self.new += usize::from(is == Is::New);
        let before = self.moves.insert(key, (to, is));
        self.new -= usize::from(before.is_some_and(|(_, is)| is == Is::New));
        before.is_none()
    }

    fn remove(&mut self, key: &CursorKey) -> Option<(Stand, Is)> {
        let removed = self.moves.remove(key);
        self.new -= usize::from(removed.is_some_and(|(_, is)| is == Is::New));
        removed
    }

    /// Notes a move. It stands for an earlier one of the same cursor, in whose turn it is written.
    pub(crate) fn note(&mut self, key: CursorKey, to: Stand, is: Is) {
        if self.insert(key.clone(), to, is) {
            self.order.push_back(key);
        }
    }

    /// Takes the oldest moves, at most so many.
    pub(crate) fn take(&mut self, most: usize) -> Vec<(CursorKey, Stand)> {
        let mut taken = Vec::new();
        while taken.len() < most {
            let Some(key) = self.order.pop_front() else {
                break;
            };
            // One that was passed over by an awaited move is not there any more.
            if let Some((stand, _)) = self.remove(&key) {
                taken.push((key, stand));
            }
        }
        taken
    }

    /// Puts back what could not be written, unless the cursor has moved since.
    pub(crate) fn put_back(
        &mut self,
        moves: Vec<(CursorKey, Stand)>,
        is: impl Fn(&CursorKey) -> Is,
    ) {
        for (key, stand) in moves.into_iter().rev() {
            if !self.moves.contains_key(&key) {
                let is = is(&key);
                self.insert(key.clone(), stand, is);
                self.order.push_front(key);
            }
        }
    }

    /// An awaited move has passed it over.
    pub(crate) fn forget(&mut self, key: &CursorKey) {
        self.remove(key);
        if self.moves.is_empty() {
            self.order.clear();
        }
    }
}

/// How many relaxed moves may be written.
#[derive(Debug, Default)]
pub(crate) struct Allowance {
    since: Duration,
    log_bytes: u64,
}

impl Allowance {
    /// How many may be written now, given the clock and the bytes of log written in all; 0 before a second has passed since
    /// the last time.
    pub(crate) fn take(&mut self, now: Duration, log_bytes: u64) -> usize {
        let passed = now.saturating_sub(self.since);
        if passed < RELAXED_AFTER {
            return 0;
        }
        let by_time = u128::from(RELAXED_PER_SEC) * passed.as_millis().min(60_000) / 1000;
        let by_bytes = log_bytes.saturating_sub(self.log_bytes) / RELAXED_SHARE / MOVE_BYTES;
        self.since = now;
        self.log_bytes = log_bytes;
        usize::try_from(by_time.max(u128::from(by_bytes))).unwrap_or(usize::MAX)
    }
}

/// In what time so many relaxed moves are written, at the pace that time alone allows.
pub(crate) fn interval(pending: usize) -> Duration {
    let secs = pending as u64 / RELAXED_PER_SEC;
    RELAXED_AFTER.max(Duration::from_secs(secs))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]
    use broker_proto::{Epoch, Seq};

    use super::*;

    fn key(room: u32, name: &str) -> CursorKey {
        CursorKey {
            room: RoomId::new(room),
            name: name.to_owned(),
        }
    }

    fn stand(seq: u64, moved: i64) -> Stand {
        Stand {
            at: Position::new(Epoch::new(1), Seq::new(seq)),
            moved: Micros::new(moved),
        }
    }

    #[test]
    fn the_last_of_several_moves_stands_for_all_of_them() {
        let mut relaxed = Relaxed::default();
        for seq in 1..=100 {
            relaxed.note(key(1, "a"), stand(seq, 0), Is::New);
            relaxed.note(key(1, "b"), stand(seq + 1000, 0), Is::New);
        }
        assert_eq!(relaxed.len(), 2);
        let taken = relaxed.take(1);
        assert_eq!(taken, vec![(key(1, "a"), stand(100, 0))]);
        relaxed.note(key(1, "a"), stand(7, 0), Is::New);
        relaxed.put_back(taken, |_| Is::New);
        assert_eq!(relaxed.new_cursors(), 2);
        assert_eq!(relaxed.get(&key(1, "a")).unwrap(), stand(7, 0));
        relaxed.forget(&key(1, "b"));
        assert_eq!(relaxed.take(9), vec![(key(1, "a"), stand(7, 0))]);
        assert!(relaxed.is_empty() && relaxed.new_cursors() == 0);
    }

    #[test]
    fn moves_are_bounded_by_time_or_by_the_log() {
        let mut allowance = Allowance::default();
        let at = Duration::from_secs;
        assert_eq!(allowance.take(Duration::from_millis(999), 0), 0);
        assert_eq!(allowance.take(at(2), 0), 2000);
        assert_eq!(allowance.take(at(3), 100 * MOVE_BYTES * 5000), 5000);
        assert_eq!(allowance.take(at(3), 1 << 40), 0);
        assert_eq!(interval(100_000), at(100));
    }

    #[test]
    fn a_room_takes_its_cursors_along_and_idle_ones_expire() {
        let mut cursors = Cursors::default();
        for (room, name, moved) in [(1, "a", 1), (2, "a", 100), (2, "b", 1), (2, "c", 0)] {
            cursors.set(key(room, name), Some(stand(1, moved)));
        }
        let mut relaxed = Relaxed::default();
        cursors.expire(Micros::new(101), Duration::from_micros(50), &relaxed);
        let left = |cursors: &Cursors| {
            let names = cursors.iter().map(|(key, _)| key.name.clone());
            names.collect::<Vec<_>>()
        };
        assert_eq!(left(&cursors), ["a", "c"]);
        relaxed.note(key(2, "a"), stand(9, 101), Is::New);
        let page = cursors.page(RoomId::new(2), "", 1, |key| relaxed.get(key));
        assert!(page.more);
        assert_eq!(page.cursors.first().unwrap().position.seq, Seq::new(9));
        let page = cursors.page(RoomId::new(2), "a", 1, |_| None);
        assert_eq!((page.cursors.len(), page.more), (1, false));
        cursors.forget_room(RoomId::new(2));
        assert_eq!(cursors.len(), 0);
    }
}
