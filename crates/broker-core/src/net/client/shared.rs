//! [`Shared`]: what the handles of a client and its connection task both see, and [`Core`], the part behind the lock.
//!
//! The lock is held for moments: appending a message, settling a run, handing out what is to be written. Wakers are taken
//! out under it and woken after it.
//!
//! **Invariants:** every change that the connection task must act upon wakes it when it sleeps; the order of locks is core,
//! then feed or batch, never back.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use broker_proto::limits::{
    PAYLOAD_BYTES_MAX, SUBSCRIPTIONS_PER_CONNECTION_MAX, WINDOW_BYTES_DEFAULT,
};
use broker_proto::{
    Frame, KnownHead, Micros, ProducerId, RoomName, SenderName, StartAt, Unsubscribe,
};
use bytes::BytesMut;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

use super::batch::Batch;
use super::config::ClientConfig;
use super::error::{Error, ErrorKind, Result};
use super::feed::Feed;
use super::frames::Outgoing;
use super::heads::Heads;
use super::outbox::Outbox;
use super::requests::{REQUESTS_MAX, Requests};
use super::sends::Sends;
use super::stall::{Silences, Stall};
use super::state::{ServerInfo, State};
use super::waiting::Waiting;
use crate::clock::Clock;
use crate::sync::{Arc, Mutex, MutexGuard, lock};

/// Bytes that one turn hands to the stream; what is left goes with the next, after what came meanwhile.
const TURN_BYTES_MAX: usize = 1 << 20;
/// How long a producer is taken to be remembered before a broker has said so.
const REMEMBERED_DEFAULT: Duration = Duration::from_secs(24 * 60 * 60);

/// What the handles of a client and its connection task share.
#[derive(Debug)]
pub(super) struct Shared {
    core: Mutex<Core>,
    pub(super) state: watch::Sender<State>,
    /// Whether answers are waited for in vain.
    pub(super) silences: Silences,
    /// Permits to make requests.
    pub(super) requests: Semaphore,
    pub(super) config: ClientConfig,
    pub(super) sender: SenderName,
    /// Where the client connects to, for errors.
    pub(super) address: String,
    payload_bytes_max: AtomicUsize,
}

/// Everything about a client that changes.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) sends: Sends,
    pub(super) waiting: Waiting,
    pub(super) requests: Requests,
    /// What is known to be stored, beside what the feeds know.
    pub(super) heads: Heads,
    feeds: BTreeMap<u32, Arc<Feed>>,
    next_feed: u32,
    /// Feeds that the broker has not answered.
    opening: usize,
    /// Frames other than publishes, to be written next.
    control: BytesMut,
    /// Whether there is a connection that takes `control`.
    live: bool,
    window_max: u32,
    producer: ProducerId,
    remembered: Duration,
    pub(super) closing: bool,
    closed: Option<Option<Error>>,
    /// Why the last attempt to connect failed or the last connection was lost.
    pub(super) last_cause: Option<Error>,
    /// Whether sends or requests failed because nothing moved.
    pub(super) expired: Option<Error>,
    /// The connection is to be given up for this reason.
    hang_up: Option<Error>,
    /// Wakes the connection task, while it sleeps.
    driver: Option<Waker>,
    sends_moved: Instant,
    requests_moved: Instant,
}

impl Shared {
    pub(super) fn new(config: ClientConfig, sender: SenderName, address: String) -> Self {
        let now = Instant::now();
        let core = Core {
            sends: Sends::new(),
            waiting: Waiting::default(),
            requests: Requests::new(),
            heads: Heads::default(),
            feeds: BTreeMap::new(),
            next_feed: 1,
            opening: 0,
            control: BytesMut::new(),
            live: false,
            window_max: u32::MAX,
            producer: ProducerId::default(),
            remembered: REMEMBERED_DEFAULT,
            closing: false,
            closed: None,
            last_cause: None,
            expired: None,
            hang_up: None,
            driver: None,
            sends_moved: now,
            requests_moved: now,
        };
        Self {
            core: Mutex::new(core),
            state: watch::Sender::new(State::Connecting),
            silences: Silences::new(),
            requests: Semaphore::new(REQUESTS_MAX),
            config,
            sender,
            address,
            payload_bytes_max: AtomicUsize::new(PAYLOAD_BYTES_MAX),
        }
    }

    /// Looks at the core or changes it in ways that nobody has to hear of.
    pub(super) fn core(&self) -> MutexGuard<'_, Core> {
        lock(&self.core)
    }

    /// Changes the core; wakes whom the change collected, and the connection task.
    pub(super) fn update<R>(&self, change: impl FnOnce(&mut Core, &mut Vec<Waker>) -> R) -> R {
        let mut wakes = Vec::new();
        let (result, driver) = {
            let mut core = self.core();
            let result = change(&mut core, &mut wakes);
            (result, core.driver.take())
        };
        if let Some(driver) = driver {
            driver.wake();
        }
        wakes.into_iter().for_each(Waker::wake);
        result
    }

    /// Largest payload, in bytes, that the broker takes.
    pub(super) fn payload_bytes_max(&self) -> usize {
        self.payload_bytes_max.load(Ordering::Relaxed)
    }

    /// The connection is there: subscribes and asks again, and tells everybody.
    pub(super) fn went_live(&self, server: ServerInfo, away: Option<Duration>, leads: bool) {
        self.payload_bytes_max.store(
            server.payload_bytes_max.min(PAYLOAD_BYTES_MAX),
            Ordering::Relaxed,
        );
        self.update(|core, wakes| core.go_live(&server, wakes));
        self.silences.ended();
        let server = Arc::new(server);
        self.state.send_replace(match away {
            gap if leads => State::Leading { server, gap },
            None => State::Connected { server },
            Some(gap) => State::Resumed { server, gap },
        });
    }

    /// What is wrong with a broker that does not answer.
    pub(super) fn stall(&self) -> Option<Stall> {
        match &*self.state.borrow() {
            State::Stalled { report } => Some(report.clone()),
            _ => None,
        }
    }

    /// Ends everything; the first cause counts.
    pub(super) fn close(&self, cause: Option<Error>) {
        let closed = self.update(|core, wakes| core.close(cause.as_ref(), &self.address, wakes));
        if closed {
            self.requests.close();
            self.state.send_replace(State::Closed { cause });
        }
    }

    /// The error of everything that is done after the end, or during it.
    pub(super) fn closed_error(&self) -> Error {
        let core = self.core();
        let cause = core.closed.as_ref().and_then(Option::as_ref);
        closed_error(&self.address, cause)
    }
}

/// What is told to who comes after the end.
fn closed_error(address: &str, cause: Option<&Error>) -> Error {
    match cause {
        None => Error::new(
            ErrorKind::Closed,
            format!("the client of {address} was shut down"),
        ),
        Some(cause) => {
            // The kind of the cause is what a caller branches on: another store, no entry, an unusable address.
            Error::new(
                cause.kind(),
                format!("the client of {address} gave up: {cause}"),
            )
            .with_source(cause.clone())
        }
    }
}

impl Core {
    /// Takes a message into the window, or has `place` wait for its turn.
    pub(super) fn poll_push(
        &mut self,
        shared: &Shared,
        message: &Outgoing<'_>,
        place: &mut Option<u64>,
        cx: &Context<'_>,
        wakes: &mut Vec<Waker>,
    ) -> Poll<Result<(&Arc<Batch>, u32)>> {
        if let Some(error) = self.check_open(shared) {
            return Poll::Ready(Err(error));
        }
        let fits = self.sends.fits(message.payload.len());
        match *place {
            None if fits && self.waiting.is_empty() => {}
            None => {
                *place = Some(self.waiting.enter(cx.waker()));
                return Poll::Pending;
            }
            Some(id) => {
                if let Some(error) = self.waiting.failure(id) {
                    *place = None;
                    return Poll::Ready(Err(error));
                }
                if !fits || !self.waiting.is_front(id) {
                    self.waiting.stay(id, cx.waker());
                    return Poll::Pending;
                }
                self.waiting.leave(id);
                *place = None;
            }
        }
        if self.sends.is_empty() {
            self.sends_moved = Instant::now();
        }
        let hand_on = !self.waiting.is_empty();
        let index = self.sends.push(message);
        if hand_on {
            self.hand_on(wakes);
        }
        Poll::Ready(Ok((self.sends.newest(), index)))
    }

    /// Wakes whose turn it is to send, when there may be space.
    pub(super) fn hand_on(&mut self, wakes: &mut Vec<Waker>) {
        if !self.waiting.is_empty() && self.sends.fits(0) {
            wakes.extend(self.waiting.take_front());
        }
    }

    /// Why nothing new can be begun.
    pub(super) fn check_open(&self, shared: &Shared) -> Option<Error> {
        match &self.closed {
            Some(cause) => Some(closed_error(&shared.address, cause.as_ref())),
            None if self.closing => Some(closed_error(&shared.address, None)),
            None => None,
        }
    }

    /// Something moved for the sends.
    pub(super) fn sends_moved(&mut self, now: Instant) {
        self.sends_moved = now;
    }

    /// Something moved for the requests.
    pub(super) fn requests_moved(&mut self, now: Instant) {
        self.requests_moved = now;
    }

    /// The bytes that go to the broker beside messages, when there is a connection. A first request starts the clock.
    pub(super) fn ask(
        &mut self,
        question: &super::requests::Question<'_>,
    ) -> (u32, tokio::sync::oneshot::Receiver<Result<Frame>>) {
        if !self.asks() {
            self.requests_moved = Instant::now();
        }
        let control = self.live.then_some(&mut self.control);
        self.requests.ask(question, control)
    }

    fn asks(&self) -> bool {
        self.opening > 0 || !self.requests.is_empty()
    }

    /// Whether an answer of the broker is waited for.
    pub(super) fn awaits(&self) -> bool {
        self.asks() || !self.sends.is_empty()
    }

    /// When the last thing moved that something waits for.
    pub(super) fn moved(&self) -> Instant {
        self.sends_moved.max(self.requests_moved)
    }

    /// Writes a frame beside the messages, when there is a connection.
    pub(super) fn post(&mut self, frame: &Frame) {
        if self.live {
            frame.encode(&mut self.control);
        }
    }

    /// Begins a subscription.
    pub(super) fn subscribe(
        &mut self,
        room: &RoomName,
        start: StartAt,
        waits: bool,
        window: u32,
    ) -> Result<Arc<Feed>> {
        if self.feeds.len() >= SUBSCRIPTIONS_PER_CONNECTION_MAX {
            let text = format!(
                "the client has {SUBSCRIPTIONS_PER_CONNECTION_MAX} subscriptions, the most that one connection may have"
            );
            return Err(Error::new(ErrorKind::Usage, text));
        }
        while self.feeds.contains_key(&self.next_feed) {
            self.next_feed = self.next_feed.wrapping_add(1).max(1);
        }
        let id = self.next_feed;
        self.next_feed = id.wrapping_add(1).max(1);
        let feed = Arc::new(Feed::new(id, room.clone(), start, waits, window));
        if !self.asks() {
            self.requests_moved = Instant::now();
        }
        self.opening += 1;
        self.feeds.insert(id, Arc::clone(&feed));
        if self.live
            && let Some(frame) = feed.subscribe(self.window_max)
        {
            self.post(&frame);
        }
        Ok(feed)
    }

    /// The application has dropped a subscription.
    pub(super) fn unsubscribe(&mut self, id: u32) {
        let Some(feed) = self.take_feed(id) else {
            return;
        };
        if feed.is_opening() {
            self.opening -= 1;
        }
        self.post(&Frame::Unsubscribe(Unsubscribe { sub: id }));
    }

    /// Takes a subscription out; what it has got stays known.
    fn take_feed(&mut self, id: u32) -> Option<Arc<Feed>> {
        let feed = self.feeds.remove(&id)?;
        if let Some(at) = feed.known() {
            self.heads.saw(&feed.room, at);
        }
        Some(feed)
    }

    /// What the next hello says of the past.
    pub(super) fn known_heads(&self) -> Vec<KnownHead> {
        let open = self.feeds.values();
        self.heads
            .list(open.filter_map(|feed| Some((feed.room.clone(), feed.known()?))))
    }

    /// A frame about a subscription came. One that breaks the rules fails its subscription; late ones are dropped.
    pub(super) fn feed(
        &mut self,
        id: u32,
        wakes: &mut Vec<Waker>,
        take: impl FnOnce(&Feed, &mut Vec<Waker>) -> Result<()>,
    ) {
        let Some(feed) = self.feeds.get(&id).cloned() else {
            return;
        };
        let was_opening = feed.is_opening();
        if let Err(error) = take(&feed, wakes) {
            feed.fail(&error, wakes);
            self.take_feed(id);
            self.post(&Frame::Unsubscribe(Unsubscribe { sub: id }));
        }
        if was_opening && !feed.is_opening() {
            self.opening -= 1;
        }
    }

    /// Fails one subscription.
    pub(super) fn fail_feed(
        &mut self,
        id: u32,
        wakes: &mut Vec<Waker>,
        why: impl FnOnce(&Feed) -> Error,
    ) {
        if let Some(feed) = self.take_feed(id) {
            if feed.is_opening() {
                self.opening -= 1;
            }
            feed.fail(&why(&feed), wakes);
        }
    }

    /// Whether a subscription stands, so that it can be tried again after a passing refusal.
    pub(super) fn is_open_feed(&self, id: u32) -> bool {
        self.feeds.get(&id).is_some_and(|feed| !feed.is_opening())
    }

    /// Admits again what the reader of a subscription has read.
    pub(super) fn credit(&mut self, feed: &Feed) {
        if self.live
            && let Some(frame) = feed.credit()
        {
            self.post(&frame);
        }
    }

    /// Gives the connection up; everything goes on over a new one.
    pub(super) fn hang_up(&mut self, cause: Error) {
        if self.live {
            self.hang_up = Some(cause);
        }
    }

    /// Why the connection is to be given up.
    pub(super) fn take_hang_up(&mut self) -> Option<Error> {
        if self.hang_up.is_none() && self.live && self.sends.is_renewal_due() {
            return Some(Error::new(
                ErrorKind::OutcomeUnknown,
                "the broker no longer knows this producer, a new one is drawn",
            ));
        }
        self.hang_up.take()
    }

    /// Whether there is something to write.
    pub(super) fn has_output(&self) -> bool {
        !self.control.is_empty() || self.sends.has_unwritten()
    }

    /// Hands out what is to be written this turn; tells whether there are messages among it.
    pub(super) fn take_output(&mut self, outbox: &mut Outbox, clock: &dyn Clock) -> bool {
        if !self.control.is_empty() {
            outbox.copy(&self.control);
            self.control.clear();
        }
        let publishes = self.sends.has_unwritten();
        if publishes {
            self.sends.write_into(outbox, TURN_BYTES_MAX, clock.now());
        }
        publishes
    }

    /// The connection task sleeps until something happens.
    pub(super) fn sleep(&mut self, cx: &Context<'_>) {
        self.driver = Some(cx.waker().clone());
    }

    /// Prepares for a new connection and tells which producer it speaks for: a new one, `drawn`, when the old one is of no
    /// use any more.
    pub(super) fn prepare(
        &mut self,
        now: Micros,
        drawn: ProducerId,
        wakes: &mut Vec<Waker>,
    ) -> ProducerId {
        let renewed = self.sends.restart(now, self.remembered, wakes);
        if renewed || self.producer == ProducerId::default() {
            self.producer = drawn;
        }
        self.producer
    }

    fn go_live(&mut self, server: &ServerInfo, wakes: &mut Vec<Waker>) {
        let now = Instant::now();
        (self.sends_moved, self.requests_moved) = (now, now);
        self.sends.set_numbers_max(server.unacked_max);
        self.remembered = server.producer_window;
        self.window_max = if server.window_bytes_max == 0 {
            WINDOW_BYTES_DEFAULT
        } else {
            server.window_bytes_max
        };
        self.hang_up = None;
        self.control.clear();
        self.live = true;
        for feed in self.feeds.values() {
            if let Some(frame) = feed.subscribe(self.window_max) {
                frame.encode(&mut self.control);
            }
        }
        self.requests.restart(&mut self.control);
        self.hand_on(wakes);
    }

    /// The connection is gone.
    pub(super) fn go_dark(&mut self, cause: Error) {
        self.live = false;
        self.control.clear();
        self.last_cause = Some(cause);
    }

    /// When something waited for fails unless something moves.
    pub(super) fn deadline(&self, timeout: Duration) -> Option<Instant> {
        let sends = (!self.sends.is_empty() || !self.waiting.is_empty())
            .then_some(self.sends_moved + timeout);
        let asks = self.asks().then_some(self.requests_moved + timeout);
        [sends, asks].into_iter().flatten().min()
    }

    /// Fails what has waited for too long without anything moving.
    pub(super) fn expire(&mut self, shared: &Shared, now: Instant, wakes: &mut Vec<Waker>) {
        let (timeout, address) = (shared.config.timeout, &shared.address);
        let stall = shared.stall();
        let stall = stall.map(|stall| Error::new(ErrorKind::Connect, stall.to_string()));
        let cause = match self.live {
            true => stall,
            false => stall.or_else(|| self.last_cause.clone()),
        };
        let since = if self.live {
            "did not move"
        } else {
            "could not be reached"
        };
        if (!self.sends.is_empty() || !self.waiting.is_empty()) && now >= self.sends_moved + timeout
        {
            let unknown = timed_out(
                format!(
                    "{address} {since} for {timeout:?}: it is unknown whether the message was stored, read the room before sending it again"
                ),
                cause.clone(),
            );
            let unsent = timed_out(
                format!("{address} {since} for {timeout:?}: the message was not sent"),
                cause.clone(),
            )
            .retryable();
            self.sends.fail_all(&unknown, &unsent, wakes);
            self.waiting.fail(&unsent, wakes);
            self.expired = Some(unknown);
            self.sends_moved = now;
        }
        if self.asks() && now >= self.requests_moved + timeout {
            self.requests.fail_all(|what, unsure| {
                let known = if unsure {
                    ", so it is unknown whether it was done"
                } else {
                    ""
                };
                let error = timed_out(
                    format!("{what}: {address} {since} for {timeout:?}{known}"),
                    cause.clone(),
                );
                if unsure { error } else { error.retryable() }
            });
            let opening: Vec<u32> = self
                .feeds
                .values()
                .filter(|feed| feed.is_opening())
                .map(|feed| feed.id)
                .collect();
            for id in opening {
                self.fail_feed(id, wakes, |feed| {
                    let what = format!("subscribing to room \"{}\"", feed.room);
                    timed_out(
                        format!("{what}: {address} {since} for {timeout:?}"),
                        cause.clone(),
                    )
                    .retryable()
                });
                self.post(&Frame::Unsubscribe(Unsubscribe { sub: id }));
            }
            self.requests_moved = now;
        }
    }

    /// Begins to close: nothing new is taken.
    pub(super) fn begin_closing(&mut self, address: &str, wakes: &mut Vec<Waker>) {
        self.closing = true;
        self.waiting.fail(&closed_error(address, None), wakes);
    }

    /// Whether it is closing and nothing has to be waited for any more.
    pub(super) fn is_done(&self) -> bool {
        self.closing && self.sends.is_empty()
    }

    fn close(&mut self, cause: Option<&Error>, address: &str, wakes: &mut Vec<Waker>) -> bool {
        if self.closed.is_some() {
            return false;
        }
        self.closed = Some(cause.cloned());
        self.closing = true;
        self.live = false;
        let error = closed_error(address, cause);
        let unknown = Error::new(
            error.kind(),
            format!("{error}; it is unknown whether the message was stored"),
        );
        self.sends.fail_all(&unknown, &error, wakes);
        self.waiting.fail(&error, wakes);
        self.requests.fail_all(|what, unsure| {
            let known = if unsure {
                "; it is unknown whether it was done"
            } else {
                ""
            };
            Error::new(error.kind(), format!("{what}: {error}{known}"))
        });
        for feed in std::mem::take(&mut self.feeds).into_values() {
            match cause {
                Some(_) => feed.fail(&error, wakes),
                None => feed.end(&error, wakes),
            }
        }
        self.opening = 0;
        self.control.clear();
        true
    }
}

fn timed_out(text: String, cause: Option<Error>) -> Error {
    let error = Error::new(ErrorKind::Timeout, text);
    match cause {
        Some(cause) => error.with_source(cause),
        None => error,
    }
}
