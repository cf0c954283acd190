//! A client and the real server over a real store on disk: the same over every transport, over connections that are cut at
//! any byte, and over restarts of the broker.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use broker_proto::{Position, Seq, StoreId};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};

use crate::log::storage::FileStorage;
use crate::net::client::{
    Address, Client, Connect, Connector, ErrorKind, Item, Opening, Room, StartAt, State,
};
use crate::net::{Server, ServerConfig};
use crate::session::Farewell;
use crate::store::{EmbeddedConfig, EmbeddedStore};

type Store = EmbeddedStore<FileStorage>;

/// A broker on disk. It can be stopped and started again.
struct Broker {
    server: Server<Store>,
    store: Arc<Store>,
}

impl Broker {
    fn start(dir: &Path) -> Self {
        let storage = Arc::new(FileStorage::open(dir).unwrap());
        let store = EmbeddedStore::open(
            storage,
            EmbeddedConfig::new(StoreId::new([5; 16])),
            &mut |_, _| {},
        )
        .unwrap();
        let server = Server::start(ServerConfig::default()).unwrap();
        server.serve(Arc::clone(&store));
        Self { server, store }
    }

    async fn stop(self) {
        self.server
            .drain(Arc::clone(&self.store), Duration::from_secs(1))
            .await;
        self.store.close();
        self.server
            .farewell(Farewell::default(), Duration::from_secs(1))
            .await;
        self.server.stop().await;
    }
}

/// Connects to whichever broker there is now, over streams that break after some bytes.
struct Chaos {
    broker: Arc<Mutex<Option<Broker>>>,
    random: Mutex<u64>,
    /// Connections break after up to this many bytes; zero = never.
    bytes_max: u64,
}

/// A stream that breaks after some bytes in either direction.
struct Brittle {
    inner: DuplexStream,
    left: Option<u64>,
}

impl Brittle {
    fn spend(&mut self, bytes: usize) -> io::Result<()> {
        match &mut self.left {
            Some(left) if *left <= bytes as u64 => Err(io::ErrorKind::ConnectionReset.into()),
            Some(left) => {
                *left -= bytes as u64;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

impl AsyncRead for Brittle {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        std::task::ready!(Pin::new(&mut self.inner).poll_read(cx, buf))?;
        let read = buf.filled().len() - before;
        Poll::Ready(self.spend(read))
    }
}

impl AsyncWrite for Brittle {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        // What fits is written first, so that frames are cut in the middle.
        let most = self.left.map_or(bytes.len(), |left| {
            bytes.len().min(usize::try_from(left).unwrap())
        });
        let written =
            std::task::ready!(Pin::new(&mut self.inner).poll_write(cx, bytes.split_at(most).0))?;
        Poll::Ready(self.spend(written).map(|()| written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

impl Connect for Chaos {
    fn connect(&self) -> Opening<'_> {
        let inner = self
            .broker
            .lock()
            .unwrap()
            .as_ref()
            .map(|broker| broker.server.connect());
        let mut random = self.random.lock().unwrap();
        *random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let left = (*random >> 33).checked_rem(self.bytes_max);
        Box::pin(async move {
            match inner {
                Some(inner) => Ok(Box::new(Brittle { inner, left }) as _),
                None => Err(io::ErrorKind::ConnectionRefused.into()),
            }
        })
    }

    fn address(&self) -> String {
        "chaos:broker".to_owned()
    }
}

fn chaos(dir: &Path, seed: u64, bytes_max: u64) -> (Connector, Arc<Mutex<Option<Broker>>>) {
    let broker = Arc::new(Mutex::new(Some(Broker::start(dir))));
    let chaos = Chaos {
        broker: Arc::clone(&broker),
        random: Mutex::new(seed),
        bytes_max,
    };
    (Connector::new(chaos), broker)
}

/// Everything a client can do, once.
async fn exercise(client: &Client, name: &str) {
    let room = client.room(name).unwrap();
    assert_eq!(
        room.read(StartAt::START, 1, 1).await.unwrap_err().kind(),
        ErrorKind::Absent
    );
    assert_eq!(
        room.subscribe(StartAt::START).await.unwrap_err().kind(),
        ErrorKind::Absent
    );
    let mut early = room.subscribe(StartAt::END).wait(true).await.unwrap();

    assert_eq!(room.send("one").await.unwrap().seq, Seq::FIRST);
    let large = vec![b'x'; 300_000];
    let ticket = room.queue(large.clone()).await.unwrap();
    let bulk = room
        .send_all((3..=1000).map(|number: u32| number.to_string()))
        .await
        .unwrap();
    assert_eq!(ticket.await.unwrap().seq.get(), 2);
    let bulk = bulk.await.unwrap();
    assert_eq!(
        (bulk.count, bulk.runs.first().unwrap().first_seq.get()),
        (998, 3)
    );

    let with_id = room.send_with_id("key", 1, "once").await.unwrap();
    assert_eq!(
        room.send_with_id("key", 1, "once").await.unwrap().seq,
        with_id.seq
    );
    assert_eq!(with_id.seq.get(), 1001);

    let mut late = room.subscribe(StartAt::START).await.unwrap();
    for subscription in [&mut early, &mut late] {
        for seq in 1..=1001 {
            let message = subscription.next_message().await.unwrap().unwrap();
            assert_eq!(
                (message.seq.get(), message.sender.as_str(), message.epoch),
                (seq, "ann", with_id.epoch)
            );
        }
    }
    assert_eq!(
        late.position(),
        Position::new(with_id.epoch, Seq::new(1002))
    );
    let mut from = room
        .subscribe(StartAt::position(Position::new(
            with_id.epoch,
            Seq::new(1001),
        )))
        .await
        .unwrap();
    assert_eq!(from.next_message().await.unwrap().unwrap().payload, "once");

    // A page may hold less than asked for, never more, and at least one message.
    let mut page = room
        .read(StartAt::seq(Seq::new(2)), 1, 1 << 20)
        .await
        .unwrap();
    assert_eq!(
        (
            page.messages.first().unwrap().payload.len(),
            page.next.get(),
            page.head.get()
        ),
        (large.len(), 3, 1001)
    );
    let mut read = page.messages.len();
    while !page.is_last() {
        page = room
            .read(StartAt::position(page.next_position()), 300, 1 << 20)
            .await
            .unwrap();
        assert!((1..=300).contains(&page.messages.len()));
        read += page.messages.len();
    }
    assert_eq!(read, 1000);

    let cursor = room.cursor("ann").unwrap();
    assert_eq!(cursor.get().await.unwrap(), None);
    cursor.set(late.position()).await.unwrap();
    assert_eq!(cursor.get().await.unwrap(), Some(late.position()));
    assert!(
        cursor
            .compare_and_set(None, page.next_position())
            .await
            .is_err()
    );
    cursor
        .compare_and_set(Some(late.position()), page.next_position())
        .await
        .unwrap();
    cursor.delete().await.unwrap();
    assert_eq!(cursor.get().await.unwrap(), None);

    let rooms = client.rooms("", 1000).await.unwrap();
    assert!(
        rooms
            .rooms
            .iter()
            .any(|entry| entry.name == *name && entry.head.get() == 1001)
    );
    assert!(client.status().await.unwrap().starts_with('{'));
    client.ping().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_works_the_same_over_every_transport() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path());
    let port = broker
        .server
        .listen_tcp("127.0.0.1:0".parse().unwrap())
        .unwrap()
        .port();
    let sockets = tempfile::tempdir().unwrap();
    let socket = sockets.path().join("socket");
    broker
        .server
        .listen_unix(|name| sockets.path().join(name), "socket", socket.clone())
        .unwrap();
    let tcp = Client::builder()
        .sender("ann")
        .connect(&format!("tcp://127.0.0.1:{port}"))
        .await
        .unwrap();
    let unix = Client::builder()
        .sender("ann")
        .connect_with(Address::unix(socket).into())
        .await
        .unwrap();
    let holder = Arc::new(Mutex::new(Some(broker)));
    let inside = Connector::new(Chaos {
        broker: Arc::clone(&holder),
        random: Mutex::new(1),
        bytes_max: 0,
    });
    let inside = Client::builder()
        .sender("ann")
        .connect_with(inside)
        .await
        .unwrap();
    tokio::join!(
        exercise(&tcp, "tcp"),
        exercise(&unix, "unix"),
        exercise(&inside, "inside")
    );
    for client in [tcp, unix, inside] {
        client.shutdown().await.unwrap();
    }
    let broker = holder.lock().unwrap().take();
    broker.unwrap().stop().await;
}

/// Sends numbered texts to a room, some one by one, some in bulk; gives what was acknowledged.
async fn talk(room: Room, who: u32, count: u32) -> Vec<(u64, String)> {
    let mut places = Vec::new();
    let mut number = 0;
    while number < count {
        if number % 7 == 0 {
            let texts: Vec<String> = (number..(number + 40).min(count))
                .map(|number| format!("{who}:{number}"))
                .collect();
            number += u32::try_from(texts.len()).unwrap();
            let acked = room.send_all(texts.clone()).await.unwrap().await.unwrap();
            let seqs = acked
                .runs
                .iter()
                .flat_map(|run| (0..run.count).map(|at| run.first_seq.get() + u64::from(at)));
            places.extend(seqs.zip(texts));
        } else {
            let text = format!("{who}:{number}");
            number += 1;
            places.push((room.send(text.clone()).await.unwrap().seq.get(), text));
        }
    }
    places
}

/// Reads a room until `count` messages have come; they must be all of it, in order.
async fn listen(room: Room, count: u64) -> BTreeMap<u64, String> {
    let mut subscription = room
        .subscribe(StartAt::START)
        .wait(true)
        .window_bytes(4000)
        .await
        .unwrap();
    let mut heard = BTreeMap::new();
    for seq in 1..=count {
        match subscription.next().await.unwrap() {
            Ok(Item::Message(message)) => {
                assert_eq!(message.seq.get(), seq);
                heard.insert(seq, String::from_utf8(message.payload.to_vec()).unwrap());
            }
            other => panic!("{other:?} instead of message {seq}"),
        }
    }
    heard
}

/// Talks and listens in two rooms, each by several tasks, and compares what everybody saw.
async fn converse(client: &Client, count: u32) {
    let total = u64::from(count) * 4;
    let rooms = [client.room("left").unwrap(), client.room("right").unwrap()];
    let mut ears = Vec::new();
    let mut mouths = Vec::new();
    for (at, room) in rooms.iter().enumerate() {
        for _ in 0..2 {
            ears.push((at, tokio::spawn(listen(room.clone(), total))));
        }
        for who in 0..4 {
            mouths.push((at, tokio::spawn(talk(room.clone(), who, count))));
        }
    }
    let mut acked = [BTreeMap::new(), BTreeMap::new()];
    for (at, mouth) in mouths {
        let places = mouth.await.unwrap();
        // One sender's messages keep their order.
        assert!(
            places
                .windows(2)
                .all(|pair| matches!(pair, [(one, _), (other, _)] if one < other))
        );
        acked.get_mut(at).unwrap().extend(places);
    }
    for (at, ear) in ears {
        let heard = ear.await.unwrap();
        assert!(
            heard == *acked.get(at).unwrap(),
            "what was heard is not what was acknowledged"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_cut_anywhere_lose_and_double_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut seed = [0; 8];
    getrandom::fill(&mut seed).unwrap();
    let seed = u64::from_le_bytes(seed);
    eprintln!("seed {seed}");
    let (connector, broker) = chaos(dir.path(), seed, 30_000);
    let client = Client::builder()
        .sender("ann")
        .timeout(Duration::from_secs(60))
        .connect_with(connector)
        .await
        .unwrap();
    let mut state = client.state();
    converse(&client, 500).await;
    assert!(
        matches!(
            &*state.borrow_and_update(),
            State::Resumed { .. } | State::Disconnected { .. }
        ),
        "no connection was cut"
    );
    client.shutdown().await.unwrap();
    let broker = broker.lock().unwrap().take();
    broker.unwrap().stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restarts_of_the_broker_are_pauses() {
    let dir = tempfile::tempdir().unwrap();
    let (connector, broker) = chaos(dir.path(), 1, 0);
    let client = Client::builder()
        .sender("ann")
        .timeout(Duration::from_secs(60))
        .connect_with(connector)
        .await
        .unwrap();
    let talking = tokio::spawn({
        let client = client.clone();
        async move { converse(&client, 1000).await }
    });
    let mut watch = client
        .room("left")
        .unwrap()
        .subscribe(StartAt::START)
        .wait(true)
        .await
        .unwrap();
    for _ in 0..5 {
        for _ in 0..600 {
            watch.next().await.unwrap().unwrap();
        }
        let stopped = broker.lock().unwrap().take();
        stopped.unwrap().stop().await;
        *broker.lock().unwrap() = Some(Broker::start(dir.path()));
    }
    talking.await.unwrap();
    client.shutdown().await.unwrap();
    let broker = broker.lock().unwrap().take();
    broker.unwrap().stop().await;
}
