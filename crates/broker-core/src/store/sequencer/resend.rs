//! What may be stored already although nobody knows its number: see [`in_doubt`](super::super::in_doubt).
//!
//! Only what may be sent again is compared with the messages in doubt. A match may be a coincidence,
//! so the answer is that nobody knows, and nothing is stored.

use broker_proto::{ErrorCode, Seq, publish};

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
        if self.in_doubt.is_empty() || !append.may_be_resent() {
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
        let is_lost = |id| rooms.get(id).is_none_or(|slot| is_nameless(&slot.name));
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
