//! [`Goodbye`]: the connection ends on purpose; the last frame of whoever sends it.

use bytes::BytesMut;
use serde::{Deserialize, Serialize};

use super::Kind;
use super::head::{Parts, Wire, clip, put_plain};
use crate::decode::DecodeError;
use crate::error_code::ErrorCode;
use crate::limits::DETAIL_BYTES_MAX;
use crate::name::NameCache;

/// Either: the connection ends, and why.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Goodbye {
    /// Why; `NONE` when nothing is wrong.
    pub code: ErrorCode,
    /// Milliseconds after which connecting again makes sense; 0 = at once.
    pub retry_after_ms: u32,
    /// Where the store is served from now on, as a URL of at most 1,024 bytes; empty when not known.
    pub successor: String,
    /// Bits of [`FORGET`](Self::FORGET).
    pub flags: u32,
}

#[derive(Serialize, Deserialize)]
struct GoodbyeHeader<'a> {
    code: ErrorCode,
    retry_after_ms: u32,
    successor: &'a str,
    flags: u32,
}

impl Goodbye {
    /// Flag, from a client: nothing of this connection's producer is unacknowledged, and it will not be used again.
    pub const FORGET: u32 = 1;

    /// Whether the connection's producer can be forgotten.
    #[must_use]
    pub const fn forgets(&self) -> bool {
        self.flags & Self::FORGET != 0
    }
}

impl Wire for Goodbye {
    const KIND: Kind = Kind::Goodbye;

    fn put(&self, out: &mut BytesMut) {
        let header = GoodbyeHeader {
            code: self.code,
            retry_after_ms: self.retry_after_ms,
            successor: clip(&self.successor, DETAIL_BYTES_MAX),
            flags: self.flags,
        };
        put_plain(out, Self::KIND, &header);
    }

    fn take(parts: Parts, _: &mut NameCache) -> Result<Self, DecodeError> {
        let header: GoodbyeHeader<'_> = parts.only_header()?;
        Ok(Self {
            code: header.code,
            retry_after_ms: header.retry_after_ms,
            successor: parts.text(header.successor, DETAIL_BYTES_MAX)?,
            flags: parts.flags(header.flags, Self::FORGET)?,
        })
    }
}
