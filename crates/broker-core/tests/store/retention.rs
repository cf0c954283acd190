//! What is not kept any more: trims, retention, removed rooms, limits, and the space that follows.

use std::time::Duration;

use broker_core::store::{
    Answer, Ask, ChangeRoom, FindRooms, ListCursors, Notice, SetCursor, StoreError, TrimRoom,
};
use broker_proto::{
    Epoch, ErrorCode, Micros, Position, RoomChange, Seq, SkipReason, StartAt, StoreChange, WhenFull,
};

use crate::talk::Talker;

use crate::scene::{Scene, keep_count, name, up_to};

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
fn space_follows_in_a_store_that_had_no_checkpoint() {
    let mut scene = Scene::in_memory();
    scene.checkpoint_bytes = 1 << 30;
    scene.segment_bytes = 1 << 20;
    scene.reopen();
    let payload = vec![5; 500_000];
    for _ in 0..40 {
        scene.send("big", &[&payload]);
    }
    let before = scene.store.info().space.log_bytes;
    assert!(scene.remove("big").is_ok());
    for _ in 0..4 {
        scene.look();
    }
    let after = scene.store.info().space;
    assert!(after.log_bytes < before / 2, "{before}, {after:?}");
}

#[test]
fn checkpoints_near_the_limit_do_not_call_for_each_other() {
    let mut scene = Scene::on_disk();
    for n in 0..200 {
        scene.send(&format!("room-{n}"), &[&[1; 100]]);
    }
    let used = scene.store.info().space.log_bytes;
    scene.change_store(StoreChange {
        bytes_max: Some(Some(used + 2000)),
        ..StoreChange::default()
    });
    for _ in 0..10 {
        scene.look();
    }
    let before = scene.store.info().space.checkpoint_bytes;
    for _ in 0..50 {
        scene.look();
    }
    let after = scene.store.info().space.checkpoint_bytes;
    assert_eq!(before, after, "nothing was published or trimmed meanwhile");
}

#[test]
fn after_a_trim_so_many_segments_are_looked_at_in_a_second() {
    let mut scene = Scene::in_memory();
    scene.segment_bytes = 4 << 10;
    scene.reopen();
    for n in 0..1000_u16 {
        let payload = [n.to_le_bytes().as_slice(), &[5; 2900]].concat();
        scene.send("lobby", &[&payload]);
    }
    scene.look();
    let files = scene.segment_files();
    assert!(files > 150, "{files}");
    let before = scene.store.info().space.segments_deleted;
    assert!(scene.trim("lobby", 990).is_ok());
    // Without time for more.
    scene.work();
    let deleted = scene.store.info().space.segments_deleted - before;
    assert!((1..=64).contains(&deleted), "{deleted} of {files}");
    for _ in 0..files.div_ceil(64) {
        scene.look();
    }
    assert!(
        scene.segment_files() < 8,
        "{} of {files}",
        scene.segment_files()
    );
    assert_eq!(scene.seqs("lobby"), up_to(990, 1000));
}
