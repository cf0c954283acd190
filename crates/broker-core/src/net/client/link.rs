//! [`Link`]: one connection to a broker, from the welcome to its end.
//!
//! One poll is one turn: take apart everything that was read and hand out the results, look at the clock, write everything
//! that is queued in one vectored write. **Before it writes, the task yields once**, so that all senders that are ready
//! append first. Without that the runtime runs this task after the first sender, and every message gets a write of its
//! own: 225 instead of 1,155 thousand messages a second, measured.
//!
//! **Invariants:** reading never waits for the application or for writing; a sleeping task holds its waker in the core.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use broker_proto::limits::{
    FRAME_BYTES_MAX, LENGTH_FIELD_BYTES, PING_AFTER_SECS, PING_UNANSWERED_SECS_MAX,
};
use broker_proto::{
    Ack, Decoder, ErrorCode, Frame, Goodbye, Kind, Ping, Pong, Position, Refused, Seq,
};
use tokio::io::{AsyncReadExt, AsyncWrite};
use tokio::time::{Instant, Sleep, sleep_until};

use super::batch::Stored;
use super::connector::BoxStream;
use super::error::{Error, ErrorKind, Result};
use super::greet::Greeted;
use super::outbox::Outbox;
use super::read_buffer::{BLOCK_BYTES, ReadBuffer};
use super::sends::{Next, Range, Refusal};
use super::shared::{Core, Shared};
use super::stall::ASK_AFTER;

/// Bytes of one turn, so that readers look at what came while it is in the processor's cache, and a fast broker does not
/// keep the task from writing.
const TURN_READ_BYTES: usize = BLOCK_BYTES;
/// Silence after which a broker is asked whether it is there when nothing is waited for; otherwise it is [`ASK_AFTER`].
const PING_AFTER: Duration = Duration::from_secs(PING_AFTER_SECS);
/// Silence after a ping that ends an idle connection.
const DEAD_AFTER: Duration = Duration::from_secs(PING_UNANSWERED_SECS_MAX);
/// Shortest silence after a ping that ends a connection on which an answer is waited for.
const DEAD_AFTER_MIN: Duration = Duration::from_secs(1);
/// How long the broker has to end the connection after a goodbye. Ending it ourselves while bytes of the broker are unread
/// would make the system throw away the goodbye.
const GOODBYE_WAIT: Duration = Duration::from_millis(250);
/// Own pings have nonces from here on; those below belong to requests.
const OWN_NONCES: u64 = 1 << 32;
/// Pings of the broker that are answered in one turn; it needs one answer, not each.
const PONGS_MAX: usize = 16;

/// How a connection ended.
#[derive(Debug)]
pub(super) enum End {
    /// As it was meant to.
    Finished,
    /// Before that.
    Lost(Error),
}

/// What a turn comes to.
enum Turn {
    /// There are bytes to write.
    Write,
    /// There is nothing to do until the task is woken.
    Sleep,
    /// The connection is over.
    End,
}

/// How long a silent broker is waited for when an answer is due: half the timeout, so that a second connection still has
/// a chance to bring the answer in time.
pub(super) fn patience(timeout: Duration) -> Duration {
    (timeout / 2).clamp(DEAD_AFTER_MIN, DEAD_AFTER)
}

/// One connection to a broker.
pub(super) struct Link<'a> {
    shared: &'a Shared,
    stream: BoxStream,
    decoder: Decoder,
    read: ReadBuffer,
    outbox: Outbox,
    /// Whether there are messages among what is being written.
    publishes: bool,
    timer: Pin<Box<Sleep>>,
    last_read: Instant,
    /// When a frame came that was more than a sign of life.
    last_news: Instant,
    /// Whether it was told that nothing comes that is waited for.
    told: bool,
    /// When a ping was written that no byte has followed.
    pinged: Option<Instant>,
    pings: u64,
    pongs: usize,
    useful: bool,
    yielded: bool,
    /// Whether an ack woke senders in this turn; they will have something to send in a moment.
    answered: bool,
    /// When the goodbye was queued.
    goodbye: Option<Instant>,
    wakes: Vec<Waker>,
}

impl<'a> Link<'a> {
    pub(super) fn new(shared: &'a Shared, greeted: Greeted) -> Self {
        let now = Instant::now();
        Self {
            shared,
            stream: greeted.stream,
            decoder: greeted.decoder,
            read: ReadBuffer::new(greeted.read),
            outbox: Outbox::default(),
            publishes: false,
            timer: Box::pin(sleep_until(now + PING_AFTER)),
            last_read: now,
            last_news: now,
            told: false,
            pinged: None,
            pings: OWN_NONCES,
            pongs: 0,
            useful: false,
            yielded: false,
            answered: false,
            goodbye: None,
            wakes: Vec::new(),
        }
    }

    /// Serves the connection to its end; tells also whether it brought anything that was waited for.
    pub(super) async fn run(mut self) -> (End, bool) {
        // What came with the welcome was read already.
        let first = self.take_frames();
        self.wake_all();
        if let Err(error) = first {
            return (End::Lost(error), self.useful);
        }
        let end = std::future::poll_fn(|cx| self.poll(cx)).await;
        (end, self.useful)
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        let before = self.last_read;
        self.answered = false;
        let read = self.poll_read(cx);
        self.wake_all();
        let end = match read {
            Ok(true) => return Poll::Ready(End::Finished),
            Ok(false) => {
                let now = match self.last_read {
                    now if now != before => now,
                    _ => Instant::now(),
                };
                self.poll_rest(cx, now)
            }
            Err(_) if self.goodbye.is_some() => return Poll::Ready(End::Finished),
            Err(error) => return Poll::Ready(End::Lost(error)),
        };
        self.wake_all();
        end.map(|end| match end {
            Ok(()) => End::Finished,
            Err(_) if self.goodbye.is_some() => End::Finished,
            Err(error) => End::Lost(error),
        })
    }

    fn poll_rest(&mut self, cx: &mut Context<'_>, now: Instant) -> Poll<Result<()>> {
        if self.timer.as_mut().poll(cx).is_ready() {
            self.on_timer(now)?;
            // A timer that has been set anew must be polled to wake.
            if self.timer.as_mut().poll(cx).is_ready() {
                cx.waker().wake_by_ref();
            }
        }
        self.poll_output(cx, now)
    }

    fn wake_all(&mut self) {
        self.wakes.drain(..).for_each(Waker::wake);
    }

    // ---- Reading ----

    /// Reads and takes apart what has come; true when the broker has ended a connection that was to end.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Result<bool> {
        self.pongs = 0;
        let mut bytes = 0;
        while bytes < TURN_READ_BYTES {
            self.read.make_room();
            let polled = pin!(self.stream.read_buf(self.read.bytes())).poll(cx);
            let Poll::Ready(read) = polled else {
                self.read.tidy();
                return Ok(false);
            };
            match read {
                Ok(0) if self.goodbye.is_some() => return Ok(true),
                Ok(0) => return Err(self.lost(io::ErrorKind::UnexpectedEof.into())),
                Ok(read) => bytes += read,
                Err(error) => return Err(self.lost(error)),
            }
            self.last_read = Instant::now();
            self.pinged = None;
            self.take_frames()?;
            self.read.tidy();
        }
        cx.waker().wake_by_ref();
        Ok(false)
    }

    fn lost(&self, error: io::Error) -> Error {
        // Whoever is gone is not silent.
        self.shared.silences.gone();
        Error::new(
            ErrorKind::Connect,
            format!("the connection to {} was lost", self.shared.address),
        )
        .with_source(error)
        .retryable()
    }

    fn take_frames(&mut self) -> Result<()> {
        let bad = |error| {
            Error::protocol(format!("{} sends no valid frame", self.shared.address))
                .with_source(error)
        };
        while let Some(frame) = self
            .decoder
            .take(self.read.bytes(), FRAME_BYTES_MAX)
            .map_err(bad)?
        {
            self.note_news(&frame);
            self.take_frame(frame)?;
        }
        // A large answer over a slow line comes in pieces; they are what is waited for.
        let begun = self.read.bytes().get(LENGTH_FIELD_BYTES).copied();
        if begun.and_then(Kind::new).is_some_and(is_answer) {
            self.shared.core().requests_moved(self.last_read);
        }
        Ok(())
    }

    /// Tells the end of a silence. A broker whose disk hangs still answers pings, and sends them.
    fn note_news(&mut self, frame: &Frame) {
        let is_sign_of_life = match frame {
            Frame::Ping(_) => true,
            Frame::Pong(pong) => pong.nonce >= OWN_NONCES,
            _ => false,
        };
        if is_sign_of_life && (!self.told || self.shared.core().awaits()) {
            self.shared.silences.alive();
            return;
        }
        self.last_news = self.last_read;
        if self.told {
            self.told = false;
            self.shared.silences.ended();
        }
    }

    fn take_frame(&mut self, frame: Frame) -> Result<()> {
        let wakes = &mut self.wakes;
        let mut core = self.shared.core();
        if let Some(correlation) = answers(&frame) {
            self.useful |= frame.kind() != Kind::Status;
            answer(&mut core, correlation, self.last_read, frame);
            return Ok(());
        }
        self.useful |= matches!(
            frame,
            Frame::Ack(_) | Frame::Deliver(_) | Frame::Subscribed(_)
        );
        match frame {
            Frame::Ack(ack) => {
                let before = wakes.len();
                take_ack(&mut core, &ack, self.last_read, wakes)?;
                self.answered |= wakes.len() > before;
            }
            Frame::Refused(refused) => take_refused(&mut core, &refused, self.last_read, wakes)?,
            Frame::Deliver(deliver) => core.feed(deliver.sub, wakes, |feed, wakes| {
                feed.deliver(deliver, wakes)
            }),
            Frame::Skip(skip) => core.feed(skip.sub, wakes, |feed, wakes| feed.skip(&skip, wakes)),
            Frame::Subscribed(answer) => {
                core.requests_moved(self.last_read);
                core.feed(answer.sub, wakes, |feed, wakes| {
                    feed.subscribed(&answer, wakes)
                });
            }
            Frame::Pong(ref pong) if pong.nonce >= OWN_NONCES => {}
            Frame::Pong(ref pong) => {
                let correlation = u32::try_from(pong.nonce).unwrap_or(0);
                answer(&mut core, correlation, self.last_read, frame);
            }
            Frame::Ping(ping) if self.pongs < PONGS_MAX => {
                self.pongs += 1;
                core.post(&Frame::Pong(Pong { nonce: ping.nonce }));
            }
            Frame::Ping(_) => {}
            Frame::Error(error) => take_error(
                &mut core,
                &self.shared.address,
                &error,
                self.last_read,
                wakes,
            )?,
            Frame::Goodbye(goodbye) => return Err(parted(&self.shared.address, &goodbye)),
            other => {
                let text = format!(
                    "{} sends {}, which has no place here",
                    self.shared.address,
                    other.kind()
                );
                return Err(Error::protocol(text));
            }
        }
        Ok(())
    }

    // ---- The clock ----

    /// How long silence may last now, and from when on.
    fn limits(&self, core: &Core) -> (Instant, Duration, Duration) {
        if core.awaits() {
            (
                self.last_read.max(core.moved()),
                ASK_AFTER,
                patience(self.shared.config.timeout),
            )
        } else {
            (self.last_read, PING_AFTER, DEAD_AFTER)
        }
    }

    fn on_timer(&mut self, now: Instant) -> Result<()> {
        let mut core = self.shared.core();
        let timeout = self.shared.config.timeout;
        if core
            .deadline(timeout)
            .is_some_and(|deadline| deadline <= now)
        {
            core.expire(self.shared, now, &mut self.wakes);
        }
        let (since, ask_after, dead_after) = self.limits(&core);
        match self.pinged {
            Some(pinged) if now >= pinged + dead_after => {
                let text = format!(
                    "{} has been silent for {:?}",
                    self.shared.address,
                    now - self.last_read
                );
                return Err(Error::new(ErrorKind::Connect, text).retryable());
            }
            Some(_) => {}
            None if now >= since + ask_after => {
                self.pings += 1;
                self.pinged = Some(now);
                core.post(&Frame::Ping(Ping { nonce: self.pings }));
            }
            None => {}
        }
        let look = self
            .pinged
            .map_or(since + ask_after, |pinged| pinged + dead_after);
        let next = core
            .deadline(timeout)
            .map_or(look, |deadline| deadline.min(look));
        let next = self
            .goodbye
            .map_or(next, |said| next.min(said + GOODBYE_WAIT));
        let unanswered = if core.awaits() {
            Some(self.last_news.max(core.moved()))
        } else {
            self.pinged
        };
        drop(core);
        let next = self.tell_silence(unanswered, now, next);
        self.timer.as_mut().reset(next);
        Ok(())
    }

    /// Tells that nothing comes that is waited for since then; gives the time of the next look.
    fn tell_silence(&mut self, since: Option<Instant>, now: Instant, next: Instant) -> Instant {
        let Some(since) = since.filter(|_| !self.told) else {
            return next;
        };
        if now < since + ASK_AFTER {
            return next.min(since + ASK_AFTER);
        }
        self.told = true;
        self.shared.silences.began(since);
        next
    }

    /// Sees to it that the timer goes off in time for what is waited for. It is only ever set to an earlier time here, so
    /// that a busy connection does not move it at every turn.
    fn arm(&mut self, awaits: bool, now: Instant) {
        let needed = if awaits {
            now + ASK_AFTER.min(self.shared.config.timeout)
        } else {
            now + PING_AFTER
        };
        if self.timer.deadline() > needed {
            self.timer.as_mut().reset(needed);
        }
    }

    // ---- Writing ----

    fn poll_output(&mut self, cx: &mut Context<'_>, now: Instant) -> Poll<Result<()>> {
        loop {
            if self.outbox.is_empty() {
                match self.gather(cx, now)? {
                    Turn::Write => {}
                    Turn::Sleep => return self.poll_timer(cx),
                    Turn::End => return Poll::Ready(Ok(())),
                }
            }
            let mut written = 0;
            let polled = self.outbox.poll_write(&mut self.stream, cx, &mut written);
            if written > 0 && self.publishes {
                // The broker takes messages, slowly perhaps. Its system takes only a few on behalf of a broker that hangs.
                self.shared.core().sends_moved(now);
            }
            match polled {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(self.lost(error))),
                Poll::Pending => {
                    // Nobody wakes this task before the stream takes more: what is appended goes with the next turn.
                    let awaits = self.shared.core().awaits();
                    self.arm(awaits, now);
                    return self.poll_timer(cx);
                }
            }
        }
    }

    /// Fills the empty outbox, or tells what else to do.
    fn gather(&mut self, cx: &mut Context<'_>, now: Instant) -> Result<Turn> {
        let mut core = self.shared.core();
        if let Some(cause) = core.take_hang_up() {
            return Err(cause);
        }
        if core.has_output() {
            if !self.yielded {
                self.yielded = true;
                drop(core);
                cx.waker().wake_by_ref();
                return Ok(Turn::Sleep);
            }
            self.yielded = false;
            self.publishes = core.take_output(&mut self.outbox, &*self.shared.config.clock);
            return Ok(Turn::Write);
        }
        if core.is_done() && self.goodbye.is_none() {
            self.goodbye = Some(now);
            core.post(&Frame::Goodbye(Goodbye {
                flags: Goodbye::FORGET,
                ..Goodbye::default()
            }));
            core.take_output(&mut self.outbox, &*self.shared.config.clock);
            return Ok(Turn::Write);
        }
        if let Some(said) = self.goodbye {
            drop(core);
            return Ok(self.part(cx, said, now));
        }
        // Those who were just woken go first; the first of them need not wake this task then.
        self.yielded = std::mem::take(&mut self.answered);
        if self.yielded {
            drop(core);
            cx.waker().wake_by_ref();
            return Ok(Turn::Sleep);
        }
        core.sleep(cx);
        let awaits = core.awaits();
        drop(core);
        self.arm(awaits, now);
        Ok(Turn::Sleep)
    }

    /// Polls the timer, which may have been set anew since it was polled.
    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        if self.timer.as_mut().poll(cx).is_ready() {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }

    /// The goodbye is written: nothing more goes out, and the broker is given a moment to end the connection.
    fn part(&mut self, cx: &mut Context<'_>, said: Instant, now: Instant) -> Turn {
        let until = said + GOODBYE_WAIT;
        let shut = AsyncWrite::poll_shutdown(Pin::new(&mut self.stream), cx);
        if now >= until || matches!(shut, Poll::Ready(Err(_))) {
            return Turn::End;
        }
        if self.timer.deadline() > until {
            self.timer.as_mut().reset(until);
        }
        Turn::Sleep
    }
}

/// Whether frames of this kind answer requests.
fn is_answer(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::Page
            | Kind::RoomList
            | Kind::Cursor
            | Kind::Status
            | Kind::RoomDetails
            | Kind::RoomsFound
            | Kind::StoreDetails
            | Kind::CursorList
    )
}

/// Whether frames of this kind are requests with a correlation number.
fn is_request(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::Read
            | Kind::ListRooms
            | Kind::GetCursor
            | Kind::SetCursor
            | Kind::GetStatus
            | Kind::GetRoom
            | Kind::ChangeRoom
            | Kind::TrimRoom
            | Kind::RemoveRoom
            | Kind::FindRooms
            | Kind::GetSettings
            | Kind::ChangeSettings
            | Kind::ListCursors
    )
}

/// Which request a frame answers.
fn answers(frame: &Frame) -> Option<u32> {
    match frame {
        Frame::Page(page) => Some(page.head.correlation),
        Frame::RoomList(list) => Some(list.correlation),
        Frame::Cursor(cursor) => Some(cursor.correlation),
        Frame::Status(status) => Some(status.correlation),
        Frame::RoomDetails(details) => Some(details.correlation),
        Frame::RoomsFound(found) => Some(found.correlation),
        Frame::StoreDetails(details) => Some(details.correlation),
        Frame::CursorList(list) => Some(list.correlation),
        _ => None,
    }
}

/// Hands an answer to who asked.
fn answer(core: &mut Core, correlation: u32, now: Instant, frame: Frame) {
    core.requests_moved(now);
    core.requests.answered(correlation, frame);
}

fn take_ack(core: &mut Core, ack: &Ack, now: Instant, wakes: &mut Vec<Waker>) -> Result<()> {
    let mut fresh = 0;
    for run in ack {
        let range = Range {
            producer: ack.producer,
            first: run.first_number,
            count: run.count,
        };
        let stored = Stored {
            epoch: run.epoch,
            first_seq: run.first_seq,
            first_number: run.first_number,
            level: ack.level,
        };
        let news = core.sends.acked(range, run.room, stored, wakes)?;
        if news > 0 {
            let last = run.first_seq.get().saturating_add(u64::from(run.count) - 1);
            core.heads
                .saw(run.room, Position::new(run.epoch, Seq::new(last)));
        }
        fresh += news;
    }
    if fresh > 0 {
        core.sends_moved(now);
        core.hand_on(wakes);
    }
    Ok(())
}

fn take_refused(
    core: &mut Core,
    refused: &Refused,
    now: Instant,
    wakes: &mut Vec<Waker>,
) -> Result<()> {
    let range = Range {
        producer: refused.producer,
        first: refused.first_number,
        count: refused.count,
    };
    let refusal = Refusal {
        code: refused.code,
        detail: &refused.detail,
        retry_after_ms: refused.retry_after_ms,
    };
    let next = core.sends.refused(range, refusal, wakes);
    core.sends_moved(now);
    core.hand_on(wakes);
    match next {
        Next::GoOn => Ok(()),
        Next::Reconnect => {
            let what = "the broker takes no more messages from this connection";
            Err(Error::refused(
                what,
                refused.code,
                &refused.detail,
                refused.retry_after_ms,
            ))
        }
    }
}

/// A request, a subscription or the connection has failed.
fn take_error(
    core: &mut Core,
    address: &str,
    error: &broker_proto::Error,
    now: Instant,
    wakes: &mut Vec<Waker>,
) -> Result<()> {
    core.requests_moved(now);
    match Kind::new(error.kind) {
        Some(Kind::Subscribe | Kind::Credit | Kind::Unsubscribe) => {
            let sub = u32::try_from(error.about).unwrap_or(0);
            let is_leaving = error.code == ErrorCode::GOING_AWAY;
            if is_leaving || core.is_open_feed(sub) && error.code.is_retryable() {
                // The subscription stands for the application, so it is worth another connection.
                let what = "a subscription could not be resumed";
                return Err(Error::refused(
                    what,
                    error.code,
                    &error.detail,
                    error.retry_after_ms,
                ));
            }
            core.fail_feed(sub, wakes, |feed| {
                let what = format!("subscription to room \"{}\"", feed.room);
                Error::refused(what, error.code, &error.detail, error.retry_after_ms)
            });
            Ok(())
        }
        Some(kind) if error.about != 0 && is_request(kind) => {
            if error.code == ErrorCode::GOING_AWAY {
                // The goodbye follows; whoever leads next is asked.
                core.requests.postponed(error);
            } else {
                core.requests.refused(error);
            }
            Ok(())
        }
        _ => {
            core.requests.not_understood(error);
            let what = format!("{address} ends the connection");
            Err(Error::refused(
                what,
                error.code,
                &error.detail,
                error.retry_after_ms,
            ))
        }
    }
}

/// The broker said goodbye.
fn parted(address: &str, goodbye: &Goodbye) -> Error {
    let to = if goodbye.successor.is_empty() {
        String::new()
    } else {
        format!("{} goes on", goodbye.successor)
    };
    let code = if goodbye.code.is_none() {
        ErrorCode::GOING_AWAY
    } else {
        goodbye.code
    };
    Error::refused(
        format!("{address} said goodbye"),
        code,
        &to,
        goodbye.retry_after_ms,
    )
}
