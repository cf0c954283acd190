//! [`Server`]: listeners, connections and a runtime of their own.
//!
//! The runtime lives on threads of the server, never on the application's: neither can stall the
//! other. A server is started before its store is open. Peers are then greeted at once and told how
//! far it is; [`Server::serve`] welcomes them all. It ends in three steps, so that its owner can
//! close the store and release the lock in between: [`Server::drain`], [`Server::farewell`],
//! [`Server::stop`].

use std::fmt;
use std::fs;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use rustix::process::{Resource, getrlimit};
use tokio::io::DuplexStream;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::{Semaphore, oneshot, watch};
use tokio::time::{sleep, timeout};

use super::connection;
use super::hub::Hub;
use super::status::{Facts, Figures};
use super::transport::{Listener, Origin, TcpDoor, UnixDoor};
use crate::session::{Farewell, Host, Patience, Progress, Stage, Terms};
use crate::store::Store;
use crate::sync::{Arc, Mutex, lock};

/// Connections of one listener whose peers have not said who they are; the rest wait in the kernel.
/// Each listener has its own, so that strangers at the port never keep out the nodes of the store.
const STRANGERS_MAX: usize = 64;

/// Most connections, if the limit on open files allows them.
const CONNECTIONS_MAX: usize = 16_384;

/// Open files that connections leave for everything else, such as segments of the log.
const FILES_IN_RESERVE: usize = 32;

/// How long accepting rests when the process has no more files or memory for a connection.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// The network of one machine needs no more threads than this.
const WORKERS_MAX: usize = 4;

/// Bytes under way in each direction of a connection within the process.
const PIPE_BYTES: usize = 256 << 10;

/// What a server is called and what it allows.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// Name and version of the program, at most 64 bytes.
    pub build: String,
    /// What the process is to its store, for the status.
    pub role: &'static str,
    /// Most connections at once. Default 16,384, or what the limit on open files leaves.
    pub connections_max: usize,
    /// When silence ends a connection.
    pub patience: Patience,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            build: concat!("broker-core ", env!("CARGO_PKG_VERSION")).to_owned(),
            role: "eligible",
            connections_max: connections_max(),
            patience: Patience::default(),
        }
    }
}

/// What the limit on open files leaves for connections.
fn connections_max() -> usize {
    let open = fs::read_dir("/proc/self/fd").map_or(FILES_IN_RESERVE, Iterator::count);
    let limit = getrlimit(Resource::Nofile)
        .current
        .map_or(usize::MAX, |limit| {
            usize::try_from(limit).unwrap_or(usize::MAX)
        });
    limit
        .saturating_sub(open)
        .saturating_sub(FILES_IN_RESERVE)
        .clamp(1, CONNECTIONS_MAX)
}

/// The doors of a leader that another process can go on with.
#[derive(Debug, Default)]
pub(super) struct Doors {
    /// The store's Unix socket.
    pub(super) unix: Option<OwnedFd>,
    /// The TCP port.
    pub(super) tcp: Option<OwnedFd>,
}

/// A server. Dropping it cuts all connections off; end it in order instead.
pub struct Server<S: Store> {
    hub: Arc<Hub<S>>,
    figures: Arc<Figures<S>>,
    runtime: Handle,
    accepting: watch::Sender<bool>,
    /// Kept so that who connects while the store changes hands waits in the kernel.
    doors: Mutex<Doors>,
    running: Mutex<Option<Running>>,
}

impl<S: Store> Server<S> {
    /// Starts a server without listeners and without a store.
    ///
    /// # Errors
    /// The system has no thread for it.
    pub fn start(config: ServerConfig) -> io::Result<Self> {
        let (runtime, running) = start_runtime()?;
        Ok(Self::build(config, runtime, Some(running)))
    }

    /// The same on a runtime that somebody else drives, such as a simulator, and that ends when its
    /// owner says so: [`stop`](Self::stop) then ends nothing. Called on that runtime, whose clock
    /// the server goes by.
    #[must_use]
    pub fn start_on(runtime: Handle, config: ServerConfig) -> Self {
        Self::build(config, runtime, None)
    }

    fn build(config: ServerConfig, runtime: Handle, running: Option<Running>) -> Self {
        let pid = std::process::id();
        let ServerConfig {
            build,
            role,
            connections_max,
            patience,
        } = config;
        let figures = Figures::new(Facts {
            role,
            build: build.clone(),
            pid,
            ..Facts::default()
        });
        let mut terms = Terms::new(build, pid, Arc::clone(&figures) as Arc<dyn Host>);
        terms.patience = patience;
        let hub = Hub::new(Arc::new(terms), Arc::clone(&figures), connections_max);
        runtime.spawn(hub.relay());
        Self {
            hub,
            figures,
            runtime,
            accepting: watch::Sender::new(true),
            doors: Mutex::default(),
            running: Mutex::new(running),
        }
    }

    /// Accepts connections at a TCP port.
    ///
    /// # Errors
    /// As the system says, such as that the port is taken.
    pub fn listen_tcp(&self, address: SocketAddr) -> io::Result<SocketAddr> {
        self.open_tcp(|| TcpDoor::bind(address))
    }

    /// Goes on at a TCP port that another process has passed on.
    ///
    /// # Errors
    /// The descriptor is no listening TCP socket.
    pub(super) fn inherit_tcp(&self, passed: OwnedFd) -> io::Result<SocketAddr> {
        self.open_tcp(|| TcpDoor::inherit(passed))
    }

    fn open_tcp(&self, open: impl FnOnce() -> io::Result<TcpDoor>) -> io::Result<SocketAddr> {
        let door = {
            let _runtime = self.runtime.enter();
            open()?
        };
        lock(&self.doors).tcp = Some(door.share()?);
        let address = door.local_addr();
        self.listen(door);
        Ok(address)
    }

    /// Accepts connections at a Unix socket; see [`UnixDoor::bind`].
    ///
    /// # Errors
    /// As the system says.
    pub fn listen_unix(
        &self,
        place: impl Fn(&str) -> PathBuf,
        name: &str,
        shown: PathBuf,
    ) -> io::Result<()> {
        self.open_unix(|| UnixDoor::bind(place, name, shown))
    }

    /// Goes on at a Unix socket that another process has passed on.
    ///
    /// # Errors
    /// The descriptor is no listening Unix socket.
    pub(super) fn inherit_unix(&self, passed: OwnedFd, shown: PathBuf) -> io::Result<()> {
        self.open_unix(|| UnixDoor::inherit(passed, shown))
    }

    fn open_unix(&self, open: impl FnOnce() -> io::Result<UnixDoor>) -> io::Result<()> {
        let door = {
            let _runtime = self.runtime.enter();
            open()?
        };
        lock(&self.doors).unix = Some(door.share()?);
        self.listen(door);
        Ok(())
    }

    /// Stops accepting and hands the doors out; dropping them closes them, and turns away who waits.
    pub(super) fn take_doors(&self) -> Doors {
        self.accepting.send_replace(false);
        std::mem::take(&mut *lock(&self.doors))
    }

    /// Runs a task on the server's own runtime, which the application cannot stall.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.runtime.spawn(task);
    }

    /// Accepts connections of any listener.
    pub fn listen(&self, listener: impl Listener) {
        self.figures
            .amend(|facts| facts.addresses.push(listener.address()));
        self.runtime.spawn(accept(
            Arc::clone(&self.hub),
            listener,
            self.accepting.subscribe(),
        ));
    }

    /// A connection from within the process.
    #[must_use]
    pub fn connect(&self) -> DuplexStream {
        let (near, far) = tokio::io::duplex(PIPE_BYTES);
        self.runtime.spawn(connection::serve(
            Arc::clone(&self.hub),
            far,
            Origin::InProcess,
            None,
        ));
        near
    }

    /// Tells those who wait how far opening the store is.
    pub fn progress(&self, progress: Progress) {
        self.hub.set_stage(Stage::Starting(progress));
    }

    /// Welcomes everybody: the store is open.
    pub fn serve(&self, store: Arc<S>) {
        self.hub.set_stage(Stage::Serving(store));
    }

    /// Adds something that a person should know to the status.
    pub fn warn(&self, warning: String) {
        self.figures.amend(|facts| facts.warnings.push(warning));
    }

    /// Takes back what is no longer so.
    pub(super) fn unwarn(&self, warning: &str) {
        self.figures
            .amend(|facts| facts.warnings.retain(|told| told != warning));
    }

    /// Whether connections are accepted still.
    pub(super) fn accepts(&self) -> bool {
        *self.accepting.borrow()
    }

    /// What a person should know.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        self.figures.facts().warnings
    }

    /// The server's state as one JSON object.
    #[must_use]
    pub fn status(&self) -> String {
        self.figures.status()
    }

    /// Accepts no more connections and no more publishes, and waits until those under way are
    /// answered and the answers taken, at most for `patience`. Says whether all were.
    pub async fn drain(&self, store: Arc<S>, patience: Duration) -> bool {
        drop(self.take_doors());
        self.finish(store, patience).await
    }

    /// The same with the doors left as they are: who connects meanwhile waits for whoever gets them.
    pub(super) async fn finish(&self, store: Arc<S>, patience: Duration) -> bool {
        self.accepting.send_replace(false);
        self.hub.set_stage(Stage::Draining(store));
        timeout(patience, self.hub.settled()).await.is_ok()
    }

    /// Says goodbye to everybody and waits until they are gone, at most for `patience`.
    pub async fn farewell(&self, farewell: Farewell, patience: Duration) {
        drop(self.take_doors());
        self.hub.set_stage(Stage::Leaving(farewell));
        // Who has not taken its goodbye by then is cut off.
        let _gone = timeout(patience, self.hub.empty()).await;
    }

    /// Ends the runtime; connections that are left are cut off.
    pub async fn stop(&self) {
        drop(self.take_doors());
        let running = lock(&self.running).take();
        if let Some((run, ended)) = running {
            drop(run);
            // An error means that the thread is gone already.
            let _ended = ended.await;
        }
    }

    /// Ends the runtime without waiting for it.
    pub(super) fn cut(&self) {
        drop(self.take_doors());
        drop(lock(&self.running).take());
    }
}

impl<S: Store> fmt::Debug for Server<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("hub", &self.hub)
            .finish_non_exhaustive()
    }
}

/// Ends the runtime when the sender is dropped, and is answered when that has ended.
type Running = (oneshot::Sender<()>, oneshot::Receiver<()>);

/// Starts a runtime on threads of its own, which ends when the sender is dropped.
fn start_runtime() -> io::Result<(Handle, Running)> {
    let runtime = build_runtime()?;
    let handle = runtime.handle().clone();
    let (run, until) = oneshot::channel::<()>();
    let (end, ended) = oneshot::channel();
    thread::Builder::new()
        .name("broker-net".to_owned())
        .spawn(move || {
            // Drives a current-thread runtime, and keeps a multi-thread one. Both ways it ends here.
            let _dropped = runtime.block_on(until);
            runtime.shutdown_timeout(Duration::from_secs(1));
            let _nobody_waits = end.send(());
        })?;
    Ok((handle, (run, ended)))
}

/// One thread for each two cores: clients and the log's writer want theirs, and on two cores a second worker costs each lone
/// message two more changes of threads.
fn build_runtime() -> io::Result<Runtime> {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let mut builder = match (cores / 2).min(WORKERS_MAX) {
        0 | 1 => Builder::new_current_thread(),
        workers => {
            let mut builder = Builder::new_multi_thread();
            builder.worker_threads(workers);
            builder
        }
    };
    builder.thread_name("broker-net").enable_all().build()
}

/// Accepts connections until the server leaves.
async fn accept<S: Store>(
    hub: Arc<Hub<S>>,
    mut listener: impl Listener,
    mut accepting: watch::Receiver<bool>,
) {
    let strangers = Arc::new(Semaphore::new(STRANGERS_MAX));
    loop {
        let next = async {
            let permit = Arc::clone(&strangers).acquire_owned().await;
            (permit, listener.accept().await)
        };
        let Some((permit, accepted)) = unless_left(&mut accepting, next).await else {
            return;
        };
        match accepted {
            Ok((stream, origin)) => {
                tracing::debug!(%origin, "connection accepted");
                tokio::spawn(connection::serve(
                    Arc::clone(&hub),
                    stream,
                    origin,
                    permit.ok(),
                ));
            }
            Err(error) if is_of_one_connection(&error) => {
                tracing::debug!(%error, "a connection was lost before it was accepted")
            }
            Err(error) => {
                // Such as too many open files: the connection stays in the queue, so trying again at
                // once would only burn the processor.
                tracing::warn!(%error, address = listener.address(), "cannot accept connections now");
                if unless_left(&mut accepting, sleep(ACCEPT_REST))
                    .await
                    .is_none()
                {
                    return;
                }
            }
        }
    }
}

/// Does `work` unless the server stops accepting first.
async fn unless_left<T>(
    accepting: &mut watch::Receiver<bool>,
    work: impl Future<Output = T>,
) -> Option<T> {
    tokio::select! {
        biased;
        _ = accepting.wait_for(|accepting| !accepting) => None,
        done = work => Some(done),
    }
}

/// Whether an error of accept is about the one connection, which is gone, and not about all.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
            | io::ErrorKind::InvalidInput
            | io::ErrorKind::NotConnected
    )
}
