//! Footers that are made again: how many, and how far that is.

use crate::store::FootersInfo;
use crate::sync::{AtomicU64, Ordering};

use super::position::LogPosition;
use super::segment::SegmentName;

/// Told each time so much more is read, in bytes.
const TOLD_EVERY: u64 = 16 << 20;

/// See the module's documentation.
#[derive(Debug, Default)]
pub(crate) struct Footers {
    made_again: AtomicU64,
    in_making: AtomicU64,
    bytes_left: AtomicU64,
}

impl Footers {
    /// What to tell of them.
    pub(crate) fn info(&self) -> FootersInfo {
        FootersInfo {
            made_again: self.made_again.load(Ordering::Relaxed),
            in_making: self.in_making.load(Ordering::Relaxed),
            bytes_left: self.bytes_left.load(Ordering::Relaxed),
        }
    }

    /// Begins to make that of a segment, from `base` to `end`.
    pub(super) fn begin(
        &self,
        name: SegmentName,
        base: LogPosition,
        end: LogPosition,
    ) -> Making<'_> {
        let bytes = end.since(base);
        self.in_making.fetch_add(1, Ordering::Relaxed);
        self.bytes_left.fetch_add(bytes, Ordering::Relaxed);
        tracing::info!(
            file = name.file(),
            bytes,
            "the footer of a segment is missing or damaged and is made again"
        );
        Making {
            footers: self,
            name,
            at: base,
            told: base,
            end,
        }
    }
}

/// One that is being made.
#[derive(Debug)]
pub(super) struct Making<'a> {
    footers: &'a Footers,
    name: SegmentName,
    at: LogPosition,
    told: LogPosition,
    end: LogPosition,
}

impl Making<'_> {
    /// Everything before `at` has been read.
    pub(super) fn reach(&mut self, at: LogPosition) {
        let at = at.min(self.end).max(self.at);
        let read = at.since(self.at);
        self.footers.bytes_left.fetch_sub(read, Ordering::Relaxed);
        self.at = at;
        if at.since(self.told) >= TOLD_EVERY {
            self.told = at;
            let left = self.end.since(at);
            tracing::info!(
                file = self.name.file(),
                left,
                "reading a segment for its footer"
            );
        }
    }

    /// It is made.
    pub(super) fn finish(mut self) {
        self.reach(self.end);
        self.footers.made_again.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Making<'_> {
    fn drop(&mut self) {
        let left = self.end.since(self.at);
        self.footers.bytes_left.fetch_sub(left, Ordering::Relaxed);
        self.footers.in_making.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::super::segment::SegmentId;
    use super::*;

    #[test]
    fn what_is_left_is_told_until_it_is_made_or_given_up() {
        let footers = Footers::default();
        let name = SegmentName {
            id: SegmentId(1),
            generation: 0,
        };
        let told = || {
            let info = footers.info();
            (info.made_again, info.in_making, info.bytes_left)
        };
        let at = LogPosition::new;
        let mut one = footers.begin(name, at(100), at(1100));
        let two = footers.begin(name, at(0), at(50));
        one.reach(at(300));
        assert_eq!(told(), (0, 2, 850));
        // Where a place is passed over twice, or the limit is.
        one.reach(at(200));
        drop(two);
        assert_eq!(told(), (0, 1, 800));
        one.reach(at(5000));
        one.finish();
        assert_eq!(told(), (1, 0, 0));
    }
}
