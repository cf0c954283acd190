//! Publishing: checks, order, acks, refusals.

use broker_proto::limits::UNACKED_NUMBERS_MAX;
use broker_proto::{
    Ack, ErrorCode, Frame, Ping, Pong, ProducerId, Publish, Refused, extension, publish,
};
use bytes::BytesMut;

use super::peer::{Peer, delivered, room, terms};
use super::store::{Call, Gate, PAYLOAD_BYTES_MAX};
use crate::session::{Stage, Terms};
use crate::sync::Arc;

/// (first number, count, first seq) of all runs.
fn runs(ack: &Ack) -> Vec<(u64, u32, u64)> {
    ack.iter()
        .map(|run| (run.first_number, run.count, run.first_seq.get()))
        .collect()
}

fn entry(payload: &[u8], ext: &[u8], crc: u32) -> BytesMut {
    let mut body = BytesMut::new();
    publish::encode_entry(&mut body, payload, ext, crc);
    body
}

fn with_body(number: u64, count: u32, body: BytesMut) -> Publish {
    Publish {
        count,
        body: body.freeze(),
        ..Publish::of(room("ops"), number, ["x"])
    }
}

#[test]
fn acks_of_a_turn_leave_as_one_frame_with_merged_runs() {
    let store = Gate::new();
    let mut ann = Peer::welcomed(&store, "ann");
    ann.publish("ops", ["1"])
        .publish("ops", ["2", "3"])
        .publish("dev", ["4"])
        .publish("ops", ["5"]);
    let ack: Ack = ann.hear_one();
    assert_eq!(runs(&ack), [(1, 3, 1), (4, 1, 1), (5, 1, 4)]);
    assert_eq!(ack.producer, None);
}

#[test]
fn nothing_is_acknowledged_before_the_store_says_so() {
    let store = Gate::new();
    let mut ann = Peer::welcomed(&store, "ann");
    store.hold_appends();
    ann.publish("ops", ["1"]).hear_nothing();
    assert!(!ann.session.is_settled());
    store.finish_appends();
    let ack: Ack = ann.hear_one();
    assert_eq!(runs(&ack), [(1, 1, 1)]);
    assert!(ann.session.is_settled());
}

#[test]
fn numbers_of_another_producer_are_told_apart() {
    let store = Gate::new();
    let mut ann = Peer::welcomed(&store, "ann");
    let key = ProducerId::new([0xab; 16]);
    ann.publish("ops", ["1"])
        .publish_as(key, 1, "ops")
        .publish("ops", ["2"]);
    let frames = ann.hear();
    let producers: Vec<_> = frames
        .iter()
        .map(|frame| match frame {
            Frame::Ack(ack) => (ack.producer, runs(ack)),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(
        producers,
        [
            (None, vec![(1, 1, 1)]),
            (Some(key), vec![(1, 1, 2)]),
            (None, vec![(2, 1, 3)])
        ]
    );
    let refused: Refused = ann.publish_as(key, 1, "@inbox").hear_one();
    assert_eq!(
        (refused.producer, refused.code),
        (Some(key), ErrorCode::RESERVED_NAME)
    );
}

#[test]
fn a_retry_gets_the_seq_of_the_first_time() {
    let store = Gate::new();
    let mut ann = Peer::welcomed(&store, "ann");
    ann.publish("ops", ["1", "2"]);
    let first: Ack = ann.hear_one();
    let mut again = Peer::welcomed_under(&store, 2, "ann", terms());
    let second: Ack = again.publish("ops", ["1", "2"]).hear_one();
    assert_eq!(runs(&first), runs(&second));
}

#[test]
fn the_sender_is_stamped_by_the_broker() {
    let store = Gate::new();
    let mut ann = Peer::welcomed(&store, "ann");
    ann.publish("ops", ["hi"])
        .subscribe(1, "ops", broker_proto::StartAt::START, 1 << 20);
    let senders: Vec<String> = ann
        .hear()
        .iter()
        .filter_map(|frame| match frame {
            Frame::Deliver(deliver) => Some(deliver.messages().next().unwrap().unwrap()),
            _ => None,
        })
        .map(|message| message.sender.as_str().to_owned())
        .collect();
    assert_eq!(senders, ["ann"]);
}

#[test]
fn what_the_session_refuses_is_a_hole_and_the_next_number_is_taken() {
    let critical = {
        let mut ext = BytesMut::new();
        extension::push(&mut ext, 77 | extension::CRITICAL, b"?");
        ext
    };
    let large = vec![0; PAYLOAD_BYTES_MAX as usize + 1];
    let cases = [
        (
            Publish::of(room("@ann"), 1, ["x"]),
            ErrorCode::RESERVED_NAME,
        ),
        (
            Publish::of(room("ops.dead"), 1, ["x"]),
            ErrorCode::RESERVED_NAME,
        ),
        (
            with_body(1, 1, entry(b"x", &[], 1)),
            ErrorCode::BAD_CHECKSUM,
        ),
        (
            with_body(1, 1, entry(b"x", &critical, crc32c::crc32c(b"x"))),
            ErrorCode::UNKNOWN_EXTENSION,
        ),
        (Publish::of(room("ops"), 1, [&large]), ErrorCode::TOO_LARGE),
    ];
    for (publish, code) in cases {
        let store = Gate::new();
        let mut ann = Peer::welcomed(&store, "ann");
        let refused: Refused = ann.say(publish).hear_one();
        assert_eq!(
            (refused.code, refused.first_number, refused.count),
            (code, 1, 1)
        );
        assert_eq!(store.calls(), [Call::Hole(1, 1)]);
        // Were the hole not known to the store, number 2 would be of unknown outcome.
        let ack: Ack = ann.say(Publish::of(room("ops"), 2, ["y"])).hear_one();
        assert_eq!(runs(&ack), [(2, 1, 1)]);
    }
}

#[test]
fn a_body_that_is_cut_short_or_too_long_ends_the_session() {
    let whole = entry(b"x", &[], crc32c::crc32c(b"x"));
    for (count, body) in [
        (2, whole.clone()),
        (1, [&whole[..], b"y"].concat()[..].into()),
    ] {
        let mut ann = Peer::welcomed(&Gate::new(), "ann");
        ann.say(with_body(1, count, body))
            .hear_the_end(ErrorCode::BAD_FRAME);
    }
}

#[test]
fn a_full_queue_stops_reading_and_nothing_is_lost_or_reordered() {
    let store = Gate::new();
    let mut ann = Peer::welcomed(&store, "ann");
    store.busy(true);
    ann.publish("ops", ["1"]);
    assert!(!ann.session.wants_read());
    ann.hear_nothing();
    // Space for nothing after all: still waiting.
    ann.session
        .handle_notice(ann.now, crate::store::Notice::Space);
    assert!(!ann.session.wants_read());
    store.busy(false);
    let ack: Ack = ann.hear_one();
    assert_eq!(runs(&ack), [(1, 1, 1)]);
    assert!(ann.session.wants_read());
    let ack: Ack = ann.publish("ops", ["2"]).hear_one();
    assert_eq!(runs(&ack), [(2, 1, 2)]);
}

#[test]
fn a_full_queue_is_not_held_against_the_peer() {
    let store = Gate::new();
    let mut ann = Peer::welcomed(&store, "ann");
    store.busy(true);
    ann.publish("ops", ["1"]);
    for _ in 0..20 {
        ann.wait(super::peer::secs(10));
        assert!(!ann.session.is_closing());
    }
    store.busy(false);
    let _: Ack = ann.hear_one();
}

#[test]
fn numbers_without_an_answer_are_bounded() {
    let store = Gate::new();
    let mut ann = Peer::welcomed_under(
        &store,
        1,
        "ann",
        Terms {
            unacked_max: 3,
            ..terms()
        },
    );
    store.hold_appends();
    ann.publish("ops", ["1", "2"])
        .publish("ops", ["3", "4"])
        .hear_nothing();
    let refused: Refused = ann.publish("ops", ["5"]).hear_one();
    assert_eq!((refused.code, refused.first_number), (ErrorCode::LIMIT, 5));
    store.finish_appends();
    let ack: Ack = ann.hear_one();
    assert_eq!(runs(&ack), [(1, 4, 1)]);
    let ack: Ack = ann.publish("ops", ["6"]).hear_one();
    assert_eq!(runs(&ack), [(6, 1, 5)]);
}

#[test]
fn a_frame_of_more_numbers_than_a_producer_may_have_open_is_refused() {
    let mut ann = Peer::welcomed(&Gate::new(), "ann");
    let many = UNACKED_NUMBERS_MAX + 1;
    let refused: Refused = ann
        .say(Publish::of(room("ops"), 1, (0..many).map(|_| "")))
        .hear_one();
    assert_eq!((refused.code, refused.count), (ErrorCode::LIMIT, many));
}

#[test]
fn a_draining_server_finishes_what_it_took_and_refuses_the_rest_for_the_next_leader() {
    let store = Gate::new();
    let mut ann = Peer::welcomed(&store, "ann");
    store.hold_appends();
    ann.publish("ops", ["1"]);
    ann.session
        .handle_stage(ann.now, Stage::Draining(Arc::clone(&store)));
    let refused: Refused = ann.publish("ops", ["2"]).hear_one();
    assert_eq!(refused.code, ErrorCode::GOING_AWAY);
    assert!(refused.retry_after_ms > 0 && refused.code.is_retryable());
    assert_eq!(
        store.calls(),
        [],
        "the number is no hole: it is resent to the next leader"
    );
    assert!(!ann.session.is_settled());
    store.finish_appends();
    ann.round();
    assert!(!ann.session.is_settled(), "the ack is not taken yet");
    let ack: Ack = ann.hear_one();
    assert_eq!(runs(&ack), [(1, 1, 1)]);
    assert!(ann.session.is_settled());
    // Reading goes on meanwhile.
    ann.subscribe(1, "ops", broker_proto::StartAt::START, 1 << 20);
    assert_eq!(delivered(&ann.hear(), 1), [(1, "1".to_owned())]);
    let pong: Pong = ann.say(Ping { nonce: 9 }).hear_one();
    assert_eq!(pong.nonce, 9);
}

#[test]
fn the_store_hears_what_may_have_been_sent_before() {
    let store = Gate::new();
    let mut ann = Peer::welcomed(&store, "ann");
    store.hold_appends();
    let again = Publish {
        extensions: publish::PublishExtensions {
            resend: true,
            ..publish::PublishExtensions::NONE
        },
        ..Publish::of(room("ops"), 1, ["1"])
    };
    ann.say(again).hear_nothing();
    ann.say(Publish::of(room("ops"), 2, ["2"])).hear_nothing();
    // Who gives a key of its own may be another process than the one that used it first.
    ann.publish_as(ProducerId::new([8; 16]), 1, "ops");
    assert_eq!(store.resends(), [true, false, true]);
    store.finish_appends();
}
