//! The clients: scripts that send, read, resume, move cursors and die, over the production client.

use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use broker_core::net::client::{Client, ClientConfig, Connector, Room, StartAt, State};
use broker_proto::Seq;
use tokio::task::spawn_local;
use tokio::time::sleep;

use super::history::{Verdict, room_name, sender_name};
use super::reader::read;
use super::wire::SimConnect;
use super::world::World;
use crate::campaign::{Broken, Harm};
use crate::rng::Rng;

/// Most messages of a client that may wait for their answers before it waits with them.
const PENDING_MAX: usize = 60;

/// Messages that a client sends again at the end although they were acknowledged.
const REPEATS: usize = 6;

/// The hosts of the brokers.
pub(super) fn broker_hosts() -> Vec<String> {
    vec!["broker-0".to_owned(), "broker-1".to_owned()]
}

/// One life of a client.
#[derive(Clone)]
pub(super) struct Life {
    pub(super) world: Rc<World>,
    pub(super) me: usize,
    pub(super) life: u32,
    pub(super) rooms: Rc<Vec<Room>>,
}

impl fmt::Display for Life {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "client {}.{}", self.me, self.life)
    }
}

/// Opens a client of the brokers. Number `clients` is the judge.
pub(super) fn open(
    world: &World,
    me: usize,
    timeout: Duration,
    rng: &mut Rng,
) -> Result<Client, String> {
    let sockets = world.sockets_of_client(me);
    let mut hosts = broker_hosts();
    rng.shuffle(&mut hosts);
    let connector = Connector::new(SimConnect::new(hosts, sockets, rng.fork()));
    ClientConfig::new()
        .sender(sender_name(me))
        .timeout(timeout)
        .clock(world.clock.clone())
        .random(rng.fork())
        .open(connector)
        .map_err(|error| format!("cannot open a client: {error}"))
}

/// The rooms of a simulation.
pub(super) fn rooms_of(world: &World, client: &Client) -> Result<Rc<Vec<Room>>, String> {
    let rooms = (0..world.shape.rooms).map(|room| client.room(&room_name(room)));
    let rooms: Result<_, _> = rooms.collect();
    rooms
        .map(Rc::new)
        .map_err(|error| format!("a room's name is refused: {error}"))
}

/// The program of a client's host.
pub(super) async fn run(world: Rc<World>, me: usize, life: u32) -> turmoil::Result {
    let mut rng = world.fork();
    let timeout = Duration::from_millis(700 + rng.below(4000));
    let client = open(&world, me, timeout, &mut rng)?;
    let life = Life {
        me,
        life,
        rooms: rooms_of(&world, &client)?,
        world,
    };
    life.note(format_args!("lives"));
    spawn_local(count_reconnects(life.clone(), client.clone()));
    for room in 0..life.rooms.len() {
        for _ in 0..1 + rng.below(2) {
            spawn_local(read(life.clone(), room, rng.fork()));
        }
    }
    let listens = me < life.world.shape.listeners;
    if !listens {
        while !life.world.quiet.get() {
            let pause = rng.below(life.world.shape.pause_max);
            sleep(Duration::from_micros(pause)).await;
            life.act(&mut rng).await;
        }
        life.finish(&mut rng).await;
    }
    if let Some(finished) = life.world.finished.borrow_mut().get_mut(me) {
        *finished = true;
    }
    life.note(format_args!("has finished"));
    std::future::pending().await
}

async fn count_reconnects(life: Life, client: Client) {
    let mut state = client.state();
    drop(client);
    while state.changed().await.is_ok() {
        let state = state.borrow_and_update().clone();
        match state {
            State::Resumed { gap, .. } => {
                life.world.history.borrow_mut().counts.reconnects += 1;
                life.note(format_args!("is connected again after {gap:?}"));
            }
            State::Closed { cause: Some(cause) } => {
                life.hold(Err(format!("gave up for good: {cause:?}").into()));
            }
            _ => {}
        }
    }
}

impl Life {
    pub(super) fn note(&self, what: fmt::Arguments<'_>) {
        self.world.note(self, what);
    }

    pub(super) fn hold(&self, verdict: Verdict) {
        self.world.hold(self, verdict);
    }

    pub(super) fn room(&self, room: usize) -> Option<&Room> {
        self.rooms.get(room)
    }

    /// Does one thing of those that applications do.
    async fn act(&self, rng: &mut Rng) {
        let room = rng.index(self.rooms.len());
        if self.world.history.borrow().pending(self.me) > PENDING_MAX {
            return;
        }
        match rng.below(20) {
            0..=8 => self.queue(room, rng).await,
            9..=10 => self.send_all(room, rng).await,
            11..=12 => self.begin_keyed(room, rng),
            13 => self.give_up(room, rng).await,
            14..=15 => self.page(room, rng).await,
            16..=17 => self.cursor(room, rng).await,
            _ => sleep(Duration::from_millis(rng.below(120))).await,
        }
    }

    fn draw(&self, room: usize, keyed: bool, rng: &mut Rng) -> usize {
        let bytes = match rng.below(12) {
            0 => rng.below(40_000),
            1 => 0,
            _ => rng.below(300),
        };
        let bytes = usize::try_from(bytes).unwrap_or(0);
        let mut history = self.world.history.borrow_mut();
        history.send((self.me, self.life), room, bytes, keyed)
    }

    fn payload(&self, id: usize) -> bytes::Bytes {
        self.world.history.borrow().payload(id)
    }

    /// What became of a send.
    fn settle(&self, id: usize, result: Result<(broker_proto::Epoch, u64), broker_core::Error>) {
        let mut history = self.world.history.borrow_mut();
        let verdict = match &result {
            Ok((epoch, seq)) => history.acked(id, *epoch, *seq),
            Err(error) => history.failed(id, error),
        };
        drop(history);
        match &result {
            Ok((_, seq)) => self.note(format_args!("message {id} is acknowledged at {seq}")),
            Err(error) => self.note(format_args!(
                "message {id} failed: {:?} {error}",
                error.kind()
            )),
        }
        self.hold(verdict);
    }

    /// Sends without waiting for the answer.
    async fn queue(&self, room: usize, rng: &mut Rng) {
        let Some(handle) = self.room(room) else {
            return;
        };
        let id = self.draw(room, false, rng);
        match handle.queue(self.payload(id)).await {
            Ok(ticket) => {
                let life = self.clone();
                spawn_local(async move {
                    let acked = ticket.await;
                    life.settle(id, acked.map(|ack| (ack.epoch, ack.seq.get())));
                });
            }
            Err(error) => self.settle(id, Err(error)),
        }
    }

    /// Sends several at once.
    async fn send_all(&self, room: usize, rng: &mut Rng) {
        let Some(handle) = self.room(room) else {
            return;
        };
        let count = 2 + rng.below(30);
        let ids: Vec<usize> = (0..count).map(|_| self.draw(room, false, rng)).collect();
        let payloads: Vec<_> = ids.iter().map(|id| self.payload(*id)).collect();
        match handle.send_all(payloads).await {
            Ok(ticket) => {
                let life = self.clone();
                spawn_local(async move {
                    for outcome in ticket.outcomes().await {
                        let queued = !outcome.messages.is_empty();
                        let range = if queued {
                            outcome.messages
                        } else {
                            // These and all after them were never queued.
                            outcome.messages.start..ids.len()
                        };
                        for (nth, id) in ids.get(range).unwrap_or_default().iter().enumerate() {
                            let result = outcome.result.clone();
                            let at = nth as u64;
                            life.settle(
                                *id,
                                result.map(|run| (run.epoch, run.first_seq.get() + at)),
                            );
                        }
                    }
                });
            }
            Err(error) => {
                for id in ids {
                    self.settle(id, Err(error.clone()));
                }
            }
        }
    }

    /// Sends under an identity of its own.
    fn begin_keyed(&self, room: usize, rng: &mut Rng) {
        let id = self.draw(room, true, rng);
        let life = self.clone();
        spawn_local(async move {
            life.send_keyed(id).await;
        });
    }

    /// Sends a message under its identity; true when it is stored.
    async fn send_keyed(&self, id: usize) -> bool {
        let room = self
            .world
            .history
            .borrow()
            .sent
            .get(id)
            .map(|sent| sent.room);
        let Some(handle) = room.and_then(|room| self.room(room)) else {
            return false;
        };
        let key = format!("key-{id}");
        let acked = handle.send_with_id(&key, 1, self.payload(id)).await;
        let stored = acked.is_ok();
        self.settle(id, acked.map(|ack| (ack.epoch, ack.seq.get())));
        stored
    }

    /// Sends, and loses patience: whether it is stored is nobody's business any more.
    async fn give_up(&self, room: usize, rng: &mut Rng) {
        let Some(handle) = self.room(room) else {
            return;
        };
        let id = self.draw(room, false, rng);
        let patience = Duration::from_millis(rng.below(20));
        match tokio::time::timeout(patience, handle.send(self.payload(id))).await {
            Ok(result) => self.settle(id, result.map(|ack| (ack.epoch, ack.seq.get()))),
            Err(_) => {
                self.note(format_args!("message {id} is given up"));
                self.world.history.borrow_mut().abandoned(id);
            }
        }
    }

    /// Reads a page: what was acknowledged before must be in the room.
    async fn page(&self, room: usize, rng: &mut Rng) {
        let Some(handle) = self.room(room) else {
            return;
        };
        let (acked, seen) = {
            let history = self.world.history.borrow();
            (history.acked_upto(room), history.seen_upto(room))
        };
        let from = 1 + rng.below(seen + 1);
        let count = 1 + u32::try_from(rng.below(20)).unwrap_or(0);
        let start = StartAt::seq(Seq::new(from));
        let page = match handle.read(start, count, 1 << 16).await {
            Ok(page) => page,
            Err(error) => {
                self.note(format_args!("reading room {room}: {error}"));
                // A room that nobody has seen yet need not be there.
                let excused = error.is_retryable()
                    || (seen == 0 && error.kind() == broker_core::ErrorKind::Absent)
                    || from > seen;
                let text = format!("room {room} cannot be read from {from} of {seen}: {error:?}");
                self.hold(if excused { Ok(()) } else { Err(text.into()) });
                return;
            }
        };
        let verdict = self.judge_page(room, from, acked.max(seen), &page);
        self.note(format_args!(
            "read {} of room {room} from {from}, head {}",
            page.messages.len(),
            page.head
        ));
        self.hold(verdict);
    }

    pub(super) fn judge_page(
        &self,
        room: usize,
        from: u64,
        head_min: u64,
        page: &broker_core::net::client::Page,
    ) -> Verdict {
        let mut history = self.world.history.borrow_mut();
        history.counts.pages += 1;
        if page.head.get() < head_min {
            return Err(format!(
                "room {room} ends at {}, and {head_min} was known before it was asked",
                page.head
            )
            .into());
        }
        if let Some(skip) = page.skip {
            return Err(Broken::new(
                Harm::SilentCorruption,
                format!("room {room} skips {skip:?}"),
            ));
        }
        for (message, seq) in page.messages.iter().zip(from..) {
            if message.seq.get() != seq {
                return Err(format!(
                    "a page of room {room} has seq {} in place of {seq}",
                    message.seq
                )
                .into());
            }
            history.shown(room, message)?;
        }
        if page.messages.is_empty() && from <= head_min {
            return Err(format!("a page of room {room} from {from} is empty").into());
        }
        Ok(())
    }

    /// Moves a cursor to where this client has read, or asks where it is.
    async fn cursor(&self, room: usize, rng: &mut Rng) {
        let key = (self.me, room);
        let to = self.world.history.borrow().read.get(&key).copied();
        let (Some(to), Some(handle)) = (to, self.room(room)) else {
            return;
        };
        let Ok(cursor) = handle.cursor(&sender_name(self.me)) else {
            return self.hold(Err("a cursor's name is refused".into()));
        };
        if rng.coin() {
            self.world.history.borrow_mut().cursor_moves(key, to);
            match cursor.set(to).await {
                Ok(()) => {
                    self.note(format_args!("cursor of room {room} is set to {}", to.seq));
                    self.world.history.borrow_mut().cursor_moved(key, to);
                }
                Err(error) => self.note(format_args!("cursor of room {room}: {error}")),
            }
        } else {
            match cursor.get().await {
                Ok(is) => {
                    self.note(format_args!("cursor of room {room} is {is:?}"));
                    let verdict = self.world.history.borrow_mut().cursor_is(key, is);
                    self.hold(verdict);
                }
                Err(error) => self.note(format_args!("cursor of room {room}: {error}")),
            }
        }
    }

    /// The faults are over: everything that was to be stored for certain is sent until it is, some of it once more, and a last
    /// message goes to every room.
    async fn finish(&self, rng: &mut Rng) {
        while self.world.history.borrow().pending(self.me) > 0 {
            sleep(Duration::from_millis(5)).await;
        }
        let keyed = self.world.history.borrow().keyed(self.me);
        let repeated_from = keyed.len().saturating_sub(REPEATS);
        for (nth, id) in keyed.into_iter().enumerate() {
            if self.world.history.borrow().is_acked(id) && nth < repeated_from {
                continue;
            }
            self.world.history.borrow_mut().counts.resent += 1;
            while !self.send_keyed(id).await {
                sleep(Duration::from_millis(20)).await;
            }
        }
        for room in 0..self.rooms.len() {
            loop {
                let Some(handle) = self.room(room) else {
                    return;
                };
                let id = self.draw(room, false, rng);
                let acked = handle.send(self.payload(id)).await;
                let stored = acked.is_ok();
                self.settle(id, acked.map(|ack| (ack.epoch, ack.seq.get())));
                if stored {
                    break;
                }
                sleep(Duration::from_millis(20)).await;
            }
        }
    }
}
