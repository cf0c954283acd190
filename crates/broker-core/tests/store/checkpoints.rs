//! When a checkpoint is due, beside by the bytes of the log.

use crate::scene::Scene;

#[test]
fn very_many_new_rooms_are_worth_a_checkpoint() {
    let mut scene = Scene::in_memory();
    // None is due by the length of the log.
    scene.checkpoint_bytes = 1 << 30;
    scene.segment_bytes = 4 << 20;
    scene.reopen();
    let mut rooms = 0;
    let mut make = |scene: &mut Scene, count: u32| {
        for _ in 0..count {
            rooms += 1;
            let name = format!("room-{rooms}");
            scene.talker.send(&*scene.store, &name, &[b"1"]);
            if rooms % 200 == 0 {
                scene.step();
            }
        }
        scene.step();
    };
    // A record for each room, and one for the numbers of its message.
    make(&mut scene, 10_000);
    assert_eq!(scene.store.info().space.checkpoint_bytes, 0);
    make(&mut scene, 3000);
    let info = scene.store.info();
    let one = info.space.checkpoint_bytes;
    assert!(one > 10 * info.rooms, "{:?}", info.space);
    // And as many again.
    make(&mut scene, 9000);
    assert_eq!(scene.store.info().space.checkpoint_bytes, one);
    make(&mut scene, 4000);
    assert!(scene.store.info().space.checkpoint_bytes > 2 * one);
    scene.restart(false);
    assert_eq!(scene.store.info().rooms, 26_000);
    assert_eq!(scene.seqs("room-26000"), [1]);
}

#[test]
fn very_many_small_publishes_into_known_rooms_are_not() {
    let mut scene = Scene::in_memory();
    scene.checkpoint_bytes = 1 << 30;
    scene.reopen();
    for n in 0..30_000_u32 {
        // Each has a record of its own, of the numbers of its messages.
        let name = format!("room-{}", n % 200);
        scene.talker.send(&*scene.store, &name, &[b"1"]);
        if n % 200 == 0 {
            scene.step();
        }
    }
    scene.step();
    assert_eq!(scene.store.info().space.checkpoint_bytes, 0);
    scene.restart(false);
    assert_eq!(scene.seqs("room-199").len(), 150);
}
