//! Properties of all frames: any split, any mutation, any extension.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

use broker_proto::frame::publish;
use broker_proto::{DecodeError, ExtensionError, Frame, Kind, decode, extension, fuzzing, limits};
use bytes::{BufMut, BytesMut};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use crate::{arbitrary, examples};

const LIMIT: usize = limits::FRAME_BYTES_MAX;

pub(crate) fn encoded(frame: &Frame) -> BytesMut {
    let mut wire = BytesMut::new();
    frame.encode(&mut wire);
    wire
}

/// The frame with more bytes at the end of its head.
fn with_in_head(frame: &Frame, more: &[u8]) -> BytesMut {
    let wire = encoded(frame);
    let head_at = if frame.kind() == Kind::Hello { 11 } else { 5 };
    let head_bytes = usize::from(u16::from_le_bytes([wire[head_at], wire[head_at + 1]]));
    let body_at = head_at + 2 + head_bytes;
    let mut out = BytesMut::new();
    out.put_u32(u32::try_from(wire.len() - 4 + more.len()).unwrap());
    out.put_slice(&wire[4..head_at]);
    out.put_u16_le(u16::try_from(head_bytes + more.len()).unwrap());
    out.put_slice(&wire[head_at + 2..body_at]);
    out.put_slice(more);
    out.put_slice(&wire[body_at..]);
    out
}

fn extension(key: u16, value: &[u8]) -> Vec<u8> {
    let mut list = Vec::new();
    extension::push(&mut list, key, value);
    list
}

proptest! {
    #[test]
    fn any_frames_survive_any_split(frames in vec(arbitrary::frames(), 1..5), sizes in vec(1..200_usize, 1..20)) {
        let mut wire = BytesMut::new();
        frames.iter().for_each(|frame| frame.encode(&mut wire));
        prop_assert_eq!(fuzzing::decode_in_pieces(&wire, &sizes, LIMIT), (frames, None));
    }

    #[test]
    fn a_frame_cut_short_is_waited_for(frame in arbitrary::frames(), cut: Index) {
        let wire = encoded(&frame);
        let mut part = BytesMut::from(&wire[..cut.index(wire.len())]);
        let before = part.clone();
        prop_assert_eq!(decode(&mut part, LIMIT), Ok(None));
        prop_assert_eq!(part, before); // nothing is taken
    }

    #[test]
    fn random_bytes_never_panic(data in vec(any::<u8>(), 0..300)) {
        fuzzing::frame(&data);
    }

    #[test]
    fn random_heads_and_bodies_never_panic(kind in 0..40_u8, head in vec(any::<u8>(), 0..80), body in vec(any::<u8>(), 0..80)) {
        let mut wire = BytesMut::new();
        let prefix: &[u8] = if kind == Kind::Hello.get() { b"BRKR\x01\x00" } else { b"" };
        wire.put_u32(u32::try_from(3 + prefix.len() + head.len() + body.len()).unwrap());
        wire.put_u8(kind);
        wire.put_slice(prefix);
        wire.put_u16_le(u16::try_from(head.len()).unwrap());
        wire.put_slice(&head);
        wire.put_slice(&body);
        fuzzing::frame(&wire);
    }

    #[test]
    fn a_mutated_frame_never_panics(frame in arbitrary::frames(), changes in vec(any::<(Index, u8)>(), 1..4)) {
        let mut wire = encoded(&frame).to_vec();
        for (at, byte) in changes {
            let at = at.index(wire.len());
            wire[at] = byte;
        }
        fuzzing::frame(&wire);
    }

    #[test]
    fn unknown_extensions_are_skipped(frame in arbitrary::frames(), key in 100..0x8000_u16, value in vec(any::<u8>(), 0..50)) {
        let mut wire = with_in_head(&frame, &extension(key, &value));
        prop_assert_eq!(decode(&mut wire, LIMIT), Ok(Some(frame)));
        prop_assert!(wire.is_empty());
    }

    #[test]
    fn unknown_critical_extensions_are_refused(frame in arbitrary::frames(), key in 100..0x8000_u16) {
        let mut wire = with_in_head(&frame, &extension(key | extension::CRITICAL, &[]));
        let error = decode(&mut wire, LIMIT).unwrap_err();
        prop_assert_eq!(error.code().name(), "unknown_extension");
        prop_assert_eq!(error, DecodeError::Extension { frame: frame.kind(), cause: ExtensionError::UnknownCritical { key } });
    }

    #[test]
    fn bytes_after_a_header_that_are_no_extension_are_refused(frame in arbitrary::frames(), more in vec(any::<u8>(), 1..4)) {
        let error = decode(&mut with_in_head(&frame, &more), LIMIT).unwrap_err();
        prop_assert_eq!(error.code().name(), "bad_frame");
    }

    #[test]
    fn a_well_formed_publish_passes_its_check(publish in arbitrary::publishes()) {
        let max = publish.entries().map(|entry| entry.payload.len()).max().unwrap();
        prop_assert_eq!(publish::check(&publish.body, publish.count, max), Ok(()));
        prop_assert_eq!(publish.entries().count(), publish.count as usize);
        if max > 0 {
            prop_assert_eq!(publish::check(&publish.body, publish.count, max - 1).unwrap_err().code().name(), "too_large");
        }
    }

    #[test]
    fn a_flipped_bit_in_a_payload_fails_the_check(publish in arbitrary::publishes(), at: Index, bit in 0..8_u32) {
        let payload_bytes: Vec<usize> = {
            let start = publish.body.as_ptr() as usize;
            let place = |payload: &[u8]| payload.as_ptr() as usize - start;
            publish.entries().flat_map(|e| place(e.payload)..place(e.payload) + e.payload.len()).collect()
        };
        prop_assume!(!payload_bytes.is_empty());
        let mut body = publish.body.to_vec();
        body[payload_bytes[at.index(payload_bytes.len())]] ^= 1 << bit;
        let error = publish::check(&body, publish.count, limits::PAYLOAD_BYTES_MAX).unwrap_err();
        prop_assert_eq!(error.code().name(), "bad_checksum");
    }
}

#[test]
fn heads_and_bodies_written_apart_are_the_same_frame() {
    let publish = examples::publish_if_head();
    let mut wire = BytesMut::new();
    let (room, extensions) = (&publish.room, &publish.extensions);
    publish::encode_head(
        &mut wire,
        room,
        publish.first_number,
        publish.count,
        extensions,
        publish.body.len(),
    );
    wire.put_slice(&publish.body);
    assert_eq!(wire, encoded(&publish.into()));

    let deliver = examples::deliver();
    let mut wire = BytesMut::new();
    broker_proto::deliver::encode_head(
        &mut wire,
        deliver.sub,
        deliver.count,
        deliver.next,
        deliver.body.len(),
    );
    wire.put_slice(&deliver.body);
    assert_eq!(wire, encoded(&deliver.into()));
}

#[test]
fn payloads_share_the_read_buffer() {
    let mut wire = encoded(&examples::publish().into());
    let range = wire.as_ptr_range();
    let Ok(Some(Frame::Publish(publish))) = decode(&mut wire, LIMIT) else {
        panic!("a publish")
    };
    assert!(range.contains(&publish.body.as_ptr()));
    let payload = publish.entries().next().unwrap().payload;
    assert!(range.contains(&payload.as_ptr()));
}

#[test]
fn a_false_length_makes_no_room() {
    let mut buf = BytesMut::from(&[0x00, 0xff, 0xff, 0xff, 0x04, 0x01][..]);
    assert_eq!(decode(&mut buf, LIMIT), Ok(None));
    assert!(buf.capacity() <= 8192, "room for {} bytes", buf.capacity());
}

#[test]
fn the_largest_payload_fits_into_a_frame() {
    let payload = vec![7; limits::PAYLOAD_BYTES_MAX];
    let publish = broker_proto::Publish::of(examples::room(), 1, [&payload]);
    let mut wire = encoded(&publish.clone().into());
    assert_eq!(decode(&mut wire, LIMIT), Ok(Some(publish.into())));
}

#[test]
fn an_ack_writer_is_used_again() {
    let example = examples::ack();
    let mut writer = broker_proto::AckWriter::new();
    for _ in 0..2 {
        assert!(writer.is_empty());
        example.iter().for_each(|run| writer.push(&run));
        assert_eq!(writer.runs(), 1);
        let mut wire = BytesMut::new();
        writer.finish(&mut wire, example.level, None);
        assert_eq!(wire, encoded(&example.clone().into()));
    }
}

#[test]
fn full_answers_fit_into_a_frame() {
    let long = |n: usize| format!("{n:0128}");
    let mut found = examples::rooms_found();
    let mut room = *examples::room_details().room;
    room.created_by = Some(broker_proto::SenderName::parse(&"x".repeat(64)).unwrap());
    room.settings = vec![0; broker_proto::settings::SETTINGS_BYTES_MAX].into();
    found.rooms = (0..limits::ROOM_LIST_MAX)
        .map(|n| {
            let name = broker_proto::RoomName::parse(&long(n)).unwrap();
            broker_proto::RoomFacts {
                name,
                ..room.clone()
            }
        })
        .collect();
    let mut cursors = examples::cursor_list();
    let cursor = cursors.cursors.pop().unwrap();
    cursors.cursors = (0..limits::CURSOR_LIST_MAX)
        .map(|n| {
            let name = broker_proto::CursorName::parse(&long(n)).unwrap();
            broker_proto::CursorEntry {
                name,
                ..cursor.clone()
            }
        })
        .collect();
    for frame in [Frame::from(found), cursors.into()] {
        assert_eq!(decode(&mut encoded(&frame), LIMIT), Ok(Some(frame)));
    }
}

#[test]
fn what_is_wanted_of_labels_is_cut_to_what_a_broker_takes() {
    let mut find = examples::find_rooms();
    let label = broker_proto::LabelWanted {
        name: "n".repeat(65),
        value: Some("v".repeat(129)),
    };
    find.labels = vec![label; 17];
    let Ok(Some(Frame::FindRooms(find))) = decode(&mut encoded(&find.into()), LIMIT) else {
        panic!("rooms to find")
    };
    let lengths = |label: &broker_proto::LabelWanted| {
        (label.name.len(), label.value.as_ref().map(String::len))
    };
    assert_eq!(find.labels.len(), 16);
    assert!(
        find.labels
            .iter()
            .all(|label| lengths(label) == (64, Some(128)))
    );
}

#[test]
fn texts_over_their_limit_are_cut_at_a_character() {
    let mut error = examples::error();
    error.detail = "ä".repeat(1000);
    let mut wire = encoded(&error.into());
    let Ok(Some(Frame::Error(error))) = decode(&mut wire, LIMIT) else {
        panic!("an error")
    };
    assert_eq!(error.detail, "ä".repeat(512));
}

#[test]
fn a_decoder_knows_its_last_rooms_again() {
    let mut decoder = broker_proto::Decoder::new();
    let mut decode_room = |text: &str| {
        let room = broker_proto::RoomName::parse(text).unwrap();
        let mut wire = encoded(&broker_proto::Publish::of(room, 1, ["x"]).into());
        match decoder.decode(&mut wire, LIMIT) {
            Ok(Some(Frame::Publish(publish))) => publish.room,
            other => panic!("a publish, not {other:?}"),
        }
    };
    // More rooms than are remembered, round and round: never the wrong one.
    for turn in 0..36 {
        let text = format!("room-{}", turn % 12);
        assert_eq!(decode_room(&text), text.as_str());
    }
    let (first, again) = (decode_room("tea"), decode_room("tea"));
    assert!(
        std::ptr::eq(first.as_str(), again.as_str()),
        "the second name is the first one, not a copy"
    );
}

#[test]
fn frames_are_small_because_they_are_moved_often() {
    assert!(size_of::<Frame>() <= 128, "{} bytes", size_of::<Frame>());
}
