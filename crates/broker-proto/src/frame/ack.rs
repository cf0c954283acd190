//! [`Ack`]: messages are stored, told as runs of consecutive numbers with consecutive seqs.
//!
//! The body is `runs` entries, each {u8 room_len, room, u64 epoch, u64 first_number, u32 count, u64 first_seq},
//! little-endian.

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use super::Kind;
use super::head::{Parts, Wire, put_head};
use crate::decode::DecodeError;
use crate::extension::{CRITICAL, PRODUCER};
use crate::id::ProducerId;
use crate::limits::ROOM_NAME_BYTES_MAX;
use crate::name::NameCache;
use crate::seq::{Epoch, Seq};

/// How safe an acknowledged message is. Open: a later broker may send levels that this version does not know.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct Level(u8);

impl Level {
    /// In memory; a crash may lose it. Not offered by this version.
    pub const RELAXED: Self = Self(1);
    /// On stable storage of one machine.
    pub const SYNCED: Self = Self(2);
    /// On stable storage of more than one machine. Not offered by this version.
    pub const REPLICATED: Self = Self(3);

    /// The level with this number.
    #[must_use]
    pub const fn new(level: u8) -> Self {
        Self(level)
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u8 {
        self.0
    }

    /// The name for people and scripts; `unknown` when this version does not know the level.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self.0 {
            1 => "relaxed",
            2 => "synced",
            3 => "replicated",
            _ => "unknown",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Broker: messages are stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ack {
    /// How safe they are.
    pub level: Level,
    /// How many runs there are.
    pub runs: u32,
    /// Whose numbers they are; `None` for the connection's own producer.
    pub producer: Option<ProducerId>,
    /// The runs. **Invariant** of a decoded frame: exactly `runs`, well-formed.
    pub body: Bytes,
}

/// Consecutive numbers of a producer that became consecutive seqs of a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run<'a> {
    /// The room. Its text and length are checked when the frame is decoded; it is a name that the client sent.
    pub room: &'a str,
    /// The history that the messages are in.
    pub epoch: Epoch,
    /// Number of the first message.
    pub first_number: u64,
    /// How many messages there are, at least one.
    pub count: u32,
    /// Seq of the first message.
    pub first_seq: Seq,
}

impl Run<'_> {
    /// Appends the run to the body of an ack.
    fn put(&self, out: &mut BytesMut) {
        let length = u8::try_from(self.room.len()).expect("names of rooms are at most 128 bytes");
        out.put_u8(length);
        out.put_slice(self.room.as_bytes());
        out.put_u64_le(self.epoch.get());
        out.put_u64_le(self.first_number);
        out.put_u32_le(self.count);
        out.put_u64_le(self.first_seq.get());
    }
}

/// Collects the runs of an ack and writes it as one frame. Its memory is used again for the next.
#[derive(Debug, Default)]
pub struct AckWriter {
    body: BytesMut,
    runs: u32,
}

impl AckWriter {
    /// A writer without runs.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a run.
    ///
    /// # Panics
    /// When the room is longer than 255 bytes, which no room name is.
    pub fn push(&mut self, run: &Run<'_>) {
        run.put(&mut self.body);
        self.runs += 1;
    }

    /// How many runs were added.
    #[must_use]
    pub const fn runs(&self) -> u32 {
        self.runs
    }

    /// Whether no run was added.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.runs == 0
    }

    /// Appends the ack to `out` and forgets the runs; `producer` is `None` for the connection's own.
    ///
    /// # Panics
    /// When the runs make the frame larger than [`FRAME_BYTES_MAX`](crate::limits::FRAME_BYTES_MAX); 100,000 never do.
    pub fn finish(&mut self, out: &mut BytesMut, level: Level, producer: Option<&ProducerId>) {
        put_ack(out, level, self.runs, producer, &self.body);
        self.body.clear();
        self.runs = 0;
    }

    /// The ack as a frame of its own; the writer starts anew.
    #[must_use]
    pub fn into_frame(self, level: Level, producer: Option<ProducerId>) -> Ack {
        Ack {
            level,
            runs: self.runs,
            producer,
            body: self.body.freeze(),
        }
    }
}

#[derive(Serialize, Deserialize)]
struct AckHeader {
    level: Level,
    runs: u32,
}

/// Appends a whole ack.
fn put_ack(
    out: &mut BytesMut,
    level: Level,
    runs: u32,
    producer: Option<&ProducerId>,
    body: &[u8],
) {
    let producer = producer.map(|id| (PRODUCER | CRITICAL, id.as_bytes().as_slice()));
    put_head(
        out,
        Kind::Ack,
        &AckHeader { level, runs },
        producer,
        body.len(),
    );
    out.put_slice(body);
}

impl Ack {
    /// The runs, one by one.
    #[must_use]
    pub fn iter(&self) -> AckIter<'_> {
        AckIter { rest: &self.body }
    }
}

impl<'a> IntoIterator for &'a Ack {
    type Item = Run<'a>;
    type IntoIter = AckIter<'a>;

    fn into_iter(self) -> AckIter<'a> {
        self.iter()
    }
}

/// The runs of an ack, borrowed; it ends at the end or where a run is malformed.
#[derive(Debug, Clone)]
pub struct AckIter<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for AckIter<'a> {
    type Item = Run<'a>;

    fn next(&mut self) -> Option<Run<'a>> {
        let (&room_len, rest) = self.rest.split_first()?;
        let (room, rest) = rest.split_at_checked(room_len.into())?;
        let (epoch, rest) = rest.split_first_chunk()?;
        let (first_number, rest) = rest.split_first_chunk()?;
        let (count, rest) = rest.split_first_chunk()?;
        let (first_seq, rest) = rest.split_first_chunk()?;
        let room = std::str::from_utf8(room).ok()?;
        self.rest = rest;
        Some(Run {
            room,
            epoch: Epoch::new(u64::from_le_bytes(*epoch)),
            first_number: u64::from_le_bytes(*first_number),
            count: u32::from_le_bytes(*count),
            first_seq: Seq::new(u64::from_le_bytes(*first_seq)),
        })
    }
}

impl Wire for Ack {
    const KIND: Kind = Kind::Ack;

    fn put(&self, out: &mut BytesMut) {
        put_ack(
            out,
            self.level,
            self.runs,
            self.producer.as_ref(),
            &self.body,
        );
    }

    fn take(parts: Parts, _: &mut NameCache) -> Result<Self, DecodeError> {
        let (header, list): (AckHeader, _) = parts.header()?;
        let producer = take_producer(&parts, list)?;
        let AckHeader { level, runs } = header;
        check_runs(&parts, runs)?;
        Ok(Self {
            level,
            runs,
            producer,
            body: parts.into_body(),
        })
    }
}

/// Reads the extensions of a frame that knows no other than the producer.
pub(crate) fn take_producer(parts: &Parts, list: &[u8]) -> Result<Option<ProducerId>, DecodeError> {
    let entry = parts
        .extensions(list, &[PRODUCER])?
        .find(|entry| entry.key == PRODUCER);
    let id = entry
        .map(|entry| entry.array())
        .transpose()
        .map_err(|cause| parts.extension_error(cause))?;
    Ok(id.map(ProducerId::new))
}

/// Checks that the body is exactly `runs` runs that make sense.
fn check_runs(parts: &Parts, runs: u32) -> Result<(), DecodeError> {
    let mut iter = AckIter { rest: parts.body() };
    for _ in 0..runs {
        let run = iter
            .next()
            .ok_or_else(|| parts.malformed("a run is cut short or its room is not UTF-8"))?;
        if run.room.is_empty() || run.room.len() > ROOM_NAME_BYTES_MAX {
            return Err(parts.malformed("the room of a run is empty or too long"));
        }
        parts.numbers(run.first_number, run.count)?;
        parts.numbers(run.first_seq.get(), run.count)?;
    }
    if !iter.rest.is_empty() {
        return Err(parts.malformed("bytes follow the last run"));
    }
    Ok(())
}
