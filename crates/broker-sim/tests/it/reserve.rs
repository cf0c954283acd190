//! A disk that is full: publishes stop while there is prepared space left for marks, checkpoints and trims, and go on by themselves.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

use broker_core::log::position::LogPosition;
use broker_core::log::segment::SegmentHeader;
use broker_core::log::storage::Storage;
use broker_core::store::Store;
use broker_sim::oracle::{Fate, Ledger, MessageId, check};
use broker_sim::rig::{Limits, Rig};
use broker_sim::{Rng, SimDisk};
use bytes::Bytes;

/// What has to be left, when no checkpoint was large.
const RESERVE: u64 = 1 << 20;
const MESSAGE: usize = 100 << 10;

const LIMITS: Limits = Limits {
    segment_bytes_min: 4 << 20,
    segment_bytes_max: 4 << 20,
    checkpoint_bytes_min: 1 << 30,
    batch_bytes_max: 1 << 20,
    tail_bytes_max: 0,
};

fn send(rig: &mut Rig, ledger: &mut Ledger, number: u64) -> Fate {
    let id = MessageId {
        producer: 1,
        number,
    };
    ledger.send(id, 1, Bytes::from(vec![b'x'; MESSAGE]));
    rig.send(ledger, id, 1).unwrap();
    rig.work();
    rig.engine.keep_house();
    rig.answers(ledger).unwrap();
    ledger.sent[&id].fate
}

/// Prepared space behind the end of the log.
fn left(disk: &SimDisk, rig: &Rig) -> u64 {
    let names = disk.list().unwrap();
    let name = names.iter().rfind(|name| name.ends_with(".seg")).unwrap();
    let content = disk.content(name).unwrap();
    let header = SegmentHeader::parse(&content).unwrap();
    let end = LogPosition::new(rig.store.info().log_bytes);
    content.len() as u64 - header.offset_of(end)
}

#[test]
fn publishes_stop_while_there_is_space_for_marks_and_checkpoints() {
    let disk = SimDisk::new(1);
    let mut ledger = Ledger::default();
    let mut rig = Rig::open(&disk, LIMITS, &mut Rng::new(1)).unwrap();
    assert_eq!(send(&mut rig, &mut ledger, 1), Fate::Acked(1));
    // The first segment is there, and nothing else will be.
    disk.set_capacity(Some(0));
    let mut number = 2;
    while send(&mut rig, &mut ledger, number) != Fate::Refused {
        assert!(left(&disk, &rig) >= RESERVE, "{}", left(&disk, &rig));
        number += 1;
    }
    let reserved = left(&disk, &rig);
    assert!(reserved < RESERVE + 2 * MESSAGE as u64, "{reserved}");
    assert_eq!(rig.store.info().read_only, None);
    // Reading goes on, and the end of the log can be marked.
    check::everything_is_there(&rig, &mut ledger, 1 << 20).unwrap();
    let calls = disk.op_count();
    rig.engine.idle();
    let ops = disk.ops();
    let mut of_mark = ops.iter().filter(|op| op.number > calls).peekable();
    assert!(of_mark.peek().is_some() && of_mark.all(|op| op.error.is_none()));
    // Somebody cleans up.
    disk.set_capacity(None);
    assert!(matches!(
        send(&mut rig, &mut ledger, number + 1),
        Fate::Acked(_)
    ));
}
