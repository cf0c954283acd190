//! [`World`]: what the hosts of one simulation share beside the network, and the trace of what happens.
//!
//! Everything runs on one thread. Nothing in here is reached by the code under test; only the scripts around it use it.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use broker_core::clock::{Clock, ManualClock};
use broker_proto::Micros;

use super::history::{History, Verdict};
use super::wire::Sockets;
use crate::campaign::Broken;
use crate::disk::SimDisk;
use crate::rig::Limits;
use crate::rng::Rng;

/// What differs from seed to seed, and stays the same in one run.
#[derive(Debug, Clone)]
pub(super) struct Shape {
    pub(super) clients: usize,
    pub(super) rooms: usize,
    /// How many of the clients only read.
    pub(super) listeners: usize,
    /// How long a tick of the simulation is. Hosts have their own, finer time within it.
    pub(super) tick: Duration,
    /// How long there are faults.
    pub(super) chaos: Duration,
    /// Between faults, on average.
    pub(super) calm: Duration,
    /// Between two things that a client does, at most, in microseconds.
    pub(super) pause_max: u64,
    /// Segments under way in each direction of a connection.
    pub(super) tcp_capacity: usize,
    /// Slowest way of a segment.
    pub(super) latency_max: Duration,
    /// The writer's time for a batch, at most, in microseconds.
    pub(super) step_max: u64,
    pub(super) queue_bytes_max: usize,
    pub(super) limits: Limits,
}

impl Shape {
    pub(super) fn draw(rng: &mut Rng) -> Self {
        let clients = 3 + rng.index(3);
        let pick = |rng: &mut Rng, from: &[u64]| rng.pick(from).copied().unwrap_or(1);
        // Those that wait for nothing notice a dead connection only after more than a minute.
        let listeners = usize::from(rng.chance(1, 5));
        let tick = if listeners > 0 {
            5
        } else {
            pick(rng, &[1, 2, 5])
        };
        Self {
            clients,
            rooms: 1 + rng.index(3),
            listeners,
            tick: Duration::from_millis(tick),
            chaos: Duration::from_millis(1500 + rng.below(3500)),
            calm: Duration::from_millis(pick(rng, &[60, 150, 400])),
            pause_max: pick(rng, &[3_000, 15_000, 60_000]),
            tcp_capacity: usize::try_from(pick(rng, &[32, 64, 256])).unwrap_or(64),
            latency_max: Duration::from_millis(pick(rng, &[1, 5, 30])),
            step_max: pick(rng, &[500, 4_000, 20_000]),
            queue_bytes_max: usize::try_from(pick(rng, &[2 << 10, 64 << 10, 16 << 20]))
                .unwrap_or(1 << 20),
            limits: Limits::draw(rng),
        }
    }
}

/// Which host leads, and with what.
#[derive(Debug)]
pub(super) struct Lead {
    /// The host that is to lead when it starts.
    pub(super) host: Cell<usize>,
    /// The last term that was led.
    pub(super) term: Cell<u64>,
    pub(super) disk: RefCell<SimDisk>,
    /// The leader is to leave in order.
    pub(super) leave: Cell<bool>,
    /// It has.
    pub(super) left: Cell<bool>,
    /// The disk hangs until then.
    pub(super) hangs_until: Cell<Duration>,
    /// How often somebody began to lead.
    pub(super) leaderships: Cell<u64>,
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct World {
    pub(super) shape: Shape,
    pub(super) clock: ManualClock,
    pub(super) lead: Lead,
    pub(super) history: RefCell<History>,
    /// The faults are over: everybody is to finish.
    pub(super) quiet: Cell<bool>,
    /// All have finished: the judge may read.
    pub(super) drained: Cell<bool>,
    pub(super) judged: Cell<bool>,
    /// Of the clients, the judge and the brokers.
    sockets: Vec<Arc<Sockets>>,
    /// By client: it has sent all that it wanted to.
    pub(super) finished: RefCell<Vec<bool>>,
    /// By client: what it still waits to read, by a number of its own, with room and next seq.
    pub(super) readers: RefCell<Vec<Vec<(usize, u64)>>>,
    rng: RefCell<Rng>,
    failure: RefCell<Option<Broken>>,
    trace: RefCell<Trace>,
}

/// What happened, in order.
#[derive(Debug, Default)]
struct Trace {
    lines: Vec<String>,
    hash: u64,
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let shape = Shape::draw(&mut rng);
        let (clients, rooms) = (shape.clients, shape.rooms);
        let disk = SimDisk::new(rng.next());
        Self {
            shape,
            clock: ManualClock::new(Micros::new(1_700_000_000_000_000)),
            lead: Lead {
                host: Cell::new(0),
                term: Cell::new(0),
                disk: RefCell::new(disk),
                leave: Cell::new(false),
                left: Cell::new(false),
                hangs_until: Cell::new(Duration::ZERO),
                leaderships: Cell::new(0),
            },
            history: RefCell::new(History::new(rooms)),
            quiet: Cell::new(false),
            drained: Cell::new(false),
            judged: Cell::new(false),
            sockets: (0..clients + 3).map(|_| Arc::default()).collect(),
            finished: RefCell::new(vec![false; clients]),
            readers: RefCell::new(vec![Vec::new(); clients]),
            rng: RefCell::new(rng),
            failure: RefCell::default(),
            trace: RefCell::default(),
        }
    }

    /// Numbers of its own for somebody.
    pub(super) fn fork(&self) -> Rng {
        self.rng.borrow_mut().fork()
    }

    /// The connections of a client, or of the judge, whose number is that of the clients.
    pub(super) fn sockets_of_client(&self, client: usize) -> Arc<Sockets> {
        self.sockets.get(client).cloned().unwrap_or_default()
    }

    /// The connections of a broker.
    pub(super) fn sockets_of_broker(&self, broker: usize) -> Arc<Sockets> {
        self.sockets_of_client(self.shape.clients + 1 + broker)
    }

    /// Whether the leader's power went in the middle of a call to its disk.
    pub(super) fn lost_power(&self) -> bool {
        self.lead.disk.borrow().is_crashed()
    }

    /// Time since the simulation began.
    pub(super) fn now(&self) -> Duration {
        self.clock.monotonic()
    }

    /// Writes down what happens.
    pub(super) fn note(&self, who: impl fmt::Display, what: fmt::Arguments<'_>) {
        let line = format!("{:>9.3} {who} {what}", self.now().as_secs_f64());
        let mut trace = self.trace.borrow_mut();
        // FNV-1a: any difference in any line makes another hash.
        let bytes = line.bytes().chain([b'\n']);
        trace.hash = bytes.fold(trace.hash ^ 0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        trace.lines.push(line);
    }

    /// Notes a broken promise; the first one counts.
    pub(super) fn hold(&self, who: impl fmt::Display, verdict: Verdict) {
        if let Err(broken) = verdict {
            self.note(&who, format_args!("{broken}"));
            let mut failure = self.failure.borrow_mut();
            let what = format!("{who}: {}", broken.what);
            failure.get_or_insert_with(|| Broken::new(broken.harm, what));
        }
    }

    /// The first broken promise.
    pub(super) fn failure(&self) -> Option<Broken> {
        self.failure.borrow().clone()
    }

    /// A number that is another one for any other course of events.
    pub(super) fn trace_hash(&self) -> u64 {
        self.trace.borrow().hash
    }

    /// The last lines of the trace.
    pub(super) fn trace_tail(&self, lines: usize) -> String {
        let trace = self.trace.borrow();
        let from = trace.lines.len().saturating_sub(lines);
        let tail = trace.lines.get(from..).unwrap_or_default();
        tail.join("\n")
    }

    /// What keeps everybody from being done, once the faults are over.
    pub(super) fn undone(&self) -> Option<String> {
        let history = self.history.borrow();
        let finished = self.finished.borrow();
        for (client, finished) in finished.iter().enumerate() {
            let pending = history.pending(client);
            if pending > 0 {
                return Some(format!("client {client}: {pending} sends have no answer"));
            }
            if !finished {
                return Some(format!("client {client} has not sent its last messages"));
            }
        }
        for (client, readers) in self.readers.borrow().iter().enumerate() {
            for (room, next) in readers {
                let head = history.acked_upto(*room);
                if *next <= head {
                    return Some(format!(
                        "client {client} waits for seq {next} of room {room}, whose head is {head}"
                    ));
                }
            }
        }
        None
    }
}
