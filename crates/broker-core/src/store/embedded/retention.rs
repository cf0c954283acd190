//! Works out what is not to be kept any more: of each room by its own settings, and of all together, oldest first.
//!
//! What a room keeps is found by its indexes. What the store keeps is found by a walk from the front of the log, which goes on
//! where it ended the last time, so that it passes each batch once.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::time::Duration;

use broker_proto::{
    Micros, Retention, RoomId, RoomSettings, Seq, StartAt, StoreSettings, WhenFull,
};

use super::super::rooms::{Begin, RoomTable, Totals};
use super::super::sequencer::{Trimming, look_pause};
use super::super::{Fullness, Hint, StoreError, TrimRoom};
use super::shared::Shared;
use crate::log::batch::BatchRun;
use crate::log::find::{find_bytes, find_time};
use crate::log::measure::bytes_before;
use crate::log::position::LogPosition;
use crate::log::reader::Wanted;
use crate::log::scan::BatchView;
use crate::log::storage::Storage;
use crate::log::walk::{Place, Walk, walk};
use crate::sync::read;

/// Trims that go into one batch.
pub(super) const TRIMS_MAX: usize = 4096;
/// Rooms that are looked at before others are let in.
const ROOMS_AT_ONCE: u32 = 16 << 10;

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Retaining {
    /// When the age of a room is looked at next.
    due: HashMap<RoomId, Micros>,
    /// Where the walk over all rooms is.
    oldest: Option<Place>,
    /// Where the walk over the rooms is that may lose messages when the store is full.
    allowed: Option<Place>,
    /// Where the log ended when it was looked at last.
    seen: LogPosition,
    /// The room that was looked at last.
    looked_upto: RoomId,
    /// Rooms that had no place for so many bytes, and may lose messages for them; `NONE` for the store.
    short: HashMap<RoomId, u64>,
    /// Bytes that were trimmed because the store is nearly full, and that have not been freed yet.
    freeing: u64,
    freed: u64,
}

impl Retaining {
    /// Settings, or rooms, have changed.
    pub(super) fn note_changed(&mut self) {
        self.due.clear();
        self.seen = LogPosition::START;
        self.oldest = None;
        self.allowed = None;
    }

    /// These rooms had no place for so many bytes.
    pub(super) fn note_short(&mut self, short: HashMap<RoomId, u64>) {
        self.short = short;
    }

    /// No more space is about to be freed. What was trimmed near the limit is spread over segments that are not worth writing
    /// anew yet, so more of them has to go.
    pub(super) fn note_rest(&mut self) {
        self.freeing = 0;
    }

    /// Whether anything is set, so that it has to be looked at again and again.
    pub(super) fn looks_on<S: Storage>(
        &self,
        shared: &Shared<S>,
        settings: &StoreSettings,
    ) -> bool {
        let of_store = !settings.retention.keeps_all()
            || settings.bytes_max.is_some()
            || settings.room_bytes_max.is_some();
        let rooms = read(&shared.rooms);
        let mut all = rooms.with_settings();
        of_store
            || all.any(|(_, set)| {
                set.settings.bytes_max.is_some() || !set.settings.retention.keeps_all()
            })
    }

    /// Whether a room may lose messages when the store is full, or by what is set to be kept.
    pub(super) fn may_free<S: Storage>(shared: &Shared<S>, settings: &StoreSettings) -> bool {
        let rooms = read(&shared.rooms);
        let may_lose =
            |set: &RoomSettings| set.when_full == WhenFull::Trim || !set.retention.keeps_all();
        !settings.retention.keeps_all()
            || rooms
                .with_settings()
                .any(|(_, set)| may_lose(&set.settings))
    }

    /// What a room loses when it is trimmed as somebody asks; `None` when it loses nothing.
    pub(super) fn work_out<S: Storage>(
        &mut self,
        shared: &Shared<S>,
        trim: &TrimRoom,
    ) -> Result<Option<Trimming>, StoreError> {
        let room = trim.check(&read(&shared.rooms))?;
        let worked_out = until_found(|| trimming(shared, room, trim.before));
        worked_out.map_err(|error| StoreError::Io {
            what: error.to_string(),
        })
    }

    /// All that is to go now, or as much of it as one batch takes.
    pub(super) fn plan<S: Storage>(
        &mut self,
        shared: &Shared<S>,
        settings: &StoreSettings,
        now: Micros,
    ) -> io::Result<Vec<Trimming>> {
        let durable = shared.durable();
        let has_grown = durable != std::mem::replace(&mut self.seen, durable);
        let mut trims = BTreeMap::new();
        self.plan_rooms(shared, settings, (now, has_grown), &mut trims)?;
        self.plan_store(shared, settings, now, &mut trims)?;
        if trims.len() >= TRIMS_MAX {
            self.seen = LogPosition::START;
        }
        Ok(trims.into_values().collect())
    }

    /// What rooms lose by their own settings.
    fn plan_rooms<S: Storage>(
        &mut self,
        shared: &Shared<S>,
        settings: &StoreSettings,
        (now, has_grown): (Micros, bool),
        trims: &mut BTreeMap<RoomId, Trimming>,
    ) -> io::Result<()> {
        let set = limited(&read(&shared.rooms), settings);
        let set = in_turn(set, self.looked_upto);
        self.look_at(set, trims, |this, id, set| {
            if !has_grown && set.retention.age.is_none() && !this.short.contains_key(&id) {
                return Ok(None);
            }
            match this.first_kept(shared, id, set, now)? {
                Some(first) => trimming(shared, id, first),
                None => Ok(None),
            }
        })
    }

    /// Looks at one room after the other, until there is as much to trim as one batch takes.
    fn look_at(
        &mut self,
        set: Vec<(RoomId, Kept)>,
        trims: &mut BTreeMap<RoomId, Trimming>,
        mut look: impl FnMut(&mut Self, RoomId, Kept) -> io::Result<Option<Trimming>>,
    ) -> io::Result<()> {
        for (id, set) in set {
            if trims.len() >= TRIMS_MAX {
                break;
            }
            self.looked_upto = id;
            if let Some(trim) = look(self, id, set)? {
                trims.insert(id, trim);
            }
        }
        Ok(())
    }

    /// The oldest seq that a room is to keep, if that is a newer one than it does.
    fn first_kept<S: Storage>(
        &mut self,
        shared: &Shared<S>,
        id: RoomId,
        set: Kept,
        now: Micros,
    ) -> io::Result<Option<Seq>> {
        let Some((mut wanted, bytes)) = wanted(shared, id) else {
            return Ok(None);
        };
        let oldest = wanted.from;
        if let Some(count) = set.retention.count {
            let kept = wanted.head.get().saturating_sub(count).saturating_add(1);
            wanted.from = wanted.from.max(Seq::new(kept));
        }
        let max = set.bytes_max;
        let is_full = Fullness::of(bytes, max) >= Fullness::Trimming;
        let below_max = max
            .filter(|_| is_full && set.may_lose)
            .map(|max| max / 10 * 9);
        let needed = self.short.remove(&id).filter(|_| set.may_lose);
        let for_next = max
            .zip(needed)
            .map(|(max, needed)| max.saturating_sub(needed));
        let keep = [set.retention.bytes, below_max, for_next];
        for keep in keep.into_iter().flatten() {
            if bytes > keep && wanted.from <= wanted.head {
                wanted.from = find_bytes(&shared.segments, &wanted, keep)?;
            }
        }
        if let Some(age) = set.retention.age
            && wanted.from <= wanted.head
            && self.due.get(&id).is_none_or(|due| now >= *due)
        {
            self.due.insert(id, plus(now, look_pause(age)));
            wanted.from = find_time(&shared.segments, &wanted, minus(now, age))?;
        }
        Ok((wanted.from > oldest).then_some(wanted.from))
    }

    /// What goes because all rooms together have too much, or too old messages.
    fn plan_store<S: Storage>(
        &mut self,
        shared: &Shared<S>,
        settings: &StoreSettings,
        now: Micros,
        trims: &mut BTreeMap<RoomId, Trimming>,
    ) -> io::Result<()> {
        let keep = settings.retention;
        if !keep.keeps_all() {
            let from = self.oldest.unwrap_or(Place::START);
            let goal = Goal {
                before: keep.age.map(|age| minus(now, age)),
                bytes: keep.bytes.unwrap_or(u64::MAX),
                messages: keep.count.unwrap_or(u64::MAX),
            };
            let span = (from, shared.durable());
            self.oldest = Some(trim_oldest(shared, span, &goal, &|_| true, trims)?);
        }
        let Some(max) = settings.bytes_max else {
            return Ok(());
        };
        let (log_bytes, freed) = (shared.log_bytes(), shared.space.bytes_freed());
        self.freeing = self
            .freeing
            .saturating_sub(freed - std::mem::replace(&mut self.freed, freed));
        let short = self.short.remove(&RoomId::NONE).unwrap_or(0);
        let wanted = (max / 10 * 9).min(max.saturating_sub(short));
        let needed = log_bytes
            .saturating_sub(wanted)
            .saturating_sub(self.freeing);
        let is_full = short > 0 || Fullness::of(log_bytes, Some(max)) >= Fullness::Trimming;
        if !is_full || needed == 0 {
            return Ok(());
        }
        let allowed = |id: RoomId| {
            let rooms = read(&shared.rooms);
            let set = rooms.settings(id);
            set.is_some_and(|set| set.settings.when_full == WhenFull::Trim)
        };
        let before: u64 = trims.values().map(|trim| trim.removed).sum();
        let totals = read(&shared.rooms).totals();
        let goal = Goal {
            before: None,
            bytes: totals.bytes.saturating_sub(needed),
            messages: u64::MAX,
        };
        // What lies in the newest segment would go in vain: it is being written.
        let newest = shared.segments.newest().map(|newest| newest.base);
        let upto = newest.unwrap_or(LogPosition::START).min(shared.durable());
        let from = self.allowed.unwrap_or(Place::START);
        self.allowed = Some(trim_oldest(shared, (from, upto), &goal, &allowed, trims)?);
        let now: u64 = trims.values().map(|trim| trim.removed).sum();
        self.freeing += now.saturating_sub(before);
        Ok(())
    }
}

/// What limits a room.
#[derive(Debug, Clone, Copy)]
struct Kept {
    retention: Retention,
    bytes_max: Option<u64>,
    may_lose: bool,
}

impl Kept {
    fn of(set: &RoomSettings, settings: &StoreSettings) -> Self {
        Self {
            retention: set.retention,
            bytes_max: set.bytes_max.or(settings.room_bytes_max),
            may_lose: set.when_full == WhenFull::Trim,
        }
    }

    /// Whether it may lose messages.
    fn is_limited(self) -> bool {
        !self.retention.keeps_all() || (self.may_lose && self.bytes_max.is_some())
    }
}

/// The rooms that may lose messages by what is set of them.
fn limited(rooms: &RoomTable, settings: &StoreSettings) -> Vec<(RoomId, Kept)> {
    let all = rooms.with_settings();
    let kept = all.map(|(id, set)| (id, Kept::of(&set.settings, settings)));
    kept.filter(|(_, kept)| kept.is_limited()).collect()
}

/// The same from behind the one that was looked at last, in an order that repeats: with more rooms than one batch trims none
/// always comes too late.
fn in_turn(mut set: Vec<(RoomId, Kept)>, looked_upto: RoomId) -> Vec<(RoomId, Kept)> {
    set.sort_unstable_by_key(|(id, _)| *id);
    let from = set.partition_point(|(id, _)| *id <= looked_upto);
    set.rotate_left(from);
    set
}

/// How many rooms are near their limit of bytes.
pub(super) fn rooms_near_limit<S: Storage>(shared: &Shared<S>, settings: &StoreSettings) -> u64 {
    let (mut near, mut next) = (0, 1);
    loop {
        // Others get in between: there may be very many rooms.
        let rooms = read(&shared.rooms);
        let numbers = u32::try_from(rooms.numbers()).unwrap_or(u32::MAX);
        if next > numbers || (settings.room_bytes_max.is_none() && rooms.none_is_limited()) {
            return near;
        }
        let end = next.saturating_add(ROOMS_AT_ONCE).min(numbers);
        for id in (next..=end).map(RoomId::new) {
            let set = rooms.settings(id).and_then(|set| set.settings.bytes_max);
            let max = set.or(settings.room_bytes_max);
            let bytes = rooms.get(id).map_or(0, |slot| slot.bytes);
            near += u64::from(Fullness::of(bytes, max) > Fullness::Fine);
        }
        next = end + 1;
    }
}

/// Down to what a walk trims.
struct Goal {
    /// What is older than this.
    before: Option<Micros>,
    /// While there are more bytes.
    bytes: u64,
    /// While there are more messages.
    messages: u64,
}

impl Goal {
    fn is_reached(&self, left: Totals, time: Micros) -> bool {
        self.before.is_none_or(|before| time >= before)
            && left.bytes <= self.bytes
            && left.messages <= self.messages
    }
}

/// Trims the oldest messages of the rooms that `may` lose some, whatever room they are in, until the goal is reached; gives the
/// place of the oldest batch that was not passed. Looks no further than `upto`.
fn trim_oldest<S: Storage>(
    shared: &Shared<S>,
    (from, upto): (Place, LogPosition),
    goal: &Goal,
    may: &dyn Fn(RoomId) -> bool,
    trims: &mut BTreeMap<RoomId, Trimming>,
) -> io::Result<Place> {
    let mut left = {
        let totals = read(&shared.rooms).totals();
        let planned: u64 = trims.values().map(|trim| trim.removed).sum();
        let messages: u64 = trims.values().map(messages_of).sum();
        Totals {
            bytes: totals.bytes.saturating_sub(planned),
            messages: totals.messages.saturating_sub(messages),
        }
    };
    walk(&shared.segments, from, upto, &mut |view| {
        let time = Micros::new(view.head.time);
        for run in view.runs().iter().filter(|run| !run.room.is_none()) {
            if goal.is_reached(left, time) || trims.len() >= TRIMS_MAX {
                return Walk::Stop;
            }
            if may(run.room) {
                let rooms = read(&shared.rooms);
                trim_run(&rooms, view, run, (goal, time), (&mut left, trims));
            }
        }
        if goal.is_reached(left, time) {
            // Some of this batch may be left.
            return Walk::Stop;
        }
        Walk::On
    })
}

fn messages_of(trim: &Trimming) -> u64 {
    trim.first.get().saturating_sub(trim.from.get())
}

/// Trims the messages of one room in one batch, until the goal is reached.
fn trim_run(
    rooms: &RoomTable,
    view: &BatchView,
    run: &BatchRun,
    (goal, time): (&Goal, Micros),
    (left, trims): (&mut Totals, &mut BTreeMap<RoomId, Trimming>),
) {
    let Some(slot) = rooms.get(run.room) else {
        return;
    };
    let mut trim = trims.get(&run.room).copied().unwrap_or(Trimming {
        room: run.room,
        from: slot.first,
        first: slot.first,
        removed: 0,
    });
    let before = trim.first;
    for (seq, length) in (run.first_seq.get()..).zip(view.lengths(run)) {
        if seq < trim.first.get() {
            continue;
        }
        if goal.is_reached(*left, time) {
            break;
        }
        trim.first = Seq::new(seq + 1);
        trim.removed += u64::from(length);
        left.bytes = left.bytes.saturating_sub(length.into());
        left.messages = left.messages.saturating_sub(1);
    }
    if trim.first > before {
        trims.insert(run.room, trim);
    }
}

/// How a room can be asked about, and how many bytes it has.
fn wanted<S: Storage>(shared: &Shared<S>, id: RoomId) -> Option<(Wanted, u64)> {
    let rooms = read(&shared.rooms);
    let slot = rooms.get(id)?;
    let Ok(Begin::At(from)) = rooms.begin(id, &StartAt::START) else {
        return None;
    };
    let wanted = Wanted {
        room: id,
        from,
        head: slot.head,
        last_at: LogPosition::new(slot.last_at),
        count_max: u32::MAX,
        bytes_max: u32::MAX,
        hint: Hint::default(),
        durable: shared.durable(),
        at_once: false,
    };
    Some((wanted, slot.bytes))
}

/// A room's trim to this seq, with what it takes away; `None` when it takes nothing.
fn trimming<S: Storage>(
    shared: &Shared<S>,
    id: RoomId,
    first: Seq,
) -> io::Result<Option<Trimming>> {
    let Some((wanted, bytes)) = wanted(shared, id) else {
        return Ok(None);
    };
    let from = wanted.from;
    if first <= from {
        return Ok(None);
    }
    // What is removed does not change any more while others add to the rest.
    let removed = match first > wanted.head {
        true => bytes,
        false => bytes_before(&shared.segments, &wanted, first)?,
    };
    Ok(Some(Trimming {
        room: id,
        from,
        first,
        removed,
    }))
}

/// Tries again while segments are replaced on the way.
fn until_found<T>(mut look: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    for _ in 0..16 {
        match look() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => return other,
        }
    }
    look()
}

fn minus(time: Micros, span: Duration) -> Micros {
    let span = i64::try_from(span.as_micros()).unwrap_or(i64::MAX);
    Micros::new(time.get().saturating_sub(span))
}

fn plus(time: Micros, span: Duration) -> Micros {
    let span = i64::try_from(span.as_micros()).unwrap_or(i64::MAX);
    Micros::new(time.get().saturating_add(span))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]
    use std::collections::BTreeSet;

    use broker_proto::Epoch;

    use super::super::super::RoomSlot;
    use super::super::super::rooms::Versioned;
    use super::*;

    /// Rooms that keep one message and have three.
    fn rooms(count: u32) -> RoomTable {
        let mut rooms = RoomTable::default();
        for id in (1..=count).map(RoomId::new) {
            assert!(rooms.insert(
                id,
                &format!("room-{id}"),
                None,
                RoomSlot::new(Epoch::new(7))
            ));
            rooms.grow(id, Seq::new(3), Micros::new(1), 0);
            let retention = Retention {
                count: Some(1),
                ..Retention::default()
            };
            let settings = RoomSettings {
                retention,
                ..RoomSettings::default()
            };
            let version = 1;
            rooms.set_settings(id, Versioned { version, settings });
        }
        rooms
    }

    #[test]
    fn with_more_rooms_than_a_batch_trims_each_gets_its_turn() {
        let busy = u32::try_from(TRIMS_MAX).unwrap();
        let count = busy + 104;
        let mut rooms = rooms(count);
        let mut retaining = Retaining::default();
        let mut had_turn = BTreeSet::new();
        for _ in 0..2 {
            let mut trims = BTreeMap::new();
            let set = limited(&rooms, &StoreSettings::default());
            let set = in_turn(set, retaining.looked_upto);
            assert_eq!(set.len(), count as usize);
            let looked = retaining.look_at(set, &mut trims, |_, room, kept| {
                let slot = rooms.get(room).unwrap();
                let keeps = Seq::new(slot.head.get() + 1 - kept.retention.count.unwrap());
                Ok((keeps > slot.first).then_some(Trimming {
                    room,
                    from: slot.first,
                    first: keeps,
                    removed: 0,
                }))
            });
            looked.unwrap();
            assert_eq!(trims.len(), TRIMS_MAX);
            had_turn.extend(trims.keys().copied());
            for (id, trim) in trims {
                rooms.trim(id, trim.first, 0);
            }
            // There is always something new in the first ones.
            for id in (1..=busy).map(RoomId::new) {
                let head = rooms.get(id).unwrap().head;
                rooms.grow(id, Seq::new(head.get() + 2), Micros::new(1), 0);
            }
        }
        assert_eq!(had_turn.len(), count as usize);
    }
}
