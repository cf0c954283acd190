//! The client of a broker: [`Client`], [`Room`], [`Subscription`].
//!
//! ```text
//!  Client, Room, Ticket, Subscription, Cursor        handles, on any task
//!        |          Shared { Core }                  one lock, held for moments
//!  driver: connect, greet, link, again               one task on the runtime of the application
//! ```
//! The handles append to the window of sends (`sends`) or ask (`requests`); the link writes what is there, once per
//! turn, and hands out what comes back. Everything that must survive a connection lives in the core: unanswered sends with
//! their numbers, unanswered requests, where each subscription stands (`feed`).
//!
//! **Invariants:** a message is answered exactly once, by a stored place, a refusal, or an error that says what is known;
//! own messages keep their order over reconnects; nothing of the connection waits for the application, and no queue grows
//! beyond a limit that is stated where it is made.

mod batch;
mod config;
mod connector;
mod cursor;
mod driver;
mod error;
mod feed;
mod frames;
mod greet;
mod handle;
mod heads;
mod link;
mod managing;
mod message;
mod outbox;
mod read_buffer;
mod requests;
mod retry;
mod room;
mod sends;
mod shared;
mod stall;
mod state;
mod subscription;
#[cfg(test)]
mod tests;
mod ticket;
mod url;
mod waiting;

pub use broker_proto::StartAt;
pub use config::ClientConfig;
pub(super) use config::Observer;
pub(super) use connector::connect_unix;
pub use connector::{BoxStream, Connect, Connector, Opening, Stream};
pub use cursor::Cursor;
pub use error::{Error, ErrorKind, Result};
pub use handle::{Client, RoomsPage};
pub use message::{Ack, AckRun, BatchItem, BatchMessages, Item, Message, MessageBatch, Page};
pub use room::Room;
pub use stall::{Stall, StallKind};
pub use state::{ServerInfo, State};
pub use subscription::{Subscribing, Subscription};
pub use ticket::{BulkAck, BulkTicket, Outcome, Ticket};
pub use url::Address;
