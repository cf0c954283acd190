//! A take-over takes no longer when there is much history, also when none of it is in memory.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::time::Duration;

use broker_sim::agent::Work;
use broker_sim::fleet::{Fleet, PATIENCE, bytes_below, drop_cache};
use broker_sim::history::monotonic_nanos;

use crate::fleets::{
    await_holder, expect_clean, pauses, program, publisher, seed, subscriber, tally,
};
use crate::setting;

/// Payload bytes of a message of the past.
const MESSAGE_BYTES: u64 = 256 << 10;

/// How long the past may take to be made.
const BUILD_MAX: Duration = Duration::from_secs(600);

#[test]
fn big_log() {
    let bytes = setting("BROKER_BIG_LOG_BYTES", 1 << 30);
    let kills = 10;
    let parent = tempfile::tempdir().unwrap();
    let mut fleet = Fleet::new(program(), parent.path()).unwrap();
    let begun = monotonic_nanos();
    let historian = fleet
        .start(Work {
            rooms: vec!["past".to_owned()],
            publish: true,
            pipeline: 32,
            bytes: usize::try_from(MESSAGE_BYTES).unwrap(),
            messages: bytes.div_ceil(MESSAGE_BYTES),
            ..Work::default()
        })
        .unwrap();
    fleet.await_sent(historian, BUILD_MAX).unwrap();
    let built = Duration::from_nanos(monotonic_nanos() - begun);
    assert!(bytes_below(fleet.dir()).unwrap() >= bytes);
    // It goes without a word: what it wrote last is unproven for who comes next.
    fleet.kill(historian).unwrap();
    for work in [publisher(), publisher(), subscriber()] {
        fleet.start(work).unwrap();
    }
    let mut term = 0;
    for _ in 0..kills {
        fleet.await_acks(term).unwrap();
        let leader = await_holder(&mut fleet, term).unwrap();
        drop_cache(fleet.dir()).unwrap();
        term = fleet.kill_leader(leader).unwrap().term;
        fleet.await_leader(term).unwrap();
        fleet.restart(leader.agent).unwrap();
    }
    fleet.await_acks(term).unwrap();
    let cold_start = start_cold(&mut fleet);
    fleet.finish().unwrap();
    let verdict = fleet.check().unwrap();
    let (spread, _) = pauses(&fleet).unwrap();
    println!("big_log: seed {}, {bytes} bytes made in {built:?}", seed());
    println!("  SIGKILL to first new ack, nothing cached: {spread}");
    println!("  start of all processes to first ack, nothing cached: {cold_start:?}");
    println!("  {:?}", verdict.counts);
    println!("{}", tally("big_log", kills, &verdict));
    expect_clean(&verdict);
}

/// Kills everybody at once and starts again; how long it takes until the first ack.
fn start_cold(fleet: &mut Fleet) -> Duration {
    let leader = await_holder(fleet, 0).unwrap();
    for agent in 0..fleet.len() {
        if fleet.is_running(agent) {
            fleet.kill(agent).unwrap();
        }
    }
    drop_cache(fleet.dir()).unwrap();
    let at = monotonic_nanos();
    for agent in 1..fleet.len() {
        fleet.restart(agent).unwrap();
    }
    fleet.await_acks(leader.term).unwrap();
    // An agent may write its first ack down before it does whom it follows; the next one tells.
    let deadline = at + u64::try_from(PATIENCE.as_nanos()).unwrap();
    loop {
        let pause = fleet.acks().unwrap().pause(at, leader.term, u64::MAX);
        if let Some(pause) = pause {
            return pause.new_leader;
        }
        assert!(
            monotonic_nanos() < deadline,
            "nobody hears from the new leader"
        );
        std::thread::sleep(Duration::from_millis(1));
    }
}
