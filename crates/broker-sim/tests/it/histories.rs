//! The checker of histories finds nothing in good histories, and each kind of violation in bad ones.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

use std::collections::BTreeMap;

use broker_sim::Rng;
use broker_sim::history::check::{Checker, Final, FinalRoom, Kind, Verdict};
use broker_sim::history::{Event, Id, Place};
use proptest::prelude::*;

const ROOMS: [&str; 2] = ["lobby", "ops"];
const CURSOR: &str = "reader";

/// A run as it was written down.
#[derive(Debug, Clone)]
struct Run {
    end: Final,
    /// One for each process.
    histories: Vec<Vec<(u64, Event<'static>)>>,
}

impl Run {
    fn check(&self) -> Verdict {
        let mut checker = Checker::new(self.end.clone());
        for (time, event) in self.histories.iter().flatten() {
            checker.event(*time, event);
        }
        checker.finish()
    }

    /// All places of events of a kind: process and index.
    fn find(&self, wanted: impl Fn(&Event<'static>) -> bool) -> Vec<(usize, usize)> {
        let histories = self.histories.iter().enumerate();
        histories
            .flat_map(|(process, events)| {
                let events = events.iter().enumerate();
                events.map(move |(index, (_, event))| (process, index, event))
            })
            .filter(|(_, _, event)| wanted(event))
            .map(|(process, index, _)| (process, index))
            .collect()
    }

    fn room(&mut self, rng: &mut Rng) -> &mut FinalRoom {
        let name = ROOMS[rng.index(ROOMS.len())];
        self.end.rooms.get_mut(name).unwrap()
    }
}

fn epoch(room: usize) -> u64 {
    7 + room as u64
}

/// A good run: two senders with lives, a leader for each term, two readers, a cursor, an unknown outcome of each kind.
fn good(rng: &mut Rng) -> Run {
    let mut time = 0;
    let mut now = || {
        time += 10;
        time
    };
    let mut end = Final::default();
    for (index, room) in ROOMS.into_iter().enumerate() {
        let room_end = FinalRoom {
            epoch: epoch(index),
            ..FinalRoom::default()
        };
        end.rooms.insert(room.to_owned(), room_end);
    }
    let mut histories = Vec::new();
    for life in 1..=2 {
        let mut senders = Vec::new();
        for agent in 0..2 {
            let pid = 100 * life + agent;
            let process = Event::Process { agent, life, pid };
            let role = Event::Role {
                leads: agent == 0,
                term: u64::from(life),
                pid: 100 * life,
                gap: 0,
            };
            senders.push(vec![(now(), process), (now(), role)]);
        }
        for counter in 1..=20 {
            for agent in 0..2_u32 {
                let id = Id {
                    agent,
                    life,
                    counter,
                };
                let index = rng.index(ROOMS.len());
                let room = ROOMS[index];
                let room_end = end.rooms.get_mut(room).unwrap();
                let history = &mut senders[agent as usize];
                history.push((now(), Event::Begun { id, room }));
                // One of each outcome that is not an ack, for certain.
                let outcome = if counter <= 3 { counter } else { 0 };
                if outcome == 1 || outcome == 2 {
                    let (certain, text) = (outcome == 1, "why");
                    history.push((
                        now(),
                        Event::Failed {
                            id,
                            room,
                            certain,
                            text,
                        },
                    ));
                }
                if outcome == 1 || (outcome == 2 && rng.coin()) {
                    continue;
                }
                room_end.head += 1;
                room_end.messages.push((room_end.head, Some(id)));
                if outcome == 0 {
                    let place = Place {
                        epoch: room_end.epoch,
                        seq: room_end.head,
                    };
                    history.push((now(), Event::Acked { id, room, place }));
                }
            }
        }
        histories.extend(senders);
    }
    for agent in 2..4 {
        histories.push(reader(agent, &end, &mut now));
    }
    let last = end.rooms[ROOMS[0]].messages.len() as u64 / 5 * 5;
    end.cursors.insert(
        (ROOMS[0].to_owned(), CURSOR.to_owned()),
        (last > 0).then_some(Place {
            epoch: epoch(0),
            seq: last,
        }),
    );
    Run { end, histories }
}

/// Reads both rooms; the first reader moves the cursor of the first room.
fn reader(agent: u32, end: &Final, now: &mut impl FnMut() -> u64) -> Vec<(u64, Event<'static>)> {
    let (life, pid) = (1, 1_000 + agent);
    let mut history = vec![(now(), Event::Process { agent, life, pid })];
    for (index, room) in ROOMS.into_iter().enumerate() {
        let subscription = u32::try_from(index).unwrap();
        history.push((
            now(),
            Event::Opened {
                subscription,
                room,
                next: 1,
            },
        ));
        for (seq, id) in end.rooms[room].messages.iter().copied() {
            let place = Place {
                epoch: epoch(index),
                seq,
            };
            history.push((
                now(),
                Event::Delivered {
                    subscription,
                    room,
                    place,
                    id,
                },
            ));
            if (agent, index, seq % 5) == (2, 0, 0) {
                let (cursor, to) = (CURSOR, place);
                history.push((now(), Event::Moving { cursor, room, to }));
                history.push((now(), Event::Moved { cursor, room, to }));
            }
        }
        history.push((now(), Event::Ended { subscription, room }));
    }
    history
}

/// Ways to make a good run bad.
#[derive(Debug, Clone, Copy)]
enum Mutation {
    LoseAcked,
    LoseEnd,
    StoreUnsent,
    StoreForeign,
    DeliverUnstored,
    DeliverOther,
    StoreTwice,
    AckElsewhere,
    TwoAtOneSeq,
    MissDelivery,
    MissInEnd,
    DeliverAgain,
    SwapDeliveries,
    SwapOfSender,
    BreakRealTime,
    StoreRefused,
    OtherEpochAcked,
    OtherEpochDelivered,
    Reset,
    SecondLeader,
    OtherLeaderSeen,
    FallingTerm,
    LostMove,
    MovedBack,
    NoProcess,
}

use Mutation::*;

const MUTATIONS: [Mutation; 25] = [
    LoseAcked,
    LoseEnd,
    StoreUnsent,
    StoreForeign,
    DeliverUnstored,
    DeliverOther,
    StoreTwice,
    AckElsewhere,
    TwoAtOneSeq,
    MissDelivery,
    MissInEnd,
    DeliverAgain,
    SwapDeliveries,
    SwapOfSender,
    BreakRealTime,
    StoreRefused,
    OtherEpochAcked,
    OtherEpochDelivered,
    Reset,
    SecondLeader,
    OtherLeaderSeen,
    FallingTerm,
    LostMove,
    MovedBack,
    NoProcess,
];

impl Mutation {
    /// What has to be found.
    const fn kind(self) -> Kind {
        match self {
            LoseAcked | LoseEnd => Kind::Lost,
            StoreUnsent | StoreForeign | DeliverUnstored => Kind::Phantom,
            StoreTwice | AckElsewhere => Kind::Doubled,
            DeliverOther | TwoAtOneSeq => Kind::Replaced,
            MissDelivery | MissInEnd => Kind::Gap,
            DeliverAgain | SwapDeliveries => Kind::Repeated,
            SwapOfSender => Kind::SenderOrder,
            BreakRealTime => Kind::RealTime,
            StoreRefused => Kind::Refused,
            OtherEpochAcked | OtherEpochDelivered | Reset => Kind::Epoch,
            SecondLeader | OtherLeaderSeen => Kind::TwoLeaders,
            FallingTerm => Kind::TermFell,
            LostMove | MovedBack => Kind::Cursor,
            NoProcess => Kind::Malformed,
        }
    }

    /// Makes one change, somewhere.
    fn make(self, run: &mut Run, rng: &mut Rng) {
        match self {
            LoseAcked | LoseEnd | StoreUnsent | StoreForeign | StoreTwice | MissInEnd
            | StoreRefused | SwapOfSender | BreakRealTime => self.change_end(run, rng),
            SecondLeader | OtherLeaderSeen | FallingTerm | NoProcess | LostMove | MovedBack => {
                self.change_others(run, rng);
            }
            _ => self.change_messages(run, rng),
        }
    }

    fn change_end(self, run: &mut Run, rng: &mut Rng) {
        let is_refused = |event: &Event<'_>| matches!(event, Event::Failed { certain: true, .. });
        let (process, index) = *rng.pick(&run.find(is_refused)).unwrap();
        let refused = run.histories[process][index].1;
        let acked: Vec<Id> = run
            .find(|event| matches!(event, Event::Acked { .. }))
            .into_iter()
            .filter_map(|(process, index)| match run.histories[process][index].1 {
                Event::Acked { id, .. } => Some(id),
                _ => None,
            })
            .collect();
        let room = run.room(rng);
        let at = rng.index(room.messages.len());
        let never = Id {
            agent: 9,
            life: 9,
            counter: 9,
        };
        match self {
            LoseAcked => {
                // The seq has another message now, as after a take-over that forgot it.
                let is_acked =
                    |(_, id): &(u64, Option<Id>)| id.is_some_and(|id| acked.contains(&id));
                let at = room.messages.iter().position(is_acked).unwrap();
                room.messages[at].1 = Some(never);
            }
            LoseEnd => {
                // The last three: the last two that an agent sends in its life are acknowledged.
                room.messages.truncate(room.messages.len() - 3);
                room.head -= 3;
            }
            StoreUnsent => push(room, Some(never)),
            StoreForeign => push(room, None),
            StoreTwice => push(room, room.messages[at].1),
            MissInEnd => {
                room.messages.remove(at);
            }
            StoreRefused => {
                let Event::Failed { id, room, .. } = refused else {
                    unreachable!();
                };
                push(run.end.rooms.get_mut(room).unwrap(), Some(id));
            }
            SwapOfSender | BreakRealTime => {
                // Neighbours of one sender's life; both were sent one after the other's ack, or not answered.
                let of = |at: usize| room.messages[at].1.unwrap();
                let is_pair = |first: usize, second: usize| {
                    let (a, b) = (of(first), of(second));
                    let same = (a.agent, a.life) == (b.agent, b.life);
                    let wanted = matches!(self, SwapOfSender) == same;
                    wanted && acked.contains(&a) && acked.contains(&b)
                };
                let len = room.messages.len();
                let pairs: Vec<(usize, usize)> = (0..len)
                    .flat_map(|first| (first + 1..len).map(move |second| (first, second)))
                    .filter(|(first, second)| is_pair(*first, *second))
                    .collect();
                let (first, second) = *rng.pick(&pairs).unwrap();
                let (a, b) = (of(first), of(second));
                room.messages[first].1 = Some(b);
                room.messages[second].1 = Some(a);
            }
            _ => unreachable!(),
        }
    }

    fn change_messages(self, run: &mut Run, rng: &mut Rng) {
        let wants_ack = matches!(self, AckElsewhere | TwoAtOneSeq | OtherEpochAcked);
        let mut found = run.find(|event| match event {
            Event::Acked { .. } => wants_ack,
            Event::Delivered { .. } => !wants_ack,
            _ => false,
        });
        if matches!(self, MissDelivery | SwapDeliveries) {
            // One that another delivery follows at once, or it would only be not there yet.
            found.retain(|(process, index)| {
                matches!(
                    run.histories[*process][*index + 1].1,
                    Event::Delivered { .. }
                )
            });
        }
        let (process, index) = *rng.pick(&found).unwrap();
        let history = &mut run.histories[process];
        let (time, event) = history[index];
        let before = history[index].1;
        match (self, &mut history[index].1) {
            (AckElsewhere, Event::Acked { place, .. }) => place.seq += 1,
            (TwoAtOneSeq, Event::Acked { id, .. }) => id.counter += 1_000,
            (OtherEpochAcked, Event::Acked { place, .. })
            | (OtherEpochDelivered, Event::Delivered { place, .. }) => place.epoch += 10,
            (DeliverUnstored, Event::Delivered { place, .. }) => place.seq += 1_000,
            (DeliverOther, Event::Delivered { id, .. }) => {
                *id = rng.coin().then_some(Id {
                    agent: 9,
                    life: 9,
                    counter: 9,
                });
            }
            (MissDelivery, _) => {
                history.remove(index);
            }
            (DeliverAgain, _) => history.insert(index, (time, event)),
            (SwapDeliveries, _) => history.swap(index, index + 1),
            (Reset, event) => {
                let Event::Delivered {
                    subscription,
                    room,
                    place,
                    ..
                } = before
                else {
                    unreachable!();
                };
                let (previous, next) = (1, place);
                *event = Event::Reset {
                    subscription,
                    room,
                    previous,
                    next,
                };
            }
            _ => unreachable!(),
        }
    }

    fn change_others(self, run: &mut Run, rng: &mut Rng) {
        let roles = run.find(|event| matches!(event, Event::Role { .. }));
        let moves = run.find(|event| matches!(event, Event::Moved { .. }));
        let process = rng.index(4);
        match self {
            NoProcess => {
                run.histories[0].remove(0);
            }
            SecondLeader => {
                // One who followed says that it led.
                let (process, index) = roles[1 + 2 * rng.index(2)];
                let Event::Process { pid: own, .. } = run.histories[process][0].1 else {
                    unreachable!();
                };
                if let Event::Role { leads, pid, .. } = &mut run.histories[process][index].1 {
                    (*leads, *pid) = (true, own);
                }
            }
            OtherLeaderSeen => {
                let (process, index) = roles[1 + 2 * rng.index(2)];
                if let Event::Role { pid, .. } = &mut run.histories[process][index].1 {
                    *pid += 1;
                }
            }
            FallingTerm => {
                let (time, role) = run.histories[process][1];
                let Event::Role { leads, pid, .. } = role else {
                    unreachable!();
                };
                let (term, gap) = (0, 0);
                let fallen = Event::Role {
                    leads,
                    term,
                    pid,
                    gap,
                };
                run.histories[process].push((time, fallen));
            }
            LostMove => {
                // The end shows the move before the last one.
                let place = |at: usize| match run.histories[moves[at].0][moves[at].1].1 {
                    Event::Moved { to, .. } => to,
                    _ => unreachable!(),
                };
                let previous = moves.len().checked_sub(2).map(place);
                run.end.cursors.values_mut().for_each(|at| *at = previous);
            }
            MovedBack => {
                // Somebody reads the cursor after the last move, and it was never there.
                let (cursor, room) = (CURSOR, ROOMS[0]);
                let (epoch, seq) = (epoch(0), 10_000);
                let at = rng.coin().then_some(Place { epoch, seq });
                run.histories[process].push((u64::MAX - 1, Event::Cursor { cursor, room, at }));
            }
            _ => unreachable!(),
        }
    }
}

fn push(room: &mut FinalRoom, id: Option<Id>) {
    room.head += 1;
    room.messages.push((room.head, id));
}

/// A good run with enough in both rooms for every mutation.
fn run(rng: &mut Rng) -> Run {
    loop {
        let run = good(rng);
        let enough = run.end.rooms.values().all(|room| room.messages.len() > 20);
        if enough {
            return run;
        }
    }
}

#[test]
fn histories_that_are_good_pass_and_are_counted() {
    let run = run(&mut Rng::new(1));
    let verdict = run.check();
    assert!(verdict.is_clean(), "{verdict}");
    let stored: usize = run.end.rooms.values().map(|room| room.messages.len()).sum();
    let counts = verdict.counts;
    assert_eq!(counts.stored, stored as u64);
    assert_eq!(counts.delivered, 2 * stored as u64);
    assert_eq!((counts.processes, counts.terms, counts.begun), (6, 2, 80));
    assert_eq!((counts.acked, counts.refused, counts.unknown), (68, 4, 4));
    assert_eq!(verdict.failures.len(), 8);
}

#[test]
fn what_was_told_as_skipped_is_no_gap_and_no_loss() {
    let mut rng = Rng::new(2);
    let mut run = run(&mut rng);
    let room = run.end.rooms.get_mut(ROOMS[0]).unwrap();
    let (seq, _) = room.messages.remove(10);
    room.skips.push((seq, seq));
    for (_, event) in run.histories.iter_mut().flatten() {
        if let Event::Delivered {
            subscription,
            room,
            place,
            ..
        } = *event
            && (room, place.seq) == (ROOMS[0], seq)
        {
            let (from, to, reason) = (seq, seq, "damaged");
            *event = Event::Skipped {
                subscription,
                room,
                from,
                to,
                reason,
            };
        }
    }
    let verdict = run.check();
    assert!(verdict.is_clean(), "{verdict}");
    assert_eq!(verdict.counts.skips, 2);
    assert!(verdict.counts.told_missing <= 1);
}

#[test]
fn a_move_that_was_not_answered_may_have_happened_or_not() {
    let mut run = run(&mut Rng::new(3));
    let (cursor, room) = (CURSOR, ROOMS[0]);
    let to = Place {
        epoch: epoch(0),
        seq: 9_999,
    };
    let moving = Event::Moving { cursor, room, to };
    run.histories[0].push((u64::MAX - 5, moving));
    assert!(run.check().is_clean());
    run.end.cursors.values_mut().for_each(|at| *at = Some(to));
    assert!(run.check().is_clean());
    run.histories[0].pop();
    assert_eq!(run.check().broken(&[Kind::Cursor]), 1);
}

#[test]
fn a_file_is_checked_as_its_events_are() {
    let dir = tempfile::tempdir().unwrap();
    let run = run(&mut Rng::new(4));
    let mut checker = Checker::new(run.end.clone());
    for (index, events) in run.histories.iter().enumerate() {
        let path = dir.path().join(index.to_string());
        let lines: Vec<String> = events
            .iter()
            .map(|(time, event)| format!("{time} {event}\n"))
            .collect();
        std::fs::write(&path, lines.concat()).unwrap();
        checker.file(&path).unwrap();
    }
    assert_eq!(checker.finish(), run.check());
}

fn found(mutation: Mutation, seed: u64) -> Result<(), String> {
    let mut rng = Rng::new(seed);
    let mut run = run(&mut rng);
    let good = run.check();
    if !good.is_clean() {
        return Err(format!("a good run fails:\n{good}"));
    }
    mutation.make(&mut run, &mut rng);
    let verdict = run.check();
    if verdict.broken(&[mutation.kind()]) == 0 {
        return Err(format!(
            "{:?} of {mutation:?} is not found:\n{verdict}",
            mutation.kind()
        ));
    }
    Ok(())
}

/// An acknowledgement counts where the message is, also when that is not where it said.
#[test]
fn neighbours_that_changed_places_break_real_time() {
    found(BreakRealTime, 3_546_618_779_530_825_529).unwrap();
}

#[test]
fn histories_with_each_violation_are_found_bad() {
    let mut kinds = BTreeMap::new();
    for mutation in MUTATIONS {
        found(mutation, 1).unwrap();
        *kinds.entry(mutation.kind()).or_insert(0) += 1;
    }
    assert_eq!(kinds.len(), 14, "each kind of violation is made: {kinds:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn histories_with_any_single_violation_are_found_bad(
        seed: u64,
        mutation in prop::sample::select(MUTATIONS.to_vec()),
    ) {
        found(mutation, seed).map_err(TestCaseError::fail)?;
    }
}
