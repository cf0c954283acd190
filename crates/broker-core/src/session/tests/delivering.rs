//! Subscriptions: history then live, credit, turns, errors of their own.

use broker_proto::{
    Ack, Epoch, Error, ErrorCode, Frame, Kind, Ping, Pong, RoomId, Seq, SkipRange, SkipReason,
    StartAt, Subscribe, Subscribed, Unsubscribe,
};

use super::peer::{Peer, delivered, room, subscribed, terms};
use super::store::{Call, Gate, position};
use crate::session::Terms;
use crate::store::{Hint, ReadReply, StoreError};
use crate::sync::Arc;

const WINDOW: u32 = 1 << 20;

fn texts(messages: &[(u64, String)]) -> Vec<&str> {
    messages.iter().map(|(_, text)| text.as_str()).collect()
}

fn bob(store: &Arc<Gate>) -> Peer {
    Peer::welcomed_under(store, 2, "bob", terms())
}

/// Bytes of deliver bodies.
fn bytes(frames: &[Frame]) -> usize {
    frames
        .iter()
        .map(|frame| {
            if let Frame::Deliver(deliver) = frame {
                deliver.body.len()
            } else {
                0
            }
        })
        .sum()
}

#[test]
fn history_and_live_are_one_stream() {
    let store = Gate::new();
    let mut bob = bob(&store);
    bob.publish("ops", ["1", "2"]).hear();
    let mut ann = Peer::welcomed(&store, "ann");
    let frames = ann.subscribe(7, "ops", StartAt::START, WINDOW).hear();
    let [stands] = subscribed(&frames)[..] else {
        panic!("{frames:?}")
    };
    assert_eq!(
        (stands.sub, stands.first, stands.next, stands.head),
        (7, Seq::FIRST, Seq::FIRST, Seq::new(2))
    );
    assert!(!stands.epoch.is_none());
    assert!(matches!(frames[0], Frame::Subscribed(_)));
    assert_eq!(
        delivered(&frames, 7),
        [(1, "1".to_owned()), (2, "2".to_owned())]
    );
    for n in 3..6 {
        bob.publish("ops", ["live"]).hear();
        assert_eq!(delivered(&ann.hear(), 7), [(n, "live".to_owned())]);
    }
    ann.hear_nothing();
}

#[test]
fn a_subscription_begins_where_it_is_told() {
    let store = Gate::new();
    let mut bob = bob(&store);
    bob.publish("ops", ["1", "2", "3"]).hear();
    let cases = [
        (StartAt::END, vec![]),
        (StartAt::seq(Seq::new(2)), vec!["2", "3"]),
        (StartAt::last(1), vec!["3"]),
        (StartAt::position(position(&store, "ops", 3)), vec!["3"]),
        (StartAt::position(position(&store, "ops", 4)), vec![]),
    ];
    for (start, expected) in cases {
        let mut ann = Peer::welcomed(&store, "ann");
        let frames = ann.subscribe(1, "ops", start, WINDOW).hear();
        assert_eq!(texts(&delivered(&frames, 1)), expected, "{start:?}");
        let next = subscribed(&frames)[0].next;
        assert_eq!(next.get(), 4 - expected.len() as u64, "{start:?}");
    }
}

#[test]
fn the_publisher_sees_its_own_messages_after_their_ack() {
    let mut ann = Peer::welcomed(&Gate::new(), "ann");
    ann.subscribe_waiting(1, "ops", StartAt::START).hear();
    let frames = ann.publish("ops", ["hi"]).hear();
    assert!(matches!(frames[0], Frame::Ack(_)), "{frames:?}");
    assert_eq!(texts(&delivered(&frames, 1)), ["hi"]);
}

#[test]
fn a_window_admits_one_whole_message_and_then_waits_for_credit() {
    let store = Gate::new();
    let mut bob = bob(&store);
    bob.publish("ops", ["1", "2", "3"]).hear();
    let mut ann = Peer::welcomed(&store, "ann");
    let frames = ann.subscribe(1, "ops", StartAt::START, 1).hear();
    assert_eq!(texts(&delivered(&frames, 1)), ["1"]);
    let debt = bytes(&frames) as u32 - 1;
    ann.credit(1, debt).hear_nothing();
    let frames = ann.credit(1, 1).hear();
    assert_eq!(texts(&delivered(&frames, 1)), ["2"]);
    let frames = ann.credit(1, WINDOW).hear();
    assert_eq!(texts(&delivered(&frames, 1)), ["3"]);
}

#[test]
fn a_window_of_nothing_stands_but_delivers_nothing() {
    let store = Gate::new();
    let mut bob = bob(&store);
    bob.publish("ops", ["1", "2"]).hear();
    let mut ann = Peer::welcomed(&store, "ann");
    let stands: Subscribed = ann.subscribe(1, "ops", StartAt::last(1), 0).hear_one();
    assert_eq!((stands.next, stands.head), (Seq::new(2), Seq::new(2)));
    bob.publish("ops", ["3"]).hear();
    ann.hear_nothing();
    // What was asked for is what comes, though the last message is another one by now.
    assert_eq!(
        texts(&delivered(&ann.credit(1, WINDOW).hear(), 1)),
        ["2", "3"]
    );
}

#[test]
fn a_room_that_is_waited_for_is_delivered_from_its_first_message() {
    for start in [
        StartAt::START,
        StartAt::END,
        StartAt::last(1),
        StartAt::seq(Seq::FIRST),
    ] {
        let store = Gate::new();
        let mut ann = Peer::welcomed(&store, "ann");
        let stands: Subscribed = ann.subscribe_waiting(1, "ops", start).hear_one();
        assert_eq!((stands.epoch, stands.head), (Epoch::NONE, Seq::NONE));
        bob(&store).publish("ops", ["1", "2"]).hear();
        let frames = ann.hear();
        assert!(!subscribed(&frames)[0].epoch.is_none(), "{frames:?}");
        assert_eq!(texts(&delivered(&frames, 1)), ["1", "2"], "{start:?}");
    }
}

#[test]
fn a_missing_room_is_an_error_of_that_subscription_alone() {
    let store = Gate::new();
    let mut bob = bob(&store);
    bob.publish("ops", ["1"]).hear();
    let mut ann = Peer::welcomed(&store, "ann");
    ann.subscribe(1, "ops", StartAt::END, WINDOW).hear();
    ann.subscribe(2, "none", StartAt::START, WINDOW).hear_error(
        ErrorCode::NO_SUCH_ROOM,
        2,
        Kind::Subscribe,
    );
    bob.publish("ops", ["2"]).hear();
    assert_eq!(texts(&delivered(&ann.hear(), 1)), ["2"]);
    // The number is free again.
    ann.subscribe(2, "ops", StartAt::last(1), WINDOW);
    assert_eq!(texts(&delivered(&ann.hear(), 2)), ["2"]);
}

#[test]
fn a_position_of_another_history_or_beyond_this_one_is_refused() {
    let store = Gate::new();
    bob(&store).publish("ops", ["1"]).hear();
    let here = position(&store, "ops", 1);
    let lost = broker_proto::Position::new(Epoch::new(here.epoch.get() ^ 1), Seq::new(2));
    let mut ann = Peer::welcomed(&store, "ann");
    ann.subscribe(1, "ops", StartAt::position(lost), WINDOW)
        .hear_error(ErrorCode::LOST_SUFFIX, 1, Kind::Subscribe);
    let far = broker_proto::Position::new(here.epoch, Seq::new(9));
    ann.subscribe(2, "ops", StartAt::position(far), WINDOW);
    let error: Error = ann.hear_one();
    assert!(
        matches!(error.code, ErrorCode::BAD_POSITION | ErrorCode::LOST_SUFFIX),
        "{error:?}"
    );
    assert_eq!(error.about, 2);
}

#[test]
fn a_number_that_is_in_use_ends_the_session_and_the_limit_does_not() {
    let store = Gate::new();
    bob(&store).publish("ops", ["1"]).hear();
    let mut ann = Peer::welcomed_under(
        &store,
        1,
        "ann",
        Terms {
            subscriptions_max: 1,
            ..terms()
        },
    );
    ann.subscribe(1, "ops", StartAt::END, WINDOW).hear();
    ann.subscribe(2, "ops", StartAt::END, WINDOW)
        .hear_error(ErrorCode::LIMIT, 2, Kind::Subscribe);
    ann.subscribe(1, "ops", StartAt::END, WINDOW)
        .hear_the_end(ErrorCode::UNEXPECTED_FRAME);
}

#[test]
fn an_unsubscribed_room_is_silent_and_no_longer_watched() {
    let store = Gate::new();
    let mut bob = bob(&store);
    bob.publish("ops", ["1"]).hear();
    let mut ann = Peer::welcomed(&store, "ann");
    ann.subscribe(1, "ops", StartAt::END, WINDOW).hear();
    store.calls();
    ann.say(Unsubscribe { sub: 1 }).hear_nothing();
    assert_eq!(store.calls(), [Call::Unwatch(room("ops"))]);
    bob.publish("ops", ["2"]).hear();
    ann.hear_nothing();
    // Crossing frames about what is gone are no fault.
    ann.say(Unsubscribe { sub: 1 }).credit(1, 5).hear_nothing();
}

#[test]
fn a_caught_up_subscription_costs_the_store_one_watch_a_growth() {
    let store = Gate::new();
    let mut bob = bob(&store);
    bob.publish("ops", ["1"]).hear();
    let mut ann = Peer::welcomed(&store, "ann");
    ann.subscribe(1, "ops", StartAt::END, WINDOW).hear();
    assert_eq!(store.watches(), 1);
    ann.hear_nothing();
    ann.say(Ping { nonce: 1 }).hear();
    assert_eq!(store.watches(), 1);
    bob.publish("ops", ["2", "3", "4"]).hear();
    ann.hear();
    assert_eq!(store.watches(), 2);
}

/// A store with as many rooms as letters in `rooms`, each with a hundred messages of 10 KiB.
fn full(rooms: &str) -> Arc<Gate> {
    let store = Gate::new();
    let mut bob = bob(&store);
    let payload = "x".repeat(10 << 10);
    for room in rooms.chars() {
        for _ in 0..100 {
            bob.publish(&room.to_string(), [payload.as_str()]).hear();
        }
    }
    store
}

#[test]
fn acks_and_pongs_never_stand_behind_more_than_a_turn_of_deliveries() {
    let store = full("abc");
    let mut ann = Peer::welcomed(&store, "ann");
    for (sub, room) in (1..).zip(["a", "b", "c"]) {
        ann.subscribe(sub, room, StartAt::START, 64 << 20);
    }
    let mut rounds = 0;
    let mut all = 0;
    loop {
        rounds += 1;
        ann.publish("d", ["x"]).say(Ping { nonce: rounds });
        ann.round();
        let before = ann.session.outbox().len();
        assert!(
            before < (64 << 10) + (11 << 10) + 1024,
            "{before} bytes in a turn"
        );
        while ann.take(5000) > 0 {}
        let frames = ann.frames();
        assert!(
            frames.iter().any(|frame| matches!(frame, Frame::Ack(_))),
            "round {rounds}"
        );
        assert!(
            frames
                .iter()
                .any(|frame| matches!(frame, Frame::Pong(Pong { nonce }) if *nonce == rounds))
        );
        let came = bytes(&frames);
        all += came;
        if came == 0 {
            break;
        }
    }
    assert!(
        all > 3 * 100 * (10 << 10) && rounds > 40,
        "{all} bytes in {rounds} rounds"
    );
}

#[test]
fn an_ack_is_put_behind_a_blocked_turn_and_no_further_turn_begins() {
    let store = full("a");
    let mut ann = Peer::welcomed(&store, "ann");
    ann.subscribe(1, "a", StartAt::START, 64 << 20).round();
    ann.take(1000);
    ann.session.handle_blocked();
    let waiting = ann.session.outbox().len();
    ann.publish("d", ["x"]).round();
    ann.round();
    let more = ann.session.outbox().len() - waiting;
    assert!(more > 0 && more < 100, "{more} bytes more: one ack");
}

#[test]
fn ready_subscriptions_take_turns() {
    let store = full("ab");
    let mut ann = Peer::welcomed(&store, "ann");
    ann.subscribe(1, "a", StartAt::START, 64 << 20)
        .subscribe(2, "b", StartAt::START, 64 << 20);
    let order: Vec<u32> = ann
        .hear()
        .iter()
        .filter_map(|frame| {
            if let Frame::Deliver(deliver) = frame {
                Some(deliver.sub)
            } else {
                None
            }
        })
        .collect();
    let last_of_one = order.iter().rposition(|sub| *sub == 1).unwrap();
    let first_of_two = order.iter().position(|sub| *sub == 2).unwrap();
    assert!(
        first_of_two <= 2 && last_of_one + 3 >= order.len(),
        "{order:?}"
    );
}

#[test]
fn a_message_larger_than_a_turn_comes_whole() {
    let store = Gate::new();
    let large = "x".repeat(200 << 10);
    bob(&store).publish("ops", [large.as_str(), "small"]).hear();
    let mut ann = Peer::welcomed(&store, "ann");
    let frames = ann.subscribe(1, "ops", StartAt::START, WINDOW).hear();
    assert_eq!(texts(&delivered(&frames, 1)), [large.as_str(), "small"]);
}

#[test]
fn reads_from_a_slow_disk_are_bounded_and_others_go_on() {
    let store = full("abcdefgh");
    let mut ann = Peer::welcomed(&store, "ann");
    store.slow(true);
    for (sub, room) in (1..).zip(["a", "b", "c", "d", "e", "f", "g", "h"]) {
        ann.subscribe(sub, room, StartAt::START, 64 << 20);
    }
    ann.hear_nothing();
    assert_eq!(store.reads(), 4);
    // The disk hangs; acks and pongs do not.
    let _: Ack = ann.publish("z", ["x"]).hear_one();
    let _: Pong = ann.say(Ping { nonce: 1 }).hear_one();
    let mut all = Vec::new();
    while store.reads() > 0 {
        assert!(store.reads() <= 4);
        store.finish_reads();
        all.extend(ann.hear());
    }
    for sub in 1..=8 {
        let seqs: Vec<u64> = delivered(&all, sub).iter().map(|(seq, _)| *seq).collect();
        assert_eq!(seqs, (1..=100).collect::<Vec<_>>(), "subscription {sub}");
    }
}

#[test]
fn a_lone_reader_of_the_disk_has_the_next_read_under_way_while_it_writes() {
    let store = full("a");
    let mut ann = Peer::welcomed(&store, "ann");
    store.slow(true);
    ann.subscribe(1, "a", StartAt::START, 64 << 20).round();
    store.finish_reads();
    ann.round();
    assert!(ann.session.outbox().len() > 50 << 10);
    assert_eq!(store.reads(), 1);
    store.finish_reads();
    ann.round();
    assert_eq!(store.reads(), 0, "not further ahead than one reply");
    ann.take(usize::MAX);
    let mut frames = ann.hear();
    while store.reads() > 0 {
        store.finish_reads();
        frames.extend(ann.hear());
    }
    assert_eq!(delivered(&frames, 1).len(), 100);
}

#[test]
fn what_was_read_ahead_leaves_by_turns() {
    let store = full("a");
    let mut ann = Peer::welcomed(&store, "ann");
    store.slow(true);
    ann.subscribe(1, "a", StartAt::START, 64 << 20).round();
    let (mut all, mut reads, mut turns) = (Vec::new(), 0, 0);
    while all.len() < 100 {
        if store.reads() > 0 {
            store.finish_reads();
            reads += 1;
        }
        ann.say(Ping { nonce: 1 }).round();
        while ann.take(5000) > 0 {}
        let frames = ann.frames();
        assert!(frames.iter().any(|frame| matches!(frame, Frame::Pong(_))));
        let came = bytes(&frames);
        assert!(came < (64 << 10) + (11 << 10), "{came} bytes in a turn");
        turns += usize::from(came > 0);
        all.extend(delivered(&frames, 1).into_iter().map(|(seq, _)| seq));
    }
    assert_eq!(all, (1..=100).collect::<Vec<_>>());
    assert!(turns >= 14, "{turns} turns");
    assert!(reads <= 7, "{reads} reads");
}

#[test]
fn what_is_left_of_a_reply_goes_with_its_subscription() {
    let store = full("a");
    let mut ann = Peer::welcomed(&store, "ann");
    store.slow(true);
    ann.subscribe(1, "a", StartAt::START, 64 << 20).round();
    store.finish_reads();
    ann.round();
    store.finish_reads();
    while ann.take(5000) > 0 {}
    // One turn of what was read ahead is in the outbox now, the others wait.
    ann.round();
    ann.say(Unsubscribe { sub: 1 }).round();
    store.slow(false);
    let first = ann.hear();
    let came = delivered(&first, 1).len();
    assert!((7..20).contains(&came), "{came} messages");
    let frames = ann.subscribe(1, "a", StartAt::last(1), WINDOW).hear();
    let seqs: Vec<u64> = delivered(&frames, 1).iter().map(|(seq, _)| *seq).collect();
    assert_eq!(seqs, [100], "only of the new subscription");
}

#[test]
fn a_reply_for_a_subscription_that_is_gone_is_dropped() {
    let store = full("a");
    let mut ann = Peer::welcomed_under(
        &store,
        1,
        "ann",
        Terms {
            disk_reads_max: 1,
            ..terms()
        },
    );
    store.slow(true);
    ann.subscribe(1, "a", StartAt::START, WINDOW).hear_nothing();
    ann.say(Unsubscribe { sub: 1 })
        .subscribe(1, "a", StartAt::last(1), WINDOW)
        .hear_nothing();
    assert_eq!(store.reads(), 1);
    store.finish_reads();
    ann.hear_nothing();
    store.finish_reads();
    let frames = ann.hear();
    assert_eq!(
        delivered(&frames, 1).first().unwrap().0,
        100,
        "only of the new subscription"
    );
}

fn reply(epoch: u64, next: u64, head: u64, skip: Option<SkipRange>) -> ReadReply {
    ReadReply {
        room: RoomId::new(1),
        epoch: Epoch::new(epoch),
        first: Seq::new(4),
        head: Seq::new(head),
        next: Seq::new(next),
        skip,
        count: 0,
        records: Vec::new(),
        hint: Hint::default(),
    }
}

#[test]
fn what_will_never_come_is_told_as_a_skip() {
    let store = Gate::new();
    bob(&store).publish("ops", ["1"]).hear();
    let mut ann = Peer::welcomed(&store, "ann");
    store.slow(true);
    ann.subscribe(1, "ops", StartAt::seq(Seq::new(2)), WINDOW)
        .hear_nothing();
    let range = SkipRange {
        from: Seq::new(2),
        to: Seq::new(3),
        reason: SkipReason::TRIMMED,
    };
    store.answer_read(Ok(reply(5, 4, 9, Some(range))));
    let frames = ann.hear();
    let [Frame::Subscribed(stands), Frame::Skip(skip)] = frames.as_slice() else {
        panic!("{frames:?}")
    };
    assert_eq!((stands.next, stands.first), (Seq::new(2), Seq::new(4)));
    assert_eq!(
        (skip.sub, skip.range, skip.epoch),
        (1, range, Epoch::new(5))
    );
}

#[test]
fn a_new_history_is_said_before_anything_of_it() {
    let store = Gate::new();
    bob(&store).publish("ops", ["1"]).hear();
    let mut ann = Peer::welcomed(&store, "ann");
    store.slow(true);
    ann.subscribe(1, "ops", StartAt::START, WINDOW)
        .hear_nothing();
    store.answer_read(Ok(reply(5, 5, 9, None)));
    assert_eq!(subscribed(&ann.hear())[0].epoch, Epoch::new(5));
    store.answer_read(Ok(reply(6, 6, 9, None)));
    assert_eq!(subscribed(&ann.hear())[0].epoch, Epoch::new(6));
    store.answer_read(Err(StoreError::Io {
        what: "segment 3".to_owned(),
    }));
    ann.hear_error(ErrorCode::INTERNAL, 1, Kind::Subscribe);
}

#[test]
fn a_wait_for_a_room_is_a_flag_that_others_do_not_need() {
    let store = Gate::new();
    let mut ann = Peer::welcomed(&store, "ann");
    ann.say(Subscribe {
        sub: 1,
        room: room("ops"),
        start: StartAt::START,
        window: 1,
        flags: 0,
    });
    ann.hear_error(ErrorCode::NO_SUCH_ROOM, 1, Kind::Subscribe);
}
