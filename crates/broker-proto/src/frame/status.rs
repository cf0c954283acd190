//! Figures about the broker: [`GetStatus`], answered by [`Status`].

use bytes::{BufMut, BytesMut};
use serde::{Deserialize, Serialize};

use super::Kind;
use super::head::{Parts, Wire, plain_frame, put_head};
use crate::byte_str::ByteStr;
use crate::decode::DecodeError;
use crate::name::NameCache;

/// Client: how is the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct GetStatus {
    /// The client's number of this request; the answer carries it.
    pub correlation: u32,
}

plain_frame!(GetStatus);

/// Broker: figures about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// The request that this answers.
    pub correlation: u32,
    /// A JSON object for people and scripts; keys are added, never given another meaning.
    pub json: ByteStr,
}

#[derive(Serialize, Deserialize)]
struct StatusHeader {
    correlation: u32,
}

impl Wire for Status {
    const KIND: Kind = Kind::Status;

    fn put(&self, out: &mut BytesMut) {
        let header = StatusHeader {
            correlation: self.correlation,
        };
        put_head(out, Self::KIND, &header, [], self.json.len());
        out.put_slice(self.json.as_bytes());
    }

    fn take(parts: Parts, _: &mut NameCache) -> Result<Self, DecodeError> {
        let StatusHeader { correlation } = parts.plain_header()?;
        let not_text = parts.malformed("the status is not UTF-8");
        let json = ByteStr::from_utf8(parts.into_body()).map_err(|_| not_text)?;
        Ok(Self { correlation, json })
    }
}
