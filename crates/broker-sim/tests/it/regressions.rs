//! Mistakes that were made once, each as the shortest story that shows it.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

use broker_core::log::storage::Storage;
use broker_core::store::{Append, Mailbox, Notice, SessionId, Store};
use broker_proto::record::encode_message_head;
use broker_proto::{ErrorCode, publish};
use broker_sim::disk::OpKind;
use broker_sim::oracle::{Fate, Ledger, MessageId, check, producer_key, room_name};
use broker_sim::rig::{Limits, Rig};
use broker_sim::rot::{Map, Part};
use broker_sim::{CrashMode, Errno, Fault, Rng, SimDisk, Tear};
use bytes::{Bytes, BytesMut};

const LIMITS: Limits = Limits {
    segment_bytes_min: 16 << 10,
    segment_bytes_max: 16 << 10,
    checkpoint_bytes_min: 1 << 30,
    batch_bytes_max: 1 << 20,
    tail_bytes_max: 0,
};

fn open(disk: &SimDisk) -> Rig {
    Rig::open(disk, LIMITS, &mut Rng::new(disk.op_count())).unwrap()
}

fn id(number: u64) -> MessageId {
    MessageId {
        producer: 1,
        number,
    }
}

/// Queues one message.
fn queue(rig: &Rig, ledger: &mut Ledger, number: u64, bytes: usize) {
    ledger.send(id(number), 1, Bytes::from(vec![b'x'; bytes]));
    rig.send(ledger, id(number), 1).unwrap();
}

/// Sends one message and hears what became of it.
fn send(rig: &mut Rig, ledger: &mut Ledger, number: u64, bytes: usize) -> Fate {
    queue(rig, ledger, number, bytes);
    rig.work();
    rig.answers(ledger).unwrap();
    ledger.sent[&id(number)].fate
}

fn read_all(rig: &Rig, ledger: &mut Ledger) {
    let shown = rig.read(ledger, 1, 1, 1 << 20).unwrap().unwrap();
    assert_eq!(shown.skips, []);
    assert_eq!(rig.store.info().damaged, 0);
}

/// A power cut in every way, and a new leader that finds everything.
fn survives(disk: &SimDisk, ledger: &Ledger) {
    for mode in CrashMode::ALL {
        for seed in 0..20 {
            let mut ledger = ledger.clone();
            let after = disk.crash(&mut Rng::new(seed), mode);
            let mut rig = open(&after);
            let checked = check::after_recovery(&mut rig, &mut ledger, 1 << 20);
            checked.unwrap_or_else(|why| panic!("{mode:?} seed {seed}: {why}\n{}", disk.history()));
        }
    }
}

/// The numbers of the ops of one kind since the `from`-th.
fn ops(disk: &SimDisk, from: u64, is: impl Fn(&OpKind) -> bool) -> Vec<u64> {
    disk.ops()
        .iter()
        .filter(|op| op.number > from && is(&op.kind))
        .map(|op| op.number)
        .collect()
}

/// Numbers the next op that a message of this size causes and that is of one kind, without doing it here.
fn next_op(disk: &SimDisk, bytes: usize, is: impl Fn(&OpKind) -> bool) -> u64 {
    // The same messages on another disk lead to the same ops.
    let twin = SimDisk::new(1);
    let mut rig = open(&twin);
    let mut ledger = Ledger::default();
    let mut number = 0;
    while twin.op_count() < disk.op_count() {
        number += 1;
        send(&mut rig, &mut ledger, number, bytes);
    }
    assert_eq!(twin.op_count(), disk.op_count());
    send(&mut rig, &mut ledger, number + 1, bytes);
    ops(&twin, disk.op_count(), is)[0]
}

#[test]
fn a_segment_that_got_its_name_but_no_sync_of_the_directory_cuts_nothing_off() {
    let disk = SimDisk::new(1);
    let mut rig = open(&disk);
    let mut ledger = Ledger::default();
    assert_eq!(send(&mut rig, &mut ledger, 1, 9000), Fate::Acked(1));
    // The second does not fit behind the first, so a segment begins; the directory is full.
    let at = next_op(&disk, 9000, |kind| *kind == OpKind::SyncDir);
    disk.fail_op(at, Fault::Error(Errno::NoSpace));
    send(&mut rig, &mut ledger, 2, 9000);
    for number in 3..6 {
        assert!(matches!(
            send(&mut rig, &mut ledger, number, 100),
            Fate::Acked(_)
        ));
        read_all(&rig, &mut ledger);
    }
    survives(&disk, &ledger);
}

#[test]
fn readers_know_of_a_segment_that_began_with_a_mark() {
    // A mark whose sync fails goes into a new segment, and so does one that takes the place of a batch on a full disk.
    for errno in [Errno::Io, Errno::NoSpace] {
        let disk = SimDisk::new(1);
        let mut rig = open(&disk);
        let mut ledger = Ledger::default();
        send(&mut rig, &mut ledger, 1, 100);
        disk.fail_op(disk.op_count() + 1, Fault::Error(errno));
        if errno == Errno::Io {
            rig.engine.idle();
        } else {
            assert_eq!(send(&mut rig, &mut ledger, 2, 100), Fate::Refused);
        }
        assert!(matches!(
            send(&mut rig, &mut ledger, 3, 100),
            Fate::Acked(2)
        ));
        // The newest batch is in memory; this one is not.
        send(&mut rig, &mut ledger, 4, 100);
        read_all(&rig, &mut ledger);
        survives(&disk, &ledger);
    }
}

#[test]
fn a_retry_in_the_same_batch_shares_its_fate() {
    let disk = SimDisk::new(1);
    let mut rig = open(&disk);
    let mut ledger = Ledger::default();
    assert_eq!(send(&mut rig, &mut ledger, 1, 100), Fate::Acked(1));
    queue(&rig, &mut ledger, 2, 100);
    // Over another connection, with one that is stored already, before the answer to the first.
    rig.send(&ledger, id(1), 2).unwrap();
    disk.fail_op(disk.op_count() + 1, Fault::Error(Errno::NoSpace));
    rig.work();
    rig.answers(&mut ledger).unwrap();
    assert_eq!(ledger.sent[&id(1)].fate, Fate::Acked(1));
    assert_eq!(ledger.sent[&id(2)].fate, Fate::Refused);
    assert_eq!(send(&mut rig, &mut ledger, 3, 100), Fate::Acked(2));
    survives(&disk, &ledger);
}

#[test]
fn a_cursor_is_not_told_from_a_batch_that_failed() {
    use broker_proto::{Position, Seq};

    let disk = SimDisk::new(1);
    let mut rig = open(&disk);
    let mut ledger = Ledger::default();
    send(&mut rig, &mut ledger, 1, 100);
    let epoch = ledger.rooms[&1].epoch.unwrap();
    let key = (1, 0);
    for (seq, fault) in [(1, None), (2, Some(Errno::NoSpace))] {
        let to = Some(Position::new(epoch, Seq::new(seq)));
        ledger.move_cursor(key, to);
        rig.move_cursor(key, to).unwrap();
        rig.ask_cursor(key).unwrap();
        if let Some(errno) = fault {
            disk.fail_op(disk.op_count() + 1, Fault::Error(errno));
        }
        rig.work();
        rig.answers(&mut ledger).unwrap();
    }
    assert_eq!(ledger.cursors[&key].settled.unwrap().seq, Seq::new(1));
    survives(&disk, &ledger);
}

#[test]
fn nobody_says_not_stored_while_the_old_tail_may_come_back() {
    let disk = SimDisk::new(1);
    let mut rig = open(&disk);
    let mut ledger = Ledger::default();
    assert_eq!(send(&mut rig, &mut ledger, 1, 100), Fate::Acked(1));
    // The batch is written, its sync fails for want of space, and so does the mark in its place.
    disk.fail_ops_from(disk.op_count() + 2, Fault::Error(Errno::NoSpace));
    assert_eq!(send(&mut rig, &mut ledger, 2, 100), Fate::Unknown);
    rig.send(&ledger, id(2), 1).unwrap();
    rig.work();
    rig.answers(&mut ledger).unwrap();
    survives(&disk, &ledger);
    disk.clear_faults();
    assert_eq!(send(&mut rig, &mut ledger, 3, 100), Fate::Acked(2));
    rig.send(&ledger, id(2), 1).unwrap();
    rig.work();
    rig.answers(&mut ledger).unwrap();
    assert_eq!(ledger.sent[&id(2)].fate, Fate::Refused);
    survives(&disk, &ledger);
}

/// Publishes one number as a client would that has lost its connection, and hears the seq or the code.
fn publish_again(rig: &mut Rig, number: u64) -> Result<u64, ErrorCode> {
    let key = producer_key(1).unwrap();
    let (mut head, mut entries) = (Vec::new(), BytesMut::new());
    encode_message_head(&mut head, &key.sender, 0, &[]);
    publish::encode_entry(&mut entries, b"x", &[], crc32c::crc32c(b"x"));
    let append = Append {
        session: SessionId(0),
        key,
        claimed: true,
        room: room_name(1).unwrap(),
        first_number: number,
        count: 1,
        head: head.into(),
        entries: entries.freeze(),
        expected_head: None,
        resend: true,
    };
    let mailbox = Mailbox::new();
    rig.store.append(append, &mailbox).unwrap();
    rig.work();
    let mut notices = Vec::new();
    mailbox.drain(&mut notices);
    match notices.pop() {
        Some(Notice::Acked { run, .. }) => Ok(run.first_seq.get()),
        Some(Notice::Refused { code, .. }) => Err(code),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_read_only_store_still_tells_what_became_of_a_retry() {
    let disk = SimDisk::new(1);
    let mut rig = open(&disk);
    let mut ledger = Ledger::default();
    assert_eq!(send(&mut rig, &mut ledger, 1, 100), Fate::Acked(1));
    disk.fail_ops_from(disk.op_count() + 2, Fault::Error(Errno::Io));
    // The batch may be found at the next start.
    assert_eq!(publish_again(&mut rig, 2), Err(ErrorCode::IN_DOUBT));
    assert!(rig.store.info().read_only.is_some());
    assert_eq!(publish_again(&mut rig, 1), Ok(1), "it is stored");
    assert_eq!(publish_again(&mut rig, 2), Err(ErrorCode::IN_DOUBT));
    assert_eq!(publish_again(&mut rig, 3), Err(ErrorCode::READ_ONLY));
    assert_eq!(publish_again(&mut rig, 2), Err(ErrorCode::IN_DOUBT));
}

#[test]
fn a_segment_whose_name_is_not_safe_yet_is_not_gone_on_in() {
    let disk = SimDisk::new(1);
    let mut rig = open(&disk);
    let mut ledger = Ledger::default();
    assert_eq!(send(&mut rig, &mut ledger, 1, 100), Fate::Acked(1));
    disk.fail_op(disk.op_count() + 2, Fault::Crash);
    send(&mut rig, &mut ledger, 2, 5000);
    // The head of the second batch vouches for the first; the rest is torn in most of these, so that nothing has to be copied.
    for seed in 0..20 {
        let torn = disk.crash(&mut Rng::new(seed), CrashMode::Any(Tear::Sector));
        let twin = torn.kill();
        open(&twin);
        let sync = ops(&twin, 0, |kind| *kind == OpKind::SyncDir)[0];
        for fault in [Fault::Crash, Fault::LostSync, Fault::Error(Errno::Io)] {
            // The next leader makes a new segment, and is gone before the directory is synced.
            let second = torn.kill();
            second.fail_op(sync, fault);
            assert!(Rig::open(&second, LIMITS, &mut Rng::new(7)).is_err());
            // The one after that finds the segment under its name.
            let third = second.kill();
            let mut ledger = ledger.clone();
            let mut rig = open(&third);
            let found = check::after_recovery(&mut rig, &mut ledger, 1 << 20);
            found.unwrap();
            assert!(matches!(
                send(&mut rig, &mut ledger, 3, 100),
                Fate::Acked(_)
            ));
            survives(&third, &ledger);
        }
    }
}

#[test]
fn a_mark_that_was_written_a_second_time_does_not_vouch_for_its_segment() {
    let faulty = |second: Option<u64>| {
        let disk = SimDisk::new(1);
        let mut rig = open(&disk);
        let mut ledger = Ledger::default();
        assert_eq!(send(&mut rig, &mut ledger, 1, 100), Fate::Acked(1));
        // The sync of the mark fails, and then that of the directory, after which the kernel takes the new name for safe.
        disk.fail_next(disk.op_count() + 1, Fault::LostSync);
        if let Some(op) = second {
            disk.fail_op(op, Fault::LostSync);
        }
        let before = disk.op_count();
        rig.engine.idle();
        (
            disk.kill(),
            ledger,
            ops(&disk, before, |kind| *kind == OpKind::SyncDir),
        )
    };
    let (_, _, syncs) = faulty(None);
    let (disk, mut ledger, _) = faulty(syncs.first().copied());
    let mut rig = open(&disk);
    check::after_recovery(&mut rig, &mut ledger, 1 << 20).unwrap();
    assert_eq!(send(&mut rig, &mut ledger, 2, 100), Fate::Acked(2));
    survives(&disk, &ledger);
}

/// A disk on which the last batch was torn: one message is acknowledged, the one after it was never answered for.
fn torn(seed: u64) -> (SimDisk, Ledger) {
    let disk = SimDisk::new(1);
    let mut rig = open(&disk);
    let mut ledger = Ledger::default();
    assert_eq!(send(&mut rig, &mut ledger, 1, 100), Fate::Acked(1));
    disk.fail_op(disk.op_count() + 2, Fault::Crash);
    send(&mut rig, &mut ledger, 2, 5000);
    let torn = disk.crash(&mut Rng::new(seed), CrashMode::Any(Tear::Sector));
    (torn, ledger)
}

#[test]
fn recovering_twice_is_recovering_once() {
    for seed in 0..20 {
        let (disk, mut ledger) = torn(seed);
        let mut segments = Vec::new();
        for _ in 0..4 {
            let mut rig = open(&disk);
            check::after_recovery(&mut rig, &mut ledger, 1 << 20).unwrap();
            rig.engine.close();
            segments.push((rig.store.info().segments, rig.store.info().log_bytes));
        }
        assert!(
            segments.windows(2).all(|pair| pair[0] == pair[1]),
            "{segments:?}"
        );
        // Without a close, nothing but the copy of the tail is added.
        for _ in 0..4 {
            let mut rig = open(&disk.kill());
            check::after_recovery(&mut rig, &mut ledger, 1 << 20).unwrap();
            assert_eq!(rig.store.info().log_bytes, segments[0].1);
        }
    }
}

#[test]
fn a_full_disk_stops_a_recovery_and_loses_nothing() {
    for seed in 0..20 {
        let (disk, ledger) = torn(seed);
        let ops = {
            let twin = disk.kill();
            open(&twin);
            twin.op_count()
        };
        for n in 1..=ops {
            let full = disk.kill();
            full.fail_ops_from(n, Fault::Error(Errno::NoSpace));
            let opened = Rig::open(&full, LIMITS, &mut Rng::new(7));
            assert!(opened.is_err() || n > ops - 1, "op {n} of {ops}");
            drop(opened);
            full.clear_faults();
            survives(&full, &ledger);
            let mut rig = open(&full.kill());
            let mut ledger = ledger.clone();
            check::after_recovery(&mut rig, &mut ledger, 1 << 20).unwrap();
            assert!(matches!(
                send(&mut rig, &mut ledger, 3, 100),
                Fate::Acked(_)
            ));
        }
    }
}

#[test]
fn a_store_whose_only_batch_is_torn_is_empty() {
    let disk = SimDisk::new(1);
    let mut rig = open(&disk);
    let mut ledger = Ledger::default();
    disk.fail_op(disk.op_count() + 7, Fault::Crash);
    send(&mut rig, &mut ledger, 1, 5000);
    // The order of things makes this impossible: the batch is synced before the file gets its name. So it is done by hand.
    let torn = disk.crash(&mut Rng::new(1), CrashMode::KeepAll);
    let spare = torn.list().unwrap().remove(0);
    torn.rename(&spare, "0000000000000001-0000.seg").unwrap();
    assert!(torn.corrupt("0000000000000001-0000.seg", 6000, &[0; 512]));
    let mut rig = open(&torn);
    check::after_recovery(&mut rig, &mut ledger, 1 << 20).unwrap();
    assert_eq!(rig.rooms().unwrap(), []);
    assert_eq!(send(&mut rig, &mut ledger, 1, 100), Fate::Acked(1));
    survives(&torn, &ledger);
}

#[test]
fn a_producer_with_many_runs_fits_into_a_checkpoint() {
    let limits = Limits {
        checkpoint_bytes_min: 64 << 10,
        ..LIMITS
    };
    let disk = SimDisk::new(1);
    let mut ledger = Ledger::default();
    let mut rig = Rig::open(&disk, limits, &mut Rng::new(1)).unwrap();
    // Every number goes to another room than the one before, so no two runs join.
    for number in 1..=4096 {
        let room = u16::try_from(number % 2).unwrap();
        ledger.send(id(number), room, Bytes::new());
        rig.send(&ledger, id(number), 1).unwrap();
        if number % 64 == 0 {
            rig.work();
            rig.answers(&mut ledger).unwrap();
        }
    }
    // A new leader makes a checkpoint with its first batch.
    let second = disk.kill();
    let mut rig = Rig::open(&second, limits, &mut Rng::new(2)).unwrap();
    assert_eq!(send(&mut rig, &mut ledger, 4097, 0), Fate::Acked(2049));
    let pieces: Vec<u64> = second
        .ops()
        .into_iter()
        .filter_map(|op| match op.kind {
            OpKind::Write { len, .. } => Some(len),
            _ => None,
        })
        .collect();
    assert!(pieces.iter().all(|bytes| *bytes < 300 << 10), "{pieces:?}");
    assert!(pieces.iter().sum::<u64>() > 300 << 10, "{pieces:?}");
    let mut rig = Rig::open(&second.kill(), limits, &mut Rng::new(3)).unwrap();
    check::after_recovery(&mut rig, &mut ledger, 1 << 20).unwrap();
    for number in 2..=4097 {
        rig.send(&ledger, id(number), 1).unwrap();
    }
    rig.work();
    rig.answers(&mut ledger).unwrap();
}

const FIRST: &str = "0000000000000001-0000.seg";

#[test]
fn a_mark_that_should_have_been_written_over_does_not_end_the_log() {
    let disk = SimDisk::new(1);
    let mut rig = open(&disk);
    let mut ledger = Ledger::default();
    send(&mut rig, &mut ledger, 1, 100);
    rig.engine.idle();
    let with_mark = disk.content(FIRST).unwrap();
    for number in 2..=4 {
        send(&mut rig, &mut ledger, number, 5000);
    }
    // The disk has dropped the first block of the second batch, so that the mark is still there.
    let block = with_mark[4096..8192].to_vec();
    assert!(disk.corrupt(FIRST, 4096, &block));
    let mut rig = open(&disk.kill());
    let shown = rig.read(&mut ledger, 1, 1, 1 << 20).unwrap().unwrap();
    assert_eq!(shown.skips, [(2, 2)]);
    assert_eq!(shown.messages.len(), 3);
    assert!(rig.store.info().damaged > 0);
    assert!(matches!(send(&mut rig, &mut ledger, 5, 100), Fate::Acked(seq) if seq > 4));
}

#[test]
fn a_first_segment_that_is_missing_is_noticed() {
    let disk = SimDisk::new(1);
    let mut rig = open(&disk);
    let mut ledger = Ledger::default();
    // Two messages fill the first segment; the third names the room again in the second.
    for number in 1..=3 {
        send(&mut rig, &mut ledger, number, 6000);
    }
    rig.engine.close();
    assert!(rig.store.info().segments > 1);
    disk.delete(FIRST).unwrap();
    let mut rig = open(&disk.kill());
    assert!(rig.store.info().damaged > 0);
    let shown = rig.read(&mut ledger, 1, 1, 1 << 20).unwrap().unwrap();
    assert_eq!(shown.messages.last(), Some(&(3, id(3))));
    assert!(matches!(send(&mut rig, &mut ledger, 4, 100), Fate::Acked(seq) if seq > 3));
}

#[test]
fn a_room_whose_name_is_lost_gives_its_messages_to_no_other() {
    let disk = SimDisk::new(1);
    let mut rig = open(&disk);
    let mut ledger = Ledger::default();
    for (number, room) in [(1, 1), (2, 2), (3, 3), (4, 1), (5, 3)] {
        ledger.send(id(number), room, Bytes::from_static(b"text"));
        rig.send(&ledger, id(number), 1).unwrap();
        rig.work();
    }
    rig.engine.close();
    rig.answers(&mut ledger).unwrap();
    // The record that names the first room is rotten: the two that were made after it are not touched.
    let map = Map::of(&disk).unwrap();
    let name = map
        .places
        .iter()
        .find(|place| place.part == Part::State(12));
    let blow = Map::flip(&disk, FIRST, name.unwrap().bytes.start + 50);
    assert!(disk.corrupt(&blow.file, blow.at, &blow.bytes));
    let mut rig = open(&disk.kill());
    for (room, messages) in [(2, 1), (3, 2)] {
        let shown = rig.read(&mut ledger, room, 1, 1 << 20).unwrap().unwrap();
        assert_eq!((shown.messages.len(), shown.skips.len()), (messages, 0));
    }
    assert_eq!(rig.read(&mut ledger, 1, 1, 1 << 20).unwrap(), None);
    ledger.send(id(6), 9, Bytes::from_static(b"in a new room"));
    rig.send(&ledger, id(6), 1).unwrap();
    rig.work();
    rig.answers(&mut ledger).unwrap();
    let shown = rig.read(&mut ledger, 9, 1, 1 << 20).unwrap().unwrap();
    assert_eq!(shown.messages, [(1, id(6))]);
    // A retry of what lies in the nameless room is not acknowledged with a name that nobody published to.
    ledger.lied_to = true;
    rig.send(&ledger, id(1), 1).unwrap();
    rig.work();
    rig.answers(&mut ledger).unwrap();
}

/// Sends again as over another connection, and hears the fate of the last message.
fn send_again(rig: &mut Rig, ledger: &mut Ledger, first: u64, count: u32) -> Fate {
    rig.send_again(ledger, id(first), count).unwrap();
    rig.work();
    rig.answers(ledger).unwrap();
    ledger.sent[&id(first + u64::from(count) - 1)].fate
}

/// A disk that never wrote the batch with the numbers 2 and 3, which were not answered for as far as their sender knows. The
/// batch after it has brought back the last block of it, with the third message.
fn numbers_lost() -> (SimDisk, Ledger) {
    let disk = SimDisk::new(1);
    let mut rig = open(&disk);
    let mut ledger = Ledger::default();
    assert_eq!(send(&mut rig, &mut ledger, 1, 100), Fate::Acked(1));
    for (number, bytes) in [(2, 6000), (3, 90)] {
        ledger.send(id(number), 1, Bytes::from(vec![b'y'; bytes]));
    }
    ledger.lied_to = true;
    let unanswered = ledger.clone();
    rig.send(&ledger, id(2), 2).unwrap();
    disk.fail_op(disk.op_count() + 1, Fault::DroppedWrite);
    rig.work();
    let other = MessageId {
        producer: 2,
        number: 1,
    };
    ledger = unanswered;
    ledger.send(other, 1, Bytes::from_static(b"of another"));
    rig.send(&ledger, other, 1).unwrap();
    rig.work();
    (disk.crash(&mut Rng::new(1), CrashMode::LoseAll), ledger)
}

#[test]
fn a_resend_is_not_stored_twice_when_its_numbers_were_lost() {
    let (disk, mut ledger) = numbers_lost();
    let mut rig = open(&disk);
    check::after_recovery(&mut rig, &mut ledger, 1 << 20).unwrap();
    let shown = rig.read(&mut ledger, 1, 1, 1 << 20).unwrap().unwrap();
    assert_eq!(shown.skips, [(2, 2)]);
    assert_eq!(shown.messages[1], (3, id(3)), "it is there");
    assert_eq!(send_again(&mut rig, &mut ledger, 2, 2), Fate::Unknown);
    assert_eq!(ledger.sent[&id(2)].fate, Fate::Unknown, "it comes before");
    // What is new goes on, and makes the third a number that seems to have been passed over.
    assert!(matches!(
        send(&mut rig, &mut ledger, 4, 90),
        Fate::Acked(seq) if seq > 4
    ));
    assert_eq!(send_again(&mut rig, &mut ledger, 3, 1), Fate::Unknown);
    check::after_recovery(&mut open(&disk.kill()), &mut ledger.clone(), 1 << 20).unwrap();
}

#[test]
fn messages_in_doubt_are_known_to_later_leaders_too() {
    let (disk, mut ledger) = numbers_lost();
    let limits = Limits {
        checkpoint_bytes_min: 4 << 10,
        ..LIMITS
    };
    let mut disk = disk;
    for leader in 0..6_u64 {
        let mut rig = Rig::open(&disk, limits, &mut Rng::new(leader)).unwrap();
        assert_eq!(send_again(&mut rig, &mut ledger, 3, 1), Fate::Unknown);
        // Enough for checkpoints and further segments; later leaders do not read the damaged batch any more.
        for n in 1..=4 {
            let id = MessageId {
                producer: 3,
                number: leader * 4 + n,
            };
            ledger.send(id, 1, Bytes::from(vec![b'z'; 5000]));
            rig.send(&ledger, id, 1).unwrap();
            rig.work();
            rig.answers(&mut ledger).unwrap();
            assert!(matches!(ledger.sent[&id].fate, Fate::Acked(_)));
        }
        assert_eq!(send_again(&mut rig, &mut ledger, 3, 1), Fate::Unknown);
        // The same bytes are stored in a room where nothing is in doubt.
        let own = MessageId {
            producer: 100 + u16::try_from(leader).unwrap(),
            number: 1,
        };
        ledger.send(own, 2, Bytes::from(vec![b'y'; 90]));
        rig.send_again(&ledger, own, 1).unwrap();
        rig.work();
        rig.answers(&mut ledger).unwrap();
        assert!(matches!(ledger.sent[&own].fate, Fate::Acked(_)));
        disk = disk.kill();
    }
    let mut rig = Rig::open(&disk, limits, &mut Rng::new(9)).unwrap();
    assert_eq!(rig.store.info().damaged, 0, "the damage is not read again");
    assert_eq!(send_again(&mut rig, &mut ledger, 3, 1), Fate::Unknown);
    check::after_recovery(&mut rig, &mut ledger, 1 << 20).unwrap();
}

/// Fills a store with what is kept (room 2) and what is not (room 1), until a segment has been written anew; gives the number of the
/// op that gave that one its name.
fn pack_one(disk: &SimDisk, ledger: &mut Ledger) -> u64 {
    let limits = Limits {
        checkpoint_bytes_min: 16 << 10,
        ..LIMITS
    };
    let mut rig = Rig::open(disk, limits, &mut Rng::new(1)).unwrap();
    for number in 1..=60 {
        let (room, bytes) = if number % 4 == 0 { (2, 10) } else { (1, 3000) };
        ledger.send(id(number), room, Bytes::from(vec![b'x'; bytes]));
        rig.send(ledger, id(number), 1).unwrap();
        rig.work();
        rig.answers(ledger).unwrap();
    }
    let kept = ledger.rooms[&1].shown.len() as u64 + 1;
    ledger.trim(1, kept);
    rig.trim(1, kept).unwrap();
    let named = |op: &broker_sim::disk::Op| match &op.kind {
        OpKind::Rename(from, _) if from.starts_with("pack-") => Some(op.number),
        _ => None,
    };
    for _ in 0..200 {
        rig.keep(1);
        rig.work();
        rig.answers(ledger).unwrap();
        if let Some(number) = disk.ops().iter().find_map(named) {
            return number;
        }
    }
    panic!("nothing is written anew");
}

#[test]
fn a_rewritten_segment_whose_name_may_be_lost_does_not_count() {
    let number = pack_one(&SimDisk::new(1), &mut Ledger::default());
    // The directory is not synced, whatever is said later, and the leader is killed; the next one works a little.
    let (disk, mut ledger) = (SimDisk::new(1), Ledger::default());
    disk.fail_op(number + 1, Fault::LostSync);
    assert_eq!(pack_one(&disk, &mut ledger), number);
    let disk = disk.kill();
    let mut rig = open(&disk);
    read_kept(&rig, &mut ledger);
    for round in 0..20 {
        ledger.send(id(100 + round), 2, Bytes::from_static(b"on"));
        rig.send(&ledger, id(100 + round), 1).unwrap();
        rig.work();
        rig.keep(1);
        rig.answers(&mut ledger).unwrap();
    }
    for mode in CrashMode::ALL {
        let left = disk.crash(&mut Rng::new(3), mode);
        read_kept(&open(&left), &mut ledger.clone());
    }
}

fn read_kept(rig: &Rig, ledger: &mut Ledger) {
    let shown = rig.read(ledger, 2, 1, 1 << 20).unwrap().unwrap();
    let acked =
        |sent: &&broker_sim::oracle::Sent| sent.room == 2 && matches!(sent.fate, Fate::Acked(_));
    let stored = ledger.sent.values().filter(acked).count();
    assert_eq!((shown.messages.len(), shown.skips.len()), (stored, 0));
    assert_eq!(rig.store.info().damaged, 0);
}
