//! Peers that break the rules, by mistake or on purpose: each is told why, and nobody else notices.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use broker_core::StartAt;
use broker_proto::{
    ErrorCode, Frame, Hello, Ping, ProducerId, Publish, PublishExtensions, RoomName, SenderName,
    StoreId, Subscribe, decode, limits,
};
use bytes::{Bytes, BytesMut};

use crate::support::{Daemon, Place, block_on};

fn hello() -> Frame {
    Frame::Hello(Hello {
        build: "test 1".to_owned(),
        sender: SenderName::parse("mallory").unwrap(),
        producer: ProducerId::new([7; 16]),
        feature_level: 1,
        known_store: StoreId::NONE,
        nonce: [0; 16],
        known_heads: Vec::new(),
    })
}

fn bytes_of(frame: &Frame) -> BytesMut {
    let mut bytes = BytesMut::new();
    frame.encode(&mut bytes);
    bytes
}

/// A connection without manners.
struct Stranger {
    stream: TcpStream,
    read: BytesMut,
}

impl Stranger {
    fn new(daemon: &Daemon) -> Self {
        let stream = TcpStream::connect(daemon.address()).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        Self {
            stream,
            read: BytesMut::new(),
        }
    }

    /// One that has said hello and was welcomed.
    fn greeted(daemon: &Daemon) -> Self {
        let mut stranger = Self::new(daemon);
        stranger.send(&bytes_of(&hello()));
        loop {
            match stranger.frame() {
                Some(Frame::Welcome(_)) => return stranger,
                Some(Frame::Starting(_)) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    fn send(&mut self, bytes: &[u8]) {
        // The broker may have hung up already.
        let _ = self.stream.write_all(bytes);
    }

    /// The next frame; none when the broker hangs up.
    fn frame(&mut self) -> Option<Frame> {
        let mut buffer = [0; 4096];
        loop {
            if let Some(frame) = decode(&mut self.read, limits::FRAME_BYTES_MAX).unwrap() {
                return Some(frame);
            }
            match self.stream.read(&mut buffer) {
                Ok(0) => return None,
                Err(error) if matches!(error.kind(), std::io::ErrorKind::ConnectionReset) => {
                    return None;
                }
                read => self.read.extend_from_slice(&buffer[..read.unwrap()]),
            }
        }
    }

    /// What the broker says before it hangs up, apart from a goodbye.
    fn last_error(&mut self) -> Option<ErrorCode> {
        let mut code = None;
        while let Some(frame) = self.frame() {
            match frame {
                Frame::Error(error) => code = Some(error.code),
                Frame::Goodbye(goodbye) if !goodbye.code.is_none() => {
                    code = code.or(Some(goodbye.code))
                }
                _ => {}
            }
        }
        code
    }
}

/// A frame of the given kind and head, without a body.
fn raw_frame(kind: u8, head: &[u8]) -> Vec<u8> {
    let mut frame = u32::try_from(3 + head.len())
        .unwrap()
        .to_be_bytes()
        .to_vec();
    frame.push(kind);
    frame.extend(u16::try_from(head.len()).unwrap().to_le_bytes());
    frame.extend(head);
    frame
}

/// The same frame with an extension that nobody knows at the end of its head.
fn with_extension(frame: &[u8], key: u16) -> Vec<u8> {
    let mut extension = key.to_le_bytes().to_vec();
    extension.extend(2u16.to_le_bytes());
    extension.extend(b"??");
    // Length and kind come first; a hello has six bytes more before the length of its head.
    let at = if frame[4] == 1 { 11 } else { 5 };
    let head = usize::from(u16::from_le_bytes([frame[at], frame[at + 1]]));
    let mut changed = frame[..at].to_vec();
    changed.extend(u16::try_from(head + extension.len()).unwrap().to_le_bytes());
    changed.extend(&frame[at + 2..at + 2 + head]);
    changed.extend(&extension);
    changed.extend(&frame[at + 2 + head..]);
    let length = u32::try_from(changed.len() - 4).unwrap();
    changed[..4].copy_from_slice(&length.to_be_bytes());
    changed
}

/// Runs `misbehave` against a daemon while somebody else works, and afterwards.
fn beside_others(misbehave: impl FnOnce(&Daemon)) {
    let place = Place::new();
    let daemon = place.start();
    block_on(async {
        let client = daemon.client().await;
        let room = client.room("lobby").unwrap();
        room.send("before").await.unwrap();
        misbehave(&daemon);
        room.send("after").await.unwrap();
        let page = room.read(StartAt::START, 10, 1 << 20).await.unwrap();
        assert_eq!(
            page.messages.len(),
            2,
            "nothing of the stranger's was stored there"
        );
        client.shutdown().await.unwrap();
    });
    daemon.signal(rustix::process::Signal::TERM);
    let (status, words) = daemon.end();
    assert_eq!(status.code(), Some(0), "{words}");
    assert!(!words.contains("panicked"), "{words}");
}

#[test]
fn random_bytes() {
    beside_others(|daemon| {
        // A linear congruential generator: the same bytes each time.
        let mut state = 0x2545_F491_4F6C_DD1Du64;
        for first in [0u8, 0, 0, 0, 1, b'x', b'{', b'G', 0x16, 0xff] {
            let mut bytes = vec![first];
            for _ in 0..3000 {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                bytes.push(state.to_le_bytes()[7]);
            }
            let mut stranger = Stranger::new(daemon);
            stranger.send(&bytes);
            let _ = stranger.stream.shutdown(Shutdown::Write);
            let mut answer = Vec::new();
            // A line in whatever language it was taken for, or a frame; then the end.
            let _ = stranger.stream.read_to_end(&mut answer);
            assert!(answer.len() < 4096, "it says little to a stranger");
        }
    });
}

#[test]
fn half_a_frame_and_then_nothing() {
    beside_others(|daemon| {
        let whole = bytes_of(&hello());
        let mut patient = Vec::new();
        for cut in [1, 4, 5, 12, whole.len() - 1] {
            let mut hasty = Stranger::new(daemon);
            hasty.send(&whole[..cut]);
            drop(hasty);
            let mut stranger = Stranger::new(daemon);
            stranger.send(&whole[..cut]);
            patient.push(stranger);
        }
        let began = Instant::now();
        for mut stranger in patient {
            while stranger.frame().is_some() {}
        }
        assert!(
            began.elapsed() < Duration::from_secs(15),
            "a hello that does not come is not waited for"
        );
    });
}

#[test]
fn a_false_length() {
    beside_others(|daemon| {
        // Sixteen megabytes of hello are announced.
        let mut stranger = Stranger::new(daemon);
        stranger.send(&[0, 0xff, 0xff, 0xff, 1]);
        stranger.send(b"BRKR");
        assert!(matches!(
            stranger.last_error(),
            Some(ErrorCode::TOO_LARGE | ErrorCode::BAD_FRAME)
        ));
        // And after the hello: a head that is longer than its frame.
        let mut stranger = Stranger::greeted(daemon);
        stranger.send(&[0, 0, 0, 3, 0x16, 0xff, 0xff]);
        assert_eq!(stranger.last_error(), Some(ErrorCode::BAD_FRAME));
        let mut stranger = Stranger::greeted(daemon);
        stranger.send(&[0, 0, 0, 0]);
        assert_eq!(stranger.last_error(), Some(ErrorCode::BAD_FRAME));
    });
}

#[test]
fn an_unknown_kind() {
    beside_others(|daemon| {
        let mut stranger = Stranger::greeted(daemon);
        stranger.send(&raw_frame(0xee, b""));
        assert_eq!(stranger.last_error(), Some(ErrorCode::UNKNOWN_KIND));
    });
}

#[test]
fn a_critical_unknown_extension_is_refused_and_another_is_skipped() {
    beside_others(|daemon| {
        let ping = bytes_of(&Frame::Ping(Ping { nonce: 5 }));
        let mut stranger = Stranger::greeted(daemon);
        stranger.send(&with_extension(&ping, 0x0777));
        assert!(matches!(stranger.frame(), Some(Frame::Pong(pong)) if pong.nonce == 5));
        stranger.send(&with_extension(&ping, 0x8777));
        assert_eq!(stranger.last_error(), Some(ErrorCode::UNKNOWN_EXTENSION));
        let mut stranger = Stranger::new(daemon);
        stranger.send(&with_extension(&bytes_of(&hello()), 0x8777));
        assert_eq!(stranger.last_error(), Some(ErrorCode::UNKNOWN_EXTENSION));
    });
}

#[test]
fn a_newer_protocol_version() {
    beside_others(|daemon| {
        let mut bytes = bytes_of(&hello());
        // After the length, the kind and `BRKR`.
        bytes[9..11].copy_from_slice(&999u16.to_le_bytes());
        let mut stranger = Stranger::new(daemon);
        stranger.send(&bytes);
        assert_eq!(stranger.last_error(), Some(ErrorCode::UNSUPPORTED_VERSION));
    });
}

#[test]
fn frames_that_have_no_place() {
    beside_others(|daemon| {
        let mut stranger = Stranger::new(daemon);
        stranger.send(&bytes_of(&Frame::Ping(Ping { nonce: 1 })));
        assert!(stranger.last_error().is_some(), "a ping before the hello");
        let mut stranger = Stranger::greeted(daemon);
        stranger.send(&bytes_of(&hello()));
        assert_eq!(stranger.last_error(), Some(ErrorCode::UNEXPECTED_FRAME));
    });
}

#[test]
fn a_publish_with_a_false_checksum_or_over_the_limit() {
    beside_others(|daemon| {
        let publish = |body: Bytes| {
            let room = RoomName::parse("elsewhere").unwrap();
            bytes_of(&Frame::Publish(Publish {
                room,
                first_number: 1,
                count: 1,
                extensions: PublishExtensions::NONE,
                body,
            }))
        };
        let entry = |payload: &[u8], crc: u32| {
            let mut body = BytesMut::new();
            broker_proto::publish::encode_entry(&mut body, payload, &[], crc);
            body.freeze()
        };
        let mut stranger = Stranger::greeted(daemon);
        stranger.send(&publish(entry(b"text", 1)));
        assert_eq!(refusal(&mut stranger), ErrorCode::BAD_CHECKSUM);
        let large = vec![b'x'; limits::PAYLOAD_BYTES_DEFAULT + 1];
        let mut stranger = Stranger::greeted(daemon);
        stranger.send(&publish(entry(&large, crc32c::crc32c(&large))));
        assert_eq!(refusal(&mut stranger), ErrorCode::TOO_LARGE);
    });
}

/// How a publish was answered.
fn refusal(stranger: &mut Stranger) -> ErrorCode {
    loop {
        match stranger.frame() {
            Some(Frame::Refused(refused)) => return refused.code,
            Some(Frame::Error(error)) => return error.code,
            Some(Frame::Ack(_)) => panic!("it was stored"),
            Some(_) => {}
            None => panic!("no answer"),
        }
    }
}

/// How long sends take beside whoever is connected, sorted.
async fn send_times(room: &broker_core::Room) -> Vec<Duration> {
    let payload = vec![b'x'; 4096];
    let mut times = Vec::new();
    for _ in 0..300 {
        let began = Instant::now();
        room.send(payload.clone()).await.unwrap();
        times.push(began.elapsed());
    }
    times.sort();
    times
}

#[test]
fn clients_that_never_read_or_never_grant_credit_are_nobodys_trouble() {
    let place = Place::new();
    let daemon = place.start();
    block_on(async {
        let client = daemon.client().await;
        let room = client.room("lobby").unwrap();
        let alone = send_times(&room).await;
        let subscribe = |window| {
            Frame::Subscribe(Subscribe {
                sub: 1,
                room: RoomName::parse("lobby").unwrap(),
                start: StartAt::START,
                window,
                flags: 0,
            })
        };
        let mut strangers = Vec::new();
        for number in 0..20 {
            let mut stranger = Stranger::greeted(&daemon);
            // Half of them never grant credit; the others grant more than their sockets hold, and never read.
            stranger.send(&bytes_of(&subscribe(if number % 2 == 0 {
                0
            } else {
                u32::MAX
            })));
            strangers.push(stranger);
        }
        let beside = send_times(&room).await;
        let (before, after) = (
            alone[alone.len() * 99 / 100],
            beside[beside.len() * 99 / 100],
        );
        // Other tests share the machine, so only a stall shows: seconds, not milliseconds.
        assert!(
            after < before * 10 + Duration::from_millis(200),
            "p99 {before:?} alone, {after:?} beside them"
        );
        let mut reader = room.subscribe(StartAt::START).await.unwrap();
        for _ in 0..600 {
            reader.next_message().await.unwrap().unwrap();
        }
        drop(strangers);
    });
}
