//! How much of a room is kept, and which rooms a segment holds.

use super::*;
use crate::log::find::{find_bytes, rooms_of};

/// Finds the place as it is said, by looking at all records.
fn expected(records: &[Vec<u8>], bytes: u64) -> Seq {
    let mut left = bytes;
    let mut seq = records.len() as u64 + 1;
    for record in records.iter().rev() {
        let Some(rest) = left.checked_sub(record.len() as u64) else {
            break;
        };
        left = rest;
        seq -= 1;
    }
    Seq::new(seq)
}

#[test]
fn the_oldest_seq_behind_which_there_are_so_many_bytes() {
    let disk = MemoryStorage::new();
    let mut all = Vec::new();
    for n in 0..300 {
        all.push(("lobby", 1 + n % 3, 20 + n * 7 % 500));
        all.push(("hall", 1, 200));
    }
    say(&disk, 1, &all);
    let log = log_of(&disk);
    for room in ["lobby", "hall"] {
        let records = log.records(room, Seq::FIRST);
        let total: u64 = records.iter().map(|record| record.len() as u64).sum();
        let wanted = log.wanted(room, Seq::FIRST);
        let newest = records.last().unwrap().len() as u64;
        let mut asked: Vec<u64> = (0..total + 500).step_by(997).collect();
        asked.extend([0, newest - 1, newest, total - 1, total, u64::MAX]);
        for bytes in asked {
            let found = find_bytes(&log.segments, &wanted, bytes).unwrap();
            assert_eq!(found, expected(&records, bytes), "{room} {bytes}");
        }
        let wanted = log.wanted(room, Seq::new(200));
        let found = find_bytes(&log.segments, &wanted, total).unwrap();
        assert_eq!(found, Seq::new(200), "what is not kept does not come back");
    }
}

#[test]
fn the_rooms_of_a_segment_with_their_last_seqs_and_bytes() {
    let disk = filled();
    let log = log_of(&disk);
    let mut last: BTreeMap<RoomId, Seq> = BTreeMap::new();
    let mut bytes = 0;
    for (segment, _) in log.segments.spans() {
        for (room, seq, here) in rooms_of(&log.segments, &segment).unwrap() {
            assert!(last.insert(room, seq).is_none_or(|before| before < seq));
            bytes += here;
        }
    }
    let (lobby, slot) = log.slot("lobby");
    let records = ["lobby", "hall", "cellar"].map(|room| log.records(room, Seq::FIRST));
    let total: usize = records.iter().flatten().map(Vec::len).sum();
    let active = log.segments.newest().unwrap().base;
    assert!(last[&lobby] <= slot.head && bytes <= total as u64);
    assert!(active > LogPosition::START && bytes * 10 > total as u64 * 8);
}
