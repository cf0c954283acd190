//! The stores that the suite talks to, and the mailboxes it listens at.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Wake, Waker};
use std::thread::{self, Thread};

use broker_core::clock::{ManualClock, SeededRandom};
use broker_core::log::storage::MemoryStorage;
use broker_core::store::{
    Append, EmbeddedConfig, EmbeddedStore, Engine, Mailbox, MemoryStore, Notice, ProducerKey,
    SessionId, Store,
};
use broker_proto::record::encode_message_head;
use broker_proto::{ProducerId, RoomName, SenderName, Seq, StoreId, publish};
use bytes::BytesMut;

use crate::model::Ask;
use crate::ops::{self, Kind, PRODUCERS, World};

/// Names of rooms: not in the order of their making, longer than one byte, also the broker's own.
pub(crate) const ROOM_NAMES: [&str; ops::ROOMS] = ["lobby", "@ann", "grüße", "lobby-2"];
/// A sender may have several producers, and two senders may use the same number.
pub(crate) const PRODUCER_KEYS: [(&str, u8); PRODUCERS] =
    [("ann", 1), ("ann", 2), ("bob", 1), ("zoë", 9)];

/// The identity of every log, also in copies of its directory.
pub(crate) const LOG: StoreId = StoreId::new([7; 16]);

pub(crate) fn room_name(room: usize) -> RoomName {
    RoomName::parse_reserved(ROOM_NAMES[room]).unwrap()
}

pub(crate) fn sender(who: usize) -> SenderName {
    SenderName::parse(PRODUCER_KEYS[who].0).unwrap()
}

pub(crate) fn key(who: usize) -> ProducerKey {
    ProducerKey {
        sender: sender(who),
        producer: ProducerId::new([PRODUCER_KEYS[who].1; 16]),
    }
}

pub(crate) fn cursor_name(name: u8) -> String {
    ["seen", "done"][usize::from(name)].to_owned()
}

pub(crate) fn message_head(who: usize) -> Vec<u8> {
    let mut head = Vec::new();
    encode_message_head(&mut head, &sender(who), 0, &[]);
    head
}

pub(crate) fn append(ask: &Ask) -> Append {
    let mut entries = BytesMut::new();
    for n in 0..ask.load.count {
        let payload = ask.load.payload(n);
        let crc = crc32c::crc32c(&payload);
        publish::encode_entry(&mut entries, &payload, &ask.load.extensions(n), crc);
    }
    Append {
        session: SessionId(ask.session),
        key: key(ask.who),
        claimed: ask.claimed,
        room: room_name(ask.room),
        first_number: ask.first,
        count: ask.load.count,
        head: message_head(ask.who).into(),
        entries: entries.freeze(),
        expected_head: ask.expected.map(Seq::new),
        // In an undamaged store it makes no difference whether a publish says that it was sent before.
        resend: ask.first.is_multiple_of(2),
    }
}

/// A store under test, and what keeps it going.
pub(crate) struct Subject {
    pub(crate) kind: Kind,
    disk: MemoryStorage,
    /// In an `Option` so that the old one is gone before the new one is opened.
    store: Option<Arc<dyn Store>>,
    embedded: Option<Arc<EmbeddedStore<MemoryStorage>>>,
    pub(crate) engine: Option<Engine<MemoryStorage>>,
    opened: u64,
    pub(crate) id: StoreId,
}

impl Subject {
    pub(crate) fn new(kind: Kind) -> Self {
        Self {
            kind,
            disk: MemoryStorage::new(),
            store: None,
            embedded: None,
            engine: None,
            opened: 0,
            id: LOG,
        }
    }

    pub(crate) fn open(&mut self, world: &World, clock: &ManualClock, copied: bool) {
        let tuning = world.tuning;
        let random = Box::new(SeededRandom::new(tuning.seed.wrapping_add(self.opened)));
        self.opened += 1;
        if self.kind == Kind::Memory {
            self.store = Some(MemoryStore::new(1 << 20, Arc::new(clock.clone()), random));
            return;
        }
        if copied {
            self.id = StoreId::new(u128::from(self.opened).to_le_bytes());
        }
        let mut config = EmbeddedConfig::new(self.id);
        config.log = LOG;
        config.renew_epochs = copied;
        config.clock = Arc::new(clock.clone());
        config.random = random;
        config.batch_bytes_max = tuning.batch_bytes_max;
        config.checkpoint_bytes_min = tuning.checkpoint_bytes_min;
        config.segment_bytes_min = tuning.segment_bytes;
        config.segment_bytes_max = tuning.segment_bytes * 4;
        config.tail_bytes_max = tuning.tail_bytes_max;
        // That a full queue is refused is tested elsewhere.
        config.queue_bytes_max = 1 << 30;
        let disk = Arc::new(self.disk.clone());
        let store = if self.kind == Kind::ByHand {
            let (store, engine) = EmbeddedStore::open_manual(disk, config, &mut |_, _| {}).unwrap();
            self.engine = Some(engine);
            store
        } else {
            EmbeddedStore::open(disk, config, &mut |_, _| {}).unwrap()
        };
        self.store = Some(Arc::clone(&store) as Arc<dyn Store>);
        self.embedded = Some(store);
    }

    pub(crate) fn store(&self) -> &dyn Store {
        &**self.store.as_ref().unwrap()
    }

    pub(crate) fn flush(&mut self) {
        if let Some(engine) = &mut self.engine {
            while engine.step() {}
        }
    }

    pub(crate) fn close(&mut self) {
        if let Some(engine) = &mut self.engine {
            engine.close();
        } else if let Some(store) = &self.embedded {
            store.close();
        }
    }

    pub(crate) fn forget(&mut self) {
        self.engine = None;
        self.embedded = None;
        self.store = None;
    }
}

/// Wakes the thread that waits for a mailbox.
pub(crate) struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// A mailbox, and what it has said that was not looked at yet.
#[derive(Default)]
pub(crate) struct Inbox {
    pub(crate) mailbox: Arc<Mailbox>,
    pub(crate) notices: VecDeque<Notice>,
}

impl Inbox {
    pub(crate) fn drain(&mut self) {
        let mut notices = Vec::new();
        self.mailbox.drain(&mut notices);
        self.notices.extend(notices);
    }

    /// The first notice that is wanted; waits for it where the store has threads.
    pub(crate) fn take(&mut self, waits: bool, wanted: impl Fn(&Notice) -> bool) -> Notice {
        loop {
            self.drain();
            if let Some(at) = self.notices.iter().position(&wanted) {
                return self.notices.remove(at).unwrap();
            }
            assert!(waits, "a notice is missing, there are {:?}", self.notices);
            let waker = Waker::from(Arc::new(Unpark(thread::current())));
            while self
                .mailbox
                .poll_ready(&mut Context::from_waker(&waker))
                .is_pending()
            {
                thread::park();
            }
        }
    }
}
