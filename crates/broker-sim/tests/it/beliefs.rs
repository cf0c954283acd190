//! What a leader believes of the bytes that it finds: not a length, a place, a header, a marker or a part of a checkpoint that
//! something else does not prove.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

use broker_core::log::RecoveryError;
use broker_core::log::batch::{BatchHead, BatchKind, HEAD_BYTES};
use broker_core::log::position::LogPosition;
use broker_core::log::segment::{DATA_OFFSET, SegmentHeader};
use broker_core::log::storage::Storage;
use broker_proto::{Position, Seq};
use broker_sim::campaign::seed;
use broker_sim::oracle::{Fate, Ledger, MessageId, check};
use broker_sim::rig::{Limits, Rig};
use broker_sim::rot::{Blow, Map, Part, Place, Subject};
use broker_sim::{Rng, SimDisk};
use bytes::Bytes;

const LIMITS: Limits = Limits {
    segment_bytes_min: 16 << 10,
    segment_bytes_max: 32 << 10,
    checkpoint_bytes_min: 8 << 10,
    batch_bytes_max: 16 << 10,
    tail_bytes_max: 0,
};

/// A store that was written and closed, and where chance stands.
fn subject() -> (Subject, Rng) {
    subject_of(seed(1))
}

fn subject_of(seed: u64) -> (Subject, Rng) {
    println!("BROKER_SEED={seed}");
    let mut rng = Rng::new(seed);
    let subject = Subject::write(&mut rng, LIMITS, 25).unwrap();
    (subject, rng)
}

fn strike(subject: &Subject, blow: Blow, rng: &mut Rng) {
    let told = subject.map.describe(&blow);
    let struck = subject.strike(&[blow], false, rng);
    struck.unwrap_or_else(|why| panic!("{told}: {why}"));
}

/// The bytes of a place.
fn bytes_of(disk: &SimDisk, place: &Place) -> Vec<u8> {
    let at = |n: u64| usize::try_from(n).unwrap();
    disk.content(&place.file).unwrap()[at(place.bytes.start)..at(place.bytes.end)].to_vec()
}

fn heads(subject: &Subject) -> Vec<&Place> {
    let places = subject.map.places.iter();
    places.filter(|place| place.part == Part::Head).collect()
}

/// The length that a head tells.
fn length(disk: &SimDisk, head: &Place) -> u32 {
    let bytes = bytes_of(disk, head);
    u32::from_le_bytes(*bytes[12..].first_chunk().unwrap())
}

/// Every bit of the length of every batch that would still be a length of a batch.
#[test]
fn a_length_is_believed_only_when_its_checksum_is_right() {
    let (subject, mut rng) = subject();
    let mut tried = 0;
    for head in heads(&subject) {
        let length = length(&subject.disk, head);
        for bit in 3..20 {
            let bytes = (length ^ 1 << bit).to_le_bytes().to_vec();
            let (file, at) = (head.file.clone(), head.bytes.start + 12);
            strike(&subject, Blow { file, at, bytes }, &mut rng);
            tried += 1;
        }
    }
    assert!(tried > 300, "{tried}");
}

/// A disk that writes the head of one batch over that of another, shorter one: what lies behind the shorter one is not passed over.
#[test]
fn a_head_in_another_place_is_not_one_of_that_place() {
    let mut tried = 0;
    // Not every store has many pairs.
    for offset in 0..50 {
        if tried <= 20 {
            tried += heads_in_other_places(offset);
        }
    }
    assert!(tried > 20, "{tried}");
}

fn heads_in_other_places(offset: u64) -> u32 {
    let (subject, mut rng) = subject_of(seed(1) + offset);
    let heads = heads(&subject);
    let mut tried = 0;
    for (n, to) in heads.iter().enumerate() {
        let is_longer =
            |from: &&&Place| length(&subject.disk, from) > length(&subject.disk, to) + 72;
        for from in heads[..n]
            .iter()
            .filter(|from| from.file == to.file)
            .filter(is_longer)
        {
            let blow = Blow {
                file: to.file.clone(),
                at: to.bytes.start,
                bytes: bytes_of(&subject.disk, from),
            };
            strike(&subject, blow, &mut rng);
            tried += 1;
        }
    }
    tried
}

/// Whether a segment stands for others of which nothing is left: there is no batch in it.
fn is_hollow(disk: &SimDisk, file: &str) -> bool {
    disk.content(file).unwrap().len() as u64 <= DATA_OFFSET
}

/// Everything that says what a segment is, is gone: the store is not opened, and every file stays as it is.
#[test]
fn a_segment_that_cannot_be_read_is_refused_and_stays() {
    let (subject, mut rng) = subject();
    let files = |disk: &SimDisk| {
        let names = disk.list().unwrap();
        let content = |name: &String| disk.content(name).unwrap();
        let all: Vec<_> = names.iter().map(content).collect();
        (names, all)
    };
    let segments = subject.disk.list().unwrap();
    let segments: Vec<_> = segments.iter().filter(|n| n.ends_with(".seg")).collect();
    assert!(segments.len() > 3);
    for file in segments {
        if is_hollow(&subject.disk, file) {
            continue;
        }
        let disk = subject.disk.kill();
        for at in [0, 2048, DATA_OFFSET] {
            assert!(disk.corrupt(file, at, &[0; 256]));
        }
        let before = files(&disk);
        let opened = Rig::open(&disk, LIMITS, &mut rng);
        let refused =
            matches!(&opened, Err(RecoveryError::Unreadable { file: named }) if named == file);
        assert!(refused, "{file} cannot be read, and the store is opened");
        assert!(files(&disk) == before, "{file} was not left alone");
    }
}

/// A disk that writes a batch of one segment over header and first batch of another: that one is named as unreadable, and not its
/// innocent neighbour as one that overlaps.
#[test]
fn a_header_is_not_put_together_from_a_batch_of_another_segment() {
    let (subject, mut rng) = subject();
    let segments = subject.disk.list().unwrap();
    let segments: Vec<_> = segments.iter().filter(|n| n.ends_with(".seg")).collect();
    for (n, file) in segments.iter().enumerate() {
        for other in segments.iter().skip(n + 1).chain(&segments[..n]) {
            if is_hollow(&subject.disk, other) || is_hollow(&subject.disk, file) {
                continue;
            }
            let disk = subject.disk.kill();
            let content = disk.content(other).unwrap();
            let at = usize::try_from(DATA_OFFSET).unwrap();
            let end = content.len().min(at + 4096);
            assert!(disk.corrupt(file, 0, &[0; 4096]));
            assert!(disk.corrupt(file, DATA_OFFSET, &content[at..end]));
            let opened = Rig::open(&disk, LIMITS, &mut rng);
            let named =
                matches!(&opened, Err(RecoveryError::Unreadable { file: named }) if named == *file);
            assert!(named, "{file} holds what belongs to {other}: {opened:?}");
        }
    }
}

fn id(producer: u16, number: u64) -> MessageId {
    MessageId { producer, number }
}

/// Stores one message.
fn send(rig: &mut Rig, ledger: &mut Ledger, id: MessageId, room: u16, payload: Bytes) {
    ledger.send(id, room, payload);
    rig.send(ledger, id, 1).unwrap();
    rig.work();
    rig.answers(ledger).unwrap();
    assert!(matches!(ledger.sent[&id].fate, Fate::Acked(_)));
}

/// A store with messages, producers and cursors, and several checkpoints.
fn with_checkpoints() -> (SimDisk, Ledger) {
    let disk = SimDisk::new(1);
    let mut ledger = Ledger::default();
    let mut rig = Rig::open(&disk, LIMITS, &mut Rng::new(2)).unwrap();
    for number in 1..=12 {
        for producer in 0..4 {
            let payload = Bytes::from(vec![b'x'; 900]);
            send(
                &mut rig,
                &mut ledger,
                id(producer, number),
                producer,
                payload,
            );
            let epoch = ledger.rooms[&producer].epoch.unwrap();
            let (key, to) = ((producer, 0), Some(Position::new(epoch, Seq::new(number))));
            ledger.move_cursor(key, to);
            rig.move_cursor(key, to).unwrap();
            rig.work();
            rig.answers(&mut ledger).unwrap();
        }
    }
    rig.engine.close();
    rig.answers(&mut ledger).unwrap();
    (disk, ledger)
}

/// Whatever part of the last checkpoint is damaged: the log tells the same, and all of it is there. No message is stored twice
/// either, as nobody who sent it is forgotten.
#[test]
fn a_checkpoint_counts_whole_or_not_at_all() {
    let (disk, ledger) = with_checkpoints();
    let map = Map::of(&disk).unwrap();
    // Parts of checkpoints, and their ends.
    let is_checkpoint = |part| [Part::State(8), Part::State(9)].contains(&part);
    let parts = map.places.iter().filter(|place| is_checkpoint(place.part));
    assert!(parts.clone().count() > 3);
    for part in parts {
        let disk = disk.kill();
        let blow = Map::flip(&disk, &part.file, part.bytes.end - 1);
        assert!(disk.corrupt(&blow.file, blow.at, &blow.bytes));
        let mut ledger = ledger.clone();
        let mut rig = Rig::open(&disk, LIMITS, &mut Rng::new(3)).unwrap();
        let all = check::everything_is_there(&rig, &mut ledger, 1 << 20);
        all.unwrap_or_else(|why| panic!("{}: {why}", map.describe(&blow)));
        for key in ledger.cursors.keys().copied().collect::<Vec<_>>() {
            rig.ask_cursor(key).unwrap();
        }
        for id in ledger.sent.keys().copied().collect::<Vec<_>>() {
            rig.send_again(&ledger, id, 1).unwrap();
        }
        rig.work();
        rig.answers(&mut ledger)
            .unwrap_or_else(|why| panic!("{}: {why}", map.describe(&blow)));
    }
}

/// Three messages, each in a batch of its own, the one in the middle with this payload.
fn around(payload: Bytes, seed: u64) -> (SimDisk, Ledger) {
    let disk = SimDisk::new(1);
    let mut ledger = Ledger::default();
    let mut rig = Rig::open(&disk, LIMITS, &mut Rng::new(seed)).unwrap();
    let other = || Bytes::from_static(b"another message");
    send(&mut rig, &mut ledger, id(1, 1), 1, other());
    send(&mut rig, &mut ledger, id(1, 2), 1, payload);
    send(&mut rig, &mut ledger, id(1, 3), 1, other());
    rig.engine.close();
    rig.answers(&mut ledger).unwrap();
    (disk, ledger)
}

/// A message that holds what looks like the head of a batch, right in every field and at its very place, but for the marker, which
/// nobody outside can know: it is that of another store. Then the head of its own batch is damaged, and the next one is looked for.
#[test]
fn a_payload_does_not_pass_for_a_batch() {
    const BYTES: usize = 4000;
    let plain = Bytes::from(vec![b'.'; BYTES]);
    let (disk, _) = around(plain.clone(), 4);
    let is_payload = |place: &&Place| {
        place.part == Part::Payload && place.bytes.end - place.bytes.start == BYTES as u64
    };
    let map = Map::of(&disk).unwrap();
    let payload = map.places.iter().find(is_payload).unwrap();
    // The only segment begins at position 0.
    let at = LogPosition::new((payload.bytes.start - DATA_OFFSET).next_multiple_of(8) + 1024);
    let head = BatchHead {
        length: 2048,
        position: at,
        durable_upto: at,
        term: 1,
        time: 0,
        count: 1,
        table: 72,
        checkpoint: LogPosition::NONE,
        kind: BatchKind::Records,
    };
    let (other, _) = around(plain.clone(), 5);
    let first = other.content("0000000000000001-0000.seg").unwrap();
    let marker = SegmentHeader::parse(&first).unwrap().marker;
    let mut forged = plain.to_vec();
    let within = usize::try_from(at.get() + DATA_OFFSET - payload.bytes.start).unwrap();
    forged[within..within + HEAD_BYTES].copy_from_slice(&head.encode(marker));
    let (disk, mut ledger) = around(forged.into(), 4);
    let map = Map::of(&disk).unwrap();
    let of_payload = map.places.iter().find(is_payload).unwrap().batch;
    let is_head = |place: &&Place| place.part == Part::Head && place.batch == of_payload;
    let head = map.places.iter().find(is_head).unwrap();
    for at in [0, 8, 16, HEAD_BYTES as u64 - 1] {
        let disk = disk.kill();
        let blow = Map::flip(&disk, &head.file, head.bytes.start + at);
        assert!(disk.corrupt(&blow.file, blow.at, &blow.bytes));
        let rig = Rig::open(&disk, LIMITS, &mut Rng::new(5)).unwrap();
        let all = check::everything_is_there(&rig, &mut ledger, 1 << 20);
        all.unwrap_or_else(|why| panic!("{}: {why}", map.describe(&blow)));
    }
}
