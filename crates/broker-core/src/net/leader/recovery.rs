//! Opening the store, away from any runtime: its identity, then its log.

use std::thread;
use std::time::Duration;

use broker_proto::{StoreId, Term};
use tokio::sync::oneshot;

use super::{Stored, dir_error, disk, now};
use crate::clock::{Random, SystemRandom};
use crate::dir::{Holder, Identity, Lock, NewStore, ProcessId, StoreDir};
use crate::log::LastLeader;
use crate::log::storage::FileStorage;
use crate::net::client::{Error, ErrorKind, Result};
use crate::net::server::Server;
use crate::session::Progress;
use crate::store::{EmbeddedConfig, EmbeddedStore};
use crate::sync::Arc;

/// Progress is told each time so much more of the log is read, in bytes.
const PROGRESS_BYTES: u64 = 16 << 20;

/// Who led before, as the lock file tells: every leader writes its term there before it writes to the log. Only since this machine
/// was started: a power cut may have left an older lock file than log.
pub(super) fn last_leader(last: Option<&Holder>, own: &ProcessId) -> Option<LastLeader> {
    let last = last.filter(|last| {
        last.process.boot_id == own.boot_id && own.boot_id != [0; 16] && last.term.get() > 0
    })?;
    Some(LastLeader {
        term: last.term.get(),
        since: last.since.get(),
    })
}

/// What is needed to open the store, away from the runtime.
pub(super) struct Recovery {
    pub(super) dir: Arc<StoreDir>,
    pub(super) server: Arc<Server<Stored>>,
    pub(super) payload_bytes_max: u32,
    pub(super) scrub_every: Option<Duration>,
    /// Of whoever led before.
    pub(super) last_term: Term,
    /// Who that was, if it was since this machine was started.
    pub(super) last_leader: Option<LastLeader>,
}

impl Recovery {
    /// Identifies the store and reads its log. Blocks.
    pub(super) fn open(&self, lock: &Lock) -> Result<Arc<Stored>> {
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
            // The lock file of a copy may be of another moment than its log.
            last_leader: self.last_leader.filter(|_| !copied),
            renew_epochs: copied,
            payload_bytes_max: self.payload_bytes_max,
            scrub_every: self.scrub_every,
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

/// Does blocking work on a thread of its own. A runtime's blocking pool would do, but the caller's
/// may be any, and the server's ends with the server.
pub(super) async fn on_a_thread<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T> {
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
