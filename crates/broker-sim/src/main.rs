//! Campaigns against the broker, by name.
//!
//! ```text
//! cargo run --release -p broker-sim -- report                one page of what the log survived
//! cargo run --release -p broker-sim -- report --depth 10     ten times as much of everything
//! cargo run -p broker-sim -- golden                          keep a store of a new format version for good
//! ```
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the page is what it is for"
)]

use std::io;
use std::process::{Command as Process, ExitCode};

use broker_sim::golden;
use broker_sim::report::{self, Options, Report};
use clap::Parser;

/// Campaigns against the broker.
#[derive(Debug, Parser)]
struct Command {
    #[command(subcommand)]
    campaign: Campaign,
}

#[derive(Debug, clap::Subcommand)]
enum Campaign {
    /// Run every long test and print one page of what was tried and what it found
    Report(Args),
    /// Write the golden store of a new format version into the sources, once
    Golden,
}

#[derive(Debug, clap::Args)]
struct Args {
    /// How many times as much as on every change is tried
    #[arg(long, default_value_t = 1)]
    depth: u64,
    /// Where chance begins; the same seed repeats what is not left to a real kernel
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Only these: modules of the tests, schedules, fuzz, planted
    #[arg(long, value_name = "NAME", num_args = 1..)]
    only: Vec<String>,
    /// How long each parser is fuzzed [default: 10 times the depth]
    #[arg(long, value_name = "SECONDS")]
    fuzz_seconds: Option<u64>,
    /// Build the tests as on every change, not as a release
    #[arg(long)]
    debug: bool,
}

fn main() -> io::Result<ExitCode> {
    match Command::parse().campaign {
        Campaign::Report(args) => report(args),
        Campaign::Golden => Ok(golden()),
    }
}

fn golden() -> ExitCode {
    match golden::write() {
        Ok(path) => {
            println!("{}", path.display());
            ExitCode::SUCCESS
        }
        Err(broken) => {
            eprintln!("{broken}");
            ExitCode::FAILURE
        }
    }
}

fn report(args: Args) -> io::Result<ExitCode> {
    let options = Options {
        depth: args.depth.max(1),
        seed: args.seed,
        planted: args.only.is_empty() || args.only.iter().any(|name| name == "planted"),
        fuzz_seconds: args.fuzz_seconds.unwrap_or(10 * args.depth.max(1)),
        only: args.only,
        release: !args.debug,
    };
    let mut report = report::run(&options, &mut |line| eprintln!("{line}"))?;
    report.setting = setting(&options);
    print!("{report}");
    Ok(verdict(&report))
}

fn verdict(report: &Report) -> ExitCode {
    if report.is_clean() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Of what, where and how the report was made.
fn setting(options: &Options) -> Vec<(String, String)> {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let commit = say("git", &["describe", "--always", "--dirty", "--abbrev=12"]);
    [
        ("commit", commit),
        ("options", words(options)),
        ("compiler", say("rustc", &["--version"])),
        (
            "machine",
            format!("{}, {cores} cores", say("uname", &["-srm"])),
        ),
        ("ended", say("date", &["-u", "+%Y-%m-%d %H:%M UTC"])),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

/// The options as they can be typed again.
fn words(options: &Options) -> String {
    let mut words = format!(
        "report --seed {} --depth {} --fuzz-seconds {}",
        options.seed, options.depth, options.fuzz_seconds
    );
    if !options.release {
        words.push_str(" --debug");
    }
    if !options.only.is_empty() {
        words.push_str(" --only ");
        words.push_str(&options.only.join(" "));
    }
    words
}

/// The first line that a program says; nothing when it is not there.
fn say(program: &str, args: &[&str]) -> String {
    let output = Process::new(program).args(args).output();
    let text = output.map(|output| output.stdout).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    text.lines().next().unwrap_or("unknown").to_owned()
}
