//! Hello, starting, welcome.

use broker_proto::{
    DecodeError, ErrorCode, Frame, Goodbye, Ping, Pong, ProducerId, Publish, Starting, Welcome,
};

use super::peer::{Peer, hello, room, secs, terms};
use super::store::{Call, Gate, PAYLOAD_BYTES_MAX};
use crate::session::{Farewell, Progress, Stage};
use crate::store::{SessionId, Store};
use crate::sync::Arc;

#[test]
fn a_hello_is_welcomed_with_the_limits_and_claims_its_producer() {
    let store = Gate::new();
    let mut ann = Peer::connected(Stage::Serving(Arc::clone(&store)), 5, terms());
    assert_eq!(ann.session.frame_bytes_max(), 4096);
    assert!(!ann.session.has_greeted());
    let welcome: Welcome = ann.say(hello("ann")).hear_one();
    assert_eq!(welcome.store, store.info().store);
    assert_eq!(
        (welcome.build.as_str(), welcome.pid, welcome.connection),
        ("test 1", 42, 5)
    );
    assert_eq!(
        (welcome.payload_bytes_max, welcome.unacked_max),
        (PAYLOAD_BYTES_MAX, 4096)
    );
    assert_eq!((welcome.auth, welcome.nonce), (0, [9; 16]));
    assert_eq!(store.calls(), [Call::Claim(SessionId(5))]);
    assert!(ann.session.has_greeted() && ann.session.frame_bytes_max() > 1 << 20);
}

#[test]
fn nothing_comes_before_the_hello() {
    for frame in [
        Frame::from(Publish::of(room("ops"), 1, ["x"])),
        Frame::from(Ping { nonce: 1 }),
    ] {
        let store = Gate::new();
        let mut ann = Peer::connected(Stage::Serving(Arc::clone(&store)), 1, terms());
        ann.say(frame).hear_the_end(ErrorCode::UNEXPECTED_FRAME);
        assert_eq!(store.calls(), []);
    }
}

#[test]
fn a_second_hello_and_a_brokers_frame_end_the_session() {
    let ack = broker_proto::AckWriter::new().into_frame(broker_proto::Level::SYNCED, None);
    for frame in [Frame::from(hello("ann")), Frame::from(ack)] {
        let store = Gate::new();
        let mut ann = Peer::welcomed(&store, "ann");
        ann.say(frame).hear_the_end(ErrorCode::UNEXPECTED_FRAME);
        assert_eq!(store.calls(), [Call::Release(SessionId(1), false)]);
    }
}

#[test]
fn bytes_that_are_no_frame_end_the_session_with_what_and_where() {
    let store = Gate::new();
    let mut ann = Peer::welcomed(&store, "ann");
    ann.session
        .handle_bad_frame(ann.now, &DecodeError::UnknownKind { kind: 0x7f });
    ann.hear_the_end(ErrorCode::UNKNOWN_KIND);
}

#[test]
fn a_peer_that_says_nothing_is_given_up_after_five_seconds_in_all() {
    let mut ann = Peer::connected(Stage::Serving(Gate::new()), 1, terms());
    assert_eq!(ann.session.poll_timeout(), secs(105));
    ann.wait(secs(4)).hear_nothing();
    ann.wait(secs(1)).hear_the_end(ErrorCode::TIMED_OUT);
}

#[test]
fn a_server_that_still_starts_says_how_far_it_is_and_then_welcomes() {
    let store = Gate::new();
    let at = |done| Progress {
        done,
        total: 10,
        what: "reading the log".to_owned(),
    };
    let mut ann = Peer::connected(Stage::Starting(at(1)), 1, terms());
    let starting: Starting = ann.say(hello("ann")).hear_one();
    assert_eq!(
        (starting.done, starting.total, starting.what.as_str()),
        (1, 10, "reading the log")
    );
    ann.session.handle_stage(ann.now, Stage::Starting(at(7)));
    let starting: Starting = ann.hear_one();
    assert_eq!(starting.done, 7);
    let pong: Pong = ann.say(Ping { nonce: 3 }).hear_one();
    assert_eq!(pong.nonce, 3);
    assert_eq!(store.calls(), []);
    ann.session
        .handle_stage(ann.now, Stage::Serving(Arc::clone(&store)));
    let _: Welcome = ann.hear_one();
    assert_eq!(store.calls(), [Call::Claim(SessionId(1))]);
    ann.publish("ops", ["hi"]);
    let _: broker_proto::Ack = ann.hear_one();
}

#[test]
fn nothing_but_pings_comes_before_the_welcome() {
    let mut ann = Peer::connected(Stage::Starting(Progress::default()), 1, terms());
    ann.say(hello("ann")).hear();
    ann.publish("ops", ["hi"])
        .hear_the_end(ErrorCode::UNEXPECTED_FRAME);
}

#[test]
fn a_store_that_cannot_be_opened_is_said_with_its_reason() {
    let mut ann = Peer::connected(Stage::Starting(Progress::default()), 1, terms());
    ann.say(hello("ann")).hear();
    let farewell = Farewell {
        code: ErrorCode::INTERNAL,
        detail: "segment 3 is damaged".to_owned(),
        ..Farewell::default()
    };
    ann.session.handle_stage(ann.now, Stage::Leaving(farewell));
    ann.hear_the_end(ErrorCode::INTERNAL);
}

#[test]
fn a_leaving_server_greets_with_goodbye() {
    let mut ann = Peer::connected(Stage::Draining(Gate::new()), 1, terms());
    let goodbye: Goodbye = ann.say(hello("ann")).hear_one();
    assert_eq!(goodbye.code, ErrorCode::GOING_AWAY);
}

#[test]
fn a_newer_session_of_a_producer_ends_the_older_ones_publishes() {
    let store = Gate::new();
    let mut old = Peer::welcomed(&store, "ann");
    let mut new = Peer::welcomed_under(&store, 2, "ann", terms());
    let refused: broker_proto::Refused = old.publish("ops", ["late"]).hear_one();
    assert_eq!(refused.code, ErrorCode::SUPERSEDED);
    let _: broker_proto::Ack = new.publish("ops", ["hi"]).hear_one();
    // The older one is gone only now; the newer goes on.
    drop(old);
    let _: broker_proto::Ack = new.publish("ops", ["again"]).hear_one();
    let _: broker_proto::Ack = new
        .publish_as(ProducerId::new([1; 16]), 1, "ops")
        .hear_one();
}
