//! The window of unacknowledged sends: never exceeded, fair, and unmoved by callers that go away.

use std::collections::BTreeSet;
use std::time::Duration;

use broker_proto::Welcome;
use bytes::Bytes;
use futures_util::FutureExt;

use super::peer::{config, connected, connected_with, texts, welcome};
use crate::net::client::ErrorKind;

fn small(unacked_max: u32) -> Welcome {
    Welcome {
        unacked_max,
        ..welcome()
    }
}

#[tokio::test(start_paused = true)]
async fn no_more_numbers_than_allowed_are_unacknowledged() {
    let (client, mut peer, _listener) = connected_with(config(), small(4)).await;
    let room = client.room("ops").unwrap();
    let sender = tokio::spawn(async move {
        let ticket = room
            .send_all((1..=40).map(|number: u32| number.to_string()))
            .await
            .unwrap();
        ticket.await.unwrap().count
    });
    let mut acked = 0;
    while acked < 40 {
        let publish = peer.publish().await;
        assert!(
            publish.first_number + u64::from(publish.count) - 1 <= acked + 4,
            "beyond the window"
        );
        for number in publish.first_number..publish.first_number + u64::from(publish.count) {
            peer.ack("ops", number, 1, number).await;
            acked = number;
        }
    }
    assert_eq!(sender.await.unwrap(), 40);
}

#[tokio::test(start_paused = true)]
async fn a_hole_keeps_the_span_of_numbers_within_the_limit() {
    let (client, mut peer, _listener) = connected_with(config(), small(4)).await;
    let (ops, chat) = (client.room("ops").unwrap(), client.room("chat").unwrap());
    let first = ops.queue("1").await.unwrap();
    for _ in 2..=4 {
        drop(chat.queue("x").await.unwrap());
    }
    peer.publishes(4).await;
    // Numbers 2 to 4 are answered, but 1 is not: number 5 would be 4 beyond the oldest.
    peer.ack("chat", 2, 3, 1).await;
    let mut fifth = Box::pin(ops.queue("5"));
    let early = tokio::time::timeout(Duration::from_secs(1), &mut fifth).await;
    assert!(
        early.is_err(),
        "the window spans more numbers than the broker remembers"
    );
    peer.ack("ops", 1, 1, 1).await;
    drop(fifth.await.unwrap());
    first.await.unwrap();
    assert_eq!(peer.publish().await.first_number, 5);
}

#[tokio::test(start_paused = true)]
async fn no_more_bytes_than_allowed_are_unacknowledged() {
    let (client, mut peer, _listener) = connected().await;
    let room = client.room("ops").unwrap();
    let megabyte = Bytes::from(vec![b'm'; 1 << 20]);
    for _ in 0..8 {
        drop(
            room.queue(megabyte.clone())
                .now_or_never()
                .expect("8 MiB fit")
                .unwrap(),
        );
    }
    let mut ninth = Box::pin(room.queue("one byte more"));
    assert!(ninth.as_mut().now_or_never().is_none());
    let first = peer.publish().await;
    peer.ack_all(&first, 1).await;
    drop(ninth.await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn those_who_wait_are_served_in_order_and_those_who_leave_cost_nothing() {
    let (client, mut peer, _listener) = connected_with(config(), small(1)).await;
    let room = client.room("ops").unwrap();
    drop(room.queue("held").await.unwrap());
    let mut waiting: Vec<_> = (0..30)
        .map(|number: u32| {
            let room = room.clone();
            let mut queued = Box::pin(async move { room.queue(number.to_string()).await });
            // Polled once, so that it stands in the queue.
            assert!(queued.as_mut().now_or_never().is_none());
            Some(queued)
        })
        .collect();
    // The first, the last and some between go away, one of them just when its turn has come.
    for place in [0, 7, 8, 29] {
        *waiting.get_mut(place).unwrap() = None;
    }
    let publish = peer.publish().await;
    peer.ack_all(&publish, 1).await;
    let running: Vec<_> = waiting.into_iter().flatten().map(tokio::spawn).collect();
    let mut order = Vec::new();
    for seq in 2..=27 {
        let publish = peer.publish().await;
        assert_eq!(publish.count, 1);
        order.extend(texts(&publish));
        peer.ack_all(&publish, seq).await;
    }
    let expected: Vec<String> = (1..29)
        .filter(|number| ![7, 8].contains(number))
        .map(|number| number.to_string())
        .collect();
    assert_eq!(order, expected);
    for sender in running {
        drop(sender.await.unwrap().unwrap());
    }
}

#[tokio::test(start_paused = true)]
async fn the_turn_is_handed_on_when_its_owner_goes_away_after_being_woken() {
    let (client, mut peer, _listener) = connected_with(config(), small(1)).await;
    let room = client.room("ops").unwrap();
    drop(room.queue("held").await.unwrap());
    let mut first = Box::pin(room.queue("first"));
    assert!(first.as_mut().now_or_never().is_none());
    let second = tokio::spawn({
        let room = room.clone();
        async move { room.send("second").await }
    });
    tokio::task::yield_now().await;
    let publish = peer.publish().await;
    peer.ack_all(&publish, 1).await;
    // The ack is taken by the connection task, which wakes the first in the queue, which is never polled again.
    tokio::time::sleep(Duration::from_millis(1)).await;
    drop(first);
    let publish = peer.publish().await;
    assert_eq!(texts(&publish), ["second"]);
    peer.ack_all(&publish, 2).await;
    second.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn one_answer_that_makes_room_for_several_lets_them_all_in() {
    let (client, mut peer, _listener) = connected_with(config(), small(4)).await;
    let room = client.room("ops").unwrap();
    let held = room.send_all(["a", "b", "c", "d"]).await.unwrap();
    let waiting: Vec<_> = (0..3)
        .map(|number: u32| {
            let room = room.clone();
            tokio::spawn(async move { room.queue(number.to_string()).await })
        })
        .collect();
    peer.publishes(4).await;
    peer.ack("ops", 1, 4, 1).await;
    peer.publishes(3).await;
    for sender in waiting {
        drop(sender.await.unwrap().unwrap());
    }
    held.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_dropped_ticket_does_not_unsend() {
    let (client, mut peer, _listener) = connected().await;
    let room = client.room("ops").unwrap();
    let kept = room.queue("kept").await.unwrap();
    drop(room.queue("dropped").await.unwrap());
    let publish = peer.publish().await;
    assert_eq!(texts(&publish), ["kept", "dropped"]);
    peer.ack_all(&publish, 1).await;
    assert_eq!(kept.await.unwrap().seq.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn queueing_fails_when_the_window_does_not_move() {
    let (client, peer, listener) = connected_with(config(), small(1)).await;
    let room = client.room("ops").unwrap();
    // Nobody is there any more: the window stays full.
    drop((peer, listener));
    let held = room.queue("held").await.unwrap();
    let error = room.queue("waits").await.unwrap_err();
    assert_eq!(
        (error.kind(), error.is_retryable()),
        (ErrorKind::Timeout, true)
    );
    assert!(error.to_string().contains("was not sent"), "{error}");
    let error = held.await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(
        std::error::Error::source(&error).is_some(),
        "the reason why nobody is there: {error:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn numbers_that_no_broker_has_seen_are_used_again() {
    let (client, peer, mut listener) = connected().await;
    let room = client.room("ops").unwrap();
    drop(peer);
    let mut refused = Vec::new();
    // Connections are taken and dropped, so that the first message times out without ever being written.
    let failing = async {
        loop {
            drop(listener.accept().await);
        }
    };
    tokio::select! {
        error = room.send("lost") => refused.push(error.unwrap_err()),
        () = failing => {}
    }
    assert!(
        refused.iter().all(|error| error.is_retryable()),
        "{refused:?}"
    );
    let (sent, ()) = tokio::join!(room.send("first"), async {
        let mut peer = listener.welcome().await;
        let publish = peer.publish().await;
        assert_eq!(
            (publish.first_number, texts(&publish)),
            (1, vec!["first".to_owned()])
        );
        peer.ack_all(&publish, 1).await;
    });
    sent.unwrap();
}

#[tokio::test(start_paused = true)]
async fn callers_that_vanish_at_random_never_break_the_numbers() {
    let (client, mut peer, _listener) = connected_with(config(), small(3)).await;
    let room = client.room("ops").unwrap();
    let serve = tokio::spawn(async move {
        let mut stored = Vec::new();
        let mut next = 1;
        while let Some(frame) = peer.try_recv().await {
            let broker_proto::Frame::Publish(publish) = frame else {
                continue;
            };
            assert_eq!(
                publish.first_number, next,
                "a number was left out or used twice"
            );
            next += u64::from(publish.count);
            peer.ack_all(&publish, publish.first_number).await;
            stored.extend(texts(&publish));
        }
        stored
    });
    let mut seed = 0x5eed_u64;
    let mut tasks = Vec::new();
    for number in 0..300_u32 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let patience = Duration::from_micros((seed >> 33) % 3000);
        let room = room.clone();
        tasks.push(tokio::spawn(async move {
            let sent = tokio::time::timeout(patience, room.send(number.to_string())).await;
            sent.ok().map(|ack| (number.to_string(), ack.unwrap()))
        }));
    }
    let mut acked = BTreeSet::new();
    for task in tasks {
        acked.extend(task.await.unwrap().map(|(text, _)| text));
    }
    client.shutdown().await.unwrap();
    drop((room, client));
    let stored = serve.await.unwrap();
    let distinct: BTreeSet<String> = stored.iter().cloned().collect();
    assert_eq!(distinct.len(), stored.len(), "a message was sent twice");
    assert!(acked.is_subset(&distinct));
}
