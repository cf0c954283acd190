//! Where the records lie of the batches that readers are in the middle of.
//!
//! A batch holds up to four megabytes and a read takes 64 KiB of it: without this, every read would read and check the
//! batch's head and table again.
//!
//! **Invariant:** only layouts of batches whose head and table were found right come in, and what they take together is
//! bounded by [`BYTES_KEPT`], beyond the newest one.

use broker_proto::RoomId;

use super::batch::BatchRun;
use super::position::LogPosition;
use super::scan::BatchView;
use super::segment::SegmentName;
use crate::sync::{Arc, Mutex, lock};

/// Memory of all layouts together, in bytes.
const BYTES_KEPT: usize = 512 << 10;

/// One room's records in one batch.
#[derive(Debug)]
pub(crate) struct RunLayout {
    /// The place of the batch.
    pub(crate) at: LogPosition,
    /// The place behind it.
    pub(crate) end: LogPosition,
    pub(crate) run: BatchRun,
    /// Where each record ends, counted from the first one's start.
    ends: Box<[u32]>,
    /// Whether it may be kept.
    is_sound: bool,
}

impl RunLayout {
    pub(crate) fn new(view: &BatchView, run: BatchRun) -> Self {
        let mut end = 0_u32;
        let ends = view.lengths(&run).into_iter().map(|length| {
            end = end.saturating_add(length);
            end
        });
        Self {
            at: view.head.position,
            end: view.head.position.plus(u64::from(view.head.length)),
            run,
            ends: ends.collect(),
            is_sound: !view.damaged,
        }
    }

    /// Where the record with this index begins, counted from the first one's start; the end of all behind the last.
    pub(crate) fn start_of(&self, index: usize) -> usize {
        let before = index.checked_sub(1);
        let last = self.ends.last().copied().unwrap_or_default();
        before.map_or(0, |before| {
            self.ends.get(before).copied().unwrap_or(last) as usize
        })
    }

    /// How many records from the one with index `skip` on are no more than `count_max`, and take no more than `bytes_max`:
    /// at least one, if there is one.
    pub(crate) fn fitting(&self, skip: usize, count_max: usize, bytes_max: usize) -> usize {
        let left = self.ends.get(skip..).unwrap_or_default();
        let most = left.get(..count_max.min(left.len())).unwrap_or_default();
        let limit = self.start_of(skip).saturating_add(bytes_max);
        let count = most.partition_point(|end| *end as usize <= limit);
        count.max(most.len().min(1))
    }

    /// How many records there are.
    pub(crate) fn count(&self) -> usize {
        self.ends.len()
    }

    fn bytes(&self) -> usize {
        size_of::<Self>() + size_of_val(&*self.ends)
    }
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(crate) struct Layouts {
    /// The one that was used last at the end.
    kept: Mutex<Vec<(SegmentName, Arc<RunLayout>)>>,
}

impl Layouts {
    /// The layout of a room's records in the batch at a place, if it is kept.
    pub(crate) fn find(
        &self,
        name: SegmentName,
        at: LogPosition,
        room: RoomId,
    ) -> Option<Arc<RunLayout>> {
        let mut kept = lock(&self.kept);
        let place = kept.iter().rposition(|(other, layout)| {
            *other == name && layout.at == at && layout.run.room == room
        })?;
        kept.get_mut(place..)?.rotate_left(1);
        kept.last().map(|(_, layout)| Arc::clone(layout))
    }

    /// Keeps a layout for the next read.
    pub(crate) fn keep(&self, name: SegmentName, layout: Arc<RunLayout>) {
        if !layout.is_sound {
            return;
        }
        let mut kept = lock(&self.kept);
        kept.retain(|(other, old)| {
            (*other, old.at, old.run.room) != (name, layout.at, layout.run.room)
        });
        kept.push((name, layout));
        let (mut bytes, mut from) = (0, 0);
        for (place, (_, layout)) in kept.iter().enumerate().rev() {
            bytes += layout.bytes();
            if bytes > BYTES_KEPT && place + 1 < kept.len() {
                from = place + 1;
                break;
            }
        }
        kept.drain(..from);
    }
}

#[cfg(test)]
mod tests {
    use broker_proto::Seq;

    use super::super::segment::SegmentId;
    use super::*;

    const NAME: SegmentName = SegmentName {
        id: SegmentId(1),
        generation: 0,
    };

    fn layout(at: u64, lengths: &[u32], is_sound: bool) -> Arc<RunLayout> {
        let mut end = 0;
        let ends = lengths.iter().map(|length| {
            end += length;
            end
        });
        Arc::new(RunLayout {
            at: LogPosition::new(at),
            end: LogPosition::new(at + 8),
            run: BatchRun {
                room: RoomId::new(1),
                offset: 0,
                bytes: lengths.iter().sum(),
                count: u32::try_from(lengths.len()).unwrap_or(u32::MAX),
                first_seq: Seq::new(1),
            },
            ends: ends.collect(),
            is_sound,
        })
    }

    #[test]
    fn what_fits_is_cut_at_records_and_at_the_limits() {
        let layout = layout(8, &[30, 40, 50], true);
        let cases = [
            ((0, 9, 999), 3),
            ((0, 2, 999), 2),
            ((0, 9, 70), 2),
            ((0, 9, 69), 1),
            ((1, 9, 3), 1),
            ((1, 0, 999), 0),
            ((2, 9, 50), 1),
            ((3, 9, 999), 0),
        ];
        for ((skip, count, bytes), expected) in cases {
            assert_eq!(
                layout.fitting(skip, count, bytes),
                expected,
                "{skip} {count} {bytes}"
            );
        }
        let starts: Vec<_> = (0..5).map(|index| layout.start_of(index)).collect();
        assert_eq!(starts, [0, 30, 70, 120, 120]);
    }

    #[test]
    fn sound_layouts_are_kept_up_to_the_limit_and_the_newest_one_beyond_it() {
        let (layouts, room) = (Layouts::default(), RoomId::new(1));
        let has = |at| layouts.find(NAME, LogPosition::new(at), room).is_some();
        layouts.keep(NAME, layout(8, &[30], false));
        assert!(
            !has(8),
            "a batch that was put together is looked at each time"
        );
        let many = vec![1; BYTES_KEPT / 4 / 3];
        for at in [8, 16, 24, 32] {
            layouts.keep(NAME, layout(at, &many, true));
            assert!(has(8) || at > 24, "the first one is used all the time");
        }
        assert!(has(32) && !has(16));
        assert!(
            layouts
                .find(NAME, LogPosition::new(32), RoomId::new(2))
                .is_none()
        );
        layouts.keep(NAME, layout(40, &vec![1; BYTES_KEPT], true));
        assert!(has(40) && !has(32) && !has(8));
        assert_eq!(lock(&layouts.kept).len(), 1);
    }
}
