//! Mistakes that the suite has found, each told again by itself.

use std::sync::Arc;
use std::time::Duration;

use broker_core::clock::{ManualClock, SeededRandom};
use broker_core::log::storage::{FileStorage, MemoryStorage, Storage, StorageFile};
use broker_core::store::{
    Append, EmbeddedConfig, EmbeddedStore, Engine, Hint, Mailbox, MemoryStore, Notice, ProducerKey,
    ReadRange, ReadReply, SessionId, SetCursor, Store,
};
use broker_proto::{
    Epoch, ErrorCode, Micros, Position, ProducerId, RoomName, SenderName, Seq, StartAt, StoreId,
};

use crate::talk::{Talker, read_all};

type OnDisk = (Arc<EmbeddedStore<MemoryStorage>>, Engine<MemoryStorage>);

/// Opens a store whose clock is at hand and whose checkpoints are near.
fn open(disk: &MemoryStorage, clock: &ManualClock) -> OnDisk {
    open_with(disk, clock, 4 << 10)
}

fn open_with(disk: &MemoryStorage, clock: &ManualClock, checkpoint_bytes_min: u64) -> OnDisk {
    let mut config = EmbeddedConfig::new(StoreId::new([1; 16]));
    config.clock = Arc::new(clock.clone());
    config.checkpoint_bytes_min = checkpoint_bytes_min;
    config.producer_idle_secs = 60;
    EmbeddedStore::open_manual(Arc::new(disk.clone()), config, &mut |_, _| {}).unwrap()
}

fn in_memory(clock: &ManualClock) -> Arc<MemoryStore> {
    MemoryStore::new(
        1 << 20,
        Arc::new(clock.clone()),
        Box::new(SeededRandom::new(1)),
    )
}

fn lobby() -> RoomName {
    RoomName::parse("lobby").unwrap()
}

fn read(store: &dyn Store, from: StartAt, count_max: u32, hint: Hint) -> ReadReply {
    let range = ReadRange {
        room: lobby(),
        from,
        count_max,
        bytes_max: 1 << 20,
        hint,
    };
    let reply = store.read(range, 1, &Mailbox::new());
    reply.expect("nobody else reads").unwrap()
}

#[test]
fn a_read_of_at_most_no_message_gets_further_all_the_same() {
    let clock = ManualClock::default();
    let memory = in_memory(&clock);
    let (disk, mut engine) = open(&MemoryStorage::new(), &clock);
    let mut ann = Talker::new("ann", 1);
    ann.send(&*memory, "lobby", &[b"one", b"two"]);
    ann.next = 1;
    ann.send(&*disk, "lobby", &[b"one", b"two"]);
    engine.step();
    for store in [&*memory as &dyn Store, &*disk] {
        let reply = read(store, StartAt::START, 0, Hint::default());
        assert_eq!((reply.count, reply.next), (1, Seq::new(2)));
    }
}

#[test]
fn a_watch_fires_when_its_own_seq_is_passed_and_not_before() {
    let clock = ManualClock::default();
    let store = in_memory(&clock);
    let (mut ann, mut bob) = (Talker::new("ann", 1), Talker::new("bob", 1));
    assert!(store.watch(&lobby(), Seq::new(2), 7, &bob.mailbox));
    ann.send(&*store, "lobby", &[b"one", b"two"]);
    assert!(!bob.mailbox.drain(&mut bob.notices), "{:?}", bob.notices);
    ann.send(&*store, "lobby", &[b"three"]);
    bob.mailbox.drain(&mut bob.notices);
    assert!(matches!(bob.notices[..], [Notice::Grown { tag: 7 }]));
}

#[test]
fn a_clock_before_1970_is_taken_as_it_is() {
    let clock = ManualClock::new(Micros::new(-50));
    let memory = in_memory(&clock);
    let (disk, mut engine) = open(&MemoryStorage::new(), &clock);
    for store in [&*memory as &dyn Store, &*disk] {
        let mut ann = Talker::new("ann", 1);
        for time in [-50, -20] {
            clock.step_wall(Micros::new(time));
            ann.send(store, "lobby", &[b"hi"]);
            engine.step();
        }
        let reply = read(store, StartAt::time(Micros::new(-30)), 1, Hint::default());
        assert_eq!(
            reply.next,
            Seq::new(3),
            "the second message is the first that is not older"
        );
        store.rooms("", 1, 1, &ann.mailbox);
        ann.mailbox.drain(&mut ann.notices);
        let Some(Notice::Rooms { result, .. }) = ann.notices.pop() else {
            panic!("{:?}", ann.notices)
        };
        assert_eq!(result.unwrap().rooms[0].last_time, Micros::new(-20));
    }
}

#[test]
fn a_hint_that_leads_too_far_makes_no_message_look_damaged() {
    let (disk, clock) = (MemoryStorage::new(), ManualClock::default());
    let (store, mut engine) = open(&disk, &clock);
    let mut ann = Talker::new("ann", 1);
    for _ in 0..5 {
        ann.send(&*store, "lobby", &[b"hi"]);
        engine.step();
    }
    engine.close();
    // Reopened, so that nothing is answered from memory.
    let (store, _engine) = open(&disk, &clock);
    let behind_four = read(&*store, StartAt::START, 4, Hint::default()).hint;
    for hint in [
        behind_four,
        Hint(behind_four.0 - 8),
        Hint(u64::MAX),
        Hint(1),
    ] {
        let reply = read(&*store, StartAt::START, 9, hint);
        assert_eq!((reply.skip, reply.count), (None, 5), "{hint:?}");
    }
    assert_eq!(store.info().damaged, 0);
}

#[test]
fn a_cursor_is_found_in_the_batch_that_makes_its_room() {
    let (store, mut engine) = open(&MemoryStorage::new(), &ManualClock::default());
    let mut ann = Talker::new("ann", 1);
    let at = Position::new(Epoch::new(5), Seq::FIRST);
    ann.send(&*store, "lobby", &[b"hi"]);
    let set = SetCursor {
        room: lobby(),
        name: "seen".to_owned(),
        to: Some(at),
        expected: None,
        relaxed: false,
    };
    store.set_cursor(set, 1, &ann.mailbox);
    store.cursor(&lobby(), "seen", 2, &ann.mailbox);
    engine.step();
    ann.mailbox.drain(&mut ann.notices);
    let found = ann.notices.iter().filter_map(|notice| match notice {
        Notice::Cursor { tag, result } => Some((*tag, result.clone())),
        _ => None,
    });
    assert_eq!(
        found.collect::<Vec<_>>(),
        [(1, Ok(Some(at))), (2, Ok(Some(at)))]
    );
}

#[test]
fn a_tail_that_was_copied_does_not_hide_older_messages_from_a_search_by_time() {
    let (disk, clock) = (MemoryStorage::new(), ManualClock::default());
    let (store, mut engine) = open(&disk, &clock);
    let mut ann = Talker::new("ann", 1);
    for time in [100, 50, 50] {
        clock.step_wall(Micros::new(time));
        ann.send(&*store, "lobby", &[b"hi"]);
        engine.step();
    }
    // Killed: nothing proves the last batch, so that it is copied into a new segment, where
    // nothing is said of the room before it.
    drop((store, engine));
    for _ in 0..2 {
        let (store, engine) = open(&disk, &clock);
        for (time, seq) in [(40, 1), (50, 1), (100, 1), (101, 4)] {
            let reply = read(
                &*store,
                StartAt::time(Micros::new(time)),
                1,
                Hint::default(),
            );
            assert_eq!(
                reply.next.get() - u64::from(reply.count),
                seq,
                "time {time}"
            );
        }
        drop((store, engine));
    }
}

#[test]
fn a_producer_that_was_forgotten_by_age_begins_anew_also_after_a_restart() {
    let (disk, clock) = (MemoryStorage::new(), ManualClock::default());
    let (store, mut engine) = open(&disk, &clock);
    let (mut ann, mut bob) = (Talker::new("ann", 1), Talker::new("bob", 1));
    ann.send(&*store, "lobby", &[b"one", b"two", b"three"]);
    engine.step();
    clock.advance(Duration::from_secs(100));
    // Enough for a checkpoint, with which idle producers are forgotten.
    bob.send(&*store, "lobby", &[&[0; 5000]]);
    while engine.step() {}
    ann.acks();
    ann.next = 1;
    ann.send(&*store, "lobby", &[b"anew"]);
    engine.step();
    let anew = ann.acks();
    assert_eq!(anew[0].first_seq, Seq::new(5));
    drop((store, engine));

    let (store, mut engine) = open(&disk, &clock);
    ann.next = 1;
    ann.send(&*store, "lobby", &[b"anew", b"and more"]);
    engine.step();
    let again = ann.acks();
    assert_eq!(again[0], anew[0], "the retry gets its own seq");
    assert_eq!(
        (again[1].first_number, again[1].first_seq),
        (2, Seq::new(6))
    );
    let all = read_all(&*store, "lobby", StartAt::seq(Seq::new(6)), 1 << 20).unwrap();
    assert_eq!(
        all,
        [(6, b"and more".to_vec())],
        "and what is new is stored"
    );
}

#[test]
fn holes_of_strangers_do_not_grow_beyond_the_limit_of_producers() {
    let store = in_memory(&ManualClock::default());
    let key = |number: u32| {
        let mut producer = [0; 16];
        producer[..4].copy_from_slice(&number.to_le_bytes());
        ProducerKey {
            sender: SenderName::parse("ann").unwrap(),
            producer: ProducerId::new(producer),
        }
    };
    for number in 0..262_145 {
        store.hole(&key(number), SessionId(1), 1, 1);
    }
    let mut ann = Talker::new("ann", 1);
    for (number, is_known) in [(262_143, true), (262_144, false)] {
        ann.key = key(number);
        let mut append = ann.append("lobby", 2, &[b"hi"]);
        append.claimed = false;
        store.append(append, &ann.mailbox).unwrap();
        ann.mailbox.drain(&mut ann.notices);
        match ann.notices.pop() {
            Some(Notice::Acked { .. }) => assert!(is_known),
            Some(Notice::Refused { code, .. }) => {
                assert_eq!((code, is_known), (ErrorCode::OUTCOME_UNKNOWN, false));
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_flood_of_cursor_moves_is_split_into_batches_that_can_be_read_back() {
    let (disk, clock) = (MemoryStorage::new(), ManualClock::default());
    let (store, mut engine) = open_with(&disk, &clock, 64 << 20);
    let mut ann = Talker::new("ann", 1);
    ann.send(&*store, "lobby", &[b"hi"]);
    let at = Position::new(Epoch::new(5), Seq::FIRST);
    let name = |n: u32| format!("{n:0128}");
    // Far more than the largest batch that a reader believes in.
    let count = 200_000;
    for n in 0..count {
        let set = SetCursor {
            room: lobby(),
            name: name(n),
            to: Some(at),
            expected: None,
            relaxed: false,
        };
        store.set_cursor(set, u64::from(n), &ann.mailbox);
    }
    while engine.step() {}
    drop((store, engine));
    let (store, mut engine) = open_with(&disk, &clock, 64 << 20);
    assert_eq!(store.info().damaged, 0);
    ann.mailbox.drain(&mut ann.notices);
    ann.notices.clear();
    for n in [0, count / 2, count - 1] {
        store.cursor(&lobby(), &name(n), u64::from(n), &ann.mailbox);
    }
    engine.step();
    ann.mailbox.drain(&mut ann.notices);
    assert_eq!(ann.notices.len(), 3);
    for notice in &ann.notices {
        assert!(
            matches!(notice, Notice::Cursor { result: Ok(Some(found)), .. } if *found == at),
            "{notice:?}"
        );
    }
}

#[test]
fn an_append_that_no_batch_could_hold_is_refused_and_the_next_one_is_stored() {
    let clock = ManualClock::default();
    let (store, mut engine) = open(&MemoryStorage::new(), &clock);
    let mut ann = Talker::new("ann", 1);
    // Nothing but heads, and far more of them than a frame may bring.
    let empty: Vec<&[u8]> = vec![b""; 500_000];
    ann.send(&*store, "lobby", &empty);
    ann.send(&*store, "lobby", &[b"small"]);
    engine.step();
    ann.mailbox.drain(&mut ann.notices);
    let too_large = |notice: &Notice| {
        matches!(notice, Notice::Refused { code, count, .. }
            if *code == ErrorCode::TOO_LARGE && *count == 500_000)
    };
    assert!(ann.notices.iter().any(too_large));
    assert_eq!(ann.acks().len(), 1);
    assert_eq!(
        read_all(&*store, "lobby", StartAt::START, 1 << 20).unwrap(),
        [(1, b"small".to_vec())]
    );
}

#[test]
fn a_checkpoint_never_makes_the_next_one_due() {
    let clock = ManualClock::default();
    let (store, mut engine) = open_with(&MemoryStorage::new(), &clock, 1);
    let mut ann = Talker::new("ann", 1);
    ann.send(&*store, "lobby", &[&[7; 5000]]);
    let steps = (0..100).take_while(|_| engine.step()).count();
    assert!(steps < 100, "it goes on for ever");
}

#[test]
fn producers_that_are_forgotten_while_nobody_publishes_do_not_swell_the_next_batch() {
    let clock = ManualClock::default();
    let disk = MemoryStorage::new();
    {
        let (store, mut engine) = open_with(&disk, &clock, 1 << 30);
        // Each comes, has its first message refused by its session, and leaves for good.
        for n in 1..=400_000_u64 {
            let mut id = [0; 16];
            id[..8].copy_from_slice(&n.to_le_bytes());
            let key = ProducerKey {
                sender: SenderName::parse("a-sender-with-a-rather-long-name").unwrap(),
                producer: ProducerId::new(id),
            };
            store.claim(&key, SessionId(n));
            store.hole(&key, SessionId(n), 1, 1);
            store.release(&key, SessionId(n), true);
            if n % 1000 == 0 {
                while engine.step() {}
            }
        }
        let mut ann = Talker::new("ann", 1);
        ann.send(&*store, "lobby", &[b"one"]);
        while engine.step() {}
        assert_eq!(ann.acks().len(), 1);
    }
    let (store, _engine) = open_with(&disk, &clock, 1 << 30);
    let all = read_all(&*store, "lobby", StartAt::START, 1 << 20);
    assert_eq!(all, Ok(vec![(1, b"one".to_vec())]), "it was acknowledged");
}

#[test]
fn direct_writes_are_shown_also_by_a_store_that_was_empty_when_asked() {
    let dir = tempfile::tempdir().unwrap();
    let storage = Arc::new(FileStorage::open(dir.path()).unwrap());
    let is_direct = storage.create("probe").unwrap().is_direct();
    let config = EmbeddedConfig::new(StoreId::new([1; 16]));
    let (store, mut engine) = EmbeddedStore::open_manual(storage, config, &mut |_, _| {}).unwrap();
    assert!(!store.info().direct_io);
    Talker::new("ann", 1).send(&*store, "lobby", &[b"hi"]);
    engine.step();
    assert_eq!(store.info().direct_io, is_direct);
}

/// What becomes of one append: the seq, or the code and the text.
fn outcome((store, engine): &mut OnDisk, append: Append) -> Result<u64, (ErrorCode, String)> {
    let mailbox = Mailbox::new();
    store.append(append, &mailbox).unwrap();
    engine.step();
    let mut notices = Vec::new();
    mailbox.drain(&mut notices);
    match notices.pop() {
        Some(Notice::Acked { run, .. }) => Ok(run.first_seq.get()),
        Some(Notice::Refused { code, detail, .. }) => Err((code, detail)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn only_what_may_be_sent_again_meets_the_messages_in_doubt() {
    let clock = ManualClock::new(Micros::new(1_000_000_000));
    let disk = MemoryStorage::new();
    let mut store = open_with(&disk, &clock, 1 << 30);
    let mut ann = Talker::new("ann", 1);
    for payload in [b"one", b"two"] {
        ann.send(&*store.0, "lobby", &[payload]);
        store.1.step();
    }
    drop(store);
    // A bit of the first message's producer run, which is the second record that names her: the first is that of the room.
    let file = disk.open("0000000000000001-0000.seg").unwrap();
    let mut segment = vec![0; 8192];
    file.read_at(0, &mut segment).unwrap();
    let names = segment.windows(4).enumerate();
    let mut named = names.filter(|(_, bytes)| bytes == b"\x03ann");
    let (at, _) = named.nth(1).unwrap();
    file.write_at(at as u64 + 1, b"A").unwrap();

    let mut store = open_with(&disk, &clock, 1 << 30);
    assert_eq!(store.0.info().damaged, 1);
    let from = |id: u8, payload: &[u8], resend: bool, claimed: bool| Append {
        resend,
        claimed,
        ..Talker::new("ann", id).append("lobby", 1, &[payload])
    };
    // New ones of a connection's own are stored; so is what nobody is in doubt of.
    assert_eq!(outcome(&mut store, from(2, b"one", false, true)), Ok(3));
    assert_eq!(outcome(&mut store, from(3, b"two", true, true)), Ok(4));
    assert_eq!(outcome(&mut store, from(4, b"six", false, false)), Ok(5));
    let bob = Talker::new("bob", 1).append("lobby", 1, &[b"one"]);
    let bob = Append {
        resend: true,
        ..bob
    };
    assert_eq!(outcome(&mut store, bob), Ok(6));
    // The same again, and under a key, which always may be.
    for (id, resend, claimed) in [(5, true, true), (6, false, false)] {
        let (code, why) = outcome(&mut store, from(id, b"one", resend, claimed)).unwrap_err();
        assert_eq!(code, ErrorCode::OUTCOME_UNKNOWN);
        assert!(why.contains("with seq 1:"), "{why}");
        // Its number is spent, and still in doubt.
        let again = outcome(&mut store, from(id, b"one", resend, claimed));
        assert_eq!(again, Err((code, why)));
    }
    // Nobody sends again what is older than producers are remembered.
    clock.advance(Duration::from_secs(120));
    drop(store);
    let mut store = open_with(&disk, &clock, 1 << 30);
    assert_eq!(outcome(&mut store, from(7, b"one", true, true)), Ok(7));
}
