//! Stores are filled, and their logs opened with and without the footers of their newest segments.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

use broker_proto::{Micros, RoomId, Seq};

use super::*;
use crate::log::LastLeader;
use crate::log::batch::BatchRun;
use crate::log::filled::{LOG, Leader, TIME, config};
use crate::log::recovery::{Recovered, recover};
use crate::log::segment::SegmentId;
use crate::log::storage::MemoryStorage;
use crate::store::Store;

fn lead(disk: &MemoryStorage, checkpoint_bytes_min: u64, first_number: u64) -> Leader {
    let mut config = config(512 << 10);
    config.checkpoint_bytes_min = checkpoint_bytes_min;
    Leader::open(disk, config, first_number)
}

/// All files of a disk, on a disk of their own.
fn copy(disk: &MemoryStorage, footers: bool) -> MemoryStorage {
    let other = MemoryStorage::new();
    for name in disk.list().unwrap() {
        if footers || SegmentName::parse_footer(&name).is_none() {
            put(&other, &name, &read_whole(disk, &name).unwrap());
        }
    }
    other
}

fn put(disk: &MemoryStorage, name: &str, bytes: &[u8]) {
    let _ = disk.delete(name);
    disk.create(name).unwrap().write_at(0, bytes).unwrap();
}

fn recovered(disk: &MemoryStorage) -> Recovered {
    recover(disk, LOG, None, &mut |_, _| {}).unwrap()
}

/// Everything that a start finds, without the index.
fn told(found: &Recovered) -> String {
    let state = &found.state;
    let rooms: Vec<_> = state.rooms.iter().collect();
    let mut producers: Vec<String> = state
        .producers
        .iter()
        .map(|producer| format!("{producer:?}"))
        .collect();
    producers.sort_unstable();
    let tail: Vec<_> = found.tail.iter().map(|(head, _)| head.position).collect();
    format!(
        "{rooms:?} {producers:?} {tail:?} {:?} {:?} {:?} {:?}",
        (found.proven, found.clean, found.checkpoint, found.covered),
        (found.last_term, found.last_segment, found.torn_bytes),
        (&state.places, state.doubt, found.last_file_bytes),
        found.segments,
    )
}

/// The same is found with and without footers; gives up to where a footer was believed.
fn compare(disk: &MemoryStorage) -> LogPosition {
    let with = recovered(&copy(disk, true));
    let without = recovered(&copy(disk, false));
    assert_eq!(told(&with), told(&without));
    assert_eq!(with.last_index, without.last_index);
    assert_eq!(without.early, LogPosition::NONE);
    with.early
}

#[test]
fn a_start_finds_the_same_with_and_without_a_footer() {
    // With a checkpoint in the newest segment, and without any.
    for checkpoint_bytes_min in [100 << 10, 1 << 30] {
        let disk = MemoryStorage::new();
        let mut leader = lead(&disk, checkpoint_bytes_min, 1);
        let mut believed = 0;
        for n in 0..300_usize {
            leader.say(["lobby", "hall", "cellar"][n * n % 3], 40 + n * 7 % 4000);
            if n % 100 == 99 {
                leader.say(&format!("new-{n}"), 10);
            }
            if n % 10 == 3 {
                leader.engine.keep_house();
            }
            if n % 7 == 0 {
                believed += usize::from(compare(&disk) != LogPosition::NONE);
            }
        }
        leader.engine.idle();
        leader.engine.keep_house();
        let end = leader.store.info().log_bytes;
        assert_eq!(compare(&disk).get(), end, "a mark vouches for all of it");
        leader.engine.close();
        drop(leader);
        assert!(believed > 30, "{believed} of 43");
        // The next leader goes on in the segment, and with the footer.
        let mut leader = lead(&disk, checkpoint_bytes_min, 10_000);
        for n in 0..20 {
            leader.say("hall", 100 + n);
            leader.engine.keep_house();
        }
        assert!(compare(&disk).get() > end);
    }
}

#[test]
fn a_footer_is_not_believed_unless_the_segment_vouches_for_it() {
    let disk = MemoryStorage::new();
    let mut leader = lead(&disk, 1 << 30, 1);
    for _ in 0..20 {
        leader.say("lobby", 500);
    }
    let early = copy(&disk, false);
    for _ in 0..20 {
        leader.say("hall", 500);
    }
    leader.engine.close();
    leader.engine.keep_house();
    let end = compare(&disk);
    assert_ne!(end, LogPosition::NONE);
    let segment = recovered(&disk).segments[0].0.clone();
    let footer = read_whole(&disk, &segment.name.footer()).unwrap();

    // Newer than what is there of the segment.
    put(&early, &segment.name.footer(), &footer);
    assert_eq!(compare(&early), LogPosition::NONE);

    // The head that vouched for it is gone.
    let torn = copy(&disk, true);
    let at = segment.offset_of(end);
    let file = torn.open(&segment.name.file()).unwrap();
    file.write_at(at, &[0; 96]).unwrap();
    assert_eq!(compare(&torn), LogPosition::NONE);

    // A footer of a segment of the same name, of another life of the store.
    let mut index = SegmentIndex::default();
    let run = BatchRun {
        room: RoomId::new(1),
        offset: 72,
        bytes: 400,
        count: 4,
        first_seq: Seq::new(1),
    };
    index.add(
        &run,
        segment.base,
        Micros::new(1),
        LogPosition::NONE,
        Micros::new(0),
    );
    let other = copy(&disk, false);
    let marker = crate::log::position::Marker(segment.marker.0 ^ 1);
    let foreign = index.encode(segment.name, marker, end);
    put(&other, &segment.name.footer(), &foreign);
    assert_eq!(compare(&other), LogPosition::NONE);

    // No bit of it may be wrong.
    for byte in (0..footer.len()).step_by(5) {
        let damaged = copy(&disk, false);
        let mut bytes = footer.clone();
        bytes[byte] ^= 0x10;
        put(&damaged, &segment.name.footer(), &bytes);
        assert_eq!(compare(&damaged), LogPosition::NONE, "byte {byte}");
    }
}

#[test]
fn behind_a_mark_nothing_is_looked_for_only_if_nobody_has_led_since() {
    let disk = MemoryStorage::new();
    let mut first = lead(&disk, 1 << 30, 1);
    first.say("lobby", 500);
    first.engine.close();
    let closed = recovered(&disk);
    let (header, end) = closed.segments[0].clone();
    let at = header.offset_of(end);
    let mut mark = [0; 96];
    let file = disk.open(&header.name.file()).unwrap();
    file.read_at(at, &mut mark).unwrap();
    let mut second = lead(&disk, 1 << 30, 1000);
    for _ in 0..3 {
        second.say("hall", 500);
    }
    // The disk has dropped the first write of the second leader, which is killed.
    file.write_at(at, &mark).unwrap();
    let found = |last_leader| recover(&disk, LOG, last_leader, &mut |_, _| {}).unwrap();
    assert!(closed.clean && found(None).proven > end && !found(None).state.places.is_empty());
    let leader = |term, since| Some(LastLeader { term, since });
    let time = TIME;
    for nobody in [leader(2, 0), leader(1, time + 1), leader(0, 0)] {
        assert!(found(nobody).proven > end, "{nobody:?} has not closed it");
    }
    // It is told wrongly here, which shows that it is believed.
    let found = found(leader(1, time));
    assert!(found.clean && found.proven == end);
}

#[test]
fn a_footer_waits_for_a_batch_that_vouches_for_it_or_a_mark() {
    let name = |id| SegmentName {
        id: SegmentId(id),
        generation: 0,
    };
    let made = |id, upto| Made {
        name: name(id),
        upto: LogPosition::new(upto),
        bytes: Vec::new(),
    };
    let (busy, marked) = (
        Wanted {
            is_vouched: false,
            always: false,
        },
        Wanted {
            is_vouched: true,
            always: false,
        },
    );
    let mut early = Early::default();
    assert!(early.take(made(1, 100), busy).is_none());
    let before = early.take(made(1, 200), busy).unwrap();
    assert_eq!(before.upto, LogPosition::new(100));
    assert!(
        early.take(made(2, 300), busy).is_none(),
        "of another segment"
    );
    early.forget(name(2));
    assert!(early.take(made(2, 400), busy).is_none());
    assert_eq!(early.take(made(2, 500), marked).unwrap().upto.get(), 500);
    assert!(
        early.take(made(2, 600), busy).is_none(),
        "the one before is written"
    );

    let index = SegmentIndex::default();
    let worth = |early: &Early, upto, wanted| {
        let span = (LogPosition::new(1000), LogPosition::new(upto));
        early.is_worth(name(3), span, &index, wanted)
    };
    assert!(!worth(&early, 1000, marked), "nothing is there");
    assert!(worth(&early, 1001, marked));
    assert!(!worth(&early, 1001, busy));
    assert!(worth(&early, 1000 + EARLY_EVERY, busy));
    early.note(name(3), LogPosition::new(1000 + EARLY_EVERY));
    assert!(
        !worth(&early, 1000 + EARLY_EVERY, marked),
        "it is there already"
    );
    assert!(!worth(&early, 1001 + EARLY_EVERY, busy));
}
