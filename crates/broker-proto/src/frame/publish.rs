//! [`Publish`]: messages for one room, with consecutive numbers of one producer.
//!
//! The body is `count` entries, each {u32 payload_len, u32 payload_crc, u16 ext_len, extensions, payload}, little-endian.
//! The publisher computes CRC-32C over each payload; it travels and is stored with the message.

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use super::Kind;
use super::head::{Parts, Wire, put_head};
use crate::decode::DecodeError;
use crate::error_code::ErrorCode;
use crate::extension::{
    self, CRITICAL, EXPECTED_HEAD, ExtensionError, MESSAGE_KEYS, PRODUCER, RESEND,
};
use crate::id::ProducerId;
use crate::limits::MESSAGE_EXTENSIONS_BYTES_MAX;
use crate::name::{NameCache, RoomName};
use crate::seq::Seq;

/// Bytes of an entry before its extensions and payload.
pub const ENTRY_FIXED_BYTES: usize = 10;

/// Client: messages for a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publish {
    /// The room; made when it does not exist. The broker's own names are let through, the session refuses them.
    pub room: RoomName,
    /// The producer's number of the first message; the others follow one by one.
    pub first_number: u64,
    /// How many messages there are.
    pub count: u32,
    /// What else the broker must know.
    pub extensions: PublishExtensions,
    /// The entries. Not checked when decoded: [`check`] does that against the limits of the session.
    pub body: Bytes,
}

/// What a publish says beyond its header. Producer and head are critical: a broker that does not know them refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PublishExtensions {
    /// The producer, when it is not the connection's own.
    pub producer: Option<ProducerId>,
    /// The head that the room must have for the messages to be stored.
    pub expected_head: Option<Seq>,
    /// All of these numbers were sent before, over another connection. Not critical: a broker that does not know it does as
    /// brokers did before.
    pub resend: bool,
}

impl PublishExtensions {
    /// Nothing beyond the header.
    pub const NONE: Self = Self {
        producer: None,
        expected_head: None,
        resend: false,
    };
}

#[derive(Serialize, Deserialize)]
struct PublishHeader<'a> {
    room: &'a str,
    first_number: u64,
    count: u32,
}

/// Appends everything of a publish but its body, of which the caller sends `body_len` bytes after it.
///
/// # Panics
/// When the body makes the frame larger than [`FRAME_BYTES_MAX`](crate::limits::FRAME_BYTES_MAX).
pub fn encode_head(
    out: &mut BytesMut,
    room: &RoomName,
    first_number: u64,
    count: u32,
    extensions: &PublishExtensions,
    body_len: usize,
) {
    let head = extensions.expected_head.map(|seq| seq.get().to_le_bytes());
    let producer = extensions
        .producer
        .as_ref()
        .map(|id| (PRODUCER | CRITICAL, id.as_bytes().as_slice()));
    let head = head
        .as_ref()
        .map(|seq| (EXPECTED_HEAD | CRITICAL, seq.as_slice()));
    let resend = extensions.resend.then_some((RESEND, [].as_slice()));
    let header = PublishHeader {
        room,
        first_number,
        count,
    };
    put_head(
        out,
        Kind::Publish,
        &header,
        [producer, head, resend].into_iter().flatten(),
        body_len,
    );
}

/// Appends the part of an entry that comes before its payload, which the caller sends after it.
///
/// `crc` is CRC-32C over the payload, `ext` a list of message extensions.
///
/// # Panics
/// When payload or extensions are over their limits.
pub fn encode_entry_head(out: &mut BytesMut, payload_len: usize, ext: &[u8], crc: u32) {
    let ext_len = u16::try_from(ext.len()).expect("a list of extensions is within its limit");
    out.put_u32_le(u32::try_from(payload_len).expect("a payload is within its limit"));
    out.put_u32_le(crc);
    out.put_u16_le(ext_len);
    out.put_slice(ext);
}

/// Appends an entry; `crc` is CRC-32C over the payload, `ext` a list of message extensions.
///
/// # Panics
/// When payload or extensions are over their limits.
pub fn encode_entry(out: &mut BytesMut, payload: &[u8], ext: &[u8], crc: u32) {
    encode_entry_head(out, payload.len(), ext, crc);
    out.put_slice(payload);
}

impl Publish {
    /// A publish of these payloads, without extensions.
    ///
    /// # Panics
    /// When there are more than `u32::MAX` payloads or one is over its limit.
    #[must_use]
    pub fn of<P: AsRef<[u8]>>(
        room: RoomName,
        first_number: u64,
        payloads: impl IntoIterator<Item = P>,
    ) -> Self {
        let mut body = BytesMut::new();
        let mut count = 0_u32;
        for payload in payloads {
            let payload = payload.as_ref();
            encode_entry(&mut body, payload, &[], crc32c::crc32c(payload));
            count = count
                .checked_add(1)
                .expect("a publish has at most as many messages as it may have numbers");
        }
        Self {
            room,
            first_number,
            count,
            extensions: PublishExtensions::NONE,
            body: body.freeze(),
        }
    }

    /// The entries, one by one; of a body that was not checked, those before its first fault.
    #[must_use]
    pub fn entries(&self) -> PublishIter<'_> {
        entries(&self.body)
    }
}

impl Wire for Publish {
    const KIND: Kind = Kind::Publish;

    fn put(&self, out: &mut BytesMut) {
        encode_head(
            out,
            &self.room,
            self.first_number,
            self.count,
            &self.extensions,
            self.body.len(),
        );
        out.put_slice(&self.body);
    }

    fn take(parts: Parts, names: &mut NameCache) -> Result<Self, DecodeError> {
        let (header, list): (PublishHeader<'_>, _) = parts.header()?;
        parts.numbers(header.first_number, header.count)?;
        let mut extensions = PublishExtensions::NONE;
        for entry in parts.extensions(list, &[PRODUCER, EXPECTED_HEAD, RESEND])? {
            match entry.key {
                PRODUCER => {
                    let id = entry
                        .array()
                        .map_err(|cause| parts.extension_error(cause))?;
                    extensions.producer = Some(ProducerId::new(id));
                }
                EXPECTED_HEAD => {
                    let seq = entry
                        .array()
                        .map_err(|cause| parts.extension_error(cause))?;
                    extensions.expected_head = Some(Seq::new(u64::from_le_bytes(seq)));
                }
                RESEND => {
                    let [] = entry
                        .array()
                        .map_err(|cause| parts.extension_error(cause))?;
                    extensions.resend = true;
                }
                _ => {}
            }
        }
        let room = names
            .room(header.room)
            .map_err(|cause| parts.name_error(cause))?;
        let (first_number, count) = (header.first_number, header.count);
        Ok(Self {
            room,
            first_number,
            count,
            extensions,
            body: parts.into_body(),
        })
    }
}

/// One message of a publish, borrowed from its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublishEntry<'a> {
    /// CRC-32C over the payload, as the publisher computed it.
    pub crc: u32,
    /// Its list of extensions.
    pub extensions: &'a [u8],
    /// Its payload.
    pub payload: &'a [u8],
}

/// The entries of a publish body, one by one; it ends at the end or where an entry is cut short.
#[must_use]
pub const fn entries(body: &[u8]) -> PublishIter<'_> {
    PublishIter { rest: body }
}

/// The entries of a publish body, borrowed.
#[derive(Debug, Clone)]
pub struct PublishIter<'a> {
    rest: &'a [u8],
}

impl<'a> PublishIter<'a> {
    /// The bytes that were not taken yet.
    #[must_use]
    pub const fn rest(&self) -> &'a [u8] {
        self.rest
    }
}

impl<'a> Iterator for PublishIter<'a> {
    type Item = PublishEntry<'a>;

    fn next(&mut self) -> Option<PublishEntry<'a>> {
        let (payload_len, rest) = self.rest.split_first_chunk()?;
        let (crc, rest) = rest.split_first_chunk()?;
        let (ext_len, rest) = rest.split_first_chunk()?;
        let (extensions, rest) = rest.split_at_checked(u16::from_le_bytes(*ext_len).into())?;
        let (payload, rest) = rest.split_at_checked(u32::from_le_bytes(*payload_len) as usize)?;
        self.rest = rest;
        Some(PublishEntry {
            crc: u32::from_le_bytes(*crc),
            extensions,
            payload,
        })
    }
}

/// Why a publish cannot be stored; the text goes to the publisher. `index` counts its messages from zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CheckError {
    /// The body ends before the last message does.
    #[error("message {index} is cut short")]
    Short {
        /// The message.
        index: u32,
    },
    /// Bytes follow the last message.
    #[error("{bytes} bytes follow the last message")]
    LeftOver {
        /// How many.
        bytes: usize,
    },
    /// A payload is over the limit.
    #[error("the payload of message {index} has {bytes} bytes, at most {max} are allowed")]
    TooLarge {
        /// The message.
        index: u32,
        /// Length of its payload in bytes.
        bytes: usize,
        /// The limit in bytes.
        max: usize,
    },
    /// A payload does not match its checksum.
    #[error("the payload of message {index} has crc32c {found:08x}, {expected:08x} is stated")]
    Checksum {
        /// The message.
        index: u32,
        /// The checksum of the bytes that came.
        found: u32,
        /// The checksum that came with them.
        expected: u32,
    },
    /// A message's extensions are malformed, or one must be understood and is not.
    #[error("message {index}: {cause}")]
    Extension {
        /// The message.
        index: u32,
        /// What is wrong.
        cause: ExtensionError,
    },
}

impl CheckError {
    /// The code that tells the publisher about it.
    #[must_use]
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::Short { .. } | Self::LeftOver { .. } => ErrorCode::BAD_FRAME,
            Self::TooLarge { .. } => ErrorCode::TOO_LARGE,
            Self::Checksum { .. } => ErrorCode::BAD_CHECKSUM,
            Self::Extension { cause, .. } => cause.code(),
        }
    }
}

/// Checks the body of a publish: exactly `count` entries, payloads of at most `payload_max` bytes that match their
/// CRC-32C, and extensions that are well-formed and not critical beyond what this version acts upon.
///
/// # Errors
/// The first rule that the body breaks. None of its messages may be stored then.
pub fn check(body: &[u8], count: u32, payload_max: usize) -> Result<(), CheckError> {
    let mut entries = entries(body);
    for index in 0..count {
        let entry = entries.next().ok_or(CheckError::Short { index })?;
        check_entry(index, &entry, payload_max)?;
    }
    match entries.rest().len() {
        0 => Ok(()),
        bytes => Err(CheckError::LeftOver { bytes }),
    }
}

/// Checks one entry.
fn check_entry(index: u32, entry: &PublishEntry<'_>, payload_max: usize) -> Result<(), CheckError> {
    if entry.payload.len() > payload_max {
        return Err(CheckError::TooLarge {
            index,
            bytes: entry.payload.len(),
            max: payload_max,
        });
    }
    extension::check(entry.extensions, MESSAGE_EXTENSIONS_BYTES_MAX, MESSAGE_KEYS)
        .map_err(|cause| CheckError::Extension { index, cause })?;
    let found = crc32c::crc32c(entry.payload);
    if found != entry.crc {
        return Err(CheckError::Checksum {
            index,
            found,
            expected: entry.crc,
        });
    }
    Ok(())
}
