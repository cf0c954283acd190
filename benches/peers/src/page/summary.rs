//! One line for each piece of work: this project's broker against the best of the others.

use std::fmt::Write as _;

use anyhow::Result;

use super::Data;
use super::numbers::{count, digits, latency, spread};
use crate::cell::{Cell, Measure};
use crate::peer::{Durability, Peer};
use crate::stats::Spread;

/// Writes the table.
pub(super) fn summary(page: &mut String, data: &Data) -> Result<()> {
    writeln!(
        page,
        "## In short\n\n\
         Ours syncs before every acknowledgement and before every delivery; on the left it stands against the best peer that \
         syncs too, on the right against the best that does not. A ratio over 1 means that ours is better: more a second, or \
         less time where a time (p50) is given.\n\n\
         | work | ours | best that syncs | ours is | best that does not | ours is |\n|---|---|---|---|---|---|"
    )?;
    for (cell, peers) in data.cells() {
        for ours in peers.iter().copied().filter(|peer| peer.is_ours()) {
            if data.measured(cell, ours).is_empty() {
                continue;
            }
            let name = if ours == Peer::OursBulk {
                format!("{}, bulk call", cell.title())
            } else {
                cell.title()
            };
            let value = spread(compared(data, cell, ours), |value| unit(cell, value))
                + &late(data, cell, ours);
            let synced = against(data, cell, ours, &peers, true);
            let others = against(data, cell, ours, &peers, false);
            writeln!(page, "| {name} | {value} | {synced} | {others} |")?;
        }
    }
    writeln!(page)?;
    Ok(())
}

fn compared(data: &Data, cell: Cell, peer: Peer) -> Option<Spread> {
    Spread::of(
        data.compared(cell, peer)
            .into_iter()
            .map(|(_, value)| value),
    )
}

/// The p99 beside a p50.
fn late(data: &Data, cell: Cell, peer: Peer) -> String {
    let figures = data.measured(cell, peer);
    let late = figures.into_iter().filter_map(|f| Some(f.latency_us?.p99));
    match (cell.measure(), Spread::of(late)) {
        (Measure::Latency, Some(late)) => format!(", p99 {}", latency(late.median)),
        _ => String::new(),
    }
}

fn unit(cell: Cell, value: f64) -> String {
    match cell.measure() {
        Measure::Rate => count(value),
        Measure::Latency => latency(value),
    }
}

/// The best of the peers that sync, or of those that do not, and the ratio to it.
fn against(data: &Data, cell: Cell, ours: Peer, peers: &[Peer], synced: bool) -> String {
    let others = peers
        .iter()
        .copied()
        .filter(|peer| !peer.is_ours() && (peer.durability() == Durability::Synced) == synced);
    let better = |value: f64| match cell.measure() {
        Measure::Rate => value,
        Measure::Latency => -value,
    };
    let best = others
        .filter_map(|peer| Some((peer, compared(data, cell, peer)?)))
        .max_by(|(_, left), (_, right)| better(left.median).total_cmp(&better(right.median)));
    let Some((peer, value)) = best else {
        return "- | -".to_owned();
    };
    let ratio = data.ratio(cell, ours, peer);
    format!(
        "{peer} {}{} | {}",
        unit(cell, value.median),
        late(data, cell, peer),
        spread(ratio, |ratio| format!("{} x", digits(ratio)))
    )
}
