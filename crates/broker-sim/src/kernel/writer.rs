//! A process that publishes until it is stopped from outside, and says what it does.
//!
//! It says [`Line::Sent`] before it hands messages in, and the answers as they come, each line with a write of its own: what a
//! process says is known even if it is killed right after. Its stdin is its lease: at its end it ends.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::str::FromStr;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

use anyhow::{Context as _, bail, ensure};
use broker_core::log::storage::{FileStorage, Storage};
use broker_core::store::{EmbeddedStore, Mailbox, Notice, Store};
use broker_proto::Level;

use super::account::{Line, numbers, payload};
use crate::oracle::{Ledger, MessageId, producer_key, room_of};
use crate::rig::{Limits, append_of, config, start_of_time};
use crate::rng::Rng;
use crate::workers::rng_of;

/// Rooms that are written to.
const ROOMS: u64 = 7;
/// Messages that wait for their ack, for each thread.
const WINDOW: u32 = 24;
/// Runs more than it was told to do, when the last one was refused.
const RUNS_MORE: u32 = 3;
/// Producers of one life.
const PRODUCERS: u16 = 16;

/// How a writer is started.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// The directory of the store, which exists.
    #[arg(long)]
    pub dir: PathBuf,
    /// Where chance begins.
    #[arg(long)]
    pub seed: u64,
    /// Which life of the store it is: each has producers of its own.
    #[arg(long)]
    pub life: u16,
    /// Threads that publish, each as a producer. Without any, the store is driven step by step on one thread, so that its system
    /// calls are the same each time, for as many runs as `runs` says.
    #[arg(long, default_value_t = 0)]
    pub threads: u16,
    /// How often a writer without threads sends.
    #[arg(long, default_value_t = 20)]
    pub runs: u32,
    /// Messages of an earlier life that nobody answered for, to be sent again first.
    #[arg(long)]
    pub again: Vec<Again>,
    /// Only append lines to a plain file, and call each safe without any sync: what must be caught.
    #[arg(long)]
    pub careless: bool,
}

/// A message and its room, as `PRODUCER:NUMBER:ROOM`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Again {
    /// The message.
    pub id: MessageId,
    /// Where it was sent to.
    pub room: u16,
}

impl FromStr for Again {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let mut words = text.split(':');
        let mut word = || words.next().context("PRODUCER:NUMBER:ROOM");
        Ok(Self {
            id: MessageId {
                producer: word()?.parse()?,
                number: word()?.parse()?,
            },
            room: word()?.parse()?,
        })
    }
}

impl Args {
    /// The command that starts it.
    #[must_use]
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.arg("writer").arg("--dir").arg(&self.dir);
        command.arg(format!("--seed={}", self.seed));
        command.arg(format!("--life={}", self.life));
        command.arg(format!("--threads={}", self.threads));
        command.arg(format!("--runs={}", self.runs));
        for Again { id, room } in &self.again {
            command.arg(format!("--again={}:{}:{room}", id.producer, id.number));
        }
        if self.careless {
            command.arg("--careless");
        }
        // Why it stops it says in a line.
        command.stderr(Stdio::null());
        command
    }

    fn rng(&self, part: u64) -> Rng {
        rng_of(self.seed, (u64::from(self.life) << 8) + part)
    }
}

fn say(line: &Line) -> io::Result<()> {
    // One write for each line: what is said is out.
    io::stdout().write_all(format!("{line}\n").as_bytes())?;
    io::stdout().flush()
}

/// Publishes until it cannot, and says why.
#[must_use]
pub fn run(args: &Args) -> ExitCode {
    match publish(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let why = format!("{error:#}").replace('\n', " ");
            // Nobody hears it any more when this fails.
            let _ = say(&Line::Stopped(why));
            ExitCode::FAILURE
        }
    }
}

fn publish(args: &Args) -> anyhow::Result<()> {
    if args.careless {
        return careless(&args.dir);
    }
    let disk = Arc::new(FileStorage::open(&args.dir)?);
    if args.threads == 0 {
        return step_by_step(disk, args);
    }
    let mut rng = args.rng(0);
    let config = config(Limits::draw(&mut rng), rng, &start_of_time());
    let store = EmbeddedStore::open(disk, config, &mut |_, _| {})?;
    say(&Line::Ready)?;
    thread::spawn(|| {
        // Whoever started it is gone.
        let _ = io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
    let mut again = args.again.clone();
    again.sort_by_key(|again| again.id);
    let mut desk = Desk::new(Arc::clone(&store), args, 0);
    desk.send_again(&again)?;
    while desk.waiting > 0 && !desk.refused {
        desk.wait()?;
    }
    thread::scope(|scope| {
        let publish = |thread| {
            let mut desk = Desk::new(Arc::clone(&store), args, thread);
            desk.publish()
        };
        let threads: Vec<_> = (1..=args.threads)
            .map(|thread| scope.spawn(move || publish(thread)))
            .collect();
        for thread in threads {
            match thread.join() {
                Ok(done) => done?,
                Err(_) => bail!("a thread of the writer panicked"),
            }
        }
        anyhow::Ok(())
    })?;
    say(&Line::Stopped("messages were refused".to_owned()))?;
    // Nothing that it does at its end is to be on the disk.
    loop {
        thread::park();
    }
}

/// The same system calls for the same seed.
fn step_by_step(disk: Arc<FileStorage>, args: &Args) -> anyhow::Result<()> {
    let mut rng = args.rng(0);
    let limits = Limits {
        segment_bytes_min: 16 << 10,
        segment_bytes_max: 32 << 10,
        checkpoint_bytes_min: 8 << 10,
        batch_bytes_max: 1 << 20,
        tail_bytes_max: 0,
    };
    let clock = start_of_time();
    let config = config(limits, rng.fork(), &clock);
    let (store, mut engine) = EmbeddedStore::open_manual(disk, config, &mut |_, _| {})?;
    say(&Line::Ready)?;
    let mut desk = Desk::new(Arc::clone(&store), args, 1);
    for run in 0..args.runs + RUNS_MORE {
        // A fault at the end of the last one: it goes on, to show whether it can.
        if run >= args.runs && !desk.refused {
            break;
        }
        desk.refused = false;
        clock.advance(std::time::Duration::from_millis(7));
        desk.send_run()?;
        while engine.step() {}
        if run % 4 == 3 {
            engine.idle();
        }
        engine.keep_house();
        desk.hear()?;
    }
    engine.close();
    ensure!(desk.waiting == 0, "{} were never answered", desk.waiting);
    Ok(())
}

/// A publisher of one producer.
struct Desk<S: Storage> {
    store: Arc<EmbeddedStore<S>>,
    mailbox: Arc<Mailbox>,
    seed: u64,
    rng: Rng,
    next: MessageId,
    /// Messages that nobody answered for yet.
    waiting: u32,
    /// Whether any message was refused.
    refused: bool,
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

impl<S: Storage> Desk<S> {
    fn new(store: Arc<EmbeddedStore<S>>, args: &Args, thread: u16) -> Self {
        Self {
            store,
            mailbox: Mailbox::new(),
            seed: args.seed,
            rng: args.rng(u64::from(thread) + 1),
            next: MessageId {
                producer: args.life * PRODUCERS + thread,
                number: 1,
            },
            waiting: 0,
            refused: false,
        }
    }

    /// Sends ahead until something is refused.
    fn publish(&mut self) -> anyhow::Result<()> {
        while !self.refused {
            while self.waiting < WINDOW {
                self.send_run()?;
            }
            self.wait()?;
        }
        Ok(())
    }

    fn send_run(&mut self) -> anyhow::Result<()> {
        let count = u32::try_from(1 + self.rng.below(4))?;
        let room = u16::try_from(self.rng.below(ROOMS))?;
        let first = self.next;
        self.next.number += u64::from(count);
        self.send(first, count, room, false)
    }

    fn send_again(&mut self, again: &[Again]) -> anyhow::Result<()> {
        for again in again {
            self.send(again.id, 1, again.room, true)?;
        }
        Ok(())
    }

    fn send(
        &mut self,
        first: MessageId,
        count: u32,
        room: u16,
        resend: bool,
    ) -> anyhow::Result<()> {
        let mut ledger = Ledger::default();
        for id in numbers(first, count) {
            ledger.send(id, room, payload(self.seed, id));
        }
        let append = append_of(&ledger, first, count, resend)?;
        say(&Line::Sent { first, count, room })?;
        let queued = self.store.append(append, &self.mailbox);
        ensure!(queued.is_ok(), "the queue of the store is full");
        self.waiting += count;
        Ok(())
    }

    /// Waits for answers, and says them.
    fn wait(&mut self) -> anyhow::Result<()> {
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        let mut context = Context::from_waker(&waker);
        while self.mailbox.poll_ready(&mut context) == Poll::Pending {
            thread::park();
        }
        self.hear()
    }

    /// Says the answers that are there.
    fn hear(&mut self) -> anyhow::Result<()> {
        let mut notices = Vec::new();
        self.mailbox.drain(&mut notices);
        for notice in notices {
            let (line, count) = match notice {
                Notice::Acked { producer, run } => {
                    ensure!(
                        run.level == Level::SYNCED,
                        "an ack of level {:?}",
                        run.level
                    );
                    let room = room_of(run.room.as_str()).context("an ack names another room")?;
                    let first = self.named(producer, run.first_number)?;
                    let line = Line::Acked {
                        first,
                        count: run.count,
                        room,
                        epoch: run.epoch.get(),
                        seq: run.first_seq.get(),
                    };
                    (line, run.count)
                }
                Notice::Refused {
                    producer,
                    first_number,
                    count,
                    code,
                    detail,
                    ..
                } => {
                    self.refused = true;
                    let first = self.named(producer, first_number)?;
                    let line = Line::Refused {
                        first,
                        count,
                        code,
                        detail: detail.replace('\n', " "),
                    };
                    (line, count)
                }
                _ => continue,
            };
            say(&line)?;
            self.waiting = self.waiting.saturating_sub(count);
        }
        Ok(())
    }

    /// The message that an answer names.
    fn named(&self, producer: broker_proto::ProducerId, number: u64) -> anyhow::Result<MessageId> {
        let [low, high, ..] = *producer.as_bytes();
        let id = MessageId {
            producer: u16::from_le_bytes([low, high]),
            number,
        };
        let known = producer_key(id.producer)?.producer;
        ensure!(known == producer, "an answer to a producer that nobody is");
        Ok(id)
    }
}

/// What no program may do.
fn careless(dir: &Path) -> anyhow::Result<()> {
    let mut file = std::fs::File::create(dir.join("careless"))?;
    say(&Line::Ready)?;
    for line in 1.. {
        file.write_all(&careless_line(line))?;
        say(&Line::Careless(line))?;
    }
    Ok(())
}

/// A line of the careless writer.
#[must_use]
pub fn careless_line(line: u64) -> Vec<u8> {
    format!("{line:0127}\n").into_bytes()
}
