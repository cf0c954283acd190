//! `broker demo --takeover`: agents that share a store, and a leader that is killed again and again.
//!
//! This process only watches: it starts the agents, kills whoever leads, follows the room with a
//! client of its own and holds every acknowledgement against what is stored: while it goes on, and
//! once more at the end, when all have left and the room is read from the disk.

use std::collections::VecDeque;
use std::env;
use std::path::Path;
use std::time::Duration;

use broker_core::{Item, Node, Role, StartAt, Subscription};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};

use super::checker::{Checker, Claim, Findings};
use super::crew::{Crew, Told};
use super::report::{Report, now_ns};
use super::screen::{Screen, Standing};
use super::tally::{Pauses, Summary, Takeover};
use super::{ROOM, broken};
use crate::args::DemoArgs;
use crate::config::{Chosen, Config, Listen, Target};
use crate::connect::{Link, Stay, unless_stopped};
use crate::exit::{Exit, Failure};
use crate::scratch::Scratch;
use crate::signals::Stop;
use crate::units;

/// Agents at a time.
const AGENTS: usize = 5;
const KILLS_DEFAULT: u32 = 10;
/// Each leaves a segment of 1 MiB.
const KILLS_MAX: u32 = 1000;
/// Messages a second of each agent.
const RATE_DEFAULT: u32 = 400;
const RATE_MAX: u32 = 10_000;
/// Between two kills.
const EVERY_DEFAULT: Duration = Duration::from_millis(1500);
/// How often the screen is drawn.
const DRAW_EVERY: Duration = Duration::from_millis(100);
/// Over how many of those the rate is taken.
const DRAWS: usize = 10;
/// A page of what is read back.
const PAGE_MESSAGES: u32 = 10_000;
const PAGE_BYTES: u32 = 1 << 20;

/// What is to be done.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    kills: u32,
    /// Messages a second of each agent.
    pub(super) rate: u32,
    every: Duration,
    json: bool,
}

impl Plan {
    /// Judges what was typed.
    pub(super) fn new(config: &Config, args: &DemoArgs) -> Result<Self, Failure> {
        if args.takeover && args.agent.is_none() && config.chosen == Chosen::Flag {
            return Err(Failure::usage(
                "demo --takeover kills whoever leads, so it makes a store of its own, in TMPDIR or /tmp: leave out --data and --server",
            ));
        }
        let every = match &args.every {
            None => EVERY_DEFAULT,
            Some(text) => units::duration(text, false).ok_or_else(|| {
                Failure::usage(format!("--every takes a time such as 1500ms, not '{text}'"))
            })?,
        };
        let within = |name: &str, number: Option<u32>, default, max| match number {
            Some(number) if number == 0 || number > max => Err(Failure::usage(format!(
                "{name} takes 1 to {max}, not {number}"
            ))),
            number => Ok(number.unwrap_or(default)),
        };
        Ok(Self {
            kills: within("--kills", args.kills, KILLS_DEFAULT, KILLS_MAX)?,
            rate: within("--rate", args.rate, RATE_DEFAULT, RATE_MAX)?,
            every,
            json: args.json,
        })
    }
}

/// Runs the demo.
pub(super) async fn run(config: &Config, plan: Plan, mut stop: Stop) -> Result<(), Failure> {
    let scratch = Scratch::new(&env::temp_dir(), "broker-demo")
        .map_err(|error| broken("make a directory for the demo", &error))?;
    let mut config = config.clone();
    config.target = Target::Store(scratch.path().to_owned());
    config.listen = Listen::None;
    let mut screen = Screen::new(plan.json);
    let played = unless_stopped(&mut stop, play(&config, scratch.path(), plan, &mut screen)).await;
    // The processes have ended with the play.
    drop(scratch);
    let findings = played?;
    if findings.is_clean() {
        return Ok(());
    }
    let words = format!("violation: {}", findings.first.unwrap_or_default());
    Err(Failure::new(Exit::Protocol, words))
}

async fn play(
    config: &Config,
    dir: &Path,
    plan: Plan,
    screen: &mut Screen,
) -> Result<Findings, Failure> {
    screen.begin(AGENTS, plan.rate, plan.kills)?;
    let mut stage = Stage {
        crew: Crew::new(dir, plan.rate, config)?,
        screen,
        patience: config.timeout,
        messages: None,
        checker: Checker::default(),
        claims: Vec::new(),
        current: None,
        acked: 0,
        last: 0,
        samples: VecDeque::new(),
        doing: "the agents start".to_owned(),
    };
    for place in 0..AGENTS {
        stage.crew.start(place)?;
    }
    stage.until("the agents to send", Stage::all_send).await?;
    let watcher = watch(config, dir).await?;
    let room = watcher.client().room(ROOM)?;
    stage.messages = Some(room.subscribe(StartAt::START).wait(true).await?);
    let mut takeovers = Vec::new();
    for number in 1..=plan.kills {
        stage.doing = format!("next: kill {number} of {}", plan.kills);
        stage.go_on(plan.every).await?;
        takeovers.push(stage.kill(number).await?);
    }
    stage.doing = "the agents finish".to_owned();
    stage
        .go_on(plan.every.min(Duration::from_millis(500)))
        .await?;
    stage.finish().await?;
    drop(room);
    watcher.shutdown().await?;
    let checker = stage.read_back(config).await?;
    let stored = checker.head();
    let findings = checker.finish();
    let summary = Summary {
        agents: AGENTS,
        started: stage.crew.started(),
        rate: plan.rate,
        acked: stage.acked,
        stored,
        first: Pauses::of(takeovers.iter().map(Takeover::first)),
        all: Pauses::of(takeovers.iter().map(Takeover::all)),
        kills: takeovers.len(),
        findings: findings.clone(),
    };
    stage.screen.end(&summary)?;
    Ok(findings)
}

/// A client of whoever leads.
async fn watch(config: &Config, dir: &Path) -> Result<Node, Failure> {
    let node = broker_core::Config::new(dir)
        .role(Role::ClientOnly)
        .sender(config.sender.as_str())
        .timeout(config.timeout);
    Ok(Node::join(node).await?)
}

/// What goes on.
struct Stage<'a> {
    crew: Crew,
    screen: &'a mut Screen,
    /// How long nothing may move.
    patience: Duration,
    /// The room as this process follows it.
    messages: Option<Subscription>,
    /// What is checked while it goes on.
    checker: Checker,
    /// What the agents told, to be checked again at the end.
    claims: Vec<Claim>,
    /// The take-over under way.
    current: Option<Takeover>,
    acked: u64,
    /// The last seq that was acknowledged.
    last: u64,
    /// How many messages had been acknowledged, at each of the last draws.
    samples: VecDeque<(Instant, u64)>,
    doing: String,
}

impl Stage<'_> {
    /// Lets it go on for a while.
    async fn go_on(&mut self, time: Duration) -> Result<(), Failure> {
        self.run(Instant::now() + time, |_| false).await?;
        Ok(())
    }

    /// Lets it go on until something holds, which must be in time.
    async fn until(&mut self, what: &str, holds: fn(&Self) -> bool) -> Result<(), Failure> {
        if self.run(Instant::now() + self.patience, holds).await? {
            return Ok(());
        }
        Err(Failure::new(
            Exit::TimedOut,
            format!("waited for {what}, {:?} in vain", self.patience),
        ))
    }

    /// Lets it go on until then, or until something holds; tells whether it does.
    async fn run(&mut self, end: Instant, holds: fn(&Self) -> bool) -> Result<bool, Failure> {
        let mut draw = interval(DRAW_EVERY);
        draw.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !holds(self) {
            tokio::select! {
                told = self.crew.next() => self.hear(told)?,
                item = next(&mut self.messages) => self.read(item)?,
                _ = draw.tick() => self.draw()?,
                () = sleep_until(end) => return Ok(false),
            }
        }
        Ok(true)
    }

    fn hear(&mut self, (number, report): Told) -> Result<(), Failure> {
        if let Some(Report::Acked {
            at,
            term,
            first,
            seqs,
        }) = &report
        {
            // Also of one that was killed since.
            for (number_of, seq) in (*first..).zip(seqs) {
                self.claim(Claim::Acked {
                    seq: *seq,
                    agent: number,
                    number: number_of,
                });
            }
            self.acked += seqs.len() as u64;
            self.last = seqs.iter().copied().fold(self.last, u64::max);
            if let Some(current) = &mut self.current {
                current.acked(number, *term, *at);
            }
        }
        if let Some(Report::Saw { seq, digest }) = report {
            self.claim(Claim::Saw {
                seq,
                agent: number,
                digest,
            });
        }
        let Some(member) = self.crew.member(number) else {
            return Ok(());
        };
        match report {
            Some(Report::Role { leads, term }) => {
                member.leads = leads;
                member.term = term;
            }
            Some(Report::Acked { seqs, .. }) => member.acked += seqs.len() as u64,
            Some(Report::Saw { seq, .. }) => member.seen = seq,
            Some(Report::Drained) => member.drained = true,
            Some(Report::Failed(words)) => {
                let words = format!("{} cannot go on: {words}", member.name);
                return Err(Failure::new(Exit::Protocol, words));
            }
            None if member.is_dismissed() => member.gone = true,
            None => {
                let words = format!("{} ended by itself", member.name);
                return Err(Failure::new(Exit::Protocol, words));
            }
        }
        Ok(())
    }

    fn claim(&mut self, claim: Claim) {
        self.checker.claim(claim);
        self.claims.push(claim);
    }

    fn read(&mut self, item: Option<broker_core::Result<Item>>) -> Result<(), Failure> {
        match item {
            Some(Ok(Item::Message(message))) => {
                let seq = message.seq.get();
                self.checker.read(seq, &message.sender, &message.payload);
                Ok(())
            }
            Some(Ok(other)) => Err(Failure::new(
                Exit::Protocol,
                format!("violation: a hole in the room: {other:?}"),
            )),
            Some(Err(error)) => Err(error.into()),
            None => Err(Failure::new(Exit::Protocol, "the subscription has ended")),
        }
    }

    /// Kills the leader, waits until every other agent goes on, and starts one in its place.
    async fn kill(&mut self, number: u32) -> Result<Takeover, Failure> {
        self.until("a leader", |stage| stage.crew.leader().is_some())
            .await?;
        let Some((place, leader)) = self.crew.leader() else {
            return Err(Failure::new(Exit::Protocol, "nobody leads"));
        };
        let killed = (leader.name.clone(), leader.pid, leader.term);
        let mut victim = self.crew.members.remove(place);
        self.current = Some(Takeover {
            number,
            killed,
            at: now_ns(),
            ..Takeover::default()
        });
        victim.kill()?;
        drop(victim);
        self.until("the others to go on", Self::has_taken_over)
            .await?;
        let mut done = self.current.take().unwrap_or_default();
        if let Some((_, leader)) = self.crew.leader() {
            done.leader = (leader.name.clone(), leader.pid, leader.term);
        }
        done.acked = self.acked;
        done.lost = self.checker.findings().lost;
        done.doubled = self.checker.findings().doubled;
        self.screen.takeover(&done)?;
        self.crew.start(place)?;
        self.until("the new agent to send", Self::all_send).await?;
        Ok(done)
    }

    fn all_send(&self) -> bool {
        let mut members = self.crew.members.iter();
        self.crew.leader().is_some() && members.all(|one| one.acked > 0)
    }

    /// Whether all who are left were answered by the next leader, which says that it is it.
    fn has_taken_over(&self) -> bool {
        self.current.as_ref().is_some_and(|current| {
            let answered = |number: &u32| current.acks.iter().any(|(one, _)| one == number);
            let members = &self.crew.members;
            members.iter().map(|one| &one.number).all(answered)
                && self
                    .crew
                    .leader()
                    .is_some_and(|(_, one)| one.term > current.killed.2)
        })
    }

    /// Lets everything be acknowledged and seen by all, then lets all leave.
    async fn finish(&mut self) -> Result<(), Failure> {
        for member in &mut self.crew.members {
            member.stop_sending()?;
        }
        self.until("the last acknowledgements", |stage| {
            stage.crew.members.iter().all(|one| one.drained)
        })
        .await?;
        // Every message before the last acknowledged one is stored, and so is that.
        self.until("everybody to see all", |stage| {
            let head = stage.last;
            let mut members = stage.crew.members.iter();
            stage.checker.head() >= head && members.all(|one| one.seen >= head)
        })
        .await?;
        self.claim(Claim::Saw {
            seq: self.checker.head(),
            agent: 0,
            digest: self.checker.digest(),
        });
        self.messages = None;
        for member in &mut self.crew.members {
            member.dismiss();
        }
        self.until("the agents to leave", |stage| {
            stage.crew.members.iter().all(|one| one.gone)
        })
        .await?;
        self.draw()
    }

    /// Reads the whole room from the disk, when nobody serves it any more, and holds all claims
    /// against it.
    async fn read_back(&self, config: &Config) -> Result<Checker, Failure> {
        let mut checker = Checker::default();
        self.claims.iter().for_each(|claim| checker.claim(*claim));
        let link = Link::open(config, Stay::OneShot).await?;
        let room = link.client().room(ROOM)?;
        let mut start = StartAt::START;
        loop {
            let page = room.read(start, PAGE_MESSAGES, PAGE_BYTES).await?;
            for message in &page.messages {
                checker.read(message.seq.get(), &message.sender, &message.payload);
            }
            if page.is_last() {
                break;
            }
            start = StartAt::position(page.next_position());
        }
        drop(room);
        timeout(self.patience, link.close())
            .await
            .unwrap_or_else(|_| Err(Failure::new(Exit::TimedOut, "the store does not close")))?;
        Ok(checker)
    }

    fn draw(&mut self) -> Result<(), Failure> {
        let now = Instant::now();
        self.samples.push_back((now, self.acked));
        while self.samples.len() > DRAWS {
            self.samples.pop_front();
        }
        let rate = self.samples.front().map_or(0, |(since, acked)| {
            let micros = now.duration_since(*since).as_micros().max(1);
            u128::from(self.acked - acked) * 1_000_000 / micros
        });
        let found = self.checker.findings();
        let members = self.crew.members.iter();
        let leader = self.crew.leader();
        self.screen.draw(&Standing {
            leader: leader.map(|(_, one)| (one.name.clone(), one.pid, one.term)),
            acked: self.acked,
            per_second: u64::try_from(rate).unwrap_or(u64::MAX),
            agents: members.map(|one| (one.name.clone(), one.acked)).collect(),
            lost: found.lost,
            doubled: found.doubled,
            doing: self.doing.clone(),
        })
    }
}

/// The next item, if there is a subscription.
async fn next(messages: &mut Option<Subscription>) -> Option<broker_core::Result<Item>> {
    match messages {
        Some(messages) => messages.next().await,
        None => std::future::pending().await,
    }
}
