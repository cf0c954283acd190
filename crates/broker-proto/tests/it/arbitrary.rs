//! Strategies: any name, any frame, any record.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use broker_proto::frame::read::PageHead;
use broker_proto::{
    AckWriter, ChangeRoom, ChangeSettings, Credit, Cursor, CursorEntry, CursorList, CursorName,
    Deliver, Epoch, Error, ErrorCode, FindRooms, Frame, GetCursor, GetRoom, GetSettings, GetStatus,
    Goodbye, Hello, KnownHead, KnownHeads, LabelWanted, Level, ListCursors, ListRooms, Micros,
    Page, Ping, Pong, Position, ProducerId, Publish, PublishExtensions, Read, Refused, RemoveRoom,
    RoomDetails, RoomEntry, RoomFacts, RoomId, RoomList, RoomName, RoomsFound, SenderName, Seq,
    SetCursor, Skip, SkipRange, SkipReason, StartAt, StartView, Starting, Status, StoreDetails,
    StoreId, Subscribe, Subscribed, Term, TrimRoom, Unsubscribe, Welcome, ack, extension, publish,
    record,
};
use bytes::{Bytes, BytesMut};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

/// Text that follows the rules of names: letters of several scripts, none combining.
fn name_text(first: &str, bytes_max: usize) -> impl Strategy<Value = String> + use<> {
    let pattern = format!("[{first}a-zA-Z0-9_äßλж字😀][-.a-zA-Z0-9_ äßλж字😀]{{0,30}}");
    proptest::string::string_regex(&pattern)
        .unwrap()
        .prop_map(move |text| {
            let text = text.replace(' ', "_");
            text.get(..text.floor_char_boundary(bytes_max))
                .unwrap()
                .to_owned()
        })
}

pub(crate) fn rooms() -> impl Strategy<Value = RoomName> {
    name_text("@$", 128).prop_map(|text| RoomName::parse_reserved(&text).unwrap())
}

pub(crate) fn senders() -> impl Strategy<Value = SenderName> {
    name_text("a", 64).prop_filter_map("the broker's", |text| SenderName::parse(&text).ok())
}

fn cursor_names() -> impl Strategy<Value = CursorName> {
    name_text("@$", 128).prop_map(|text| CursorName::parse(&text).unwrap())
}

fn seqs() -> impl Strategy<Value = Seq> {
    prop_oneof![0..300_u64, any::<u64>()].prop_map(Seq::new)
}

fn epochs() -> impl Strategy<Value = Epoch> {
    any::<u64>().prop_map(Epoch::new)
}

fn positions() -> impl Strategy<Value = Position> {
    (epochs(), seqs()).prop_map(|(epoch, seq)| Position { epoch, seq })
}

fn starts() -> impl Strategy<Value = StartAt> {
    prop_oneof![
        Just(StartView::Start),
        Just(StartView::End),
        seqs().prop_map(StartView::Seq),
        any::<u64>().prop_map(StartView::Last),
        any::<i64>().prop_map(|time| StartView::Time(Micros::new(time))),
        positions().prop_map(StartView::Position),
    ]
    .prop_map(StartAt::from)
}

/// A first number and a count that do not overflow.
fn numbers() -> impl Strategy<Value = (u64, u32)> {
    (1..=u64::MAX - u64::from(u32::MAX), 1..=u32::MAX)
}

fn codes() -> impl Strategy<Value = ErrorCode> {
    any::<u16>().prop_map(ErrorCode::new)
}

fn texts() -> impl Strategy<Value = String> {
    ".{0,60}"
}

fn producers() -> impl Strategy<Value = ProducerId> {
    any::<[u8; 16]>().prop_map(ProducerId::new)
}

/// A list of extensions without critical ones.
pub(crate) fn extensions() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::btree_map(0..0x8000_u16, vec(any::<u8>(), 0..20), 0..6).prop_map(
        |entries| {
            let mut list = Vec::new();
            for (key, value) in entries {
                extension::push(&mut list, key, &value);
            }
            list
        },
    )
}

pub(crate) fn payloads() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        Just(Vec::new()),
        vec(any::<u8>(), 1..80),
        vec(any::<u8>(), 4000..5000)
    ]
}

/// What a message is made of.
#[derive(Debug, Clone)]
pub(crate) struct Parts {
    pub(crate) room: u32,
    pub(crate) seq: u64,
    pub(crate) time: i64,
    pub(crate) sender: SenderName,
    pub(crate) flags: u32,
    pub(crate) extensions: Vec<u8>,
    pub(crate) payload: Vec<u8>,
}

impl Parts {
    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        let mut head = Vec::new();
        record::encode_message_head(&mut head, &self.sender, self.flags, &self.extensions);
        let (room, seq, time) = (
            RoomId::new(self.room),
            Seq::new(self.seq),
            Micros::new(self.time),
        );
        record::encode_message(
            out,
            room,
            seq,
            time,
            &head,
            &self.payload,
            crc32c::crc32c(&self.payload),
        );
    }
}

pub(crate) fn parts() -> impl Strategy<Value = Parts> {
    (
        any::<(u32, u64, i64, u32)>(),
        senders(),
        extensions(),
        payloads(),
    )
        .prop_map(
            |((room, seq, time, flags), sender, extensions, payload)| Parts {
                room,
                seq,
                time,
                sender,
                flags,
                extensions,
                payload,
            },
        )
}

/// Records, and how many.
fn records() -> impl Strategy<Value = (Bytes, u32)> {
    vec(parts(), 0..4).prop_map(|all| {
        let mut out = Vec::new();
        all.iter().for_each(|parts| parts.put(&mut out));
        (out.into(), u32::try_from(all.len()).unwrap())
    })
}

fn known_heads() -> impl Strategy<Value = KnownHeads> {
    (any::<u64>(), vec((rooms(), 1_u64.., 1_u64..), 0..4)).prop_map(|(term, heads)| {
        let head = |(room, epoch, seq)| KnownHead {
            room,
            at: Position::new(Epoch::new(epoch), Seq::new(seq)),
        };
        let term = Term::new(if heads.is_empty() { 0 } else { term });
        let heads = heads.into_iter().map(head).collect();
        KnownHeads { term, heads }
    })
}

fn hellos() -> impl Strategy<Value = Frame> {
    (
        ".{0,16}",
        senders(),
        producers(),
        any::<u32>(),
        any::<[u8; 16]>(),
        any::<[u8; 16]>(),
        known_heads(),
    )
        .prop_map(
            |(build, sender, producer, feature_level, store, nonce, known_heads)| {
                Hello {
                    build,
                    sender,
                    producer,
                    feature_level,
                    known_store: StoreId::new(store),
                    nonce,
                    known_heads,
                }
                .into()
            },
        )
}

fn welcomes() -> impl Strategy<Value = Frame> {
    (
        any::<[u8; 16]>(),
        ".{0,16}",
        any::<[u32; 6]>(),
        any::<(u8, u64, u64)>(),
        any::<[u8; 16]>(),
    )
        .prop_map(
            |(
                store,
                build,
                [feature_level, payload, unacked, window, secs, pid],
                (auth, connection, term),
                nonce,
            )| {
                Frame::from(Welcome {
                    store: StoreId::new(store),
                    term: Term::new(term),
                    build,
                    feature_level,
                    payload_bytes_max: payload,
                    unacked_max: unacked,
                    window_bytes_max: window,
                    producer_window_secs: secs,
                    pid,
                    auth,
                    nonce,
                    connection,
                })
            },
        )
}

/// A publish whose body is well-formed.
pub(crate) fn publishes() -> impl Strategy<Value = Publish> {
    let entries = vec((payloads(), extensions()), 1..5);
    (
        rooms(),
        1..u64::MAX - 10,
        entries,
        option::of(producers()),
        option::of(seqs()),
        any::<bool>(),
    )
        .prop_map(
            |(room, first_number, entries, producer, expected_head, resend)| {
                let mut body = BytesMut::new();
                for (payload, extensions) in &entries {
                    publish::encode_entry(&mut body, payload, extensions, crc32c::crc32c(payload));
                }
                let count = u32::try_from(entries.len()).unwrap();
                let extensions = PublishExtensions {
                    producer,
                    expected_head,
                    resend,
                };
                Publish {
                    room,
                    first_number,
                    count,
                    extensions,
                    body: body.freeze(),
                }
            },
        )
}

fn acks() -> impl Strategy<Value = Frame> {
    let runs = vec(
        (
            rooms(),
            epochs(),
            numbers(),
            1..u64::MAX - u64::from(u32::MAX),
        ),
        0..5,
    );
    (any::<u8>(), runs, option::of(producers())).prop_map(|(level, runs, producer)| {
        let mut writer = AckWriter::new();
        for (room, epoch, (first_number, count), seq) in &runs {
            let (first_number, count) = (*first_number, *count);
            writer.push(&ack::Run {
                room,
                epoch: *epoch,
                first_number,
                count,
                first_seq: Seq::new(*seq),
            });
        }
        writer.into_frame(Level::new(level), producer).into()
    })
}

fn refusals() -> impl Strategy<Value = Frame> {
    (
        numbers(),
        codes(),
        texts(),
        any::<u32>(),
        option::of(producers()),
    )
        .prop_map(
            |((first_number, count), code, detail, retry_after_ms, producer)| {
                Refused {
                    first_number,
                    count,
                    code,
                    detail,
                    retry_after_ms,
                    producer,
                }
                .into()
            },
        )
}

fn subscriptions() -> impl Strategy<Value = Frame> {
    prop_oneof![
        (any::<u32>(), rooms(), starts(), any::<u32>(), 0..2_u32).prop_map(
            |(sub, room, start, window, flags)| {
                Frame::from(Subscribe {
                    sub,
                    room,
                    start,
                    window,
                    flags,
                })
            }
        ),
        (any::<u32>(), epochs(), [seqs(), seqs(), seqs()]).prop_map(
            |(sub, epoch, [first, next, head])| Subscribed {
                sub,
                epoch,
                first,
                next,
                head
            }
            .into()
        ),
        any::<u32>().prop_map(|sub| Unsubscribe { sub }.into()),
        any::<(u32, u32)>().prop_map(|(sub, bytes)| Credit { sub, bytes }.into()),
        (any::<u32>(), seqs(), records()).prop_map(|(sub, next, (body, count))| Deliver {
            sub,
            count,
            next,
            body
        }
        .into()),
        (any::<u32>(), skip_ranges(), epochs()).prop_map(|(sub, range, epoch)| Skip {
            sub,
            range,
            epoch
        }
        .into()),
    ]
}

fn skip_ranges() -> impl Strategy<Value = SkipRange> {
    (1..=u64::MAX, any::<u64>(), 1..=u8::MAX).prop_map(|(from, more, reason)| SkipRange {
        from: Seq::new(from),
        to: Seq::new(from.saturating_add(more)),
        reason: SkipReason::new(reason),
    })
}

fn pages() -> impl Strategy<Value = Frame> {
    (
        any::<u32>(),
        epochs(),
        [seqs(), seqs(), seqs()],
        option::of(skip_ranges()),
        records(),
    )
        .prop_map(
            |(correlation, epoch, [first, head, next], skip, (body, count))| {
                Page {
                    head: PageHead {
                        correlation,
                        epoch,
                        first,
                        head,
                        next,
                        count,
                        skip,
                    },
                    body,
                }
                .into()
            },
        )
}

fn room_lists() -> impl Strategy<Value = Frame> {
    let room = (rooms(), epochs(), seqs(), seqs(), any::<i64>()).prop_map(
        |(name, epoch, first, head, time)| RoomEntry {
            name,
            epoch,
            first,
            head,
            last_time: Micros::new(time),
        },
    );
    (any::<u32>(), vec(room, 0..5), any::<bool>()).prop_map(|(correlation, rooms, more)| {
        RoomList {
            correlation,
            rooms,
            more,
        }
        .into()
    })
}

fn requests() -> impl Strategy<Value = Frame> {
    prop_oneof![
        (any::<u32>(), rooms(), starts(), any::<u32>(), any::<u32>()).prop_map(
            |(correlation, room, start, count_max, bytes_max)| {
                Frame::from(Read {
                    correlation,
                    room,
                    start,
                    count_max,
                    bytes_max,
                })
            }
        ),
        (any::<u32>(), ".{0,30}", any::<u32>()).prop_map(|(correlation, after, limit)| ListRooms {
            correlation,
            after,
            limit
        }
        .into()),
        (any::<u32>(), rooms(), cursor_names()).prop_map(|(correlation, room, name)| GetCursor {
            correlation,
            room,
            name
        }
        .into()),
        (
            any::<u32>(),
            rooms(),
            cursor_names(),
            positions(),
            positions(),
            0..5_u32
        )
            .prop_map(|(correlation, room, name, position, expected, flags)| {
                SetCursor {
                    correlation,
                    room,
                    name,
                    position,
                    expected,
                    flags,
                }
                .into()
            }),
        (any::<u32>(), option::of(positions())).prop_map(|(correlation, position)| Cursor {
            correlation,
            position
        }
        .into()),
        any::<u32>().prop_map(|correlation| GetStatus { correlation }.into()),
        (any::<u32>(), texts()).prop_map(|(correlation, json)| Status {
            correlation,
            json: json.into()
        }
        .into()),
    ]
}

/// Settings as a peer may send them: not looked at before they are asked for.
fn lists() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..60).prop_map(Bytes::from)
}

fn facts() -> impl Strategy<Value = RoomFacts> {
    (
        rooms(),
        epochs(),
        [seqs(), seqs()],
        any::<[i64; 2]>(),
        any::<[u64; 2]>(),
        option::of(senders()),
        lists(),
    )
        .prop_map(
            |(
                name,
                epoch,
                [first, head],
                [last, created],
                [bytes, version],
                created_by,
                settings,
            )| {
                RoomFacts {
                    name,
                    epoch,
                    first,
                    head,
                    last_time: Micros::new(last),
                    bytes,
                    created: Micros::new(created),
                    created_by,
                    version,
                    settings,
                }
            },
        )
}

fn room_requests() -> impl Strategy<Value = Frame> {
    prop_oneof![
        (any::<u32>(), rooms())
            .prop_map(|(correlation, room)| GetRoom { correlation, room }.into()),
        (any::<(u32, u64)>(), rooms(), 0..2_u32, lists()).prop_map(
            |((correlation, expected), room, flags, change)| ChangeRoom {
                correlation,
                room,
                expected,
                flags,
                change
            }
            .into()
        ),
        (any::<u32>(), rooms(), epochs(), seqs()).prop_map(|(correlation, room, epoch, before)| {
            Frame::from(TrimRoom {
                correlation,
                room,
                epoch,
                before,
            })
        }),
        (any::<u32>(), rooms(), epochs()).prop_map(|(correlation, room, epoch)| RemoveRoom {
            correlation,
            room,
            epoch
        }
        .into()),
        (any::<u32>(), facts()).prop_map(|(correlation, room)| {
            let room = Box::new(room);
            RoomDetails { correlation, room }.into()
        }),
        (any::<u32>(), vec(facts(), 0..5), option::of(".{0,30}")).prop_map(
            |(correlation, rooms, next)| RoomsFound {
                correlation,
                rooms,
                next
            }
            .into()
        ),
    ]
}

fn settings_requests() -> impl Strategy<Value = Frame> {
    let label = ("[a-z]{0,64}", option::of("[a-zä]{0,64}"))
        .prop_map(|(name, value)| LabelWanted { name, value });
    let cursor = (cursor_names(), positions(), any::<i64>()).prop_map(|(name, position, moved)| {
        CursorEntry {
            name,
            position,
            moved: Micros::new(moved),
        }
    });
    prop_oneof![
        (
            any::<(u32, u32)>(),
            ".{0,30}",
            ".{0,30}",
            vec(label, 0..=16)
        )
            .prop_map(|((correlation, limit), after, prefix, labels)| FindRooms {
                correlation,
                after,
                limit,
                prefix,
                labels
            }
            .into()),
        any::<u32>().prop_map(|correlation| GetSettings { correlation }.into()),
        (any::<(u32, u64)>(), 0..2_u32, lists()).prop_map(
            |((correlation, expected), flags, change)| ChangeSettings {
                correlation,
                expected,
                flags,
                change
            }
            .into()
        ),
        (any::<(u32, u64)>(), lists()).prop_map(|((correlation, version), settings)| {
            Frame::from(StoreDetails {
                correlation,
                version,
                settings,
            })
        }),
        (any::<(u32, u32)>(), rooms(), ".{0,30}").prop_map(
            |((correlation, limit), room, after)| {
                Frame::from(ListCursors {
                    correlation,
                    room,
                    after,
                    limit,
                })
            }
        ),
        (any::<u32>(), vec(cursor, 0..5), any::<bool>()).prop_map(
            |(correlation, cursors, more)| CursorList {
                correlation,
                cursors,
                more
            }
            .into()
        ),
    ]
}

fn others() -> impl Strategy<Value = Frame> {
    prop_oneof![
        (any::<u64>(), any::<u64>(), texts()).prop_map(|(done, total, what)| Starting {
            done,
            total,
            what
        }
        .into()),
        any::<u64>().prop_map(|nonce| Ping { nonce }.into()),
        any::<u64>().prop_map(|nonce| Pong { nonce }.into()),
        (codes(), any::<(u64, u8, u32)>(), texts()).prop_map(
            |(code, (about, kind, retry_after_ms), detail)| {
                Frame::from(Error {
                    code,
                    about,
                    kind,
                    detail,
                    retry_after_ms,
                })
            }
        ),
        (codes(), any::<u32>(), texts(), 0..2_u32).prop_map(
            |(code, retry_after_ms, successor, flags)| {
                Frame::from(Goodbye {
                    code,
                    retry_after_ms,
                    successor,
                    flags,
                })
            }
        ),
    ]
}

/// Any frame that an encoder can be given.
pub(crate) fn frames() -> impl Strategy<Value = Frame> {
    prop_oneof![
        hellos(),
        welcomes(),
        publishes().prop_map(Frame::from),
        acks(),
        refusals(),
        subscriptions(),
        pages(),
        room_lists(),
        requests(),
        room_requests(),
        settings_requests(),
        others(),
    ]
}
