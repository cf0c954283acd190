//! One room in the end, and what the histories say about its messages.

use std::collections::HashMap;

use super::{FinalRoom, Kind, Verdict, Writer};
use crate::history::event::{Id, Place};

/// A message that is in the room in the end.
#[derive(Debug)]
struct Slot {
    seq: u64,
    id: Option<Id>,
    /// When its send began, once a history has told it.
    begun: Option<u64>,
    /// When its ack came, if it did.
    acked: Option<u64>,
}

/// One room in the end, and what the histories say about its messages.
#[derive(Debug)]
pub(super) struct RoomCheck {
    epoch: u64,
    /// By rising seq.
    slots: Vec<Slot>,
    by_id: HashMap<Id, usize>,
    skips: Vec<(u64, u64)>,
}

impl RoomCheck {
    /// Takes the room over and looks at it by itself.
    pub(super) fn new(name: &str, room: FinalRoom, verdict: &mut Verdict) -> Self {
        let mut check = Self {
            epoch: room.epoch,
            slots: Vec::with_capacity(room.messages.len()),
            by_id: HashMap::with_capacity(room.messages.len()),
            skips: room.skips,
        };
        let mut next = 1;
        let mut last_of: HashMap<(u32, u32), u64> = HashMap::new();
        verdict.counts.stored += u64::try_from(room.messages.len()).unwrap_or(u64::MAX);
        for (seq, id) in room.messages {
            if seq < next {
                let text = || format!("{name} holds {seq} again, behind {}", next - 1);
                verdict.violation(Kind::Replaced, text);
                continue;
            }
            check.expect_told(name, next, seq, verdict);
            next = seq.saturating_add(1);
            match id {
                None => verdict.violation(Kind::Phantom, || {
                    format!("{name} holds at {seq} what no agent sent")
                }),
                Some(id) => check.enter(name, seq, id, &mut last_of, verdict),
            }
            check.slots.push(Slot {
                seq,
                id,
                begun: None,
                acked: None,
            });
        }
        check.expect_told(name, next, room.head.saturating_add(1), verdict);
        check
    }

    fn enter(
        &mut self,
        name: &str,
        seq: u64,
        id: Id,
        last_of: &mut HashMap<(u32, u32), u64>,
        verdict: &mut Verdict,
    ) {
        if let Some(other) = self.by_id.insert(id, self.slots.len()) {
            let other = self.slots.get(other).map_or(0, |slot| slot.seq);
            let text = || format!("{name} holds {id} at {other} and at {seq}");
            return verdict.violation(Kind::Doubled, text);
        }
        let last = last_of.entry((id.agent, id.life)).or_default();
        if *last > id.counter {
            let text = || format!("{name} holds {id} at {seq}, behind number {last} of its sender");
            verdict.violation(Kind::SenderOrder, text);
        }
        *last = id.counter.max(*last);
    }

    /// All seqs from `next` on and before `seq` have to be told as skipped.
    fn expect_told(&self, name: &str, next: u64, seq: u64, verdict: &mut Verdict) {
        let mut next = next;
        for (from, to) in &self.skips {
            if *from <= next && next <= *to {
                next = to.saturating_add(1);
            }
        }
        if next < seq {
            let text = || format!("{name} lacks {next} to {} in the end, untold", seq - 1);
            verdict.violation(Kind::Gap, text);
        }
    }

    fn at(&self, seq: u64) -> Option<&Slot> {
        let index = self.slots.partition_point(|slot| slot.seq < seq);
        self.slots.get(index).filter(|slot| slot.seq == seq)
    }

    fn is_skipped(&self, seq: u64) -> bool {
        self.skips
            .iter()
            .any(|(from, to)| (*from..=*to).contains(&seq))
    }

    pub(super) fn seq_of(&self, id: Id) -> Option<u64> {
        let slot = self.slots.get(*self.by_id.get(&id)?)?;
        Some(slot.seq)
    }

    fn slot_of(&mut self, id: Id) -> Option<&mut Slot> {
        self.slots.get_mut(*self.by_id.get(&id)?)
    }

    pub(super) fn begun(&mut self, time: u64, id: Id, verdict: &mut Verdict) {
        let Some(slot) = self.slot_of(id) else { return };
        if slot.begun.replace(time).is_some() {
            verdict.violation(Kind::Malformed, || format!("{id} was sent twice"));
        }
    }

    pub(super) fn acked(&mut self, time: u64, id: Id, place: Place, verdict: &mut Verdict) {
        let epoch = self.epoch;
        if place.epoch != epoch {
            let text = || format!("{id} was acknowledged at {place}, the room has {epoch:016x}");
            verdict.violation(Kind::Epoch, text);
        }
        if let Some(slot) = self.slot_of(id) {
            let seq = slot.seq;
            let again = slot.acked.replace(time).is_some();
            if seq != place.seq {
                let text = || format!("{id} was acknowledged at {place} and is at {seq}");
                verdict.violation(Kind::Doubled, text);
            } else if again {
                let text = || format!("{id} was acknowledged twice");
                verdict.violation(Kind::Malformed, text);
            }
            return;
        }
        if self.is_skipped(place.seq) {
            verdict.counts.told_missing += 1;
            return;
        }
        verdict.violation(Kind::Lost, || {
            format!("{id} was acknowledged at {place} and is gone")
        });
        if let Some(other) = self.at(place.seq) {
            let text = || format!("{place} was given to {id} and holds {:?}", other.id);
            verdict.violation(Kind::Replaced, text);
        }
    }

    pub(super) fn delivered(
        &self,
        writer: Writer,
        place: Place,
        id: Option<Id>,
        verdict: &mut Verdict,
    ) {
        if place.epoch != self.epoch {
            let text = || format!("{writer} got {place}, the room has {:016x}", self.epoch);
            verdict.violation(Kind::Epoch, text);
        }
        match self.at(place.seq) {
            Some(slot) if slot.id == id => {}
            Some(slot) => {
                verdict.violation(Kind::Replaced, || {
                    format!("{writer} got {id:?} at {place}, which holds {:?}", slot.id)
                });
                if let Some(seq) = id.and_then(|id| self.seq_of(id)) {
                    let text = || format!("{writer} got {id:?} at {place}, it is at {seq}");
                    verdict.violation(Kind::Doubled, text);
                }
            }
            None if self.is_skipped(place.seq) => {}
            None => verdict.violation(Kind::Phantom, || {
                format!("{writer} got {id:?} at {place}, which is gone")
            }),
        }
    }

    /// When all histories were read: everything was sent, and real time was kept.
    ///
    /// From the newest message to the oldest: none may have begun after an ack of one that stands behind it.
    pub(super) fn finish(&self, name: &str, verdict: &mut Verdict) {
        let mut earliest: Option<(u64, u64)> = None;
        for slot in self.slots.iter().rev() {
            let (seq, id) = (slot.seq, slot.id);
            let Some(begun) = slot.begun else {
                if let Some(id) = id {
                    let text = || format!("{name} holds {id} at {seq}, which nobody sent there");
                    verdict.violation(Kind::Phantom, text);
                }
                continue;
            };
            if let Some((acked, later)) = earliest
                && acked < begun
            {
                let text = || {
                    format!(
                        "{name} holds {id:?} at {seq}, before {later}, which was acknowledged {} ns before it was sent",
                        begun - acked
                    )
                };
                verdict.violation(Kind::RealTime, text);
            }
            if let Some(acked) = slot.acked
                && earliest.is_none_or(|(other, _)| acked < other)
            {
                earliest = Some((acked, seq));
            }
        }
    }
}
