//! [`Hub`]: what the connections of one server share: its stage, its limits and who is there.
//!
//! A change of stage wakes every connection through its mailbox; between changes a connection looks
//! at one atomic number and takes no lock.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::status::Figures;
use crate::session::{Stage, Terms};
use crate::store::{Mailbox, Relay, SessionId, Store, wake_all};
use crate::sync::{Arc, AtomicBool, AtomicU64, Mutex, Ordering, lock, read, write};

/// What the connections of one server share.
pub(super) struct Hub<S: Store> {
    /// Limits and identity.
    pub(super) terms: Arc<Terms>,
    /// Stage and figures.
    figures: Arc<Figures<S>>,
    last_id: AtomicU64,
    /// In an order that a simulator can repeat.
    lines: Mutex<BTreeMap<SessionId, Arc<Line>>>,
    /// Wakes the connections, on the runtime that they all run on.
    relay: Arc<Relay>,
    /// A connection has ended, or has nothing under way any more.
    moved: Notify,
    connections_max: usize,
}

/// One connection, as the server sees it.
#[derive(Debug)]
struct Line {
    mailbox: Arc<Mailbox>,
    /// Nothing is under way for it that a leaving server has to finish.
    settled: AtomicBool,
}

/// A connection's place in the hub; dropping it gives the place back.
pub(super) struct Place<S: Store> {
    hub: Arc<Hub<S>>,
    id: SessionId,
    line: Arc<Line>,
}

impl<S: Store> Hub<S> {
    pub(super) fn new(
        terms: Arc<Terms>,
        figures: Arc<Figures<S>>,
        connections_max: usize,
    ) -> Arc<Self> {
        Arc::new(Self {
            terms,
            figures,
            last_id: AtomicU64::new(0),
            lines: Mutex::default(),
            relay: Relay::new(),
            moved: Notify::new(),
            connections_max,
        })
    }

    /// Time since the server began.
    pub(super) fn now(&self) -> Duration {
        self.figures.started.elapsed()
    }

    /// The instant at a time since the server began.
    pub(super) fn instant(&self, at: Duration) -> Instant {
        self.figures.started + at
    }

    /// A number for the next connection.
    pub(super) fn next_id(&self) -> SessionId {
        SessionId(self.last_id.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// Counts the changes of the stage.
    pub(super) fn generation(&self) -> u64 {
        self.figures.generation.load(Ordering::Acquire)
    }

    /// The stage now, with the number of its change.
    pub(super) fn stage(&self) -> (u64, Stage<S>) {
        // The number first: a change in between is then seen again, never missed.
        let generation = self.generation();
        (generation, read(&self.figures.stage).clone())
    }

    /// Changes the stage and wakes all connections.
    pub(super) fn set_stage(&self, stage: Stage<S>) {
        *write(&self.figures.stage) = stage;
        self.figures.generation.fetch_add(1, Ordering::Release);
        let lines = lock(&self.lines);
        let mut mailboxes = lines
            .values()
            .map(|line| Arc::clone(&line.mailbox))
            .collect();
        drop(lines);
        wake_all(&mut mailboxes);
    }

    /// Wakes connections when many have to be woken. Runs on their runtime, for as long as that does.
    pub(super) fn relay(&self) -> impl Future<Output = ()> + Send + 'static {
        Arc::clone(&self.relay).run()
    }

    /// Gives a connection its place, unless there are too many; then it says how many are allowed.
    pub(super) fn enter(
        self: &Arc<Self>,
        id: SessionId,
        mailbox: &Arc<Mailbox>,
    ) -> Result<Place<S>, usize> {
        let mut lines = lock(&self.lines);
        if lines.len() >= self.connections_max {
            return Err(self.connections_max);
        }
        mailbox.set_relay(&self.relay);
        let line = Arc::new(Line {
            mailbox: Arc::clone(mailbox),
            settled: AtomicBool::new(false),
        });
        lines.insert(id, Arc::clone(&line));
        self.figures
            .connections
            .store(lines.len() as u64, Ordering::Relaxed);
        Ok(Place {
            hub: Arc::clone(self),
            id,
            line,
        })
    }

    /// Waits until no connection has anything under way.
    pub(super) async fn settled(&self) {
        self.when(|lines| {
            lines
                .values()
                .all(|line| line.settled.load(Ordering::Acquire))
        })
        .await;
    }

    /// Waits until no connection is left.
    pub(super) async fn empty(&self) {
        self.when(BTreeMap::is_empty).await;
    }

    async fn when(&self, is: impl Fn(&BTreeMap<SessionId, Arc<Line>>) -> bool) {
        loop {
            let moved = self.moved.notified();
            tokio::pin!(moved);
            // Before looking: what moves after the look is then noticed.
            moved.as_mut().enable();
            if is(&lock(&self.lines)) {
                return;
            }
            moved.await;
        }
    }
}

impl<S: Store> Place<S> {
    /// Says that nothing is under way for this connection, now that no new work is taken.
    pub(super) fn settle(&self) {
        if !self.line.settled.swap(true, Ordering::AcqRel) {
            self.hub.moved.notify_waiters();
        }
    }
}

impl<S: Store> Drop for Place<S> {
    fn drop(&mut self) {
        let mut lines = lock(&self.hub.lines);
        lines.remove(&self.id);
        self.hub
            .figures
            .connections
            .store(lines.len() as u64, Ordering::Relaxed);
        drop(lines);
        self.hub.moved.notify_waiters();
    }
}

impl<S: Store> fmt::Debug for Hub<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hub")
            .field("connections", &lock(&self.lines).len())
            .finish_non_exhaustive()
    }
}
