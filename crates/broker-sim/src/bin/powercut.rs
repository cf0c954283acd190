//! Cuts the power of real file systems under a store that is at work, many times.
//!
//! ```text
//! cargo run --release -p broker-sim --bin powercut -- fs --cuts 3000 --seed 7
//! ```
//!
//! It needs root, loop devices and the tools of the file systems. It is also the program that is cut off (`writer`).
#![expect(clippy::print_stdout, reason = "what it tells is what it is for")]

use std::process::ExitCode;
use std::time::Instant;

use anyhow::ensure;
use broker_sim::campaign::Tally;
use broker_sim::kernel::machine::FileSystem;
use broker_sim::kernel::{power_cut, writer};
use clap::Parser;

/// Cuts the power of real file systems under a store that is at work.
#[derive(Debug, Parser)]
enum Command {
    /// Shuts ext4 and xfs down under a writer; four of five cuts are on ext4.
    Fs {
        /// How many cuts.
        #[arg(long, default_value_t = 50)]
        cuts: u64,
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
        (FileSystem::Ext4, cuts - cuts / 5),
        (FileSystem::Xfs, cuts / 5),
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
