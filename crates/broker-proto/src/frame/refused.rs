//! [`Refused`]: messages of a publish are not stored, and why.

use bytes::BytesMut;
use serde::{Deserialize, Serialize};

use super::Kind;
use super::ack::take_producer;
use super::head::{Parts, Wire, clip, put_head};
use crate::decode::DecodeError;
use crate::error_code::ErrorCode;
use crate::extension::{CRITICAL, PRODUCER};
use crate::id::ProducerId;
use crate::limits::DETAIL_BYTES_MAX;
use crate::name::NameCache;

/// Broker: the messages with these numbers are not stored. Their numbers are
/// spent: to try again, publish under new ones, which is safe because nothing was stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Number of the first message.
    pub first_number: u64,
    /// How many messages there are, at least one.
    pub count: u32,
    /// Why.
    pub code: ErrorCode,
    /// Why, for people, at most 1,024 bytes.
    pub detail: String,
    /// Milliseconds after which trying again makes sense; 0 = no advice.
    pub retry_after_ms: u32,
    /// Whose numbers they are; `None` for the connection's own producer.
    pub producer: Option<ProducerId>,
}

#[derive(Serialize, Deserialize)]
struct RefusedHeader<'a> {
    first_number: u64,
    count: u32,
    code: ErrorCode,
    detail: &'a str,
    retry_after_ms: u32,
}

impl Wire for Refused {
    const KIND: Kind = Kind::Refused;

    fn put(&self, out: &mut BytesMut) {
        let header = RefusedHeader {
            first_number: self.first_number,
            count: self.count,
            code: self.code,
            detail: clip(&self.detail, DETAIL_BYTES_MAX),
            retry_after_ms: self.retry_after_ms,
        };
        let producer = self
            .producer
            .as_ref()
            .map(|id| (PRODUCER | CRITICAL, id.as_bytes().as_slice()));
        put_head(out, Self::KIND, &header, producer, 0);
    }

    fn take(parts: Parts, _: &mut NameCache) -> Result<Self, DecodeError> {
        parts.no_body()?;
        let (header, list): (RefusedHeader<'_>, _) = parts.header()?;
        parts.numbers(header.first_number, header.count)?;
        Ok(Self {
            first_number: header.first_number,
            count: header.count,
            code: header.code,
            detail: parts.text(header.detail, DETAIL_BYTES_MAX)?,
            retry_after_ms: header.retry_after_ms,
            producer: take_producer(&parts, list)?,
        })
    }
}
