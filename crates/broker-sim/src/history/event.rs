//! [`Event`]: one thing that a process did or saw, and its line of text.

use std::fmt;
use std::str::FromStr;

/// Fills a payload behind its id.
const PADDING: u8 = b'.';

/// Says in a line that something is not there.
const NONE: &str = "-";

/// A message's identity, which its sender makes and which stands in its payload: no broker has a part in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id {
    /// The sending agent.
    pub agent: u32,
    /// Which of its lives, from 1.
    pub life: u32,
    /// Counts its sends in that life, from 1.
    pub counter: u64,
}

impl Id {
    /// The payload that carries this id: its text, filled up to `bytes`.
    #[must_use]
    pub fn payload(self, bytes: usize) -> Vec<u8> {
        let mut payload = self.to_string().into_bytes();
        payload.resize(payload.len().max(bytes), PADDING);
        payload
    }

    /// The id in a payload, if that is whole: an agent made it, and no byte of it was changed.
    #[must_use]
    pub fn of_payload(payload: &[u8]) -> Option<Self> {
        let end = payload.iter().rposition(|byte| *byte != PADDING)?;
        std::str::from_utf8(payload.get(..=end)?).ok()?.parse().ok()
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.agent, self.life, self.counter)
    }
}

impl FromStr for Id {
    type Err = Unreadable;

    fn from_str(text: &str) -> Result<Self, Unreadable> {
        let mut parts = text.split('.');
        let mut part = || parts.next().ok_or(Unreadable);
        let (agent, life, counter) = (part()?, part()?, part()?);
        let id = Self {
            agent: number(agent)?,
            life: number(life)?,
            counter: number(counter)?,
        };
        if parts.next().is_some() {
            return Err(Unreadable);
        }
        Ok(id)
    }
}

/// A place in a room: the room's epoch and a seq.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The room's history.
    pub epoch: u64,
    /// The message's place in it.
    pub seq: u64,
}

impl From<broker_proto::Position> for Place {
    fn from(position: broker_proto::Position) -> Self {
        Self {
            epoch: position.epoch.get(),
            seq: position.seq.get(),
        }
    }
}

impl From<Place> for broker_proto::Position {
    fn from(place: Place) -> Self {
        Self::new(
            broker_proto::Epoch::new(place.epoch),
            broker_proto::Seq::new(place.seq),
        )
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}/{}", self.epoch, self.seq)
    }
}

impl FromStr for Place {
    type Err = Unreadable;

    fn from_str(text: &str) -> Result<Self, Unreadable> {
        let (epoch, seq) = text.split_once('/').ok_or(Unreadable)?;
        Ok(Self {
            epoch: u64::from_str_radix(epoch, 16).map_err(|_| Unreadable)?,
            seq: number(seq)?,
        })
    }
}

/// A line or a part of one that no agent wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unreadable;

/// One thing that a process did or saw. Rooms and cursors go by their names, which hold no blanks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event<'a> {
    /// The first event: who writes.
    Process {
        /// The agent.
        agent: u32,
        /// Which of its lives, from 1.
        life: u32,
        /// Its process.
        pid: u32,
    },
    /// A message is about to be sent.
    Begun {
        /// Which.
        id: Id,
        /// Where to.
        room: &'a str,
    },
    /// The broker acknowledged a message.
    Acked {
        /// Which.
        id: Id,
        /// Its room.
        room: &'a str,
        /// The place it got.
        place: Place,
    },
    /// A send ended without an ack.
    Failed {
        /// Which.
        id: Id,
        /// Its room.
        room: &'a str,
        /// Whether it is certain that the message is not stored.
        certain: bool,
        /// Why.
        text: &'a str,
    },
    /// A subscription or a page of history begins.
    Opened {
        /// Its number within the process.
        subscription: u32,
        /// The room.
        room: &'a str,
        /// The seq asked for as the first one.
        next: u64,
    },
    /// A message came.
    Delivered {
        /// The subscription.
        subscription: u32,
        /// The room.
        room: &'a str,
        /// Where the message is.
        place: Place,
        /// Which it is; `None` when the payload is none that an agent made.
        id: Option<Id>,
    },
    /// Messages that will not come were told.
    Skipped {
        /// The subscription.
        subscription: u32,
        /// The room.
        room: &'a str,
        /// The first of them.
        from: u64,
        /// The last of them.
        to: u64,
        /// Why.
        reason: &'a str,
    },
    /// A room's history got a new identity.
    Reset {
        /// The subscription.
        subscription: u32,
        /// The room.
        room: &'a str,
        /// The identity until now.
        previous: u64,
        /// The next message.
        next: Place,
    },
    /// A subscription was read to its end.
    Ended {
        /// Its number.
        subscription: u32,
        /// The room.
        room: &'a str,
    },
    /// The process serves the store, or is connected to who does.
    Role {
        /// Whether it serves itself.
        leads: bool,
        /// The leader's term.
        term: u64,
        /// The leader's process.
        pid: u32,
        /// For how long it was connected to nobody, in nanoseconds.
        gap: u64,
    },
    /// A cursor is about to be moved.
    Moving {
        /// The cursor.
        cursor: &'a str,
        /// Its room.
        room: &'a str,
        /// Where to.
        to: Place,
    },
    /// The move was acknowledged.
    Moved {
        /// The cursor.
        cursor: &'a str,
        /// Its room.
        room: &'a str,
        /// Where to.
        to: Place,
    },
    /// A cursor was read.
    Cursor {
        /// The cursor.
        cursor: &'a str,
        /// Its room.
        room: &'a str,
        /// Where it is.
        at: Option<Place>,
    },
    /// A request other than a send failed.
    Unanswered {
        /// What was asked, in one word.
        what: &'a str,
        /// Why.
        text: &'a str,
    },
}

/// The line without time and newline.
impl fmt::Display for Event<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process { agent, life, pid } => write!(f, "process {agent} {life} {pid}"),
            Self::Begun { id, room } => write!(f, "begun {id} {room}"),
            Self::Acked { id, room, place } => write!(f, "acked {id} {room} {place}"),
            Self::Failed {
                id,
                room,
                certain,
                text,
            } => {
                let kind = if *certain { "refused" } else { "unknown" };
                write!(f, "{kind} {id} {room} {}", OneLine(text))
            }
            Self::Opened {
                subscription,
                room,
                next,
            } => write!(f, "opened {subscription} {room} {next}"),
            Self::Delivered {
                subscription,
                room,
                place,
                id,
            } => {
                write!(f, "got {subscription} {room} {place} {}", OrNone(id))
            }
            Self::Skipped {
                subscription,
                room,
                from,
                to,
                reason,
            } => {
                let reason = OneLine(reason);
                write!(f, "skipped {subscription} {room} {from} {to} {reason}")
            }
            Self::Reset {
                subscription,
                room,
                previous,
                next,
            } => {
                write!(f, "reset {subscription} {room} {previous:016x} {next}")
            }
            Self::Ended { subscription, room } => write!(f, "ended {subscription} {room}"),
            Self::Role {
                leads,
                term,
                pid,
                gap,
            } => {
                let kind = if *leads { "leading" } else { "following" };
                write!(f, "{kind} {term} {pid} {gap}")
            }
            Self::Moving { cursor, room, to } => write!(f, "moving {cursor} {room} {to}"),
            Self::Moved { cursor, room, to } => write!(f, "moved {cursor} {room} {to}"),
            Self::Cursor { cursor, room, at } => write!(f, "cursor {cursor} {room} {}", OrNone(at)),
            Self::Unanswered { what, text } => write!(f, "unanswered {what} {}", OneLine(text)),
        }
    }
}

struct OrNone<'a, T>(&'a Option<T>);

impl<T: fmt::Display> fmt::Display for OrNone<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(value) => value.fmt(f),
            None => f.write_str(NONE),
        }
    }
}

struct OneLine<'a>(&'a str);

impl fmt::Display for OneLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lines = self.0.split(['\n', '\r']);
        f.write_str(lines.next().unwrap_or_default())?;
        lines.try_for_each(|line| write!(f, " {line}"))
    }
}

impl<'a> Event<'a> {
    /// Reads a line without time and newline.
    ///
    /// # Errors
    /// An error when no agent writes such a line.
    pub fn parse(line: &'a str) -> Result<Self, Unreadable> {
        let (kind, rest) = line.split_once(' ').ok_or(Unreadable)?;
        let mut fields = Fields(Some(rest));
        let event = match kind {
            "process" => Self::Process {
                agent: fields.value()?,
                life: fields.value()?,
                pid: fields.value()?,
            },
            "begun" => Self::Begun {
                id: fields.value()?,
                room: fields.word()?,
            },
            "acked" => Self::Acked {
                id: fields.value()?,
                room: fields.word()?,
                place: fields.value()?,
            },
            "refused" | "unknown" => Self::Failed {
                id: fields.value()?,
                room: fields.word()?,
                certain: kind == "refused",
                text: fields.rest()?,
            },
            "leading" | "following" => Self::Role {
                leads: kind == "leading",
                term: fields.value()?,
                pid: fields.value()?,
                gap: fields.value()?,
            },
            "moving" => Self::Moving {
                cursor: fields.word()?,
                room: fields.word()?,
                to: fields.value()?,
            },
            "moved" => Self::Moved {
                cursor: fields.word()?,
                room: fields.word()?,
                to: fields.value()?,
            },
            "cursor" => Self::Cursor {
                cursor: fields.word()?,
                room: fields.word()?,
                at: fields.or_none()?,
            },
            "unanswered" => Self::Unanswered {
                what: fields.word()?,
                text: fields.rest()?,
            },
            _ => Self::parse_reading(kind, &mut fields)?,
        };
        fields.end().map(|()| event)
    }

    /// The events of a subscription.
    fn parse_reading(kind: &str, fields: &mut Fields<'a>) -> Result<Self, Unreadable> {
        let (subscription, room) = (fields.value()?, fields.word()?);
        Ok(match kind {
            "opened" => Self::Opened {
                subscription,
                room,
                next: fields.value()?,
            },
            "got" => Self::Delivered {
                subscription,
                room,
                place: fields.value()?,
                id: fields.or_none()?,
            },
            "skipped" => Self::Skipped {
                subscription,
                room,
                from: fields.value()?,
                to: fields.value()?,
                reason: fields.rest()?,
            },
            "reset" => Self::Reset {
                subscription,
                room,
                previous: u64::from_str_radix(fields.word()?, 16).map_err(|_| Unreadable)?,
                next: fields.value()?,
            },
            "ended" => Self::Ended { subscription, room },
            _ => return Err(Unreadable),
        })
    }
}

/// What is left of a line.
struct Fields<'a>(Option<&'a str>);

impl<'a> Fields<'a> {
    fn word(&mut self) -> Result<&'a str, Unreadable> {
        let rest = self.0.take().ok_or(Unreadable)?;
        match rest.split_once(' ') {
            Some((word, rest)) => {
                self.0 = Some(rest);
                Ok(word)
            }
            None => Ok(rest),
        }
    }

    fn value<T: FromStr>(&mut self) -> Result<T, Unreadable> {
        number(self.word()?)
    }

    fn or_none<T: FromStr>(&mut self) -> Result<Option<T>, Unreadable> {
        match self.word()? {
            NONE => Ok(None),
            word => number(word).map(Some),
        }
    }

    fn rest(&mut self) -> Result<&'a str, Unreadable> {
        self.0.take().ok_or(Unreadable)
    }

    fn end(&self) -> Result<(), Unreadable> {
        self.0.map_or(Ok(()), |_| Err(Unreadable))
    }
}

fn number<T: FromStr>(text: &str) -> Result<T, Unreadable> {
    text.parse().map_err(|_| Unreadable)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    const ID: Id = Id {
        agent: 3,
        life: 2,
        counter: 17,
    };
    const PLACE: Place = Place {
        epoch: 0x5d8a_1c00_e6f2_b913,
        seq: 41,
    };

    fn one_of_each() -> Vec<Event<'static>> {
        let (subscription, room, cursor, text) = (4, "ops", "bob", "why not");
        vec![
            Event::Process {
                agent: 1,
                life: 2,
                pid: 3,
            },
            Event::Begun { id: ID, room },
            Event::Acked {
                id: ID,
                room,
                place: PLACE,
            },
            Event::Failed {
                id: ID,
                room,
                certain: true,
                text,
            },
            Event::Failed {
                id: ID,
                room,
                certain: false,
                text: "",
            },
            Event::Opened {
                subscription,
                room,
                next: 1,
            },
            Event::Delivered {
                subscription,
                room,
                place: PLACE,
                id: Some(ID),
            },
            Event::Delivered {
                subscription,
                room,
                place: PLACE,
                id: None,
            },
            Event::Skipped {
                subscription,
                room,
                from: 1,
                to: 9,
                reason: text,
            },
            Event::Reset {
                subscription,
                room,
                previous: 7,
                next: PLACE,
            },
            Event::Ended { subscription, room },
            Event::Role {
                leads: true,
                term: 5,
                pid: 6,
                gap: 7,
            },
            Event::Role {
                leads: false,
                term: 5,
                pid: 6,
                gap: 0,
            },
            Event::Moving {
                cursor,
                room,
                to: PLACE,
            },
            Event::Moved {
                cursor,
                room,
                to: PLACE,
            },
            Event::Cursor {
                cursor,
                room,
                at: Some(PLACE),
            },
            Event::Cursor {
                cursor,
                room,
                at: None,
            },
            Event::Unanswered {
                what: "rooms",
                text,
            },
        ]
    }

    #[test]
    fn what_is_written_is_read() {
        for event in one_of_each() {
            let line = event.to_string();
            assert_eq!(Event::parse(&line), Ok(event), "{line}");
        }
    }

    #[test]
    fn a_line_with_a_part_missing_or_too_much_is_refused() {
        for event in one_of_each() {
            let line = event.to_string();
            let texts = matches!(
                event,
                Event::Failed { .. } | Event::Skipped { .. } | Event::Unanswered { .. }
            );
            let (short, _) = line.rsplit_once(' ').unwrap();
            assert!(texts || Event::parse(short).is_err(), "{short}");
            let long = format!("{line} 1");
            assert!(texts || Event::parse(&long).is_err(), "{long}");
        }
        assert_eq!(Event::parse("slept 1 2 3"), Err(Unreadable));
    }

    #[test]
    fn a_text_stays_on_its_line() {
        let event = Event::Unanswered {
            what: "rooms",
            text: "one\ntwo\r\nthree",
        };
        assert_eq!(event.to_string(), "unanswered rooms one two  three");
    }

    #[test]
    fn a_payload_carries_its_id_and_notices_a_change() {
        for bytes in [0, 6, 7, 100] {
            let payload = ID.payload(bytes);
            assert_eq!(payload.len(), bytes.max(6));
            assert_eq!(Id::of_payload(&payload), Some(ID));
        }
        assert_eq!(Id::of_payload(b"3.2.17..x.."), None);
        assert_eq!(Id::of_payload(b"3.2"), None);
        assert_eq!(Id::of_payload(b""), None);
    }
}
