//! A store as the tests open it, and somebody who publishes and reads.

use std::sync::Arc;

use broker_core::clock::{ManualClock, SeededRandom};
use broker_core::log::storage::{MemoryStorage, Storage};
use broker_core::store::{
    Append, Busy, EmbeddedConfig, EmbeddedStore, Hint, Mailbox, Notice, ProducerKey, ReadRange,
    ReadReply, SessionId, Store,
};
use broker_proto::record::encode_message_head;
use broker_proto::{
    ErrorCode, Micros, ProducerId, RoomName, SenderName, Seq, StartAt, StoreId, publish,
};
use bytes::BytesMut;

use crate::witness::{TOKEN, Witness, tokens};

/// Bytes of every message.
const MESSAGE_BYTES: usize = 24;

pub(crate) fn config() -> EmbeddedConfig {
    let mut config = EmbeddedConfig::new(StoreId::new([1; 16]));
    config.clock = Arc::new(ManualClock::new(Micros::new(1_000_000)));
    config.random = Box::new(SeededRandom::new(1));
    config.segment_bytes_min = 16 << 10;
    config.segment_bytes_max = 16 << 10;
    config
}

pub(crate) fn open(disk: &Witness, config: EmbeddedConfig) -> Arc<EmbeddedStore<Witness>> {
    EmbeddedStore::open(Arc::new(disk.clone()), config, &mut |_, _| {}).unwrap()
}

pub(crate) fn room() -> RoomName {
    RoomName::parse("room").unwrap()
}

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Acked(Seq),
    Refused(ErrorCode),
}

/// One connection.
pub(crate) struct Peer {
    key: ProducerKey,
    number: u64,
    pub(crate) mailbox: Arc<Mailbox>,
    notices: Vec<Notice>,
}

impl Peer {
    pub(crate) fn new(number: u8) -> Self {
        Self {
            key: ProducerKey {
                sender: SenderName::parse("ann").unwrap(),
                producer: ProducerId::new([number; 16]),
            },
            number: u64::from(number),
            mailbox: Mailbox::new(),
            notices: Vec::new(),
        }
    }

    const fn session(&self) -> SessionId {
        SessionId(self.number)
    }

    /// What the message of this number carries.
    pub(crate) fn token(&self, number: u64) -> u64 {
        self.number << 32 | number
    }

    fn message(&self, number: u64, padding: usize) -> Append {
        let mut payload = TOKEN.to_vec();
        payload.extend_from_slice(&self.token(number).to_le_bytes());
        payload.resize(MESSAGE_BYTES + padding, b'.');
        let mut head = Vec::new();
        encode_message_head(&mut head, &self.key.sender, 0, &[]);
        let mut entries = BytesMut::new();
        publish::encode_entry(&mut entries, &payload, &[], crc32c::crc32c(&payload));
        Append {
            session: self.session(),
            key: self.key.clone(),
            claimed: true,
            room: room(),
            first_number: number,
            count: 1,
            head: head.into(),
            entries: entries.freeze(),
            expected_head: None,
            resend: false,
        }
    }

    /// The next notice; blocks until there is one.
    pub(crate) fn notice(&mut self) -> Notice {
        while self.notices.is_empty() {
            if !self.mailbox.drain(&mut self.notices) {
                shuttle::future::block_on(self.mailbox.ready());
            }
        }
        self.notices.remove(0)
    }

    /// Hands a message in, waiting for space as often as needed; gives what came meanwhile.
    pub(crate) fn send(&mut self, store: &impl Store, number: u64, padding: usize) -> Vec<Notice> {
        if number == 1 {
            store.claim(&self.key, self.session());
        }
        let mut append = self.message(number, padding);
        let mut others = Vec::new();
        while let Err(Busy(back)) = store.append(append, &self.mailbox) {
            append = back;
            loop {
                match self.notice() {
                    Notice::Space => break,
                    other => others.push(other),
                }
            }
        }
        others
    }

    /// Sends so many messages at once, and waits for what becomes of each.
    pub(crate) fn publish(
        &mut self,
        store: &impl Store,
        disk: &Witness,
        count: u64,
        padding: usize,
    ) -> Vec<Outcome> {
        let mut outcomes = vec![None; usize::try_from(count).unwrap()];
        let mut early = Vec::new();
        for number in 1..=count {
            early.extend(self.send(store, number, padding));
        }
        for notice in early {
            self.take(notice, disk, &mut outcomes);
        }
        while outcomes.contains(&None) {
            let notice = self.notice();
            self.take(notice, disk, &mut outcomes);
        }
        outcomes.into_iter().flatten().collect()
    }

    fn take(&self, notice: Notice, disk: &Witness, outcomes: &mut [Option<Outcome>]) {
        match notice {
            Notice::Acked { run, .. } => {
                for at in 0..u64::from(run.count) {
                    let number = run.first_number + at;
                    assert!(
                        disk.has(self.token(number)),
                        "message {number} was acknowledged before it was durable"
                    );
                    let seq = Seq::new(run.first_seq.get() + at);
                    settle(outcomes, number, Outcome::Acked(seq));
                }
            }
            Notice::Refused {
                first_number,
                count,
                code,
                ..
            } => {
                for number in first_number..first_number + u64::from(count) {
                    settle(outcomes, number, Outcome::Refused(code));
                }
            }
            Notice::Space => {}
            other => panic!("{other:?}"),
        }
    }

    /// Reads from a seq on; blocks until the answer is there.
    pub(crate) fn read(&mut self, store: &impl Store, from: u64, hint: Hint) -> Option<ReadReply> {
        let range = ReadRange {
            room: room(),
            from: StartAt::seq(Seq::new(from)),
            count_max: 2,
            bytes_max: 1 << 20,
            hint,
        };
        if let Some(result) = store.read(range, 1, &self.mailbox) {
            return result.ok();
        }
        match self.notice() {
            Notice::Read { result, .. } => Some(result.unwrap()),
            other => panic!("{other:?}"),
        }
    }
}

fn settle(outcomes: &mut [Option<Outcome>], number: u64, outcome: Outcome) {
    let place = &mut outcomes[usize::try_from(number - 1).unwrap()];
    assert_eq!(*place, None, "message {number} was answered twice");
    *place = Some(outcome);
}

/// The messages that a reply holds.
pub(crate) fn told(reply: &ReadReply) -> Vec<u64> {
    let all: Vec<u8> = reply.records.iter().flatten().copied().collect();
    tokens(&all)
}

/// The messages that a new leader finds on this disk, in their order.
pub(crate) fn found(disk: MemoryStorage) -> Vec<u64> {
    let storage = Arc::new(disk);
    assert!(!storage.list().unwrap().is_empty());
    let (store, _engine) = EmbeddedStore::open_manual(storage, config(), &mut |_, _| {}).unwrap();
    assert_eq!(store.info().damaged, 0);
    let mut peer = Peer::new(99);
    let (mut all, mut next, mut hint) = (Vec::new(), 1, Hint::default());
    while let Some(reply) = peer.read(&*store, next, hint) {
        assert_eq!(reply.skip, None);
        all.extend(told(&reply));
        if reply.next > reply.head {
            break;
        }
        (next, hint) = (reply.next.get(), reply.hint);
    }
    let distinct: std::collections::BTreeSet<_> = all.iter().collect();
    assert_eq!(
        distinct.len(),
        all.len(),
        "a message is there twice: {all:x?}"
    );
    all
}
