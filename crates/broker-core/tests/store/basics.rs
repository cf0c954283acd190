//! The embedded store on a disk in memory, driven by hand.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Waker};
use std::time::Duration;

use broker_core::clock::Clock;
use broker_core::log::storage::MemoryStorage;
use broker_core::store::{EmbeddedConfig, EmbeddedStore, Engine, Notice, Store, StoreError};
use broker_proto::{ErrorCode, Micros, Position, Seq, StartAt, StoreId};

use crate::talk::{Talker, read_all};

fn open(disk: &MemoryStorage) -> (Arc<EmbeddedStore<MemoryStorage>>, Engine<MemoryStorage>) {
    let config = EmbeddedConfig::new(StoreId::new([1; 16]));
    EmbeddedStore::open_manual(Arc::new(disk.clone()), config, &mut |_, _| {}).unwrap()
}

#[test]
fn nothing_is_acknowledged_or_shown_before_the_step() {
    let (store, mut engine) = open(&MemoryStorage::default());
    let mut ann = Talker::new("ann", 1);
    ann.send(&*store, "lobby", &[b"hi", b"there"]);
    assert!(ann.acks().is_empty());
    assert!(read_all(&*store, "lobby", StartAt::START, 1 << 20).is_err());
    assert!(engine.step());
    let acks = ann.acks();
    assert_eq!((acks[0].first_seq, acks[0].count), (Seq::FIRST, 2));
    let all = read_all(&*store, "lobby", StartAt::START, 1 << 20).unwrap();
    assert_eq!(all, [(1, b"hi".to_vec()), (2, b"there".to_vec())]);
}

#[test]
fn everything_is_there_after_a_restart_however_it_ended() {
    for close in [true, false] {
        let disk = MemoryStorage::default();
        let mut expected = Vec::new();
        let mut ann = Talker::new("ann", 1);
        for round in 0..20_u64 {
            let (store, mut engine) = open(&disk);
            for n in 0..50_u64 {
                let text = format!("round {round} message {n}")
                    .repeat(1 + usize::try_from(n).unwrap() * 5);
                ann.send(
                    &*store,
                    if n % 3 == 0 { "even" } else { "lobby" },
                    &[text.as_bytes()],
                );
                if n % 3 != 0 {
                    expected.push((expected.len() as u64 + 1, text.into_bytes()));
                }
                if n % 7 == 0 {
                    engine.step();
                }
            }
            while engine.step() {}
            engine.keep_house();
            assert_eq!(
                ann.acks().iter().map(|run| run.count).sum::<u32>(),
                50,
                "round {round}"
            );
            if close {
                engine.close();
            }
        }
        let (store, _engine) = open(&disk);
        assert_eq!(store.info().damaged, 0);
        for bytes in [1, 1000, 1 << 20] {
            assert_eq!(
                read_all(&*store, "lobby", StartAt::START, bytes).unwrap(),
                expected,
                "close {close} bytes {bytes}"
            );
        }
        let last = read_all(&*store, "lobby", StartAt::last(3), 1 << 20).unwrap();
        assert_eq!(last, expected[expected.len() - 3..]);
    }
}

#[test]
fn a_retry_gets_its_seq_also_after_a_restart() {
    let disk = MemoryStorage::default();
    let mut ann = Talker::new("ann", 1);
    let (store, mut engine) = open(&disk);
    ann.send(&*store, "lobby", &[b"one", b"two", b"three"]);
    engine.step();
    let first = ann.acks();
    drop((store, engine));
    let (store, mut engine) = open(&disk);
    store
        .append(
            ann.append("lobby", 1, &[b"one", b"two", b"three"]),
            &ann.mailbox,
        )
        .unwrap();
    store
        .append(ann.append("lobby", 3, &[b"three", b"four"]), &ann.mailbox)
        .unwrap();
    engine.step();
    let again = ann.acks();
    assert_eq!(again[0], first[0]);
    assert_eq!(
        (again[1].first_number, again[1].count, again[1].first_seq),
        (3, 1, Seq::new(3))
    );
    assert_eq!(
        (again[2].first_number, again[2].count, again[2].first_seq),
        (4, 1, Seq::new(4))
    );
    assert_eq!(
        read_all(&*store, "lobby", StartAt::START, 1 << 20)
            .unwrap()
            .len(),
        4
    );
}

#[test]
fn an_unknown_producer_in_the_middle_is_told_that_nobody_knows() {
    let (store, mut engine) = open(&MemoryStorage::default());
    let mut ann = Talker::new("ann", 1);
    store
        .append(ann.append("lobby", 7, &[b"seven"]), &ann.mailbox)
        .unwrap();
    engine.step();
    ann.mailbox.drain(&mut ann.notices);
    let refused = ann.notices.iter().any(|notice| matches!(notice, Notice::Refused { code, .. } if *code == ErrorCode::OUTCOME_UNKNOWN));
    assert!(refused, "{:?}", ann.notices);
}

#[test]
fn a_lone_message_is_stored_by_whoever_settles_it_and_all_else_by_the_writer() {
    let disk = MemoryStorage::default();
    let mut config = EmbeddedConfig::new(StoreId::new([1; 16]));
    config.lone_min = 0;
    let store = EmbeddedStore::open(Arc::new(disk.clone()), config, &mut |_, _| {}).unwrap();
    let mut settling = store.settle().unwrap();
    let mut context = Context::from_waker(Waker::noop());
    let mut ann = Talker::new("ann", 1);
    // The first one is the thread's: it has to mark the log's end some time after.
    ann.send(&*store, "lobby", &[b"first"]);
    while ann.acks().is_empty() {
        assert!(settling.as_mut().poll(&mut context).is_pending());
        std::thread::yield_now();
    }
    // The thread may be busy still, and then takes one.
    let mut settled = 0;
    for _ in 0..1000 {
        assert!(settling.as_mut().poll(&mut context).is_pending());
        ann.send(&*store, "lobby", &[b"alone"]);
        assert!(settling.as_mut().poll(&mut context).is_pending());
        let mut acks = ann.acks().len();
        settled += acks;
        while acks == 0 {
            std::thread::yield_now();
            acks = ann.acks().len();
        }
    }
    assert!(settled > 500, "only {settled}");
    // The writer's thread need not be told of these, and is woken for them.
    ann.send(&*store, "lobby", &[b"two", b"together"]);
    while ann.acks().is_empty() {
        std::thread::yield_now();
    }
    // What is left behind is stored all the same.
    assert!(settling.as_mut().poll(&mut context).is_pending());
    ann.send(&*store, "lobby", &[b"last"]);
    drop(settling);
    store.close();
    assert_eq!(ann.acks().len(), 1);
}

/// A clock that panics once, when that is wanted, and counts.
#[derive(Debug, Default)]
struct Trap {
    armed: AtomicBool,
    sprung: AtomicBool,
    asked_after: AtomicU64,
}

impl Clock for Trap {
    fn now(&self) -> Micros {
        if self.sprung.load(Ordering::SeqCst) {
            self.asked_after.fetch_add(1, Ordering::SeqCst);
        }
        if self.armed.swap(false, Ordering::SeqCst) {
            self.sprung.store(true, Ordering::SeqCst);
            panic!("the trap");
        }
        Micros::new(1)
    }

    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }
}

#[test]
fn after_a_panic_of_whoever_settles_nothing_more_is_written() {
    let disk = MemoryStorage::default();
    let clock = Arc::<Trap>::default();
    let mut config = EmbeddedConfig::new(StoreId::new([1; 16]));
    config.lone_min = 0;
    config.scrub_every = None;
    config.clock = Arc::clone(&clock) as Arc<dyn Clock>;
    let store = EmbeddedStore::open(Arc::new(disk.clone()), config, &mut |_, _| {}).unwrap();
    let mut settling = store.settle().unwrap();
    let mut context = Context::from_waker(Waker::noop());
    let mut ann = Talker::new("ann", 1);
    // Until one is settled here: the thread has gone to sleep then.
    let mut stored = 0;
    let mut is_settled = false;
    while !is_settled {
        assert!(settling.as_mut().poll(&mut context).is_pending());
        ann.send(&*store, "lobby", &[b"whole"]);
        stored += 1;
        assert!(settling.as_mut().poll(&mut context).is_pending());
        is_settled = !ann.acks().is_empty();
        while !is_settled && ann.acks().is_empty() {
            std::thread::yield_now();
        }
    }
    clock.armed.store(true, Ordering::SeqCst);
    ann.send(&*store, "lobby", &[b"never"]);
    let poll = AssertUnwindSafe(|| settling.as_mut().poll(&mut context).is_pending());
    // Should the thread be busy still, it falls into the trap, and the same holds.
    let _caught = catch_unwind(poll);
    while store.info().read_only.is_none() {
        std::thread::yield_now();
    }
    drop(settling);
    store.close();
    assert_eq!(clock.asked_after.load(Ordering::SeqCst), 0, "it went on");
    assert!(ann.acks().is_empty());
    let (store, _engine) = open(&disk);
    let all = read_all(&*store, "lobby", StartAt::START, 1 << 20).unwrap();
    assert_eq!(all.len(), stored, "what was not acknowledged is not there");
}

#[test]
fn a_store_with_threads_stores_and_closes() {
    let disk = MemoryStorage::default();
    let config = EmbeddedConfig::new(StoreId::new([1; 16]));
    let store = EmbeddedStore::open(Arc::new(disk.clone()), config, &mut |_, _| {}).unwrap();
    let mut ann = Talker::new("ann", 1);
    for n in 0..1000 {
        ann.send(&*store, "lobby", &[format!("{n}").as_bytes()]);
    }
    store.close();
    assert_eq!(ann.acks().iter().map(|run| run.count).sum::<u32>(), 1000);
    let (store, _engine) = open(&disk);
    assert_eq!(
        read_all(&*store, "lobby", StartAt::START, 500)
            .unwrap()
            .len(),
        1000
    );
}

#[test]
fn many_segments_and_checkpoints_are_recovered() {
    let disk = MemoryStorage::default();
    let big = vec![7; 40_000];
    let mut ann = Talker::new("ann", 1);
    for round in 0..4 {
        let mut config = EmbeddedConfig::new(StoreId::new([1; 16]));
        config.checkpoint_bytes_min = 1 << 20;
        let (store, mut engine) =
            EmbeddedStore::open_manual(Arc::new(disk.clone()), config, &mut |_, _| {}).unwrap();
        for n in 0..200_u32 {
            ann.send(&*store, &format!("room-{}", n % 10), &[&big]);
            engine.step();
            engine.keep_house();
        }
        while engine.step() {}
        assert_eq!(ann.acks().len(), 200);
        assert!(store.info().segments > round * 2);
    }
    let (store, _engine) = open(&disk);
    assert_eq!((store.info().damaged, store.info().rooms), (0, 10));
    for room in 0..10 {
        let all = read_all(&*store, &format!("room-{room}"), StartAt::START, 1 << 20).unwrap();
        assert_eq!(all.len(), 80);
        assert!(
            all.iter()
                .enumerate()
                .all(|(at, (seq, bytes))| *seq == at as u64 + 1 && *bytes == big)
        );
    }
}

#[test]
fn leaders_killed_one_after_the_other_do_not_leave_ever_more_to_replay() {
    let disk = MemoryStorage::default();
    let payload = vec![7; 10_000];
    let mut ann = Talker::new("ann", 1);
    let mut most = 0;
    for _ in 0..40 {
        let config = EmbeddedConfig::new(StoreId::new([1; 16]));
        let mut replayed = 0;
        let mut progress = |_, total| replayed = total;
        let (store, mut engine) =
            EmbeddedStore::open_manual(Arc::new(disk.clone()), config, &mut progress).unwrap();
        most = most.max(replayed);
        // A batch after a checkpoint is what names it to the next leader.
        for _ in 0..2 {
            ann.send(&*store, "lobby", &[&payload]);
            while engine.step() {}
        }
        assert_eq!(ann.acks().len(), 2);
        // Nobody closes it.
        drop((store, engine));
    }
    assert!(most < 400_000, "{most} bytes of log were replayed");
}

#[test]
fn a_copy_gets_new_epochs_and_keeps_the_positions_up_to_the_copy() {
    let disk = MemoryStorage::default();
    let mut ann = Talker::new("ann", 1);
    let (store, mut engine) = open(&disk);
    ann.send(&*store, "lobby", &[b"one", b"two"]);
    engine.step();
    let epoch = ann.acks()[0].epoch;
    drop((store, engine));
    // Copied twice before anybody published: the epoch that clients know is still the parent.
    for id in [2, 3] {
        let mut config = EmbeddedConfig::new(StoreId::new([id; 16]));
        config.log = StoreId::new([1; 16]);
        config.renew_epochs = true;
        drop(EmbeddedStore::open_manual(Arc::new(disk.clone()), config, &mut |_, _| {}).unwrap());
    }
    let (store, mut engine) = open(&disk);
    ann.send(&*store, "lobby", &[b"three"]);
    engine.step();
    let ack = ann.acks().remove(0);
    assert_ne!(ack.epoch, epoch);
    assert_eq!(ack.first_seq, Seq::new(3));
    let at = |epoch, seq| StartAt::position(Position::new(epoch, Seq::new(seq)));
    assert_eq!(
        read_all(&*store, "lobby", at(epoch, 3), 1 << 20)
            .unwrap()
            .len(),
        1
    );
    let lost = read_all(&*store, "lobby", at(epoch, 4), 1 << 20).unwrap_err();
    assert!(matches!(lost, StoreError::LostSuffix { .. }), "{lost}");
    assert_eq!(
        read_all(&*store, "lobby", at(ack.epoch, 4), 1 << 20)
            .unwrap()
            .len(),
        0
    );
}

#[test]
fn a_term_is_higher_than_that_of_a_leader_who_wrote_nothing() {
    let disk = MemoryStorage::default();
    let mut config = EmbeddedConfig::new(StoreId::new([1; 16]));
    config.term_floor = 41;
    let (store, _engine) =
        EmbeddedStore::open_manual(Arc::new(disk), config, &mut |_, _| {}).unwrap();
    assert_eq!(store.info().term.get(), 42);
}
