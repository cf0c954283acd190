//! Power cuts on a real file system: it is shut down under a writer that is at work, so that the kernel forgets what was not synced.
//!
//! A scene is one file system and one store that is cut off again and again: while it works, while it starts, and with or without a
//! look between two cuts, which writes. What nobody answered for is sent again by the next life, under its old numbers. A careless
//! writer, which syncs nothing, is cut off in the same way, and must lose something: otherwise no cut proves anything.

use std::ops::AddAssign;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, anyhow, ensure};
use broker_proto::ErrorCode;
use tempfile::TempDir;

use super::account::{Account, Line};
use super::machine::{FileSystem, LoopDevice, Mount, Process, image, scratch};
use super::writer::{Again, Args, careless_line};
use crate::campaign::Broken;
use crate::rng::Rng;
use crate::workers::rng_of;

/// Cuts of one store, before another one begins.
const CUTS_OF_A_SCENE: u64 = 10;
/// The file system of a scene, which must not become full: a refusal for that, which is not heard any more because the process is
/// killed, looks like a message that was lost. It takes as much memory as is written.
const DISK_BYTES: u64 = 768 << 20;
/// How long a writer may take to begin.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
/// Threads of each writer.
const THREADS: u16 = 3;
/// Messages that are sent again at most; if there were more, none is.
const AGAIN_MAX: usize = 200;

/// What was tried.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cuts {
    /// Cuts.
    pub cuts: u64,
    /// Looks at everything that was left.
    pub checks: u64,
    /// Messages acknowledged.
    pub acks: u64,
    /// Messages sent again because nobody had answered for them.
    pub again: u64,
}

impl AddAssign for Cuts {
    fn add_assign(&mut self, other: Self) {
        self.cuts += other.cuts;
        self.checks += other.checks;
        self.acks += other.acks;
        self.again += other.again;
    }
}

/// Cuts the power so many times on file systems of a kind, with one scene on each core at a time. `program` has the writer as its
/// command `writer`.
///
/// # Errors
/// A promise that was broken, as [`Broken`], with its scene; or the machine fails.
pub fn cut_many(program: &Path, kind: FileSystem, cuts: u64, seed: u64) -> anyhow::Result<Cuts> {
    let scenes = cuts.div_ceil(CUTS_OF_A_SCENE);
    let next = AtomicU64::new(0);
    let work = || {
        let mut total = Cuts::default();
        loop {
            let scene = next.fetch_add(1, Ordering::Relaxed);
            if scene >= scenes {
                return anyhow::Ok(total);
            }
            let cuts = CUTS_OF_A_SCENE.min(cuts - scene * CUTS_OF_A_SCENE);
            let mut stage = Scene::new(program, kind, rng_of(seed, scene).next())?;
            let played = stage.play(cuts);
            total +=
                played.with_context(|| format!("{} scene {scene}, seed {seed}", kind.name()))?;
        }
    };
    let cores = thread::available_parallelism()
        .map_or(1, usize::from)
        .min(4);
    thread::scope(|scope| {
        let workers: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        let mut total = Cuts::default();
        for worker in workers {
            total += worker.join().map_err(|_| anyhow!("a worker panicked"))??;
        }
        Ok(total)
    })
}

/// Cuts off the writer that syncs nothing: how many lines it called safe, and how many of them are there.
///
/// # Errors
/// The machine fails.
pub fn cut_careless(program: &Path, kind: FileSystem, seed: u64) -> anyhow::Result<(u64, u64)> {
    let mut scene = Scene::new(program, kind, seed)?;
    let args = Args {
        careless: true,
        ..scene.args()
    };
    let process = Process::start(&mut args.command(program))?;
    let mut said = 0;
    while said < 100 {
        match process.next(PATIENCE)?.context("it ended")? {
            Line::Careless(lines) => said = lines,
            _ => continue,
        }
    }
    for line in scene.cut(process)? {
        if let Line::Careless(lines) = line {
            said = lines;
        }
    }
    Ok((said, careless_kept(&scene.at)))
}

/// How many lines of the writer that syncs nothing are there.
pub(super) fn careless_kept(at: &Path) -> u64 {
    let left = std::fs::read(at.join("careless")).unwrap_or_default();
    let kept = left.chunks(careless_line(0).len()).zip(1..);
    let kept = kept.filter(|(found, line)| *found == careless_line(*line).as_slice());
    u64::try_from(kept.count()).unwrap_or(u64::MAX)
}

/// A file system, and the store on it.
struct Scene<'a> {
    program: &'a Path,
    kind: FileSystem,
    seed: u64,
    rng: Rng,
    account: Account,
    life: u16,
    // In the order in which they have to go.
    mount: Option<Mount>,
    device: LoopDevice,
    at: PathBuf,
    _dir: TempDir,
}

impl<'a> Scene<'a> {
    fn new(program: &'a Path, kind: FileSystem, seed: u64) -> anyhow::Result<Self> {
        let dir = scratch()?;
        let (file, at) = (dir.path().join("image"), dir.path().join("mount"));
        std::fs::create_dir(&at)?;
        image(&file, DISK_BYTES)?;
        kind.make(&file)?;
        let device = LoopDevice::attach(&file)?;
        let mount = Some(Mount::device(device.path(), kind, &at)?);
        Ok(Self {
            program,
            kind,
            seed,
            rng: Rng::new(seed),
            account: Account::new(seed),
            life: 0,
            mount,
            device,
            at,
            _dir: dir,
        })
    }

    fn play(&mut self, cuts: u64) -> anyhow::Result<Cuts> {
        let mut done = Cuts::default();
        for cut in 1..=cuts {
            let args = self.args();
            done.again += u64::try_from(args.again.len())?;
            let process = Process::start(&mut args.command(self.program))?;
            self.let_work(&process)?;
            for line in self.cut(process)? {
                self.account.hear(&line)?;
            }
            done.cuts += 1;
            // Two cuts in a row, or a look between them.
            if cut == cuts || self.rng.coin() {
                let checked = self.account.check(&self.at, &mut self.rng);
                checked.map_err(|broken: Broken| broken.at(format!("cut {cut}")))?;
                done.checks += 1;
            }
        }
        done.acks = self.account.acks;
        let full = self.account.refusals.iter();
        let full = full.filter(|(code, _)| *code == ErrorCode::NO_SPACE);
        let full = full.count();
        ensure!(full == 0, "the file system was full {full} times");
        Ok(done)
    }

    fn args(&self) -> Args {
        let open = self.account.open();
        let again = open.into_iter().map(|(id, room)| Again { id, room });
        let again: Vec<_> = again.collect();
        Args {
            dir: self.at.clone(),
            seed: self.seed,
            life: self.life,
            threads: THREADS,
            runs: 0,
            // Some of them alone would be stored without those before them.
            again: if again.len() > AGAIN_MAX {
                Vec::new()
            } else {
                again
            },
            careless: false,
        }
    }

    /// Waits for a moment that nobody chose: at work, or while it starts.
    fn let_work(&mut self, process: &Process) -> anyhow::Result<()> {
        let micros = if self.rng.chance(1, 5) {
            self.rng.below(20_000)
        } else {
            let first = process.next(PATIENCE)?;
            ensure!(first == Some(Line::Ready), "it does not begin: {first:?}");
            self.rng.below(150_000)
        };
        thread::sleep(Duration::from_micros(micros));
        Ok(())
    }

    /// Cuts the power, and brings the file system back as it is then. What the process said.
    fn cut(&mut self, process: Process) -> anyhow::Result<Vec<Line>> {
        let mount = self.mount.take().context("it is mounted")?;
        mount.shut_down()?;
        let lines = process.kill()?;
        mount.unmount()?;
        self.mount = Some(Mount::device(self.device.path(), self.kind, &self.at)?);
        self.life += 1;
        Ok(lines)
    }
}
