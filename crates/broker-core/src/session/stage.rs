//! [`Stage`]: how a server fares, as its sessions are told.
//!
//! ```text
//!   Starting --store open--> Serving --shutdown--> Draining --store closed--> Leaving
//!      \------------------- the store cannot be opened ----------------------^
//! ```

use std::fmt;

use broker_proto::{ErrorCode, Starting};

use crate::sync::Arc;

/// How far a server is with opening its store.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Progress {
    /// How much is done, in the unit of `total`.
    pub done: u64,
    /// How much there is; 0 when not known.
    pub total: u64,
    /// What is being done, for people.
    pub what: String,
}

impl Progress {
    /// As it is told to a peer that waits.
    pub(super) fn frame(&self) -> Starting {
        Starting {
            done: self.done,
            total: self.total,
            what: self.what.clone(),
        }
    }
}

/// Why a server ends its sessions, and what the peers should do.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Farewell {
    /// `NONE` for an orderly leave.
    pub code: ErrorCode,
    /// For people; empty for an orderly leave.
    pub detail: String,
    /// When connecting again makes sense, in milliseconds; 0 = at once.
    pub retry_after_ms: u32,
    /// Where the store is served from now on, as a URL; empty when not known.
    pub successor: String,
}

/// How the server fares, for all its sessions.
pub enum Stage<S> {
    /// The store is being opened; peers are greeted and told how far it is.
    Starting(Progress),
    /// The store is open.
    Serving(Arc<S>),
    /// The store is open for reading; publishes under way are finished, new ones refused.
    Draining(Arc<S>),
    /// The sessions end.
    Leaving(Farewell),
}

impl<S> Clone for Stage<S> {
    fn clone(&self) -> Self {
        match self {
            Self::Starting(progress) => Self::Starting(progress.clone()),
            Self::Serving(store) => Self::Serving(Arc::clone(store)),
            Self::Draining(store) => Self::Draining(Arc::clone(store)),
            Self::Leaving(farewell) => Self::Leaving(farewell.clone()),
        }
    }
}

impl<S> fmt::Debug for Stage<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Starting(progress) => f.debug_tuple("Starting").field(progress).finish(),
            Self::Serving(_) => f.write_str("Serving"),
            Self::Draining(_) => f.write_str("Draining"),
            Self::Leaving(farewell) => f.debug_tuple("Leaving").field(farewell).finish(),
        }
    }
}
