//! Early footers change how long a start takes, and nothing else.
//!
//! A store is written, with a footer of its newest segment every little while, and the power is cut. What is left is opened twice:
//! as it is, and without any footer. Both must find the same: rooms, messages, damage, and go on with the same seqs. Some footers are
//! put there from a later state of the same store, as a copy that was made while the store was written may have them, or a disk that
//! lost what it said it had: they tell of a part of the segment that is not there.

use std::ops::AddAssign;

use broker_core::log::segment::SegmentName;
use broker_core::log::storage::{Storage, StorageFile};
use broker_core::store::Store;

use crate::campaign::{Broken, Harm};
use crate::crash_matrix::{Cut, Failure, unopened};
use crate::disk::SimDisk;
use crate::oracle::{Ledger, Verdict, broken, check};
use crate::rig::{Limits, Rig};
use crate::rng::Rng;
use crate::workers;
use crate::workload::Workload;

/// How much was tried.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Compared {
    /// States that were opened with and without footers.
    pub states: u64,
    /// Of them, those whose newest segment had a footer.
    pub early: u64,
    /// Of them, those whose footer was of a later state.
    pub newer: u64,
}

impl AddAssign for Compared {
    fn add_assign(&mut self, other: Self) {
        self.states += other.states;
        self.early += other.early;
        self.newer += other.newer;
    }
}

/// Tries until so many states were compared, or one case alone.
///
/// # Errors
/// The first [`Failure`].
pub fn explore(seed: u64, states: u64, only: Option<u64>) -> Result<Compared, Failure> {
    let case = |number| {
        let mut compared = Compared::default();
        let mut rng = workers::rng_of(seed.rotate_left(23), number);
        let disk = SimDisk::new(rng.next());
        let result = case(&disk, &mut rng, &mut compared);
        result.map_err(|what| Failure {
            seed,
            place: format!("case {number}"),
            what,
            history: disk.history(),
        })?;
        Ok(compared)
    };
    match only {
        Some(number) => case(number),
        None => workers::explore(seed, |done: &Compared| done.states >= states, case),
    }
}

/// What is known of a store.
#[derive(Clone)]
struct Scene {
    limits: Limits,
    workload: Workload,
    ledger: Ledger,
}

fn case(disk: &SimDisk, rng: &mut Rng, compared: &mut Compared) -> Verdict {
    let mut scene = Scene {
        limits: Limits::draw(rng),
        workload: Workload::new(rng.fork()),
        ledger: Ledger::default(),
    };
    let mut rig = Rig::open(disk, scene.limits, rng).map_err(|error| unopened(&error))?;
    let mut earlier = Vec::new();
    for _ in 0..4 + rng.below(20) {
        scene.workload.act(&mut rig, &mut scene.ledger)?;
        if rng.coin() {
            rig.engine.keep_house();
        }
        if rng.chance(1, 4) {
            earlier.push((disk.kill(), scene.ledger.clone()));
        }
    }
    let before = scene.ledger.clone();
    disk.keep_moments();
    for _ in 0..1 + rng.below(3) {
        scene.workload.act(&mut rig, &mut scene.ledger)?;
    }
    end(&mut rig, rng);
    let mut moments = disk.take_moments();
    rig.answers(&mut scene.ledger)?;
    drop(rig);
    compare(&disk.kill(), &scene, rng, compared)?;
    if !moments.is_empty() {
        let moment = moments.swap_remove(rng.index(moments.len()));
        earlier.push((Cut::draw(rng).of(&moment, rng), before));
    }
    for (left, ledger) in earlier {
        let mut then = scene.clone();
        then.ledger = ledger;
        then.ledger.learn_what_was_sent(&scene.ledger);
        compare(&left, &then, rng, compared)?;
        if take_footers(&left, disk)? {
            compared.newer += 1;
            compare(&left, &then, rng, compared)?;
        }
    }
    Ok(())
}

/// How the leader ends: in order, with a mark, or not at all.
fn end(rig: &mut Rig, rng: &mut Rng) {
    match rng.below(3) {
        0 => rig.engine.close(),
        1 => {
            rig.work();
            rig.engine.idle();
        }
        _ => {}
    }
    if rng.coin() {
        rig.engine.keep_house();
    }
}

fn footers(disk: &SimDisk) -> Vec<String> {
    let mut names = disk.list().unwrap_or_default();
    names.retain(|name| SegmentName::parse_footer(name).is_some());
    names
}

/// The footer of the newest segment.
fn newest_footer(disk: &SimDisk) -> Option<String> {
    let names = disk.list().unwrap_or_default();
    let newest = names
        .iter()
        .filter_map(|name| SegmentName::parse(name))
        .max()?;
    Some(newest.footer()).filter(|name| names.contains(name))
}

/// Gives a disk the footers of a later state, of the segments that it has; says whether its newest one has another one then.
fn take_footers(disk: &SimDisk, later: &SimDisk) -> Verdict<bool> {
    let names = disk.list().unwrap_or_default();
    let newest = names
        .iter()
        .filter_map(|name| SegmentName::parse(name))
        .max();
    let mut is_other = false;
    for name in footers(later) {
        let Some(segment) = SegmentName::parse_footer(&name) else {
            continue;
        };
        if !names.contains(&segment.file()) {
            continue;
        }
        let content = later.content(&name).unwrap_or_default();
        is_other |= Some(segment) == newest && disk.content(&name).as_ref() != Some(&content);
        put(disk, &name, &content)?;
    }
    Ok(is_other)
}

fn put(disk: &SimDisk, name: &str, content: &[u8]) -> Verdict {
    let told = |error: std::io::Error| Broken::from(format!("{name}: {error}"));
    if disk.content(name).is_some() {
        disk.delete(name).map_err(told)?;
    }
    let file = disk.create(name).map_err(told)?;
    file.write_at(0, content).map_err(told)?;
    file.sync_all().map_err(told)?;
    disk.sync_dir().map_err(told)
}

/// Opens a disk as it is and without footers.
fn compare(left: &SimDisk, scene: &Scene, rng: &mut Rng, compared: &mut Compared) -> Verdict {
    compared.states += 1;
    compared.early += u64::from(newest_footer(left).is_some());
    let bare = left.kill();
    for name in footers(&bare) {
        let deleted = bare.delete(&name);
        deleted.map_err(|error| format!("{name} cannot be deleted: {error}"))?;
    }
    let numbers = rng.fork();
    let with = found(&left.kill(), scene, numbers.clone());
    let with = with.map_err(|what| what.at("with footers"))?;
    let without = found(&bare, scene, numbers);
    let without = without.map_err(|what| what.at("without footers"))?;
    if with != without {
        let what = format!("footers change what is found:\n  with    {with}\n  without {without}");
        return broken(Harm::SilentCorruption, what);
    }
    Ok(())
}

/// Opens a store, checks it, goes on with it, and tells what it found.
fn found(disk: &SimDisk, scene: &Scene, mut rng: Rng) -> Verdict<String> {
    let Scene {
        limits,
        mut workload,
        mut ledger,
    } = scene.clone();
    workload.reseed(rng.fork());
    let mut rig = Rig::open(disk, limits, &mut rng).map_err(|error| unopened(&error))?;
    let info = rig.store.info();
    let mut found = format!(
        "term {}, {} rooms, {} bytes, {} segments, {} places damaged: {:?}",
        info.term, info.rooms, info.log_bytes, info.segments, info.damaged, info.damage
    );
    check::after_recovery(&mut rig, &mut ledger, 1 << 20)?;
    tell_rooms(&rig, &mut ledger, &mut found)?;
    // Who goes on from here must give the same seqs.
    workload.reconnect(&mut rig, &mut ledger, 3)?;
    for _ in 0..2 {
        workload.act(&mut rig, &mut ledger)?;
    }
    rig.work();
    rig.answers(&mut ledger)?;
    tell_rooms(&rig, &mut ledger, &mut found)?;
    Ok(found)
}

fn tell_rooms(rig: &Rig, ledger: &mut Ledger, found: &mut String) -> Verdict {
    for (room, epoch) in rig.rooms()? {
        let shown = rig.read(ledger, room, 1, 1 << 20)?;
        *found += &format!("; room {room} of {epoch}: {shown:?}");
    }
    Ok(())
}
