//! Known bytes of every frame and of a record: the wire never changes under a released version.
//!
//! `docs/protocol.md` shows the same bytes, in blocks marked `hex NAME`; a difference fails here too.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;

use broker_proto::{Frame, Kind, decode, limits};
use bytes::BytesMut;

use crate::examples;

/// Bytes from hexadecimal digits; white space does not count.
fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text
        .bytes()
        .filter(|byte| !byte.is_ascii_whitespace())
        .collect();
    assert_eq!(digits.len() % 2, 0);
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

/// The bytes that the documentation shows under a name: of each line what stands before two spaces.
fn documented(name: &str) -> Vec<u8> {
    let text = include_str!("../../../../docs/protocol.md");
    let start = format!("```hex {name}\n");
    let (_, block) = text
        .split_once(&start)
        .unwrap_or_else(|| panic!("docs/protocol.md shows no {name}"));
    let (block, _) = block.split_once("```").unwrap();
    hex(&block
        .lines()
        .map(|line| line.split_once("  ").map_or(line, |(bytes, _)| bytes))
        .collect::<String>())
}

fn check(name: &str, frame: impl Into<Frame>, bytes: &str) {
    let frame = frame.into();
    let bytes = hex(bytes);
    let mut wire = BytesMut::new();
    frame.encode(&mut wire);
    assert_eq!(
        format!("{wire:02x?}"),
        format!("{:02x?}", BytesMut::from(&*bytes)),
        "{name} is encoded differently"
    );
    assert_eq!(
        decode(&mut wire, limits::FRAME_BYTES_MAX),
        Ok(Some(frame)),
        "{name} is decoded differently"
    );
    assert!(wire.is_empty());
    assert_eq!(
        documented(name),
        bytes,
        "docs/protocol.md shows other bytes of {name}"
    );
}

macro_rules! golden {
    ($($test:ident $example:ident $bytes:literal)+) => {
        $(
            #[test]
            fn $test() {
                check(stringify!($example), examples::$example(), $bytes);
            }
        )+
    };
}

golden! {
    golden_hello hello
        "00 00 00 45 01 42 52 4b 52 01 00 3c 00 06 64 65 6d 6f 20 31 03 61 6e 6e
         b0 b0 b0 b0 b0 b0 b0 b0 b0 b0 b0 b0 b0 b0 b0 b0 01 00 00 00 00 00 00 00
         00 00 00 00 00 00 00 00 00 c0 c0 c0 c0 c0 c0 c0 c0 c0 c0 c0 c0 c0 c0 c0
         c0"
    golden_hello_again hello_again
        "00 00 00 65 01 42 52 4b 52 01 00 5c 00 06 64 65 6d 6f 20 31 03 61 6e 6e
         b0 b0 b0 b0 b0 b0 b0 b0 b0 b0 b0 b0 b0 b0 b0 b0 01 a0 a0 a0 a0 a0 a0 a0
         a0 a0 a0 a0 a0 a0 a0 a0 a0 c0 c0 c0 c0 c0 c0 c0 c0 c0 c0 c0 c0 c0 c0 c0
         c0 03 00 1c 00 03 00 00 00 00 00 00 00 03 74 65 61 88 77 66 55 44 33 22
         11 08 00 00 00 00 00 00 00"
    golden_welcome welcome
        "00 00 00 40 02 3d 00 a0 a0 a0 a0 a0 a0 a0 a0 a0 a0 a0 a0 a0 a0 a0 a0 03
         0a 62 72 6f 6b 65 72 20 30 2e 31 01 80 80 40 80 20 80 80 80 08 80 f5 24
         92 21 00 d0 d0 d0 d0 d0 d0 d0 d0 d0 d0 d0 d0 d0 d0 d0 d0 09"
    golden_starting starting
        "00 00 00 0c 03 09 00 ac 02 e8 07 04 73 63 61 6e"
    golden_publish publish
        "00 00 00 1f 04 06 00 03 74 65 61 01 02 02 00 00 00 c2 d9 9d f5 00 00 68
         69 00 00 00 00 00 00 00 00 00 00"
    golden_publish_if_head publish_if_head
        "00 00 00 35 04 26 00 03 74 65 61 01 01 01 80 10 00 b0 b0 b0 b0 b0 b0 b0
         b0 b0 b0 b0 b0 b0 b0 b0 b0 02 80 08 00 06 00 00 00 00 00 00 00 02 00 00
         00 c2 d9 9d f5 00 00 68 69"
    golden_publish_again publish_again
        "00 00 00 19 04 0a 00 03 74 65 61 01 01 04 00 00 00 02 00 00 00 c2 d9 9d
         f5 00 00 68 69"
    golden_ack ack
        "00 00 00 25 05 02 00 02 01 03 74 65 61 88 77 66 55 44 33 22 11 01 00 00
         00 00 00 00 00 02 00 00 00 07 00 00 00 00 00 00 00"
    golden_refused refused
        "00 00 00 12 06 0f 00 03 01 0b 09 64 69 73 6b 20 66 75 6c 6c e8 07"
    golden_subscribe subscribe
        "00 00 00 17 07 14 00 01 03 74 65 61 05 07 88 ef 99 ab c5 e8 8c 91 11 80
         80 40 01"
    golden_subscribed subscribed
        "00 00 00 10 08 0d 00 01 88 ef 99 ab c5 e8 8c 91 11 01 07 08"
    golden_unsubscribe unsubscribe
        "00 00 00 04 09 01 00 01"
    golden_credit credit
        "00 00 00 07 0a 04 00 01 80 80 04"
    golden_deliver deliver
        "00 00 00 31 0b 03 00 01 01 08 9d b9 b0 4b 01 00 05 00 05 00 00 00 1b 00
         00 00 07 00 00 00 00 00 00 00 00 40 1e 18 24 0a 06 00 c2 d9 9d f5 03 61
         6e 6e 00 68 69"
    golden_skip skip
        "00 00 00 10 0c 0d 00 01 02 06 01 88 ef 99 ab c5 e8 8c 91 11"
    golden_read read
        "00 00 00 0f 0d 0c 00 05 03 74 65 61 03 0a 00 64 80 80 04"
    golden_page page
        "00 00 00 3f 0e 11 00 05 88 ef 99 ab c5 e8 8c 91 11 07 07 08 01 02 06 01
         9d b9 b0 4b 01 00 05 00 05 00 00 00 1b 00 00 00 07 00 00 00 00 00 00 00
         00 40 1e 18 24 0a 06 00 c2 d9 9d f5 03 61 6e 6e 00 68 69"
    golden_list_rooms list_rooms
        "00 00 00 06 0f 03 00 06 00 64"
    golden_room_list room_list
        "00 00 00 2a 10 03 00 06 01 00 03 74 65 61 88 77 66 55 44 33 22 11 01 00
         00 00 00 00 00 00 08 00 00 00 00 00 00 00 00 40 1e 18 24 0a 06 00"
    golden_get_cursor get_cursor
        "00 00 00 0d 11 0a 00 07 03 74 65 61 04 64 65 73 6b"
    golden_set_cursor set_cursor
        "00 00 00 1a 12 17 00 08 03 74 65 61 04 64 65 73 6b 88 ef 99 ab c5 e8 8c
         91 11 08 00 00 01"
    golden_set_cursor_relaxed set_cursor_relaxed
        "00 00 00 1a 12 17 00 08 03 74 65 61 04 64 65 73 6b 88 ef 99 ab c5 e8 8c
         91 11 08 00 00 04"
    golden_cursor cursor
        "00 00 00 0f 13 0c 00 07 01 88 ef 99 ab c5 e8 8c 91 11 08"
    golden_get_status get_status
        "00 00 00 04 14 01 00 09"
    golden_status status
        "00 00 00 0f 15 01 00 09 7b 22 72 6f 6f 6d 73 22 3a 31 7d"
    golden_ping ping
        "00 00 00 05 16 02 00 ac 02"
    golden_pong pong
        "00 00 00 05 17 02 00 ac 02"
    golden_error error
        "00 00 00 13 18 10 00 09 05 0d 0b 6e 6f 20 72 6f 6f 6d 20 74 65 61 00"
    golden_goodbye goodbye
        "00 00 00 1b 19 18 00 15 02 14 74 63 70 3a 2f 2f 31 32 37 2e 30 2e 30 2e
         31 3a 39 38 37 36 00"
    golden_get_room get_room
        "00 00 00 08 1a 05 00 0a 03 74 65 61"
    golden_change_room change_room
        "00 00 00 2d 1b 07 00 0b 03 74 65 61 02 01 01 00 03 00 68 6f 74 03 00 08
         00 74 65 61 6d 00 72 65 64 05 00 00 00 07 00 08 00 e8 03 00 00 00 00 00
         00"
    golden_trim_room trim_room
        "00 00 00 12 1c 0f 00 0c 03 74 65 61 88 ef 99 ab c5 e8 8c 91 11 08"
    golden_remove_room remove_room
        "00 00 00 09 1d 06 00 0d 03 74 65 61 00"
    golden_room_details room_details
        "00 00 00 65 1e 01 00 0b 03 74 65 61 88 77 66 55 44 33 22 11 07 00 00 00
         00 00 00 00 08 00 00 00 00 00 00 00 00 40 1e 18 24 0a 06 00 2c 01 00 00
         00 00 00 00 00 40 1e 18 24 0a 06 00 03 61 6e 6e 03 00 00 00 00 00 00 00
         1f 00 01 00 03 00 68 6f 74 03 00 08 00 74 65 61 6d 00 72 65 64 07 00 08
         00 e8 03 00 00 00 00 00 00"
    golden_find_rooms find_rooms
        "00 00 00 1e 1f 09 00 0e 03 74 61 72 64 01 74 02 04 74 65 61 6d 01 03 72
         65 64 06 75 72 67 65 6e 74 00"
    golden_rooms_found rooms_found
        "00 00 00 49 20 07 00 0e 01 01 03 74 65 61 03 74 65 61 88 77 66 55 44 33
         22 11 07 00 00 00 00 00 00 00 08 00 00 00 00 00 00 00 00 40 1e 18 24 0a
         06 00 2c 01 00 00 00 00 00 00 00 40 1e 18 24 0a 06 00 00 00 00 00 00 00
         00 00 00 00 00"
    golden_get_settings get_settings
        "00 00 00 04 21 01 00 0f"
    golden_change_settings change_settings
        "00 00 00 1e 22 03 00 10 00 00 09 00 08 00 00 00 00 40 00 00 00 00 0b 00
         08 00 00 60 d7 1d 14 00 00 00"
    golden_store_details store_details
        "00 00 00 11 23 02 00 0f 01 09 00 08 00 00 00 00 40 00 00 00 00"
    golden_list_cursors list_cursors
        "00 00 00 0a 24 07 00 11 03 74 65 61 00 64"
    golden_cursor_list cursor_list
        "00 00 00 23 25 03 00 11 01 00 04 64 65 73 6b 88 77 66 55 44 33 22 11 08
         00 00 00 00 00 00 00 00 40 1e 18 24 0a 06 00"
}

#[test]
fn golden_record() {
    let bytes = hex(
        "9d b9 b0 4b 01 00 05 00 05 00 00 00 1b 00 00 00 07 00 00 00 00 00 00 00
         00 40 1e 18 24 0a 06 00 c2 d9 9d f5 03 61 6e 6e 00 68 69",
    );
    assert_eq!(examples::record(), bytes);
    assert_eq!(documented("record"), bytes);
}

#[test]
fn crc_is_castagnoli() {
    assert_eq!(crc32c::crc32c(b"123456789"), 0xe306_9283);
}

#[test]
fn every_kind_has_an_example_and_a_number_without_holes() {
    let mut numbers = BTreeMap::new();
    for frame in examples::all() {
        numbers.insert(frame.kind().get(), frame.kind());
    }
    assert!(numbers.keys().copied().eq(1..=37));
    assert!(numbers.into_values().eq(Kind::ALL.iter().copied()));
}
