//! What is known and set of rooms and of the store: asked, changed, asked again, not understood.

use std::time::Duration;

use broker_proto::{
    CursorEntry, CursorList, CursorName, Epoch, ErrorCode, Frame, Kind, Micros, Position,
    RoomChange, RoomDetails, RoomFacts, RoomsFound, SenderName, Seq, SetCursor, StoreChange,
    StoreDetails,
};
use bytes::Bytes;

use super::peer::{EPOCH, Peer, connected, room_name};
use crate::net::client::ErrorKind;
use crate::store::FindRooms;

fn topic(text: &str) -> RoomChange {
    RoomChange {
        topic: Some(text.to_owned()),
        ..RoomChange::default()
    }
}

fn facts(name: &str) -> RoomFacts {
    let mut settings = Vec::new();
    topic("tea").encode(&mut settings);
    RoomFacts {
        name: room_name(name),
        epoch: EPOCH,
        first: Seq::new(3),
        head: Seq::new(9),
        last_time: Micros::new(5),
        bytes: 700,
        created: Micros::new(4),
        created_by: SenderName::parse("bob").ok(),
        version: 2,
        settings: settings.into(),
    }
}

async fn details(peer: &mut Peer, correlation: u32) {
    let room = Box::new(facts("ops"));
    peer.send(RoomDetails { correlation, room }).await;
}

#[tokio::test]
async fn a_room_is_asked_about_changed_trimmed_and_removed() {
    let (client, mut peer, _listener) = connected().await;
    let room = client.room("ops").unwrap();
    let asks = async {
        let info = room.info().await.unwrap();
        room.change(&topic("new"), None).await.unwrap();
        room.trim(Seq::new(7)).await.unwrap();
        room.trim_if(EPOCH, Seq::new(8)).await.unwrap();
        room.remove().await.unwrap();
        room.remove_if(EPOCH).await.unwrap();
        info
    };
    let (info, ()) = tokio::join!(asks, async {
        let Frame::GetRoom(get) = peer.recv().await else {
            panic!("not a question")
        };
        assert_eq!(get.room.as_str(), "ops");
        details(&mut peer, get.correlation).await;
        let Frame::ChangeRoom(change) = peer.recv().await else {
            panic!("not a change")
        };
        assert_eq!(
            (change.expected(), change.change()),
            (None, Ok(topic("new")))
        );
        details(&mut peer, change.correlation).await;
        for (epoch, before) in [(Epoch::NONE, 7), (EPOCH, 8)] {
            let Frame::TrimRoom(trim) = peer.recv().await else {
                panic!("not a trim")
            };
            assert_eq!((trim.epoch, trim.before), (epoch, Seq::new(before)));
            details(&mut peer, trim.correlation).await;
        }
        for epoch in [Epoch::NONE, EPOCH] {
            let Frame::RemoveRoom(remove) = peer.recv().await else {
                panic!("not a removal")
            };
            assert_eq!(remove.epoch, epoch);
            details(&mut peer, remove.correlation).await;
        }
    });
    assert_eq!((info.messages(), info.bytes, info.version), (7, 700, 2));
    assert_eq!(info.created_by.as_deref(), Some("bob"));
    assert_eq!(info.settings.topic, "tea");
}

#[tokio::test]
async fn rooms_are_found_and_cursors_listed() {
    let (client, mut peer, _listener) = connected().await;
    let wanted = FindRooms {
        after: "a".to_owned(),
        prefix: "b".to_owned(),
        labels: vec![("team".to_owned(), None)],
        ..FindRooms::default()
    };
    let room = client.room("ops").unwrap();
    let asks = async {
        let found = client.find_rooms(&wanted).await.unwrap();
        (found, room.cursors("c", 5000).await.unwrap())
    };
    let ((found, cursors), ()) = tokio::join!(asks, async {
        let Frame::FindRooms(find) = peer.recv().await else {
            panic!("not a search")
        };
        assert_eq!(
            (find.after.as_str(), find.prefix.as_str(), find.limit),
            ("a", "b", 1000)
        );
        assert_eq!(find.labels.len(), 1);
        peer.send(RoomsFound {
            correlation: find.correlation,
            rooms: vec![facts("b1"), facts("b2")],
            next: Some("b2".to_owned()),
        })
        .await;
        let Frame::ListCursors(list) = peer.recv().await else {
            panic!("not a list")
        };
        assert_eq!((list.after.as_str(), list.limit), ("c", 1000));
        let cursor = CursorEntry {
            name: CursorName::parse("desk").unwrap(),
            position: Position::new(EPOCH, Seq::new(8)),
            moved: Micros::new(6),
        };
        peer.send(CursorList {
            correlation: list.correlation,
            cursors: vec![cursor],
            more: true,
        })
        .await;
    });
    assert_eq!((found.rooms.len(), found.next.as_deref()), (2, Some("b2")));
    assert_eq!((cursors.cursors.len(), cursors.more), (1, true));
    assert!(cursors.cursors.iter().all(|cursor| cursor.name == "desk"));
}

#[tokio::test(start_paused = true)]
async fn settings_of_the_store_are_asked_again_on_the_next_connection() {
    let (client, mut peer, mut listener) = connected().await;
    let change = StoreChange {
        bytes_max: Some(Some(9)),
        ..StoreChange::default()
    };
    let (state, mut peer) = tokio::join!(client.change_store_settings(&change, None), async {
        assert!(matches!(peer.recv().await, Frame::ChangeSettings(_)));
        drop(peer);
        let mut peer = listener.welcome().await;
        let Frame::ChangeSettings(asked) = peer.recv().await else {
            panic!("not the change")
        };
        assert_eq!(asked.change(), Ok(change));
        peer.send(StoreDetails {
            correlation: asked.correlation,
            version: 4,
            settings: asked.change,
        })
        .await;
        peer
    });
    let state = state.unwrap();
    assert_eq!((state.version, state.settings.bytes_max), (4, Some(9)));
    let (state, ()) = tokio::join!(client.store_settings(), async {
        let Frame::GetSettings(get) = peer.recv().await else {
            panic!("not a question")
        };
        peer.send(StoreDetails {
            correlation: get.correlation,
            version: 5,
            settings: Bytes::from_static(&[9, 0, 1, 0, 1]),
        })
        .await;
    });
    assert_eq!(state.unwrap_err().kind(), ErrorKind::Protocol);
}

#[tokio::test(start_paused = true)]
async fn what_may_not_be_done_twice_is_not_asked_again() {
    let (client, mut peer, mut listener) = connected().await;
    let room = client.room("ops").unwrap();
    let change = topic("new");
    let both = async { tokio::join!(room.change(&change, Some(3)), room.remove()) };
    let ((changed, removed), mut peer) = tokio::join!(both, async {
        for _ in 0..2 {
            let frame = peer.recv().await;
            assert!(matches!(frame, Frame::ChangeRoom(_) | Frame::RemoveRoom(_)));
        }
        drop(peer);
        listener.welcome().await
    });
    for error in [changed.unwrap_err(), removed.unwrap_err()] {
        assert_eq!(error.kind(), ErrorKind::OutcomeUnknown, "{error}");
    }
    peer.expect_silence(Duration::from_millis(200)).await;
}

/// As a broker that does not understand a frame.
async fn end(mut peer: Peer, kind: u8, code: ErrorCode) {
    peer.fail(kind, 0, code).await;
    peer.send(broker_proto::Goodbye {
        code,
        ..broker_proto::Goodbye::default()
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_is_too_old_is_told_of_and_everything_else_goes_on() {
    let (client, mut peer, mut listener) = connected().await;
    let room = client.room("ops").unwrap();
    let cursor = room.cursor("ann").unwrap();
    let asks = async { tokio::join!(room.info(), room.remove(), client.status()) };
    let ((info, removed, status), mut peer) = tokio::join!(asks, async {
        for _ in 0..3 {
            peer.recv().await;
        }
        end(peer, Kind::GetRoom.get(), ErrorCode::UNKNOWN_KIND).await;
        let mut peer = listener.welcome().await;
        let Frame::GetStatus(get) = peer.recv().await else {
            panic!("not the status alone")
        };
        peer.send(broker_proto::Status {
            correlation: get.correlation,
            json: "{}".into(),
        })
        .await;
        peer
    });
    let error = info.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::UNKNOWN_KIND));
    assert!(error.to_string().contains("older"), "{error}");
    assert_eq!(removed.unwrap_err().kind(), ErrorKind::OutcomeUnknown);
    status.unwrap();
    // The flag of a relaxed move is unknown to it too; a plain move is not its fault, and made again.
    let to = Position::new(EPOCH, Seq::new(8));
    let both = async { tokio::join!(cursor.set_relaxed(to), cursor.delete()) };
    let ((relaxed, deleted), ()) = tokio::join!(both, async {
        for _ in 0..2 {
            let Frame::SetCursor(set) = peer.recv().await else {
                panic!("not a cursor")
            };
            assert!(set.is_relaxed() || set.flags == SetCursor::DELETE);
        }
        end(peer, Kind::SetCursor.get(), ErrorCode::BAD_FRAME).await;
        let mut peer = listener.welcome().await;
        let Frame::SetCursor(set) = peer.recv().await else {
            panic!("not a cursor")
        };
        assert!(set.deletes());
        peer.send(broker_proto::Cursor {
            correlation: set.correlation,
            position: None,
        })
        .await;
    });
    let error = relaxed.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::BAD_FRAME));
    assert!(error.to_string().contains("older"), "{error}");
    deleted.unwrap();
}

#[tokio::test]
async fn what_no_broker_takes_is_not_sent() {
    let (client, mut peer, _listener) = connected().await;
    let room = client.room("ops").unwrap();
    let long = "x".repeat(129);
    let wanted = |prefix: &str, count: usize, name: &str, value: &str| FindRooms {
        prefix: prefix.to_owned(),
        labels: vec![(name.to_owned(), Some(value.to_owned())); count],
        ..FindRooms::default()
    };
    for wanted in [
        wanted(&long, 0, "", ""),
        wanted("", 17, "a", "b"),
        wanted("", 1, &long, "b"),
        wanted("", 1, "a", &long),
    ] {
        let error = client.find_rooms(&wanted).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage, "{error}");
    }
    let error = room.change(&topic("two\nlines"), None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Usage);
    let nothing = StoreChange {
        keep_count: Some(Some(0)),
        ..StoreChange::default()
    };
    let error = client
        .change_store_settings(&nothing, None)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Usage);
    let (status, ()) = tokio::join!(client.status(), async {
        let Frame::GetStatus(get) = peer.recv().await else {
            panic!("something was sent")
        };
        peer.send(broker_proto::Status {
            correlation: get.correlation,
            json: "{}".into(),
        })
        .await;
    });
    status.unwrap();
}
