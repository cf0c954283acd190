//! The connection itself: greeting, silence, reconnecting, closing.

use std::time::Duration;

use broker_proto::{ErrorCode, Frame, Goodbye, Ping, Starting, StoreId, Term, Welcome};
use bytes::BytesMut;

use super::peer::{STORE, config, connected, connected_with, pipe, texts, welcome};
use crate::net::client::{Client, ErrorKind, State};

#[tokio::test]
async fn hello_says_who_is_there() {
    let (client, peer, _listener) = connected().await;
    let hello = peer.hello.as_ref().unwrap();
    assert_eq!(
        (hello.sender.as_str(), hello.known_store),
        ("ann", StoreId::NONE)
    );
    assert!(hello.build.starts_with("broker-core "));
    let state = client.state();
    let state = state.borrow();
    let State::Connected { server } = &*state else {
        panic!("{state:?}")
    };
    assert_eq!(
        (
            server.store,
            server.build.as_str(),
            server.payload_bytes_max
        ),
        (STORE, "peer 1", 1 << 20)
    );
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_is_starting_is_waited_for() {
    let (connector, mut listener) = pipe(1 << 16);
    let (client, _peer) = tokio::join!(config().connect_with(connector), async {
        let mut peer = listener.accept().await;
        peer.take_hello().await;
        for done in 0..20 {
            tokio::time::sleep(Duration::from_secs(4)).await;
            peer.send(Starting {
                done,
                total: 20,
                what: "recovering".to_owned(),
            })
            .await;
        }
        peer.send(welcome()).await;
        peer
    });
    client.unwrap();
}

#[tokio::test(start_paused = true)]
async fn connecting_gives_up_after_the_timeout_with_the_last_cause() {
    let (connector, listener) = pipe(1 << 16);
    drop(listener);
    let begun = tokio::time::Instant::now();
    let error = config().connect_with(connector).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Connect);
    assert!(error.to_string().contains("pipe:test"), "{error}");
    assert!(
        std::error::Error::source(&error)
            .unwrap()
            .to_string()
            .contains("refused")
    );
    let took = begun.elapsed();
    assert!(
        took >= Duration::from_secs(9) && took < Duration::from_secs(12),
        "{took:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_silent_peer_is_given_up_after_the_timeout() {
    let (connector, mut listener) = pipe(1 << 16);
    let begun = tokio::time::Instant::now();
    let (client, peers) = tokio::join!(config().connect_with(connector), async {
        (listener.accept().await, listener.accept().await)
    });
    assert_eq!(client.unwrap_err().kind(), ErrorKind::Connect);
    assert!(
        begun.elapsed() <= Duration::from_secs(11),
        "{:?}",
        begun.elapsed()
    );
    drop(peers);
}

#[tokio::test]
async fn what_is_no_broker_is_told_at_once() {
    for bytes in ["HTTP/1.1 400 Bad Request\r\n\r\n", "{\"error\":1}\n"] {
        let (connector, mut listener) = pipe(1 << 16);
        let (client, _peer) = tokio::join!(config().connect_with(connector), async {
            let mut peer = listener.accept().await;
            peer.send_bytes(bytes.as_bytes()).await;
            peer
        });
        let error = client.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Protocol, "{error}");
    }
}

#[tokio::test]
async fn a_client_that_is_not_let_in_does_not_insist() {
    let (connector, mut listener) = pipe(1 << 16);
    let (client, _peer) = tokio::join!(config().connect_with(connector), async {
        let mut peer = listener.accept().await;
        peer.take_hello().await;
        peer.fail(1, 0, ErrorCode::UNAUTHORIZED).await;
        peer
    });
    assert_eq!(client.unwrap_err().kind(), ErrorKind::Auth);
    assert!(listener.is_empty());
}

#[tokio::test]
async fn a_wrong_sender_or_address_is_told_before_anything_happens() {
    let (connector, _listener) = pipe(16);
    let error = Client::builder()
        .sender("a@b")
        .connect_with(connector)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Usage);
    assert_eq!(
        Client::connect("nonsense").await.unwrap_err().kind(),
        ErrorKind::Usage
    );
}

#[tokio::test]
async fn every_way_to_split_the_bytes_is_the_same() {
    // A pipe of one byte splits everything, in both directions, at every byte.
    let (connector, mut listener) = pipe(1);
    let (client, mut peer) = tokio::join!(config().connect_with(connector), listener.welcome());
    let client = client.unwrap();
    let room = client.room("ops").unwrap();
    let sub = async {
        let mut subscription = room
            .subscribe(crate::net::client::StartAt::START)
            .await
            .unwrap();
        let ack = room.send("split").await.unwrap();
        let message = subscription.next_message().await.unwrap().unwrap();
        (ack.seq.get(), message.seq.get())
    };
    let (seqs, ()) = tokio::join!(sub, async {
        let subscribe = peer.subscribe().await;
        peer.subscribed(subscribe.sub, super::peer::EPOCH, 4, 3)
            .await;
        let publish = peer.publish().await;
        assert_eq!(texts(&publish), ["split"]);
        peer.ack_all(&publish, 4).await;
        peer.deliver(subscribe.sub, 4, 1).await;
    });
    assert_eq!(seqs, (4, 4));
}

#[tokio::test]
async fn many_frames_in_one_read_are_all_taken() {
    let (client, mut peer, _listener) = connected().await;
    let room = client.room("ops").unwrap();
    let mut tickets = Vec::new();
    for number in 1..=3 {
        tickets.push(room.queue(number.to_string()).await.unwrap());
    }
    peer.publishes(3).await;
    let mut bytes = BytesMut::new();
    for number in 1..=3 {
        Frame::Ping(Ping { nonce: number }).encode(&mut bytes);
        super::peer::ack_frame("ops", number, 1, number, None).encode(&mut bytes);
    }
    peer.send_bytes(&bytes).await;
    for (number, ticket) in (1..).zip(tickets) {
        assert_eq!(ticket.await.unwrap().seq.get(), number);
    }
    for number in 1..=3 {
        assert_eq!(
            peer.recv().await,
            Frame::Pong(broker_proto::Pong { nonce: number })
        );
    }
}

#[tokio::test(start_paused = true)]
async fn pings_are_answered_while_the_application_does_nothing() {
    let (_client, mut peer, _listener) = connected().await;
    for nonce in [1, 2, 3] {
        tokio::time::sleep(Duration::from_secs(5)).await;
        peer.send(Ping { nonce }).await;
        assert_eq!(peer.recv().await, Frame::Pong(broker_proto::Pong { nonce }));
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_client_pings_and_leaves_who_is_silent_for_long() {
    let (client, mut peer, mut listener) = connected().await;
    peer.pongs = false;
    let begun = tokio::time::Instant::now();
    assert!(matches!(peer.recv().await, Frame::Ping(_)));
    assert_eq!(begun.elapsed().as_secs(), 15);
    assert!(peer.try_recv().await.is_none(), "the client closes");
    assert_eq!(begun.elapsed().as_secs(), 75);
    let mut state = client.state();
    let _peer = listener.welcome().await;
    state
        .wait_for(|state| matches!(state, State::Resumed { .. }))
        .await
        .unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_costs_no_wake_ups_between_pings() {
    let (_client, mut peer, _listener) = connected().await;
    peer.pongs = false;
    let mut at = Vec::new();
    let begun = tokio::time::Instant::now();
    for _ in 0..3 {
        let Frame::Ping(ping) = peer.recv().await else {
            panic!("not a ping")
        };
        at.push(begun.elapsed().as_secs());
        peer.send(broker_proto::Pong { nonce: ping.nonce }).await;
    }
    assert_eq!(at, [15, 30, 45]);
}

#[tokio::test(start_paused = true)]
async fn an_unanswered_send_is_asked_after_and_then_tried_elsewhere() {
    let (client, mut peer, mut listener) = connected().await;
    peer.pongs = false;
    let room = client.room("ops").unwrap();
    let ticket = room.queue("x").await.unwrap();
    peer.publishes(1).await;
    let begun = tokio::time::Instant::now();
    assert!(matches!(peer.recv().await, Frame::Ping(_)));
    assert_eq!(begun.elapsed().as_millis(), 300);
    // This connection is as good as dead. The answer comes over the next one, in time for the sender.
    let mut peer = listener.welcome().await;
    let publish = peer.publish().await;
    assert_eq!(publish.first_number, 1);
    peer.ack_all(&publish, 1).await;
    ticket.await.unwrap();
    assert!(
        begun.elapsed() < Duration::from_secs(10),
        "{:?}",
        begun.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn states_tell_of_losses_and_returns() {
    let (client, peer, mut listener) = connected().await;
    let mut state = client.state();
    drop(peer);
    let cause = state
        .wait_for(|state| matches!(state, State::Disconnected { .. }))
        .await
        .unwrap()
        .clone();
    let State::Disconnected { cause } = cause else {
        unreachable!()
    };
    assert_eq!(cause.kind(), ErrorKind::Connect);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let peer = listener.welcome().await;
    assert_eq!(peer.hello.as_ref().unwrap().known_store, STORE);
    let resumed = state
        .wait_for(|state| matches!(state, State::Resumed { .. }))
        .await
        .unwrap()
        .clone();
    let State::Resumed { gap, .. } = resumed else {
        unreachable!()
    };
    assert!(gap >= Duration::from_secs(2), "{gap:?}");
}

#[tokio::test(start_paused = true)]
async fn another_store_at_the_same_address_ends_the_client() {
    let (client, peer, mut listener) = connected().await;
    let room = client.room("ops").unwrap();
    drop(peer);
    let ticket = room.queue("x").await.unwrap();
    let other = Welcome {
        store: StoreId::new([9; 16]),
        ..welcome()
    };
    let _peer = listener.welcome_with(other).await;
    let error = ticket.await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OtherStore);
    assert!(error.to_string().contains(&STORE.to_string()), "{error}");
    assert_eq!(
        room.send("y").await.unwrap_err().kind(),
        ErrorKind::OtherStore
    );
    assert!(matches!(
        &*client.state().borrow(),
        State::Closed { cause: Some(_) }
    ));
}

#[tokio::test(start_paused = true)]
async fn a_leader_of_the_past_is_not_believed() {
    let (client, peer, mut listener) = connected().await;
    let room = client.room("ops").unwrap();
    drop(peer);
    let ticket = room.queue("x").await.unwrap();
    let mut old = listener
        .welcome_with(Welcome {
            term: Term::new(2),
            ..welcome()
        })
        .await;
    assert!(old.try_recv().await.is_none(), "nothing is said to it");
    let mut peer = listener
        .welcome_with(Welcome {
            term: Term::new(4),
            ..welcome()
        })
        .await;
    let publish = peer.publish().await;
    peer.ack_all(&publish, 1).await;
    ticket.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_goodbye_is_followed_when_the_broker_says_so() {
    let (_client, mut peer, mut listener) = connected().await;
    let begun = tokio::time::Instant::now();
    peer.send(Goodbye {
        code: ErrorCode::GOING_AWAY,
        retry_after_ms: 700,
        ..Goodbye::default()
    })
    .await;
    let _peer = listener.welcome().await;
    let took = begun.elapsed().as_millis();
    assert!((700..800).contains(&took), "{took} ms");
}

#[tokio::test(start_paused = true)]
async fn attempts_become_rarer() {
    let (_client, peer, mut listener) = connected().await;
    drop(peer);
    let mut at = Vec::new();
    let begun = tokio::time::Instant::now();
    while begun.elapsed() < Duration::from_secs(20) {
        drop(listener.accept().await);
        at.push(begun.elapsed());
    }
    let early = at.iter().filter(|at| at.as_secs() < 2).count();
    let late = at
        .iter()
        .filter(|at| (10..20).contains(&at.as_secs()))
        .count();
    assert!(
        (40..150).contains(&early),
        "{early} attempts in the first 2 s"
    );
    assert!(
        (10..=20).contains(&late),
        "{late} attempts in 10 s later on"
    );
}

#[tokio::test(start_paused = true)]
async fn shutdown_waits_for_what_was_sent_and_says_goodbye() {
    let (client, mut peer, _listener) = connected().await;
    let room = client.room("ops").unwrap();
    let ticket = room.queue("last").await.unwrap();
    let (closed, goodbye) = tokio::join!(client.shutdown(), async {
        let publish = peer.publish().await;
        peer.expect_silence(Duration::from_secs(1)).await;
        peer.ack_all(&publish, 1).await;
        let goodbye = peer.goodbye().await;
        peer.send(Goodbye::default()).await;
        goodbye
    });
    closed.unwrap();
    assert!(goodbye.forgets());
    ticket.await.unwrap();
    assert_eq!(
        room.send("later").await.unwrap_err().kind(),
        ErrorKind::Closed
    );
    assert_eq!(client.status().await.unwrap_err().kind(), ErrorKind::Closed);
    assert!(matches!(
        &*client.state().borrow(),
        State::Closed { cause: None }
    ));
}

#[tokio::test(start_paused = true)]
async fn shutdown_tells_when_something_stayed_unanswered() {
    let (client, peer, listener) = connected().await;
    let ticket = client.room("ops").unwrap().queue("lost").await.unwrap();
    drop((peer, listener));
    assert_eq!(
        client.shutdown().await.unwrap_err().kind(),
        ErrorKind::Timeout
    );
    assert_eq!(ticket.await.unwrap_err().kind(), ErrorKind::Timeout);
}

#[tokio::test(start_paused = true)]
async fn shutdown_of_a_lost_client_with_nothing_to_say_is_quick() {
    let (client, peer, listener) = connected().await;
    drop((peer, listener));
    let begun = tokio::time::Instant::now();
    client.shutdown().await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn the_last_handle_to_go_leaves_nothing_unsent() {
    let (client, mut peer, mut listener) = connected().await;
    let ticket = client
        .room("ops")
        .unwrap()
        .queue("last words")
        .await
        .unwrap();
    drop(client);
    peer.publishes(1).await;
    drop(peer);
    let mut peer = listener.welcome().await;
    let publish = peer.publish().await;
    assert_eq!(texts(&publish), ["last words"]);
    peer.ack_all(&publish, 1).await;
    ticket.await.unwrap();
    assert!(peer.goodbye().await.forgets());
    assert!(peer.try_recv().await.is_none());
}

#[test]
fn a_runtime_that_ends_leaves_nobody_waiting() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let (ticket, client, _rest) = runtime.block_on(async {
        let (client, peer, listener) = connected().await;
        let ticket = client.room("ops").unwrap().queue("x").await.unwrap();
        (ticket, client, (peer, listener))
    });
    drop(runtime);
    let other = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    other.block_on(async {
        assert_eq!(ticket.await.unwrap_err().kind(), ErrorKind::Closed);
        assert_eq!(client.status().await.unwrap_err().kind(), ErrorKind::Closed);
    });
}

#[test]
fn outside_a_runtime_there_is_no_client() {
    let (connector, _listener) = pipe(16);
    assert_eq!(
        config().open(connector).unwrap_err().kind(),
        ErrorKind::Usage
    );
}

#[tokio::test(start_paused = true)]
async fn a_client_opened_in_the_background_sends_when_it_is_connected() {
    let (connector, mut listener) = pipe(1 << 16);
    let client = config().open(connector).unwrap();
    let ticket = client.room("ops").unwrap().queue("early").await.unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    let mut peer = listener.welcome().await;
    let publish = peer.publish().await;
    peer.ack_all(&publish, 1).await;
    ticket.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_ends_after_any_number_of_bytes_costs_nothing() {
    let mut whole = BytesMut::new();
    Frame::from(welcome()).encode(&mut whole);
    super::peer::ack_frame("ops", 1, 1, 1, None).encode(&mut whole);
    super::peer::ack_frame("ops", 2, 2, 2, None).encode(&mut whole);
    for cut in 0..=whole.len() {
        let (client, peer, mut listener) = connected_with(config(), welcome()).await;
        drop(peer);
        let room = client.room("ops").unwrap();
        let ticket = room.send_all(["a", "b", "c"]).await.unwrap();
        let mut peer = listener.accept().await;
        peer.take_hello().await;
        peer.send_bytes(whole.split_at(cut).0).await;
        drop(peer);
        let answers = async {
            // What was acknowledged before the cut does not come again.
            let mut peer = listener.welcome().await;
            while let Some(frame) = peer.try_recv().await {
                if let Frame::Publish(publish) = frame {
                    peer.ack_all(&publish, publish.first_number).await;
                }
            }
        };
        let acked = tokio::select! {
            acked = ticket => acked.unwrap(),
            () = answers => unreachable!("the client stays"),
        };
        let seqs: u64 = acked
            .runs
            .iter()
            .map(|run| {
                (0..run.count)
                    .map(|at| run.first_seq.get() + u64::from(at))
                    .sum::<u64>()
            })
            .sum();
        assert_eq!((acked.count, seqs), (3, 6), "cut after {cut} bytes");
    }
}
