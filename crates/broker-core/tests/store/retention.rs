//! What is not kept any more: trims, retention, removed rooms, limits, and the space that follows.

use std::sync::Arc;
use std::time::Duration;

use broker_core::clock::{ManualClock, SeededRandom};
use broker_core::log::storage::{MemoryStorage, Storage};
use broker_core::store::{
    Answer, Ask, ChangeRoom, ChangeStore, EmbeddedConfig, EmbeddedStore, Engine, FindRooms, Hint,
    ListCursors, MemoryStore, Notice, ReadRange, ReadReply, RemoveRoom, RoomState, SetCursor,
    Store, StoreError, TrimRoom,
};
use broker_proto::{
    Epoch, ErrorCode, Micros, Position, RoomChange, RoomName, Seq, SkipReason, StartAt,
    StoreChange, StoreId, WhenFull,
};

use crate::talk::Talker;

/// A store, with what drives it if it lies on a disk.
struct Scene {
    disk: MemoryStorage,
    clock: ManualClock,
    store: Arc<dyn Store>,
    engine: Option<Engine<MemoryStorage>>,
    opened: u64,
    talker: Talker,
    /// Small ones, so that much happens.
    segment_bytes: u64,
}

impl Scene {
    fn on_disk() -> Self {
        let mut scene = Self::in_memory();
        scene.reopen();
        scene
    }

    fn in_memory() -> Self {
        let clock = ManualClock::new(Micros::new(1_000_000_000));
        let random = Box::new(SeededRandom::new(1));
        Self {
            disk: MemoryStorage::new(),
            store: MemoryStore::new(1 << 20, Arc::new(clock.clone()), random),
            engine: None,
            clock,
            opened: 0,
            talker: Talker::new("ann", 1),
            segment_bytes: 16 << 10,
        }
    }

    fn both() -> [Self; 2] {
        [Self::in_memory(), Self::on_disk()]
    }

    /// A new leader, after the one before was killed.
    fn reopen(&mut self) {
        self.engine = None;
        self.opened += 1;
        let mut config = EmbeddedConfig::new(StoreId::new([1; 16]));
        config.clock = Arc::new(self.clock.clone());
        config.random = Box::new(SeededRandom::new(self.opened));
        config.checkpoint_bytes_min = 8 << 10;
        config.segment_bytes_min = self.segment_bytes;
        config.segment_bytes_max = self.segment_bytes * 4;
        config.tail_bytes_max = 0;
        let disk = Arc::new(self.disk.clone());
        let (store, engine) = EmbeddedStore::open_manual(disk, config, &mut |_, _| {}).unwrap();
        self.store = store;
        self.engine = Some(engine);
    }

    /// Restarts it if it lies on a disk, in order or not.
    fn restart(&mut self, in_order: bool) {
        if let Some(engine) = &mut self.engine {
            if in_order {
                engine.close();
            }
            self.reopen();
        }
    }

    fn work(&mut self) {
        if let Some(engine) = &mut self.engine {
            loop {
                while engine.step() {}
                engine.keep_house();
                if !engine.keep() && !engine.step() {
                    break;
                }
            }
        }
    }

    /// As time passes, so that everything is looked at again.
    fn look(&mut self) {
        self.clock.advance(Duration::from_secs(2));
        self.work();
    }

    fn send(&mut self, room: &str, payloads: &[&[u8]]) {
        self.talker.send(&*self.store, room, payloads);
        self.work();
    }

    fn ask(&mut self, ask: Ask) -> Result<Answer, StoreError> {
        let mailbox = broker_core::store::Mailbox::new();
        self.store.ask(ask, 7, &mailbox);
        self.work();
        let mut notices = Vec::new();
        mailbox.drain(&mut notices);
        match notices.pop() {
            Some(Notice::Answer { tag: 7, result }) if notices.is_empty() => result,
            other => panic!("{other:?}, {notices:?}"),
        }
    }

    fn room(&mut self, room: &str) -> RoomState {
        match self.ask(Ask::Room(name(room))).unwrap() {
            Answer::Room(state) => *state,
            other => panic!("{other:?}"),
        }
    }

    fn change(&mut self, room: &str, change: RoomChange) -> RoomState {
        let change = ChangeRoom {
            room: name(room),
            expected: None,
            change,
        };
        match self.ask(Ask::ChangeRoom(change)).unwrap() {
            Answer::Room(state) => *state,
            other => panic!("{other:?}"),
        }
    }

    fn change_store(&mut self, change: StoreChange) {
        let change = ChangeStore {
            expected: None,
            change,
        };
        assert!(matches!(
            self.ask(Ask::ChangeStore(change)),
            Ok(Answer::Store(_))
        ));
    }

    fn trim(&mut self, room: &str, before: u64) -> Result<Answer, StoreError> {
        self.ask(Ask::Trim(TrimRoom {
            room: name(room),
            epoch: Epoch::new(0),
            before: Seq::new(before),
        }))
    }

    fn remove(&mut self, room: &str) -> Result<Answer, StoreError> {
        self.ask(Ask::Remove(RemoveRoom {
            room: name(room),
            epoch: Epoch::new(0),
        }))
    }

    fn read(&self, room: &str, from: StartAt) -> Result<ReadReply, StoreError> {
        let range = ReadRange {
            room: name(room),
            from,
            count_max: 1000,
            bytes_max: 1 << 20,
            hint: Hint::default(),
        };
        let reply = self
            .store
            .read(range, 1, &broker_core::store::Mailbox::new());
        reply.unwrap()
    }

    /// The seqs that a reader gets who asks for all.
    fn seqs(&self, room: &str) -> Vec<u64> {
        let mut seqs = Vec::new();
        let mut from = StartAt::START;
        loop {
            let reply = self.read(room, from).unwrap();
            assert!(reply.skip.is_none(), "{:?}", reply.skip);
            seqs.extend(
                (0..u64::from(reply.count)).map(|n| reply.next.get() - u64::from(reply.count) + n),
            );
            if reply.next > reply.head {
                return seqs;
            }
            from = StartAt::seq(reply.next);
        }
    }

    fn refusals(&mut self) -> Vec<ErrorCode> {
        let mut notices = Vec::new();
        self.talker.mailbox.drain(&mut notices);
        notices
            .iter()
            .filter_map(|notice| match notice {
                Notice::Refused { code, .. } => Some(*code),
                _ => None,
            })
            .collect()
    }

    fn segment_files(&self) -> usize {
        let files = self.disk.list().unwrap();
        files.iter().filter(|file| file.ends_with(".seg")).count()
    }
}

fn name(room: &str) -> RoomName {
    RoomName::parse(room).unwrap()
}

fn keep_count(count: u64) -> RoomChange {
    RoomChange {
        keep_count: Some(Some(count)),
        ..RoomChange::default()
    }
}

fn up_to(first: u64, last: u64) -> Vec<u64> {
    (first..=last).collect()
}

#[test]
fn a_trim_is_exact_and_for_good() {
    for mut scene in Scene::both() {
        for n in 0..10_u8 {
            scene.send("lobby", &[&[n; 100]]);
        }
        let all = scene.room("lobby");
        assert_eq!((all.messages(), all.info.first), (10, Seq::FIRST));
        let Ok(Answer::Room(state)) = scene.trim("lobby", 4) else {
            panic!("it cannot be trimmed");
        };
        assert_eq!((state.info.first, state.messages()), (Seq::new(4), 7));
        assert_eq!(state.bytes, all.bytes / 10 * 7);
        // Backwards is no change.
        assert!(scene.trim("lobby", 2).is_ok());
        for in_order in [true, false] {
            assert_eq!(scene.seqs("lobby"), up_to(4, 10));
            let reply = scene.read("lobby", StartAt::seq(Seq::FIRST)).unwrap();
            let skip = reply.skip.unwrap();
            assert_eq!((skip.from, skip.to), (Seq::FIRST, Seq::new(3)));
            assert_eq!(
                (skip.reason, reply.next),
                (SkipReason::TRIMMED, Seq::new(4))
            );
            assert_eq!(scene.room("lobby"), *state);
            scene.restart(in_order);
        }
        assert!(matches!(
            scene.trim("lobby", 12),
            Err(StoreError::BadPosition { .. })
        ));
        assert!(scene.trim("lobby", 11).is_ok());
        assert_eq!(scene.seqs("lobby"), Vec::<u64>::new());
        let empty = scene.room("lobby");
        assert_eq!((empty.messages(), empty.bytes), (0, 0));
        scene.restart(false);
        scene.send("lobby", &[b"on"]);
        assert_eq!(scene.seqs("lobby"), [11]);
    }
}

#[test]
fn a_trim_asks_for_the_history_that_is_meant() {
    for mut scene in Scene::both() {
        scene.send("lobby", &[b"one"]);
        let epoch = scene.room("lobby").info.epoch;
        let trim = |epoch| {
            Ask::Trim(TrimRoom {
                room: name("lobby"),
                epoch,
                before: Seq::new(2),
            })
        };
        let other = Epoch::new(epoch.get() ^ 1);
        let refused = scene.ask(trim(other));
        assert!(matches!(refused, Err(StoreError::WrongEpoch { .. })));
        assert!(scene.ask(trim(epoch)).is_ok());
        assert!(matches!(
            scene.trim("nowhere", 1),
            Err(StoreError::NoSuchRoom { .. })
        ));
    }
}

#[test]
fn a_room_keeps_so_many_messages_bytes_or_for_so_long() {
    for mut scene in Scene::both() {
        for n in 0..20_u8 {
            scene.clock.advance(Duration::from_secs(10));
            scene.send("lobby", &[&[n; 200]]);
        }
        let one = scene.room("lobby").bytes / 20;
        scene.change("lobby", keep_count(15));
        scene.look();
        assert_eq!(scene.seqs("lobby"), up_to(6, 20));
        scene.change(
            "lobby",
            RoomChange {
                keep_bytes: Some(Some(one * 10 + one / 2)),
                ..RoomChange::default()
            },
        );
        scene.look();
        assert_eq!(scene.seqs("lobby"), up_to(11, 20));
        assert_eq!(scene.room("lobby").bytes, one * 10);
        scene.change(
            "lobby",
            RoomChange {
                keep_age: Some(Some(Duration::from_secs(55))),
                ..RoomChange::default()
            },
        );
        scene.look();
        scene.restart(false);
        assert_eq!(scene.seqs("lobby"), up_to(16, 20));
        // It goes on by itself, and after a restart.
        scene.clock.advance(Duration::from_secs(30));
        scene.send("lobby", &[b"new"]);
        scene.look();
        assert_eq!(scene.seqs("lobby"), up_to(19, 21));
        scene.change("lobby", keep_count(1));
        scene.look();
        scene.send("lobby", &[b"newer"]);
        scene.look();
        assert_eq!(scene.seqs("lobby"), [22]);
    }
}

#[test]
fn the_store_keeps_so_much_of_all_rooms_together() {
    for mut scene in Scene::both() {
        for n in 0..30_u8 {
            scene.clock.advance(Duration::from_secs(1));
            let room = ["a", "b", "c"][usize::from(n) % 3];
            scene.send(room, &[&[n; 100]]);
        }
        scene.change_store(StoreChange {
            keep_count: Some(Some(16)),
            ..StoreChange::default()
        });
        scene.look();
        let left = |room| scene.seqs(room).len();
        assert_eq!((left("a"), left("b"), left("c")), (5, 5, 6));
        let one = scene.room("a").bytes / 5;
        scene.change_store(StoreChange {
            keep_bytes: Some(Some(one * 9)),
            ..StoreChange::default()
        });
        scene.look();
        scene.restart(false);
        scene.look();
        for room in ["a", "b", "c"] {
            assert_eq!(scene.seqs(room), [8, 9, 10], "{room}");
        }
        scene.change_store(StoreChange {
            keep_age: Some(Some(Duration::from_secs(60))),
            ..StoreChange::default()
        });
        scene.clock.advance(Duration::from_secs(100));
        scene.send("a", &[b"young"]);
        scene.look();
        assert_eq!(scene.seqs("a"), [11]);
        assert_eq!(scene.seqs("b"), Vec::<u64>::new());
    }
}

#[test]
fn a_removed_room_is_gone_and_made_again_it_is_another() {
    for mut scene in Scene::both() {
        scene.send("lobby", &[b"one", b"two"]);
        scene.send("other", &[b"stays"]);
        scene.change("lobby", keep_count(5));
        let at = Position::new(scene.room("lobby").info.epoch, Seq::new(2));
        let set = SetCursor {
            room: name("lobby"),
            name: "seen".to_owned(),
            to: Some(at),
            expected: None,
            relaxed: false,
        };
        scene.store.set_cursor(set, 1, &scene.talker.mailbox);
        scene.work();
        let watcher = Talker::new("bob", 2);
        assert!(
            scene
                .store
                .watch(&name("lobby"), Seq::new(2), 9, &watcher.mailbox)
        );
        let Ok(Answer::Room(was)) = scene.remove("lobby") else {
            panic!("it cannot be removed");
        };
        assert_eq!(was.messages(), 2);
        let mut told = Vec::new();
        watcher.mailbox.drain(&mut told);
        assert!(matches!(told.as_slice(), [Notice::Grown { tag: 9 }]));
        for in_order in [false, true] {
            assert!(matches!(
                scene.read("lobby", StartAt::START),
                Err(StoreError::NoSuchRoom { .. })
            ));
            assert!(matches!(
                scene.remove("lobby"),
                Err(StoreError::NoSuchRoom { .. })
            ));
            assert_eq!(scene.store.info().rooms, 1);
            assert_eq!(scene.seqs("other"), [1]);
            scene.restart(in_order);
        }
        // Sent again, it is known to have been stored, though where is gone.
        let again = scene.talker.append("lobby", 1, &[b"one"]);
        scene.refusals();
        scene.store.append(again, &scene.talker.mailbox).unwrap();
        scene.work();
        assert_eq!(scene.refusals(), [ErrorCode::DUPLICATE]);
        scene.send("lobby", &[b"anew"]);
        for in_order in [false, true] {
            let new = scene.room("lobby");
            assert_ne!(new.info.epoch, was.info.epoch);
            assert_eq!((new.version, new.messages()), (0, 1));
            assert_eq!(scene.seqs("lobby"), [1]);
            assert!(matches!(
                scene.read("lobby", StartAt::position(at)),
                Err(StoreError::LostSuffix { .. })
            ));
            let list = ListCursors {
                room: name("lobby"),
                after: String::new(),
                limit: 10,
            };
            match scene.ask(Ask::Cursors(list)) {
                Ok(Answer::Cursors(page)) => assert!(page.cursors.is_empty()),
                other => panic!("{other:?}"),
            }
            scene.restart(in_order);
        }
    }
}

#[test]
fn settings_are_durable_and_changed_by_whoever_knows_them() {
    for mut scene in Scene::both() {
        scene.send("lobby", &[b"one"]);
        scene.clock.advance(Duration::from_secs(1));
        scene.send("other", &[b"one"]);
        let change = RoomChange {
            topic: Some("deploys".to_owned()),
            set_labels: [("team".to_owned(), "red".to_owned())].into(),
            ..RoomChange::default()
        };
        let state = scene.change("lobby", change);
        assert_eq!(
            (state.version, state.settings.topic.as_str()),
            (1, "deploys")
        );
        assert_eq!(state.created, Micros::new(1_000_000_000));
        assert_eq!(state.created_by.as_ref().unwrap().as_str(), "ann");
        let stale = ChangeRoom {
            room: name("lobby"),
            expected: Some(0),
            change: keep_count(1),
        };
        assert!(matches!(
            scene.ask(Ask::ChangeRoom(stale)),
            Err(StoreError::WrongVersion { found: 1, .. })
        ));
        let found = |scene: &mut Scene, labels: &[(&str, Option<&str>)], prefix: &str| {
            let own = |text: &str| text.to_owned();
            let labels = labels
                .iter()
                .map(|(name, value)| (own(name), value.map(own)));
            let wanted = FindRooms {
                limit: 10,
                labels: labels.collect(),
                prefix: prefix.to_owned(),
                ..FindRooms::default()
            };
            match scene.ask(Ask::Find(wanted)).unwrap() {
                Answer::Found(found) => {
                    let names = found.rooms.iter().map(|room| room.info.name.to_string());
                    names.collect::<Vec<_>>()
                }
                other => panic!("{other:?}"),
            }
        };
        // Far enough for several checkpoints.
        for n in 0..40_u8 {
            scene.send("other", &[&[n; 2000]]);
        }
        for in_order in [false, true] {
            assert_eq!(scene.room("lobby"), state);
            assert_eq!(found(&mut scene, &[("team", Some("red"))], ""), ["lobby"]);
            assert_eq!(found(&mut scene, &[("team", Some("blue"))], ""), [""; 0]);
            assert_eq!(found(&mut scene, &[("team", None)], "lo"), ["lobby"]);
            assert_eq!(found(&mut scene, &[], ""), ["lobby", "other"]);
            assert_eq!(found(&mut scene, &[], "ot"), ["other"]);
            scene.restart(in_order);
        }
    }
}

#[test]
fn at_its_limit_a_room_refuses_and_with_less_in_it_it_goes_on() {
    for mut scene in Scene::both() {
        scene.send("lobby", &[&[1; 1000]]);
        let one = scene.room("lobby").bytes;
        scene.change(
            "lobby",
            RoomChange {
                bytes_max: Some(Some(one * 3)),
                ..RoomChange::default()
            },
        );
        for _ in 0..2 {
            scene.send("lobby", &[&[2; 1000]]);
        }
        assert_eq!(scene.refusals(), []);
        scene.send("lobby", &[&[3; 1000]]);
        assert_eq!(scene.refusals(), [ErrorCode::QUOTA]);
        scene.send("other", &[&[3; 1000]]);
        assert_eq!(scene.refusals(), []);
        assert_eq!(scene.seqs("lobby"), [1, 2, 3]);
        scene.restart(false);
        assert!(scene.trim("lobby", 2).is_ok());
        scene.send("lobby", &[&[4; 1000]]);
        assert_eq!(scene.refusals(), []);
        assert_eq!(scene.seqs("lobby"), [2, 3, 4]);
    }
}

#[test]
fn near_its_limit_a_room_that_allows_it_loses_its_oldest_messages() {
    let mut scene = Scene::on_disk();
    scene.send("lobby", &[&[1; 1000]]);
    let one = scene.room("lobby").bytes;
    scene.change(
        "lobby",
        RoomChange {
            bytes_max: Some(Some(one * 20)),
            when_full: Some(WhenFull::Trim),
            ..RoomChange::default()
        },
    );
    for _ in 0..60 {
        scene.send("lobby", &[&[2; 1000]]);
        scene.look();
    }
    assert_eq!(scene.refusals(), []);
    let left = scene.seqs("lobby");
    assert_eq!(left.last(), Some(&61));
    assert!((17..=19).contains(&left.len()), "{left:?}");
}

#[test]
fn a_room_that_may_lose_messages_makes_place_for_one_that_does_not_fit() {
    let mut scene = Scene::on_disk();
    scene.send("lobby", &[&[1; 1000]]);
    let one = scene.room("lobby").bytes;
    scene.change(
        "lobby",
        RoomChange {
            // Three take less than 95 % of it, four more than all.
            bytes_max: Some(Some(one * 7 / 2)),
            when_full: Some(WhenFull::Trim),
            ..RoomChange::default()
        },
    );
    for _ in 0..20 {
        scene.send("lobby", &[&[2; 1000]]);
        let refused = scene.refusals();
        if !refused.is_empty() {
            assert_eq!(refused, [ErrorCode::QUOTA]);
            scene.send("lobby", &[&[2; 1000]]);
            assert_eq!(scene.refusals(), [], "it made no place");
        }
    }
    assert!((2..=3).contains(&scene.seqs("lobby").len()));
}

#[test]
fn space_follows_what_is_not_kept() {
    let mut scene = Scene::on_disk();
    scene.send("keep", &[&[7; 3000]]);
    for n in 0..300_u16 {
        let payload = [n.to_le_bytes().as_slice(), &[5; 1500]].concat();
        scene.send("lobby", &[&payload]);
        if n % 50 == 7 {
            scene.send("keep", &[&[7; 300]]);
        }
    }
    let before = (scene.segment_files(), scene.store.info().space.log_bytes);
    scene.change("lobby", keep_count(20));
    for n in 300..340_u16 {
        let payload = [n.to_le_bytes().as_slice(), &[5; 1500]].concat();
        scene.send("lobby", &[&payload]);
        scene.look();
    }
    let info = scene.store.info();
    assert!(
        info.space.log_bytes < before.1 / 2,
        "{:?}, {before:?}",
        info.space
    );
    assert!(scene.segment_files() < before.0, "{before:?}");
    assert!(info.space.segments_packed > 0, "{:?}", info.space);
    assert_eq!(info.damaged, 0, "{:?}", info.damage);
    for in_order in [true, false] {
        assert_eq!(scene.seqs("lobby"), up_to(321, 340));
        assert_eq!(scene.seqs("keep"), up_to(1, 7));
        scene.restart(in_order);
        assert_eq!(scene.store.info().damaged, 0);
    }
}

#[test]
fn the_front_of_the_log_is_deleted_when_nothing_in_it_is_kept() {
    let mut scene = Scene::on_disk();
    scene.send("lobby", &[b"one"]);
    scene.change("lobby", keep_count(20));
    let mut most = 0;
    for n in 0..400_u16 {
        scene.send(
            "lobby",
            &[&[n.to_le_bytes().as_slice(), &[5; 1500]].concat()],
        );
        scene.look();
        most = most.max(scene.segment_files());
    }
    let space = scene.store.info().space;
    assert!(space.segments_deleted > 5, "{space:?}");
    assert!(most < 20, "{most} files");
    for in_order in [true, false] {
        assert_eq!(scene.seqs("lobby"), up_to(382, 401));
        scene.restart(in_order);
        assert_eq!(scene.store.info().damaged, 0);
    }
}

#[test]
fn a_store_at_its_limit_refuses_and_goes_on_when_there_is_space() {
    let mut scene = Scene::on_disk();
    for _ in 0..20 {
        scene.send("lobby", &[&[1; 2000]]);
    }
    let used = scene.store.info().space.log_bytes;
    scene.change_store(StoreChange {
        bytes_max: Some(Some(used + 30_000)),
        ..StoreChange::default()
    });
    let mut sent = 0;
    while scene.refusals().is_empty() {
        scene.send("lobby", &[&[2; 2000]]);
        sent += 1;
        assert!(sent < 100, "the limit is not kept");
    }
    let full = scene.store.info().space;
    assert!(full.log_bytes <= used + 30_000, "{full:?}");
    assert!(scene.trim("lobby", 30).is_ok());
    for _ in 0..20 {
        scene.look();
    }
    scene.refusals();
    scene.send("lobby", &[&[3; 2000]]);
    assert_eq!(scene.refusals(), [], "{:?}", scene.store.info().space);
}

#[test]
fn relaxed_moves_of_a_cursor_become_one_record() {
    let mut scene = Scene::on_disk();
    scene.send("lobby", &[b"one", b"two"]);
    let epoch = scene.room("lobby").info.epoch;
    let set = |seq: u64, relaxed| SetCursor {
        room: name("lobby"),
        name: "seen".to_owned(),
        to: Some(Position::new(epoch, Seq::new(seq))),
        expected: None,
        relaxed,
    };
    let written = |scene: &Scene| scene.store.info().cursors.written;
    scene.look();
    for n in 0..1000 {
        scene
            .store
            .set_cursor(set(n, true), n, &scene.talker.mailbox);
    }
    scene.work();
    let mut answers = Vec::new();
    scene.talker.mailbox.drain(&mut answers);
    let moved = answers
        .iter()
        .filter(|notice| matches!(notice, Notice::Cursor { result: Ok(_), .. }));
    assert_eq!(moved.count(), 1000);
    let at = |scene: &mut Scene| {
        scene
            .store
            .cursor(&name("lobby"), "seen", 5, &scene.talker.mailbox);
        scene.work();
        let mut answers = Vec::new();
        scene.talker.mailbox.drain(&mut answers);
        match answers.pop() {
            Some(Notice::Cursor {
                result: Ok(Some(at)),
                ..
            }) => at.seq.get(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(at(&mut scene), 999);
    assert!(written(&scene) <= 1);
    scene.look();
    assert!(written(&scene) <= 2, "{}", written(&scene));
    scene.restart(false);
    assert_eq!(at(&mut scene), 999);
    // Closing writes what waits.
    scene
        .store
        .set_cursor(set(5, true), 1, &scene.talker.mailbox);
    scene.work();
    scene.restart(true);
    assert_eq!(at(&mut scene), 5);
    // Whoever waits for a move passes over one that does not.
    scene
        .store
        .set_cursor(set(6, true), 1, &scene.talker.mailbox);
    scene
        .store
        .set_cursor(set(7, false), 1, &scene.talker.mailbox);
    scene.work();
    scene.restart(false);
    assert_eq!(at(&mut scene), 7);
}

#[test]
fn a_hundred_thousand_cursors_that_move_all_the_time_cost_little() {
    let mut scene = Scene::on_disk();
    scene.send("lobby", &[b"one"]);
    let epoch = scene.room("lobby").info.epoch;
    let before = scene.store.info().cursors.written;
    for round in 0..3_u64 {
        for n in 0..100_000_u64 {
            let set = SetCursor {
                room: name("lobby"),
                name: format!("reader-{n}"),
                to: Some(Position::new(epoch, Seq::new(round))),
                expected: None,
                relaxed: true,
            };
            scene.store.set_cursor(set, n, &scene.talker.mailbox);
        }
        scene.clock.advance(Duration::from_secs(1));
        scene.work();
    }
    let info = scene.store.info().cursors;
    assert!(info.written - before <= 3 * 1000, "{info:?}");
    assert!(info.interval_ms >= 90_000, "{info:?}");
}

#[test]
fn an_idle_cursor_is_forgotten_when_that_is_set() {
    let mut scene = Scene::on_disk();
    scene.send("lobby", &[b"one"]);
    let epoch = scene.room("lobby").info.epoch;
    scene.change_store(StoreChange {
        cursor_idle: Some(Some(Duration::from_secs(3600))),
        ..StoreChange::default()
    });
    let set = |cursor: &str| SetCursor {
        room: name("lobby"),
        name: cursor.to_owned(),
        to: Some(Position::new(epoch, Seq::new(1))),
        expected: None,
        relaxed: false,
    };
    scene.store.set_cursor(set("old"), 1, &scene.talker.mailbox);
    scene.work();
    scene.clock.advance(Duration::from_secs(3000));
    scene.store.set_cursor(set("new"), 1, &scene.talker.mailbox);
    scene.work();
    scene.clock.advance(Duration::from_secs(1000));
    // A checkpoint is when it happens.
    for n in 0..40_u8 {
        scene.send("lobby", &[&[n; 2000]]);
    }
    let list = ListCursors {
        room: name("lobby"),
        after: String::new(),
        limit: 10,
    };
    match scene.ask(Ask::Cursors(list)).unwrap() {
        Answer::Cursors(page) => {
            let names: Vec<_> = page
                .cursors
                .iter()
                .map(|cursor| cursor.name.as_str())
                .collect();
            assert_eq!(names, ["new"]);
        }
        other => panic!("{other:?}"),
    }
}
