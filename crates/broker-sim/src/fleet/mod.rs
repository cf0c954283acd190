//! A fleet: [`agent`](crate::agent)s as child processes, that are killed and started again, and what became of their rooms.
//!
//! ```text
//!  Fleet --- start, restart ---> agent --- lines on stdout ---> Fleet
//!        --- SIGKILL, SIGTERM -->        --- history file ----> Checker
//! ```
//! Only own children are killed, by their process id while they are not waited for, so that it cannot be another's. Whatever
//! happens to the fleet, its children end: it kills them when it is dropped, and they leave when their stdin closes.

mod cache;
mod child;
mod end;
mod spread;
mod trace;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use broker_core::dir::{Liveness, Lock, StoreDir, SystemProbe};
use rustix::process::Signal;

use self::child::{Life, Word};
use crate::agent::{Work, agent_name};
use crate::history::check::{Checker, Verdict};
use crate::history::monotonic_nanos;
use crate::history::pause::{Acks, Pause};

pub use self::cache::{bytes_below, drop_cache};
pub use self::end::{heads, read_final};
pub use self::spread::Spread;
pub use self::trace::{Ended, Sighting, Step, Tracer};

/// How long anything may take before the fleet gives up: far longer than a take-over, on a machine that is busy.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// How agents are started.
#[derive(Debug, Clone)]
pub struct Program {
    /// The program.
    pub path: PathBuf,
    /// What comes before an agent's arguments.
    pub args: Vec<OsString>,
}

impl Program {
    /// A program that is an agent.
    #[must_use]
    pub fn agent(path: impl Into<PathBuf>) -> Self {
        let (path, args) = (path.into(), Vec::new());
        Self { path, args }
    }
}

/// A kill of a leader, or its orderly end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// When the signal was sent, by [`monotonic_nanos`].
    pub at: u64,
    /// The leader's term.
    pub term: u64,
    /// Whether it was told to leave in order.
    pub in_order: bool,
}

/// A leader as the fleet sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leader {
    /// Which agent.
    pub agent: usize,
    /// Its term.
    pub term: u64,
}

#[derive(Debug)]
struct Member {
    work: Work,
    /// How often it was started.
    lives: u32,
    life: Option<Life>,
    /// The last term in which its current life said that it follows.
    follows: u64,
}

/// Agents at one store.
#[derive(Debug)]
pub struct Fleet {
    program: Program,
    dir: PathBuf,
    store: Option<StoreDir>,
    histories: PathBuf,
    members: Vec<Member>,
    words: Receiver<Word>,
    speaker: Sender<Word>,
    changes: Vec<Change>,
    /// The newest term in which somebody said that it leads, and who.
    led: Option<Leader>,
    /// The newest term in which an ack came.
    acked: u64,
}

impl Fleet {
    /// A fleet without agents, for a store and histories in `parent`, which is a directory of its own.
    ///
    /// # Errors
    /// The directories cannot be made.
    pub fn new(program: Program, parent: &Path) -> io::Result<Self> {
        let histories = parent.join("histories");
        std::fs::create_dir_all(&histories)?;
        let (speaker, words) = channel();
        Ok(Self {
            program,
            dir: parent.join("store"),
            store: None,
            histories,
            members: Vec::new(),
            words,
            speaker,
            changes: Vec::new(),
            led: None,
            acked: 0,
        })
    }

    /// The store.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// How many agents there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Adds an agent and starts it; its number.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(&mut self, work: Work) -> anyhow::Result<usize> {
        let agent = self.members.len();
        self.members.push(Member {
            work,
            lives: 0,
            life: None,
            follows: 0,
        });
        self.restart(agent)?;
        Ok(agent)
    }

    /// Starts an agent that has ended again; it goes on reading where its last life stopped.
    ///
    /// # Errors
    /// It runs, or cannot be started.
    pub fn restart(&mut self, agent: usize) -> anyhow::Result<()> {
        let Some(member) = self.members.get_mut(agent) else {
            bail!("there is no agent {agent}");
        };
        ensure!(member.life.is_none(), "agent {agent} runs");
        let from = match member.lives {
            0 => Vec::new(),
            last => child::read_upto(&history(&self.histories, agent, last), &member.work)?,
        };
        member.lives += 1;
        member.follows = 0;
        let launch = child::Launch {
            program: &self.program,
            dir: &self.dir,
            history: &history(&self.histories, agent, member.lives),
            errors: &self.histories.join(format!("a{agent:03}.err")),
            agent,
            number: member.lives,
            work: &member.work,
            from: &from,
        };
        member.life = Some(launch.start(self.speaker.clone())?);
        Ok(())
    }

    /// Starts all agents that are not running.
    ///
    /// # Errors
    /// As [`restart`](Self::restart).
    pub fn restart_all(&mut self) -> anyhow::Result<()> {
        for agent in 0..self.members.len() {
            if !self.is_running(agent) {
                self.restart(agent)?;
            }
        }
        Ok(())
    }

    /// Whether an agent was started and not ended by the fleet.
    #[must_use]
    pub fn is_running(&self, agent: usize) -> bool {
        self.members
            .get(agent)
            .is_some_and(|member| member.life.is_some())
    }

    /// The process id of an agent, while it runs.
    #[must_use]
    pub fn pid(&self, agent: usize) -> Option<u32> {
        Some(self.members.get(agent)?.life.as_ref()?.pid())
    }

    /// Who leads, by what the holder of the lock wrote into it: also one that has not yet begun to serve.
    ///
    /// # Errors
    /// The lock's file cannot be read.
    pub fn holder(&mut self) -> anyhow::Result<Option<Leader>> {
        if self.store.is_none() {
            self.store = Some(StoreDir::open(&self.dir, &SystemProbe)?);
        }
        let Some(store) = &self.store else {
            return Ok(None);
        };
        let Some(holder) = Lock::holder(store)? else {
            return Ok(None);
        };
        if holder.process.liveness() != Liveness::Running {
            return Ok(None);
        }
        let pid = Some(holder.process.pid);
        let agent = (0..self.members.len()).find(|agent| self.pid(*agent) == pid);
        Ok(agent.map(|agent| Leader {
            agent,
            term: holder.term.get(),
        }))
    }

    /// Kills an agent with SIGKILL and waits for its end. Returns when the signal was sent.
    ///
    /// # Errors
    /// It does not run.
    pub fn kill(&mut self, agent: usize) -> anyhow::Result<u64> {
        let life = self
            .members
            .get_mut(agent)
            .and_then(|member| member.life.take());
        let mut life = life.with_context(|| format!("agent {agent} does not run"))?;
        let at = monotonic_nanos();
        life.signal(Signal::KILL)?;
        life.wait(PATIENCE)?;
        Ok(at)
    }

    /// Stops an agent, with SIGSTOP, until it is [`thaw`](Self::thaw)ed.
    ///
    /// # Errors
    /// It does not run.
    pub fn freeze(&self, agent: usize) -> anyhow::Result<()> {
        self.signal(agent, Signal::STOP)
    }

    /// Lets a stopped agent go on.
    ///
    /// # Errors
    /// It does not run.
    pub fn thaw(&self, agent: usize) -> anyhow::Result<()> {
        self.signal(agent, Signal::CONT)
    }

    fn signal(&self, agent: usize, signal: Signal) -> anyhow::Result<()> {
        let member = self.members.get(agent);
        let life = member.and_then(|member| member.life.as_ref());
        let life = life.with_context(|| format!("agent {agent} does not run"))?;
        Ok(life.signal(signal)?)
    }

    /// Kills the leader, with SIGKILL, and remembers when.
    ///
    /// # Errors
    /// It does not run.
    pub fn kill_leader(&mut self, leader: Leader) -> anyhow::Result<Change> {
        let at = self.kill(leader.agent)?;
        Ok(self.changed(at, leader.term, false))
    }

    /// Tells the leader to leave in order, with SIGTERM, and remembers when. It is not waited for.
    ///
    /// # Errors
    /// It does not run.
    pub fn dismiss_leader(&mut self, leader: Leader) -> anyhow::Result<Change> {
        let member = self.members.get_mut(leader.agent);
        let life = member.and_then(|member| member.life.as_mut());
        let life = life.with_context(|| format!("agent {} does not run", leader.agent))?;
        let at = monotonic_nanos();
        life.signal(Signal::TERM)?;
        life.expect_end();
        Ok(self.changed(at, leader.term, true))
    }

    /// Waits until a dismissed agent has ended in order.
    ///
    /// # Errors
    /// It does not end, or says that something failed.
    pub fn await_end(&mut self, agent: usize) -> anyhow::Result<()> {
        let life = self
            .members
            .get_mut(agent)
            .and_then(|member| member.life.take());
        let mut life = life.with_context(|| format!("agent {agent} does not run"))?;
        life.close();
        let status = life.wait(PATIENCE)?;
        ensure!(
            status.success(),
            "agent {agent} ends with {status}\n{}",
            self.errors(agent)
        );
        Ok(())
    }

    fn changed(&mut self, at: u64, term: u64, in_order: bool) -> Change {
        let change = Change { at, term, in_order };
        self.changes.push(change);
        change
    }

    /// What an agent wrote to its stderr.
    fn errors(&self, agent: usize) -> String {
        let path = self.histories.join(format!("a{agent:03}.err"));
        let text = std::fs::read(path).unwrap_or_default();
        let tail = text.split_at(text.len().saturating_sub(4_000)).1;
        String::from_utf8_lossy(tail).into_owned()
    }

    /// Takes the next line of an agent, and remembers what it tells about leaders.
    fn hear(&mut self, deadline: Instant) -> anyhow::Result<Word> {
        let left = deadline.saturating_duration_since(Instant::now());
        let Ok(word) = self.words.recv_timeout(left) else {
            bail!(
                "the agents say nothing more; {:?} led, acks of term {}; running: {:?}",
                self.led,
                self.acked,
                (0..self.len())
                    .filter(|agent| self.is_running(*agent))
                    .collect::<Vec<_>>(),
            );
        };
        self.heed(&word)?;
        Ok(word)
    }

    /// Takes all lines that are there already.
    fn hear_all(&mut self) -> anyhow::Result<()> {
        while let Ok(word) = self.words.try_recv() {
            self.heed(&word)?;
        }
        Ok(())
    }

    fn heed(&mut self, word: &Word) -> anyhow::Result<()> {
        let member = self.members.get(word.agent);
        let current = member.is_some_and(|member| member.lives == word.life);
        let Some(line) = &word.line else {
            let life = member.and_then(|member| member.life.as_ref());
            if current && life.is_some_and(|life| !life.is_expected_to_end()) {
                bail!(
                    "agent {} ends by itself\n{}",
                    word.agent,
                    self.errors(word.agent)
                );
            }
            return Ok(());
        };
        let number = |kind| line.strip_prefix(kind).and_then(|term| term.parse().ok());
        if let (Some(term), true) = (number("following term "), current)
            && let Some(member) = self.members.get_mut(word.agent)
        {
            member.follows = term;
        }
        if let Some(term) = number("leading term ")
            && self.led.is_none_or(|led| led.term < term)
        {
            let agent = word.agent;
            self.led = Some(Leader { agent, term });
        }
        if let Some(term) = number("acks term ") {
            self.acked = self.acked.max(term);
        }
        Ok(())
    }

    /// Waits until somebody says that it leads in a term after `term`.
    ///
    /// # Errors
    /// Nobody does in [`PATIENCE`], or an agent ended by itself.
    pub fn await_leader(&mut self, term: u64) -> anyhow::Result<Leader> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.led {
                Some(led) if led.term > term => return Ok(led),
                _ => self.hear(deadline).context("waiting for a leader")?,
            };
        }
    }

    /// Waits until this agent says that it leads in a term after `term`.
    ///
    /// # Errors
    /// As [`await_leader`](Self::await_leader).
    pub fn await_lead_of(&mut self, agent: usize, term: u64) -> anyhow::Result<Leader> {
        let mut led = self.await_leader(term)?;
        while led.agent != agent {
            let other = format!("agent {} leads, not {agent}", led.agent);
            led = self.await_leader(led.term).context(other)?;
        }
        Ok(led)
    }

    /// Waits until an agent is connected to the leader of this term, or of a later one.
    ///
    /// # Errors
    /// It is not in [`PATIENCE`], or an agent ended by itself.
    pub fn await_follower(&mut self, agent: usize, term: u64) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.members.get(agent) {
                None => bail!("there is no agent {agent}"),
                Some(member) if member.follows >= term => return Ok(()),
                Some(_) => self.hear(deadline).context("waiting for a follower")?,
            };
        }
    }

    /// Whether an agent was answered in a term after `term`, by what the agents have said so far.
    ///
    /// # Errors
    /// An agent ended by itself.
    pub fn has_acks(&mut self, term: u64) -> anyhow::Result<bool> {
        self.hear_all()?;
        Ok(self.acked > term)
    }

    /// The newest term in which somebody said that it leads; 0 before the first.
    #[must_use]
    pub fn newest_term(&self) -> u64 {
        self.led.map_or(0, |led| led.term)
    }

    /// Waits until an agent was answered in a term after `term`.
    ///
    /// # Errors
    /// Nobody was in [`PATIENCE`], or an agent ended by itself.
    pub fn await_acks(&mut self, term: u64) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while self.acked <= term {
            self.hear(deadline).context("waiting for an ack")?;
        }
        Ok(())
    }

    /// Waits until each of these agents has said this.
    fn await_words(&mut self, mut missing: BTreeSet<(usize, String)>) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !missing.is_empty() {
            let word = self
                .hear(deadline)
                .with_context(|| format!("waiting for {missing:?}"))?;
            if let Some(line) = word.line {
                missing.remove(&(word.agent, line));
            }
        }
        Ok(())
    }

    /// Waits until an agent has sent all that it was to send.
    ///
    /// # Errors
    /// It does not say so in `patience`, or an agent ended by itself.
    pub fn await_sent(&mut self, agent: usize, patience: Duration) -> anyhow::Result<()> {
        let deadline = Instant::now() + patience;
        loop {
            let word = self.hear(deadline).context("waiting for all to be sent")?;
            if word.agent == agent && word.line.is_some_and(|line| line.starts_with("sent ")) {
                return Ok(());
            }
        }
    }

    /// Lets all agents finish and leave in order: senders rest, readers read to the end of their rooms, then all go.
    ///
    /// # Errors
    /// An agent does not do so, or ends with a failure.
    pub fn finish(&mut self) -> anyhow::Result<()> {
        let running: Vec<usize> = (0..self.len())
            .filter(|agent| self.is_running(*agent))
            .collect();
        let mut resting = BTreeSet::new();
        for agent in running.iter().copied() {
            self.tell(agent, "rest")?;
            resting.insert((agent, "resting".to_owned()));
        }
        self.await_words(resting)?;
        let heads = heads(&self.dir)?;
        let mut reading = BTreeSet::new();
        for agent in running.iter().copied() {
            let Some(work) = self.members.get(agent).map(|member| member.work.clone()) else {
                continue;
            };
            for room in work.rooms.iter().filter(|_| work.subscribe) {
                let head = heads.get(room).copied().unwrap_or(0);
                self.tell(agent, &format!("await {room} {head}"))?;
                reading.insert((agent, format!("has {room} {head}")));
            }
        }
        self.await_words(reading)?;
        for agent in running {
            self.await_end(agent)?;
        }
        Ok(())
    }

    fn tell(&mut self, agent: usize, line: &str) -> anyhow::Result<()> {
        let life = self
            .members
            .get_mut(agent)
            .and_then(|member| member.life.as_mut());
        life.with_context(|| format!("agent {agent} does not run"))?
            .tell(line)
            .with_context(|| format!("agent {agent} cannot be told"))
    }

    /// Checks everything that was written down, against what the rooms hold now. For after [`finish`](Self::finish).
    ///
    /// # Errors
    /// The store or a history cannot be read.
    pub fn check(&self) -> anyhow::Result<Verdict> {
        let cursors: Vec<(String, String)> = self
            .members
            .iter()
            .enumerate()
            .filter(|(_, member)| member.work.subscribe && member.work.cursor_every > 0)
            .flat_map(|(agent, member)| {
                let rooms = member.work.rooms.iter();
                rooms.map(move |room| (room.clone(), agent_name(agent)))
            })
            .collect();
        let mut checker = Checker::new(read_final(&self.dir, &cursors)?);
        for path in self.history_paths() {
            checker.file(&path)?;
        }
        Ok(checker.finish())
    }

    /// All acks that were written down.
    ///
    /// # Errors
    /// A history cannot be read.
    pub fn acks(&self) -> anyhow::Result<Acks> {
        let mut acks = Acks::default();
        for path in self.history_paths() {
            acks.file(&path)?;
        }
        Ok(acks)
    }

    /// The histories that were begun: a process may be killed before it has opened its own.
    fn history_paths(&self) -> impl Iterator<Item = PathBuf> {
        let members = self.members.iter().enumerate();
        let all = members.flat_map(move |(agent, member)| {
            (1..=member.lives).map(move |life| history(&self.histories, agent, life))
        });
        all.filter(|path| path.exists())
    }

    /// The changes of leader that the fleet caused.
    #[must_use]
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// What followed each kill of a leader, up to the next change; `None` when that came before anybody was answered.
    ///
    /// # Errors
    /// A history cannot be read.
    pub fn pauses(&self) -> anyhow::Result<Vec<Option<Pause>>> {
        let mut acks = self.acks()?;
        let next = self.changes.iter().skip(1).map(|change| change.at);
        let changes = self.changes.iter().zip(next.chain([u64::MAX]));
        Ok(changes
            .filter(|(change, _)| !change.in_order)
            .map(|(change, until)| acks.pause(change.at, change.term, until))
            .collect())
    }

    /// From the last ack of the old leader to the first of the new one, for each leader that left in order.
    ///
    /// # Errors
    /// A history cannot be read.
    pub fn handovers(&self) -> anyhow::Result<Vec<Option<Duration>>> {
        let mut acks = self.acks()?;
        let next = self.changes.iter().skip(1).map(|change| change.at);
        let changes = self.changes.iter().zip(next.chain([u64::MAX]));
        Ok(changes
            .filter(|(change, _)| change.in_order)
            .map(|(change, until)| acks.handover(change.at, change.term, until))
            .collect())
    }
}

fn history(histories: &Path, agent: usize, life: u32) -> PathBuf {
    histories.join(format!("a{agent:03}.{life:04}.history"))
}
