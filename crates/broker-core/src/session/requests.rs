//! Requests that are answered once: pages, listings, cursors, rooms and their settings.
//!
//! Pages and listings are large, so they are pulled like deliveries: one at a time is asked of the
//! store, in its turn, and the others wait as requests, not as answers. Cursors and changes are small
//! and go to the store at once. Every request carries a correlation number, which its answer or error repeats.

use std::collections::{HashMap, VecDeque};

use broker_proto::frame::read::{PageHead, encode_head};
use broker_proto::limits::ROOM_LIST_MAX;
use broker_proto::{
    Cursor, ErrorCode, Frame, GetCursor, Kind, ListRooms, Position, Read, RoomEntry, RoomList,
    SetCursor,
};
use bytes::Bytes;

use super::managing::{self, Asking};
use super::subscriptions::begin;
use super::turn::Turn;
use crate::store::{
    self, Answer, Ask, Hint, ReadRange, ReadReply, RoomInfo, RoomsPage, Store, StoreError,
};

/// A request whose answer is large.
#[derive(Debug)]
pub(super) enum Large {
    /// A page of a room.
    Read(Read),
    /// A page of the rooms.
    ListRooms(ListRooms),
    /// Something else; the peer's number of it, and what it came as.
    Ask(u32, Kind, Box<Ask>),
}

/// Where the large request at the front stands.
#[derive(Debug)]
enum Front {
    /// The store works on it.
    Asked(u64, Large),
    /// The answer has its turn to come.
    Page(Read, Result<ReadReply, StoreError>),
    /// The answer has its turn to come.
    Rooms(ListRooms, Result<RoomsPage, StoreError>),
    /// The store works on something else.
    AskedFor(u64, u32, Kind),
    /// The answer has its turn to come.
    Answer(u32, Kind, Result<Answer, StoreError>),
}

/// The requests of one connection that have no answer yet.
#[derive(Debug, Default)]
pub(super) struct Requests {
    /// Large requests that the store was not asked for yet, oldest first.
    waiting: VecDeque<Large>,
    front: Option<Front>,
    /// Correlation number and kind of small requests, by tag.
    small: HashMap<u64, (u32, Kind)>,
}

impl Requests {
    /// Whether a turn would do something.
    pub(super) fn has_work(&self) -> bool {
        match &self.front {
            None => !self.waiting.is_empty(),
            Some(Front::Asked(..) | Front::AskedFor(..)) => false,
            Some(_) => true,
        }
    }

    /// Whether one more request is within the limit; if not, it has been refused.
    pub(super) fn admits<S: Store>(
        &self,
        turn: &mut Turn<'_, S>,
        correlation: u32,
        kind: Kind,
    ) -> bool {
        let open = self.waiting.len() + self.small.len() + usize::from(self.front.is_some());
        if open < turn.terms.requests_max {
            return true;
        }
        let detail =
            format!("this connection has {open} requests without an answer, the most allowed");
        turn.error(ErrorCode::LIMIT, correlation.into(), kind, detail);
        false
    }

    /// Takes a request whose answer has to wait for its turn.
    pub(super) fn large(&mut self, request: Large) {
        self.waiting.push_back(request);
    }

    /// Takes a request that concerns a room, its cursors or the store.
    pub(super) fn ask_for<S: Store>(&mut self, turn: &mut Turn<'_, S>, asking: Asking) {
        let is_large = asking.is_large();
        let Asking {
            correlation,
            kind,
            ask,
        } = asking;
        match ask {
            Err((code, detail)) => turn.error(code, correlation.into(), kind, detail),
            Ok(ask) if is_large => self.large(Large::Ask(correlation, kind, Box::new(ask))),
            Ok(ask) => {
                let tag = turn.tag();
                self.small.insert(tag, (correlation, kind));
                turn.store.ask(ask, tag, turn.mailbox);
            }
        }
    }

    /// Asks where a cursor stands.
    pub(super) fn get_cursor<S: Store>(&mut self, turn: &mut Turn<'_, S>, frame: &GetCursor) {
        let tag = turn.tag();
        self.small.insert(tag, (frame.correlation, Kind::GetCursor));
        turn.store
            .cursor(&frame.room, &frame.name, tag, turn.mailbox);
    }

    /// Moves a cursor.
    pub(super) fn set_cursor<S: Store>(&mut self, turn: &mut Turn<'_, S>, frame: SetCursor) {
        let tag = turn.tag();
        self.small.insert(tag, (frame.correlation, Kind::SetCursor));
        let expected = Some(frame.expected).filter(|position| *position != Position::NONE);
        let set = store::SetCursor {
            to: (!frame.deletes()).then_some(frame.position),
            expected: frame.compares().then_some(expected),
            relaxed: frame.is_relaxed(),
            room: frame.room,
            name: frame.name.as_str().to_owned(),
        };
        turn.store.set_cursor(set, tag, turn.mailbox);
    }

    /// The answer of a cursor request.
    pub(super) fn cursor<S: Store>(
        &mut self,
        turn: &mut Turn<'_, S>,
        tag: u64,
        result: Result<Option<Position>, StoreError>,
    ) {
        let Some((correlation, kind)) = self.small.remove(&tag) else {
            return;
        };
        match result {
            Ok(position) => turn.send(&Frame::from(Cursor {
                correlation,
                position,
            })),
            Err(error) => turn.error(error.code(), correlation.into(), kind, error.to_string()),
        }
    }

    /// Whether a read with this tag belongs to a request; then its result is taken.
    pub(super) fn read(
        &mut self,
        tag: u64,
        result: Result<ReadReply, StoreError>,
    ) -> Result<(), Result<ReadReply, StoreError>> {
        match self.front.take() {
            Some(Front::Asked(asked, Large::Read(read))) if asked == tag => {
                self.front = Some(Front::Page(read, result));
                Ok(())
            }
            other => {
                self.front = other;
                Err(result)
            }
        }
    }

    /// The answer of a room listing.
    pub(super) fn rooms(&mut self, tag: u64, result: Result<RoomsPage, StoreError>) {
        match self.front.take() {
            Some(Front::Asked(asked, Large::ListRooms(list))) if asked == tag => {
                self.front = Some(Front::Rooms(list, result));
            }
            other => self.front = other,
        }
    }

    /// The answer of something else.
    pub(super) fn answer<S: Store>(
        &mut self,
        turn: &mut Turn<'_, S>,
        tag: u64,
        result: Result<Answer, StoreError>,
    ) {
        if let Some((correlation, kind)) = self.small.remove(&tag) {
            answer(turn, correlation, kind, result);
            return;
        }
        self.front = match self.front.take() {
            Some(Front::AskedFor(asked, correlation, kind)) if asked == tag => {
                Some(Front::Answer(correlation, kind, result))
            }
            other => other,
        };
    }

    /// Answers at most one large request and asks for the next; says how many bytes the answer had.
    pub(super) fn turn<S: Store>(&mut self, turn: &mut Turn<'_, S>) -> usize {
        self.ask(turn);
        let used = match self.front.take() {
            Some(Front::Page(read, result)) => page(turn, &read, result),
            Some(Front::Rooms(list, result)) => rooms(turn, &list, result),
            Some(Front::Answer(correlation, kind, result)) => {
                let used = answer(turn, correlation, kind, result);
                turn.out.mark_delivery();
                used
            }
            other => {
                self.front = other;
                return 0;
            }
        };
        self.ask(turn);
        used
    }

    /// Asks the store for the next large request, when none is under way.
    fn ask<S: Store>(&mut self, turn: &mut Turn<'_, S>) {
        if self.front.is_some() {
            return;
        }
        let Some(request) = self.waiting.pop_front() else {
            return;
        };
        let tag = turn.tag();
        self.front = Some(match request {
            Large::Read(read) => match turn.store.read(range(turn, &read), tag, turn.mailbox) {
                Some(result) => Front::Page(read, result),
                None => Front::Asked(tag, Large::Read(read)),
            },
            Large::ListRooms(list) => {
                let most = u32::try_from(ROOM_LIST_MAX).unwrap_or(u32::MAX);
                turn.store
                    .rooms(&list.after, list.limit.clamp(1, most), tag, turn.mailbox);
                Front::Asked(tag, Large::ListRooms(list))
            }
            Large::Ask(correlation, kind, ask) => {
                turn.store.ask(*ask, tag, turn.mailbox);
                Front::AskedFor(tag, correlation, kind)
            }
        });
    }
}

/// Writes the answer of something that the store was asked for; says how many bytes it has.
fn answer<S: Store>(
    turn: &mut Turn<'_, S>,
    correlation: u32,
    kind: Kind,
    result: Result<Answer, StoreError>,
) -> usize {
    let before = turn.out.len();
    match managing::frame(correlation, result) {
        Ok(frame) => turn.send(&frame),
        Err((code, detail)) => turn.error(code, correlation.into(), kind, detail),
    }
    turn.out.len() - before
}

/// What to read for a page: no more than a turn of deliveries, whatever was asked for.
fn range<S: Store>(turn: &Turn<'_, S>, read: &Read) -> ReadRange {
    let most = u32::try_from(turn.terms.turn_bytes).unwrap_or(u32::MAX);
    ReadRange {
        room: read.room.clone(),
        from: read.start,
        count_max: read.count_max.max(1),
        bytes_max: read.bytes_max.clamp(1, most),
        hint: Hint::default(),
    }
}

/// Writes a page; says how many bytes of records it has.
fn page<S: Store>(
    turn: &mut Turn<'_, S>,
    read: &Read,
    result: Result<ReadReply, StoreError>,
) -> usize {
    let mut reply = match result {
        Ok(reply) => reply,
        Err(error) => {
            turn.error(
                error.code(),
                read.correlation.into(),
                Kind::Read,
                error.to_string(),
            );
            return 0;
        }
    };
    if read.count_max == 0 {
        // Only the figures are wanted; the store is asked for one message to learn where it begins.
        reply.next = begin(&reply);
        reply.skip = None;
        reply.count = 0;
        reply.records.clear();
    }
    let bytes = reply.records.iter().map(Bytes::len).sum();
    let head = PageHead {
        correlation: read.correlation,
        epoch: reply.epoch,
        first: reply.first,
        head: reply.head,
        next: reply.next,
        count: reply.count,
        skip: reply.skip,
    };
    encode_head(turn.out.control(), &head, bytes);
    for records in reply.records {
        turn.out.body(records);
    }
    turn.out.mark_delivery();
    bytes
}

/// Writes a listing; says about how many bytes it has.
fn rooms<S: Store>(
    turn: &mut Turn<'_, S>,
    list: &ListRooms,
    result: Result<RoomsPage, StoreError>,
) -> usize {
    let page = match result {
        Ok(page) => page,
        Err(error) => {
            turn.error(
                error.code(),
                list.correlation.into(),
                Kind::ListRooms,
                error.to_string(),
            );
            return 0;
        }
    };
    let before = turn.out.len();
    let rooms = page.rooms.into_iter().map(entry).collect();
    turn.send(&Frame::from(RoomList {
        correlation: list.correlation,
        rooms,
        more: page.more,
    }));
    turn.out.mark_delivery();
    turn.out.len() - before
}

fn entry(room: RoomInfo) -> RoomEntry {
    RoomEntry {
        name: room.name,
        epoch: room.epoch,
        first: room.first,
        head: room.head,
        last_time: room.last_time,
    }
}
