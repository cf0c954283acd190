//! Damage in a log: what a look from outside says of it, what the scrub and the start find, and that
//! one place is told once.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use broker_core::clock::ManualClock;
use broker_core::log::damage::{DamagePart, FoundBy};
use broker_core::log::inspect::{Finding, FindingClass, Inspector, Seen};
use broker_core::log::storage::{MemoryStorage, Storage, StorageFile};
use broker_core::store::{EmbeddedConfig, EmbeddedStore, Engine, Store, StoreInfo};
use broker_proto::{Micros, StartAt, StoreId};

use crate::talk::{Talker, read_all};

const LOG: StoreId = StoreId::new([1; 16]);
const FIRST: &str = "0000000000000001-0000.seg";
const SECOND: &str = "0000000000000002-0000.seg";

type OnDisk = (Arc<EmbeddedStore<MemoryStorage>>, Engine<MemoryStorage>);

fn open(disk: &MemoryStorage) -> OnDisk {
    let mut config = EmbeddedConfig::new(LOG);
    config.clock = Arc::new(ManualClock::new(Micros::new(1_000_000_000)));
    config.segment_bytes_min = 16 << 10;
    config.segment_bytes_max = 16 << 10;
    config.checkpoint_bytes_min = 24 << 10;
    EmbeddedStore::open_manual(Arc::new(disk.clone()), config, &mut |_, _| {}).unwrap()
}

/// A store of several segments and two rooms, as its leader left it.
fn filled(close: bool) -> MemoryStorage {
    let disk = MemoryStorage::new();
    let (store, mut engine) = open(&disk);
    let mut ann = Talker::new("ann", 1);
    for n in 0..60_u8 {
        let room = if n % 2 == 0 { "lobby" } else { "hall" };
        ann.send(&*store, room, &[&[n; 700], &[n; 301]]);
        engine.step();
        engine.keep_house();
    }
    assert_eq!(ann.acks().len(), 60);
    if close {
        engine.close();
    }
    disk
}

/// Everything that a look from outside has to say.
fn findings(disk: &MemoryStorage) -> Vec<Finding> {
    let mut log = Inspector::open(disk, Some(LOG)).unwrap();
    let mut found = log.findings().to_vec();
    for segment in 0..log.segments().len() {
        let flow = log.walk(segment, &mut |seen| {
            if let Seen::Finding(finding) = seen {
                found.push(finding);
            }
            ControlFlow::Continue(())
        });
        assert!(flow.is_continue());
    }
    found.extend(log.broken_checkpoint());
    found
}

fn damage(disk: &MemoryStorage) -> Vec<Finding> {
    let mut found = findings(disk);
    found.retain(|finding| finding.class == FindingClass::Damaged);
    found
}

fn flip(disk: &MemoryStorage, name: &str, at: u64, bit: u8) {
    let file = disk.open(name).unwrap();
    let mut byte = [0];
    assert_eq!(file.read_at(at, &mut byte).unwrap(), 1);
    byte[0] ^= 1 << bit;
    file.write_at(at, &byte).unwrap();
}

fn contents(disk: &MemoryStorage) -> Vec<(String, Vec<u8>)> {
    let read = |name: String| {
        let file = disk.open_read(&name).unwrap();
        let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
        file.read_at(0, &mut bytes).unwrap();
        (name, bytes)
    };
    disk.list().unwrap().into_iter().map(read).collect()
}

/// Reads the payload of the message with this seq out of the files.
fn place_of(disk: &MemoryStorage, name: &str, payload: &[u8]) -> u64 {
    let files = contents(disk);
    let (_, bytes) = files.iter().find(|(file, _)| file == name).unwrap();
    let found = bytes.windows(payload.len()).position(|at| at == payload);
    found.unwrap() as u64
}

fn scrub(engine: &mut Engine<MemoryStorage>) {
    while engine.scrub() {}
}

fn listed(info: &StoreInfo) -> Vec<(DamagePart, FoundBy)> {
    let each = info.damage.iter();
    each.map(|it| (it.place.part, it.found_by)).collect()
}

#[test]
fn a_clean_log_is_walked_whole_and_not_changed() {
    for close in [true, false] {
        let disk = filled(close);
        let before = contents(&disk);
        assert_eq!(findings(&disk), []);
        let mut log = Inspector::open(&disk, None).unwrap();
        assert!(log.segments().len() > 3 && log.checkpoint().is_some());
        let (mut messages, mut bytes) = (0, 0);
        for segment in 0..log.segments().len() {
            let _ = log.walk(segment, &mut |seen| {
                match seen {
                    Seen::Batch(batch) if batch.records > 0 => bytes += u64::from(batch.length),
                    Seen::Record(record) if !record.room.is_none() => {
                        assert!(record.head_ok && record.payload_ok);
                        assert!(matches!(record.room_name, Some("lobby" | "hall")));
                        messages += 1;
                    }
                    _ => {}
                }
                ControlFlow::Continue(())
            });
        }
        assert_eq!(messages, 120);
        let (store, _engine) = open(&disk.clone());
        assert!(close || bytes > log.durable().get(), "there is a tail");
        assert_eq!(bytes, store.info().log_bytes);
        // Opening may add to the files; looking does not.
        drop(before);
        let before = contents(&disk);
        assert_eq!(findings(&disk), []);
        assert_eq!(contents(&disk), before);
    }
}

/// Every byte of a sealed segment counts, and is found where it is.
#[test]
fn no_flipped_byte_of_a_sealed_segment_goes_unnoticed() {
    let disk = filled(true);
    let end = {
        let log = Inspector::open(&disk, Some(LOG)).unwrap();
        let second = &log.segments()[1];
        4096 + second.end.since(second.header.as_ref().unwrap().base)
    };
    assert!(end > 12 << 10);
    for at in (0..end).filter(|at| at % 3 == 0 || *at < 300 || at % 1011 < 100) {
        let bit = u8::try_from(at % 8).unwrap();
        flip(&disk, SECOND, at, bit);
        let found = damage(&disk);
        assert!(!found.is_empty(), "byte {at} of {SECOND}");
        for finding in &found {
            let place = &finding.place;
            assert_eq!(place.file, SECOND, "byte {at}: {finding:?}");
            let bytes = match place.part {
                DamagePart::HeaderCopy => 256,
                DamagePart::Padding if place.offset < 4096 => 1,
                _ => place.upto.since(place.from),
            };
            let range = place.offset..place.offset + bytes;
            assert!(range.contains(&at), "byte {at}: {finding:?}");
        }
        flip(&disk, SECOND, at, bit);
    }
    assert_eq!(findings(&disk), []);
}

#[test]
fn what_lies_behind_the_proven_part_is_never_damage() {
    let disk = filled(false);
    let log = Inspector::open(&disk, Some(LOG)).unwrap();
    let last = log.segments().last().unwrap();
    let name = last.name.file();
    let durable = 4096 + log.durable().since(last.header.as_ref().unwrap().base);
    let kept = contents(&disk);
    let (_, whole) = kept.iter().find(|(file, _)| *file == name).unwrap();
    let file = disk.open(&name).unwrap();
    let from = usize::try_from(durable).unwrap();
    let tail = &whole[from..];
    let written = tail.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    assert!(written > 900, "the last batch is not proven");
    // However much of the last write has arrived, and in which half of it.
    for cut in 0..written {
        let mut torn = tail.to_vec();
        if cut % 2 == 0 {
            torn[cut..].fill(0);
        } else {
            // Other bytes than before, whatever those were.
            torn[..cut].iter_mut().for_each(|byte| *byte = !*byte);
        }
        file.write_at(durable, &torn).unwrap();
        let found = findings(&disk);
        assert!(
            found
                .iter()
                .all(|finding| finding.class == FindingClass::Tail),
            "cut at {cut}: {found:?}"
        );
        assert!(
            cut == 0 || cut % 2 == 0 || !found.is_empty(),
            "cut at {cut}"
        );
    }
}

#[test]
fn damage_is_found_by_the_scrub_without_any_reader_and_told_once() {
    let disk = filled(true);
    let at = place_of(&disk, SECOND, &[12; 700]);
    flip(&disk, SECOND, at + 5, 3);
    let (store, mut engine) = open(&disk);
    let info = store.info();
    assert_eq!((info.damaged, info.scrub.passes), (0, 0));
    scrub(&mut engine);
    let info = store.info();
    assert_eq!(listed(&info), [(DamagePart::Record, FoundBy::Scrub)]);
    let place = &info.damage[0].place;
    assert_eq!(place.file, SECOND);
    assert!((place.offset..at).contains(&(at - 1)), "{place:?}");
    let span = place.room.as_ref().unwrap();
    assert_eq!(
        (span.name.as_deref(), span.first.get()),
        (Some("lobby"), 13)
    );
    assert_eq!((info.damaged, info.scrub.passes), (1, 1));
    assert!(info.scrub.pass_ended.is_some() && info.scrub.bytes > 40 << 10);
    // Again, and a reader too: it is known. Its neighbours are served.
    scrub(&mut engine);
    let whole = |first, last| (first..=last).collect::<Vec<u64>>();
    let before: Vec<u64> = seqs(&*store, StartAt::START);
    let mut expected = whole(1, 12);
    expected.extend(whole(14, 60));
    assert_eq!(before, expected);
    let info = store.info();
    assert_eq!(
        (info.damaged, info.damage.len(), info.scrub.passes),
        (1, 1, 2)
    );
}

/// The seqs of the lobby that are served, from here on.
fn seqs(store: &dyn Store, mut from: StartAt) -> Vec<u64> {
    let mut found = Vec::new();
    loop {
        let range = broker_core::store::ReadRange {
            room: broker_proto::RoomName::parse("lobby").unwrap(),
            from,
            count_max: 1,
            bytes_max: 1 << 20,
            hint: broker_core::store::Hint::default(),
        };
        let mailbox = broker_core::store::Mailbox::new();
        let reply = store.read(range, 1, &mailbox).unwrap().unwrap();
        if reply.count > 0 {
            found.push(reply.next.get() - 1);
        }
        if reply.next > reply.head {
            return found;
        }
        from = StartAt::seq(reply.next);
    }
}

#[test]
fn a_reader_and_the_start_list_what_they_find() {
    let disk = filled(true);
    flip(&disk, SECOND, place_of(&disk, SECOND, &[12; 700]), 0);
    let (store, mut engine) = open(&disk);
    assert_eq!(
        read_all(&*store, "hall", StartAt::START, 1 << 20)
            .unwrap()
            .len(),
        60
    );
    assert_eq!(seqs(&*store, StartAt::START).len(), 59);
    assert_eq!(
        listed(&store.info()),
        [(DamagePart::Record, FoundBy::Reader)]
    );
    scrub(&mut engine);
    assert_eq!(
        listed(&store.info()),
        [(DamagePart::Record, FoundBy::Reader)]
    );
    drop((store, engine));

    // The head of a whole batch of the last segment, which every start reads.
    let last = contents(&disk);
    let (name, bytes) = last
        .iter()
        .rfind(|(name, _)| name.ends_with(".seg"))
        .unwrap();
    let marker = &bytes[64..72];
    let heads: Vec<usize> = (4096..bytes.len() - 72)
        .step_by(8)
        .filter(|at| &bytes[*at..*at + 8] == marker)
        .collect();
    flip(&disk, name, heads[0] as u64 + 20, 1);
    let (store, mut engine) = open(&disk);
    assert_eq!(
        listed(&store.info()),
        [(DamagePart::BatchHead, FoundBy::Start)]
    );
    assert_eq!(store.info().damage[0].place.file, *name);
    scrub(&mut engine);
    assert_eq!(
        store.info().damaged,
        2,
        "and the record that no start reads"
    );
}

#[test]
fn what_is_missing_or_not_ours_is_told_apart_from_damage() {
    let class = |disk: &MemoryStorage| {
        let each = findings(disk).into_iter();
        each.map(|it| (it.class, it.place.part, it.place.file))
            .collect::<Vec<_>>()
    };
    let missing = |name: &str| (FindingClass::Damaged, DamagePart::Missing, name.to_owned());
    let disk = filled(true);
    disk.delete(SECOND).unwrap();
    assert_eq!(class(&disk), [missing(SECOND)]);
    // What the older checkpoint covers may have been deleted, but not more than that.
    let disk = filled(true);
    disk.delete(FIRST).unwrap();
    assert_eq!(class(&disk), []);
    let names = disk.list().unwrap();
    let segments: Vec<&String> = names.iter().filter(|it| it.ends_with(".seg")).collect();
    let last = segments.len() - 1;
    segments[..last]
        .iter()
        .for_each(|it| disk.delete(it).unwrap());
    assert!(class(&disk).contains(&missing(segments[last - 1])));

    // Both copies of a header, and then the first batch's head too.
    let disk = filled(true);
    flip(&disk, SECOND, 70, 0);
    let header = |part| (FindingClass::Damaged, part, SECOND.to_owned());
    assert_eq!(class(&disk), [header(DamagePart::HeaderCopy)]);
    flip(&disk, SECOND, 2048 + 71, 0);
    assert_eq!(class(&disk), [header(DamagePart::Header)]);
    flip(&disk, SECOND, 4096 + 30, 0);
    let found = class(&disk);
    assert_eq!(found, [header(DamagePart::Header)]);

    // A footer is a hint.
    let disk = filled(true);
    flip(&disk, "0000000000000002-0000.idx", 70, 0);
    let footer = "0000000000000002-0000.idx".to_owned();
    assert_eq!(
        class(&disk),
        [(FindingClass::Footer, DamagePart::Footer, footer)]
    );

    let disk = filled(true);
    let log = Inspector::open(&disk, Some(StoreId::new([2; 16]))).unwrap();
    assert!(log.segments().is_empty());
    assert!(
        log.findings()
            .iter()
            .all(|it| it.class == FindingClass::Misplaced)
    );
    assert!(log.findings().len() > 3);
}

#[test]
fn the_thread_scrubs_all_within_its_time_and_ends_with_the_store() {
    let disk = filled(true);
    flip(&disk, SECOND, place_of(&disk, SECOND, &[12; 301]), 7);
    let mut config = EmbeddedConfig::new(LOG);
    config.scrub_every = Some(Duration::from_millis(5));
    let storage = Arc::new(disk.clone());
    let store = EmbeddedStore::open(storage, config, &mut |_, _| {}).unwrap();
    while store.info().scrub.passes < 3 {
        std::thread::yield_now();
    }
    let info = store.info();
    assert_eq!(listed(&info), [(DamagePart::Record, FoundBy::Scrub)]);
    store.close();
    let passes = store.info().scrub.passes;

    // A pause of a week does not keep a store from closing.
    let mut config = EmbeddedConfig::new(LOG);
    config.scrub_every = Some(Duration::from_secs(7 * 86_400));
    let store = EmbeddedStore::open(Arc::new(disk), config, &mut |_, _| {}).unwrap();
    store.close();
    assert_eq!((store.info().scrub.passes, passes >= 3), (0, true));
}
