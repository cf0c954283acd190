//! Power cuts on real file systems. `BROKER_POWERCUTS` says how many, half of them on xfs; `BROKER_BLOCKLOG` how many ends of logs of
//! block writes, a fifth of them on btrfs; `BROKER_REAL_LIES` how many flushes of a disk fail once and then lie.

use std::path::Path;

use broker_sim::campaign::{Tally, deep, seed};
use broker_sim::kernel::block_disk::needs_fuse;
use broker_sim::kernel::block_log::{Lies, States, lie, replay_careless, replay_many};
use broker_sim::kernel::machine::FileSystem;
use broker_sim::kernel::power_cut::{Cuts, cut_careless, cut_many};
use broker_sim::workers::rng_of;

/// The writer that is cut off.
pub(crate) fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_powercut"))
}

#[test]
fn powercut_fs() {
    let (seed, cuts) = (seed(1), deep("BROKER_POWERCUTS", 80));
    println!("BROKER_SEED={seed} BROKER_POWERCUTS={cuts}");
    let mut total = Cuts::default();
    let kinds = [
        // Both say when they are shut down in other words: xfs once said yes to a sync of a directory.
        (FileSystem::Ext4, cuts - cuts / 2),
        (FileSystem::Xfs, cuts / 2),
    ];
    for (kind, cuts) in kinds {
        if let Err(missing) = kind.needs() {
            println!("{missing}");
            continue;
        }
        let (said, kept) = cut_careless(program(), kind, seed)
            .unwrap_or_else(|error| panic!("{}: {error:#}", kind.name()));
        assert!(
            kept < said,
            "{}: a cut that loses nothing proves nothing",
            kind.name()
        );
        let done =
            cut_many(program(), kind, cuts, seed).unwrap_or_else(|error| panic!("{error:#}"));
        println!(
            "{}: {done:?}; of {said} lines that were never synced {kept} were left",
            kind.name()
        );
        assert!(
            done.acks > done.cuts * 10,
            "the writer was at work: {done:?}"
        );
        total += done;
    }
    let tally = Tally::new("powercut_fs", seed)
        .with("cuts", total.cuts)
        .with("acks", total.acks);
    println!("{tally}");
}

#[test]
fn powercut_blocklog() {
    let (seed, states) = (seed(1), deep("BROKER_BLOCKLOG", 75));
    println!("BROKER_SEED={seed} BROKER_BLOCKLOG={states}");
    let mut total = States::default();
    let kinds = [
        (FileSystem::Ext4, states - states / 5),
        (FileSystem::Btrfs, states / 5),
    ];
    for (kind, states) in kinds {
        if let Err(missing) = needs_fuse().and_then(|()| kind.needs()) {
            println!("{missing}");
            continue;
        }
        let name = kind.name();
        let (said, kept) = replay_careless(program(), kind, seed)
            .unwrap_or_else(|error| panic!("{name}: {error:#}"));
        assert!(
            kept < said,
            "{name}: a cut that loses nothing proves nothing"
        );
        let done =
            replay_many(program(), kind, states, seed).unwrap_or_else(|error| panic!("{error:#}"));
        println!("{name}: {done:?}; of {said} lines that were never synced {kept} were left");
        assert!(done.acks > done.states, "the writer was at work: {done:?}");
        total += done;
    }
    let tally = Tally::new("powercut_blocklog", seed)
        .with("states", total.states)
        .with("acks", total.acks);
    println!("{tally}");
}

#[test]
fn fsync_lies_for_real() {
    let (seed, cases) = (seed(1), deep("BROKER_REAL_LIES", 5));
    println!("BROKER_SEED={seed} BROKER_REAL_LIES={cases}");
    if let Err(missing) = needs_fuse().and_then(|()| FileSystem::Ext4.needs()) {
        println!("{missing}");
        return;
    }
    let mut total = Lies::default();
    for case in 0..cases {
        let seed = rng_of(seed, case).next();
        total += lie(program(), seed)
            .unwrap_or_else(|error| panic!("case {case}, seed {seed}: {error:#}"));
    }
    println!("{total:?}");
    let tally = Tally::new("fsync_lies_for_real", seed)
        .with("cases", total.cases)
        .with("acks", total.acks);
    println!("{tally}");
}
