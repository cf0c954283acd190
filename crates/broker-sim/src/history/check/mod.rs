//! The checker: whether the histories of many processes, together with what the rooms hold in the end, keep the promises.
//!
//! The rooms come first, as one reader saw them after the run ([`Final`]). Then every history is gone through once, in any
//! order of processes. It takes time and memory in proportion to the number of events and of messages, and compares:
//!
//! | promise | broken by |
//! |---|---|
//! | acknowledged is kept, once, where the ack said | [`Lost`](Kind::Lost), [`Doubled`](Kind::Doubled), [`Replaced`](Kind::Replaced) |
//! | nothing appears that was not sent, or was refused | [`Phantom`](Kind::Phantom), [`Refused`](Kind::Refused) |
//! | delivered stays, in the same place for everybody | [`Phantom`](Kind::Phantom), [`Replaced`](Kind::Replaced) |
//! | a reader gets everything, in order, or is told | [`Gap`](Kind::Gap), [`Repeated`](Kind::Repeated) |
//! | one client's sends keep their order | [`SenderOrder`](Kind::SenderOrder) |
//! | what was acknowledged before another send began comes before it | [`RealTime`](Kind::RealTime) |
//! | a room keeps its identity | [`Epoch`](Kind::Epoch) |
//! | one process leads in a term, terms rise | [`TwoLeaders`](Kind::TwoLeaders), [`TermFell`](Kind::TermFell) |
//! | an acknowledged move of a cursor is kept | [`Cursor`](Kind::Cursor) |
//!
//! A send whose outcome is unknown may be stored or not, but once at most.

mod cursors;
mod leaders;
mod room;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::io;
use std::path::Path;

use self::cursors::Cursors;
use self::leaders::Leaders;
use self::room::RoomCheck;
use super::event::{Event, Id, Place};
use crate::campaign::{Broken, Harm};

/// How many violations are told in words.
const TOLD_MAX: usize = 50;

/// What was broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// An acknowledged message is not in its room.
    Lost,
    /// A message is in a room that nobody sent, or was delivered and is not in its room.
    Phantom,
    /// One message has two seqs.
    Doubled,
    /// One seq has two messages.
    Replaced,
    /// Messages are missing and nothing was told.
    Gap,
    /// A reader got a message again, or an older one.
    Repeated,
    /// Two messages of one client have changed places.
    SenderOrder,
    /// A message stands before one that was acknowledged before it was sent.
    RealTime,
    /// A message that was refused for certain is there.
    Refused,
    /// A room got another epoch.
    Epoch,
    /// Two processes led in one term.
    TwoLeaders,
    /// A process saw a lower term after a higher one.
    TermFell,
    /// A cursor is not where it was put.
    Cursor,
    /// The history itself makes no sense: the test is wrong, not the broker.
    Malformed,
}

impl Kind {
    /// Which promise that is.
    #[must_use]
    pub fn harm(self) -> Harm {
        match self {
            Self::Lost => Harm::LostAck,
            Self::Phantom | Self::Refused => Harm::Phantom,
            Self::Replaced | Self::Gap => Harm::SilentCorruption,
            Self::Doubled | Self::Repeated | Self::SenderOrder | Self::RealTime => Harm::Doubled,
            Self::Epoch | Self::TwoLeaders | Self::TermFell | Self::Cursor | Self::Malformed => {
                Harm::Other
            }
        }
    }
}

/// Something broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// What kind.
    pub kind: Kind,
    /// What exactly.
    pub text: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.kind, self.text)
    }
}

/// A room as it is in the end, read as a whole.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FinalRoom {
    /// Its identity.
    pub epoch: u64,
    /// Its newest seq, as the broker told it.
    pub head: u64,
    /// Seq and id of its messages, in the order in which they were read; no id when the payload is none of an agent.
    pub messages: Vec<(u64, Option<Id>)>,
    /// First and last seq of what was told as skipped.
    pub skips: Vec<(u64, u64)>,
}

/// All rooms and cursors as they are in the end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Final {
    /// The rooms, by name.
    pub rooms: BTreeMap<String, FinalRoom>,
    /// The cursors, by room and name. Those that are missing here are not checked in the end.
    pub cursors: BTreeMap<(String, String), Option<Place>>,
}

/// How much was checked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Processes that wrote a history.
    pub processes: u64,
    /// Sends begun.
    pub begun: u64,
    /// Sends acknowledged.
    pub acked: u64,
    /// Sends refused for certain.
    pub refused: u64,
    /// Sends whose outcome the client did not know.
    pub unknown: u64,
    /// Messages delivered.
    pub delivered: u64,
    /// Ranges that readers were told as skipped.
    pub skips: u64,
    /// Acknowledged messages in ranges that were told as skipped in the end.
    pub told_missing: u64,
    /// Messages in the rooms in the end.
    pub stored: u64,
    /// Moves of cursors acknowledged.
    pub cursor_moves: u64,
    /// Requests other than sends that failed.
    pub unanswered: u64,
    /// Terms in which somebody led.
    pub terms: u64,
}

/// What the checker found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// How much was checked.
    pub counts: Counts,
    /// How many violations of each kind there are.
    pub broken: BTreeMap<Kind, u64>,
    /// The first violations.
    pub violations: Vec<Violation>,
    /// The first failures that applications saw: no violations, but a take-over should cause none.
    pub failures: Vec<String>,
}

impl Verdict {
    /// Whether no promise was broken.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.broken.is_empty()
    }

    /// How many violations of any of these kinds there are.
    #[must_use]
    pub fn broken(&self, kinds: &[Kind]) -> u64 {
        kinds.iter().filter_map(|kind| self.broken.get(kind)).sum()
    }

    fn violation(&mut self, kind: Kind, text: impl FnOnce() -> String) {
        *self.broken.entry(kind).or_default() += 1;
        if self.violations.len() < TOLD_MAX {
            self.violations.push(Violation { kind, text: text() });
        }
    }

    fn failure(&mut self, text: impl FnOnce() -> String) {
        if self.failures.len() < TOLD_MAX {
            self.failures.push(text());
        }
    }
}

/// For people: the counts, then what is broken.
impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:?}", self.counts)?;
        for (kind, count) in &self.broken {
            let broken = Broken::new(kind.harm(), format!("{kind:?}: {count}"));
            writeln!(f, "{broken}")?;
        }
        for violation in &self.violations {
            writeln!(f, "  {violation}")?;
        }
        for failure in &self.failures {
            writeln!(f, "  failed: {failure}")?;
        }
        Ok(())
    }
}

/// The process whose history is being read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Writer {
    agent: u32,
    life: u32,
    pid: u32,
}

impl fmt::Display for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "agent {}.{}", self.agent, self.life)
    }
}

/// Goes through histories.
#[derive(Debug)]
pub struct Checker {
    rooms: HashMap<String, RoomCheck>,
    cursors: Cursors,
    leaders: Leaders,
    verdict: Verdict,
    writer: Option<Writer>,
    /// The next seq of each open subscription of the writer.
    expected: HashMap<u32, u64>,
}

impl Checker {
    /// A checker for what ended like this.
    #[must_use]
    pub fn new(end: Final) -> Self {
        let mut verdict = Verdict::default();
        let rooms = end
            .rooms
            .into_iter()
            .map(|(name, room)| {
                let check = RoomCheck::new(&name, room, &mut verdict);
                (name, check)
            })
            .collect();
        Self {
            rooms,
            cursors: Cursors::new(end.cursors),
            leaders: Leaders::default(),
            verdict,
            writer: None,
            expected: HashMap::new(),
        }
    }

    /// Goes through the history in a file.
    ///
    /// # Errors
    /// The file cannot be read, or is none of a history.
    pub fn file(&mut self, path: &Path) -> io::Result<()> {
        super::read(path, |time, event| {
            self.event(time, &event);
            Ok(())
        })
    }

    /// The next event of a history. Each history begins with [`Event::Process`].
    pub fn event(&mut self, time: u64, event: &Event<'_>) {
        if let Event::Process { agent, life, pid } = *event {
            self.writer = Some(Writer { agent, life, pid });
            self.expected.clear();
            self.leaders.begin_process();
            self.verdict.counts.processes += 1;
            return;
        }
        let Some(writer) = self.writer else {
            let text = || format!("a history begins with {event}");
            return self.verdict.violation(Kind::Malformed, text);
        };
        match *event {
            Event::Process { .. } => {}
            Event::Begun { id, room } => {
                self.verdict.counts.begun += 1;
                if (id.agent, id.life) != (writer.agent, writer.life) {
                    let text = || format!("{writer} sends {id}");
                    return self.verdict.violation(Kind::Malformed, text);
                }
                if let Some(room) = self.rooms.get_mut(room) {
                    room.begun(time, id, &mut self.verdict);
                }
            }
            Event::Acked { id, room, place } => self.acked(time, id, room, place),
            Event::Failed {
                id,
                room,
                certain,
                text,
            } => self.failed(id, room, certain, text),
            Event::Role {
                leads, term, pid, ..
            } => self
                .leaders
                .role(writer, leads, term, pid, &mut self.verdict),
            Event::Moving { cursor, room, to } => self.cursors.moving(time, room, cursor, to),
            Event::Moved { cursor, room, to } => {
                self.verdict.counts.cursor_moves += 1;
                self.cursors.moved(time, room, cursor, to);
            }
            Event::Cursor { cursor, room, at } => self.cursors.read(time, room, cursor, at),
            Event::Unanswered { what, text } => {
                self.verdict.counts.unanswered += 1;
                self.verdict.failure(|| format!("{writer}: {what}: {text}"));
            }
            _ => self.reading(writer, event),
        }
    }

    fn acked(&mut self, time: u64, id: Id, room: &str, place: Place) {
        self.verdict.counts.acked += 1;
        match self.rooms.get_mut(room) {
            Some(check) => check.acked(time, id, place, &mut self.verdict),
            None => {
                let text = || format!("{id} was acknowledged in room {room}, which does not exist");
                self.verdict.violation(Kind::Lost, text);
            }
        }
    }

    fn failed(&mut self, id: Id, room: &str, certain: bool, text: &str) {
        let counts = &mut self.verdict.counts;
        let count = if certain {
            &mut counts.refused
        } else {
            &mut counts.unknown
        };
        *count += 1;
        self.verdict.failure(|| format!("{id} in {room}: {text}"));
        let stored = self.rooms.get(room).and_then(|check| check.seq_of(id));
        if let (true, Some(seq)) = (certain, stored) {
            let text = || format!("{id} was refused ({text}) and is in {room} at {seq}");
            self.verdict.violation(Kind::Refused, text);
        }
    }

    /// What a subscription saw.
    fn reading(&mut self, writer: Writer, event: &Event<'_>) {
        let verdict = &mut self.verdict;
        let (subscription, room, from, next) = match *event {
            Event::Opened {
                subscription, next, ..
            } => {
                self.expected.insert(subscription, next);
                return;
            }
            Event::Ended { subscription, .. } => {
                self.expected.remove(&subscription);
                return;
            }
            Event::Delivered {
                subscription,
                room,
                place,
                id,
            } => {
                verdict.counts.delivered += 1;
                match self.rooms.get(room) {
                    Some(check) => check.delivered(writer, place, id, verdict),
                    None => verdict.violation(Kind::Phantom, || {
                        format!("{writer} got {place} of room {room}, which does not exist")
                    }),
                }
                (subscription, room, place.seq, place.seq)
            }
            Event::Skipped {
                subscription,
                room,
                from,
                to,
                ..
            } => {
                verdict.counts.skips += 1;
                (subscription, room, from, to)
            }
            Event::Reset { room, next, .. } => {
                let text = || format!("{writer} is told a new epoch of {room}: {next}");
                return verdict.violation(Kind::Epoch, text);
            }
            _ => return,
        };
        match self.expected.insert(subscription, next.saturating_add(1)) {
            None => verdict.violation(Kind::Malformed, || {
                format!("{writer} got {from} of {room} before subscribing")
            }),
            Some(expected) if expected < from => verdict.violation(Kind::Gap, || {
                format!("{writer} got {from} of {room} where {expected} was to come")
            }),
            Some(expected) if expected > from => verdict.violation(Kind::Repeated, || {
                format!("{writer} got {from} of {room} where {expected} was to come")
            }),
            Some(_) => {}
        }
    }

    /// What can be said when all histories were read.
    #[must_use]
    pub fn finish(mut self) -> Verdict {
        for (name, room) in &self.rooms {
            room.finish(name, &mut self.verdict);
        }
        self.cursors.finish(&mut self.verdict);
        self.verdict.counts.terms = self.leaders.terms();
        self.verdict
    }
}
