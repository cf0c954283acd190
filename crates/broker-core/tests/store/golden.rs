//! Known bytes on disk: the format never changes under a released version.
//!
//! `docs/log-format.md` shows the same bytes, in blocks marked `hex NAME`; a difference fails here.

use std::sync::Arc;

use broker_core::clock::{ManualClock, SeededRandom};
use broker_core::log::storage::{MemoryStorage, Storage, StorageFile};
use broker_core::store::{EmbeddedConfig, EmbeddedStore, Engine, SetCursor, Store};
use broker_proto::{Epoch, Micros, Position, RoomName, Seq, StoreId};

use crate::talk::Talker;

/// The bytes that the document shows under a name: of each line what stands before two spaces.
fn documented(name: &str) -> Vec<u8> {
    let text = include_str!("../../../../docs/log-format.md");
    let start = format!("```hex {name}\n");
    let (_, block) = text
        .split_once(&start)
        .unwrap_or_else(|| panic!("docs/log-format.md shows no {name}"));
    let (block, _) = block.split_once("```").unwrap();
    let digits: String = block
        .lines()
        .map(|line| line.split_once("  ").map_or(line, |(bytes, _)| bytes))
        .flat_map(|line| line.chars().filter(|c| !c.is_whitespace()))
        .collect();
    assert_eq!(digits.len() % 2, 0);
    (0..digits.len() / 2)
        .map(|at| u8::from_str_radix(&digits[at * 2..at * 2 + 2], 16).unwrap())
        .collect()
}

fn open(disk: &MemoryStorage) -> (Arc<EmbeddedStore<MemoryStorage>>, Engine<MemoryStorage>) {
    let mut config = EmbeddedConfig::new(StoreId::new(*b"a store for show"));
    config.clock = Arc::new(ManualClock::new(Micros::new(1_600_000_000_000_000)));
    config.random = Box::new(SeededRandom::new(1));
    EmbeddedStore::open_manual(Arc::new(disk.clone()), config, &mut |_, _| {}).unwrap()
}

/// One message and one move of a cursor, in a batch each.
fn say(store: &EmbeddedStore<MemoryStorage>, engine: &mut Engine<MemoryStorage>) {
    let mut ann = Talker::new("ann", 0x11);
    ann.send(store, "lobby", &[b"hello"]);
    engine.step();
    let set = SetCursor {
        room: RoomName::parse("lobby").unwrap(),
        name: "seen".to_owned(),
        to: Some(Position::new(Epoch::new(5), Seq::FIRST)),
        expected: None,
        relaxed: false,
    };
    store.set_cursor(set, 1, &ann.mailbox);
    engine.step();
}

fn content(disk: &MemoryStorage, name: &str) -> Vec<u8> {
    let file = disk.open_read(name).unwrap();
    let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
    assert_eq!(file.read_at(0, &mut bytes).unwrap(), bytes.len());
    bytes
}

/// Bytes as the document shows them, to be copied into it when the format changes on purpose.
fn shown(bytes: &[u8]) -> String {
    let line = |line: &[u8]| {
        line.iter()
            .map(|byte| format!("{byte:02x} "))
            .collect::<String>()
    };
    bytes.chunks(16).map(line).collect::<Vec<_>>().join("\n")
}

fn check(name: &str, found: &[u8]) {
    assert!(
        found == documented(name),
        "docs/log-format.md shows other bytes for {name}; they are\n{}",
        shown(found)
    );
}

#[test]
fn golden_segment() {
    let disk = MemoryStorage::new();
    let (store, mut engine) = open(&disk);
    say(&store, &mut engine);
    engine.close();
    assert_eq!(disk.list().unwrap(), ["0000000000000001-0000.seg"]);
    let segment = content(&disk, "0000000000000001-0000.seg");
    assert_eq!(segment.len(), 1 << 20);

    let mut at = 0;
    let mut next = |len: usize| {
        at += len;
        &segment[at - len..at]
    };
    let is_zero = |bytes: &[u8]| bytes.iter().all(|byte| *byte == 0);
    let header = next(256);
    check("segment-header", header);
    assert!(is_zero(next(2048 - 256)));
    assert!(next(256) == header, "the second copy");
    assert!(is_zero(next(2048 - 256)));
    check("first-batch", next(documented("first-batch").len()));
    check("second-batch", next(documented("second-batch").len()));
    check("close-mark", next(96));
    assert!(is_zero(&segment[at..]), "nothing but zeros follows");
}

#[test]
fn golden_footer() {
    let disk = MemoryStorage::new();
    let (store, mut engine) = open(&disk);
    say(&store, &mut engine);
    drop((store, engine));
    // Killed: the next leader seals the segment where its proven part ends.
    let (_store, mut engine) = open(&disk);
    engine.keep_house();
    let names = [
        "0000000000000001-0000.idx",
        "0000000000000001-0000.seg",
        "0000000000000002-0000.seg",
    ];
    assert_eq!(disk.list().unwrap(), names);
    check("footer", &content(&disk, names[0]));
}

#[test]
fn every_segment_names_the_rooms_whose_messages_it_holds() {
    let disk = MemoryStorage::new();
    let (store, mut engine) = open(&disk);
    let mut ann = Talker::new("ann", 0x11);
    for n in 0..12 {
        ann.send(&*store, ["lobby", "kitchen"][n % 2], &[&[0; 400_000]]);
        engine.step();
    }
    engine.close();
    let names = disk.list().unwrap();
    assert!(names.len() > 2, "{names:?}");
    for name in names {
        let segment = content(&disk, &name);
        for room in ["lobby", "kitchen"] {
            let is_named = segment.windows(room.len()).any(|at| at == room.as_bytes());
            assert!(is_named, "{name} does not name {room}");
        }
    }
}

#[test]
fn golden_in_doubt() {
    let disk = MemoryStorage::new();
    let (store, mut engine) = open(&disk);
    say(&store, &mut engine);
    drop((store, engine));
    // One bit of the producer run is rotten; the message behind it is not.
    let run = documented("first-batch");
    // The room's record names her first.
    let sender = run.windows(5).position(|at| at == b"\x03ann\x11").unwrap() as u64;
    let file = disk.open("0000000000000001-0000.seg").unwrap();
    file.write_at(4096 + sender + 1, b"A").unwrap();
    let (store, mut engine) = open(&disk);
    let mut ann = Talker::new("ann", 0x11);
    ann.send(&*store, "lobby", &[b"another"]);
    engine.step();
    let name = disk.list().unwrap().pop().unwrap();
    let segment = content(&disk, &name);
    let kind = [11, 0, 0, 0, 0, 0, 0, 0];
    let at = segment.windows(8).position(|at| at == kind).unwrap() - 4;
    let length = usize::from(segment[at + 12]) + 16;
    check("in-doubt", &segment[at..at + length]);
}
