//! Messages that are stored, while it is lost which numbers of which producer they are.
//!
//! Damage can take the record that says which numbers a batch held and leave its messages readable.
//! A publish that is sent again then looks new, and storing it would double a message. So recovery
//! collects such messages here, and what may be sent again is compared with them: sender, room,
//! length and checksum. They are kept for as long as a producer is remembered; nobody sends anything
//! again after that.
//!
//! **Invariants:** nothing is added after the start; at most [`MESSAGES_MAX`] are told one by one,
//! and for those beyond it is only known that there are some.

use std::collections::{BTreeMap, HashMap};

use broker_proto::{Micros, RoomId, SenderName, Seq};

use super::Producers;

/// The store remembers no more messages in doubt than this, one by one: their records have to fit
/// into one batch beside others.
pub(crate) const MESSAGES_MAX: usize = 16_384;

/// One message in doubt. The order is that in which one is looked for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Doubtful {
    /// Of the payload.
    pub(crate) crc: u32,
    /// Of the payload, in bytes.
    pub(crate) length: u32,
    pub(crate) sender: SenderName,
    pub(crate) room: RoomId,
    pub(crate) seq: Seq,
}

/// What is known of it beside.
#[derive(Debug, Clone, Copy)]
struct Note {
    /// When it was stored.
    time: Micros,
    /// Whether a record of its own tells of it, so that it is safe without the damaged batch.
    told: bool,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(crate) struct InDoubt {
    messages: BTreeMap<Doubtful, Note>,
    /// There are more, none of them newer than this.
    more: Option<Note>,
    /// Nothing here is older.
    oldest: Option<Micros>,
}

impl InDoubt {
    /// Whether every publish can be decided.
    pub(crate) fn is_empty(&self) -> bool {
        self.messages.is_empty() && self.more.is_none()
    }

    /// How many are known one by one.
    pub(crate) fn len(&self) -> usize {
        self.messages.len()
    }

    /// Whether any message at all may be stored already.
    pub(crate) fn is_any(&self) -> bool {
        self.more.is_some()
    }

    /// Adds a message that was stored at this time. `told` says that it comes from a record.
    pub(crate) fn add(&mut self, message: Doubtful, time: Micros, told: bool) {
        let full = self.messages.len() >= MESSAGES_MAX;
        if full && !self.messages.contains_key(&message) {
            self.add_more(time, told);
            return;
        }
        self.note_age(time);
        let note = self.messages.entry(message).or_insert(Note { time, told });
        note.told |= told;
    }

    /// Notes that there are others, none of them newer than this.
    pub(crate) fn add_more(&mut self, time: Micros, told: bool) {
        self.note_age(time);
        let more = self.more.get_or_insert(Note { time, told });
        // What is told is told only up to the time that the record names.
        more.told = match time.cmp(&more.time) {
            std::cmp::Ordering::Greater => told,
            std::cmp::Ordering::Equal => more.told || told,
            std::cmp::Ordering::Less => more.told,
        };
        more.time = more.time.max(time);
    }

    fn note_age(&mut self, time: Micros) {
        self.oldest = Some(self.oldest.map_or(time, |oldest| oldest.min(time)));
    }

    /// A message in doubt that this one may be. `room` is `None` when it does not exist; rooms whose
    /// names are lost may be any.
    pub(crate) fn find(
        &self,
        (sender, length, crc): (&SenderName, u32, u32),
        room: Option<RoomId>,
        is_nameless: impl Fn(RoomId) -> bool,
    ) -> Option<Seq> {
        let from = |room| Doubtful {
            crc,
            length,
            sender: sender.clone(),
            room,
            seq: Seq::NONE,
        };
        let is_same = |found: &Doubtful| {
            found.crc == crc && found.length == length && found.sender == *sender
        };
        let mut at = RoomId::NONE;
        loop {
            let (found, _) = self.messages.range(from(at)..).next()?;
            if !is_same(found) {
                return None;
            }
            if Some(found.room) == room || is_nameless(found.room) {
                return Some(found.seq);
            }
            at = RoomId::new(found.room.get().checked_add(1)?);
        }
    }

    /// Drops what some producer's runs answer for after all.
    pub(crate) fn settle(&mut self, producers: &Producers) {
        if self.messages.is_empty() {
            return;
        }
        let mut claims: HashMap<RoomId, BTreeMap<u64, u64>> = HashMap::new();
        for run in producers.iter().flat_map(|(_, producer)| &producer.runs) {
            let end = run.seq.get().saturating_add(u64::from(run.count));
            claims
                .entry(run.room)
                .or_default()
                .insert(run.seq.get(), end);
        }
        self.messages.retain(|message, _| {
            let before = claims
                .get(&message.room)
                .and_then(|claims| claims.range(..=message.seq.get()).next_back());
            before.is_none_or(|(_, end)| *end <= message.seq.get())
        });
    }

    /// Forgets what is older than producers are remembered.
    pub(crate) fn expire(&mut self, now: Micros, idle_secs: u32) {
        let limit = now
            .get()
            .saturating_sub(i64::from(idle_secs).saturating_mul(1_000_000));
        if self.oldest.is_none_or(|oldest| oldest.get() >= limit) {
            return;
        }
        self.messages.retain(|_, note| note.time.get() >= limit);
        self.more = self.more.filter(|more| more.time.get() >= limit);
        let times = self.messages.values().chain(&self.more);
        self.oldest = times.map(|note| note.time).min();
    }

    /// Everything, or what no record tells of yet: messages, in the order of senders, rooms and seqs.
    pub(crate) fn list(&self, only_untold: bool) -> Vec<(&Doubtful, Micros)> {
        let wanted = self
            .messages
            .iter()
            .filter(|(_, note)| !(only_untold && note.told));
        let mut list: Vec<_> = wanted.map(|(message, note)| (message, note.time)).collect();
        list.sort_unstable_by(|(one, _), (other, _)| {
            let order = |message: &Doubtful| (message.room, message.seq);
            (&one.sender, order(one)).cmp(&(&other.sender, order(other)))
        });
        list
    }

    /// The newest time of those that are not listed, if there are any, or if no record tells of them.
    pub(crate) fn more(&self, only_untold: bool) -> Option<Micros> {
        self.more
            .filter(|more| !(only_untold && more.told))
            .map(|more| more.time)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]
    use broker_proto::ProducerId;

    use super::super::{ProducerKey, Run};
    use super::*;

    fn name(name: &str) -> SenderName {
        SenderName::parse(name).unwrap()
    }

    fn doubtful(room: u32, seq: u64, crc: u32) -> Doubtful {
        Doubtful {
            crc,
            length: 5,
            sender: name("ann"),
            room: RoomId::new(room),
            seq: Seq::new(seq),
        }
    }

    fn find(in_doubt: &InDoubt, room: u32, what: (&str, u32, u32)) -> Option<u64> {
        let room = (room > 0).then(|| RoomId::new(room));
        let found = in_doubt.find((&name(what.0), what.1, what.2), room, |id| id.get() == 9);
        found.map(Seq::get)
    }

    #[test]
    fn only_the_same_message_is_found() {
        let mut in_doubt = InDoubt::default();
        for (room, seq) in [(2, 7), (2, 6), (4, 1), (9, 3)] {
            in_doubt.add(doubtful(room, seq, 50), Micros::new(1), false);
        }
        in_doubt.add(doubtful(1, 1, 51), Micros::new(1), false);
        assert_eq!(find(&in_doubt, 2, ("ann", 5, 50)), Some(6));
        assert_eq!(find(&in_doubt, 4, ("ann", 5, 50)), Some(1));
        // Room 9 has lost its name: it may be the one that is meant.
        assert_eq!(find(&in_doubt, 1, ("ann", 5, 50)), Some(3));
        assert_eq!(find(&in_doubt, 0, ("ann", 5, 50)), Some(3));
        assert_eq!(find(&in_doubt, 1, ("ann", 5, 51)), Some(1));
        for other in [("bob", 5, 50), ("ann", 6, 50), ("ann", 5, 52)] {
            assert_eq!(find(&in_doubt, 2, other), None, "{other:?}");
        }
    }

    #[test]
    fn beyond_the_limit_it_is_only_known_that_there_are_more() {
        let mut in_doubt = InDoubt::default();
        let max = u64::try_from(MESSAGES_MAX).unwrap();
        for seq in 1..=max {
            in_doubt.add(doubtful(1, seq, 50), Micros::new(10), true);
        }
        in_doubt.add(doubtful(1, max, 50), Micros::new(10), true);
        assert!(!in_doubt.is_any(), "it was there already");
        in_doubt.add(doubtful(1, max + 1, 50), Micros::new(30), false);
        assert!(in_doubt.is_any());
        assert_eq!(in_doubt.len(), MESSAGES_MAX);
        assert_eq!(in_doubt.more(true), Some(Micros::new(30)));
        in_doubt.add_more(Micros::new(30), true);
        assert_eq!(in_doubt.more(true), None);
        assert_eq!(in_doubt.more(false), Some(Micros::new(30)));
        assert!(in_doubt.list(true).is_empty());
    }

    #[test]
    fn what_is_old_is_forgotten() {
        let mut in_doubt = InDoubt::default();
        in_doubt.add(doubtful(1, 1, 50), Micros::new(1_000_000), false);
        in_doubt.add(doubtful(1, 2, 50), Micros::new(3_000_000), false);
        in_doubt.add_more(Micros::new(4_000_000), false);
        in_doubt.expire(Micros::new(11_000_000), 10);
        assert_eq!(in_doubt.len(), 2);
        in_doubt.expire(Micros::new(11_000_001), 10);
        assert_eq!(find(&in_doubt, 1, ("ann", 5, 50)), Some(2));
        in_doubt.expire(Micros::new(13_500_000), 10);
        assert_eq!((in_doubt.list(false).len(), in_doubt.is_any()), (0, true));
        in_doubt.expire(Micros::new(14_500_000), 10);
        assert!(in_doubt.is_empty());
    }

    #[test]
    fn what_a_producer_answers_for_is_in_no_doubt() {
        let mut in_doubt = InDoubt::default();
        for (room, seq) in [(1, 4), (1, 5), (1, 6), (1, 7), (2, 5)] {
            in_doubt.add(doubtful(room, seq, 50), Micros::new(1), false);
        }
        let mut producers = Producers::default();
        let key = ProducerKey {
            sender: name("ann"),
            producer: ProducerId::new([1; 16]),
        };
        producers.entry(&key).push(Run {
            first: 9,
            count: 2,
            room: RoomId::new(1),
            seq: Seq::new(5),
        });
        in_doubt.settle(&producers);
        let left = in_doubt.list(true);
        let left: Vec<_> = left
            .iter()
            .map(|(message, _)| (message.room.get(), message.seq.get()))
            .collect();
        assert_eq!(left, [(1, 4), (1, 7), (2, 5)]);
    }
}
