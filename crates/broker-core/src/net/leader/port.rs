//! The TCP port of a leader: the one that it was passed, the one that it was told, or the store's.
//!
//! A leader that was killed may hold its port for some milliseconds longer than its lock, so a port
//! that is taken is tried again: for a moment before anybody is told, then from time to time for as
//! long as the leader lives. Meanwhile the store's own socket is served.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::Stored;
use crate::dir::{Holder, listener_at};
use crate::net::client::{Error, ErrorKind, Result};
use crate::net::config::{Config, DEFAULT_ADDRESS, Listen, Role};
use crate::net::server::Server;
use crate::sync::{Arc, Mutex, Weak, lock};

/// How long a port that is taken is tried before anybody is told.
const SILENT_FOR: Duration = Duration::from_millis(50);

/// The same for a daemon, which fails when it cannot have its port.
const DAEMON_TRIES_FOR: Duration = Duration::from_secs(2);

/// Pause between two tries during that time.
const RETRY: Duration = Duration::from_millis(2);

/// Pause between two tries afterwards.
const RETRY_SLOWLY: Duration = Duration::from_secs(1);

/// Where a leader listens for TCP connections, once it does.
pub(super) type Address = Arc<Mutex<Option<SocketAddr>>>;

/// Where this process shall listen.
pub(super) fn wanted(config: &Config, last: Option<&Holder>) -> Option<SocketAddr> {
    if !config.role.lasts() {
        return None;
    }
    match config.listen {
        Listen::Nowhere => None,
        Listen::At(address) => Some(address),
        Listen::Stored => Some(
            last.and_then(|last| last.tcp.parse().ok())
                .unwrap_or(DEFAULT_ADDRESS),
        ),
    }
}

/// Opens the TCP port `wanted`, if any, or goes on at the one that was passed. A daemon fails when
/// it cannot have it; others serve the Unix socket, say so, and go on trying.
pub(super) async fn open(
    config: &Config,
    server: &Arc<Server<Stored>>,
    wanted: Option<SocketAddr>,
    passed: Option<OwnedFd>,
    address: &Address,
) -> Result<()> {
    let Some(wanted) = wanted else {
        return Ok(());
    };
    let allowed = config.check_address(wanted);
    if let Some(passed) = passed.filter(|passed| is_at(passed, wanted))
        && allowed.is_ok()
        && let Ok(at) = server.inherit_tcp(passed)
    {
        *lock(address) = Some(at);
        return Ok(());
    }
    let daemon = config.role == Role::ServeAlways;
    let tries_for = if daemon { DAEMON_TRIES_FOR } else { SILENT_FOR };
    let opened = match allowed {
        Ok(()) => bind(server, wanted, tries_for).await,
        refused => refused.map(|()| wanted),
    };
    match opened {
        Ok(at) => *lock(address) = Some(at),
        Err(error) if daemon => return Err(error),
        Err(error) => {
            let warning = warning(&error);
            tracing::warn!("{warning}");
            server.warn(warning.clone());
            if error.kind() == ErrorKind::Locked {
                let later = Later {
                    server: Arc::downgrade(server),
                    wanted,
                    address: Arc::clone(address),
                    warning,
                };
                server.spawn(later.run());
            }
        }
    }
    Ok(())
}

/// Whether a listener that was passed listens there.
fn is_at(passed: &OwnedFd, wanted: SocketAddr) -> bool {
    let at = rustix::net::getsockname(passed)
        .ok()
        .and_then(|at| SocketAddr::try_from(at).ok());
    at == Some(wanted)
}

async fn bind(
    server: &Server<Stored>,
    address: SocketAddr,
    tries_for: Duration,
) -> Result<SocketAddr> {
    let deadline = Instant::now() + tries_for;
    loop {
        match server.listen_tcp(address) {
            Ok(at) => return Ok(at),
            Err(error) if is_taken(&error) && Instant::now() < deadline => sleep(RETRY).await,
            Err(error) => return Err(refused(address, error)),
        }
    }
}

fn is_taken(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrInUse
}

fn refused(address: SocketAddr, error: io::Error) -> Error {
    let (kind, next) = if is_taken(&error) {
        (ErrorKind::Locked, taken(address))
    } else {
        (ErrorKind::Usage, String::new())
    };
    Error::new(kind, format!("cannot listen at {address}{next}")).with_source(error)
}

/// Who has a port that is taken, as far as this user can see, and what to do.
fn taken(address: SocketAddr) -> String {
    match listener_at(address) {
        Some(keeper) => format!(": {keeper} listens there; stop it, or choose another address"),
        None => "; stop what listens there, or choose another address".to_owned(),
    }
}

fn warning(error: &Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}; only the store's Unix socket is served"),
        None => format!("{error}; only the store's Unix socket is served"),
    }
}

/// A port that is to be had later, when whoever has it leaves.
struct Later {
    server: Weak<Server<Stored>>,
    wanted: SocketAddr,
    address: Address,
    warning: String,
}

impl Later {
    async fn run(self) {
        loop {
            sleep(RETRY_SLOWLY).await;
            let Some(server) = self.server.upgrade().filter(|server| server.accepts()) else {
                return;
            };
            match server.listen_tcp(self.wanted) {
                Ok(at) => {
                    *lock(&self.address) = Some(at);
                    server.unwarn(&self.warning);
                    tracing::info!(tcp = %at, "the port is free now, and served");
                    return;
                }
                Err(error) if is_taken(&error) => {}
                Err(error) => {
                    tracing::warn!(%error, "gave the port up");
                    return;
                }
            }
        }
    }
}
