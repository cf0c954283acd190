//! What the benchmarks share: publishers that talk to a store as sessions do.
//!
//! Each file in `benches/` answers one question:
//!
//! - `codec`: how long do frames and records take to encode and decode?
//! - `append`: how many messages does the log take, and how many share a sync?
//! - `recovery`: how long does a store take to open, and to read again?
//!
//! How does all of it stand beside other brokers? `peers/` is a package of its own: `cargo run --release -p broker-peers -- run`.

use std::path::Path;
use std::sync::Arc;

use broker_core::log::storage::FileStorage;
use broker_core::store::{
    Append, EmbeddedConfig, EmbeddedStore, Engine, Mailbox, Notice, ProducerKey, SessionId, Store,
};
use broker_proto::record::encode_message_head;
use broker_proto::{ProducerId, RoomName, SenderName, StoreId, publish};
use bytes::{Bytes, BytesMut};

/// A store on disk, driven by hand.
#[derive(Debug)]
pub struct Bench {
    /// The reading side.
    pub store: Arc<EmbeddedStore<FileStorage>>,
    /// The writing side.
    pub engine: Engine<FileStorage>,
}

impl Bench {
    /// Opens the store in a directory.
    ///
    /// # Panics
    /// When the directory cannot be used.
    #[must_use]
    pub fn open(dir: &Path) -> Self {
        let storage = Arc::new(FileStorage::open(dir).expect("a directory for the benchmark"));
        let config = EmbeddedConfig::new(StoreId::new([1; 16]));
        let (store, engine) = EmbeddedStore::open_manual(storage, config, &mut |_, _| {})
            .expect("the benchmark's own store opens");
        Self { store, engine }
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
