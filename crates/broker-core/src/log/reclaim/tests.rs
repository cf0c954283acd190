//! Stores are filled and closed, their logs opened without a store, and space given back; what is still wanted has to be there
//! afterwards, byte for byte.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test may panic"
)]

mod broken;
mod crashes;
mod finding;
mod looks;

use std::collections::BTreeMap;

use broker_proto::record::{encode_message_head, next_record};
use broker_proto::{Epoch, Micros, ProducerId, RoomName, SenderName, StoreId, publish};
use bytes::BytesMut;

use super::*;
use crate::clock::ManualClock;
use crate::log::reader::{Wanted, read_disk};
use crate::log::recovery::{Recovered, recover};
use crate::log::storage::MemoryStorage;
use crate::store::{
    Append, EmbeddedConfig, EmbeddedStore, Engine, Hint, Mailbox, ProducerKey, ReadReply, RoomSlot,
    SessionId, Store,
};
use broker_proto::{RoomId, Seq};

const LOG: StoreId = StoreId::new([1; 16]);
const SEGMENT_BYTES: u64 = 16 << 10;

/// A room, how many messages at once, and of how many bytes.
type Say = (&'static str, usize, usize);

/// Publishes to a store, each in a batch of its own. One more leader each time, so that numbers are new.
fn say(disk: &MemoryStorage, leader: u8, all: &[Say]) {
    let (store, mut engine) = open(disk, leader);
    let mailbox = Mailbox::new();
    let sender = SenderName::parse("ann").unwrap();
    let mut head = Vec::new();
    encode_message_head(&mut head, &sender, 0, &[]);
    let mut number = 1;
    for (room, count, bytes) in all {
        let mut entries = BytesMut::new();
        for n in 0..*count {
            let payload = vec![n as u8 ^ number as u8; *bytes];
            publish::encode_entry(&mut entries, &payload, &[], crc32c::crc32c(&payload));
        }
        let append = Append {
            session: SessionId(0),
            key: ProducerKey {
                sender: sender.clone(),
                producer: ProducerId::new([leader; 16]),
            },
            claimed: true,
            room: RoomName::parse(room).unwrap(),
            first_number: number,
            count: *count as u32,
            head: head.clone().into(),
            entries: entries.freeze(),
            expected_head: None,
            resend: false,
        };
        number += *count as u64;
        store.append(append, &mailbox).unwrap();
        engine.step();
        engine.keep_house();
    }
    engine.close();
}

type OnDisk = (Arc<EmbeddedStore<MemoryStorage>>, Engine<MemoryStorage>);

fn open(disk: &MemoryStorage, leader: u8) -> OnDisk {
    let mut config = EmbeddedConfig::new(LOG);
    let now = Micros::new(1_000_000_000 + i64::from(leader));
    config.clock = Arc::new(ManualClock::new(now));
    config.segment_bytes_min = SEGMENT_BYTES;
    config.segment_bytes_max = SEGMENT_BYTES;
    config.checkpoint_bytes_min = 24 << 10;
    EmbeddedStore::open_manual(Arc::new(disk.clone()), config, &mut |_, _| {}).unwrap()
}

/// Two rooms that take turns, and one that speaks seldom: some 240 KiB, covered but for the end.
fn filled() -> MemoryStorage {
    let disk = MemoryStorage::new();
    let mut all = Vec::new();
    for n in 0..150 {
        all.push(("lobby", 2, 500));
        if n % 3 == 0 {
            all.push(("hall", 1, 300));
        }
        if n % 50 == 10 {
            all.push(("cellar", 1, 100));
        }
    }
    say(&disk, 1, &all);
    disk
}

/// A log that was opened without a store.
struct Log<S: Storage> {
    segments: Segments<S>,
    found: Recovered,
}

fn log<S: Storage>(storage: &Arc<S>) -> Log<S> {
    let found = recover(&**storage, LOG, None, &mut |_, _| {}).unwrap();
    let segments = Segments::new(
        Arc::clone(storage),
        found.segments.clone(),
        found.last_index.clone(),
        true,
    );
    Log { segments, found }
}

fn log_of(disk: &MemoryStorage) -> Log<MemoryStorage> {
    log(&Arc::new(disk.clone()))
}

impl<S: Storage> Log<S> {
    fn slot(&self, room: &str) -> (RoomId, &RoomSlot) {
        self.found.state.rooms.find(room).unwrap()
    }

    fn wanted(&self, room: &str, from: Seq) -> Wanted {
        let (id, slot) = self.slot(room);
        Wanted {
            room: id,
            from,
            head: slot.head,
            last_at: LogPosition::new(slot.last_at),
            count_max: 7,
            bytes_max: 3000,
            hint: Hint::default(),
            durable: self.found.proven,
            at_once: false,
        }
    }

    /// The records of a room from a seq on; nothing may be missing.
    fn records(&self, room: &str, from: Seq) -> Vec<Vec<u8>> {
        let mut wanted = self.wanted(room, from);
        let mut records = Vec::new();
        while wanted.from <= wanted.head {
            let reply = ReadReply {
                room: wanted.room,
                epoch: Epoch::new(1),
                first: Seq::FIRST,
                head: wanted.head,
                next: wanted.from,
                skip: None,
                count: 0,
                records: Vec::new(),
                hint: Hint::default(),
            };
            let (reply, _) = read_disk(&self.segments, &wanted, reply).unwrap();
            assert_eq!(reply.skip, None, "{room} from {}", wanted.from);
            assert!(reply.next > wanted.from);
            for piece in &reply.records {
                let mut rest = &piece[..];
                while let Some((record, after)) = next_record(rest).unwrap() {
                    records.push(rest[..rest.len() - after.len()].to_vec());
                    assert!(record.verify_payload().is_ok());
                    rest = after;
                }
            }
            (wanted.from, wanted.hint) = (reply.next, reply.hint);
        }
        records
    }
}

/// What is kept of rooms by name; nothing of any other.
type Kept = BTreeMap<&'static str, u64>;

fn all_of<S: Storage>(log: &Log<S>, kept: &Kept) -> Vec<Vec<Vec<u8>>> {
    let each = kept.iter();
    each.map(|(room, from)| log.records(room, Seq::new(*from)))
        .collect()
}

fn live<'a, S: Storage>(log: &'a Log<S>, kept: &'a Kept) -> impl Fn(RoomId) -> Option<Seq> + 'a {
    let kept: HashMap<RoomId, Seq> = kept
        .iter()
        .map(|(room, from)| (log.slot(room).0, Seq::new(*from)))
        .collect();
    move |room| kept.get(&room).copied()
}

/// Steps until nothing is left to do; gives what was said last.
fn reclaim<S: Storage>(log: &Log<S>, kept: &Kept, reclaimer: &mut Reclaimer) -> io::Result<Left> {
    reclaimer.allow_looks(u32::MAX);
    reclaim_within_looks(log, kept, reclaimer)
}

/// The same with as many looks as are allowed.
fn reclaim_within_looks<S: Storage>(
    log: &Log<S>,
    kept: &Kept,
    reclaimer: &mut Reclaimer,
) -> io::Result<Left> {
    let live = live(log, kept);
    let mut marker = 0x1234_5678;
    for _ in 0..1000 {
        let left = reclaimer.step(
            &log.segments,
            log.found.covered,
            &live,
            &mut || {
                marker += 1;
                marker
            },
            &mut || Some(1000),
        )?;
        if left != Left::MoreToDo {
            return Ok(left);
        }
    }
    panic!("it goes on for ever");
}

fn segment_files(disk: &MemoryStorage) -> Vec<String> {
    let mut files = disk.list().unwrap();
    files.retain(|file| SegmentName::parse_footer(file).is_none());
    files
}

fn bytes_of(disk: &MemoryStorage) -> u64 {
    let files = segment_files(disk).into_iter();
    files
        .map(|file| disk.open_read(&file).unwrap().len().unwrap())
        .sum()
}

/// Nothing that is looked at from outside is wrong, but footers that nobody has needed since.
fn assert_clean(disk: &MemoryStorage) {
    use crate::log::inspect::{FindingClass, Inspector, Seen};
    let mut inspector = Inspector::open(disk, Some(LOG)).unwrap();
    let mut found = inspector.findings().to_vec();
    for segment in 0..inspector.segments().len() {
        let _ = inspector.walk(segment, &mut |seen| {
            if let Seen::Finding(finding) = seen {
                found.push(finding);
            }
            std::ops::ControlFlow::Continue(())
        });
    }
    found.extend(inspector.broken_checkpoint());
    found.retain(|it| it.class != FindingClass::Footer);
    assert!(found.is_empty(), "{found:?}");
}

/// Gives back space with this much kept, and checks that what is kept is still there, now, after a restart and for a store.
fn check(disk: &MemoryStorage, kept: &Kept) -> (Reclaimed, Left) {
    let log = log_of(disk);
    assert!(log.found.covered > LogPosition::START);
    let before = all_of(&log, kept);
    let bytes = bytes_of(disk);
    let mut reclaimer = Reclaimer::new(SEGMENT_BYTES);
    let left = reclaim(&log, kept, &mut reclaimer).unwrap();
    assert_eq!(all_of(&log, kept), before);
    let done = reclaimer.done();
    assert_eq!(bytes - bytes_of(disk), done.bytes_freed);
    let again = log_of(disk);
    assert!(again.found.state.places.is_empty());
    assert_eq!(again.found.state.doubt, None);
    assert_eq!(all_of(&again, kept), before);
    assert_clean(disk);
    let files = segment_files(disk);
    let (store, mut engine) = open(disk, 99);
    assert_eq!(store.info().damaged, 0);
    engine.close();
    assert_eq!(segment_files(disk).len(), files.len());
    (done, left)
}

#[test]
fn a_dead_front_is_deleted_without_a_new_file() {
    let disk = filled();
    let log = log_of(&disk);
    let (hall, cellar) = (log.slot("hall").1.head, log.slot("cellar").1.head);
    let kept = Kept::from([
        ("lobby", 201),
        ("hall", hall.get() - 5),
        ("cellar", cellar.get()),
    ]);
    let first = segment_files(&disk)[0].clone();
    let (done, _) = check(&disk, &kept);
    assert!(done.deleted > 3 && !segment_files(&disk).contains(&first));
    assert!(done.packed <= 1, "only where the dead part ends: {done:?}");
}

#[test]
fn what_is_dead_for_the_most_part_is_packed_and_tells_the_same_room() {
    let disk = filled();
    let kept = Kept::from([("hall", 1), ("cellar", 1)]);
    let before = segment_files(&disk).len();
    let (done, left) = check(&disk, &kept);
    assert_eq!(done.deleted, 0);
    assert!(done.packed > 5 && segment_files(&disk).len() < before / 2);
    assert!(done.bytes_written * 3 < done.bytes_freed, "{done:?}");
    assert!(matches!(left, Left::Waits { bytes } if bytes > 0));
    // A packed segment can be read on its own: it names its rooms.
    let log = log_of(&disk);
    let name = log.found.segments[0].0.name;
    assert!(name.generation > 0);
    disk.delete(&name.footer()).unwrap();
    assert_eq!(log.records("hall", Seq::FIRST).len(), 50);
    let index = log.segments.look(&log.segments.spans()[0].0).unwrap();
    let (_, room) = index.rooms().next().unwrap();
    assert!(room.knows_times() && room.previous == LogPosition::NONE);
}

#[test]
fn a_dead_middle_is_replaced_by_a_file_without_batches() {
    let disk = MemoryStorage::new();
    let mut all = vec![("cellar", 9, 1200)];
    all.extend([("lobby", 2, 900); 60]);
    all.extend([("hall", 2, 900); 40]);
    say(&disk, 1, &all);
    let (done, _) = check(&disk, &Kept::from([("cellar", 1), ("hall", 1)]));
    assert!(done.deleted == 0 && done.packed > 4, "{done:?}");
    let log = log_of(&disk);
    let empty = log.found.segments.iter();
    let empty = empty
        .filter(|(header, end)| header.packed_end() == Some(header.base) && header.base == *end);
    assert_eq!(empty.count(), 1);
    // As soon as it is at the front it goes.
    let (done, _) = check(&disk, &Kept::from([("hall", 1)]));
    assert!(done.deleted >= 2, "{done:?}");
}

#[test]
fn small_neighbours_become_one_and_large_ones_stay() {
    let disk = filled();
    let kept = Kept::from([("hall", 1), ("lobby", 1), ("cellar", 1)]);
    let log = log_of(&disk);
    let before = all_of(&log, &kept);
    let mut reclaimer = Reclaimer::new(8 * SEGMENT_BYTES);
    reclaim(&log, &kept, &mut reclaimer).unwrap();
    let done = reclaimer.done();
    assert!(done.merged >= 8 && done.packed + done.deleted == 0);
    let written = done.bytes_written;
    assert_eq!(all_of(&log, &kept), before);
    // Nothing is written again for nothing.
    reclaimer.note_trimmed();
    reclaim(&log, &kept, &mut reclaimer).unwrap();
    assert_eq!(reclaimer.done().bytes_written, written);
    let again = log_of(&disk);
    assert_eq!(all_of(&again, &kept), before);
    assert!(again.found.segments.iter().any(|(header, _)| {
        header.name.generation == 1 && header.covers_last.0 >= header.name.id.0 + 3
    }));
    assert_clean(&disk);
    // What was merged is packed again when it dies.
    let (done, _) = check(&disk, &Kept::from([("hall", 20), ("cellar", 1)]));
    assert!(done.packed > 0);
    let generations = log_of(&disk);
    let mut generations = generations.found.segments.iter();
    assert!(generations.any(|(header, _)| header.name.generation == 2));
}

#[test]
fn what_is_not_covered_waits() {
    let disk = filled();
    let mut log = log_of(&disk);
    let kept = Kept::from([("cellar", 1)]);
    log.found.covered = LogPosition::START;
    let mut reclaimer = Reclaimer::new(SEGMENT_BYTES);
    let files = segment_files(&disk);
    let left = reclaim(&log, &kept, &mut reclaimer).unwrap();
    assert!(
        matches!(left, Left::Waits { bytes } if bytes > 100_000),
        "{left:?}"
    );
    assert_eq!(segment_files(&disk), files);
    // Nothing has changed, and nobody looks again.
    let step = |reclaimer: &mut Reclaimer, covered, live: Live<'_>| {
        let pace = &mut || Some(1 << 20);
        reclaimer.step(&log.segments, covered, live, &mut || 7, pace)
    };
    let unasked = |_| panic!("looked again");
    for _ in 0..3 {
        assert_eq!(
            step(&mut reclaimer, LogPosition::START, &unasked).unwrap(),
            left
        );
    }
    // Only the part that is covered goes, and that without a second look but for what is kept.
    let middle = log.segments.spans()[6].1;
    let live = live(&log, &kept);
    while step(&mut reclaimer, middle, &live).unwrap() == Left::MoreToDo {}
    assert!(segment_files(&disk).contains(&files[7]));
    assert!(!segment_files(&disk).contains(&files[5]));
}

#[test]
fn one_step_looks_at_one_segment() {
    let disk = filled();
    let log = log_of(&disk);
    let kept = Kept::from([("hall", 1), ("lobby", 1), ("cellar", 1)]);
    let mut reclaimer = Reclaimer::new(SEGMENT_BYTES);
    let live = live(&log, &kept);
    let sealed = log.segments.spans().len();
    for step in 1..=sealed {
        let pace = &mut || Some(1 << 20);
        let left = reclaimer.step(&log.segments, log.found.covered, &live, &mut || 7, pace);
        assert_eq!(left.unwrap(), Left::MoreToDo);
        assert_eq!(reclaimer.looks.len(), step);
    }
}

#[test]
fn without_time_the_file_is_given_up_and_made_later() {
    let disk = filled();
    let log = log_of(&disk);
    let kept = Kept::from([("hall", 1), ("cellar", 1)]);
    let live = live(&log, &kept);
    let mut reclaimer = Reclaimer::new(SEGMENT_BYTES);
    let files = segment_files(&disk);
    for _ in 0..40 {
        let mut pieces = 3;
        let pace = &mut || {
            pieces -= 1;
            (pieces > 0).then_some(1000)
        };
        let left = reclaimer.step(&log.segments, log.found.covered, &live, &mut || 7, pace);
        assert_eq!(left.unwrap(), Left::MoreToDo);
    }
    assert_eq!(segment_files(&disk), files);
    check(&disk, &kept);
}

#[test]
fn a_log_that_an_older_program_may_open_is_left_alone() {
    let disk = filled();
    let mut log = log_of(&disk);
    let last = log.found.segments.last_mut().unwrap();
    last.0.feature_level = 1;
    let segments = Segments::new(
        Arc::new(disk.clone()),
        log.found.segments.clone(),
        log.found.last_index.clone(),
        true,
    );
    let mut reclaimer = Reclaimer::new(SEGMENT_BYTES);
    let pace = &mut || Some(1 << 20);
    let left = reclaimer.step(&segments, log.found.covered, &|_| None, &mut || 7, pace);
    assert_eq!(left.unwrap(), Left::Idle);
}

#[test]
fn readers_begin_again_where_a_segment_was_replaced() {
    let disk = filled();
    let log = log_of(&disk);
    let kept = Kept::from([("hall", 1), ("cellar", 1)]);
    let before = all_of(&log, &kept);
    let old = log.segments.spans();
    let is_over = crate::sync::AtomicU64::new(0);
    std::thread::scope(|threads| {
        let reader = || {
            let mut rounds = 0;
            while is_over.load(crate::sync::Ordering::Acquire) == 0 || rounds < 2 {
                assert_eq!(all_of(&log, &kept), before);
                rounds += 1;
            }
        };
        threads.spawn(reader);
        threads.spawn(reader);
        let mut reclaimer = Reclaimer::new(SEGMENT_BYTES);
        reclaim(&log, &kept, &mut reclaimer).unwrap();
        is_over.store(1, crate::sync::Ordering::Release);
    });
    for (segment, _) in &old[..4] {
        assert!(!log.segments.lists(segment.header.name));
        let gone = log.segments.after(segment).unwrap_err();
        assert_eq!(gone.kind(), io::ErrorKind::NotFound);
        assert!(log.segments.files().find(segment.header.name).is_none());
    }
}
