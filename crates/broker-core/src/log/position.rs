//! Places in the log.

use std::fmt;

/// A place in the log, counted in bytes of batches over all segments; never reset.
///
/// Segment headers and footers are not counted, so positions run on without a gap from one segment
/// to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct LogPosition(u64);

impl LogPosition {
    /// The beginning of the log.
    pub const START: Self = Self(0);
    /// No place at all; on disk, "none yet".
    pub const NONE: Self = Self(u64::MAX);
    /// No log is so long: a gigabyte a second would take it more than a century. What claims to lie
    /// beyond is wrong, so sums of places that are believed cannot overflow.
    pub const LAST: Self = Self(1 << 62);

    /// The place `bytes` after the beginning.
    #[must_use]
    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    /// Bytes since the beginning.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The place `bytes` further on.
    #[must_use]
    pub const fn plus(self, bytes: u64) -> Self {
        Self(self.0.saturating_add(bytes))
    }

    /// Bytes from `earlier` to here; 0 if it is not earlier.
    #[must_use]
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for LogPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::NONE {
            f.write_str("none")
        } else {
            self.0.fmt(f)
        }
    }
}

/// The random number that heads every batch of one segment.
///
/// It never leaves the machine through a door, so that no payload can pretend to be a batch; `Debug`
/// hides it for the same reason.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Marker(pub(crate) u64);

impl fmt::Debug for Marker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Marker(..)")
    }
}
