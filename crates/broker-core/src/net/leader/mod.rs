//! [`Leader`]: the holder of a store's lock, with the store open and its doors.
//!
//! The order is the promise. In: lock, bind and listen, greet, recover, welcome. Out: find an heir, no
//! new connections and publishes, finish those under way, close the store with its mark, pass lock
//! and listeners on or close them, and only then goodbye: whoever hears it finds the lock free or
//! the heir at work. All of leaving runs on the server's own runtime, so that an application that is
//! busy can still be relieved.

mod port;
mod recovery;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use broker_proto::{ErrorCode, Micros, StoreId, Term};
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep, timeout};

use super::client::{Error, ErrorKind, Result};
use super::config::{Config, Listen, Role};
use super::server::{Doors, Server, ServerConfig};
use super::warden::{Candidate, Estate, Stage as Vital, Vitals, Warden};
use crate::clock::{Clock, SystemClock};
use crate::dir::{DirError, ExitClass, Holder, Lock, ProcessId, SOCKET_NAME, StoreDir};
use crate::log::storage::FileStorage;
use crate::log::{FEATURE_LEVEL, RecoveryError};
use crate::planted::{Bug, planted};
use crate::session::Farewell;
use crate::store::{EmbeddedStore, Store};
use crate::sync::{Arc, Mutex, Weak, lock};

use recovery::{Recovery, on_a_thread};

/// The store that a node serves.
pub(super) type Stored = EmbeddedStore<FileStorage>;

/// When clients of a leader that left shall look for the next one, in milliseconds.
const RETRY_AFTER_MS: u32 = 2;

/// How long goodbyes may take, when the lock is released already.
const FAREWELL_PATIENCE: Duration = Duration::from_secs(2);

/// How long publishes under way are finished when an heir waits. Whoever is not done by then asks the
/// heir, and gets the same answer.
const DRAIN_FOR_HEIR: Duration = Duration::from_millis(250);

/// How long the store may take to leave less for the heir to read.
const SHORTEN_PATIENCE: Duration = Duration::from_secs(1);

/// Between two looks at a claim that could not be answered by a hand-over.
const CLAIM_PAUSE: Duration = Duration::from_millis(50);

/// How long a leader with a planted bug goes on without its lock.
const STILL_SERVED: Duration = Duration::from_millis(20);

/// What a leader begins with.
#[derive(Debug)]
pub(super) enum Start {
    /// The lock was free.
    Free(Lock),
    /// The leader before has passed it on, with its doors.
    Inherited(Lock, Doors),
}

/// Why a leader leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    /// Its process does.
    Leaving,
    /// Another process has asked to lead. When that is not there any more, the leader stays.
    Claimed,
}

/// The holder of the lock.
pub(super) struct Leader {
    /// `None` once it leaves.
    parts: Mutex<Option<Parts>>,
    server: Arc<Server<Stored>>,
    vitals: Arc<Vitals>,
    /// `None` without doors, and once it has left.
    warden: Mutex<Option<Arc<Warden>>>,
    holder: Holder,
    address: port::Address,
    patience: Duration,
    /// One departure at a time.
    departing: tokio::sync::Mutex<()>,
    /// Becomes true when the lock is released or passed on.
    left: watch::Sender<bool>,
    /// Becomes true when the directory is found moved.
    moved: watch::Receiver<bool>,
}

/// What must end in this order: the store, then the lock. Dropping it blocks until the store is
/// closed, in every path.
struct Parts {
    store: Arc<Stored>,
    /// `None` only while it is being dropped or released.
    lock: Option<Lock>,
    dir: Arc<StoreDir>,
}

impl Parts {
    /// Closes the store and gives the lock out. Blocks.
    fn release(mut self) -> Option<Lock> {
        self.store.close();
        self.lock.take()
    }

    /// Says who leads.
    fn publish(&self, holder: &Holder) -> Result<()> {
        match &self.lock {
            Some(lock) => lock
                .publish(holder)
                .map_err(|error| cannot_publish(&self.dir, error)),
            None => Ok(()),
        }
    }
}

impl Drop for Parts {
    fn drop(&mut self) {
        // The fields are dropped after this: only then may somebody else write.
        self.store.close();
    }
}

impl Leader {
    /// Leads: opens the doors, then the store. `at_the_door` is told of the server as soon as it
    /// greets; [`welcome`](Self::welcome) lets everybody in.
    pub(super) async fn start(
        config: &Config,
        dir: Arc<StoreDir>,
        start: Start,
        at_the_door: impl FnOnce(Weak<Server<Stored>>),
    ) -> Result<Arc<Self>> {
        let (lock, doors) = match start {
            Start::Free(lock) => (lock, Doors::default()),
            Start::Inherited(lock, doors) => (lock, doors),
        };
        let server = Arc::new(start_server(config)?);
        let shown = dir.path().join(SOCKET_NAME);
        open_socket(&server, &dir, shown.clone(), doors.unix)
            .map_err(|error| disk(format!("cannot listen at {}", shown.display()), error))?;
        at_the_door(Arc::downgrade(&server));
        let vitals = Vitals::new(config.role.number(), &config.build);
        let warden = match Warden::start(&dir, Arc::clone(&vitals)) {
            Ok(warden) => Some(Arc::new(warden)),
            Err(error) => {
                // It serves all the same; but nobody can stand by.
                tracing::warn!(%error, "cannot say how this leader is, nor hand over");
                None
            }
        };
        let inside = Inside {
            server,
            vitals,
            warden,
            socket: Some(shown),
        };
        let leader = Self::open(config, dir, lock, inside, doors.tcp).await?;
        leader.answer_claims();
        Ok(leader)
    }

    /// Leads without any door: only this process reaches the store. [`welcome`](Self::welcome) comes
    /// next.
    pub(super) async fn start_alone(
        config: &Config,
        dir: Arc<StoreDir>,
        lock: Lock,
    ) -> Result<Arc<Self>> {
        let inside = Inside {
            server: Arc::new(start_server(config)?),
            vitals: Vitals::new(config.role.number(), &config.build),
            warden: None,
            socket: None,
        };
        Self::open(config, dir, lock, inside, None).await
    }

    async fn open(
        config: &Config,
        dir: Arc<StoreDir>,
        lock: Lock,
        inside: Inside,
        passed: Option<OwnedFd>,
    ) -> Result<Arc<Self>> {
        // Who led before, for the store's address and to tell who leads while the log is read.
        let last = Lock::holder(&dir).ok().flatten();
        let wanted = port::wanted(config, last.as_ref());
        let mut holder = introduce(config, last.as_ref(), inside.socket.as_deref());
        lock.announce(&holder)
            .map_err(|error| cannot_publish(&dir, error))?;
        let server = inside.server;
        let address = port::Address::default();
        let opening = Recovery {
            dir: Arc::clone(&dir),
            server: Arc::clone(&server),
            payload_bytes_max: config.payload_bytes_max,
            scrub_every: config.scrub_every,
            last_term: holder.term,
            last_leader: recovery::last_leader(last.as_ref(), &holder.process),
        };
        // The store first: should nobody wait for the answer any more, it is closed before the lock.
        let (listening, opened) = tokio::join!(
            port::open(config, &server, wanted, passed, &address),
            on_a_thread(move || (opening.open(&lock), lock)),
        );
        let (opened, lock) = opened?;
        let opened = opened.and_then(|store| listening.map(|()| store));
        let store = match opened {
            Ok(store) => store,
            Err(error) => {
                refuse_all(&server, &error).await;
                return Err(error);
            }
        };
        let parts = Parts {
            store: Arc::clone(&store),
            lock: Some(lock),
            dir,
        };
        let info = store.info();
        holder.term = info.term;
        holder.store = info.store;
        let at = *crate::sync::lock(&address);
        holder.tcp = stored_address(config, last.as_ref(), at);
        parts.publish(&holder)?;
        let (tell, moved) = watch::channel(false);
        store.when_moved(move || {
            tell.send_replace(true);
        });
        inside.vitals.set_term(info.term);
        inside.vitals.set_pulse(store.pulse());
        // The holder's address is the store's, which it keeps also when nobody listens there.
        let tcp =
            (*crate::sync::lock(&address)).map_or_else(|| "none".to_owned(), |at| at.to_string());
        let dir = parts.dir.path().display();
        tracing::info!(store = %info.store, term = %info.term, %dir, %tcp, "leading");
        Ok(Arc::new(Self {
            parts: Mutex::new(Some(parts)),
            server,
            vitals: inside.vitals,
            warden: Mutex::new(inside.warden),
            holder,
            address,
            patience: config.timeout,
            departing: tokio::sync::Mutex::default(),
            left: watch::Sender::new(false),
            moved,
        }))
    }

    /// Welcomes everybody who waits at the doors.
    pub(super) fn welcome(&self) {
        // Unless it has left already.
        if let Some(parts) = &*lock(&self.parts) {
            self.vitals.set_stage(Vital::Serving);
            self.server.serve(Arc::clone(&parts.store));
        }
    }

    /// Hands over when a daemon asks for it.
    fn answer_claims(self: &Arc<Self>) {
        let Some(warden) = lock(&self.warden).as_ref().map(Arc::downgrade) else {
            return;
        };
        let (leader, mut left) = (Arc::downgrade(self), self.left.subscribe());
        self.server.spawn(async move {
            loop {
                // Held only meanwhile: the lines of those who stand by end with it.
                let Some(warden) = warden.upgrade() else {
                    return;
                };
                tokio::select! {
                    biased;
                    _ = left.wait_for(|left| *left) => return,
                    () = warden.claimed() => drop(warden),
                }
                let Some(leader) = leader.upgrade() else {
                    return;
                };
                if let Err(error) = leader.depart(Why::Claimed).await {
                    tracing::error!(%error, "could not hand over in order");
                }
                drop(leader);
                // It may not have been ready, or may be gone again.
                sleep(CLAIM_PAUSE).await;
            }
        });
    }

    /// Waits until the lock is released or passed on.
    pub(super) async fn left(&self) {
        // The sender is in here.
        let mut left = self.left.subscribe();
        let _left = left.wait_for(|left| *left).await;
    }

    /// Waits until the directory is found to have been moved or replaced; perhaps for ever.
    pub(super) async fn moved(&self) {
        if self.moved.clone().wait_for(|moved| *moved).await.is_err() {
            // The store has ended without it.
            std::future::pending::<()>().await;
        }
    }

    /// Where it listens for TCP connections.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        *lock(&self.address)
    }

    /// Its term.
    pub(super) fn term(&self) -> Term {
        self.holder.term
    }

    /// Its server, for connections from within the process.
    pub(super) fn server(&self) -> Weak<Server<Stored>> {
        Arc::downgrade(&self.server)
    }

    /// What a person should know of it.
    pub(super) fn warnings(&self) -> Vec<String> {
        self.server.warnings()
    }

    /// Leaves in order; somebody who stands by takes over at once. Dropping the future does not stop
    /// the leaving.
    pub(super) async fn leave(self: &Arc<Self>) -> Result<()> {
        let (done, result) = oneshot::channel();
        let leader = Arc::clone(self);
        self.server.spawn(async move {
            // Whoever asked may have gone away.
            let _nobody_waits = done.send(leader.depart(Why::Leaving).await);
        });
        // An error means that the server has ended, and with it the one who was leaving already.
        let departed = result.await.unwrap_or(Ok(()));
        self.server.stop().await;
        departed
    }

    /// Finds an heir, finishes, closes, passes on, and says goodbye.
    async fn depart(&self, why: Why) -> Result<()> {
        let _one_at_a_time = self.departing.lock().await;
        let mut heir = self.heir(why).await;
        if heir.is_none() && why == Why::Claimed {
            return Ok(());
        }
        let Some(mut parts) = lock(&self.parts).take() else {
            return Ok(());
        };
        self.let_go_early(&mut parts, &mut heir).await;
        if heir.is_some() {
            shorten_replay(&parts.store).await;
        }
        let begun = Instant::now();
        self.vitals.set_stage(Vital::Draining);
        let patience = match heir {
            Some(_) => DRAIN_FOR_HEIR.min(self.patience),
            None => {
                // Nobody will accept who waits at the doors.
                drop(self.server.take_doors());
                self.patience
            }
        };
        if !self.server.finish(Arc::clone(&parts.store), patience).await {
            tracing::warn!(
                "some publishes had no answer in time; their senders will ask the next leader"
            );
        }
        let drained = begun.elapsed();
        let released = on_a_thread(move || parts.release()).await;
        let (held, closed) = match released {
            Ok(held) => (held, Ok(())),
            Err(error) => (None, Err(error)),
        };
        tracing::debug!(?drained, closed = ?begun.elapsed(), "the store is closed");
        // Asked again: it has taken a while, and who was stopped meanwhile would keep the lock.
        let heir = match heir {
            Some(heir) => self.still_ready(heir).await,
            None => None,
        };
        let successor = heir.as_ref().map(called).unwrap_or_default();
        let held = self.name_successor(held, &successor).await;
        self.pass_on(heir, held).await;
        let farewell = Farewell {
            code: ErrorCode::GOING_AWAY,
            retry_after_ms: RETRY_AFTER_MS,
            // No other address: whoever leads next is found at the same doors.
            ..Farewell::default()
        };
        self.server.farewell(farewell, FAREWELL_PATIENCE).await;
        tracing::info!(term = %self.holder.term, "left the store in order");
        closed
    }

    /// What two planted bugs do: the lock goes while the store is still served and written.
    async fn let_go_early(&self, parts: &mut Parts, heir: &mut Option<Candidate>) {
        if planted(Bug::LockDroppedBeforeLastWrite) {
            parts.lock = None;
            drop(lock(&self.warden).take());
            sleep(STILL_SERVED).await;
        }
        if planted(Bug::EstateKept) {
            let held = parts.lock.take();
            self.pass_on(heir.take(), held).await;
            sleep(STILL_SERVED).await;
        }
    }

    /// Who is ready to lead next. Nobody is when the disk has failed: they would only fail on it too,
    /// so it takes a person to end this process. Who has claimed the lead is the only one to get it
    /// for that.
    async fn heir(&self, why: Why) -> Option<Candidate> {
        let warden = lock(&self.warden).clone()?;
        let failed = match &*lock(&self.parts) {
            Some(parts) => parts.store.info().read_only.is_some(),
            None => true,
        };
        if failed {
            return None;
        }
        match why {
            Why::Leaving => warden.offer(FEATURE_LEVEL).await,
            Why::Claimed => warden.offer_to_claimants(FEATURE_LEVEL).await,
        }
    }

    /// The heir, or whoever is ready in its place.
    async fn still_ready(&self, heir: Candidate) -> Option<Candidate> {
        let warden = lock(&self.warden).clone()?;
        warden.offer_again(FEATURE_LEVEL, heir).await
    }

    /// Writes into the lock file who leads next, if somebody does.
    async fn name_successor(&self, held: Option<Lock>, successor: &str) -> Option<Lock> {
        let held = held?;
        if successor.is_empty() {
            return Some(held);
        }
        let holder = Holder {
            successor: successor.to_owned(),
            ..self.holder.clone()
        };
        let named = on_a_thread(move || {
            if let Err(error) = held.announce(&holder) {
                tracing::warn!(%error, "could not write down who leads next");
            }
            held
        });
        // Without a thread for it the lock is free, and whoever tries it leads.
        named.await.ok()
    }

    /// Gives the lock to the heir, or lets it go. Nothing is written by this process from here on,
    /// whether the heir received it or not: both would hold the one lock.
    async fn pass_on(&self, heir: Option<Candidate>, held: Option<Lock>) {
        let warden = lock(&self.warden).take();
        match (heir, held, &warden) {
            (Some(heir), Some(held), Some(warden)) => {
                tracing::info!(to = called(&heir), "handing over");
                let Doors { unix, tcp } = self.server.take_doors();
                let lock = held.into_fd();
                if let Err(error) = warden.pass(heir, Estate { lock, unix, tcp }).await {
                    tracing::warn!(%error, "who was to lead next has gone; the others try the lock");
                }
            }
            (_, held, _) => {
                // The port first: whoever has the lock next wants it.
                drop(self.server.take_doors());
                drop(held);
            }
        }
        self.vitals.set_stage(Vital::Left);
        // Those who stand by hear of it by the end of their lines: now, when there is a lock to try.
        drop(warden);
        self.left.send_replace(true);
    }
}

/// A leader that is dropped without [`Leader::leave`] still closes the store before the lock, on a
/// thread of its own, so that no runtime waits for the disk. If the process ends first, that is a
/// crash, and nothing that was acknowledged is lost.
impl Drop for Leader {
    fn drop(&mut self) {
        let warden = lock(&self.warden).take();
        let Some(parts) = lock(&self.parts).take() else {
            return;
        };
        self.server.cut();
        let ending = thread::Builder::new()
            .name("broker-close".to_owned())
            .spawn(move || {
                drop(parts);
                drop(warden);
            });
        if let Err(error) = ending {
            tracing::warn!(%error, "closed the store without a thread of its own");
        }
    }
}

impl fmt::Debug for Leader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Leader")
            .field("term", &self.holder.term)
            .finish_non_exhaustive()
    }
}

/// Has the store leave little to read for the heir, while it is served still.
async fn shorten_replay(store: &Stored) {
    let (done, shortened) = oneshot::channel();
    store.shorten_replay(move || {
        // Nobody waits when it took too long.
        let _late = done.send(());
    });
    let _in_time = timeout(SHORTEN_PATIENCE, shortened).await;
}

/// What a leader has before its store is open.
struct Inside {
    server: Arc<Server<Stored>>,
    vitals: Arc<Vitals>,
    warden: Option<Arc<Warden>>,
    /// Where its Unix socket is, if it has one.
    socket: Option<PathBuf>,
}

fn open_socket(
    server: &Server<Stored>,
    dir: &StoreDir,
    shown: PathBuf,
    passed: Option<OwnedFd>,
) -> io::Result<()> {
    match passed {
        Some(passed) => server.inherit_unix(passed, shown),
        None => server.listen_unix(|name| dir.bindable(name), SOCKET_NAME, shown),
    }
}

/// How an heir is called in the lock file and in logs.
fn called(heir: &Candidate) -> String {
    format!("pid {} ({})", heir.pid, heir.build)
}

/// Starts the server of a leader.
fn start_server(config: &Config) -> Result<Server<Stored>> {
    let server = ServerConfig {
        build: config.build.clone(),
        role: config.role.as_str(),
        ..ServerConfig::default()
    };
    Server::start(server).map_err(|error| {
        Error::new(ErrorKind::Disk, "cannot start the server's threads").with_source(error)
    })
}

/// The store's address. It stays through leaders that do not listen there: it is the store's, not
/// theirs. A daemon sets it, others only when nobody has.
fn stored_address(config: &Config, last: Option<&Holder>, own: Option<SocketAddr>) -> String {
    let stored = last
        .map(|last| last.tcp.clone())
        .filter(|tcp| !tcp.is_empty());
    let own = match config.listen {
        Listen::At(asked) if asked.port() == 0 => None,
        _ => own.map(|address| address.to_string()),
    };
    if config.role == Role::ServeAlways {
        own.or(stored).unwrap_or_default()
    } else {
        stored.or(own).unwrap_or_default()
    }
}

/// What the lock file says of this process while it opens the store.
fn introduce(config: &Config, last: Option<&Holder>, socket: Option<&Path>) -> Holder {
    // A longer path than the kernel takes does not fit into the block either; it is found by its name.
    let socket = socket
        .and_then(Path::to_str)
        .filter(|path| path.len() <= 107)
        .unwrap_or_default()
        .to_owned();
    Holder {
        process: ProcessId::current(),
        // The real one is known when the log is read; until then the last one says least wrong.
        term: last.map_or(Term::default(), |last| last.term),
        role: config.role.number(),
        fencing_allowed: config.fencing_allowed(),
        since: now(),
        store: last.map_or(StoreId::NONE, |last| last.store),
        build: config.build.clone(),
        tcp: stored_address(config, last, None),
        socket,
        successor: String::new(),
    }
}

fn cannot_publish(dir: &StoreDir, error: io::Error) -> Error {
    disk(
        format!("cannot write the lock file in {}", dir.path().display()),
        error,
    )
}

/// Tells everybody who waits why the store cannot be opened.
async fn refuse_all(server: &Server<Stored>, error: &Error) {
    let mut detail = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        detail = format!("{detail}: {cause}");
        source = cause.source();
    }
    let farewell = Farewell {
        code: ErrorCode::INTERNAL,
        detail,
        ..Farewell::default()
    };
    server.farewell(farewell, FAREWELL_PATIENCE).await;
    server.stop().await;
}

fn now() -> Micros {
    SystemClock::new().now()
}

fn disk(text: String, error: io::Error) -> Error {
    Error::new(ErrorKind::Disk, text).with_source(error)
}

/// A directory that cannot be used, or a lock that is held.
pub(super) fn dir_error(error: DirError) -> Error {
    let kind = match error.exit_class() {
        ExitClass::Held => ErrorKind::Locked,
        ExitClass::RefusedConfig => ErrorKind::Usage,
        _ => ErrorKind::Disk,
    };
    Error::new(kind, "the data directory cannot be used").with_source(error)
}

/// How a daemon that meets this error should end, when a directory or a log is the cause.
pub(super) fn exit_class(error: &Error) -> Option<ExitClass> {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<RecoveryError>() {
            return Some(error.exit_class());
        }
        if let Some(error) = error.downcast_ref::<DirError>() {
            return Some(error.exit_class());
        }
        cause = error.source();
    }
    None
}

/// The store's directory, checked and held open.
pub(super) fn open_dir(path: &Path) -> Result<Arc<StoreDir>> {
    StoreDir::open(path, &crate::dir::SystemProbe)
        .map(Arc::new)
        .map_err(dir_error)
}
