//! Frames that break one rule each, and what the peer is told.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use broker_proto::frame::publish;
use broker_proto::{DecodeError, Error, Frame, decode, extension, limits};
use bytes::{BufMut, BytesMut};

use crate::examples;
use crate::frames::encoded;

/// A frame of these parts.
fn framed(kind: u8, head: &[u8], body: &[u8]) -> BytesMut {
    let mut wire = BytesMut::new();
    let prefix: &[u8] = if kind == 1 { b"BRKR\x01\x00" } else { b"" };
    wire.put_u32(u32::try_from(3 + prefix.len() + head.len() + body.len()).unwrap());
    wire.put_u8(kind);
    wire.put_slice(prefix);
    wire.put_u16_le(u16::try_from(head.len()).unwrap());
    wire.put_slice(head);
    wire.put_slice(body);
    wire
}

/// The code's name and the text of the refusal.
fn refusal(mut wire: BytesMut) -> (&'static str, String) {
    let error = decode(&mut wire, limits::FRAME_BYTES_MAX).unwrap_err();
    assert!(error.is_fatal());
    (error.code().name(), error.to_string())
}

fn refused(wire: BytesMut, code: &str, text: &str) {
    assert_eq!(refusal(wire), (code_name(code), text.to_owned()));
}

fn code_name(code: &str) -> &'static str {
    broker_proto::ErrorCode::ALL
        .iter()
        .map(|known| known.name())
        .find(|name| *name == code)
        .unwrap()
}

#[test]
fn a_frame_over_the_limit_is_refused_at_its_fourth_byte() {
    let mut wire = BytesMut::from(&[0, 0, 0x10, 0x01][..]);
    let error = decode(&mut wire, limits::HELLO_BYTES_MAX).unwrap_err();
    assert_eq!(
        error,
        DecodeError::TooLarge {
            length: 4097,
            limit: 4096
        }
    );
    assert_eq!(error.code().name(), "too_large");
    let mut wire = BytesMut::from(&[0, 0, 0x10, 0x00][..]);
    assert_eq!(decode(&mut wire, limits::HELLO_BYTES_MAX), Ok(None));
    // Another protocol's first bytes are a length beyond every limit.
    refused(
        BytesMut::from("GET /"),
        "too_large",
        "the frame has 1195725856 bytes, at most 16777215 are allowed now",
    );
}

#[test]
fn an_empty_frame_is_refused() {
    refused(
        BytesMut::from(&[0, 0, 0, 0][..]),
        "bad_frame",
        "the frame is empty",
    );
}

#[test]
fn an_unknown_kind_is_refused_at_its_fifth_byte() {
    refused(
        BytesMut::from(&[0, 0, 1, 0, 0x77][..]),
        "unknown_kind",
        "frames of kind 0x77 are unknown",
    );
    refused(
        BytesMut::from(&[0, 0, 1, 0, 0][..]),
        "unknown_kind",
        "frames of kind 0x00 are unknown",
    );
}

#[test]
fn a_hello_without_the_mark_is_refused() {
    let text = "the hello begins with [58, 58, 58, 58] instead of \"BRKR\"";
    refused(
        BytesMut::from(&b"\x00\x00\x01\x00\x01XXXX"[..]),
        "bad_frame",
        text,
    );
}

#[test]
fn another_version_is_refused_before_its_header_is_read() {
    let mut wire = BytesMut::from(&b"\x00\x00\x01\x00\x01BRKR\x02\x00"[..]);
    let error = decode(&mut wire, limits::HELLO_BYTES_MAX).unwrap_err();
    let text = "version 2 of the protocol is not served; served are 1 to 1";
    assert_eq!(
        (error.code().name(), &*error.to_string()),
        ("unsupported_version", text)
    );
    let answer = Error::from(&error);
    assert_eq!((answer.kind, answer.about, &*answer.detail), (1, 0, text));
    refused(
        BytesMut::from(&b"\x00\x00\x01\x00\x01BRKR\x00\x00"[..]),
        "unsupported_version",
        &text.replace('2', "0"),
    );
}

#[test]
fn a_frame_that_ends_inside_its_head_is_refused() {
    let text = "ping: the frame ends inside its head";
    refused(BytesMut::from(&[0, 0, 0, 1, 0x16][..]), "bad_frame", text);
    refused(
        BytesMut::from(&[0, 0, 0, 2, 0x16, 0][..]),
        "bad_frame",
        text,
    );
    refused(
        BytesMut::from(&[0, 0, 0, 4, 0x16, 2, 0, 7][..]),
        "bad_frame",
        text,
    );
    refused(
        BytesMut::from(&b"\x00\x00\x00\x03\x01BR"[..]),
        "bad_frame",
        "hello: the frame ends inside its head",
    );
}

#[test]
fn the_next_frame_is_not_taken_for_the_end_of_a_hello() {
    let mut wire = BytesMut::from(&b"\x00\x00\x00\x03\x01\x00\x00"[..]);
    wire.unsplit(encoded(&examples::ping().into()));
    refused(wire, "bad_frame", "hello: the frame ends inside its head");
}

#[test]
fn a_malformed_header_is_refused() {
    let text = "credit: the header is cut short or malformed";
    refused(framed(0x0a, &[1], &[]), "bad_frame", text);
    refused(
        framed(0x0a, &[1, 0xff, 0xff, 0xff, 0xff, 0xff, 1], &[]),
        "bad_frame",
        text,
    );
    // A text longer than the head, and one that is not UTF-8.
    let text = "starting: the header is cut short or malformed";
    refused(
        framed(0x03, &[0, 0, 0xff, 0xff, 0xff, 0xff, 0x0f, b'a'], &[]),
        "bad_frame",
        text,
    );
    refused(framed(0x03, &[0, 0, 1, 0xff], &[]), "bad_frame", text);
}

#[test]
fn a_body_where_none_belongs_is_refused() {
    let text = "ping: bytes follow the head of a frame without a body";
    refused(framed(0x16, &[7], &[0]), "bad_frame", text);
}

#[test]
fn extensions_are_checked() {
    let twice = [7, 1, 0, 0, 0, 1, 0, 0, 0];
    refused(
        framed(0x16, &twice, &[]),
        "bad_frame",
        "ping: extension 1 stands twice",
    );
    let twice = [7, 1, 0, 0, 0, 1, 0x80, 0, 0];
    refused(
        framed(0x16, &twice, &[]),
        "bad_frame",
        "ping: extension 1 stands twice",
    );
    let short = [7, 1, 0, 1, 0];
    refused(
        framed(0x16, &short, &[]),
        "bad_frame",
        "ping: an extension is cut short at byte 0 of its list",
    );
    let mut many = vec![7];
    (0..65).for_each(|key| extension::push(&mut many, key, &[]));
    let text = "ping: the list of extensions has 260 bytes, at most 4096 in 64 entries are allowed";
    refused(framed(0x16, &many, &[]), "too_large", text);
    let mut long = vec![7];
    extension::push(&mut long, 9, &[0; 4093]);
    let text =
        "ping: the list of extensions has 4097 bytes, at most 4096 in 64 entries are allowed";
    refused(framed(0x16, &long, &[]), "too_large", text);
    let producer = [
        1, 4, 1, 0, 15, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    ];
    let text = "ack: extension 1 has 15 bytes, 16 are expected";
    refused(
        framed(0x05, &[&[2, 0][..], &producer[2..]].concat(), &[]),
        "bad_frame",
        text,
    );
}

#[test]
fn numbers_that_overflow_are_refused() {
    let max = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1];
    let publish =
        |first: &[u8], count: u8| framed(0x04, &[&[1, b'a'], first, &[count]].concat(), &[]);
    let text = "publish: a range of numbers overflows";
    refused(publish(&max, 1), "bad_frame", text);
    let text = "publish: a range of numbers is empty or begins at zero";
    refused(publish(&[0], 1), "bad_frame", text);
    refused(publish(&[1], 0), "bad_frame", text);
    refused(
        framed(0x06, &[&max[..], &[1, 1, 0, 0]].concat(), &[]),
        "bad_frame",
        "refused: a range of numbers overflows",
    );
}

/// The body of an ack with one run.
fn run(room: &[u8], first_number: u64, count: u32, first_seq: u64) -> Vec<u8> {
    let mut body = vec![u8::try_from(room.len()).unwrap()];
    body.extend(room);
    body.put_u64_le(1);
    body.put_u64_le(first_number);
    body.put_u32_le(count);
    body.put_u64_le(first_seq);
    body
}

#[test]
fn runs_of_acks_are_checked() {
    let ack = |runs: u8, body: &[u8]| framed(0x05, &[2, runs], body);
    let good = run(b"a", 1, 1, 1);
    assert!(matches!(
        decode(&mut ack(1, &good), limits::FRAME_BYTES_MAX),
        Ok(Some(Frame::Ack(_)))
    ));
    let cut = "ack: a run is cut short or its room is not UTF-8";
    refused(ack(2, &good), "bad_frame", cut);
    refused(
        ack(1, good.get(..good.len() - 1).unwrap()),
        "bad_frame",
        cut,
    );
    refused(ack(1, &run(&[0xff], 1, 1, 1)), "bad_frame", cut);
    refused(ack(0, &good), "bad_frame", "ack: bytes follow the last run");
    let room = "ack: the room of a run is empty or too long";
    refused(ack(1, &run(b"", 1, 1, 1)), "bad_frame", room);
    refused(ack(1, &run(&[b'x'; 129], 1, 1, 1)), "bad_frame", room);
    let overflow = "ack: a range of numbers overflows";
    refused(ack(1, &run(b"a", u64::MAX, 1, 1)), "bad_frame", overflow);
    refused(
        ack(1, &run(b"a", 1, 2, u64::MAX - 1)),
        "bad_frame",
        overflow,
    );
    refused(
        ack(1, &run(b"a", 1, 0, 1)),
        "bad_frame",
        "ack: a range of numbers is empty or begins at zero",
    );
}

#[test]
fn bad_names_are_refused() {
    refused(
        framed(0x04, &[1, b'/', 1, 1], &[]),
        "bad_name",
        "publish: the room name has the character '/' at byte 0",
    );
    let cursor = framed(0x11, &[1, 1, b'a', 0], &[]);
    refused(cursor, "bad_name", "get_cursor: the cursor name is empty");
    let mut hello = vec![0, 4, b'$', b's', b'y', b's'];
    hello.extend([0; 49]);
    let text = "hello: the sender name starts with '$': such names belong to the broker";
    refused(framed(0x01, &hello, &[]), "reserved_name", text);
    // The session judges reserved rooms, so that one publish is refused and not the connection.
    let mut reserved = framed(0x04, &[4, b'@', b'a', b'n', b'n', 1, 1], &[]);
    assert!(
        decode(&mut reserved, limits::FRAME_BYTES_MAX)
            .unwrap()
            .is_some()
    );
}

#[test]
fn texts_over_their_limit_are_refused() {
    let mut head = vec![0, 0, 0x81, 0x08];
    head.extend([b'x'; 1025]);
    refused(
        framed(0x03, &head, &[]),
        "bad_frame",
        "starting: a text is longer than its limit",
    );
}

#[test]
fn unknown_flags_and_starts_are_refused() {
    let subscribe = |kind: u8, flags: u8| framed(0x07, &[1, 1, b'a', kind, 0, 0, 0, flags], &[]);
    assert!(
        decode(&mut subscribe(5, 1), limits::FRAME_BYTES_MAX)
            .unwrap()
            .is_some()
    );
    refused(
        subscribe(6, 0),
        "bad_frame",
        "subscribe: the kind of start is unknown",
    );
    refused(
        subscribe(0, 2),
        "bad_frame",
        "subscribe: an unknown flag is set",
    );
    refused(
        framed(0x19, &[0, 0, 0, 2], &[]),
        "bad_frame",
        "goodbye: an unknown flag is set",
    );
}

#[test]
fn what_a_start_does_not_use_is_dropped() {
    let mut wire = framed(0x07, &[1, 1, b'a', 0, 9, 9, 0, 0], &[]);
    let Ok(Some(Frame::Subscribe(subscribe))) = decode(&mut wire, limits::FRAME_BYTES_MAX) else {
        panic!("a subscribe")
    };
    assert_eq!(subscribe.start, broker_proto::StartAt::START);
}

#[test]
fn impossible_skips_are_refused() {
    let skip = |from: u8, to: u8, reason: u8| framed(0x0c, &[1, from, to, reason, 1], &[]);
    let empty = "skip: the skipped range is empty or begins at zero";
    let mut single = skip(3, 3, 1);
    assert!(
        decode(&mut single, limits::FRAME_BYTES_MAX)
            .unwrap()
            .is_some()
    );
    refused(skip(3, 2, 1), "bad_frame", empty);
    refused(skip(0, 2, 1), "bad_frame", empty);
    refused(skip(1, 2, 0), "bad_frame", "skip: the skip has no reason");
    refused(
        framed(0x0e, &[1, 1, 1, 1, 1, 0, 3, 2, 1], &[]),
        "bad_frame",
        "page: the skipped range is empty or begins at zero",
    );
}

#[test]
fn room_lists_are_checked() {
    let list = |count: u8, body: &[u8]| framed(0x10, &[1, count, 0], body);
    let cut = "room_list: a room is cut short or its name is not UTF-8";
    refused(list(1, &[1, b'a']), "bad_frame", cut);
    refused(
        list(0, &[1]),
        "bad_frame",
        "room_list: bytes follow the last room",
    );
    refused(
        framed(0x10, &[1, 0xe9, 0x07, 0], &[]),
        "bad_frame",
        "room_list: the list has more rooms than allowed",
    );
    refused(
        framed(0x10, &[1, 0, 2], &[]),
        "bad_frame",
        "room_list: the header is cut short or malformed",
    );
    let body = [&[1, b'/'][..], &[0; 32]].concat();
    refused(
        list(1, &body),
        "bad_name",
        "room_list: the room name has the character '/' at byte 0",
    );
}

/// A room as it stands in answers.
fn facts(name: &[u8], by: &[u8], settings: usize) -> Vec<u8> {
    let mut body = vec![u8::try_from(name.len()).unwrap()];
    body.extend(name);
    body.extend([0; 48]);
    body.push(u8::try_from(by.len()).unwrap());
    body.extend(by);
    body.extend([0; 8]);
    body.put_u16_le(u16::try_from(settings).unwrap());
    body.extend(vec![0; settings]);
    body
}

#[test]
fn rooms_with_what_is_known_of_them_are_checked() {
    let details = |body: &[u8]| framed(0x1e, &[1], body);
    let found = |count: u8, body: &[u8]| framed(0x20, &[1, count, 0, 0], body);
    let good = facts(b"a", b"", 3);
    for mut wire in [details(&good), found(1, &good)] {
        assert!(
            decode(&mut wire, limits::FRAME_BYTES_MAX)
                .unwrap()
                .is_some()
        );
    }
    let cut = "room_details: a room is cut short or a name in it is not UTF-8";
    for at in 0..good.len() {
        refused(details(good.get(..at).unwrap()), "bad_frame", cut);
    }
    refused(details(&facts(&[0xff], b"", 0)), "bad_frame", cut);
    refused(details(&facts(b"a", &[0xff], 0)), "bad_frame", cut);
    refused(
        details(&[&good[..], &[0]].concat()),
        "bad_frame",
        "room_details: bytes follow the room",
    );
    refused(
        found(0, &good),
        "bad_frame",
        "rooms_found: bytes follow the last room",
    );
    refused(
        found(2, &good),
        "bad_frame",
        "rooms_found: a room is cut short or a name in it is not UTF-8",
    );
    refused(
        framed(0x20, &[1, 0xe9, 0x07, 0, 0], &[]),
        "bad_frame",
        "rooms_found: the list has more rooms than allowed",
    );
    refused(
        details(&facts(b"/", b"", 0)),
        "bad_name",
        "room_details: the room name has the character '/' at byte 0",
    );
    refused(
        details(&facts(b"a", b"a b", 0)),
        "bad_name",
        "room_details: the sender name has the white space '\\u{20}' at byte 1",
    );
    refused(
        details(&facts(b"a", b"", 8193)),
        "bad_frame",
        "room_details: the settings of a room are longer than their limit",
    );
}

#[test]
fn labels_that_are_wanted_are_checked() {
    let find = |labels: u8, body: &[u8]| framed(0x1f, &[1, 0, 1, 0, labels], body);
    let cut = "find_rooms: a label is cut short or not UTF-8";
    let mut good = find(2, &[1, b'a', 0, 1, b'b', 1, 1, b'c']);
    assert!(
        decode(&mut good, limits::FRAME_BYTES_MAX)
            .unwrap()
            .is_some()
    );
    for body in [&[][..], &[1], &[1, b'a'], &[1, b'a', 1], &[1, b'a', 1, 1]] {
        refused(find(1, body), "bad_frame", cut);
    }
    refused(find(1, &[1, b'a', 2]), "bad_frame", cut);
    refused(find(1, &[1, 0xff, 0]), "bad_frame", cut);
    refused(
        find(0, &[0]),
        "bad_frame",
        "find_rooms: bytes follow the last label",
    );
    refused(
        find(17, &[]),
        "bad_frame",
        "find_rooms: more labels are wanted than a room can have",
    );
    let long = "find_rooms: a label is longer than its limit";
    let name = [&[65][..], &[b'n'; 65], &[0]].concat();
    refused(find(1, &name), "bad_frame", long);
    let value = [&[1, b'n', 1, 129][..], &[b'v'; 129]].concat();
    refused(find(1, &value), "bad_frame", long);
}

#[test]
fn cursor_lists_are_checked() {
    let list = |count: u8, body: &[u8]| framed(0x25, &[1, count, 0], body);
    let good = [&[1, b'a'][..], &[0; 24]].concat();
    let cut = "cursor_list: a cursor is cut short or its name is not UTF-8";
    for at in 0..good.len() {
        refused(list(1, good.get(..at).unwrap()), "bad_frame", cut);
    }
    refused(
        list(0, &good),
        "bad_frame",
        "cursor_list: bytes follow the last cursor",
    );
    refused(
        framed(0x25, &[1, 0xe9, 0x07, 0], &[]),
        "bad_frame",
        "cursor_list: the list has more cursors than allowed",
    );
    refused(
        list(1, &[&[0][..], &[0; 24]].concat()),
        "bad_name",
        "cursor_list: the cursor name is empty",
    );
}

#[test]
fn a_relaxed_move_of_a_cursor_stands_alone() {
    let set = |flags: u8| framed(0x12, &[1, 1, b'a', 1, b'c', 1, 1, 0, 0, flags], &[]);
    for flags in [0, 1, 2, 3, 4] {
        assert!(
            decode(&mut set(flags), limits::FRAME_BYTES_MAX)
                .unwrap()
                .is_some()
        );
    }
    let text = "set_cursor: a relaxed move neither compares nor deletes";
    for flags in [5, 6, 7] {
        refused(set(flags), "bad_frame", text);
    }
    refused(set(8), "bad_frame", "set_cursor: an unknown flag is set");
    refused(
        framed(0x1b, &[1, 1, b'a', 0, 2], &[]),
        "bad_frame",
        "change_room: an unknown flag is set",
    );
    refused(
        framed(0x22, &[1, 0, 2], &[]),
        "bad_frame",
        "change_settings: an unknown flag is set",
    );
}

#[test]
fn settings_are_judged_after_the_frame_so_that_only_the_request_fails() {
    let mut wire = framed(0x1b, &[1, 1, b'a', 0, 0], &[0x84, 0x03, 0, 0]);
    let Ok(Some(Frame::ChangeRoom(change))) = decode(&mut wire, limits::FRAME_BYTES_MAX) else {
        panic!("a change")
    };
    let error = change.change().unwrap_err();
    assert_eq!(error.code().name(), "unknown_extension");
    let mut wire = framed(0x22, &[1, 0, 0], &[9, 0, 8]);
    let Ok(Some(Frame::ChangeSettings(change))) = decode(&mut wire, limits::FRAME_BYTES_MAX) else {
        panic!("a change")
    };
    assert_eq!(change.change().unwrap_err().code().name(), "bad_setting");
}

#[test]
fn a_status_is_text() {
    refused(
        framed(0x15, &[1], &[0xff]),
        "bad_frame",
        "status: the status is not UTF-8",
    );
}

/// The code's name and the text of what is wrong with a publish of one entry.
fn entry_refusal(count: u32, body: &[u8]) -> (&'static str, String) {
    let error = publish::check(body, count, 10).unwrap_err();
    (error.code().name(), error.to_string())
}

#[test]
fn entries_of_publishes_are_checked() {
    let entry = |payload: &[u8], ext: &[u8], crc: u32| {
        let mut body = BytesMut::new();
        publish::encode_entry(&mut body, payload, ext, crc);
        body
    };
    let crc = crc32c::crc32c(b"hi");
    let good = entry(b"hi", &[], crc);
    assert_eq!(publish::check(&good, 1, 10), Ok(()));
    let is = |found: (&'static str, String), code: &str, text: &str| {
        assert_eq!(found, (code_name(code), text.to_owned()))
    };
    is(
        entry_refusal(2, &good),
        "bad_frame",
        "message 1 is cut short",
    );
    is(
        entry_refusal(1, good.get(..11).unwrap()),
        "bad_frame",
        "message 0 is cut short",
    );
    is(
        entry_refusal(0, &good),
        "bad_frame",
        "12 bytes follow the last message",
    );
    let text = "the payload of message 0 has 11 bytes, at most 10 are allowed";
    is(
        entry_refusal(1, &entry(&[0; 11], &[], 0)),
        "too_large",
        text,
    );
    let text = format!("the payload of message 0 has crc32c {crc:08x}, 00000001 is stated");
    is(
        entry_refusal(1, &entry(b"hi", &[], 1)),
        "bad_checksum",
        &text,
    );
    is(
        entry_refusal(1, &entry(b"hi", &[1, 0, 0], crc)),
        "bad_frame",
        "message 0: an extension is cut short at byte 0 of its list",
    );
    let text = "message 0: critical extension 6 is unknown";
    is(
        entry_refusal(1, &entry(b"hi", &[6, 0x80, 0, 0], crc)),
        "unknown_extension",
        text,
    );
    let mut long = Vec::new();
    extension::push(
        &mut long,
        4,
        &vec![0; limits::MESSAGE_EXTENSIONS_BYTES_MAX - 3],
    );
    let text =
        "message 0: the list of extensions has 4027 bytes, at most 4026 in 64 entries are allowed";
    is(
        entry_refusal(1, &entry(b"hi", &long, crc)),
        "too_large",
        text,
    );
}
