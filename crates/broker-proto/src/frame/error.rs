//! [`Error`]: a request failed, or the whole connection.

use bytes::BytesMut;
use serde::{Deserialize, Serialize};

use super::Kind;
use super::head::{Parts, Wire, clip, put_plain};
use crate::decode::DecodeError;
use crate::error_code::ErrorCode;
use crate::limits::DETAIL_BYTES_MAX;
use crate::name::NameCache;

/// Either: a request failed, or the connection, which is then closed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Error {
    /// What went wrong.
    pub code: ErrorCode,
    /// The correlation number or subscription that it is about, with `kind` saying which of them; 0 = the connection.
    pub about: u64,
    /// Kind of the frame that it answers; 0 = none.
    pub kind: u8,
    /// What went wrong, for people, at most 1,024 bytes.
    pub detail: String,
    /// Milliseconds after which trying again makes sense; 0 = no advice.
    pub retry_after_ms: u32,
}

#[derive(Serialize, Deserialize)]
struct ErrorHeader<'a> {
    code: ErrorCode,
    about: u64,
    kind: u8,
    detail: &'a str,
    retry_after_ms: u32,
}

impl From<&DecodeError> for Error {
    /// The answer to a peer whose bytes are not a frame. It is about the connection.
    fn from(error: &DecodeError) -> Self {
        Self {
            code: error.code(),
            about: 0,
            kind: error.kind(),
            detail: error.to_string(),
            retry_after_ms: 0,
        }
    }
}

impl Wire for Error {
    const KIND: Kind = Kind::Error;

    fn put(&self, out: &mut BytesMut) {
        let header = ErrorHeader {
            code: self.code,
            about: self.about,
            kind: self.kind,
            detail: clip(&self.detail, DETAIL_BYTES_MAX),
            retry_after_ms: self.retry_after_ms,
        };
        put_plain(out, Self::KIND, &header);
    }

    fn take(parts: Parts, _: &mut NameCache) -> Result<Self, DecodeError> {
        let header: ErrorHeader<'_> = parts.only_header()?;
        Ok(Self {
            code: header.code,
            about: header.about,
            kind: header.kind,
            detail: parts.text(header.detail, DETAIL_BYTES_MAX)?,
            retry_after_ms: header.retry_after_ms,
        })
    }
}
