//! A peer of a session: says frames, hears frames, through the real bytes.

use std::io::IoSlice;
use std::task::{Context, Waker};
use std::time::Duration;

use broker_proto::limits::FRAME_BYTES_MAX;
use broker_proto::{
    Credit, Error, ErrorCode, Frame, Hello, Kind, KnownHeads, Message, ProducerId, Publish,
    PublishExtensions, RoomName, SenderName, StartAt, StoreId, Subscribe, Subscribed, Welcome,
    decode,
};
use bytes::BytesMut;

use super::store::Gate;
use crate::session::{Host, Session, Stage, Terms};
use crate::store::SessionId;
use crate::sync::Arc;

#[derive(Debug)]
struct Silent;

impl Host for Silent {
    fn status(&self) -> String {
        "{\"a\":1}".to_owned()
    }

    fn lost_suffix(&self) {}
}

pub(super) const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

pub(super) fn terms() -> Terms {
    Terms::new("test 1", 42, Arc::new(Silent))
}

pub(super) fn room(name: &str) -> RoomName {
    RoomName::parse_reserved(name).unwrap()
}

pub(super) fn hello(sender: &str) -> Hello {
    let mut producer = [0; 16];
    producer[..sender.len()].copy_from_slice(sender.as_bytes());
    Hello {
        build: "test 1".to_owned(),
        sender: SenderName::parse(sender).unwrap(),
        producer: ProducerId::new(producer),
        feature_level: 1,
        known_store: StoreId::NONE,
        nonce: [0; 16],
        known_heads: KnownHeads::default(),
    }
}

/// One peer and the session that serves it.
pub(super) struct Peer {
    pub(super) session: Session<Gate>,
    pub(super) now: Duration,
    /// Bytes that the session has sent and the peer has not decoded.
    wire: BytesMut,
    next_number: u64,
}

impl Peer {
    /// Connected, before its hello.
    pub(super) fn connected(stage: Stage<Gate>, id: u64, terms: Terms) -> Self {
        let now = secs(100);
        let session = Session::new(now, SessionId(id), [9; 16], Arc::new(terms), stage);
        Self {
            session,
            now,
            wire: BytesMut::new(),
            next_number: 1,
        }
    }

    /// Welcomed.
    pub(super) fn welcomed_under(store: &Arc<Gate>, id: u64, sender: &str, terms: Terms) -> Self {
        let mut peer = Self::connected(Stage::Serving(Arc::clone(store)), id, terms);
        peer.say(hello(sender));
        let _: Welcome = peer.hear_one();
        store.calls();
        peer
    }

    pub(super) fn welcomed(store: &Arc<Gate>, sender: &str) -> Self {
        Self::welcomed_under(store, 1, sender, terms())
    }

    /// Sends a frame.
    pub(super) fn say(&mut self, frame: impl Into<Frame>) -> &mut Self {
        assert!(self.session.wants_read(), "the session does not read now");
        self.session.handle_frame(self.now, frame.into());
        self
    }

    /// Publishes these payloads with the next numbers.
    pub(super) fn publish<const N: usize>(&mut self, room: &str, payloads: [&str; N]) -> &mut Self {
        let publish = Publish::of(super::peer::room(room), self.next_number, payloads);
        self.next_number += N as u64;
        self.say(publish)
    }

    pub(super) fn publish_as(
        &mut self,
        producer: ProducerId,
        number: u64,
        room: &str,
    ) -> &mut Self {
        let extensions = PublishExtensions {
            producer: Some(producer),
            expected_head: None,
            resend: false,
        };
        let publish = Publish::of(super::peer::room(room), number, ["x"]);
        self.say(Publish {
            extensions,
            ..publish
        })
    }

    pub(super) fn subscribe(
        &mut self,
        sub: u32,
        room: &str,
        start: StartAt,
        window: u32,
    ) -> &mut Self {
        self.say(Subscribe {
            sub,
            room: super::peer::room(room),
            start,
            window,
            flags: 0,
        })
    }

    pub(super) fn subscribe_waiting(&mut self, sub: u32, room: &str, start: StartAt) -> &mut Self {
        let flags = Subscribe::WAIT;
        self.say(Subscribe {
            sub,
            room: super::peer::room(room),
            start,
            window: 1 << 20,
            flags,
        })
    }

    pub(super) fn credit(&mut self, sub: u32, bytes: u32) -> &mut Self {
        self.say(Credit { sub, bytes })
    }

    /// One round of the session, without writing.
    pub(super) fn round(&mut self) {
        self.session.handle_notices(self.now);
        self.session.turn(self.now);
    }

    /// Takes up to `most` bytes of what the session wants to write.
    pub(super) fn take(&mut self, most: usize) -> usize {
        let mut slices = [IoSlice::new(&[]); 16];
        let used = self.session.outbox().chunks(&mut slices);
        let before = self.wire.len();
        for slice in &slices[..used] {
            let left = most - (self.wire.len() - before);
            self.wire.extend_from_slice(&slice[..slice.len().min(left)]);
        }
        let taken = self.wire.len() - before;
        self.session.handle_written(self.now, taken);
        taken
    }

    /// Decodes what was taken.
    pub(super) fn frames(&mut self) -> Vec<Frame> {
        let mut frames = Vec::new();
        while let Some(frame) = decode(&mut self.wire, FRAME_BYTES_MAX).unwrap() {
            frames.push(frame);
        }
        frames
    }

    /// Rounds and writes until nothing moves; gives all frames.
    pub(super) fn hear(&mut self) -> Vec<Frame> {
        loop {
            self.round();
            let mut context = Context::from_waker(Waker::noop());
            let said = self.session.mailbox().poll_ready(&mut context).is_ready();
            if self.take(usize::MAX) == 0 && !self.session.has_work() && !said {
                return self.frames();
            }
        }
    }

    /// Exactly one frame, of this type.
    pub(super) fn hear_one<F: Take>(&mut self) -> F {
        let mut frames = self.hear();
        assert_eq!(frames.len(), 1, "{frames:?}");
        F::take(frames.remove(0))
    }

    pub(super) fn hear_nothing(&mut self) -> &mut Self {
        let frames = self.hear();
        assert!(frames.is_empty(), "{frames:?}");
        self
    }

    /// An error about something, after which the connection goes on.
    pub(super) fn hear_error(&mut self, code: ErrorCode, about: u64, kind: Kind) {
        let error: Error = self.hear_one();
        assert_eq!(
            (error.code, error.about, error.kind),
            (code, about, kind.get()),
            "{error:?}"
        );
        assert!(!self.session.is_closing());
    }

    /// Error and goodbye, after which the session has ended.
    pub(super) fn hear_the_end(&mut self, code: ErrorCode) {
        let frames = self.hear();
        let [Frame::Error(error), Frame::Goodbye(goodbye)] = frames.as_slice() else {
            panic!("{frames:?}");
        };
        assert_eq!(
            (error.code, goodbye.code, error.about),
            (code, code, 0),
            "{error:?}"
        );
        assert!(self.session.is_closing() && !self.session.wants_read());
    }

    /// Lets time pass and tells the session.
    pub(super) fn wait(&mut self, time: Duration) -> &mut Self {
        self.now += time;
        self.session.handle_timeout(self.now);
        self
    }
}

/// A frame of a known type.
pub(super) trait Take {
    fn take(frame: Frame) -> Self;
}

macro_rules! take {
    ($($name:ident),+) => {
        $(impl Take for broker_proto::$name {
            fn take(frame: Frame) -> Self {
                match frame {
                    Frame::$name(frame) => frame,
                    other => panic!("{} instead of {}: {other:?}", other.kind(), stringify!($name)),
                }
            }
        })+
    };
}
take!(
    Ack,
    Cursor,
    CursorList,
    Deliver,
    Error,
    Goodbye,
    Page,
    Ping,
    Pong,
    Refused,
    RoomDetails,
    RoomList,
    RoomsFound,
    Skip,
    Starting,
    Status,
    StoreDetails,
    Subscribed,
    Welcome
);

/// The seqs and payloads of all deliveries to a subscription.
pub(super) fn delivered(frames: &[Frame], sub: u32) -> Vec<(u64, String)> {
    let mut messages = Vec::new();
    for frame in frames {
        if let Frame::Deliver(deliver) = frame
            && deliver.sub == sub
        {
            messages.extend(deliver.messages().map(|message| shown(&message.unwrap())));
        }
    }
    messages
}

pub(super) fn shown(message: &Message) -> (u64, String) {
    (
        message.seq.get(),
        String::from_utf8(message.payload.to_vec()).unwrap(),
    )
}

/// Everything that was said about subscriptions standing.
pub(super) fn subscribed(frames: &[Frame]) -> Vec<Subscribed> {
    let stands = frames.iter().filter_map(|frame| match frame {
        Frame::Subscribed(subscribed) => Some(*subscribed),
        _ => None,
    });
    stands.collect()
}
