//! Stores whose leader was killed: how far a start looks, and what it leaves for later.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

use super::*;
use crate::log::batch::MARK_BYTES;
use crate::log::filled::{LOG, Leader, TIME, config};
use crate::log::segment::{DATA_OFFSET, SegmentName};
use crate::log::storage::MemoryStorage;
use crate::store::{EmbeddedStore, Store};
use crate::sync::{Arc, AtomicU64, Ordering};

const MEBI: usize = 1 << 20;

fn lead(disk: &MemoryStorage, first_number: u64) -> Leader {
    Leader::open(disk, config(64 << 20), first_number)
}

fn segment(id: u64) -> String {
    let name = SegmentName {
        id: SegmentId(id),
        generation: 0,
    };
    name.file()
}

fn read(disk: &MemoryStorage, offset: u64, len: usize, id: u64) -> Vec<u8> {
    let mut bytes = vec![0; len];
    let file = disk.open_read(&segment(id)).unwrap();
    assert_eq!(file.read_at(offset, &mut bytes).unwrap(), len);
    bytes
}

/// The heads of a segment, one after the other, a mark at its end included.
fn heads(disk: &MemoryStorage, id: u64) -> Vec<BatchHead> {
    let header = SegmentHeader::parse(&read(disk, 0, 4096, id)).unwrap();
    let mut window = Window::new(disk.open_read(&segment(id)).unwrap(), header.clone(), 4096);
    let (mut at, mut heads) = (header.base, Vec::new());
    while let Some(head) = head_at(&mut window, at).unwrap() {
        at = head.end();
        heads.push(head);
        if head.kind.is_mark() {
            break;
        }
    }
    heads
}

fn proven(disk: &MemoryStorage, last_leader: Option<(u64, i64)>) -> LogPosition {
    let last_leader = last_leader.map(|(term, since)| LastLeader { term, since });
    let found = recover(disk, LOG, last_leader, &mut |_, _| {}).unwrap();
    found.proven
}

/// Zeros in the place of batches, as if the disk had dropped the writes.
fn drop_batches(disk: &MemoryStorage, heads: &[BatchHead]) {
    let file = disk.open(&segment(1)).unwrap();
    for head in heads {
        let zeros = vec![0; head.length as usize];
        file.write_at(DATA_OFFSET + head.position.get(), &zeros)
            .unwrap();
    }
}

#[test]
fn dropped_batches_are_told_by_the_next_one() {
    let disk = MemoryStorage::new();
    let mut leader = lead(&disk, 1);
    for bytes in [500, 7 * MEBI, 7 * MEBI, 500, 500] {
        leader.say("lobby", bytes);
    }
    let heads = heads(&disk, 1);
    assert_eq!(heads.len(), 5);
    drop_batches(&disk, &heads[1..3]);
    // Whoever led before: nothing that a leader says of itself makes the search shorter than what a disk may have dropped.
    for last_leader in [None, Some((1, TIME)), Some((2, TIME))] {
        assert_eq!(proven(&disk, last_leader), heads[4].position);
    }
}

#[test]
fn a_copied_tail_is_written_once_with_room_behind_it() {
    let disk = MemoryStorage::new();
    let mut leader = lead(&disk, 1);
    leader.say("lobby", 500);
    leader.say("lobby", 500);
    drop(leader);
    let smallest = 1 << 20;
    let shared = Arc::new(disk.clone());
    let opened = EmbeddedStore::open_manual(shared, config(smallest), &mut |_, _| {});
    let found: Vec<u64> = heads(&disk, 2).iter().map(|head| head.term).collect();
    assert_eq!(found, [1, 2]);
    drop(opened);
    // It was written once, with zeros behind it and room for what comes next.
    let file = disk.open_read(&segment(2)).unwrap();
    let len = usize::try_from(file.len().unwrap()).unwrap();
    assert_eq!(len as u64, smallest);
    let end: usize = heads(&disk, 2)
        .iter()
        .map(|head| head.length as usize)
        .sum();
    let rest = read(&disk, DATA_OFFSET + end as u64, len - 4096 - end, 2);
    assert!(end > MARK_BYTES && rest.iter().all(|byte| *byte == 0));
}

#[test]
fn spares_of_leaders_before_are_deleted_last_and_their_names_not_used() {
    let disk = MemoryStorage::new();
    let mut leader = lead(&disk, 1);
    leader.say("lobby", 500);
    leader.say("lobby", 500);
    drop(leader);
    let names = ["spare-00000001.tmp", "spare-0000000a.tmp"];
    for name in names {
        disk.create(name).unwrap().write_at(0, &[0; 4096]).unwrap();
    }
    let far = "spare-ffffffffffffffff.tmp";
    disk.create(far).unwrap();
    let found = recover(&disk, LOG, None, &mut |_, _| {}).unwrap();
    assert_eq!((found.spares_made(), found.spares.len()), (10, 2));
    let is_there = |name: &str| disk.open_read(name).is_ok();
    assert!(names.iter().all(|name| is_there(name)) && !is_there(far));

    let store = EmbeddedStore::open(Arc::new(disk.clone()), config(1 << 20), &mut |_, _| {});
    assert!(disk.open_read(&segment(2)).is_ok(), "the tail is copied");
    store.unwrap().close();
    assert!(!names.iter().any(|name| is_there(name)));

    // Whoever drives a store by hand finds none either.
    disk.create(names[0]).unwrap();
    drop(lead(&disk, 3));
    assert!(!is_there(names[0]));
}

/// A file that tells how much was read of it.
#[derive(Debug)]
struct Counted<F>(F, Arc<AtomicU64>);

impl<F: StorageFile> StorageFile for Counted<F> {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let read = self.0.read_at(offset, buf)?;
        self.1.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }

    fn write_at(&self, _: u64, _: &[u8]) -> io::Result<()> {
        unreachable!("nothing is written")
    }

    fn sync(&self) -> io::Result<()> {
        unreachable!("nothing is written")
    }

    fn sync_all(&self) -> io::Result<()> {
        unreachable!("nothing is written")
    }

    fn zero_fill(&self, _: u64, _: u64) -> io::Result<()> {
        unreachable!("nothing is written")
    }

    fn truncate(&self, _: u64) -> io::Result<()> {
        unreachable!("nothing is written")
    }

    fn block_bytes(&self) -> u32 {
        self.0.block_bytes()
    }

    fn is_direct(&self) -> bool {
        self.0.is_direct()
    }
}

#[test]
fn batches_that_are_read_whole_are_read_once() {
    let disk = MemoryStorage::new();
    let mut leader = lead(&disk, 1);
    for _ in 0..60 {
        leader.say("lobby", 100_000);
    }
    let header = SegmentHeader::parse(&read(&disk, 0, 4096, 1)).unwrap();
    let end = leader.store.info().log_bytes;
    let end = header.base.plus(end);
    let bytes = end.since(header.base);
    let read_by = |walk: &dyn Fn(Window<_>)| {
        let counts = Arc::new(AtomicU64::new(0));
        let file = Counted(disk.open_read(&segment(1)).unwrap(), Arc::clone(&counts));
        walk(Window::new(file, header.clone(), READ_AHEAD));
        counts.load(Ordering::Relaxed)
    };
    let at_start = read_by(&|window| {
        let mut scanner = Scanner::new(window.careful(), header.base, end).skimming();
        let mut state = Replay::default();
        let everything = Pass::Everything;
        replay(&mut scanner, &mut state, everything, None, &mut |_| {}).unwrap();
        let heads = state.rooms.iter().map(|(_, slot)| slot.head.get());
        assert_eq!(heads.max(), Some(60));
    });
    let by_check = read_by(&|window| {
        let mut scanner = Scanner::new(window, header.base, end).whole();
        let mut batches = 0;
        while let Step::Batch(view) = scanner.step().unwrap() {
            let (at, length) = (view.head.position, view.head.length as usize);
            assert_eq!(scanner.window.up_to(at, length).unwrap().len(), length);
            batches += 1;
        }
        assert_eq!(batches, 60);
    });
    // Those that lie across the end of a piece are read again with the next one.
    for read in [at_start, by_check] {
        assert!(
            read < bytes + bytes / 4,
            "{read} bytes were read of {bytes}"
        );
    }
}
