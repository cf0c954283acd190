//! The frames of the wire, one struct each, and [`Frame`], any of them.
//!
//! ```text
//! client                     broker
//!   Hello  ------------------>        4 KiB, 5 s
//!          <------------------ Starting*, Welcome | Error
//!   Publish ----------------->        numbers of the producer, rising
//!          <------------------ Ack | Refused
//!   Subscribe, Credit ------->
//!          <------------------ Subscribed, (Deliver | Skip)*
//!   Read, ListRooms, ... ---->        with a correlation number
//!          <------------------ Page, RoomList, ... | Error
//!   Ping <-------------------> Pong   either side, when idle
//!   Goodbye <----------------> Goodbye
//! ```
//! The layouts are in `docs/protocol.md`, with the same examples that `tests/golden.rs` checks.

use std::fmt;

use bytes::BytesMut;

use crate::decode::DecodeError;
use crate::name::NameCache;
use head::{Parts, Wire};

pub mod ack;
pub mod credit;
pub mod cursor;
pub mod cursor_list;
pub mod deliver;
pub mod error;
mod fields;
pub mod find;
pub mod goodbye;
pub(crate) mod head;
pub mod hello;
pub mod known_head;
pub mod ping;
pub mod publish;
pub mod read;
pub mod refused;
pub mod room;
pub mod rooms;
pub mod skip;
pub mod status;
pub mod store_settings;
pub mod subscribe;

use ack::Ack;
use credit::Credit;
use cursor::{Cursor, GetCursor, SetCursor};
use cursor_list::{CursorList, ListCursors};
use deliver::Deliver;
use error::Error;
use find::{FindRooms, RoomsFound};
use goodbye::Goodbye;
use hello::{Hello, Starting, Welcome};
use ping::{Ping, Pong};
use publish::Publish;
use read::{Page, Read};
use refused::Refused;
use room::{ChangeRoom, GetRoom, RemoveRoom, RoomDetails, TrimRoom};
use rooms::{ListRooms, RoomList};
use skip::Skip;
use status::{GetStatus, Status};
use store_settings::{ChangeSettings, GetSettings, StoreDetails};
use subscribe::{Subscribe, Subscribed, Unsubscribe};

macro_rules! frames {
    ($($(#[doc = $doc:literal])+ $name:ident = $number:literal, $text:literal;)+) => {
        /// What a frame is, by its number on the wire.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        #[repr(u8)]
        pub enum Kind {
            $($(#[doc = $doc])+ $name = $number,)+
        }

        impl Kind {
            /// Every kind that this version knows, in rising order.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// The kind with this number, when this version knows it.
            #[must_use]
            pub const fn new(number: u8) -> Option<Self> {
                match number {
                    $($number => Some(Self::$name),)+
                    _ => None,
                }
            }

            /// The name for people and logs.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)+
                }
            }
        }

        /// Any frame.
        #[derive(Debug, Clone, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum Frame {
            $($(#[doc = $doc])+ $name($name),)+
        }

        impl Frame {
            /// What it is.
            #[must_use]
            pub const fn kind(&self) -> Kind {
                match self {
                    $(Self::$name(_) => Kind::$name,)+
                }
            }

            /// Appends the frame as it goes over the wire. Free texts over their limit are cut.
            ///
            /// # Panics
            /// When its body makes it larger than [`FRAME_BYTES_MAX`](crate::limits::FRAME_BYTES_MAX), which no decoded
            /// frame and no frame within the other limits is.
            pub fn encode(&self, out: &mut BytesMut) {
                match self {
                    $(Self::$name(frame) => frame.put(out),)+
                }
            }

            /// Reads the frame from its head and body.
            pub(crate) fn parse(parts: Parts, names: &mut NameCache) -> Result<Self, DecodeError> {
                match parts.kind() {
                    $(Kind::$name => $name::take(parts, names).map(Self::$name),)+
                }
            }
        }

        $(
            impl From<$name> for Frame {
                fn from(frame: $name) -> Self {
                    Self::$name(frame)
                }
            }

            impl $name {
                /// Appends the frame as it goes over the wire, as [`Frame::encode`] does.
                pub fn encode(&self, out: &mut BytesMut) {
                    self.put(out);
                }
            }
        )+
    };
}

frames! {
    /// Client: who I am; the first frame.
    Hello = 0x01, "hello";
    /// Broker: who I am, and the limits.
    Welcome = 0x02, "welcome";
    /// Broker: still recovering, with progress.
    Starting = 0x03, "starting";
    /// Client: messages for a room.
    Publish = 0x04, "publish";
    /// Broker: messages are stored, with their seqs.
    Ack = 0x05, "ack";
    /// Broker: messages are not stored, and why.
    Refused = 0x06, "refused";
    /// Client: send me a room from a place on.
    Subscribe = 0x07, "subscribe";
    /// Broker: the subscription stands.
    Subscribed = 0x08, "subscribed";
    /// Client: end a subscription.
    Unsubscribe = 0x09, "unsubscribe";
    /// Client: admit more bytes.
    Credit = 0x0a, "credit";
    /// Broker: messages of a subscription.
    Deliver = 0x0b, "deliver";
    /// Broker: a range that will not come, and why.
    Skip = 0x0c, "skip";
    /// Client: one page of a room.
    Read = 0x0d, "read";
    /// Broker: the page.
    Page = 0x0e, "page";
    /// Client: which rooms are there.
    ListRooms = 0x0f, "list_rooms";
    /// Broker: these rooms.
    RoomList = 0x10, "room_list";
    /// Client: where is a cursor.
    GetCursor = 0x11, "get_cursor";
    /// Client: move a cursor.
    SetCursor = 0x12, "set_cursor";
    /// Broker: where the cursor is.
    Cursor = 0x13, "cursor";
    /// Client: how is the broker.
    GetStatus = 0x14, "get_status";
    /// Broker: figures about itself.
    Status = 0x15, "status";
    /// Either: are you there.
    Ping = 0x16, "ping";
    /// Either: yes.
    Pong = 0x17, "pong";
    /// Either: a request failed, or the connection.
    Error = 0x18, "error";
    /// Either: the connection ends.
    Goodbye = 0x19, "goodbye";
    /// Client: all that is known of a room.
    GetRoom = 0x1a, "get_room";
    /// Client: change what is set of a room.
    ChangeRoom = 0x1b, "change_room";
    /// Client: remove a room's oldest messages.
    TrimRoom = 0x1c, "trim_room";
    /// Client: remove a room.
    RemoveRoom = 0x1d, "remove_room";
    /// Broker: how the room is.
    RoomDetails = 0x1e, "room_details";
    /// Client: rooms with what is known of each.
    FindRooms = 0x1f, "find_rooms";
    /// Broker: these rooms.
    RoomsFound = 0x20, "rooms_found";
    /// Client: what is set of the store.
    GetSettings = 0x21, "get_settings";
    /// Client: change what is set of the store.
    ChangeSettings = 0x22, "change_settings";
    /// Broker: what is set of the store.
    StoreDetails = 0x23, "store_details";
    /// Client: which cursors a room has.
    ListCursors = 0x24, "list_cursors";
    /// Broker: these cursors.
    CursorList = 0x25, "cursor_list";
}

impl Kind {
    /// The number on the wire.
    #[must_use]
    pub const fn get(self) -> u8 {
        self as u8
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
