//! A store that keeps everything in memory: for tests, and for rooms that need not outlive a
//! process. The deciding half is the same as that of the store on disk.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use broker_proto::record::RECORD_FIXED_BYTES;
use broker_proto::{Micros, Retention, RoomId, RoomName, Seq, StoreId, Term, publish};
use bytes::Bytes;

use super::cursors::CursorKey;
use super::losses::losses;
use super::rooms::{Begin, NO_TIME, RoomTable, after};
use super::sequencer::{Decision, Placed, Sequencer};
use super::watchers::Watchers;
use super::{
    AckRun, Answer, Append, Ask, Busy, Claims, CursorsInfo, FootersInfo, Hint, Mailbox, Notice,
    ProducerKey, ReadRange, ReadReply, ScrubInfo, SessionId, SetCursor, SpaceInfo, Store,
    StoreError, StoreInfo, StoreState, producers, wake_all,
};
use crate::clock::{Clock, Random};
use crate::log::message_record;
use crate::sync::{Arc, Mutex, lock};

/// See the module's documentation.
pub struct MemoryStore {
    inner: Mutex<Inner>,
    clock: Arc<dyn Clock>,
    store: StoreId,
    payload_bytes_max: u32,
}

struct Inner {
    rooms: RoomTable,
    sequencer: Sequencer,
    records: HashMap<RoomId, VecDeque<Kept>>,
    watchers: Watchers,
    random: Box<dyn Random>,
    batches: u64,
    messages: u64,
    /// Bytes of the records that were kept last.
    added: u64,
}

struct Kept {
    bytes: Bytes,
    time: Micros,
}

impl std::fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemoryStore")
            .field("store", &self.store)
            .finish_non_exhaustive()
    }
}

impl MemoryStore {
    /// An empty store whose payloads may have `payload_bytes_max` bytes.
    pub fn new(
        payload_bytes_max: u32,
        clock: Arc<dyn Clock>,
        mut random: Box<dyn Random>,
    ) -> Arc<Self> {
        let mut id = [0; 16];
        random.fill(&mut id);
        let sequencer = Sequencer::new(producers::IDLE_SECS_DEFAULT);
        Arc::new(Self {
            inner: Mutex::new(Inner {
                rooms: RoomTable::default(),
                sequencer,
                records: HashMap::new(),
                watchers: Watchers::default(),
                random,
                batches: 0,
                messages: 0,
                added: 0,
            }),
            clock,
            store: StoreId::new(id),
            payload_bytes_max,
        })
    }
}

impl Inner {
    fn keep(&mut self, append: &Append, placed: &Placed, now: Micros) {
        let kept = self.records.entry(placed.room).or_default();
        let mut added = 0;
        let entries = publish::entries(&append.entries).skip(placed.skip as usize);
        for (n, entry) in (0..).zip(entries) {
            let mut bytes =
                Vec::with_capacity(RECORD_FIXED_BYTES + append.head.len() + entry.payload.len());
            let seq = Seq::new(placed.first_seq.get() + n);
            message_record(&mut bytes, placed.room, seq, now, &append.head, &entry);
            added += bytes.len() as u64;
            kept.push_back(Kept {
                bytes: bytes.into(),
                time: now,
            });
        }
        self.added = added;
        self.messages += u64::from(placed.count);
    }

    fn read(&self, range: &ReadRange) -> Result<ReadReply, StoreError> {
        let Some((id, slot)) = self.rooms.find(&range.room) else {
            return Err(StoreError::NoSuchRoom {
                room: range.room.clone(),
            });
        };
        let empty = VecDeque::new();
        let kept = self.records.get(&id).unwrap_or(&empty);
        let mut reply = ReadReply {
            room: id,
            epoch: slot.epoch,
            first: slot.first,
            head: slot.head,
            next: Seq::NONE,
            skip: None,
            count: 0,
            records: Vec::new(),
            hint: Hint::default(),
        };
        let begin = match self.rooms.begin(id, &range.from)? {
            Begin::At(seq) => seq,
            Begin::Skip(skip) => {
                reply.skip = Some(skip);
                reply.next = after(skip.to);
                return Ok(reply);
            }
            Begin::Time(time) => {
                let at = kept.iter().position(|record| record.time >= time);
                at.map_or(after(slot.head), |at| {
                    Seq::new(slot.first.get() + at as u64)
                })
            }
        };
        let mut bytes = 0;
        let from = begin.get().saturating_sub(slot.first.get());
        let from = usize::try_from(from).unwrap_or(usize::MAX);
        let count_max = range.count_max.max(1) as usize;
        for record in kept.iter().skip(from).take(count_max) {
            bytes += record.bytes.len();
            if bytes > range.bytes_max as usize && reply.count > 0 {
                break;
            }
            reply.records.push(record.bytes.clone());
            reply.count += 1;
        }
        reply.next = Seq::new(begin.get() + u64::from(reply.count));
        Ok(reply)
    }
}

impl Inner {
    /// Answers, or does what is asked for.
    fn answer(
        &mut self,
        ask: &Ask,
        now: Micros,
        wake: &mut Vec<Arc<Mailbox>>,
    ) -> Result<Answer, StoreError> {
        let answer = match ask {
            Ask::Room(name) => self.room(name)?,
            Ask::Find(wanted) => {
                while !self.rooms.sort_some() {}
                Answer::Found(self.rooms.search(wanted))
            }
            Ask::Store => Answer::Store(StoreState {
                version: self.sequencer.settings.version,
                settings: self.sequencer.settings.settings,
            }),
            Ask::Cursors(list) => {
                let id = self.rooms.id(&list.room);
                let id = id.ok_or_else(|| StoreError::NoSuchRoom {
                    room: list.room.clone(),
                })?;
                let limit = list.limit as usize;
                let cursors = &self.sequencer.cursors;
                Answer::Cursors(cursors.page(id, &list.after, limit, |_| None))
            }
            Ask::ChangeRoom(change) => {
                Answer::Room(self.sequencer.change_room(&self.rooms, change)?)
            }
            Ask::ChangeStore(change) => Answer::Store(self.sequencer.change_store(change)?),
            Ask::Remove(remove) => {
                let was = self.sequencer.remove_room(&self.rooms, remove)?;
                if let Some(id) = self.rooms.id(&remove.room) {
                    self.records.remove(&id);
                }
                self.watchers.fire(&remove.room, Seq::new(u64::MAX), wake);
                Answer::Room(was)
            }
            Ask::Trim(trim) => {
                let id = trim.check(&self.rooms)?;
                self.drop_oldest(id, |_, seq, _| seq < trim.before);
                self.room(&trim.room)?
            }
        };
        self.sequencer.commit(&mut self.rooms, 0);
        self.retain(now);
        Ok(answer)
    }

    fn room(&self, name: &RoomName) -> Result<Answer, StoreError> {
        let id = self.rooms.id(name);
        let state = id.and_then(|id| self.rooms.state(id));
        let state = state.ok_or_else(|| StoreError::NoSuchRoom { room: name.clone() })?;
        Ok(Answer::Room(Box::new(state)))
    }

    /// Drops a room's oldest messages while `goes` says so of the bytes that are left, the seq and the time.
    fn drop_oldest(&mut self, id: RoomId, goes: impl Fn(u64, Seq, Micros) -> bool) {
        let (Some(slot), Some(kept)) = (self.rooms.get(id), self.records.get_mut(&id)) else {
            return;
        };
        let (mut first, mut bytes) = (slot.first, slot.bytes);
        while let Some(oldest) = kept.front()
            && goes(bytes, first, oldest.time)
        {
            bytes -= oldest.bytes.len() as u64;
            first = after(first);
            kept.pop_front();
        }
        self.rooms.trim(id, first, bytes);
    }

    /// Has the rooms lose messages whose limit refused one and that allow it, so that it fits the next time.
    fn make_place(&mut self, now: Micros) {
        if self.sequencer.is_limited(&self.rooms) {
            self.retain(now);
        }
        let short: Vec<(RoomId, u64)> = self.sequencer.short.drain().collect();
        for (id, needed) in short {
            let own = self.rooms.settings(id);
            let own = own.and_then(|set| set.settings.bytes_max);
            let max = own.or(self.sequencer.settings.settings.room_bytes_max);
            let keep = max.map_or(u64::MAX, |max| max.saturating_sub(needed));
            self.drop_oldest(id, |bytes, _, _| bytes > keep);
        }
    }

    /// Drops what is not to be kept.
    fn retain(&mut self, now: Micros) {
        let before = |age: Option<Duration>| {
            let age = age.map(|age| i64::try_from(age.as_micros()).unwrap_or(i64::MAX));
            age.map_or(NO_TIME, |age| Micros::new(now.get().saturating_sub(age)))
        };
        let set: Vec<(RoomId, Retention)> = self
            .rooms
            .with_settings()
            .map(|(id, set)| (id, set.settings.retention))
            .collect();
        for (id, keep) in set {
            let head = self.rooms.get(id).map_or(0, |slot| slot.head.get());
            let oldest = head.saturating_sub(keep.count.unwrap_or(u64::MAX));
            self.drop_oldest(id, |bytes, seq, time| {
                bytes > keep.bytes.unwrap_or(u64::MAX)
                    || seq.get() <= oldest
                    || time < before(keep.age)
            });
        }
        let keep = self.sequencer.settings.settings.retention;
        loop {
            let totals = self.rooms.totals();
            let oldest = self.records.iter().filter_map(|(id, kept)| {
                let front = kept.front()?;
                Some((front.time, *id))
            });
            let Some((time, id)) = oldest.min() else {
                return;
            };
            let goes = totals.bytes > keep.bytes.unwrap_or(u64::MAX)
                || totals.messages > keep.count.unwrap_or(u64::MAX)
                || time < before(keep.age);
            if keep.keeps_all() || !goes {
                return;
            }
            let first = self.rooms.get(id).map_or(Seq::NONE, |slot| slot.first);
            self.drop_oldest(id, |_, seq, _| seq == first);
        }
    }
}

/// Posts what was decided, and says whether the mailbox has to be woken.
pub(crate) fn post_decision(decision: Decision, append: &Append, to: &Arc<Mailbox>) -> bool {
    let producer = append.key.producer;
    let mut wake = false;
    for run in decision.known {
        wake |= to.post_quietly(Notice::Acked { producer, run });
    }
    for refusal in decision.refused {
        wake |= to.post_quietly(Notice::Refused {
            producer,
            first_number: refusal.first_number,
            count: refusal.count,
            code: refusal.code,
            detail: refusal.detail,
            retry_after_ms: refusal.retry_after_ms,
        });
    }
    if let Some(placed) = decision.placed {
        wake |= to.post_quietly(Notice::Acked {
            producer,
            run: AckRun {
                room: append.room.clone(),
                epoch: placed.epoch,
                first_number: placed.first_number,
                count: placed.count,
                first_seq: placed.first_seq,
                level: broker_proto::Level::SYNCED,
            },
        });
    }
    wake
}

impl Store for MemoryStore {
    fn info(&self) -> StoreInfo {
        let inner = lock(&self.inner);
        StoreInfo {
            store: self.store,
            term: Term::new(1),
            feature_level: 0,
            payload_bytes_max: self.payload_bytes_max,
            producer_window_secs: inner.sequencer.idle_secs,
            rooms: inner.rooms.len() as u64,
            log_bytes: 0,
            segments: 0,
            direct_io: false,
            damaged: 0,
            read_only: None,
            batches: inner.batches,
            messages: inner.messages,
            damage: Vec::new(),
            scrub: ScrubInfo::default(),
            space: SpaceInfo::default(),
            footers: FootersInfo::default(),
            cursors: CursorsInfo::default(),
        }
    }

    fn append(&self, append: Append, to: &Arc<Mailbox>) -> Result<(), Busy> {
        let mut wake = Vec::new();
        {
            let mut guard = lock(&self.inner);
            let inner = &mut *guard;
            let now = self.clock.now();
            let random = &mut inner.random;
            inner.sequencer.log_bytes = inner.rooms.totals().bytes;
            let decision = inner
                .sequencer
                .append(&inner.rooms, &append, now, &mut || random.bits_64());
            if let Some(placed) = &decision.placed {
                inner.keep(&append, placed, now);
                inner.sequencer.commit(&mut inner.rooms, 0);
                inner.rooms.add_bytes(placed.room, inner.added);
                inner.retain(now);
                inner.batches += 1;
                inner
                    .watchers
                    .fire(&append.room, placed.last_seq(), &mut wake);
            } else {
                inner.make_place(now);
            }
            if post_decision(decision, &append, to) {
                wake.push(Arc::clone(to));
            }
        }
        wake_all(&mut wake);
        Ok(())
    }

    fn hole(&self, key: &ProducerKey, session: SessionId, first_number: u64, count: u32) {
        lock(&self.inner)
            .sequencer
            .hole(key, session, first_number, count);
    }

    fn claim(&self, key: &ProducerKey, session: SessionId) {
        let now = self.clock.now();
        lock(&self.inner).sequencer.claim(key, session, now);
    }

    fn release(&self, key: &ProducerKey, session: SessionId, forget: bool) {
        lock(&self.inner).sequencer.release(key, session, forget);
    }

    fn read(
        &self,
        range: ReadRange,
        _tag: u64,
        _to: &Arc<Mailbox>,
    ) -> Option<Result<ReadReply, StoreError>> {
        let mut inner = lock(&self.inner);
        inner.retain(self.clock.now());
        Some(inner.read(&range))
    }

    fn watch(&self, room: &RoomName, after: Seq, tag: u64, to: &Arc<Mailbox>) -> bool {
        let mut inner = lock(&self.inner);
        let head = inner
            .rooms
            .find(room)
            .map_or(Seq::NONE, |(_, slot)| slot.head);
        if head > after {
            return false;
        }
        inner.watchers.add(room, after, tag, to);
        true
    }

    fn unwatch(&self, room: &RoomName, tag: u64, to: &Arc<Mailbox>) {
        lock(&self.inner).watchers.remove(room, tag, to);
    }

    fn verify(&self, claims: &Claims, to: &Arc<Mailbox>) {
        let losses = losses(&lock(&self.inner).rooms, (self.store, Term::new(1)), claims);
        to.post(Notice::Verified { losses });
    }

    fn rooms(&self, after: &str, limit: u32, tag: u64, to: &Arc<Mailbox>) {
        let page = {
            let inner = lock(&self.inner);
            while !inner.rooms.sort_some() {}
            inner.rooms.page(after, limit as usize)
        };
        to.post(Notice::Rooms {
            tag,
            result: Ok(page),
        });
    }

    fn cursor(&self, room: &RoomName, name: &str, tag: u64, to: &Arc<Mailbox>) {
        let result = {
            let inner = lock(&self.inner);
            match inner.rooms.id(room) {
                Some(room) => Ok(inner.sequencer.cursors.get(&CursorKey {
                    room,
                    name: name.to_owned(),
                })),
                None => Err(StoreError::NoSuchRoom { room: room.clone() }),
            }
        };
        to.post(Notice::Cursor { tag, result });
    }

    fn set_cursor(&self, set: SetCursor, tag: u64, to: &Arc<Mailbox>) {
        let result = {
            let mut guard = lock(&self.inner);
            let inner = &mut *guard;
            let now = self.clock.now();
            let result = inner.sequencer.set_cursor(&inner.rooms, &set, now);
            inner.sequencer.commit(&mut inner.rooms, 0);
            result.map(|_| set.to)
        };
        to.post(Notice::Cursor { tag, result });
    }

    fn ask(&self, ask: Ask, tag: u64, to: &Arc<Mailbox>) {
        let mut wake = Vec::new();
        let now = self.clock.now();
        let result = lock(&self.inner).answer(&ask, now, &mut wake);
        to.post(Notice::Answer { tag, result });
        wake_all(&mut wake);
    }
}
