//! The other end of a client's streams, played by a test: it speaks real frames and does exactly what the test says.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use broker_proto::ErrorCode;
use broker_proto::limits::FRAME_BYTES_MAX;
use broker_proto::record::{encode_message, encode_message_head};
use broker_proto::{
    AckWriter, Decoder, Deliver, Epoch, Frame, Goodbye, Hello, Level, Micros, Pong, ProducerId,
    Publish, Refused, RoomId, RoomName, SenderName, Seq, StoreId, Subscribe, Subscribed, Term,
    Welcome, ack,
};
use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc;

use crate::net::client::{Client, ClientConfig, Connect, Connector, Opening};

pub(super) const EPOCH: Epoch = Epoch::new(77);
pub(super) const STORE: StoreId = StoreId::new([7; 16]);

/// Connections that a client has made, for a test to take.
pub(super) struct Listener {
    streams: mpsc::UnboundedReceiver<DuplexStream>,
}

struct Pipe {
    streams: mpsc::UnboundedSender<DuplexStream>,
    bytes: usize,
}

impl Connect for Pipe {
    fn connect(&self) -> Opening<'_> {
        let (near, far) = tokio::io::duplex(self.bytes);
        let sent = self.streams.send(far);
        Box::pin(async move {
            match sent {
                Ok(()) => Ok(Box::new(near) as _),
                Err(_) => Err(io::ErrorKind::ConnectionRefused.into()),
            }
        })
    }

    fn address(&self) -> String {
        "pipe:test".to_owned()
    }
}

/// A connector whose streams hold `bytes` on their way.
pub(super) fn pipe(bytes: usize) -> (Connector, Listener) {
    let (sender, streams) = mpsc::unbounded_channel();
    (
        Connector::new(Pipe {
            streams: sender,
            bytes,
        }),
        Listener { streams },
    )
}

pub(super) fn config() -> ClientConfig {
    Client::builder().sender("ann")
}

/// A client and a peer that has welcomed it.
pub(super) async fn connected() -> (Client, Peer, Listener) {
    connected_with(config(), welcome()).await
}

pub(super) async fn connected_with(
    config: ClientConfig,
    welcome: Welcome,
) -> (Client, Peer, Listener) {
    let (connector, mut listener) = pipe(1 << 20);
    let (client, peer) = tokio::join!(
        config.connect_with(connector),
        listener.welcome_with(welcome)
    );
    (client.unwrap(), peer, listener)
}

pub(super) fn welcome() -> Welcome {
    Welcome {
        store: STORE,
        term: Term::new(3),
        build: "peer 1".to_owned(),
        feature_level: 1,
        payload_bytes_max: 1 << 20,
        unacked_max: 4096,
        window_bytes_max: 1 << 24,
        producer_window_secs: 3600,
        pid: 1,
        auth: 0,
        nonce: [0; 16],
        connection: 1,
    }
}

impl Listener {
    /// The next connection, before anything is said.
    pub(super) async fn accept(&mut self) -> Peer {
        self.try_accept()
            .await
            .expect("the client has been dropped")
    }

    /// The next connection; `None` when the client has come to its end.
    pub(super) async fn try_accept(&mut self) -> Option<Peer> {
        self.streams.recv().await.map(Peer::new)
    }

    /// The next connection, welcomed.
    pub(super) async fn welcome(&mut self) -> Peer {
        self.welcome_with(welcome()).await
    }

    pub(super) async fn welcome_with(&mut self, welcome: Welcome) -> Peer {
        let mut peer = self.accept().await;
        peer.greet(welcome).await;
        peer
    }

    /// Whether a connection is there that nobody has taken.
    pub(super) fn is_empty(&self) -> bool {
        self.streams.is_empty()
    }
}

/// One connection.
pub(super) struct Peer {
    pub(super) stream: DuplexStream,
    decoder: Decoder,
    read: BytesMut,
    pub(super) hello: Option<Hello>,
    /// Frames that were received but not asked for.
    aside: VecDeque<Frame>,
    /// Pings are answered on the way.
    pub(super) pongs: bool,
}

impl Peer {
    fn new(stream: DuplexStream) -> Self {
        let (decoder, read) = (Decoder::new(), BytesMut::new());
        Self {
            stream,
            decoder,
            read,
            hello: None,
            aside: VecDeque::new(),
            pongs: true,
        }
    }

    pub(super) async fn greet(&mut self, welcome: Welcome) {
        self.take_hello().await;
        self.send(welcome).await;
    }

    pub(super) async fn take_hello(&mut self) {
        let Frame::Hello(hello) = self.recv().await else {
            panic!("the client does not begin with a hello");
        };
        self.hello = Some(hello);
    }

    pub(super) fn producer(&self) -> ProducerId {
        self.hello.as_ref().unwrap().producer
    }

    /// The next frame; `None` when the client has closed the stream.
    pub(super) async fn try_recv(&mut self) -> Option<Frame> {
        if let Some(frame) = self.aside.pop_front() {
            return Some(frame);
        }
        self.read_frame().await
    }

    async fn read_frame(&mut self) -> Option<Frame> {
        loop {
            match self
                .decoder
                .decode(&mut self.read, FRAME_BYTES_MAX)
                .unwrap()
            {
                Some(Frame::Ping(ping)) if self.pongs => {
                    self.send(Pong { nonce: ping.nonce }).await
                }
                Some(frame) => return Some(frame),
                None => {
                    if !matches!(self.stream.read_buf(&mut self.read).await, Ok(1..)) {
                        return None;
                    }
                }
            }
        }
    }

    pub(super) async fn recv(&mut self) -> Frame {
        self.try_recv()
            .await
            .expect("the client has closed the connection")
    }

    /// The next frame, also when it is a ping.
    pub(super) async fn recv_all(&mut self) -> Frame {
        self.pongs = false;
        let frame = self.recv().await;
        self.pongs = true;
        frame
    }

    /// The next frame that `pick` takes; others wait.
    pub(super) async fn find<T>(&mut self, mut pick: impl FnMut(Frame) -> Result<T, Frame>) -> T {
        for _ in 0..self.aside.len() {
            match pick(self.aside.pop_front().unwrap()) {
                Ok(found) => return found,
                Err(other) => self.aside.push_back(other),
            }
        }
        loop {
            match pick(
                self.read_frame()
                    .await
                    .expect("the client has closed the connection"),
            ) {
                Ok(found) => return found,
                Err(other) => self.aside.push_back(other),
            }
        }
    }

    pub(super) async fn publish(&mut self) -> Publish {
        self.find(|frame| match frame {
            Frame::Publish(publish) => Ok(publish),
            other => Err(other),
        })
        .await
    }

    /// Publish frames until `count` messages have come.
    pub(super) async fn publishes(&mut self, count: u32) -> Vec<Publish> {
        let mut publishes = Vec::new();
        while publishes
            .iter()
            .map(|publish: &Publish| publish.count)
            .sum::<u32>()
            < count
        {
            publishes.push(self.publish().await);
        }
        publishes
    }

    pub(super) async fn subscribe(&mut self) -> Subscribe {
        self.find(|frame| match frame {
            Frame::Subscribe(subscribe) => Ok(subscribe),
            other => Err(other),
        })
        .await
    }

    /// Fails when the client says anything but pings within `time`.
    pub(super) async fn expect_silence(&mut self, time: Duration) {
        if let Ok(frame) = tokio::time::timeout(time, self.try_recv()).await {
            panic!("the client says {frame:?}");
        }
    }

    pub(super) async fn send(&mut self, frame: impl Into<Frame>) {
        let mut bytes = BytesMut::new();
        frame.into().encode(&mut bytes);
        self.send_bytes(&bytes).await;
    }

    /// Sends what it can; the client may be gone.
    pub(super) async fn send_bytes(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes).await;
    }

    /// Acknowledges `count` numbers of the connection's producer.
    pub(super) async fn ack(&mut self, room: &str, first_number: u64, count: u32, first_seq: u64) {
        self.send(ack_frame(room, first_number, count, first_seq, None))
            .await;
    }

    /// Acknowledges a whole publish.
    pub(super) async fn ack_all(&mut self, publish: &Publish, first_seq: u64) {
        let producer = publish.extensions.producer;
        self.send(ack_frame(
            &publish.room,
            publish.first_number,
            publish.count,
            first_seq,
            producer,
        ))
        .await;
    }

    pub(super) async fn refuse(&mut self, first_number: u64, count: u32, code: ErrorCode) {
        let (detail, producer) = (String::new(), None);
        self.send(Frame::Refused(Refused {
            first_number,
            count,
            code,
            detail,
            retry_after_ms: 0,
            producer,
        }))
        .await;
    }

    pub(super) async fn subscribed(&mut self, sub: u32, epoch: Epoch, next: u64, head: u64) {
        let (next, head) = (Seq::new(next), Seq::new(head));
        self.send(Subscribed {
            sub,
            epoch,
            first: Seq::FIRST,
            next,
            head,
        })
        .await;
    }

    /// Delivers messages with consecutive seqs; their payloads are their seqs.
    pub(super) async fn deliver(&mut self, sub: u32, from: u64, count: u32) {
        self.send(deliver_frame(sub, from, count)).await;
    }

    pub(super) async fn fail(&mut self, kind: u8, about: u64, code: ErrorCode) {
        self.send(broker_proto::Error {
            code,
            about,
            kind,
            detail: String::new(),
            retry_after_ms: 0,
        })
        .await;
    }

    pub(super) async fn goodbye(&mut self) -> Goodbye {
        self.find(|frame| match frame {
            Frame::Goodbye(goodbye) => Ok(goodbye),
            other => Err(other),
        })
        .await
    }
}

pub(super) fn ack_frame(
    room: &str,
    first_number: u64,
    count: u32,
    first_seq: u64,
    producer: Option<ProducerId>,
) -> Frame {
    let mut writer = AckWriter::new();
    writer.push(&ack::Run {
        room,
        epoch: EPOCH,
        first_number,
        count,
        first_seq: Seq::new(first_seq),
    });
    Frame::Ack(writer.into_frame(Level::SYNCED, producer))
}

/// Records with consecutive seqs, from "bob", with these payloads.
pub(super) fn records(from: u64, payloads: &[Bytes]) -> Bytes {
    let mut head = Vec::new();
    encode_message_head(&mut head, &SenderName::parse("bob").unwrap(), 0, &[]);
    let mut body = BytesMut::new();
    for (seq, payload) in (from..).zip(payloads) {
        let crc = crc32c::crc32c(payload);
        encode_message(
            &mut body,
            RoomId::new(5),
            Seq::new(seq),
            Micros::new(9),
            &head,
            payload,
            crc,
        );
    }
    body.freeze()
}

pub(super) fn deliver_frame(sub: u32, from: u64, count: u32) -> Deliver {
    let next = from + u64::from(count);
    let payloads: Vec<Bytes> = (from..next).map(|seq| seq.to_string().into()).collect();
    Deliver {
        sub,
        count,
        next: Seq::new(next),
        body: records(from, &payloads),
    }
}

/// The payloads of a publish as text.
pub(super) fn texts(publish: &Publish) -> Vec<String> {
    publish
        .entries()
        .map(|entry| String::from_utf8_lossy(entry.payload).into_owned())
        .collect()
}

pub(super) fn room_name(name: &str) -> RoomName {
    RoomName::parse(name).unwrap()
}
