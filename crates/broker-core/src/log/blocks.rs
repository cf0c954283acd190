//! Memory that readers read into, used again and again.
//!
//! A fresh block of 256 KiB costs more than the read: its pages are mapped, zeroed and given back each time. The block
//! that came back last is the first to go out again: it still lies in the processor's cache.
//!
//! **Invariant:** what lies idle here is bounded by [`SIZES`], however many readers there are. A block that is handed
//! out comes back when the last of those who share its bytes lets go of it.

use bytes::Bytes;

use crate::sync::{Arc, Mutex, lock};

/// Sizes of blocks in bytes, in order, and how many of each are kept: what two threads read for others, and what one turn
/// of a session reads for itself.
const SIZES: [(usize, usize); 2] = [(68 << 10, 4), (260 << 10, 4)];

/// Below this a block is not worth sharing.
const WORTH: usize = 16 << 10;

/// See the module's documentation.
#[derive(Debug, Clone, Default)]
pub(crate) struct Blocks {
    idle: Arc<[Mutex<Vec<Vec<u8>>>; SIZES.len()]>,
}

/// Memory to read into.
#[derive(Debug)]
pub(crate) struct Block {
    bytes: Vec<u8>,
    /// How many bytes of it count.
    len: usize,
    /// Where it goes afterwards, and as which of the sizes.
    home: Option<(Blocks, usize)>,
}

impl Blocks {
    /// A block of `len` bytes that hold anything; none where an allocation serves as well.
    pub(crate) fn take(&self, len: usize) -> Option<Block> {
        if len < WORTH {
            return None;
        }
        let size = SIZES.iter().position(|(bytes, _)| len <= *bytes)?;
        let idle = lock(self.idle.get(size)?).pop();
        let (bytes, _) = SIZES.get(size)?;
        Some(Block {
            bytes: idle.unwrap_or_else(|| vec![0; *bytes]),
            len,
            home: Some((self.clone(), size)),
        })
    }
}

impl Block {
    /// The bytes to read into.
    pub(crate) fn as_mut(&mut self) -> &mut [u8] {
        self.bytes.get_mut(..self.len).unwrap_or_default()
    }

    /// The first `len` bytes, to be shared.
    pub(crate) fn freeze(mut self, len: usize) -> Bytes {
        self.len = len.min(self.len);
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Block {
    fn as_ref(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        let Some((blocks, size)) = self.home.take() else {
            return;
        };
        let place = blocks.idle.get(size).zip(SIZES.get(size));
        if let Some((idle, (_, kept))) = place {
            let mut idle = lock(idle);
            if idle.len() < *kept {
                idle.push(std::mem::take(&mut self.bytes));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    #[test]
    fn the_block_that_came_back_last_goes_out_first() {
        let blocks = Blocks::default();
        let mut block = blocks.take(20_000).unwrap();
        block.as_mut().fill(7);
        let place = block.as_mut().as_ptr();
        let bytes = block.freeze(10_000);
        let part = bytes.slice(5000..);
        drop(bytes);
        // It is still read from, so this is another one.
        let other = blocks.take(20_000).unwrap();
        assert_ne!(other.as_ref().as_ptr(), place);
        assert_eq!(
            (part.len(), part.iter().all(|byte| *byte == 7)),
            (5000, true)
        );
        drop(other);
        drop(part);
        let again = blocks.take(60_000).unwrap();
        assert_eq!(
            (again.as_ref().as_ptr(), again.as_ref().len()),
            (place, 60_000)
        );
    }

    #[test]
    fn few_blocks_lie_idle_however_many_were_out() {
        let blocks = Blocks::default();
        for len in [64 << 10, 256 << 10] {
            let out: Vec<_> = (0..100).map(|_| blocks.take(len).unwrap()).collect();
            drop(out);
        }
        for (idle, (_, kept)) in blocks.idle.iter().zip(SIZES) {
            assert_eq!(lock(idle).len(), kept);
        }
        assert!(blocks.take(WORTH - 1).is_none());
        assert!(blocks.take(1 << 20).is_none());
    }
}
