//! Cursors that move without anybody waiting for it, and that expire.

use std::time::Duration;

use broker_core::store::{Answer, Ask, ListCursors, Notice, SetCursor};
use broker_proto::{Position, Seq, StoreChange};

use crate::scene::{Scene, name};

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
