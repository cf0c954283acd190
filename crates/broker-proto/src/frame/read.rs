//! Reading one page of a room: [`Read`], answered by [`Page`] or an error.

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use super::Kind;
use super::head::{Parts, Wire, put_head, put_plain};
use super::skip::{SkipRange, SkipReason};
use super::subscribe::{StartAt, StartHeader};
use crate::decode::DecodeError;
use crate::name::{NameCache, RoomName};
use crate::record::Messages;
use crate::seq::{Epoch, Seq};

/// Client: one page of a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read {
    /// The client's number of this request; the answer carries it.
    pub correlation: u32,
    /// The room.
    pub room: RoomName,
    /// Where to begin.
    pub start: StartAt,
    /// Most messages wanted; the broker may send fewer.
    pub count_max: u32,
    /// Most bytes of records wanted; one message may go beyond.
    pub bytes_max: u32,
}

#[derive(Serialize, Deserialize)]
struct ReadHeader<'a> {
    correlation: u32,
    room: &'a str,
    start: StartHeader,
    count_max: u32,
    bytes_max: u32,
}

impl Wire for Read {
    const KIND: Kind = Kind::Read;

    fn put(&self, out: &mut BytesMut) {
        let header = ReadHeader {
            correlation: self.correlation,
            room: &self.room,
            start: self.start.header(),
            count_max: self.count_max,
            bytes_max: self.bytes_max,
        };
        put_plain(out, Self::KIND, &header);
    }

    fn take(parts: Parts, names: &mut NameCache) -> Result<Self, DecodeError> {
        let header: ReadHeader<'_> = parts.only_header()?;
        Ok(Self {
            correlation: header.correlation,
            room: names
                .room(header.room)
                .map_err(|cause| parts.name_error(cause))?,
            start: header.start.start(&parts)?,
            count_max: header.count_max,
            bytes_max: header.bytes_max,
        })
    }
}

/// Everything of a page but its records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PageHead {
    /// The request that this answers.
    pub correlation: u32,
    /// The room's history.
    pub epoch: Epoch,
    /// The oldest message kept; one after the head when there is none.
    pub first: Seq,
    /// The newest message that is stored.
    pub head: Seq,
    /// The place after this page: where the next one begins. One after the head: nothing more is stored.
    pub next: Seq,
    /// How many records follow.
    pub count: u32,
    /// What is left out before the records.
    pub skip: Option<SkipRange>,
}

/// Broker: the page.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Page {
    /// Everything but the records.
    pub head: PageHead,
    /// The records, verbatim as stored. Not checked when decoded: [`messages`](Self::messages) does that.
    pub body: Bytes,
}

#[derive(Serialize, Deserialize)]
struct PageHeader {
    correlation: u32,
    epoch: Epoch,
    first: Seq,
    head: Seq,
    next: Seq,
    count: u32,
    skip_from: Seq,
    skip_to: Seq,
    skip_reason: SkipReason,
}

/// Appends everything of a page but its body, of which the caller sends `body_len` bytes after it.
///
/// # Panics
/// When the body makes the frame larger than [`FRAME_BYTES_MAX`](crate::limits::FRAME_BYTES_MAX).
pub fn encode_head(out: &mut BytesMut, head: &PageHead, body_len: usize) {
    let none = SkipRange {
        from: Seq::NONE,
        to: Seq::NONE,
        reason: SkipReason::new(0),
    };
    let SkipRange { from, to, reason } = head.skip.unwrap_or(none);
    let header = PageHeader {
        correlation: head.correlation,
        epoch: head.epoch,
        first: head.first,
        head: head.head,
        next: head.next,
        count: head.count,
        skip_from: from,
        skip_to: to,
        skip_reason: reason,
    };
    put_head(out, Kind::Page, &header, [], body_len);
}

impl Page {
    /// The messages, checked one by one, sharing the frame's bytes.
    #[must_use]
    pub fn messages(&self) -> Messages {
        Messages::new(self.body.clone(), self.head.count)
    }
}

impl Wire for Page {
    const KIND: Kind = Kind::Page;

    fn put(&self, out: &mut BytesMut) {
        encode_head(out, &self.head, self.body.len());
        out.put_slice(&self.body);
    }

    fn take(parts: Parts, _: &mut NameCache) -> Result<Self, DecodeError> {
        let header: PageHeader = parts.plain_header()?;
        let range = SkipRange {
            from: header.skip_from,
            to: header.skip_to,
            reason: header.skip_reason,
        };
        let skip = if header.skip_reason.get() == 0 {
            None
        } else {
            Some(range.check(&parts)?)
        };
        let head = PageHead {
            correlation: header.correlation,
            epoch: header.epoch,
            first: header.first,
            head: header.head,
            next: header.next,
            count: header.count,
            skip,
        };
        Ok(Self {
            head,
            body: parts.into_body(),
        })
    }
}
