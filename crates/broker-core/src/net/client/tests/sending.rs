//! Sends: how they are packed, answered, refused, and sent again.

use std::time::Duration;

use broker_proto::{ErrorCode, Frame, Level, Micros, Pong, Seq};
use bytes::Bytes;

use super::peer::{EPOCH, ack_frame, config, connected, connected_with, texts, welcome};
use crate::clock::ManualClock;
use crate::net::client::{ErrorKind, Ticket};

async fn queue_numbered(
    room: &crate::net::client::Room,
    range: std::ops::RangeInclusive<u64>,
) -> Vec<Ticket> {
    let mut tickets = Vec::new();
    for number in range {
        tickets.push(room.queue(number.to_string()).await.unwrap());
    }
    tickets
}

#[tokio::test]
async fn a_send_is_acknowledged_with_its_place() {
    let (client, mut peer, _listener) = connected().await;
    let room = client.room("ops").unwrap();
    let (ack, ()) = tokio::join!(room.send("hello"), async {
        let publish = peer.publish().await;
        assert_eq!(
            (publish.first_number, texts(&publish)),
            (1, vec!["hello".to_owned()])
        );
        peer.ack_all(&publish, 42).await;
    });
    let ack = ack.unwrap();
    assert_eq!(
        (
            ack.room.as_str(),
            ack.epoch,
            ack.seq.get(),
            ack.level,
            ack.number
        ),
        ("ops", EPOCH, 42, Level::SYNCED, 1)
    );
}

#[tokio::test]
async fn consecutive_messages_to_a_room_share_a_frame() {
    let (client, mut peer, _listener) = connected().await;
    let (ops, chat) = (client.room("ops").unwrap(), client.room("chat").unwrap());
    let mut tickets = queue_numbered(&ops, 1..=600).await;
    tickets.extend(queue_numbered(&chat, 601..=602).await);
    tickets.extend(queue_numbered(&ops, 603..=603).await);
    let publishes = peer.publishes(603).await;
    let shape: Vec<_> = publishes
        .iter()
        .map(|p| (p.room.as_str(), p.first_number, p.count))
        .collect();
    assert_eq!(
        shape,
        [
            ("ops", 1, 512),
            ("ops", 513, 88),
            ("chat", 601, 2),
            ("ops", 603, 1)
        ]
    );
    let all: Vec<String> = publishes.iter().flat_map(texts).collect();
    assert_eq!(
        all,
        (1..=603)
            .map(|number: u64| number.to_string())
            .collect::<Vec<_>>()
    );
    // One run over several frames is what a broker sends that has stored them together.
    peer.ack("ops", 1, 600, 1).await;
    peer.ack("chat", 601, 2, 1).await;
    peer.ack("ops", 603, 1, 601).await;
    let mut seqs = Vec::new();
    for ticket in tickets {
        seqs.push(ticket.await.unwrap().seq.get());
    }
    assert_eq!(seqs, (1..=600).chain([1, 2, 601]).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn all_ready_senders_append_before_the_task_writes() {
    let (client, mut peer, _listener) = connected().await;
    let room = client.room("ops").unwrap();
    // An answered request: after it the connection task sleeps.
    let ((), pinged) = tokio::join!(
        async {
            let Frame::Ping(ping) = peer.recv_all().await else {
                panic!("not a ping")
            };
            peer.send(Pong { nonce: ping.nonce }).await;
        },
        client.ping()
    );
    pinged.unwrap();
    // Spawned by a task of the only worker, as in an application: that worker runs the connection task next after the
    // sender that has woken it, with the other senders still in its queue.
    let spawning = tokio::spawn(async move {
        let senders = (0..64).map(|number: u32| {
            let room = room.clone();
            tokio::spawn(async move { room.send(number.to_string()).await })
        });
        senders.collect::<Vec<_>>()
    });
    let publish = peer.publish().await;
    assert_eq!(
        publish.count, 64,
        "the task wrote before all senders had appended"
    );
    peer.ack_all(&publish, 1).await;
    for sender in spawning.await.unwrap() {
        sender.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn large_payloads_go_whole_and_unchanged() {
    let (client, mut peer, _listener) = connected().await;
    let room = client.room("ops").unwrap();
    let payloads: Vec<Bytes> = [0, 1, 1024, 1025, 5000, 262_144, 1 << 20, 3]
        .into_iter()
        .map(|size| Bytes::from(vec![b'x'; size]))
        .collect();
    let ticket = room.send_all(payloads.clone()).await.unwrap();
    let publishes = peer.publishes(8).await;
    let got: Vec<Bytes> = publishes
        .iter()
        .flat_map(|p| {
            p.entries()
                .map(|e| Bytes::copy_from_slice(e.payload))
                .collect::<Vec<_>>()
        })
        .collect();
    assert!(got == payloads);
    for publish in &publishes {
        assert!(publish.count == 1 || publish.body.len() <= 256 << 10);
        assert!(
            publish
                .entries()
                .all(|entry| entry.crc == crc32c::crc32c(entry.payload))
        );
        peer.ack_all(publish, publish.first_number).await;
    }
    assert_eq!(ticket.await.unwrap().count, 8);
}

#[tokio::test]
async fn doubled_and_unknown_acks_change_nothing() {
    let (client, mut peer, _listener) = connected().await;
    let room = client.room("ops").unwrap();
    let mut tickets = queue_numbered(&room, 1..=3).await;
    peer.publishes(3).await;
    peer.ack("ops", 900, 5, 1).await;
    peer.ack("ops", 2, 1, 12).await;
    peer.ack("ops", 1, 3, 50).await;
    peer.ack("ops", 1, 3, 90).await;
    let last = tickets.pop().unwrap().await.unwrap();
    assert_eq!(last.seq, Seq::new(52));
    assert_eq!(tickets.pop().unwrap().await.unwrap().seq, Seq::new(12));
    assert_eq!(tickets.pop().unwrap().await.unwrap().seq, Seq::new(50));
}

#[tokio::test]
async fn a_refused_run_fails_its_messages_only() {
    let (client, mut peer, _listener) = connected().await;
    let room = client.room("ops").unwrap();
    let tickets = queue_numbered(&room, 1..=6).await;
    peer.publishes(6).await;
    peer.refuse(3, 2, ErrorCode::NO_SPACE).await;
    peer.ack("ops", 1, 2, 1).await;
    peer.ack("ops", 5, 2, 3).await;
    let mut ends = Vec::new();
    for ticket in tickets {
        ends.push(
            ticket
                .await
                .map(|ack| ack.seq.get())
                .map_err(|error| (error.kind(), error.is_retryable())),
        );
    }
    let refused = Err((ErrorKind::Refused(ErrorCode::NO_SPACE), true));
    assert_eq!(ends, [Ok(1), Ok(2), refused, refused, Ok(3), Ok(4)]);
}

#[tokio::test]
async fn honest_errors_for_what_cannot_be_stored_again() {
    let (client, mut peer, mut listener) = connected().await;
    let room = client.room("ops").unwrap();
    let tickets = queue_numbered(&room, 1..=1).await;
    peer.publishes(1).await;
    peer.refuse(1, 1, ErrorCode::DUPLICATE).await;
    for ticket in tickets {
        let error = ticket.await.unwrap_err();
        assert_eq!(error.code(), Some(ErrorCode::DUPLICATE));
        assert!(
            error.to_string().contains("its seq is no longer known"),
            "{error}"
        );
        assert!(!error.is_retryable());
    }
    // Another connection has this producer now: nothing more is stored from this one, so the client comes back.
    let (sent, ()) = tokio::join!(room.send("2"), async {
        peer.publishes(1).await;
        peer.refuse(2, 1, ErrorCode::SUPERSEDED).await;
    });
    assert_eq!(sent.unwrap_err().code(), Some(ErrorCode::SUPERSEDED));
    let mut peer = listener.welcome().await;
    let (sent, ()) = tokio::join!(room.send("3"), async {
        let publish = peer.publish().await;
        assert_eq!(publish.first_number, 3);
        peer.ack_all(&publish, 9).await;
    });
    assert_eq!(sent.unwrap().seq.get(), 9);
}

#[tokio::test]
async fn what_was_not_acknowledged_is_sent_again_with_the_same_numbers() {
    let (client, mut peer, mut listener) = connected().await;
    let room = client.room("ops").unwrap();
    let mut tickets = queue_numbered(&room, 1..=10).await;
    let first = peer.publishes(10).await;
    assert_eq!(first.len(), 1, "one frame");
    peer.ack("ops", 1, 3, 1).await;
    peer.ack("ops", 6, 1, 6).await;
    tickets.remove(5).await.unwrap();
    let producer = peer.producer();
    drop(peer);
    tickets.extend(queue_numbered(&room, 11..=12).await);
    let mut peer = listener.welcome().await;
    assert_eq!(peer.producer(), producer);
    let again = peer.publishes(8).await;
    let numbers: Vec<_> = again
        .iter()
        .map(|p| (p.first_number, texts(p).join(",")))
        .collect();
    assert_eq!(
        numbers,
        [
            (4, "4,5".to_owned()),
            (7, "7,8,9,10".to_owned()),
            (11, "11,12".to_owned())
        ]
    );
    peer.ack("ops", 4, 2, 4).await;
    peer.ack("ops", 7, 6, 7).await;
    for ticket in tickets {
        let ack = ticket.await.unwrap();
        assert_eq!(ack.number, ack.seq.get());
    }
}

#[tokio::test]
async fn a_broker_that_goes_away_costs_no_message() {
    let (client, mut peer, mut listener) = connected().await;
    let room = client.room("ops").unwrap();
    let tickets = queue_numbered(&room, 1..=4).await;
    peer.publishes(4).await;
    peer.ack("ops", 1, 1, 1).await;
    peer.refuse(2, 3, ErrorCode::GOING_AWAY).await;
    let mut peer = listener.welcome().await;
    let again = peer.publishes(3).await;
    assert_eq!(again.first().unwrap().first_number, 2);
    peer.ack("ops", 2, 3, 2).await;
    for ticket in tickets {
        ticket.await.unwrap();
    }
}

#[tokio::test]
async fn messages_under_an_id_carry_its_producer_and_are_sent_again() {
    let (client, mut peer, mut listener) = connected().await;
    let room = client.room("ops").unwrap();
    let own = room.queue("own").await.unwrap();
    let mut lines = Vec::new();
    for (number, line) in (1..).zip(["a", "b", "c"]) {
        lines.push(room.queue_with_id("job-7", number, line).await.unwrap());
    }
    let publishes = peer.publishes(4).await;
    let id = publishes.get(1).unwrap().extensions.producer;
    assert!(id.is_some_and(|id| id != peer.producer()));
    assert_eq!(
        publishes
            .iter()
            .map(|p| (p.first_number, p.count))
            .collect::<Vec<_>>(),
        [(1, 1), (1, 3)]
    );
    // The client's own number 1 is another one than the id's.
    peer.send(ack_frame("ops", 1, 1, 5, id)).await;
    drop(peer);
    let mut peer = listener.welcome().await;
    let again = peer.publishes(3).await;
    let shape: Vec<_> = again
        .iter()
        .map(|p| (p.extensions.producer, p.first_number, p.count))
        .collect();
    assert_eq!(shape, [(None, 1, 1), (id, 2, 2)]);
    for publish in &again {
        peer.ack_all(publish, 10 * publish.first_number).await;
    }
    assert_eq!(own.await.unwrap().seq.get(), 10);
    let mut seqs = Vec::new();
    for line in lines {
        let ack = line.await.unwrap();
        seqs.push((ack.number, ack.seq.get()));
    }
    assert_eq!(seqs, [(1, 5), (2, 20), (3, 21)]);
}

#[tokio::test]
async fn the_same_id_twice_at_once_is_answered_twice() {
    let (client, mut peer, _listener) = connected().await;
    let room = client.room("ops").unwrap();
    let one = room.queue_with_id("k", 1, "x").await.unwrap();
    let two = room.queue_with_id("k", 1, "x").await.unwrap();
    for publish in peer.publishes(2).await {
        peer.ack_all(&publish, 8).await;
    }
    assert_eq!(one.await.unwrap().seq.get(), 8);
    assert_eq!(two.await.unwrap().seq.get(), 8);
}

#[tokio::test]
async fn a_forgotten_producer_is_replaced_without_an_error() {
    let (client, mut peer, mut listener) = connected().await;
    let room = client.room("ops").unwrap();
    let (sent, ()) = tokio::join!(room.send("1"), async {
        let publish = peer.publish().await;
        peer.ack_all(&publish, 1).await;
    });
    sent.unwrap();
    let tickets = queue_numbered(&room, 2..=3).await;
    peer.publishes(2).await;
    // The broker has forgotten the producer, and these were never sent before: they are certainly not stored.
    peer.refuse(2, 2, ErrorCode::OUTCOME_UNKNOWN).await;
    let old = peer.producer();
    let mut peer = listener.welcome().await;
    assert_ne!(peer.producer(), old);
    let publish = peer.publish().await;
    assert_eq!(
        (publish.first_number, texts(&publish)),
        (1, vec!["2".to_owned(), "3".to_owned()])
    );
    peer.ack_all(&publish, 2).await;
    for (seq, ticket) in (2..).zip(tickets) {
        assert_eq!(ticket.await.unwrap().seq.get(), seq);
    }
}

#[tokio::test]
async fn an_unknown_outcome_of_a_retry_is_told() {
    let (client, mut peer, mut listener) = connected().await;
    let room = client.room("ops").unwrap();
    let tickets = queue_numbered(&room, 1..=2).await;
    peer.publishes(2).await;
    drop(peer);
    let mut peer = listener.welcome().await;
    peer.publishes(2).await;
    peer.refuse(1, 2, ErrorCode::OUTCOME_UNKNOWN).await;
    for ticket in tickets {
        let error = ticket.await.unwrap_err();
        assert_eq!(
            (error.kind(), error.is_retryable()),
            (ErrorKind::OutcomeUnknown, false)
        );
    }
    // Perhaps only those two are in doubt, so the producer goes on. If the broker does not know it, it says so of the next
    // message too, which then goes under a new one.
    let (sent, ()) = tokio::join!(room.send("3"), async {
        let publish = peer.publish().await;
        assert_eq!(
            (publish.first_number, publish.extensions.resend),
            (3, false)
        );
        peer.refuse(3, 1, ErrorCode::OUTCOME_UNKNOWN).await;
        let old = peer.producer();
        let mut peer = listener.welcome().await;
        assert_ne!(peer.producer(), old);
        let publish = peer.publish().await;
        assert_eq!(
            (publish.first_number, publish.extensions.resend),
            (1, false)
        );
        peer.ack_all(&publish, 1).await;
    });
    sent.unwrap();
}

#[tokio::test]
async fn one_message_in_doubt_among_resent_ones_harms_no_other() {
    let (client, mut peer, mut listener) = connected().await;
    let room = client.room("ops").unwrap();
    let mut tickets = queue_numbered(&room, 1..=3).await;
    peer.publishes(3).await;
    drop(peer);
    let mut peer = listener.welcome().await;
    tickets.extend(queue_numbered(&room, 4..=4).await);
    peer.publishes(4).await;
    // Of the three, one may be stored already, and the broker cannot tell.
    peer.refuse(2, 1, ErrorCode::OUTCOME_UNKNOWN).await;
    peer.ack("ops", 1, 1, 1).await;
    peer.ack("ops", 3, 2, 3).await;
    let mut ends = Vec::new();
    for ticket in tickets {
        let end = ticket.await;
        ends.push(end.map(|ack| ack.seq.get()).map_err(|error| error.kind()));
    }
    assert_eq!(ends, [Ok(1), Err(ErrorKind::OutcomeUnknown), Ok(3), Ok(4)]);
    let (sent, ()) = tokio::join!(room.send("5"), async {
        let publish = peer.publish().await;
        assert_eq!(publish.first_number, 5);
        peer.ack_all(&publish, 5).await;
    });
    assert_eq!(sent.unwrap().seq.get(), 5);
}

#[tokio::test]
async fn only_what_was_sent_before_says_so() {
    let (client, mut peer, mut listener) = connected().await;
    let room = client.room("ops").unwrap();
    let mut tickets = queue_numbered(&room, 1..=6).await;
    tickets.push(room.queue_with_id("job-7", 1, "x").await.unwrap());
    let marks = |publishes: &[broker_proto::Publish]| {
        let mark = |publish: &broker_proto::Publish| {
            (
                publish.first_number,
                publish.count,
                publish.extensions.resend,
            )
        };
        publishes.iter().map(mark).collect::<Vec<_>>()
    };
    assert_eq!(
        marks(&peer.publishes(7).await),
        [(1, 6, false), (1, 1, false)]
    );
    peer.ack("ops", 3, 1, 3).await;
    tickets.remove(2).await.unwrap();
    drop(peer);
    // These are queued while nobody is connected, and not sent again.
    tickets.extend(queue_numbered(&room, 7..=8).await);
    for resend in [false, true] {
        let mut peer = listener.welcome().await;
        let again = peer.publishes(8).await;
        assert_eq!(
            marks(&again).get(..3),
            Some([(1, 2, true), (4, 3, true), (1, 1, true)].as_slice())
        );
        assert_eq!(marks(&again).get(3..), Some([(7, 2, resend)].as_slice()));
    }
    let mut peer = listener.welcome().await;
    let publishes = peer.publishes(8).await;
    assert!(publishes.iter().all(|publish| publish.extensions.resend));
    for publish in &publishes {
        peer.ack_all(publish, 100 + publish.first_number).await;
    }
    for ticket in tickets {
        ticket.await.unwrap();
    }
    // A new message is a new one.
    let (sent, ()) = tokio::join!(room.send("9"), async {
        let publish = peer.publish().await;
        assert_eq!(
            (publish.first_number, publish.extensions.resend),
            (9, false)
        );
        peer.ack_all(&publish, 9).await;
    });
    sent.unwrap();
}

#[tokio::test]
async fn a_message_in_doubt_is_not_sent_again_under_another_producer() {
    let (client, mut peer, _listener) = connected().await;
    let room = client.room("ops").unwrap();
    let tickets = queue_numbered(&room, 1..=1).await;
    peer.publish().await;
    // The disk failed while it was written: a restart of the broker may bring it back.
    peer.refuse(1, 1, ErrorCode::IN_DOUBT).await;
    for ticket in tickets {
        let error = ticket.await.unwrap_err();
        assert_eq!(
            (error.kind(), error.is_retryable()),
            (ErrorKind::OutcomeUnknown, false)
        );
    }
    // The broker knows the producer, so the connection and the numbers go on.
    let (sent, ()) = tokio::join!(room.send("2"), async {
        let publish = peer.publish().await;
        assert_eq!(
            (publish.first_number, texts(&publish)),
            (2, vec!["2".to_owned()])
        );
        peer.ack_all(&publish, 1).await;
    });
    sent.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_the_broker_may_have_forgotten_is_not_sent_again() {
    let clock = ManualClock::new(Micros::new(1_000_000));
    let (client, mut peer, mut listener) =
        connected_with(config().clock(clock.clone()), welcome()).await;
    let room = client.room("ops").unwrap();
    let old = room.queue("old").await.unwrap();
    peer.publishes(1).await;
    drop(peer);
    // The machine slept: its runtime did not notice, the broker has gone on for an hour.
    clock.advance(Duration::from_secs(3600));
    let new = room.queue("new").await.unwrap();
    let mut peer = listener.welcome().await;
    let publish = peer.publish().await;
    assert_eq!(
        (publish.first_number, texts(&publish)),
        (2, vec!["new".to_owned()])
    );
    peer.ack_all(&publish, 2).await;
    new.await.unwrap();
    let error = old.await.unwrap_err();
    assert_eq!(
        (error.kind(), error.is_retryable()),
        (ErrorKind::OutcomeUnknown, false)
    );
}

#[tokio::test(start_paused = true)]
async fn an_ack_that_comes_late_is_in_time() {
    let (client, mut peer, _listener) = connected().await;
    let room = client.room("ops").unwrap();
    let (sent, ()) = tokio::join!(room.send("slow"), async {
        let publish = peer.publish().await;
        // The peer answers pings all the while, so the connection stays.
        let _ = tokio::time::timeout(Duration::from_millis(9_900), peer.recv()).await;
        peer.ack_all(&publish, 1).await;
    });
    sent.unwrap();
}

#[tokio::test(start_paused = true)]
async fn without_an_ack_the_outcome_is_unknown_and_the_window_free() {
    let limits = broker_proto::Welcome {
        unacked_max: 2,
        ..welcome()
    };
    let (client, mut peer, _listener) = connected_with(config(), limits).await;
    let room = client.room("ops").unwrap();
    let tickets = queue_numbered(&room, 1..=2).await;
    let begun = tokio::time::Instant::now();
    let third = tokio::spawn({
        let room = room.clone();
        async move { room.send("3").await }
    });
    let watch = async {
        peer.publishes(2).await;
        peer.expect_silence(Duration::from_secs(10)).await;
    };
    tokio::join!(watch);
    for ticket in tickets {
        let error = ticket.await.unwrap_err();
        assert_eq!(
            (error.kind(), error.is_retryable()),
            (ErrorKind::Timeout, false)
        );
        assert!(
            error
                .to_string()
                .contains("unknown whether the message was stored"),
            "{error}"
        );
    }
    assert!(
        begun.elapsed() < Duration::from_millis(10_100),
        "{:?}",
        begun.elapsed()
    );
    let error = third.await.unwrap().unwrap_err();
    assert_eq!(
        (error.kind(), error.is_retryable()),
        (ErrorKind::Timeout, true)
    );
    assert!(error.to_string().contains("was not sent"), "{error}");
    // A late ack for what nobody waits for is passed over, and the numbers go on.
    peer.ack("ops", 1, 2, 1).await;
    let (sent, ()) = tokio::join!(room.send("4"), async {
        let publish = peer.publish().await;
        assert_eq!(publish.first_number, 3);
        peer.ack_all(&publish, 3).await;
    });
    assert_eq!(sent.unwrap().seq.get(), 3);
}

#[tokio::test]
async fn an_ack_for_another_room_is_a_breach() {
    let (client, mut peer, mut listener) = connected().await;
    let room = client.room("ops").unwrap();
    let ticket = room.queue("x").await.unwrap();
    peer.publishes(1).await;
    peer.ack("chat", 1, 1, 1).await;
    let mut peer = listener.welcome().await;
    let publish = peer.publish().await;
    peer.ack_all(&publish, 4).await;
    assert_eq!(ticket.await.unwrap().seq.get(), 4);
}

#[tokio::test]
async fn a_bulk_ticket_tells_each_outcome() {
    let (client, mut peer, _listener) = connected().await;
    let room = client.room("ops").unwrap();
    let mut payloads: Vec<Bytes> = (1..=5)
        .map(|number: u32| number.to_string().into())
        .collect();
    payloads.push(vec![0; (1 << 20) + 1].into());
    let ticket = room.send_all(payloads).await.unwrap();
    assert_eq!(ticket.len(), 5);
    peer.publishes(5).await;
    peer.ack("ops", 1, 2, 1).await;
    peer.refuse(3, 1, ErrorCode::BUSY).await;
    peer.ack("ops", 4, 2, 3).await;
    let outcomes = ticket.outcomes().await;
    let ends: Vec<_> = outcomes
        .into_iter()
        .map(|outcome| {
            (
                outcome.messages,
                outcome
                    .result
                    .map(|run| run.first_seq.get())
                    .map_err(|error| error.kind()),
            )
        })
        .collect();
    let busy = ErrorKind::Refused(ErrorCode::BUSY);
    assert_eq!(
        ends,
        [
            (0..2, Ok(1)),
            (2..3, Err(busy)),
            (3..5, Ok(3)),
            (5..5, Err(ErrorKind::TooLarge))
        ]
    );
}

#[tokio::test]
async fn an_empty_bulk_send_is_done_at_once() {
    let (client, _peer, _listener) = connected().await;
    let ticket = client
        .room("ops")
        .unwrap()
        .send_all(Vec::<Bytes>::new())
        .await
        .unwrap();
    assert_eq!(ticket.await.unwrap().count, 0);
}

#[tokio::test]
async fn what_is_over_a_limit_is_refused_before_it_gets_a_number() {
    let limits = broker_proto::Welcome {
        payload_bytes_max: 100,
        ..welcome()
    };
    let (client, mut peer, _listener) = connected_with(config(), limits).await;
    let room = client.room("ops").unwrap();
    let error = room.send(vec![0; 101]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    assert!(
        error.to_string().contains("101 bytes") && error.to_string().contains("100 bytes"),
        "{error}"
    );
    assert_eq!(
        room.send_with_id("k", 0, "x").await.unwrap_err().kind(),
        ErrorKind::Usage
    );
    assert_eq!(client.room("no room").unwrap_err().kind(), ErrorKind::Usage);
    let ticket = room.queue(vec![0; 100]).await.unwrap();
    let publish = peer.publish().await;
    assert_eq!(publish.first_number, 1);
    peer.ack_all(&publish, 1).await;
    ticket.await.unwrap();
}
