//! Kills leaders, and prints how long nobody was answered, and what was lost.
//!
//! ```text
//! cargo run --release -p broker-sim --bin takeover -- --kills 300 --messages 1000000
//! cargo run --release -p broker-sim --bin takeover -- --bytes 10GB --handovers 100 --stampede 1000 --clients 1000 --idle 60
//! ```
//! Everything runs on this machine, as real processes: the same program is started as the agents, with `agent` as its first
//! argument. The table's times come from what the processes wrote down, the losses from the checker, which compares all of that
//! with what the rooms hold in the end.
#![expect(clippy::print_stdout, reason = "the table is what it is for")]

mod clients;
mod idle;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use broker_sim::Rng;
use broker_sim::agent::{self, Work};
use broker_sim::fleet::{Fleet, Program, Spread, bytes_below};
use broker_sim::history::check::{Kind, Verdict};
use clap::Parser;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// How long the history that is there before may take to be made.
const BUILD_MAX: Duration = Duration::from_secs(3_600);

/// Kills leaders, and prints how long nobody was answered, and what was lost.
#[derive(Debug, Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Command {
    #[command(subcommand)]
    part: Option<Part>,
    #[command(flatten)]
    options: Options,
}

#[derive(Debug, clap::Subcommand)]
enum Part {
    /// Is one of the processes that take part.
    #[command(hide = true)]
    Agent(agent::Args),
}

#[derive(Debug, clap::Args)]
struct Options {
    /// Leaders to kill with SIGKILL
    #[arg(long, default_value_t = 300)]
    kills: u32,
    /// Messages of 128 bytes that are stored before
    #[arg(long, default_value_t = 1_000_000)]
    messages: u64,
    /// Bytes that are stored before, in messages of 256 KiB, as 500MB or 10GB
    #[arg(long, default_value = "0", value_parser = parse_bytes)]
    bytes: u64,
    /// Leaders to send away in order, with SIGTERM
    #[arg(long, default_value_t = 0)]
    handovers: u32,
    /// Rounds in which the leader of 50 processes is killed as soon as it leads
    #[arg(long, default_value_t = 0)]
    stampede: u32,
    /// Clients of one process that connect again after a kill
    #[arg(long, default_value_t = 0)]
    clients: usize,
    /// Seconds for which an idle standby is watched
    #[arg(long, default_value_t = 0)]
    idle: u64,
    /// Messages per second of each of the four senders
    #[arg(long, default_value_t = 400)]
    rate: u32,
    /// Seed of the moments of the kills
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where the stores are made, and removed in the end
    #[arg(long)]
    dir: Option<PathBuf>,
}

fn parse_bytes(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|end: char| end.is_ascii_alphabetic());
    let unit = match text.get(digits.len()..).unwrap_or_default() {
        "" => 1,
        "kB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        other => return Err(format!("no unit of bytes: {other}")),
    };
    let number: u64 = digits.parse().map_err(|_| format!("no number: {digits}"))?;
    number
        .checked_mul(unit)
        .ok_or_else(|| format!("too many bytes: {text}"))
}

fn main() -> anyhow::Result<()> {
    let command = Command::parse();
    match command.part {
        Some(Part::Agent(args)) => tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?
            .block_on(agent::run(args)),
        None => measure(&command.options),
    }
}

/// This program, as an agent.
fn program() -> anyhow::Result<Program> {
    Ok(Program {
        path: std::env::current_exe()?,
        args: vec!["agent".into()],
    })
}

fn measure(options: &Options) -> anyhow::Result<()> {
    raise_descriptor_limit()?;
    let parent = match &options.dir {
        Some(dir) => tempfile::tempdir_in(dir)?,
        None => tempfile::tempdir()?,
    };
    print_surroundings(options, parent.path())?;
    measure_changes(options, &parent.path().join("changes"))?;
    if options.stampede > 0 {
        measure_stampede(options, &parent.path().join("stampede"))?;
    }
    if options.idle > 0 {
        let idle = Duration::from_secs(options.idle);
        idle::measure(program()?, &parent.path().join("idle"), idle)?;
    }
    Ok(())
}

/// Kills, hand-overs and clients, all at one store.
fn measure_changes(options: &Options, parent: &Path) -> anyhow::Result<()> {
    let mut fleet = Fleet::new(program()?, parent)?;
    let mut rng = Rng::new(options.seed);
    build(&mut fleet, options)?;
    let mut term = fleet.newest_term();
    for _ in 0..4 {
        fleet.start(publisher(options.rate))?;
        fleet.start(subscriber())?;
    }
    for _ in 0..options.kills {
        await_load(&mut fleet, term, &mut rng)?;
        let leader = fleet.await_leader(term)?;
        term = fleet.kill_leader(leader)?.term;
        fleet.await_leader(term)?;
        fleet.restart(leader.agent)?;
    }
    for _ in 0..options.handovers {
        await_load(&mut fleet, term, &mut rng)?;
        let leader = fleet.await_leader(term)?;
        term = fleet.dismiss_leader(leader)?.term;
        fleet.await_acks(term)?;
        fleet.await_end(leader.agent)?;
        fleet.restart(leader.agent)?;
    }
    let mut reconnects = Vec::new();
    if options.clients > 0 {
        fleet.await_acks(term)?;
        for _ in 0..5 {
            reconnects.push(clients::measure(&mut fleet, options.clients)?);
        }
    }
    fleet.finish()?;
    let verdict = fleet.check()?;
    print_changes(options, &fleet, &reconnects)?;
    print_verdict("in all of this", &verdict)
}

/// Fills the store with a past, which nobody reads before the end.
fn build(fleet: &mut Fleet, options: &Options) -> anyhow::Result<()> {
    let past = |room: &str, messages, bytes, pipeline| Work {
        rooms: vec![room.to_owned()],
        publish: true,
        pipeline,
        messages,
        bytes,
        ..Work::default()
    };
    let large = options.bytes.div_ceil(256 << 10);
    let pasts = [
        past("past", options.messages, 128, 1_024),
        past("large-past", large, 256 << 10, 32),
    ];
    for work in pasts.into_iter().filter(|work| work.messages > 0) {
        let historian = fleet.start(work)?;
        fleet
            .await_sent(historian, BUILD_MAX)
            .context("storing the past")?;
        fleet.kill(historian)?;
    }
    let bytes = if fleet.is_empty() {
        0
    } else {
        bytes_below(fleet.dir())?
    };
    println!("stored before: {bytes} bytes of files");
    Ok(())
}

fn rooms() -> Vec<String> {
    vec!["lobby".to_owned(), "ops".to_owned()]
}

fn publisher(rate: u32) -> Work {
    Work {
        rooms: rooms(),
        publish: true,
        pipeline: 16,
        bytes: 128,
        rate,
        ask_every: 50,
        ..Work::default()
    }
}

fn subscriber() -> Work {
    Work {
        rooms: rooms(),
        subscribe: true,
        cursor_every: 50,
        ..Work::default()
    }
}

/// Waits until the load runs in a term after `term`, and then for a moment.
fn await_load(fleet: &mut Fleet, term: u64, rng: &mut Rng) -> anyhow::Result<()> {
    fleet.await_acks(term)?;
    // The kill is to come at any moment, not right behind the first ack.
    std::thread::sleep(Duration::from_micros(50_000 + rng.below(200_000)));
    Ok(())
}

/// Fifty processes, of which the leader is killed as soon as it leads.
fn measure_stampede(options: &Options, parent: &Path) -> anyhow::Result<()> {
    let mut fleet = Fleet::new(program()?, parent)?;
    for _ in 0..50 {
        let (publish, pipeline, rate) = (true, 1, 5);
        fleet.start(Work {
            rooms: rooms(),
            publish,
            pipeline,
            rate,
            ..Work::default()
        })?;
    }
    let mut term = 0;
    for _ in 0..options.stampede {
        let leader = fleet.await_leader(term)?;
        term = fleet.kill_leader(leader)?.term;
        fleet.restart_all()?;
    }
    fleet.await_acks(term)?;
    fleet.finish()?;
    let verdict = fleet.check()?;
    println!("stampede of 50 processes, {} rounds", options.stampede);
    print_pauses(&fleet)?;
    print_verdict("in the stampede", &verdict)
}

fn print_surroundings(options: &Options, dir: &Path) -> anyhow::Result<()> {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    println!(
        "broker {}, Linux {}, {} cores, load average {}",
        env!("CARGO_PKG_VERSION"),
        read("/proc/sys/kernel/osrelease").trim(),
        std::thread::available_parallelism()?,
        read("/proc/loadavg").trim(),
    );
    println!(
        "seed {}, {} messages of 128 bytes and {} bytes before, 4 senders of {} messages/s and 4 readers, in {}",
        options.seed,
        options.messages,
        options.bytes,
        options.rate,
        dir.display()
    );
    Ok(())
}

fn print_pauses(fleet: &Fleet) -> anyhow::Result<()> {
    let pauses = fleet.pauses()?;
    let spread: Spread = pauses
        .iter()
        .flatten()
        .map(|pause| pause.new_leader)
        .collect();
    println!("{:44} {spread}", "SIGKILL to first ack of the new leader");
    let any: Spread = pauses.iter().flatten().map(|pause| pause.any).collect();
    println!("{:44} {any}", "SIGKILL to any ack");
    let cut_short = pauses.iter().filter(|pause| pause.is_none()).count();
    if cut_short > 0 {
        println!("{:44} {cut_short}", "killed before its first ack");
    }
    Ok(())
}

fn print_changes(
    options: &Options,
    fleet: &Fleet,
    reconnects: &[Vec<Duration>],
) -> anyhow::Result<()> {
    print_pauses(fleet)?;
    if options.handovers > 0 {
        let handovers: Spread = fleet.handovers()?.into_iter().flatten().collect();
        let what = "SIGTERM: last ack of old to first of new leader";
        println!("{what:44} {handovers}");
    }
    if options.clients > 0 {
        let what = format!("SIGKILL to answer, {} clients", options.clients);
        let all: Spread = reconnects.iter().flatten().copied().collect();
        println!("{what:44} {all}");
        let last: Spread = reconnects
            .iter()
            .filter_map(|all| all.iter().copied().max())
            .collect();
        println!("{:44} {last}", "  the last of them");
    }
    Ok(())
}

/// Prints what was checked; a broken promise is the end of it.
fn print_verdict(what: &str, verdict: &Verdict) -> anyhow::Result<()> {
    let counts = verdict.counts;
    println!(
        "{what}: {} acknowledgements and {} deliveries of {} processes in {} terms were checked",
        counts.acked, counts.delivered, counts.processes, counts.terms
    );
    println!(
        "  lost {}, doubled {}, reordered {}, other violations {}; sends refused {}, unknown {}, requests failed {}",
        verdict.broken(&[Kind::Lost, Kind::Gap]),
        verdict.broken(&[Kind::Doubled, Kind::Replaced, Kind::Repeated]),
        verdict.broken(&[Kind::SenderOrder, Kind::RealTime]),
        verdict.broken(&[
            Kind::Phantom,
            Kind::Refused,
            Kind::Epoch,
            Kind::TwoLeaders,
            Kind::TermFell,
            Kind::Cursor,
            Kind::Malformed,
        ]),
        counts.refused,
        counts.unknown,
        counts.unanswered
    );
    anyhow::ensure!(verdict.is_clean(), "{verdict}");
    for failure in &verdict.failures {
        println!("  failed: {failure}");
    }
    Ok(())
}

/// A thousand clients need more descriptors than many systems give at first.
fn raise_descriptor_limit() -> anyhow::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        },
    )
    .context("raising the limit of open files")
}
