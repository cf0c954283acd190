//! What a power cut leaves of changes that were not durable.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::content::Content;
use super::injury::{Injuries, Injury};
use super::state::{Change, Inode, NameChange, Pending, State};
use crate::rng::Rng;

/// Bytes that a disk writes at once or not at all.
const SECTOR_BYTES: u64 = 512;

/// Into what pieces a write may break.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Tear {
    /// None: each write is there or not.
    Whole,
    /// Sectors of 512 bytes, each of which is there or not. What disks promise.
    Sector,
    /// Any bytes. More than disks do, so less to rely on.
    Byte,
}

/// Which of the changes that were not durable a power cut leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum CrashMode {
    /// None of them.
    LoseAll,
    /// All of them.
    KeepAll,
    /// All up to some point, in the order in which they were asked for; the one at that point may be torn.
    Prefix(Tear),
    /// Each of them kept, lost or torn for itself; kept ones may have overtaken each other.
    Any(Tear),
    /// Change number i (counted from 0, in the order in which they were asked for) if bit i is set, whole, in order. For trying
    /// all subsets: 0 to 2^[`pending_count`](super::SimDisk::pending_count) - 1. Changes from number 64 on are lost.
    Exact(u64),
}

impl CrashMode {
    /// All modes that a test with random crashes should go through.
    pub const ALL: [Self; 8] = [
        Self::LoseAll,
        Self::KeepAll,
        Self::Prefix(Tear::Whole),
        Self::Prefix(Tear::Sector),
        Self::Prefix(Tear::Byte),
        Self::Any(Tear::Whole),
        Self::Any(Tear::Sector),
        Self::Any(Tear::Byte),
    ];

    /// One of [`ALL`](Self::ALL).
    #[must_use]
    pub fn draw(rng: &mut Rng) -> Self {
        rng.pick(&Self::ALL).copied().unwrap_or(Self::LoseAll)
    }
}

/// What becomes of one change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Kept,
    Lost,
    Torn(Tear),
}

/// The fates of all changes, by stamp.
struct Fates {
    of: BTreeMap<u64, Fate>,
    /// Whether kept changes may overtake each other, and files be longer than their data.
    wild: bool,
}

impl Fates {
    fn draw(stamps: &[u64], rng: &mut Rng, mode: CrashMode) -> Self {
        let point = rng.index(stamps.len().saturating_add(1));
        let fate = |(index, rng): (usize, &mut Rng)| match mode {
            CrashMode::LoseAll => Fate::Lost,
            CrashMode::KeepAll => Fate::Kept,
            CrashMode::Prefix(_) if index < point => Fate::Kept,
            CrashMode::Prefix(tear) if index == point => Fate::Torn(tear),
            CrashMode::Prefix(_) => Fate::Lost,
            CrashMode::Any(tear) => match rng.below(3) {
                0 => Fate::Kept,
                1 => Fate::Lost,
                _ => Fate::Torn(tear),
            },
            CrashMode::Exact(mask) => {
                let bit = u32::try_from(index)
                    .ok()
                    .and_then(|index| mask.checked_shr(index))
                    .unwrap_or(0);
                if bit & 1 == 1 { Fate::Kept } else { Fate::Lost }
            }
        };
        let of = stamps
            .iter()
            .enumerate()
            .map(|(index, stamp)| (*stamp, fate((index, rng))))
            .collect();
        Self {
            of,
            wild: matches!(mode, CrashMode::Prefix(_) | CrashMode::Any(_)),
        }
    }

    /// Whether a change is kept that came after one that is not.
    fn overtake(&self) -> bool {
        !self
            .of
            .values()
            .is_sorted_by_key(|fate| *fate != Fate::Kept)
    }

    /// The fate of a change; one that cannot be torn is kept or lost.
    fn whole<T>(&self, pending: &Pending<T>, rng: &mut Rng) -> bool {
        match self.of.get(&pending.stamp) {
            Some(Fate::Kept) => true,
            Some(Fate::Torn(_)) => rng.coin(),
            Some(Fate::Lost) | None => false,
        }
    }
}

pub(super) fn crash(state: &State, rng: &mut Rng, mode: CrashMode) -> State {
    let fates = Fates::draw(&state.pending(), rng, mode);
    let mut injuries = state.injuries;
    if fates.overtake() {
        injuries.add(Injury::Reordered);
    }
    let names = names_after(state, &fates, rng, &mut injuries);
    let mut content = BTreeMap::new();
    for ino in names.values() {
        if let Some(inode) = state.inodes.get(ino) {
            content.insert(*ino, content_after(inode, &fates, rng, &mut injuries));
        }
    }
    let mut after = state.with_files(names, content, rng.fork());
    after.injuries = injuries;
    after
}

/// A change of a name is lost too if an earlier one of the same name was.
fn names_after(
    state: &State,
    fates: &Fates,
    rng: &mut Rng,
    injuries: &mut Injuries,
) -> BTreeMap<String, u64> {
    let mut names = state.durable_names.clone();
    let mut behind: BTreeSet<&str> = BTreeSet::new();
    for pending in &state.pending_names {
        let touched = NameChange::touched(&pending.change);
        if fates.whole(pending, rng) && !touched.iter().any(|name| behind.contains(name)) {
            pending.change.apply(&mut names);
            injuries.add(Injury::Kept);
        } else {
            behind.extend(touched);
            injuries.add(match pending.change {
                NameChange::Create { .. } => Injury::CreateLost,
                NameChange::Rename { .. } => Injury::RenameLost,
                NameChange::Delete { .. } => Injury::DeleteLost,
            });
        }
    }
    names
}

fn content_after(
    inode: &Inode,
    fates: &Fates,
    rng: &mut Rng,
    injuries: &mut Injuries,
) -> Arc<Content> {
    let mut kept = Vec::new();
    for pending in &inode.pending {
        let change = &pending.change;
        let (injury, left) = match fates.of.get(&pending.stamp) {
            Some(Fate::Kept) => (Injury::Kept, vec![change.clone()]),
            Some(Fate::Torn(Tear::Sector)) if change.range().is_some() => {
                (Injury::TornAtSector, torn_by_sector(change, rng))
            }
            Some(Fate::Torn(Tear::Byte)) if change.range().is_some() => {
                (Injury::TornAtByte, torn_by_byte(change, rng))
            }
            _ if fates.whole(pending, rng) => (Injury::Kept, vec![change.clone()]),
            // The length may reach the disk without the data.
            _ => {
                let length = change.range().filter(|_| fates.wild && rng.coin());
                let left = length.map(|(_, end)| Change::Grow(end));
                (Injury::Lost, left.into_iter().collect())
            }
        };
        injuries.add(injury);
        kept.extend(left.into_iter().map(|change| (pending.stamp, change)));
    }
    if fates.wild {
        rng.shuffle_sometimes(&mut kept);
        if !kept.is_sorted_by_key(|(stamp, _)| *stamp) {
            injuries.add(Injury::Reordered);
        }
    }
    let mut content = Arc::clone(&inode.durable);
    if !kept.is_empty() {
        let content = Arc::make_mut(&mut content);
        for (_, change) in &kept {
            if matches!(change, Change::Grow(len) if *len > content.len()) {
                injuries.add(Injury::Longer);
            }
            change.apply(content);
        }
    }
    content
}

impl Rng {
    /// Reordering everything always would hide mistakes that need the usual order.
    fn shuffle_sometimes<T>(&mut self, items: &mut [T]) {
        if self.coin() {
            self.shuffle(items);
        }
    }
}

/// Sectors from the start, to the end, or any.
fn torn_by_sector(change: &Change, rng: &mut Rng) -> Vec<Change> {
    let Some((from, to)) = change.range() else {
        return Vec::new();
    };
    let (first, last) = (from / SECTOR_BYTES, to.div_ceil(SECTOR_BYTES));
    let cut = first.saturating_add(rng.below(last.saturating_sub(first).saturating_add(1)));
    let sectors = |a: u64, b: u64| {
        change.part(
            a.saturating_mul(SECTOR_BYTES),
            b.saturating_mul(SECTOR_BYTES),
        )
    };
    let pieces: Vec<Change> = match rng.below(3) {
        0 => sectors(first, cut).into_iter().collect(),
        1 => sectors(cut, last).into_iter().collect(),
        _ => (first..last)
            .filter(|_| rng.coin())
            .filter_map(|sector| sectors(sector, sector.saturating_add(1)))
            .collect(),
    };
    pieces.into_iter().chain(longer(rng, to)).collect()
}

/// Bytes from the start, to the end, or around a hole.
fn torn_by_byte(change: &Change, rng: &mut Rng) -> Vec<Change> {
    let Some((from, to)) = change.range() else {
        return Vec::new();
    };
    let len = to.saturating_sub(from);
    let mut cut = || from.saturating_add(rng.below(len.saturating_add(1)));
    let (a, b) = (cut(), cut());
    let pieces = match rng.below(3) {
        0 => [change.part(from, a), None],
        1 => [change.part(a, to), None],
        _ => [change.part(from, a.min(b)), change.part(a.max(b), to)],
    };
    pieces
        .into_iter()
        .flatten()
        .chain(longer(rng, to))
        .collect()
}

/// Perhaps the length of the whole write, without the data.
fn longer(rng: &mut Rng, to: u64) -> Option<Change> {
    rng.coin().then_some(Change::Grow(to))
}
