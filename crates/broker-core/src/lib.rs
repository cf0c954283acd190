//! A durable, room-based message broker that applications embed.
//!
//! Messages go into rooms; every room is one ordered history that is kept. An acknowledged message
//! is on stable storage, a publish that is retried is stored once, and a subscription gives history
//! and then live messages in one stream. Nobody has to run a server first: the first process that
//! opens a store serves it, the others connect.
//!
//! ```
//! use broker_core::{Broker, Item, StartAt};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
//! # let dir = tempfile::tempdir()?;
//! # let dir = dir.path().join("data");
//! let broker = Broker::open(&dir).await?;
//! let lobby = broker.client().room("lobby")?;
//! let mut messages = lobby.subscribe(StartAt::START).wait(true).await?;
//!
//! let ack = lobby.send("hello").await?; // on disk now
//! let ticket = lobby.queue("there").await?; // on its way
//!
//! if let Some(Item::Message(message)) = messages.next().await.transpose()? {
//!     assert_eq!((message.seq, &message.payload[..]), (ack.seq, &b"hello"[..]));
//! }
//! assert_eq!(ticket.await?.seq.get(), 2);
//! broker.shutdown().await?;
//! # Ok(()) }) }
//! ```
//!
//! - [`Broker::open`] serves a store within this process; [`Node::join`] serves it to others too, or
//!   connects to whoever does; [`Client::connect`] only connects. All three give the same [`Client`].
//! - [`Room::send`] waits for the disk, [`Room::queue`] gives a [`Ticket`] to wait on later,
//!   [`Room::send_all`] sends many with one.
//! - [`Room::subscribe`] gives a [`Subscription`], a `Stream`; [`Room::read`] one page of history.
//! - [`Room::info`] tells what is known of a room, [`Room::change`] sets how much of it is kept,
//!   [`Client::change_store_settings`] the same for the whole store; [`Client::find_rooms`] finds rooms.
//!
//! Without the feature `net`, which is on by default, the crate has no tokio, reads no clock and
//! opens no socket: [`store`] decides and keeps, [`session`] speaks the protocol, and a program or a
//! simulator of its own drives them.

pub mod clock;
pub mod dir;
#[doc(hidden)]
pub mod fuzzing;
pub mod log;
#[cfg(feature = "net")]
pub mod net;
mod planted;
pub mod session;
pub mod store;
mod sync;

#[cfg(feature = "net")]
pub use net::{Broker, Config, Node, NodeControl, Role};

pub use broker_proto::{
    Retention, RoomChange, RoomSettings, StoreChange, StoreSettings, Visibility, WhenFull,
};
pub use store::{CursorState, CursorsPage, FindRooms, FoundRooms, RoomInfo, RoomState, StoreState};

#[cfg(feature = "net")]
pub use net::client::{
    Ack, AckRun, Address, BatchItem, BatchMessages, BulkAck, BulkTicket, Client, ClientConfig,
    Connector, Cursor, Error, ErrorKind, Item, Message, MessageBatch, Outcome, Page, Result, Room,
    RoomsPage, ServerInfo, Stall, StallKind, StartAt, State, Subscribing, Subscription, Ticket,
};
