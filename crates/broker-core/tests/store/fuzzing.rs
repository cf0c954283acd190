//! The functions of the fuzz targets, with inputs that chance makes.

use std::sync::Arc;

use broker_core::fuzzing;
use broker_core::log::RecoveryError;
use broker_core::log::segment::HEADER_BYTES;
use broker_core::log::storage::{MemoryStorage, Storage, StorageFile};
use broker_core::store::{EmbeddedConfig, EmbeddedStore};
use broker_proto::StoreId;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::talk::Talker;

/// The first batches of the example in `docs/log-format.md`.
const EXAMPLE: &[u8] = include_bytes!("../../../../fuzz/seeds/scan/example");

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_bytes_are_a_segment(data in vec(any::<u8>(), 0..2000)) {
        fuzzing::scan(&data);
    }

    #[test]
    fn a_segment_with_changes_here_and_there(
        copies in 1..4_usize,
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 0..12),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut data = EXAMPLE.repeat(copies);
        for (at, byte) in changes {
            let at = at.index(data.len());
            data[at] = byte;
        }
        data.truncate(cut.index(data.len()) + 1);
        fuzzing::scan(&data);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn a_harmed_store_opens_or_says_why_not(data in vec(any::<u8>(), 0..200)) {
        fuzzing::recovery(&data);
    }
}

#[test]
fn the_seeds_of_the_fuzz_targets() {
    fuzzing::scan(EXAMPLE);
    fuzzing::recovery(include_bytes!("../../../../fuzz/seeds/recovery/story"));
}

/// Found by the fuzz target `scan`: the counts of a table with a right checksum overflowed when they were added up.
#[test]
fn counts_beyond_all_are_no_table() {
    fuzzing::scan(include_bytes!(
        "../../../../fuzz/seeds/scan/counts-beyond-all"
    ));
}

/// Found by `a_harmed_store_opens_or_says_why_not`: the sum overflowed.
#[test]
fn a_leader_after_the_last_term_is_refused() {
    let disk = MemoryStorage::new();
    let open = || {
        let config = EmbeddedConfig::new(StoreId::new([1; 16]));
        EmbeddedStore::open_manual(Arc::new(disk.clone()), config, &mut |_, _| {})
    };
    let (store, mut engine) = open().unwrap();
    let mut ann = Talker::new("ann", 1);
    ann.send(&*store, "lobby", &[b"hello"]);
    engine.step();
    engine.close();
    let file = disk.open("0000000000000001-0000.seg").unwrap();
    let mut header = [0; HEADER_BYTES];
    file.read_at(0, &mut header).unwrap();
    header[80..88].fill(0xff);
    let crc = crc32c::crc32c_append(crc32c::crc32c(&header[..8]), &header[12..]);
    header[8..12].copy_from_slice(&crc.to_le_bytes());
    file.write_at(0, &header).unwrap();
    assert!(matches!(open(), Err(RecoveryError::TermsUsedUp)));
}

/// Found by the fuzz target `recovery`: a lost header, and leaders that drew the same markers.
#[test]
fn a_lost_header_is_put_together_beside_later_segments() {
    fuzzing::recovery(&[
        1, 0, 99, 75, 123, 0, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1, 10,
        33, 0,
    ]);
}

/// Found by `a_harmed_store_opens_or_says_why_not`: most of the files gone, and a later leader that drew the markers of an earlier one.
#[test]
fn a_lost_header_is_put_together_when_other_segments_are_gone() {
    fuzzing::recovery(&[
        1, 6, 154, 123, 213, 72, 126, 182, 165, 4, 223, 158, 143, 12, 178, 5, 5, 0, 0, 5, 3, 0, 0,
        5, 4, 0, 0, 1, 5, 0, 0, 1, 5, 0, 8,
    ]);
}

/// Found by `a_harmed_store_opens_or_says_why_not`: a checkpoint said to be where no file reaches.
#[test]
fn a_checkpoint_beyond_all_is_no_checkpoint() {
    fuzzing::recovery(&[
        15, 174, 0, 64, 96, 0, 163, 43, 0, 255, 0, 0, 0, 0, 0, 0, 26, 92, 0, 0, 0, 44, 2, 0, 68, 91,
    ]);
}

/// Found by `a_harmed_store_opens_or_says_why_not`: a header and a batch that claimed the last place that can be counted; the end of
/// the log was looked for without end.
#[test]
fn a_log_that_claims_to_be_beyond_all_has_an_end() {
    fuzzing::recovery(&[0, 1, 99, 1, 7, 0, 0, 0, 60, 1, 8, 0, 0, 0, 0, 4, 1]);
}
