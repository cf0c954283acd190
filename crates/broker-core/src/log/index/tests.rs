#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]
use super::*;
use crate::log::segment::SegmentId;

fn index() -> (SegmentIndex, SegmentName) {
    let mut index = SegmentIndex::default();
    for n in 0..100_u64 {
        let run = BatchRun {
            room: RoomId::new(1 + u32::try_from(n % 3).unwrap()),
            offset: 72,
            bytes: 400,
            count: 4,
            first_seq: Seq::new(n / 3 * 4 + 1),
        };
        let time = i64::try_from(n).unwrap();
        index.add(
            &run,
            LogPosition::new(n * 9000),
            Micros::new(time),
            LogPosition::NONE,
            Micros::new(0),
        );
    }
    (
        index,
        SegmentName {
            id: SegmentId(4),
            generation: 0,
        },
    )
}

#[test]
fn entries_are_spaced_and_lead_to_their_seqs() {
    let (index, _) = index();
    let room = index.room(RoomId::new(1)).unwrap();
    assert!((1..room.entries.len()).all(|at| {
        let [before, entry] = [at - 1, at].map(|at| room.entries.get(at).unwrap());
        entry.at.since(before.at) >= ENTRY_SPACING
    }));
    let (entry, next) = room.entry_for(Seq::new(50)).unwrap();
    assert!(entry.seq <= Seq::new(50) && next.unwrap() > entry.at);
    let (entry, _) = room.entry_for_time(Micros::new(50)).unwrap();
    assert!(entry.time_before < Micros::new(50));
    assert_eq!(room.first_seq(), Seq::FIRST);
    let (entry, next) = room.entry_for(Seq::new(50)).unwrap();
    assert!(entry.bytes_before <= 49 * 100 && next.is_some());
    assert_eq!(
        room.bytes_from(Seq::new(50)),
        room.bytes - entry.bytes_before
    );
    assert_eq!(room.bytes_from(Seq::FIRST), room.bytes);
    assert_eq!(room.bytes, 34 * 400);
    assert_eq!(room.bytes_from(Seq::new(137)), 0);
}

#[test]
fn a_footer_is_believed_only_when_every_bit_is_right() {
    let (index, name) = index();
    let mut index = index;
    index.is_partial = true;
    let marker = Marker(0x1122_3344_5566_7788);
    let bytes = index.encode(name, marker, LogPosition::new(900_000));
    assert_eq!(
        SegmentIndex::decode(bytes.clone(), name, marker),
        Some((index, LogPosition::new(900_000)))
    );
    for bit in 0..bytes.len() * 8 {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(
            SegmentIndex::decode(damaged, name, marker),
            None,
            "bit {bit}"
        );
    }
    assert_eq!(
        SegmentIndex::decode(
            bytes.clone(),
            SegmentName {
                id: SegmentId(5),
                generation: 0
            },
            marker
        ),
        None
    );
    assert_eq!(SegmentIndex::decode(bytes.clone(), name, Marker(7)), None);
}
