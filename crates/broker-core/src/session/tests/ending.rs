//! Timeouts, goodbyes, and what is given back at the end.

use broker_proto::{Ack, ErrorCode, Goodbye, Ping, Pong, StartAt};

use super::peer::{Peer, room, secs};
use super::store::{Call, Gate};
use crate::session::{Farewell, Stage};
use crate::store::SessionId;

#[test]
fn silence_is_pinged_and_an_answer_keeps_the_connection() {
    let mut ann = Peer::welcomed(&Gate::new(), "ann");
    assert_eq!(ann.session.poll_timeout(), secs(115));
    ann.wait(secs(14)).hear_nothing();
    let ping: Ping = ann.wait(secs(1)).hear_one();
    ann.wait(secs(59)).hear_nothing();
    ann.say(Pong { nonce: ping.nonce }).hear_nothing();
    let _: Ping = ann.wait(secs(15)).hear_one();
    ann.wait(secs(60)).hear_the_end(ErrorCode::SLOW_PEER);
}

#[test]
fn a_peer_that_takes_no_byte_of_an_ack_is_given_up_after_thirty_seconds() {
    let mut ann = Peer::welcomed(&Gate::new(), "ann");
    ann.publish("ops", ["1"]).round();
    ann.wait(secs(29));
    assert!(!ann.session.is_closing());
    ann.take(1);
    ann.wait(secs(29));
    assert!(!ann.session.is_closing(), "it took a byte");
    ann.say(Ping { nonce: 1 });
    ann.wait(secs(1));
    assert!(ann.session.is_closing());
}

#[test]
fn a_peer_that_is_only_slow_to_take_deliveries_is_never_given_up() {
    let store = Gate::new();
    Peer::welcomed_under(&store, 2, "bob", super::peer::terms())
        .publish("ops", ["hi"; 100])
        .hear();
    let mut ann = Peer::welcomed(&store, "ann");
    ann.subscribe(1, "ops", StartAt::START, 1 << 20).round();
    for _ in 0..100 {
        ann.wait(secs(14));
        // It is alive, but its application reads a byte every now and then.
        ann.say(Pong { nonce: 0 });
        ann.take(1);
        assert!(!ann.session.is_closing());
    }
}

#[test]
fn a_peer_that_leaves_its_answers_lying_is_read_no_more() {
    let mut ann = Peer::welcomed(&Gate::new(), "ann");
    let mut said = 0;
    while ann.session.wants_read() {
        ann.say(Ping { nonce: said });
        said += 1;
        assert!(ann.session.outbox().len() < 300 << 10);
    }
    ann.take(usize::MAX);
    assert!(ann.session.wants_read());
    assert_eq!(ann.frames().len() as u64, said);
}

#[test]
fn a_goodbye_is_answered_and_forgets_only_what_is_settled() {
    for (settled, forget) in [(true, true), (false, false)] {
        let store = Gate::new();
        let mut ann = Peer::welcomed(&store, "ann");
        if !settled {
            store.hold_appends();
        }
        ann.publish("ops", ["1"]).hear();
        let goodbye: Goodbye = ann
            .say(Goodbye {
                flags: Goodbye::FORGET,
                ..Goodbye::default()
            })
            .hear_one();
        assert_eq!(goodbye, Goodbye::default());
        assert_eq!(store.calls(), [Call::Release(SessionId(1), forget)]);
        assert!(ann.session.is_closing() && ann.session.outbox().is_empty());
        drop(ann);
        assert_eq!(store.calls(), [], "released once");
    }
}

#[test]
fn a_goodbye_without_the_flag_keeps_the_producer() {
    let store = Gate::new();
    let mut ann = Peer::welcomed(&store, "ann");
    ann.say(Goodbye::default()).hear();
    assert_eq!(store.calls(), [Call::Release(SessionId(1), false)]);
}

#[test]
fn a_session_that_is_dropped_gives_everything_back() {
    let store = Gate::new();
    let mut ann = Peer::welcomed(&store, "ann");
    ann.publish("ops", ["1"])
        .subscribe(1, "ops", StartAt::START, 1 << 20)
        .hear();
    drop(ann);
    assert_eq!(
        store.calls(),
        [
            Call::Unwatch(room("ops")),
            Call::Release(SessionId(1), false)
        ]
    );
}

#[test]
fn acks_of_the_last_turn_are_told_before_the_goodbye() {
    let store = Gate::new();
    let mut ann = Peer::welcomed(&store, "ann");
    ann.publish("ops", ["1"]);
    ann.session.handle_notices(ann.now);
    let farewell = Farewell {
        code: ErrorCode::GOING_AWAY,
        retry_after_ms: 3,
        successor: "unix:/x".to_owned(),
        ..Farewell::default()
    };
    ann.session.handle_stage(ann.now, Stage::Leaving(farewell));
    let frames = ann.hear();
    let [
        broker_proto::Frame::Ack(_),
        broker_proto::Frame::Goodbye(goodbye),
    ] = frames.as_slice()
    else {
        panic!("{frames:?}");
    };
    assert_eq!(
        (goodbye.retry_after_ms, goodbye.successor.as_str()),
        (3, "unix:/x")
    );
}

#[test]
fn the_last_bytes_have_a_deadline_too() {
    let mut ann = Peer::welcomed(&Gate::new(), "ann");
    ann.say(Goodbye::default()).round();
    assert!(!ann.session.outbox().is_empty());
    assert_eq!(ann.session.poll_timeout(), secs(105));
    ann.wait(secs(5));
    assert!(ann.session.outbox().is_empty() && ann.session.is_closing());
}

#[test]
fn what_comes_after_the_end_is_ignored() {
    let store = Gate::new();
    let mut ann = Peer::welcomed(&store, "ann");
    ann.say(Goodbye::default()).hear();
    store.calls();
    ann.session.handle_frame(ann.now, Ping { nonce: 1 }.into());
    ann.session
        .handle_notice(ann.now, crate::store::Notice::Grown { tag: 1 });
    ann.hear_nothing();
    let mut bob = Peer::welcomed_under(&store, 2, "bob", super::peer::terms());
    let _: Ack = bob.publish("ops", ["1"]).hear_one();
}
