//! What every session of one server tells its peers and enforces: [`Terms`].

use std::fmt;

use broker_proto::limits::{
    DELIVER_BYTES_TARGET, SUBSCRIPTIONS_PER_CONNECTION_MAX, UNACKED_NUMBERS_MAX,
};

use super::Patience;
use crate::sync::Arc;

/// What a session asks its server for.
pub trait Host: Send + Sync + 'static {
    /// The server's state as one JSON object, for people and scripts.
    fn status(&self) -> String;

    /// A peer knew of messages that the store does not have, and was told.
    fn lost_suffix(&self);
}

/// The limits and identity of a server, shared by its sessions. Tests shrink the limits.
#[derive(Clone)]
pub struct Terms {
    /// Name and version of the program, for welcome.
    pub build: String,
    /// Its process, for welcome.
    pub pid: u32,
    /// Most publish numbers of one connection without an answer; one frame may go beyond.
    /// Default 4096.
    pub unacked_max: u32,
    /// Largest window of a subscription, in bytes; grants beyond it are not kept. Default 64 MiB,
    /// far above what any link has in flight.
    pub window_bytes_max: u32,
    /// Most subscriptions of one connection. Default 65,536.
    pub subscriptions_max: usize,
    /// Most requests of one connection without an answer. Default 1024.
    pub requests_max: usize,
    /// Bytes of deliveries after which acks and all else get their turn. Default 60 KiB.
    pub turn_bytes: usize,
    /// Bytes waiting to be written above which nothing is read from the peer. Default 256 KiB.
    pub outbox_bytes_max: usize,
    /// Reads of one connection that may wait for the disk at once. Default 4.
    pub disk_reads_max: usize,
    /// When silence ends the connection.
    pub patience: Patience,
    /// Whom to ask for the status.
    pub host: Arc<dyn Host>,
}

impl Terms {
    /// The default limits for a program called `build`.
    pub fn new(build: impl Into<String>, pid: u32, host: Arc<dyn Host>) -> Self {
        Self {
            build: build.into(),
            pid,
            unacked_max: UNACKED_NUMBERS_MAX,
            window_bytes_max: 64 << 20,
            subscriptions_max: SUBSCRIPTIONS_PER_CONNECTION_MAX,
            requests_max: 1024,
            turn_bytes: DELIVER_BYTES_TARGET,
            outbox_bytes_max: 256 << 10,
            disk_reads_max: 4,
            patience: Patience::default(),
            host,
        }
    }
}

impl fmt::Debug for Terms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Terms")
            .field("build", &self.build)
            .field("pid", &self.pid)
            .finish_non_exhaustive()
    }
}
