//! What the server's side costs: from the socket through session, sequencer and log back to the socket.

use std::future::poll_fn;
use std::io;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use broker_core::clock::ManualClock;
use broker_core::log::storage::FileStorage;
use broker_core::net::{Listener, Origin, Server, ServerConfig};
use broker_core::store::{
    Append, EmbeddedConfig, EmbeddedStore, Engine, Mailbox, ProducerKey, SessionId, Store,
};
use broker_proto::record::encode_message_head;
use broker_proto::{
    Credit, Frame, ProducerId, Publish, PublishExtensions, RoomName, SenderName, StartAt, StoreId,
    Subscribe, Unsubscribe, publish,
};
use bytes::{Bytes, BytesMut};
use tempfile::TempDir;
use tokio::net::UnixStream;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;

use crate::count::{LARGE, SMALL, cost, uncounted};
use crate::peer::{Peer, hello};

/// Payload of a message, in bytes.
const PAYLOAD: [u8; 128] = [b'x'; 128];
/// Turns of the runtime after which a server that has not answered never will.
const TURNS_MAX: u32 = 1_000_000;
/// A window that is never used up within a batch.
const WINDOW: u32 = 16 << 20;

/// Gives the server the connections that a test makes.
struct Door(mpsc::UnboundedReceiver<StdUnixStream>);

impl Listener for Door {
    type Stream = UnixStream;

    async fn accept(&mut self) -> io::Result<(UnixStream, Origin)> {
        match self.0.recv().await {
            Some(stream) => Ok((UnixStream::from_std(stream)?, Origin::InProcess)),
            None => std::future::pending().await,
        }
    }

    fn address(&self) -> String {
        "test:".to_owned()
    }
}

/// A server whose every part runs on this thread.
struct Served {
    runtime: Runtime,
    _server: Server<EmbeddedStore<FileStorage>>,
    store: Arc<EmbeddedStore<FileStorage>>,
    engine: Engine<FileStorage>,
    door: mpsc::UnboundedSender<StdUnixStream>,
    /// What publishes beside the connections.
    aside: Aside,
    _dir: TempDir,
}

impl Served {
    fn start(tail_bytes_max: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let storage = Arc::new(FileStorage::open(dir.path()).unwrap());
        let clock = ManualClock::default();
        // At zero the directory is looked at with every batch instead of every second.
        clock.advance(Duration::from_secs(1));
        let config = EmbeddedConfig {
            tail_bytes_max,
            segment_bytes_min: 16 << 20,
            clock: Arc::new(clock),
            ..EmbeddedConfig::new(StoreId::new([1; 16]))
        };
        let (store, engine) = EmbeddedStore::open_manual(storage, config, &mut |_, _| {}).unwrap();
        let runtime = Builder::new_current_thread()
            .enable_all()
            // Otherwise a turn in which nothing sleeps does not look at the sockets.
            .event_interval(1)
            // However busy the machine is, nobody grows impatient.
            .start_paused(true)
            .build()
            .unwrap();
        let (door, knocks) = mpsc::unbounded_channel();
        let server = {
            let _runtime = runtime.enter();
            let server = Server::start_on(runtime.handle().clone(), ServerConfig::default());
            server.listen(Door(knocks));
            server.serve(Arc::clone(&store));
            server
        };
        Self {
            runtime,
            _server: server,
            store,
            engine,
            door,
            aside: Aside::new(),
            _dir: dir,
        }
    }

    /// Lets the server run until `done` gives something.
    fn until<T>(&mut self, mut done: impl FnMut(&mut Engine<FileStorage>) -> Option<T>) -> T {
        let Self {
            runtime, engine, ..
        } = self;
        runtime.block_on(async {
            for _ in 0..TURNS_MAX {
                if let Some(result) = done(engine) {
                    return result;
                }
                turn_of_others().await;
            }
            panic!("the server does not answer");
        })
    }

    /// A welcomed peer.
    fn connect(&mut self, number: u8) -> Peer {
        let (mut peer, far) = Peer::pair();
        self.door.send(far).unwrap();
        peer.say(hello(number));
        self.until(|_| peer.hear(|frame| matches!(frame, Frame::Welcome(_)).then_some(())));
        peer
    }

    /// A peer that has subscribed to the room's end.
    fn subscriber(&mut self, number: u8) -> Peer {
        let mut peer = self.connect(number);
        peer.say(subscribe(1, "lobby", StartAt::END));
        self.until(|_| peer.hear(|frame| matches!(frame, Frame::Subscribed(_)).then_some(())));
        peer
    }

    /// Stores messages without a connection and without counting.
    fn store_aside(&mut self, room: &str, count: u32) {
        let Self {
            store,
            engine,
            aside,
            ..
        } = self;
        uncounted(|| {
            aside.append(&**store, room, count);
            while engine.step() {}
            engine.keep_house();
        });
    }

    /// Publishes and waits until all is acknowledged; one turn of the writer takes all of it.
    fn publish(&mut self, peers: &mut [Publisher], bytes: &[BytesMut]) {
        for (peer, bytes) in peers.iter_mut().zip(bytes) {
            peer.peer.say_bytes(bytes);
        }
        // First everything is handed in, as it is while a sync runs; then the writer takes it as one batch.
        let mut turns = 2 * peers.len() + 8;
        self.until(|engine| {
            turns = turns.saturating_sub(1);
            if turns == 0 {
                engine.step();
            }
            peers.iter_mut().all(Publisher::is_answered).then_some(())
        });
        uncounted(|| self.engine.keep_house());
    }
}

/// Lets all tasks that are woken run once. Without memory of its own, unlike the runtime's way to yield.
async fn turn_of_others() {
    let mut waited = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut waited, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Appends to the store as a session does.
struct Aside {
    key: ProducerKey,
    mailbox: Arc<Mailbox>,
    head: Bytes,
    next: u64,
}

impl Aside {
    fn new() -> Self {
        let sender = SenderName::parse("aside").unwrap();
        let mut head = Vec::new();
        encode_message_head(&mut head, &sender, 0, &[]);
        Self {
            key: ProducerKey {
                sender,
                producer: ProducerId::new([200; 16]),
            },
            mailbox: Mailbox::new(),
            head: head.into(),
            next: 1,
        }
    }

    fn append(&mut self, store: &impl Store, room: &str, count: u32) {
        let append = Append {
            session: SessionId(0),
            key: self.key.clone(),
            claimed: true,
            room: RoomName::parse(room).unwrap(),
            first_number: self.next,
            count,
            head: self.head.clone(),
            entries: entries(count).freeze(),
            expected_head: None,
            resend: false,
        };
        self.next += u64::from(count);
        store.append(append, &self.mailbox).unwrap();
        self.mailbox.drain(&mut Vec::new());
    }
}

/// A peer that publishes.
struct Publisher {
    peer: Peer,
    next: u64,
    unanswered: u32,
}

impl Publisher {
    fn new(peer: Peer) -> Self {
        Self {
            peer,
            next: 1,
            unanswered: 0,
        }
    }

    /// The bytes of `frames` publishes of `messages` messages each, with the next numbers.
    fn frames(&mut self, frames: u32, messages: u32) -> BytesMut {
        let mut bytes = BytesMut::new();
        let room = RoomName::parse("lobby").unwrap();
        for _ in 0..frames {
            let body = entries(messages);
            let publish = Publish {
                room: room.clone(),
                first_number: self.next,
                count: messages,
                extensions: PublishExtensions::NONE,
                body: body.freeze(),
            };
            Frame::from(publish).encode(&mut bytes);
            self.next += u64::from(messages);
            self.unanswered += messages;
        }
        bytes
    }

    fn is_answered(&mut self) -> bool {
        while self.unanswered > 0 {
            let acked = self.peer.hear(|frame| match frame {
                Frame::Ack(ack) => Some(ack.iter().map(|run| run.count).sum::<u32>()),
                other => panic!("{other:?}"),
            });
            let Some(acked) = acked else {
                return false;
            };
            self.unanswered -= acked;
        }
        true
    }
}

fn entries(count: u32) -> BytesMut {
    let mut body = BytesMut::new();
    for _ in 0..count {
        publish::encode_entry(&mut body, &PAYLOAD, &[], crc32c::crc32c(&PAYLOAD));
    }
    body
}

fn subscribe(sub: u32, room: &str, start: StartAt) -> Subscribe {
    Subscribe {
        sub,
        room: RoomName::parse(room).unwrap(),
        start,
        window: WINDOW,
        flags: 0,
    }
}

/// Hears deliveries until `left` is nothing.
fn is_delivered(peer: &mut Peer, left: &mut u32) -> bool {
    while *left > 0 {
        let delivered = peer.hear(|frame| match frame {
            Frame::Deliver(deliver) => Some(deliver.count),
            Frame::Subscribed(_) => Some(0),
            other => panic!("{other:?}"),
        });
        let Some(delivered) = delivered else {
            return false;
        };
        *left -= delivered;
    }
    true
}

#[test]
fn publishes_of_many_messages_cost_nothing_for_each() {
    let mut served = Served::start(8 << 20);
    let mut peers = [Publisher::new(served.connect(1))];
    let cost = cost(|messages| {
        let bytes = [uncounted(|| peers[0].frames(1, messages))];
        served.publish(&mut peers, &bytes);
    });
    cost.expect("server, one publish of many messages", 8.25, 0.05);
}

#[test]
fn publishes_of_one_message_each_cost_no_allocation() {
    let mut served = Served::start(8 << 20);
    let mut peers = [Publisher::new(served.connect(1))];
    let cost = cost(|messages| {
        let bytes = [uncounted(|| peers[0].frames(messages, 1))];
        served.publish(&mut peers, &bytes);
    });
    cost.expect("server, many publishes of one message", 8.25, 0.05);
}

#[test]
fn publishes_of_many_peers_cost_nothing_for_each_message() {
    const FRAME: u32 = 16;
    let mut served = Served::start(8 << 20);
    let most = u8::try_from(LARGE / FRAME).unwrap();
    let mut peers: Vec<Publisher> = (1..=most)
        .map(|number| Publisher::new(served.connect(number)))
        .collect();
    let cost = cost(|messages| {
        let used = usize::try_from(messages / FRAME).unwrap();
        let peers = peers.get_mut(..used).unwrap();
        let bytes: Vec<BytesMut> = uncounted(|| {
            let peers = peers.iter_mut();
            peers.map(|peer| peer.frames(1, FRAME)).collect()
        });
        served.publish(peers, &bytes);
        uncounted(|| drop(bytes));
    });
    cost.expect(
        "server, publishes of many peers, 16 messages each",
        8.25,
        0.05,
    );
}

#[test]
fn live_deliveries_of_many_messages_cost_nothing_for_each() {
    let mut served = Served::start(8 << 20);
    served.store_aside("lobby", 1);
    let mut peer = served.subscriber(1);
    let cost = cost(|messages| {
        served.store_aside("lobby", messages);
        let mut left = messages;
        served.until(|_| is_delivered(&mut peer, &mut left).then_some(()));
        peer.say(Credit {
            sub: 1,
            bytes: WINDOW / 4,
        });
    });
    cost.expect("server, a batch to a live subscriber", 2.25, 0.05);
}

#[test]
fn live_deliveries_to_many_subscribers() {
    let mut served = Served::start(8 << 20);
    served.store_aside("lobby", 1);
    let mut peers: Vec<Peer> = (1..=16).map(|number| served.subscriber(number)).collect();
    let cost = cost(|messages| {
        served.store_aside("lobby", messages);
        let mut left = vec![messages; peers.len()];
        served.until(|_| {
            let mut peers = peers.iter_mut().zip(&mut left);
            peers
                .all(|(peer, left)| is_delivered(peer, left))
                .then_some(())
        });
        for peer in &mut peers {
            peer.say(Credit {
                sub: 1,
                bytes: WINDOW / 4,
            });
        }
    });
    cost.expect("server, a batch to 16 live subscribers", 18.25, 0.05);
}

/// One batch is a whole room, read by a new subscription from its start.
fn replay(tail_bytes_max: usize, path: &str, per_batch: f64) {
    let mut served = Served::start(tail_bytes_max);
    for (room, count) in [("small", SMALL), ("large", LARGE)] {
        served.store_aside(room, count);
    }
    // The last batch stays in memory, however small the tail is.
    served.store_aside("lobby", 1);
    let mut peer = served.connect(1);
    let mut sub = 0;
    let cost = cost(|messages| {
        sub += 1;
        let room = if messages == SMALL { "small" } else { "large" };
        peer.say(subscribe(sub, room, StartAt::START));
        let mut left = messages;
        served.until(|_| is_delivered(&mut peer, &mut left).then_some(()));
        peer.say(Unsubscribe { sub });
    });
    cost.expect(path, per_batch, 0.05);
}

#[test]
fn history_from_memory_costs_nothing_for_each_message() {
    replay(8 << 20, "server, history from memory", 3.0);
}

#[test]
fn history_from_the_disk_costs_nothing_for_each_message() {
    replay(1, "server, history from the disk", 15.25);
}
