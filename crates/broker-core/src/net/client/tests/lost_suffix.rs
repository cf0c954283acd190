//! What a client remembers of what it has seen, and what it does when the broker has it no more.

use std::time::Duration;

use broker_proto::{ErrorCode, Goodbye, Kind, Position, Seq, StoreId};

use super::peer::{EPOCH, Listener, Peer, STORE, connected, welcome};
use crate::net::client::{ErrorKind, StartAt, State};

/// What a hello says: rooms and seqs, all of the one epoch.
fn known(peer: &Peer) -> Vec<(String, u64)> {
    let hello = peer.hello.as_ref().unwrap();
    hello
        .known_heads
        .heads
        .iter()
        .map(|head| {
            assert_eq!(head.at.epoch, EPOCH);
            (head.room.to_string(), head.at.seq.get())
        })
        .collect()
}

/// The next connection, to a broker that has lost something.
async fn refused(listener: &mut Listener) -> Peer {
    let mut peer = listener.accept().await;
    peer.take_hello().await;
    peer.send(broker_proto::Error {
        code: ErrorCode::LOST_SUFFIX,
        about: 0,
        kind: Kind::Hello.get(),
        detail: "room ops had message 7, its history ends at 3".to_owned(),
        retry_after_ms: 0,
    })
    .await;
    peer.send(Goodbye {
        code: ErrorCode::LOST_SUFFIX,
        ..Goodbye::default()
    })
    .await;
    peer
}

#[tokio::test]
async fn a_first_hello_knows_nothing() {
    let (_client, peer, _listener) = connected().await;
    assert_eq!(known(&peer), []);
    assert_eq!(peer.hello.as_ref().unwrap().known_store, StoreId::NONE);
}

#[tokio::test(start_paused = true)]
async fn acks_are_remembered_the_last_used_room_first() {
    let (client, mut peer, mut listener) = connected().await;
    for (room, seq) in [("tea", 4), ("ops", 7), ("tea", 5)] {
        let ticket = client.room(room).unwrap().queue("x").await.unwrap();
        let publish = peer.publish().await;
        peer.ack_all(&publish, seq).await;
        ticket.await.unwrap();
    }
    drop(peer);
    let peer = listener.welcome().await;
    assert_eq!(peer.hello.as_ref().unwrap().known_store, STORE);
    assert_eq!(known(&peer), [("tea".to_owned(), 5), ("ops".to_owned(), 7)]);
    let term = peer.hello.as_ref().unwrap().known_heads.term;
    assert_eq!(term, welcome().term, "of the last leader that welcomed it");
}

#[tokio::test(start_paused = true)]
async fn what_nobody_acknowledged_is_not_known() {
    let (client, mut peer, mut listener) = connected().await;
    let ticket = client.room("ops").unwrap().queue("x").await.unwrap();
    let publish = peer.publish().await;
    // An ack of numbers that were never sent says nothing.
    peer.ack("ops", 900, 1, 900).await;
    drop(peer);
    let mut peer = listener.welcome().await;
    assert_eq!(known(&peer), []);
    let again = peer.publish().await;
    assert!(again.extensions.resend);
    assert_eq!(
        (again.first_number, &again.body),
        (publish.first_number, &publish.body)
    );
    peer.ack_all(&publish, 1).await;
    ticket.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn deliveries_are_remembered_also_after_the_subscription() {
    let (client, mut peer, mut listener) = connected().await;
    let room = client.room("ops").unwrap();
    let (subscription, ()) = tokio::join!(room.subscribe(StartAt::START), async {
        let sub = peer.subscribe().await.sub;
        peer.subscribed(sub, EPOCH, 1, 3).await;
        peer.deliver(sub, 1, 3).await;
    });
    let mut subscription = subscription.unwrap();
    for _ in 0..3 {
        subscription.next_message().await.unwrap().unwrap();
    }
    drop(peer);
    let peer = listener.welcome().await;
    assert_eq!(known(&peer), [("ops".to_owned(), 3)]);
    drop(subscription);
    drop(peer);
    let peer = listener.welcome().await;
    assert_eq!(known(&peer), [("ops".to_owned(), 3)]);
}

#[tokio::test(start_paused = true)]
async fn a_room_without_messages_is_not_known() {
    let (client, mut peer, mut listener) = connected().await;
    let room = client.room("ops").unwrap();
    let (subscription, ()) = tokio::join!(room.subscribe(StartAt::START), async {
        let sub = peer.subscribe().await.sub;
        peer.subscribed(sub, EPOCH, 1, 0).await;
    });
    drop(peer);
    assert_eq!(known(&listener.welcome().await), []);
    drop(subscription);
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_has_lost_something_ends_the_client() {
    let (client, mut peer, mut listener) = connected().await;
    let room = client.room("ops").unwrap();
    let ticket = room.queue("x").await.unwrap();
    let publish = peer.publish().await;
    peer.ack_all(&publish, 7).await;
    ticket.await.unwrap();
    let (subscription, ()) = tokio::join!(
        room.subscribe(StartAt::position(Position::new(EPOCH, Seq::new(8)))),
        async {
            let sub = peer.subscribe().await.sub;
            peer.subscribed(sub, EPOCH, 8, 7).await;
        }
    );
    let mut subscription = subscription.unwrap();
    let unanswered = room.queue("y").await.unwrap();
    peer.publish().await;
    drop(peer);
    let mut peer = refused(&mut listener).await;
    assert_eq!(known(&peer), [("ops".to_owned(), 7)]);

    let error = unanswered.await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LostSuffix);
    assert_eq!(error.code(), None);
    assert!(!error.is_retryable());
    let text = error.to_string();
    assert!(text.contains("it is unknown whether"), "{text}");
    assert!(
        text.contains("room ops had message 7, its history ends at 3; make a new client"),
        "{text}"
    );
    let error = subscription.next().await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LostSuffix);
    let error = room.send("z").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LostSuffix);
    let State::Closed { cause: Some(cause) } = client.state().borrow().clone() else {
        panic!("the client goes on");
    };
    assert_eq!(cause.kind(), ErrorKind::LostSuffix);
    assert_eq!(cause.code(), Some(ErrorCode::LOST_SUFFIX));
    // It is over: nothing was sent again, and nobody connects again.
    assert!(peer.try_recv().await.is_none());
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(listener.try_accept().await.is_none());
}
