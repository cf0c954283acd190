//! [`Session`]: the states of one peer and the arrows between them.
//!
//! The diagram is in the module's documentation. What is done in `Ready` has files of its own
//! (publishing, subscriptions, requests); here is who may do it, and when it ends.

use std::fmt;
use std::mem;
use std::time::Duration;

use broker_proto::limits::{FRAME_BYTES_MAX, HELLO_BYTES_MAX};
use broker_proto::{
    DecodeError, Error, ErrorCode, Frame, Goodbye, Hello, Kind, Ping, Pong, Refused, Status,
    Welcome,
};

use super::liveness::{Due, Liveness};
use super::losses::{list, raise_alarm};
use super::managing::Asking;
use super::publishing::{Publisher, Publishing};
use super::requests::{Large, Requests};
use super::stage::{Farewell, Progress, Stage};
use super::subscriptions::Subscriptions;
use super::turn::{Fault, Turn};
use super::{Outbox, Terms};
use crate::store::{Claims, Loss, Mailbox, Notice, SessionId, Store};
use crate::sync::Arc;

/// What a welcomed peer does.
struct Activity {
    who: Publisher,
    publishing: Publishing,
    subscriptions: Subscriptions,
    requests: Requests,
    /// Whose turn it is when both pages and deliveries are ready.
    requests_next: bool,
}

/// A session whose peer has said hello to an open store.
struct Ready<S> {
    store: Arc<S>,
    payload_bytes_max: usize,
    next_tag: u64,
    activity: Activity,
}

enum State<S> {
    /// The peer has said nothing yet.
    Greeting,
    /// The peer has said hello; the store is not open yet.
    Starting(Box<Hello>),
    /// The peer has said what it knows to be stored; the store compares.
    Verifying(Box<Hello>),
    /// The peer may do everything.
    Ready(Box<Ready<S>>),
    /// The last bytes leave; nothing that comes counts any more.
    Closing {
        /// Until when they may take.
        until: Duration,
    },
}

/// One peer. See the module's documentation for how it is driven.
///
/// Dropping it releases the producer and the watches at the store.
pub struct Session<S: Store> {
    id: SessionId,
    terms: Arc<Terms>,
    nonce: [u8; 16],
    began: Duration,
    state: State<S>,
    stage: Stage<S>,
    mailbox: Arc<Mailbox>,
    out: Outbox,
    liveness: Liveness,
    notices: Vec<Notice>,
}

impl<S: Store> Session<S> {
    /// A session with a peer that has just connected. `nonce` is random.
    #[must_use]
    pub fn new(
        now: Duration,
        id: SessionId,
        nonce: [u8; 16],
        terms: Arc<Terms>,
        stage: Stage<S>,
    ) -> Self {
        let mut session = Self {
            id,
            terms,
            nonce,
            began: now,
            state: State::Greeting,
            stage: Stage::Starting(Progress::default()),
            mailbox: Mailbox::new(),
            out: Outbox::default(),
            liveness: Liveness::new(now),
            notices: Vec::new(),
        };
        session.handle_stage(now, stage);
        session
    }

    /// Where the store's answers arrive; the driver polls it and calls [`Self::handle_notices`].
    #[must_use]
    pub fn mailbox(&self) -> &Arc<Mailbox> {
        &self.mailbox
    }

    /// Largest frame that may come now, in bytes after the length field.
    #[must_use]
    pub fn frame_bytes_max(&self) -> usize {
        match self.state {
            State::Greeting => HELLO_BYTES_MAX,
            _ => FRAME_BYTES_MAX,
        }
    }

    /// Whether the peer has said who it is.
    #[must_use]
    pub fn has_greeted(&self) -> bool {
        matches!(
            self.state,
            State::Starting(_) | State::Verifying(_) | State::Ready(_)
        )
    }

    /// Whether the session has ended; close the transport when the outbox is empty.
    #[must_use]
    pub fn is_closing(&self) -> bool {
        matches!(self.state, State::Closing { .. })
    }

    /// Whether nothing is under way for this peer that a leaving server has to finish.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        match &self.state {
            State::Ready(ready) => ready.activity.publishing.is_settled() && !self.out.ack_waits(),
            _ => true,
        }
    }

    /// Whether the next frame may be handled. Not while the store's queue is full, and not while the
    /// peer leaves its answers lying: then it has to wait, by the transport's own backpressure.
    #[must_use]
    pub fn wants_read(&self) -> bool {
        match &self.state {
            State::Closing { .. } => false,
            State::Ready(ready) if ready.activity.publishing.is_stalled() => false,
            _ => self.out.behind_deliveries() <= self.terms.outbox_bytes_max,
        }
    }

    /// The bytes on their way to the peer.
    #[must_use]
    pub fn outbox(&self) -> &Outbox {
        &self.out
    }

    /// The transport took the next `bytes` of the outbox.
    pub fn handle_written(&mut self, now: Duration, bytes: usize) {
        self.out.advance(bytes);
        self.liveness.moved(now, self.out.ack_waits());
    }

    /// The transport takes nothing more now: releases what is shared with the store.
    pub fn handle_blocked(&mut self) {
        self.out.release();
    }

    /// The peer sent a frame.
    pub fn handle_frame(&mut self, now: Duration, frame: Frame) {
        self.liveness.heard(now);
        let outcome = match &mut self.state {
            State::Greeting => match frame {
                Frame::Hello(hello) => {
                    self.greet(now, Box::new(hello));
                    Ok(())
                }
                other => Err(Fault::unexpected(other.kind(), "the first frame is hello")),
            },
            State::Starting(_) | State::Verifying(_) => self.handle_early(now, &frame),
            State::Ready(_) => self.handle_request(now, frame),
            State::Closing { .. } => Ok(()),
        };
        if let Err(fault) = outcome {
            self.fail(now, fault);
        }
    }

    /// The peer sent bytes that are no frame.
    pub fn handle_bad_frame(&mut self, now: Duration, error: &DecodeError) {
        let Error {
            code, kind, detail, ..
        } = Error::from(error);
        self.fail(now, Fault { code, kind, detail });
    }

    /// Ends the session for a reason that is not the peer's, such as too many connections.
    pub fn handle_refusal(&mut self, now: Duration, code: ErrorCode, detail: String) {
        self.fail(
            now,
            Fault {
                code,
                kind: 0,
                detail,
            },
        );
    }

    /// Takes everything from the mailbox.
    pub fn handle_notices(&mut self, now: Duration) {
        let mut notices = mem::take(&mut self.notices);
        self.mailbox.drain(&mut notices);
        for notice in notices.drain(..) {
            self.handle_notice(now, notice);
        }
        self.notices = notices;
    }

    /// The store said something.
    pub fn handle_notice(&mut self, now: Duration, notice: Notice) {
        if let Notice::Verified { losses } = notice {
            self.handle_verified(now, &losses);
            return;
        }
        let Some((activity, mut turn)) = self.ready(now) else {
            return;
        };
        match notice {
            Notice::Acked { producer, run } => activity.publishing.acked(producer, run),
            Notice::Refused {
                producer,
                first_number,
                count,
                code,
                detail,
                retry_after_ms,
            } => {
                let producer = Some(producer);
                let refused = Refused {
                    first_number,
                    count,
                    code,
                    detail,
                    retry_after_ms,
                    producer,
                };
                activity
                    .publishing
                    .refused(&mut turn, &activity.who.key.producer, refused);
            }
            Notice::Space => activity.publishing.space(&turn),
            Notice::Grown { tag } => activity.subscriptions.grown(tag),
            Notice::Read { tag, result } => {
                if let Err(result) = activity.requests.read(tag, result) {
                    activity.subscriptions.read(&mut turn, tag, result);
                }
            }
            Notice::Cursor { tag, result } => activity.requests.cursor(&mut turn, tag, result),
            Notice::Rooms { tag, result } => activity.requests.rooms(tag, result),
            Notice::Answer { tag, result } => activity.requests.answer(&mut turn, tag, result),
            Notice::Verified { .. } => {}
        }
    }

    /// The server's stage changed.
    pub fn handle_stage(&mut self, now: Duration, stage: Stage<S>) {
        self.stage = stage;
        match &self.stage {
            Stage::Starting(progress) => {
                if let State::Starting(_) = self.state {
                    progress.frame().encode(self.out.control());
                }
            }
            Stage::Serving(_) => match mem::replace(&mut self.state, State::Greeting) {
                State::Starting(hello) => self.greet(now, hello),
                other => self.state = other,
            },
            Stage::Draining(_) => {
                if let State::Ready(ready) = &mut self.state {
                    ready.activity.publishing.leave();
                }
            }
            Stage::Leaving(farewell) => {
                let farewell = farewell.clone();
                self.leave(now, &farewell);
            }
        }
    }

    /// The time has come that [`Self::poll_timeout`] named, or any other.
    pub fn handle_timeout(&mut self, now: Duration) {
        let patience = self.terms.patience;
        match &self.state {
            State::Greeting if now >= self.began + patience.hello => {
                let detail = format!(
                    "no hello within {} s of the connection",
                    patience.hello.as_secs()
                );
                self.fail(
                    now,
                    Fault {
                        code: ErrorCode::TIMED_OUT,
                        kind: 0,
                        detail,
                    },
                );
                return;
            }
            State::Closing { until } if now >= *until => self.out = Outbox::default(),
            State::Ready(ready) if ready.activity.publishing.is_stalled() => {
                self.liveness.was_deaf(now)
            }
            _ => {}
        }
        if matches!(self.state, State::Greeting | State::Closing { .. }) {
            return;
        }
        match self.liveness.due(now, &patience) {
            Due::Nothing => {}
            Due::Ping(nonce) => Ping { nonce }.encode(self.out.control()),
            Due::Silent => {
                let secs = patience.ping_unanswered.as_secs();
                let detail = format!("a ping stayed unanswered for {secs} s");
                self.fail(
                    now,
                    Fault {
                        code: ErrorCode::SLOW_PEER,
                        kind: Kind::Ping.get(),
                        detail,
                    },
                );
            }
            Due::AckUntaken => {
                let secs = patience.ack_untaken.as_secs();
                let detail = format!("no byte of a waiting ack was taken for {secs} s");
                self.fail(
                    now,
                    Fault {
                        code: ErrorCode::SLOW_PEER,
                        kind: Kind::Ack.get(),
                        detail,
                    },
                );
            }
        }
    }

    /// When to call [`Self::handle_timeout`] at the latest.
    #[must_use]
    pub fn poll_timeout(&self) -> Duration {
        match &self.state {
            State::Greeting => self.began + self.terms.patience.hello,
            State::Closing { until } => *until,
            _ => self.liveness.deadline(&self.terms.patience),
        }
    }

    /// Ends a round: tells the acks that it brought, then lets the deliveries have their turn, when
    /// those of the turn before have left.
    pub fn turn(&mut self, now: Duration) {
        let Some((activity, mut turn)) = self.ready(now) else {
            return;
        };
        activity
            .publishing
            .flush(&mut turn, &activity.who.key.producer);
        if !turn.out.deliveries_written() {
            return;
        }
        let budget = turn.terms.turn_bytes;
        let requests_next = !activity.requests_next;
        if mem::replace(&mut activity.requests_next, requests_next) {
            let used = activity.requests.turn(&mut turn);
            if used < budget {
                activity.subscriptions.turn(&mut turn, budget - used);
            }
        } else if activity.subscriptions.turn(&mut turn, budget) == 0 {
            activity.requests.turn(&mut turn);
        }
    }

    /// Whether a turn would do something now, although nothing new happened.
    #[must_use]
    pub fn has_work(&self) -> bool {
        let State::Ready(ready) = &self.state else {
            return false;
        };
        let Activity {
            requests,
            subscriptions,
            ..
        } = &ready.activity;
        self.out.deliveries_written()
            && (requests.has_work() || subscriptions.has_work(self.terms.disk_reads_max))
    }

    /// What a welcomed peer does, and what that works with.
    fn ready(&mut self, now: Duration) -> Option<(&mut Activity, Turn<'_, S>)> {
        let State::Ready(ready) = &mut self.state else {
            return None;
        };
        let turn = Turn {
            now,
            session: self.id,
            store: &ready.store,
            mailbox: &self.mailbox,
            terms: &self.terms,
            payload_bytes_max: ready.payload_bytes_max,
            out: &mut self.out,
            liveness: &mut self.liveness,
            next_tag: &mut ready.next_tag,
        };
        Some((&mut ready.activity, turn))
    }

    /// Greeting or Starting, with a hello: to Ready, to Starting, or to Closing.
    fn greet(&mut self, now: Duration, hello: Box<Hello>) {
        match &self.stage {
            Stage::Starting(progress) => {
                progress.frame().encode(self.out.control());
                self.state = State::Starting(hello);
            }
            Stage::Serving(store) => {
                let store = Arc::clone(store);
                if hello.known_heads.heads.is_empty() {
                    self.welcome(store, *hello);
                } else {
                    self.verify(&store, hello);
                }
            }
            Stage::Draining(_) => {
                let code = ErrorCode::GOING_AWAY;
                self.leave(
                    now,
                    &Farewell {
                        code,
                        ..Farewell::default()
                    },
                );
            }
            Stage::Leaving(farewell) => {
                let farewell = farewell.clone();
                self.leave(now, &farewell);
            }
        }
    }

    /// To Verifying: nothing is taken from a peer whose past the store may have lost.
    fn verify(&mut self, store: &Arc<S>, mut hello: Box<Hello>) {
        let claims = Claims {
            store: hello.known_store,
            known: mem::take(&mut hello.known_heads),
        };
        self.state = State::Verifying(hello);
        store.verify(&claims, &self.mailbox);
    }

    /// The store has compared what the peer knows: to Ready, or to Closing with an alarm.
    fn handle_verified(&mut self, now: Duration, losses: &[Loss]) {
        match mem::replace(&mut self.state, State::Greeting) {
            State::Verifying(hello) if losses.is_empty() => self.greet(now, hello),
            State::Verifying(hello) => {
                raise_alarm(self.id, &hello.sender, losses);
                self.terms.host.lost_suffix();
                let code = ErrorCode::LOST_SUFFIX;
                self.fail(now, Fault::new(code, Kind::Hello, list(losses)));
            }
            other => self.state = other,
        }
    }

    /// To Ready.
    fn welcome(&mut self, store: Arc<S>, hello: Hello) {
        let info = store.info();
        let welcome = Welcome {
            store: info.store,
            term: info.term,
            build: self.terms.build.clone(),
            feature_level: info.feature_level,
            payload_bytes_max: info.payload_bytes_max,
            unacked_max: self.terms.unacked_max,
            window_bytes_max: self.terms.window_bytes_max,
            producer_window_secs: info.producer_window_secs,
            pid: self.terms.pid,
            auth: 0,
            nonce: self.nonce,
            connection: self.id.0,
        };
        welcome.encode(self.out.control());
        let who = Publisher::new(hello.sender, hello.producer);
        store.claim(&who.key, self.id);
        let activity = Activity {
            who,
            publishing: Publishing::default(),
            subscriptions: Subscriptions::default(),
            requests: Requests::default(),
            requests_next: false,
        };
        let payload_bytes_max = info.payload_bytes_max as usize;
        self.state = State::Ready(Box::new(Ready {
            store,
            payload_bytes_max,
            next_tag: 0,
            activity,
        }));
    }

    /// What may come between hello and welcome.
    fn handle_early(&mut self, now: Duration, frame: &Frame) -> Result<(), Fault> {
        match frame {
            Frame::Ping(Ping { nonce }) => Pong { nonce: *nonce }.encode(self.out.control()),
            Frame::Pong(_) => {}
            Frame::Goodbye(_) => self.leave(now, &Farewell::default()),
            other => {
                return Err(Fault::unexpected(
                    other.kind(),
                    "the welcome has not come yet",
                ));
            }
        }
        Ok(())
    }

    /// What a welcomed peer may ask for.
    fn handle_request(&mut self, now: Duration, frame: Frame) -> Result<(), Fault> {
        let Some((activity, mut turn)) = self.ready(now) else {
            return Ok(());
        };
        let turn = &mut turn;
        let Activity {
            who,
            publishing,
            subscriptions,
            requests,
            ..
        } = activity;
        match frame {
            Frame::Publish(publish) => publishing.publish(turn, who, publish)?,
            Frame::Credit(credit) => subscriptions.credit(credit.sub, credit.bytes),
            Frame::Subscribe(subscribe) => subscriptions.subscribe(turn, subscribe)?,
            Frame::Unsubscribe(unsubscribe) => subscriptions.unsubscribe(turn, unsubscribe.sub),
            Frame::Read(read) => {
                if requests.admits(turn, read.correlation, Kind::Read) {
                    requests.large(Large::Read(read));
                }
            }
            Frame::ListRooms(list) => {
                if requests.admits(turn, list.correlation, Kind::ListRooms) {
                    requests.large(Large::ListRooms(list));
                }
            }
            Frame::GetCursor(get) => {
                if requests.admits(turn, get.correlation, Kind::GetCursor) {
                    requests.get_cursor(turn, &get);
                }
            }
            Frame::SetCursor(set) => {
                if requests.admits(turn, set.correlation, Kind::SetCursor) {
                    requests.set_cursor(turn, set);
                }
            }
            Frame::GetStatus(get) => {
                let json = turn.terms.host.status().into();
                turn.send(&Frame::from(Status {
                    correlation: get.correlation,
                    json,
                }));
            }
            Frame::Ping(Ping { nonce }) => turn.send(&Frame::from(Pong { nonce })),
            Frame::Pong(_) => {}
            // The peer says what went wrong on its side; a connection that is unusable to it, it closes.
            Frame::Error(error) => {
                tracing::debug!(session = turn.session.0, code = %error.code, detail = error.detail.escape_debug().to_string(), "the peer reports an error");
            }
            Frame::Goodbye(goodbye) => self.part(now, &goodbye),
            Frame::Hello(_) => return Err(Fault::unexpected(Kind::Hello, "it came already")),
            other => match Asking::new(other) {
                Ok(asking) if requests.admits(turn, asking.correlation, asking.kind) => {
                    requests.ask_for(turn, asking);
                }
                Ok(_) => {}
                Err(other) => {
                    return Err(Fault::unexpected(other.kind(), "only a broker sends it"));
                }
            },
        }
        Ok(())
    }

    /// The peer leaves in order.
    fn part(&mut self, now: Duration, goodbye: &Goodbye) {
        let settled =
            matches!(&self.state, State::Ready(ready) if ready.activity.publishing.is_settled());
        self.release(now, goodbye.forgets() && settled);
        Goodbye::default().encode(self.out.control());
    }

    /// To Closing, in order.
    fn leave(&mut self, now: Duration, farewell: &Farewell) {
        if self.is_closing() {
            return;
        }
        self.release(now, false);
        if !farewell.detail.is_empty() {
            let Farewell {
                code,
                detail,
                retry_after_ms,
                ..
            } = farewell.clone();
            Error {
                code,
                about: 0,
                kind: 0,
                detail,
                retry_after_ms,
            }
            .encode(self.out.control());
        }
        let Farewell {
            code,
            retry_after_ms,
            successor,
            ..
        } = farewell.clone();
        Goodbye {
            code,
            retry_after_ms,
            successor,
            flags: 0,
        }
        .encode(self.out.control());
    }

    /// To Closing, because of a fault: says what and where.
    fn fail(&mut self, now: Duration, fault: Fault) {
        if self.is_closing() {
            return;
        }
        let Fault { code, kind, detail } = fault;
        tracing::debug!(session = self.id.0, %code, detail = detail.escape_debug().to_string(), "the session ends with an error");
        self.release(now, false);
        Error {
            code,
            about: 0,
            kind,
            detail,
            retry_after_ms: 0,
        }
        .encode(self.out.control());
        Goodbye {
            code,
            ..Goodbye::default()
        }
        .encode(self.out.control());
    }

    /// To Closing, after telling what is acknowledged and giving back what the store keeps for this
    /// session.
    fn release(&mut self, now: Duration, forget: bool) {
        if let Some((activity, mut turn)) = self.ready(now) {
            activity
                .publishing
                .flush(&mut turn, &activity.who.key.producer);
            activity.subscriptions.close(&turn);
            turn.store.release(&activity.who.key, turn.session, forget);
        }
        self.state = State::Closing {
            until: now + self.terms.patience.closing,
        };
    }
}

impl<S: Store> Drop for Session<S> {
    fn drop(&mut self) {
        self.release(Duration::ZERO, false);
    }
}

impl<S: Store> fmt::Debug for Session<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::Greeting => "Greeting",
            State::Starting(_) => "Starting",
            State::Verifying(_) => "Verifying",
            State::Ready(_) => "Ready",
            State::Closing { .. } => "Closing",
        };
        f.debug_struct("Session")
            .field("id", &self.id)
            .field("state", &state)
            .finish_non_exhaustive()
    }
}
