//! All figures of one piece of work.

use std::fmt::Write as _;

use anyhow::Result;

use super::Data;
use super::numbers::{count, digits, latency, spread};
use crate::cell::Cell;
use crate::peer::{Durability, Peer};
use crate::results::Figures;
use crate::stats::{Quantiles, Spread, float};

/// Writes the table of one cell.
pub(super) fn table(page: &mut String, data: &Data, cell: Cell, peers: &[Peer]) -> Result<()> {
    writeln!(
        page,
        "### {}\n\n\
         | peer | synced | {}/s | MB/s | p50 | p99 | p99.9 | server cpu | client cpu | RSS | flushes | ours / it |\n\
         |---|---|---|---|---|---|---|---|---|---|---|---|",
        cell.title(),
        cell.unit(),
    )?;
    let mut notes = Vec::new();
    for &peer in peers {
        match data.absence(cell, peer) {
            Some(why) => writeln!(page, "| {peer} | | {why} | | | | | | | | | |")?,
            None => writeln!(page, "{}", row(data, cell, peer))?,
        }
        for run in data.runs(cell, peer) {
            if let crate::results::RunResult::Failed(why) = &run.result {
                notes.push(format!("{peer}, round {}: {why}", run.round));
            }
        }
    }
    writeln!(page, "\n{}", verified(data, cell, peers))?;
    for note in notes {
        writeln!(page, "- failed: {note}")?;
    }
    writeln!(page)?;
    Ok(())
}

fn row(data: &Data, cell: Cell, peer: Peer) -> String {
    let figures = data.measured(cell, peer);
    let of = |value: &dyn Fn(&Figures) -> Option<f64>| {
        Spread::of(figures.iter().copied().filter_map(value))
    };
    let time = |place: fn(&Quantiles) -> f64| {
        let spread = of(&|f| f.latency_us.as_ref().map(place));
        spread.map_or_else(|| "-".to_owned(), |spread| latency(spread.median))
    };
    let median = |value: &dyn Fn(&Figures) -> Option<f64>, text: &dyn Fn(f64) -> String| {
        of(value).map_or_else(|| "-".to_owned(), |spread| text(spread.median))
    };
    let synced = match peer.durability() {
        Durability::Synced => "yes",
        Durability::Later => "later",
        Durability::Never => "no",
    };
    let ratio = if peer == Peer::Ours {
        None
    } else {
        data.ratio(cell, Peer::Ours, peer)
    };
    let micros = |value: f64| format!("{} us", digits(value));
    format!(
        "| {peer} | {synced} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
        spread(of(&|f| Some(f.per_second)), count),
        median(&|f| Some(f.mb_per_second), &digits),
        time(|q| q.p50),
        time(|q| q.p99),
        time(|q| q.p999),
        median(&|f| Some(f.server_cpu_us), &micros),
        median(&|f| Some(f.client_cpu_us), &micros),
        median(&|f| f.server_rss.map(mebibytes), &|v| format!("{v:.0} MiB")),
        median(&|f| f.flushes, &digits),
        spread(ratio, |ratio| format!("{} x", digits(ratio))),
    )
}

fn mebibytes(bytes: u64) -> f64 {
    float(bytes) / f64::from(1 << 20)
}

/// What the last measurement of each peer verified.
fn verified(data: &Data, cell: Cell, peers: &[Peer]) -> String {
    let words = peers.iter().filter_map(|&peer| {
        let figures = data.measured(cell, peer);
        let last = figures.last()?;
        Some(format!("{peer} {}", last.verified))
    });
    let words: Vec<String> = words.collect();
    if words.is_empty() {
        return "Nothing was measured.".to_owned();
    }
    format!(
        "Verified in every round; in the last one: {}.",
        words.join("; ")
    )
}
