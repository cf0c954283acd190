//! [`Node`]: a process that takes part in a store, as its leader or as a client of whoever leads.
//!
//! ```text
//!                  lock free            +---------+ <-----------------------------.
//!              +----------------------> | Leading |                               |
//!   join ------+                        +---------+ --- pause, a daemon claims -. |
//!              |   lock held            +-----------+ <-------------------------' |
//!              +----------------------> | Following | -- the leader ends, or hands over
//!                                       +-----------+
//! ```
//! The lock alone decides; sockets are only doors. The application talks to one [`Client`] through
//! all of it: it reaches the server within the process or another one, sends again what was not
//! acknowledged, and goes on reading where it was.

mod connector;
mod pace;
mod supervisor;

use std::net::SocketAddr;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::sleep;

use super::client::{Client, Connector, Error, ErrorKind, Result};
use super::config::{Config, Role};
use super::fence;
use super::leader::{Leader, Start, dir_error, open_dir};
use crate::dir::{DirError, ExitClass, Lock, LockError, StoreDir, keepers};
use crate::sync::Arc;

use connector::{Place, ToLeader};
use pace::jittered;
use supervisor::{Command, Rest, Standing, Supervisor, claim};

/// How often the lock is tried while the first connection is being made.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// How long a daemon waits for the leader to end or to pass the lead on.
const CLAIM_PATIENCE: Duration = Duration::from_secs(5);

/// Commands that wait; each caller has one.
const COMMANDS: usize = 8;

/// A process's part in a store. Dropping it leaves without waiting; [`Node::shutdown`] leaves in
/// order.
///
/// A node that does not lead stands by, unless its [`Role`] says otherwise: when the leader ends, by
/// whatever cause, one of those who stand by leads within milliseconds. [`Client::state`] tells.
#[derive(Debug)]
pub struct Node {
    client: Client,
    standing: watch::Receiver<Standing>,
    commands: mpsc::Sender<Command>,
}

impl Node {
    /// Leads the store when nobody does, connects to its leader otherwise. Called on a tokio runtime,
    /// which carries the client; a leader's server and disk have threads of their own.
    ///
    /// Dropping this future gives up; a lock that was taken is released.
    ///
    /// # Errors
    /// `Usage` for a configuration or directory that is refused, `Locked` when another process holds
    /// the lock and does not answer (for [`Role::ServeAlways`]: when it does not pass the lead on),
    /// `Disk` when the store cannot be opened, `Connect` when nobody leads and this process may not.
    pub async fn join(config: Config) -> Result<Self> {
        config.check()?;
        if config.role == Role::ClientOnly && !config.dir.exists() {
            let text = format!("there is no store in {}", config.dir.display());
            return Err(Error::new(ErrorKind::Connect, text));
        }
        let dir = open_dir(&config.dir)?;
        let barred = barred(&config, &dir)?;
        let joining = Joining {
            connector: watch::Sender::new(Place::Elsewhere),
            dir,
            config,
        };
        joining.join(barred).await
    }

    /// The client that the application talks to. It stays the same through all changes of the leader.
    #[must_use]
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// Whether this process leads.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        self.standing.borrow().leader.is_some()
    }

    /// Where this process listens for TCP connections, if it leads and does.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        self.standing.borrow().leader.as_ref()?.address()
    }

    /// Waits until the data directory is found to have been moved, replaced or removed under a
    /// leader: it writes nothing from then on, and should be shut down. Waits for ever otherwise.
    /// Dropping the future loses nothing.
    pub async fn moved(&self) {
        let mut standing = self.standing.clone();
        loop {
            let leader = standing.borrow_and_update().leader.clone();
            let moved = async {
                match &leader {
                    Some(leader) => leader.moved().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = moved => return,
                changed = standing.changed() => if changed.is_err() {
                    std::future::pending::<()>().await;
                },
            }
        }
    }

    /// What a person should know of this process, such as a port that it could not have as a leader,
    /// or why it could not lead.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let standing = self.standing.borrow();
        let failure = standing.failure.iter().map(ToString::to_string);
        let of_leader = standing.leader.iter().flat_map(|leader| leader.warnings());
        failure.chain(of_leader).collect()
    }

    /// Pauses and resumes the node from elsewhere, such as from where signals are handled.
    #[must_use]
    pub fn control(&self) -> NodeControl {
        NodeControl {
            commands: self.commands.downgrade(),
        }
    }

    /// Leaves in order: what the client has sent is answered, then a leader finishes what it took,
    /// closes the store and hands over to a process that stands by, or releases the lock.
    ///
    /// # Errors
    /// What the client's [`shutdown`](Client::shutdown) says, or `Disk`. The node has left all the
    /// same.
    pub async fn shutdown(self) -> Result<()> {
        let answered = self.client.shutdown().await;
        ask(&self.commands, Command::Leave).await?;
        answered
    }
}

/// Pauses and resumes a [`Node`]. It does not keep the node alive.
#[derive(Debug, Clone)]
pub struct NodeControl {
    commands: mpsc::WeakSender<Command>,
}

impl NodeControl {
    /// Leads no more: hands over to a process that stands by, or else closes the store and releases
    /// the lock, until [`resume`](Self::resume). For a process that is about to be stopped, such as
    /// by SIGTSTP; its client stays connected to whoever leads.
    ///
    /// # Errors
    /// `Disk` when the store could not be closed in order; the lock is released all the same.
    /// `Closed` when the node has ended.
    pub async fn pause(&self) -> Result<()> {
        self.ask(Command::Pause).await
    }

    /// Stands by again after [`pause`](Self::pause), and leads when nobody else does.
    ///
    /// # Errors
    /// `Closed` when the node has ended.
    pub async fn resume(&self) -> Result<()> {
        self.ask(Command::Resume).await
    }

    async fn ask(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<()>>) -> Command,
    ) -> Result<()> {
        match self.commands.upgrade() {
            Some(commands) => ask(&commands, command).await,
            None => Err(ended()),
        }
    }
}

async fn ask(
    commands: &mpsc::Sender<Command>,
    command: impl FnOnce(oneshot::Sender<Result<()>>) -> Command,
) -> Result<()> {
    let (answer, answered) = oneshot::channel();
    commands.send(command(answer)).await.map_err(|_| ended())?;
    answered.await.unwrap_or_else(|_| Err(ended()))
}

fn ended() -> Error {
    Error::new(ErrorKind::Closed, "the node has ended")
}

/// A node in the making.
struct Joining {
    config: Config,
    dir: Arc<StoreDir>,
    connector: watch::Sender<Place>,
}

impl Joining {
    async fn join(self, barred: Option<Error>) -> Result<Node> {
        let held = match barred {
            Some(_) => None,
            None => match Lock::try_acquire(&self.dir) {
                Ok(lock) => return self.lead(Start::Free(lock), None).await,
                Err(held @ LockError::Held { .. }) => Some(held),
                Err(error) => return Err(dir_error(error.into())),
            },
        };
        if self.config.role == Role::ServeAlways {
            let patience = CLAIM_PATIENCE.min(self.config.timeout);
            let start = claim(&self.dir, &self.config, patience).await?;
            return self.lead(start, None).await;
        }
        let client = self.client()?;
        // Whoever listens may be just leaving: the client goes on trying for its whole timeout, and
        // meanwhile the lock may be there to be had.
        let connected = tokio::select! {
            biased;
            connected = client.clone().connected() => connected,
            lock = freed(&self.dir), if held.is_some() => {
                return self.lead(Start::Free(lock?), Some(client)).await;
            }
        };
        match connected {
            Ok(client) => Ok(self.supervised(client, None, barred.is_none())),
            Err(error) if !may_pass(&error) => Err(error),
            Err(error) => {
                // Looked at again: who held it when this began may have left since.
                let held = held.and_then(|_| Lock::try_acquire(&self.dir).err());
                let held = held.map(|held| held.explained(&self.dir));
                Err(unanswered(&self.config, &self.dir, held, barred, error))
            }
        }
    }

    fn client(&self) -> Result<Client> {
        let way = ToLeader::new(Arc::clone(&self.dir), self.connector.subscribe());
        let client = Client::start(self.config.client(), Connector::new(way), true)?;
        if self.config.role.leads() {
            let dir = Arc::clone(&self.dir);
            tokio::spawn(fence::guard(client.state(), dir, fence::PATIENCE));
        }
        Ok(client)
    }

    async fn lead(self, start: Start, client: Option<Client>) -> Result<Node> {
        let leader = Leader::start(&self.config, Arc::clone(&self.dir), start, |server| {
            self.connector.send_replace(Place::Here(server));
        });
        let leader = leader.await?;
        leader.welcome();
        let client = match client {
            Some(client) => client,
            None => self.client()?,
        };
        let client = client.connected().await?;
        Ok(self.supervised(client, Some(leader), true))
    }

    fn supervised(self, client: Client, leader: Option<Arc<Leader>>, may_lead: bool) -> Node {
        let (commands, asked) = mpsc::channel(COMMANDS);
        let standing = watch::Sender::new(Standing {
            leader: leader.clone(),
            failure: None,
        });
        let node = Node {
            standing: standing.subscribe(),
            commands,
            client,
        };
        let supervisor = Supervisor {
            commands: asked,
            place: self.connector,
            standing,
            state: node.client.state(),
            may_lead: may_lead && self.config.role.leads(),
            rest: Rest::default(),
            dir: self.dir,
            config: self.config,
        };
        tokio::spawn(supervisor.run(leader));
        node
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
        sleep(jittered(LOOK_AGAIN)).await;
        match Lock::try_acquire(dir) {
            Err(LockError::Held { .. }) => {}
            other => return other.map_err(|error| dir_error(error.into())),
        }
    }
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
    dir: &StoreDir,
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
            let although = match keepers(dir).first() {
                Some(keeper) => format!(", although {keeper} holds its lock"),
                None => String::new(),
            };
            let text = format!(
                "nobody serves the store in {} since {secs} s{although}",
                config.dir.display()
            );
            Error::new(ErrorKind::Connect, text).with_source(error)
        }
    }
}
