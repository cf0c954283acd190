//! [`Loss`]: what a client knows to be stored, and the store does not have.
//!
//! A disk that lied about a sync, or a backup that was put back in place, takes acknowledged messages away without a trace in the
//! log. Only who saw them can tell, so clients state the newest places that they know when they connect again. Their word changes
//! nothing here: it is compared, and a difference is told.

use std::fmt;

use broker_proto::{KnownHead, Position, RoomName, Seq, StoreId};

use super::RoomTable;

/// What a peer knows to be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    /// The store that the peer knows; [`StoreId::NONE`] if it does not say.
    pub store: StoreId,
    /// The newest message that it knows of each room.
    pub heads: Vec<KnownHead>,
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
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { room, expected, .. } = self;
        write!(f, "room {room} had message {}", expected.seq)?;
        match self.have {
            None => f.write_str(" and does not exist"),
            Some(have) if have.epoch == expected.epoch => {
                write!(f, ", its history ends at {}", have.seq)
            }
            Some(have) if !have.seq.is_none() => {
                write!(
                    f,
                    ", its history goes on after {} as another, epoch {}",
                    have.seq, have.epoch
                )
            }
            Some(have) => write!(
                f,
                " of epoch {}, its history is another, epoch {}",
                expected.epoch, have.epoch
            ),
        }
    }
}

/// Compares what a peer knows with the rooms of the store `store`.
///
/// Epochs are drawn at random, so one that is known here proves that the peer means this history, also under another store's
/// identity (a copy draws a new one). Without that proof an unknown room is a loss only to a peer that knows this very store: any
/// other may just have come to the wrong door.
pub(crate) fn losses(rooms: &RoomTable, store: StoreId, claims: &Claims) -> Vec<Loss> {
    let same_store = claims.store == store;
    let lost = |known: &KnownHead| lost(rooms, same_store, known);
    claims.heads.iter().filter_map(lost).collect()
}

fn lost(rooms: &RoomTable, same_store: bool, known: &KnownHead) -> Option<Loss> {
    let loss = |have| Loss {
        room: known.room.clone(),
        expected: known.at,
        have,
    };
    let Some((id, slot)) = rooms.find(&known.room) else {
        return same_store.then(|| loss(None));
    };
    let upto = if slot.epoch == known.at.epoch {
        slot.head
    } else {
        let parent = rooms.parent(id);
        match parent.filter(|parent| parent.epoch == known.at.epoch) {
            Some(parent) => parent.fork,
            None if same_store => Seq::NONE,
            None => return None,
        }
    };
    (known.at.seq > upto).then(|| loss(Some(Position::new(slot.epoch, upto))))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use broker_proto::{Epoch, Micros, RoomId};

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
            RoomSlot {
                name: RoomName::parse("ops").unwrap(),
                epoch: Epoch::new(20),
                first: Seq::FIRST,
                head: Seq::new(100),
                last_time: Micros::new(0),
                last_at: 0,
            }
        ));
        let (epoch, fork) = (Epoch::new(10), Seq::new(60));
        rooms.set_parent(id, Parent { epoch, fork });
        rooms
    }

    /// What is said to a peer that knows this.
    fn said(store: StoreId, room: &str, epoch: u64, seq: u64) -> Option<String> {
        let known = KnownHead {
            room: RoomName::parse(room).unwrap(),
            at: Position::new(Epoch::new(epoch), Seq::new(seq)),
        };
        let heads = vec![known];
        let lost = losses(&table(), HERE, &Claims { store, heads });
        lost.first().map(ToString::to_string)
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
