//! What is kept in memory of every room: where its history begins and ends, not what is in it.
//!
//! A slot is a few dozen bytes plus the name, whatever the room's history holds. Rooms are numbered
//! from 1 in the order of their making, so that a number finds its slot without a look-up.

use std::collections::hash_map::Entry;
use std::collections::{BinaryHeap, HashMap};

use broker_proto::{
    Epoch, Micros, RoomId, RoomName, RoomSettings, SenderName, Seq, SkipRange, SkipReason, StartAt,
    StartView,
};

use super::{FindRooms, FoundRooms, RoomInfo, RoomState, RoomsPage, StoreError};

/// A store refuses to make more rooms than this, over all time: numbers are not given twice.
pub(crate) const ROOMS_MAX: usize = 16_000_000;

/// Rooms that one search looks at, at most.
const LOOKED_AT_MAX: usize = 10_000;

/// The latest time of a room without a message: before all others, also those of a clock that is
/// set to before 1970.
pub(crate) const NO_TIME: Micros = Micros::new(i64::MIN);

/// Rooms whose names are lost are called by their numbers.
const NAMELESS: &str = "$lost-";

/// One room.
#[derive(Debug, Clone)]
pub(crate) struct RoomSlot {
    /// Its name.
    pub(crate) name: RoomName,
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
    /// By whom, if that is known.
    pub(crate) created_by: Option<SenderName>,
}

impl RoomSlot {
    /// A room that is being made.
    pub(crate) fn new(name: RoomName, epoch: Epoch) -> Self {
        Self {
            name,
            epoch,
            first: Seq::FIRST,
            head: Seq::NONE,
            last_time: NO_TIME,
            last_at: 0,
            bytes: 0,
            created: Micros::new(0),
            created_by: None,
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

/// In place of the epoch of a removed room; none is drawn like this.
const REMOVED: Epoch = Epoch::new(0);

/// What was set of a room, and how often.
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
    slots: Vec<RoomSlot>,
    by_name: HashMap<RoomName, RoomId>,
    parents: HashMap<RoomId, Parent>,
    settings: HashMap<RoomId, Box<Versioned<RoomSettings>>>,
    removed: usize,
    totals: Totals,
    /// The heads with which this leader began; `None` where nothing outlives a leader.
    began: Option<Vec<Seq>>,
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
        self.slots.len()
    }

    /// How many rooms there are.
    pub(crate) fn len(&self) -> usize {
        self.slots.len() - self.removed
    }

    /// What they have together.
    pub(crate) fn totals(&self) -> Totals {
        self.totals
    }

    pub(crate) fn id(&self, name: &RoomName) -> Option<RoomId> {
        self.by_name.get(name).copied()
    }

    pub(crate) fn get(&self, id: RoomId) -> Option<&RoomSlot> {
        self.slots.get(index(id)?).filter(|slot| !slot.is_removed())
    }

    pub(crate) fn get_mut(&mut self, id: RoomId) -> Option<&mut RoomSlot> {
        self.slots
            .get_mut(index(id)?)
            .filter(|slot| !slot.is_removed())
    }

    pub(crate) fn slots_mut(&mut self) -> impl Iterator<Item = &mut RoomSlot> {
        self.slots.iter_mut().filter(|slot| !slot.is_removed())
    }

    /// Whether the room of this number was removed.
    pub(crate) fn is_removed(&self, id: RoomId) -> bool {
        let slot = index(id).and_then(|at| self.slots.get(at));
        slot.is_some_and(RoomSlot::is_removed)
    }

    pub(crate) fn find(&self, name: &RoomName) -> Option<(RoomId, &RoomSlot)> {
        let id = self.id(name)?;
        Some((id, self.get(id)?))
    }

    /// Remembers the heads as they are: what an earlier leader has acknowledged lies below them.
    pub(crate) fn begin_term(&mut self) {
        self.began = Some(self.slots.iter().map(|slot| slot.head).collect());
        self.totals = Totals {
            messages: self.iter().map(|(_, slot)| slot.messages()).sum(),
            bytes: self.iter().map(|(_, slot)| slot.bytes).sum(),
        };
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
    pub(crate) fn iter(&self) -> impl Iterator<Item = (RoomId, &RoomSlot)> {
        (1..)
            .map(RoomId::new)
            .zip(&self.slots)
            .filter(|(_, slot)| !slot.is_removed())
    }

    /// Notes that a room has grown.
    pub(crate) fn grow(&mut self, id: RoomId, head: Seq, last_time: Micros, at: u64) {
        if let Some(slot) = self.slots.get_mut(index(id).unwrap_or(usize::MAX)) {
            self.totals.messages += head.get().saturating_sub(slot.head.get());
            slot.head = head;
            slot.last_time = last_time;
            slot.last_at = at;
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
        let name = std::mem::replace(&mut slot.name, nameless(id));
        let gone = (slot.messages(), slot.bytes);
        *slot = RoomSlot::new(slot.name.clone(), REMOVED);
        self.totals.messages = self.totals.messages.saturating_sub(gone.0);
        self.totals.bytes = self.totals.bytes.saturating_sub(gone.1);
        self.removed += 1;
        if self.by_name.get(&name) == Some(&id) {
            self.by_name.remove(&name);
        }
        self.parents.remove(&id);
        self.settings.remove(&id);
    }

    /// Gives out the next number to a room that was removed already: a checkpoint tells of it.
    pub(crate) fn insert_removed(&mut self, id: RoomId) -> bool {
        let is_next = index(id) == Some(self.slots.len());
        if is_next {
            self.slots.push(RoomSlot::new(nameless(id), REMOVED));
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
            self.settings.insert(id, Box::new(settings));
        }
    }

    /// All that is known of a room.
    pub(crate) fn state(&self, id: RoomId) -> Option<RoomState> {
        let slot = self.get(id)?;
        let set = self.settings(id);
        Some(RoomState {
            info: info(slot),
            bytes: slot.bytes,
            created: slot.created,
            created_by: slot.created_by.clone(),
            version: set.map_or(0, |set| set.version),
            settings: set.map(|set| set.settings.clone()).unwrap_or_default(),
        })
    }

    /// The rooms after a name, in the order of names, that are wanted. It looks at so many rooms only.
    pub(crate) fn search(&self, wanted: &FindRooms) -> FoundRooms {
        let from = wanted.after.as_str().max(wanted.prefix.as_str());
        let includes_from = from > wanted.after.as_str();
        let mut found = FoundRooms::default();
        let limit = wanted.limit.max(1) as usize;
        let mut looked_at = 0;
        for (id, slot) in self.in_order(from, includes_from) {
            if !slot.name.as_str().starts_with(&wanted.prefix) {
                return found;
            }
            looked_at += 1;
            if self.has_labels(id, &wanted.labels) {
                found.rooms.extend(self.state(id));
            }
            if found.rooms.len() >= limit || looked_at >= LOOKED_AT_MAX {
                found.next = Some(slot.name.to_string());
                return found;
            }
        }
        found
    }

    fn has_labels(&self, id: RoomId, labels: &[(String, Option<String>)]) -> bool {
        let set = self.settings(id).map(|set| &set.settings.labels);
        labels.iter().all(|(name, value)| {
            let has = set.and_then(|set| set.get(name));
            has.is_some_and(|has| value.as_ref().is_none_or(|value| value == has))
        })
    }

    /// The rooms that hold a message, or did, from a name on.
    fn in_order(
        &self,
        from: &str,
        includes_from: bool,
    ) -> impl Iterator<Item = (RoomId, &RoomSlot)> {
        let mut after = from.to_owned();
        let mut includes = includes_from;
        let mut page = Vec::new().into_iter();
        std::iter::from_fn(move || {
            loop {
                if let Some(id) = page.next() {
                    return Some((id, self.get(id)?));
                }
                let (ids, _) = self.smallest(&after, includes, LOOKED_AT_MAX);
                after.clone_from(&self.get(*ids.last()?)?.name.to_string());
                includes = false;
                page = ids.into_iter();
            }
        })
    }

    /// The number that the next new room gets, when `ahead` others are about to be made.
    pub(crate) fn next_id(&self, ahead: usize) -> Option<RoomId> {
        let next = self.slots.len() + ahead;
        if next >= ROOMS_MAX {
            return None;
        }
        u32::try_from(next + 1).ok().map(RoomId::new)
    }

    /// Adds a room under the next number, or at `id` when a log is replayed; a number that leaves a
    /// hole or is taken by another name is refused.
    pub(crate) fn insert(&mut self, id: RoomId, slot: RoomSlot) -> bool {
        if index(id) != Some(self.slots.len()) {
            return false;
        }
        // Names are looked up once: with very many rooms that is most of the work of a start.
        let Entry::Vacant(place) = self.by_name.entry(slot.name.clone()) else {
            return false;
        };
        place.insert(id);
        self.slots.push(slot);
        true
    }

    /// Adds rooms up to `id` whose names are not known: a replay found their numbers, but what
    /// named them is damaged. Their messages stay in the log, and their numbers are not given to
    /// others. Says whether there is such a room now.
    pub(crate) fn add_nameless(&mut self, id: RoomId) -> bool {
        let Some(last) = index(id).filter(|last| *last < ROOMS_MAX) else {
            return false;
        };
        while self.slots.len() <= last {
            let number = self.slots.len() as u64 + 1;
            let Ok(id) = u32::try_from(number).map(RoomId::new) else {
                return false;
            };
            let name = nameless(id);
            self.by_name.insert(name.clone(), id);
            // The same at every start, and never drawn by chance.
            let epoch = Epoch::new(u64::MAX - number);
            self.slots.push(RoomSlot::new(name, epoch));
        }
        true
    }

    /// Gives a room of [`Self::add_nameless`] its name and epoch, found later; changes no other.
    pub(crate) fn name(&mut self, id: RoomId, name: &RoomName, epoch: Epoch) {
        let Some(slot) = index(id).and_then(|at| self.slots.get_mut(at)) else {
            return;
        };
        if slot.name.as_str().starts_with(NAMELESS) && !self.by_name.contains_key(name) {
            self.by_name.remove(&slot.name);
            self.by_name.insert(name.clone(), id);
            slot.name = name.clone();
            slot.epoch = epoch;
        }
    }

    /// The rooms after a name, in the order of names.
    pub(crate) fn page(&self, after: &str, limit: usize) -> RoomsPage {
        let (ids, more) = self.smallest(after, false, limit);
        let rooms = ids.iter().filter_map(|id| self.get(*id)).map(info);
        RoomsPage {
            rooms: rooms.collect(),
            more,
        }
    }

    fn smallest(&self, from: &str, includes_from: bool, limit: usize) -> (Vec<RoomId>, bool) {
        // A heap of the smallest names so far: one pass, and no memory beyond the page.
        let mut smallest: BinaryHeap<(&str, RoomId)> = BinaryHeap::with_capacity(limit + 2);
        for (id, slot) in self.iter() {
            let name = slot.name.as_str();
            let is_wanted = name > from || (includes_from && name == from);
            if is_wanted && slot.head >= Seq::FIRST {
                smallest.push((name, id));
                if smallest.len() > limit + 1 {
                    smallest.pop();
                }
            }
        }
        let more = smallest.len() > limit;
        let ids = smallest.into_sorted_vec().into_iter().map(|(_, id)| id);
        (ids.take(limit).collect(), more)
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
                        room: slot.name.clone(),
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
                room: slot.name.clone(),
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

/// The broker's own kind of name: nobody can publish there.
fn nameless(id: RoomId) -> RoomName {
    let name = format!("{NAMELESS}{id}");
    RoomName::parse_reserved(&name).unwrap_or_else(|_| unreachable!("digits may stand in a name"))
}

/// Whether a room is called by its number, because its name is lost.
pub(crate) fn is_nameless(name: &RoomName) -> bool {
    name.as_str().starts_with(NAMELESS)
}

/// A new epoch out of 64 random bits: 53 of them, so that it is the same number in JSON, where many
/// programs know no larger integers.
pub(crate) fn draw_epoch(bits: u64) -> Epoch {
    Epoch::new((bits >> 11).max(1))
}

/// What others may know of a room.
pub(crate) fn info(slot: &RoomSlot) -> RoomInfo {
    RoomInfo {
        name: slot.name.clone(),
        epoch: slot.epoch,
        first: slot.first,
        head: slot.head,
        last_time: slot.last_time,
    }
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
            ..RoomSlot::new(RoomName::parse("lobby").unwrap(), Epoch::new(7))
        };
        assert!(table.insert(id, slot));
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
                ..RoomSlot::new(RoomName::parse(name).unwrap(), Epoch::new(1))
            };
            let id = table.next_id(0).unwrap();
            assert!(table.insert(id, slot));
        }
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
