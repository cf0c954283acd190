//! What is kept of a measurement: a JSON object a line, so that parts of a run can be made at different times and the page be
//! written again without measuring.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;

use anyhow::{Context, Result};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::cell::Cell;
use crate::gauge::limits::Limits;
use crate::gauge::machine::Machine;
use crate::load::Outcome;
use crate::peer::Peer;
use crate::stats::{Quantiles, float};

/// One line of the file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub(crate) enum Line {
    /// A run has begun.
    Session(Session),
    /// What the bare machine did at the beginning of a round.
    Limits {
        session: u64,
        round: u32,
        limits: Limits,
    },
    /// One piece of work was done by one peer.
    Run(Run),
}

/// How a run was made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Session {
    /// When it began, in seconds since 1970; its name in the other lines.
    pub(crate) session: u64,
    pub(crate) machine: Machine,
    /// How long each was measured.
    pub(crate) seconds: f64,
    pub(crate) client_threads: u32,
    pub(crate) replay_count: u64,
    /// What each program says that it is.
    pub(crate) versions: Vec<(Peer, String)>,
}

/// What a peer made of a piece of work in one round.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Run {
    pub(crate) session: u64,
    pub(crate) round: u32,
    pub(crate) cell: String,
    pub(crate) peer: Peer,
    pub(crate) result: RunResult,
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum RunResult {
    /// It was measured and verified.
    Measured(Figures),
    /// It could not be measured here: what is missing.
    Skipped(String),
    /// It went wrong.
    Failed(String),
}

/// The figures of one measurement.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Figures {
    /// Messages or deliveries.
    pub(crate) count: u64,
    pub(crate) seconds: f64,
    pub(crate) per_second: f64,
    /// Payload bytes, in millions.
    pub(crate) mb_per_second: f64,
    pub(crate) latency_us: Option<Quantiles>,
    /// Processor time for one message or delivery.
    pub(crate) server_cpu_us: f64,
    pub(crate) client_cpu_us: f64,
    /// The most memory of the server.
    pub(crate) server_rss: Option<u64>,
    /// For one message, by anybody on that disk.
    pub(crate) flushes: Option<f64>,
    /// What was verified.
    pub(crate) verified: String,
}

impl Figures {
    pub(crate) fn new(cell: Cell, outcome: Outcome, server_rss: Option<u64>) -> Self {
        let seconds = outcome.spent.elapsed.as_secs_f64();
        let count = float(outcome.count);
        let bytes = count * float(cell.size() as u64);
        let each = |total: f64| total / count.max(1.0);
        Self {
            count: outcome.count,
            seconds,
            per_second: count / seconds,
            mb_per_second: bytes / seconds / 1e6,
            latency_us: outcome
                .latencies
                .and_then(|latencies| latencies.quantiles()),
            server_cpu_us: each(outcome.spent.server.as_secs_f64() * 1e6),
            client_cpu_us: each(outcome.spent.client.as_secs_f64() * 1e6),
            server_rss,
            flushes: outcome.spent.flushes.map(|flushes| each(float(flushes))),
            verified: outcome.verified,
        }
    }
}

/// The file to which lines are added.
#[derive(Debug)]
pub(crate) struct Results(File);

impl Results {
    /// Begins a file, or goes on with it.
    pub(crate) fn open(path: &Path, append: bool) -> Result<Self> {
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)
                .with_context(|| format!("cannot make {}", parent.display()))?;
        }
        let file = OpenOptions::new()
            .create(true)
            .append(append)
            .write(true)
            .truncate(!append)
            .open(path);
        Ok(Self(file.with_context(|| {
            format!("cannot write {}", path.display())
        })?))
    }

    /// Adds a line at once, so that a run that is broken off keeps what it has.
    pub(crate) fn add(&mut self, line: &impl Serialize) -> Result<()> {
        let mut text = serde_json::to_string(line)?;
        text.push('\n');
        self.0
            .write_all(text.as_bytes())
            .context("cannot write the results")
    }
}

/// Everything in a file.
pub(crate) fn read<L: DeserializeOwned>(path: &Path) -> Result<Vec<L>> {
    let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    let lines = BufReader::new(file).lines().enumerate();
    lines
        .map(|(number, line)| {
            serde_json::from_str(&line?)
                .with_context(|| format!("line {} of {} is no result", number + 1, path.display()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use std::time::Duration;

    use super::*;
    use crate::gauge::Spent;
    use crate::stats::Latencies;

    #[test]
    fn lines_go_there_and_back_and_parts_add_up() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sub/results.jsonl");
        let run = |round, result| {
            Line::Run(Run {
                session: 7,
                round,
                cell: "publish-1x1-128".to_owned(),
                peer: Peer::RedisSync,
                result,
            })
        };
        let first = run(1, RunResult::Skipped("no".to_owned()));
        let second = run(2, RunResult::Failed("broken".to_owned()));
        Results::open(&path, false).unwrap().add(&first).unwrap();
        Results::open(&path, true).unwrap().add(&second).unwrap();
        assert_eq!(read::<Line>(&path).unwrap(), [first, second.clone()]);
        Results::open(&path, false).unwrap().add(&second).unwrap();
        assert_eq!(read::<Line>(&path).unwrap(), [second]);
        std::fs::write(&path, "{}\n").unwrap();
        assert!(read::<Line>(&path).is_err());
    }

    #[test]
    fn figures_are_for_one_message() {
        let mut latencies = Latencies::new();
        latencies.record(100_000, 1);
        let outcome = Outcome {
            count: 1000,
            spent: Spent {
                elapsed: Duration::from_millis(500),
                server: Duration::from_millis(10),
                client: Duration::from_millis(20),
                flushes: Some(50),
            },
            latencies: Some(latencies),
            verified: String::new(),
        };
        let figures = Figures::new(Cell::Replay { size: 1024 }, outcome, None);
        let near = |left: f64, right: f64| (left - right).abs() < 1e-9;
        assert!(near(figures.per_second, 2000.0) && near(figures.mb_per_second, 2.048));
        assert!(near(figures.server_cpu_us, 10.0) && near(figures.client_cpu_us, 20.0));
        assert!(near(figures.flushes.unwrap(), 0.05));
    }
}
