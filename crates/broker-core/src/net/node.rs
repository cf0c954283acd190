//! [`Node`]: a process that takes part in a store, as its leader or as a client of whoever leads.
//!
//! ```text
//!                lock free          +---------+
//!            +--------------------> | Leading |
//!   join ----+                      +---------+
//!            |   lock held          +-----------+
//!            +--------------------> | Connected |   (a later step: stands by, and takes over)
//!                                   +-----------+
//! ```
//! The lock alone decides; sockets are only doors. Both ways the application talks to a [`Client`],
//! the leader's within the process.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::time::{Instant, sleep};

use super::client::{Address, Client, Error, ErrorKind, Result};
use super::config::{Config, Role};
use super::leader::{Leader, dir_error, open_dir};
use crate::clock::{Random, SystemRandom};
use crate::dir::{DirError, ExitClass, Lock, LockError, SOCKET_NAME, StoreDir};
use crate::sync::Arc;

/// First pause between two tries to lead or connect.
const RETRY_MIN: Duration = Duration::from_millis(2);

/// Longest pause between two tries.
const RETRY_MAX: Duration = Duration::from_millis(50);

/// How a node stands to its store.
#[derive(Debug)]
enum Standing {
    /// It holds the lock and serves.
    Leading(Box<Leader>),
    /// Another process does.
    Connected,
}

/// A process's part in a store. Dropping it leaves without waiting; [`Node::shutdown`] leaves in
/// order.
#[derive(Debug)]
pub struct Node {
    standing: Standing,
    client: Client,
}

impl Node {
    /// Leads the store when nobody does, connects to its leader otherwise. Called on a tokio runtime,
    /// which carries the client; a leader's server and disk have threads of their own.
    ///
    /// Dropping this future gives up; a lock that was taken is released.
    ///
    /// # Errors
    /// `Usage` for a configuration or directory that is refused, `Locked` when another process holds
    /// the lock and does not answer (or at once for [`Role::ServeAlways`]), `Disk` when the store
    /// cannot be opened, `Connect` when nobody leads and this process may not.
    pub async fn join(config: Config) -> Result<Self> {
        config.check()?;
        if config.role == Role::ClientOnly && !config.dir.exists() {
            let text = format!("there is no store in {}", config.dir.display());
            return Err(Error::new(ErrorKind::Connect, text));
        }
        let dir = open_dir(&config.dir)?;
        let barred = barred(&config, &dir)?;
        let deadline = Instant::now() + config.timeout;
        let mut pause = RETRY_MIN;
        loop {
            let held = match barred {
                Some(_) => None,
                None => match Lock::try_acquire(&dir) {
                    Ok(lock) => return Self::lead(&config, dir, lock).await,
                    Err(held @ LockError::Held { .. }) if config.role != Role::ServeAlways => {
                        Some(held)
                    }
                    Err(error) => return Err(dir_error(error.into())),
                },
            };
            // Whoever listens may be just leaving: a client goes on trying for its whole timeout, and
            // meanwhile the lock may be there to be had.
            let connected = tokio::select! {
                biased;
                connected = connect(&config, &dir) => connected,
                lock = freed(&dir), if held.is_some() => {
                    return Self::lead(&config, Arc::clone(&dir), lock?).await;
                }
            };
            match connected {
                Ok(client) => {
                    return Ok(Self {
                        standing: Standing::Connected,
                        client,
                    });
                }
                Err(error) if !may_pass(&error) => return Err(error),
                Err(error) if Instant::now() + pause >= deadline => {
                    return Err(unanswered(&config, held, barred, error));
                }
                Err(_) => {}
            }
            sleep(jittered(pause)).await;
            pause = (pause * 2).min(RETRY_MAX);
        }
    }

    async fn lead(config: &Config, dir: Arc<StoreDir>, lock: Lock) -> Result<Self> {
        let leader = Leader::start(config, dir, lock).await?;
        let client = config.client().connect_with(leader.connector()).await?;
        Ok(Self {
            standing: Standing::Leading(Box::new(leader)),
            client,
        })
    }

    /// The client that the application talks to.
    #[must_use]
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// Whether this process leads.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        matches!(self.standing, Standing::Leading(_))
    }

    /// Where this process listens for TCP connections, if it leads and does.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        match &self.standing {
            Standing::Leading(leader) => leader.address(),
            Standing::Connected => None,
        }
    }

    /// Waits until the data directory is found to have been moved, replaced or removed under a
    /// leader: it writes nothing from then on, and should be shut down. Waits for ever otherwise.
    /// Dropping the future loses nothing.
    pub async fn moved(&self) {
        match &self.standing {
            Standing::Leading(leader) => leader.moved().await,
            Standing::Connected => std::future::pending().await,
        }
    }

    /// What a person should know of this process as a leader, such as a port that it could not have.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        match &self.standing {
            Standing::Leading(leader) => leader.warnings(),
            Standing::Connected => Vec::new(),
        }
    }

    /// Leaves in order: what the client has sent is answered, then a leader finishes what it took,
    /// closes the store and releases the lock.
    ///
    /// # Errors
    /// What the client's [`shutdown`](Client::shutdown) says, or `Disk`. The node has left all the
    /// same.
    pub async fn shutdown(self) -> Result<()> {
        let Self { standing, client } = self;
        let answered = client.shutdown().await;
        if let Standing::Leading(leader) = standing {
            leader.shutdown().await?;
        }
        answered
    }
}

/// Why this process may not lead, if so; an error when it may not even connect.
fn barred(config: &Config, dir: &StoreDir) -> Result<Option<Error>> {
    match dir.read_store() {
        Err(error)
            if error.exit_class() == ExitClass::NewerFormat && config.role != Role::ServeAlways =>
        {
            // Whoever leads it understands it, and its protocol may still be ours. When nobody does,
            // waiting for somebody would only hide the reason.
            match Lock::try_acquire(dir) {
                Ok(free) => {
                    drop(free);
                    Err(dir_error(error))
                }
                Err(_) => Ok(Some(dir_error(error))),
            }
        }
        // Only its leader needs to read the file.
        Err(error) if config.role.leads() => Err(dir_error(error)),
        _ if config.role.leads() => Ok(None),
        _ => Ok(Some(Error::new(
            ErrorKind::Connect,
            "this process may not lead the store",
        ))),
    }
}

/// Waits until the lock is free, and takes it.
async fn freed(dir: &StoreDir) -> Result<Lock> {
    loop {
        sleep(jittered(RETRY_MAX)).await;
        match Lock::try_acquire(dir) {
            Err(LockError::Held { .. }) => {}
            other => return other.map_err(|error| dir_error(error.into())),
        }
    }
}

/// Connects to whoever listens at the store's socket.
async fn connect(config: &Config, dir: &StoreDir) -> Result<Client> {
    let path = dir.path().join(SOCKET_NAME);
    // A look before the client tries, which would go on trying for its whole timeout.
    drop(
        UnixStream::connect(dir.socket_path())
            .await
            .map_err(|error| {
                let text = format!("nobody listens at {}", path.display());
                Error::new(ErrorKind::Connect, text).with_source(error)
            })?,
    );
    config
        .client()
        .connect_with(Address::unix(path).into())
        .await
}

/// Whether another try may end better: the leader may have left between the steps.
fn may_pass(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Connect | ErrorKind::Timeout | ErrorKind::Closed
    )
}

/// Nobody answered for the whole timeout.
fn unanswered(
    config: &Config,
    held: Option<LockError>,
    barred: Option<Error>,
    error: Error,
) -> Error {
    let secs = config.timeout.as_secs_f32();
    if let Some(held) = held {
        let text = format!(
            "the store in {} is led by a process that did not answer for {secs} s",
            config.dir.display()
        );
        return Error::new(ErrorKind::Locked, text).with_source(DirError::from(held));
    }
    match barred {
        // Nobody serves it, and why this process cannot is what a person has to know.
        Some(barred) if barred.kind() == ErrorKind::Disk => barred,
        _ => {
            let text = format!(
                "nobody serves the store in {} since {secs} s",
                config.dir.display()
            );
            Error::new(ErrorKind::Connect, text).with_source(error)
        }
    }
}

/// Between half and all of a pause, so that those who wait do not all come at once.
fn jittered(pause: Duration) -> Duration {
    let part =
        f64::from(u32::try_from(SystemRandom.bits_64() >> 32).unwrap_or(0)) / f64::from(u32::MAX);
    pause.mul_f64(0.5 + part / 2.0)
}
