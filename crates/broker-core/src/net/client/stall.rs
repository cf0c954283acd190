//! [`Stall`]: a broker that takes requests and does not answer them, and what is known of it.
//!
//! A process that is stopped still accepts connections: the kernel does. So silence alone says nothing.
//! The connection task notes how long it has lasted; a task of its own looks closer, asks the leader's
//! second socket and the system, and says what it found in the client's [`State`]. It sleeps as long as
//! answers come.
//!
//! **Invariant:** looking closer never changes what is sent or when it fails; it reads files on a
//! thread of its own, because the disk may be what hangs.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::connector::Connector;
use super::shared::Shared;
use super::state::State;
use crate::dir::{Holder, Lock, StoreDir, SystemProbe};
use crate::net::warden::{Health, Stage, Writer, ask};
use crate::sync::Arc;

/// Silence after which a broker is asked whether it is there, when an answer is waited for.
pub(super) const ASK_AFTER: Duration = Duration::from_millis(300);
/// A healthy leader answers the second socket at once; it has this long.
const HEALTH_PATIENCE: Duration = Duration::from_millis(200);
/// A call of the log's writer that lasts longer is the disk's fault.
const CALL_MAX: Duration = Duration::from_millis(300);
/// Silence of a broker that says that it is well.
const BUSY_AFTER: Duration = Duration::from_millis(1300);
/// Between two looks at a broker that is silent.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Why a broker does not answer, as far as can be told from here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum StallKind {
    /// Its process is stopped, by a signal or a debugger.
    Stopped,
    /// Its process runs, and does not even answer the question how it is.
    NotAnswering,
    /// It waits for the disk.
    DiskStalled {
        /// Since how long.
        lasting: Duration,
    },
    /// It is still opening the store.
    Starting,
    /// It says that it is well.
    Busy,
    /// There is nobody to ask: it is on another machine, or was reached by a port.
    Unknown,
}

/// A broker that does not answer. Shown, it says what is wrong and what a person can do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stall {
    address: String,
    process: Option<(u32, String)>,
    kind: StallKind,
    silent_for: Duration,
}

impl Stall {
    /// Why, as far as can be told.
    #[must_use]
    pub fn kind(&self) -> StallKind {
        self.kind
    }

    /// The leader's process, where it is known.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(|(pid, _)| *pid)
    }

    /// Name and version of the leader's program, where they are known.
    #[must_use]
    pub fn build(&self) -> Option<&str> {
        self.process.as_ref().map(|(_, build)| build.as_str())
    }

    /// How long it had been silent when this was found.
    #[must_use]
    pub fn silent_for(&self) -> Duration {
        self.silent_for
    }

    /// Whether another report would tell a person nothing new.
    fn says_the_same(&self, other: &Self) -> bool {
        self.process == other.process
            && std::mem::discriminant(&self.kind) == std::mem::discriminant(&other.kind)
    }
}

impl fmt::Display for Stall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let silent = Seconds(self.silent_for);
        let Some((pid, build)) = &self.process else {
            return write!(f, "{} has not answered for {silent}", self.address);
        };
        let who = format!("process {pid} ({build})");
        match self.kind {
            StallKind::Stopped => write!(
                f,
                "{who} is stopped: continue it with kill -CONT {pid}, or end it with kill -KILL {pid} and another process takes over"
            ),
            StallKind::NotAnswering => write!(
                f,
                "{who} has not answered for {silent}, not even how it is: wait for it, or end it with kill -KILL {pid} and another process takes over"
            ),
            StallKind::DiskStalled { lasting } => write!(
                f,
                "the disk stalled: {who} has been waiting for it for {}; nothing acknowledged is lost, and all goes on when the disk does",
                Seconds(lasting)
            ),
            StallKind::Starting => write!(
                f,
                "{who} has not answered for {silent}: it is still opening the store"
            ),
            StallKind::Busy | StallKind::Unknown => write!(
                f,
                "{who} has not answered for {silent}, and says that it is well: it is busy"
            ),
        }
    }
}

impl std::error::Error for Stall {}

/// A time as a person reads it: `320 ms`, `1.3 s`.
struct Seconds(Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 < Duration::from_secs(1) {
            write!(f, "{} ms", self.0.as_millis())
        } else {
            write!(f, "{:.1} s", self.0.as_secs_f64())
        }
    }
}

/// That answers are waited for in vain.
#[derive(Debug, Clone, Copy)]
pub(super) struct Silence {
    /// Since when.
    since: Instant,
    /// Whether the peer still answers pings.
    alive: bool,
    /// Whether the peer is gone: nothing more to look at.
    gone: bool,
}

/// Whether answers are waited for in vain, from the connection task to [`watch()`].
#[derive(Debug)]
pub(super) struct Silences(watch::Sender<Option<Silence>>);

impl Silences {
    pub(super) fn new() -> Self {
        Self(watch::Sender::new(None))
    }

    /// Nothing that is waited for has come since then. The first moment of a silence stays.
    pub(super) fn began(&self, since: Instant) {
        let silence = Silence {
            since,
            alive: false,
            gone: false,
        };
        self.0.send_if_modified(|place| {
            let fresh = place.is_none();
            place.get_or_insert(silence);
            fresh
        });
    }

    /// A ping was answered, and nothing else.
    pub(super) fn alive(&self) {
        self.0.send_if_modified(|place| {
            if let Some(silence) = place {
                silence.alive = true;
            }
            false
        });
    }

    /// The peer is gone, which is no silence. It ends when that has been told: [`Silences::lost`].
    pub(super) fn gone(&self) {
        self.0.send_if_modified(|place| {
            if let Some(silence) = place {
                silence.gone = true;
            }
            false
        });
    }

    /// It was told that the peer is gone.
    pub(super) fn lost(&self) {
        self.0
            .send_if_modified(|place| place.take_if(|silence| silence.gone).is_some());
    }

    /// What is waited for comes again.
    pub(super) fn ended(&self) {
        self.0.send_if_modified(|place| place.take().is_some());
    }

    /// Whether there is a peer that is silent.
    pub(super) fn is_silent(&self) -> bool {
        self.0.borrow().is_some_and(|silence| !silence.gone)
    }

    fn is_alive(&self) -> bool {
        self.0.borrow().is_some_and(|silence| silence.alive)
    }
}

/// Looks closer at each silence, and tells of it, until it is dropped.
pub(super) async fn watch(shared: Arc<Shared>, connector: Connector) {
    let mut silences = shared.silences.0.subscribe();
    loop {
        let since = match silences.wait_for(Option::is_some).await {
            Ok(silence) => silence.map(|silence| silence.since),
            Err(_) => return,
        };
        let Some(since) = since else {
            continue;
        };
        let before = shared.state.borrow().clone();
        let is_over =
            |silence: &Option<Silence>| silence.map(|silence| silence.since) != Some(since);
        tokio::select! {
            biased;
            _ = silences.wait_for(is_over) => {}
            () = report(&shared, &connector, since) => {}
        }
        shared.state.send_if_modified(|state| {
            let stalled = matches!(state, State::Stalled { .. });
            if stalled {
                *state = goes_on(before, since.elapsed());
            }
            stalled
        });
    }
}

/// How a connection is when answers come again.
fn goes_on(before: State, gap: Duration) -> State {
    match before {
        State::Connected { server } | State::Resumed { server, .. } => {
            State::Resumed { server, gap }
        }
        other => other,
    }
}

/// Tells what is wrong, and again when something else is. Never ends.
async fn report(shared: &Shared, connector: &Connector, since: Instant) {
    let mut told: Option<Stall> = None;
    loop {
        let next = match examine(shared, connector, since).await {
            Found::Stall(found) => {
                if told.as_ref().is_none_or(|told| !told.says_the_same(&found)) {
                    tell(shared, &found);
                    told = Some(found);
                }
                Instant::now() + LOOK_AGAIN
            }
            Found::Perhaps { look_at } => look_at,
        };
        sleep_until(next).await;
    }
}

fn tell(shared: &Shared, found: &Stall) {
    tracing::debug!(address = shared.address, %found, "stalled");
    shared.state.send_if_modified(|state| {
        let goes_on = shared.silences.is_silent() && !matches!(state, State::Closed { .. });
        if goes_on {
            *state = State::Stalled {
                report: found.clone(),
            };
        }
        goes_on
    });
}

/// What a closer look finds.
enum Found {
    Stall(Stall),
    /// Too early to say.
    Perhaps {
        look_at: Instant,
    },
}

async fn examine(shared: &Shared, connector: &Connector, since: Instant) -> Found {
    let stall = |process, kind| {
        Found::Stall(Stall {
            address: shared.address.clone(),
            process,
            kind,
            silent_for: since.elapsed(),
        })
    };
    let Some(socket) = connector.health_socket() else {
        // A peer that answers pings is given the time of one that says that it is well.
        let patience = if shared.silences.is_alive() {
            BUSY_AFTER
        } else {
            ASK_AFTER * 2
        };
        if since.elapsed() < patience {
            let look_at = since + patience;
            return Found::Perhaps { look_at };
        }
        return stall(None, StallKind::Unknown);
    };
    match look(&socket).await {
        Look::Answers(health) => {
            let process = Some((health.pid, health.build));
            match health.writer {
                Writer::InCall { lasting } if lasting > CALL_MAX => {
                    stall(process, StallKind::DiskStalled { lasting })
                }
                writer if since.elapsed() < BUSY_AFTER => {
                    let mut look_at = since + BUSY_AFTER;
                    if let Writer::InCall { lasting } = writer {
                        let late = Instant::now() + (CALL_MAX - lasting) + Duration::from_millis(1);
                        look_at = look_at.min(late);
                    }
                    Found::Perhaps { look_at }
                }
                _ if health.stage == Stage::Starting => stall(process, StallKind::Starting),
                _ => stall(process, StallKind::Busy),
            }
        }
        Look::Silent(Some(seen)) => {
            let kind = match seen.stopped {
                Some(_) => StallKind::Stopped,
                None => StallKind::NotAnswering,
            };
            let holder = seen.holder;
            stall(Some((holder.process.pid, holder.build)), kind)
        }
        Look::Silent(None) => stall(None, StallKind::Unknown),
    }
}

/// What a look at a leader finds.
enum Look {
    Answers(Health),
    /// It does not answer; who it is, if that is known.
    Silent(Option<Seen>),
}

/// The holder of the lock, as the system sees it.
struct Seen {
    holder: Holder,
    stopped: Option<crate::dir::Halt>,
}

/// Asks the leader how it is, and the system at the same time.
async fn look(socket: &Path) -> Look {
    let asked = ask(socket, HEALTH_PATIENCE);
    let seen = see(socket.to_owned());
    tokio::pin!(asked, seen);
    let mut early = None;
    let answer = tokio::select! {
        biased;
        answer = &mut asked => answer,
        found = &mut seen => {
            // Only a debugger stops a process for moments.
            let stopped = found.as_ref().and_then(|seen| seen.stopped);
            if stopped == Some(crate::dir::Halt::Signal) {
                return Look::Silent(found);
            }
            early = Some(found);
            asked.await
        }
    };
    match answer {
        Ok(health) => Look::Answers(health),
        Err(_) => Look::Silent(match early {
            Some(found) => found,
            None => seen.await,
        }),
    }
}

/// Reads who holds the lock beside this socket, on a thread of its own; not for longer than a leader
/// has to answer.
async fn see(socket: PathBuf) -> Option<Seen> {
    let (reply, seen) = oneshot::channel();
    let read = move || {
        let path = socket.parent().filter(|path| path.is_dir())?;
        let dir = StoreDir::open(path, &SystemProbe).ok()?;
        let holder = Lock::holder(&dir).ok()??;
        let stopped = holder.process.halted();
        let gone = holder.process.liveness() == crate::dir::Liveness::Gone;
        (!gone).then_some(Seen { holder, stopped })
    };
    std::thread::Builder::new()
        .name("broker-look".to_owned())
        .spawn(move || {
            let _nobody_waits = reply.send(read());
        })
        .ok()?;
    timeout(HEALTH_PATIENCE, seen).await.ok()?.ok()?
}

/// Waits for `work` for at most `patience`; a silence of more than [`ASK_AFTER`] is told.
pub(super) async fn patiently<T>(
    shared: &Shared,
    patience: Duration,
    work: impl Future<Output = T>,
) -> Option<T> {
    let began = Instant::now();
    tokio::pin!(work);
    if patience > ASK_AFTER {
        tokio::select! {
            biased;
            done = &mut work => return Some(done),
            () = sleep(ASK_AFTER) => shared.silences.began(began),
        }
    }
    tokio::time::timeout_at(began + patience, work).await.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stall(kind: StallKind) -> Stall {
        Stall {
            address: "unix:/d/sock".to_owned(),
            process: Some((4711, "brokerd 0.1.0".to_owned())),
            kind,
            silent_for: Duration::from_millis(320),
        }
    }

    #[test]
    fn a_report_says_who_what_and_what_to_do() {
        let lasting = Duration::from_millis(1250);
        for (kind, text) in [
            (
                StallKind::Stopped,
                "process 4711 (brokerd 0.1.0) is stopped: continue it with kill -CONT 4711, or end it with kill -KILL 4711 and another process takes over",
            ),
            (
                StallKind::NotAnswering,
                "process 4711 (brokerd 0.1.0) has not answered for 320 ms, not even how it is: wait for it, or end it with kill -KILL 4711 and another process takes over",
            ),
            (
                StallKind::DiskStalled { lasting },
                "the disk stalled: process 4711 (brokerd 0.1.0) has been waiting for it for 1.2 s; nothing acknowledged is lost, and all goes on when the disk does",
            ),
            (
                StallKind::Starting,
                "process 4711 (brokerd 0.1.0) has not answered for 320 ms: it is still opening the store",
            ),
            (
                StallKind::Busy,
                "process 4711 (brokerd 0.1.0) has not answered for 320 ms, and says that it is well: it is busy",
            ),
        ] {
            assert_eq!(stall(kind).to_string(), text);
        }
        let unknown = Stall {
            process: None,
            ..stall(StallKind::Unknown)
        };
        assert_eq!(
            unknown.to_string(),
            "unix:/d/sock has not answered for 320 ms"
        );
    }

    #[test]
    fn only_news_is_told_again() {
        let second = Duration::from_secs(1);
        let one = stall(StallKind::DiskStalled { lasting: second });
        let two = stall(StallKind::DiskStalled {
            lasting: second * 2,
        });
        assert!(one.says_the_same(&two));
        assert!(!one.says_the_same(&stall(StallKind::Stopped)));
    }
}
