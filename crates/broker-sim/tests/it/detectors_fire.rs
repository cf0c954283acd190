//! Every alarm, refusal and counter of log, recovery and store, provoked once: silent before, told after.
//!
//! What there is to provoke is read from the sources, so that a new one fails this test until somebody has seen it fire.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::sync::Arc;

use broker_core::log::position::LogPosition;
use broker_core::log::segment::{SegmentHeader, SegmentId};
use broker_core::log::storage::{MemoryStorage, Storage, StorageFile};
use broker_core::log::{FEATURE_LEVEL, RecoveryError};
use broker_core::store::{
    Answer, Append, Ask, ChangeRoom, Claims, EmbeddedConfig, EmbeddedStore, Hint, Mailbox, Notice,
    ProducerKey, ReadRange, ReadReply, RemoveRoom, SessionId, SetCursor, Store, StoreError,
};
use broker_proto::record::encode_message_head;
use broker_proto::{
    Epoch, KnownHead, KnownHeads, Position, ProducerId, RoomChange, Seq, StartAt, StoreId, publish,
};
use broker_sim::campaign::Tally;
use broker_sim::oracle::{producer_key, room_name};
use broker_sim::rig::{Limits, Rig, store_id};
use broker_sim::rot::{Map, Part};
use broker_sim::{Errno, Fault, Rng, SimDisk};
use bytes::{Bytes, BytesMut};

const LIMITS: Limits = Limits {
    segment_bytes_min: 64 << 10,
    segment_bytes_max: 64 << 10,
    checkpoint_bytes_min: 1 << 30,
    batch_bytes_max: 1 << 20,
    tail_bytes_max: 0,
};
/// Limits of the store.
const PRODUCERS_MAX: u32 = 262_144;
const CURSORS_MAX: u64 = 1_000_000;

/// Names of what was provoked.
type Fired = BTreeSet<String>;

/// The variant of a value.
fn variant(value: &impl Debug) -> String {
    let text = format!("{value:?}");
    let name = text.split(|c: char| !c.is_ascii_alphanumeric()).next();
    name.unwrap_or_default().to_owned()
}

/// The variants of an enum, from its source.
fn variants(source: &str, of: &str) -> BTreeSet<String> {
    let (_, rest) = source.split_once(&format!("pub enum {of} {{")).unwrap();
    let (body, _) = rest.split_once("\n}").unwrap();
    let names = body.lines().filter_map(|line| {
        let name = line.strip_prefix("    ")?;
        let name = name.strip_suffix(" {").or_else(|| name.strip_suffix(','))?;
        let name = name.split('(').next()?;
        let is_name = name.starts_with(|c: char| c.is_ascii_uppercase())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric());
        is_name.then(|| name.to_owned())
    });
    names.collect()
}

/// The codes with which the store on disk refuses messages, from its sources.
fn codes() -> BTreeSet<String> {
    let sources = [
        include_str!("../../../broker-core/src/store/sequencer.rs"),
        include_str!("../../../broker-core/src/store/sequencer/resend.rs"),
        include_str!("../../../broker-core/src/store/sequencer/changes.rs"),
        include_str!("../../../broker-core/src/store/sequencer/limits.rs"),
        include_str!("../../../broker-core/src/store/embedded/mod.rs"),
        include_str!("../../../broker-core/src/store/embedded/engine.rs"),
        include_str!("../../../broker-core/src/store/embedded/engine/refusal.rs"),
    ];
    let mut codes = BTreeSet::new();
    for source in sources {
        let source = source.split("#[cfg(test)]").next().unwrap();
        for rest in source.split("ErrorCode::").skip(1) {
            let end = |c: char| !(c.is_ascii_uppercase() || c == '_');
            codes.insert(rest.split(end).next().unwrap().to_lowercase());
        }
    }
    codes
}

fn open(disk: &SimDisk) -> Result<Rig, RecoveryError> {
    Rig::open(disk, LIMITS, &mut Rng::new(7))
}

/// A new store.
fn fresh() -> (SimDisk, Rig) {
    let disk = SimDisk::new(1);
    let rig = open(&disk).unwrap();
    (disk, rig)
}

/// So many messages without content.
fn append(key: ProducerKey, first_number: u64, count: u32) -> Append {
    let (mut head, mut entries) = (Vec::new(), BytesMut::new());
    encode_message_head(&mut head, &key.sender, 0, &[]);
    for _ in 0..count {
        publish::encode_entry(&mut entries, b"", &[], crc32c::crc32c(b""));
    }
    Append {
        session: SessionId(0),
        key,
        claimed: true,
        room: room_name(1).unwrap(),
        first_number,
        count,
        head: head.into(),
        entries: entries.freeze(),
        expected_head: None,
        resend: true,
    }
}

fn number(first_number: u64) -> Append {
    append(producer_key(1).unwrap(), first_number, 1)
}

/// What becomes of an append: `acked`, or the code.
fn told(rig: &mut Rig, append: Append) -> String {
    let mailbox = Mailbox::new();
    rig.store.append(append, &mailbox).unwrap();
    rig.work();
    let mut notices = Vec::new();
    mailbox.drain(&mut notices);
    match notices.pop() {
        Some(Notice::Acked { .. }) => "acked".to_owned(),
        Some(Notice::Refused { code, detail, .. }) => {
            assert!(!detail.is_empty(), "people are told nothing");
            code.name().to_owned()
        }
        other => panic!("{other:?}"),
    }
}

fn acked(rig: &mut Rig, append: Append) {
    assert_eq!(told(rig, append), "acked");
}

/// A closed store of a few segments.
fn closed() -> (SimDisk, Vec<String>) {
    let (disk, mut rig) = fresh();
    for n in 1..=3 {
        let mut large = number(n);
        let payload = vec![b'x'; 30 << 10];
        let mut entries = BytesMut::new();
        publish::encode_entry(&mut entries, &payload, &[], crc32c::crc32c(&payload));
        large.entries = entries.freeze();
        acked(&mut rig, large);
    }
    rig.engine.close();
    let names = disk.list().unwrap();
    let segments: Vec<String> = names.into_iter().filter(|n| n.ends_with(".seg")).collect();
    assert!(segments.len() > 1);
    (disk, segments)
}

fn header(disk: &SimDisk, file: &str) -> SegmentHeader {
    SegmentHeader::parse(&disk.content(file).unwrap()).unwrap()
}

/// Every reason not to open a log; the same log is opened without it.
fn recoveries(fired: &mut Fired) {
    let mut refused = |disk: &SimDisk| {
        let error = open(disk).unwrap_err();
        assert!(!error.to_string().is_empty());
        fired.insert(variant(&error));
    };
    let (base, segments) = closed();
    let (first, second) = (&segments[0], &segments[1]);
    open(&base.kill()).unwrap();
    let with_header = |file: &str, change: &dyn Fn(&mut SegmentHeader)| {
        let disk = base.kill();
        let mut header = header(&disk, file);
        change(&mut header);
        assert!(disk.corrupt(file, 0, &header.encode()));
        disk
    };
    refused(&with_header(first, &|header| {
        header.feature_level = FEATURE_LEVEL + 1;
    }));
    refused(&with_header(first, &|header| {
        header.store = StoreId::new([77; 16]);
    }));
    refused(&with_header(first, &|header| {
        header.base = LogPosition::new(1 << 40);
    }));
    refused(&with_two_that_stand_for_the_same(&base, first));
    // No leader can come after one of this term.
    refused(&with_header(first, &|header| header.term = u64::MAX));
    let newer = base.kill();
    let mut copy = header(&newer, second).encode()[..256].to_vec();
    copy[12] = 200;
    let crc = crc32c::crc32c_append(crc32c::crc32c(&copy[..8]), &copy[12..]);
    copy[8..12].copy_from_slice(&crc.to_le_bytes());
    assert!(newer.corrupt(second, 0, &copy) && newer.corrupt(second, 2048, &copy));
    refused(&newer);
    let unreadable = base.kill();
    assert!(unreadable.corrupt(second, 0, &[0; 4200]));
    refused(&unreadable);
    refused(&with_an_unknown_record(&base));
    let silent = base.kill();
    silent.fail_reads_from(1, Errno::Io);
    refused(&silent);
    // A log that was not closed has to be made safe, and cannot be.
    let (disk, mut rig) = fresh();
    acked(&mut rig, number(1));
    open(&disk.kill()).unwrap();
    let full = disk.kill();
    full.fail_ops_from(1, Fault::Error(Errno::Io));
    refused(&full);
}

/// Two rewritten segments that both stand for one segment, and each for another one too.
fn with_two_that_stand_for_the_same(base: &SimDisk, first: &str) -> SimDisk {
    let disk = base.kill();
    for id in [1, 2] {
        let mut header = header(base, first);
        header.name.id = SegmentId(id);
        header.name.generation = u32::try_from(id).unwrap();
        header.covers_last = SegmentId(id + 1);
        header.data_end = header.base;
        let file = disk.create(&header.name.file()).unwrap();
        file.write_at(0, &header.encode()).unwrap();
    }
    disk
}

/// A record of the store's state that this program must understand, and does not.
fn with_an_unknown_record(base: &SimDisk) -> SimDisk {
    let disk = base.kill();
    let map = Map::of(&disk).unwrap();
    let is_state = |part| matches!(part, Part::State(_));
    let place = map
        .places
        .iter()
        .find(|place| is_state(place.part))
        .unwrap();
    let at = usize::try_from(place.bytes.start).unwrap();
    let mut head = disk.content(&place.file).unwrap()[at..at + 36].to_vec();
    head[4..6].copy_from_slice(&0x8123_u16.to_le_bytes());
    let crc = crc32c::crc32c(&head[4..]);
    head[..4].copy_from_slice(&crc.to_le_bytes());
    assert!(disk.corrupt(&place.file, place.bytes.start, &head));
    disk
}

fn read(rig: &Rig, room: u16, from: StartAt) -> Result<ReadReply, StoreError> {
    let range = ReadRange {
        room: room_name(room).unwrap(),
        from,
        count_max: 10,
        bytes_max: 1 << 20,
        hint: Hint::default(),
    };
    rig.store.read(range, 0, &Mailbox::new()).unwrap()
}

fn set_cursor(rig: &mut Rig, expected: Option<Option<Position>>) -> Result<(), StoreError> {
    let set = SetCursor {
        room: room_name(1).unwrap(),
        name: "seen".to_owned(),
        to: Some(Position::new(Epoch::new(1), Seq::new(1))),
        expected,
        relaxed: false,
    };
    let mailbox = Mailbox::new();
    rig.store.set_cursor(set, 0, &mailbox);
    rig.work();
    let mut notices = Vec::new();
    mailbox.drain(&mut notices);
    match notices.pop() {
        Some(Notice::Cursor { result, .. }) => result.map(|_| ()),
        other => panic!("{other:?}"),
    }
}

/// Every error of a store that can be asked; the same request is answered without its reason.
fn errors(fired: &mut Fired) {
    let mut failed = |error: StoreError| {
        assert!(!error.to_string().is_empty());
        fired.insert(variant(&error));
    };
    let (disk, mut rig) = fresh();
    failed(read(&rig, 1, StartAt::seq(Seq::new(1))).unwrap_err());
    acked(&mut rig, number(1));
    let epoch = read(&rig, 1, StartAt::seq(Seq::new(1))).unwrap().epoch;
    failed(read(&rig, 1, StartAt::seq(Seq::new(9))).unwrap_err());
    let at = |epoch| StartAt::position(Position::new(epoch, Seq::new(1)));
    read(&rig, 1, at(epoch)).unwrap();
    failed(read(&rig, 1, at(Epoch::new(epoch.get() + 1))).unwrap_err());
    acked(&mut rig, number(2));
    disk.fail_reads_from(disk.read_count() + 1, Errno::Io);
    failed(read(&rig, 1, StartAt::seq(Seq::new(1))).unwrap_err());
    disk.clear_faults();
    set_cursor(&mut rig, Some(None)).unwrap();
    failed(set_cursor(&mut rig, Some(None)).unwrap_err());
    disk.fail_op(disk.op_count() + 1, Fault::Error(Errno::NoSpace));
    failed(set_cursor(&mut rig, None).unwrap_err());
    set_cursor(&mut rig, None).unwrap();
    rig.engine.close();
    failed(set_cursor(&mut rig, None).unwrap_err());
    let (disk, mut rig) = fresh();
    acked(&mut rig, number(1));
    disk.fail_ops_from(disk.op_count() + 1, Fault::Error(Errno::Io));
    failed(set_cursor(&mut rig, None).unwrap_err());
    failed(one_cursor_more());
    let (_, mut rig) = fresh();
    acked(&mut rig, number(1));
    let change = |expected, topic: &str| {
        Ask::ChangeRoom(ChangeRoom {
            room: room_name(1).unwrap(),
            expected,
            change: RoomChange {
                topic: Some(topic.to_owned()),
                ..RoomChange::default()
            },
        })
    };
    ask(&mut rig, change(Some(0), "about")).unwrap();
    failed(ask(&mut rig, change(Some(0), "about")).unwrap_err());
    failed(ask(&mut rig, change(None, "a bell: \u{7}")).unwrap_err());
    let remove = |epoch| {
        Ask::Remove(RemoveRoom {
            room: room_name(1).unwrap(),
            epoch,
        })
    };
    failed(ask(&mut rig, remove(Epoch::new(1))).unwrap_err());
    ask(&mut rig, remove(Epoch::NONE)).unwrap();
}

/// Asks for a change.
fn ask(rig: &mut Rig, ask: Ask) -> Result<Answer, StoreError> {
    let mailbox = Mailbox::new();
    rig.store.ask(ask, 0, &mailbox);
    rig.work();
    let mut notices = Vec::new();
    mailbox.drain(&mut notices);
    match notices.pop() {
        Some(Notice::Answer { result, .. }) => result,
        other => panic!("{other:?}"),
    }
}

/// What the first cursor beyond the limit is told; those before it were set.
fn one_cursor_more() -> StoreError {
    let storage = Arc::new(MemoryStorage::new());
    let config = EmbeddedConfig::new(store_id());
    let (store, mut engine) = EmbeddedStore::open_manual(storage, config, &mut |_, _| {}).unwrap();
    let mailbox = Mailbox::new();
    store.append(number(1), &mailbox).unwrap();
    engine.step();
    let mut notices = Vec::new();
    mailbox.drain(&mut notices);
    for n in 0..=CURSORS_MAX {
        let set = SetCursor {
            room: room_name(1).unwrap(),
            name: n.to_string(),
            to: Some(Position::new(Epoch::new(1), Seq::new(1))),
            expected: None,
            relaxed: false,
        };
        store.set_cursor(set, n, &mailbox);
        if n % 4000 == 0 || n == CURSORS_MAX {
            while engine.step() {}
            notices.clear();
            mailbox.drain(&mut notices);
            let is_set = |notice: &Notice| matches!(notice, Notice::Cursor { result: Ok(_), .. });
            assert_eq!(notices.iter().all(is_set), n < CURSORS_MAX, "{n}");
        }
    }
    match notices.pop() {
        Some(Notice::Cursor { result, .. }) => result.unwrap_err(),
        other => panic!("{other:?}"),
    }
}

/// Every refusal of messages by a healthy store.
fn refusals(fired: &mut Fired) {
    let mut refused = |code: String| {
        assert_ne!(code, "acked");
        fired.insert(code);
    };
    let (_, mut rig) = fresh();
    acked(&mut rig, number(1));
    refused(told(&mut rig, append(producer_key(2).unwrap(), 5, 1)));
    let wrong_head = Append {
        expected_head: Some(Seq::new(9)),
        ..number(2)
    };
    refused(told(&mut rig, wrong_head));
    refused(told(&mut rig, number(2)));
    // Far behind, and in another room, so that the first one is no longer remembered.
    let many = Append {
        room: room_name(2).unwrap(),
        ..append(producer_key(1).unwrap(), 3, 5000)
    };
    acked(&mut rig, many);
    refused(told(&mut rig, number(1)));
    let limit = |bytes_max| {
        Ask::ChangeRoom(ChangeRoom {
            room: room_name(1).unwrap(),
            expected: None,
            change: RoomChange {
                bytes_max: Some(bytes_max),
                ..RoomChange::default()
            },
        })
    };
    ask(&mut rig, limit(Some(1))).unwrap();
    refused(told(&mut rig, number(5500)));
    ask(&mut rig, limit(None)).unwrap();
    let large = Append {
        entries: Bytes::from(vec![0; 21 << 20]),
        ..number(6000)
    };
    refused(told(&mut rig, large));
    let of_session = |number, session| Append {
        session: SessionId(session),
        ..append(producer_key(3).unwrap(), number, 1)
    };
    rig.store.claim(&producer_key(3).unwrap(), SessionId(1));
    acked(&mut rig, of_session(1, 1));
    rig.store.claim(&producer_key(3).unwrap(), SessionId(2));
    refused(told(&mut rig, of_session(2, 1)));
    let one_more = producer_key(4).unwrap();
    for n in 0..PRODUCERS_MAX {
        let mut id = [9; 16];
        id[..4].copy_from_slice(&n.to_le_bytes());
        let key = ProducerKey {
            producer: ProducerId::new(id),
            sender: one_more.sender.clone(),
        };
        rig.store.claim(&key, SessionId(3));
    }
    refused(told(&mut rig, append(one_more, 1, 1)));
    rig.engine.close();
    refused(told(&mut rig, number(6001)));
}

/// Every refusal of messages because of the disk, and the states that it leads to.
fn refusals_of_the_disk(fired: &mut Fired) {
    let (disk, mut rig) = fresh();
    acked(&mut rig, number(1));
    disk.fail_op(disk.op_count() + 1, Fault::Error(Errno::NoSpace));
    fired.insert(told(&mut rig, number(2)));
    acked(&mut rig, number(3));
    assert_eq!(rig.store.info().read_only, None);
    disk.fail_ops_from(disk.op_count() + 1, Fault::Error(Errno::Io));
    fired.insert(told(&mut rig, number(4)));
    assert!(rig.store.info().read_only.is_some());
    fired.insert(told(&mut rig, number(5)));
    // Somebody takes the directory away.
    let (disk, mut rig) = fresh();
    assert!(!rig.store.has_moved());
    disk.fail_read(disk.read_count() + 1, Errno::Io);
    assert_eq!(told(&mut rig, number(1)), "read_only");
    assert!(rig.store.has_moved() && rig.store.info().read_only.is_some());
}

/// Counters are zero in a new store, and move; damage is counted by readers and by the next leader.
fn counters() {
    let (disk, mut rig) = fresh();
    let info = rig.store.info();
    let before = [info.rooms, info.batches, info.messages, info.segments];
    assert_eq!((before, info.log_bytes, info.damaged), ([0; 4], 0, 0));
    acked(&mut rig, append(producer_key(1).unwrap(), 1, 3));
    let info = rig.store.info();
    let after = [info.rooms, info.batches, info.messages, info.segments];
    assert_eq!((after, info.damaged), ([1, 1, 3, 1], 0));
    assert!(info.log_bytes > 0 && !rig.engine.is_marked());
    acked(&mut rig, number(4));
    rig.engine.idle();
    assert!(rig.engine.is_marked());
    let map = Map::of(&disk).unwrap();
    let is_message = |part| part == Part::RecordHead;
    let hit = map
        .places
        .iter()
        .find(|place| is_message(place.part))
        .unwrap();
    let blow = Map::flip(&disk, &hit.file, hit.bytes.start);
    assert!(disk.corrupt(&blow.file, blow.at, &blow.bytes));
    let reply = read(&rig, 1, StartAt::seq(Seq::new(1))).unwrap();
    assert_eq!(reply.skip.unwrap().to, Seq::new(1));
    assert_eq!(rig.store.info().damaged, 1, "a reader met it");
    let table = map.places.iter().find(|place| place.part == Part::Table);
    let table = table.unwrap();
    let blow = Map::flip(&disk, &table.file, table.bytes.start);
    assert!(disk.corrupt(&blow.file, blow.at, &blow.bytes));
    assert!(open(&disk.kill()).unwrap().store.info().damaged > 0);
}

/// Who knows more than the store is told so, and who does not is told of nothing.
fn losses() {
    let (_, mut rig) = fresh();
    acked(&mut rig, number(1));
    let info = rig.store.info();
    let epoch = read(&rig, 1, StartAt::seq(Seq::new(1))).unwrap().epoch;
    let lost = |seq| {
        let head = KnownHead {
            room: room_name(1).unwrap(),
            at: Position::new(epoch, Seq::new(seq)),
        };
        let known = KnownHeads {
            term: info.term,
            heads: [head].into(),
        };
        let claims = Claims {
            store: info.store,
            known,
        };
        let mailbox = Mailbox::new();
        rig.store.verify(&claims, &mailbox);
        let mut notices = Vec::new();
        mailbox.drain(&mut notices);
        match notices.pop() {
            Some(Notice::Verified { losses }) => losses.len(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!((lost(1), lost(2)), (0, 1));
}

#[test]
fn detectors_fire() {
    let mut cases = 0;
    let mut all_of = |expected: &BTreeSet<String>, provoke: &[fn(&mut Fired)]| {
        let mut fired = Fired::new();
        provoke.iter().for_each(|provoke| provoke(&mut fired));
        assert_eq!(&fired, expected);
        cases += fired.len() as u64;
    };
    let source = include_str!("../../../broker-core/src/log/error.rs");
    all_of(&variants(source, "RecoveryError"), &[recoveries]);
    let source = include_str!("../../../broker-core/src/store/mod.rs");
    all_of(&variants(source, "StoreError"), &[errors]);
    all_of(&codes(), &[refusals, refusals_of_the_disk]);
    counters();
    losses();
    println!(
        "{}",
        Tally::new("detectors_fire", 0).with("cases", cases + 9)
    );
}
