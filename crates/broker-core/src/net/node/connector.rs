//! [`ToLeader`]: the way of a node's own client to whoever leads, which may be this process.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::pace::jittered;
use crate::dir::{HEALTH_SOCKET_NAME, SOCKET_NAME, StoreDir};
use crate::net::client::{BoxStream, Connect, Opening};
use crate::net::leader::Stored;
use crate::net::server::Server;
use crate::sync::{Arc, AtomicBool, Ordering, Weak};

/// How long one attempt waits for somebody to lead. Between leaders there is nobody for some
/// milliseconds; waiting here is quicker than the client's own pace, and ends when this process leads.
const NOBODY_FOR: Duration = Duration::from_millis(100);

/// Longest pause between two looks meanwhile.
const LOOK_AGAIN: Duration = Duration::from_millis(4);

/// Where the server is.
#[derive(Debug, Clone, Default)]
pub(super) enum Place {
    /// In another process, if anywhere.
    #[default]
    Elsewhere,
    /// In this process.
    Here(Weak<Server<Stored>>),
}

/// Opens streams to the leader.
pub(super) struct ToLeader {
    dir: Arc<StoreDir>,
    place: watch::Receiver<Place>,
    /// Whether the last stream leads into this process.
    here: AtomicBool,
}

impl ToLeader {
    pub(super) fn new(dir: Arc<StoreDir>, place: watch::Receiver<Place>) -> Self {
        Self {
            dir,
            place,
            here: AtomicBool::new(false),
        }
    }

    async fn open(&self) -> io::Result<BoxStream> {
        let deadline = Instant::now() + NOBODY_FOR;
        let mut place = self.place.clone();
        loop {
            let here = match &*place.borrow_and_update() {
                Place::Here(server) => server.upgrade(),
                Place::Elsewhere => None,
            };
            self.here.store(here.is_some(), Ordering::Relaxed);
            if let Some(server) = here {
                return Ok(Box::new(server.connect()));
            }
            let refused = match UnixStream::connect(self.dir.socket_path()).await {
                Ok(stream) => return Ok(Box::new(stream)),
                Err(error) => error,
            };
            if Instant::now() >= deadline {
                return Err(refused);
            }
            // Woken or not, the next look tells.
            let _woken = timeout_at(Instant::now() + jittered(LOOK_AGAIN), place.changed()).await;
        }
    }
}

impl Connect for ToLeader {
    fn connect(&self) -> Opening<'_> {
        Box::pin(self.open())
    }

    fn address(&self) -> String {
        let path: PathBuf = self.dir.path().join(SOCKET_NAME);
        format!("unix:{}", path.display())
    }

    fn health_socket(&self) -> Option<PathBuf> {
        Some(self.dir.path().join(HEALTH_SOCKET_NAME))
    }

    fn leads(&self, pid: u32) -> bool {
        // A socket that was passed on is served before this process has said that it leads.
        let here = matches!(&*self.place.borrow(), Place::Here(_));
        self.here.load(Ordering::Relaxed) || here && pid == std::process::id()
    }
}
