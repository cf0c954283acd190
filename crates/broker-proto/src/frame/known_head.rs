//! [`KnownHeads`]: what a client knows to be stored, in the extension `known_heads` of its hello.
//!
//! The value of the extension is a u64 term and then entries to its end, integers little-endian:
//! {u8 bytes of the room's name, the name, u64 epoch, u64 seq}.

use super::head::Parts;
use crate::decode::DecodeError;
use crate::limits::{KNOWN_HEADS_BYTES_MAX, KNOWN_HEADS_MAX};
use crate::name::RoomName;
use crate::seq::{Epoch, Position, Seq, Term};

/// Bytes before the entries.
const TERM_BYTES: usize = 8;

/// Bytes of an entry beside the name.
const ENTRY_FIXED_BYTES: usize = 1 + 8 + 8;

/// What a client has seen of a store, and under which leader.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KnownHeads {
    /// The latest term of which the client was welcomed: what it knows was stored before a leader of a later term began.
    pub term: Term,
    /// Newest places that the client knows to be stored, of the rooms it used last, the last first: at most 64, and of 3,584
    /// bytes together. What does not fit is not sent.
    pub heads: Box<[KnownHead]>,
}

/// The newest message of a room that a client has seen acknowledged or delivered: a store that does not reach so far has lost
/// messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownHead {
    /// Which room.
    pub room: RoomName,
    /// Its epoch, and the seq of the message.
    pub at: Position,
}

/// The value of the extension, with as many of the first entries as a hello may state; nothing when nothing is known.
pub(super) fn encode(known: &KnownHeads) -> Vec<u8> {
    let mut out = Vec::new();
    for head in known.heads.iter().take(KNOWN_HEADS_MAX) {
        if out.is_empty() {
            out.extend_from_slice(&known.term.get().to_le_bytes());
        }
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

/// Reads the value of the extension.
pub(super) fn decode(parts: &Parts, value: &[u8]) -> Result<KnownHeads, DecodeError> {
    if value.len() > KNOWN_HEADS_BYTES_MAX {
        return Err(parts.malformed("the known heads have more bytes than a hello may state"));
    }
    let (term, mut rest) = value
        .split_first_chunk::<TERM_BYTES>()
        .ok_or_else(|| parts.malformed("the known heads have no term"))?;
    let mut heads = Vec::new();
    while !rest.is_empty() {
        if heads.len() == KNOWN_HEADS_MAX {
            return Err(parts.malformed("there are more known heads than a hello may state"));
        }
        let (room, epoch, seq, after) =
            split(rest).ok_or_else(|| parts.malformed("a known head is cut short or not UTF-8"))?;
        if epoch.is_none() || seq.is_none() {
            return Err(parts.malformed("a known head has no epoch or no seq"));
        }
        let room = RoomName::parse_reserved(room).map_err(|cause| parts.name_error(cause))?;
        heads.push(KnownHead {
            room,
            at: Position::new(epoch, seq),
        });
        rest = after;
    }
    // Without an entry a term says nothing.
    let term = match heads.is_empty() {
        true => Term::default(),
        false => Term::new(u64::from_le_bytes(*term)),
    };
    let heads = heads.into();
    Ok(KnownHeads { term, heads })
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
