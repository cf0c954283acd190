//! A store that keeps everything in memory: for tests, and for rooms that need not outlive a
//! process. The deciding half is the same as that of the store on disk.

use std::collections::HashMap;

use broker_proto::record::RECORD_FIXED_BYTES;
use broker_proto::{ErrorCode, Micros, RoomId, RoomName, Seq, StoreId, Term, publish};
use bytes::Bytes;

use super::cursors::CursorKey;
use super::losses::losses;
use super::rooms::{Begin, RoomTable, after};
use super::sequencer::{Decision, Placed, Sequencer};
use super::watchers::Watchers;
use super::{
    AckRun, Append, Ask, Busy, Claims, CursorsInfo, Hint, Mailbox, Notice, ProducerKey, ReadRange,
    ReadReply, ScrubInfo, SessionId, SetCursor, SpaceInfo, Store, StoreError, StoreInfo, producers,
    wake_all,
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
    records: HashMap<RoomId, Vec<Kept>>,
    watchers: Watchers,
    random: Box<dyn Random>,
    batches: u64,
    messages: u64,
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
        let entries = publish::entries(&append.entries).skip(placed.skip as usize);
        for (n, entry) in (0..).zip(entries) {
            let mut bytes =
                Vec::with_capacity(RECORD_FIXED_BYTES + append.head.len() + entry.payload.len());
            let seq = Seq::new(placed.first_seq.get() + n);
            message_record(&mut bytes, placed.room, seq, now, &append.head, &entry);
            kept.push(Kept {
                bytes: bytes.into(),
                time: now,
            });
        }
        self.messages += u64::from(placed.count);
    }

    fn read(&self, range: &ReadRange) -> Result<ReadReply, StoreError> {
        let Some((id, slot)) = self.rooms.find(&range.room) else {
            return Err(StoreError::NoSuchRoom {
                room: range.room.clone(),
            });
        };
        let empty = Vec::new();
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
                at.map_or(after(slot.head), |at| Seq::new(at as u64 + 1))
            }
        };
        let mut bytes = 0;
        let from = usize::try_from(begin.get().saturating_sub(1)).unwrap_or(usize::MAX);
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

/// Posts what was decided, and says whether the mailbox has to be woken.
pub(crate) fn post_decision(
    decision: Decision,
    append: &Append,
    retry_after_ms: u32,
    to: &Arc<Mailbox>,
) -> bool {
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
            retry_after_ms: if refusal.code == ErrorCode::NO_SPACE {
                retry_after_ms
            } else {
                0
            },
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
            let decision = inner
                .sequencer
                .append(&inner.rooms, &append, now, &mut || random.bits_64());
            if let Some(placed) = &decision.placed {
                inner.keep(&append, placed, now);
                inner.sequencer.commit(&mut inner.rooms, 0);
                inner.batches += 1;
                inner
                    .watchers
                    .fire(&append.room, placed.last_seq(), &mut wake);
            }
            if post_decision(decision, &append, 0, to) {
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
        Some(lock(&self.inner).read(&range))
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
        let page = lock(&self.inner).rooms.page(after, limit as usize);
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
            let result = inner.sequencer.set_cursor(&inner.rooms, &set);
            inner.sequencer.commit(&mut inner.rooms, 0);
            result.map(|_| set.to)
        };
        to.post(Notice::Cursor { tag, result });
    }

    fn ask(&self, _: Ask, tag: u64, to: &Arc<Mailbox>) {
        let result = Err(StoreError::Closed);
        to.post(Notice::Answer { tag, result });
    }
}
