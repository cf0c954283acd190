//! Server, client and store, all of production, on a simulated network with faults.
//!
//! A run is made from one seed. Three to five client hosts send, subscribe, resume, read pages and move cursors; one of two broker
//! hosts leads with a store on a [`SimDisk`](crate::SimDisk). A script of faults parts, cuts, holds, slows and resets connections,
//! kills processes, cuts power, hangs the disk, and has the other host take over. Then all faults end, and everything must be done in
//! bounded time. At last somebody reads all that is stored, and the history of the run is judged:
//!
//! - what was acknowledged is there, at its seq; what was said not to be stored is not; what is unknown is there once or not;
//! - a message sent again, by the client or under an identity of its own, is there once, and its retry gets its seq;
//! - everybody saw the same messages at the same seqs, without gaps, and nothing that was seen is gone;
//! - what one client sent to a room is there in that order, and after what had been acknowledged before it was sent;
//! - cursors are where they were put; every leader's term is higher than the one before.
//!
//! **Invariants:** one thread, and time only from the simulation, so that a seed repeats a run to the last line of its trace. The
//! history is judged by what clients were told alone.

mod client;
mod faults;
mod history;
mod host;
mod reader;
mod wire;
mod world;

use std::cell::Cell;
use std::fmt;
use std::panic;
use std::rc::Rc;
use std::sync::Once;
use std::time::{Duration, SystemTime};

use turmoil::{Builder, Sim};

use faults::{Faults, client_host};
use world::World;

use crate::campaign::Broken;

pub use faults::FaultCounts;
pub use history::Counts;

/// How long everything may take after the last fault. A client that only listens notices a dead connection after 75 seconds.
const DRAINED_WITHIN: Duration = Duration::from_secs(100);

/// Between two looks at whether everything is done.
const LOOK_EVERY: u32 = 8;

/// Lines of the trace that a failure shows.
const LINES_SHOWN: usize = 60;

thread_local! {
    /// Panics on this thread; the runtime would keep those of spawned tasks to itself.
    static PANICS: Cell<u64> = const { Cell::new(0) };
}

/// What a run did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// What clients asked for and were told.
    pub counts: Counts,
    /// What went wrong around them.
    pub faults: FaultCounts,
    /// How often somebody began to lead.
    pub leaderships: u64,
    /// Time in the simulation.
    pub simulated: Duration,
    /// Longest time from the last fault to the end of the work.
    pub drained_after: Duration,
    /// Another number for any other course of events.
    pub trace_hash: u64,
    /// All that happened, a line each; not added up.
    pub trace: String,
}

/// A run that broke a promise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What repeats it.
    pub seed: u64,
    /// Which promise.
    pub what: Broken,
    /// The last lines of the trace.
    pub trace: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, what, trace } = self;
        write!(
            f,
            "{trace}\nseed {seed}: {what}\nrepeat it with BROKER_SEED={seed} BROKER_NET_SEEDS=1"
        )
    }
}

impl Report {
    /// Adds another run.
    pub fn add(&mut self, other: &Self) {
        self.counts.add(&other.counts);
        self.faults.add(&other.faults);
        self.leaderships += other.leaderships;
        self.simulated += other.simulated;
        self.drained_after = self.drained_after.max(other.drained_after);
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts {
            sent,
            acked,
            refused,
            unknown,
            resent,
            delivered,
            subscriptions,
            resumed,
            pages,
            cursors,
            reconnects,
        } = self.counts;
        writeln!(
            f,
            "{sent} sent: {acked} acknowledged, {refused} refused, {unknown} unknown, {resent} sent once more; {delivered} delivered to \
             {subscriptions} subscriptions ({resumed} resumed); {pages} pages, {cursors} cursor calls, {reconnects} reconnects"
        )?;
        for (name, count) in self.faults.named() {
            write!(f, "{count} {name}, ")?;
        }
        write!(
            f,
            "{} leaderships; {:.0} simulated seconds, drained within {:.1} s",
            self.leaderships,
            self.simulated.as_secs_f64(),
            self.drained_after.as_secs_f64()
        )
    }
}

/// Runs one seed. With `shows`, a failure has the whole trace.
///
/// # Errors
/// When a promise is broken.
pub fn run(seed: u64, shows: bool) -> Result<Report, Box<Failure>> {
    count_panics();
    let panics = PANICS.get();
    let world = Rc::new(World::new(seed));
    let ran = simulate(&world, seed);
    let result = ran.and_then(|report| match PANICS.get() - panics {
        0 => Ok(report),
        panics => Err(format!("{panics} tasks have panicked").into()),
    });
    result.map_err(|what| {
        let lines = if shows { usize::MAX } else { LINES_SHOWN };
        let trace = world.trace_tail(lines);
        Box::new(Failure { seed, what, trace })
    })
}

/// Sees to it that panics on this thread are counted.
fn count_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            PANICS.set(PANICS.get() + 1);
            before(info);
        }));
    });
}

fn simulate(world: &Rc<World>, seed: u64) -> Result<Report, Broken> {
    let mut sim = build(world, seed);
    let mut faults = Faults::new(world);
    while world.now() < world.shape.chaos {
        faults.turn(&mut sim, false);
        step(world, &mut sim)?;
    }
    faults.finish(&mut sim);
    world.quiet.set(true);
    let quiet_at = world.now();
    wait(world, &mut sim, &mut faults, || world.undone())?;
    let drained_after = world.now() - quiet_at;
    world.note("---", format_args!("everything is done"));
    world.drained.set(true);
    wait(world, &mut sim, &mut faults, || {
        (!world.judged.get()).then(|| "the judge is not done".to_owned())
    })?;
    // The hosts end before what they share.
    drop(sim);
    Ok(Report {
        counts: world.history.borrow().counts,
        faults: faults.counts,
        leaderships: world.lead.leaderships.get(),
        simulated: world.now(),
        drained_after,
        trace_hash: world.trace_hash(),
        trace: world.trace_tail(usize::MAX),
    })
}

fn build(world: &Rc<World>, seed: u64) -> Sim<'static> {
    let mut builder = Builder::new();
    builder
        .rng_seed(seed)
        .epoch(SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000))
        .tick_duration(world.shape.tick)
        .simulation_duration(Duration::from_secs(3600))
        .min_message_latency(Duration::ZERO)
        .max_message_latency(world.shape.latency_max)
        .tcp_capacity(world.shape.tcp_capacity)
        .enable_random_order();
    let mut sim = builder.build();
    for (number, name) in client::broker_hosts().into_iter().enumerate() {
        let world = Rc::clone(world);
        sim.host(name, move || host::run(Rc::clone(&world), number));
    }
    for number in 0..world.shape.clients {
        let lives = Cell::new(0);
        let world = Rc::clone(world);
        sim.host(client_host(number), move || {
            lives.set(lives.get() + 1);
            client::run(Rc::clone(&world), number, lives.get())
        });
    }
    let judge = Rc::clone(world);
    sim.host("judge", move || reader::judge(Rc::clone(&judge)));
    sim
}

fn step(world: &World, sim: &mut Sim<'_>) -> Result<(), Broken> {
    sim.step().map_err(|error| error.to_string())?;
    world.clock.advance(world.shape.tick);
    world.failure().map_or(Ok(()), Err)
}

/// Goes on without faults until nothing is left to wait for.
fn wait(
    world: &World,
    sim: &mut Sim<'_>,
    faults: &mut Faults<'_>,
    undone: impl Fn() -> Option<String>,
) -> Result<(), Broken> {
    let until = world.now() + DRAINED_WITHIN;
    while let Some(left) = undone() {
        if world.now() > until {
            return Err(format!("nothing moves any more: {left}").into());
        }
        // A leader may have been about to leave.
        faults.turn(sim, true);
        for _ in 0..LOOK_EVERY {
            step(world, sim)?;
        }
    }
    Ok(())
}
