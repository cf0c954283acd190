//! [`Stamp`]: what every benchmark message carries.

use bytes::{BufMut, Bytes, BytesMut};

/// Bytes of a stamp, and so the smallest message of a benchmark.
pub(crate) const STAMP_BYTES: usize = 32;

/// Who sent a message, which of theirs in this room it is, and when.
///
/// Little-endian: run u64, publisher u32, room u32, counter u64, nanoseconds since the run began
/// u64; then filling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// Which benchmark; messages of others in the same room are not ours.
    pub(crate) run: u64,
    /// Which publisher, from 0.
    pub(crate) publisher: u32,
    /// Which room, from 0.
    pub(crate) room: u32,
    /// Which message of this publisher in this room, from 0.
    pub(crate) counter: u64,
    /// When it was sent; in an open loop when it was due.
    pub(crate) sent_ns: u64,
}

impl Stamp {
    /// A message of `size` bytes, at least [`STAMP_BYTES`].
    pub(crate) fn payload(&self, size: usize) -> Bytes {
        let mut bytes = BytesMut::with_capacity(size.max(STAMP_BYTES));
        bytes.put_u64_le(self.run);
        bytes.put_u32_le(self.publisher);
        bytes.put_u32_le(self.room);
        bytes.put_u64_le(self.counter);
        bytes.put_u64_le(self.sent_ns);
        bytes.put_bytes(b'.', size.saturating_sub(STAMP_BYTES));
        bytes.freeze()
    }

    /// Reads a message back; `None` when it is too short for one of ours.
    pub(crate) fn parse(payload: &[u8]) -> Option<Self> {
        let (run, rest) = payload.split_first_chunk()?;
        let (publisher, rest) = rest.split_first_chunk()?;
        let (room, rest) = rest.split_first_chunk()?;
        let (counter, rest) = rest.split_first_chunk()?;
        let (sent_ns, _) = rest.split_first_chunk()?;
        Some(Self {
            run: u64::from_le_bytes(*run),
            publisher: u32::from_le_bytes(*publisher),
            room: u32::from_le_bytes(*room),
            counter: u64::from_le_bytes(*counter),
            sent_ns: u64::from_le_bytes(*sent_ns),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_survives_its_bytes() {
        let stamp = Stamp {
            run: u64::MAX,
            publisher: 1,
            room: 2,
            counter: 3,
            sent_ns: 4,
        };
        assert_eq!(Stamp::parse(&stamp.payload(STAMP_BYTES)), Some(stamp));
        assert_eq!(stamp.payload(100).len(), 100);
        assert_eq!(Stamp::parse(&[0; STAMP_BYTES - 1]), None);
    }
}
