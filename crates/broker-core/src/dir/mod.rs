//! The data directory of a store: whether it may be used, whose it is, and who leads.
//!
//! | file | what it is |
//! |---|---|
//! | `store` | identity and format of the store ([`StoreFile`]), made once |
//! | `lock` | whoever holds it leads ([`Lock`]); names its holder ([`Holder`]) |
//! | `sock` | the leader's Unix socket ([`StoreDir::socket_path`]) |
//! | `health.sock` | answers how the leader is ([`StoreDir::health_socket_path`]) |
//! | `fenced` | when a leader was last killed because it hung ([`StoreDir::begin_fencing`]) |
//!
//! Order for a process that wants to lead: [`StoreDir::open`], [`StoreDir::read_store`] (a store that is too new is refused before
//! anything is touched), [`Lock::try_acquire`], [`StoreDir::open_store`], and only then the log.
//!
//! **Invariants:** nothing here deletes or remakes a file because it cannot be read. The lock is never unlocked, only closed: with
//! the last descriptor of it the kernel gives it on, also after `kill -9`.

mod block;
mod error;
mod fencing;
mod holder;
mod keepers;
mod lock;
mod probe;
mod store_dir;
mod store_file;
#[cfg(test)]
mod tests;

pub use error::{DirError, ExitClass};
pub use fencing::FENCING_EVERY;
pub use holder::{Halt, Holder, HolderError, Liveness, ProcessId, role};
pub use keepers::{Keeper, keepers, listener_at};
pub use lock::{Lock, LockError};
pub use probe::{FileSystem, Probe, SystemProbe};
pub use store_dir::StoreDir;
pub use store_file::{FEATURE_LEVEL, FORMAT_VERSION, Identity, NewStore, StoreFile};

/// Name of the file that identifies a store.
pub const STORE_NAME: &str = "store";

/// Name of the file whose lock decides who leads.
pub const LOCK_NAME: &str = "lock";

/// Name of the leader's Unix socket.
pub const SOCKET_NAME: &str = "sock";

/// Name of the socket that answers how the leader is.
pub const HEALTH_SOCKET_NAME: &str = "health.sock";
