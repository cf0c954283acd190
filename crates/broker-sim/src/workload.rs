//! What publishers and readers do, drawn from a seed.

use broker_core::store::Store;
use broker_proto::{Position, Seq};
use bytes::Bytes;

use crate::oracle::{Fate, Ledger, MessageId, Verdict, check};
use crate::rig::Rig;
use crate::rng::Rng;

/// Rooms that are written to.
const ROOMS: u64 = 6;
/// Rooms that live for a while only, at a time.
const MORTALS: usize = 2;
/// Producers at a time.
const PRODUCERS: usize = 3;
/// Largest payload, in bytes.
const PAYLOAD_BYTES_MAX: u64 = 150_000;

/// Several publishers and their readers.
#[derive(Debug, Clone)]
pub struct Workload {
    rng: Rng,
    /// Who publishes now; the numbers of those who said goodbye are never used again.
    producers: Vec<u16>,
    next_producer: u16,
    /// Rooms that will be removed; their names are never used again.
    mortals: Vec<u16>,
    next_mortal: u16,
    /// What was sent together: the first message and how many.
    sends: Vec<(MessageId, u32)>,
    /// Whether readers may meet errors of the disk.
    pub faults: bool,
}

impl Workload {
    /// The workload of this seed.
    #[must_use]
    pub fn new(rng: Rng) -> Self {
        Self {
            rng,
            producers: Vec::new(),
            next_producer: 0,
            mortals: Vec::new(),
            next_mortal: 100,
            sends: Vec::new(),
            faults: false,
        }
    }

    /// Goes on with other numbers than a clone of it.
    pub fn reseed(&mut self, rng: Rng) {
        self.rng = rng;
    }

    /// Does one thing, and often lets the writer work after it.
    ///
    /// # Errors
    /// When the store breaks a promise.
    pub fn act(&mut self, rig: &mut Rig, ledger: &mut Ledger) -> Verdict {
        match self.rng.below(100) {
            0..50 => self.send(rig, ledger)?,
            50..54 => self.trim(rig, ledger)?,
            54..56 => self.keep_count(rig, ledger)?,
            56..58 => self.remove(rig, ledger)?,
            58..74 => self.send_again(rig, ledger)?,
            74..84 => self.move_cursor(rig, ledger)?,
            84..88 => self.ask_cursor(rig, ledger)?,
            88..92 => {
                rig.work();
                rig.engine.idle();
            }
            92..95 => self.say_goodbye(rig, ledger)?,
            95..97 => self.hole(rig, ledger)?,
            _ => rig.engine.keep_house(),
        }
        if self.rng.chance(1, 2) {
            self.settle(rig, ledger)?;
        }
        if self.rng.chance(1, 3) {
            rig.engine.keep_house();
        }
        if self.rng.chance(1, 2) {
            rig.keep(1 + self.rng.below(6));
        }
        rig.answers(ledger)
    }

    /// Trims a room, mostly by a little, sometimes wholly.
    fn trim(&mut self, rig: &mut Rig, ledger: &mut Ledger) -> Verdict {
        let rooms: Vec<u16> = ledger.rooms.keys().copied().collect();
        let Some(room) = self.rng.pick(&rooms).copied() else {
            return Ok(());
        };
        let newest = ledger.rooms.get(&room).and_then(|room| {
            let (seq, _) = room.shown.last_key_value()?;
            Some(*seq)
        });
        if let Some(newest) = newest {
            let first = match self.rng.chance(1, 3) {
                true => newest + 1,
                false => 1 + self.rng.below(newest + 1),
            };
            ledger.trim(room, first);
            rig.trim(room, first)?;
        }
        Ok(())
    }

    /// Has a room keep only its newest messages from now on, or all.
    fn keep_count(&mut self, rig: &mut Rig, ledger: &mut Ledger) -> Verdict {
        let room = u16::try_from(self.rng.below(ROOMS)).unwrap_or(0);
        let count = (!self.rng.chance(1, 3)).then(|| 1 + self.rng.below(12));
        if let Some(count) = count {
            ledger.keep_count(room, count);
        }
        rig.keep_count(room, count)
    }

    fn mortal(&mut self) -> u16 {
        while self.mortals.len() < MORTALS {
            self.mortals.push(self.next_mortal);
            self.next_mortal += 1;
        }
        self.rng.pick(&self.mortals).copied().unwrap_or(100)
    }

    /// Removes a room. Nobody sends anything there any more, not even again.
    fn remove(&mut self, rig: &mut Rig, ledger: &mut Ledger) -> Verdict {
        let room = self.mortal();
        self.mortals.retain(|other| *other != room);
        ledger.remove(room);
        self.sends.retain(|(first, _)| {
            let sent = ledger.sent.get(first);
            sent.is_none_or(|sent| sent.room != room)
        });
        rig.remove(room)
    }

    /// Lets the writer work, hears its answers, and reads a little.
    ///
    /// # Errors
    /// When the store breaks a promise.
    pub fn settle(&mut self, rig: &mut Rig, ledger: &mut Ledger) -> Verdict {
        if self.rng.chance(2, 3) {
            rig.work();
        } else {
            rig.step();
        }
        rig.answers(ledger)?;
        if self.rng.chance(1, 3) {
            self.read(rig, ledger)?;
        }
        Ok(())
    }

    fn read(&mut self, rig: &mut Rig, ledger: &mut Ledger) -> Verdict {
        let rooms: Vec<u16> = ledger.rooms.keys().copied().collect();
        let Some(room) = self.rng.pick(&rooms).copied() else {
            return Ok(());
        };
        let head = ledger
            .rooms
            .get(&room)
            .and_then(|room| room.shown.last_key_value())
            .map_or(0, |(seq, _)| *seq);
        let from = 1 + self.rng.below(head + 1);
        let bytes_max = self.rng.pick(&[1, 500, 1 << 20]).copied().unwrap_or(1);
        match rig.read(ledger, room, from, bytes_max) {
            Ok(Some(shown)) => check::nothing_is_damaged(ledger, room, &shown),
            Ok(None) => Ok(()),
            Err(why) if self.faults && why.what.contains("cannot read the log") => Ok(()),
            Err(why) => Err(why),
        }
    }

    fn producer(&mut self) -> u16 {
        while self.producers.len() < PRODUCERS {
            self.producers.push(self.next_producer);
            self.next_producer += 1;
        }
        self.rng.pick(&self.producers).copied().unwrap_or(0)
    }

    fn payload(&mut self) -> Bytes {
        let len = match self.rng.below(40) {
            0..6 => 0,
            6..24 => self.rng.below(100),
            24..35 => self.rng.below(3_000),
            35..39 => self.rng.below(20_000),
            _ => self.rng.below(PAYLOAD_BYTES_MAX),
        };
        // Never like zeros: fresh space must not pass for a payload.
        let word = self.rng.next() | 0x0101_0101_0101_0101;
        let len = usize::try_from(len).unwrap_or(0);
        let mut bytes = word.to_le_bytes().repeat(len.div_ceil(8));
        bytes.truncate(len);
        bytes.into()
    }

    fn send(&mut self, rig: &Rig, ledger: &mut Ledger) -> Verdict {
        let producer = self.producer();
        let first = MessageId {
            producer,
            number: ledger.highest(producer) + 1,
        };
        let room = match self.rng.chance(1, 5) {
            true => self.mortal(),
            false => u16::try_from(self.rng.below(ROOMS)).unwrap_or(0),
        };
        let count = u32::try_from(1 + self.rng.below(4)).unwrap_or(1);
        for n in 0..u64::from(count) {
            let id = MessageId {
                producer,
                number: first.number + n,
            };
            let payload = self.payload();
            ledger.send(id, room, payload);
        }
        self.sends.push((first, count));
        rig.send(ledger, first, count)
    }

    /// Sends something again, whole or in part: perhaps it is stored, perhaps on its way, perhaps lost.
    fn send_again(&mut self, rig: &Rig, ledger: &Ledger) -> Verdict {
        let recent = self.sends.len().saturating_sub(6);
        let recent = self.sends.get(recent..).unwrap_or_default();
        let Some((first, count)) = self.rng.pick(recent).copied() else {
            return Ok(());
        };
        let is_refused = |number| {
            let sent = ledger.sent.get(&MessageId { number, ..first });
            sent.is_some_and(|sent| sent.fate == Fate::Refused)
        };
        // Whoever was told that a number is refused does not send it again.
        if !self.producers.contains(&first.producer)
            || (first.number..first.number + u64::from(count)).any(is_refused)
        {
            return Ok(());
        }
        let skip = u32::try_from(self.rng.below(u64::from(count))).unwrap_or(0);
        let id = MessageId {
            number: first.number + u64::from(skip),
            ..first
        };
        rig.send_again(ledger, id, count - skip)
    }

    fn move_cursor(&mut self, rig: &mut Rig, ledger: &mut Ledger) -> Verdict {
        let rooms: Vec<u16> = ledger.rooms.keys().copied().collect();
        let Some(room) = self.rng.pick(&rooms).copied() else {
            return Ok(());
        };
        let Some(epoch) = ledger.rooms.get(&room).and_then(|room| room.epoch) else {
            return Ok(());
        };
        if ledger.removed.contains_key(&room) {
            return Ok(());
        }
        let key = (room, u8::try_from(self.rng.below(3)).unwrap_or(0));
        let to = Position::new(epoch, Seq::new(self.rng.below(1000)));
        let to = (!self.rng.chance(1, 5)).then_some(to);
        ledger.move_cursor(key, to);
        rig.move_cursor(key, to)
    }

    fn ask_cursor(&mut self, rig: &mut Rig, ledger: &Ledger) -> Verdict {
        let keys: Vec<(u16, u8)> = ledger.cursors.keys().copied().collect();
        match self.rng.pick(&keys) {
            Some(key) => rig.ask_cursor(*key),
            None => Ok(()),
        }
    }

    /// A producer with nothing unanswered says that it will never resend anything.
    fn say_goodbye(&mut self, rig: &mut Rig, ledger: &mut Ledger) -> Verdict {
        rig.work();
        rig.answers(ledger)?;
        let producer = self.producer();
        let open = ledger
            .sent
            .iter()
            .any(|(id, sent)| id.producer == producer && sent.fate == Fate::Open);
        if open {
            return Ok(());
        }
        self.producers.retain(|other| *other != producer);
        self.sends.retain(|(first, _)| first.producer != producer);
        rig.forget(producer)
    }

    fn hole(&mut self, rig: &Rig, ledger: &mut Ledger) -> Verdict {
        let producer = self.producer();
        let id = MessageId {
            producer,
            number: ledger.highest(producer) + 1,
        };
        ledger.hole(id);
        rig.hole(id)
    }

    /// After a restart: sends everything again that the producers could still be waiting for, as they do when they connect again.
    /// `recent` limits what was answered for already.
    ///
    /// # Errors
    /// When something is lost, stored twice or not answered for.
    pub fn reconnect(&mut self, rig: &mut Rig, ledger: &mut Ledger, recent: usize) -> Verdict {
        let mut again = Vec::new();
        let skip = self.sends.len().saturating_sub(recent);
        for (at, (first, count)) in self.sends.iter().enumerate() {
            let is_open = |number| {
                let sent = ledger.sent.get(&MessageId { number, ..*first });
                sent.is_some_and(|sent| sent.fate == Fate::Open)
            };
            if at < skip && !(first.number..first.number + u64::from(*count)).any(is_open) {
                continue;
            }
            let mut run: Option<(MessageId, u32)> = None;
            for n in 0..u64::from(*count) {
                let id = MessageId {
                    number: first.number + n,
                    ..*first
                };
                let fate = ledger.sent.get(&id).map(|sent| sent.fate);
                run = match (run, fate) {
                    (run, None | Some(Fate::Refused)) => {
                        again.extend(run);
                        None
                    }
                    (None, _) => Some((id, 1)),
                    (Some((first, count)), _) => Some((first, count + 1)),
                };
            }
            again.extend(run);
        }
        let before = ledger.answers;
        for (first, count) in &again {
            rig.send_again(ledger, *first, *count)?;
        }
        rig.work();
        rig.answers(ledger)?;
        if rig.store.info().read_only.is_some() || rig.disk.is_crashed() {
            return Ok(());
        }
        if ledger.answers < before + again.len() as u64 {
            return Err(format!(
                "{} publishes got only {} answers",
                again.len(),
                ledger.answers - before
            )
            .into());
        }
        for (first, count) in &again {
            for number in first.number..first.number + u64::from(*count) {
                must_be_stored(ledger, MessageId { number, ..*first })?;
            }
        }
        Ok(())
    }
}

/// A message that was sent again to a healthy store has a seq now. The store may not know what became of it only where a fault or
/// a hole at the very beginning of the producer's numbers was in the way.
fn must_be_stored(ledger: &Ledger, id: MessageId) -> Verdict {
    let Some(sent) = ledger.sent.get(&id) else {
        return Ok(());
    };
    // After a write that never came, a number may have been passed over, or be in doubt. But it is not left open.
    if matches!(sent.fate, Fate::Acked(_)) || (ledger.lied_to && sent.fate != Fate::Open) {
        return Ok(());
    }
    let first = MessageId { number: 1, ..id };
    // Also one that was filled later: numbers that came before that were passed over for good.
    let begins_with_a_hole = ledger
        .sent
        .get(&first)
        .is_some_and(|sent| !matches!(sent.fate, Fate::Acked(_)) || sent.doubtful);
    if sent.fate == Fate::Open || (!sent.had_fault && !begins_with_a_hole) {
        return Err(format!(
            "{id:?} was sent again and is {:?} in place of stored",
            sent.fate
        )
        .into());
    }
    Ok(())
}
