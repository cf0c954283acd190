//! Each way in which the disk is hostile, and each promise that it keeps all the same.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

use std::collections::BTreeSet;
use std::io::ErrorKind;

use broker_core::log::storage::{AlignedBuf, StorageFile};
use proptest::prelude::*;

use super::*;
use crate::rng::Rng;

const SEEDS: u64 = 400;

/// A disk with the durable file `a`.
fn disk_with(content: &[u8]) -> (SimDisk, SimFile) {
    let disk = SimDisk::new(1);
    let file = disk.create("a").unwrap();
    file.write_at(0, content).unwrap();
    file.sync().unwrap();
    disk.sync_dir().unwrap();
    (disk, file)
}

fn read(disk: &SimDisk, name: &str) -> Option<Vec<u8>> {
    let file = match disk.open_read(name) {
        Ok(file) => file,
        Err(error) => return (error.kind() != ErrorKind::NotFound).then(|| panic!("{error}")),
    };
    let mut all = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
    assert_eq!(file.read_at(0, &mut all).unwrap(), all.len());
    Some(all)
}

/// What the file may hold after a crash, over many seeds.
fn outcomes(disk: &SimDisk, name: &str, mode: CrashMode) -> BTreeSet<Option<Vec<u8>>> {
    (0..SEEDS)
        .map(|seed| read(&disk.crash(&mut Rng::new(seed), mode), name))
        .collect()
}

#[test]
fn it_is_a_directory_like_any_other() {
    let (disk, file) = disk_with(b"abc");
    assert_eq!(
        disk.create("a").unwrap_err().kind(),
        ErrorKind::AlreadyExists
    );
    assert_eq!(
        disk.create("../a").unwrap_err().kind(),
        ErrorKind::InvalidInput
    );
    assert_eq!(disk.open("b").unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(disk.delete("b").unwrap_err().kind(), ErrorKind::NotFound);
    disk.rename("a", "a").unwrap();
    disk.create("b").unwrap();
    disk.rename("a", "b").unwrap();
    assert_eq!(disk.list().unwrap(), ["b"]);
    assert_eq!(read(&disk.clone(), "b").unwrap(), b"abc");
    disk.delete("b").unwrap();
    disk.sync_dir().unwrap();
    file.write_at(3, b"d").unwrap();
    assert_eq!(file.len().unwrap(), 4, "an open handle outlives its name");

    let reader = {
        disk.create("c").unwrap();
        disk.open_read("c").unwrap()
    };
    for refused in [
        reader.write_at(0, b"x"),
        reader.truncate(0),
        reader.zero_fill(0, 1),
    ] {
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::PermissionDenied);
    }
    assert_eq!(
        file.write_at(u64::MAX, b"x").unwrap_err().kind(),
        ErrorKind::FileTooLarge
    );
    disk.check_identity().unwrap();
}

#[test]
fn what_was_synced_is_never_lost() {
    let (disk, file) = disk_with(&[1; 3000]);
    file.write_at(3000, &[2; 2000]).unwrap();
    file.zero_fill(6000, 7000).unwrap();
    disk.create("b").unwrap();
    for mode in CrashMode::ALL {
        for seed in 0..SEEDS {
            let after = read(&disk.crash(&mut Rng::new(seed), mode), "a").unwrap();
            assert_eq!(after[..3000], [1; 3000], "seed {seed}, {mode:?}");
            assert!(
                after[3000..].iter().all(|byte| [0, 2].contains(byte)),
                "nothing is invented: seed {seed}, {mode:?}"
            );
        }
    }
    file.sync().unwrap();
    for mode in CrashMode::ALL {
        assert_eq!(
            outcomes(&disk, "a", mode),
            BTreeSet::from([read(&disk, "a")])
        );
    }
}

#[test]
fn what_was_not_synced_is_lost_kept_and_torn() {
    let (disk, file) = disk_with(b"");
    file.write_at(0, &[9; 1024]).unwrap();
    let written = Some(vec![9; 1024]);
    assert_eq!(
        outcomes(&disk, "a", CrashMode::KeepAll),
        BTreeSet::from([written.clone()])
    );
    assert_eq!(
        outcomes(&disk, "a", CrashMode::LoseAll),
        BTreeSet::from([Some(vec![])])
    );

    let whole = outcomes(&disk, "a", CrashMode::Any(Tear::Whole));
    assert_eq!(
        whole,
        BTreeSet::from([written.clone(), Some(vec![]), Some(vec![0; 1024])]),
        "there, not there, or a length without data"
    );

    let sectors = outcomes(&disk, "a", CrashMode::Any(Tear::Sector));
    let halves = |a, b| Some([[a; 512], [b; 512]].concat());
    for expected in [
        halves(9, 0),
        halves(0, 9),
        halves(9, 9),
        Some(vec![]),
        Some(vec![0; 1024]),
        Some(vec![9; 512]),
    ] {
        assert!(sectors.contains(&expected));
    }
    for content in sectors.iter().flatten() {
        assert!(
            content
                .chunks(512)
                .all(|sector| sector.iter().all(|byte| *byte == sector[0])),
            "a sector is whole"
        );
    }

    let bytes = outcomes(&disk, "a", CrashMode::Any(Tear::Byte));
    assert!(bytes.len() > 100, "{}", bytes.len());
    assert!(
        bytes.iter().flatten().any(|content| content.len() == 1024
            && content[0] == 9
            && content[1023] == 9
            && content.contains(&0)),
        "a hole"
    );
}

#[test]
fn later_writes_may_overtake_earlier_ones() {
    let (disk, file) = disk_with(b"....");
    for (at, byte) in [b"1", b"2", b"3"].into_iter().enumerate() {
        file.write_at(u64::try_from(at).unwrap(), byte).unwrap();
    }
    let any = outcomes(&disk, "a", CrashMode::Any(Tear::Whole));
    assert_eq!(any.len(), 8, "every subset");
    assert!(any.contains(&Some(b"..3.".to_vec())));
    let prefix = outcomes(&disk, "a", CrashMode::Prefix(Tear::Byte));
    let expected: BTreeSet<_> = ["....", "1...", "12..", "123."]
        .map(|text| Some(text.as_bytes().to_vec()))
        .into();
    assert_eq!(prefix, expected, "in order, up to some point");

    // Of two writes to one place either may be the last.
    file.write_at(0, b"x").unwrap();
    let first: BTreeSet<u8> = outcomes(&disk, "a", CrashMode::Any(Tear::Whole))
        .into_iter()
        .flatten()
        .map(|content| content[0])
        .collect();
    assert_eq!(first, BTreeSet::from([b'.', b'1', b'x']));
    let both_kept = outcomes(&disk, "a", CrashMode::Any(Tear::Whole));
    assert!(
        both_kept.contains(&Some(b"123.".to_vec())) && both_kept.contains(&Some(b"x23.".to_vec()))
    );
}

#[test]
fn all_subsets_can_be_tried() {
    let (disk, file) = disk_with(b"...");
    file.write_at(0, b"1").unwrap();
    disk.create("b").unwrap();
    file.write_at(2, b"3").unwrap();
    assert_eq!(disk.pending_count(), 3);
    let states: BTreeSet<_> = (0..8)
        .map(|mask| {
            let after = disk.crash(&mut Rng::new(0), CrashMode::Exact(mask));
            (read(&after, "a").unwrap(), read(&after, "b").is_some())
        })
        .collect();
    assert_eq!(states.len(), 8);
    assert!(
        states.contains(&(b"..3".to_vec(), true)) && states.contains(&(b"1..".to_vec(), false))
    );
}

#[test]
fn names_are_lost_without_a_sync_of_the_directory() {
    let disk = SimDisk::new(1);
    let file = disk.create("new").unwrap();
    file.write_at(0, b"synced").unwrap();
    file.sync_all().unwrap();
    let outcome = outcomes(&disk, "new", CrashMode::Any(Tear::Byte));
    assert_eq!(
        outcome,
        BTreeSet::from([None, Some(b"synced".to_vec())]),
        "with its content or not at all"
    );
    disk.sync_dir().unwrap();
    assert_eq!(
        outcomes(&disk, "new", CrashMode::Any(Tear::Byte)),
        BTreeSet::from([Some(b"synced".to_vec())])
    );
}

#[test]
fn a_rename_happens_or_not() {
    let (disk, _file) = disk_with(b"old");
    let new = disk.create("a.tmp").unwrap();
    new.write_at(0, b"new").unwrap();
    new.sync().unwrap();
    disk.rename("a.tmp", "a").unwrap();
    for mode in CrashMode::ALL {
        for seed in 0..SEEDS {
            let after = disk.crash(&mut Rng::new(seed), mode);
            let content = read(&after, "a").unwrap();
            assert!(content == b"old" || content == b"new");
            if content == b"new" {
                assert_eq!(after.list().unwrap(), ["a"]);
            }
        }
    }
    let outcome = outcomes(&disk, "a", CrashMode::Any(Tear::Whole));
    assert_eq!(outcome.len(), 2, "both do happen");
    disk.sync_dir().unwrap();
    assert_eq!(
        outcomes(&disk, "a", CrashMode::LoseAll),
        BTreeSet::from([Some(b"new".to_vec())])
    );
}

#[test]
fn a_deleted_file_may_come_back_and_synced_content_is_never_without_a_name() {
    let (disk, _file) = disk_with(b"kept");
    disk.delete("a").unwrap();
    assert_eq!(
        outcomes(&disk, "a", CrashMode::Any(Tear::Whole)),
        BTreeSet::from([None, Some(b"kept".to_vec())])
    );

    let (disk, _file) = disk_with(b"kept");
    disk.rename("a", "b").unwrap();
    disk.create("a").unwrap();
    for seed in 0..SEEDS {
        let after = disk.crash(&mut Rng::new(seed), CrashMode::Any(Tear::Whole));
        let found = ["a", "b"].map(|name| read(&after, name));
        assert!(
            found.contains(&Some(b"kept".to_vec())),
            "seed {seed}: {found:?}"
        );
    }
}

#[test]
fn truncation_is_a_change_like_others() {
    let (disk, file) = disk_with(b"abcdef");
    file.truncate(2).unwrap();
    assert_eq!(read(&disk, "a").unwrap(), b"ab");
    assert_eq!(
        outcomes(&disk, "a", CrashMode::Any(Tear::Byte)),
        BTreeSet::from([Some(b"ab".to_vec()), Some(b"abcdef".to_vec())])
    );
    file.truncate(4).unwrap();
    file.sync().unwrap();
    assert_eq!(disk.durable_content("a").unwrap(), b"ab\0\0");
}

#[test]
fn the_death_of_the_process_keeps_what_was_written_but_makes_nothing_safe() {
    let (disk, file) = disk_with(b"old");
    file.write_at(0, b"new").unwrap();
    disk.create("b").unwrap();
    disk.fail_ops_from(1, Fault::Crash);
    let after = disk.kill();
    assert_eq!(read(&after, "a").unwrap(), b"new");
    assert_eq!(after.list().unwrap(), ["a", "b"]);
    assert_eq!(after.op_count(), 0);
    assert_eq!(
        outcomes(&after, "a", CrashMode::LoseAll),
        BTreeSet::from([Some(b"old".to_vec())])
    );
    // The next process syncs what the first one wrote.
    after.open("a").unwrap().sync().unwrap();
    assert_eq!(after.durable_content("a").unwrap(), b"new");
    assert_eq!(
        disk.durable_content("a").unwrap(),
        b"old",
        "another disk by now"
    );
}

#[test]
fn a_lost_sync_is_believed_by_everybody_but_the_disk() {
    let (disk, file) = disk_with(b"old.");
    file.write_at(0, b"new.more").unwrap();
    disk.fail_op(disk.op_count() + 1, Fault::LostSync);
    assert_eq!(file.sync().unwrap_err().raw_os_error(), Some(5));
    file.sync().unwrap();
    disk.kill().open("a").unwrap().sync().unwrap();
    assert_eq!(read(&disk, "a").unwrap(), b"new.more", "the cache shows it");
    assert_eq!(
        read(&disk.kill(), "a").unwrap(),
        b"new.more",
        "to another process too"
    );
    let lost = b"old.\0\0\0\0".to_vec();
    assert_eq!(
        outcomes(&disk, "a", CrashMode::KeepAll),
        BTreeSet::from([Some(lost.clone())])
    );
    let other = disk.kill();
    other.drop_cache();
    assert_eq!(read(&other, "a").unwrap(), lost);
    // Writing the same again helps.
    file.write_at(0, b"new.more").unwrap();
    file.sync().unwrap();
    assert_eq!(disk.durable_content("a").unwrap(), b"new.more");
}

#[test]
fn a_lost_sync_of_the_directory_loses_names() {
    let (disk, _file) = disk_with(b"");
    disk.create("b").unwrap();
    disk.fail_op(disk.op_count() + 1, Fault::LostSync);
    assert!(disk.sync_dir().is_err());
    disk.sync_dir().unwrap();
    assert!(disk.list().unwrap().contains(&"b".to_owned()));
    assert_eq!(
        disk.crash(&mut Rng::new(0), CrashMode::KeepAll)
            .list()
            .unwrap(),
        ["a"]
    );
}

#[test]
fn a_failed_sync_may_also_lose_nothing() {
    let (disk, file) = disk_with(b"old");
    file.write_at(0, b"new").unwrap();
    disk.fail_op(disk.op_count() + 1, Fault::Error(Errno::Quota));
    assert_eq!(file.sync().unwrap_err().kind(), ErrorKind::QuotaExceeded);
    assert_eq!(disk.durable_content("a").unwrap(), b"old");
    file.sync().unwrap();
    assert_eq!(disk.durable_content("a").unwrap(), b"new");
}

#[test]
fn a_dropped_write_never_arrives() {
    let (disk, file) = disk_with(b"old");
    disk.fail_op(disk.op_count() + 1, Fault::DroppedWrite);
    file.write_at(0, b"new!").unwrap();
    file.sync().unwrap();
    assert_eq!(read(&disk, "a").unwrap(), b"new!");
    assert_eq!(disk.durable_content("a").unwrap(), b"old\0");
}

#[test]
fn a_short_write_does_a_part_and_fails() {
    let mut lengths = BTreeSet::new();
    for seed in 0..100 {
        let disk = SimDisk::new(seed);
        let file = disk.create("a").unwrap();
        disk.fail_op(2, Fault::ShortWrite(Errno::Io));
        assert_eq!(
            file.write_at(0, b"12345678").unwrap_err().raw_os_error(),
            Some(5)
        );
        let content = read(&disk, "a").unwrap();
        assert!(b"12345678".starts_with(&content[..]) && content.len() < 8);
        lengths.insert(content.len());
    }
    assert_eq!(lengths.len(), 8, "{lengths:?}");
}

#[test]
fn errors_hit_the_op_that_they_were_meant_for() {
    let disk = SimDisk::new(1);
    disk.fail_op(1, Fault::Error(Errno::NoSpace));
    disk.fail_op(3, Fault::Error(Errno::Io));
    disk.fail_ops_from(5, Fault::Error(Errno::Io));
    assert_eq!(disk.create("a").unwrap_err().kind(), ErrorKind::StorageFull);
    assert!(disk.list().unwrap().is_empty(), "nothing was done");
    let file = disk.create("a").unwrap();
    assert!(file.write_at(0, b"x").is_err());
    file.write_at(0, b"x").unwrap();
    assert!(
        file.sync().is_err()
            && disk.sync_dir().is_err()
            && disk.rename("a", "b").is_err()
            && disk.delete("a").is_err()
    );
    assert_eq!(disk.pending_count(), 2);
    disk.clear_faults();
    file.sync().unwrap();
    let kinds: Vec<_> = disk
        .ops()
        .into_iter()
        .map(|op| (op.number, op.error.is_some()))
        .collect();
    assert_eq!(
        kinds,
        [
            (1, true),
            (2, false),
            (3, true),
            (4, false),
            (5, true),
            (6, true),
            (7, true),
            (8, true),
            (9, false)
        ]
    );

    disk.fail_read(disk.read_count() + 2, Errno::Io);
    let mut buf = [0; 1];
    assert_eq!(file.read_at(0, &mut buf).unwrap(), 1);
    assert_eq!(
        file.read_at(0, &mut buf).unwrap_err().raw_os_error(),
        Some(5)
    );
    disk.fail_reads_from(disk.read_count() + 1, Errno::Io);
    assert!(
        disk.list().is_err()
            && disk.open("a").is_err()
            && file.len().is_err()
            && disk.free_bytes().is_err()
            && disk.check_identity().is_err()
    );
}

#[test]
fn after_a_crash_every_call_fails_with_the_mark() {
    let (disk, file) = disk_with(b"old");
    file.write_at(0, b"new").unwrap();
    disk.fail_op(disk.op_count() + 1, Fault::Crash);
    assert!(!disk.is_crashed());
    for error in [
        file.sync().unwrap_err(),
        file.sync().unwrap_err(),
        disk.list().unwrap_err(),
        disk.create("b").unwrap_err(),
        file.len().unwrap_err(),
    ] {
        assert!(is_crash(&error), "{error}");
    }
    assert!(disk.is_crashed());
    assert!(!is_crash(&Errno::Io.error()));
    assert_eq!(
        outcomes(&disk, "a", CrashMode::LoseAll),
        BTreeSet::from([Some(b"old".to_vec())]),
        "the sync did not happen"
    );
    assert_eq!(
        outcomes(&disk, "a", CrashMode::KeepAll),
        BTreeSet::from([Some(b"new".to_vec())])
    );
    assert_eq!(
        outcomes(&disk, "b", CrashMode::KeepAll),
        BTreeSet::from([None])
    );
}

#[test]
fn a_full_disk_takes_what_fits() {
    let disk = SimDisk::new(1);
    disk.set_capacity(Some(3 * 4096));
    let file = disk.create("a").unwrap();
    file.write_at(0, &[1; 4096]).unwrap();
    assert_eq!(disk.free_bytes().unwrap(), 2 * 4096);
    let full = file.write_at(4096, &[2; 3 * 4096]).unwrap_err();
    assert_eq!(full.kind(), ErrorKind::StorageFull);
    assert_eq!(file.len().unwrap(), 3 * 4096, "two of three blocks fitted");
    assert_eq!(disk.free_bytes().unwrap(), 0);
    file.write_at(0, &[3; 3 * 4096]).unwrap();
    assert!(file.zero_fill(3 * 4096, 4 * 4096).is_err());
    let other = disk.create("b").unwrap();
    assert!(other.write_at(0, b"x").is_err());
    file.truncate(4096).unwrap();
    other.write_at(0, b"x").unwrap();

    disk.delete("a").unwrap();
    assert_eq!(
        disk.free_bytes().unwrap(),
        4096,
        "an open file keeps its space"
    );
    drop(file);
    assert_eq!(disk.free_bytes().unwrap(), 2 * 4096);
    // A hole takes none.
    other.truncate(1 << 20).unwrap();
    other.write_at(1 << 19, b"x").unwrap();
    assert_eq!(disk.free_bytes().unwrap(), 4096);
    disk.set_capacity(None);
    other.write_at(0, &[0; 1 << 16]).unwrap();
}

#[test]
fn rot_is_planted_where_it_was_asked_for() {
    let (disk, _file) = disk_with(b"abcdef");
    assert!(disk.corrupt("a", 2, b"XY"));
    assert!(disk.corrupt("a", 5, b"Zbeyond"));
    assert!(!disk.corrupt("nobody", 0, b"X"));
    assert_eq!(read(&disk, "a").unwrap(), b"abXYeZ");
    assert_eq!(
        outcomes(&disk, "a", CrashMode::LoseAll),
        BTreeSet::from([Some(b"abXYeZ".to_vec())])
    );
}

#[test]
fn slow_writes_are_counted() {
    let disk = SimDisk::new(1).with_block_bytes(4096);
    let file = disk.create("a").unwrap();
    assert_eq!((file.block_bytes(), file.is_direct()), (4096, true));
    let buf = AlignedBuf::zeroed(8192);
    file.write_at(4096, buf.as_slice()).unwrap();
    assert_eq!(disk.unaligned_writes(), 0);
    file.write_at(512, buf.as_slice()).unwrap();
    file.write_at(0, &buf.as_slice()[..100]).unwrap();
    file.write_at(0, &buf.as_slice()[1..4097]).unwrap();
    assert_eq!(disk.unaligned_writes(), 3);
}

#[test]
fn the_history_tells_what_happened() {
    let (disk, file) = disk_with(b"abc");
    disk.fail_op(5, Fault::Error(Errno::NoSpace));
    let _ = file.zero_fill(8, 16);
    disk.rename("a", "b").unwrap();
    file.truncate(1).unwrap();
    disk.delete("b").unwrap();
    file.sync_all().unwrap();
    let expected = "    1 create a\n    2 write a 0+3\n    3 sync a\n    4 sync directory\n    5 zero a 8..16: no storage space\n    6 rename a -> b\n    7 truncate b 1\n    8 delete b\n    9 sync all (deleted)\n";
    assert_eq!(disk.history(), expected);
    assert_eq!(
        disk.ops()[1].kind,
        OpKind::Write {
            name: "a".into(),
            at: 0,
            len: 3
        }
    );
}

#[test]
fn files_that_nothing_can_bring_back_are_forgotten() {
    let (disk, file) = disk_with(&[1; 1000]);
    disk.delete("a").unwrap();
    drop(file);
    assert_eq!(disk.lock().inodes.len(), 1);
    disk.sync_dir().unwrap();
    assert!(disk.lock().inodes.is_empty());
}

#[test]
fn a_seed_repeats() {
    let (disk, file) = disk_with(&[1; 100]);
    for at in 0..20 {
        file.write_at(at * 37, &[2; 64]).unwrap();
    }
    for seed in 0..50 {
        let cut = || {
            read(
                &disk.crash(
                    &mut Rng::new(seed),
                    CrashMode::draw(&mut Rng::new(seed + 1)),
                ),
                "a",
            )
        };
        assert_eq!(cut(), cut());
    }
}

/// A journal of numbered bytes that is right: acknowledged once synced, and its name first.
fn append(disk: &SimDisk, acked: &mut Vec<u8>, sync: bool) -> io::Result<()> {
    let file = disk.create("journal")?;
    if sync {
        disk.sync_dir()?;
    }
    for byte in 1..6 {
        file.write_at(u64::from(byte) - 1, &[byte])?;
        if sync {
            file.sync()?;
        }
        acked.push(byte);
    }
    Ok(())
}

/// Cuts the power at every op, in every mode, and counts how often something acknowledged was gone.
fn losses(sync: bool) -> u64 {
    let mut losses = 0;
    for n in 1.. {
        let disk = SimDisk::new(n);
        disk.fail_op(n, Fault::Crash);
        let mut acked = Vec::new();
        let finished = append(&disk, &mut acked, sync).is_ok();
        for (mode, seed) in CrashMode::ALL
            .into_iter()
            .flat_map(|mode| (0..20).map(move |seed| (mode, seed)))
        {
            let found = read(&disk.crash(&mut Rng::new(seed), mode), "journal").unwrap_or_default();
            losses += u64::from(!found.starts_with(&acked));
        }
        if finished {
            assert_eq!(n, disk.op_count() + 1, "every op was hit once");
            return losses;
        }
    }
    losses
}

#[test]
fn a_right_journal_survives_every_crash_and_a_wrong_one_is_caught() {
    assert_eq!(losses(true), 0);
    assert!(losses(false) > 100);
}

proptest! {
    #[test]
    fn without_faults_it_behaves_like_a_vec(steps in prop::collection::vec((0_u8..4, 0_u64..2000, prop::collection::vec(any::<u8>(), 0..700)), 0..30)) {
        let (disk, file) = disk_with(b"");
        let mut model: Vec<u8> = Vec::new();
        for (what, at, bytes) in steps {
            let start = usize::try_from(at).unwrap();
            match what {
                0 => {
                    file.write_at(at, &bytes).unwrap();
                    if !bytes.is_empty() {
                        model.resize(model.len().max(start + bytes.len()), 0);
                        model[start..start + bytes.len()].copy_from_slice(&bytes);
                    }
                }
                1 => {
                    file.zero_fill(at, 1000).unwrap();
                    if start < 1000 {
                        model.resize(model.len().max(1000), 0);
                        model[start..1000].fill(0);
                    }
                }
                2 => {
                    file.truncate(at).unwrap();
                    model.resize(start, 0);
                }
                _ => file.sync().unwrap(),
            }
            prop_assert_eq!(&disk.content("a").unwrap(), &model);
        }
        prop_assert_eq!(&disk.crash(&mut Rng::new(0), CrashMode::KeepAll).content("a").unwrap(), &model);
        file.sync().unwrap();
        prop_assert_eq!(&disk.durable_content("a").unwrap(), &model);
        prop_assert_eq!(disk.pending_count(), 0);
    }
}

#[test]
fn a_misdirected_write_arrives_at_another_place_and_nobody_is_told() {
    let (disk, file) = disk_with(&[1; 2048]);
    disk.fail_next(disk.op_count() + 1, Fault::MisdirectedWrite);
    file.sync().unwrap();
    file.write_at(0, &[2; 512]).unwrap();
    file.sync().unwrap();
    assert_eq!(disk.content("a").unwrap()[..512], [2; 512]);
    let after = disk.durable_content("a").unwrap();
    assert_eq!(after.len(), 2048);
    assert_eq!(after[..512], [1; 512], "its own place keeps what it had");
    let hit = after.chunks(512).filter(|block| *block == [2; 512]);
    assert_eq!(hit.count(), 1, "another block has it");
    assert!(disk.injuries().lied() && disk.kill().injuries().lied());
}

#[test]
fn a_fault_waits_for_the_call_that_it_is_made_for() {
    let (disk, file) = disk_with(b"abc");
    disk.fail_next(1, Fault::LostSync);
    file.write_at(0, b"xyz").unwrap();
    disk.create("b").unwrap();
    assert!(file.sync().is_err());
    file.sync().unwrap();
    assert!(disk.injuries().has(Injury::LostSync) && !disk.injuries().lied());
    assert_eq!(disk.durable_content("a").unwrap(), b"abc");
}

#[test]
fn every_end_of_a_short_history_can_be_had() {
    let (disk, file) = disk_with(&[1; 1024]);
    file.write_at(0, &[2; 1024]).unwrap();
    disk.rename("a", "b").unwrap();
    let choices = disk.choices();
    // Whole, lost, the length, and torn at the one boundary; the rename happened or not.
    assert_eq!(choices.iter().map(Vec::len).collect::<Vec<_>>(), [5, 2]);
    let mut ends = BTreeSet::new();
    for write in &choices[0] {
        for name in &choices[1] {
            let after = disk.crash_exactly(&[*write, *name]);
            assert_eq!(after.pending_count(), 0);
            ends.insert((read(&after, "a"), read(&after, "b")));
        }
    }
    let (old, new) = ([1; 512], [2; 512]);
    let contents = [[old, old], [old, new], [new, old], [new, new]].map(|halves| halves.concat());
    let expected = contents.iter().flat_map(|bytes| {
        let bytes = Some(bytes.clone());
        [(bytes.clone(), None), (None, bytes)]
    });
    assert_eq!(ends, expected.collect());
}
