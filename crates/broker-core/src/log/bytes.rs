//! Little-endian numbers at fixed places, for the fixed layouts of the log.
//!
//! Reading past the end gives zero: every caller checks a length and a checksum first, so this only
//! decides what a mistake would look like, and a wrong zero is better than a panic in recovery.

/// Reads numbers at given offsets.
#[derive(Clone, Copy)]
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl Fields<'_> {
    fn array<const N: usize>(self, at: usize) -> [u8; N] {
        let mut out = [0; N];
        if let Some(bytes) = self.0.get(at..at.saturating_add(N)) {
            out.copy_from_slice(bytes);
        }
        out
    }

    pub(crate) fn u16(self, at: usize) -> u16 {
        u16::from_le_bytes(self.array(at))
    }

    pub(crate) fn u32(self, at: usize) -> u32 {
        u32::from_le_bytes(self.array(at))
    }

    pub(crate) fn u64(self, at: usize) -> u64 {
        u64::from_le_bytes(self.array(at))
    }

    pub(crate) fn i64(self, at: usize) -> i64 {
        i64::from_le_bytes(self.array(at))
    }

    pub(crate) fn bytes16(self, at: usize) -> [u8; 16] {
        self.array(at)
    }
}

/// Writes bytes at a given offset; what does not fit is a mistake in the layout and is dropped.
pub(crate) fn put(into: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(place) = into.get_mut(at..at.saturating_add(bytes.len())) {
        place.copy_from_slice(bytes);
    }
}

/// CRC-32C over several pieces, as if they were one.
pub(crate) fn crc32c(pieces: &[&[u8]]) -> u32 {
    pieces
        .iter()
        .fold(0, |crc, piece| crc32c::crc32c_append(crc, piece))
}

/// The next multiple of `unit`, a power of two.
pub(crate) const fn round_up(n: u64, unit: u64) -> u64 {
    n.saturating_add(unit - 1) & !(unit - 1)
}

/// The multiple of `unit`, a power of two, at or before `n`.
pub(crate) const fn round_down(n: u64, unit: u64) -> u64 {
    n & !(unit - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc_is_castagnoli_and_does_not_care_about_pieces() {
        // The check value of CRC-32C in the catalogue of parametrised CRCs.
        assert_eq!(crc32c(&[b"123456789"]), 0xe306_9283);
        assert_eq!(crc32c(&[b"1234", b"", b"56789"]), 0xe306_9283);
    }

    #[test]
    fn rounding() {
        assert_eq!((round_up(0, 8), round_up(1, 8), round_up(8, 8)), (0, 8, 8));
        assert_eq!(
            (round_down(7, 8), round_down(8, 8), round_down(15, 8)),
            (0, 8, 8)
        );
    }
}
