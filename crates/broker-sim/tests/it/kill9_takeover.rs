//! The leader is killed again and again under load, and nobody loses anything.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::net::TcpListener;
use std::time::Duration;

use broker_sim::Rng;
use broker_sim::agent::{Role, Work};
use broker_sim::campaign::deep;
use broker_sim::fleet::Fleet;

use crate::fleets::{
    await_holder, expect_clean, pauses, program, publisher, rooms, seed, subscriber, tally,
};

/// Kills leaders at random moments, `kills` times.
fn kill_leaders(fleet: &mut Fleet, rng: &mut Rng, kills: u64) {
    let mut term = 0;
    for _ in 0..kills {
        // One in five is killed while it only begins: the lock is its own, perhaps nothing else.
        let leader = if rng.chance(1, 5) {
            await_holder(fleet, term).unwrap()
        } else {
            fleet.await_acks(term).unwrap();
            std::thread::sleep(Duration::from_micros(rng.below(150_000)));
            await_holder(fleet, term).unwrap()
        };
        term = fleet.kill_leader(leader).unwrap().term;
        if rng.chance(1, 8) {
            let other = rng.index(fleet.len());
            if fleet.is_running(other) {
                fleet.kill(other).unwrap();
            }
        }
        // Half of the time those that were killed come back only when another one leads.
        if rng.coin() {
            fleet.await_leader(term).unwrap();
        }
        fleet.restart_all().unwrap();
    }
    fleet.await_acks(term).unwrap();
}

#[test]
fn kill9_takeover() {
    let kills = deep("BROKER_TAKEOVER_KILLS", 60);
    let parent = tempfile::tempdir().unwrap();
    let mut rng = Rng::new(seed());
    let mut fleet = Fleet::new(program(), parent.path()).unwrap();
    for _ in 0..4 {
        fleet.start(publisher()).unwrap();
        fleet.start(subscriber()).unwrap();
    }
    kill_leaders(&mut fleet, &mut rng, kills);
    fleet.finish().unwrap();
    let verdict = fleet.check().unwrap();
    let (spread, cut_short) = pauses(&fleet).unwrap();
    println!("kill9_takeover: seed {}, {kills} kills", seed());
    println!("  SIGKILL to first new ack: {spread}, {cut_short} killed before it");
    println!("  {:?}", verdict.counts);
    println!("{}", tally("kill9_takeover", kills, &verdict));
    expect_clean(&verdict);
    // Nobody may have seen a leader that was killed while it began.
    assert!(verdict.counts.terms > kills / 2, "{verdict}");
}

/// A leader is told to leave, and while it hands over it is killed, or who comes next, or both, and others join.
#[test]
fn a_handover_survives_the_death_of_either_side() {
    let rounds = deep("BROKER_TAKEOVER_KILLS", 60);
    let parent = tempfile::tempdir().unwrap();
    let mut rng = Rng::new(seed());
    let mut fleet = Fleet::new(program(), parent.path()).unwrap();
    for _ in 0..3 {
        fleet.start(publisher()).unwrap();
        fleet.start(subscriber()).unwrap();
    }
    let mut term = 0;
    for _ in 0..rounds {
        fleet.await_acks(term).unwrap();
        let leader = await_holder(&mut fleet, term).unwrap();
        let late = rng.index(fleet.len());
        if late != leader.agent {
            fleet.kill(late).unwrap();
        }
        term = fleet.dismiss_leader(leader).unwrap().term;
        if late != leader.agent {
            std::thread::sleep(Duration::from_micros(rng.below(20_000)));
            fleet.restart(late).unwrap();
        }
        let (kills_old, kills_new) = (rng.chance(1, 2), rng.chance(1, 2));
        if kills_old {
            std::thread::sleep(Duration::from_micros(rng.below(30_000)));
            fleet.kill(leader.agent).unwrap();
        }
        if kills_new {
            let successor = await_holder(&mut fleet, term).unwrap();
            std::thread::sleep(Duration::from_micros(rng.below(5_000)));
            term = fleet.kill_leader(successor).unwrap().term;
        }
        if !kills_old {
            fleet.await_end(leader.agent).unwrap();
        }
        fleet.restart_all().unwrap();
    }
    fleet.await_acks(term).unwrap();
    fleet.finish().unwrap();
    let verdict = fleet.check().unwrap();
    println!("handovers: seed {}, {rounds} rounds", seed());
    println!("  {:?}", verdict.counts);
    let test = "a_handover_survives_the_death_of_either_side";
    println!("{}", tally(test, rounds, &verdict));
    expect_clean(&verdict);
}

/// The port moves along with the leader: whoever only knows the address goes on.
#[test]
fn a_plain_tcp_client_rides_over_takeovers() {
    let kills = deep("BROKER_TAKEOVER_KILLS", 60).div_ceil(6);
    let address = {
        let door = TcpListener::bind("127.0.0.1:0").unwrap();
        door.local_addr().unwrap()
    };
    let parent = tempfile::tempdir().unwrap();
    let mut rng = Rng::new(seed());
    let mut fleet = Fleet::new(program(), parent.path()).unwrap();
    for _ in 0..3 {
        fleet
            .start(Work {
                rooms: rooms(),
                listen: Some(address),
                ..Work::default()
            })
            .unwrap();
    }
    for work in [publisher(), subscriber()] {
        fleet
            .start(Work {
                role: Role::Client,
                connect: Some(format!("tcp://{address}")),
                ..work
            })
            .unwrap();
    }
    kill_leaders(&mut fleet, &mut rng, kills);
    fleet.finish().unwrap();
    let verdict = fleet.check().unwrap();
    let (spread, _) = pauses(&fleet).unwrap();
    println!("tcp: seed {}, {kills} kills, {spread}", seed());
    let test = "a_plain_tcp_client_rides_over_takeovers";
    println!("{}", tally(test, kills, &verdict));
    expect_clean(&verdict);
}
