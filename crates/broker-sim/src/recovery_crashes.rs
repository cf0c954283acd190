//! Crashes inside recovery, inside the recovery after it, and inside the one after that.
//!
//! A store is written and the power is cut. The next leader is cut off in its recovery, its take-over of the tail, its first
//! checkpoint or its first writes; so is the one that finds what it left, and the third. Each of them, and the last one, which is
//! left alone, must serve everything, lead under a higher term than all before it, and treat the segments that it finds as the only
//! truth there is: none is deleted, cut short, replaced or written to by a recovery, and by nobody but the last one's leader after it.
//! In between each appends, so that crashes come in pairs, and some meet a fault of the disk in place of a cut.

use std::collections::{BTreeMap, BTreeSet};

use broker_core::log::segment::{SegmentHeader, SegmentName};
use broker_core::log::storage::Storage;
use broker_core::store::Store;

use crate::campaign::{Broken, Harm};
use crate::crash_matrix::{Cut, Explored, Failure, unopened};
use crate::disk::{Errno, Fault, OpKind, SimDisk};
use crate::oracle::{Ledger, Verdict, broken, check};
use crate::rig::{Limits, Rig};
use crate::rng::Rng;
use crate::workers;
use crate::workload::Workload;

/// Recoveries that are cut off, one inside the other.
const DEPTH: usize = 3;
/// How many moments of a leader are gone on from: of the first, of the second, of the third.
const BRANCHES: [usize; DEPTH] = [5, 2, 1];

/// A store, and what is known of it.
#[derive(Clone)]
struct Scene {
    limits: Limits,
    workload: Workload,
    ledger: Ledger,
    rng: Rng,
}

/// What was wrong, and on the way to which leader.
type Found = (Broken, String, SimDisk);

/// Tries until so many states were recovered from, or one case alone.
///
/// # Errors
/// The first [`Failure`].
pub fn explore(seed: u64, states: u64, only: Option<u64>) -> Result<Explored, Failure> {
    let case = |number| {
        let mut explored = Explored {
            workloads: 1,
            ..Explored::default()
        };
        let result = case(&mut workers::rng_of(!seed, number), &mut explored);
        result.map_err(|(what, place, disk)| Failure {
            seed,
            place: format!("case {number}{place}"),
            what,
            history: disk.history(),
        })?;
        Ok(explored)
    };
    match only {
        Some(number) => case(number),
        None => workers::explore(seed, |done: &Explored| done.states >= states, case),
    }
}

fn case(rng: &mut Rng, explored: &mut Explored) -> Result<(), Found> {
    let disk = SimDisk::new(rng.next());
    let mut scene = Scene {
        limits: Limits::draw(rng),
        workload: Workload::new(rng.fork()),
        ledger: Ledger::default(),
        rng: rng.fork(),
    };
    let written = write(&disk, &mut scene);
    let moments = written.map_err(|what| (what, ", the first leader of all".to_owned(), disk))?;
    let (left, place) = cut(&moments, &mut scene.rng);
    descend(&left, &scene, 0, explored, &place)
}

/// Writes a store; gives the moments of its last act, at the end of which the ledger stands.
fn write(disk: &SimDisk, scene: &mut Scene) -> Verdict<Vec<SimDisk>> {
    let mut rig =
        Rig::open(disk, scene.limits, &mut scene.rng).map_err(|error| unopened(&error))?;
    for _ in 0..2 + scene.rng.below(14) {
        scene.workload.act(&mut rig, &mut scene.ledger)?;
    }
    let before = scene.ledger.clone();
    disk.keep_moments();
    scene.workload.act(&mut rig, &mut scene.ledger)?;
    scene.workload.settle(&mut rig, &mut scene.ledger)?;
    let mut moments = disk.take_moments();
    if moments.is_empty() {
        moments.push(disk.kill());
    } else {
        knew(scene, before);
    }
    Ok(moments)
}

/// At a moment within what was just done, this is what was known.
fn knew(scene: &mut Scene, mut before: Ledger) {
    before.learn_what_was_sent(&scene.ledger);
    scene.ledger = before;
}

/// Cuts one of these moments off.
fn cut(moments: &[SimDisk], rng: &mut Rng) -> (SimDisk, String) {
    let chosen = rng.index(moments.len());
    let cut = Cut::draw(rng);
    let left = match moments.get(chosen) {
        Some(moment) => cut.of(moment, rng),
        None => SimDisk::new(0),
    };
    let place = format!(", {cut:?} at {chosen} of {}", moments.len());
    (left, place)
}

/// A leader finds this disk. It is watched to its end, and then cut off earlier.
fn descend(
    found: &SimDisk,
    scene: &Scene,
    level: usize,
    explored: &mut Explored,
    place: &str,
) -> Result<(), Found> {
    let disk = found.kill();
    let mut after = scene.clone();
    after.rng = scene.rng.clone().fork();
    explored.state(found.injuries());
    let harmed = |what: Broken| (what, format!("{place}, leader {}", level + 1), disk.clone());
    disk.keep_moments();
    if after.rng.chance(1, 4) {
        trouble(&disk, &mut after.rng);
    }
    let led = lead(&disk, &mut after).map_err(harmed)?;
    let Some(branches) = BRANCHES.get(level) else {
        return Ok(());
    };
    let mut served = disk.take_moments();
    served.push(disk.kill());
    let (opening, serving) = served.split_at(led.min(served.len().saturating_sub(1)));
    knew(&mut after, scene.ledger.clone());
    for branch in 0..*branches {
        // Most of them in the recovery itself, if that changes anything.
        let late = opening.is_empty() || after.rng.chance(1, 3);
        let moments = if late { serving } else { opening };
        explored.moments += 1;
        let (left, cut) = cut(moments, &mut after.rng);
        let when = if late { "serving" } else { "opening" };
        let place = format!("{place}{cut} ({when}, branch {branch})");
        descend(&left, &after, level + 1, explored, &place)?;
        after.rng = after.rng.fork();
    }
    Ok(())
}

/// Something that goes wrong in a recovery.
fn trouble(disk: &SimDisk, rng: &mut Rng) {
    let faults = [
        Fault::Error(Errno::Io),
        Fault::Error(Errno::NoSpace),
        Fault::Error(Errno::Quota),
        Fault::ShortWrite(Errno::Io),
        Fault::ShortWrite(Errno::NoSpace),
        Fault::LostSync,
    ];
    let n = 1 + rng.below(9);
    match rng.pick(&faults) {
        Some(fault) if !rng.chance(1, 4) => disk.fail_next(n, *fault),
        _ => disk.fail_read(2 * n, Errno::Io),
    }
}

/// Opens, checks, appends, begins a checkpoint; the number of changes that the opening made.
fn lead(disk: &SimDisk, scene: &mut Scene) -> Verdict<usize> {
    let before = segments(disk);
    let term = highest_term(&before);
    let opened = Rig::open(disk, scene.limits, &mut scene.rng);
    let opening = usize::try_from(disk.op_count()).unwrap_or(usize::MAX);
    disk.clear_faults();
    nothing_is_touched(disk, &before, None, Phase::Opening)?;
    let mut rig = match opened {
        Ok(rig) => rig,
        // Nothing was wrong with the store, so whoever comes next must be able to open it.
        Err(_) if had_trouble(disk) => {
            Rig::open(disk, scene.limits, &mut scene.rng).map_err(|error| unopened(&error))?
        }
        Err(error) => return Err(unopened(&error)),
    };
    if rig.store.info().term.get() <= term {
        let what = format!("the term is {} after {term}", rig.store.info().term);
        return broken(Harm::Other, what);
    }
    let resumed = segments(disk).into_keys().next_back();
    check::after_recovery(&mut rig, &mut scene.ledger, 1 << 20)?;
    scene.workload.reconnect(&mut rig, &mut scene.ledger, 3)?;
    scene.workload.reseed(scene.rng.fork());
    if scene.rng.coin() {
        rig.store.shorten_replay(|| {});
    }
    for _ in 0..2 {
        scene.workload.act(&mut rig, &mut scene.ledger)?;
    }
    rig.work();
    if scene.rng.chance(1, 3) {
        rig.engine.close();
    }
    rig.answers(&mut scene.ledger)?;
    nothing_is_touched(disk, &before, resumed.as_deref(), Phase::Serving)?;
    drop(rig);
    if scene.rng.chance(1, 8) {
        converges(disk, scene)?;
    }
    Ok(opening)
}

fn had_trouble(disk: &SimDisk) -> bool {
    disk.ops().iter().any(|op| op.error.is_some()) || disk.read_failed()
}

/// Opening again changes nothing any more but for the copy of an unproven tail, which is as long as the tail.
fn converges(disk: &SimDisk, scene: &mut Scene) -> Verdict {
    let (again, mut known) = (disk.kill(), scene.ledger.clone());
    let mut sizes = Vec::new();
    for _ in 0..4 {
        let mut rig =
            Rig::open(&again, scene.limits, &mut scene.rng).map_err(|error| unopened(&error))?;
        check::after_recovery(&mut rig, &mut known, 1 << 20)?;
        rig.engine.close();
        let info = rig.store.info();
        sizes.push((info.segments, info.log_bytes));
    }
    // The first may write a checkpoint that was due, and closes with a mark, at which the others go on.
    if !sizes.iter().skip(2).all(|size| Some(size) == sizes.last()) {
        let what = format!("opening and closing goes on changing the log: {sizes:?}");
        return broken(Harm::Other, what);
    }
    Ok(())
}

/// All segments, with their bytes.
fn segments(disk: &SimDisk) -> BTreeMap<String, Vec<u8>> {
    let names = disk.kill().list().unwrap_or_default();
    names
        .into_iter()
        .filter(|name| SegmentName::parse(name).is_some())
        .filter_map(|name| Some((name.clone(), disk.content(&name)?)))
        .collect()
}

fn highest_term(segments: &BTreeMap<String, Vec<u8>>) -> u64 {
    let headers = segments
        .values()
        .filter_map(|bytes| SegmentHeader::parse(bytes).ok());
    headers.map(|header| header.term).max().unwrap_or(0)
}

/// What a leader is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Opening,
    Serving,
}

/// Whether a segment need not be there any more: another one stands for it, or it stands for others that are there; or, when a
/// leader has given space back, it was the oldest. What its messages were worth is checked by reading.
fn may_be_gone(name: &str, bytes: &[u8], now: &BTreeMap<String, Vec<u8>>, phase: Phase) -> bool {
    let Ok(gone) = SegmentHeader::parse(bytes) else {
        return false;
    };
    let others = now
        .values()
        .filter_map(|bytes| SegmentHeader::parse(bytes).ok());
    let is_oldest = now.keys().all(|other| other.as_str() > name);
    others
        .into_iter()
        .any(|other| other.supersedes(&gone) || gone.supersedes(&other))
        || (phase == Phase::Serving && is_oldest)
}

/// Whether a rewritten segment that did not count has given its name to another one.
fn is_another(now: &[u8], before: &[u8], phase: Phase) -> bool {
    let headers = (SegmentHeader::parse(now), SegmentHeader::parse(before));
    let (Ok(now), Ok(before)) = headers else {
        return false;
    };
    phase == Phase::Serving && now.name.generation > 0 && now.marker != before.marker
}

/// Segments that were there before are there, byte for byte, but for one that was gone on in, which is no shorter, and those that
/// hold nothing any more.
fn nothing_is_touched(
    disk: &SimDisk,
    before: &BTreeMap<String, Vec<u8>>,
    resumed: Option<&str>,
    phase: Phase,
) -> Verdict {
    let now = segments(disk);
    for (name, bytes) in before {
        let same = match now.get(name) {
            Some(now) if resumed == Some(name) => now.len() >= bytes.len(),
            Some(other) => other == bytes || is_another(other, bytes, phase),
            None => may_be_gone(name, bytes, &now, phase),
        };
        if !same {
            let what = format!("segment {name} was deleted, cut short or written to");
            return broken(Harm::SilentCorruption, what);
        }
    }
    let names = |name: &str| SegmentName::parse(name).is_some();
    let mut deleted = BTreeSet::new();
    for op in disk.ops() {
        if let OpKind::Delete(name) = &op.kind {
            deleted.insert(name.clone());
        }
        let against_the_rules = match &op.kind {
            OpKind::Delete(name) => {
                let is_right = |was: &Vec<u8>| {
                    let other = now.get(name);
                    may_be_gone(name, was, &now, phase)
                        || other.is_some_and(|other| is_another(other, was, phase))
                };
                names(name) && before.get(name).is_some_and(|was| !is_right(was))
            }
            OpKind::Truncate { name, .. } => names(name),
            OpKind::Rename(from, to) => {
                names(from) || (before.contains_key(to) && !deleted.contains(to))
            }
            OpKind::Create(name) => names(name),
            _ => false,
        };
        if against_the_rules {
            let what = format!("segments are not to be touched, and this was done: {op}");
            return broken(Harm::SilentCorruption, what);
        }
    }
    Ok(())
}
