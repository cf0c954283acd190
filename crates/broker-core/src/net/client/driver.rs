//! The connection task: connects, serves the connection, and connects again, until the client is closed.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

use broker_proto::{ProducerId, Term};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use super::connector::Connector;
use super::error::{Error, ErrorKind, Result};
use super::greet::{Greeted, Known, greet};
use super::link::{End, Link, patience};
use super::retry::Backoff;
use super::shared::Shared;
use super::stall;
use super::state::State;

/// How long an idle task sleeps when nothing is due; it is woken for everything that happens.
const LONG: Duration = Duration::from_secs(3600);
/// Longest wait that a broker can ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(5);

/// Closes the client when the runtime drops its task.
struct CloseOnDrop(Arc<Shared>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.close(Some(Error::new(
            ErrorKind::Closed,
            "the runtime that served the client was shut down",
        )));
    }
}

/// Ends a task with the one that began it.
struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Serves a client to its end. With `gives_up`, a first connection that cannot be made in time closes it.
pub(super) async fn run(shared: Arc<Shared>, connector: Connector, gives_up: bool) {
    let guard = CloseOnDrop(Arc::clone(&shared));
    let watching = stall::watch(Arc::clone(&shared), connector.clone());
    let _watching = AbortOnDrop(tokio::spawn(watching));
    let cause = Driver::new(&shared, connector, gives_up).run().await;
    shared.close(cause);
    drop(guard);
}

struct Driver<'a> {
    shared: &'a Arc<Shared>,
    connector: Connector,
    /// Until when the first connection has to be made.
    give_up_at: Option<Instant>,
    known: Known,
    connected_before: bool,
    backoff: Backoff,
    /// When the last connection ended.
    lost_at: Instant,
    /// When the last good connection ended.
    away_since: Instant,
}

impl<'a> Driver<'a> {
    fn new(shared: &'a Arc<Shared>, connector: Connector, gives_up: bool) -> Self {
        let now = Instant::now();
        Self {
            shared,
            connector,
            give_up_at: gives_up.then(|| now + shared.config.timeout),
            known: Known {
                store: shared.config.known_store,
                term: Term::default(),
            },
            connected_before: false,
            backoff: Backoff::new(shared.config.bits_64()),
            lost_at: now,
            away_since: now,
        }
    }

    /// Runs until the client is closed; tells why when it was not asked to.
    async fn run(mut self) -> Option<Error> {
        loop {
            let attempt = tokio::select! {
                biased;
                () = oversee(self.shared) => return None,
                attempt = self.attempt() => attempt,
            };
            let cause = match attempt {
                Ok(greeted) => match self.serve(greeted).await {
                    End::Finished => return None,
                    End::Lost(cause) => cause,
                },
                Err(cause) => cause,
            };
            if self.is_final(&cause) {
                return Some(cause);
            }
            self.lost(&cause);
            let asked = cause.retry_after().unwrap_or_default().min(RETRY_AFTER_MAX);
            let wait = self.backoff.wait(self.away_since.elapsed()).max(asked);
            tokio::select! {
                biased;
                () = oversee(self.shared) => return None,
                () = sleep_until(Instant::now() + wait) => {}
            }
        }
    }

    /// Whether there is no use in trying again.
    fn is_final(&self, cause: &Error) -> bool {
        if cause.is_final() {
            return true;
        }
        // Later something else may stand in for the broker for a moment; at first it is a wrong address.
        let wrong_peer = !self.connected_before && cause.kind() == ErrorKind::Protocol;
        let moved = self.shared.core().moved();
        let late = self
            .give_up_at
            .is_some_and(|at| Instant::now() >= at.max(moved + self.shared.config.timeout));
        self.give_up_at.is_some() && (wrong_peer || late)
    }

    async fn attempt(&mut self) -> Result<Greeted> {
        let mut wakes = Vec::new();
        // Drawn before the lock is taken: asking the system for it may take a while.
        let drawn = ProducerId::new(self.shared.config.bytes_16());
        let now = self.shared.config.clock.now();
        let producer = self.shared.core().prepare(now, drawn, &mut wakes);
        wakes.into_iter().for_each(Waker::wake);
        let mut patience = patience(self.shared.config.timeout);
        if let Some(at) = self.give_up_at {
            patience = patience.min(
                at.saturating_duration_since(Instant::now())
                    .max(Duration::from_millis(10)),
            );
        }
        greet(self.shared, &self.connector, producer, self.known, patience).await
    }

    async fn serve(&mut self, greeted: Greeted) -> End {
        self.give_up_at = None;
        self.known = Known {
            store: greeted.server.store,
            term: greeted.server.term,
        };
        let away = self.connected_before.then(|| self.lost_at.elapsed());
        self.connected_before = true;
        tracing::debug!(
            address = self.shared.address,
            store = %greeted.server.store,
            term = %greeted.server.term,
            connection = greeted.server.connection,
            "connected"
        );
        let leads = self.connector.leads(greeted.server.pid);
        self.shared.went_live(greeted.server.clone(), away, leads);
        let (end, useful) = Link::new(self.shared, greeted).run().await;
        self.lost_at = Instant::now();
        // After a connection that brought something the attempts start with the shortest wait; one that is only ever
        // accepted and dropped is tried more and more rarely.
        if useful {
            self.backoff.reset();
            self.away_since = self.lost_at;
        }
        end
    }

    /// Remembers and tells why there is no connection.
    fn lost(&self, cause: &Error) {
        tracing::debug!(address = self.shared.address, %cause, "not connected");
        self.shared.core().go_dark(cause.clone());
        // A broker that is silent over several connections is told of as such.
        if self.connected_before && !self.shared.silences.is_silent() {
            self.shared.state.send_replace(State::Disconnected {
                cause: cause.clone(),
            });
        }
        self.shared.silences.lost();
    }
}

/// Looks after the clock while there is no connection; ends when the client is closed and nothing waits for one.
async fn oversee(shared: &Shared) {
    let mut timer = pin!(sleep_until(Instant::now() + LONG));
    poll_fn(|cx| {
        loop {
            let now = Instant::now();
            let mut wakes = Vec::new();
            let (done, deadline) = {
                let mut core = shared.core();
                core.sleep(cx);
                let deadline = core.deadline(shared.config.timeout);
                if deadline.is_some_and(|deadline| deadline <= now) {
                    core.expire(shared, now, &mut wakes);
                }
                (core.is_done(), core.deadline(shared.config.timeout))
            };
            wakes.into_iter().for_each(Waker::wake);
            if done {
                return Poll::Ready(());
            }
            timer.as_mut().reset(deadline.unwrap_or(now + LONG));
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
    })
    .await;
}
