//! The tokio shell: sockets, time and tasks around the deciding parts.
//!
//! ```text
//!   doors           transport            connection          session          store
//!   TCP, Unix,  --> Listener, Stream --> bytes <-> frames --> decides  <--->  (a thread
//!   in process      (injectable)         one task each       (no I/O)          of its own)
//! ```
//! [`Server`] owns the left side and a runtime for it; a store is handed to it when it is open.
//! [`client`] is the other end of a connection.

pub mod client;
mod connection;
mod doors;
mod hub;
mod server;
mod status;
mod transport;

pub use server::{Server, ServerConfig};
pub use transport::{Listener, Origin, Stream, TcpDoor, UnixDoor};
