//! Rooms that are looked for, with all that is known of each: [`FindRooms`], answered by [`RoomsFound`] or an error.
//!
//! The body of the request is `labels` entries {u8 name_len, name, u8 with_value, and when that is 1: u8 value_len, value}, that of
//! the answer `count` rooms as [`RoomFacts`] are written.

use bytes::{BufMut, BytesMut};
use serde::{Deserialize, Serialize};

use super::Kind;
use super::fields::{Fields, put_text};
use super::head::{Parts, Wire, clip, put_head};
use super::room::RoomFacts;
use crate::decode::DecodeError;
use crate::limits::{ROOM_LIST_MAX, ROOM_NAME_BYTES_MAX};
use crate::name::NameCache;
use crate::settings::{LABEL_NAME_BYTES_MAX, LABEL_VALUE_BYTES_MAX, LABELS_MAX};

/// A label that is looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelWanted {
    /// Its name, at most 64 bytes.
    pub name: String,
    /// Its value, at most 128 bytes; `None`: whatever it is.
    pub value: Option<String>,
}

/// Client: which rooms are there, in the order of their bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FindRooms {
    /// The client's number of this request; the answer carries it.
    pub correlation: u32,
    /// Only rooms whose name sorts after this, at most 128 bytes; empty: from the beginning.
    pub after: String,
    /// Most rooms wanted; the broker may send fewer, at most 1,000.
    pub limit: u32,
    /// Only rooms whose name begins so, at most 128 bytes.
    pub prefix: String,
    /// Only rooms with all of these, at most 16.
    pub labels: Vec<LabelWanted>,
}

#[derive(Serialize, Deserialize)]
struct FindRoomsHeader<'a> {
    correlation: u32,
    after: &'a str,
    limit: u32,
    prefix: &'a str,
    labels: u32,
}

impl LabelWanted {
    fn encoded_len(&self) -> usize {
        let value = self.value.as_deref();
        let value = value.map_or(0, |value| 1 + clip(value, LABEL_VALUE_BYTES_MAX).len());
        2 + clip(&self.name, LABEL_NAME_BYTES_MAX).len() + value
    }

    fn put(&self, out: &mut BytesMut) {
        put_text(out, clip(&self.name, LABEL_NAME_BYTES_MAX));
        out.put_u8(self.value.is_some().into());
        if let Some(value) = &self.value {
            put_text(out, clip(value, LABEL_VALUE_BYTES_MAX));
        }
    }

    fn split(body: &mut Fields<'_>) -> Option<Self> {
        let name = body.text()?.to_owned();
        let value = match body.u8()? {
            0 => None,
            1 => Some(body.text()?.to_owned()),
            _ => return None,
        };
        Some(Self { name, value })
    }
}

impl Wire for FindRooms {
    const KIND: Kind = Kind::FindRooms;

    fn put(&self, out: &mut BytesMut) {
        let labels = || self.labels.iter().take(LABELS_MAX);
        let header = FindRoomsHeader {
            correlation: self.correlation,
            after: clip(&self.after, ROOM_NAME_BYTES_MAX),
            limit: self.limit,
            prefix: clip(&self.prefix, ROOM_NAME_BYTES_MAX),
            labels: labels().map(|_| 1).sum(),
        };
        let body_len = labels().map(LabelWanted::encoded_len).sum();
        put_head(out, Self::KIND, &header, [], body_len);
        labels().for_each(|label| label.put(out));
    }

    fn take(parts: Parts, _: &mut NameCache) -> Result<Self, DecodeError> {
        let header: FindRoomsHeader<'_> = parts.plain_header()?;
        if header.labels as usize > LABELS_MAX {
            return Err(parts.malformed("more labels are wanted than a room can have"));
        }
        let mut body = Fields(parts.body());
        let mut labels = Vec::new();
        for _ in 0..header.labels {
            let label = LabelWanted::split(&mut body)
                .ok_or_else(|| parts.malformed("a label is cut short or not UTF-8"))?;
            let value = label.value.as_ref().map_or(0, String::len);
            if label.name.len() > LABEL_NAME_BYTES_MAX || value > LABEL_VALUE_BYTES_MAX {
                return Err(parts.malformed("a label is longer than its limit"));
            }
            labels.push(label);
        }
        if !body.is_empty() {
            return Err(parts.malformed("bytes follow the last label"));
        }
        Ok(Self {
            correlation: header.correlation,
            after: parts.text(header.after, ROOM_NAME_BYTES_MAX)?,
            limit: header.limit,
            prefix: parts.text(header.prefix, ROOM_NAME_BYTES_MAX)?,
            labels,
        })
    }
}

/// Broker: these rooms.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RoomsFound {
    /// The request that this answers.
    pub correlation: u32,
    /// The rooms, in the order of their bytes; at most 1,000.
    pub rooms: Vec<RoomFacts>,
    /// Ask again for what comes after this name; `None` at the end. There may be more although no room came.
    pub next: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct RoomsFoundHeader<'a> {
    correlation: u32,
    count: u32,
    more: bool,
    next: &'a str,
}

impl Wire for RoomsFound {
    const KIND: Kind = Kind::RoomsFound;

    fn put(&self, out: &mut BytesMut) {
        let header = RoomsFoundHeader {
            correlation: self.correlation,
            count: u32::try_from(self.rooms.len()).expect("an answer has at most 1,000 rooms"),
            more: self.next.is_some(),
            next: clip(
                self.next.as_deref().unwrap_or_default(),
                ROOM_NAME_BYTES_MAX,
            ),
        };
        let body_len = self.rooms.iter().map(RoomFacts::encoded_len).sum();
        put_head(out, Self::KIND, &header, [], body_len);
        for room in &self.rooms {
            room.put(out);
        }
    }

    fn take(parts: Parts, _: &mut NameCache) -> Result<Self, DecodeError> {
        let header: RoomsFoundHeader<'_> = parts.plain_header()?;
        let count = header.count as usize;
        if count > ROOM_LIST_MAX {
            return Err(parts.malformed("the list has more rooms than allowed"));
        }
        let mut body = Fields(parts.body());
        // Room for what the body can hold, not for what the header says.
        let mut rooms = Vec::with_capacity(count.min(body.0.len() / RoomFacts::FIXED_BYTES));
        for _ in 0..count {
            rooms.push(RoomFacts::take(&parts, &mut body)?);
        }
        if !body.is_empty() {
            return Err(parts.malformed("bytes follow the last room"));
        }
        let next = parts.text(header.next, ROOM_NAME_BYTES_MAX)?;
        Ok(Self {
            correlation: header.correlation,
            rooms,
            next: header.more.then_some(next),
        })
    }
}
