//! Who takes the lead over, or passes it on, is killed at each of its system calls, and the next one finishes.
//!
//! A run that is only watched tells the calls; then one round after the other kills at one of them. The process is followed by
//! strace from just before the change of leader, so that nothing else it did counts. At the default depth every kind of call is
//! tried, and as many of them as there is time for; `BROKER_STEPS=all` tries all, and those that come after the known ones.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use broker_sim::Rng;
use broker_sim::agent::{Role, Work};
use broker_sim::fleet::{Ended, Fleet, Leader, PATIENCE, Sighting, Step, Tracer};

use crate::fleets::{expect_clean, pauses, program, publisher, rooms, seed, subscriber, tally};
use crate::setting;

/// Between two looks at what the agents say.
const LOOK_STEP: Duration = Duration::from_millis(1);

/// Who is followed, and killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    /// Who takes over from a leader that was killed.
    Successor,
    /// Who is handed the lead.
    Heir,
    /// Who hands it over.
    Leaver,
}

impl Victim {
    /// The test that kills it.
    fn test(self) -> &'static str {
        match self {
            Self::Successor => "a_new_leader_is_killed_at_each_step",
            Self::Heir => "an_heir_is_killed_at_each_step_of_a_handover",
            Self::Leaver => "a_leader_is_killed_at_each_step_of_its_handover",
        }
    }
}

/// What happens to the victim.
#[derive(Debug, Clone)]
enum Fate {
    /// It is only followed.
    Watched,
    /// It is killed at a call.
    At(Step),
    /// It is killed so long after the leader.
    After(Duration),
}

/// What a round showed.
#[derive(Debug, Default)]
struct Seen {
    calls: Vec<Step>,
    killed: bool,
    /// The call at which it was to be killed had begun before the kill came.
    late: bool,
}

/// How often a call was tried.
#[derive(Debug, Default, Clone, Copy)]
struct Tried {
    known: u32,
    tried: u32,
    killed: u32,
    late: u32,
}

/// Three processes that may lead and do nothing else, one that sends ahead all the time, and one that reads.
struct Scene {
    fleet: Fleet,
    leader: Leader,
    _parent: tempfile::TempDir,
}

impl Scene {
    fn new() -> Self {
        let parent = tempfile::tempdir().unwrap();
        let mut fleet = Fleet::new(program(), parent.path()).unwrap();
        let door = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = door.local_addr().unwrap();
        drop(door);
        let member = Work {
            rooms: rooms(),
            listen: Some(address),
            ..Work::default()
        };
        for _ in 0..3 {
            fleet.start(member.clone()).unwrap();
        }
        fleet.await_leader(0).unwrap();
        // Many sends are under way at any moment.
        let sender = Work {
            role: Role::Client,
            pipeline: 64,
            rate: 2_000,
            ..publisher()
        };
        let reader = Work {
            connect: Some(format!("tcp://{address}")),
            ..subscriber()
        };
        fleet.start(sender).unwrap();
        fleet.start(reader).unwrap();
        let leader = fleet.await_leader(0).unwrap();
        fleet.await_acks(0).unwrap();
        Self {
            fleet,
            leader,
            _parent: parent,
        }
    }

    /// Two that stand by, the one that has done so for longer first.
    fn standbys(&mut self) -> [usize; 2] {
        let standbys: Vec<usize> = (0..3).filter(|it| *it != self.leader.agent).collect();
        let [mut first, mut second] = standbys[..] else {
            unreachable!("one of three leads")
        };
        if self.fleet.is_running(second) {
            (first, second) = (second, first);
        }
        for standby in [first, second] {
            if !self.fleet.is_running(standby) {
                self.fleet.restart(standby).unwrap();
            }
            self.fleet
                .await_follower(standby, self.leader.term)
                .unwrap();
        }
        [first, second]
    }

    /// One change of leader. Returns when a new one answers.
    fn round(&mut self, victim: Victim, fate: &Fate) -> Seen {
        let [first, second] = self.standbys();
        let (old, follows) = (self.leader, victim != Victim::Leaver);
        let target = if follows { first } else { old.agent };
        let tracer = self.tracer(target, fate);
        // The other one must not be faster.
        if follows {
            self.fleet.freeze(second).unwrap();
        }
        if victim == Victim::Successor {
            self.fleet.kill_leader(old).unwrap();
        } else {
            self.fleet.dismiss_leader(old).unwrap();
        }
        let frozen = follows.then_some(second);
        let seen = match (fate, tracer) {
            (Fate::After(time), _) => {
                std::thread::sleep(*time);
                self.fleet.kill(target).unwrap();
                self.fleet.thaw(second).unwrap();
                Seen {
                    killed: true,
                    ..Seen::default()
                }
            }
            (fate, Some(tracer)) => self.watch(&tracer, fate, target, frozen),
            (_, None) => unreachable!("it is followed"),
        };
        if victim == Victim::Heir || (victim == Victim::Leaver && !seen.killed) {
            self.fleet.await_end(old.agent).unwrap();
        }
        self.leader = match (follows, seen.killed) {
            (true, true) => self.fleet.await_lead_of(second, old.term).unwrap(),
            (true, false) => self.fleet.await_lead_of(target, old.term).unwrap(),
            (false, _) => self.fleet.await_leader(old.term).unwrap(),
        };
        self.fleet.await_acks(self.leader.term - 1).unwrap();
        let holder = self.fleet.holder().unwrap();
        assert_eq!(
            holder,
            Some(self.leader),
            "who says that it leads holds the lock"
        );
        seen
    }

    fn tracer(&self, target: usize, fate: &Fate) -> Option<Tracer> {
        let step = match fate {
            Fate::After(_) => return None,
            Fate::At(step) => Some(step),
            Fate::Watched => None,
        };
        let pid = self.fleet.pid(target).unwrap();
        Some(Tracer::attach(pid, step).unwrap())
    }

    /// Follows the target until it is killed at its step, or its work is done: it has ended, or the next leader answers.
    /// `frozen` goes on as soon as the target has the lock.
    fn watch(
        &mut self,
        tracer: &Tracer,
        fate: &Fate,
        target: usize,
        mut frozen: Option<usize>,
    ) -> Seen {
        let (mut seen, old) = (Seen::default(), self.leader);
        let deadline = Instant::now() + PATIENCE;
        loop {
            assert!(Instant::now() < deadline, "{fate:?}: nobody takes over");
            match tracer.next(LOOK_STEP) {
                Ok(Some(Sighting::Began { thread, step })) => {
                    if matches!(fate, Fate::At(at) if *at == step) {
                        self.fleet.kill(target).unwrap();
                        seen.killed = true;
                        seen.late = has_gone_on(tracer, thread);
                    }
                    seen.calls.push(step);
                }
                Ok(Some(Sighting::Locked)) => {
                    frozen
                        .take()
                        .into_iter()
                        .for_each(|it| self.fleet.thaw(it).unwrap());
                }
                // Who leaves is followed to its end.
                Ok(None) if !self.fleet.has_acks(old.term).unwrap() || target == old.agent => {}
                Ok(None) | Err(Ended) => break,
            }
            if seen.killed {
                break;
            }
        }
        frozen
            .into_iter()
            .for_each(|it| self.fleet.thaw(it).unwrap());
        seen
    }

    /// Ends all, checks everything, and tells what was done.
    fn finish(mut self, title: &str, tallies: &BTreeMap<String, Tried>) {
        self.fleet.finish().unwrap();
        let verdict = self.fleet.check().unwrap();
        println!("{title}: seed {}", seed());
        for (call, tried) in tallies {
            let Tried {
                known,
                tried,
                killed,
                late,
            } = tried;
            println!(
                "  {call:12} {known:4} calls, {tried:4} tried, {killed:4} killed there, {late} of them late"
            );
        }
        let (spread, cut_short) = pauses(&self.fleet).unwrap();
        if !spread.is_empty() {
            println!(
                "  the leader's SIGKILL to the first new ack, past the victim's: {spread}, {cut_short} without"
            );
        }
        println!("  {:?}", verdict.counts);
        let killed = tallies.values().map(|tried| u64::from(tried.killed)).sum();
        println!("{}", tally(title, killed, &verdict));
        expect_clean(&verdict);
    }
}

/// Whether a thread of a process that was killed began another call.
fn has_gone_on(tracer: &Tracer, killed: u32) -> bool {
    let mut gone_on = false;
    while let Ok(sighting) = tracer.next(PATIENCE) {
        gone_on |= matches!(sighting, Some(Sighting::Began { thread, .. }) if thread == killed);
    }
    gone_on
}

/// The steps of a call, those that are tried first at the front.
fn plan(calls: Vec<Step>, rng: &mut Rng, all: bool) -> BTreeMap<String, Vec<Step>> {
    let mut plan: BTreeMap<String, Vec<Step>> = BTreeMap::new();
    for step in calls {
        plan.entry(step.call.clone()).or_default().push(step);
    }
    for (call, steps) in &mut plan {
        if all {
            let last = steps.iter().map(|step| step.nth).max().unwrap_or(0);
            // A run may make a few more than the one that was watched.
            let more = (last + 1..=last + 2).zip(std::iter::repeat(call.clone()));
            steps.extend(more.map(|(nth, call)| Step {
                call,
                nth,
                after: 0,
            }));
            steps.sort();
        } else {
            rng.shuffle(steps);
        }
    }
    plan
}

/// Kills the victim at its calls: one of each kind, then a second of each, as long as there is time, or all.
fn kill_at_each_step(victim: Victim, time: Duration) {
    if !Tracer::is_available() {
        println!("SKIPPED(strace)");
        return;
    }
    let all = std::env::var("BROKER_STEPS").is_ok_and(|value| value == "all");
    let mut rng = Rng::new(seed());
    let mut scene = Scene::new();
    let begun = Instant::now();
    let calls = scene.round(victim, &Fate::Watched).calls;
    let mut plan = plan(calls, &mut rng, all);
    let mut tallies: BTreeMap<String, Tried> = BTreeMap::new();
    for (call, steps) in &plan {
        let known = u32::try_from(steps.len()).unwrap();
        tallies.entry(call.clone()).or_default().known = known;
    }
    for lap in 0.. {
        let mut left = false;
        for (call, steps) in &mut plan {
            if steps.is_empty() || (!all && lap > 0 && begun.elapsed() > time) {
                continue;
            }
            let step = steps.remove(0);
            left |= !steps.is_empty();
            let seen = scene.round(victim, &Fate::At(step));
            let here = tallies.entry(call.clone()).or_default();
            here.tried += 1;
            here.killed += u32::from(seen.killed);
            here.late += u32::from(seen.late);
        }
        if !left {
            break;
        }
    }
    scene.finish(victim.test(), &tallies);
    let (tried, killed) = tallies.values().fold((0, 0), |(tried, killed), here| {
        (tried + here.tried, killed + here.killed)
    });
    println!(
        "  killed at {killed} of {tried} steps in {:.1?}",
        begun.elapsed()
    );
    assert!(
        killed > tried / 2,
        "most calls come again: {killed} of {tried}"
    );
    let locked = if victim == Victim::Leaver {
        "close"
    } else {
        "flock"
    };
    assert!(tallies.get(locked).is_some_and(|here| here.tried > 0));
}

#[test]
fn a_new_leader_is_killed_at_each_step() {
    kill_at_each_step(Victim::Successor, Duration::from_secs(20));
}

#[test]
fn an_heir_is_killed_at_each_step_of_a_handover() {
    kill_at_each_step(Victim::Heir, Duration::from_secs(10));
}

#[test]
fn a_leader_is_killed_at_each_step_of_its_handover() {
    kill_at_each_step(Victim::Leaver, Duration::from_secs(10));
}

/// For machines without strace; elsewhere it is only a few.
#[test]
fn a_new_leader_is_killed_at_random_moments() {
    let otherwise = if Tracer::is_available() { 12 } else { 60 };
    let rounds = setting("BROKER_STEPS_AT_RANDOM", otherwise);
    let mut rng = Rng::new(seed());
    let mut scene = Scene::new();
    for round in 0..rounds {
        let victim = if round % 2 == 0 {
            Victim::Successor
        } else {
            Victim::Heir
        };
        let time = Duration::from_micros(rng.below(60_000));
        scene.round(victim, &Fate::After(time));
    }
    println!("{rounds} rounds");
    scene.finish("a_new_leader_is_killed_at_random_moments", &BTreeMap::new());
}
