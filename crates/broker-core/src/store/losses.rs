//! [`Loss`]: what a client knows to be stored, and the store does not have.
//!
//! A disk that lied about a sync, or a backup that was put back in place, takes acknowledged messages away without a trace in the
//! log. Only who saw them can tell, so clients state the newest places that they know when they connect again. Their word changes
//! nothing here: it is compared, and a difference is told.

use std::fmt;

use broker_proto::{KnownHead, KnownHeads, Position, RoomName, Seq, StoreId, Term};

use super::RoomTable;

/// What a peer knows to be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    /// The store that the peer knows; [`StoreId::NONE`] if it does not say.
    pub store: StoreId,
    /// The newest message that it knows of each room, and the last leader it heard of.
    pub known: KnownHeads,
}

/// A message that somebody has seen acknowledged or delivered, and the store does not have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loss {
    /// The room that it was in.
    pub room: RoomName,
    /// The message, as the peer knows it.
    pub expected: Position,
    /// The room's epoch here and the last seq up to which its history is the one that the peer knows; `None` when the room does
    /// not exist.
    pub have: Option<Position>,
    /// Whether the room has messages beyond that: others, in the place of those that the peer knows.
    pub goes_on: bool,
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { room, expected, .. } = self;
        write!(f, "room {room} had message {}", expected.seq)?;
        match self.have {
            None => f.write_str(" and does not exist"),
            Some(have) if have.seq.is_none() => {
                write!(f, ", its history is another, epoch {}", have.epoch)
            }
            Some(have) if self.goes_on => {
                write!(f, ", its history goes on after {} as another", have.seq)
            }
            Some(have) => write!(f, ", its history ends at {}", have.seq),
        }
    }
}

/// Compares what a peer knows with the rooms of the store `store`.
///
/// Epochs are drawn at random, so one that is known here proves that the peer means this history, also under another store's
/// identity (a copy draws a new one). Without that proof an unknown room is a loss only to a peer that knows this very store: any
/// other may just have come to the wrong door.
///
/// A leader knows the heads with which it began. What a peer has seen under an earlier term was stored by then, so messages that
/// were stored since cannot hide that it is gone.
pub(crate) fn losses(
    rooms: &RoomTable,
    (store, term): (StoreId, Term),
    claims: &Claims,
) -> Vec<Loss> {
    let judge = Judge {
        rooms,
        same_store: claims.store == store,
        from_before: claims.known.term < term,
    };
    let heads = claims.known.heads.iter();
    heads.filter_map(|known| judge.lost(known)).collect()
}

struct Judge<'a> {
    rooms: &'a RoomTable,
    same_store: bool,
    /// Whether all that the peer knows was stored before this leader began.
    from_before: bool,
}

impl Judge<'_> {
    fn lost(&self, known: &KnownHead) -> Option<Loss> {
        let loss = |have, goes_on| Loss {
            room: known.room.clone(),
            expected: known.at,
            have,
            goes_on,
        };
        let Some((id, slot)) = self.rooms.find(&known.room) else {
            return self.same_store.then(|| loss(None, false));
        };
        let parent = self.rooms.parent(id);
        let parent = parent.filter(|parent| parent.epoch == known.at.epoch);
        let upto = match parent {
            _ if slot.epoch == known.at.epoch && self.from_before => {
                self.rooms.head_at_begin(id)?
            }
            _ if slot.epoch == known.at.epoch => slot.head,
            Some(parent) => parent.fork,
            None if self.same_store => Seq::NONE,
            None => return None,
        };
        let goes_on = slot.head > upto || slot.epoch != known.at.epoch;
        let have = Position::new(slot.epoch, upto);
        (known.at.seq > upto).then(|| loss(Some(have), goes_on))
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use broker_proto::{Epoch, RoomId};

    use super::super::{Parent, RoomSlot};
    use super::*;

    const HERE: StoreId = StoreId::new([1; 16]);
    const ELSEWHERE: StoreId = StoreId::new([2; 16]);

    /// One room: epoch 20 up to seq 100, grown out of epoch 10 at seq 60.
    fn table() -> RoomTable {
        let mut rooms = RoomTable::default();
        let id = RoomId::new(1);
        assert!(rooms.insert(
            id,
            "ops",
            None,
            RoomSlot {
                head: Seq::new(100),
                ..RoomSlot::new(Epoch::new(20))
            }
        ));
        let (epoch, fork) = (Epoch::new(10), Seq::new(60));
        rooms.set_parent(id, Parent { epoch, fork });
        rooms
    }

    const NOW: Term = Term::new(5);

    /// What is said to a peer of this term that knows this.
    fn said_in(rooms: &RoomTable, term: Term, claim: (StoreId, &str, u64, u64)) -> Option<String> {
        let (store, room, epoch, seq) = claim;
        let heads = Box::new([KnownHead {
            room: RoomName::parse(room).unwrap(),
            at: Position::new(Epoch::new(epoch), Seq::new(seq)),
        }]);
        let known = KnownHeads { term, heads };
        let lost = losses(rooms, (HERE, NOW), &Claims { store, known });
        lost.first().map(ToString::to_string)
    }

    fn said(store: StoreId, room: &str, epoch: u64, seq: u64) -> Option<String> {
        said_in(&table(), NOW, (store, room, epoch, seq))
    }

    #[test]
    fn what_the_history_holds_is_not_lost() {
        for store in [HERE, ELSEWHERE, StoreId::NONE] {
            assert_eq!(said(store, "ops", 20, 100), None);
            assert_eq!(said(store, "ops", 20, 1), None);
            assert_eq!(said(store, "ops", 10, 60), None);
        }
    }

    #[test]
    fn a_message_beyond_the_head_or_the_fork_is_lost_whatever_the_store_is_called() {
        for store in [HERE, ELSEWHERE, StoreId::NONE] {
            assert_eq!(
                said(store, "ops", 20, 101).unwrap(),
                "room ops had message 101, its history ends at 100"
            );
            let text = said(store, "ops", 10, 61).unwrap();
            let start = "room ops had message 61, its history goes on after 60 as another";
            assert!(text.starts_with(start), "{text}");
        }
    }

    #[test]
    fn what_was_stored_since_does_not_stand_in_for_what_is_gone() {
        let mut rooms = table();
        rooms.begin_term();
        let id = RoomId::new(1);
        rooms.get_mut(id).unwrap().head = Seq::new(150);
        let (before, claim) = (Term::new(4), |seq| (HERE, "ops", 20, seq));
        assert_eq!(said_in(&rooms, before, claim(100)), None);
        assert_eq!(
            said_in(&rooms, before, claim(101)).unwrap(),
            "room ops had message 101, its history goes on after 100 as another"
        );
        // Under this leader it may have seen them itself.
        assert_eq!(said_in(&rooms, NOW, claim(150)), None);
        assert!(said_in(&rooms, NOW, claim(151)).is_some());
        // A room that this leader has made was there before to nobody.
        let mut fresh = RoomTable::default();
        fresh.begin_term();
        assert!(fresh.insert(id, "ops", None, table().get(id).unwrap().clone()));
        assert_eq!(said_in(&fresh, NOW, claim(100)), None);
        assert!(said_in(&fresh, before, claim(1)).is_some());
    }

    #[test]
    fn an_unknown_room_or_epoch_is_lost_only_to_a_peer_of_this_store() {
        assert_eq!(
            said(HERE, "tea", 20, 1).unwrap(),
            "room tea had message 1 and does not exist"
        );
        let text = said(HERE, "ops", 30, 1).unwrap();
        assert!(text.contains("its history is another"), "{text}");
        for store in [ELSEWHERE, StoreId::NONE] {
            assert_eq!(said(store, "tea", 20, 1), None);
            assert_eq!(said(store, "ops", 30, 1), None);
        }
    }
}
