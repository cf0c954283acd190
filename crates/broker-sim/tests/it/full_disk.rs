//! Disks without space. `BROKER_FULL_DISK_WORKLOADS` says how many workloads meet one at each of their calls.

use broker_sim::campaign::{Tally, deep, seed};
use broker_sim::kernel::full::{Filled, every_site, fill};
use broker_sim::kernel::machine::{FileSystem, needs_mounts};

#[test]
fn full_disk() {
    let (seed, workloads) = (seed(1), deep("BROKER_FULL_DISK_WORKLOADS", 6));
    println!("BROKER_SEED={seed} BROKER_FULL_DISK_WORKLOADS={workloads}");
    let mut filled = Filled::default();
    for kind in [None, Some(FileSystem::Ext4)] {
        if let Err(missing) = kind.map_or_else(needs_mounts, FileSystem::needs) {
            println!("{missing}");
            continue;
        }
        let name = kind.map_or("tmpfs", FileSystem::name);
        let done = fill(kind, seed).unwrap_or_else(|error| panic!("{name}: {error:#}"));
        println!("{name}: {done:?}");
        filled += done;
    }
    let sites = every_site(seed, workloads).unwrap_or_else(|failure| panic!("{failure}"));
    println!("{sites:?}");
    for (what, count) in [
        ("writes", sites.writes),
        ("creates", sites.creates),
        ("renames", sites.renames),
        ("syncs of the directory", sites.names),
        ("syncs", sites.syncs),
        ("refusals", sites.refused),
    ] {
        assert!(count > 0, "the workloads make no {what}");
    }
    let tally = Tally::new("full_disk", seed)
        .with("points", sites.sites)
        .with("acks", filled.acks);
    println!("{tally}");
}
