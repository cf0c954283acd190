//! [`Broker`]: a store for one process alone, without any door.

use std::io;
use std::path::Path;

use super::client::{BoxStream, Client, Connect, Connector, Opening, Result};
use super::config::Config;
use super::leader::{Leader, Stored, dir_error, open_dir};
use super::server::Server;
use crate::dir::Lock;
use crate::sync::{Arc, Weak};

/// A store that only this process uses: no socket is opened. Dropping it leaves without waiting;
/// [`Broker::shutdown`] leaves in order.
///
/// Use a [`Node`](super::Node) where other processes shall take part in the conversation.
#[derive(Debug)]
pub struct Broker {
    leader: Arc<Leader>,
    client: Client,
}

impl Broker {
    /// Opens the store in `dir`, which is made when it does not exist. Called on a tokio runtime,
    /// which carries the client; server and disk have threads of their own.
    ///
    /// # Errors
    /// `Locked` when another process leads the store, naming it; `Usage` when the directory may not
    /// be used; `Disk` when the store cannot be opened.
    pub async fn open(dir: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(Config::new(dir)).await
    }

    /// Opens a store with settings; role and listening address have no meaning here.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn open_with(config: Config) -> Result<Self> {
        let config = config.listen(None);
        let dir = open_dir(&config.dir)?;
        let lock = Lock::try_acquire(&dir).map_err(|error| dir_error(error.into()))?;
        let leader = Leader::start_alone(&config, dir, lock).await?;
        leader.welcome();
        let within = Connector::new(Within(leader.server()));
        let client = config.client().connect_with(within).await?;
        Ok(Self { leader, client })
    }

    /// The client that the application talks to.
    #[must_use]
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// Leaves in order: what was sent is answered, then the store is closed.
    ///
    /// # Errors
    /// What the client's [`shutdown`](Client::shutdown) says, or `Disk`. The store is closed all the
    /// same.
    pub async fn shutdown(self) -> Result<()> {
        let Self { leader, client } = self;
        let answered = client.shutdown().await;
        leader.leave().await?;
        answered
    }
}

/// Connections of the process to the server in it.
struct Within(Weak<Server<Stored>>);

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

    fn leads(&self, _: u32) -> bool {
        true
    }
}
