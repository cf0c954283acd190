//! Measures: every piece of work, every peer in turn, round after round.

use std::env;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tempfile::TempDir;

use crate::args::Run as Options;
use crate::cell::Cell;
use crate::gauge::Gauge;
use crate::gauge::limits::Limits;
use crate::gauge::machine::{Machine, file_system};
use crate::load::{Outcome, Stage, fan_out, publish, replay};
use crate::page;
use crate::peer::Peer;
use crate::results::{Figures, Line, Results, Run, RunResult, Session};
use crate::say;
use crate::server::{Running, Server};
use crate::tools::{Tools, target_dir};

/// Files that a thousand connections need on either side.
const FILES: u64 = 8192;

/// Where the results lie when nothing else is said.
pub(crate) fn results_path(given: Option<&PathBuf>) -> PathBuf {
    given
        .cloned()
        .unwrap_or_else(|| target_dir().join("peers/results.jsonl"))
}

/// Runs the command.
pub(crate) fn run(options: &Options) -> Result<()> {
    let cells = Cell::chosen(&options.only).map_err(anyhow::Error::msg)?;
    let base = base_dir(options.dir.as_deref())?;
    let running = Running::default();
    running.end_on_signals(base.path().to_owned())?;
    raise_file_limit(FILES);
    let path = results_path(options.report.results.as_ref());
    let campaign = Campaign {
        options,
        tools: Tools::new(options.programs.clone()),
        base: base.path(),
        running,
        session: session_name(),
    };
    let results = Results::open(&path, options.append)?;
    let failures = campaign.run(&cells, results)?;
    page::write(&path, &options.report.out)?;
    say(&format!(
        "results in {}, page in {}",
        path.display(),
        options.report.out.display()
    ));
    if failures > 0 {
        bail!("{failures} measurements failed");
    }
    Ok(())
}

/// A directory for the data of all servers, on a disk unless it was named.
pub(crate) fn base_dir(given: Option<&Path>) -> Result<TempDir> {
    let dir = given.map_or_else(env::temp_dir, Path::to_owned);
    if file_system(&dir).is_some_and(|kind| kind == "tmpfs") && given.is_none() {
        bail!(
            "{} is in memory, where a sync means nothing: name a directory on a disk with --dir",
            dir.display()
        );
    }
    tempfile::Builder::new()
        .prefix("broker-peers-")
        .tempdir_in(&dir)
        .with_context(|| format!("cannot make a directory in {}", dir.display()))
}

/// What a run that begins now is called.
pub(crate) fn session_name() -> u64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// Lets this process and the servers, which inherit it, open so many files, as far as the system allows it.
pub(crate) fn raise_file_limit(files: u64) {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_some_and(|current| current < files) {
        let current = Some(maximum.map_or(files, |maximum| files.min(maximum)));
        // What does not work for lack of it says so.
        let _ = setrlimit(Resource::Nofile, Rlimit { current, maximum });
    }
}

struct Campaign<'a> {
    options: &'a Options,
    tools: Tools,
    base: &'a Path,
    running: Running,
    session: u64,
}

impl Campaign<'_> {
    /// Measures everything; tells how many measurements failed.
    fn run(&self, cells: &[Cell], mut results: Results) -> Result<usize> {
        results.add(&Line::Session(self.session()))?;
        let mut works: Vec<(Cell, Peer)> = Vec::new();
        for &cell in cells {
            works.extend(self.peers(cell).into_iter().map(|peer| (cell, peer)));
        }
        if works.is_empty() {
            bail!("none of these peers does this work");
        }
        self.tell_missing(&works);
        let mut failures = 0;
        for round in 1..=self.options.rounds {
            let limits = Limits::measure(self.base)?;
            say(&format!("round {round}: {}", page::limits_line(&limits)));
            results.add(&Line::Limits {
                session: self.session,
                round,
                limits,
            })?;
            for (number, &(cell, peer)) in in_turn(&works, round).iter().enumerate() {
                let result = self.one(cell, peer);
                let line = page::progress_line(&result);
                say(&format!(
                    "[{round}/{} {}/{}] {:<20} {peer:<14} {line}",
                    self.options.rounds,
                    number + 1,
                    works.len(),
                    cell.name(),
                ));
                failures += usize::from(matches!(result, RunResult::Failed(_)));
                results.add(&Line::Run(Run {
                    session: self.session,
                    round,
                    cell: cell.name(),
                    peer,
                    result,
                }))?;
            }
        }
        Ok(failures)
    }

    fn peers(&self, cell: Cell) -> Vec<Peer> {
        let chosen = &self.options.peers;
        let mut peers = cell.peers();
        peers.retain(|peer| chosen.is_empty() || chosen.contains(peer));
        peers
    }

    fn session(&self) -> Session {
        let versions = Peer::ALL.into_iter().filter_map(|peer| {
            let version = self.tools.version(peer.tool())?;
            Some((peer, version))
        });
        Session {
            session: self.session,
            machine: Machine::here(self.base),
            seconds: self.options.seconds,
            client_threads: self.options.client_threads,
            replay_count: self.options.replay_count,
            versions: versions.collect(),
        }
    }

    fn tell_missing(&self, works: &[(Cell, Peer)]) {
        for peer in Peer::ALL {
            if works.iter().any(|(_, other)| *other == peer)
                && let Err(why) = self.tools.find(peer.tool())
            {
                say(&format!("SKIPPED({peer}): {why}"));
            }
        }
    }

    fn one(&self, cell: Cell, peer: Peer) -> RunResult {
        if let Err(why) = self.tools.find(peer.tool()) {
            return RunResult::Skipped(why);
        }
        match self.measure(cell, peer) {
            Ok(figures) => RunResult::Measured(figures),
            Err(error) => RunResult::Failed(format!("{error:#}")),
        }
    }

    fn measure(&self, cell: Cell, peer: Peer) -> Result<Figures> {
        let server = Server::start(peer, &self.tools, self.base, &self.running)?;
        let measured = Duration::from_secs_f64(self.options.seconds);
        let stage = Stage {
            peer,
            address: server.address(),
            gauge: Gauge::new(server.process(), server.dir()),
            threads: self.options.client_threads.try_into()?,
            warm_up: measured / 4,
            measured,
        };
        let outcome = self.work(cell, stage)?;
        if outcome.count == 0 {
            bail!("nothing came within the measured time, which is too short");
        }
        let rss = Gauge::new(server.process(), server.dir()).rss_peak();
        Ok(Figures::new(cell, outcome, rss))
    }

    fn work(&self, cell: Cell, stage: Stage) -> Result<Outcome> {
        match cell {
            Cell::Publish {
                publishers,
                window,
                size,
            } => {
                let plan = publish::Plan {
                    publishers,
                    rooms: publishers,
                    window,
                    size,
                    count: u64::MAX,
                };
                publish::run(&stage, plan)
            }
            Cell::FanOut { subscribers, size } => {
                let plan = fan_out::Plan {
                    subscribers,
                    size,
                    speed: fan_out::Speed::Max,
                };
                fan_out::run(stage, plan)
            }
            Cell::Rate {
                subscribers,
                per_second,
                size,
            } => {
                let plan = fan_out::Plan {
                    subscribers,
                    size,
                    speed: fan_out::Speed::Rate(per_second),
                };
                fan_out::run(stage, plan)
            }
            Cell::Replay { size } => replay::run(&stage, self.options.replay_count, size),
        }
    }
}

/// The works of a round: the peers of each cell one after the other, another one first in each round.
fn in_turn(works: &[(Cell, Peer)], round: u32) -> Vec<(Cell, Peer)> {
    let mut turned = works.to_vec();
    for peers in turned.chunk_by_mut(|left, right| left.0 == right.0) {
        let first = round.saturating_sub(1) as usize % peers.len();
        peers.rotate_left(first);
    }
    turned
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_round_begins_with_another_peer() {
        let replay = Cell::Replay { size: 1 };
        let fan_out = Cell::FanOut {
            subscribers: 1,
            size: 16,
        };
        let works = [
            (replay, Peer::Ours),
            (replay, Peer::Nats),
            (replay, Peer::Redis),
            (fan_out, Peer::Ours),
        ];
        assert_eq!(in_turn(&works, 1), works);
        let second = in_turn(&works, 2).into_iter().map(|(_, peer)| peer);
        let expected = [Peer::Nats, Peer::Redis, Peer::Ours, Peer::Ours];
        assert_eq!(second.collect::<Vec<_>>(), expected);
        assert_eq!(in_turn(&works, 4), works);
    }
}
