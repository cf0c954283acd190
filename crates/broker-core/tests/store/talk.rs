//! Talks to a store as a session would, and keeps the answers.

use std::sync::Arc;

use broker_core::store::{
    AckRun, Append, Hint, Mailbox, Notice, ProducerKey, ReadRange, ReadReply, SessionId, Store,
    StoreError,
};
use broker_proto::record::{encode_message_head, next_record};
use broker_proto::{ProducerId, RoomName, SenderName, Seq, StartAt, publish};
use bytes::{Bytes, BytesMut};

/// One producer.
pub(crate) struct Talker {
    pub(crate) key: ProducerKey,
    pub(crate) mailbox: Arc<Mailbox>,
    pub(crate) notices: Vec<Notice>,
    head: Bytes,
    pub(crate) next: u64,
}

impl Talker {
    pub(crate) fn new(name: &str, producer: u8) -> Self {
        let sender = SenderName::parse(name).unwrap();
        let mut head = Vec::new();
        encode_message_head(&mut head, &sender, 0, &[]);
        let key = ProducerKey {
            sender,
            producer: ProducerId::new([producer; 16]),
        };
        Self {
            key,
            mailbox: Mailbox::new(),
            notices: Vec::new(),
            head: head.into(),
            next: 1,
        }
    }

    pub(crate) fn append(&self, room: &str, first_number: u64, payloads: &[&[u8]]) -> Append {
        let mut entries = BytesMut::new();
        for payload in payloads {
            publish::encode_entry(&mut entries, payload, &[], crc32c::crc32c(payload));
        }
        Append {
            session: SessionId(0),
            key: self.key.clone(),
            claimed: true,
            room: RoomName::parse(room).unwrap(),
            first_number,
            count: u32::try_from(payloads.len()).unwrap(),
            head: self.head.clone(),
            entries: entries.freeze(),
            expected_head: None,
            resend: false,
        }
    }

    pub(crate) fn send(&mut self, store: &(impl Store + ?Sized), room: &str, payloads: &[&[u8]]) {
        let append = self.append(room, self.next, payloads);
        self.next += payloads.len() as u64;
        store.append(append, &self.mailbox).unwrap();
    }

    pub(crate) fn acks(&mut self) -> Vec<AckRun> {
        self.mailbox.drain(&mut self.notices);
        let acked = self.notices.drain(..).filter_map(|notice| match notice {
            Notice::Acked { run, .. } => Some(run),
            _ => None,
        });
        acked.collect()
    }
}

/// Reads a whole room, page by page: seqs with payloads, and skips as ranges.
pub(crate) fn read_all(
    store: &impl Store,
    room: &str,
    start: StartAt,
    bytes_max: u32,
) -> Result<Vec<(u64, Vec<u8>)>, StoreError> {
    let mailbox = Mailbox::new();
    let mut all = Vec::new();
    let mut from = start;
    let mut hint = Hint::default();
    loop {
        let range = ReadRange {
            room: RoomName::parse(room).unwrap(),
            from,
            count_max: u32::MAX,
            bytes_max,
            hint,
        };
        let reply: ReadReply = match store.read(range, 1, &mailbox) {
            Some(reply) => reply?,
            None => loop {
                let mut notices = Vec::new();
                mailbox.drain(&mut notices);
                if let Some(Notice::Read { result, .. }) = notices.pop() {
                    break result?;
                }
                std::thread::yield_now();
            },
        };
        assert!(reply.skip.is_none(), "{:?}", reply.skip);
        for piece in &reply.records {
            let mut rest = &piece[..];
            while let Some((record, after)) = next_record(rest).unwrap() {
                record.verify_payload().unwrap();
                all.push((record.fixed.seq.get(), record.payload.to_vec()));
                rest = after;
            }
        }
        if reply.next > reply.head {
            return Ok(all);
        }
        assert!(reply.count > 0, "no progress at {}", reply.next);
        from = StartAt::seq(Seq::new(reply.next.get()));
        hint = reply.hint;
    }
}
