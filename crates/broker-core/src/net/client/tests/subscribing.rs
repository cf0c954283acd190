//! Subscriptions: order, resuming, windows, damage, ends.

use std::time::Duration;

use broker_proto::{
    Deliver, Epoch, ErrorCode, Frame, Kind, Position, Seq, Skip, SkipRange, SkipReason, StartView,
};
use bytes::{Bytes, BytesMut};
use futures_util::{FutureExt, StreamExt};

use super::peer::{
    EPOCH, Listener, Peer, config, connected, connected_with, deliver_frame, records, texts,
    welcome,
};
use crate::net::client::{BatchItem, Client, ErrorKind, Item, StartAt, Subscription};

/// A subscription to room `ops` that begins at message `next`, and its id.
async fn subscribed(client: &Client, peer: &mut Peer, next: u64) -> (Subscription, u32) {
    let room = client.room("ops").unwrap();
    let (subscription, sub) = tokio::join!(room.subscribe(StartAt::START), async {
        let subscribe = peer.subscribe().await;
        peer.subscribed(subscribe.sub, EPOCH, next, 0).await;
        subscribe.sub
    });
    (subscription.unwrap(), sub)
}

async fn take(subscription: &mut Subscription, count: u64) -> Vec<u64> {
    let mut seqs = Vec::new();
    for _ in 0..count {
        let message = subscription.next_message().await.unwrap().unwrap();
        assert_eq!(message.payload, message.seq.to_string().as_bytes());
        assert_eq!(
            (
                message.room.as_str(),
                message.epoch,
                message.sender.as_str()
            ),
            ("ops", EPOCH, "bob")
        );
        seqs.push(message.seq.get());
    }
    seqs
}

fn skip(sub: u32, from: u64, to: u64) -> Skip {
    let range = SkipRange {
        from: Seq::new(from),
        to: Seq::new(to),
        reason: SkipReason::TRIMMED,
    };
    Skip {
        sub,
        range,
        epoch: EPOCH,
    }
}

/// Takes the subscription on the next connection and tells where it goes on.
async fn resumed(listener: &mut Listener) -> (Peer, broker_proto::Subscribe) {
    let mut peer = listener.welcome().await;
    let subscribe = peer.subscribe().await;
    (peer, subscribe)
}

#[tokio::test]
async fn messages_and_skips_come_in_order() {
    let (client, mut peer, _listener) = connected().await;
    let (mut subscription, sub) = subscribed(&client, &mut peer, 1).await;
    assert_eq!(subscription.position(), Position::new(EPOCH, Seq::FIRST));
    peer.deliver(sub, 1, 3).await;
    peer.send(skip(sub, 4, 9)).await;
    peer.deliver(sub, 10, 2).await;
    assert_eq!(take(&mut subscription, 3).await, [1, 2, 3]);
    let Some(Ok(Item::Skip(range))) = subscription.next().await else {
        panic!("not a skip")
    };
    assert_eq!(
        (range.from.get(), range.to.get(), range.reason),
        (4, 9, SkipReason::TRIMMED)
    );
    assert_eq!(take(&mut subscription, 2).await, [10, 11]);
    assert_eq!(subscription.position(), Position::new(EPOCH, Seq::new(12)));
}

#[tokio::test]
async fn the_stream_gives_what_next_gives() {
    let (client, mut peer, _listener) = connected().await;
    let (subscription, sub) = subscribed(&client, &mut peer, 1).await;
    peer.deliver(sub, 1, 4).await;
    let got: Vec<_> = subscription
        .take(4)
        .map(|item| item.unwrap().into_message().unwrap().seq.get())
        .collect()
        .await;
    assert_eq!(got, [1, 2, 3, 4]);
}

#[tokio::test]
async fn where_to_begin_is_passed_on() {
    let (client, mut peer, _listener) = connected().await;
    let room = client.room("ops").unwrap();
    let begin = room
        .subscribe(StartAt::last(10))
        .window_bytes(5000)
        .wait(true);
    let (subscription, subscribe) = tokio::join!(begin, async {
        let subscribe = peer.subscribe().await;
        peer.subscribed(subscribe.sub, EPOCH, 90, 99).await;
        subscribe
    });
    assert_eq!(
        (
            subscribe.room.as_str(),
            subscribe.start,
            subscribe.window,
            subscribe.waits()
        ),
        ("ops", StartAt::last(10), 5000, true)
    );
    assert_eq!(subscription.unwrap().head_at_start().get(), 99);
}

#[tokio::test]
async fn a_room_that_is_not_there_is_told() {
    let (client, mut peer, _listener) = connected().await;
    let room = client.room("ops").unwrap();
    let (subscription, ()) = tokio::join!(room.subscribe(StartAt::START), async {
        let subscribe = peer.subscribe().await;
        peer.fail(
            Kind::Subscribe.get(),
            subscribe.sub.into(),
            ErrorCode::NO_SUCH_ROOM,
        )
        .await;
    });
    assert_eq!(subscription.unwrap_err().kind(), ErrorKind::Absent);
}

#[tokio::test(start_paused = true)]
async fn a_subscription_resumes_after_what_was_queued() {
    let (client, mut peer, mut listener) = connected().await;
    let (mut subscription, sub) = subscribed(&client, &mut peer, 1).await;
    peer.deliver(sub, 1, 5).await;
    assert_eq!(take(&mut subscription, 2).await, [1, 2]);
    // Half of a frame is on its way when the connection ends.
    let mut bytes = BytesMut::new();
    deliver_frame(sub, 6, 5).encode(&mut bytes);
    peer.send_bytes(bytes.split_at(bytes.len() / 2).0).await;
    drop(peer);
    let (mut peer, subscribe) = resumed(&mut listener).await;
    assert_eq!(
        subscribe.start.view(),
        StartView::Position(Position::new(EPOCH, Seq::new(6)))
    );
    peer.subscribed(subscribe.sub, EPOCH, 6, 10).await;
    peer.deliver(subscribe.sub, 6, 5).await;
    assert_eq!(take(&mut subscription, 8).await, [3, 4, 5, 6, 7, 8, 9, 10]);
    assert!(subscription.next().now_or_never().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_subscription_that_has_not_begun_is_asked_for_again() {
    let (client, mut peer, mut listener) = connected().await;
    let room = client.room("ops").unwrap();
    let (subscription, _peer) = tokio::join!(room.subscribe(StartAt::last(3)), async {
        peer.subscribe().await;
        drop(peer);
        let (mut peer, subscribe) = resumed(&mut listener).await;
        assert_eq!(subscribe.start, StartAt::last(3));
        peer.subscribed(subscribe.sub, EPOCH, 8, 10).await;
        peer
    });
    assert_eq!(subscription.unwrap().position().seq.get(), 8);
}

#[tokio::test(start_paused = true)]
async fn a_room_that_is_waited_for_is_read_from_its_beginning() {
    let (client, mut peer, mut listener) = connected().await;
    let room = client.room("ops").unwrap();
    let (subscription, _) = tokio::join!(room.subscribe(StartAt::END).wait(true), async {
        let subscribe = peer.subscribe().await;
        peer.subscribed(subscribe.sub, Epoch::NONE, 1, 0).await;
    });
    let mut subscription = subscription.unwrap();
    assert!(subscription.position().epoch.is_none());
    drop(peer);
    // Made while the connection was away: its end then is not where this subscription stands.
    let (mut peer, subscribe) = resumed(&mut listener).await;
    assert_eq!(
        (subscribe.start, subscribe.waits()),
        (StartAt::seq(Seq::FIRST), true)
    );
    peer.subscribed(subscribe.sub, EPOCH, 1, 2).await;
    peer.deliver(subscribe.sub, 1, 2).await;
    assert_eq!(take(&mut subscription, 2).await, [1, 2]);
    assert_eq!(subscription.position(), Position::new(EPOCH, Seq::new(3)));
}

#[tokio::test]
async fn a_room_that_comes_into_being_tells_its_identity() {
    let (client, mut peer, _listener) = connected().await;
    let room = client.room("ops").unwrap();
    let (subscription, sub) = tokio::join!(room.subscribe(StartAt::START).wait(true), async {
        let subscribe = peer.subscribe().await;
        peer.subscribed(subscribe.sub, Epoch::NONE, 1, 0).await;
        subscribe.sub
    });
    let mut subscription = subscription.unwrap();
    peer.subscribed(sub, EPOCH, 1, 1).await;
    peer.deliver(sub, 1, 1).await;
    // Without a reset: there was no identity before.
    let Some(Ok(Item::Message(message))) = subscription.next().await else {
        panic!("not a message")
    };
    assert_eq!((message.epoch, message.seq), (EPOCH, Seq::FIRST));
}

#[tokio::test(start_paused = true)]
async fn a_new_identity_of_the_history_is_told() {
    let (client, mut peer, mut listener) = connected().await;
    let (mut subscription, sub) = subscribed(&client, &mut peer, 1).await;
    peer.deliver(sub, 1, 2).await;
    take(&mut subscription, 2).await;
    drop(peer);
    let (mut peer, subscribe) = resumed(&mut listener).await;
    let epoch = Epoch::new(78);
    peer.subscribed(subscribe.sub, epoch, 3, 3).await;
    peer.deliver(subscribe.sub, 3, 1).await;
    let Some(Ok(Item::Reset {
        previous,
        epoch: now,
        next,
    })) = subscription.next().await
    else {
        panic!("not a reset")
    };
    assert_eq!((previous, now, next.get()), (EPOCH, epoch, 3));
    let message = subscription.next_message().await.unwrap().unwrap();
    assert_eq!(message.position(), Position::new(epoch, Seq::new(3)));
}

#[tokio::test(start_paused = true)]
async fn lost_history_ends_the_subscription_after_what_was_queued() {
    let (client, mut peer, mut listener) = connected().await;
    let (mut subscription, sub) = subscribed(&client, &mut peer, 1).await;
    peer.deliver(sub, 1, 3).await;
    drop(peer);
    let (mut peer, subscribe) = resumed(&mut listener).await;
    peer.fail(
        Kind::Subscribe.get(),
        subscribe.sub.into(),
        ErrorCode::LOST_SUFFIX,
    )
    .await;
    assert_eq!(take(&mut subscription, 3).await, [1, 2, 3]);
    let error = subscription.next().await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Gap);
    assert!(error.to_string().contains("room \"ops\""), "{error}");
    assert!(subscription.has_ended());
    assert!(subscription.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_passing_refusal_of_a_standing_subscription_is_tried_again() {
    let (client, mut peer, mut listener) = connected().await;
    let (mut subscription, _) = subscribed(&client, &mut peer, 1).await;
    drop(peer);
    let (mut peer, subscribe) = resumed(&mut listener).await;
    peer.fail(Kind::Subscribe.get(), subscribe.sub.into(), ErrorCode::BUSY)
        .await;
    let (mut peer, subscribe) = resumed(&mut listener).await;
    peer.subscribed(subscribe.sub, EPOCH, 1, 1).await;
    peer.deliver(subscribe.sub, 1, 1).await;
    assert_eq!(take(&mut subscription, 1).await, [1]);
}

#[tokio::test(start_paused = true)]
async fn the_window_is_admitted_again_as_it_is_read() {
    let (client, mut peer, _listener) =
        connected_with(config().window_bytes(1000), welcome()).await;
    let (mut subscription, sub) = subscribed(&client, &mut peer, 1).await;
    let mut open: i64 = 1000;
    let (mut sent, mut read) = (0, 0);
    for _ in 0..100 {
        while open > 0 {
            let deliver = deliver_frame(sub, sent + 1, 3);
            open -= i64::try_from(deliver.body.len()).unwrap();
            sent += 3;
            peer.send(deliver).await;
        }
        if read == 0 {
            // Nothing is admitted while nothing is read.
            peer.expect_silence(Duration::from_secs(1)).await;
        }
        let next = peer.recv();
        tokio::pin!(next);
        loop {
            tokio::select! {
                biased;
                frame = &mut next => {
                    let Frame::Credit(credit) = frame else { panic!("{frame:?}") };
                    assert!(credit.sub == sub && credit.bytes >= 500, "{credit:?}");
                    open += i64::from(credit.bytes);
                    break;
                }
                seqs = take(&mut subscription, 1) => { read += 1; assert_eq!(seqs, [read]); }
            }
        }
        assert!(open <= 1000, "more than the window is admitted");
    }
}

#[tokio::test(start_paused = true)]
async fn a_resumed_window_leaves_room_for_what_is_unread() {
    let (client, mut peer, mut listener) =
        connected_with(config().window_bytes(1000), welcome()).await;
    let (mut subscription, sub) = subscribed(&client, &mut peer, 1).await;
    // A part is read, but not enough to be admitted again; the new connection begins with it.
    peer.deliver(sub, 1, 5).await;
    take(&mut subscription, 5).await;
    assert!(subscription.next().now_or_never().is_none());
    let deliver = deliver_frame(sub, 6, 15);
    let bytes = u32::try_from(deliver.body.len()).unwrap();
    peer.send(deliver).await;
    tokio::time::sleep(Duration::from_millis(1)).await;
    drop(peer);
    let (mut peer, subscribe) = resumed(&mut listener).await;
    assert_eq!(subscribe.window, 1000 - bytes);
    peer.subscribed(subscribe.sub, EPOCH, 21, 20).await;
    // Read to its end, the frame is admitted again: the window is whole.
    take(&mut subscription, 15).await;
    assert!(subscription.next().now_or_never().is_none());
    let Frame::Credit(credit) = peer.recv().await else {
        panic!("no credit")
    };
    assert_eq!(credit.bytes, bytes);
}

#[tokio::test]
async fn a_broker_that_sends_beyond_the_window_fails_the_subscription() {
    let (client, mut peer, _listener) = connected_with(config().window_bytes(100), welcome()).await;
    let (mut subscription, sub) = subscribed(&client, &mut peer, 1).await;
    // The first may go beyond, the second finds the window closed.
    peer.deliver(sub, 1, 5).await;
    peer.deliver(sub, 6, 1).await;
    assert_eq!(take(&mut subscription, 5).await, [1, 2, 3, 4, 5]);
    let error = subscription.next().await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Protocol);
    assert!(subscription.next().await.is_none());
    assert!(matches!(peer.recv().await, Frame::Unsubscribe(end) if end.sub == sub));
}

#[tokio::test]
async fn gaps_and_doubles_are_breaches() {
    for (from, next) in [(2, 4), (1, 5)] {
        let (client, mut peer, _listener) = connected().await;
        let (mut subscription, sub) = subscribed(&client, &mut peer, 1).await;
        let payloads: Vec<Bytes> = ["x", "y"].map(Bytes::from).into();
        peer.send(Deliver {
            sub,
            count: 2,
            next: Seq::new(next),
            body: records(from, &payloads),
        })
        .await;
        let error = loop {
            match subscription.next().await.unwrap() {
                Ok(_) => {}
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), ErrorKind::Protocol, "{error}");
        assert!(subscription.next().await.is_none());
    }
    let (client, mut peer, _listener) = connected().await;
    let (mut subscription, sub) = subscribed(&client, &mut peer, 1).await;
    peer.deliver(sub, 1, 2).await;
    peer.deliver(sub, 1, 2).await;
    take(&mut subscription, 2).await;
    assert_eq!(
        subscription.next().await.unwrap().unwrap_err().kind(),
        ErrorKind::Protocol
    );
}

/// Messages 1 to 3, of which the second has one bit wrong, at `byte` from the start of its record.
fn damaged(sub: u32, byte: usize) -> Deliver {
    let payloads: Vec<Bytes> = ["1", "2", "3"].map(Bytes::from).into();
    let whole = records(1, &payloads);
    let record = whole.len() / 3;
    let mut bytes = BytesMut::from(&whole[..]);
    *bytes.get_mut(record + byte).unwrap() ^= 1;
    Deliver {
        sub,
        count: 3,
        next: Seq::new(4),
        body: bytes.freeze(),
    }
}

#[tokio::test(start_paused = true)]
async fn a_damaged_message_is_told_and_fetched_again() {
    let last = records(1, &[Bytes::from("1")]).len() - 1;
    for byte in [0, 20, 40, last] {
        let (client, mut peer, mut listener) = connected().await;
        let (mut subscription, sub) = subscribed(&client, &mut peer, 1).await;
        peer.send(damaged(sub, byte)).await;
        peer.deliver(sub, 4, 2).await;
        assert_eq!(take(&mut subscription, 1).await, [1]);
        let error = subscription.next().await.unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damaged);
        assert!(
            error.to_string().contains("message 2 of room \"ops\""),
            "{error}"
        );
        let (mut again, subscribe) = resumed(&mut listener).await;
        assert_eq!(
            subscribe.start.view(),
            StartView::Position(Position::new(EPOCH, Seq::new(2)))
        );
        again.subscribed(subscribe.sub, EPOCH, 2, 5).await;
        again.deliver(subscribe.sub, 2, 4).await;
        assert_eq!(take(&mut subscription, 4).await, [2, 3, 4, 5]);
        assert!(
            peer.try_recv().await.is_none(),
            "the first connection is given up"
        );
    }
}

/// The seqs of the messages that come together next.
async fn take_batch(subscription: &mut Subscription) -> Vec<u64> {
    let item = subscription.next_batch().await.unwrap().unwrap();
    let batch = item.into_messages().expect("messages come next");
    assert_eq!((batch.room().as_str(), batch.epoch()), ("ops", EPOCH));
    let seqs: Vec<u64> = batch.iter().map(|message| message.seq.get()).collect();
    assert_eq!(
        (batch.len(), batch.first().get()),
        (seqs.len(), *seqs.first().unwrap())
    );
    for message in &batch {
        assert_eq!(message.payload, message.seq.to_string().as_bytes());
        assert_eq!(message.sender, "bob");
    }
    let owned: Vec<u64> = batch.into_iter().map(|message| message.seq.get()).collect();
    assert_eq!(owned, seqs);
    seqs
}

#[tokio::test]
async fn batches_and_single_messages_mix() {
    let (client, mut peer, _listener) = connected().await;
    let (mut subscription, sub) = subscribed(&client, &mut peer, 1).await;
    peer.deliver(sub, 1, 3).await;
    peer.deliver(sub, 4, 4).await;
    peer.send(skip(sub, 8, 9)).await;
    peer.deliver(sub, 10, 2).await;
    assert_eq!(take_batch(&mut subscription).await, [1, 2, 3]);
    assert_eq!(subscription.position(), Position::new(EPOCH, Seq::new(4)));
    assert_eq!(take(&mut subscription, 1).await, [4]);
    assert_eq!(take_batch(&mut subscription).await, [5, 6, 7]);
    let skipped = subscription.next_batch().await.unwrap().unwrap();
    assert!(matches!(skipped, BatchItem::Skip(range) if range.to.get() == 9));
    assert_eq!(take(&mut subscription, 2).await, [10, 11]);
    client.shutdown().await.unwrap();
    assert!(subscription.next_batch().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_batch_ends_before_a_damaged_message() {
    let (client, mut peer, mut listener) = connected().await;
    let (mut subscription, sub) = subscribed(&client, &mut peer, 1).await;
    peer.send(damaged(sub, 20)).await;
    assert_eq!(take_batch(&mut subscription).await, [1]);
    let error = subscription.next_batch().await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged);
    let (mut again, subscribe) = resumed(&mut listener).await;
    let at = Position::new(EPOCH, Seq::new(2));
    assert_eq!(subscribe.start.view(), StartView::Position(at));
    again.subscribed(subscribe.sub, EPOCH, 2, 5).await;
    again.deliver(subscribe.sub, 2, 4).await;
    assert_eq!(take_batch(&mut subscription).await, [2, 3, 4, 5]);
}

#[tokio::test]
async fn what_was_taken_as_a_batch_is_admitted_again() {
    let (client, mut peer, _listener) =
        connected_with(config().window_bytes(1000), welcome()).await;
    let (mut subscription, sub) = subscribed(&client, &mut peer, 1).await;
    let frame = deliver_frame(sub, 1, 20);
    let bytes = frame.body.len();
    peer.send(frame).await;
    assert_eq!(take_batch(&mut subscription).await.len(), 20);
    // At once, not when the next is asked for: the broker goes on while the batch is looked at.
    let Frame::Credit(credit) = peer.recv().await else {
        panic!("no credit")
    };
    assert_eq!((credit.sub, credit.bytes as usize), (sub, bytes));
}

#[tokio::test(start_paused = true)]
async fn damage_that_stays_ends_the_subscription() {
    let (client, mut peer, mut listener) = connected().await;
    let (mut subscription, sub) = subscribed(&client, &mut peer, 1).await;
    peer.send(damaged(sub, 0)).await;
    assert_eq!(take(&mut subscription, 1).await, [1]);
    for _ in 0..2 {
        assert_eq!(
            subscription.next().await.unwrap().unwrap_err().kind(),
            ErrorKind::Damaged
        );
        assert!(!subscription.has_ended());
        let (mut again, subscribe) = resumed(&mut listener).await;
        again.subscribed(subscribe.sub, EPOCH, 2, 5).await;
        let mut rest = damaged(subscribe.sub, 0);
        let first = records(1, &[Bytes::from("1")]).len();
        rest.body = rest.body.slice(first..);
        rest.count = 2;
        again.send(rest).await;
        peer = again;
    }
    assert_eq!(
        subscription.next().await.unwrap().unwrap_err().kind(),
        ErrorKind::Damaged
    );
    assert!(subscription.has_ended() && subscription.next().await.is_none());
    drop(peer);
}

#[tokio::test]
async fn dropping_it_unsubscribes_and_late_deliveries_are_dropped() {
    let (client, mut peer, _listener) = connected().await;
    let (subscription, sub) = subscribed(&client, &mut peer, 1).await;
    drop(subscription);
    assert!(matches!(peer.recv().await, Frame::Unsubscribe(end) if end.sub == sub));
    peer.deliver(sub, 1, 2).await;
    let (mut subscription, other) = subscribed(&client, &mut peer, 1).await;
    assert_ne!(other, sub);
    peer.deliver(other, 1, 1).await;
    assert_eq!(take(&mut subscription, 1).await, [1]);
}

#[tokio::test]
async fn a_subscribe_that_is_dropped_while_it_waits_is_taken_back() {
    let (client, mut peer, _listener) = connected().await;
    let room = client.room("ops").unwrap();
    let mut begin = Box::pin(IntoFuture::into_future(room.subscribe(StartAt::START)));
    assert!(begin.as_mut().now_or_never().is_none());
    let subscribe = peer.subscribe().await;
    drop(begin);
    assert!(matches!(peer.recv().await, Frame::Unsubscribe(end) if end.sub == subscribe.sub));
}

#[tokio::test(start_paused = true)]
async fn subscribing_times_out() {
    let (client, mut peer, _listener) = connected().await;
    let room = client.room("ops").unwrap();
    let (subscription, ()) = tokio::join!(room.subscribe(StartAt::START), async {
        peer.subscribe().await;
        let _ = tokio::time::timeout(Duration::from_secs(9), peer.recv()).await;
        assert!(matches!(peer.recv().await, Frame::Unsubscribe(_)));
    });
    assert_eq!(subscription.unwrap_err().kind(), ErrorKind::Timeout);
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_sends_while_the_window_is_full_never_stalls() {
    let limits = broker_proto::Welcome {
        unacked_max: 1,
        ..welcome()
    };
    let (client, mut peer, _listener) = connected_with(config().window_bytes(200), limits).await;
    let (mut subscription, sub) = subscribed(&client, &mut peer, 1).await;
    let room = client.room("echo").unwrap();
    let echo = tokio::spawn(async move {
        for _ in 0..50 {
            let message = subscription.next_message().await.unwrap().unwrap();
            room.send(message.payload).await.unwrap();
        }
    });
    let (mut open, mut seq, mut echoed) = (200_i64, 1, Vec::new());
    while echoed.len() < 50 {
        while open > 0 {
            let deliver = deliver_frame(sub, seq, 1);
            open -= i64::try_from(deliver.body.len()).unwrap();
            seq += 1;
            peer.send(deliver).await;
        }
        match peer.recv().await {
            Frame::Credit(credit) => open += i64::from(credit.bytes),
            Frame::Publish(publish) => {
                echoed.extend(texts(&publish));
                peer.ack_all(&publish, publish.first_number).await;
            }
            other => panic!("{other:?}"),
        }
    }
    echo.await.unwrap();
    assert_eq!(
        echoed,
        (1..=50).map(|seq: u64| seq.to_string()).collect::<Vec<_>>()
    );
}

#[tokio::test(start_paused = true)]
async fn unread_subscriptions_hold_up_nothing_else() {
    let (client, mut peer, _listener) = connected().await;
    let (_unread, sub) = subscribed(&client, &mut peer, 1).await;
    peer.deliver(sub, 1, 1000).await;
    let room = client.room("ops").unwrap();
    let (sent, ()) = tokio::join!(room.send("x"), async {
        let publish = peer.publish().await;
        peer.ack_all(&publish, 1).await;
    });
    sent.unwrap();
}

#[tokio::test]
async fn a_shutdown_ends_streams_without_an_error() {
    let (client, mut peer, _listener) = connected().await;
    let (mut subscription, sub) = subscribed(&client, &mut peer, 1).await;
    peer.deliver(sub, 1, 2).await;
    take(&mut subscription, 1).await;
    let (closed, ()) = tokio::join!(client.shutdown(), async {
        peer.goodbye().await;
        drop(peer);
    });
    closed.unwrap();
    assert_eq!(take(&mut subscription, 1).await, [2]);
    assert!(subscription.next().await.is_none());
}

#[tokio::test]
async fn a_client_that_gives_up_fails_its_streams() {
    let (client, mut peer, mut listener) = connected().await;
    let (mut subscription, _) = subscribed(&client, &mut peer, 1).await;
    drop(peer);
    let other = broker_proto::Welcome {
        store: broker_proto::StoreId::new([1; 16]),
        ..welcome()
    };
    let _peer = listener.welcome_with(other).await;
    assert_eq!(
        subscription.next().await.unwrap().unwrap_err().kind(),
        ErrorKind::OtherStore
    );
    assert!(subscription.next().await.is_none());
}

#[tokio::test]
async fn a_whole_batch_is_one_entry_and_shares_its_bytes() {
    let (client, mut peer, _listener) = connected().await;
    let (mut subscription, sub) = subscribed(&client, &mut peer, 1).await;
    peer.deliver(sub, 1, 400).await;
    let first = subscription.next_message().await.unwrap().unwrap();
    for _ in 2..400 {
        // Already there: nothing has to be waited for within a batch.
        subscription
            .next()
            .now_or_never()
            .unwrap()
            .unwrap()
            .unwrap();
    }
    let last = subscription
        .next()
        .now_or_never()
        .unwrap()
        .unwrap()
        .unwrap()
        .into_message()
        .unwrap();
    let distance = last
        .payload
        .as_ptr()
        .addr()
        .abs_diff(first.payload.as_ptr().addr());
    assert!(
        distance < 64 << 10,
        "the payloads lie {distance} bytes apart: they were copied"
    );
}
