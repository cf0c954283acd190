//! Named durable positions of readers: [`GetCursor`] and [`SetCursor`], answered by [`Cursor`] or an error.

use bytes::BytesMut;
use serde::{Deserialize, Serialize};

use super::Kind;
use super::head::{Parts, Wire, put_plain};
use crate::decode::DecodeError;
use crate::name::{CursorName, NameCache, RoomName};
use crate::seq::{Epoch, Position, Seq};

/// Client: where is a cursor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GetCursor {
    /// The client's number of this request; the answer carries it.
    pub correlation: u32,
    /// The room.
    pub room: RoomName,
    /// The cursor.
    pub name: CursorName,
}

#[derive(Serialize, Deserialize)]
struct GetCursorHeader<'a> {
    correlation: u32,
    room: &'a str,
    name: &'a str,
}

impl Wire for GetCursor {
    const KIND: Kind = Kind::GetCursor;

    fn put(&self, out: &mut BytesMut) {
        let header = GetCursorHeader {
            correlation: self.correlation,
            room: &self.room,
            name: &self.name,
        };
        put_plain(out, Self::KIND, &header);
    }

    fn take(parts: Parts, names: &mut NameCache) -> Result<Self, DecodeError> {
        let header: GetCursorHeader<'_> = parts.only_header()?;
        let room = names
            .room(header.room)
            .map_err(|cause| parts.name_error(cause))?;
        let name = CursorName::parse(header.name).map_err(|cause| parts.name_error(cause))?;
        Ok(Self {
            correlation: header.correlation,
            room,
            name,
        })
    }
}

/// Client: move a cursor. Answered when the move is on stable storage, unless it is relaxed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetCursor {
    /// The client's number of this request; the answer carries it.
    pub correlation: u32,
    /// The room.
    pub room: RoomName,
    /// The cursor.
    pub name: CursorName,
    /// Where to move it: the next message wanted.
    pub position: Position,
    /// With [`COMPARE`](Self::COMPARE): where it must be now; `Position::NONE` when it must not exist.
    pub expected: Position,
    /// Bits of [`COMPARE`](Self::COMPARE), [`DELETE`](Self::DELETE) and [`RELAXED`](Self::RELAXED).
    pub flags: u32,
}

#[derive(Serialize, Deserialize)]
struct SetCursorHeader<'a> {
    correlation: u32,
    room: &'a str,
    name: &'a str,
    position: Position,
    expected: Position,
    flags: u32,
}

impl SetCursor {
    /// Flag: only when the cursor is where `expected` says.
    pub const COMPARE: u32 = 1;
    /// Flag: remove the cursor instead of moving it.
    pub const DELETE: u32 = 2;
    /// Flag: answered at once, and stored within about a second, together with others. With neither of the other flags.
    pub const RELAXED: u32 = 4;

    /// Whether the cursor must be where `expected` says.
    #[must_use]
    pub const fn compares(&self) -> bool {
        self.flags & Self::COMPARE != 0
    }

    /// Whether the cursor is to be removed.
    #[must_use]
    pub const fn deletes(&self) -> bool {
        self.flags & Self::DELETE != 0
    }

    /// Whether the answer need not wait for stable storage.
    #[must_use]
    pub const fn is_relaxed(&self) -> bool {
        self.flags & Self::RELAXED != 0
    }
}

impl Wire for SetCursor {
    const KIND: Kind = Kind::SetCursor;

    fn put(&self, out: &mut BytesMut) {
        let header = SetCursorHeader {
            correlation: self.correlation,
            room: &self.room,
            name: &self.name,
            position: self.position,
            expected: self.expected,
            flags: self.flags,
        };
        put_plain(out, Self::KIND, &header);
    }

    fn take(parts: Parts, names: &mut NameCache) -> Result<Self, DecodeError> {
        let header: SetCursorHeader<'_> = parts.only_header()?;
        let known = Self::COMPARE | Self::DELETE | Self::RELAXED;
        let flags = parts.flags(header.flags, known)?;
        if flags & Self::RELAXED != 0 && flags != Self::RELAXED {
            return Err(parts.malformed("a relaxed move neither compares nor deletes"));
        }
        Ok(Self {
            correlation: header.correlation,
            room: names
                .room(header.room)
                .map_err(|cause| parts.name_error(cause))?,
            name: CursorName::parse(header.name).map_err(|cause| parts.name_error(cause))?,
            position: header.position,
            expected: header.expected,
            flags,
        })
    }
}

/// Broker: where the cursor is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    /// The request that this answers.
    pub correlation: u32,
    /// The next message wanted; `None` when there is no such cursor.
    pub position: Option<Position>,
}

#[derive(Serialize, Deserialize)]
struct CursorHeader {
    correlation: u32,
    present: bool,
    epoch: Epoch,
    seq: Seq,
}

impl Wire for Cursor {
    const KIND: Kind = Kind::Cursor;

    fn put(&self, out: &mut BytesMut) {
        let Position { epoch, seq } = self.position.unwrap_or(Position::NONE);
        let present = self.position.is_some();
        put_plain(
            out,
            Self::KIND,
            &CursorHeader {
                correlation: self.correlation,
                present,
                epoch,
                seq,
            },
        );
    }

    fn take(parts: Parts, _: &mut NameCache) -> Result<Self, DecodeError> {
        let CursorHeader {
            correlation,
            present,
            epoch,
            seq,
        } = parts.only_header()?;
        Ok(Self {
            correlation,
            position: present.then_some(Position { epoch, seq }),
        })
    }
}
