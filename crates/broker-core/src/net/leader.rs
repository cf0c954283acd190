//! [`Leader`]: the holder of a store's lock, with the store open and its doors.
//!
//! The order is the promise. In: lock, bind and listen, greet, recover, welcome. Out: no new
//! connections and publishes, finish those under way, close the store with its mark, release the
//! lock by closing it, and only then goodbye: whoever hears it can have the lock at once.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use broker_proto::{ErrorCode, Micros, StoreId, Term};
use tokio::sync::{oneshot, watch};

use super::client::{BoxStream, Connect, Connector, Error, ErrorKind, Opening, Result};
use super::config::{Config, DEFAULT_ADDRESS, Listen, Role};
use super::server::{Server, ServerConfig};
use crate::clock::{Clock, Random, SystemClock, SystemRandom};
use crate::dir::{
    DirError, Holder, Identity, Lock, NewStore, ProcessId, SOCKET_NAME, StoreDir, listener_at,
};
use crate::log::storage::FileStorage;
use crate::session::{Farewell, Progress};
use crate::store::{EmbeddedConfig, EmbeddedStore, Store};
use crate::sync::Arc;

/// The store that a node serves.
pub(super) type Stored = EmbeddedStore<FileStorage>;

/// When clients of a leader that left shall look for the next one, in milliseconds.
const RETRY_AFTER_MS: u32 = 2;

/// How long goodbyes may take, when the lock is released already.
const FAREWELL_PATIENCE: Duration = Duration::from_secs(2);

/// Progress is told each time so much more of the log is read, in bytes.
const PROGRESS_BYTES: u64 = 16 << 20;

/// The holder of the lock.
pub(super) struct Leader {
    /// `None` only while it is being dropped or has left.
    parts: Option<Parts>,
    address: Option<SocketAddr>,
    patience: Duration,
    /// Becomes true when the directory is found moved.
    moved: watch::Receiver<bool>,
}

/// What must end in this order: the store, then the lock. Dropping it blocks until the store is
/// closed, in every path.
struct Parts {
    server: Arc<Server<Stored>>,
    store: Arc<Stored>,
    _lock: Lock,
    _dir: Arc<StoreDir>,
}

impl Drop for Parts {
    fn drop(&mut self) {
        // The fields are dropped after this: only then may somebody else write.
        self.store.close();
    }
}

impl Leader {
    /// Leads: opens the doors, then the store, then welcomes.
    pub(super) async fn start(config: &Config, dir: Arc<StoreDir>, lock: Lock) -> Result<Self> {
        let server = start_server(config)?;
        let place = |name: &str| dir.bindable(name);
        let shown = dir.path().join(SOCKET_NAME);
        server
            .listen_unix(place, SOCKET_NAME, shown.clone())
            .map_err(|error| disk(format!("cannot listen at {}", shown.display()), error))?;
        Self::open(config, dir, lock, server, Some(shown)).await
    }

    /// Leads without any door: only this process reaches the store.
    pub(super) async fn start_alone(
        config: &Config,
        dir: Arc<StoreDir>,
        lock: Lock,
    ) -> Result<Self> {
        let server = start_server(config)?;
        Self::open(config, dir, lock, server, None).await
    }

    async fn open(
        config: &Config,
        dir: Arc<StoreDir>,
        lock: Lock,
        server: Server<Stored>,
        socket: Option<PathBuf>,
    ) -> Result<Self> {
        // Who led before, for the store's address and to tell who leads while the log is read.
        let last = Lock::holder(&dir).ok().flatten();
        let address = open_port(config, &server, last.as_ref())?;
        let mut holder = introduce(config, last.as_ref(), address, socket.as_deref());
        publish(&lock, &holder, &dir)?;
        let server = Arc::new(server);
        let opening = Recovery {
            dir: Arc::clone(&dir),
            server: Arc::clone(&server),
            payload_bytes_max: config.payload_bytes_max,
            last_term: holder.term,
        };
        // The store first: should nobody wait for the answer any more, it is closed before the lock.
        let (opened, lock) = on_a_thread(move || (opening.open(&lock), lock)).await?;
        let store = match opened {
            Ok(store) => store,
            Err(error) => {
                refuse_all(&server, &error).await;
                return Err(error);
            }
        };
        let info = store.info();
        holder.term = info.term;
        holder.store = info.store;
        publish(&lock, &holder, &dir)?;
        let (tell, moved) = watch::channel(false);
        store.when_moved(move || {
            tell.send_replace(true);
        });
        server.serve(Arc::clone(&store));
        // The holder's address is the store's, which it keeps also when nobody listens there.
        let tcp = address.map_or_else(|| "none".to_owned(), |address| address.to_string());
        tracing::info!(store = %info.store, term = %info.term, dir = %dir.path().display(), %tcp, "leading");
        let parts = Some(Parts {
            server,
            store,
            _lock: lock,
            _dir: dir,
        });
        Ok(Self {
            parts,
            address,
            patience: config.timeout,
            moved,
        })
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
        self.address
    }

    /// Connections of this process to itself.
    pub(super) fn connector(&self) -> Connector {
        let server = self
            .parts
            .as_ref()
            .map(|parts| Arc::downgrade(&parts.server))
            .unwrap_or_default();
        Connector::new(Within(server))
    }

    /// What a person should know of it.
    pub(super) fn warnings(&self) -> Vec<String> {
        self.parts
            .as_ref()
            .map(|parts| parts.server.warnings())
            .unwrap_or_default()
    }

    /// Leaves in order.
    pub(super) async fn shutdown(mut self) -> Result<()> {
        let Some(parts) = self.parts.take() else {
            return Ok(());
        };
        let server = Arc::clone(&parts.server);
        if !server.drain(Arc::clone(&parts.store), self.patience).await {
            tracing::warn!(
                "some publishes had no answer in time; their senders will ask the next leader"
            );
        }
        on_a_thread(move || drop(parts)).await?;
        server.farewell(going_away(), FAREWELL_PATIENCE).await;
        server.stop().await;
        tracing::info!("left the store in order");
        Ok(())
    }
}

/// A leader that is dropped without [`Leader::shutdown`] still closes the store before the lock,
/// on a thread of its own, so that no runtime waits for the disk. If the process ends first, that is
/// a crash, and nothing that was acknowledged is lost.
impl Drop for Leader {
    fn drop(&mut self) {
        let Some(parts) = self.parts.take() else {
            return;
        };
        parts.server.cut();
        let ending = thread::Builder::new()
            .name("broker-close".to_owned())
            .spawn(move || drop(parts));
        if let Err(error) = ending {
            tracing::warn!(%error, "closed the store without a thread of its own");
        }
    }
}

impl fmt::Debug for Leader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Leader")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

/// Connections of a process to the server in it.
struct Within(std::sync::Weak<Server<Stored>>);

impl Connect for Within {
    fn connect(&self) -> Opening<'_> {
        let stream = match self.0.upgrade() {
            Some(server) => Ok(Box::new(server.connect()) as BoxStream),
            None => Err(io::Error::new(
                io::ErrorKind::NotConnected,
                "this process no longer leads the store",
            )),
        };
        Box::pin(std::future::ready(stream))
    }

    fn address(&self) -> String {
        "this process".to_owned()
    }
}

/// What is needed to open the store, away from the runtime.
struct Recovery {
    dir: Arc<StoreDir>,
    server: Arc<Server<Stored>>,
    payload_bytes_max: u32,
    /// Of whoever led before.
    last_term: Term,
}

impl Recovery {
    /// Identifies the store and reads its log. Blocks.
    fn open(&self, lock: &Lock) -> Result<Arc<Stored>> {
        let new = NewStore {
            id: StoreId::new(SystemRandom.bytes_16()),
            created: now(),
        };
        let file = self.dir.open_store(lock, new).map_err(dir_error)?;
        let copied = file.identity == Identity::Copied;
        let id = if copied { new.id } else { file.id };
        let config = EmbeddedConfig {
            log: file.log_id,
            term_floor: self.last_term.get(),
            renew_epochs: copied,
            payload_bytes_max: self.payload_bytes_max,
            ..EmbeddedConfig::new(id)
        };
        let store = self.read_log(config)?;
        if copied {
            // Last: a crash before this finds a copy again, and renewing twice does no harm. The
            // other way round the original and the copy could go on under one epoch.
            self.dir.renew_identity(lock, id).map_err(dir_error)?;
            tracing::warn!(from = %file.id, to = %id, "the data directory is a copy; the store has a new identity");
        }
        Ok(store)
    }

    fn read_log(&self, config: EmbeddedConfig) -> Result<Arc<Stored>> {
        let storage = FileStorage::open(self.dir.path())
            .map_err(|error| disk(format!("cannot open {}", self.dir.path().display()), error))?;
        let mut told = 0;
        let mut progress = |done: u64, total: u64| {
            if done >= told {
                told = done.saturating_add(PROGRESS_BYTES);
                let what = "reading the log".to_owned();
                self.server.progress(Progress { done, total, what });
            }
        };
        EmbeddedStore::open(Arc::new(storage), config, &mut progress).map_err(|error| {
            let text = format!("cannot open the store in {}", self.dir.path().display());
            Error::new(ErrorKind::Disk, text).with_source(error)
        })
    }
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

/// Opens the TCP port, when this process shall have one. A daemon fails when it cannot; others go on
/// at the Unix socket and say so.
fn open_port(
    config: &Config,
    server: &Server<Stored>,
    last: Option<&Holder>,
) -> Result<Option<SocketAddr>> {
    if !config.role.lasts() {
        return Ok(None);
    }
    let address = match config.listen {
        Listen::Nowhere => return Ok(None),
        Listen::At(address) => address,
        Listen::Stored => last
            .and_then(|last| last.tcp.parse().ok())
            .unwrap_or(DEFAULT_ADDRESS),
    };
    let opened = config.check_address(address).and_then(|()| {
        server.listen_tcp(address).map_err(|error| {
            let kind = match error.kind() {
                io::ErrorKind::AddrInUse => ErrorKind::Locked,
                _ => ErrorKind::Usage,
            };
            let next = match kind {
                ErrorKind::Locked => taken(address),
                _ => String::new(),
            };
            Error::new(kind, format!("cannot listen at {address}{next}")).with_source(error)
        })
    });
    match opened {
        Ok(address) => Ok(Some(address)),
        Err(error) if config.role == Role::ServeAlways => Err(error),
        Err(error) => {
            let mut warning = format!("{error}; only the store's Unix socket is served");
            if let Some(source) = std::error::Error::source(&error) {
                warning = format!("{error}: {source}; only the store's Unix socket is served");
            }
            tracing::warn!("{warning}");
            server.warn(warning);
            Ok(None)
        }
    }
}

/// Who has a port that is taken, as far as this user can see, and what to do.
fn taken(address: SocketAddr) -> String {
    match listener_at(address) {
        Some(keeper) => {
            format!(": {keeper} listens there; stop it, or choose another address")
        }
        None => "; stop what listens there, or choose another address".to_owned(),
    }
}

/// What the lock file says of this process. The store's address stays in it through leaders that do
/// not listen there: it is the store's, not theirs.
fn introduce(
    config: &Config,
    last: Option<&Holder>,
    address: Option<SocketAddr>,
    socket: Option<&Path>,
) -> Holder {
    let stored = last
        .map(|last| last.tcp.clone())
        .filter(|tcp| !tcp.is_empty());
    let own = match config.listen {
        Listen::At(asked) if asked.port() == 0 => None,
        _ => address.map(|address| address.to_string()),
    };
    let tcp = if config.role == Role::ServeAlways {
        own.or(stored)
    } else {
        stored.or(own)
    };
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
        fencing_allowed: false,
        since: now(),
        store: last.map_or(StoreId::NONE, |last| last.store),
        build: config.build.clone(),
        tcp: tcp.unwrap_or_default(),
        socket,
        successor: String::new(),
    }
}

fn publish(lock: &Lock, holder: &Holder, dir: &StoreDir) -> Result<()> {
    lock.publish(holder).map_err(|error| {
        disk(
            format!("cannot write the lock file in {}", dir.path().display()),
            error,
        )
    })
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

fn going_away() -> Farewell {
    Farewell {
        code: ErrorCode::GOING_AWAY,
        retry_after_ms: RETRY_AFTER_MS,
        ..Farewell::default()
    }
}

fn now() -> Micros {
    SystemClock::new().now()
}

/// Does blocking work on a thread of its own. A runtime's blocking pool would do, but the caller's
/// may be any, and the server's ends with the server.
async fn on_a_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    let (done, result) = oneshot::channel();
    let spawned = thread::Builder::new()
        .name("broker-open".to_owned())
        .spawn(move || {
            // Whoever asked may have gone away; the work is done all the same.
            let _nobody_waits = done.send(work());
        });
    spawned.map_err(|error| disk("cannot start a thread".to_owned(), error))?;
    result.await.map_err(|_| {
        Error::new(
            ErrorKind::Disk,
            "the thread that opens or closes the store panicked",
        )
    })
}

fn disk(text: String, error: io::Error) -> Error {
    Error::new(ErrorKind::Disk, text).with_source(error)
}

/// A directory that cannot be used, or a lock that is held.
pub(super) fn dir_error(error: DirError) -> Error {
    use crate::dir::ExitClass;
    let kind = match error.exit_class() {
        ExitClass::Held => ErrorKind::Locked,
        ExitClass::RefusedConfig => ErrorKind::Usage,
        _ => ErrorKind::Disk,
    };
    Error::new(kind, "the data directory cannot be used").with_source(error)
}

/// The store's directory, checked and held open.
pub(super) fn open_dir(path: &Path) -> Result<Arc<StoreDir>> {
    StoreDir::open(path, &crate::dir::SystemProbe)
        .map(Arc::new)
        .map_err(dir_error)
}
