//! What the writer and the readers of a store on disk share.

use std::io;

use broker_proto::{RoomName, Seq, SkipRange, SkipReason};

use super::super::rooms::{Begin, after, before};
use super::super::sequencer::Trimming;
use super::super::watchers::Watchers;
use super::super::{Hint, Mailbox, ReadRange, ReadReply, RoomTable, StoreError};
use super::inbox::Inbox;
use super::keep::Keep;
use super::pulse::Pulse;
use super::scrub::ScrubState;
use super::space::Space;
use crate::log::Segments;
use crate::log::batch::BATCH_ALIGN;
use crate::log::damage::Damage;
use crate::log::early;
use crate::log::find::find_time;
use crate::log::position::LogPosition;
use crate::log::reader::{Wanted, read_cached, read_disk, read_tail};
use crate::log::storage::Storage;
use crate::log::tail::{Tail, TailBatch};
use crate::sync::{Arc, AtomicBool, AtomicU64, Mutex, Ordering, RwLock, lock, read, write};

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Shared<S: Storage> {
    pub(super) inbox: Inbox,
    /// Only what is durable. The writer changes it after each sync; taken before `tail` where both
    /// are.
    pub(super) rooms: RwLock<RoomTable>,
    tail: RwLock<Tail>,
    pub(super) segments: Segments<S>,
    watchers: Mutex<Watchers>,
    durable: AtomicU64,
    /// Where the log ended when somebody last read close to its end.
    followed: AtomicU64,
    read_only: Mutex<Option<String>>,
    is_read_only: AtomicBool,
    moved: AtomicBool,
    /// Whom to tell when the directory is found moved.
    when_moved: Mutex<Option<Call>>,
    pub(super) batches: AtomicU64,
    pub(super) messages: AtomicU64,
    pub(super) pulse: Arc<Pulse>,
    pub(super) scrub: ScrubState,
    pub(super) keep: Keep,
    pub(super) space: Space,
}

/// The bits of a hint that say how many more reads are left to the threads that wait for the disk. They are free: places in the
/// log are multiples of eight. While the disk has to be waited for, finding what it has brought meanwhile in memory now and
/// then gains nothing, and the system would fetch what comes next on the time of whoever serves sockets.
const PATIENCE: u64 = 7;
const _: () = assert!(PATIENCE < BATCH_ALIGN);

/// Most that is read from the system's memory at once.
const AT_ONCE_BYTES_MAX: u32 = 256 << 10;

struct Call(Box<dyn FnOnce() + Send>);

impl std::fmt::Debug for Call {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Call")
    }
}

/// A read that memory could not answer.
#[derive(Debug)]
pub(super) struct DiskRead {
    room: RoomName,
    wanted: Wanted,
    begin: Begin,
    reply: ReadReply,
    /// How many more reads are left to the disk's threads.
    patience: u64,
}

/// How far a read got without the disk.
#[derive(Debug)]
pub(super) enum Attempt {
    Done(Result<ReadReply, StoreError>),
    Disk(Box<DiskRead>),
}

impl<S: Storage> Shared<S> {
    pub(super) fn new(
        inbox: Inbox,
        tail_bytes_max: usize,
        rooms: RoomTable,
        segments: Segments<S>,
        durable: LogPosition,
        pulse: Pulse,
        (keep, space): (Keep, Space),
    ) -> Self {
        Self {
            inbox,
            rooms: RwLock::new(rooms),
            tail: RwLock::new(Tail::new(tail_bytes_max)),
            segments,
            watchers: Mutex::new(Watchers::default()),
            durable: AtomicU64::new(durable.get()),
            followed: AtomicU64::new(durable.get()),
            read_only: Mutex::new(None),
            is_read_only: AtomicBool::new(false),
            moved: AtomicBool::new(false),
            when_moved: Mutex::new(None),
            batches: AtomicU64::new(0),
            messages: AtomicU64::new(0),
            pulse: Arc::new(pulse),
            scrub: ScrubState::default(),
            keep,
            space,
        }
    }

    /// Bytes of log that lie on the disk.
    pub(super) fn log_bytes(&self) -> u64 {
        self.segments.log_bytes(self.durable())
    }

    /// What `answer` says of the rooms in order; `None` when putting them into order takes long, and it is better done by a
    /// thread that nobody waits for.
    pub(super) fn list<T>(&self, answer: impl FnOnce(&RoomTable) -> T) -> Option<T> {
        let rooms = read(&self.rooms);
        rooms.sort_some().then(|| answer(&rooms))
    }

    /// Shows trims before they are durable, for the bug that does so.
    pub(super) fn show_trims(&self, trims: &[Trimming]) {
        let mut rooms = write(&self.rooms);
        for trim in trims {
            rooms.trim(trim.room, trim.first, 0);
        }
    }

    /// The newest damage, with the names of its rooms.
    pub(super) fn damage(&self) -> Vec<Damage> {
        let mut newest = self.segments.damage().newest();
        let rooms = read(&self.rooms);
        for span in newest.iter_mut().filter_map(|it| it.place.room.as_mut()) {
            span.name = rooms.room_name(span.room).map(|name| name.to_string());
        }
        newest
    }

    pub(super) fn durable(&self) -> LogPosition {
        LogPosition::new(self.durable.load(Ordering::Acquire))
    }

    /// Shows a durable batch to readers. The rooms are locked by the caller and updated already.
    pub(super) fn show(&self, batch: TailBatch, end: LogPosition) {
        {
            let mut tail = write(&self.tail);
            if batch.is_hollow() {
                // Nobody follows; a batch without its bytes must not look like one without messages.
                tail.clear();
            } else {
                tail.push(batch);
            }
        }
        self.durable.store(end.get(), Ordering::Release);
    }

    pub(super) fn count(&self, messages: u64) {
        self.batches.fetch_add(1, Ordering::Relaxed);
        self.messages.fetch_add(messages, Ordering::Relaxed);
    }

    pub(super) fn watched(&self) -> bool {
        !lock(&self.watchers).is_empty()
    }

    pub(super) fn followed_at(&self) -> u64 {
        self.followed.load(Ordering::Relaxed)
    }

    pub(super) fn fire(&self, room: &RoomName, head: Seq, wake: &mut Vec<Arc<Mailbox>>) {
        lock(&self.watchers).fire(room, head, wake);
    }

    /// Sets a watch unless the room has grown already. The check is made under the watchers' lock:
    /// the writer shows a message first and fires after, so none is missed.
    pub(super) fn watch(&self, room: &RoomName, after: Seq, tag: u64, to: &Arc<Mailbox>) -> bool {
        let mut watchers = lock(&self.watchers);
        let head = read(&self.rooms)
            .find(room)
            .map_or(Seq::NONE, |(_, slot)| slot.head);
        if head > after {
            return false;
        }
        watchers.add(room, after, tag, to);
        true
    }

    pub(super) fn unwatch(&self, room: &RoomName, tag: u64, to: &Arc<Mailbox>) {
        lock(&self.watchers).remove(room, tag, to);
    }

    /// Why nothing is written any more, if so.
    pub(super) fn read_only(&self) -> Option<String> {
        if !self.is_read_only.load(Ordering::Acquire) {
            return None;
        }
        lock(&self.read_only).clone()
    }

    /// Stops writing for good. The first reason stays.
    pub(super) fn set_read_only(&self, reason: String) {
        tracing::error!(%reason, "the store is read-only");
        lock(&self.read_only).get_or_insert(reason);
        self.is_read_only.store(true, Ordering::Release);
        self.pulse.set_read_only();
    }

    /// Notes that the directory is no longer the one that was opened, and tells whoever asked.
    pub(super) fn set_moved(&self) {
        self.moved.store(true, Ordering::Release);
        if let Some(Call(tell)) = lock(&self.when_moved).take() {
            tell();
        }
    }

    /// Has `tell` called when the directory is found moved; at once if it was already.
    pub(super) fn when_moved(&self, tell: Box<dyn FnOnce() + Send>) {
        let mut place = lock(&self.when_moved);
        if self.moved.load(Ordering::Acquire) {
            drop(place);
            tell();
        } else {
            *place = Some(Call(tell));
        }
    }

    pub(super) fn has_moved(&self) -> bool {
        self.moved.load(Ordering::Acquire)
    }

    /// Writes an early footer of the active segment where that is worth it, or in any case.
    pub(super) fn write_early(&self, is_marked: bool, always: bool) {
        let wanted = early::Wanted {
            is_vouched: is_marked,
            always,
        };
        // What the index tells and what is shown agree while the rooms are not changed.
        let rooms = read(&self.rooms);
        if let Err(error) = self.segments.write_early(self.durable(), wanted, rooms) {
            tracing::debug!(%error, "cannot write an early footer; the next start reads more");
        }
    }

    /// Answers a read from memory, or prepares what the disk has to be asked.
    pub(super) fn try_read(&self, range: &ReadRange) -> Attempt {
        let rooms = read(&self.rooms);
        let Some((id, slot)) = rooms.find(&range.room) else {
            return Attempt::Done(Err(StoreError::NoSuchRoom {
                room: range.room.clone(),
            }));
        };
        let begin = match rooms.begin(id, &range.from) {
            Ok(begin) => begin,
            Err(error) => return Attempt::Done(Err(error)),
        };
        let mut reply = ReadReply {
            room: id,
            epoch: slot.epoch,
            first: slot.first,
            head: slot.head,
            next: after(slot.head),
            skip: None,
            count: 0,
            records: Vec::new(),
            hint: Hint(range.hint.0 & !PATIENCE),
        };
        let from = match begin {
            Begin::Skip(skip) => {
                reply.next = after(skip.to);
                reply.skip = Some(skip);
                return Attempt::Done(Ok(reply));
            }
            Begin::At(seq) => seq,
            Begin::Time(_) => slot.first,
        };
        let patience = range.hint.0 & PATIENCE;
        let durable = self.durable();
        if from > slot.head {
            self.followed.store(durable.get(), Ordering::Relaxed);
            reply.next = from;
            return Attempt::Done(Ok(reply));
        }
        let wanted = Wanted {
            room: id,
            from,
            head: slot.head,
            last_at: LogPosition::new(slot.last_at),
            count_max: range.count_max.max(1),
            bytes_max: range.bytes_max,
            hint: reply.hint,
            durable,
            at_once: false,
        };
        if matches!(begin, Begin::At(_)) {
            let tail = read(&self.tail);
            drop(rooms);
            if let Some(found) = read_tail(&tail, &wanted, reply.clone()) {
                self.followed.store(durable.get(), Ordering::Relaxed);
                return Attempt::Done(Ok(found));
            }
            drop(tail);
            if patience == 0
                && let Some(found) = self.read_cached(&wanted, &reply)
            {
                return Attempt::Done(Ok(found));
            }
        }
        Attempt::Disk(Box::new(DiskRead {
            room: range.room.clone(),
            wanted,
            begin,
            reply,
            patience,
        }))
    }

    /// Answers a read from what the system has in memory of the disk: two changes of threads cost more than a small copy. Only
    /// what takes little time, so that whoever serves sockets comes back to them soon: 64 KiB in a turn, and what a session
    /// asks for ahead.
    fn read_cached(&self, wanted: &Wanted, reply: &ReadReply) -> Option<ReadReply> {
        if wanted.bytes_max > AT_ONCE_BYTES_MAX {
            return None;
        }
        let found = read_cached(&self.segments, wanted, reply.clone())?;
        self.note_followed(wanted);
        Some(found)
    }

    fn note_followed(&self, wanted: &Wanted) {
        if wanted.durable.since(wanted.last_at) < super::NEAR_END_BYTES {
            self.followed.store(wanted.durable.get(), Ordering::Relaxed);
        }
    }

    /// Answers a read from the disk; blocks.
    pub(super) fn read_disk(&self, read: DiskRead) -> Result<ReadReply, StoreError> {
        let (room, wanted, reply) = (read.room.clone(), read.wanted, read.reply.clone());
        let found = self.ask_disk(read);
        let is_incomplete = found.as_ref().map_or(true, |found| found.skip.is_some());
        if is_incomplete && let Some(gone) = self.gone(room, &wanted, reply) {
            return gone;
        }
        found.map_err(|error| StoreError::Io {
            what: error.to_string(),
        })
    }

    /// What is answered in place of what was not found because it was trimmed, or removed with its room, while it was read.
    fn gone(
        &self,
        room: RoomName,
        wanted: &Wanted,
        mut reply: ReadReply,
    ) -> Option<Result<ReadReply, StoreError>> {
        let rooms = read(&self.rooms);
        let Some(slot) = rooms.get(wanted.room) else {
            return Some(Err(StoreError::NoSuchRoom { room }));
        };
        if slot.first <= wanted.from {
            return None;
        }
        reply.first = slot.first;
        reply.head = slot.head;
        reply.next = slot.first;
        reply.skip = Some(SkipRange {
            from: wanted.from,
            to: before(slot.first),
            reason: SkipReason::TRIMMED,
        });
        Some(Ok(reply))
    }

    fn ask_disk(&self, read: DiskRead) -> io::Result<ReadReply> {
        let DiskRead {
            room: _,
            mut wanted,
            begin,
            mut reply,
            patience,
        } = read;
        if let Begin::Time(time) = begin {
            wanted.from = find_time(&self.segments, &wanted, time)?;
            if wanted.from > wanted.head {
                reply.next = wanted.from;
                return Ok(reply);
            }
        }
        self.note_followed(&wanted);
        let (mut found, waited) = read_disk(&self.segments, &wanted, reply)?;
        let patience = if waited {
            PATIENCE
        } else {
            patience.saturating_sub(1)
        };
        found.hint.0 |= patience;
        Ok(found)
    }
}
