//! The threads of a store on disk: one writes, two read for those who fell behind, one keeps house,
//! one scrubs.
//!
//! Plain threads, because the disk blocks: whoever serves sockets never waits for it.

use std::io;
use std::time::Duration;

use super::super::{Mailbox, Notice};
use super::engine::Engine;
use super::inbox::Woken;
use super::shared::{DiskRead, Shared};
use crate::clock::Clock;
use crate::log::storage::Storage;
use crate::log::{FILL_BYTES, Segment, Spare, make_spare};
use crate::sync::thread::{self, Builder, JoinHandle};
use crate::sync::{Arc, AtomicBool, Mutex, Ordering, lock, mpsc};

/// After so long without a request the writer marks the end of the log.
const IDLE_AFTER: Duration = Duration::from_secs(1);
/// Reads that wait for the reading threads; a session has few of its own under way.
const READERS: usize = 2;

struct ReadJob {
    read: DiskRead,
    tag: u64,
    to: Arc<Mailbox>,
}

enum HouseJob {
    Spare { name: String, bytes: u64 },
    Footer(Arc<Segment>),
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
        f.debug_struct("ReadJob")
            .field("tag", &self.tag)
            .finish_non_exhaustive()
    }
}

impl Threads {
    pub(super) fn start<S: Storage>(
        shared: Arc<Shared<S>>,
        engine: Engine<S>,
        scrub_every: Option<Duration>,
    ) -> io::Result<Self> {
        let made: Made<S> = Arc::default();
        let hurry = Arc::new(AtomicBool::new(false));
        let (house, jobs) = mpsc::channel();
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
        let writer = Builder::new()
            .name("broker-log".to_owned())
            .spawn(move || write(&shared, engine, &House { jobs: house, hurry }, &made))?;
        Ok(Self {
            writer,
            others,
            reads,
        })
    }

    pub(super) fn read(&self, read: DiskRead, tag: u64, to: Arc<Mailbox>) {
        // Fails only when the threads have ended, and with them the sessions that could ask.
        let _ = self.reads.send(ReadJob { read, tag, to });
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

/// Stops the store when the writer ends without having meant to.
struct Guard<S: Storage>(Arc<Shared<S>>);

impl<S: Storage> Drop for Guard<S> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.pulse.leave();
            self.0.set_read_only("the log writer stopped unexpectedly; restart the broker, nothing acknowledged is lost".to_owned());
        }
        self.0.inbox.close();
    }
}

fn write<S: Storage>(
    shared: &Arc<Shared<S>>,
    mut engine: Engine<S>,
    house: &House,
    made: &Made<S>,
) {
    let guard = Guard(Arc::clone(shared));
    let mut spare_asked = false;
    loop {
        let limit = (!engine.is_marked()).then_some(IDLE_AFTER);
        match shared.inbox.wait(limit) {
            Woken::Work => {
                loop {
                    for spare in lock(made).drain(..) {
                        // One that could not be made is asked for again with the next request.
                        spare_asked = false;
                        engine.offer_spare(spare);
                    }
                    shared.pulse.enter();
                    let did = engine.step();
                    shared.pulse.leave();
                    order(&mut engine, house, &mut spare_asked);
                    if !did {
                        break;
                    }
                }
            }
            Woken::TimedOut => {
                shared.pulse.enter();
                engine.idle();
                shared.pulse.leave();
            }
            Woken::Closing => break,
        }
    }
    shared.pulse.enter();
    engine.close();
    shared.pulse.leave();
    for segment in engine.take_sealed() {
        let _ = house.jobs.send(HouseJob::Footer(segment));
    }
    drop(guard);
}

/// Asks the housekeeper for what the writer will need.
fn order<S: Storage>(engine: &mut Engine<S>, house: &House, spare_asked: &mut bool) {
    if !*spare_asked && let Some((name, bytes)) = engine.wants_spare() {
        *spare_asked = house.jobs.send(HouseJob::Spare { name, bytes }).is_ok();
    }
    let hurry = *spare_asked && engine.needs_spare_soon();
    house.hurry.store(hurry, Ordering::Relaxed);
    for segment in engine.take_sealed() {
        let _ = house.jobs.send(HouseJob::Footer(segment));
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
                HouseJob::Spare { name, bytes } => self.make_spare(&name, bytes),
                HouseJob::Footer(segment) => {
                    if let Err(error) = self.shared.segments.write_footer(&segment) {
                        tracing::debug!(%error, "cannot write a footer; it is made again when it is needed");
                    }
                }
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
        let Ok(ReadJob { read, tag, to }) = job else {
            return;
        };
        let result = shared.read_disk(read);
        to.post(Notice::Read { tag, result });
    }
}
