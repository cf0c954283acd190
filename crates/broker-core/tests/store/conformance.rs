//! One suite for all stores: whatever is asked of one, in whatever order, it answers as the
//! [model](super::model) does.
//!
//! `PROPTEST_CASES` sets how many conversations are tried with each store, `BROKER_SEED` which
//! ones; a failure prints the shortest conversation that shows it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use broker_core::clock::{ManualClock, Random, SystemRandom};
use broker_core::store::{
    AckRun, Hint, Notice, ReadRange, ReadReply, RoomInfo, SessionId, SetCursor, Store, StoreError,
};
use broker_proto::record::{encoded_len, next_record};
use broker_proto::{Epoch, ErrorCode, Level, Micros, Position, RoomId, Seq, StartAt};
use bytes::Bytes;
use proptest::test_runner::{Config, RngSeed, TestRunner};
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest};

use crate::model::{Ask, At, CursorAnswer, Fate, Load, Message, Model, Move};
use crate::ops::{
    self, Ending, EpochOf, From, HintOf, Kind, Op, PRODUCERS, READERS, ReadAsk, Told, World,
};
use crate::subject::{
    Inbox, ROOM_NAMES, Subject, append, cursor_name, key, message_head, room_name, sender,
};

fn position(at: At) -> Position {
    Position::new(Epoch::new(at.epoch), Seq::new(at.seq))
}

/// A store in conversation.
pub(crate) struct Bench {
    subject: Subject,
    clock: ManualClock,
    producers: Vec<Inbox>,
    readers: Vec<Inbox>,
    epochs: HashMap<usize, Epoch>,
    /// The epochs before those, and up to where they count.
    parents: HashMap<usize, (Epoch, u64)>,
    ids: HashMap<usize, RoomId>,
    hints: Vec<Hint>,
    /// The lowest term that the store may have.
    term: u64,
}

impl Bench {
    fn new(world: &World) -> Self {
        let clock = ManualClock::new(Micros::new(world.now));
        let mut subject = Subject::new(world.kind);
        subject.open(world, &clock, false);
        let boxes = |count| std::iter::repeat_with(Inbox::default).take(count).collect();
        Self {
            subject,
            clock,
            producers: boxes(PRODUCERS),
            readers: boxes(READERS),
            epochs: HashMap::new(),
            parents: HashMap::new(),
            ids: HashMap::new(),
            hints: vec![Hint::default()],
            term: 1,
        }
    }

    fn waits(&self) -> bool {
        self.subject.kind == Kind::Threads
    }

    fn store(&self) -> &dyn Store {
        self.subject.store()
    }

    fn apply(&mut self, world: &World, op: &Op) {
        let tag = world.tag;
        match op {
            Op::Append(ask) => {
                let mailbox = &self.producers[ask.who].mailbox;
                self.store().append(append(ask), mailbox).unwrap();
            }
            Op::Hole {
                who,
                session,
                first,
                count,
            } => self
                .store()
                .hole(&key(*who), SessionId(*session), *first, *count),
            Op::Claim { who, session } => self.store().claim(&key(*who), SessionId(*session)),
            Op::Release {
                who,
                session,
                forget,
            } => {
                if *forget {
                    self.subject.flush();
                }
                self.store()
                    .release(&key(*who), SessionId(*session), *forget);
                if *forget {
                    self.subject.flush();
                }
            }
            Op::Step => self.subject.flush(),
            Op::KeepHouse => self.subject.engine.as_mut().unwrap().keep_house(),
            Op::Idle => self.subject.engine.as_mut().unwrap().idle(),
            Op::Advance(micros) => self.clock.advance(Duration::from_micros(*micros)),
            Op::SetClock(now) => self.clock.step_wall(Micros::new(*now)),
            Op::Read(ask) => self.read(world, ask),
            Op::Watch {
                room,
                after,
                mailbox,
            } => {
                let mailbox = &self.readers[*mailbox].mailbox;
                let set = self
                    .store()
                    .watch(&room_name(*room), Seq::new(*after), tag, mailbox);
                assert_eq!(set, world.watching, "whether the watch waits");
            }
            Op::Unwatch { room, tag, mailbox } => {
                let mailbox = &self.readers[*mailbox].mailbox;
                self.store().unwatch(&room_name(*room), *tag, mailbox);
            }
            Op::Rooms { after, limit } => self.rooms(world, *after, *limit),
            Op::Cursor {
                room,
                name,
                mailbox,
            } => {
                let mailbox = &self.readers[*mailbox].mailbox;
                self.store()
                    .cursor(&room_name(*room), &cursor_name(*name), tag, mailbox);
            }
            Op::SetCursor { set, mailbox } => {
                let mailbox = &self.readers[*mailbox].mailbox;
                self.store().set_cursor(set_cursor(set), tag, mailbox);
            }
            Op::Restart { ending, copied } => {
                if *ending == Ending::Close {
                    self.subject.close();
                    self.settle(world);
                    self.expect_closed();
                }
                // A leader that never wrote leaves no trace, and may share its term with the next.
                let info = self.store().info();
                self.term = info.term.get() + u64::from(info.batches > 0);
                self.subject.forget();
                self.subject.open(world, &self.clock, *copied);
                if *copied {
                    self.expect_new_epochs(world);
                }
            }
        }
        if matches!(op, Op::Restart { .. }) {
            self.read_everything(world);
        } else {
            self.settle(world);
        }
    }

    /// Checks that the mailboxes say what the model says, and nothing else.
    fn settle(&mut self, world: &World) {
        let waits = self.waits();
        for told in &world.told {
            match told {
                Told::Fates { ask, fates } => self.expect_fates(ask, fates),
                Told::Grown { tag, mailbox } => {
                    self.readers[*mailbox].take(
                        waits,
                        |notice| matches!(notice, Notice::Grown { tag: found } if found == tag),
                    );
                }
                Told::Cursor {
                    tag,
                    mailbox,
                    answer,
                } => self.expect_cursor(*tag, *mailbox, answer),
            }
        }
        for one in self.producers.iter_mut().chain(&mut self.readers) {
            one.drain();
            assert!(one.notices.is_empty(), "too much said: {:?}", one.notices);
        }
    }

    /// The outcomes of one append come in front of those of the next, and name each number once.
    fn expect_fates(&mut self, ask: &Ask, fates: &[Fate]) {
        let mut seen = vec![false; fates.len()];
        let waits = self.waits();
        while seen.contains(&false) {
            let notice = self.producers[ask.who].take(waits, |_| true);
            let (first, count) = match &notice {
                Notice::Acked { run, .. } => (run.first_number, run.count),
                Notice::Refused {
                    first_number,
                    count,
                    ..
                } => (*first_number, *count),
                other => panic!("{other:?} is not an outcome"),
            };
            assert!(count > 0, "{notice:?} says nothing");
            for number in first..first + u64::from(count) {
                assert!(
                    ask.numbers().contains(&number),
                    "{notice:?} is not about {ask:?}"
                );
                let at = usize::try_from(number - ask.first).unwrap();
                assert!(!seen[at], "{number} is named twice");
                seen[at] = true;
                self.expect_fate(ask.who, number, fates[at], &notice);
            }
        }
    }

    fn expect_fate(&mut self, who: usize, number: u64, fate: Fate, notice: &Notice) {
        let (place, code) = match fate {
            Fate::Acked(place) => (Some(place), None),
            Fate::Refused(code) => (None, Some(code)),
            Fate::Old(place) => (place, Some(ErrorCode::DUPLICATE)),
        };
        match notice {
            Notice::Acked { producer, run } => {
                let expected = place.unwrap_or_else(|| panic!("{number} is acked: {run:?}"));
                assert_eq!(*producer, key(who).producer);
                assert_eq!(run.room, room_name(expected.room));
                assert_eq!(seq_of(run, number), expected.seq, "{number} in {run:?}");
                assert_eq!(run.level, Level::SYNCED);
                self.expect_epoch(expected.room, run.epoch);
            }
            Notice::Refused {
                producer,
                code: found,
                detail,
                ..
            } => {
                assert_eq!(*producer, key(who).producer);
                assert_eq!(Some(*found), code, "{number} is refused: {detail}");
                assert!(!detail.is_empty());
            }
            other => panic!("{other:?} is not an outcome"),
        }
    }

    /// A room has one epoch, whatever happens, and shares it with no other room.
    fn expect_epoch(&mut self, room: usize, epoch: Epoch) {
        assert!(!epoch.is_none());
        let known = *self.epochs.entry(room).or_insert(epoch);
        assert_eq!(known, epoch, "{}", ROOM_NAMES[room]);
        assert!(
            self.epochs
                .iter()
                .all(|(other, its)| *other == room || *its != epoch)
        );
    }

    /// In a copy every room has another epoch, and knows the one before; if nobody published since
    /// the last copy was made, that is still the one that clients know.
    fn expect_new_epochs(&mut self, world: &World) {
        let before = std::mem::take(&mut self.epochs);
        for (room, _) in world.model.rooms() {
            let head = world.model.head(room);
            let parent = self.parents.entry(room).or_insert((before[&room], head));
            if parent.1 != head {
                *parent = (before[&room], head);
            }
            let parent = parent.0;
            let range = ReadRange {
                room: room_name(room),
                from: StartAt::END,
                count_max: 1,
                bytes_max: 1,
                hint: Hint::default(),
            };
            let epoch = self.ask_read(range, world.tag).unwrap().epoch;
            assert!(epoch != before[&room] && epoch != parent);
            self.expect_epoch(room, epoch);
        }
    }

    fn expect_cursor(&mut self, tag: u64, mailbox: usize, answer: &CursorAnswer) {
        let waits = self.waits();
        let notice = self.readers[mailbox].take(
            waits,
            |notice| matches!(notice, Notice::Cursor { tag: found, .. } if *found == tag),
        );
        let Notice::Cursor { result, .. } = notice else {
            unreachable!("it was looked for")
        };
        let found = match result {
            Ok(found) => CursorAnswer::Stands(found.map(at)),
            Err(StoreError::NoSuchRoom { .. }) => CursorAnswer::NoSuchRoom,
            Err(StoreError::Conflict { found }) => CursorAnswer::Conflict(found.map(at)),
            Err(other) => panic!("{other}"),
        };
        assert_eq!(found, *answer);
    }

    /// A store that was closed says so.
    fn expect_closed(&mut self) {
        let ask = Ask {
            who: 0,
            session: 0,
            claimed: false,
            room: 0,
            first: 1,
            load: Load {
                count: 2,
                bytes: 0,
                salt: 0,
                extended: false,
            },
            expected: None,
        };
        let (mailbox, reader) = (&self.producers[0].mailbox, &self.readers[0].mailbox);
        self.store().append(append(&ask), mailbox).unwrap();
        self.store().cursor(&room_name(0), "seen", 1, reader);
        self.expect_fates(&ask, &[Fate::Refused(ErrorCode::GOING_AWAY); 2]);
        let notice = self.readers[0].take(false, |_| true);
        assert!(
            matches!(
                notice,
                Notice::Cursor {
                    result: Err(StoreError::Closed),
                    ..
                }
            ),
            "{notice:?}"
        );
    }

    fn rooms(&mut self, world: &World, after: Option<usize>, limit: u32) {
        let mailbox = Arc::clone(&self.readers[0].mailbox);
        let after = after.map_or("", |room| ROOM_NAMES[room]);
        self.store().rooms(after, limit, world.tag, &mailbox);
        let waits = self.waits();
        let notice = self.readers[0].take(waits, |notice| matches!(notice, Notice::Rooms { .. }));
        let Notice::Rooms { tag, result } = notice else {
            unreachable!("it was looked for")
        };
        assert_eq!(tag, world.tag);
        let page = result.unwrap();
        let mut expected: Vec<RoomInfo> = world
            .model
            .rooms()
            .filter(|(room, _)| ROOM_NAMES[*room] > after)
            .map(|(room, messages)| RoomInfo {
                name: room_name(room),
                epoch: self.epochs[&room],
                first: Seq::FIRST,
                head: Seq::new(world.model.head(room)),
                last_time: Micros::new(messages.iter().map(|one| one.time).max().unwrap()),
            })
            .collect();
        expected.sort_by(|a, b| a.name.as_str().cmp(b.name.as_str()));
        let limit = usize::try_from(limit).unwrap();
        assert_eq!(page.more, expected.len() > limit);
        expected.truncate(limit);
        assert_eq!(page.rooms, expected);
    }

    fn ask_read(&mut self, range: ReadRange, tag: u64) -> Result<ReadReply, StoreError> {
        let mailbox = Arc::clone(&self.readers[1].mailbox);
        if let Some(result) = self.store().read(range, tag, &mailbox) {
            return result;
        }
        let waits = self.waits();
        let notice = self.readers[1].take(
            waits,
            |notice| matches!(notice, Notice::Read { tag: found, .. } if *found == tag),
        );
        let Notice::Read { result, .. } = notice else {
            unreachable!("it was looked for")
        };
        result
    }

    fn start_at(&self, ask: &ReadAsk) -> StartAt {
        match ask.from {
            From::Start => StartAt::START,
            From::End => StartAt::END,
            From::Seq(seq) => StartAt::seq(Seq::new(seq)),
            From::Last(count) => StartAt::last(count),
            From::Time(time) => StartAt::time(Micros::new(time)),
            From::Position { epoch, seq } => {
                let known = match epoch {
                    EpochOf::Room => self.epochs.get(&ask.room).copied(),
                    EpochOf::Parent => self.parents.get(&ask.room).map(|parent| parent.0),
                    EpochOf::Nobody => None,
                };
                let epoch = known.unwrap_or(Epoch::new(77));
                StartAt::position(Position::new(epoch, Seq::new(seq)))
            }
        }
    }

    fn read(&mut self, world: &World, ask: &ReadAsk) {
        let range = ReadRange {
            room: room_name(ask.room),
            from: self.start_at(ask),
            count_max: ask.count_max,
            bytes_max: ask.bytes_max,
            hint: match ask.hint {
                HintOf::Nothing => Hint::default(),
                HintOf::Earlier(index) => *index.get(&self.hints),
                HintOf::Garbage(bits) => Hint(bits),
            },
        };
        let result = self.ask_read(range.clone(), world.tag);
        match expected_begin(&world.model, ask) {
            Ok(begin) => {
                let reply = result.unwrap_or_else(|error| panic!("{range:?}: {error}"));
                self.expect_page(&world.model, ask.room, begin, &range, &reply);
            }
            Err(code) => assert_eq!(result.map_err(|error| error.code()), Err(code), "{range:?}"),
        }
    }

    /// A page holds exactly the messages that are next and fit, and at least one if there is one.
    fn expect_page(
        &mut self,
        model: &Model,
        room: usize,
        begin: u64,
        range: &ReadRange,
        reply: &ReadReply,
    ) {
        let messages = model.room(room).unwrap();
        self.expect_epoch(room, reply.epoch);
        assert_eq!(*self.ids.entry(room).or_insert(reply.room), reply.room);
        assert_eq!(
            (reply.first, reply.head),
            (Seq::FIRST, Seq::new(model.head(room)))
        );
        assert_eq!(reply.skip, None, "nothing is damaged: {range:?}");
        let from = usize::try_from(begin - 1).unwrap();
        let mut room_left = usize::try_from(range.bytes_max).unwrap();
        let count_max = usize::try_from(range.count_max.max(1)).unwrap();
        let fitting = messages[from..].iter().take(count_max).enumerate();
        let fits = fitting.take_while(|(n, message)| {
            let bytes = record_bytes(message);
            let fits = *n == 0 || bytes <= room_left;
            room_left = room_left.saturating_sub(bytes);
            fits
        });
        let expected: Vec<&Message> = fits.map(|(_, message)| message).collect();
        let found = records(&reply.records);
        assert_eq!(
            usize::try_from(reply.count).unwrap(),
            expected.len(),
            "{range:?} from {begin} of {}",
            messages.len()
        );
        assert_eq!(found.len(), expected.len());
        let count = u64::try_from(expected.len()).unwrap();
        assert_eq!(reply.next, Seq::new(begin + count));
        for ((seq, record), message) in (begin..).zip(&found).zip(&expected) {
            expect_record(reply.room, seq, record, message);
        }
        self.hints.push(reply.hint);
    }

    /// Reads all rooms from the beginning, page by page, with the hints of the pages before.
    fn read_everything(&mut self, world: &World) {
        for (room, messages) in world.model.rooms() {
            for (count_max, bytes_max) in [(7, 500), (u32::MAX, 1 << 18)] {
                let mut next = Seq::FIRST;
                let mut hint = Hint::default();
                while next.get() <= u64::try_from(messages.len()).unwrap() {
                    let range = ReadRange {
                        room: room_name(room),
                        from: StartAt::seq(next),
                        count_max,
                        bytes_max,
                        hint,
                    };
                    let reply = self.ask_read(range.clone(), world.tag).unwrap();
                    self.expect_page(&world.model, room, next.get(), &range, &reply);
                    (next, hint) = (reply.next, reply.hint);
                    if count_max == 7 && next.get() > 100 {
                        break;
                    }
                }
            }
        }
    }

    fn check_info(&self, world: &World) {
        let info = self.store().info();
        if world.kind != Kind::Memory {
            assert_eq!(info.store, self.subject.id);
        }
        assert!(info.term.get() >= self.term, "the term was not raised");
        assert_eq!((info.damaged, info.read_only), (0, None));
        assert_eq!(
            info.rooms,
            u64::try_from(world.model.rooms().count()).unwrap()
        );
    }
}

fn seq_of(run: &AckRun, number: u64) -> u64 {
    run.first_seq.get() + (number - run.first_number)
}

fn at(position: Position) -> At {
    At {
        epoch: position.epoch.get(),
        seq: position.seq.get(),
    }
}

fn set_cursor(set: &Move) -> SetCursor {
    SetCursor {
        room: room_name(set.room),
        name: cursor_name(set.name),
        to: set.to.map(position),
        expected: set.expected.map(|expected| expected.map(position)),
        relaxed: false,
    }
}

/// The seq at which a read must begin, or why it must be refused.
fn expected_begin(model: &Model, ask: &ReadAsk) -> Result<u64, ErrorCode> {
    let Some(messages) = model.room(ask.room) else {
        return Err(ErrorCode::NO_SUCH_ROOM);
    };
    let end = model.head(ask.room) + 1;
    match ask.from {
        From::Start => Ok(1),
        From::End => Ok(end),
        From::Last(count) => Ok(end.saturating_sub(count).max(1)),
        From::Seq(seq) if seq > end => Err(ErrorCode::BAD_POSITION),
        From::Position { epoch, seq } => {
            let known = match epoch {
                EpochOf::Room => Some(end),
                EpochOf::Parent => model.fork(ask.room).map(|fork| fork + 1),
                EpochOf::Nobody => None,
            };
            let is_known = known.is_some_and(|known| seq <= known);
            is_known.then_some(seq.max(1)).ok_or(ErrorCode::LOST_SUFFIX)
        }
        From::Seq(seq) => Ok(seq.max(1)),
        From::Time(time) => {
            let at = messages.iter().position(|message| message.time >= time);
            Ok(at.map_or(end, |at| u64::try_from(at).unwrap() + 1))
        }
    }
}

fn record_bytes(message: &Message) -> usize {
    let extensions = message.load.extensions(message.n);
    let head = message_head(message.who).len() + extensions.len();
    encoded_len(head, message.load.payload(message.n).len())
}

fn records(pieces: &[Bytes]) -> Vec<Bytes> {
    let mut all = Vec::new();
    for piece in pieces {
        let mut rest = &piece[..];
        while let Some((record, after)) = next_record(rest).unwrap() {
            record.verify_payload().unwrap();
            all.push(piece.slice_ref(&rest[..rest.len() - after.len()]));
            rest = after;
        }
    }
    all
}

fn expect_record(room: RoomId, seq: u64, record: &Bytes, message: &Message) {
    let (record, _) = next_record(record).unwrap().unwrap();
    let found = record.message().unwrap();
    assert_eq!(record.fixed.room, room);
    assert_eq!(found.seq, Seq::new(seq));
    assert_eq!(found.time, Micros::new(message.time), "the time of {seq}");
    assert_eq!(found.sender, sender(message.who).as_str());
    assert_eq!(found.extensions, message.load.extensions(message.n));
    assert!(
        found.payload == message.load.payload(message.n),
        "the payload of {seq} is another one"
    );
}

/// Runs conversations with one kind of store.
struct Conformance<R>(std::marker::PhantomData<R>);

impl<R: ReferenceStateMachine<State = World, Transition = Op>> StateMachineTest for Conformance<R> {
    type SystemUnderTest = Bench;
    type Reference = R;

    fn init_test(world: &World) -> Bench {
        Bench::new(world)
    }

    fn apply(mut bench: Bench, world: &World, op: Op) -> Bench {
        bench.apply(world, &op);
        bench
    }

    fn check_invariants(bench: &Bench, world: &World) {
        bench.check_info(world);
    }

    fn teardown(mut bench: Bench, world: World) {
        bench.read_everything(&world);
        bench.subject.close();
    }
}

/// Tries `cases` conversations, unless `PROPTEST_CASES` says otherwise, from the seed `BROKER_SEED`.
fn converse<R: ReferenceStateMachine<State = World, Transition = Op>>(cases: u32, steps: usize) {
    let mut config = Config {
        failure_persistence: None,
        max_shrink_iters: 20_000,
        ..Config::default()
    };
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = cases;
    }
    let seed = std::env::var("BROKER_SEED").ok();
    let seed = seed.map_or_else(
        || SystemRandom.bits_64(),
        |seed| seed.parse().expect("BROKER_SEED is a number"),
    );
    config.rng_seed = RngSeed::Fixed(seed);
    eprintln!("BROKER_SEED={seed} PROPTEST_CASES={}", config.cases);
    let mut runner = TestRunner::new(config.clone());
    let result = runner.run(&R::sequential_strategy(1..steps), |(world, ops, seen)| {
        Conformance::<R>::test_sequential(config.clone(), world, ops, seen);
        Ok(())
    });
    if let Err(failure) = result {
        panic!("BROKER_SEED={seed}: {failure}");
    }
}

#[test]
fn a_store_in_memory_does_what_the_model_does() {
    converse::<ops::Memory>(100, 150);
}

#[test]
fn a_store_on_disk_does_what_the_model_does() {
    converse::<ops::ByHand>(250, 200);
}

#[test]
fn a_store_with_threads_does_what_the_model_does() {
    converse::<ops::Threads>(60, 150);
}
