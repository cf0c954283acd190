//! [`Heads`]: the newest place of each room that the client knows to be stored, for its next hello.
//!
//! A broker that was put back to an earlier state cannot know it; a client that stays alive does. It tells what it has seen, also
//! when it only ever publishes, and the broker compares before it welcomes.
//!
//! **Invariants:** at most [`KNOWN_HEADS_MAX`] rooms, the last used; a place is remembered only when the broker has acknowledged
//! or delivered it.

use std::collections::{BTreeMap, HashMap};

use broker_proto::limits::KNOWN_HEADS_MAX;
use broker_proto::{KnownHead, Position, RoomName};

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Heads {
    rooms: HashMap<RoomName, Seen>,
    /// Counts the uses.
    uses: u64,
}

#[derive(Debug)]
struct Seen {
    at: Position,
    used: u64,
}

impl Seen {
    /// A later epoch is of a later history; within one, what is stored stays so.
    fn raise(&mut self, at: Position) {
        if self.at.epoch != at.epoch || self.at.seq < at.seq {
            self.at = at;
        }
    }
}

impl Heads {
    /// The broker has acknowledged or delivered this message.
    pub(super) fn saw(&mut self, room: &str, at: Position) {
        if at.epoch.is_none() || at.seq.is_none() {
            return;
        }
        self.uses += 1;
        if let Some(seen) = self.rooms.get_mut(room) {
            seen.raise(at);
            seen.used = self.uses;
            return;
        }
        let Ok(room) = RoomName::parse_reserved(room) else {
            return;
        };
        if self.rooms.len() >= KNOWN_HEADS_MAX {
            self.forget_oldest();
        }
        let used = self.uses;
        self.rooms.insert(room, Seen { at, used });
    }

    fn forget_oldest(&mut self) {
        let oldest = self.rooms.iter().min_by_key(|(_, seen)| seen.used);
        if let Some(room) = oldest.map(|(room, _)| room.clone()) {
            self.rooms.remove(&room);
        }
    }

    /// All of them, the last used first, and after them what open subscriptions have got, as far as there is room. A subscription
    /// that is left out is checked when it resumes.
    pub(super) fn list(
        &self,
        subscribed: impl Iterator<Item = (RoomName, Position)>,
    ) -> Vec<KnownHead> {
        let mut known: Vec<(RoomName, u64, Position)> = self
            .rooms
            .iter()
            .map(|(room, seen)| (room.clone(), seen.used, seen.at))
            .collect();
        known.sort_unstable_by_key(|(_, used, _)| std::cmp::Reverse(*used));
        let mut places: BTreeMap<RoomName, usize> = BTreeMap::new();
        let mut heads: Vec<KnownHead> = Vec::with_capacity(known.len());
        for (room, _, at) in known {
            places.insert(room.clone(), heads.len());
            heads.push(KnownHead { room, at });
        }
        for (room, at) in subscribed {
            if let Some(place) = places.get(&room) {
                if let Some(head) = heads
                    .get_mut(*place)
                    .filter(|head| head.at.epoch == at.epoch)
                {
                    head.at.seq = head.at.seq.max(at.seq);
                }
            } else if heads.len() < KNOWN_HEADS_MAX {
                places.insert(room.clone(), heads.len());
                heads.push(KnownHead { room, at });
            }
        }
        heads
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use broker_proto::{Epoch, Seq};

    use super::*;

    fn at(epoch: u64, seq: u64) -> Position {
        Position::new(Epoch::new(epoch), Seq::new(seq))
    }

    fn listed(heads: &Heads, subscribed: &[(&str, Position)]) -> Vec<(String, u64, u64)> {
        let subscribed = subscribed
            .iter()
            .map(|(room, at)| (RoomName::parse(room).unwrap(), *at));
        heads
            .list(subscribed)
            .into_iter()
            .map(|head| {
                let Position { epoch, seq } = head.at;
                (head.room.to_string(), epoch.get(), seq.get())
            })
            .collect()
    }

    #[test]
    fn the_newest_place_of_each_room_is_kept_and_the_last_used_stands_first() {
        let mut heads = Heads::default();
        heads.saw("a", at(1, 5));
        heads.saw("b", at(1, 9));
        heads.saw("a", at(1, 3));
        assert_eq!(
            listed(&heads, &[]),
            [("a".to_owned(), 1, 5), ("b".to_owned(), 1, 9)]
        );
        heads.saw("b", at(2, 1));
        assert_eq!(
            listed(&heads, &[]),
            [("b".to_owned(), 2, 1), ("a".to_owned(), 1, 5)]
        );
    }

    #[test]
    fn what_is_no_place_is_not_kept() {
        let mut heads = Heads::default();
        heads.saw("a", at(0, 5));
        heads.saw("a", at(5, 0));
        heads.saw("a/b", at(5, 5));
        assert_eq!(listed(&heads, &[]), []);
    }

    #[test]
    fn the_sixty_four_last_used_rooms_are_kept() {
        let mut heads = Heads::default();
        for n in 0..64 {
            heads.saw(&format!("r{n}"), at(1, 1));
        }
        heads.saw("r0", at(1, 2));
        heads.saw("new", at(1, 1));
        let names: Vec<String> = listed(&heads, &[]).into_iter().map(|head| head.0).collect();
        assert_eq!(names.len(), 64);
        assert!(names.starts_with(&["new".to_owned(), "r0".to_owned()]));
        assert!(!names.contains(&"r1".to_owned()));
    }

    #[test]
    fn subscriptions_raise_what_is_known_and_fill_what_is_free() {
        let mut heads = Heads::default();
        heads.saw("a", at(1, 5));
        let subscribed = [("a", at(1, 8)), ("b", at(2, 3)), ("a", at(1, 2))];
        assert_eq!(
            listed(&heads, &subscribed),
            [("a".to_owned(), 1, 8), ("b".to_owned(), 2, 3)]
        );
        for n in 0..64 {
            heads.saw(&format!("r{n}"), at(1, 1));
        }
        assert_eq!(listed(&heads, &subscribed).len(), 64);
    }
}
