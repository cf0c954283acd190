//! What a hello may say of the client's past: limits, refusals, and peers that do not know of it.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

use broker_proto::{
    Epoch, Frame, Hello, KnownHead, Position, RoomName, Seq, decode, extension, limits,
};
use bytes::BytesMut;

use crate::examples;

fn head(room: &str, epoch: u64, seq: u64) -> KnownHead {
    KnownHead {
        room: RoomName::parse_reserved(room).unwrap(),
        at: Position::new(Epoch::new(epoch), Seq::new(seq)),
    }
}

/// A hello whose texts are as long as they may be.
fn full(known_heads: Vec<KnownHead>) -> Hello {
    Hello {
        build: "b".repeat(limits::BUILD_BYTES_MAX),
        sender: "s".repeat(limits::SENDER_NAME_BYTES_MAX).parse().unwrap(),
        feature_level: u32::MAX,
        known_heads,
        ..examples::hello()
    }
}

/// What a broker reads of a hello, under the limit that holds before it has one.
fn heard(hello: Hello) -> Hello {
    let mut wire = BytesMut::new();
    Frame::from(hello).encode(&mut wire);
    match decode(&mut wire, limits::HELLO_BYTES_MAX) {
        Ok(Some(Frame::Hello(hello))) => hello,
        other => panic!("{other:?}"),
    }
}

/// The refusal of an extension with this value.
fn refusal(value: &[u8]) -> String {
    let mut plain = BytesMut::new();
    Frame::from(examples::hello()).encode(&mut plain);
    let mut list = Vec::new();
    extension::push(&mut list, extension::KNOWN_HEADS, value);
    let mut wire = plain;
    wire.extend_from_slice(&list);
    let length = u32::try_from(wire.len() - 4).unwrap();
    wire[..4].copy_from_slice(&length.to_be_bytes());
    let head_bytes = u16::try_from(wire.len() - 13).unwrap();
    wire[11..13].copy_from_slice(&head_bytes.to_le_bytes());
    match decode(&mut wire, limits::FRAME_BYTES_MAX) {
        Err(error) => error.to_string(),
        Ok(frame) => panic!("{frame:?}"),
    }
}

fn entry(room: &str, epoch: u64, seq: u64) -> Vec<u8> {
    let mut out = vec![u8::try_from(room.len()).unwrap()];
    out.extend_from_slice(room.as_bytes());
    out.extend_from_slice(&epoch.to_le_bytes());
    out.extend_from_slice(&seq.to_le_bytes());
    out
}

#[test]
fn the_first_sixty_four_are_sent() {
    let heads: Vec<_> = (1..=100).map(|seq| head("a", 7, seq)).collect();
    let heard = heard(full(heads.clone()));
    assert_eq!(heard.known_heads, heads[..limits::KNOWN_HEADS_MAX]);
}

#[test]
fn long_names_leave_the_last_out_and_the_hello_within_its_limit() {
    let long = |n: u64| head(&format!("{n:0128}"), u64::MAX, u64::MAX);
    let heads: Vec<_> = (0..64).map(long).collect();
    let heard = heard(full(heads.clone()));
    let fit = limits::KNOWN_HEADS_BYTES_MAX / (128 + 17);
    assert_eq!(heard.known_heads, heads[..fit]);
}

#[test]
fn the_brokers_own_rooms_may_be_named() {
    let heads = vec![head("@ann", 1, 2), head("$x", 3, 4)];
    assert_eq!(heard(full(heads.clone())).known_heads, heads);
}

#[test]
fn what_is_malformed_is_refused() {
    let good = entry("tea", 1, 2);
    for cut in 1..good.len() {
        let text = refusal(&good[..cut]);
        assert_eq!(
            text, "hello: a known head is cut short or not UTF-8",
            "{cut}"
        );
    }
    let text = refusal(&entry("tea", 0, 2));
    assert_eq!(text, "hello: a known head has no epoch or no seq");
    assert_eq!(refusal(&entry("tea", 1, 0)), text);
    assert_eq!(
        refusal(&entry("a/b", 1, 2)),
        "hello: the room name has the character '/' at byte 1"
    );
    assert_eq!(
        refusal(&good.repeat(65)),
        "hello: there are more known heads than a hello may state"
    );
    let long = entry(&"a".repeat(128), 1, 2);
    assert_eq!(
        refusal(&long.repeat(25)),
        "hello: the known heads have more bytes than a hello may state"
    );
}

#[test]
fn the_extension_is_not_critical_so_that_older_brokers_skip_it() {
    let mut wire = BytesMut::new();
    Frame::from(examples::hello_again()).encode(&mut wire);
    let key = extension::KNOWN_HEADS.to_le_bytes();
    let header_bytes = 13 + 60;
    assert_eq!(wire[header_bytes..header_bytes + 2], key);
    // A broker that knows no extension of a hello checks the list like this.
    let list = &wire[header_bytes..];
    assert!(extension::check(list, limits::EXTENSIONS_BYTES_MAX, &[]).is_ok());
}
