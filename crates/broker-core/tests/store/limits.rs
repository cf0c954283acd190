//! What is said to whom a limit of bytes refuses: which limit it is, how much is used, and whether waiting helps.

use std::time::Duration;

use broker_core::log::storage::Storage;
use broker_proto::{RoomChange, StoreChange, WhenFull};

use crate::scene::Scene;

/// A room with three messages in it, and the bytes of one.
fn with_three(scene: &mut Scene) -> u64 {
    for n in 1..=3 {
        scene.send("lobby", &[&[n; 1000]]);
    }
    scene.room("lobby").bytes / 3
}

fn limit(bytes: u64) -> RoomChange {
    RoomChange {
        bytes_max: Some(Some(bytes)),
        ..RoomChange::default()
    }
}

/// The oldest messages go when there is no more place.
fn trims() -> RoomChange {
    RoomChange {
        when_full: Some(WhenFull::Trim),
        ..RoomChange::default()
    }
}

fn limit_store(scene: &mut Scene, bytes: u64) {
    scene.change_store(StoreChange {
        bytes_max: Some(Some(bytes)),
        ..StoreChange::default()
    });
}

/// In memory, with segments of that size.
fn with_segments(bytes: u64) -> Scene {
    let mut scene = Scene::in_memory();
    scene.segment_bytes = bytes;
    scene.reopen();
    scene
}

#[test]
fn a_room_that_nothing_leaves_does_not_ask_to_try_again() {
    for mut scene in Scene::both() {
        let one = with_three(&mut scene);
        scene.change("lobby", limit(one * 3));
        scene.send("lobby", &[&[4; 1000]]);
        let (detail, retry_after_ms) = scene.refusal();
        assert_eq!(retry_after_ms, 0, "{detail}");
        for part in [
            &format!("{} of at most {} bytes", one * 3, one * 3),
            &format!("{one} more"),
            "broker room trim",
            "broker room set --max-bytes",
        ] {
            assert!(detail.contains(part), "no {part:?} in {detail:?}");
        }
    }
}

#[test]
fn a_limit_of_all_rooms_is_told_as_one() {
    for mut scene in Scene::both() {
        let one = with_three(&mut scene);
        scene.change_store(StoreChange {
            room_bytes_max: Some(Some(one * 3)),
            ..StoreChange::default()
        });
        scene.send("lobby", &[&[4; 1000]]);
        let (detail, _) = scene.refusal();
        assert!(
            detail.contains("broker store set --room-max-bytes"),
            "{detail}"
        );
    }
}

#[test]
fn a_room_that_makes_place_says_when_to_try_again() {
    for mut scene in Scene::both() {
        let one = with_three(&mut scene);
        scene.change(
            "lobby",
            RoomChange {
                // Three take less than 95 % of it, four more than all.
                bytes_max: Some(Some(one * 7 / 2)),
                ..trims()
            },
        );
        scene.send("lobby", &[&[4; 1000]]);
        let (detail, retry_after_ms) = scene.refusal();
        assert!((1..=1000).contains(&retry_after_ms), "{detail}");
        scene.send("lobby", &[&[4; 1000]]);
        assert_eq!(scene.refusals(), []);
        // What never fits is not worth waiting for.
        scene.send("lobby", &[&[5; 5000]]);
        let (detail, retry_after_ms) = scene.refusal();
        assert_eq!(retry_after_ms, 0, "{detail}");
        assert!(
            detail.contains("this takes") && detail.contains("in all"),
            "{detail}"
        );
    }
}

#[test]
fn a_room_whose_messages_expire_says_when_it_is_looked_at() {
    for mut scene in Scene::both() {
        let one = with_three(&mut scene);
        scene.change(
            "lobby",
            RoomChange {
                keep_age: Some(Some(Duration::from_secs(1000))),
                ..limit(one * 3)
            },
        );
        scene.send("lobby", &[&[4; 1000]]);
        assert_eq!(scene.refusal().1, 0, "nothing in it is so old");
        scene.clock.advance(Duration::from_secs(1001));
        scene.talker.send(&*scene.store, "lobby", &[&[4; 1000]]);
        scene.work();
        let refused = scene.refused();
        // In memory it goes at once.
        assert!(
            refused.iter().all(|(_, retry)| *retry == 10_000),
            "{refused:?}"
        );
    }
}

#[test]
fn a_full_store_says_whether_space_is_being_made() {
    let mut scene = with_segments(4 << 10);
    for _ in 0..20 {
        scene.send("lobby", &[&[1; 2000]]);
    }
    let used = scene.store.info().space.log_bytes;
    let max = used + 30_000;
    limit_store(&mut scene, max);
    fill(&mut scene);
    // Nothing may go: waiting does not help.
    scene.look();
    scene.send("lobby", &[&[2; 2000]]);
    let (detail, retry_after_ms) = scene.refusal();
    assert_eq!(retry_after_ms, 0, "{detail}");
    let log_bytes = scene.store.info().space.log_bytes;
    assert!(!detail.contains('\''), "shown escaped: {detail}");
    for part in [
        &format!("{log_bytes} of at most {max} bytes"),
        "broker room trim",
        "broker room rm",
        "broker store set --max-bytes",
    ] {
        assert!(detail.contains(part), "no {part:?} in {detail:?}");
    }
    // With a room that may lose its oldest it does.
    scene.change("lobby", trims());
    scene.look();
    let (mut sent, mut waits) = (0, 0);
    for _ in 0..200 {
        // Without time for anybody to look.
        scene.talker.send(&*scene.store, "lobby", &[&[3; 2000]]);
        scene.step();
        let refused = scene.refused();
        sent += usize::from(refused.is_empty());
        for (detail, retry_after_ms) in refused {
            assert_eq!(retry_after_ms, 1000, "{detail}");
            waits += 1;
            scene.look();
        }
    }
    assert!(
        sent > 50 && waits > 1,
        "{sent} stored, {waits} times refused"
    );
}

#[test]
fn one_that_is_large_for_the_limit_gets_its_place_too() {
    let mut scene = with_segments(4 << 10);
    scene.send("lobby", &[&[1; 2000]]);
    scene.change("lobby", trims());
    let max = 100_000;
    limit_store(&mut scene, max);
    while scene.store.info().space.log_bytes < max / 100 * 90 {
        scene.send("lobby", &[&[2; 2000]]);
    }
    let large = vec![3; 15_000];
    scene.send("lobby", &[&large]);
    assert_eq!(scene.refusal().1, 1000);
    scene.look();
    scene.send("lobby", &[&large]);
    assert_eq!(scene.refusals(), [], "{:?}", scene.store.info().space);
}

/// Publishes until the limit refuses.
fn fill(scene: &mut Scene) {
    for _ in 0..100 {
        scene.send("lobby", &[&[2; 2000]]);
        if !scene.refusals().is_empty() {
            return;
        }
    }
    panic!("the limit is not kept");
}

#[test]
fn a_store_in_memory_has_its_limit_too() {
    let mut scene = Scene::in_memory();
    let one = with_three(&mut scene);
    limit_store(&mut scene, one * 4);
    scene.send("other", &[&[4; 990]]);
    assert_eq!(scene.refusals(), []);
    scene.send("lobby", &[&[5; 1000]]);
    let (detail, retry_after_ms) = scene.refusal();
    assert_eq!(retry_after_ms, 0, "{detail}");
    assert!(scene.trim("lobby", 2).is_ok());
    scene.send("lobby", &[&[5; 1000]]);
    assert_eq!(scene.refusals(), []);
}

#[test]
fn a_store_whose_rooms_may_lose_messages_never_stays_full() {
    // Segments that are large for the limit: what is trimmed first is not yet half of one.
    let mut scene = Scene::on_disk();
    for _ in 0..20 {
        scene.send("lobby", &[&[1; 2000]]);
    }
    scene.change("lobby", trims());
    let max = scene.store.info().space.log_bytes + 30_000;
    limit_store(&mut scene, max);
    let mut stored = 0;
    for _ in 0..300 {
        scene.send("lobby", &[&[2; 2000]]);
        scene.look();
        stored += usize::from(scene.refused().is_empty());
    }
    assert!(stored > 250, "{stored} of 300 are stored");
    let space = scene.store.info().space;
    assert!(space.log_bytes <= max, "{space:?}");
    let left = scene.room("lobby").bytes;
    assert!(left > max / 4, "{left} bytes are left of at most {max}");
}

#[test]
fn what_cannot_be_freed_is_not_trimmed_for_space() {
    // All of the log is in the segment that is being written.
    let mut scene = with_segments(1 << 20);
    limit_store(&mut scene, 60_000);
    scene.send("lobby", &[&[1; 2000]]);
    scene.change("lobby", trims());
    fill(&mut scene);
    for _ in 0..20 {
        scene.look();
    }
    let state = scene.room("lobby");
    assert_eq!(
        state.messages(),
        state.info.head.get(),
        "it lost some in vain"
    );
    scene.send("lobby", &[&[1; 2000]]);
    assert_eq!(scene.refusal().1, 0, "waiting does not help");
}

#[test]
fn segments_are_small_where_the_limit_is() {
    let mut scene = Scene::in_memory();
    scene.segment_bytes = 1 << 20;
    scene.checkpoint_bytes = 1 << 20;
    scene.reopen();
    let payload = vec![1; 100_000];
    // The segment that is being written, and the one that is prepared, are large by then.
    for _ in 0..90 {
        scene.send("lobby", &[&payload]);
    }
    assert!(scene.disk_bytes() > 12 << 20);
    scene.change("lobby", trims());
    let max = 4 << 20;
    limit_store(&mut scene, max);
    let publish = |scene: &mut Scene| {
        scene.send("lobby", &[&payload]);
        scene.look();
        scene.disk_bytes()
    };
    // Until the large ones are gone.
    for _ in 0..100 {
        publish(&mut scene);
    }
    let most = (0..200).map(|_| publish(&mut scene)).max().unwrap();
    let space = scene.store.info().space;
    assert!(space.log_bytes <= max, "{space:?}");
    // The rest of the newest segment, the next one, and one that is written anew.
    assert!(
        most <= max + 3 * max / 4,
        "{most} bytes for a limit of {max}"
    );
    assert!(scene.room("lobby").messages() > 20);
}

#[test]
fn what_never_fits_into_the_store_costs_no_room_its_messages() {
    let mut scene = with_segments(4 << 10);
    for _ in 0..20 {
        scene.send("lobby", &[&[1; 2000]]);
    }
    scene.change("lobby", trims());
    let max = 200_000;
    limit_store(&mut scene, max);
    scene.look();
    let before = scene.room("lobby").messages();
    scene.send("lobby", &[&vec![2; 300_000]]);
    let (detail, retry_after_ms) = scene.refusal();
    assert_eq!(retry_after_ms, 0, "{detail}");
    assert!(
        detail.contains("this takes") && detail.contains("in all"),
        "{detail}"
    );
    scene.look();
    assert_eq!(scene.room("lobby").messages(), before);
}

fn segments(scene: &Scene) -> usize {
    let files = scene.disk.list().unwrap().into_iter();
    files.filter(|name| name.ends_with(".seg")).count()
}

#[test]
fn a_limit_below_what_the_newest_segment_holds_is_reached_too() {
    let mut scene = with_segments(1 << 20);
    scene.checkpoint_bytes = 1 << 20;
    scene.reopen();
    let payload = vec![1; 100_000];
    // What is sealed may not go, and the segment that is being written is large for the limit.
    while segments(&scene) < 3 {
        scene.send("hard", &[&payload]);
    }
    while scene.store.info().space.log_bytes < 11 << 19 {
        scene.send("lobby", &[&payload]);
    }
    assert_eq!(segments(&scene), 3);
    scene.change("lobby", trims());
    let max = 5 << 20;
    assert!(scene.store.info().space.log_bytes > max);
    limit_store(&mut scene, max);
    let mut stored = 0;
    for _ in 0..60 {
        scene.look();
        scene.send("lobby", &[&[2; 2000]]);
        stored += usize::from(scene.refused().is_empty());
    }
    let space = scene.store.info().space;
    assert!(space.log_bytes <= max, "{space:?}");
    assert!(stored > 40, "{stored} of 60 are stored, {space:?}");
}
