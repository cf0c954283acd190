//! Cuts the power of real file systems under a store that is at work, many times.
//!
//! ```text
//! cargo run --release -p broker-sim --bin powercut -- fs --cuts 3000 --seed 7
//! cargo run --release -p broker-sim --bin powercut -- blocklog --states 20000 --seed 7
//! cargo run --release -p broker-sim --bin powercut -- lies --cases 200 --seed 7
//! ```
//!
//! It needs root, loop devices, for the last two `/dev/fuse`, and the tools of the file systems. It is also the program that is cut off (`writer`).
#![expect(clippy::print_stdout, reason = "what it tells is what it is for")]

use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, ensure};
use broker_sim::campaign::Tally;
use broker_sim::kernel::block_disk::needs_fuse;
use broker_sim::kernel::machine::FileSystem;
use broker_sim::kernel::{block_log, power_cut, writer};
use broker_sim::workers::rng_of;
use clap::Parser;

/// Cuts the power of real file systems under a store that is at work.
#[derive(Debug, Parser)]
enum Command {
    /// Shuts ext4 and xfs down under a writer, each for half of the cuts.
    Fs {
        /// How many cuts.
        #[arg(long, default_value_t = 80)]
        cuts: u64,
        /// Where chance begins.
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Logs every write and flush of the disk below ext4 and btrfs, and tries what a power cut could leave; a fifth of it on btrfs.
    Blocklog {
        /// How many states.
        #[arg(long, default_value_t = 75)]
        states: u64,
        /// Where chance begins.
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Fails one flush of the disk below ext4, which loses what it should have kept.
    Lies {
        /// How many.
        #[arg(long, default_value_t = 5)]
        cases: u64,
        /// Where chance begins.
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// The program that is cut off.
    #[command(hide = true)]
    Writer(writer::Args),
}

fn main() -> ExitCode {
    let done = match Command::parse() {
        Command::Fs { cuts, seed } => shut_down(cuts, seed),
        Command::Blocklog { states, seed } => replay(states, seed),
        Command::Lies { cases, seed } => lies(cases, seed),
        Command::Writer(args) => return writer::run(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn shut_down(cuts: u64, seed: u64) -> anyhow::Result<()> {
    let program = std::env::current_exe()?;
    for (kind, cuts) in [
        (FileSystem::Ext4, cuts - cuts / 2),
        (FileSystem::Xfs, cuts / 2),
    ] {
        if let Err(missing) = kind.needs() {
            println!("{missing}");
            continue;
        }
        let begun = Instant::now();
        let (said, kept) = power_cut::cut_careless(&program, kind, seed)?;
        println!(
            "{}: of {said} lines that were never synced {kept} are left",
            kind.name()
        );
        ensure!(kept < said, "a cut that loses nothing proves nothing");
        let done = power_cut::cut_many(&program, kind, cuts, seed)?;
        println!("{}: {done:?} in {:.1?}", kind.name(), begun.elapsed());
        let tally = Tally::new("powercut_fs", seed).with("cuts", done.cuts);
        println!("{}", tally.with("acks", done.acks));
    }
    Ok(())
}

fn replay(states: u64, seed: u64) -> anyhow::Result<()> {
    let program = std::env::current_exe()?;
    for (kind, states) in [
        (FileSystem::Ext4, states - states / 5),
        (FileSystem::Btrfs, states / 5),
    ] {
        if let Err(missing) = needs_fuse().and_then(|()| kind.needs()) {
            println!("{missing}");
            continue;
        }
        let begun = Instant::now();
        let (said, kept) = block_log::replay_careless(&program, kind, seed)?;
        println!(
            "{}: of {said} lines that were never synced {kept} are left",
            kind.name()
        );
        ensure!(kept < said, "a cut that loses nothing proves nothing");
        let done = block_log::replay_many(&program, kind, states, seed)?;
        println!("{}: {done:?} in {:.1?}", kind.name(), begun.elapsed());
        let tally = Tally::new("powercut_blocklog", seed).with("states", done.states);
        println!("{}", tally.with("acks", done.acks));
    }
    Ok(())
}

fn lies(cases: u64, seed: u64) -> anyhow::Result<()> {
    let program = std::env::current_exe()?;
    if let Err(missing) = needs_fuse().and_then(|()| FileSystem::Ext4.needs()) {
        println!("{missing}");
        return Ok(());
    }
    let mut total = block_log::Lies::default();
    for case in 0..cases {
        let seed = rng_of(seed, case).next();
        let done = block_log::lie(&program, seed);
        total += done.with_context(|| format!("case {case}, seed {seed}"))?;
    }
    println!("{total:?}");
    let tally = Tally::new("fsync_lies_for_real", seed).with("cases", total.cases);
    println!("{}", tally.with("acks", total.acks));
    Ok(())
}
