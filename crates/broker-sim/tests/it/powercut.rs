//! Power cuts on real file systems. `BROKER_POWERCUTS` says how many, a fifth of them on xfs.

use std::path::Path;

use broker_sim::campaign::{Tally, deep, seed};
use broker_sim::kernel::machine::FileSystem;
use broker_sim::kernel::power_cut::{Cuts, cut_careless, cut_many};

/// The writer that is cut off.
pub(crate) fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_powercut"))
}

#[test]
fn powercut_fs() {
    let (seed, cuts) = (seed(1), deep("BROKER_POWERCUTS", 50));
    println!("BROKER_SEED={seed} BROKER_POWERCUTS={cuts}");
    let mut total = Cuts::default();
    let kinds = [
        (FileSystem::Ext4, cuts - cuts / 5),
        (FileSystem::Xfs, cuts / 5),
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
