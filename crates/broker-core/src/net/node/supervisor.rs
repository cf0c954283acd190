//! [`Supervisor`]: the task of a node that stands by while another process leads, and leads when it
//! can.
//!
//! While another process leads it waits at the end of a [`Line`] and does nothing: no timer, no
//! polling. The line ends with the leader's process, or brings what the leader leaves.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::connector::Place;
use super::pace::Pace;
use crate::dir::{DirError, ExitClass, Lock, LockError, StoreDir};
use crate::log::FEATURE_LEVEL;
use crate::net::client::{Error, ErrorKind, Result, State};
use crate::net::config::{Config, Role};
use crate::net::leader::{Leader, Start, dir_error, exit_class};
use crate::net::server::Doors;
use crate::net::warden::{Estate, Intent, Line, News};
use crate::sync::Arc;

/// How long opening a line may take: the leader's system answers, even when the leader hangs.
const LINE_PATIENCE: Duration = Duration::from_millis(200);

/// How long a node that could not open the store leaves the lead to others, at first and at most.
const REST: Duration = Duration::from_secs(1);
const REST_MAX: Duration = Duration::from_secs(60);

/// What a node is asked to do. Each is answered when it is done.
#[derive(Debug)]
pub(super) enum Command {
    /// Leads no more until it may again.
    Pause(oneshot::Sender<Result<()>>),
    /// May lead again.
    Resume(oneshot::Sender<Result<()>>),
    /// Leaves for good.
    Leave(oneshot::Sender<Result<()>>),
}

/// How a node stands to its store, for everybody in the process.
#[derive(Debug, Clone, Default)]
pub(super) struct Standing {
    /// The leader, while it is this process.
    pub(super) leader: Option<Arc<Leader>>,
    /// Why this process could not lead when it was its turn.
    pub(super) failure: Option<Error>,
}

/// What can happen while this process does not lead.
enum Event {
    /// It leads from now on.
    Lead(Start),
    /// The node is left.
    End,
}

/// See the module's documentation.
pub(super) struct Supervisor {
    pub(super) config: Config,
    pub(super) dir: Arc<StoreDir>,
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) place: watch::Sender<Place>,
    pub(super) standing: watch::Sender<Standing>,
    /// How the node's client is connected.
    pub(super) state: watch::Receiver<State>,
    /// Whether this build may lead the store at all.
    pub(super) may_lead: bool,
    pub(super) rest: Rest,
}

/// When a node that failed may try again.
#[derive(Debug, Default)]
pub(super) struct Rest {
    paused: bool,
    until: Option<Instant>,
    failures: u32,
}

impl Supervisor {
    /// Runs until the node is left.
    pub(super) async fn run(mut self, mut leader: Option<Arc<Leader>>) {
        loop {
            if let Some(leading) = leader.take() {
                let ended = self.preside(leading).await;
                if ended {
                    return;
                }
            }
            match self.follow().await {
                Event::End => return,
                Event::Lead(start) => leader = self.take_over(start).await,
            }
        }
    }

    /// Leads until the lead is passed on or given up; tells whether the node has ended.
    async fn preside(&mut self, leader: Arc<Leader>) -> bool {
        let (ended, answer) = loop {
            let command = tokio::select! {
                biased;
                command = self.commands.recv() => command,
                () = leader.left() => break (false, None),
            };
            match command {
                Some(Command::Leave(answer)) => break (true, Some(answer)),
                Some(Command::Pause(answer)) => {
                    self.rest.paused = true;
                    break (false, Some(answer));
                }
                Some(Command::Resume(answer)) => {
                    let _nobody_waits = answer.send(Ok(()));
                }
                // The node was dropped: nobody waits for the end.
                None => {
                    self.step_back();
                    return true;
                }
            }
        };
        let left = self.leave(&leader).await;
        if let Err(error) = &left {
            tracing::error!(%error, "the store was not closed in order");
        }
        if let Some(answer) = answer {
            let _nobody_waits = answer.send(left);
        }
        ended
    }

    /// Leaves in order. Goodbyes may take a while; this process's own client looks elsewhere as soon
    /// as the lock is gone.
    async fn leave(&self, leader: &Arc<Leader>) -> Result<()> {
        let leaving = leader.leave();
        tokio::pin!(leaving);
        tokio::select! {
            biased;
            () = leader.left() => {}
            left = &mut leaving => {
                self.step_back();
                return left;
            }
        }
        self.step_back();
        leaving.await
    }

    fn step_back(&self) {
        self.standing.send_modify(|standing| standing.leader = None);
        self.place.send_replace(Place::Elsewhere);
    }

    /// Opens the store. A failure leaves the lead to others for a while.
    async fn take_over(&mut self, start: Start) -> Option<Arc<Leader>> {
        let begun = Instant::now();
        let place = &self.place;
        let started = Leader::start(&self.config, Arc::clone(&self.dir), start, |server| {
            place.send_replace(Place::Here(server));
        });
        match started.await {
            Ok(leader) => {
                tracing::info!(term = %leader.term(), took = ?begun.elapsed(), "took over");
                self.rest.failures = 0;
                self.standing.send_replace(Standing {
                    leader: Some(Arc::clone(&leader)),
                    failure: None,
                });
                // Last: who sees the client's state say so can rely on the rest.
                leader.welcome();
                Some(leader)
            }
            Err(error) => {
                self.place.send_replace(Place::Elsewhere);
                self.failed(error);
                None
            }
        }
    }

    fn failed(&mut self, error: Error) {
        if exit_class(&error) == Some(ExitClass::NewerFormat) {
            tracing::warn!(%error, "this build cannot lead the store");
            self.may_lead = false;
        } else {
            let rest = REST
                .saturating_mul(1 << self.rest.failures.min(6))
                .min(REST_MAX);
            self.rest.failures = self.rest.failures.saturating_add(1);
            self.rest.until = Some(Instant::now() + rest);
            tracing::error!(%error, ?rest, "cannot lead the store; leaving it to others");
        }
        self.standing
            .send_modify(|standing| standing.failure = Some(error));
    }

    /// Waits until this process is to lead.
    async fn follow(&mut self) -> Event {
        let mut pace = Pace::default();
        loop {
            if let Some(until) = self.rests_until() {
                if self.wait(until).await {
                    return Event::End;
                }
                continue;
            }
            match Lock::try_acquire(&self.dir) {
                Ok(lock) => return Event::Lead(Start::Free(lock)),
                Err(LockError::Held { .. }) => {}
                Err(error) => {
                    self.failed(dir_error(error.into()));
                    continue;
                }
            }
            let waited = if self.config.role == Role::OneShot {
                self.wait_for_disconnection().await
            } else {
                self.stand_by().await
            };
            match waited {
                Waited::Ended => pace = Pace::default(),
                Waited::Nobody => {
                    if self.wait(Some(Instant::now() + pace.next())).await {
                        return Event::End;
                    }
                }
                Waited::Lead(start) => return Event::Lead(start),
                Waited::Left => return Event::End,
                Waited::Told => {}
            }
        }
    }

    /// Until when this process may not lead: `Some(None)` is without an end.
    fn rests_until(&mut self) -> Option<Option<Instant>> {
        if self.rest.paused || !self.may_lead {
            return Some(None);
        }
        self.rest.until = self.rest.until.filter(|until| *until > Instant::now());
        self.rest.until.map(Some)
    }

    /// Waits, for ever without an instant; tells whether the node has ended.
    async fn wait(&mut self, until: Option<Instant>) -> bool {
        let command = tokio::select! {
            biased;
            command = self.commands.recv() => command,
            () = at(until) => return false,
        };
        self.obey(command)
    }

    /// Does as asked while another process leads; tells whether the node has ended.
    fn obey(&mut self, command: Option<Command>) -> bool {
        let (answer, ended) = match command {
            None => return true,
            Some(Command::Leave(answer)) => (answer, true),
            Some(Command::Pause(answer)) => {
                self.rest.paused = true;
                (answer, false)
            }
            Some(Command::Resume(answer)) => {
                self.rest.paused = false;
                (answer, false)
            }
        };
        let _nobody_waits = answer.send(Ok(()));
        ended
    }

    /// Holds a line to the leader until that ends, or passes the lead on.
    async fn stand_by(&mut self) -> Waited {
        let Some(mut line) = open_line(&self.dir, &self.config, Intent::StandBy).await else {
            return Waited::Nobody;
        };
        let news = tokio::select! {
            biased;
            command = self.commands.recv() => {
                // The line ends first: who pauses must not be offered the lead any more.
                drop(line);
                return if self.obey(command) { Waited::Left } else { Waited::Told };
            }
            news = line.next() => news,
        };
        match news {
            News::Inherited(estate) => match adopt(&self.dir, estate) {
                Ok(start) => Waited::Lead(start),
                Err(error) => {
                    tracing::warn!(%error, "what the leader has passed on is not the lock of this store");
                    Waited::Ended
                }
            },
            News::Ended => Waited::Ended,
            // It does not want anybody to stand by.
            News::Refused(_) => Waited::Nobody,
        }
    }

    /// A short command holds no line; it tries to lead when its connection is lost.
    async fn wait_for_disconnection(&mut self) -> Waited {
        if !self.state.borrow().is_connected() {
            return Waited::Nobody;
        }
        let command = tokio::select! {
            biased;
            command = self.commands.recv() => command,
            changed = self.state.wait_for(|state| !state.is_connected()) => {
                return if changed.is_ok() { Waited::Ended } else { Waited::Left };
            }
        };
        if self.obey(command) {
            Waited::Left
        } else {
            Waited::Told
        }
    }
}

/// What came of waiting while another process leads.
enum Waited {
    /// The leader is gone.
    Ended,
    /// There is nobody to wait for.
    Nobody,
    /// It is this process's turn.
    Lead(Start),
    /// The node has ended.
    Left,
    /// A command was obeyed.
    Told,
}

async fn at(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

/// A line to the leader; `None` when nobody answers there.
pub(super) async fn open_line(dir: &StoreDir, config: &Config, intent: Intent) -> Option<Line> {
    let opening = Line::open(dir, intent, &config.build, FEATURE_LEVEL);
    timeout(LINE_PATIENCE, opening).await.ok()?.ok()
}

/// Takes what a leader has passed on.
pub(super) fn adopt(dir: &StoreDir, estate: Estate) -> Result<Start> {
    let Estate { lock, unix, tcp } = estate;
    let lock = Lock::adopt(dir, lock).map_err(|error| dir_error(error.into()))?;
    Ok(Start::Inherited(lock, Doors { unix, tcp }))
}

/// Asks an application that leads to pass the lead on to this daemon; tells who holds the lock when
/// it does not.
pub(super) async fn claim(dir: &StoreDir, config: &Config, patience: Duration) -> Result<Start> {
    let deadline = Instant::now() + patience;
    let mut pace = Pace::default();
    loop {
        let held = match Lock::try_acquire(dir) {
            Ok(lock) => return Ok(Start::Free(lock)),
            Err(held @ LockError::Held { .. }) => held,
            Err(error) => return Err(dir_error(error.into())),
        };
        if let Some(mut line) = open_line(dir, config, Intent::Claim).await {
            tokio::select! {
                news = line.next() => match news {
                    News::Inherited(estate) => return adopt(dir, estate),
                    News::Refused(reason) => {
                        tracing::debug!(reason, "the leader does not pass the lead on");
                        return Err(dir_error(held.explained(dir).into()));
                    }
                    News::Ended => {}
                },
                () = sleep_until(deadline) => {}
            }
        }
        if Instant::now() >= deadline {
            let text = format!(
                "the store in {} is led by a process that neither ended nor passed the lead on within {patience:?}",
                dir.path().display()
            );
            return Err(Error::new(ErrorKind::Locked, text)
                .with_source(DirError::from(held.explained(dir))));
        }
        sleep(pace.next()).await;
    }
}
