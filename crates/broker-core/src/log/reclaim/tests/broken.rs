//! Damage: in what is packed, in what was packed, and in the checkpoints that cover it.

use super::*;
use crate::log::error::RecoveryError;
use crate::log::segment::SegmentId;

fn flip(disk: &MemoryStorage, file: &str, at: u64) {
    let opened = disk.open(file).unwrap();
    let mut byte = [0];
    assert_eq!(opened.read_at(at, &mut byte).unwrap(), 1);
    byte[0] ^= 1;
    opened.write_at(at, &byte).unwrap();
}

/// Where in a segment the payload of a message of a room lies.
fn place_of(
    log: &Log<MemoryStorage>,
    disk: &MemoryStorage,
    at: usize,
    room: &str,
) -> (String, u64) {
    let spans = log.segments.spans();
    let firsts = spans[at..].iter().filter_map(|(segment, _)| {
        let index = log.segments.look(segment).unwrap();
        Some((segment, index.room(log.slot(room).0)?.first_seq()))
    });
    let (segment, first) = firsts.into_iter().next().unwrap();
    let record = &log.records(room, first)[0];
    let file = segment.header.name.file();
    let opened = disk.open_read(&file).unwrap();
    let mut bytes = vec![0; opened.len().unwrap() as usize];
    opened.read_at(0, &mut bytes).unwrap();
    let found = bytes.windows(record.len()).position(|it| it == record);
    (file, (found.unwrap() + record.len() - 1) as u64)
}

#[test]
fn what_is_damaged_and_may_be_alive_keeps_its_segment_until_it_is_dead() {
    let disk = filled();
    let log = log_of(&disk);
    let (file, at) = place_of(&log, &disk, 3, "hall");
    flip(&disk, &file, at);
    let mut reclaimer = Reclaimer::new(SEGMENT_BYTES);
    let kept = Kept::from([("hall", 1), ("cellar", 1)]);
    reclaim(&log, &kept, &mut reclaimer).unwrap();
    assert_eq!(reclaimer.done().spoiled, 1);
    assert!(reclaimer.done().packed > 4 && segment_files(&disk).contains(&file));
    reclaimer.note_trimmed();
    reclaim(&log, &kept, &mut reclaimer).unwrap();
    assert!(segment_files(&disk).contains(&file));
    let mut reclaimer = Reclaimer::new(SEGMENT_BYTES);
    let kept = Kept::from([("cellar", 2)]);
    let before = all_of(&log, &kept);
    reclaim(&log, &kept, &mut reclaimer).unwrap();
    assert_eq!(reclaimer.done().spoiled, 0);
    assert!(!segment_files(&disk).contains(&file));
    assert_eq!(all_of(&log, &kept), before);
}

#[test]
fn a_damaged_message_that_is_dead_is_left_out() {
    let disk = filled();
    let log = log_of(&disk);
    let (file, at) = place_of(&log, &disk, 3, "lobby");
    flip(&disk, &file, at);
    let (done, _) = check(&disk, &Kept::from([("hall", 1), ("cellar", 1)]));
    assert!(done.spoiled == 0 && !segment_files(&disk).contains(&file));
}

#[test]
fn a_batch_that_cannot_be_read_keeps_a_segment_whose_index_does_not_know_of_it() {
    let disk = filled();
    let log = log_of(&disk);
    // Head and trailer of the first batch, and the footer that would tell what it was.
    let (segment, _) = &log.segments.spans()[0];
    let name = segment.header.name;
    let file = disk.open(&name.file()).unwrap();
    let mut head = [0; 72];
    file.read_at(4096, &mut head).unwrap();
    let length = u32::from_le_bytes([head[12], head[13], head[14], head[15]]);
    flip(&disk, &name.file(), 4096 + 20);
    flip(&disk, &name.file(), 4096 + u64::from(length) - 1);
    disk.delete(&name.footer()).unwrap();
    let log = log_of(&disk);
    let mut reclaimer = Reclaimer::new(SEGMENT_BYTES);
    let kept = Kept::from([("cellar", 3)]);
    reclaim(&log, &kept, &mut reclaimer).unwrap();
    assert!(segment_files(&disk).contains(&name.file()));
    // The footer that was made again says so as well.
    let log = log_of(&disk);
    let (segment, _) = &log.segments.spans()[0];
    assert!(log.segments.look(segment).unwrap().is_partial());
    let mut reclaimer = Reclaimer::new(SEGMENT_BYTES);
    reclaim(&log, &kept, &mut reclaimer).unwrap();
    assert!(segment_files(&disk).contains(&name.file()));
}

#[test]
fn a_packed_file_without_a_header_is_read_all_the_same() {
    let disk = filled();
    let kept = Kept::from([("hall", 1), ("cellar", 1)]);
    check(&disk, &kept);
    let log = log_of(&disk);
    let before = all_of(&log, &kept);
    let header = &log.found.segments[0].0;
    for at in [70, 2048 + 70] {
        flip(&disk, &header.name.file(), at);
    }
    let again = log_of(&disk);
    let mended = &again.found.segments[0].0;
    assert_eq!(mended.data_end, header.data_end);
    assert_eq!(again.found.state.places.len(), 1);
    assert_eq!(all_of(&again, &kept), before);
}

#[test]
fn a_damaged_checkpoint_gives_way_to_the_one_before_it() {
    let disk = filled();
    let kept = Kept::from([("hall", 30), ("cellar", 2)]);
    check(&disk, &kept);
    let log = log_of(&disk);
    let before = all_of(&log, &kept);
    let (newest, older) = (log.found.checkpoint, log.found.covered);
    assert!(newest > older && older > LogPosition::START);
    // The chunk is the first state record of the batch at the beginning.
    let mut found = log.found.segments.iter().rev();
    let (header, _) = found.find(|(header, _)| header.base <= newest).unwrap();
    let mut at = header.offset_of(newest) + 72;
    let file = disk.open(&header.name.file()).unwrap();
    let mut record = [0; 36];
    loop {
        file.read_at(at, &mut record).unwrap();
        if record[4] == 8 {
            break;
        }
        at += 16
            + u64::from(u32::from_le_bytes([
                record[12], record[13], record[14], record[15],
            ]));
    }
    flip(&disk, &header.name.file(), at + 40);
    let again = log_of(&disk);
    assert_eq!(again.found.checkpoint, older);
    assert_eq!(again.found.covered, LogPosition::START);
    assert_eq!(
        again.found.state.doubt, None,
        "nothing is missing behind it"
    );
    assert_eq!(all_of(&again, &kept), before);
    let heads = |log: &Log<MemoryStorage>| {
        let rooms = log.found.state.rooms.iter();
        rooms.map(|(_, slot)| slot.head).collect::<Vec<_>>()
    };
    assert_eq!(heads(&again), heads(&log));
    assert_eq!(
        again.found.state.producers.iter().count(),
        log.found.state.producers.iter().count()
    );
}

#[test]
fn files_that_stand_for_parts_of_each_other_are_refused() {
    let disk = filled();
    check(&disk, &Kept::from([("hall", 1), ("cellar", 1)]));
    let log = log_of(&disk);
    let (first, _) = &log.found.segments[0];
    assert!(first.covers_last > first.name.id);
    let other = SegmentHeader {
        name: SegmentName {
            id: first.covers_last,
            generation: first.name.generation + 1,
        },
        covers_last: SegmentId(first.covers_last.0 + 1),
        ..first.clone()
    };
    let file = disk.create(&other.name.file()).unwrap();
    file.write_at(0, &other.encode()).unwrap();
    let files = disk.list().unwrap();
    let refused = recover(&disk, LOG, None, &mut |_, _| {}).unwrap_err();
    assert!(
        matches!(refused, RecoveryError::Ambiguous { .. }),
        "{refused}"
    );
    assert_eq!(disk.list().unwrap(), files);
    // One of another store is not taken for a better one either.
    disk.delete(&other.name.file()).unwrap();
    let foreign = SegmentHeader {
        store: StoreId::new([9; 16]),
        name: SegmentName {
            id: first.name.id,
            generation: 0,
        },
        ..first.clone()
    };
    let file = disk.create(&foreign.name.file()).unwrap();
    file.write_at(0, &foreign.encode()).unwrap();
    let refused = recover(&disk, LOG, None, &mut |_, _| {}).unwrap_err();
    assert!(
        matches!(refused, RecoveryError::Foreign { .. }),
        "{refused}"
    );
}
