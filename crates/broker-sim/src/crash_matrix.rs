//! Cuts the power at every moment of many workloads, in every way, and looks at what is left.
//!
//! One *state* is what a crash left behind, taken up by a new leader. Each is looked at in pairs: crash, recover, check, send again
//! what was not answered for, go on for a while, crash again (perhaps in the middle of that recovery), recover, check. A mistake in
//! the first recovery often shows only in the second.
//!
//! Every workload comes from the seed and its number, and so does everything in it: these two repeat a failure. All cores work on
//! them, and a seed tries the same whatever their number is.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::AddAssign;

use broker_core::log::RecoveryError;

use crate::campaign::Broken;
use crate::disk::{CrashMode, Errno, Fault, Injuries, Injury, SimDisk};
use crate::oracle::{Ledger, Verdict, check};
use crate::rig::{Limits, Rig};
use crate::rng::Rng;
use crate::workers;
use crate::workload::Workload;

/// Things done in one workload.
const ACTS: u64 = 36;
/// Things done between the first crash and the second.
const ACTS_BETWEEN: u64 = 5;

/// How much was tried.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Explored {
    /// Workloads run, with a fault or without.
    pub workloads: u64,
    /// Of them, with a fault of the disk.
    pub faulty: u64,
    /// Moments between two changes of the disk at which the power was cut.
    pub moments: u64,
    /// States recovered from and checked.
    pub states: u64,
    /// Of them, how many lay on a disk that had had this kind of trouble.
    pub injured: BTreeMap<Injury, u64>,
}

impl Explored {
    /// Counts a state on this disk.
    pub fn state(&mut self, injuries: Injuries) {
        self.states += 1;
        for injury in injuries.iter() {
            *self.injured.entry(injury).or_default() += 1;
        }
    }

    /// Kinds of trouble that no state had.
    #[must_use]
    pub fn missing(&self) -> Vec<Injury> {
        let mut all = Injury::ALL.to_vec();
        all.retain(|injury| !self.injured.contains_key(injury));
        all
    }
}

impl AddAssign for Explored {
    fn add_assign(&mut self, other: Self) {
        self.workloads += other.workloads;
        self.faulty += other.faulty;
        self.moments += other.moments;
        self.states += other.states;
        for (injury, count) in other.injured {
            *self.injured.entry(injury).or_default() += count;
        }
    }
}

impl fmt::Display for Explored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} crash states at {} moments of {} workloads, {} of them with a faulty disk; of these states had met:",
            self.states, self.moments, self.workloads, self.faulty
        )?;
        for injury in Injury::ALL {
            let count = self.injured.get(&injury).copied().unwrap_or(0);
            write!(f, " {injury:?} {count}")?;
        }
        Ok(())
    }
}

/// A promise was broken.
#[derive(Debug, Clone)]
pub struct Failure {
    /// What repeats it.
    pub seed: u64,
    /// Which workload, and where in it.
    pub place: String,
    /// What was wrong.
    pub what: Broken,
    /// What the disk was asked.
    pub history: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}\n  at {}\n  repeat it with BROKER_SEED={}\nwhat the last leader asked of the disk:\n{}",
            self.what, self.place, self.seed, self.history
        )
    }
}

impl std::error::Error for Failure {}

/// How the power goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    Power(CrashMode),
    /// Only the process dies; the kernel still has everything.
    Process,
}

impl Cut {
    fn all() -> impl Iterator<Item = Self> {
        CrashMode::ALL
            .into_iter()
            .map(Self::Power)
            .chain([Self::Process])
    }

    /// Any of them.
    pub(crate) fn draw(rng: &mut Rng) -> Self {
        let cuts: Vec<Self> = Self::all().collect();
        rng.pick(&cuts).copied().unwrap_or(Self::Process)
    }

    pub(crate) fn of(self, disk: &SimDisk, rng: &mut Rng) -> SimDisk {
        match self {
            Self::Power(mode) => disk.crash(rng, mode),
            Self::Process => disk.kill(),
        }
    }

    /// Whether it leaves what another one leaves too.
    fn is_redundant(self, disk: &SimDisk) -> bool {
        disk.pending_count() == 0
            && !matches!(self, Self::Power(CrashMode::LoseAll) | Self::Process)
    }
}

/// One workload and where it stands.
#[derive(Clone)]
struct Scene {
    limits: Limits,
    workload: Workload,
    ledger: Ledger,
    rng: Rng,
}

/// Explores until so many states were seen, or one workload alone.
///
/// # Errors
/// The first [`Failure`].
pub fn explore(seed: u64, states: u64, only: Option<u64>) -> Result<Explored, Failure> {
    match only {
        Some(number) => workload(seed, number),
        None => workers::explore(
            seed,
            |explored: &Explored| explored.states >= states,
            |number| workload(seed, number),
        ),
    }
}

fn workload(seed: u64, number: u64) -> Result<Explored, Failure> {
    let mut scene = Scene::draw(&mut workers::rng_of(seed, number));
    let mut explored = Explored {
        workloads: 1,
        ..Explored::default()
    };
    let result = if number % 24 == 1 {
        at_every_moment(&mut scene, &mut explored)
    } else {
        explored.faulty += 1;
        with_a_fault(&mut scene, &mut explored)
    };
    result.map_err(|(what, place, disk)| Failure {
        seed,
        place: format!("workload {number} (alone with BROKER_SIM_WORKLOAD={number}), {place}"),
        what,
        history: disk.map(|disk| disk.history()).unwrap_or_default(),
    })?;
    Ok(explored)
}

/// What was wrong, where, and on which disk.
type Found = (Broken, String, Option<SimDisk>);

impl Scene {
    fn draw(rng: &mut Rng) -> Self {
        let mut rng = rng.fork();
        Self {
            limits: Limits::draw(&mut rng),
            workload: Workload::new(rng.fork()),
            ledger: Ledger::default(),
            rng,
        }
    }

    fn page_bytes(&mut self) -> u32 {
        let choices = [1, 3000, 1 << 20, 1 << 20];
        self.rng.pick(&choices).copied().unwrap_or(1)
    }
}

/// Runs a workload without a fault and cuts it off before every change of the disk, in every way.
fn at_every_moment(scene: &mut Scene, explored: &mut Explored) -> Result<(), Found> {
    let disk = SimDisk::new(scene.rng.next());
    disk.keep_moments();
    let mut rig = open(&disk, scene).map_err(|what| (what, "the start".to_owned(), None))?;
    for act in 0..ACTS {
        let before = scene.ledger.clone();
        let acted = act_or_restart(&mut rig, scene, &disk, act);
        acted.map_err(|what| (what, format!("act {act}"), Some(disk.clone())))?;
        // Answers come at the end of a step, so at the moments within it the ones before are all that anybody knows; what was sent
        // meanwhile may be there as well.
        let mut known = before;
        known.learn_what_was_sent(&scene.ledger);
        let mut at = Scene {
            ledger: known,
            ..scene.clone()
        };
        for moment in disk.take_moments() {
            cut_off(&moment, &mut at, explored, &format!("act {act}"))?;
        }
        scene.rng = at.rng;
    }
    let last = disk.kill();
    cut_off(&last, &mut scene.clone(), explored, "the end")
}

/// Now and then the leader closes the store and another one opens it; now and
/// then, whether it leaves or stays, it leaves less to read for the next one.
fn act_or_restart(rig: &mut Rig, scene: &mut Scene, disk: &SimDisk, act: u64) -> Verdict {
    if act % 5 == 4 {
        rig.store.shorten_replay(|| {});
    }
    if act > 0 && scene.rng.chance(1, 12) {
        rig.engine.close();
        rig.answers(&mut scene.ledger)?;
        *rig = open(disk, scene)?;
        let page = scene.page_bytes();
        check::after_recovery(rig, &mut scene.ledger, page)?;
    }
    scene.workload.act(rig, &mut scene.ledger)
}

fn open(disk: &SimDisk, scene: &mut Scene) -> Verdict<Rig> {
    Rig::open(disk, scene.limits, &mut scene.rng).map_err(|error| unopened(&error))
}

pub(crate) fn unopened(error: &RecoveryError) -> Broken {
    format!("the store cannot be opened: {}", chain(error)).into()
}

fn chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", chain(source)),
        None => error.to_string(),
    }
}

/// Cuts one moment off in every way, and goes on from each.
fn cut_off(
    moment: &SimDisk,
    scene: &mut Scene,
    explored: &mut Explored,
    place: &str,
) -> Result<(), Found> {
    explored.moments += 1;
    for cut in Cut::all() {
        if cut.is_redundant(moment) {
            continue;
        }
        let rng = scene.rng.fork();
        let left = cut.of(moment, &mut scene.rng);
        let mut scene = Scene {
            rng,
            ..scene.clone()
        };
        let place = format!("{place}, moment {}, {cut:?}", explored.moments);
        go_on(&left, &mut scene, explored, &place)?;
    }
    Ok(())
}

/// Recovers, checks, goes on, crashes again, recovers, checks.
fn go_on(
    left: &SimDisk,
    scene: &mut Scene,
    explored: &mut Explored,
    place: &str,
) -> Result<(), Found> {
    let broken = |what: Broken, when: &str, disk: &SimDisk| {
        (what, format!("{place}, {when}"), Some(disk.clone()))
    };
    litter(left, &mut scene.rng);
    left.keep_moments();
    let first = scene.ledger.clone();
    explored.state(left.injuries());
    take_up(left, scene, 3).map_err(|what| broken(what, "the first leader", left))?;
    // Some crashes come in the middle of the recovery or of what followed.
    let mut moments = left.take_moments();
    moments.push(left.kill());
    let chosen = scene.rng.index(moments.len());
    let is_last = chosen + 1 == moments.len();
    let Some(moment) = moments.get(chosen) else {
        return Ok(());
    };
    let cuts: Vec<Cut> = Cut::all().filter(|cut| !cut.is_redundant(moment)).collect();
    let cut = scene.rng.pick(&cuts).copied().unwrap_or(Cut::Process);
    let again = cut.of(moment, &mut scene.rng);
    let mut second = scene.clone();
    if !is_last {
        // What the first leader told last was told after this moment.
        second.ledger = first;
        second.ledger.learn_what_was_sent(&scene.ledger);
    }
    explored.state(again.injuries());
    take_up(&again, &mut second, usize::MAX).map_err(|what| {
        broken(
            what,
            &format!(
                "then {cut:?} at {chosen} of {}, the second leader",
                moments.len()
            ),
            &again,
        )
    })
}

/// A new leader: opens, checks, hears the publishers again, and works for a while.
fn take_up(disk: &SimDisk, scene: &mut Scene, recent: usize) -> Verdict {
    let mut rig = match Rig::open(disk, scene.limits, &mut scene.rng) {
        Ok(rig) => rig,
        // The disk has dropped all that says what the file is. Nobody may guess then.
        Err(RecoveryError::Unreadable { .. }) if scene.ledger.lied_to => return Ok(()),
        Err(error) => return Err(unopened(&error)),
    };
    let page = scene.page_bytes();
    check::after_recovery(&mut rig, &mut scene.ledger, page)?;
    let recent = if scene.rng.chance(1, 8) {
        usize::MAX
    } else {
        recent
    };
    scene
        .workload
        .reconnect(&mut rig, &mut scene.ledger, recent)?;
    scene.workload.reseed(scene.rng.fork());
    for _ in 0..ACTS_BETWEEN {
        scene.workload.act(&mut rig, &mut scene.ledger)?;
    }
    rig.answers(&mut scene.ledger)
}

/// Files that do not belong to the log, as other programs or other versions leave them.
fn litter(disk: &SimDisk, rng: &mut Rng) {
    use broker_core::log::storage::{Storage, StorageFile};

    let names = [
        "0000000000000001-0000.seg.tmp",
        "0000000000000001-0000.seg.bak",
        "spare-0000beef.tmp",
        "0000000000000001-0000.idx",
    ];
    if !rng.chance(1, 10) {
        return;
    }
    if let Some(name) = rng.pick(&names)
        && let Ok(file) = disk.create(name)
    {
        // It is only litter: whether it gets onto the disk does not matter.
        let _ = file.write_at(0, &[0xa5; 5000]);
        let _ = file.sync();
    }
}

/// Runs a workload in which one call, or all from one on, fail.
fn with_a_fault(scene: &mut Scene, explored: &mut Explored) -> Result<(), Found> {
    let disk = SimDisk::new(scene.rng.next());
    let at = 1 + scene.rng.below(160);
    let fault = Trouble::draw(&mut scene.rng);
    fault.plan(&disk, at);
    let place = format!("{fault:?} at op {at}");
    scene.workload.faults = true;
    scene.ledger.faults = true;
    // Whoever works on that disk cannot know when it begins to lie; who finds it later can.
    scene.ledger.lied_to = fault.lies();
    let broken =
        |what: Broken, when: String| (what, format!("{place}, {when}"), Some(disk.clone()));
    let Ok(mut rig) = Rig::open(&disk, scene.limits, &mut scene.rng) else {
        return Ok(());
    };
    disk.keep_moments();
    for act in 0..ACTS {
        let before = scene.ledger.clone();
        let hit_before = disk.op_count() >= at;
        let acted = scene.workload.act(&mut rig, &mut scene.ledger);
        acted.map_err(|what| broken(what, format!("act {act}")))?;
        fault.relent(&disk, act);
        let mut known = before;
        known.learn_what_was_sent(&scene.ledger);
        let mut cut = Scene {
            ledger: known,
            ..scene.clone()
        };
        cut.workload.faults = false;
        cut.ledger.faults = false;
        for moment in disk.take_moments() {
            // Before the fault it is a workload like any other; just after it, it is most interesting.
            let hit = disk.op_count() >= at;
            let odds = u64::from(hit) * if hit_before { 1 } else { 4 };
            if scene.rng.chance(odds, 8) {
                moment.clear_faults();
                cut.ledger.lied_to = moment.injuries().lied();
                let rng = scene.rng.fork();
                cut_off_once(&moment, &mut Scene { rng, ..cut.clone() }, explored, &place)?;
            }
        }
    }
    let last = disk.kill();
    scene.workload.faults = false;
    scene.ledger.faults = false;
    for _ in 0..3 {
        let rng = scene.rng.fork();
        cut_off_once(
            &last,
            &mut Scene {
                rng,
                ..scene.clone()
            },
            explored,
            &place,
        )?;
    }
    Ok(())
}

/// Cuts a moment off in one way.
fn cut_off_once(
    moment: &SimDisk,
    scene: &mut Scene,
    explored: &mut Explored,
    place: &str,
) -> Result<(), Found> {
    explored.moments += 1;
    moment.set_capacity(None);
    let cut = Cut::draw(&mut scene.rng);
    let left = cut.of(moment, &mut scene.rng);
    go_on(&left, scene, explored, &format!("{place}, {cut:?}"))
}

/// Whether a disk says with this fault that something is stored that is not.
fn lies(fault: Fault) -> bool {
    [Fault::DroppedWrite, Fault::MisdirectedWrite].contains(&fault)
}

/// What is wrong with the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    Once(Fault),
    /// From then on, for a while.
    Lasting(Errno),
    /// Two calls that follow each other closely.
    Twice(Fault, u64),
    /// A read fails, and a few more after it.
    Unreadable,
    /// The disk is small, until somebody cleans up.
    Small(u64),
}

impl Trouble {
    fn draw(rng: &mut Rng) -> Self {
        let faults = [
            Fault::Error(Errno::Io),
            Fault::Error(Errno::NoSpace),
            Fault::Error(Errno::Quota),
            Fault::ShortWrite(Errno::Io),
            Fault::ShortWrite(Errno::NoSpace),
            Fault::LostSync,
            // Twice, because there is more that it can lead to.
            Fault::DroppedWrite,
            Fault::DroppedWrite,
            Fault::MisdirectedWrite,
        ];
        let fault = rng.pick(&faults).copied().unwrap_or(Fault::LostSync);
        match rng.below(8) {
            0..5 => Self::Once(fault),
            5 if !lies(fault) => Self::Twice(fault, 1 + rng.below(7)),
            6 => Self::Small((1 + rng.below(60)) << 13),
            7 if rng.chance(1, 3) => Self::Unreadable,
            _ if rng.coin() => Self::Lasting(Errno::Io),
            _ => Self::Lasting(Errno::NoSpace),
        }
    }

    fn lies(self) -> bool {
        matches!(self, Self::Once(fault) if lies(fault))
    }

    fn plan(self, disk: &SimDisk, at: u64) {
        match self {
            Self::Once(fault) => disk.fail_next(at, fault),
            Self::Twice(fault, apart) => {
                disk.fail_next(at, fault);
                disk.fail_next(at + apart, fault);
            }
            Self::Lasting(errno) => disk.fail_ops_from(at, Fault::Error(errno)),
            Self::Unreadable => (0..4).for_each(|n| disk.fail_read(at / 4 + 5 * n, Errno::Io)),
            Self::Small(bytes) => disk.set_capacity(Some(bytes)),
        }
    }

    /// A full disk becomes empty again.
    fn relent(self, disk: &SimDisk, act: u64) {
        let full = matches!(self, Self::Small(_) | Self::Lasting(Errno::NoSpace));
        if full && act == ACTS * 2 / 3 {
            disk.clear_faults();
            disk.set_capacity(None);
        }
    }
}
