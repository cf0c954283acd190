//! [`KnownHead`]: what a client knows to be stored, in the extension `known_heads` of its hello.
//!
//! The value of the extension is entries to its end, integers little-endian:
//! {u8 bytes of the room's name, the name, u64 epoch, u64 seq}.

use super::head::Parts;
use crate::decode::DecodeError;
use crate::limits::{KNOWN_HEADS_BYTES_MAX, KNOWN_HEADS_MAX};
use crate::name::RoomName;
use crate::seq::{Epoch, Position, Seq};

/// Bytes of an entry beside the name.
const ENTRY_FIXED_BYTES: usize = 1 + 8 + 8;

/// The newest message of a room that a client has seen acknowledged or delivered: a store that does not reach so far has lost
/// messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownHead {
    /// Which room.
    pub room: RoomName,
    /// Its epoch, and the seq of the message.
    pub at: Position,
}

/// The entries as bytes: as many of the first as a hello may state.
pub(super) fn encode(heads: &[KnownHead]) -> Vec<u8> {
    let mut out = Vec::new();
    for head in heads.iter().take(KNOWN_HEADS_MAX) {
        if out.len() + head.room.len() + ENTRY_FIXED_BYTES > KNOWN_HEADS_BYTES_MAX {
            break;
        }
        let length = u8::try_from(head.room.len()).expect("names of rooms are at most 128 bytes");
        out.push(length);
        out.extend_from_slice(head.room.as_bytes());
        out.extend_from_slice(&head.at.epoch.get().to_le_bytes());
        out.extend_from_slice(&head.at.seq.get().to_le_bytes());
    }
    out
}

/// Reads the entries.
pub(super) fn decode(parts: &Parts, mut value: &[u8]) -> Result<Vec<KnownHead>, DecodeError> {
    if value.len() > KNOWN_HEADS_BYTES_MAX {
        return Err(parts.malformed("the known heads have more bytes than a hello may state"));
    }
    let mut heads = Vec::new();
    while !value.is_empty() {
        if heads.len() == KNOWN_HEADS_MAX {
            return Err(parts.malformed("there are more known heads than a hello may state"));
        }
        let (room, epoch, seq, rest) = split(value)
            .ok_or_else(|| parts.malformed("a known head is cut short or not UTF-8"))?;
        if epoch.is_none() || seq.is_none() {
            return Err(parts.malformed("a known head has no epoch or no seq"));
        }
        let room = RoomName::parse_reserved(room).map_err(|cause| parts.name_error(cause))?;
        heads.push(KnownHead {
            room,
            at: Position::new(epoch, seq),
        });
        value = rest;
    }
    Ok(heads)
}

fn split(value: &[u8]) -> Option<(&str, Epoch, Seq, &[u8])> {
    let (&length, rest) = value.split_first()?;
    let (room, rest) = rest.split_at_checked(length.into())?;
    let (epoch, rest) = rest.split_first_chunk()?;
    let (seq, rest) = rest.split_first_chunk()?;
    let room = std::str::from_utf8(room).ok()?;
    Some((
        room,
        Epoch::new(u64::from_le_bytes(*epoch)),
        Seq::new(u64::from_le_bytes(*seq)),
        rest,
    ))
}
