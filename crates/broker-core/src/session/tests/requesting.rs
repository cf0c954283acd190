//! Requests that are answered once.

use broker_proto::{
    Cursor, CursorName, Error, ErrorCode, Frame, GetCursor, GetStatus, Kind, ListRooms, Page,
    Position, Read, RoomList, Seq, SetCursor, StartAt, Status,
};

use super::peer::{Peer, room, shown, terms};
use super::store::{Gate, position};
use crate::session::Terms;
use crate::sync::Arc;

fn read(correlation: u32, name: &str, start: StartAt, count_max: u32, bytes_max: u32) -> Read {
    Read {
        correlation,
        room: room(name),
        start,
        count_max,
        bytes_max,
    }
}

fn texts(page: &Page) -> Vec<String> {
    page.messages()
        .map(|message| shown(&message.unwrap()).1)
        .collect()
}

fn with_room(payloads: usize, bytes: usize) -> (Arc<Gate>, Peer) {
    let store = Gate::new();
    let mut ann = Peer::welcomed(&store, "ann");
    for n in 0..payloads {
        ann.publish("ops", [format!("{n:0bytes$}").as_str()]).hear();
    }
    (store, ann)
}

#[test]
fn a_page_is_read_and_says_where_the_next_begins() {
    let (_, mut ann) = with_room(5, 1);
    let page: Page = ann
        .say(read(9, "ops", StartAt::START, 2, 1 << 20))
        .hear_one();
    assert_eq!(texts(&page), ["0", "1"]);
    let head = page.head;
    assert_eq!(
        (head.correlation, head.first, head.head, head.next),
        (9, Seq::FIRST, Seq::new(5), Seq::new(3))
    );
    let page: Page = ann
        .say(read(10, "ops", StartAt::seq(head.next), 100, 1 << 20))
        .hear_one();
    assert_eq!(texts(&page), ["2", "3", "4"]);
    let page: Page = ann
        .say(read(11, "ops", StartAt::seq(page.head.next), 100, 1 << 20))
        .hear_one();
    assert_eq!((texts(&page).len(), page.head.next), (0, Seq::new(6)));
}

#[test]
fn a_page_of_no_messages_tells_the_figures() {
    let (_, mut ann) = with_room(3, 1);
    let page: Page = ann.say(read(1, "ops", StartAt::last(1), 0, 0)).hear_one();
    assert_eq!((page.head.count, page.body.len()), (0, 0));
    assert_eq!((page.head.head, page.head.next), (Seq::new(3), Seq::new(3)));
    assert!(!page.head.epoch.is_none());
}

#[test]
fn a_page_is_never_larger_than_a_turn_but_for_one_message() {
    let (_, mut ann) = with_room(20, 10_000);
    let page: Page = ann
        .say(read(1, "ops", StartAt::START, u32::MAX, u32::MAX))
        .hear_one();
    assert!(
        page.head.count >= 5 && page.body.len() <= 64 << 10,
        "{} bytes",
        page.body.len()
    );
    let page: Page = ann.say(read(2, "ops", StartAt::START, 5, 0)).hear_one();
    assert_eq!(page.head.count, 1);
}

#[test]
fn a_request_that_fails_is_an_error_of_its_own() {
    let (_, mut ann) = with_room(1, 1);
    ann.say(read(77, "none", StartAt::START, 1, 1)).hear_error(
        ErrorCode::NO_SUCH_ROOM,
        77,
        Kind::Read,
    );
    let page: Page = ann.say(read(78, "ops", StartAt::START, 1, 1)).hear_one();
    assert_eq!(page.head.correlation, 78);
}

#[test]
fn pages_are_asked_for_one_by_one_and_answered_in_order() {
    let (store, mut ann) = with_room(10, 10_000);
    store.slow(true);
    for correlation in 1..=5 {
        ann.say(read(correlation, "ops", StartAt::START, 100, 1 << 20));
    }
    let mut answered = Vec::new();
    for _ in 0..10 {
        answered.extend(ann.hear().into_iter().map(|frame| match frame {
            Frame::Page(page) => page.head.correlation,
            other => panic!("{other:?}"),
        }));
        assert!(store.reads() <= 1);
        store.finish_reads();
    }
    assert_eq!(answered, [1, 2, 3, 4, 5]);
}

#[test]
fn pages_and_deliveries_take_turns() {
    let (_, mut ann) = with_room(60, 10_000);
    ann.subscribe(1, "ops", StartAt::START, 64 << 20);
    for correlation in 0..8 {
        ann.say(read(correlation, "ops", StartAt::START, 100, 1 << 20));
    }
    let kinds: Vec<Kind> = ann
        .hear()
        .iter()
        .map(Frame::kind)
        .filter(|kind| *kind != Kind::Subscribed)
        .collect();
    let pages = |kinds: &[Kind]| kinds.iter().filter(|kind| **kind == Kind::Page).count();
    assert_eq!(pages(&kinds), 8);
    assert!((2..=6).contains(&pages(&kinds[..8])), "{kinds:?}");
}

#[test]
fn requests_without_an_answer_are_bounded() {
    let (store, _) = with_room(1, 1);
    let mut ann = Peer::welcomed_under(
        &store,
        3,
        "bob",
        Terms {
            requests_max: 3,
            ..terms()
        },
    );
    store.slow(true);
    for correlation in 0..3 {
        ann.say(read(correlation, "ops", StartAt::START, 1, 1));
    }
    ann.hear_nothing();
    ann.say(read(3, "ops", StartAt::START, 1, 1))
        .hear_error(ErrorCode::LIMIT, 3, Kind::Read);
    ann.say(ListRooms {
        correlation: 4,
        after: String::new(),
        limit: 1,
    });
    ann.hear_error(ErrorCode::LIMIT, 4, Kind::ListRooms);
    store.slow(false);
    store.finish_reads();
    assert_eq!(ann.hear().len(), 3);
}

#[test]
fn rooms_are_listed_in_pages() {
    let store = Gate::new();
    let mut ann = Peer::welcomed(&store, "ann");
    ann.publish("b", ["1"])
        .publish("a", ["1"])
        .publish("c", ["1", "2"])
        .hear();
    let list: RoomList = ann
        .say(ListRooms {
            correlation: 1,
            after: String::new(),
            limit: 2,
        })
        .hear_one();
    let names: Vec<&str> = list.rooms.iter().map(|room| room.name.as_str()).collect();
    assert_eq!(
        (names, list.more, list.correlation),
        (vec!["a", "b"], true, 1)
    );
    let list: RoomList = ann
        .say(ListRooms {
            correlation: 2,
            after: "b".to_owned(),
            limit: u32::MAX,
        })
        .hear_one();
    assert_eq!((list.rooms.len(), list.more), (1, false));
    assert_eq!(list.rooms[0].head, Seq::new(2));
}

fn set(correlation: u32, position: Position, flags: u32, expected: Position) -> SetCursor {
    let name = CursorName::parse("me").unwrap();
    SetCursor {
        correlation,
        room: room("ops"),
        name,
        position,
        expected,
        flags,
    }
}

#[test]
fn a_cursor_is_moved_compared_and_deleted() {
    let (store, mut ann) = with_room(3, 1);
    let at = |seq| position(&store, "ops", seq);
    let get = |correlation| GetCursor {
        correlation,
        room: room("ops"),
        name: CursorName::parse("me").unwrap(),
    };
    let cursor: Cursor = ann.say(get(1)).hear_one();
    assert_eq!(
        cursor,
        Cursor {
            correlation: 1,
            position: None
        }
    );
    let cursor: Cursor = ann
        .say(set(2, at(2), SetCursor::COMPARE, Position::NONE))
        .hear_one();
    assert_eq!(
        cursor,
        Cursor {
            correlation: 2,
            position: Some(at(2))
        }
    );
    ann.say(set(3, at(3), SetCursor::COMPARE, at(1)))
        .hear_error(ErrorCode::CONFLICT, 3, Kind::SetCursor);
    let cursor: Cursor = ann.say(set(4, at(3), SetCursor::COMPARE, at(2))).hear_one();
    assert_eq!(cursor.position, Some(at(3)));
    let cursor: Cursor = ann.say(get(5)).hear_one();
    assert_eq!(cursor.position, Some(at(3)));
    let cursor: Cursor = ann
        .say(set(6, Position::NONE, SetCursor::DELETE, Position::NONE))
        .hear_one();
    assert_eq!(cursor.position, None);
}

#[test]
fn the_status_is_the_hosts() {
    let mut ann = Peer::welcomed(&Gate::new(), "ann");
    let status: Status = ann.say(GetStatus { correlation: 4 }).hear_one();
    assert_eq!((status.correlation, status.json.as_str()), (4, "{\"a\":1}"));
}

#[test]
fn an_error_of_the_peer_is_taken_note_of_and_nothing_else() {
    let mut ann = Peer::welcomed(&Gate::new(), "ann");
    ann.say(Error {
        detail: "\u{1b}[31m".to_owned(),
        ..Error::default()
    })
    .hear_nothing();
    assert!(ann.session.wants_read());
}
