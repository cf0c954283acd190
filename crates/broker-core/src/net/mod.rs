//! The tokio shell: sockets, time and tasks around the deciding parts.
//!
//! ```text
//!   doors           transport            connection          session          store
//!   TCP, Unix,  --> Listener, Stream --> bytes <-> frames --> decides  <--->  (a thread
//!   in process      (injectable)         one task each       (no I/O)          of its own)
//! ```
//! [`Server`] owns the left side and a runtime for it; a store is handed to it when it is open.
//! [`client`] is the other end of a connection. A [`Node`] puts them together: it holds the store's lock
//! and serves, or is a client of who does; a [`Broker`] is the same for one process alone.

mod broker;
pub mod client;
mod config;
mod connection;
mod doors;
mod fence;
mod hub;
mod leader;
mod node;
mod server;
mod status;
mod transport;
mod warden;

pub use broker::Broker;
pub use config::{Config, Role};
pub use node::{Node, NodeControl};
pub use server::{Server, ServerConfig};
pub use transport::{Listener, Origin, Stream, TcpDoor, UnixDoor};
