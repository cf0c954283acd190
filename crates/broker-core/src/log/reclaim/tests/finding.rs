//! How much of a room is kept, and which rooms a segment holds.

use super::*;
use crate::log::find::find_bytes;

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
