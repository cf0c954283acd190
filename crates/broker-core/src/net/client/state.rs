//! [`State`]: how a client's connection is, for those who want to show it.
//!
//! Nobody needs it to be correct: sends, requests and subscriptions go over a lost connection by themselves.

use std::sync::Arc;
use std::time::Duration;

use broker_proto::{StoreId, Term, Welcome};

use super::error::Error;
use super::stall::Stall;

/// How a client's connection is.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum State {
    /// The first connection is being made.
    Connecting,
    /// Connected for the first time.
    Connected {
        /// Who answered.
        server: Arc<ServerInfo>,
    },
    /// The broker takes requests and does not answer them; what waits goes on waiting until its timeout. Followed by
    /// [`State::Resumed`] when answers come again.
    Stalled {
        /// What is known of it, and what a person can do.
        report: Stall,
    },
    /// The connection is lost and being made again.
    Disconnected {
        /// Why it was lost, or why the last attempt failed.
        cause: Error,
    },
    /// Connected again, or answered again; what was not acknowledged was sent again, subscriptions went on where they stood.
    Resumed {
        /// Who answered.
        server: Arc<ServerInfo>,
        /// How long the connection was away, or the answers.
        gap: Duration,
    },
    /// Connected to the broker that this process serves itself: it leads. Only a node says so. What was not acknowledged
    /// was sent again, subscriptions went on where they stood.
    Leading {
        /// This process.
        server: Arc<ServerInfo>,
        /// How long there was no connection; `None` for the first.
        gap: Option<Duration>,
    },
    /// Nothing goes any more: the client was shut down, or gave up.
    Closed {
        /// Why it gave up; `None` after a shutdown.
        cause: Option<Error>,
    },
}

impl State {
    /// The broker, while connected.
    #[must_use]
    pub fn server(&self) -> Option<&Arc<ServerInfo>> {
        match self {
            Self::Connected { server }
            | Self::Resumed { server, .. }
            | Self::Leading { server, .. } => Some(server),
            _ => None,
        }
    }

    /// Whether this process serves the store itself.
    #[must_use]
    pub fn is_leading(&self) -> bool {
        matches!(self, Self::Leading { .. })
    }

    /// Whether requests reach a broker now.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.server().is_some()
    }
}

/// What a broker said about itself when it welcomed the client.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerInfo {
    /// The store that it serves.
    pub store: StoreId,
    /// Its leader's term.
    pub term: Term,
    /// Name and version of its program.
    pub build: String,
    /// Feature level of the store.
    pub feature_level: u32,
    /// Largest payload that it takes, in bytes.
    pub payload_bytes_max: usize,
    /// Most sends that may be unacknowledged.
    pub unacked_max: u32,
    /// Largest window of a subscription, in bytes.
    pub window_bytes_max: u32,
    /// How long a silent producer is remembered.
    pub producer_window: Duration,
    /// Its process.
    pub pid: u32,
    /// Its number of this connection, for its logs.
    pub connection: u64,
}

impl From<Welcome> for ServerInfo {
    fn from(welcome: Welcome) -> Self {
        Self {
            store: welcome.store,
            term: welcome.term,
            build: welcome.build,
            feature_level: welcome.feature_level,
            payload_bytes_max: usize::try_from(welcome.payload_bytes_max).unwrap_or(usize::MAX),
            unacked_max: welcome.unacked_max,
            window_bytes_max: welcome.window_bytes_max,
            producer_window: Duration::from_secs(welcome.producer_window_secs.into()),
            pid: welcome.pid,
            connection: welcome.connection,
        }
    }
}
