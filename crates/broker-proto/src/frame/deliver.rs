//! [`Deliver`]: messages of a subscription, as they are stored.

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use super::Kind;
use super::head::{Parts, Wire, put_head};
use crate::decode::DecodeError;
use crate::name::NameCache;
use crate::record::Messages;
use crate::seq::Seq;

/// Broker: messages of a subscription, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deliver {
    /// The subscription.
    pub sub: u32,
    /// How many records the body has.
    pub count: u32,
    /// The place after them: where a resumed subscription would begin.
    pub next: Seq,
    /// The records, verbatim as stored. Not checked when decoded: [`messages`](Self::messages) does that.
    pub body: Bytes,
}

#[derive(Serialize, Deserialize)]
struct DeliverHeader {
    sub: u32,
    count: u32,
    next: Seq,
}

/// Appends everything of a deliver but its body, of which the caller sends `body_len` bytes after it.
///
/// # Panics
/// When the body makes the frame larger than [`FRAME_BYTES_MAX`](crate::limits::FRAME_BYTES_MAX).
pub fn encode_head(out: &mut BytesMut, sub: u32, count: u32, next: Seq, body_len: usize) {
    put_head(
        out,
        Kind::Deliver,
        &DeliverHeader { sub, count, next },
        [],
        body_len,
    );
}

impl Deliver {
    /// The messages, checked one by one, sharing the frame's bytes.
    #[must_use]
    pub fn messages(&self) -> Messages {
        Messages::new(self.body.clone(), self.count)
    }
}

impl Wire for Deliver {
    const KIND: Kind = Kind::Deliver;

    fn put(&self, out: &mut BytesMut) {
        encode_head(out, self.sub, self.count, self.next, self.body.len());
        out.put_slice(&self.body);
    }

    fn take(parts: Parts, _: &mut NameCache) -> Result<Self, DecodeError> {
        let DeliverHeader { sub, count, next } = parts.plain_header()?;
        Ok(Self {
            sub,
            count,
            next,
            body: parts.into_body(),
        })
    }
}
