//! Requests: answered, refused, asked again, timed out.

use std::time::Duration;

use broker_proto::frame::read::PageHead;
use broker_proto::{
    Epoch, ErrorCode, Frame, Kind, Page, Position, RoomEntry, RoomList, Seq, SkipRange, SkipReason,
    Status,
};
use bytes::Bytes;

use super::peer::{EPOCH, Peer, config, connected, connected_with, records, room_name, welcome};
use crate::net::client::{ErrorKind, StartAt};

fn at(seq: u64) -> Position {
    Position::new(EPOCH, Seq::new(seq))
}

async fn answer_cursor(peer: &mut Peer, position: Option<Position>) -> broker_proto::SetCursor {
    let Frame::SetCursor(set) = peer.recv().await else {
        panic!("not a cursor")
    };
    peer.send(broker_proto::Cursor {
        correlation: set.correlation,
        position,
    })
    .await;
    set
}

#[tokio::test]
async fn a_page_is_read_with_what_is_left_out() {
    let (client, mut peer, _listener) = connected().await;
    let room = client.room("ops").unwrap();
    let (page, ()) = tokio::join!(room.read(StartAt::seq(Seq::new(3)), 10, 1000), async {
        let Frame::Read(read) = peer.recv().await else {
            panic!("not a read")
        };
        assert_eq!(
            (read.room.as_str(), read.count_max, read.bytes_max),
            ("ops", 10, 1000)
        );
        let skip = SkipRange {
            from: Seq::new(3),
            to: Seq::new(4),
            reason: SkipReason::TRIMMED,
        };
        let head = PageHead {
            correlation: read.correlation,
            epoch: EPOCH,
            first: Seq::new(5),
            head: Seq::new(9),
            next: Seq::new(7),
            count: 2,
            skip: Some(skip),
        };
        peer.send(Page {
            head,
            body: records(5, &[Bytes::from("five"), Bytes::from("six")]),
        })
        .await;
    });
    let page = page.unwrap();
    assert_eq!(
        (
            page.first.get(),
            page.head.get(),
            page.next_position(),
            page.is_last()
        ),
        (5, 9, at(7), false)
    );
    assert_eq!(page.skip.unwrap().to.get(), 4);
    let got: Vec<_> = page
        .messages
        .iter()
        .map(|m| (m.seq.get(), m.sender.as_str(), m.payload.clone()))
        .collect();
    assert_eq!(
        got,
        [
            (5, "bob", Bytes::from("five")),
            (6, "bob", Bytes::from("six"))
        ]
    );
}

#[tokio::test]
async fn a_refused_request_tells_what_it_was() {
    let (client, mut peer, _listener) = connected().await;
    let room = client.room("ops").unwrap();
    let (page, ()) = tokio::join!(room.read(StartAt::START, 1, 1), async {
        let Frame::Read(read) = peer.recv().await else {
            panic!("not a read")
        };
        peer.fail(
            Kind::Read.get(),
            read.correlation.into(),
            ErrorCode::NO_SUCH_ROOM,
        )
        .await;
    });
    let error = page.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Absent);
    assert!(
        error.to_string().contains("reading room \"ops\""),
        "{error}"
    );
}

#[tokio::test]
async fn rooms_status_and_ping_are_answered() {
    let (client, mut peer, _listener) = connected().await;
    peer.pongs = false;
    let asks = async {
        let rooms = client.rooms("a", 5000).await.unwrap();
        let status = client.status().await.unwrap();
        client.ping().await.unwrap();
        (rooms, status)
    };
    let ((rooms, status), ()) = tokio::join!(asks, async {
        let Frame::ListRooms(list) = peer.recv().await else {
            panic!("not a list")
        };
        assert_eq!((list.after.as_str(), list.limit), ("a", 1000));
        let entry = RoomEntry {
            name: room_name("b"),
            epoch: EPOCH,
            first: Seq::FIRST,
            head: Seq::new(4),
            last_time: broker_proto::Micros::new(5),
        };
        peer.send(RoomList {
            correlation: list.correlation,
            rooms: vec![entry],
            more: true,
        })
        .await;
        let Frame::GetStatus(get) = peer.recv().await else {
            panic!("not a status")
        };
        peer.send(Status {
            correlation: get.correlation,
            json: "{}".into(),
        })
        .await;
        let Frame::Ping(ping) = peer.recv().await else {
            panic!("not a ping")
        };
        peer.send(broker_proto::Pong { nonce: ping.nonce }).await;
    });
    assert_eq!(
        (rooms.rooms.len(), rooms.more, status.as_str()),
        (1, true, "{}")
    );
}

#[tokio::test(start_paused = true)]
async fn requests_are_asked_again_on_the_next_connection() {
    let (client, mut peer, mut listener) = connected().await;
    let (status, ()) = tokio::join!(client.status(), async {
        let Frame::GetStatus(_) = peer.recv().await else {
            panic!("not a status")
        };
        drop(peer);
        let mut peer = listener.welcome().await;
        let Frame::GetStatus(get) = peer.recv().await else {
            panic!("not a status")
        };
        peer.send(Status {
            correlation: get.correlation,
            json: "{\"a\":1}".into(),
        })
        .await;
    });
    assert_eq!(status.unwrap(), "{\"a\":1}");
}

#[tokio::test(start_paused = true)]
async fn requests_time_out_while_the_peer_answers_pings() {
    let (client, mut peer, _listener) = connected().await;
    let begun = tokio::time::Instant::now();
    let (status, ()) = tokio::join!(client.status(), async {
        peer.recv().await;
        peer.expect_silence(Duration::from_secs(11)).await;
    });
    let error = status.unwrap_err();
    assert_eq!(
        (error.kind(), error.is_retryable()),
        (ErrorKind::Timeout, true)
    );
    assert_eq!(begun.elapsed().as_secs(), 11);
}

#[tokio::test]
async fn a_dropped_request_is_not_asked_again() {
    let (client, mut peer, mut listener) = connected().await;
    {
        let mut status = Box::pin(client.status());
        tokio::select! {
            biased;
            _ = &mut status => panic!("nobody answers"),
            frame = peer.recv() => assert!(matches!(frame, Frame::GetStatus(_))),
        }
    }
    drop(peer);
    let mut peer = listener.welcome().await;
    let (_, ()) = tokio::join!(client.ping(), async {
        let Frame::Ping(ping) = peer.recv_all().await else {
            panic!("not the ping alone")
        };
        peer.send(broker_proto::Pong { nonce: ping.nonce }).await;
    });
}

#[tokio::test(start_paused = true)]
async fn more_requests_than_may_wait_take_their_turn() {
    let (client, mut peer, _listener) = connected().await;
    let asks: Vec<_> = (0..300)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { client.status().await })
        })
        .collect();
    let mut waiting = Vec::new();
    while waiting.len() < 256 {
        let Frame::GetStatus(get) = peer.recv().await else {
            panic!("not a status")
        };
        waiting.push(get.correlation);
    }
    peer.expect_silence(Duration::from_secs(1)).await;
    let mut answered = 0;
    while answered < 300 {
        let correlation = match waiting.pop() {
            Some(correlation) => correlation,
            None => match peer.recv().await {
                Frame::GetStatus(get) => get.correlation,
                other => panic!("{other:?}"),
            },
        };
        peer.send(Status {
            correlation,
            json: "{}".into(),
        })
        .await;
        answered += 1;
    }
    for ask in asks {
        ask.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn cursors_are_read_moved_and_removed() {
    let (client, mut peer, _listener) = connected().await;
    let cursor = client.room("ops").unwrap().cursor("ann").unwrap();
    let moves = async {
        let before = cursor.get().await.unwrap();
        cursor.set(at(5)).await.unwrap();
        let conflict = cursor.compare_and_set(None, at(6)).await.unwrap_err();
        cursor.compare_and_set(Some(at(5)), at(6)).await.unwrap();
        cursor.delete().await.unwrap();
        (before, conflict)
    };
    let ((before, conflict), ()) = tokio::join!(moves, async {
        let Frame::GetCursor(get) = peer.recv().await else {
            panic!("not a cursor")
        };
        assert_eq!((get.room.as_str(), get.name.as_str()), ("ops", "ann"));
        peer.send(broker_proto::Cursor {
            correlation: get.correlation,
            position: None,
        })
        .await;
        let set = answer_cursor(&mut peer, Some(at(5))).await;
        assert_eq!((set.position, set.flags), (at(5), 0));
        let Frame::SetCursor(set) = peer.recv().await else {
            panic!("not a cursor")
        };
        assert!(set.compares() && set.expected == Position::NONE);
        peer.fail(
            Kind::SetCursor.get(),
            set.correlation.into(),
            ErrorCode::CONFLICT,
        )
        .await;
        let set = answer_cursor(&mut peer, Some(at(6))).await;
        assert!(set.compares() && set.expected == at(5));
        assert!(answer_cursor(&mut peer, None).await.deletes());
    });
    assert_eq!(before, None);
    assert_eq!(conflict.code(), Some(ErrorCode::CONFLICT));
}

#[tokio::test(start_paused = true)]
async fn a_lost_compare_and_set_is_not_repeated_and_says_so() {
    let (client, mut peer, mut listener) = connected().await;
    let cursor = client.room("ops").unwrap().cursor("ann").unwrap();
    let (moved, mut peer) = tokio::join!(cursor.compare_and_set(Some(at(1)), at(2)), async {
        assert!(matches!(peer.recv().await, Frame::SetCursor(_)));
        drop(peer);
        listener.welcome().await
    });
    let error = moved.unwrap_err();
    assert_eq!(
        (error.kind(), error.is_retryable()),
        (ErrorKind::OutcomeUnknown, false)
    );
    peer.expect_silence(Duration::from_millis(200)).await;
    // A plain move is repeated.
    let (moved, ()) = tokio::join!(cursor.set(at(3)), async {
        assert!(matches!(peer.recv().await, Frame::SetCursor(_)));
        drop(peer);
        let mut peer = listener.welcome().await;
        answer_cursor(&mut peer, Some(at(3))).await;
    });
    moved.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_page_that_arrives_in_pieces_may_take_longer_than_the_timeout() {
    let config = config().timeout(Duration::from_secs(4));
    let (client, mut peer, _listener) = connected_with(config, welcome()).await;
    let room = client.room("ops").unwrap();
    let begun = tokio::time::Instant::now();
    let (page, ()) = tokio::join!(room.read(StartAt::START, 10, 1 << 20), async {
        let Frame::Read(read) = peer.recv().await else {
            panic!("not a read")
        };
        let head = PageHead {
            correlation: read.correlation,
            epoch: EPOCH,
            first: Seq::FIRST,
            head: Seq::FIRST,
            next: Seq::new(2),
            count: 1,
            skip: None,
        };
        let body = records(1, &[Bytes::from(vec![7; 1000])]);
        let mut bytes = bytes::BytesMut::new();
        Frame::from(Page { head, body }).encode(&mut bytes);
        for piece in bytes.chunks(100) {
            peer.send_bytes(piece).await;
            tokio::time::sleep(Duration::from_millis(1500)).await;
        }
    });
    assert_eq!(page.unwrap().messages.len(), 1);
    assert!(begun.elapsed() > Duration::from_secs(12));
}

#[tokio::test(start_paused = true)]
async fn what_a_leaving_broker_refuses_is_asked_of_the_next_one() {
    let (client, mut peer, mut listener) = connected().await;
    let room = client.room("ops").unwrap();
    let cursor = room.cursor("ann").unwrap();
    // Also one that may not be done twice: it was not done at all.
    let (moved, peer) = tokio::join!(cursor.compare_and_set(Some(at(1)), at(2)), async {
        let Frame::SetCursor(set) = peer.recv().await else {
            panic!("not a cursor")
        };
        peer.fail(
            Kind::SetCursor.get(),
            set.correlation.into(),
            ErrorCode::GOING_AWAY,
        )
        .await;
        drop(peer);
        let mut peer = listener.welcome().await;
        answer_cursor(&mut peer, Some(at(2))).await;
        peer
    });
    moved.unwrap();
    let mut peer = peer;
    let (subscribed, ()) = tokio::join!(room.subscribe(StartAt::START), async {
        let Frame::Subscribe(subscribe) = peer.recv().await else {
            panic!("not a subscription")
        };
        peer.fail(
            Kind::Subscribe.get(),
            subscribe.sub.into(),
            ErrorCode::GOING_AWAY,
        )
        .await;
        let mut peer = listener.welcome().await;
        let Frame::Subscribe(again) = peer.recv().await else {
            panic!("not a subscription")
        };
        peer.send(broker_proto::Subscribed {
            sub: again.sub,
            epoch: EPOCH,
            first: Seq::FIRST,
            next: Seq::FIRST,
            head: Seq::NONE,
        })
        .await;
    });
    subscribed.unwrap();
}

#[tokio::test]
async fn an_answer_of_another_kind_is_a_breach() {
    let (client, mut peer, _listener) = connected().await;
    let (status, ()) = tokio::join!(client.status(), async {
        let Frame::GetStatus(get) = peer.recv().await else {
            panic!("not a status")
        };
        peer.send(broker_proto::Cursor {
            correlation: get.correlation,
            position: Some(Position::new(Epoch::new(1), Seq::FIRST)),
        })
        .await;
    });
    assert_eq!(status.unwrap_err().kind(), ErrorKind::Protocol);
}
