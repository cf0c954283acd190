//! A hello that states what the peer knows to be stored: compared before anything else happens.

use broker_proto::{
    Ack, Epoch, ErrorCode, Frame, Goodbye, Hello, KnownHead, Ping, Pong, Position, Publish, Seq,
    StoreId, Welcome,
};

use super::peer::{Peer, hello, room, terms};
use super::store::{Call, Gate, position};
use crate::session::{Host, Progress, Stage, Terms};
use crate::store::{SessionId, Store};
use crate::sync::{Arc, AtomicU64, Ordering};

/// Counts the alarms.
#[derive(Debug, Default)]
struct Counting(AtomicU64);

impl Host for Counting {
    fn status(&self) -> String {
        String::new()
    }

    fn lost_suffix(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn counted() -> (Arc<Counting>, Terms) {
    let host = Arc::new(Counting::default());
    let terms = Terms::new("test 1", 42, Arc::clone(&host) as Arc<dyn Host>);
    (host, terms)
}

/// A store with three messages in "ops".
fn store() -> Arc<Gate> {
    let store = Gate::new();
    let _: Ack = Peer::welcomed(&store, "zoe")
        .publish("ops", ["1", "2", "3"])
        .hear_one();
    store.calls();
    store
}

fn knows(store: StoreId, room_name: &str, at: Position) -> Hello {
    let room = room(room_name);
    Hello {
        known_store: store,
        known_heads: vec![KnownHead { room, at }],
        ..hello("ann")
    }
}

/// Hears the alarm and gives its text.
fn alarm(peer: &mut Peer) -> String {
    let frames = peer.hear();
    let [Frame::Error(error), Frame::Goodbye(goodbye)] = frames.as_slice() else {
        panic!("{frames:?}");
    };
    assert_eq!(
        (error.code, error.kind, error.about, goodbye.code),
        (ErrorCode::LOST_SUFFIX, 1, 0, ErrorCode::LOST_SUFFIX)
    );
    assert!(peer.session.is_closing());
    error.detail.clone()
}

#[test]
fn who_knows_what_is_stored_is_welcomed() {
    let store = store();
    let (host, terms) = counted();
    let mut ann = Peer::connected(Stage::Serving(Arc::clone(&store)), 7, terms);
    let known = knows(store.info().store, "ops", position(&store, "ops", 3));
    let _: Welcome = ann.say(known).hear_one();
    assert_eq!(store.calls(), [Call::Claim(SessionId(7))]);
    let _: Ack = ann.publish("ops", ["4"]).hear_one();
    assert_eq!(host.0.load(Ordering::Relaxed), 0);
}

#[test]
fn who_knows_more_is_told_and_nothing_is_taken_from_it() {
    let store = store();
    let (host, terms) = counted();
    let mut ann = Peer::connected(Stage::Serving(Arc::clone(&store)), 7, terms);
    let known = knows(store.info().store, "ops", position(&store, "ops", 4));
    let text = alarm(ann.say(known));
    assert_eq!(text, "room ops had message 4, its history ends at 3");
    assert_eq!(store.calls(), [], "neither claimed nor changed");
    assert_eq!(host.0.load(Ordering::Relaxed), 1);
    // The store goes on as it was.
    let ack: Ack = Peer::welcomed(&store, "bob")
        .publish("ops", ["4"])
        .hear_one();
    assert_eq!(ack.iter().next().unwrap().first_seq, Seq::new(4));
}

#[test]
fn many_losses_are_told_in_few_words() {
    let store = store();
    let mut ann = Peer::connected(Stage::Serving(Arc::clone(&store)), 7, terms());
    let at = Position::new(Epoch::new(9), Seq::new(1));
    let long = |n: usize| KnownHead {
        room: room(&format!("{n:0128}")),
        at,
    };
    let known = Hello {
        known_store: store.info().store,
        known_heads: (0..20).map(long).collect(),
        ..hello("ann")
    };
    let text = alarm(ann.say(known));
    assert!(
        text.ends_with("does not exist; and 17 more rooms"),
        "{text}"
    );
}

#[test]
fn a_peer_of_another_store_is_welcomed_and_sees_that_it_is_another() {
    let store = store();
    let mut ann = Peer::connected(Stage::Serving(Arc::clone(&store)), 7, terms());
    let at = Position::new(Epoch::new(9), Seq::new(100));
    let known = knows(StoreId::new([3; 16]), "ops", at);
    let welcome: Welcome = ann.say(known).hear_one();
    assert_eq!(welcome.store, store.info().store);
}

#[test]
fn a_server_that_still_starts_compares_when_the_store_is_open() {
    for (seq, lost) in [(3, false), (4, true)] {
        let store = store();
        let mut ann = Peer::connected(Stage::Starting(Progress::default()), 1, terms());
        let known = knows(store.info().store, "ops", position(&store, "ops", seq));
        let _: broker_proto::Starting = ann.say(known).hear_one();
        ann.session
            .handle_stage(ann.now, Stage::Serving(Arc::clone(&store)));
        if lost {
            alarm(&mut ann);
        } else {
            let _: Welcome = ann.hear_one();
        }
    }
}

#[test]
fn nothing_but_pings_comes_before_the_answer() {
    let store = store();
    let known = |seq| knows(store.info().store, "ops", position(&store, "ops", seq));
    let mut ann = Peer::connected(Stage::Serving(Arc::clone(&store)), 1, terms());
    // The store's answer lies in the mailbox and was not handled yet.
    ann.say(known(3)).say(Ping { nonce: 5 });
    let frames = ann.hear();
    assert!(
        matches!(
            frames.as_slice(),
            [Frame::Pong(Pong { nonce: 5 }), Frame::Welcome(_)]
        ),
        "{frames:?}"
    );
    let mut bob = Peer::connected(Stage::Serving(Arc::clone(&store)), 2, terms());
    bob.say(known(3))
        .say(Publish::of(room("ops"), 1, ["x"]))
        .hear_the_end(ErrorCode::UNEXPECTED_FRAME);
}

#[test]
fn a_server_that_leaves_meanwhile_says_goodbye() {
    let store = store();
    let mut ann = Peer::connected(Stage::Serving(Arc::clone(&store)), 1, terms());
    ann.say(knows(store.info().store, "ops", position(&store, "ops", 3)));
    ann.session
        .handle_stage(ann.now, Stage::Draining(Arc::clone(&store)));
    let goodbye: Goodbye = ann.hear_one();
    assert_eq!(goodbye.code, ErrorCode::GOING_AWAY);
    assert_eq!(store.calls(), []);
}
