//! A growable byte buffer at an aligned address, for direct I/O, in safe code.
//!
//! Invariant: the first byte of [`AlignedBuf::as_slice`] lies at a multiple of [`ALIGN_BYTES`]. A `Vec` with room to spare holds
//! it: some unused bytes come first, up to the alignment. Such a `Vec` never grows on its own, as that could move the bytes to an
//! address with another remainder; growing makes a new one.

use std::fmt;

/// Alignment of the first byte, in bytes: the largest that a disk asks for.
pub const ALIGN_BYTES: usize = 4096;

/// A growable byte buffer whose first byte lies at a multiple of [`ALIGN_BYTES`].
///
/// Its capacity never shrinks, so a writer that reuses one buffer stops allocating.
#[derive(Default)]
pub struct AlignedBuf {
    /// `start` unused bytes, then the content.
    raw: Vec<u8>,
    start: usize,
}

impl AlignedBuf {
    /// An empty buffer that does not allocate yet.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            raw: Vec::new(),
            start: 0,
        }
    }

    /// An empty buffer with room for `bytes`.
    #[must_use]
    pub fn with_capacity(bytes: usize) -> Self {
        let mut buf = Self::new();
        buf.reserve(bytes);
        buf
    }

    /// `len` zeros. The memory comes from the operating system as zeros, so pages that are never written cost nothing.
    #[must_use]
    pub fn zeroed(len: usize) -> Self {
        let mut raw = vec![0; len.saturating_add(ALIGN_BYTES)];
        let start = padding(&raw);
        raw.truncate(start.saturating_add(len));
        Self { raw, start }
    }

    /// Number of bytes held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.raw.len().saturating_sub(self.start)
    }

    /// Whether no byte is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes that fit without allocating.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.raw.capacity().saturating_sub(self.start)
    }

    /// The bytes held.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        self.raw.get(self.start..).unwrap_or_default()
    }

    /// The bytes held, to change.
    #[must_use]
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        self.raw.get_mut(self.start..).unwrap_or_default()
    }

    /// Makes room for `additional` more bytes; at least doubles when it must allocate.
    #[inline]
    pub fn reserve(&mut self, additional: usize) {
        // An empty `Vec` has no address that could be aligned.
        if self.raw.capacity() == 0 || additional > self.raw.capacity() - self.raw.len() {
            self.grow(additional);
        }
    }

    #[cold]
    fn grow(&mut self, additional: usize) {
        let wanted = self.len().saturating_add(additional);
        let bytes = wanted
            .max(self.capacity().saturating_mul(2))
            .max(ALIGN_BYTES);
        let mut raw = Vec::with_capacity(bytes.saturating_add(ALIGN_BYTES));
        let start = padding(&raw);
        raw.resize(start, 0);
        raw.extend_from_slice(self.as_slice());
        *self = Self { raw, start };
    }

    /// Appends bytes.
    #[inline]
    pub fn extend_from_slice(&mut self, bytes: &[u8]) {
        self.reserve(bytes.len());
        self.raw.extend_from_slice(bytes);
    }

    /// Sets the length; new bytes are zero.
    pub fn resize(&mut self, len: usize) {
        self.reserve(len.saturating_sub(self.len()));
        self.raw.resize(self.start.saturating_add(len), 0);
    }

    /// Cuts to `len` bytes, if there are more.
    pub fn truncate(&mut self, len: usize) {
        self.raw.truncate(self.start.saturating_add(len));
    }

    /// Forgets all bytes and keeps the space.
    pub fn clear(&mut self) {
        self.truncate(0);
    }

    /// Removes the first `count` bytes, or all if there are fewer; the rest moves to the front.
    pub fn drop_front(&mut self, count: usize) {
        let len = self.len();
        let count = count.min(len);
        self.as_mut_slice().copy_within(count.., 0);
        self.truncate(len.saturating_sub(count));
    }
}

/// Bytes from the start of the allocation to the next aligned address.
fn padding(raw: &[u8]) -> usize {
    // Not `align_offset`: it is allowed to give up. The address of an allocation is always known.
    raw.as_ptr().addr().wrapping_neg() % ALIGN_BYTES
}

impl Clone for AlignedBuf {
    fn clone(&self) -> Self {
        let mut copy = Self::new();
        copy.extend_from_slice(self.as_slice());
        copy
    }
}

impl fmt::Debug for AlignedBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AlignedBuf")
            .field("len", &self.len())
            .field("capacity", &self.capacity())
            .finish()
    }
}

impl AsRef<[u8]> for AlignedBuf {
    fn as_ref(&self) -> &[u8] {
        self.as_slice()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{ALIGN_BYTES, AlignedBuf};

    fn assert_aligned(buf: &AlignedBuf) {
        assert_eq!(buf.as_slice().as_ptr().addr() % ALIGN_BYTES, 0, "{buf:?}");
    }

    #[test]
    fn an_empty_buffer_allocates_nothing_and_reserves_when_asked() {
        let mut buf = AlignedBuf::new();
        assert_eq!((buf.len(), buf.capacity()), (0, 0));
        buf.reserve(0);
        assert_aligned(&buf);
        buf.extend_from_slice(b"x");
        assert_aligned(&buf);
        assert_eq!(buf.as_slice(), b"x");
    }

    #[test]
    fn capacity_stays_after_clear() {
        let mut buf = AlignedBuf::with_capacity(100_000);
        let capacity = buf.capacity();
        buf.resize(100_000);
        buf.clear();
        assert_eq!(buf.capacity(), capacity);
        assert!(buf.is_empty());
    }

    #[test]
    fn zeroed_is_aligned_and_zero() {
        for len in [0, 1, 511, 4096, 1 << 20] {
            let buf = AlignedBuf::zeroed(len);
            assert_aligned(&buf);
            assert_eq!(buf.as_slice(), vec![0; len]);
        }
    }

    #[derive(Debug, Clone)]
    enum Step {
        Extend(Vec<u8>),
        Resize(usize),
        Truncate(usize),
        DropFront(usize),
        Clear,
        Clone,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            prop::collection::vec(any::<u8>(), 0..6000).prop_map(Step::Extend),
            (0_usize..20_000).prop_map(Step::Resize),
            (0_usize..20_000).prop_map(Step::Truncate),
            (0_usize..20_000).prop_map(Step::DropFront),
            Just(Step::Clear),
            Just(Step::Clone),
        ]
    }

    proptest! {
        #[test]
        fn it_behaves_like_a_vec_and_stays_aligned(steps in prop::collection::vec(step(), 0..20)) {
            let (mut buf, mut model) = (AlignedBuf::new(), Vec::new());
            for step in steps {
                match step {
                    Step::Extend(bytes) => {
                        buf.extend_from_slice(&bytes);
                        model.extend_from_slice(&bytes);
                    }
                    Step::Resize(len) => {
                        buf.resize(len);
                        model.resize(len, 0);
                    }
                    Step::Truncate(len) => {
                        buf.truncate(len);
                        model.truncate(len);
                    }
                    Step::DropFront(count) => {
                        buf.drop_front(count);
                        model.drain(..count.min(model.len()));
                    }
                    Step::Clear => {
                        buf.clear();
                        model.clear();
                    }
                    Step::Clone => buf = buf.clone(),
                }
                prop_assert_eq!(buf.as_slice(), &model[..]);
                prop_assert!(buf.is_empty() || buf.as_slice().as_ptr().addr() % ALIGN_BYTES == 0);
            }
        }
    }
}
