//! What every benchmark message carries, and the check that none is lost, doubled or reordered.

use std::collections::HashMap;
use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};

/// Bytes of a stamp, and so the smallest message of a benchmark.
pub(crate) const STAMP_BYTES: usize = 32;

/// Who sent a message, which of theirs in this room it is, and when.
///
/// Little-endian: run u64, publisher u32, room u32, counter u64, nanoseconds since the run began
/// u64; then filling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// Which benchmark; messages of others in the same room are not ours.
    pub(crate) run: u64,
    /// Which publisher, from 0.
    pub(crate) publisher: u32,
    /// Which room, from 0.
    pub(crate) room: u32,
    /// Which message of this publisher in this room, from 0.
    pub(crate) counter: u64,
    /// When it was sent.
    pub(crate) sent_ns: u64,
}

impl Stamp {
    /// A message of `size` bytes, at least [`STAMP_BYTES`].
    pub(crate) fn payload(&self, size: usize) -> Bytes {
        let mut bytes = BytesMut::with_capacity(size.max(STAMP_BYTES));
        bytes.put_u64_le(self.run);
        bytes.put_u32_le(self.publisher);
        bytes.put_u32_le(self.room);
        bytes.put_u64_le(self.counter);
        bytes.put_u64_le(self.sent_ns);
        bytes.put_bytes(b'.', size.saturating_sub(STAMP_BYTES));
        bytes.freeze()
    }

    /// Reads a message back; `None` when it is too short for one of ours.
    pub(crate) fn parse(payload: &[u8]) -> Option<Self> {
        let (run, rest) = payload.split_first_chunk()?;
        let (publisher, rest) = rest.split_first_chunk()?;
        let (room, rest) = rest.split_first_chunk()?;
        let (counter, rest) = rest.split_first_chunk()?;
        let (sent_ns, _) = rest.split_first_chunk()?;
        Some(Self {
            run: u64::from_le_bytes(*run),
            publisher: u32::from_le_bytes(*publisher),
            room: u32::from_le_bytes(*room),
            counter: u64::from_le_bytes(*counter),
            sent_ns: u64::from_le_bytes(*sent_ns),
        })
    }
}

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

/// What one reader has seen so far: the next counter of every publisher in every room.
#[derive(Debug)]
pub(crate) struct Checker {
    run: u64,
    next: HashMap<(u32, u32), u64>,
    next_seq: HashMap<u32, u64>,
}

impl Checker {
    /// Nothing seen yet.
    pub(crate) fn new(run: u64) -> Self {
        Self {
            run,
            next: HashMap::new(),
            next_seq: HashMap::new(),
        }
    }

    /// Judges one message of `room`. After a violation the reader's books follow what came, so
    /// that one loss is told once.
    pub(crate) fn check(
        &mut self,
        room: u32,
        seq: u64,
        payload: &[u8],
    ) -> Result<Stamp, Violation> {
        let Some(stamp) =
            Stamp::parse(payload).filter(|stamp| stamp.run == self.run && stamp.room == room)
        else {
            return Err(Violation::Foreign { room, seq });
        };
        let next_seq = self.next_seq.entry(room).or_insert(1);
        let expected_seq = std::mem::replace(next_seq, seq + 1);
        let next = self.next.entry((room, stamp.publisher)).or_insert(0);
        let expected = std::mem::replace(next, stamp.counter + 1);
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

    /// Judges the end: everything that was acknowledged must have been read.
    pub(crate) fn finish(&self, room: u32, publisher: u32, acked: u64) -> Result<(), Violation> {
        let read = self.next.get(&(room, publisher)).copied().unwrap_or(0);
        if read < acked {
            return Err(Violation::Missing {
                room,
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
    fn a_stamp_survives_its_bytes() {
        let stamp = Stamp {
            run: u64::MAX,
            publisher: 1,
            room: 2,
            counter: 3,
            sent_ns: 4,
        };
        assert_eq!(Stamp::parse(&stamp.payload(STAMP_BYTES)), Some(stamp));
        assert_eq!(stamp.payload(100).len(), 100);
        assert_eq!(Stamp::parse(&[0; STAMP_BYTES - 1]), None);
    }

    #[test]
    fn interleaved_publishers_in_order_are_fine() {
        let mut checker = Checker::new(9);
        for (seq, (publisher, counter)) in (1..).zip([(0, 0), (1, 0), (1, 1), (0, 1)]) {
            checker
                .check(3, seq, &message(publisher, counter))
                .expect("in order");
        }
        assert_eq!(checker.finish(3, 0, 2), Ok(()));
        assert_eq!(
            checker.finish(3, 1, 3),
            Err(Violation::Missing {
                room: 3,
                publisher: 1,
                acked: 3,
                read: 2
            })
        );
        assert_eq!(checker.finish(3, 2, 0), Ok(()));
    }

    #[test]
    fn loss_doubles_disorder_and_strangers_are_seen() {
        let mut checker = Checker::new(9);
        checker.check(3, 1, &message(0, 0)).expect("the first");
        assert_eq!(
            checker.check(3, 2, &message(0, 0)),
            Err(Violation::Order {
                room: 3,
                publisher: 0,
                expected: 1,
                found: 0
            })
        );
        assert_eq!(
            checker.check(3, 3, &message(0, 5)),
            Err(Violation::Order {
                room: 3,
                publisher: 0,
                expected: 1,
                found: 5
            })
        );
        assert_eq!(
            checker.check(3, 5, &message(0, 6)),
            Err(Violation::Seq {
                room: 3,
                expected: 4,
                found: 5
            })
        );
        assert_eq!(
            checker.check(3, 6, b"short"),
            Err(Violation::Foreign { room: 3, seq: 6 })
        );
        assert_eq!(
            checker.check(4, 1, &message(0, 7)),
            Err(Violation::Foreign { room: 4, seq: 1 })
        );
    }
}
