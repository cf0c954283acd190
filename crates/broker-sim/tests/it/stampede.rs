//! Fifty processes start at once, and again and again the leader is killed.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use broker_sim::agent::Work;
use broker_sim::campaign::deep;
use broker_sim::fleet::Fleet;

use crate::fleets::{await_holder, expect_clean, pauses, program, rooms, seed, tally};
use crate::setting;

/// Processes.
const AGENTS: u64 = 50;

/// A process that sends a little.
fn member() -> Work {
    Work {
        rooms: rooms(),
        publish: true,
        pipeline: 1,
        rate: 5,
        ..Work::default()
    }
}

/// That one process leads at a time is proved by the terms: in each, all processes that saw it name the same leader, and only
/// that one says that it leads. A term is given by who holds the lock, and only to who is in it.
#[test]
fn stampede() {
    let rounds = deep("BROKER_STAMPEDE_ROUNDS", 20);
    let agents = setting("BROKER_STAMPEDE_AGENTS", AGENTS);
    let parent = tempfile::tempdir().unwrap();
    let mut fleet = Fleet::new(program(), parent.path()).unwrap();
    for _ in 0..agents {
        fleet.start(member()).unwrap();
    }
    let mut term = 0;
    for _ in 0..rounds {
        let leader = fleet.await_leader(term).unwrap();
        let holder = await_holder(&mut fleet, term).unwrap();
        assert_eq!(leader, holder, "who says that it leads holds the lock");
        term = fleet.kill_leader(leader).unwrap().term;
        fleet.restart_all().unwrap();
    }
    fleet.await_acks(term).unwrap();
    fleet.finish().unwrap();
    let verdict = fleet.check().unwrap();
    let (spread, cut_short) = pauses(&fleet).unwrap();
    println!(
        "stampede: seed {}, {agents} processes, {rounds} rounds",
        seed()
    );
    println!("  SIGKILL to first new ack: {spread}, {cut_short} killed before it");
    println!("  {:?}", verdict.counts);
    println!("{}", tally("stampede", rounds, &verdict));
    expect_clean(&verdict);
    // When they leave in the end they hand over, which makes further terms.
    assert!(verdict.counts.terms > rounds, "{verdict}");
}
