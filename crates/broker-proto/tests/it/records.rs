//! Records: round trips, and every flipped bit is noticed.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

use broker_proto::record::{self, RECORD_FIXED_BYTES, next_record};
use broker_proto::{
    Block, BlockError, Messages, Micros, RecordError, RoomId, SenderName, Seq, extension, fuzzing,
    limits,
};
use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::arbitrary::{self, Parts};
use crate::examples;

fn encoded(all: &[Parts]) -> Bytes {
    let mut out = Vec::new();
    all.iter().for_each(|parts| parts.put(&mut out));
    out.into()
}

fn count(all: &[Parts]) -> u32 {
    u32::try_from(all.len()).unwrap()
}

proptest! {
    #[test]
    fn records_survive_a_round_trip(all in vec(arbitrary::parts(), 0..6)) {
        let bytes = encoded(&all);
        let messages: Vec<_> = Messages::new(bytes.clone(), count(&all)).map(Result::unwrap).collect();
        prop_assert_eq!(messages.len(), all.len());
        for (message, parts) in messages.iter().zip(&all) {
            prop_assert_eq!(message.seq.get(), parts.seq);
            prop_assert_eq!(message.time.get(), parts.time);
            prop_assert_eq!(&*message.sender, parts.sender.as_str());
            prop_assert_eq!(message.flags, parts.flags);
            prop_assert_eq!(message.extensions.as_bytes(), &parts.extensions);
            prop_assert_eq!(&message.payload, &parts.payload);
            if !parts.payload.is_empty() {
                prop_assert!(bytes.as_ptr_range().contains(&message.payload.as_ptr())); // shared, not copied
            }
        }
    }

    #[test]
    fn a_cut_is_noticed(all in vec(arbitrary::parts(), 1..4), cut: prop::sample::Index) {
        let bytes = encoded(&all);
        let cut = bytes.slice(..cut.index(bytes.len()));
        let last = Messages::new(cut, count(&all)).last().unwrap();
        let noticed = matches!(last, Err(RecordError::Short { .. } | RecordError::Count { .. }));
        prop_assert!(noticed);
    }

    #[test]
    fn random_bytes_never_panic(data in vec(any::<u8>(), 0..300)) {
        fuzzing::record(&data);
    }

    #[test]
    fn mutated_records_never_panic(all in vec(arbitrary::parts(), 1..4), changes in vec(any::<(prop::sample::Index, u8)>(), 1..5)) {
        let mut bytes = encoded(&all).to_vec();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        fuzzing::record(&bytes);
    }
}

/// The same messages, one after the other in their room.
fn in_order(mut all: Vec<Parts>) -> Vec<Parts> {
    for (seq, parts) in (7..).zip(&mut all) {
        parts.seq = seq;
    }
    all
}

/// The messages before the first that is wrong, as they are told one by one, and what is wrong.
fn one_by_one(bytes: Bytes, count: u32) -> (Vec<broker_proto::Message>, Option<RecordError>) {
    let mut good = Vec::new();
    for message in Messages::new(bytes, count) {
        match message {
            Ok(message) => good.push(message),
            Err(error) => return (good, Some(error)),
        }
    }
    (good, None)
}

proptest! {
    #[test]
    fn a_block_tells_what_the_messages_tell(
        all in vec(arbitrary::parts(), 0..6),
        same_sender: bool,
        changes in vec(any::<(prop::sample::Index, u8)>(), 0..2),
        stated in prop::option::of(0..7_u32),
    ) {
        let mut all = in_order(all);
        if same_sender && let Some((first, others)) = all.split_first_mut() {
            for other in others {
                (other.sender, other.flags) = (first.sender.clone(), first.flags);
                other.extensions.clone_from(&first.extensions);
            }
        }
        let mut bytes = encoded(&all).to_vec();
        for (at, byte) in changes.into_iter().filter(|_| !all.is_empty()) {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let (bytes, count) = (Bytes::from(bytes), stated.unwrap_or(count(&all)));
        let (expected, wrong) = one_by_one(bytes.clone(), count);
        let (block, error) = Block::check(bytes, count, Some(Seq::new(7)));
        prop_assert_eq!(error, wrong.map(BlockError::Record));
        prop_assert_eq!(block.len() as usize, expected.len());
        prop_assert_eq!(block.first(), Seq::new(7));
        for (view, message) in block.views().zip(&expected) {
            prop_assert_eq!((view.seq, view.time, view.flags), (message.seq, message.time, message.flags));
            prop_assert_eq!(view.sender, message.sender.as_str());
            prop_assert_eq!(view.extensions, message.extensions.as_bytes());
            prop_assert_eq!(view.payload, &message.payload);
        }
        prop_assert_eq!(block.views().len(), expected.len());
        let mut half = block.clone().into_iter();
        let taken: Vec<_> = half.by_ref().take(expected.len() / 2).collect();
        let rest: Vec<_> = half.into_block().into_iter().collect();
        prop_assert_eq!([taken, rest].concat(), expected);
    }
}

#[test]
fn a_block_ends_before_a_message_that_is_not_the_next() {
    let one = examples::record();
    let twice = Bytes::from([&one[..], &one[..]].concat());
    let order = |found, expected| BlockError::Order {
        found: Seq::new(found),
        expected: Seq::new(expected),
    };
    let (block, error) = Block::check(twice.clone(), 2, Some(Seq::new(7)));
    assert_eq!((block.len(), block.bytes()), (1, one.len()));
    assert_eq!(error, Some(order(7, 8)));
    let (block, error) = Block::check(twice, 2, Some(Seq::new(6)));
    assert!(block.is_empty() && block.first() == Seq::new(6));
    assert_eq!(error, Some(order(7, 6)));
    let (block, error) = Block::check(one, 1, None);
    assert_eq!((block.len(), block.first(), error), (1, Seq::new(7), None));
}

proptest! {
    // Each case tries thousands of bits.
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn every_flipped_bit_is_noticed(parts in arbitrary::parts()) {
        let bytes = encoded(std::slice::from_ref(&parts));
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let noticed = Messages::new(flipped.into(), 1).any(|message| message.is_err());
            prop_assert!(noticed, "bit {} of byte {} was not noticed", bit % 8, bit / 8);
            let mut flipped = bytes.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let (block, error) = Block::check(flipped.into(), 1, None);
            prop_assert!(block.is_empty() && error.is_some(), "bit {bit} was not noticed in a block");
        }
    }
}

#[test]
fn an_empty_body_has_no_record() {
    assert_eq!(next_record(&[]), Ok(None));
    assert_eq!(Messages::new(Bytes::new(), 0).next(), None);
}

#[test]
fn a_body_has_exactly_the_records_that_are_stated() {
    let mut fewer = Messages::new(examples::record(), 2);
    assert!(fewer.next().unwrap().is_ok());
    assert_eq!(
        fewer.next(),
        Some(Err(RecordError::Count {
            expected: 2,
            left: 1
        }))
    );
    assert_eq!(fewer.next(), None);
    let mut more = Messages::new(examples::record(), 0);
    assert_eq!(
        more.next(),
        Some(Err(RecordError::Count {
            expected: 0,
            left: 0
        }))
    );
    assert_eq!(more.next(), None);
}

#[test]
fn damage_is_told_apart() {
    let good = examples::record();
    let damaged = |at: usize| {
        let mut bytes = good.to_vec();
        bytes[at] ^= 1;
        Messages::new(bytes.into(), 1).next().unwrap().unwrap_err()
    };
    assert!(matches!(damaged(0), RecordError::Checksum { .. }));
    assert!(matches!(
        damaged(RECORD_FIXED_BYTES + 1),
        RecordError::Checksum { .. }
    ));
    let payload = damaged(good.len() - 1);
    assert!(matches!(payload, RecordError::PayloadChecksum { .. }));
    assert_eq!(payload.code().name(), "bad_checksum");
    assert!(matches!(damaged(13), RecordError::Short { .. })); // a length of 256 more
    assert!(matches!(damaged(15), RecordError::Length { .. })); // a length of 16 MiB more
    assert!(matches!(damaged(7), RecordError::Length { .. })); // a head of 256 more
}

/// A record with right checksums around this kind and head.
fn sealed(kind: u16, head: &[u8]) -> Bytes {
    let fixed = record::fixed(
        kind,
        RoomId::new(1),
        Seq::FIRST,
        Micros::EPOCH,
        head,
        0,
        crc32c::crc32c(b""),
    );
    [fixed.as_slice(), head].concat().into()
}

#[test]
fn only_messages_are_messages() {
    let mut other = Messages::new(sealed(2, &[]), 1);
    assert_eq!(other.next(), Some(Err(RecordError::Kind { kind: 2 })));
    assert!(
        next_record(&sealed(2, &[]))
            .unwrap()
            .unwrap()
            .0
            .verify_payload()
            .is_ok()
    );
}

#[test]
fn a_malformed_head_is_refused() {
    let long = [&[65_u8][..], &[b'x'; 65], &[0]].concat();
    let heads: [&[u8]; 5] = [&[], &[3, b'a'], &[1, 0xff, 0], &[1, b'a', 0, 9, 9], &long];
    for head in heads {
        let error = Messages::new(sealed(1, head), 1).next().unwrap();
        assert_eq!(
            error,
            Err(RecordError::Head { seq: Seq::FIRST }),
            "{head:?}"
        );
    }
}

#[test]
fn the_largest_head_is_accepted() {
    let mut list = Vec::new();
    extension::push(
        &mut list,
        1,
        &vec![7; limits::MESSAGE_EXTENSIONS_BYTES_MAX - 4],
    );
    let mut head = Vec::new();
    let sender = SenderName::parse(&"x".repeat(64)).unwrap();
    record::encode_message_head(&mut head, &sender, u32::MAX, &list);
    assert_eq!(head.len(), limits::MESSAGE_HEAD_BYTES_MAX);
    let message = Messages::new(sealed(1, &head), 1).next().unwrap().unwrap();
    assert_eq!(message.extensions.get(1).unwrap().len(), list.len() - 4);
}

#[test]
fn a_reader_finds_critical_extensions_that_it_does_not_know() {
    let mut head = Vec::new();
    let mut list = Vec::new();
    extension::push(&mut list, extension::CONTENT_TYPE, b"text/plain");
    extension::push(&mut list, extension::ENCRYPTION | extension::CRITICAL, b"x");
    record::encode_message_head(&mut head, &SenderName::parse("ann").unwrap(), 0, &list);
    let message = Messages::new(sealed(1, &head), 1).next().unwrap().unwrap();
    assert_eq!(
        message
            .extensions
            .unknown_critical(&[extension::CONTENT_TYPE]),
        Some(extension::ENCRYPTION)
    );
    assert_eq!(
        message
            .extensions
            .unknown_critical(&[extension::ENCRYPTION]),
        None
    );
    assert_eq!(
        message.extensions.get(extension::CONTENT_TYPE),
        Some(&b"text/plain"[..])
    );
}
