//! The page: what was measured, how, and what came out.
//!
//! - [`summary`]: one line for each piece of work, us against the best of the others.
//! - [`table`]: all figures of one piece of work.
//! - [`method`]: machine, configurations, how it was measured.
//!
//! And for the pages of other commands: [`numbers`] for people, [`part`]s of one page, the [`setting`] of figures.

mod method;
pub(crate) mod numbers;
pub(crate) mod part;
mod setting;
mod summary;
mod table;

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::cell::{Cell, Measure};
use crate::gauge::limits::Limits;
use crate::peer::Peer;
use crate::results::{self, Figures, Line, Run, RunResult, Session};
use crate::stats::{Spread, ratio};

pub(crate) use self::method::{limits_line, machine_line};
use self::numbers::{count, latency};
pub(crate) use self::setting::Setting;

/// All results of one file.
#[derive(Debug, Default)]
struct Data {
    sessions: Vec<Session>,
    limits: Vec<Limits>,
    runs: Vec<Run>,
}

impl Data {
    fn of(lines: Vec<Line>) -> Self {
        let mut data = Self::default();
        for line in lines {
            match line {
                Line::Session(session) => data.sessions.push(session),
                Line::Limits { limits, .. } => data.limits.push(limits),
                Line::Run(run) => data.runs.push(run),
            }
        }
        data
    }

    fn runs(&self, cell: Cell, peer: Peer) -> impl Iterator<Item = &Run> {
        let name = cell.name();
        let runs = self.runs.iter();
        runs.filter(move |run| run.cell == name && run.peer == peer)
    }

    fn measured(&self, cell: Cell, peer: Peer) -> Vec<&Figures> {
        let figures = self.runs(cell, peer).filter_map(|run| match &run.result {
            RunResult::Measured(figures) => Some(figures),
            _ => None,
        });
        figures.collect()
    }

    /// By what the peers of a cell are compared, for each round.
    fn compared(&self, cell: Cell, peer: Peer) -> Vec<((u64, u32), f64)> {
        let values = self.runs(cell, peer).filter_map(|run| {
            let RunResult::Measured(figures) = &run.result else {
                return None;
            };
            let value = match cell.measure() {
                Measure::Rate => figures.per_second,
                Measure::Latency => figures.latency_us?.p50,
            };
            Some(((run.session, run.round), value))
        });
        values.collect()
    }

    /// How many times as good `ours` is as `other`.
    fn ratio(&self, cell: Cell, ours: Peer, other: Peer) -> Option<Spread> {
        ratio(
            &self.compared(cell, ours),
            &self.compared(cell, other),
            cell.measure() == Measure::Rate,
        )
    }

    /// Why a peer was not measured, if it never was.
    fn absence(&self, cell: Cell, peer: Peer) -> Option<String> {
        let mut why = None;
        for run in self.runs(cell, peer) {
            match &run.result {
                RunResult::Measured(_) => return None,
                RunResult::Skipped(words) => why = Some(format!("SKIPPED({peer}): {words}")),
                RunResult::Failed(words) => why = Some(format!("failed: {words}")),
            }
        }
        why
    }

    /// The work that somebody has done, and by whom.
    fn cells(&self) -> Vec<(Cell, Vec<Peer>)> {
        let cells = Cell::all().into_iter().filter_map(|cell| {
            let mut peers = cell.peers();
            peers.retain(|peer| self.runs(cell, *peer).next().is_some());
            (!peers.is_empty()).then_some((cell, peers))
        });
        cells.collect()
    }
}

/// Writes the page of a file of results.
pub(crate) fn write(results: &Path, out: &Path) -> Result<()> {
    let page = page(results::read(results)?)?;
    if out.as_os_str() == "-" {
        return Ok(std::io::stdout().lock().write_all(page.as_bytes())?);
    }
    fs::write(out, page).with_context(|| format!("cannot write {}", out.display()))
}

fn page(lines: Vec<Line>) -> Result<String> {
    let data = Data::of(lines);
    if data.sessions.is_empty() || data.runs.is_empty() {
        bail!("there are no results");
    }
    let mut page = String::new();
    method::introduction(&mut page, &data)?;
    summary::summary(&mut page, &data)?;
    writeln!(page, "## All figures\n")?;
    method::legend(&mut page)?;
    for (cell, peers) in data.cells() {
        table::table(&mut page, &data, cell, &peers)?;
    }
    method::method(&mut page, &data)?;
    Ok(page)
}

/// How a measurement ended, in a line.
pub(crate) fn progress_line(result: &RunResult) -> String {
    match result {
        RunResult::Measured(figures) => {
            let latency = figures.latency_us.map_or_else(String::new, |latency_us| {
                format!(
                    ", p50 {}, p99 {}",
                    latency(latency_us.p50),
                    latency(latency_us.p99)
                )
            });
            format!(
                "{}/s{latency}, cpu {:.2}+{:.2} us; {}",
                count(figures.per_second),
                figures.server_cpu_us,
                figures.client_cpu_us,
                figures.verified
            )
        }
        RunResult::Skipped(why) => format!("SKIPPED: {why}"),
        RunResult::Failed(why) => format!("FAILED: {why}"),
    }
}

#[cfg(test)]
mod tests;
