//! The stored record: how a message looks on disk and, verbatim, in deliver and page frames.
//!
//! ```text
//!  0 u32 crc          CRC-32C over bytes 4 to the end of the head
//!  4 u16 kind         bit 15 = critical; 1 = message, all others belong to the log and are never sent
//!  6 u16 head_bytes   bytes of the head
//!  8 u32 room         the store's own number of the room
//! 12 u32 length       bytes after this field: 20 + head_bytes + payload
//! 16 u64 seq
//! 24 i64 time         microseconds since 1970 UTC
//! 32 u32 payload_crc  CRC-32C over the payload
//! 36 head (message: postcard {sender: &str, flags: u32}, then extensions), then the payload
//! ```
//! Integers are little-endian; records follow each other without padding. The two checksums together cover every bit.

use bytes::{Buf, BufMut, Bytes};
use serde::{Deserialize, Serialize};

use crate::byte_str::ByteStr;
use crate::error_code::ErrorCode;
use crate::extension::{self, Extensions};
use crate::frame::head::put_header;
use crate::id::RoomId;
use crate::limits::{MESSAGE_EXTENSIONS_BYTES_MAX, RECORD_BYTES_MAX, SENDER_NAME_BYTES_MAX};
use crate::name::SenderName;
use crate::seq::{Micros, Seq};

/// Bytes of a record before its head and payload.
pub const RECORD_FIXED_BYTES: usize = 36;

/// Bytes of a record up to and with its length field.
pub const RECORD_LENGTH_END: usize = 16;

/// Bytes of the checksum that a record begins with and that does not cover itself.
const CRC_BYTES: usize = 4;

/// Kind of a message.
pub const KIND_MESSAGE: u16 = 1;

/// Bit of a kind that makes a reader refuse what it does not know.
pub const KIND_CRITICAL: u16 = 0x8000;

/// Bytes of the fixed part that the length field counts.
const COUNTED_FIXED_BYTES: usize = RECORD_FIXED_BYTES - RECORD_LENGTH_END;

/// The fixed part of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordHead {
    /// CRC-32C over bytes 4 to the end of the head.
    pub crc: u32,
    /// What the record is.
    pub kind: u16,
    /// Bytes of the head.
    pub head_bytes: u16,
    /// The store's own number of the room.
    pub room: RoomId,
    /// Bytes after the length field.
    pub length: u32,
    /// Place of the message in its room.
    pub seq: Seq,
    /// When it was stored.
    pub time: Micros,
    /// CRC-32C over the payload.
    pub payload_crc: u32,
}

impl RecordHead {
    /// Reads the fixed part. Nothing is judged: any bytes give a head.
    #[must_use]
    #[inline]
    pub fn parse(bytes: &[u8; RECORD_FIXED_BYTES]) -> Self {
        let mut rest = bytes.as_slice();
        Self {
            crc: rest.get_u32_le(),
            kind: rest.get_u16_le(),
            head_bytes: rest.get_u16_le(),
            room: RoomId::new(rest.get_u32_le()),
            length: rest.get_u32_le(),
            seq: Seq::new(rest.get_u64_le()),
            time: Micros::new(rest.get_i64_le()),
            payload_crc: rest.get_u32_le(),
        }
    }

    /// The fixed part as bytes.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; RECORD_FIXED_BYTES] {
        let mut bytes = [0; RECORD_FIXED_BYTES];
        let mut out = bytes.as_mut_slice();
        out.put_u32_le(self.crc);
        out.put_u16_le(self.kind);
        out.put_u16_le(self.head_bytes);
        out.put_u32_le(self.room.get());
        out.put_u32_le(self.length);
        out.put_u64_le(self.seq.get());
        out.put_i64_le(self.time.get());
        out.put_u32_le(self.payload_crc);
        bytes
    }

    /// The checksum that a record with this fixed part and `head` must have.
    #[must_use]
    pub fn compute_crc(&self, head: &[u8]) -> u32 {
        crc32c::crc32c_append(crc32c::crc32c(self.to_bytes().split_at(CRC_BYTES).1), head)
    }

    /// Length of the whole record in bytes.
    #[must_use]
    pub const fn record_len(&self) -> usize {
        RECORD_LENGTH_END + self.length as usize
    }

    /// Length of the payload in bytes; `None` when the lengths contradict each other.
    #[must_use]
    pub const fn payload_len(&self) -> Option<usize> {
        (self.length as usize).checked_sub(COUNTED_FIXED_BYTES + self.head_bytes as usize)
    }
}

/// Length in bytes of a record with these parts.
#[must_use]
pub const fn encoded_len(head_len: usize, payload_len: usize) -> usize {
    RECORD_FIXED_BYTES + head_len + payload_len
}

/// The fixed part of a message record with both checksums; `head` and the payload follow it.
///
/// # Panics
/// When head or payload are over their limits.
#[must_use]
pub fn message_fixed(
    room: RoomId,
    seq: Seq,
    time: Micros,
    head: &[u8],
    payload_len: usize,
    payload_crc: u32,
) -> [u8; RECORD_FIXED_BYTES] {
    fixed(
        KIND_MESSAGE,
        room,
        seq,
        time,
        head,
        payload_len,
        payload_crc,
    )
}

/// The fixed part of a record of any kind with both checksums; `head` and the payload follow it.
///
/// # Panics
/// When head or payload are over their limits.
#[must_use]
pub fn fixed(
    kind: u16,
    room: RoomId,
    seq: Seq,
    time: Micros,
    head: &[u8],
    payload_len: usize,
    payload_crc: u32,
) -> [u8; RECORD_FIXED_BYTES] {
    let head_bytes = u16::try_from(head.len()).expect("the head of a record is within its limit");
    let length = u32::try_from(COUNTED_FIXED_BYTES + head.len() + payload_len)
        .expect("a payload is within its limit");
    let mut fixed = RecordHead {
        crc: 0,
        kind,
        head_bytes,
        room,
        length,
        seq,
        time,
        payload_crc,
    };
    fixed.crc = fixed.compute_crc(head);
    fixed.to_bytes()
}

/// Appends a whole message record. `payload_crc` is CRC-32C over the payload, as its publisher computed it.
///
/// # Panics
/// When head or payload are over their limits.
pub fn encode_message(
    out: &mut impl BufMut,
    room: RoomId,
    seq: Seq,
    time: Micros,
    head: &[u8],
    payload: &[u8],
    payload_crc: u32,
) {
    out.put_slice(&message_fixed(
        room,
        seq,
        time,
        head,
        payload.len(),
        payload_crc,
    ));
    out.put_slice(head);
    out.put_slice(payload);
}

/// The frozen header of a message's head.
#[derive(Serialize, Deserialize)]
struct MessageHeader<'a> {
    sender: &'a str,
    flags: u32,
}

/// Appends the head of a message: sender and flags, then `ext`, a list of extensions that was checked.
pub fn encode_message_head(out: &mut impl BufMut, sender: &SenderName, flags: u32, ext: &[u8]) {
    put_header(out, &MessageHeader { sender, flags });
    out.put_slice(ext);
}

/// Why bytes are not a record, or a record not a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// The bytes end inside the record.
    #[error("the record needs {needed} bytes, {have} are there")]
    Short {
        /// Bytes that it needs.
        needed: usize,
        /// Bytes that are there.
        have: usize,
    },
    /// Its lengths contradict each other or the limits.
    #[error("the record's lengths cannot be: {length} bytes with a head of {head_bytes}")]
    Length {
        /// Its length field.
        length: u32,
        /// Length of its head.
        head_bytes: u16,
    },
    /// All but the payload does not match its checksum.
    #[error("the record has crc32c {found:08x}, {expected:08x} is stated")]
    Checksum {
        /// The checksum of the bytes.
        found: u32,
        /// The checksum that is stored.
        expected: u32,
    },
    /// The payload does not match its checksum.
    #[error("the payload of message {seq} has crc32c {found:08x}, {expected:08x} is stated")]
    PayloadChecksum {
        /// The message.
        seq: Seq,
        /// The checksum of the bytes.
        found: u32,
        /// The checksum that is stored.
        expected: u32,
    },
    /// The head of a message is malformed.
    #[error("the head of message {seq} is malformed")]
    Head {
        /// The message.
        seq: Seq,
    },
    /// It is not a message.
    #[error("the record is of kind {kind}, not a message")]
    Kind {
        /// What it is.
        kind: u16,
    },
    /// There are more or fewer records than the frame says.
    #[error("{expected} records are stated, there are {}", if *.left == 0 { "more" } else { "fewer" })]
    Count {
        /// How many the frame says.
        expected: u32,
        /// How many are missing; 0 when there are more than stated.
        left: u32,
    },
}

impl RecordError {
    /// The code that tells a peer about it.
    #[must_use]
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::Checksum { .. } | Self::PayloadChecksum { .. } => ErrorCode::BAD_CHECKSUM,
            _ => ErrorCode::BAD_FRAME,
        }
    }
}

/// A record whose lengths and checksum are right; its payload is not verified yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// The fixed part.
    pub fixed: RecordHead,
    /// The head: sender, flags and extensions of a message.
    pub head: &'a [u8],
    /// The payload.
    pub payload: &'a [u8],
}

/// A message borrowed from its record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MessageView<'a> {
    /// Its place in the room.
    pub seq: Seq,
    /// When it was stored.
    pub time: Micros,
    /// Who sent it, as the broker stamped it.
    pub sender: &'a str,
    /// Bits without a meaning in this version.
    pub flags: u32,
    /// Its list of extensions, well-formed.
    pub extensions: &'a [u8],
    /// Its payload.
    pub payload: &'a [u8],
}

impl<'a> Record<'a> {
    /// Computes the payload's checksum and compares.
    ///
    /// # Errors
    /// When the payload is not the one that was published.
    #[inline]
    pub fn verify_payload(&self) -> Result<(), RecordError> {
        let found = crc32c::crc32c(self.payload);
        if found != self.fixed.payload_crc {
            return Err(RecordError::PayloadChecksum {
                seq: self.fixed.seq,
                found,
                expected: self.fixed.payload_crc,
            });
        }
        Ok(())
    }

    /// Reads the record as a message. The payload is not verified.
    ///
    /// # Errors
    /// When it is of another kind or its head is malformed.
    pub fn message(&self) -> Result<MessageView<'a>, RecordError> {
        if self.fixed.kind != KIND_MESSAGE {
            return Err(RecordError::Kind {
                kind: self.fixed.kind,
            });
        }
        let malformed = RecordError::Head {
            seq: self.fixed.seq,
        };
        let (header, extensions): (MessageHeader<'a>, _) =
            postcard::take_from_bytes(self.head).map_err(|_| malformed)?;
        if header.sender.len() > SENDER_NAME_BYTES_MAX {
            return Err(malformed);
        }
        extension::check_form(extensions, MESSAGE_EXTENSIONS_BYTES_MAX).map_err(|_| malformed)?;
        Ok(MessageView {
            seq: self.fixed.seq,
            time: self.fixed.time,
            sender: header.sender,
            flags: header.flags,
            extensions,
            payload: self.payload,
        })
    }
}

/// Takes the first record off `bytes`, with what follows it; `None` at the end. The payload is not verified.
///
/// # Errors
/// When lengths or checksum are wrong. Where the next record begins is unknown then.
#[inline]
pub fn next_record(bytes: &[u8]) -> Result<Option<(Record<'_>, &[u8])>, RecordError> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let Some((start, rest)) = bytes.split_first_chunk() else {
        return Err(RecordError::Short {
            needed: RECORD_FIXED_BYTES,
            have: bytes.len(),
        });
    };
    let fixed = RecordHead::parse(start);
    let impossible = RecordError::Length {
        length: fixed.length,
        head_bytes: fixed.head_bytes,
    };
    let payload_len = fixed.payload_len().ok_or(impossible)?;
    if fixed.record_len() > RECORD_BYTES_MAX {
        return Err(impossible);
    }
    let short = RecordError::Short {
        needed: fixed.record_len(),
        have: bytes.len(),
    };
    let (head, rest) = rest
        .split_at_checked(fixed.head_bytes.into())
        .ok_or(short)?;
    let (payload, rest) = rest.split_at_checked(payload_len).ok_or(short)?;
    // In one call: each has a start and an end that are not aligned, where it goes byte by byte.
    let covered = bytes
        .get(CRC_BYTES..RECORD_FIXED_BYTES + head.len())
        .ok_or(short)?;
    let found = crc32c::crc32c(covered);
    if found != fixed.crc {
        return Err(RecordError::Checksum {
            found,
            expected: fixed.crc,
        });
    }
    Ok(Some((
        Record {
            fixed,
            head,
            payload,
        },
        rest,
    )))
}

/// A message as a reader gets it, sharing the bytes it came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Its place in the room.
    pub seq: Seq,
    /// When it was stored.
    pub time: Micros,
    /// Who sent it, as the broker stamped it.
    pub sender: ByteStr,
    /// Bits without a meaning in this version.
    pub flags: u32,
    /// Its extensions. Critical ones that a reader does not know forbid to act on the message.
    pub extensions: Extensions,
    /// Its payload, verified.
    pub payload: Bytes,
}

/// The messages in the body of a deliver or page frame. Both checksums of each are verified; it ends after an error.
#[derive(Debug, Clone)]
pub struct Messages {
    records: Bytes,
    count: u32,
    left: u32,
    ended: bool,
}

impl Messages {
    /// The messages of a body that must hold exactly `count`.
    #[must_use]
    pub const fn new(records: Bytes, count: u32) -> Self {
        Self {
            records,
            count,
            left: count,
            ended: false,
        }
    }

    /// Takes the next message; `None` at the end.
    fn take(&mut self) -> Result<Option<Message>, RecordError> {
        let Some((record, rest)) = next_record(&self.records)? else {
            if self.left > 0 {
                return Err(RecordError::Count {
                    expected: self.count,
                    left: self.left,
                });
            }
            return Ok(None);
        };
        let left = self.left.checked_sub(1).ok_or(RecordError::Count {
            expected: self.count,
            left: 0,
        })?;
        record.verify_payload()?;
        let view = record.message()?;
        let message = Message {
            seq: view.seq,
            time: view.time,
            sender: ByteStr::slice_of(&self.records, view.sender),
            flags: view.flags,
            extensions: Extensions::checked(self.records.slice_ref(view.extensions)),
            payload: self.records.slice_ref(view.payload),
        };
        let taken = self.records.len() - rest.len();
        self.records.advance(taken);
        self.left = left;
        Ok(Some(message))
    }
}

impl Iterator for Messages {
    type Item = Result<Message, RecordError>;

    fn next(&mut self) -> Option<Result<Message, RecordError>> {
        if self.ended {
            return None;
        }
        let item = self.take().transpose();
        self.ended = !matches!(item, Some(Ok(_)));
        item
    }
}

impl std::iter::FusedIterator for Messages {}
