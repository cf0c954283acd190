//! What a leader leaves to read to the next one.

use std::sync::Arc;

use broker_core::log::storage::MemoryStorage;
use broker_core::store::{EmbeddedConfig, EmbeddedStore, Engine, Store};
use broker_proto::{StartAt, StoreId};

use crate::talk::{Talker, read_all};

fn config() -> EmbeddedConfig {
    EmbeddedConfig::new(StoreId::new([1; 16]))
}

fn open(disk: &MemoryStorage) -> (Arc<EmbeddedStore<MemoryStorage>>, Engine<MemoryStorage>) {
    EmbeddedStore::open_manual(Arc::new(disk.clone()), config(), &mut |_, _| {}).unwrap()
}

#[test]
fn a_leader_that_leaves_leaves_little_to_read() {
    let disk = MemoryStorage::default();
    let payload = vec![7; 100_000];
    let mut ann = Talker::new("ann", 1);
    let (store, mut engine) = open(&disk);
    for _ in 0..100 {
        ann.send(&*store, "lobby", &[&payload]);
        engine.step();
        engine.keep_house();
    }
    let (done, shortened) = std::sync::mpsc::channel();
    store.shorten_replay(move || done.send(()).unwrap());
    while engine.step() {}
    shortened.try_recv().unwrap();
    engine.keep_house();
    engine.close();
    drop((store, engine));
    let mut replayed = u64::MAX;
    let mut progress = |_, total| replayed = total;
    let (store, _engine) =
        EmbeddedStore::open_manual(Arc::new(disk.clone()), config(), &mut progress).unwrap();
    assert!(replayed < 100_000, "{replayed} bytes of log were replayed");
    let all = read_all(&*store, "lobby", StartAt::START, 1 << 20).unwrap();
    assert_eq!(all.len(), 100);
}

/// Opens a store whose checkpoints are worth little log, publishes, and ends in order. Gives the bytes that were replayed, and
/// those that the log grew by when it ended.
fn turn(disk: &MemoryStorage, ann: &mut Talker, payloads: &[(&str, usize)]) -> (u64, u64) {
    let mut config = config();
    config.checkpoint_bytes_min = 64 << 10;
    let mut replayed = 0;
    let mut progress = |_, total| replayed = total;
    let disk = Arc::new(disk.clone());
    let (store, mut engine) = EmbeddedStore::open_manual(disk, config, &mut progress).unwrap();
    for (room, bytes) in payloads {
        ann.send(&*store, room, &[&vec![7; *bytes]]);
        while engine.step() {}
        engine.keep_house();
    }
    let before = store.info().log_bytes;
    engine.close();
    (replayed, store.info().log_bytes - before)
}

#[test]
fn a_leader_that_ends_leaves_little_to_read_and_that_once() {
    let disk = MemoryStorage::default();
    let mut ann = Talker::new("ann", 1);
    let rooms: Vec<String> = (0..2000).map(|n| format!("room-{n}")).collect();
    let rooms: Vec<(&str, usize)> = rooms.iter().map(|room| (room.as_str(), 10)).collect();
    turn(&disk, &mut ann, &rooms);
    let (first, again) = turn(&disk, &mut ann, &[]);
    let checkpoint = 300_000;
    assert!(first < checkpoint, "{first} bytes of log were replayed");
    assert_eq!(again, 0, "the checkpoint was written again");
    // Less than a checkpoint takes is not worth one, also for a leader who has not written one.
    let (_, grown) = turn(&disk, &mut ann, &[("room-1", 20_000); 2]);
    assert_eq!(grown, 0, "a checkpoint was written");
    let (_, grown) = turn(&disk, &mut ann, &[("room-1", 20_000); 9]);
    assert!(grown > 50_000, "none was written, {grown}");
    let (last, _) = turn(&disk, &mut ann, &[]);
    assert!(last < checkpoint, "{last} bytes of log were replayed");
    let (store, _engine) = open(&disk);
    let all = read_all(&*store, "room-1", StartAt::START, 1 << 20).unwrap();
    assert_eq!(all.len(), 12);
}

#[test]
fn a_leader_with_an_heir_who_waits_writes_one_checkpoint() {
    let disk = MemoryStorage::default();
    let mut ann = Talker::new("ann", 1);
    let (store, mut engine) = open(&disk);
    let publish = |engine: &mut Engine<MemoryStorage>, ann: &mut Talker| {
        for _ in 0..60 {
            ann.send(&*store, "lobby", &[&vec![7; 100_000]]);
            engine.step();
            engine.keep_house();
        }
    };
    publish(&mut engine, &mut ann);
    store.shorten_replay(|| {});
    // What is published until nobody is served any more is the heir's to read.
    publish(&mut engine, &mut ann);
    let before = store.info().log_bytes;
    engine.close();
    assert_eq!(store.info().log_bytes, before);
}
