//! All that is known of a room, and changes to it: [`GetRoom`], [`ChangeRoom`], [`TrimRoom`] and [`RemoveRoom`], answered by
//! [`RoomDetails`] or an error.
//!
//! What a room is told as, in the body of an answer, is [`RoomFacts`]: {u8 name_len, name, u64 epoch, u64 first, u64 head,
//! i64 last_time, u64 bytes, i64 created, u8 by_len, created_by, u64 version, u16 settings_len, settings}, little-endian.
//! Settings travel as the list of [`settings`](crate::settings) and are not judged here: a change that a broker cannot
//! make is refused, and the connection goes on.

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use super::Kind;
use super::fields::{Fields, put_list, put_text};
use super::head::{Parts, Wire, put_head, put_plain};
use crate::decode::DecodeError;
use crate::name::{NameCache, RoomName, SenderName};
use crate::seq::{Epoch, Micros, Seq};
use crate::settings::{RoomChange, RoomSettings, SETTINGS_BYTES_MAX, SettingsError};

/// Client: all that is known of a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GetRoom {
    /// The client's number of this request; the answer carries it.
    pub correlation: u32,
    /// The room.
    pub room: RoomName,
}

#[derive(Serialize, Deserialize)]
struct GetRoomHeader<'a> {
    correlation: u32,
    room: &'a str,
}

impl Wire for GetRoom {
    const KIND: Kind = Kind::GetRoom;

    fn put(&self, out: &mut BytesMut) {
        let header = GetRoomHeader {
            correlation: self.correlation,
            room: &self.room,
        };
        put_plain(out, Self::KIND, &header);
    }

    fn take(parts: Parts, names: &mut NameCache) -> Result<Self, DecodeError> {
        let header: GetRoomHeader<'_> = parts.only_header()?;
        Ok(Self {
            correlation: header.correlation,
            room: names
                .room(header.room)
                .map_err(|cause| parts.name_error(cause))?,
        })
    }
}

/// Client: change what is set of a room. Answered when the change is on stable storage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangeRoom {
    /// The client's number of this request; the answer carries it.
    pub correlation: u32,
    /// The room.
    pub room: RoomName,
    /// With [`COMPARE`](Self::COMPARE): how often the settings must have been changed.
    pub expected: u64,
    /// Bits of [`COMPARE`](Self::COMPARE).
    pub flags: u32,
    /// The change, a list as [`RoomChange::encode`] writes it.
    pub change: Bytes,
}

#[derive(Serialize, Deserialize)]
struct ChangeRoomHeader<'a> {
    correlation: u32,
    room: &'a str,
    expected: u64,
    flags: u32,
}

impl ChangeRoom {
    /// Flag: only when the settings were changed as often as `expected` says.
    pub const COMPARE: u32 = 1;

    /// A change, only when the settings were changed `expected` times if that is given.
    #[must_use]
    pub fn new(
        correlation: u32,
        room: RoomName,
        change: &RoomChange,
        expected: Option<u64>,
    ) -> Self {
        let mut list = Vec::new();
        change.encode(&mut list);
        Self {
            correlation,
            room,
            expected: expected.unwrap_or_default(),
            flags: expected.map_or(0, |_| Self::COMPARE),
            change: list.into(),
        }
    }

    /// How often the settings must have been changed, when that counts.
    #[must_use]
    pub const fn expected(&self) -> Option<u64> {
        if self.flags & Self::COMPARE == 0 {
            None
        } else {
            Some(self.expected)
        }
    }

    /// What changes.
    ///
    /// # Errors
    /// When the list breaks a rule, or has a key that this version does not know.
    pub fn change(&self) -> Result<RoomChange, SettingsError> {
        RoomChange::decode(&self.change)
    }
}

impl Wire for ChangeRoom {
    const KIND: Kind = Kind::ChangeRoom;

    fn put(&self, out: &mut BytesMut) {
        let header = ChangeRoomHeader {
            correlation: self.correlation,
            room: &self.room,
            expected: self.expected,
            flags: self.flags,
        };
        put_head(out, Self::KIND, &header, [], self.change.len());
        out.put_slice(&self.change);
    }

    fn take(parts: Parts, names: &mut NameCache) -> Result<Self, DecodeError> {
        let header: ChangeRoomHeader<'_> = parts.plain_header()?;
        Ok(Self {
            correlation: header.correlation,
            room: names
                .room(header.room)
                .map_err(|cause| parts.name_error(cause))?,
            expected: header.expected,
            flags: parts.flags(header.flags, Self::COMPARE)?,
            change: Bytes::copy_from_slice(parts.body()),
        })
    }
}

/// Client: remove a room's oldest messages. Answered when they are gone for every reader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrimRoom {
    /// The client's number of this request; the answer carries it.
    pub correlation: u32,
    /// The room.
    pub room: RoomName,
    /// Only in this history; `Epoch::NONE`: in any.
    pub epoch: Epoch,
    /// The oldest seq to keep; one past the head removes all messages.
    pub before: Seq,
}

#[derive(Serialize, Deserialize)]
struct TrimRoomHeader<'a> {
    correlation: u32,
    room: &'a str,
    epoch: Epoch,
    before: Seq,
}

impl Wire for TrimRoom {
    const KIND: Kind = Kind::TrimRoom;

    fn put(&self, out: &mut BytesMut) {
        let header = TrimRoomHeader {
            correlation: self.correlation,
            room: &self.room,
            epoch: self.epoch,
            before: self.before,
        };
        put_plain(out, Self::KIND, &header);
    }

    fn take(parts: Parts, names: &mut NameCache) -> Result<Self, DecodeError> {
        let header: TrimRoomHeader<'_> = parts.only_header()?;
        Ok(Self {
            correlation: header.correlation,
            room: names
                .room(header.room)
                .map_err(|cause| parts.name_error(cause))?,
            epoch: header.epoch,
            before: header.before,
        })
    }
}

/// Client: remove a room with all that is known of it. Answered, with how it was, when that is on stable storage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoveRoom {
    /// The client's number of this request; the answer carries it.
    pub correlation: u32,
    /// The room.
    pub room: RoomName,
    /// Only this history; `Epoch::NONE`: any.
    pub epoch: Epoch,
}

#[derive(Serialize, Deserialize)]
struct RemoveRoomHeader<'a> {
    correlation: u32,
    room: &'a str,
    epoch: Epoch,
}

impl Wire for RemoveRoom {
    const KIND: Kind = Kind::RemoveRoom;

    fn put(&self, out: &mut BytesMut) {
        let header = RemoveRoomHeader {
            correlation: self.correlation,
            room: &self.room,
            epoch: self.epoch,
        };
        put_plain(out, Self::KIND, &header);
    }

    fn take(parts: Parts, names: &mut NameCache) -> Result<Self, DecodeError> {
        let header: RemoveRoomHeader<'_> = parts.only_header()?;
        Ok(Self {
            correlation: header.correlation,
            room: names
                .room(header.room)
                .map_err(|cause| parts.name_error(cause))?,
            epoch: header.epoch,
        })
    }
}

/// What a broker tells of a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomFacts {
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
    /// Bytes of the messages that are kept, with what the log adds to each.
    pub bytes: u64,
    /// When it was made.
    pub created: Micros,
    /// By whom; not known of a room that is older than this knowledge.
    pub created_by: Option<SenderName>,
    /// How often its settings were changed.
    pub version: u64,
    /// What is set of it, a list as [`RoomSettings::encode`] writes it.
    pub settings: Bytes,
}

impl RoomFacts {
    /// Bytes of an entry beside its name, who made it and its settings.
    pub(super) const FIXED_BYTES: usize = 1 + 6 * 8 + 1 + 8 + 2;

    /// Bytes that it takes in a body.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        let by = self.created_by.as_ref().map_or(0, |by| by.len());
        Self::FIXED_BYTES + self.name.len() + by + self.settings.len()
    }

    /// What is set of the room. Settings that this version does not know are passed over.
    ///
    /// # Errors
    /// When a known one has a value that it cannot have.
    pub fn settings(&self) -> Result<RoomSettings, SettingsError> {
        RoomSettings::decode(&self.settings)
    }

    /// Appends the entry to a body.
    pub(super) fn put(&self, out: &mut BytesMut) {
        put_text(out, &self.name);
        out.put_u64_le(self.epoch.get());
        out.put_u64_le(self.first.get());
        out.put_u64_le(self.head.get());
        out.put_i64_le(self.last_time.get());
        out.put_u64_le(self.bytes);
        out.put_i64_le(self.created.get());
        put_text(out, self.created_by.as_deref().unwrap_or_default());
        out.put_u64_le(self.version);
        put_list(out, &self.settings);
    }

    /// Takes an entry off a body.
    pub(super) fn take(parts: &Parts, body: &mut Fields<'_>) -> Result<Self, DecodeError> {
        let cut = || parts.malformed("a room is cut short or a name in it is not UTF-8");
        let raw = RawFacts::split(body).ok_or_else(cut)?;
        if raw.settings.len() > SETTINGS_BYTES_MAX {
            return Err(parts.malformed("the settings of a room are longer than their limit"));
        }
        let name = RoomName::parse_reserved(raw.name).map_err(|cause| parts.name_error(cause))?;
        let created_by = match raw.created_by {
            "" => None,
            by => Some(SenderName::parse(by).map_err(|cause| parts.name_error(cause))?),
        };
        Ok(Self {
            name,
            epoch: raw.epoch,
            first: raw.first,
            head: raw.head,
            last_time: raw.last_time,
            bytes: raw.bytes,
            created: raw.created,
            created_by,
            version: raw.version,
            settings: Bytes::copy_from_slice(raw.settings),
        })
    }
}

/// An entry whose names are not checked yet.
struct RawFacts<'a> {
    name: &'a str,
    epoch: Epoch,
    first: Seq,
    head: Seq,
    last_time: Micros,
    bytes: u64,
    created: Micros,
    created_by: &'a str,
    version: u64,
    settings: &'a [u8],
}

impl<'a> RawFacts<'a> {
    fn split(body: &mut Fields<'a>) -> Option<Self> {
        Some(Self {
            name: body.text()?,
            epoch: body.epoch()?,
            first: body.seq()?,
            head: body.seq()?,
            last_time: body.micros()?,
            bytes: body.u64()?,
            created: body.micros()?,
            created_by: body.text()?,
            version: body.u64()?,
            settings: body.list()?,
        })
    }
}

/// Broker: how the room is now; after its removal, how it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomDetails {
    /// The request that this answers.
    pub correlation: u32,
    /// The room; apart, so that frames that are moved often stay small.
    pub room: Box<RoomFacts>,
}

#[derive(Serialize, Deserialize)]
struct RoomDetailsHeader {
    correlation: u32,
}

impl Wire for RoomDetails {
    const KIND: Kind = Kind::RoomDetails;

    fn put(&self, out: &mut BytesMut) {
        let header = RoomDetailsHeader {
            correlation: self.correlation,
        };
        put_head(out, Self::KIND, &header, [], self.room.encoded_len());
        self.room.put(out);
    }

    fn take(parts: Parts, _: &mut NameCache) -> Result<Self, DecodeError> {
        let RoomDetailsHeader { correlation } = parts.plain_header()?;
        let mut body = Fields(parts.body());
        let room = Box::new(RoomFacts::take(&parts, &mut body)?);
        if !body.is_empty() {
            return Err(parts.malformed("bytes follow the room"));
        }
        Ok(Self { correlation, room })
    }
}
