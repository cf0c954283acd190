//! What a store was asked and what it told, and so what must be true of it from then on.
//!
//! A [`Ledger`] plays all publishers and readers at once. It is told of every message that is sent, hears every answer, and sees
//! everything that a reader is shown. Whatever contradicts a promise is an error, whose text says which message and why:
//!
//! - an acknowledged message keeps its seq, its bytes and its room's epoch;
//! - what a reader was shown never changes and never disappears;
//! - a message is stored at most once, and a producer's messages lie in the order of its numbers;
//! - what was refused never appears; what nobody answered for, or whose outcome is unknown, may.
//!
//! Each message carries its producer and number as an extension, so that one without payload is recognised too.

use std::collections::BTreeMap;

use broker_core::store::{AckRun, Notice, ProducerKey, StoreError};
use broker_proto::{
    Epoch, ErrorCode, Level, Position, ProducerId, RoomName, SenderName, extension,
};
use bytes::Bytes;

use crate::campaign::{Broken, Harm};

/// The message extension that says who sent a message; its value is producer and number.
const IDENTITY: u16 = extension::HEADERS;

/// Something that must not be: which kind of harm, and a text for the person who looks for the reason.
pub type Verdict<T = ()> = Result<T, Broken>;

/// A promise that did not hold.
pub(crate) fn broken<T>(harm: Harm, what: impl Into<String>) -> Verdict<T> {
    Err(Broken::new(harm, what))
}

/// One message, whoever looks at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct MessageId {
    /// Which producer.
    pub producer: u16,
    /// Its number.
    pub number: u64,
}

impl MessageId {
    /// The extension list that carries it.
    #[must_use]
    pub fn extensions(self) -> Vec<u8> {
        let mut value = self.producer.to_le_bytes().to_vec();
        value.extend_from_slice(&self.number.to_le_bytes());
        let mut list = Vec::new();
        extension::push(&mut list, IDENTITY, &value);
        list
    }

    /// The first message that a text names.
    #[must_use]
    pub fn find(text: &str) -> Option<Self> {
        let number = |after: &str| {
            let rest = text.split_once(after)?.1;
            rest.split(|c: char| !c.is_ascii_digit())
                .next()?
                .parse()
                .ok()
        };
        Some(Self {
            producer: u16::try_from(number("producer: ")?).ok()?,
            number: number("number: ")?,
        })
    }

    /// Reads it back.
    #[must_use]
    pub fn parse(list: &[u8]) -> Option<Self> {
        let found = extension::iter(list).find(|extension| extension.key == IDENTITY)?;
        let (producer, number) = found.value.split_first_chunk()?;
        Some(Self {
            producer: u16::from_le_bytes(*producer),
            number: u64::from_le_bytes(number.try_into().ok()?),
        })
    }
}

/// What is known of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Nobody answered yet.
    Open,
    /// Stored with this seq.
    Acked(u64),
    /// Not stored, and never will be.
    Refused,
    /// The store said that it does not know.
    Unknown,
}

/// A message that was sent.
#[derive(Debug, Clone)]
pub struct Sent {
    /// Number of the room it was sent to.
    pub room: u16,
    /// What it carries.
    pub payload: Bytes,
    /// What is known of it.
    pub fate: Fate,
    /// Whether [`Fate::Unknown`] was ever said: then the message may appear whatever is said later.
    pub doubtful: bool,
    /// Whether a fault of the disk was ever in its way.
    pub had_fault: bool,
    /// Its own session refused it: it never reached the store.
    pub is_hole: bool,
}

/// A room as readers know it.
#[derive(Debug, Clone, Default)]
pub struct Room {
    /// Its epoch, once somebody was told.
    pub epoch: Option<Epoch>,
    /// What was shown, by seq.
    pub shown: BTreeMap<u64, MessageId>,
}

/// What of a room need not be there any more.
#[derive(Debug, Clone, Copy, Default)]
pub struct Kept {
    /// The oldest seq that is kept when all is done that was asked for.
    pub asked: u64,
    /// The oldest seq that somebody was told of as the oldest that is kept: nothing before it ever comes back.
    pub told: u64,
    /// The smallest number of messages that it was ever set to keep.
    pub count: Option<u64>,
}

/// A cursor: where it was known to stand, and where it may stand since.
#[derive(Debug, Clone, Default)]
pub struct Cursor {
    /// The last answer.
    pub settled: Option<Position>,
    /// Moves that nobody answered for since.
    pub open: Vec<Option<Position>>,
    /// All moves ever asked for.
    pub history: Vec<Option<Position>>,
}

/// See the module's documentation.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    /// All messages.
    pub sent: BTreeMap<MessageId, Sent>,
    /// All rooms that were ever written to.
    pub rooms: BTreeMap<u16, Room>,
    /// What of rooms need not be there any more.
    pub kept: BTreeMap<u16, Kept>,
    /// Rooms that were to be removed, and whether they are.
    pub removed: BTreeMap<u16, bool>,
    /// All cursors, by room and name.
    pub cursors: BTreeMap<(u16, u8), Cursor>,
    /// The highest term of any leader that wrote something.
    pub term: u64,
    /// The disk lied: what was acknowledged may be gone, but what is served is right all the same.
    pub lied_to: bool,
    /// A leader has said that something is damaged. The next one need not find it again, behind a checkpoint.
    pub damage_told: bool,
    /// The disk has faults now.
    pub faults: bool,
    /// Answers heard.
    pub answers: u64,
}

/// The name of a room.
///
/// # Errors
/// Never, unless the rules for names change.
pub fn room_name(room: u16) -> Verdict<RoomName> {
    RoomName::parse(&format!("room-{room}")).map_err(|error| error.to_string().into())
}

/// The room of a name.
#[must_use]
pub fn room_of(name: &str) -> Option<u16> {
    name.strip_prefix("room-")?.parse().ok()
}

/// The key of a producer.
///
/// # Errors
/// Never, unless the rules for names change.
pub fn producer_key(producer: u16) -> Verdict<ProducerKey> {
    // As long as names may be, so that records reach the sizes that the store has to reckon with.
    let sender = SenderName::parse(&"ann-".repeat(16)).map_err(|error| error.to_string())?;
    let mut id = [7; 16];
    if let Some(place) = id.first_chunk_mut() {
        *place = producer.to_le_bytes();
    }
    Ok(ProducerKey {
        sender,
        producer: ProducerId::new(id),
    })
}

fn producer_of(id: ProducerId) -> u16 {
    let [low, high, ..] = *id.as_bytes();
    u16::from_le_bytes([low, high])
}

impl Ledger {
    /// Notes that a message is about to be sent.
    pub fn send(&mut self, id: MessageId, room: u16, payload: Bytes) {
        self.sent.insert(
            id,
            Sent {
                room,
                payload,
                fate: Fate::Open,
                doubtful: false,
                had_fault: false,
                is_hole: false,
            },
        );
    }

    /// Takes over what was sent meanwhile, but not what was heard or seen.
    pub fn learn_what_was_sent(&mut self, later: &Self) {
        for (id, sent) in &later.sent {
            let mine = self.sent.entry(*id).or_insert_with(|| Sent {
                fate: if sent.is_hole {
                    Fate::Refused
                } else {
                    Fate::Open
                },
                doubtful: false,
                ..sent.clone()
            });
            if mine.fate == Fate::Open && matches!(sent.fate, Fate::Refused | Fate::Unknown) {
                // It was on its way to being refused: it may be there, or not, also without those that came after it.
                mine.fate = Fate::Unknown;
                mine.doubtful = true;
                mine.had_fault = true;
            }
        }
        for (key, cursor) in &later.cursors {
            let mine = self.cursors.entry(*key).or_default();
            let new = cursor.history.iter().skip(mine.history.len());
            mine.open.extend(new.clone().copied());
            mine.history.extend(new.copied());
        }
        for (room, kept) in &later.kept {
            let mine = self.kept.entry(*room).or_default();
            mine.asked = mine.asked.max(kept.asked);
            mine.count = [mine.count, kept.count].into_iter().flatten().min();
        }
        for room in later.removed.keys() {
            self.removed.entry(*room).or_default();
        }
        self.lied_to |= later.lied_to;
        self.damage_told |= later.damage_told;
    }

    /// Notes that a room is about to be trimmed.
    pub fn trim(&mut self, room: u16, first: u64) {
        let kept = self.kept.entry(room).or_default();
        kept.asked = kept.asked.max(first);
    }

    /// Notes that a room is about to be set to keep so many messages.
    pub fn keep_count(&mut self, room: u16, count: u64) {
        let kept = self.kept.entry(room).or_default();
        kept.count = Some(kept.count.map_or(count, |before| before.min(count)));
    }

    /// Notes that a room is about to be removed; nobody sends anything there any more.
    pub fn remove(&mut self, room: u16) {
        self.removed.entry(room).or_default();
    }

    /// Hears that a room is removed.
    pub fn is_removed(&mut self, room: u16) {
        self.removed.insert(room, true);
    }

    /// The newest seq that may be gone from a room.
    #[must_use]
    pub fn may_be_gone(&self, room: u16) -> u64 {
        if self.removed.contains_key(&room) {
            return u64::MAX;
        }
        let Some(kept) = self.kept.get(&room) else {
            return 0;
        };
        let all = self.sent.values().filter(|sent| sent.room == room).count() as u64;
        let by_count = kept.count.map_or(0, |count| all.saturating_sub(count));
        by_count.max(kept.asked.saturating_sub(1))
    }

    /// Hears that nothing before this seq is kept.
    ///
    /// # Errors
    /// When that was never asked for.
    pub fn trimmed(&mut self, room: u16, first: u64) -> Verdict {
        if first > self.may_be_gone(room).saturating_add(1) && !self.lied_to {
            let what = format!(
                "room {room} is trimmed to seq {first}, and only {:?} was asked for",
                self.kept.get(&room)
            );
            return broken(Harm::LostAck, what);
        }
        let kept = self.kept.entry(room).or_default();
        kept.told = kept.told.max(first);
        Ok(())
    }

    /// Notes that a number will never be sent.
    pub fn hole(&mut self, id: MessageId) {
        self.send(id, 0, Bytes::new());
        if let Some(sent) = self.sent.get_mut(&id) {
            sent.fate = Fate::Refused;
            sent.is_hole = true;
        }
    }

    /// The highest number of a producer so far.
    #[must_use]
    pub fn highest(&self, producer: u16) -> u64 {
        let all = MessageId {
            producer,
            number: 0,
        }..=MessageId {
            producer,
            number: u64::MAX,
        };
        self.sent
            .range(all)
            .next_back()
            .map_or(0, |(id, _)| id.number)
    }

    /// Hears what the store says about messages.
    ///
    /// # Errors
    /// When it contradicts what was said before.
    pub fn hear(&mut self, notice: &Notice) -> Verdict {
        self.answers += 1;
        match notice {
            Notice::Acked { producer, run } => self.acked(producer_of(*producer), run),
            Notice::Refused {
                producer,
                first_number,
                count,
                code,
                detail,
                ..
            } => {
                for number in *first_number..first_number + u64::from(*count) {
                    let id = MessageId {
                        producer: producer_of(*producer),
                        number,
                    };
                    self.refused(id, *code).map_err(|why| why.at(detail))?;
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn acked(&mut self, producer: u16, run: &AckRun) -> Verdict {
        let Some(room) = room_of(run.room.as_str()) else {
            let what = format!("an ack names {}, where nobody ever sent anything", run.room);
            return broken(Harm::Phantom, what);
        };
        if run.level != Level::SYNCED {
            return broken(Harm::Other, format!("an ack has level {:?}", run.level));
        }
        self.epoch(room, run.epoch)?;
        for n in 0..u64::from(run.count) {
            let id = MessageId {
                producer,
                number: run.first_number + n,
            };
            let seq = run.first_seq.get() + n;
            let lied_to = self.lied_to;
            let sent = self.sent.get_mut(&id).ok_or_else(|| {
                Broken::new(
                    Harm::Phantom,
                    format!("{id:?} was acknowledged and never sent"),
                )
            })?;
            if sent.room != room {
                let what = format!(
                    "{id:?} was sent to room {} and acknowledged in {room}",
                    sent.room
                );
                return broken(Harm::SilentCorruption, what);
            }
            match sent.fate {
                Fate::Acked(before) if before != seq && !lied_to => {
                    let what =
                        format!("{id:?} was acknowledged with seq {before} and then with {seq}");
                    return broken(Harm::Doubled, what);
                }
                Fate::Refused if !sent.doubtful => {
                    let what =
                        format!("{id:?} was refused for good and then acknowledged with seq {seq}");
                    return broken(Harm::Phantom, what);
                }
                _ => sent.fate = Fate::Acked(seq),
            }
            if seq > self.may_be_gone(room) {
                self.show(room, seq, id)?;
            }
        }
        Ok(())
    }

    fn refused(&mut self, id: MessageId, code: ErrorCode) -> Verdict {
        let lied_to = self.lied_to;
        let removed = &self.removed;
        let sent = self
            .sent
            .get_mut(&id)
            .ok_or_else(|| format!("{id:?} was refused and never sent"))?;
        if removed.contains_key(&sent.room) {
            // What is known of messages there went with the room.
            return Ok(());
        }
        let says_nothing = [
            ErrorCode::READ_ONLY,
            ErrorCode::OUTCOME_UNKNOWN,
            ErrorCode::IN_DOUBT,
            ErrorCode::GOING_AWAY,
        ]
        .contains(&code);
        sent.had_fault |= self.faults;
        match sent.fate {
            // It never says so of what it has stored.
            Fate::Acked(_) if (says_nothing && code != ErrorCode::READ_ONLY) || lied_to => {}
            Fate::Acked(seq) => {
                let what = format!("{id:?} has seq {seq} and was refused with {code}");
                return broken(Harm::LostAck, what);
            }
            Fate::Open | Fate::Unknown | Fate::Refused
                if [ErrorCode::OUTCOME_UNKNOWN, ErrorCode::IN_DOUBT].contains(&code) =>
            {
                sent.fate = Fate::Unknown;
                sent.doubtful = true;
            }
            // It says nothing about an earlier attempt.
            Fate::Open | Fate::Unknown if says_nothing => {
                sent.doubtful = true;
                sent.fate = Fate::Unknown;
            }
            Fate::Open => sent.fate = Fate::Refused,
            // Now it is known after all: it must not appear any more.
            Fate::Unknown => {
                sent.fate = Fate::Refused;
                sent.doubtful = false;
            }
            Fate::Refused => {}
        }
        Ok(())
    }

    /// Hears the epoch of a room.
    ///
    /// # Errors
    /// When it is not the one that was heard before.
    pub fn epoch(&mut self, room: u16, epoch: Epoch) -> Verdict {
        let lied_to = self.lied_to;
        let known = self
            .rooms
            .entry(room)
            .or_default()
            .epoch
            .get_or_insert(epoch);
        if *known != epoch && !lied_to {
            let what = format!("room {room} had epoch {known} and now has {epoch}");
            return broken(Harm::SilentCorruption, what);
        }
        Ok(())
    }

    /// Sees what a reader is shown.
    ///
    /// # Errors
    /// When it is not what was there before, or cannot be there at all.
    pub fn show(&mut self, room: u16, seq: u64, id: MessageId) -> Verdict {
        let lied_to = self.lied_to;
        let told = self.kept.get(&room).map_or(0, |kept| kept.told);
        if seq < told && !lied_to {
            let what = format!("room {room} shows seq {seq} again, though {told} was the oldest");
            return broken(Harm::Phantom, what);
        }
        let Some(sent) = self.sent.get(&id) else {
            let what = format!("room {room} shows {id:?} at seq {seq}, which was never sent");
            return broken(Harm::Phantom, what);
        };
        if sent.room != room {
            let what = format!(
                "room {room} shows {id:?} at seq {seq}, which was sent to room {}",
                sent.room
            );
            return broken(Harm::SilentCorruption, what);
        }
        match sent.fate {
            Fate::Acked(acked) if acked != seq && !lied_to => {
                let what =
                    format!("{id:?} was acknowledged with seq {acked} and is shown at {seq}");
                return broken(Harm::Doubled, what);
            }
            Fate::Refused if !sent.doubtful => {
                let what = format!("{id:?} was refused and is shown at seq {seq} of room {room}");
                return broken(Harm::Phantom, what);
            }
            _ => {}
        }
        let before = self.rooms.entry(room).or_default().shown.insert(seq, id);
        match before {
            Some(before) if before != id && !lied_to => broken(
                Harm::Phantom,
                format!("seq {seq} of room {room} was {before:?} and is {id:?} now"),
            ),
            _ => Ok(()),
        }
    }

    /// Notes that a cursor is about to be moved.
    pub fn move_cursor(&mut self, key: (u16, u8), to: Option<Position>) {
        let cursor = self.cursors.entry(key).or_default();
        cursor.open.push(to);
        cursor.history.push(to);
    }

    /// The leader is gone, and with it all moves that it had not made yet.
    pub fn settle_cursors(&mut self) {
        for cursor in self.cursors.values_mut() {
            cursor.open.clear();
        }
    }

    /// Hears where a cursor stands. Its value is durable from then on.
    ///
    /// # Errors
    /// When it cannot stand there.
    pub fn cursor(
        &mut self,
        key: (u16, u8),
        found: &Result<Option<Position>, StoreError>,
    ) -> Verdict {
        if self.removed.contains_key(&key.0) {
            return Ok(());
        }
        let cursor = self.cursors.entry(key).or_default();
        match found {
            Ok(position) => {
                let moved = cursor.open.iter().position(|to| to == position);
                if moved.is_none() && *position != cursor.settled && !self.lied_to {
                    let what =
                        format!("cursor {key:?} stands at {position:?}, but was set to {cursor:?}");
                    return broken(Harm::LostAck, what);
                }
                cursor.settled = *position;
                if let Some(moved) = moved {
                    cursor.open.drain(..=moved);
                }
                Ok(())
            }
            // The room's first message was never answered for.
            Err(StoreError::NoSuchRoom { .. }) if cursor.settled.is_none() || self.lied_to => {
                Ok(())
            }
            Err(StoreError::NoSpace { .. } | StoreError::ReadOnly { .. } | StoreError::Closed) => {
                Ok(())
            }
            Err(error) => broken(
                Harm::LostAck,
                format!("cursor {key:?}: {error}, but was set to {cursor:?}"),
            ),
        }
    }
}

/// Looks at everything that a new leader serves.
pub mod check {
    use std::collections::BTreeMap;

    use broker_core::log::storage::Storage;
    use broker_core::store::Store;

    use super::{Fate, Ledger, MessageId, Verdict, broken};
    use crate::campaign::Harm;
    use crate::rig::{Rig, Shown};

    /// Checks a store that was just opened, on a disk without faults, after a crash. Everything that it shows is shown from then on.
    ///
    /// # Errors
    /// When a promise was broken.
    pub fn after_recovery<S: Storage>(
        rig: &mut Rig<S>,
        ledger: &mut Ledger,
        bytes_max: u32,
    ) -> Verdict {
        let info = rig.store.info();
        if info.term.get() <= ledger.term {
            let what = format!("the term is {} and was {} before", info.term, ledger.term);
            return broken(Harm::Other, what);
        }
        if let Some(reason) = info.read_only {
            return broken(Harm::Other, format!("a new leader is read-only: {reason}"));
        }
        if info.damaged > 0 && !ledger.lied_to {
            // What it cost is worse than the false alarm, if it cost something.
            let cost = contents(rig, ledger, bytes_max)
                .and_then(|present| nothing_is_lost(ledger, &present));
            cost.or_else(|cost| match cost.harm {
                Harm::Other => Ok(()),
                _ => Err(cost.at("told as damage, and nothing did it")),
            })?;
            let what = format!(
                "{} places are damaged and nothing did it: {:?}",
                info.damaged, info.damage
            );
            return broken(Harm::Other, what);
        }
        ledger.damage_told |= info.damaged > 0;
        let present = contents(rig, ledger, bytes_max)?;
        if !ledger.lied_to {
            nothing_is_lost(ledger, &present)?;
            nothing_is_skipped(ledger, &present)?;
        }
        cursors(rig, ledger)
    }

    /// Checks that a leader still serves all that was acknowledged or shown, on a disk that tells the truth.
    ///
    /// # Errors
    /// When something is gone.
    pub fn everything_is_there<S: Storage>(
        rig: &Rig<S>,
        ledger: &mut Ledger,
        bytes_max: u32,
    ) -> Verdict {
        let present = contents(rig, ledger, bytes_max)?;
        nothing_is_lost(ledger, &present)
    }

    /// Where every message is.
    fn contents<S: Storage>(
        rig: &Rig<S>,
        ledger: &mut Ledger,
        bytes_max: u32,
    ) -> Verdict<BTreeMap<MessageId, u64>> {
        let mut present = BTreeMap::new();
        for (room, epoch) in rig.rooms()? {
            ledger.epoch(room, epoch)?;
            if ledger.removed.get(&room) == Some(&true) && !ledger.lied_to {
                return broken(
                    Harm::Phantom,
                    format!("room {room} was removed and is there"),
                );
            }
            let shown = rig
                .read(ledger, room, 1, bytes_max)?
                .ok_or_else(|| format!("room {room} is listed and does not exist"))?;
            nothing_is_damaged(ledger, room, &shown)?;
            let mut newest: BTreeMap<u16, u64> = BTreeMap::new();
            for (seq, id) in shown.messages {
                let other = present.insert(id, seq);
                // Also when what told the store of its number is lost: then the outcome of a second attempt is unknown.
                if let Some(other) = other {
                    let what = format!("{id:?} is stored twice, at seqs {other} and {seq}");
                    return broken(Harm::Doubled, what);
                }
                let before = newest.insert(id.producer, id.number);
                if before.is_some_and(|before| before >= id.number) && !ledger.lied_to {
                    let what = format!("in room {room} {id:?} comes after number {before:?}");
                    return broken(Harm::Doubled, what);
                }
            }
        }
        Ok(present)
    }

    /// A disk that told the truth leaves no damage.
    ///
    /// # Errors
    /// When a reader is told of some.
    pub fn nothing_is_damaged(ledger: &Ledger, room: u16, shown: &Shown) -> Verdict {
        if shown.skips.is_empty() || ledger.lied_to {
            return Ok(());
        }
        let known = ledger.rooms.get(&room);
        let was_there = shown.skips.iter().any(|(from, to)| {
            known.is_some_and(|known| known.shown.range(from..=to).next().is_some())
        });
        let harm = if was_there {
            Harm::LostAck
        } else {
            Harm::Other
        };
        broken(
            harm,
            format!("room {room} tells of damage: {:?}", shown.skips),
        )
    }

    fn nothing_is_lost(ledger: &Ledger, present: &BTreeMap<MessageId, u64>) -> Verdict {
        let rooms = ledger.kept.keys().chain(ledger.removed.keys());
        let may_be_gone: BTreeMap<u16, u64> = rooms
            .map(|room| (*room, ledger.may_be_gone(*room)))
            .collect();
        let gone = |room: u16| may_be_gone.get(&room).copied().unwrap_or(0);
        for (id, sent) in &ledger.sent {
            if let Fate::Acked(seq) = sent.fate
                && !present.contains_key(id)
                && seq > gone(sent.room)
            {
                let what = format!(
                    "{id:?}, acknowledged with seq {seq} of room {}, is gone",
                    sent.room
                );
                return broken(Harm::LostAck, what);
            }
        }
        for (number, room) in &ledger.rooms {
            for (seq, id) in &room.shown {
                if *seq > gone(*number) && present.get(id) != Some(seq) {
                    let what = format!(
                        "a reader of room {number} was shown {id:?} at seq {seq}, and it is gone"
                    );
                    return broken(Harm::Phantom, what);
                }
            }
        }
        Ok(())
    }

    /// What nobody answered for is there or not, but not one without those that the same producer sent before it.
    fn nothing_is_skipped(ledger: &Ledger, present: &BTreeMap<MessageId, u64>) -> Verdict {
        let mut absent: Option<MessageId> = None;
        for (id, sent) in &ledger.sent {
            if absent.is_some_and(|absent| absent.producer != id.producer) {
                absent = None;
            }
            if present.contains_key(id) {
                if let Some(absent) = absent {
                    return broken(Harm::Doubled, format!("{id:?} is there without {absent:?}"));
                }
            } else if sent.fate == Fate::Open && ledger.may_be_gone(sent.room) == 0 {
                absent = absent.or(Some(*id));
            }
        }
        Ok(())
    }

    fn cursors<S: Storage>(rig: &mut Rig<S>, ledger: &mut Ledger) -> Verdict {
        let keys: Vec<(u16, u8)> = ledger.cursors.keys().copied().collect();
        for key in keys {
            rig.ask_cursor(key)?;
        }
        rig.work();
        rig.answers(ledger)?;
        ledger.settle_cursors();
        Ok(())
    }
}
