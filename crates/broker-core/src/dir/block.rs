//! A block of 512 bytes with a checksum: what `store` and `lock` hold.
//!
//! Integers are little-endian. The last four bytes are the CRC-32C of all before them, in every version of either file, so a newer
//! version can be told from damage. A disk writes 512 bytes at once or not at all.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Size of a block, in bytes.
pub(super) const BLOCK_BYTES: usize = 512;

/// Where the checksum stands.
pub(super) const CRC_AT: usize = BLOCK_BYTES - 4;

/// A block, sealed or being made.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Block([u8; BLOCK_BYTES]);

impl Block {
    pub(super) const fn new() -> Self {
        Self([0; BLOCK_BYTES])
    }

    /// Reads the first block of a file. A shorter file gives `None`.
    pub(super) fn read(file: &File) -> io::Result<Option<Self>> {
        let mut block = Self::new();
        match file.read_exact_at(&mut block.0, 0) {
            Ok(()) => Ok(Some(block)),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Puts the checksum in and writes the block at the start of the file, in one call unless the kernel splits it.
    pub(super) fn seal_and_write(mut self, file: &File) -> io::Result<()> {
        self.put(CRC_AT, &self.crc().to_le_bytes());
        file.write_all_at(&self.0, 0)
    }

    /// Whether the checksum holds.
    pub(super) fn is_whole(&self) -> bool {
        self.found_crc() == self.crc()
    }

    /// The checksum that the block should have.
    pub(super) fn crc(&self) -> u32 {
        crc32c::crc32c(self.0.get(..CRC_AT).unwrap_or_default())
    }

    /// The checksum that the block has.
    pub(super) fn found_crc(&self) -> u32 {
        u32::from_le_bytes(self.array(CRC_AT))
    }

    /// Writes a field. All places and sizes are constants of the callers, and tested there.
    pub(super) fn put(&mut self, at: usize, bytes: &[u8]) {
        if let Some(to) = self.0.get_mut(at..at.saturating_add(bytes.len())) {
            to.copy_from_slice(bytes);
        }
    }

    /// Reads a field of fixed size.
    pub(super) fn array<const N: usize>(&self, at: usize) -> [u8; N] {
        self.slice(at, N)
            .and_then(|bytes| bytes.try_into().ok())
            .unwrap_or([0; N])
    }

    /// Reads a field, if it lies before the checksum or is it.
    pub(super) fn slice(&self, at: usize, len: usize) -> Option<&[u8]> {
        self.0.get(at..at.checked_add(len)?)
    }
}
