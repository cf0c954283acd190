//! For tests: a store in memory that is filled by hand.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use broker_proto::record::encode_message_head;
use broker_proto::{Micros, ProducerId, RoomName, SenderName, StoreId, publish};
use bytes::BytesMut;

use super::storage::MemoryStorage;
use crate::clock::ManualClock;
use crate::store::{
    Append, EmbeddedConfig, EmbeddedStore, Engine, Mailbox, ProducerKey, SessionId, Store,
};
use crate::sync::Arc;

/// Which store it is.
pub(super) const LOG: StoreId = StoreId::new([1; 16]);
/// What its clock says.
pub(super) const TIME: i64 = 1_000_000_000;

/// With segments of one size, and checkpoints only where they are due by more than their bytes.
pub(super) fn config(segment_bytes: u64) -> EmbeddedConfig {
    let mut config = EmbeddedConfig::new(LOG);
    config.clock = Arc::new(ManualClock::new(Micros::new(TIME)));
    config.segment_bytes_min = segment_bytes;
    config.segment_bytes_max = segment_bytes;
    config.checkpoint_bytes_min = 1 << 30;
    config
}

/// Who leads the store. Dropped, it was killed.
pub(super) struct Leader {
    pub(super) store: Arc<EmbeddedStore<MemoryStorage>>,
    pub(super) engine: Engine<MemoryStorage>,
    mailbox: Arc<Mailbox>,
    /// Of the next message.
    number: u64,
}

impl Leader {
    pub(super) fn open(disk: &MemoryStorage, config: EmbeddedConfig, first_number: u64) -> Self {
        let disk = Arc::new(disk.clone());
        let (store, engine) = EmbeddedStore::open_manual(disk, config, &mut |_, _| {}).unwrap();
        Self {
            store,
            engine,
            mailbox: Mailbox::new(),
            number: first_number,
        }
    }

    /// A message in a batch of its own.
    pub(super) fn say(&mut self, room: &str, bytes: usize) {
        let sender = SenderName::parse("ann").unwrap();
        let mut head = Vec::new();
        encode_message_head(&mut head, &sender, 0, &[]);
        let payload = vec![u8::try_from(self.number % 251).unwrap(); bytes];
        let mut entries = BytesMut::new();
        publish::encode_entry(&mut entries, &payload, &[], crc32c::crc32c(&payload));
        let append = Append {
            session: SessionId(0),
            key: ProducerKey {
                sender,
                producer: ProducerId::new([7; 16]),
            },
            claimed: true,
            room: RoomName::parse(room).unwrap(),
            first_number: self.number,
            count: 1,
            head: head.into(),
            entries: entries.freeze(),
            expected_head: None,
            resend: false,
        };
        self.number += 1;
        self.store.append(append, &self.mailbox).unwrap();
        while self.engine.step() {}
    }
}
