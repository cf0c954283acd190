//! Which cursors a room has: [`ListCursors`], answered by [`CursorList`] or an error.
//!
//! The body of a list is `count` entries, each {u8 name_len, name, u64 epoch, u64 seq, i64 moved}, little-endian.

use bytes::{BufMut, BytesMut};
use serde::{Deserialize, Serialize};

use super::Kind;
use super::fields::{Fields, put_text};
use super::head::{Parts, Wire, clip, put_head, put_plain};
use crate::decode::DecodeError;
use crate::limits::{CURSOR_LIST_MAX, CURSOR_NAME_BYTES_MAX};
use crate::name::{CursorName, NameCache, RoomName};
use crate::seq::{Micros, Position};

/// Client: which cursors are in a room, in the order of their names' bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListCursors {
    /// The client's number of this request; the answer carries it.
    pub correlation: u32,
    /// The room.
    pub room: RoomName,
    /// Only cursors whose name sorts after this, at most 128 bytes; empty: from the beginning.
    pub after: String,
    /// Most cursors wanted; the broker may send fewer, at most 1,000.
    pub limit: u32,
}

#[derive(Serialize, Deserialize)]
struct ListCursorsHeader<'a> {
    correlation: u32,
    room: &'a str,
    after: &'a str,
    limit: u32,
}

impl Wire for ListCursors {
    const KIND: Kind = Kind::ListCursors;

    fn put(&self, out: &mut BytesMut) {
        let header = ListCursorsHeader {
            correlation: self.correlation,
            room: &self.room,
            after: clip(&self.after, CURSOR_NAME_BYTES_MAX),
            limit: self.limit,
        };
        put_plain(out, Self::KIND, &header);
    }

    fn take(parts: Parts, names: &mut NameCache) -> Result<Self, DecodeError> {
        let header: ListCursorsHeader<'_> = parts.only_header()?;
        Ok(Self {
            correlation: header.correlation,
            room: names
                .room(header.room)
                .map_err(|cause| parts.name_error(cause))?,
            after: parts.text(header.after, CURSOR_NAME_BYTES_MAX)?,
            limit: header.limit,
        })
    }
}

/// One cursor of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CursorEntry {
    /// Its name.
    pub name: CursorName,
    /// The next message wanted.
    pub position: Position,
    /// When it was moved last.
    pub moved: Micros,
}

impl CursorEntry {
    const FIXED_BYTES: usize = 1 + 3 * 8;

    fn put(&self, out: &mut BytesMut) {
        put_text(out, &self.name);
        out.put_u64_le(self.position.epoch.get());
        out.put_u64_le(self.position.seq.get());
        out.put_i64_le(self.moved.get());
    }

    fn take(parts: &Parts, body: &mut Fields<'_>) -> Result<Self, DecodeError> {
        let mut split = || {
            let name = body.text()?;
            let position = Position::new(body.epoch()?, body.seq()?);
            Some((name, position, body.micros()?))
        };
        let (name, position, moved) = split()
            .ok_or_else(|| parts.malformed("a cursor is cut short or its name is not UTF-8"))?;
        let name = CursorName::parse(name).map_err(|cause| parts.name_error(cause))?;
        Ok(Self {
            name,
            position,
            moved,
        })
    }
}

/// Broker: these cursors.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CursorList {
    /// The request that this answers.
    pub correlation: u32,
    /// The cursors, in the order of their names' bytes; at most 1,000.
    pub cursors: Vec<CursorEntry>,
    /// Whether there are more after the last one.
    pub more: bool,
}

#[derive(Serialize, Deserialize)]
struct CursorListHeader {
    correlation: u32,
    count: u32,
    more: bool,
}

impl Wire for CursorList {
    const KIND: Kind = Kind::CursorList;

    fn put(&self, out: &mut BytesMut) {
        let header = CursorListHeader {
            correlation: self.correlation,
            count: u32::try_from(self.cursors.len()).expect("a list has at most 1,000 cursors"),
            more: self.more,
        };
        let entry = |cursor: &CursorEntry| CursorEntry::FIXED_BYTES + cursor.name.len();
        let body_len = self.cursors.iter().map(entry).sum();
        put_head(out, Self::KIND, &header, [], body_len);
        for cursor in &self.cursors {
            cursor.put(out);
        }
    }

    fn take(parts: Parts, _: &mut NameCache) -> Result<Self, DecodeError> {
        let CursorListHeader {
            correlation,
            count,
            more,
        } = parts.plain_header()?;
        let count = count as usize;
        if count > CURSOR_LIST_MAX {
            return Err(parts.malformed("the list has more cursors than allowed"));
        }
        let mut body = Fields(parts.body());
        // Room for what the body can hold, not for what the header says.
        let mut cursors = Vec::with_capacity(count.min(body.0.len() / CursorEntry::FIXED_BYTES));
        for _ in 0..count {
            cursors.push(CursorEntry::take(&parts, &mut body)?);
        }
        if !body.is_empty() {
            return Err(parts.malformed("bytes follow the last cursor"));
        }
        Ok(Self {
            correlation,
            cursors,
            more,
        })
    }
}
