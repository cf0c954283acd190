//! Directories of segments that were harmed in any way: a leader opens them, or says why not.

use std::sync::Arc;

use broker_proto::record::{encode_message_head, next_record};
use broker_proto::{Micros, ProducerId, RoomName, SenderName, StartAt, StoreId, publish};
use bytes::BytesMut;

use crate::clock::{ManualClock, SeededRandom};
use crate::log::RecoveryError;
use crate::log::batch::HEAD_BYTES;
use crate::log::segment::{
    DATA_OFFSET, HEADER_BYTES, HEADER_COPY_OFFSET, SegmentHeader, SegmentId, SegmentName,
};
use crate::log::storage::{MemoryStorage, Storage, StorageFile};
use crate::store::{
    Append, EmbeddedConfig, EmbeddedStore, Engine, Hint, Mailbox, Notice, ProducerKey, ReadRange,
    SessionId, Store,
};

/// More steps than any input needs.
const STEPS_MAX: usize = 10_000;
/// Acts and harms beyond are not looked at.
const ACTS_MAX: usize = 200;

/// That write a story, before anything befalls their files.
const LEADERS_MAX: u64 = 3;

/// What is left of the input; zeros when it is used up.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        *first
    }

    fn number(&mut self) -> usize {
        usize::from(self.byte()) | usize::from(self.byte()) << 8
    }

    fn long(&mut self) -> [u8; 8] {
        std::array::from_fn(|_| self.byte())
    }
}

/// A leader.
struct Leader {
    store: Arc<EmbeddedStore<MemoryStorage>>,
    engine: Engine<MemoryStorage>,
    mailbox: Arc<Mailbox>,
}

impl Leader {
    /// Each leader of a story has a number of its own: segments know each other by markers that are
    /// drawn.
    fn open(disk: &MemoryStorage, number: u64) -> Result<Self, RecoveryError> {
        let mut config = EmbeddedConfig::new(StoreId::new([1; 16]));
        config.segment_bytes_min = 8 << 10;
        config.segment_bytes_max = 16 << 10;
        config.checkpoint_bytes_min = 4 << 10;
        config.batch_bytes_max = 4 << 10;
        config.tail_bytes_max = 0;
        config.clock = Arc::new(ManualClock::new(Micros::new(1_600_000_000_000_000)));
        config.random = Box::new(SeededRandom::new(number));
        let (store, engine) =
            EmbeddedStore::open_manual(Arc::new(disk.clone()), config, &mut |_, _| {})?;
        Ok(Self {
            store,
            engine,
            mailbox: Mailbox::new(),
        })
    }

    fn send(&self, producer: u8, number: u64, room: &str, payload: &[u8]) {
        let sender = SenderName::parse("ann").expect("it is a name");
        let mut head = Vec::new();
        encode_message_head(&mut head, &sender, 0, &[]);
        let mut entries = BytesMut::new();
        publish::encode_entry(&mut entries, payload, &[], crc32c::crc32c(payload));
        let append = Append {
            session: SessionId(0),
            key: ProducerKey {
                sender,
                producer: ProducerId::new([producer; 16]),
            },
            claimed: true,
            room: RoomName::parse(room).expect("it is a name"),
            first_number: number,
            count: 1,
            head: head.into(),
            entries: entries.freeze(),
            expected_head: None,
            resend: false,
        };
        assert!(
            self.store.append(append, &self.mailbox).is_ok(),
            "the queue is full"
        );
    }

    fn work(&mut self) {
        let steps = (0..STEPS_MAX).find(|_| !self.engine.step());
        assert!(steps.is_some(), "it works without end");
    }

    fn is_acked(&self) -> bool {
        let mut notices = Vec::new();
        self.mailbox.drain(&mut notices);
        notices
            .iter()
            .any(|notice| matches!(notice, Notice::Acked { .. }))
    }

    fn rooms(&self) -> Vec<RoomName> {
        let mailbox = Mailbox::new();
        self.store.rooms("", 1000, 0, &mailbox);
        let mut notices = Vec::new();
        mailbox.drain(&mut notices);
        match notices.pop() {
            Some(Notice::Rooms {
                result: Ok(page), ..
            }) => page.rooms.iter().map(|room| room.name.clone()).collect(),
            other => panic!("the rooms cannot be listed: {other:?}"),
        }
    }

    /// All payloads that a room serves, each checked.
    fn read(&self, room: &RoomName) -> Vec<Vec<u8>> {
        let (mut payloads, mut from, mut hint) = (Vec::new(), StartAt::START, Hint::default());
        for _ in 0..STEPS_MAX {
            let range = ReadRange {
                room: room.clone(),
                from,
                count_max: u32::MAX,
                bytes_max: 1 << 20,
                hint,
            };
            let reply = self.store.read(range, 0, &Mailbox::new());
            let reply = reply
                .expect("the answer is there at once")
                .expect("a room that is listed can be read");
            for piece in &reply.records {
                let mut rest = &piece[..];
                while let Some((record, after)) = next_record(rest).expect("a record is whole") {
                    record.verify_payload().expect("a payload is whole");
                    payloads.push(record.payload.to_vec());
                    rest = after;
                }
            }
            if reply.next > reply.head {
                return payloads;
            }
            assert!(
                reply.count > 0 || reply.skip.is_some(),
                "no progress at {}",
                reply.next
            );
            from = StartAt::seq(reply.next);
            hint = reply.hint;
        }
        panic!("{room} has no end");
    }
}

/// Any bytes as the story of a store and of what befalls its files.
///
/// No panic, and an end; a store that nobody harmed opens; one that was either opens or says why not, with all its files as they were;
/// what an opened one serves has right checksums; it stores a message, and the next leader serves it.
///
/// # Panics
/// When one of these does not hold.
pub fn recovery(data: &[u8]) {
    let mut input = Input(data);
    let disk = MemoryStorage::new();
    write(&disk, &mut input);
    let mut is_sealed = false;
    for _ in 0..ACTS_MAX {
        if input.0.is_empty() {
            break;
        }
        is_sealed |= harm(&disk, &mut input);
    }
    let before = log_of(&disk);
    let Some(mut leader) = opened(&disk, LEADERS_MAX, &before) else {
        return;
    };
    for room in leader.rooms() {
        leader.read(&room);
    }
    leader.send(77, 1, "after", b"after the damage");
    leader.work();
    // With right checksums anything can be claimed, also that the log is full.
    if !leader.is_acked() {
        assert!(is_sealed, "the store opens and stores nothing");
        return;
    }
    drop(leader);
    let before = log_of(&disk);
    let Some(leader) = opened(&disk, LEADERS_MAX + 1, &before) else {
        assert!(is_sealed, "the next leader cannot open it");
        return;
    };
    let room = RoomName::parse("after").expect("it is a name");
    // What was claimed with right checksums may stand for more at the next start.
    if is_sealed && !leader.rooms().contains(&room) {
        return;
    }
    let payloads = leader.read(&room);
    assert!(
        is_sealed
            || payloads
                .iter()
                .any(|payload| payload == b"after the damage"),
        "an acknowledged message is lost"
    );
}

/// Opens it; if it refuses, nothing may have changed.
fn opened(disk: &MemoryStorage, number: u64, before: &[(String, Vec<u8>)]) -> Option<Leader> {
    match Leader::open(disk, number) {
        Ok(leader) => Some(leader),
        Err(error) => {
            assert!(!error.to_string().is_empty());
            assert!(
                log_of(disk) == before,
                "it refuses the store and changes it: {error}"
            );
            None
        }
    }
}

/// Up to [`LEADERS_MAX`] leaders, one after the other.
fn write(disk: &MemoryStorage, input: &mut Input<'_>) {
    let mut number = 0;
    let leaders = u64::from(input.byte()) % LEADERS_MAX + 1;
    for leader in 0..leaders {
        let mut leader = Leader::open(disk, leader).expect("a store that nobody harmed opens");
        for _ in 0..input.byte() % 24 {
            let act = input.byte();
            match act % 8 {
                0 => leader.work(),
                1 => leader.engine.idle(),
                2 => leader.engine.keep_house(),
                _ => {
                    number += 1;
                    let room = ["one", "two", "three"]
                        .get(usize::from(act >> 3) % 3)
                        .copied()
                        .unwrap_or("one");
                    let bytes = usize::from(act >> 5) * 700;
                    leader.send(1, number, room, &vec![act; bytes]);
                }
            }
        }
        leader.work();
        if input.byte().is_multiple_of(2) {
            leader.engine.close();
        }
    }
}

/// The files of the log, with what is in them.
fn log_of(disk: &MemoryStorage) -> Vec<(String, Vec<u8>)> {
    let names = disk.list().expect("memory can be listed");
    let is_log = |name: &String| SegmentName::parse(name).is_some();
    names
        .into_iter()
        .filter(is_log)
        .map(|name| {
            let content = content(disk, &name);
            (name, content)
        })
        .collect()
}

fn content(disk: &MemoryStorage, name: &str) -> Vec<u8> {
    let file = disk.open_read(name).expect("it is listed");
    let len = file.len().expect("memory has a length");
    let mut bytes = vec![0; usize::try_from(len).expect("it is in memory")];
    let read = file.read_at(0, &mut bytes).expect("memory can be read");
    bytes.truncate(read);
    bytes
}

fn put(disk: &MemoryStorage, name: &str, at: usize, bytes: &[u8]) {
    let file = disk.open(name).expect("it is listed");
    file.write_at(at as u64, bytes)
        .expect("memory can be written");
}

/// One act of a bad disk, or of a bad person; true when it gives wrong bytes a right checksum.
fn harm(disk: &MemoryStorage, input: &mut Input<'_>) -> bool {
    let files = disk.list().expect("memory can be listed");
    let kind = input.byte();
    let pick = |which: u8| files.get(usize::from(which) % files.len().max(1)).cloned();
    let Some(name) = pick(input.byte()) else {
        return false;
    };
    let bytes = content(disk, &name);
    let at = input.number() % bytes.len().max(1);
    let block = (at / 512 * 512).min(bytes.len());
    match kind % 9 {
        0 => {
            let byte = bytes.get(at).copied().unwrap_or(0);
            put(disk, &name, at, &[byte ^ 1 << (kind / 9 % 8)]);
        }
        1 => put(disk, &name, block, &[0; 512]),
        2 => {
            let len = usize::from(input.byte()).min(input.0.len());
            let (piece, rest) = input.0.split_at(len);
            input.0 = rest;
            put(disk, &name, at, piece);
        }
        3 => {
            let from = pick(input.byte())
                .map(|from| content(disk, &from))
                .unwrap_or_default();
            let from_at = input.number() / 512 * 512;
            let end = (from_at + 512).min(from.len());
            put(
                disk,
                &name,
                block,
                from.get(from_at..end).unwrap_or_default(),
            );
        }
        4 => {
            let file = disk.open(&name).expect("it is listed");
            file.truncate(at as u64).expect("memory can be cut");
        }
        5 => disk.delete(&name).expect("it is listed"),
        6 => {
            let id = SegmentId(u64::from(input.byte()) + 1);
            let copy = SegmentName {
                id,
                generation: u32::from(input.byte() % 2),
            }
            .file();
            let file = match disk.create(&copy) {
                Ok(file) => file,
                Err(_) => disk.open(&copy).expect("it is there"),
            };
            file.write_at(0, &bytes).expect("memory can be written");
        }
        7 => return seal_header(disk, &name, input),
        _ => return seal_head(disk, &name, &bytes, input),
    }
    false
}

/// Changes a field in both copies of a header.
fn seal_header(disk: &MemoryStorage, name: &str, input: &mut Input<'_>) -> bool {
    let bytes = content(disk, name);
    let Some(copy) = bytes.first_chunk::<HEADER_BYTES>() else {
        return false;
    };
    let (at, mut copy) = (12 + usize::from(input.byte()) % 100, *copy);
    change(&mut copy, at, input);
    let crc = crc_but(&copy);
    set(&mut copy, 8, &crc);
    put(disk, name, 0, &copy);
    put(disk, name, HEADER_COPY_OFFSET, &copy);
    true
}

/// Changes a field in the head of a batch.
fn seal_head(disk: &MemoryStorage, name: &str, bytes: &[u8], input: &mut Input<'_>) -> bool {
    let Ok(header) = SegmentHeader::parse(bytes) else {
        return false;
    };
    let marker = header.marker.0.to_le_bytes();
    let start = usize::try_from(DATA_OFFSET).unwrap_or(usize::MAX);
    let data = bytes.get(start..).unwrap_or_default();
    let places: Vec<usize> = data
        .chunks_exact(8)
        .enumerate()
        .filter(|(_, word)| *word == marker)
        .map(|(n, _)| start + n * 8)
        .collect();
    let which = usize::from(input.byte());
    let Some(place) = places.get(which % places.len().max(1)) else {
        return false;
    };
    let head = bytes
        .get(*place..)
        .and_then(<[u8]>::first_chunk::<HEAD_BYTES>);
    let Some(mut head) = head.copied() else {
        return false;
    };
    let at = 12 + usize::from(input.byte()) % (HEAD_BYTES - 12);
    change(&mut head, at, input);
    let crc = crc_but(&head);
    set(&mut head, 8, &crc);
    put(disk, name, *place, &head);
    true
}

/// Another byte, or eight of them.
fn change(bytes: &mut [u8], at: usize, input: &mut Input<'_>) {
    match input.byte() % 4 {
        0 => set(bytes, at / 8 * 8, &input.long()),
        1 => set(bytes, at / 8 * 8, &[0xff; 8]),
        _ => set(bytes, at, &[input.byte()]),
    }
}

/// The checksum of all but itself, at byte 8.
fn crc_but(bytes: &[u8]) -> [u8; 4] {
    let crc = crc32c::crc32c(bytes.get(..8).unwrap_or_default());
    crc32c::crc32c_append(crc, bytes.get(12..).unwrap_or_default()).to_le_bytes()
}

fn set(bytes: &mut [u8], at: usize, value: &[u8]) {
    for (into, from) in bytes.iter_mut().skip(at).zip(value) {
        *into = *from;
    }
}
