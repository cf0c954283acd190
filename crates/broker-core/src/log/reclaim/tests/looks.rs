//! After a trim, segments are looked at again as fast as is allowed and no faster.

use super::*;

/// Everything is looked at once, and all of it is wanted.
fn looked_at_once(log: &Log<MemoryStorage>) -> Reclaimer {
    // No two neighbours fit into one.
    let mut reclaimer = Reclaimer::new(SEGMENT_BYTES);
    let all = Kept::from([("hall", 1), ("lobby", 1), ("cellar", 1)]);
    reclaim(log, &all, &mut reclaimer).unwrap();
    assert_eq!(reclaimer.done(), Reclaimed::default());
    reclaimer.allow_looks(0);
    reclaimer
}

fn within_looks(log: &Log<MemoryStorage>, kept: &Kept, reclaimer: &mut Reclaimer) -> Left {
    reclaim_within_looks(log, kept, reclaimer).unwrap()
}

#[test]
fn a_round_takes_as_long_as_its_looks_and_finds_everything() {
    let disk = filled();
    let log = log_of(&disk);
    let mut reclaimer = looked_at_once(&log);
    let segments = log.segments.spans().len();
    assert!(segments > 9, "{segments}");
    // All but the newest messages go.
    let kept = Kept::from([("lobby", 295)]);
    reclaimer.note_trimmed();
    let left = within_looks(&log, &kept, &mut reclaimer);
    assert!(matches!(left, Left::Later { .. }), "{left:?}");
    assert_eq!(reclaimer.done(), Reclaimed::default(), "nobody has looked");
    let mut rounds = 0;
    loop {
        reclaimer.allow_looks(3);
        rounds += 1;
        let left = within_looks(&log, &kept, &mut reclaimer);
        // The front goes as soon as it was looked at.
        assert!(reclaimer.done().deleted >= (3 * rounds).min(6), "{rounds}");
        if !matches!(left, Left::Later { .. }) {
            break;
        }
        assert_eq!(reclaimer.looks_left, 0);
        assert!(rounds < 100, "it goes on for ever");
    }
    assert!(rounds as usize <= segments.div_ceil(3), "{rounds}");
    // No different from one that may look at all at once.
    let other = filled();
    let mut unbound = Reclaimer::new(SEGMENT_BYTES);
    reclaim(&log_of(&other), &kept, &mut unbound).unwrap();
    let live = |disk: &MemoryStorage| log_of(disk).segments.log_bytes(log.found.proven);
    assert!(live(&disk) <= live(&other) + SEGMENT_BYTES);
    assert_clean(&disk);
}

#[test]
fn what_is_trimmed_during_a_round_is_found_by_the_next_one() {
    let disk = filled();
    let log = log_of(&disk);
    let mut reclaimer = looked_at_once(&log);
    // Two of three bytes stay: nothing is worth doing.
    let first = Kept::from([("lobby", 1), ("cellar", 1)]);
    reclaimer.note_trimmed();
    reclaimer.allow_looks(3);
    let left = within_looks(&log, &first, &mut reclaimer);
    assert!(matches!(left, Left::Later { .. }), "{left:?}");
    // What was looked at already dies.
    let second = Kept::from([("lobby", 295)]);
    reclaimer.note_trimmed();
    let left = reclaim(&log, &second, &mut reclaimer).unwrap();
    assert!(!matches!(left, Left::Later { .. }), "{left:?}");
    let gone = reclaimer.done().deleted + reclaimer.done().packed;
    assert!(gone > 12, "{:?}", reclaimer.done());
    // And when nothing was trimmed any more, nobody looks.
    reclaimer.allow_looks(1000);
    for _ in 0..3 {
        within_looks(&log, &second, &mut reclaimer);
    }
    assert_eq!(reclaimer.looks_left, 1000);
}
