//! What may be stored already although nobody knows its number: see [`in_doubt`](super::super::in_doubt).
//!
//! Only what may be sent again is compared with the messages in doubt. A match may be a coincidence,
//! so the answer is that nobody knows, and nothing is stored.

use broker_proto::{ErrorCode, Seq, publish};

use crate::planted::{Bug, planted};

use super::{Append, Decision, PASSED_OVER, Refusal, RoomTable, Sequencer, is_nameless};

/// What is said of a message that was not found among too many.
const ONE_OF_MANY: &str = "damage took the records that told whose numbers many messages are, and this may be one of them; it was not stored now, read the room to see whether it is there";
/// What is said of a message that comes before one that may be stored.
const BEFORE_ONE: &str = "a later message of this publish may be stored already, so this one may have been stored before it and lost; it was not stored now";

/// What is suspected of one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Suspicion {
    /// Nothing.
    None,
    /// It may be the one with this seq.
    At(Seq),
    /// It may be one of many.
    OneOfMany,
}

impl Suspicion {
    /// Whether the message after one with this suspicion is told of in the same words.
    fn goes_on(self, count: u32, next: Self) -> bool {
        match (self, next) {
            (Self::At(first), Self::At(next)) => {
                first.get().checked_add(u64::from(count)) == Some(next.get())
            }
            _ => self == next,
        }
    }

    fn refusal(self, first_number: u64, count: u32, otherwise: (ErrorCode, &str)) -> Refusal {
        let (code, detail) = match self {
            Self::None => (otherwise.0, otherwise.1.to_owned()),
            Self::OneOfMany => (ErrorCode::OUTCOME_UNKNOWN, ONE_OF_MANY.to_owned()),
            Self::At(seq) => {
                let seqs = match count {
                    1 => format!("seq {seq}"),
                    _ => format!("seqs {seq} to {}", seq.get() + u64::from(count) - 1),
                };
                let detail = format!(
                    "it may be stored already, with {seqs}: damage took the record that told whose numbers those are; it was not stored now, read the room to see"
                );
                (ErrorCode::OUTCOME_UNKNOWN, detail)
            }
        };
        Refusal {
            first_number,
            count,
            code,
            detail,
            retry_after_ms: 0,
        }
    }
}

impl Sequencer {
    /// Refuses those of the new numbers that may be stored already, and what comes before them in the
    /// same append; gives the first number after them.
    pub(super) fn refuse_doubtful(
        &mut self,
        rooms: &RoomTable,
        append: &Append,
        number: u64,
        decision: &mut Decision,
    ) -> u64 {
        if self.in_doubt.is_empty() || !append.may_be_resent() || planted(Bug::ResendRuleOff) {
            return number;
        }
        let end = append.first_number + u64::from(append.count);
        let mut suspicions = self.suspicions(rooms, append, number, end);
        let last = suspicions
            .iter()
            .rposition(|suspicion| *suspicion != Suspicion::None);
        suspicions.truncate(last.map_or(0, |last| last + 1));
        if suspicions.is_empty() {
            return number;
        }
        let otherwise = (ErrorCode::OUTCOME_UNKNOWN, BEFORE_ONE);
        let upto = refuse(number, &suspicions, otherwise, decision);
        self.note_hole(&append.key, number, upto - 1);
        upto
    }

    /// Refuses numbers that were passed over, or of which that only seems so.
    pub(super) fn refuse_passed_over(
        &self,
        rooms: &RoomTable,
        append: &Append,
        (number, count): (u64, u32),
        decision: &mut Decision,
    ) {
        let suspicions = self.suspicions(rooms, append, number, number + u64::from(count));
        let otherwise = (ErrorCode::NOT_STORED, PASSED_OVER);
        refuse(number, &suspicions, otherwise, decision);
    }

    /// What is suspected of each of these numbers.
    fn suspicions(
        &self,
        rooms: &RoomTable,
        append: &Append,
        from: u64,
        end: u64,
    ) -> Vec<Suspicion> {
        let room = rooms.id(&append.room);
        let is_lost = |id| rooms.get(id).is_none() || is_nameless(rooms.name(id));
        let otherwise = match self.in_doubt.is_any() {
            true => Suspicion::OneOfMany,
            false => Suspicion::None,
        };
        (append.first_number..end)
            .zip(publish::entries(&append.entries))
            .skip_while(|(number, _)| *number < from)
            .map(|(_, entry)| {
                let Ok(length) = u32::try_from(entry.payload.len()) else {
                    return otherwise;
                };
                let message = (&append.key.sender, length, entry.crc);
                let found = self.in_doubt.find(message, room, is_lost);
                found.map_or(otherwise, Suspicion::At)
            })
            .collect()
    }
}

/// Refuses consecutive numbers in as few words as possible; gives the number after them.
fn refuse(
    first: u64,
    suspicions: &[Suspicion],
    otherwise: (ErrorCode, &str),
    decision: &mut Decision,
) -> u64 {
    let mut number = first;
    let mut run: Option<(Suspicion, u64, u32)> = None;
    for suspicion in suspicions {
        run = match run {
            Some((begun, at, count)) if begun.goes_on(count, *suspicion) => {
                Some((begun, at, count + 1))
            }
            before => {
                let told = before.map(|(begun, at, count)| begun.refusal(at, count, otherwise));
                decision.refused.extend(told);
                Some((*suspicion, number, 1))
            }
        };
        number += 1;
    }
    let told = run.map(|(begun, at, count)| begun.refusal(at, count, otherwise));
    decision.refused.extend(told);
    number
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]
    use broker_proto::{Micros, ProducerId, RoomId, RoomName, SenderName};
    use bytes::BytesMut;

    use super::super::{Epoch, RoomSlot};
    use super::*;
    use crate::store::{Doubtful, ProducerKey, SessionId};

    fn append(first_number: u64, payloads: &[&[u8]]) -> Append {
        let mut entries = BytesMut::new();
        for payload in payloads {
            publish::encode_entry(&mut entries, payload, &[], crc32c::crc32c(payload));
        }
        Append {
            session: SessionId(0),
            key: ProducerKey {
                sender: SenderName::parse("ann").unwrap(),
                producer: ProducerId::new([1; 16]),
            },
            claimed: true,
            room: RoomName::parse("ops").unwrap(),
            first_number,
            count: u32::try_from(payloads.len()).unwrap(),
            head: bytes::Bytes::new(),
            entries: entries.freeze(),
            expected_head: None,
            resend: true,
        }
    }

    /// Room "ops" with ten messages, of which these are in doubt.
    fn scene(doubtful: &[(u64, &[u8])]) -> (Sequencer, RoomTable) {
        let mut rooms = RoomTable::default();
        let slot = RoomSlot {
            head: Seq::new(10),
            last_time: Micros::new(1),
            ..RoomSlot::new(Epoch::new(5))
        };
        assert!(rooms.insert(RoomId::new(1), "ops", None, slot));
        let mut sequencer = Sequencer::new(1000);
        for (seq, payload) in doubtful {
            let message = Doubtful {
                crc: crc32c::crc32c(payload),
                length: u32::try_from(payload.len()).unwrap(),
                sender: SenderName::parse("ann").unwrap(),
                room: RoomId::new(1),
                seq: Seq::new(*seq),
            };
            sequencer.in_doubt.add(message, Micros::new(1), true);
        }
        (sequencer, rooms)
    }

    fn decide(sequencer: &mut Sequencer, rooms: &RoomTable, append: &Append) -> Decision {
        sequencer.append(rooms, append, Micros::new(2), &mut || 7)
    }

    fn refusals(decision: &Decision) -> Vec<(u64, u32, ErrorCode)> {
        let tell = |refusal: &Refusal| (refusal.first_number, refusal.count, refusal.code);
        decision.refused.iter().map(tell).collect()
    }

    #[test]
    fn what_comes_before_is_refused_too_and_what_comes_after_is_stored() {
        let (mut sequencer, rooms) = scene(&[(4, b"b"), (5, b"c"), (9, b"e")]);
        let unknown = ErrorCode::OUTCOME_UNKNOWN;
        let payloads: [&[u8]; 6] = [b"a", b"b", b"c", b"d", b"e", b"f"];
        let decision = decide(&mut sequencer, &rooms, &append(1, &payloads));
        let expected = [
            (1, 1, unknown),
            (2, 2, unknown),
            (4, 1, unknown),
            (5, 1, unknown),
        ];
        assert_eq!(refusals(&decision), expected);
        let told = decision.refused.get(1).unwrap();
        assert!(told.detail.contains("seqs 4 to 5:"), "{}", told.detail);
        let placed = decision.placed.unwrap();
        assert_eq!((placed.skip, placed.first_number, placed.count), (5, 6, 1));
        // Once more: what was not in doubt itself can no longer be stored, and it is said so.
        let decision = decide(&mut sequencer, &rooms, &append(1, &payloads));
        assert_eq!(
            refusals(&decision),
            [
                (1, 1, ErrorCode::NOT_STORED),
                (2, 2, unknown),
                (4, 1, ErrorCode::NOT_STORED),
                (5, 1, unknown)
            ]
        );
        assert_eq!(decision.known.first().unwrap().first_number, 6);
    }

    #[test]
    fn with_more_than_are_remembered_nothing_that_is_sent_again_is_stored() {
        let (mut sequencer, rooms) = scene(&[(4, b"b")]);
        sequencer.in_doubt.add_more(Micros::new(1), true);
        let unknown = ErrorCode::OUTCOME_UNKNOWN;
        let decision = decide(&mut sequencer, &rooms, &append(1, &[b"a", b"b"]));
        assert_eq!(refusals(&decision), [(1, 1, unknown), (2, 1, unknown)]);
        assert_eq!(decision.placed, None);
        let fresh = Append {
            resend: false,
            ..append(3, &[b"b"])
        };
        let decision = decide(&mut sequencer, &rooms, &fresh);
        assert_eq!(decision.placed.unwrap().first_seq, Seq::new(11));
    }
}
