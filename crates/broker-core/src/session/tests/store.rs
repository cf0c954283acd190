//! A store that a test can hold up: its queue full, its disk slow, its answers made up.

use broker_proto::{Position, RoomName, Seq};

use crate::clock::{ManualClock, SeededRandom};
use crate::store::{
    Answer, Append, Ask, Busy, Claims, Mailbox, MemoryStore, Notice, ProducerKey, ReadRange,
    ReadReply, SessionId, SetCursor, Store, StoreError, StoreInfo,
};
use crate::sync::{Arc, Mutex, lock};

/// What the session asked of the store, beside appends and reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Call {
    Claim(SessionId),
    Release(SessionId, bool),
    Hole(u64, u32),
    Unwatch(RoomName),
    /// A cursor was moved; whether the move is relaxed.
    SetCursor(bool),
}

#[derive(Debug, Default)]
struct Held {
    busy: bool,
    slow: bool,
    calls: Vec<Call>,
    reads: Vec<(ReadRange, u64, Arc<Mailbox>)>,
    asks: Vec<(Ask, u64, Arc<Mailbox>)>,
    /// Appends whose outcome the test holds back.
    appends: Option<Vec<(Append, Arc<Mailbox>)>>,
    /// Who has to hear of space.
    waiting: Option<Arc<Mailbox>>,
    watches: usize,
}

#[derive(Debug)]
pub(super) struct Gate {
    pub(super) inner: Arc<MemoryStore>,
    held: Mutex<Held>,
}

pub(super) const PAYLOAD_BYTES_MAX: u32 = 256 << 10;

impl Gate {
    pub(super) fn new() -> Arc<Self> {
        let clock = Arc::new(ManualClock::default());
        let inner = MemoryStore::new(PAYLOAD_BYTES_MAX, clock, Box::new(SeededRandom::new(7)));
        Arc::new(Self {
            inner,
            held: Mutex::default(),
        })
    }

    /// Its queue is full from here on, or no longer.
    pub(super) fn busy(&self, busy: bool) {
        let mut held = lock(&self.held);
        held.busy = busy;
        if !busy && let Some(mailbox) = held.waiting.take() {
            mailbox.post(Notice::Space);
        }
    }

    /// Reads take until [`Self::finish_reads`].
    pub(super) fn slow(&self, slow: bool) {
        lock(&self.held).slow = slow;
    }

    /// Appends take until [`Self::finish_appends`].
    pub(super) fn hold_appends(&self) {
        lock(&self.held).appends = Some(Vec::new());
    }

    /// Which of the appends that are held back may have been sent before.
    pub(super) fn resends(&self) -> Vec<bool> {
        let held = lock(&self.held);
        let appends = held.appends.iter().flatten();
        appends.map(|(append, _)| append.may_be_resent()).collect()
    }

    pub(super) fn finish_appends(&self) {
        for (append, to) in lock(&self.held).appends.take().into_iter().flatten() {
            assert!(self.inner.append(append, &to).is_ok());
        }
    }

    /// How many reads have no answer yet.
    pub(super) fn reads(&self) -> usize {
        lock(&self.held).reads.len()
    }

    pub(super) fn watches(&self) -> usize {
        lock(&self.held).watches
    }

    /// Answers the reads as the store would now.
    pub(super) fn finish_reads(&self) {
        let reads = std::mem::take(&mut lock(&self.held).reads);
        for (range, tag, to) in reads {
            let result = self.inner.read(range, tag, &to).unwrap();
            to.post(Notice::Read { tag, result });
        }
    }

    /// Answers the oldest read with this.
    pub(super) fn answer_read(&self, result: Result<ReadReply, StoreError>) {
        let (_, tag, to) = lock(&self.held).reads.remove(0);
        to.post(Notice::Read { tag, result });
    }

    /// What it was asked for, and has not answered, as text.
    pub(super) fn asks(&self) -> Vec<String> {
        let asks = &lock(&self.held).asks;
        asks.iter().map(|(ask, ..)| format!("{ask:?}")).collect()
    }

    /// Answers the oldest question with this.
    pub(super) fn answer(&self, result: Result<Answer, StoreError>) {
        let (_, tag, to) = lock(&self.held).asks.remove(0);
        to.post(Notice::Answer { tag, result });
    }

    pub(super) fn calls(&self) -> Vec<Call> {
        std::mem::take(&mut lock(&self.held).calls)
    }

    fn note(&self, call: Call) {
        lock(&self.held).calls.push(call);
    }
}

impl Store for Gate {
    fn info(&self) -> StoreInfo {
        self.inner.info()
    }

    fn append(&self, append: Append, to: &Arc<Mailbox>) -> Result<(), Busy> {
        let mut held = lock(&self.held);
        if held.busy {
            held.waiting = Some(Arc::clone(to));
            return Err(Busy(append));
        }
        if let Some(appends) = &mut held.appends {
            appends.push((append, Arc::clone(to)));
            return Ok(());
        }
        drop(held);
        self.inner.append(append, to)
    }

    fn hole(&self, key: &ProducerKey, session: SessionId, first_number: u64, count: u32) {
        self.note(Call::Hole(first_number, count));
        self.inner.hole(key, session, first_number, count);
    }

    fn claim(&self, key: &ProducerKey, session: SessionId) {
        self.note(Call::Claim(session));
        self.inner.claim(key, session);
    }

    fn release(&self, key: &ProducerKey, session: SessionId, forget: bool) {
        self.note(Call::Release(session, forget));
        self.inner.release(key, session, forget);
    }

    fn read(
        &self,
        range: ReadRange,
        tag: u64,
        to: &Arc<Mailbox>,
    ) -> Option<Result<ReadReply, StoreError>> {
        let mut held = lock(&self.held);
        if held.slow {
            held.reads.push((range, tag, Arc::clone(to)));
            return None;
        }
        drop(held);
        self.inner.read(range, tag, to)
    }

    fn watch(&self, room: &RoomName, after: Seq, tag: u64, to: &Arc<Mailbox>) -> bool {
        let watching = self.inner.watch(room, after, tag, to);
        lock(&self.held).watches += usize::from(watching);
        watching
    }

    fn unwatch(&self, room: &RoomName, tag: u64, to: &Arc<Mailbox>) {
        self.note(Call::Unwatch(room.clone()));
        self.inner.unwatch(room, tag, to);
    }

    fn verify(&self, claims: &Claims, to: &Arc<Mailbox>) {
        self.inner.verify(claims, to);
    }

    fn rooms(&self, after: &str, limit: u32, tag: u64, to: &Arc<Mailbox>) {
        self.inner.rooms(after, limit, tag, to);
    }

    fn cursor(&self, room: &RoomName, name: &str, tag: u64, to: &Arc<Mailbox>) {
        self.inner.cursor(room, name, tag, to);
    }

    fn set_cursor(&self, set: SetCursor, tag: u64, to: &Arc<Mailbox>) {
        self.note(Call::SetCursor(set.relaxed));
        self.inner.set_cursor(set, tag, to);
    }

    fn ask(&self, ask: Ask, tag: u64, to: &Arc<Mailbox>) {
        lock(&self.held).asks.push((ask, tag, Arc::clone(to)));
    }
}

/// A position for a cursor of a room that exists.
pub(super) fn position(store: &Gate, room: &str, seq: u64) -> Position {
    let range = ReadRange {
        room: RoomName::parse(room).unwrap(),
        from: broker_proto::StartAt::START,
        count_max: 1,
        bytes_max: 1,
        hint: crate::store::Hint::default(),
    };
    let reply = store
        .inner
        .read(range, 0, &Mailbox::new())
        .unwrap()
        .unwrap();
    Position::new(reply.epoch, Seq::new(seq))
}
