//! [`Line`]: one session of the server, driven by hand: bytes in, bytes out, no socket and no runtime.

use std::io::IoSlice;
use std::sync::Arc;
use std::time::Duration;

use broker_core::session::{Host, Session, Stage, Terms};
use broker_core::store::{SessionId, Store};
use broker_proto::limits::FRAME_BYTES_MAX;
use broker_proto::{
    Credit, Decoder, Frame, Hello, KnownHeads, ProducerId, PublishExtensions, RoomName, SenderName,
    StartAt, StoreId, Subscribe, publish,
};
use bytes::{Bytes, BytesMut};

/// A window that a benchmark does not use up within a batch.
const WINDOW: u32 = 32 << 20;
/// Slices of one write, as the server has them.
const SLICES: usize = 64;
/// Bytes of a read buffer.
const READ_BYTES: usize = 16 << 10;
/// The time on all clocks.
const NOW: Duration = Duration::from_secs(100);

#[derive(Debug)]
struct Silent;

impl Host for Silent {
    fn status(&self) -> String {
        "{}".to_owned()
    }

    fn lost_suffix(&self) {}
}

/// One peer's session and its bytes.
#[derive(Debug)]
pub struct Line<S: Store> {
    session: Session<S>,
    decoder: Decoder,
    read: BytesMut,
    /// The head of the frame that the peer says.
    head: BytesMut,
    room: RoomName,
    next: u64,
    /// Bytes delivered that were not admitted again.
    taken: usize,
}

impl<S: Store> Line<S> {
    /// A welcomed peer.
    ///
    /// # Panics
    /// When the room's name breaks the rules.
    #[must_use]
    pub fn welcomed(store: &Arc<S>, number: u8, room: &str) -> Self {
        let terms = Terms::new("bench", 1, Arc::new(Silent));
        let stage = Stage::Serving(Arc::clone(store));
        let id = SessionId(u64::from(number) + 1);
        let mut line = Self {
            session: Session::new(NOW, id, [0; 16], Arc::new(terms), stage),
            decoder: Decoder::new(),
            read: BytesMut::new(),
            head: BytesMut::new(),
            room: RoomName::parse(room).expect("a good name"),
            next: 1,
            taken: 0,
        };
        line.say(Hello {
            build: "bench".to_owned(),
            sender: SenderName::parse("bench").expect("a good name"),
            producer: ProducerId::new([number; 16]),
            feature_level: 1,
            known_store: StoreId::NONE,
            nonce: [0; 16],
            known_heads: KnownHeads::default(),
        });
        line.turn();
        line
    }

    /// Subscribes to what comes from now on. The room is there.
    pub fn subscribe(&mut self) {
        let room = self.room.clone();
        self.say(Subscribe {
            sub: 1,
            room,
            start: StartAt::END,
            window: WINDOW,
            flags: 0,
        });
        self.turn();
        self.taken = 0;
    }

    /// Receives the bytes of one publish of `count` messages whose entries are `body`, with the next numbers.
    pub fn publish(&mut self, count: u32, body: &Bytes) {
        self.head.clear();
        publish::encode_head(
            &mut self.head,
            &self.room,
            self.next,
            count,
            &PublishExtensions::NONE,
            body.len(),
        );
        // As a connection reads: many frames into one buffer.
        if self.read.capacity() - self.read.len() < self.head.len() + body.len() {
            self.read.reserve(READ_BYTES);
        }
        self.read.extend_from_slice(&self.head);
        self.read.extend_from_slice(body);
        self.next += u64::from(count);
        self.receive();
    }

    /// What the store said, one turn, and the write of all that it brought; says how many bytes that were.
    pub fn turn(&mut self) -> usize {
        self.session.handle_notices(NOW);
        self.session.turn(NOW);
        let mut all = 0;
        loop {
            let written = self.write();
            if written == 0 {
                break;
            }
            all += written;
            self.session.turn(NOW);
        }
        self.taken += all;
        all
    }

    /// Admits again what was delivered.
    pub fn credit(&mut self) {
        let bytes = u32::try_from(self.taken).unwrap_or(u32::MAX);
        self.taken = 0;
        self.say(Credit { sub: 1, bytes });
    }

    fn say(&mut self, frame: impl Into<Frame>) {
        frame.into().encode(&mut self.read);
        self.receive();
    }

    fn receive(&mut self) {
        while let Some(frame) = self
            .decoder
            .decode(&mut self.read, FRAME_BYTES_MAX)
            .expect("frames made by the codec")
        {
            self.session.handle_frame(NOW, frame);
        }
    }

    fn write(&mut self) -> usize {
        let mut slices = [IoSlice::new(&[]); SLICES];
        let used = self.session.outbox().chunks(&mut slices);
        let bytes = slices.iter().take(used).map(|slice| slice.len()).sum();
        self.session.handle_written(NOW, bytes);
        bytes
    }
}

/// The entries of a publish of `count` messages of `size` bytes.
#[must_use]
pub fn entries(count: u32, size: usize) -> Bytes {
    let payload = vec![b'x'; size];
    let mut body = BytesMut::new();
    for _ in 0..count {
        publish::encode_entry(&mut body, &payload, &[], crc32c::crc32c(&payload));
    }
    body.freeze()
}
