//! A peer that makes its frames by hand, and the server that it talks to.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use broker_core::clock::{SystemClock, SystemRandom};
use broker_core::net::{Server, ServerConfig};
use broker_core::store::MemoryStore;
use broker_proto::limits::FRAME_BYTES_MAX;
use broker_proto::{
    Credit, Decoder, Deliver, Error, ErrorCode, Frame, Goodbye, Hello, ProducerId, Publish,
    RoomName, SenderName, StartAt, StoreId, Subscribe, Welcome,
};
use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Longer than anything here takes; so a test that hangs says where.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn store() -> Arc<MemoryStore> {
    MemoryStore::new(
        1 << 20,
        Arc::new(SystemClock::new()),
        Box::new(SystemRandom),
    )
}

/// A server with an open store at a free port.
pub(crate) fn serving(config: ServerConfig) -> (Server<MemoryStore>, SocketAddr) {
    let server = Server::start(config).unwrap();
    let address = server.listen_tcp("127.0.0.1:0".parse().unwrap()).unwrap();
    server.serve(store());
    (server, address)
}

pub(crate) fn room(name: &str) -> RoomName {
    RoomName::parse(name).unwrap()
}

pub(crate) fn hello(sender: &str) -> Hello {
    let mut producer = [0; 16];
    producer[..sender.len()].copy_from_slice(sender.as_bytes());
    Hello {
        build: "test 1".to_owned(),
        sender: SenderName::parse(sender).unwrap(),
        producer: ProducerId::new(producer),
        feature_level: 1,
        known_store: StoreId::NONE,
        nonce: [0; 16],
        known_heads: Vec::new(),
    }
}

pub(crate) fn encoded(frame: impl Into<Frame>) -> BytesMut {
    let mut bytes = BytesMut::new();
    frame.into().encode(&mut bytes);
    bytes
}

/// One end of a connection.
pub(crate) struct Peer<IO = TcpStream> {
    pub(crate) io: IO,
    buf: BytesMut,
    decoder: Decoder,
    next_number: u64,
}

impl Peer {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).await.unwrap())
    }

    pub(crate) async fn welcomed(address: SocketAddr, sender: &str) -> Self {
        let mut peer = Self::connect(address).await;
        peer.say(hello(sender)).await;
        peer.hear_welcome().await;
        peer
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Peer<IO> {
    pub(crate) fn over(io: IO) -> Self {
        Self {
            io,
            buf: BytesMut::new(),
            decoder: Decoder::new(),
            next_number: 1,
        }
    }

    pub(crate) async fn say_bytes(&mut self, bytes: &[u8]) {
        timeout(PATIENCE, self.io.write_all(bytes))
            .await
            .expect("the server does not read")
            .unwrap();
    }

    pub(crate) async fn say(&mut self, frame: impl Into<Frame>) {
        self.say_bytes(&encoded(frame)).await;
    }

    /// The next frame; `None` when the server closed.
    pub(crate) async fn hear_or_end(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.decoder.decode(&mut self.buf, FRAME_BYTES_MAX).unwrap() {
                return Some(frame);
            }
            let read = timeout(PATIENCE, self.io.read_buf(&mut self.buf))
                .await
                .expect("the server says nothing");
            if read.unwrap() == 0 {
                return None;
            }
        }
    }

    pub(crate) async fn hear(&mut self) -> Frame {
        self.hear_or_end()
            .await
            .expect("the server closed the connection")
    }

    pub(crate) async fn hear_welcome(&mut self) -> Welcome {
        match self.hear().await {
            Frame::Welcome(welcome) => welcome,
            other => panic!("{other:?}"),
        }
    }

    /// Error, goodbye, end.
    pub(crate) async fn hear_the_end(&mut self, code: ErrorCode) -> Error {
        let Frame::Error(error) = self.hear().await else {
            panic!("no error")
        };
        assert_eq!(error.code, code, "{error:?}");
        let Frame::Goodbye(Goodbye { code: again, .. }) = self.hear().await else {
            panic!("no goodbye")
        };
        assert_eq!(again, code);
        assert_eq!(self.hear_or_end().await, None);
        error
    }

    /// Publishes with the next numbers and waits for all acks.
    pub(crate) async fn publish<P: AsRef<[u8]>>(&mut self, name: &str, payloads: &[P]) {
        let mut open = payloads.len() as u64;
        self.send(name, payloads).await;
        while open > 0 {
            match self.hear().await {
                Frame::Ack(ack) => open -= ack.iter().map(|run| u64::from(run.count)).sum::<u64>(),
                other => panic!("{other:?}"),
            }
        }
    }

    /// Publishes with the next numbers and does not wait.
    pub(crate) async fn send<P: AsRef<[u8]>>(&mut self, name: &str, payloads: &[P]) {
        let publish = Publish::of(room(name), self.next_number, payloads);
        self.next_number += payloads.len() as u64;
        self.say(publish).await;
    }

    pub(crate) async fn subscribe(&mut self, sub: u32, name: &str, start: StartAt, window: u32) {
        let flags = Subscribe::WAIT;
        self.say(Subscribe {
            sub,
            room: room(name),
            start,
            window,
            flags,
        })
        .await;
    }

    pub(crate) async fn credit(&mut self, sub: u32, bytes: u32) {
        self.say(Credit { sub, bytes }).await;
    }

    /// The next deliver; acks and what stands are passed over.
    pub(crate) async fn hear_deliver(&mut self) -> Deliver {
        loop {
            match self.hear().await {
                Frame::Deliver(deliver) => return deliver,
                Frame::Ack(_) | Frame::Subscribed(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// Reads deliveries, granting what they took, until `count` messages have come; checks that
    /// their seqs follow each other from `from`.
    pub(crate) async fn hear_messages(&mut self, from: u64, count: u64) {
        let mut next = from;
        while next < from + count {
            let deliver = self.hear_deliver().await;
            for message in deliver.messages() {
                assert_eq!(message.unwrap().seq.get(), next);
                next += 1;
            }
            self.credit(deliver.sub, deliver.body.len() as u32).await;
        }
    }
}
