//! Peers that do not keep to the protocol, by mistake or on purpose.

use broker_core::clock::{Random, SeededRandom, SystemRandom};
use broker_core::net::ServerConfig;
use broker_proto::{ErrorCode, Frame, Kind, Ping, Publish, extension};
use bytes::{BufMut, BytesMut};

use crate::peer::{Peer, encoded, hello, room, serving};

#[tokio::test]
async fn a_frame_may_come_in_any_pieces() {
    let (_server, address) = serving(ServerConfig::default());
    let mut ann = Peer::connect(address).await;
    let mut bytes = encoded(hello("ann"));
    bytes.unsplit(encoded(Publish::of(room("ops"), 1, ["hi"])));
    for byte in bytes {
        ann.say_bytes(&[byte]).await;
    }
    ann.hear_welcome().await;
    assert_eq!(ann.hear().await.kind(), Kind::Ack);
}

#[tokio::test]
async fn many_frames_may_come_at_once() {
    let (_server, address) = serving(ServerConfig::default());
    let mut ann = Peer::connect(address).await;
    let mut bytes = encoded(hello("ann"));
    for number in 1..=500 {
        bytes.unsplit(encoded(Publish::of(room("ops"), number, ["hi"])));
    }
    bytes.unsplit(encoded(Ping { nonce: 9 }));
    ann.say_bytes(&bytes).await;
    ann.hear_welcome().await;
    let (mut acked, mut ponged) = (0, false);
    while acked < 500 || !ponged {
        match ann.hear().await {
            Frame::Ack(ack) => acked += ack.iter().map(|run| run.count).sum::<u32>(),
            Frame::Pong(pong) => ponged = pong.nonce == 9,
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn half_a_frame_and_gone_harms_nobody() {
    let (_server, address) = serving(ServerConfig::default());
    let mut bob = Peer::welcomed(address, "bob").await;
    let whole = [
        encoded(hello("ann")),
        encoded(Publish::of(room("ops"), 1, ["never"])),
    ]
    .concat();
    for cut in 1..whole.len() {
        let mut ann = Peer::connect(address).await;
        ann.say_bytes(&whole[..cut]).await;
    }
    bob.publish("ops", &["alone"]).await;
    bob.subscribe(1, "ops", broker_proto::StartAt::START, 1 << 20)
        .await;
    let deliver = bob.hear_deliver().await;
    assert_eq!(deliver.count, 1, "half a publish was stored");
}

/// What a server answers to bytes after a hello, or instead of one.
async fn end_of(
    address: std::net::SocketAddr,
    greeted: bool,
    bytes: &[u8],
    code: ErrorCode,
) -> String {
    let mut ann = if greeted {
        Peer::welcomed(address, "ann").await
    } else {
        Peer::connect(address).await
    };
    ann.say_bytes(bytes).await;
    ann.hear_the_end(code).await.detail
}

#[tokio::test]
async fn bytes_that_are_no_frame_are_answered_with_what_and_where() {
    let (_server, address) = serving(ServerConfig::default());
    // A length that is no hello's, judged before anything else has come.
    let detail = end_of(address, false, &[0, 0xff, 0xff, 0xff], ErrorCode::TOO_LARGE).await;
    assert!(
        detail.contains("16777215") && detail.contains("4096"),
        "{detail}"
    );
    let detail = end_of(address, false, &[0, 0, 0, 0], ErrorCode::BAD_FRAME).await;
    assert!(detail.contains("empty"), "{detail}");
    let detail = end_of(address, false, b"\0\0\0\x20\x01BRKX", ErrorCode::BAD_FRAME).await;
    assert!(detail.contains("BRKR"), "{detail}");
    let detail = end_of(
        address,
        false,
        b"\0\0\0\x20\x01BRKR\x02\x00",
        ErrorCode::UNSUPPORTED_VERSION,
    )
    .await;
    assert!(detail.contains("version 2"), "{detail}");
    for greeted in [false, true] {
        let detail = end_of(
            address,
            greeted,
            &[0, 0, 0, 1, 0x7f],
            ErrorCode::UNKNOWN_KIND,
        )
        .await;
        assert!(detail.contains("0x7f"), "{detail}");
    }
    end_of(address, true, &[1, 0, 0, 0], ErrorCode::TOO_LARGE).await;
    end_of(
        address,
        true,
        &encoded(hello("ann")),
        ErrorCode::UNEXPECTED_FRAME,
    )
    .await;
    end_of(
        address,
        false,
        &encoded(Ping { nonce: 1 }),
        ErrorCode::UNEXPECTED_FRAME,
    )
    .await;
}

/// A ping whose head has one more extension.
fn ping_with_extension(key: u16) -> BytesMut {
    let plain = encoded(Ping { nonce: 5 });
    let mut head = plain[7..].to_vec();
    extension::push(&mut head, key, b"?");
    let mut bytes = BytesMut::new();
    bytes.put_u32(3 + head.len() as u32);
    bytes.put_u8(Kind::Ping.get());
    bytes.put_u16_le(head.len() as u16);
    bytes.put_slice(&head);
    bytes
}

#[tokio::test]
async fn an_unknown_extension_is_skipped_unless_it_is_critical() {
    let (_server, address) = serving(ServerConfig::default());
    let mut ann = Peer::welcomed(address, "ann").await;
    ann.say_bytes(&ping_with_extension(99)).await;
    assert_eq!(ann.hear().await.kind(), Kind::Pong);
    ann.say_bytes(&ping_with_extension(99 | extension::CRITICAL))
        .await;
    ann.hear_the_end(ErrorCode::UNKNOWN_EXTENSION).await;
}

#[tokio::test]
async fn random_bytes_never_harm_the_others() {
    let seed = SystemRandom.bits_64();
    println!("seed {seed}");
    let mut random = SeededRandom::new(seed);
    let (server, address) = serving(ServerConfig::default());
    let mut bob = Peer::welcomed(address, "bob").await;
    for round in 0..150 {
        let mut noise = vec![0; (random.next() % 3000) as usize];
        random.fill(&mut noise);
        let mut ann = if round % 3 == 0 {
            Peer::welcomed(address, "ann").await
        } else {
            if let (Some(first), 1) = (noise.first_mut(), round % 3) {
                *first = 0;
            }
            Peer::connect(address).await
        };
        // A length that fits is waited for, so end it by leaving; otherwise it is answered.
        let _refused = tokio::io::AsyncWriteExt::write_all(&mut ann.io, &noise).await;
    }
    bob.publish("ops", &["served"]).await;
    assert!(server.status().contains("\"stage\":\"serving\""));
}

#[tokio::test]
async fn a_flipped_bit_in_a_publish_is_refused_or_ends_only_that_connection() {
    let seed = SystemRandom.bits_64();
    println!("seed {seed}");
    let mut random = SeededRandom::new(seed);
    let (_server, address) = serving(ServerConfig::default());
    let whole = encoded(Publish::of(room("ops"), 1, ["a payload of some bytes"]));
    for _ in 0..100 {
        let mut bytes = whole.clone();
        // Not in the length: the rest of such a frame is waited for.
        let at = 4 + (random.next() % (whole.len() as u64 - 4)) as usize;
        bytes[at] ^= 1 << (random.next() % 8);
        let mut ann = Peer::welcomed(address, "ann").await;
        ann.say_bytes(&bytes).await;
        ann.say(Ping { nonce: 1 }).await;
        // Whatever it became: an answer, never silence and never a panic.
        ann.hear().await;
    }
    Peer::welcomed(address, "bob")
        .await
        .publish("ops", &["served"])
        .await;
}
