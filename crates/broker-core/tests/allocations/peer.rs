//! The other end of a connection, played by a test: it never waits, and nothing that it does is counted.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;

use broker_proto::limits::FRAME_BYTES_MAX;
use broker_proto::{Decoder, Frame, Hello, KnownHeads, ProducerId, SenderName, StoreId};
use bytes::BytesMut;

use crate::count::uncounted;

/// One end of a connection.
pub(crate) struct Peer {
    stream: UnixStream,
    decoder: Decoder,
    read: BytesMut,
    heard: VecDeque<Frame>,
}

impl Peer {
    /// The two ends of a new connection: the peer's, and the one that is counted.
    pub(crate) fn pair() -> (Self, UnixStream) {
        let (near, far) = UnixStream::pair().unwrap();
        near.set_nonblocking(true).unwrap();
        far.set_nonblocking(true).unwrap();
        let peer = Self {
            stream: near,
            decoder: Decoder::new(),
            read: BytesMut::new(),
            heard: VecDeque::new(),
        };
        (peer, far)
    }

    /// Says bytes, which must fit into the socket.
    pub(crate) fn say_bytes(&mut self, bytes: &[u8]) {
        uncounted(|| self.stream.write_all(bytes).unwrap());
    }

    /// Says a frame.
    pub(crate) fn say(&mut self, frame: impl Into<Frame>) {
        uncounted(|| {
            let mut bytes = BytesMut::new();
            frame.into().encode(&mut bytes);
            self.say_bytes(&bytes);
        });
    }

    /// The next frame that `pick` takes, if it has come; those before it are passed over.
    pub(crate) fn hear<T>(&mut self, pick: impl Fn(Frame) -> Option<T>) -> Option<T> {
        uncounted(|| {
            self.take_in();
            while let Some(frame) = self.heard.pop_front() {
                if let Some(picked) = pick(frame) {
                    return Some(picked);
                }
            }
            None
        })
    }

    fn take_in(&mut self) {
        let mut chunk = [0; 16 << 10];
        loop {
            match self.stream.read(&mut chunk) {
                Ok(0) => panic!("the connection was closed"),
                Ok(bytes) => self.read.extend_from_slice(chunk.get(..bytes).unwrap()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("{error}"),
            }
        }
        while let Some(frame) = self
            .decoder
            .decode(&mut self.read, FRAME_BYTES_MAX)
            .unwrap()
        {
            self.heard.push_back(frame);
        }
    }
}

/// The hello of a sender whose producer is its number.
pub(crate) fn hello(number: u8) -> Hello {
    Hello {
        build: "test 1".to_owned(),
        sender: SenderName::parse(&format!("sender-{number}")).unwrap(),
        producer: ProducerId::new([number; 16]),
        feature_level: 1,
        known_store: StoreId::NONE,
        nonce: [0; 16],
        known_heads: KnownHeads::default(),
    }
}
