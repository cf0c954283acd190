//! What a writer says it sent and was told, and whether the store has it.
//!
//! A writer says a line before it hands messages in, and one for each answer; what it said before it was killed is all that anybody
//! knows. Payloads follow from the seed, the producer and the number, so that lines do not carry them.

use std::path::Path;
use std::sync::Arc;

use broker_core::log::storage::FileStorage;
use broker_core::store::{AckRun, Notice};
use broker_proto::{Epoch, ErrorCode, Level, Seq};
use bytes::Bytes;

use crate::campaign::{Broken, Harm};
use crate::crash_matrix::unopened;
use crate::oracle::{Fate, Ledger, MessageId, Verdict, check, producer_key, room_name};
use crate::rig::{Limits, Rig};
use crate::rng::Rng;
use crate::workers::rng_of;

/// Who sends one message after each check, to see that the store accepts.
const PROBE: u16 = u16::MAX;

/// Pages in which everything is read back, in bytes.
const PAGE_BYTES: u32 = 1 << 20;

/// The bytes of a message.
#[must_use]
pub fn payload(seed: u64, id: MessageId) -> Bytes {
    let mut rng = rng_of(seed ^ (u64::from(id.producer) << 32), id.number);
    let len = match rng.below(100) {
        0..70 => rng.below(300),
        70..97 => rng.below(6_000),
        _ => rng.below(60_000),
    };
    let mut bytes = Vec::new();
    while u64::try_from(bytes.len()).unwrap_or(u64::MAX) < len {
        bytes.extend_from_slice(&rng.next().to_le_bytes());
    }
    bytes.into()
}

/// A line of a writer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    /// It serves, and begins.
    Ready,
    /// It is about to hand these in.
    Sent {
        /// The first of them.
        first: MessageId,
        /// How many.
        count: u32,
        /// To which room.
        room: u16,
    },
    /// They were acknowledged.
    Acked {
        /// The first of them.
        first: MessageId,
        /// How many.
        count: u32,
        /// In which room.
        room: u16,
        /// Its epoch.
        epoch: u64,
        /// The seq of the first.
        seq: u64,
    },
    /// They were refused.
    Refused {
        /// The first of them.
        first: MessageId,
        /// How many.
        count: u32,
        /// Why.
        code: ErrorCode,
        /// Why, for people.
        detail: String,
    },
    /// It stops, and why.
    Stopped(String),
    /// A line of the careless writer: it has written so many lines, and calls them safe.
    Careless(u64),
}

impl std::fmt::Display for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ready => write!(f, "ready"),
            Self::Sent { first, count, room } => {
                write!(f, "sent {} {} {count} {room}", first.producer, first.number)
            }
            Self::Acked {
                first: MessageId { producer, number },
                count,
                room,
                epoch,
                seq,
            } => write!(f, "acked {producer} {number} {count} {room} {epoch} {seq}"),
            Self::Refused {
                first: MessageId { producer, number },
                count,
                code,
                detail,
            } => {
                let code = code.get();
                write!(f, "refused {producer} {number} {count} {code} {detail}")
            }
            Self::Stopped(why) => write!(f, "stopped {why}"),
            Self::Careless(lines) => write!(f, "careless {lines}"),
        }
    }
}

impl Line {
    /// Reads a line back. `None` for one that was cut off, or is no line of a writer.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        let (kind, rest) = line.split_once(' ').unwrap_or((line, ""));
        let mut words = rest.splitn(5, ' ');
        let mut first = || {
            Some(MessageId {
                producer: words.next()?.parse().ok()?,
                number: words.next()?.parse().ok()?,
            })
        };
        Some(match kind {
            "ready" => Self::Ready,
            "sent" => Self::Sent {
                first: first()?,
                count: words.next()?.parse().ok()?,
                room: words.next()?.parse().ok()?,
            },
            "acked" => {
                let (first, count) = (first()?, words.next()?.parse().ok()?);
                let room = words.next()?.parse().ok()?;
                let (epoch, seq) = words.next()?.split_once(' ')?;
                Self::Acked {
                    first,
                    count,
                    room,
                    epoch: epoch.parse().ok()?,
                    seq: seq.parse().ok()?,
                }
            }
            "refused" => Self::Refused {
                first: first()?,
                count: words.next()?.parse().ok()?,
                code: ErrorCode::new(words.next()?.parse().ok()?),
                detail: words.next().unwrap_or_default().to_owned(),
            },
            "stopped" => Self::Stopped(rest.to_owned()),
            "careless" => Self::Careless(rest.parse().ok()?),
            _ => return None,
        })
    }
}

/// All that writers of one store said.
#[derive(Debug, Clone)]
pub struct Account {
    /// What follows from it.
    pub ledger: Ledger,
    /// Messages acknowledged.
    pub acks: u64,
    /// Why messages were refused.
    pub refusals: Vec<(ErrorCode, String)>,
    seed: u64,
}

impl Account {
    /// Of writers of this seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            ledger: Ledger::default(),
            acks: 0,
            refusals: Vec::new(),
            seed,
        }
    }

    /// Hears a line.
    ///
    /// # Errors
    /// When it contradicts an earlier one.
    pub fn hear(&mut self, line: &Line) -> Verdict {
        match line {
            Line::Sent { first, count, room } => {
                for id in numbers(*first, *count) {
                    // What is sent again keeps what is known of it.
                    if !self.ledger.sent.contains_key(&id) {
                        self.ledger.send(id, *room, payload(self.seed, id));
                    }
                }
                Ok(())
            }
            Line::Acked {
                first,
                count,
                room,
                epoch,
                seq,
            } => {
                self.acks += u64::from(*count);
                self.ledger.hear(&Notice::Acked {
                    producer: producer_key(first.producer)?.producer,
                    run: AckRun {
                        room: room_name(*room)?,
                        epoch: Epoch::new(*epoch),
                        first_number: first.number,
                        count: *count,
                        first_seq: Seq::new(*seq),
                        level: Level::SYNCED,
                    },
                })
            }
            Line::Refused {
                first,
                count,
                code,
                detail,
            } => {
                self.refusals.push((*code, detail.clone()));
                self.ledger.hear(&Notice::Refused {
                    producer: producer_key(first.producer)?.producer,
                    first_number: first.number,
                    count: *count,
                    code: *code,
                    detail: detail.clone(),
                    retry_after_ms: 0,
                })
            }
            Line::Ready | Line::Stopped(_) | Line::Careless(_) => Ok(()),
        }
    }

    /// What nobody answered for, with its room, in the order in which it was sent.
    #[must_use]
    pub fn open(&self) -> Vec<(MessageId, u16)> {
        let open = self.ledger.sent.iter();
        let open = open.filter(|(_, sent)| sent.fate == Fate::Open);
        open.map(|(id, sent)| (*id, sent.room)).collect()
    }

    /// Opens the store in `dir` and compares all that it serves with what was said: what was acknowledged is there, byte for byte
    /// and in order, nothing is there twice or was never sent, and one more message is taken. It leaves no mark at its end.
    ///
    /// # Errors
    /// When a promise was broken.
    pub fn check(&mut self, dir: &Path, rng: &mut Rng) -> Verdict {
        let mut rig = open(dir, rng)?;
        check::after_recovery(&mut rig, &mut self.ledger, PAGE_BYTES)?;
        self.probe(&mut rig)
    }

    /// Sends everything that nobody answered for again, as its publishers would, and looks at all of it once more.
    ///
    /// # Errors
    /// When a promise was broken.
    pub fn send_open_again(&mut self, dir: &Path, rng: &mut Rng) -> Verdict {
        let mut rig = open(dir, rng)?;
        for (id, _) in self.open() {
            rig.send_again(&self.ledger, id, 1)?;
        }
        rig.work();
        rig.answers(&mut self.ledger)?;
        if let Some((id, _)) = self.open().first() {
            return Err(format!("{id:?} was sent again and not answered").into());
        }
        if self.ledger.lied_to {
            return Ok(());
        }
        check::everything_is_there(&rig, &mut self.ledger, PAGE_BYTES)
    }

    /// Whether everything that was acknowledged or shown is still there, also when the disk lied.
    ///
    /// # Errors
    /// The store cannot be opened.
    pub fn has_everything(&self, dir: &Path, rng: &mut Rng) -> Verdict<bool> {
        let mut ledger = self.ledger.clone();
        ledger.lied_to = false;
        let rig = open(dir, rng)?;
        Ok(check::everything_is_there(&rig, &mut ledger, PAGE_BYTES).is_ok())
    }

    fn probe(&mut self, rig: &mut Rig<FileStorage>) -> Verdict {
        let id = MessageId {
            producer: PROBE,
            number: self.ledger.highest(PROBE) + 1,
        };
        self.ledger.send(id, 0, payload(self.seed, id));
        rig.send(&self.ledger, id, 1)?;
        rig.work();
        rig.answers(&mut self.ledger)?;
        match self.ledger.sent.get(&id).map(|sent| sent.fate) {
            Some(Fate::Acked(_)) => Ok(()),
            other => {
                let what = format!("the next leader does not acknowledge: {other:?}");
                Err(Broken::new(Harm::Other, what))
            }
        }
    }
}

fn open(dir: &Path, rng: &mut Rng) -> Verdict<Rig<FileStorage>> {
    let disk = FileStorage::open(dir).map_err(|error| error.to_string())?;
    let limits = Limits::draw(rng);
    Rig::open_on(Arc::new(disk), limits, rng).map_err(|error| unopened(&error))
}

/// Consecutive numbers of one producer.
pub(super) fn numbers(first: MessageId, count: u32) -> impl Iterator<Item = MessageId> {
    (0..u64::from(count)).map(move |n| MessageId {
        number: first.number + n,
        ..first
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: MessageId = MessageId {
        producer: 3,
        number: 7,
    };

    #[test]
    fn lines_are_read_back() {
        let lines = [
            Line::Ready,
            Line::Sent {
                first: FIRST,
                count: 2,
                room: 4,
            },
            Line::Acked {
                first: FIRST,
                count: 2,
                room: 4,
                epoch: 99,
                seq: 12,
            },
            Line::Refused {
                first: FIRST,
                count: 1,
                code: ErrorCode::NO_SPACE,
                detail: "no space left".to_owned(),
            },
            Line::Stopped("as it was told".to_owned()),
            Line::Careless(8),
        ];
        for line in lines {
            assert_eq!(Line::parse(&line.to_string()), Some(line));
        }
        assert_eq!(Line::parse("acked 3 7 2 4 99"), None);
        assert_eq!(Line::parse("sen"), None);
    }

    #[test]
    fn what_was_acknowledged_and_is_not_there_is_noticed() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut rng = Rng::new(1);
        let mut account = Account::new(1);
        account.check(dir.path(), &mut rng).expect("an empty store");
        let sent = Line::Sent {
            first: FIRST,
            count: 1,
            room: 1,
        };
        account.hear(&sent).expect("a first line");
        account.check(dir.path(), &mut rng).expect("never answered");
        let acked = Line::Acked {
            first: FIRST,
            count: 1,
            room: 1,
            epoch: 5,
            seq: 1,
        };
        account.hear(&acked).expect("an answer");
        let broken = account.check(dir.path(), &mut rng).expect_err("it is gone");
        assert_eq!(broken.harm, Harm::LostAck);
    }
}
