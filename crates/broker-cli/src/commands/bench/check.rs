//! [`Checker`]: none of a room's messages is lost, doubled or reordered, or the command ends with a
//! [`Violation`].

use std::collections::HashMap;
use std::fmt;

use super::stamp::Stamp;
use crate::exit::{Exit, Failure};

/// What a reader saw that it must not see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Violation {
    /// Not the next message of its publisher.
    Order {
        /// In which room.
        room: u32,
        /// Whose.
        publisher: u32,
        /// The counter that was due.
        expected: u64,
        /// The counter that came.
        found: u64,
    },
    /// Not the next seq of the room.
    Seq {
        /// In which room.
        room: u32,
        /// The seq that was due.
        expected: u64,
        /// The seq that came.
        found: u64,
    },
    /// A message that this benchmark did not send, or not there.
    Foreign {
        /// In which room.
        room: u32,
        /// Its seq.
        seq: u64,
    },
    /// Acknowledged but not read.
    Missing {
        /// In which room.
        room: u32,
        /// Whose.
        publisher: u32,
        /// How many were acknowledged.
        acked: u64,
        /// How many were read.
        read: u64,
    },
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Order {
                room,
                publisher,
                expected,
                found,
            } if found < expected => {
                write!(
                    f,
                    "room {room}: message {found} of publisher {publisher} came again, {expected} was due"
                )
            }
            Self::Order {
                room,
                publisher,
                expected,
                found,
            } => {
                write!(
                    f,
                    "room {room}: message {found} of publisher {publisher} came before {expected}, which is lost or late"
                )
            }
            Self::Seq {
                room,
                expected,
                found,
            } => write!(f, "room {room}: seq {found} came where {expected} was due"),
            Self::Foreign { room, seq } => write!(
                f,
                "room {room}: seq {seq} is no message that was sent there"
            ),
            Self::Missing {
                room,
                publisher,
                acked,
                read,
            } => {
                write!(
                    f,
                    "room {room}: publisher {publisher} has {acked} messages acknowledged, {read} were read"
                )
            }
        }
    }
}

impl From<Violation> for Failure {
    fn from(violation: Violation) -> Self {
        Self::new(Exit::Protocol, format!("violation: {violation}"))
    }
}

/// What one reader has seen of one room: the next seq, and the next counter of every publisher.
#[derive(Debug)]
pub(crate) struct Checker {
    run: u64,
    room: u32,
    next_seq: u64,
    /// Whose message came last, and the next counter of theirs. They often come in rows, and a reader
    /// checks millions a second.
    current: (u32, u64),
    /// The next counters of the others.
    others: HashMap<u32, u64>,
}

impl Checker {
    /// Nothing seen yet.
    pub(crate) fn new(run: u64, room: u32) -> Self {
        Self {
            run,
            room,
            next_seq: 1,
            current: (0, 0),
            others: HashMap::new(),
        }
    }

    /// Judges one message. After a violation the reader's books follow what came, so that one loss is
    /// told once.
    pub(crate) fn check(&mut self, seq: u64, payload: &[u8]) -> Result<Stamp, Violation> {
        let room = self.room;
        let ours = |stamp: &Stamp| stamp.run == self.run && stamp.room == room;
        let Some(stamp) = Stamp::parse(payload).filter(ours) else {
            return Err(Violation::Foreign { room, seq });
        };
        let expected_seq = std::mem::replace(&mut self.next_seq, seq.saturating_add(1));
        if stamp.publisher != self.current.0 {
            self.turn_to(stamp.publisher);
        }
        let next = stamp.counter.saturating_add(1);
        let expected = std::mem::replace(&mut self.current.1, next);
        if stamp.counter != expected {
            return Err(Violation::Order {
                room,
                publisher: stamp.publisher,
                expected,
                found: stamp.counter,
            });
        }
        if seq != expected_seq {
            return Err(Violation::Seq {
                room,
                expected: expected_seq,
                found: seq,
            });
        }
        Ok(stamp)
    }

    fn turn_to(&mut self, publisher: u32) {
        let (before, next) = self.current;
        self.others.insert(before, next);
        self.current = (publisher, self.others.remove(&publisher).unwrap_or(0));
    }

    /// Judges the end: everything that was acknowledged must have been read.
    pub(crate) fn finish(&self, publisher: u32, acked: u64) -> Result<(), Violation> {
        let (current, next) = self.current;
        let read = if publisher == current {
            next
        } else {
            self.others.get(&publisher).copied().unwrap_or(0)
        };
        if read < acked {
            return Err(Violation::Missing {
                room: self.room,
                publisher,
                acked,
                read,
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn message(publisher: u32, counter: u64) -> Bytes {
        Stamp {
            run: 9,
            publisher,
            room: 3,
            counter,
            sent_ns: 5,
        }
        .payload(40)
    }

    #[test]
    fn interleaved_publishers_in_order_are_fine() {
        let mut checker = Checker::new(9, 3);
        for (seq, (publisher, counter)) in (1..).zip([(0, 0), (1, 0), (1, 1), (0, 1)]) {
            checker
                .check(seq, &message(publisher, counter))
                .expect("in order");
        }
        assert_eq!(checker.finish(0, 2), Ok(()));
        assert_eq!(
            checker.finish(1, 3),
            Err(Violation::Missing {
                room: 3,
                publisher: 1,
                acked: 3,
                read: 2
            })
        );
        assert_eq!(checker.finish(2, 0), Ok(()));
    }

    #[test]
    fn loss_doubles_disorder_and_strangers_are_seen() {
        let order = |expected, found| {
            Err(Violation::Order {
                room: 3,
                publisher: 0,
                expected,
                found,
            })
        };
        let mut checker = Checker::new(9, 3);
        checker.check(1, &message(0, 0)).expect("the first");
        assert_eq!(checker.check(2, &message(0, 0)), order(1, 0));
        assert_eq!(checker.check(3, &message(0, 5)), order(1, 5));
        assert_eq!(
            checker.check(5, &message(0, 6)),
            Err(Violation::Seq {
                room: 3,
                expected: 4,
                found: 5
            })
        );
        assert_eq!(
            checker.check(6, b"short"),
            Err(Violation::Foreign { room: 3, seq: 6 })
        );
        let mut elsewhere = Checker::new(9, 4);
        assert_eq!(
            elsewhere.check(1, &message(0, 7)),
            Err(Violation::Foreign { room: 4, seq: 1 })
        );
    }
}
