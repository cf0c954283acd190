//! A durable, room-based message broker that applications embed.

pub mod clock;
pub mod dir;
pub mod log;
#[cfg(feature = "net")]
pub mod net;
mod planted;
pub mod session;
pub mod store;
mod sync;

#[cfg(feature = "net")]
pub use net::{Broker, Config, Node, Role};

#[cfg(feature = "net")]
pub use net::client::{
    Ack, AckRun, Address, BulkAck, BulkTicket, Client, ClientConfig, Connector, Cursor, Error,
    ErrorKind, Item, Message, Outcome, Page, Result, Room, RoomsPage, ServerInfo, StartAt, State,
    Subscribing, Subscription, Ticket,
};
