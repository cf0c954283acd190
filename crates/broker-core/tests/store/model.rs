//! What a store must do, said as simply as possible: a `Vec` of messages per room, and a map of
//! every number that was ever stored per producer.
//!
//! Nothing here knows of batches, runs, segments or caches, and nothing is shared with the stores
//! but the words. Rooms, producers and sessions are small numbers; [`super::conformance`] gives
//! them names.

use std::collections::{BTreeMap, BTreeSet};

use broker_proto::ErrorCode;

/// A retry of one of a producer's last so many numbers gets its seq.
const WINDOW: u64 = 4096;

/// What an append brings: messages whose bytes follow from these few numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Load {
    pub(crate) count: u32,
    /// Bytes of the first payload; those after it are a little longer.
    pub(crate) bytes: u32,
    /// Makes payloads differ.
    pub(crate) salt: u8,
    /// Whether every second message has extensions.
    pub(crate) extended: bool,
}

impl Load {
    pub(crate) fn payload(&self, n: u32) -> Vec<u8> {
        let byte = self.salt.wrapping_add(u8::try_from(n % 251).unwrap());
        vec![byte; usize::try_from(self.bytes + n % 3).unwrap()]
    }

    pub(crate) fn extensions(&self, n: u32) -> Vec<u8> {
        let mut list = Vec::new();
        if self.extended && n % 2 == 1 {
            broker_proto::extension::push(&mut list, 0x77, &[self.salt; 5]);
        }
        list
    }
}

/// An append.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ask {
    pub(crate) who: usize,
    pub(crate) session: u64,
    pub(crate) claimed: bool,
    pub(crate) room: usize,
    pub(crate) first: u64,
    pub(crate) load: Load,
    pub(crate) expected: Option<u64>,
}

impl Ask {
    pub(crate) fn numbers(&self) -> std::ops::Range<u64> {
        self.first..self.first + u64::from(self.load.count)
    }
}

/// A message that was stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) who: usize,
    pub(crate) load: Load,
    pub(crate) n: u32,
    pub(crate) time: i64,
}

/// Where a number was stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) room: usize,
    pub(crate) seq: u64,
}

/// What must become of one number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Acked(Place),
    Refused(ErrorCode),
    /// Behind the window: told to be a duplicate, or acknowledged as before if the store happens
    /// to know more than it must.
    Old(Option<Place>),
}

/// A cursor's position; stores do not judge it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct At {
    pub(crate) epoch: u64,
    pub(crate) seq: u64,
}

/// A move of a cursor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Move {
    pub(crate) room: usize,
    pub(crate) name: u8,
    pub(crate) to: Option<At>,
    pub(crate) expected: Option<Option<At>>,
}

/// What a cursor request must be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CursorAnswer {
    Stands(Option<At>),
    NoSuchRoom,
    Conflict(Option<At>),
}

#[derive(Debug, Clone, Default)]
struct Producer {
    owner: u64,
    /// The highest number that was stored or passed over.
    highest: u64,
    stored: BTreeMap<u64, Place>,
}

#[derive(Debug, Clone)]
struct Watch {
    room: usize,
    after: u64,
    tag: u64,
    mailbox: usize,
}

/// See the module's documentation.
#[derive(Debug, Clone, Default)]
pub(crate) struct Model {
    rooms: BTreeMap<usize, Vec<Message>>,
    producers: BTreeMap<usize, Producer>,
    /// What a restart finds of the producers.
    logged: BTreeMap<usize, BTreeMap<u64, Place>>,
    /// Producers that were forgotten, but not on the disk yet.
    forgotten: BTreeSet<usize>,
    cursors: BTreeMap<(usize, u8), At>,
    watches: Vec<Watch>,
    /// Up to where the epoch before still counts, where there is one.
    forks: BTreeMap<usize, u64>,
}

impl Model {
    pub(crate) fn room(&self, room: usize) -> Option<&[Message]> {
        self.rooms.get(&room).map(Vec::as_slice)
    }

    pub(crate) fn rooms(&self) -> impl Iterator<Item = (usize, &[Message])> {
        self.rooms
            .iter()
            .map(|(room, messages)| (*room, messages.as_slice()))
    }

    pub(crate) fn head(&self, room: usize) -> u64 {
        self.room(room)
            .map_or(0, |messages| u64::try_from(messages.len()).unwrap())
    }

    pub(crate) fn highest(&self, who: usize) -> u64 {
        self.producers
            .get(&who)
            .map_or(0, |producer| producer.highest)
    }

    pub(crate) fn owner(&self, who: usize) -> u64 {
        self.producers
            .get(&who)
            .map_or(0, |producer| producer.owner)
    }

    pub(crate) fn fork(&self, room: usize) -> Option<u64> {
        self.forks.get(&room).copied()
    }

    /// The directory was copied: every room has a new epoch, grown out of the one before.
    pub(crate) fn copy(&mut self) {
        self.flush_forgotten();
        self.forks = self
            .rooms
            .keys()
            .map(|room| (*room, self.head(*room)))
            .collect();
    }

    /// What becomes of every number of an append, in order.
    pub(crate) fn append(&mut self, ask: &Ask, now: i64) -> Vec<Fate> {
        let all = |code| vec![Fate::Refused(code); usize::try_from(ask.load.count).unwrap()];
        if let Some(known) = self.producers.get(&ask.who)
            && ask.session != 0
            && ask.claimed
            && known.owner != ask.session
        {
            return all(ErrorCode::SUPERSEDED);
        }
        let highest = self.highest(ask.who);
        if highest == 0 && ask.first > 1 {
            return all(ErrorCode::OUTCOME_UNKNOWN);
        }
        let mut fates: Vec<Fate> = ask
            .numbers()
            .take_while(|number| *number <= highest)
            .map(|number| self.retried(ask.who, number))
            .collect();
        let fresh: Vec<u64> = ask.numbers().skip(fates.len()).collect();
        if fresh.is_empty() {
            return fates;
        }
        let head = self.head(ask.room);
        let producer = self.producers.entry(ask.who).or_default();
        producer.highest = producer.highest.max(ask.numbers().end - 1);
        if ask.expected.is_some_and(|expected| expected != head) {
            fates.extend(fresh.iter().map(|_| Fate::Refused(ErrorCode::WRONG_HEAD)));
            return fates;
        }
        self.flush_forgotten();
        let producer = self.producers.entry(ask.who).or_default();
        for (number, seq) in fresh.into_iter().zip(head + 1..) {
            let place = Place {
                room: ask.room,
                seq,
            };
            producer.stored.insert(number, place);
            self.logged
                .entry(ask.who)
                .or_default()
                .insert(number, place);
            self.rooms.entry(ask.room).or_default().push(Message {
                who: ask.who,
                load: ask.load.clone(),
                n: u32::try_from(number - ask.first).unwrap(),
                time: now,
            });
            fates.push(Fate::Acked(place));
        }
        fates
    }

    fn retried(&self, who: usize, number: u64) -> Fate {
        let producer = &self.producers[&who];
        let place = producer.stored.get(&number).copied();
        match place {
            _ if number + WINDOW <= producer.highest => Fate::Old(place),
            Some(place) => Fate::Acked(place),
            None => Fate::Refused(ErrorCode::NOT_STORED),
        }
    }

    pub(crate) fn hole(&mut self, who: usize, session: u64, first: u64, count: u32) {
        let known = self.producers.get(&who);
        let ours = known.is_none_or(|producer| producer.owner == session);
        // A stranger's high number must not vouch for the ones below it.
        let follows = first == 1 || self.highest(who) > 0;
        if ours && follows && count > 0 {
            let producer = self.producers.entry(who).or_default();
            producer.highest = producer.highest.max(first + u64::from(count) - 1);
        }
    }

    pub(crate) fn claim(&mut self, who: usize, session: u64) {
        self.producers.entry(who).or_default().owner = session;
    }

    pub(crate) fn release(&mut self, who: usize, session: u64, forget: bool) {
        let Some(producer) = self.producers.get_mut(&who) else {
            return;
        };
        if producer.owner != session {
            return;
        }
        producer.owner = 0;
        if forget || producer.highest == 0 {
            self.producers.remove(&who);
            self.forgotten.insert(who);
        }
    }

    pub(crate) fn cursor(&self, room: usize, name: u8) -> CursorAnswer {
        if self.rooms.contains_key(&room) {
            CursorAnswer::Stands(self.cursors.get(&(room, name)).copied())
        } else {
            CursorAnswer::NoSuchRoom
        }
    }

    pub(crate) fn set_cursor(&mut self, set: &Move) -> CursorAnswer {
        let CursorAnswer::Stands(found) = self.cursor(set.room, set.name) else {
            return CursorAnswer::NoSuchRoom;
        };
        if set.expected.is_some_and(|expected| expected != found) {
            return CursorAnswer::Conflict(found);
        }
        self.flush_forgotten();
        match set.to {
            Some(at) => self.cursors.insert((set.room, set.name), at),
            None => self.cursors.remove(&(set.room, set.name)),
        };
        CursorAnswer::Stands(set.to)
    }

    /// Sets a watch; false when the room has grown already.
    pub(crate) fn watch(&mut self, room: usize, after: u64, tag: u64, mailbox: usize) -> bool {
        let waits = self.head(room) <= after;
        if waits {
            self.watches.push(Watch {
                room,
                after,
                tag,
                mailbox,
            });
        }
        waits
    }

    pub(crate) fn unwatch(&mut self, room: usize, tag: u64, mailbox: usize) {
        self.watches
            .retain(|watch| (watch.room, watch.tag, watch.mailbox) != (room, tag, mailbox));
    }

    /// The watches that fire now: tags and mailboxes.
    pub(crate) fn fire(&mut self) -> Vec<(u64, usize)> {
        let watches = std::mem::take(&mut self.watches);
        let (fired, waiting) = watches
            .into_iter()
            .partition(|watch| self.head(watch.room) > watch.after);
        self.watches = waiting;
        let fired: Vec<Watch> = fired;
        fired
            .iter()
            .map(|watch| (watch.tag, watch.mailbox))
            .collect()
    }

    /// Tags and rooms and mailboxes of the watches that wait.
    pub(crate) fn waiting(&self) -> Vec<(usize, u64, usize)> {
        self.watches
            .iter()
            .map(|watch| (watch.room, watch.tag, watch.mailbox))
            .collect()
    }

    /// Something is written, and with it what was forgotten before.
    pub(crate) fn flush_forgotten(&mut self) {
        for who in std::mem::take(&mut self.forgotten) {
            self.logged.remove(&who);
        }
    }

    /// A new process: sessions, watches and refusals are gone, what was stored is not.
    pub(crate) fn restart(&mut self) {
        self.watches.clear();
        self.forgotten.clear();
        let stored = self.logged.iter().map(|(who, stored)| {
            let producer = Producer {
                owner: 0,
                highest: stored.keys().max().copied().unwrap_or(0),
                stored: stored.clone(),
            };
            (*who, producer)
        });
        self.producers = stored.collect();
    }
}
