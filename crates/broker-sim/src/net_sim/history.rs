//! [`History`]: what clients asked for and were told, and what must be true of it.
//!
//! It knows nothing of how the broker works. Every message has an identity in its payload; where a message was seen, by an ack, a
//! subscription or a page, must be the same place every time, and no other message may be seen there.

use std::collections::{BTreeMap, BTreeSet};

use broker_core::net::client::{Error, ErrorKind, Message};
use broker_proto::{Epoch, ErrorCode, Position};
use bytes::Bytes;

use crate::campaign::{Broken, Harm};

/// A broken promise, in words; or nothing.
pub(super) type Verdict<T = ()> = Result<T, Broken>;

/// What is known of one send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// Nobody has answered.
    Pending,
    /// Stored at this seq.
    Acked(u64),
    /// Not stored, and never will be.
    Refused,
    /// Stored or not; nobody can know. Never twice.
    Unknown,
}

/// One message that a client sent.
#[derive(Debug, Clone)]
pub(super) struct Sent {
    /// Who, and in which of its lives.
    pub(super) client: usize,
    pub(super) life: u32,
    pub(super) room: usize,
    pub(super) payload: Bytes,
    /// Sent under an identity of its own, and again until it is acknowledged.
    pub(super) keyed: bool,
    /// Highest seq of the room that was acknowledged to anybody before it was sent.
    floor: u64,
    pub(super) fate: Fate,
    /// Where it was seen.
    seen: Option<u64>,
}

/// One room, as all clients together know it.
#[derive(Debug, Clone, Default)]
struct Known {
    epoch: Option<Epoch>,
    /// Which message is at a seq.
    at: BTreeMap<u64, usize>,
    /// Highest seq that was acknowledged.
    acked: u64,
}

/// Where a cursor can be.
#[derive(Debug, Clone, Default)]
struct Cursor {
    set: Option<Position>,
    /// Moves whose outcome is not known.
    maybe: Vec<Position>,
}

/// How much was tried and told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Messages sent.
    pub sent: u64,
    /// Of these: acknowledged.
    pub acked: u64,
    /// Told that they were not stored.
    pub refused: u64,
    /// Told that it is unknown, or never told because the client died.
    pub unknown: u64,
    /// Sent again under the same identity by the application, after a failure or the client's own death.
    pub resent: u64,
    /// Messages that came to subscriptions.
    pub delivered: u64,
    /// Subscriptions.
    pub subscriptions: u64,
    /// Of these: from a position that an earlier one had reached.
    pub resumed: u64,
    /// Pages read.
    pub pages: u64,
    /// Cursors moved and asked for.
    pub cursors: u64,
    /// Connections made again.
    pub reconnects: u64,
}

impl Counts {
    /// Adds those of another run.
    pub fn add(&mut self, other: &Self) {
        self.sent += other.sent;
        self.acked += other.acked;
        self.refused += other.refused;
        self.unknown += other.unknown;
        self.resent += other.resent;
        self.delivered += other.delivered;
        self.subscriptions += other.subscriptions;
        self.resumed += other.resumed;
        self.pages += other.pages;
        self.cursors += other.cursors;
        self.reconnects += other.reconnects;
    }
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct History {
    pub(super) sent: Vec<Sent>,
    rooms: Vec<Known>,
    cursors: BTreeMap<(usize, usize), Cursor>,
    /// Up to where each client has read a room, over all its lives.
    pub(super) read: BTreeMap<(usize, usize), Position>,
    pub(super) counts: Counts,
}

/// The name of a room.
pub(super) fn room_name(room: usize) -> String {
    format!("room-{room}")
}

/// The sender of a client.
pub(super) fn sender_name(client: usize) -> String {
    format!("client-{client}")
}

impl History {
    pub(super) fn new(rooms: usize) -> Self {
        Self {
            rooms: vec![Known::default(); rooms],
            ..Self::default()
        }
    }

    /// Writes a new message down and gives its number. The payload begins with the number.
    pub(super) fn send(
        &mut self,
        (client, life): (usize, u32),
        room: usize,
        bytes: usize,
        keyed: bool,
    ) -> usize {
        let id = self.sent.len();
        let mut payload = format!("{id};").into_bytes();
        // Other letters at the same place of another message.
        let letters = (b'a'..=b'z').cycle().skip(id % 26);
        let missing = bytes.saturating_sub(payload.len());
        payload.extend(letters.take(missing));
        let floor = self.rooms.get(room).map_or(0, |known| known.acked);
        self.counts.sent += 1;
        self.sent.push(Sent {
            client,
            life,
            room,
            payload: payload.into(),
            keyed,
            floor,
            fate: Fate::Pending,
            seen: None,
        });
        id
    }

    pub(super) fn payload(&self, id: usize) -> Bytes {
        self.sent
            .get(id)
            .map_or_else(Bytes::new, |sent| sent.payload.clone())
    }

    /// A client was told that a message is stored.
    pub(super) fn acked(&mut self, id: usize, epoch: Epoch, seq: u64) -> Verdict {
        let sent = self.sent.get(id).ok_or("an ack for nothing")?;
        let (room, floor, fate) = (sent.room, sent.floor, sent.fate);
        if let Fate::Acked(before) = fate
            && before != seq
        {
            return Err(Broken::new(
                Harm::Doubled,
                format!("message {id} was acknowledged at seq {before}, and its retry at {seq}"),
            ));
        }
        if fate == Fate::Refused {
            return Err(Broken::new(
                Harm::Phantom,
                format!("message {id} was said not to be stored, and then acknowledged"),
            ));
        }
        if seq <= floor {
            return Err(Broken::new(
                Harm::Doubled,
                format!(
                    "message {id} got seq {seq} of room {room}, and {floor} was acknowledged before it was sent"
                ),
            ));
        }
        self.place(room, epoch, seq, id)?;
        if let Some(known) = self.rooms.get_mut(room) {
            known.acked = known.acked.max(seq);
        }
        self.counts.acked += u64::from(!matches!(fate, Fate::Acked(_)));
        self.settle(id, Fate::Acked(seq));
        Ok(())
    }

    /// A client was told that a send has failed. Says whether the message may be there all the same.
    pub(super) fn failed(&mut self, id: usize, error: &Error) -> Verdict {
        let fate = match error.kind() {
            // That the same call can be repeated says that it has not done its work and never will.
            _ if error.is_retryable() => Fate::Refused,
            ErrorKind::Timeout | ErrorKind::OutcomeUnknown | ErrorKind::Closed => Fate::Unknown,
            // Another connection of the client has taken over.
            ErrorKind::Refused(ErrorCode::SUPERSEDED) => Fate::Refused,
            kind => {
                return Err(format!("message {id} failed as {kind:?}: {error}").into());
            }
        };
        match fate {
            Fate::Refused => self.counts.refused += 1,
            _ => self.counts.unknown += 1,
        }
        let keyed = self.sent.get(id).is_some_and(|sent| sent.keyed);
        let before = self.sent.get(id).map(|sent| sent.fate);
        if matches!(before, Some(Fate::Acked(_))) {
            // A retry under an identity of its own may fail; what was acknowledged stays so.
            return Ok(());
        }
        // It will be sent again.
        self.settle(id, if keyed { Fate::Unknown } else { fate });
        Ok(())
    }

    fn settle(&mut self, id: usize, fate: Fate) {
        if let Some(sent) = self.sent.get_mut(id) {
            sent.fate = fate;
        }
    }

    /// A client does not wait for an answer any more.
    pub(super) fn abandoned(&mut self, id: usize) {
        self.counts.unknown += 1;
        self.settle(id, Fate::Unknown);
    }

    pub(super) fn is_acked(&self, id: usize) -> bool {
        let sent = self.sent.get(id);
        sent.is_some_and(|sent| matches!(sent.fate, Fate::Acked(_)))
    }

    /// A client is dead: nobody hears what became of its sends.
    pub(super) fn died(&mut self, client: usize) {
        for sent in &mut self.sent {
            if sent.client == client && sent.fate == Fate::Pending {
                sent.fate = Fate::Unknown;
                self.counts.unknown += 1;
            }
        }
    }

    /// Whether some send of this client waits for an answer.
    pub(super) fn pending(&self, client: usize) -> usize {
        self.sent
            .iter()
            .filter(|sent| sent.client == client && sent.fate == Fate::Pending)
            .count()
    }

    /// The sends of a client under an identity of their own, to be sent again.
    pub(super) fn keyed(&self, client: usize) -> Vec<usize> {
        (0..self.sent.len())
            .filter(|id| {
                self.sent
                    .get(*id)
                    .is_some_and(|sent| sent.client == client && sent.keyed)
            })
            .collect()
    }

    /// Highest seq of a room that was acknowledged to anybody.
    pub(super) fn acked_upto(&self, room: usize) -> u64 {
        self.rooms.get(room).map_or(0, |known| known.acked)
    }

    /// Highest seq of a room that anybody has seen.
    pub(super) fn seen_upto(&self, room: usize) -> u64 {
        self.rooms
            .get(room)
            .and_then(|known| known.at.keys().next_back().copied())
            .unwrap_or(0)
    }

    /// A reader was shown a message.
    pub(super) fn shown(&mut self, room: usize, message: &Message) -> Verdict {
        let seq = message.seq.get();
        let text = |what: &str| format!("seq {seq} of room {room} {what}");
        let digits = message.payload.split(|byte| *byte == b';').next();
        let id: usize = digits
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| digits.parse().ok())
            .ok_or_else(|| text("has no identity"))?;
        let sent = self
            .sent
            .get(id)
            .ok_or_else(|| text("was never sent by anybody"))?;
        if sent.payload != message.payload {
            return Err(Broken::new(
                Harm::SilentCorruption,
                text("does not have the bytes that were sent"),
            ));
        }
        if sent.room != room || message.room.as_str() != room_name(room) {
            return Err(Broken::new(
                Harm::SilentCorruption,
                text("was sent to another room"),
            ));
        }
        if *message.sender != *sender_name(sent.client) {
            return Err(Broken::new(
                Harm::SilentCorruption,
                text("is said to be from somebody else"),
            ));
        }
        if sent.fate == Fate::Refused {
            return Err(Broken::new(
                Harm::Phantom,
                text("was said not to be stored"),
            ));
        }
        if seq <= sent.floor {
            return Err(Broken::new(
                Harm::Doubled,
                text("is older than what was acknowledged before it was sent"),
            ));
        }
        self.place(room, message.epoch, seq, id)
    }

    /// A message is at this place, as everybody must see it.
    fn place(&mut self, room: usize, epoch: Epoch, seq: u64, id: usize) -> Verdict {
        let known = self.rooms.get_mut(room).ok_or("a room that is none")?;
        let before = *known.epoch.get_or_insert(epoch);
        if before != epoch {
            return Err(format!("room {room} was history {before}, and is {epoch} now").into());
        }
        let other = *known.at.entry(seq).or_insert(id);
        if other != id {
            return Err(Broken::new(
                Harm::Phantom,
                format!(
                    "seq {seq} of room {room} is message {id}, and message {other} was there before"
                ),
            ));
        }
        let sent = self.sent.get_mut(id).ok_or("no such message")?;
        match sent.seen {
            Some(elsewhere) if elsewhere != seq => Err(Broken::new(
                Harm::Doubled,
                format!("message {id} is twice in room {room}, at {elsewhere} and {seq}"),
            )),
            _ => {
                sent.seen = Some(seq);
                Ok(())
            }
        }
    }

    /// A cursor is about to be moved.
    pub(super) fn cursor_moves(&mut self, key: (usize, usize), to: Position) {
        self.counts.cursors += 1;
        self.cursors.entry(key).or_default().maybe.push(to);
    }

    /// A cursor was moved, for certain.
    pub(super) fn cursor_moved(&mut self, key: (usize, usize), to: Position) {
        let cursor = self.cursors.entry(key).or_default();
        cursor.set = Some(to);
        if let Some(at) = cursor.maybe.iter().position(|maybe| *maybe == to) {
            cursor.maybe.remove(at);
        }
    }

    /// A cursor was asked for.
    pub(super) fn cursor_is(&mut self, key: (usize, usize), is: Option<Position>) -> Verdict {
        self.counts.cursors += 1;
        let cursor = self.cursors.entry(key).or_default();
        if is == cursor.set || is.is_some_and(|is| cursor.maybe.contains(&is)) {
            return Ok(());
        }
        Err(format!(
            "the cursor of client {} in room {} is at {is:?}; it was set to {:?}, and perhaps to {:?}",
            key.0, key.1, cursor.set, cursor.maybe
        ).into())
    }

    /// All is over, and everything that is stored was shown: is it what was promised?
    pub(super) fn conclude(&self) -> Verdict {
        for (room, known) in self.rooms.iter().enumerate() {
            for (seq, expected) in known.at.keys().zip(1..) {
                if *seq != expected {
                    return Err(Broken::new(
                        Harm::SilentCorruption,
                        format!("seq {expected} of room {room} is nowhere, and {seq} is"),
                    ));
                }
            }
        }
        for (id, sent) in self.sent.iter().enumerate() {
            match (sent.fate, sent.seen) {
                (Fate::Acked(seq), seen) if seen != Some(seq) => {
                    return Err(Broken::new(
                        Harm::LostAck,
                        format!("message {id} was acknowledged at {seq} and is at {seen:?}"),
                    ));
                }
                (Fate::Refused, Some(seq)) => {
                    return Err(Broken::new(
                        Harm::Phantom,
                        format!("message {id} was said not to be stored, and is at {seq}"),
                    ));
                }
                (Fate::Pending, _) => return Err(format!("nobody answered message {id}").into()),
                (fate, _) if sent.keyed && !matches!(fate, Fate::Acked(_)) => {
                    return Err(format!("message {id} was sent until it was {fate:?}").into());
                }
                _ => {}
            }
        }
        self.check_order()
    }

    /// What one life of a client sent to a room is there in that order, whatever became of it.
    fn check_order(&self) -> Verdict {
        let mut last = BTreeMap::new();
        for (id, sent) in self.sent.iter().enumerate() {
            // One that was sent again has the place of whichever came first.
            let (false, Some(seq)) = (sent.keyed, sent.seen) else {
                continue;
            };
            let before = last.insert((sent.client, sent.life, sent.room), (seq, id));
            if let Some((earlier, other)) = before
                && earlier > seq
            {
                return Err(Broken::new(
                    Harm::Doubled,
                    format!(
                        "client {} sent message {other} before {id}, and they are at {earlier} and {seq} of room {}",
                        sent.client, sent.room
                    ),
                ));
            }
        }
        Ok(())
    }

    /// The rooms in which something is stored.
    pub(super) fn used_rooms(&self) -> BTreeSet<String> {
        let used = self.rooms.iter().enumerate();
        used.filter(|(_, known)| !known.at.is_empty())
            .map(|(room, _)| room_name(room))
            .collect()
    }
}
