//! What can be asked of a store, at random but to the point, and what the model says to it.

use std::collections::VecDeque;

use proptest::prelude::*;
use proptest_state_machine::ReferenceStateMachine;

use crate::model::{Ask, At, CursorAnswer, Fate, Load, Model, Move};

/// Producers, rooms and mailboxes of readers that take part.
pub(crate) const PRODUCERS: usize = 4;
pub(crate) const ROOMS: usize = 4;
pub(crate) const READERS: usize = 2;

/// Which store, and when it decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// In memory; decides at once, ends with the process.
    Memory,
    /// On a disk, driven by hand: decides when stepped.
    ByHand,
    /// On a disk, with threads of its own.
    Threads,
}

impl Kind {
    fn restarts(self) -> bool {
        self != Self::Memory
    }

    fn waits_for_step(self) -> bool {
        self == Self::ByHand
    }
}

/// What makes stores on disk split and roll at other places.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tuning {
    pub(crate) batch_bytes_max: usize,
    pub(crate) checkpoint_bytes_min: u64,
    pub(crate) segment_bytes: u64,
    pub(crate) tail_bytes_max: usize,
    pub(crate) seed: u64,
}

/// Where a read begins.
#[derive(Debug, Clone, Copy)]
pub(crate) enum From {
    Start,
    End,
    Seq(u64),
    Last(u64),
    Time(i64),
    Position { epoch: EpochOf, seq: u64 },
}

/// Whose epoch a position names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EpochOf {
    Room,
    /// That of the room before the directory was copied.
    Parent,
    Nobody,
}

/// Which hint a read brings.
#[derive(Debug, Clone, Copy)]
pub(crate) enum HintOf {
    Nothing,
    /// From one of the replies before, whatever that was about.
    Earlier(prop::sample::Index),
    /// Not from any reply.
    Garbage(u64),
}

/// A read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ReadAsk {
    pub(crate) room: usize,
    pub(crate) from: From,
    pub(crate) count_max: u32,
    pub(crate) bytes_max: u32,
    pub(crate) hint: HintOf,
}

/// How a store ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    Close,
    /// Between two steps, without a word.
    Kill,
}

/// One step of a test.
#[derive(Debug, Clone)]
pub(crate) enum Op {
    Append(Ask),
    Hole {
        who: usize,
        session: u64,
        first: u64,
        count: u32,
    },
    Claim {
        who: usize,
        session: u64,
    },
    Release {
        who: usize,
        session: u64,
        forget: bool,
    },
    /// The store does what is queued.
    Step,
    KeepHouse,
    Idle,
    Advance(u64),
    SetClock(i64),
    Read(ReadAsk),
    Watch {
        room: usize,
        after: u64,
        mailbox: usize,
    },
    Unwatch {
        room: usize,
        tag: u64,
        mailbox: usize,
    },
    Rooms {
        after: Option<usize>,
        limit: u32,
    },
    Cursor {
        room: usize,
        name: u8,
        mailbox: usize,
    },
    SetCursor {
        set: Move,
        mailbox: usize,
    },
    Restart {
        ending: Ending,
        /// In a copy of the directory.
        copied: bool,
    },
}

/// What a mailbox must be told.
#[derive(Debug, Clone)]
pub(crate) enum Told {
    Fates {
        ask: Ask,
        fates: Vec<Fate>,
    },
    Grown {
        tag: u64,
        mailbox: usize,
    },
    Cursor {
        tag: u64,
        mailbox: usize,
        answer: CursorAnswer,
    },
}

/// The model, what is queued before it, and what it has just said.
#[derive(Debug, Clone)]
pub(crate) struct World {
    pub(crate) kind: Kind,
    pub(crate) tuning: Tuning,
    pub(crate) now: i64,
    pub(crate) model: Model,
    queue: VecDeque<(u64, Op)>,
    /// The number of this step; it tags what is asked in it.
    pub(crate) tag: u64,
    /// What the step must make the store say.
    pub(crate) told: Vec<Told>,
    /// What a watch must have been answered in this step.
    pub(crate) watching: bool,
}

impl World {
    fn new(kind: Kind, tuning: Tuning) -> Self {
        Self {
            kind,
            tuning,
            now: 1_000_000,
            model: Model::default(),
            queue: VecDeque::new(),
            tag: 0,
            told: Vec::new(),
            watching: false,
        }
    }

    /// The number after the last one that `who` has used, also in what is queued.
    fn next_number(&self, who: usize) -> u64 {
        let queued = self.queue.iter().filter_map(|(_, op)| match op {
            Op::Append(ask) if ask.who == who => Some(ask.numbers().end),
            _ => None,
        });
        queued.max().unwrap_or(1).max(self.model.highest(who) + 1)
    }

    fn flush(&mut self) {
        while let Some((tag, op)) = self.queue.pop_front() {
            self.decide(tag, op);
        }
    }

    fn decide(&mut self, tag: u64, op: Op) {
        match op {
            Op::Append(ask) => {
                let fates = self.model.append(&ask, self.now);
                self.told.push(Told::Fates { ask, fates });
                let fired = self.model.fire().into_iter();
                self.told
                    .extend(fired.map(|(tag, mailbox)| Told::Grown { tag, mailbox }));
            }
            Op::Hole {
                who,
                session,
                first,
                count,
            } => self.model.hole(who, session, first, count),
            Op::Claim { who, session } => self.model.claim(who, session),
            Op::Release {
                who,
                session,
                forget,
            } => self.model.release(who, session, forget),
            Op::Cursor {
                room,
                name,
                mailbox,
            } => {
                let answer = self.model.cursor(room, name);
                self.told.push(Told::Cursor {
                    tag,
                    mailbox,
                    answer,
                });
            }
            Op::SetCursor { set, mailbox } => {
                let answer = self.model.set_cursor(&set);
                self.told.push(Told::Cursor {
                    tag,
                    mailbox,
                    answer,
                });
            }
            _ => unreachable!("nothing else is queued"),
        }
    }

    fn apply(&mut self, op: &Op) {
        self.tag += 1;
        self.told.clear();
        match op {
            Op::Release { forget: true, .. } => {
                // A goodbye forgets only when nothing is under way.
                self.flush();
                self.decide(self.tag, op.clone());
            }
            Op::Append(_)
            | Op::Hole { .. }
            | Op::Claim { .. }
            | Op::Release { .. }
            | Op::Cursor { .. }
            | Op::SetCursor { .. } => {
                self.queue.push_back((self.tag, op.clone()));
                if !self.kind.waits_for_step() {
                    self.flush();
                }
            }
            Op::Step => self.flush(),
            Op::Advance(micros) => self.now += i64::try_from(*micros).unwrap(),
            Op::SetClock(now) => self.now = *now,
            Op::Watch {
                room,
                after,
                mailbox,
            } => self.watching = self.model.watch(*room, *after, self.tag, *mailbox),
            Op::Unwatch { room, tag, mailbox } => self.model.unwatch(*room, *tag, *mailbox),
            Op::Restart { ending, copied } => {
                if *ending == Ending::Close {
                    self.flush();
                    self.model.flush_forgotten();
                }
                self.queue.clear();
                self.model.restart();
                if *copied {
                    self.model.copy();
                }
            }
            Op::KeepHouse | Op::Idle | Op::Read(_) | Op::Rooms { .. } => {}
        }
    }
}

fn load() -> impl Strategy<Value = Load> {
    let (count, bytes) = (1_u32..6, 0_u32..100);
    let shape = prop_oneof![
        30 => (count.clone(), bytes),
        8 => (1_u32..4, 500_u32..6000),
        3 => (20_u32..200, 0_u32..40),
        1 => (1000_u32..4500, Just(0)),
        2 => (1_u32..3, 100_000_u32..500_000),
    ];
    (shape, any::<u8>(), any::<bool>()).prop_map(|((count, bytes), salt, extended)| Load {
        count,
        bytes,
        salt,
        extended,
    })
}

fn first_number(next: u64) -> BoxedStrategy<u64> {
    let recent = next.saturating_sub(8).max(1);
    // The oldest numbers that must be known, and the newest that need not.
    let edge = next.saturating_sub(4099).max(1);
    prop_oneof![
        12 => Just(next),
        4 => recent..=next,
        2 => 1..=next,
        1 => edge..=next.min(edge + 4),
        1 => next..next + 5,
    ]
    .boxed()
}

fn session(owner: u64) -> impl Strategy<Value = u64> {
    prop_oneof![4 => Just(owner), 1 => 0_u64..4]
}

fn append(world: &World, who: usize) -> BoxedStrategy<Op> {
    let heads: Vec<u64> = (0..ROOMS).map(|room| world.model.head(room)).collect();
    let expected = prop_oneof![8 => Just(None), 1 => Just(Some(0)), 1 => (1_u64..8).prop_map(Some)];
    (
        first_number(world.next_number(who)),
        load(),
        (session(world.model.owner(who)), prop::bool::weighted(0.8)),
        0..ROOMS,
        expected,
    )
        .prop_map(move |(first, load, (session, claimed), room, expected)| {
            // 0 stands for the head that the room has now, others for ones around it.
            let near = |n: u64| match n {
                0 => heads[room],
                n => (heads[room] + n).saturating_sub(4),
            };
            Op::Append(Ask {
                who,
                session,
                claimed,
                room,
                first,
                load,
                expected: expected.map(near),
            })
        })
        .boxed()
}

fn producing(world: &World, who: usize) -> BoxedStrategy<Op> {
    let next = world.next_number(who);
    let owner = world.model.owner(who);
    prop_oneof![
        20 => append(world, who),
        1 => (first_number(next), session(owner), 1_u32..4)
            .prop_map(move |(first, session, count)| Op::Hole { who, session, first, count }),
        2 => (1_u64..4).prop_map(move |session| Op::Claim { who, session }),
        1 => (session(owner), any::<bool>())
            .prop_map(move |(session, forget)| Op::Release { who, session, forget }),
    ]
    .boxed()
}

fn from(world: &World, room: usize) -> BoxedStrategy<From> {
    let head = world.model.head(room);
    let messages = world.model.room(room).unwrap_or_default();
    let times: Vec<i64> = messages.iter().map(|message| message.time).collect();
    let time = if times.is_empty() {
        Just(0).boxed()
    } else {
        (prop::sample::select(times), -1_i64..=1)
            .prop_map(|(time, off)| time + off)
            .boxed()
    };
    let epoch_of = prop_oneof![
        4 => Just(EpochOf::Room),
        2 => Just(EpochOf::Parent),
        1 => Just(EpochOf::Nobody),
    ];
    prop_oneof![
        2 => Just(From::Start),
        1 => Just(From::End),
        3 => (0..head + 3).prop_map(From::Seq),
        2 => prop_oneof![0..head + 3, Just(u64::MAX)].prop_map(From::Last),
        3 => time.prop_map(From::Time),
        1 => any::<i64>().prop_map(From::Time),
        3 => (epoch_of, 0..head + 3)
            .prop_map(|(epoch, seq)| From::Position { epoch, seq }),
    ]
    .boxed()
}

fn limit_of_count() -> impl Strategy<Value = u32> {
    prop_oneof![1 => 0_u32..3, 2 => 3_u32..100, 2 => Just(u32::MAX)]
}

fn limit_of_bytes() -> impl Strategy<Value = u32> {
    prop_oneof![2 => 0_u32..300, 2 => 300_u32..70_000, 2 => Just(1 << 20), 1 => Just(u32::MAX)]
}

fn read(world: &World, room: usize) -> BoxedStrategy<Op> {
    let hint = prop_oneof![
        3 => Just(HintOf::Nothing),
        3 => any::<prop::sample::Index>().prop_map(HintOf::Earlier),
        1 => (0_u64..3_000_000).prop_map(HintOf::Garbage),
    ];
    (from(world, room), limit_of_count(), limit_of_bytes(), hint)
        .prop_map(move |(from, count_max, bytes_max, hint)| {
            Op::Read(ReadAsk {
                room,
                from,
                count_max,
                bytes_max,
                hint,
            })
        })
        .boxed()
}

fn reading(world: &World, room: usize) -> BoxedStrategy<Op> {
    let head = world.model.head(room);
    let mailbox = 0..READERS;
    let waiting = world.model.waiting();
    let unwatch = if waiting.is_empty() {
        Just(Op::Unwatch {
            room,
            tag: 1,
            mailbox: 0,
        })
        .boxed()
    } else {
        prop::sample::select(waiting)
            .prop_map(|(room, tag, mailbox)| Op::Unwatch { room, tag, mailbox })
            .boxed()
    };
    let any_unwatch = (1_u64..40, mailbox.clone()).prop_map(move |(tag, mailbox)| Op::Unwatch {
        room,
        tag,
        mailbox,
    });
    prop_oneof![
        12 => read(world, room),
        4 => (head.saturating_sub(2)..head + 4, mailbox)
            .prop_map(move |(after, mailbox)| Op::Watch { room, after, mailbox }),
        1 => unwatch,
        1 => any_unwatch,
        2 => (prop::option::of(0..ROOMS), 0_u32..6)
            .prop_map(|(after, limit)| Op::Rooms { after, limit }),
    ]
    .boxed()
}

fn at() -> impl Strategy<Value = At> {
    (1_u64..3, 0_u64..4).prop_map(|(epoch, seq)| At { epoch, seq })
}

fn cursors(room: usize) -> BoxedStrategy<Op> {
    let set = (
        0_u8..2,
        prop::option::weighted(0.7, at()),
        prop::option::of(prop::option::weighted(0.7, at())),
    );
    prop_oneof![
        1 => (0_u8..2, 0..READERS)
            .prop_map(move |(name, mailbox)| Op::Cursor { room, name, mailbox }),
        2 => (set, 0..READERS).prop_map(move |((name, to, expected), mailbox)| Op::SetCursor {
            set: Move { room, name, to, expected },
            mailbox,
        }),
    ]
    .boxed()
}

fn passing(kind: Kind) -> BoxedStrategy<Op> {
    let time = prop_oneof![
        3 => (0_u64..3_000_000).prop_map(Op::Advance),
        // Also to before 1970.
        1 => (-2_000_000_i64..5_000_000).prop_map(Op::SetClock),
    ];
    let restart =
        |ending| prop::bool::weighted(0.2).prop_map(move |copied| Op::Restart { ending, copied });
    match kind {
        Kind::Memory => time.boxed(),
        Kind::ByHand => prop_oneof![
            2 => time,
            12 => Just(Op::Step),
            1 => Just(Op::KeepHouse),
            1 => Just(Op::Idle),
            1 => restart(Ending::Close),
            1 => restart(Ending::Kill),
        ]
        .boxed(),
        Kind::Threads => prop_oneof![
            4 => time,
            1 => restart(Ending::Close),
        ]
        .boxed(),
    }
}

fn world(kind: Kind) -> BoxedStrategy<World> {
    let tuning = (
        prop_oneof![Just(1_usize), 100_usize..5000, Just(4 << 20)],
        prop_oneof![Just(4_u64 << 10), (4_u64 << 10)..(1 << 20), Just(64 << 20)],
        prop_oneof![Just(8_u64 << 10), (8_u64 << 10)..(256 << 10), Just(1 << 20)],
        prop_oneof![Just(0_usize), 0_usize..(64 << 10), Just(8 << 20)],
        any::<u64>(),
    );
    tuning
        .prop_map(
            move |(batch_bytes_max, checkpoint_bytes_min, segment_bytes, tail_bytes_max, seed)| {
                let tuning = Tuning {
                    batch_bytes_max,
                    checkpoint_bytes_min,
                    segment_bytes,
                    tail_bytes_max,
                    seed,
                };
                World::new(kind, tuning)
            },
        )
        .boxed()
}

fn ops(world: &World) -> BoxedStrategy<Op> {
    // Strategies depend on the world, and so on the producer and the room, which are drawn first.
    let producing: Vec<_> = (0..PRODUCERS).map(|who| producing(world, who)).collect();
    let reading: Vec<_> = (0..ROOMS).map(|room| reading(world, room)).collect();
    prop_oneof![
        10 => prop::strategy::Union::new(producing),
        6 => prop::strategy::Union::new(reading),
        3 => (0..ROOMS).prop_flat_map(cursors),
        5 => passing(world.kind),
    ]
    .boxed()
}

/// One reference per kind of store.
macro_rules! references {
    ($($(#[$doc:meta])* $name:ident = $kind:expr;)+) => {$(
        $(#[$doc])*
        #[derive(Debug)]
        pub(crate) struct $name;

        impl ReferenceStateMachine for $name {
            type State = World;
            type Transition = Op;

            fn init_state() -> BoxedStrategy<World> {
                world($kind)
            }

            fn transitions(world: &World) -> BoxedStrategy<Op> {
                ops(world)
            }

            fn preconditions(world: &World, op: &Op) -> bool {
                !matches!(op, Op::Restart { .. }) || world.kind.restarts()
            }

            fn apply(mut world: World, op: &Op) -> World {
                world.apply(op);
                world
            }
        }
    )+};
}

references! {
    /// For a store in memory.
    Memory = Kind::Memory;
    /// For a store on disk that is driven by hand.
    ByHand = Kind::ByHand;
    /// For a store on disk that runs by itself.
    Threads = Kind::Threads;
}
