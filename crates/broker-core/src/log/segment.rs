//! Segment files: their names, and the header that each begins with.
//!
//! ```text
//!    0  header, first copy   256 bytes
//! 2048  header, second copy  256 bytes
//! 4096  batches, without a gap
//! ```
//!
//! The two copies lie in different sectors of any disk, and a header that is lost altogether can be
//! made again from the first batch: positions run on without a gap, so a segment's base is also
//! where its predecessor ends.

use std::fmt;
use std::ops::RangeInclusive;

use broker_proto::StoreId;

use super::bytes::{Fields, crc32c, put};
use super::position::{LogPosition, Marker};

/// Where the batches begin.
pub const DATA_OFFSET: u64 = 4096;
/// Bytes of one copy of the header.
pub const HEADER_BYTES: usize = 256;
/// Where the second copy lies.
pub const HEADER_COPY_OFFSET: usize = 2048;
/// Version of the format of segment files.
pub const FORMAT_VERSION: u16 = 1;
/// The first segment of a store.
pub const SEGMENT_BYTES_MIN: u64 = 1 << 20;
/// Segments double up to this.
pub const SEGMENT_BYTES_MAX: u64 = 64 << 20;

const MAGIC: [u8; 8] = *b"BRKRSEG\n";

/// Number of a segment, from 1 in the order of making.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentId(pub u64);

impl fmt::Display for SegmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a file name of the log says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentName {
    /// Which segment.
    pub id: SegmentId,
    /// How often it has been rewritten.
    pub generation: u32,
}

impl SegmentName {
    /// The name of the segment file.
    #[must_use]
    pub fn file(&self) -> String {
        format!("{:016x}-{:04x}.seg", self.id.0, self.generation)
    }

    /// The name of its footer.
    #[must_use]
    pub fn footer(&self) -> String {
        format!("{:016x}-{:04x}.idx", self.id.0, self.generation)
    }

    /// Reads the name of a footer; anything that is not exactly one is not one.
    #[must_use]
    pub fn parse_footer(name: &str) -> Option<Self> {
        Self::parse(&format!("{}.seg", name.strip_suffix(".idx")?))
    }

    /// Reads the name of a segment file; anything that is not exactly one is not one.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let (id, generation) = name.strip_suffix(".seg")?.split_once('-')?;
        let parsed = Self {
            id: SegmentId(u64::from_str_radix(id, 16).ok()?),
            generation: u32::from_str_radix(generation, 16).ok()?,
        };
        // One spelling only: no capitals, no signs, no other width.
        (parsed.file() == name && parsed.id.0 > 0).then_some(parsed)
    }
}

/// What a segment file says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentHeader {
    /// Whose log this is.
    pub store: StoreId,
    /// Which segment.
    pub name: SegmentName,
    /// The last segment that this file stands for; the same as its own unless it was rewritten.
    pub covers_last: SegmentId,
    /// Heads every batch in this file.
    pub marker: Marker,
    /// The place of its first batch; the predecessor ends here.
    pub base: LogPosition,
    /// The leadership that made it.
    pub term: u64,
    /// When it was made: wall clock, microseconds since 1970 UTC.
    pub created: i64,
    /// The segment before; 0 for the first.
    pub previous: SegmentId,
    /// Where the last complete checkpoint begins, as known when the segment was made.
    pub checkpoint: LogPosition,
    /// Unit in which its maker wrote: 512 or 4096 bytes.
    pub batch_align: u32,
    /// What a program must understand to read the store.
    pub feature_level: u32,
    /// Where its batches end, if it was rewritten; see [`Self::packed_end`]; else 0.
    pub data_end: LogPosition,
    /// Which files it was made of, if it was rewritten; see [`Self::fingerprint`].
    pub sources: u64,
}

/// Why a header cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeaderFault {
    /// Neither copy is whole, or they name a place where no log reaches.
    Damaged,
    /// Made by a newer program.
    Newer {
        /// The format version that it has.
        version: u16,
    },
}

impl SegmentHeader {
    /// The first [`DATA_OFFSET`] bytes of the file.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut copy = [0; HEADER_BYTES];
        put(&mut copy, 0, &MAGIC);
        put(&mut copy, 12, &FORMAT_VERSION.to_le_bytes());
        put(&mut copy, 16, &self.feature_level.to_le_bytes());
        put(&mut copy, 20, &self.batch_align.to_le_bytes());
        put(&mut copy, 24, self.store.as_bytes());
        put(&mut copy, 40, &self.name.id.0.to_le_bytes());
        put(&mut copy, 48, &self.covers_last.0.to_le_bytes());
        put(&mut copy, 56, &self.name.generation.to_le_bytes());
        put(&mut copy, 64, &self.marker.0.to_le_bytes());
        put(&mut copy, 72, &self.base.get().to_le_bytes());
        put(&mut copy, 80, &self.term.to_le_bytes());
        put(&mut copy, 88, &self.created.to_le_bytes());
        put(&mut copy, 96, &self.previous.0.to_le_bytes());
        put(&mut copy, 104, &self.checkpoint.get().to_le_bytes());
        put(&mut copy, 112, &self.data_end.get().to_le_bytes());
        put(&mut copy, 120, &self.sources.to_le_bytes());
        let crc = header_crc(&copy);
        put(&mut copy, 8, &crc.to_le_bytes());
        let mut out = vec![0; usize::try_from(DATA_OFFSET).unwrap_or(HEADER_BYTES)];
        put(&mut out, 0, &copy);
        put(&mut out, HEADER_COPY_OFFSET, &copy);
        out
    }

    /// Reads whichever copy is whole.
    ///
    /// # Errors
    /// [`HeaderFault`], of the copy that says more.
    pub fn parse(block: &[u8]) -> Result<Self, HeaderFault> {
        let mut fault = HeaderFault::Damaged;
        for at in [0, HEADER_COPY_OFFSET] {
            match Self::parse_copy(block.get(at..at + HEADER_BYTES).unwrap_or_default()) {
                Ok(header) => return Ok(header),
                Err(HeaderFault::Damaged) => {}
                Err(newer) => fault = newer,
            }
        }
        Err(fault)
    }

    /// Reads the copy at this offset, if it is whole.
    pub(crate) fn parse_copy_at(block: &[u8], at: usize) -> Option<Self> {
        Self::parse_copy(block.get(at..at + HEADER_BYTES)?).ok()
    }

    fn parse_copy(copy: &[u8]) -> Result<Self, HeaderFault> {
        let fields = Fields(copy);
        if copy.len() != HEADER_BYTES
            || copy.get(..8) != Some(&MAGIC)
            || fields.u32(8) != header_crc(copy)
        {
            return Err(HeaderFault::Damaged);
        }
        let version = fields.u16(12);
        if version > FORMAT_VERSION {
            return Err(HeaderFault::Newer { version });
        }
        let header = Self {
            feature_level: fields.u32(16),
            batch_align: fields.u32(20),
            store: StoreId::new(fields.bytes16(24)),
            name: SegmentName {
                id: SegmentId(fields.u64(40)),
                generation: fields.u32(56),
            },
            covers_last: SegmentId(fields.u64(48)),
            marker: Marker(fields.u64(64)),
            base: LogPosition::new(fields.u64(72)),
            term: fields.u64(80),
            created: fields.i64(88),
            previous: SegmentId(fields.u64(96)),
            checkpoint: LogPosition::new(fields.u64(104)),
            data_end: LogPosition::new(fields.u64(112)),
            sources: fields.u64(120),
        };
        let is_sane = header.base <= LogPosition::LAST
            && header.packed_end().is_none_or(|end| {
                (header.base..=LogPosition::LAST).contains(&end)
                    && header.covers_last >= header.name.id
            });
        is_sane.then_some(header).ok_or(HeaderFault::Damaged)
    }

    /// Where its batches end, if it says so itself: a file that was rewritten does. Any other ends where
    /// the next segment begins.
    #[must_use]
    pub fn packed_end(&self) -> Option<LogPosition> {
        (self.name.generation > 0).then_some(self.data_end)
    }

    /// The segments that this file stands for.
    #[must_use]
    pub fn covers(&self) -> RangeInclusive<SegmentId> {
        match self.name.generation {
            0 => self.name.id..=self.name.id,
            _ => self.name.id..=self.covers_last,
        }
    }

    /// Whether this file stands for all that another one does, which is then not looked at any more.
    #[must_use]
    pub fn supersedes(&self, other: &Self) -> bool {
        let (ours, theirs) = (self.covers(), other.covers());
        self.name.generation > other.name.generation
            && ours.contains(theirs.start())
            && ours.contains(theirs.end())
    }

    /// Tells files from others: how many they are, and the checksum of their names. They come in the order of the log.
    #[must_use]
    pub fn fingerprint(names: impl Iterator<Item = SegmentName>) -> u64 {
        let (mut count, mut list) = (0_u64, Vec::new());
        for name in names {
            count += 1;
            list.extend_from_slice(&name.id.0.to_le_bytes());
            list.extend_from_slice(&name.generation.to_le_bytes());
        }
        count << 32 | u64::from(crc32c(&[&list]))
    }

    /// Where in the file a place of the log lies.
    #[must_use]
    pub fn offset_of(&self, position: LogPosition) -> u64 {
        // A place comes from disk, and with a right checksum anything can be claimed.
        DATA_OFFSET.saturating_add(position.since(self.base))
    }
}

fn header_crc(copy: &[u8]) -> u32 {
    crc32c(&[
        copy.get(..8).unwrap_or_default(),
        copy.get(12..).unwrap_or_default(),
    ])
}

#[cfg(test)]
mod tests {
    #![expect(
        clippy::unwrap_used,
        clippy::indexing_slicing,
        reason = "a test may panic"
    )]
    use super::*;

    fn header() -> SegmentHeader {
        SegmentHeader {
            store: StoreId::new([7; 16]),
            name: SegmentName {
                id: SegmentId(3),
                generation: 1,
            },
            covers_last: SegmentId(3),
            marker: Marker(0x1122_3344_5566_7788),
            base: LogPosition::new(800),
            term: 5,
            created: 9,
            previous: SegmentId(2),
            checkpoint: LogPosition::NONE,
            batch_align: 4096,
            feature_level: 1,
            data_end: LogPosition::new(900),
            sources: 7,
        }
    }

    #[test]
    fn names_have_one_spelling() {
        let name = SegmentName {
            id: SegmentId(0x1f),
            generation: 2,
        };
        assert_eq!(name.file(), "000000000000001f-0002.seg");
        assert_eq!(SegmentName::parse(&name.file()), Some(name));
        assert_eq!(SegmentName::parse_footer(&name.footer()), Some(name));
        assert_eq!(SegmentName::parse_footer(&name.file()), None);
        let others = [
            "000000000000001F-0002.seg",
            "1f-2.seg",
            "000000000000001f-0002.seg.tmp",
            "000000000000001f-0002.idx",
            "+00000000000001f-0002.seg",
            "0000000000000000-0000.seg",
            "000000000000001f.seg",
        ];
        for other in others {
            assert_eq!(SegmentName::parse(other), None, "{other}");
        }
    }

    #[test]
    fn a_header_survives_the_loss_of_either_copy_but_not_of_both() {
        let block = header().encode();
        assert_eq!(SegmentHeader::parse(&block).unwrap(), header());
        for bit in 0..HEADER_BYTES * 8 {
            let mut damaged = block.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(
                SegmentHeader::parse(&damaged).unwrap(),
                header(),
                "bit {bit} of the first copy"
            );
            damaged[HEADER_COPY_OFFSET + bit / 8] ^= 1 << (bit % 8);
            assert_eq!(
                SegmentHeader::parse(&damaged),
                Err(HeaderFault::Damaged),
                "bit {bit} of both"
            );
        }
    }

    #[test]
    fn a_rewritten_file_says_where_it_ends_and_whom_it_stands_for() {
        let packed = SegmentHeader {
            covers_last: SegmentId(6),
            ..header()
        };
        assert_eq!(packed.packed_end(), Some(LogPosition::new(900)));
        let of = |id, generation, last| SegmentHeader {
            name: SegmentName {
                id: SegmentId(id),
                generation,
            },
            covers_last: SegmentId(last),
            ..header()
        };
        assert_eq!(of(3, 0, 3).packed_end(), None);
        let others = [
            (of(3, 0, 3), true),
            (of(6, 0, 6), true),
            (of(7, 0, 7), false),
            (of(2, 0, 2), false),
            (of(4, 1, 5), false),
        ];
        for (other, expected) in others {
            assert_eq!(packed.supersedes(&other), expected, "{other:?}");
        }
        assert!(of(3, 2, 6).supersedes(&packed));
        assert!(!of(3, 2, 5).supersedes(&packed), "only part of it");
        for (end, last) in [(799, 6), (1 << 63, 6), (900, 2)] {
            let wrong = SegmentHeader {
                data_end: LogPosition::new(end),
                sources: 0,
                covers_last: SegmentId(last),
                ..header()
            };
            let parsed = SegmentHeader::parse(&wrong.encode());
            assert_eq!(parsed, Err(HeaderFault::Damaged), "{end} {last}");
        }
    }

    #[test]
    fn a_newer_version_is_told_apart_from_damage() {
        let mut block = header().encode();
        for at in [0, HEADER_COPY_OFFSET] {
            put(&mut block, at + 12, &2_u16.to_le_bytes());
            let crc = header_crc(&block[at..at + HEADER_BYTES]);
            put(&mut block, at + 8, &crc.to_le_bytes());
        }
        assert_eq!(
            SegmentHeader::parse(&block),
            Err(HeaderFault::Newer { version: 2 })
        );
    }
}
