//! What is kept in memory of every room: where its history begins and ends, not what is in it.
//!
//! A slot is 64 bytes, whatever the room's history holds; the name is kept once beside it, and what is set of a room only where
//! something is. Rooms are numbered from 1 in the order of their making, so that a number finds its slot without a look-up.

mod names;
mod order;

use std::collections::HashMap;

use broker_proto::{
    Epoch, Micros, RoomId, RoomName, RoomSettings, SenderName, Seq, SkipRange, SkipReason, StartAt,
    StartView,
};

use self::names::{ByName, NameRef, Names};
use self::order::Order;
use super::{FindRooms, FoundRooms, RoomInfo, RoomState, RoomsPage, StoreError};
use crate::sync::{Mutex, lock};

/// A store refuses to make more rooms than this, over all time: numbers are not given twice.
pub(crate) const ROOMS_MAX: usize = 16_000_000;

/// Rooms that one search looks at, at most.
const LOOKED_AT_MAX: usize = 10_000;

/// Slots lie together in chunks of so many: a vector that grows as a whole would be copied, and twice as large.
const CHUNK: usize = 1024;

/// Runs of rooms that are sorted before others are let in: some milliseconds.
const RUNS_AT_ONCE: usize = 4;

/// The latest time of a room without a message: before all others, also those of a clock that is
/// set to before 1970.
pub(crate) const NO_TIME: Micros = Micros::new(i64::MIN);

/// Rooms whose names are lost are called by their numbers.
const NAMELESS: &str = "$lost-";

/// One room, but for its name.
#[derive(Debug, Clone)]
pub(crate) struct RoomSlot {
    /// The identity of its history.
    pub(crate) epoch: Epoch,
    /// The oldest seq that is kept.
    pub(crate) first: Seq,
    /// The newest seq on stable storage; `Seq::NONE` before the first.
    pub(crate) head: Seq,
    /// The latest time of any message in it, [`NO_TIME`] before the first.
    pub(crate) last_time: Micros,
    /// Where in the log the newest message lies; the store that keeps no log leaves it 0.
    pub(crate) last_at: u64,
    /// Bytes of the records that are kept.
    pub(crate) bytes: u64,
    /// When it was made.
    pub(crate) created: Micros,
}

impl RoomSlot {
    /// A room that is being made.
    pub(crate) fn new(epoch: Epoch) -> Self {
        Self {
            epoch,
            first: Seq::FIRST,
            head: Seq::NONE,
            last_time: NO_TIME,
            last_at: 0,
            bytes: 0,
            created: Micros::new(0),
        }
    }

    /// How many messages are kept.
    fn messages(&self) -> u64 {
        after(self.head).get().saturating_sub(self.first.get())
    }

    /// Whether the room was removed: only its number is left.
    fn is_removed(&self) -> bool {
        self.epoch == REMOVED
    }
}

/// A slot, what it is called, and who made it.
#[derive(Debug)]
struct Kept {
    slot: RoomSlot,
    name: NameRef,
    /// One more than the place in the list of those who made rooms; 0 when it is not known.
    created_by: u32,
}

const _: () = assert!(size_of::<Kept>() <= 64);

/// In place of the epoch of a removed room; none is drawn like this.
const REMOVED: Epoch = Epoch::new(0);

/// What was set, and how often.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Versioned<T> {
    pub(crate) version: u64,
    pub(crate) settings: T,
}

/// What all rooms have together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
}

/// The history that an epoch grew out of: positions of the old epoch up to `fork` are still valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Parent {
    /// The epoch before.
    pub(crate) epoch: Epoch,
    /// The last seq that both have.
    pub(crate) fork: Seq,
}

/// All rooms.
#[derive(Debug, Default)]
pub(crate) struct RoomTable {
    chunks: Vec<Vec<Kept>>,
    numbers: usize,
    names: Names,
    by_name: ByName,
    makers: Makers,
    parents: HashMap<RoomId, Parent>,
    settings: HashMap<RoomId, Box<Versioned<RoomSettings>>>,
    /// How many rooms have a limit of bytes of their own.
    limited: usize,
    removed: usize,
    totals: Totals,
    /// The heads with which this leader began; `None` where nothing outlives a leader.
    began: Option<Vec<Seq>>,
    order: Mutex<Order>,
}

/// Those who made rooms; a few make very many.
#[derive(Debug, Default)]
struct Makers {
    list: Vec<SenderName>,
    places: HashMap<SenderName, u32>,
    /// The number that was asked for last.
    last: u32,
}

impl Makers {
    fn number(&mut self, maker: Option<&SenderName>) -> u32 {
        let Some(maker) = maker else { return 0 };
        if self.get(self.last) == Some(maker) {
            return self.last;
        }
        self.last = match self.places.get(maker) {
            Some(number) => *number,
            None => {
                self.list.push(maker.clone());
                let number = u32::try_from(self.list.len()).unwrap_or(0);
                self.places.insert(maker.clone(), number);
                number
            }
        };
        self.last
    }

    fn get(&self, number: u32) -> Option<&SenderName> {
        self.list.get((number as usize).checked_sub(1)?)
    }
}

/// Where a read begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Begin {
    /// At this seq, which may be one past the head.
    At(Seq),
    /// This range is gone; go on after it.
    Skip(SkipRange),
    /// At the first message whose running maximum of time is this or later.
    Time(Micros),
}

impl RoomTable {
    /// How many numbers are given out, to rooms that were removed since too.
    pub(crate) fn numbers(&self) -> usize {
        self.numbers
    }

    /// How many rooms there are.
    pub(crate) fn len(&self) -> usize {
        self.numbers - self.removed
    }

    /// What they have together.
    pub(crate) fn totals(&self) -> Totals {
        self.totals
    }

    pub(crate) fn id(&self, name: &str) -> Option<RoomId> {
        self.by_name
            .get(name, |id| name_in(&self.chunks, &self.names, id))
    }

    fn kept(&self, id: RoomId) -> Option<&Kept> {
        kept_in(&self.chunks, id)
    }

    fn kept_mut(&mut self, id: RoomId) -> Option<&mut Kept> {
        let at = index(id)?;
        self.chunks.get_mut(at / CHUNK)?.get_mut(at % CHUNK)
    }

    fn push(&mut self, kept: Kept) {
        if self.numbers.is_multiple_of(CHUNK) {
            // A store of a few rooms does not need much.
            let capacity = if self.numbers == 0 { 0 } else { CHUNK };
            self.chunks.push(Vec::with_capacity(capacity));
        }
        if let Some(chunk) = self.chunks.last_mut() {
            chunk.push(kept);
            self.numbers += 1;
        }
    }

    pub(crate) fn get(&self, id: RoomId) -> Option<&RoomSlot> {
        let slot = &self.kept(id)?.slot;
        (!slot.is_removed()).then_some(slot)
    }

    pub(crate) fn get_mut(&mut self, id: RoomId) -> Option<&mut RoomSlot> {
        let slot = &mut self.kept_mut(id)?.slot;
        (!slot.is_removed()).then_some(slot)
    }

    pub(crate) fn slots_mut(&mut self) -> impl Iterator<Item = &mut RoomSlot> {
        let all = self.chunks.iter_mut().flatten().map(|kept| &mut kept.slot);
        all.filter(|slot| !slot.is_removed())
    }

    /// What a room is called; also one that was removed, for as long as its name is needed.
    pub(crate) fn name(&self, id: RoomId) -> &str {
        name_in(&self.chunks, &self.names, id)
    }

    /// What a room is called.
    pub(crate) fn room_name(&self, id: RoomId) -> Option<RoomName> {
        self.get(id)?;
        RoomName::parse_reserved(self.name(id)).ok()
    }

    /// Who made a room.
    pub(crate) fn maker(&self, id: RoomId) -> Option<&SenderName> {
        self.makers.get(self.kept(id)?.created_by)
    }

    /// Whether the room of this number was removed.
    pub(crate) fn is_removed(&self, id: RoomId) -> bool {
        self.kept(id).is_some_and(|kept| kept.slot.is_removed())
    }

    pub(crate) fn find(&self, name: &str) -> Option<(RoomId, &RoomSlot)> {
        let id = self.id(name)?;
        Some((id, self.get(id)?))
    }

    /// Remembers the heads as they are: what an earlier leader has acknowledged lies below them.
    pub(crate) fn begin_term(&mut self) {
        let mut began = Vec::with_capacity(self.numbers);
        self.totals = Totals::default();
        for slot in self.chunks.iter().flatten().map(|kept| &kept.slot) {
            began.push(slot.head);
            if !slot.is_removed() {
                self.totals.messages += slot.messages();
                self.totals.bytes += slot.bytes;
            }
        }
        self.began = Some(began);
    }

    /// The head with which this leader began; the present one where nobody led before.
    pub(crate) fn head_at_begin(&self, id: RoomId) -> Option<Seq> {
        let head = self.get(id)?.head;
        let Some(began) = &self.began else {
            return Some(head);
        };
        Some(
            index(id)
                .and_then(|at| began.get(at).copied())
                .unwrap_or(Seq::NONE),
        )
    }

    pub(crate) fn parent(&self, id: RoomId) -> Option<Parent> {
        self.parents.get(&id).copied()
    }

    pub(crate) fn set_parent(&mut self, id: RoomId, parent: Parent) {
        self.parents.insert(id, parent);
    }

    /// Gives a room another epoch, grown out of the one before.
    pub(crate) fn renew(&mut self, id: RoomId, epoch: Epoch, parent: Parent) {
        if let Some(slot) = self.get_mut(id) {
            slot.epoch = epoch;
            self.set_parent(id, parent);
        }
    }

    /// Every room with its number, in the order of making.
    #[cfg(test)]
    pub(crate) fn iter(&self) -> impl Iterator<Item = (RoomId, &RoomSlot)> {
        (1..)
            .map(RoomId::new)
            .zip(self.chunks.iter().flatten().map(|kept| &kept.slot))
            .filter(|(_, slot)| !slot.is_removed())
    }

    /// Notes that a room has grown.
    pub(crate) fn grow(&mut self, id: RoomId, head: Seq, last_time: Micros, at: u64) {
        if let Some(slot) = self.get_mut(id) {
            let more = head.get().saturating_sub(slot.head.get());
            slot.head = head;
            slot.last_time = last_time;
            slot.last_at = at;
            self.totals.messages += more;
        }
    }

    /// Notes the bytes of what a room has grown by.
    pub(crate) fn add_bytes(&mut self, id: RoomId, bytes: u64) {
        if let Some(slot) = self.get_mut(id) {
            slot.bytes += bytes;
            self.totals.bytes += bytes;
        }
    }

    /// Keeps only what lies at `first` or behind it, `bytes` of records. What is removed never comes back.
    pub(crate) fn trim(&mut self, id: RoomId, first: Seq, bytes: u64) {
        let Some(slot) = self.get_mut(id).filter(|slot| first > slot.first) else {
            return;
        };
        let before = (slot.messages(), slot.bytes);
        slot.first = first.min(after(slot.head));
        slot.bytes = bytes;
        let now = (slot.messages(), slot.bytes);
        self.totals.messages = (self.totals.messages + now.0).saturating_sub(before.0);
        self.totals.bytes = (self.totals.bytes + now.1).saturating_sub(before.1);
    }

    /// Removes a room. Its number stays its own, its name is free.
    pub(crate) fn remove(&mut self, id: RoomId) {
        let Some(slot) = self.get_mut(id) else { return };
        let gone = (slot.messages(), slot.bytes);
        *slot = RoomSlot::new(REMOVED);
        self.totals.messages = self.totals.messages.saturating_sub(gone.0);
        self.totals.bytes = self.totals.bytes.saturating_sub(gone.1);
        self.removed += 1;
        let name_of = |id| name_in(&self.chunks, &self.names, id);
        self.by_name.remove(name_of(id), id, name_of);
        self.parents.remove(&id);
        let before = self.settings.remove(&id);
        self.forget_limit(before);
    }

    /// Gives out the next number to a room that was removed already: a checkpoint tells of it.
    pub(crate) fn insert_removed(&mut self, id: RoomId) -> bool {
        let is_next = index(id) == Some(self.numbers);
        if is_next && let Some(name) = self.names.add("") {
            self.push(Kept {
                slot: RoomSlot::new(REMOVED),
                name,
                created_by: 0,
            });
            self.removed += 1;
        }
        is_next
    }

    /// What is set of a room, if anything is.
    pub(crate) fn settings(&self, id: RoomId) -> Option<&Versioned<RoomSettings>> {
        self.settings.get(&id).map(|settings| &**settings)
    }

    /// Every room of which something is set.
    pub(crate) fn with_settings(&self) -> impl Iterator<Item = (RoomId, &Versioned<RoomSettings>)> {
        self.settings.iter().map(|(id, set)| (*id, &**set))
    }

    /// Sets it. An older version than the one that is known changes nothing.
    pub(crate) fn set_settings(&mut self, id: RoomId, settings: Versioned<RoomSettings>) {
        let known = self.settings.get(&id).map_or(0, |known| known.version);
        if self.get(id).is_some() && settings.version > known {
            self.limited += usize::from(settings.settings.bytes_max.is_some());
            let before = self.settings.insert(id, Box::new(settings));
            self.forget_limit(before);
        }
    }

    fn forget_limit(&mut self, before: Option<Box<Versioned<RoomSettings>>>) {
        let was_limited = before.is_some_and(|before| before.settings.bytes_max.is_some());
        self.limited -= usize::from(was_limited);
    }

    /// Whether no room has a limit of bytes of its own.
    pub(crate) fn none_is_limited(&self) -> bool {
        self.limited == 0
    }

    /// All that is known of a room.
    pub(crate) fn state(&self, id: RoomId) -> Option<RoomState> {
        let slot = self.get(id)?;
        let set = self.settings(id);
        Some(RoomState {
            info: self.info(id)?,
            bytes: slot.bytes,
            created: slot.created,
            created_by: self.maker(id).cloned(),
            version: set.map_or(0, |set| set.version),
            settings: set.map(|set| set.settings.clone()).unwrap_or_default(),
        })
    }

    /// The rooms after a name, in the order of names, that are wanted. It looks at so many rooms only.
    pub(crate) fn search(&self, wanted: &FindRooms) -> FoundRooms {
        let is_before = |name: &str| name < &*wanted.prefix || name <= &*wanted.after;
        let mut found = FoundRooms::default();
        let limit = wanted.limit.max(1) as usize;
        let order = lock(&self.order);
        let name_of = |id| self.name(id);
        let in_order = order.walk(is_before, &name_of);
        for (looked_at, id) in (1..).zip(in_order.filter(|id| self.is_shown(*id))) {
            let name = self.name(id);
            if !name.starts_with(&wanted.prefix) {
                return found;
            }
            if self.has_labels(id, &wanted.labels) {
                found.rooms.extend(self.state(id));
            }
            if found.rooms.len() >= limit || looked_at >= LOOKED_AT_MAX {
                found.next = Some(name.to_owned());
                return found;
            }
        }
        found
    }

    /// Whether listings show a room: it holds a message, or did.
    fn is_shown(&self, id: RoomId) -> bool {
        self.get(id).is_some_and(|slot| slot.head >= Seq::FIRST)
    }

    /// Puts some more rooms into order; says whether all are. To be called until it says so before rooms are listed, so that
    /// nobody else has to wait for all of it.
    pub(crate) fn sort_some(&self) -> bool {
        let name_of = |id| self.name(id);
        lock(&self.order).sort_some(self.numbers, RUNS_AT_ONCE, &name_of)
    }

    fn has_labels(&self, id: RoomId, labels: &[(String, Option<String>)]) -> bool {
        let set = self.settings(id).map(|set| &set.settings.labels);
        labels.iter().all(|(name, value)| {
            let has = set.and_then(|set| set.get(name));
            has.is_some_and(|has| value.as_ref().is_none_or(|value| value == has))
        })
    }

    /// The number that the next new room gets, when `ahead` others are about to be made.
    pub(crate) fn next_id(&self, ahead: usize) -> Option<RoomId> {
        let next = self.numbers + ahead;
        if next >= ROOMS_MAX {
            return None;
        }
        u32::try_from(next + 1).ok().map(RoomId::new)
    }

    /// Adds a room under the next number, or at `id` when a log is replayed; a number that leaves a
    /// hole or is taken by another name is refused.
    pub(crate) fn insert(
        &mut self,
        id: RoomId,
        name: &str,
        made_by: Option<&SenderName>,
        slot: RoomSlot,
    ) -> bool {
        if index(id) != Some(self.numbers) {
            return false;
        }
        // Names are looked up once: with very many rooms that is most of the work of a start.
        let name_of = |id| name_in(&self.chunks, &self.names, id);
        if !self.by_name.insert(name, id, name_of) {
            return false;
        }
        let Some(name) = self.names.add(name) else {
            return false;
        };
        let created_by = self.makers.number(made_by);
        self.push(Kept {
            slot,
            name,
            created_by,
        });
        true
    }

    /// Adds rooms up to `id` whose names are not known: a replay found their numbers, but what
    /// named them is damaged. Their messages stay in the log, and their numbers are not given to
    /// others. Says whether there is such a room now.
    pub(crate) fn add_nameless(&mut self, id: RoomId) -> bool {
        let Some(last) = index(id).filter(|last| *last < ROOMS_MAX) else {
            return false;
        };
        while self.numbers <= last {
            let number = self.numbers as u64 + 1;
            let Ok(id) = u32::try_from(number).map(RoomId::new) else {
                return false;
            };
            // The broker's own kind of name: nobody can publish there. The epoch is the same at every start, and never
            // drawn by chance.
            let slot = RoomSlot::new(Epoch::new(u64::MAX - number));
            if !self.insert(id, &format!("{NAMELESS}{id}"), None, slot) {
                return false;
            }
        }
        true
    }

    /// Gives a room of [`Self::add_nameless`] its name and epoch, found later; changes no other.
    pub(crate) fn give_name(&mut self, id: RoomId, name: &str, epoch: Epoch) {
        if self.get(id).is_none() || !is_nameless(self.name(id)) || self.id(name).is_some() {
            return;
        }
        let Some(new) = self.names.add(name) else {
            return;
        };
        let name_of = |id| name_in(&self.chunks, &self.names, id);
        self.by_name.remove(name_of(id), id, name_of);
        if let Some(kept) = self.kept_mut(id) {
            kept.name = new;
            kept.slot.epoch = epoch;
        }
        let name_of = |id| name_in(&self.chunks, &self.names, id);
        self.by_name.insert(name, id, name_of);
        // What was sorted was sorted by another name.
        *lock(&self.order) = Order::default();
    }

    /// The rooms after a name, in the order of names.
    pub(crate) fn page(&self, after: &str, limit: usize) -> RoomsPage {
        let order = lock(&self.order);
        let name_of = |id| self.name(id);
        let in_order = order.walk(|name| name <= after, &name_of);
        let mut shown = in_order.filter(|id| self.is_shown(*id));
        let rooms = shown.by_ref().take(limit).filter_map(|id| self.info(id));
        RoomsPage {
            rooms: rooms.collect(),
            more: shown.next().is_some(),
        }
    }

    /// What others may know of a room.
    pub(crate) fn info(&self, id: RoomId) -> Option<RoomInfo> {
        let slot = self.get(id)?;
        Some(RoomInfo {
            name: self.room_name(id)?,
            epoch: slot.epoch,
            first: slot.first,
            head: slot.head,
            last_time: slot.last_time,
        })
    }

    /// Finds out where a read of this room begins.
    pub(crate) fn begin(&self, id: RoomId, from: &StartAt) -> Result<Begin, StoreError> {
        let Some(slot) = self.get(id) else {
            return Ok(Begin::At(Seq::FIRST));
        };
        let end = after(slot.head);
        let seq = match from.view() {
            StartView::Start => return Ok(Begin::At(slot.first)),
            StartView::End => return Ok(Begin::At(end)),
            StartView::Last(count) => {
                let wanted = Seq::new(end.get().saturating_sub(count));
                return Ok(Begin::At(wanted.max(slot.first)));
            }
            StartView::Time(time) => return Ok(Begin::Time(time)),
            StartView::Seq(seq) => seq.max(Seq::FIRST),
            StartView::Position(position) => {
                let known = position.epoch == slot.epoch && position.seq <= end;
                let forked = self.parent(id).is_some_and(|parent| {
                    parent.epoch == position.epoch && position.seq <= after(parent.fork)
                });
                if !known && !forked {
                    return Err(StoreError::LostSuffix {
                        room: self.room_name(id).ok_or(StoreError::Closed)?,
                        expected_epoch: position.epoch,
                        expected: before(position.seq),
                        epoch: slot.epoch,
                        head: slot.head,
                    });
                }
                position.seq.max(Seq::FIRST)
            }
            _ => {
                return Err(StoreError::Limit {
                    what: "this kind of starting point is not known here".to_owned(),
                });
            }
        };
        if seq > end {
            return Err(StoreError::BadPosition {
                room: self.room_name(id).ok_or(StoreError::Closed)?,
                asked: seq,
                head: slot.head,
            });
        }
        if seq < slot.first {
            return Ok(Begin::Skip(SkipRange {
                from: seq,
                to: before(slot.first),
                reason: SkipReason::TRIMMED,
            }));
        }
        Ok(Begin::At(seq))
    }
}

/// Whether a room is called by its number, because its name is lost.
pub(crate) fn is_nameless(name: &str) -> bool {
    name.starts_with(NAMELESS)
}

fn kept_in(chunks: &[Vec<Kept>], id: RoomId) -> Option<&Kept> {
    let at = index(id)?;
    chunks.get(at / CHUNK)?.get(at % CHUNK)
}

fn name_in<'a>(chunks: &[Vec<Kept>], names: &'a Names, id: RoomId) -> &'a str {
    kept_in(chunks, id).map_or("", |kept| names.get(kept.name))
}

/// A new epoch out of 64 random bits: 53 of them, so that it is the same number in JSON, where many
/// programs know no larger integers.
pub(crate) fn draw_epoch(bits: u64) -> Epoch {
    Epoch::new((bits >> 11).max(1))
}

/// The seq after this one. Seqs are counted up one by one from 1, so the end is out of reach.
pub(crate) fn after(seq: Seq) -> Seq {
    Seq::new(seq.get().saturating_add(1))
}

/// The seq before this one, `Seq::NONE` before the first.
pub(crate) fn before(seq: Seq) -> Seq {
    Seq::new(seq.get().saturating_sub(1))
}

fn index(id: RoomId) -> Option<usize> {
    usize::try_from(id.get().checked_sub(1)?).ok()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;
    use broker_proto::Position;

    fn table() -> (RoomTable, RoomId) {
        let mut table = RoomTable::default();
        let id = table.next_id(0).unwrap();
        let slot = RoomSlot {
            first: Seq::new(3),
            head: Seq::new(9),
            last_time: Micros::new(5),
            ..RoomSlot::new(Epoch::new(7))
        };
        assert!(table.insert(id, "lobby", None, slot));
        (table, id)
    }

    #[test]
    fn reads_begin_where_asked() {
        let (table, id) = table();
        let at = |start: StartAt| table.begin(id, &start).unwrap();
        assert_eq!(at(StartAt::START), Begin::At(Seq::new(3)));
        assert_eq!(at(StartAt::END), Begin::At(Seq::new(10)));
        assert_eq!(at(StartAt::last(2)), Begin::At(Seq::new(8)));
        assert_eq!(at(StartAt::last(100)), Begin::At(Seq::new(3)));
        assert_eq!(at(StartAt::seq(Seq::new(10))), Begin::At(Seq::new(10)));
        let gone = SkipRange {
            from: Seq::new(1),
            to: Seq::new(2),
            reason: SkipReason::TRIMMED,
        };
        assert_eq!(at(StartAt::seq(Seq::new(1))), Begin::Skip(gone));
        assert!(matches!(
            table.begin(id, &StartAt::seq(Seq::new(11))),
            Err(StoreError::BadPosition { .. })
        ));
    }

    #[test]
    fn a_position_is_valid_in_its_epoch_and_up_to_the_fork_of_its_parent() {
        let (mut table, id) = table();
        table.set_parent(
            id,
            Parent {
                epoch: Epoch::new(6),
                fork: Seq::new(5),
            },
        );
        let at = |epoch, seq| {
            table.begin(
                id,
                &StartAt::position(Position {
                    epoch: Epoch::new(epoch),
                    seq: Seq::new(seq),
                }),
            )
        };
        assert_eq!(at(7, 10).unwrap(), Begin::At(Seq::new(10)));
        assert_eq!(at(6, 6).unwrap(), Begin::At(Seq::new(6)));
        assert!(matches!(at(7, 11), Err(StoreError::LostSuffix { .. })));
        assert!(matches!(at(6, 7), Err(StoreError::LostSuffix { .. })));
        assert!(matches!(at(1, 3), Err(StoreError::LostSuffix { .. })));
    }

    #[test]
    fn pages_follow_the_order_of_names() {
        let mut table = RoomTable::default();
        for name in ["d", "a", "c", "b"] {
            let slot = RoomSlot {
                head: Seq::FIRST,
                ..RoomSlot::new(Epoch::new(1))
            };
            let id = table.next_id(0).unwrap();
            assert!(table.insert(id, name, None, slot));
        }
        assert!(table.sort_some());
        let names = |page: &RoomsPage| {
            page.rooms
                .iter()
                .map(|room| room.name.to_string())
                .collect::<Vec<_>>()
        };
        let page = table.page("", 3);
        assert_eq!(
            (names(&page), page.more),
            (vec!["a".into(), "b".into(), "c".into()], true)
        );
        let page = table.page("c", 3);
        assert_eq!((names(&page), page.more), (vec!["d".into()], false));
    }
}
