//! A store that is driven by hand, and publishers that talk to it as sessions do.

use std::path::Path;
use std::sync::Arc;

use broker_core::log::storage::{FileStorage, Storage};
use broker_core::store::{
    Append, EmbeddedConfig, EmbeddedStore, Engine, Mailbox, Notice, ProducerKey, SessionId, Store,
};
use broker_proto::record::encode_message_head;
use broker_proto::{ProducerId, RoomName, SenderName, StoreId, publish};
use bytes::{Bytes, BytesMut};

use crate::Nowhere;

/// A store, driven by hand.
#[derive(Debug)]
pub struct Bench<S: Storage = FileStorage> {
    /// The reading side.
    pub store: Arc<EmbeddedStore<S>>,
    /// The writing side.
    pub engine: Engine<S>,
}

impl Bench {
    /// Opens the store in a directory.
    ///
    /// # Panics
    /// When the directory cannot be used.
    #[must_use]
    pub fn open(dir: &Path) -> Self {
        Self::on(FileStorage::open(dir).expect("a directory for the benchmark"))
    }
}

impl Bench<Nowhere> {
    /// A store that keeps nothing but what readers follow in memory.
    #[must_use]
    pub fn nowhere() -> Self {
        Self::on(Nowhere::default())
    }
}

impl<S: Storage> Bench<S> {
    fn on(storage: S) -> Self {
        let storage = Arc::new(storage);
        let config = EmbeddedConfig::new(StoreId::new([1; 16]));
        let (store, engine) = EmbeddedStore::open_manual(storage, config, &mut |_, _| {})
            .expect("the benchmark's own store opens");
        Self { store, engine }
    }

    /// Stores everything that was handed in.
    pub fn settle(&mut self) {
        while self.engine.step() {}
        self.engine.keep_house();
    }
}

/// A publisher with messages of one size.
#[derive(Debug)]
pub struct Publisher {
    key: ProducerKey,
    mailbox: Arc<Mailbox>,
    notices: Vec<Notice>,
    head: Bytes,
    entries: Bytes,
    count: u32,
    room: RoomName,
    next: u64,
}

impl Publisher {
    /// A publisher that sends `count` messages of `size` bytes at a time.
    ///
    /// # Panics
    /// When the room's name breaks the rules.
    #[must_use]
    pub fn new(number: u8, room: &str, count: u32, size: usize) -> Self {
        let sender = SenderName::parse("bench").expect("a good name");
        let mut head = Vec::new();
        encode_message_head(&mut head, &sender, 0, &[]);
        let payload = vec![b'x'; size];
        let mut entries = BytesMut::new();
        for _ in 0..count {
            publish::encode_entry(&mut entries, &payload, &[], crc32c::crc32c(&payload));
        }
        Self {
            key: ProducerKey {
                sender,
                producer: ProducerId::new([number; 16]),
            },
            mailbox: Mailbox::new(),
            notices: Vec::new(),
            head: head.into(),
            entries: entries.freeze(),
            count,
            room: RoomName::parse(room).expect("a good name"),
            next: 1,
        }
    }

    /// Publishes into another room from now on.
    ///
    /// # Panics
    /// When the room's name breaks the rules.
    pub fn enter(&mut self, room: &str) {
        self.room = RoomName::parse(room).expect("a good name");
    }

    /// Hands one publish in.
    ///
    /// # Panics
    /// When the store's queue is full: a benchmark steps before that.
    pub fn send(&mut self, store: &impl Store) {
        let append = Append {
            session: SessionId(0),
            key: self.key.clone(),
            claimed: true,
            room: self.room.clone(),
            first_number: self.next,
            count: self.count,
            head: self.head.clone(),
            entries: self.entries.clone(),
            expected_head: None,
            resend: false,
        };
        self.next += u64::from(self.count);
        store
            .append(append, &self.mailbox)
            .expect("the queue has room");
    }

    /// Hands the publish before in again, as after a lost connection.
    ///
    /// # Panics
    /// When the store's queue is full.
    pub fn send_again(&mut self, store: &impl Store) {
        self.next = self.next.saturating_sub(self.count.into()).max(1);
        self.send(store);
    }

    /// Counts the acknowledged messages.
    ///
    /// # Panics
    /// When a message was refused.
    pub fn acked(&mut self) -> u32 {
        self.mailbox.drain(&mut self.notices);
        let counts = self.notices.drain(..).map(|notice| match notice {
            Notice::Acked { run, .. } => run.count,
            other => panic!("{other:?}"),
        });
        counts.sum()
    }
}
