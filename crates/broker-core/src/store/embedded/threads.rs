//! The threads of a store on disk: one writes, two read for those who fell behind, one keeps house,
//! one keeps the store within its bounds, one scrubs.
//!
//! Plain threads, because the disk blocks: whoever serves sockets does not wait for it, except for lone messages on a disk that
//! was fast of late (see [`settler`](super::settler)).

use std::io;
use std::time::Duration;

use super::super::{Mailbox, Notice};
use super::engine::Engine;
use super::inbox::Woken;
use super::shared::{DiskRead, Shared};
use crate::clock::Clock;
use crate::log::early::EARLY_EVERY;
use crate::log::position::LogPosition;
use crate::log::storage::Storage;
use crate::log::{FILL_BYTES, Segment, Spare, delete_spares, make_spare};
use crate::sync::thread::{self, Builder, JoinHandle};
use crate::sync::{Arc, AtomicBool, AtomicU64, Mutex, Ordering, Weak, lock, mpsc, try_lock};

/// After so long without a request the writer marks the end of the log.
const IDLE_AFTER: Duration = Duration::from_secs(1);
/// Reads that wait for the reading threads; a session has few of its own under way.
const READERS: usize = 2;

enum ReadJob {
    Read {
        read: Box<DiskRead>,
        tag: u64,
        to: Arc<Mailbox>,
    },
    /// Something else that takes long.
    Call(Box<dyn FnOnce() + Send>),
}

enum HouseJob {
    /// Of leaders before.
    DeleteSpares(Vec<String>),
    Spare {
        name: String,
        bytes: u64,
    },
    Footer(Arc<Segment>),
    Early {
        is_marked: bool,
    },
}

/// Spares that were made and wait for the writer.
type Made<S> = Arc<Mutex<Vec<io::Result<Spare<<S as Storage>::File>>>>>;

/// A spare that is made at leisure is filled in pieces of this size: one stands in the way of a batch for so long at most.
/// Measured beside batches of 32 KiB: their p99 is 0.3 ms, with pieces of 1 MiB 1 ms and without pauses 2 to 8 ms.
const LEISURE_BYTES: u64 = 256 << 10;
/// Between two pieces the disk is left to the log for so many times what a piece took.
const LEISURE_TIMES: u32 = 2;
/// And for so long at most: closing waits for it.
const LEISURE_MAX: Duration = Duration::from_millis(20);

/// The pace at which a spare is filled.
struct Pace<'a> {
    hurry: &'a AtomicBool,
    clock: &'a dyn Clock,
    /// When the last piece was begun.
    began: Option<Duration>,
}

impl Pace<'_> {
    /// Waits until the next piece may be written, and says how large it may be.
    fn next_piece(&mut self) -> u64 {
        if self.hurry.load(Ordering::Relaxed) {
            return FILL_BYTES;
        }
        if let Some(began) = self.began {
            let took = self.clock.monotonic().saturating_sub(began);
            thread::sleep(took.saturating_mul(LEISURE_TIMES).min(LEISURE_MAX));
        }
        self.began = Some(self.clock.monotonic());
        LEISURE_BYTES
    }
}

/// What writes the log: the writer's thread, or whoever settles a lone message.
pub(super) struct Writing<S: Storage> {
    inner: Mutex<Writer<S>>,
    clock: Arc<dyn Clock>,
    /// How often a message was settled by somebody else than the writer's thread.
    settled: AtomicU64,
}

struct Writer<S: Storage> {
    engine: Engine<S>,
    house: House,
    made: Made<S>,
    spare_asked: bool,
    /// Where the log ended when an early footer was asked for last.
    early_asked: LogPosition,
    /// Still set when work has ended in a panic: then nobody knows what of the batch was done, and nothing more may be.
    at_work: bool,
}

impl<S: Storage> Writer<S> {
    /// Does what there is to do, at most one batch of it; says whether it did anything.
    fn work(&mut self, shared: &Shared<S>) -> bool {
        for spare in lock(&self.made).drain(..) {
            // One that could not be made is asked for again with the next request.
            self.spare_asked = false;
            self.engine.offer_spare(spare);
        }
        shared.pulse.enter();
        self.at_work = true;
        let did = self.engine.step();
        self.at_work = false;
        shared.pulse.leave();
        self.order();
        if shared.durable().since(self.early_asked) >= EARLY_EVERY {
            self.order_early(shared, false);
        }
        did
    }

    /// Asks the housekeeper for an early footer.
    fn order_early(&mut self, shared: &Shared<S>, is_marked: bool) {
        self.early_asked = shared.durable();
        let _ = self.house.jobs.send(HouseJob::Early { is_marked });
    }

    /// Asks the housekeeper for what the writer will need.
    fn order(&mut self) {
        if !self.spare_asked
            && let Some((name, bytes)) = self.engine.wants_spare()
        {
            let job = HouseJob::Spare { name, bytes };
            self.spare_asked = self.house.jobs.send(job).is_ok();
        }
        let hurry = self.spare_asked && self.engine.needs_spare_soon();
        self.house.hurry.store(hurry, Ordering::Relaxed);
        for segment in self.engine.take_sealed() {
            let _ = self.house.jobs.send(HouseJob::Footer(segment));
        }
    }

    fn close(&mut self, shared: &Shared<S>) {
        self.engine.close();
        for segment in self.engine.take_sealed() {
            let _ = self.house.jobs.send(HouseJob::Footer(segment));
        }
        if self.engine.is_marked() {
            self.order_early(shared, true);
        }
    }
}

impl<S: Storage> Writing<S> {
    /// Stores what is queued, unless it is better left to the writer's thread: that one is at work, has to be woken anyway to
    /// mark the end of the log later, or there is more to do than that. Says how long it took.
    pub(super) fn settle(&self, shared: &Arc<Shared<S>>) -> Option<Duration> {
        let mut writer = try_lock(&self.inner)?;
        if writer.at_work || writer.engine.is_marked() || writer.engine.is_busy() {
            return None;
        }
        let guard = Guard(Arc::clone(shared), Stopped::ByPanic);
        let began = self.clock.monotonic();
        writer.work(shared);
        let took = self.clock.monotonic().saturating_sub(began);
        drop(guard);
        self.settled.fetch_add(1, Ordering::Relaxed);
        if writer.engine.is_busy() {
            shared.inbox.nudge();
        }
        Some(took)
    }
}

/// The writer's end of what the housekeeper does.
struct House {
    jobs: mpsc::Sender<HouseJob>,
    /// The writer will soon wait for the spare that is being made.
    hurry: Arc<AtomicBool>,
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Threads {
    writer: JoinHandle<()>,
    others: Vec<JoinHandle<()>>,
    reads: mpsc::Sender<ReadJob>,
}

impl std::fmt::Debug for ReadJob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ReadJob")
    }
}

impl Threads {
    pub(super) fn start<S: Storage>(
        shared: Arc<Shared<S>>,
        mut engine: Engine<S>,
        scrub_every: Option<Duration>,
        spares: Vec<String>,
    ) -> io::Result<(Self, Weak<Writing<S>>)> {
        let made: Made<S> = Arc::default();
        let hurry = Arc::new(AtomicBool::new(false));
        let (house, jobs) = mpsc::channel();
        let _ = house.send(HouseJob::DeleteSpares(spares));
        let mut others = Vec::new();
        let keeper = Keeper {
            shared: Arc::clone(&shared),
            made: Arc::clone(&made),
            hurry: Arc::clone(&hurry),
            clock: engine.clock(),
        };
        others.push(
            Builder::new()
                .name("broker-house".to_owned())
                .spawn(move || keeper.run(&jobs))?,
        );
        let (reads, jobs) = mpsc::channel::<ReadJob>();
        let jobs = Arc::new(Mutex::new(jobs));
        for n in 0..READERS {
            let (shared, jobs) = (Arc::clone(&shared), Arc::clone(&jobs));
            others.push(
                Builder::new()
                    .name(format!("broker-read-{n}"))
                    .spawn(move || read_for_others(&shared, &jobs))?,
            );
        }
        if let Some(every) = scrub_every {
            shared.scrub.set_every(every);
            let scrub = engine.scrubber();
            others.push(
                Builder::new()
                    .name("broker-scrub".to_owned())
                    .spawn(move || scrub.run(every))?,
            );
        }
        if let Some(keeper) = engine.keeper() {
            others.push(
                Builder::new()
                    .name("broker-keep".to_owned())
                    .spawn(move || keeper.run())?,
            );
        }
        let writing = Arc::new(Writing {
            clock: engine.clock(),
            inner: Mutex::new(Writer {
                engine,
                house: House { jobs: house, hurry },
                made,
                spare_asked: false,
                early_asked: LogPosition::START,
                at_work: false,
            }),
            settled: AtomicU64::new(0),
        });
        let handle = Arc::downgrade(&writing);
        let writer = Builder::new()
            .name("broker-log".to_owned())
            .spawn(move || write(&shared, &writing))?;
        let threads = Self {
            writer,
            others,
            reads,
        };
        Ok((threads, handle))
    }

    pub(super) fn read(&self, read: Box<DiskRead>, tag: u64, to: Arc<Mailbox>) {
        // Fails only when the threads have ended, and with them the sessions that could ask.
        let _ = self.reads.send(ReadJob::Read { read, tag, to });
    }

    /// Has a reading thread do something that takes long.
    pub(super) fn call(&self, job: Box<dyn FnOnce() + Send>) {
        let _ = self.reads.send(ReadJob::Call(job));
    }

    /// Waits until everything has ended. The inbox is closed already.
    pub(super) fn join(self) {
        let Self {
            writer,
            others,
            reads,
        } = self;
        drop(reads);
        let ended = std::iter::once(writer).chain(others).map(JoinHandle::join);
        for panicked in ended.filter_map(Result::err) {
            tracing::error!(?panicked, "a thread of the store had stopped by a panic");
        }
    }
}

/// When the store takes nothing more because its writer has stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stopped {
    /// Whenever the guard is dropped.
    Always,
    /// Only when that is by a panic.
    ByPanic,
}

/// Stops the store when the writer ends without having meant to.
struct Guard<S: Storage>(Arc<Shared<S>>, Stopped);

impl<S: Storage> Drop for Guard<S> {
    fn drop(&mut self) {
        let panicking = thread::panicking();
        if panicking {
            self.0.pulse.leave();
            self.0.set_read_only("the log writer stopped unexpectedly; restart the broker, nothing acknowledged is lost".to_owned());
        }
        if panicking || self.1 == Stopped::Always {
            self.0.inbox.close();
        }
    }
}

fn write<S: Storage>(shared: &Arc<Shared<S>>, writing: &Writing<S>) {
    let _guard = Guard(Arc::clone(shared), Stopped::Always);
    loop {
        let settled = writing.settled.load(Ordering::Relaxed);
        let limit = (!lock(&writing.inner).engine.is_marked()).then_some(IDLE_AFTER);
        let woken = shared.inbox.wait(limit);
        let mut writer = lock(&writing.inner);
        if writer.at_work {
            return;
        }
        match woken {
            Woken::Work => {
                while !writer.at_work && writer.work(shared) {
                    drop(writer);
                    writer = lock(&writing.inner);
                }
            }
            // Somebody else has written meanwhile.
            Woken::TimedOut if writing.settled.load(Ordering::Relaxed) != settled => {}
            Woken::TimedOut => {
                shared.pulse.enter();
                writer.engine.idle();
                shared.pulse.leave();
                writer.order_early(shared, true);
            }
            Woken::Closing => {
                shared.pulse.enter();
                writer.close(shared);
                shared.pulse.leave();
                return;
            }
        }
    }
}

/// Does what the writer should not wait for.
struct Keeper<S: Storage> {
    shared: Arc<Shared<S>>,
    made: Made<S>,
    hurry: Arc<AtomicBool>,
    clock: Arc<dyn Clock>,
}

impl<S: Storage> Keeper<S> {
    fn run(&self, jobs: &mpsc::Receiver<HouseJob>) {
        for job in jobs {
            match job {
                HouseJob::DeleteSpares(names) => {
                    delete_spares(&**self.shared.segments.storage(), &names);
                }
                HouseJob::Spare { name, bytes } => self.make_spare(&name, bytes),
                HouseJob::Footer(segment) => {
                    if let Err(error) = self.shared.segments.write_footer(&segment) {
                        tracing::debug!(%error, "cannot write a footer; it is made again when it is needed");
                    }
                }
                HouseJob::Early { is_marked } => self.shared.write_early(is_marked, false),
            }
        }
        // A spare that nobody took is of no use to anybody.
        for spare in lock(&self.made).drain(..).flatten() {
            let _ = self.shared.segments.storage().delete(spare.name());
        }
    }

    fn make_spare(&self, name: &str, bytes: u64) {
        let closing = || self.shared.inbox.is_closing();
        let mut pace = Pace {
            hurry: &self.hurry,
            clock: &*self.clock,
            began: None,
        };
        let mut next_piece = || (!closing()).then(|| pace.next_piece());
        let storage = &**self.shared.segments.storage();
        let spare = make_spare(storage, name, bytes, &mut next_piece);
        if let Err(error) = &spare
            && !closing()
        {
            tracing::warn!(%error, bytes, "cannot prepare space for the log");
        }
        let worked = spare.is_ok();
        lock(&self.made).push(spare);
        // A failure is not worth waking for: it would be asked for again at once.
        if worked {
            self.shared.inbox.nudge();
        }
    }
}

fn read_for_others<S: Storage>(shared: &Shared<S>, jobs: &Mutex<mpsc::Receiver<ReadJob>>) {
    loop {
        let job = lock(jobs).recv();
        match job {
            Ok(ReadJob::Read { read, tag, to }) => {
                let result = shared.read_disk(*read);
                to.post(Notice::Read { tag, result });
            }
            Ok(ReadJob::Call(job)) => job(),
            Err(_) => return,
        }
    }
}
