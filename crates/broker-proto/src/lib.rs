//! The wire protocol of the room broker: bytes to frames and back, and the words both sides share.
//!
//! This crate does no I/O and reads no clock. It holds names, positions, limits and error codes ([`name`], [`seq`],
//! [`limits`], [`error_code`]), the frames of the wire ([`frame`]), how bytes become frames ([`decode()`]), and the stored
//! record that deliveries carry verbatim ([`record`]). `docs/protocol.md` describes the same bytes for other languages.
//!
//! **Invariant:** no input makes it panic, and nothing is allocated for a length that has not arrived.
//!
//! ```
//! use broker_proto::{Frame, Ping, decode, limits};
//! use bytes::BytesMut;
//!
//! let mut wire = BytesMut::new();
//! Frame::from(Ping { nonce: 7 }).encode(&mut wire);
//! let frame = decode(&mut wire, limits::FRAME_BYTES_MAX)?;
//! assert_eq!(frame, Some(Frame::Ping(Ping { nonce: 7 })));
//! # Ok::<(), broker_proto::DecodeError>(())
//! ```

pub mod block;
pub mod byte_str;
#[cfg(feature = "codec")]
pub mod codec;
pub mod decode;
pub mod error_code;
pub mod extension;
pub mod frame;
#[doc(hidden)]
pub mod fuzzing;
pub mod id;
pub mod limits;
pub mod name;
pub mod record;
pub mod seq;
pub mod settings;

pub use block::{Block, BlockError};
pub use byte_str::ByteStr;
pub use decode::{DecodeError, Decoder, decode};
pub use error_code::ErrorCode;
pub use extension::{Extension, ExtensionError, Extensions};
pub use frame::ack::{self, Ack, AckWriter, Level};
pub use frame::credit::Credit;
pub use frame::cursor::{Cursor, GetCursor, SetCursor};
pub use frame::cursor_list::{CursorEntry, CursorList, ListCursors};
pub use frame::deliver::{self, Deliver};
pub use frame::error::Error;
pub use frame::find::{FindRooms, LabelWanted, RoomsFound};
pub use frame::goodbye::Goodbye;
pub use frame::hello::{Hello, Starting, Welcome};
pub use frame::known_head::{KnownHead, KnownHeads};
pub use frame::ping::{Ping, Pong};
pub use frame::publish::{self, Publish, PublishEntry, PublishExtensions};
pub use frame::read::{Page, Read};
pub use frame::refused::Refused;
pub use frame::room::{ChangeRoom, GetRoom, RemoveRoom, RoomDetails, RoomFacts, TrimRoom};
pub use frame::rooms::{ListRooms, RoomEntry, RoomList};
pub use frame::skip::{Skip, SkipRange, SkipReason};
pub use frame::status::{GetStatus, Status};
pub use frame::store_settings::{ChangeSettings, GetSettings, StoreDetails};
pub use frame::subscribe::{StartAt, StartView, Subscribe, Subscribed, Unsubscribe};
pub use frame::{Frame, Kind};
pub use id::{ProducerId, RoomId, StoreId};
pub use name::{CursorName, NameError, RoomName, SenderName};
pub use record::{Message, MessageView, Messages, Record, RecordError, RecordHead};
pub use seq::{Epoch, Micros, Position, Seq, Term};
pub use settings::{
    Retention, RoomChange, RoomSettings, SettingsError, StoreChange, StoreSettings, Visibility,
    WhenFull,
};
