//! `broker send`: one message, or one a line.
//!
//! Lines are pipelined by two halves that run side by side: one reads lines and queues them, which
//! waits when the client has enough in flight; the other takes the acknowledgements in the same
//! order and prints them. What waits between them is bounded, so the input may be of any size.

use std::future::Future;
use std::io::{self, IsTerminal};
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::pin::pin;
use std::time::Instant;

use broker_core::{Ack, BulkTicket, Error, Outcome, Room, Ticket};
use broker_proto::limits::PAYLOAD_BYTES_MAX;
use broker_proto::{Epoch, Level, Position, RoomName};
use bytes::Bytes;
use futures_util::FutureExt;
use tokio::sync::{mpsc, watch};

use crate::args::SendArgs;
use crate::config::Config;
use crate::connect::{Link, Stay, room_name, unless_stopped};
use crate::escape;
use crate::exit::{Exit, Failure};
use crate::lines::{LineSplitter, chunks};
use crate::output::{self, Output, OutputError, Stdout, put, say};
use crate::signals::Stop;

/// Runs the command.
pub(crate) async fn run(config: &Config, args: SendArgs, mut stop: Stop) -> Result<(), Failure> {
    let room = room_name(&args.room)?;
    if args.id.as_deref() == Some("") {
        // Most likely a variable that is not set; under one key all but the first would be gone.
        return Err(Failure::usage("--id takes a key that is not empty"));
    }
    if args.lines {
        if args.text.as_ref().is_some_and(|text| text != "-") {
            return Err(Failure::usage(
                "--lines sends the lines of standard input: leave out the TEXT",
            ));
        }
        return lines(config, &args, room, stop).await;
    }
    let payload = match &args.text {
        Some(text) if text != "-" => Bytes::copy_from_slice(text.as_bytes()),
        _ => unless_stopped(&mut stop, whole_input()).await?,
    };
    let link = unless_stopped(&mut stop, Link::open(config, Stay::OneShot)).await?;
    let sent = unless_stopped(&mut stop, one(&link, &args, room, payload)).await;
    let closed = link.close().await;
    let ack = sent?;
    if args.json {
        let mut out = output::stdout();
        write_ack(&ack.room, ack.epoch, ack.seq.get(), ack.level, out.buffer());
        out.flush()?;
    }
    if config.verbose > 0 {
        say(&format!(
            "{} has it as seq {}, {}",
            ack.room,
            ack.seq,
            ack.level.as_str()
        ));
    }
    closed
}

async fn one(link: &Link, args: &SendArgs, room: RoomName, payload: Bytes) -> Result<Ack, Failure> {
    let room = link.client().room_named(room);
    match &args.id {
        Some(key) => Ok(room.send_with_id(key, 1, payload).await?),
        None => Ok(room.send(payload).await?),
    }
}

/// All of standard input, unless it is more than any broker takes. It is read on another thread, so
/// that a signal is heard while somebody types.
async fn whole_input() -> Result<Bytes, Failure> {
    if io::stdin().is_terminal() {
        say("reading the message from the terminal; Ctrl-D ends it");
    }
    let mut chunks = chunks(io::stdin()).map_err(|error| unreadable(&error))?;
    let mut payload = Vec::new();
    while let Some(chunk) = chunks.recv().await {
        payload.extend_from_slice(&chunk.map_err(|error| unreadable(&error))?);
        if payload.len() > PAYLOAD_BYTES_MAX {
            return Err(Failure::new(
                Exit::Refused,
                format!(
                    "standard input is longer than {PAYLOAD_BYTES_MAX} bytes, the largest message that any broker takes; nothing was sent (--lines sends it line by line)"
                ),
            ));
        }
    }
    Ok(payload.into())
}

fn unreadable(error: &io::Error) -> Failure {
    Failure::new(
        Exit::Protocol,
        format!("cannot read standard input: {error}"),
    )
}

/// One message a line.
async fn lines(
    config: &Config,
    args: &SendArgs,
    room: RoomName,
    mut stop: Stop,
) -> Result<(), Failure> {
    let link = unless_stopped(&mut stop, Link::open(config, Stay::Lasting)).await?;
    let mut acks = Acks::new(&room, args.json);
    let room = link.client().room_named(room);
    let result = pipeline(&room, args.id.as_deref(), stop, &mut acks).await;
    let flushed = acks.flush();
    let closed = link.close().await;
    if config.verbose > 0 {
        say(&acks.summary());
    }
    result.and(flushed).and(closed)
}

/// Both halves side by side, until the input ends or one of them fails.
async fn pipeline(
    room: &Room,
    id: Option<&str>,
    stop: Stop,
    acks: &mut Acks,
) -> Result<(), Failure> {
    let (queued, tickets) = mpsc::channel(TICKETS_WAITING);
    let (tell_enough, enough) = watch::channel(false);
    let input = Input {
        room,
        id,
        stop,
        enough,
    };
    let (sent, stored) = tokio::join!(
        input.queue_lines(queued),
        take_acks(tickets, tell_enough, acks)
    );
    stored.and(sent)
}

/// How many tickets wait between the halves. A ticket stands for all lines of one read.
const TICKETS_WAITING: usize = 64;

/// The half that reads.
struct Input<'a> {
    room: &'a Room,
    id: Option<&'a str>,
    stop: Stop,
    /// Whether a line was refused.
    enough: watch::Receiver<bool>,
}

impl Input<'_> {
    /// Reads lines and queues them: until the input ends, a signal comes, or a line is refused. Every
    /// line that was queued has its ticket handed over, or nobody would learn what became of it.
    async fn queue_lines(mut self, queued: mpsc::Sender<Tickets>) -> Result<(), Failure> {
        let mut chunks = chunks(io::stdin()).map_err(|error| unreadable(&error))?;
        let mut splitter = LineSplitter::new(PAYLOAD_BYTES_MAX);
        let mut number = 1;
        loop {
            let chunk = tokio::select! {
                biased;
                exit = self.stop.requested() => return Err(Failure::quiet(exit)),
                _ = self.enough.wait_for(|enough| *enough) => return Ok(()),
                chunk = chunks.recv() => chunk.transpose().map_err(|error| unreadable(&error))?,
            };
            let mut lines = Vec::new();
            let cut = match &chunk {
                Some(chunk) => splitter.push(chunk, &mut lines),
                None => {
                    lines.extend(splitter.finish());
                    Ok(())
                }
            };
            let count = lines.len() as u64;
            if count > 0 {
                let (tickets, done) = self.queue(number, lines).await;
                // The other half goes first only when it cannot print, and says so.
                let _ = queued.send(tickets).await;
                done?;
                number += count;
            }
            cut.map_err(|error| {
                Failure::new(
                    Exit::Refused,
                    format!("{error}; what comes before it is stored, nothing after it was read"),
                )
            })?;
            if chunk.is_none() {
                return Ok(());
            }
        }
    }

    /// Queues the lines of one read, the first of which is line `number`; what was queued before an
    /// error has its tickets.
    async fn queue(&self, number: u64, lines: Vec<Bytes>) -> (Tickets, Result<(), Failure>) {
        let failed = |number: u64, error: Error| {
            Err(Failure::from(error).context(&format!("line {number}")))
        };
        let mut tickets = Vec::new();
        let Some(key) = self.id else {
            return match self.room.send_all(lines).await {
                Ok(ticket) => (Tickets::All(ticket), Ok(())),
                Err(error) => (Tickets::Each(tickets), failed(number, error)),
            };
        };
        for (number, line) in (number..).zip(lines) {
            match self.room.queue_with_id(key, number, line).await {
                Ok(ticket) => tickets.push(ticket),
                Err(error) => return (Tickets::Each(tickets), failed(number, error)),
            }
        }
        (Tickets::Each(tickets), Ok(()))
    }
}

/// What answers the lines of one read.
enum Tickets {
    All(BulkTicket),
    Each(Vec<Ticket>),
}

/// Where some consecutive lines are stored, or why not.
struct Answer {
    count: u64,
    result: Result<(Position, Level), Error>,
}

impl Tickets {
    /// Waits for all of them; in the order of the lines.
    async fn answers(self) -> Vec<Answer> {
        match self {
            Self::All(ticket) => {
                let answer = |outcome: Outcome| Answer {
                    count: outcome.messages.len() as u64,
                    result: outcome
                        .result
                        .map(|run| (Position::new(run.epoch, run.first_seq), run.level)),
                };
                ticket.outcomes().await.into_iter().map(answer).collect()
            }
            Self::Each(tickets) => {
                let mut answers = Vec::with_capacity(tickets.len());
                for ticket in tickets {
                    let result = ticket.await.map(|ack| (ack.position(), ack.level));
                    answers.push(Answer { count: 1, result });
                }
                answers
            }
        }
    }
}

/// Takes the answers in the order of the lines. After the first refusal no more lines are read, but
/// those on their way are waited for, so that it can be said what became of them.
async fn take_acks(
    mut tickets: mpsc::Receiver<Tickets>,
    enough: watch::Sender<bool>,
    acks: &mut Acks,
) -> Result<(), Failure> {
    loop {
        let ticket = acks.flush_unless_ready(tickets.recv()).await?;
        let Some(ticket) = ticket else {
            return acks.end();
        };
        for answer in acks.flush_unless_ready(ticket.answers()).await? {
            acks.take(answer)?;
        }
        if acks.refused.is_some() {
            enough.send_replace(true);
        }
    }
}

/// What became of the lines so far.
#[derive(Debug)]
struct Acks {
    room: String,
    /// Where acks are printed, if they are wanted and somebody still reads them.
    out: Option<Stdout>,
    stored: u64,
    lines: u64,
    refused: Option<(u64, Error)>,
    /// Lines after the refused one that were on their way already.
    stored_after: u64,
    first: Option<u64>,
    last: u64,
    began: Instant,
}

impl Acks {
    fn new(room: &str, print: bool) -> Self {
        Self {
            room: room.to_owned(),
            out: print.then(output::stdout),
            stored: 0,
            lines: 0,
            refused: None,
            stored_after: 0,
            first: None,
            last: 0,
            began: Instant::now(),
        }
    }

    /// Waits; what has been printed is not held back meanwhile.
    async fn flush_unless_ready<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Failure> {
        let mut work = pin!(work);
        if let Some(done) = work.as_mut().now_or_never() {
            return Ok(done);
        }
        self.flush()?;
        Ok(work.await)
    }

    /// Counts and prints what became of some lines.
    fn take(&mut self, answer: Answer) -> Result<(), Failure> {
        let Answer { count, result } = answer;
        match result {
            Ok((first, level)) => {
                self.stored += count;
                if self.refused.is_some() {
                    self.stored_after += count;
                }
                let seqs = first.seq.get()..first.seq.get().saturating_add(count);
                self.first.get_or_insert(seqs.start);
                self.last = seqs.end.saturating_sub(1);
                self.print(first.epoch, seqs, level)?;
            }
            // A line that was never queued is a range of none; it is the next one.
            Err(error) => drop(self.refused.get_or_insert((self.lines + 1, error))),
        }
        self.lines += count;
        Ok(())
    }

    fn print(&mut self, epoch: Epoch, seqs: Range<u64>, level: Level) -> Result<(), Failure> {
        for seq in seqs {
            let Some(out) = &mut self.out else { break };
            write_ack(&self.room, epoch, seq, level, out.buffer());
            let settled = out.settle();
            self.keep(settled)?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Failure> {
        let flushed = self.out.as_mut().map_or(Ok(()), Output::flush);
        self.keep(flushed)
    }

    /// When nobody reads the acks any more, sending goes on without them.
    fn keep(&mut self, written: Result<(), OutputError>) -> Result<(), Failure> {
        match written {
            Err(OutputError::Closed) => {
                self.out = None;
                Ok(())
            }
            written => Ok(written?),
        }
    }

    /// How it ended, once nothing is on its way any more.
    fn end(&mut self) -> Result<(), Failure> {
        let Some((line, error)) = self.refused.take() else {
            return Ok(());
        };
        let rest = match self.stored_after {
            0 => String::new(),
            after => format!(" ({after} lines after it were on their way already and are stored)"),
        };
        Err(Failure::from(error).context(&format!("line {line}{rest}")))
    }

    fn summary(&self) -> String {
        let seconds = self.began.elapsed().as_secs_f64();
        let room = &self.room;
        match self.first {
            None => format!("{room}: no line was stored, in {seconds:.2} s"),
            Some(first) => format!(
                "{room}: {} lines stored in {seconds:.2} s, seq {first} to {}",
                self.stored, self.last
            ),
        }
    }
}

/// Scripts rely on these names.
fn write_ack(room: &str, epoch: Epoch, seq: u64, level: Level, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"room\":");
    escape::for_json(room, out);
    put(
        out,
        format_args!(
            ",\"epoch\":{epoch},\"seq\":{seq},\"level\":\"{}\"}}\n",
            level.as_str()
        ),
    );
}
