//! Every way in which a power cut can end, for histories short enough to try them all.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::crash::{SECTOR_BYTES, apply_names};
use super::injury::Injury;
use super::state::{Change, State};
use crate::rng::Rng;

/// What becomes of one change that was not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// It is gone.
    Lost,
    /// Of a write only the length is there; the data reads as what was there before, or zeros.
    Length,
    /// Of a write, so many sectors of 512 bytes from its beginning.
    First(u64),
    /// Of a write, all but so many sectors from its beginning.
    Last(u64),
    /// All of it.
    Whole,
}

/// The sectors that a write touches, in their order.
fn sectors(change: &Change) -> u64 {
    change.range().map_or(0, |(from, to)| {
        to.div_ceil(SECTOR_BYTES) - from / SECTOR_BYTES
    })
}

/// All that can become of a change.
fn outcomes(change: &Change) -> Vec<Outcome> {
    let mut all = vec![Outcome::Whole, Outcome::Lost];
    if change.range().is_some() {
        all.push(Outcome::Length);
    }
    for cut in 1..sectors(change) {
        all.push(Outcome::First(cut));
        all.push(Outcome::Last(cut));
    }
    all
}

fn left_of(change: &Change, outcome: Outcome) -> Option<Change> {
    let (from, to) = change.range().unwrap_or_default();
    let at = |cut: u64| (from / SECTOR_BYTES + cut) * SECTOR_BYTES;
    match outcome {
        Outcome::Lost => None,
        Outcome::Whole => Some(change.clone()),
        Outcome::Length => Some(Change::Grow(to)),
        Outcome::First(cut) => change.part(from, at(cut)),
        Outcome::Last(cut) => change.part(at(cut), to),
    }
}

/// For each change that is not durable, in the order in which they were asked for, all that can become of it.
pub(super) fn choices(state: &State) -> Vec<Vec<Outcome>> {
    let mut choices: BTreeMap<u64, Vec<Outcome>> = BTreeMap::new();
    for inode in state.inodes.values() {
        for pending in &inode.pending {
            choices.insert(pending.stamp, outcomes(&pending.change));
        }
    }
    for pending in &state.pending_names {
        choices.insert(pending.stamp, vec![Outcome::Whole, Outcome::Lost]);
    }
    choices.into_values().collect()
}

/// The disk after a power cut with exactly these outcomes, one for each change; what has none is lost.
pub(super) fn crash(state: &State, outcomes: &[Outcome]) -> State {
    let chosen: BTreeMap<u64, Outcome> = state
        .pending()
        .into_iter()
        .zip(outcomes.iter().copied())
        .collect();
    let of = |stamp: u64| chosen.get(&stamp).copied().unwrap_or(Outcome::Lost);
    let mut injuries = state.injuries;
    let names = apply_names(
        state,
        |pending| of(pending.stamp) == Outcome::Whole,
        &mut injuries,
    );
    let mut content = BTreeMap::new();
    for ino in names.values() {
        let Some(inode) = state.inodes.get(ino) else {
            continue;
        };
        let mut bytes = Arc::clone(&inode.durable);
        for pending in &inode.pending {
            let outcome = of(pending.stamp);
            injuries.add(match outcome {
                Outcome::Lost => Injury::Lost,
                Outcome::Length => Injury::Longer,
                Outcome::First(_) | Outcome::Last(_) => Injury::TornAtSector,
                Outcome::Whole => Injury::Kept,
            });
            if let Some(change) = left_of(&pending.change, outcome) {
                change.apply(Arc::make_mut(&mut bytes));
            }
        }
        content.insert(*ino, bytes);
    }
    let mut after = state.with_files(names, content, Rng::new(0));
    after.injuries = injuries;
    after
}
