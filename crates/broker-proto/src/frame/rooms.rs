//! Which rooms there are: [`ListRooms`], answered by [`RoomList`] or an error.
//!
//! The body of a list is `count` entries, each {u8 name_len, name, u64 epoch, u64 first, u64 head, i64 last_time},
//! little-endian.

use bytes::{BufMut, BytesMut};
use serde::{Deserialize, Serialize};

use super::Kind;
use super::head::{Parts, Wire, clip, put_head, put_plain};
use crate::decode::DecodeError;
use crate::limits::{ROOM_LIST_MAX, ROOM_NAME_BYTES_MAX};
use crate::name::{NameCache, RoomName};
use crate::seq::{Epoch, Micros, Seq};

/// Client: which rooms are there, in the order of their bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListRooms {
    /// The client's number of this request; the answer carries it.
    pub correlation: u32,
    /// Only rooms whose name sorts after this, at most 128 bytes; empty: from the beginning.
    pub after: String,
    /// Most rooms wanted; the broker may send fewer, at most 1,000.
    pub limit: u32,
}

#[derive(Serialize, Deserialize)]
struct ListRoomsHeader<'a> {
    correlation: u32,
    after: &'a str,
    limit: u32,
}

impl Wire for ListRooms {
    const KIND: Kind = Kind::ListRooms;

    fn put(&self, out: &mut BytesMut) {
        let after = clip(&self.after, ROOM_NAME_BYTES_MAX);
        put_plain(
            out,
            Self::KIND,
            &ListRoomsHeader {
                correlation: self.correlation,
                after,
                limit: self.limit,
            },
        );
    }

    fn take(parts: Parts, _: &mut NameCache) -> Result<Self, DecodeError> {
        let header: ListRoomsHeader<'_> = parts.only_header()?;
        let after = parts.text(header.after, ROOM_NAME_BYTES_MAX)?;
        Ok(Self {
            correlation: header.correlation,
            after,
            limit: header.limit,
        })
    }
}

/// One room of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomEntry {
    /// Its name; it may be one of the broker's own.
    pub name: RoomName,
    /// Its history.
    pub epoch: Epoch,
    /// The oldest message kept; one after the head when there is none.
    pub first: Seq,
    /// The newest message that is stored.
    pub head: Seq,
    /// When the newest message was stored.
    pub last_time: Micros,
}

impl RoomEntry {
    /// Appends the entry to the body of a list.
    fn put(&self, out: &mut BytesMut) {
        out.put_u8(u8::try_from(self.name.len()).expect("names of rooms are at most 128 bytes"));
        out.put_slice(self.name.as_bytes());
        out.put_u64_le(self.epoch.get());
        out.put_u64_le(self.first.get());
        out.put_u64_le(self.head.get());
        out.put_i64_le(self.last_time.get());
    }

    /// Splits the first entry off a body; `None` when it is cut short.
    fn split(body: &[u8]) -> Option<(RawEntry<'_>, &[u8])> {
        let (&name_len, rest) = body.split_first()?;
        let (name, rest) = rest.split_at_checked(name_len.into())?;
        let (epoch, rest) = rest.split_first_chunk()?;
        let (first, rest) = rest.split_first_chunk()?;
        let (head, rest) = rest.split_first_chunk()?;
        let (last_time, rest) = rest.split_first_chunk()?;
        let name = std::str::from_utf8(name).ok()?;
        let raw = RawEntry {
            name,
            epoch: Epoch::new(u64::from_le_bytes(*epoch)),
            first: Seq::new(u64::from_le_bytes(*first)),
            head: Seq::new(u64::from_le_bytes(*head)),
            last_time: Micros::new(i64::from_le_bytes(*last_time)),
        };
        Some((raw, rest))
    }
}

/// An entry whose name is not checked yet.
struct RawEntry<'a> {
    name: &'a str,
    epoch: Epoch,
    first: Seq,
    head: Seq,
    last_time: Micros,
}

/// Broker: these rooms.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RoomList {
    /// The request that this answers.
    pub correlation: u32,
    /// The rooms, in the order of their bytes; at most 1,000.
    pub rooms: Vec<RoomEntry>,
    /// Whether there are more after the last one.
    pub more: bool,
}

#[derive(Serialize, Deserialize)]
struct RoomListHeader {
    correlation: u32,
    count: u32,
    more: bool,
}

impl Wire for RoomList {
    const KIND: Kind = Kind::RoomList;

    fn put(&self, out: &mut BytesMut) {
        let body_len = self.rooms.iter().map(|room| 33 + room.name.len()).sum();
        let count = u32::try_from(self.rooms.len()).expect("a list has at most 1,000 rooms");
        let header = RoomListHeader {
            correlation: self.correlation,
            count,
            more: self.more,
        };
        put_head(out, Self::KIND, &header, [], body_len);
        for room in &self.rooms {
            room.put(out);
        }
    }

    fn take(parts: Parts, _: &mut NameCache) -> Result<Self, DecodeError> {
        let RoomListHeader {
            correlation,
            count,
            more,
        } = parts.plain_header()?;
        let count = count as usize;
        if count > ROOM_LIST_MAX {
            return Err(parts.malformed("the list has more rooms than allowed"));
        }
        let mut rest = parts.body();
        // Room for what the body can hold, not for what the header says.
        let mut rooms = Vec::with_capacity(count.min(rest.len() / 33));
        for _ in 0..count {
            let (raw, after) = RoomEntry::split(rest)
                .ok_or_else(|| parts.malformed("a room is cut short or its name is not UTF-8"))?;
            let name =
                RoomName::parse_reserved(raw.name).map_err(|cause| parts.name_error(cause))?;
            let RawEntry {
                epoch,
                first,
                head,
                last_time,
                ..
            } = raw;
            rooms.push(RoomEntry {
                name,
                epoch,
                first,
                head,
                last_time,
            });
            rest = after;
        }
        if !rest.is_empty() {
            return Err(parts.malformed("bytes follow the last room"));
        }
        Ok(Self {
            correlation,
            rooms,
            more,
        })
    }
}
