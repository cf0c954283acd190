//! Damage to what was stored. `BROKER_SIM_STRIKES` says how often, `BROKER_SEED` where to begin.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;

use broker_core::log::storage::Storage;
use broker_sim::campaign::{Tally, deep, seed};
use broker_sim::oracle::{Fate, Ledger, MessageId, check};
use broker_sim::rig::{Limits, Rig};
use broker_sim::rot::{Map, Part, Place, Subject, explore};
use broker_sim::{CrashMode, Fault, Rng, SimDisk};
use bytes::Bytes;

use crate::setting;

#[test]
fn damage_is_told_and_never_served() {
    let (seed, strikes) = (seed(1), deep("BROKER_SIM_STRIKES", 3_000));
    println!("BROKER_SEED={seed} BROKER_SIM_STRIKES={strikes}");
    match explore(seed, strikes) {
        Ok(done) => {
            let tally = Tally::new("damage_is_told_and_never_served", seed);
            println!("{}", tally.with("blows", done));
        }
        Err(failure) => panic!("{failure}"),
    }
}

const LIMITS: Limits = Limits {
    segment_bytes_min: 16 << 10,
    segment_bytes_max: 32 << 10,
    checkpoint_bytes_min: 24 << 10,
    batch_bytes_max: 16 << 10,
    tail_bytes_max: 0,
};

/// The first byte of a place, one in the middle, and the last.
fn spots(place: &Place) -> [u64; 3] {
    let (from, to) = (place.bytes.start, place.bytes.end);
    [from, from.midpoint(to - 1), to - 1]
}

/// Rot in what was acknowledged, in each structure of the log: only the messages whose own bytes were hit are missing, and told.
#[test]
fn each_structure_is_struck() {
    let seed = setting("BROKER_SEED", 3);
    println!("BROKER_SEED={seed}");
    let mut rng = Rng::new(seed);
    let subject = Subject::write(&mut rng, LIMITS, 25).unwrap();
    let mut struck: BTreeMap<Part, u32> = BTreeMap::new();
    for place in &subject.map.places {
        let often = struck.entry(place.part).or_default();
        if *often >= 90 {
            continue;
        }
        for at in spots(place) {
            *often += 1;
            let blow = Map::flip(&subject.disk, &place.file, at);
            for live in [false, true] {
                let blows = [blow.clone()];
                subject
                    .strike(&blows, live, &mut rng)
                    .unwrap_or_else(|why| {
                        panic!("live: {live}, {}: {why}", subject.map.describe(&blow))
                    });
            }
        }
    }
    println!("{struck:?}");
    // Rooms, producers' runs, cursors, parts and ends of checkpoints are among the state records.
    for kind in [3, 8, 9, 12, 14, 16] {
        assert!(struck.contains_key(&Part::State(kind)), "kind {kind}");
    }
    let all = [Part::Header, Part::Head, Part::RecordHead, Part::Payload];
    let all = all.iter().chain(&[Part::Table, Part::Trailer, Part::Mark]);
    assert!(all.clone().all(|part| struck.contains_key(part)));
}

/// A footer is only a hint, and is made again.
#[test]
fn a_damaged_footer_is_made_again() {
    let mut rng = Rng::new(4);
    let subject = Subject::write(&mut rng, LIMITS, 25).unwrap();
    let footers: Vec<String> = subject.disk.list().unwrap();
    let footers = footers.iter().filter(|name| name.ends_with(".idx"));
    assert!(footers.clone().count() > 1);
    for file in footers {
        let bytes = subject.disk.content(file).unwrap().len() as u64;
        for at in (0..bytes).step_by(7) {
            let blow = Map::flip(&subject.disk, file, at);
            subject.strike(&[blow], false, &mut rng).unwrap();
        }
    }
}

/// The same damage in what nobody had acknowledged is a write that was cut short: none of it counts, and it is no damage.
#[test]
fn a_torn_tail_is_dropped_whole() {
    let disk = SimDisk::new(1);
    let mut rng = Rng::new(5);
    let mut ledger = Ledger::default();
    let id = |number| MessageId {
        producer: 1,
        number,
    };
    let mut rig = Rig::open(&disk, LIMITS, &mut rng).unwrap();
    for number in 1..=6 {
        let room = if number % 2 == 0 { 1 } else { 2 };
        ledger.send(id(number), room, Bytes::from(vec![b'x'; 700]));
        rig.send(&ledger, id(number), 1).unwrap();
        if number == 3 {
            rig.work();
            rig.answers(&mut ledger).unwrap();
            disk.fail_op(disk.op_count() + 2, Fault::Crash);
        }
    }
    rig.work();
    let whole = disk.crash(&mut rng, CrashMode::KeepAll);
    let open = |ledger: &mut Ledger, disk: &SimDisk| {
        let mut rig = Rig::open(disk, LIMITS, &mut Rng::new(6)).unwrap();
        check::after_recovery(&mut rig, ledger, 1 << 20).unwrap();
        ledger.rooms.values().map(|room| room.shown.len()).sum()
    };
    assert_eq!(
        (1..=3)
            .filter(|n| ledger
                .sent
                .get(&id(*n))
                .is_some_and(|sent| matches!(sent.fate, Fate::Acked(_))))
            .count(),
        3
    );
    let found: usize = open(&mut ledger.clone(), &whole.kill());
    assert_eq!(found, 6, "undamaged, all of it is there");
    let map = Map::of(&whole).unwrap();
    let last = map.places.iter().filter_map(|place| place.batch).max();
    for place in map.places.iter().filter(|place| place.batch == last) {
        for at in spots(place) {
            let torn = whole.kill();
            let blow = Map::flip(&whole, &place.file, at);
            assert!(torn.corrupt(&blow.file, blow.at, &blow.bytes));
            let found: usize = open(&mut ledger.clone(), &torn);
            assert_eq!(found, 3, "{}", map.describe(&blow));
        }
    }
}
