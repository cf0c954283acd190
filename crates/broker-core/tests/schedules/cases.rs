//! The tests.

use std::collections::BTreeSet;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use broker_core::store::{Hint, Mailbox, Notice, Store};
use broker_proto::{ErrorCode, Seq};
use shuttle::sync::Mutex;
use shuttle::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use shuttle::thread;

use crate::explore::explore;
use crate::peer::{Outcome, Peer, config, found, open, room, told};
use crate::witness::Witness;

/// Publishers at once, and what each sends.
const PEERS: u8 = 3;
const MESSAGES: u64 = 2;
/// After so many polls a runtime ends.
const SETTLING_POLLS: u32 = 4;

fn acked_tokens(peer: &Peer, outcomes: &[Outcome]) -> Vec<u64> {
    let acked = (1_u64..).zip(outcomes);
    acked
        .filter(|(_, outcome)| matches!(outcome, Outcome::Acked(_)))
        .map(|(number, _)| peer.token(number))
        .collect()
}

/// A mailbox never sleeps on a notice, and keeps the order.
#[test]
fn a_mailbox_wakes_its_owner() {
    explore("a_mailbox_wakes_its_owner", 10, || {
        let mailbox = Mailbox::new();
        for tag in 0..2 {
            let mailbox = Arc::clone(&mailbox);
            thread::spawn(move || {
                for _ in 0..2 {
                    mailbox.post(Notice::Grown { tag });
                }
            });
        }
        let mut notices = Vec::new();
        while notices.len() < 4 {
            shuttle::future::block_on(mailbox.ready());
            assert!(mailbox.drain(&mut notices), "ready, and nothing there");
        }
    });
}

/// Batches form by themselves; everything is answered once, and only what is durable is
/// acknowledged, also when the power is cut in between.
#[test]
fn group_commit() {
    explore("group_commit", 35, || {
        let disk = Witness::new();
        let store = open(&disk, config());
        let acked = Arc::new(Mutex::new(Vec::new()));
        let peers: Vec<_> = (1..=PEERS)
            .map(|number| {
                let (store, disk, acked) = (Arc::clone(&store), disk.clone(), Arc::clone(&acked));
                thread::spawn(move || {
                    let mut peer = Peer::new(number);
                    let outcomes = peer.publish(&*store, &disk, MESSAGES, 0);
                    let tokens = acked_tokens(&peer, &outcomes);
                    assert_eq!(tokens.len(), outcomes.len(), "{outcomes:?}");
                    acked.lock().unwrap().extend(tokens);
                    outcomes
                })
            })
            .collect();
        let before = acked.lock().unwrap().clone();
        let cut = disk.cut();
        let mut seqs = BTreeSet::new();
        for outcome in peers.into_iter().flat_map(|peer| peer.join().unwrap()) {
            if let Outcome::Acked(seq) = outcome {
                assert!(seqs.insert(seq), "seq {seq} was given twice");
            }
        }
        let dense: BTreeSet<_> = (1..=u64::from(PEERS) * MESSAGES).map(Seq::new).collect();
        assert_eq!(seqs, dense);
        store.close();
        if !before.is_empty() {
            let left = found(cut);
            assert!(before.iter().all(|token| left.contains(token)));
        }
        assert_eq!(found(disk.cut()).len(), seqs.len());
    });
}

/// Lone messages are stored by the thread that settles them, all others by the writer's, and each is answered once: also when
/// the settling ends in between, as with the runtime that carries it.
#[test]
fn lone_messages() {
    explore("lone_messages", 25, || {
        let disk = Witness::new();
        let mut config = config();
        config.lone_min = 1;
        let store = open(&disk, config);
        let settler = {
            let mut settling = store.settle().unwrap();
            thread::spawn(move || {
                let mut polls = 0;
                shuttle::future::block_on(poll_fn(|context| {
                    polls += 1;
                    if polls > SETTLING_POLLS {
                        return Poll::Ready(());
                    }
                    settling.as_mut().poll(context)
                }));
            })
        };
        let other = {
            let (store, disk) = (Arc::clone(&store), disk.clone());
            thread::spawn(move || Peer::new(2).publish(&*store, &disk, 1, 0))
        };
        let mut peer = Peer::new(1);
        for number in 1..=4 {
            peer.send(&*store, number, 0);
            let Notice::Acked { run, .. } = peer.notice() else {
                panic!("message {number} was not stored");
            };
            assert_eq!((run.first_number, run.count), (number, 1));
            assert!(disk.has(peer.token(number)), "acknowledged too early");
        }
        assert!(matches!(other.join().unwrap()[..], [Outcome::Acked(_)]));
        store.close();
        settler.join().unwrap();
        assert_eq!(found(disk.cut()).len(), 5);
    });
}

/// Who waits for space in the queue is told of it.
#[test]
fn a_full_queue() {
    explore("a_full_queue", 15, || {
        let disk = Witness::new();
        let mut config = config();
        config.queue_bytes_max = 1;
        let store = open(&disk, config);
        let peers: Vec<_> = (1..=PEERS)
            .map(|number| {
                let (store, disk) = (Arc::clone(&store), disk.clone());
                thread::spawn(move || Peer::new(number).publish(&*store, &disk, MESSAGES, 0))
            })
            .collect();
        for outcome in peers.into_iter().flat_map(|peer| peer.join().unwrap()) {
            assert!(matches!(outcome, Outcome::Acked(_)), "{outcome:?}");
        }
        store.close();
    });
}

/// Who has read everything and watches is woken by the next message, and sees only what is durable.
#[test]
fn a_watch_is_never_missed() {
    explore("a_watch_is_never_missed", 15, || {
        let disk = Witness::new();
        let store = open(&disk, config());
        let reader = {
            let (store, disk) = (Arc::clone(&store), disk.clone());
            thread::spawn(move || {
                let mut peer = Peer::new(9);
                let (mut all, mut next, mut hint) = (Vec::new(), 1, Hint::default());
                while all.len() < 3 {
                    if let Some(reply) = peer.read(&*store, next, hint) {
                        for token in told(&reply) {
                            assert!(disk.has(token), "delivered before it was durable");
                            all.push(token);
                        }
                        (next, hint) = (reply.next.get(), reply.hint);
                    }
                    let seen = Seq::new(next - 1);
                    if all.len() < 3 && store.watch(&room(), seen, 7, &peer.mailbox) {
                        assert!(matches!(peer.notice(), Notice::Grown { tag: 7 }));
                    }
                }
                all
            })
        };
        let mut publisher = Peer::new(1);
        for outcome in publisher.publish(&*store, &disk, 3, 0) {
            assert!(matches!(outcome, Outcome::Acked(_)), "{outcome:?}");
        }
        let expected: Vec<_> = (1..=3).map(|number| publisher.token(number)).collect();
        assert_eq!(reader.join().unwrap(), expected);
        store.close();
    });
}

/// Readers of the disk get every message while the log goes on in new segments.
#[test]
fn segments_change_under_readers() {
    explore("segments_change_under_readers", 10, || {
        let disk = Witness::new();
        let mut config = config();
        config.tail_bytes_max = 0;
        let store = open(&disk, config);
        let upto = Arc::new(AtomicU64::new(0));
        let reader = {
            let (store, upto) = (Arc::clone(&store), Arc::clone(&upto));
            thread::spawn(move || {
                let mut peer = Peer::new(9);
                let (mut all, mut next, mut hint) = (Vec::new(), 1, Hint::default());
                while all.len() < 4 {
                    let acked = upto.load(Ordering::SeqCst);
                    let Some(reply) = peer.read(&*store, next, hint) else {
                        assert_eq!(acked, 0, "the room is not there");
                        thread::yield_now();
                        continue;
                    };
                    assert_eq!(reply.skip, None);
                    all.extend(told(&reply));
                    assert!(
                        reply.head.get() >= acked,
                        "an older end than was acknowledged"
                    );
                    (next, hint) = (reply.next.get(), reply.hint);
                    thread::yield_now();
                }
                all
            })
        };
        let mut publisher = Peer::new(1);
        for number in 1..=4 {
            publisher.send(&*store, number, 6 << 10);
            assert!(matches!(publisher.notice(), Notice::Acked { .. }));
            upto.store(number, Ordering::SeqCst);
        }
        let expected: Vec<_> = (1..=4).map(|number| publisher.token(number)).collect();
        assert_eq!(reader.join().unwrap(), expected);
        assert!(store.info().segments > 1, "no segment was changed");
        store.close();
    });
}

/// A store that closes answers everything, and whoever closed it finds it closed: nothing is
/// written any more, and what was acknowledged is there.
#[test]
fn shutdown() {
    explore("shutdown", 14, || {
        let disk = Witness::new();
        let mut config = config();
        config.queue_bytes_max = 400;
        let store = open(&disk, config);
        let peers: Vec<_> = (1..=2)
            .map(|number| {
                let (store, disk) = (Arc::clone(&store), disk.clone());
                thread::spawn(move || {
                    let mut peer = Peer::new(number);
                    let outcomes = peer.publish(&*store, &disk, MESSAGES, 0);
                    for outcome in &outcomes {
                        assert!(
                            matches!(
                                outcome,
                                Outcome::Acked(_) | Outcome::Refused(ErrorCode::GOING_AWAY)
                            ),
                            "{outcome:?}"
                        );
                    }
                    acked_tokens(&peer, &outcomes)
                })
            })
            .collect();
        let closers: Vec<_> = (0..2)
            .map(|_| {
                let (store, disk) = (Arc::clone(&store), disk.clone());
                thread::spawn(move || {
                    store.close();
                    disk.writes()
                })
            })
            .collect();
        let writes: Vec<_> = closers.into_iter().map(|one| one.join().unwrap()).collect();
        let acked: Vec<_> = peers
            .into_iter()
            .flat_map(|peer| peer.join().unwrap())
            .collect();
        for seen in writes {
            assert_eq!(seen, disk.writes(), "written after it was closed");
        }
        if !acked.is_empty() {
            let left = found(disk.cut());
            assert!(acked.iter().all(|token| left.contains(token)));
        }
    });
}

/// Whoever asks to be told that the directory was moved away is told, whenever he asks.
#[test]
fn a_moved_directory_is_told() {
    explore("a_moved_directory_is_told", 1, || {
        let disk = Witness::new();
        let store = open(&disk, config());
        disk.move_away();
        let told = Arc::new(AtomicBool::new(false));
        let asker = {
            let (store, told) = (Arc::clone(&store), Arc::clone(&told));
            thread::spawn(move || store.when_moved(move || told.store(true, Ordering::SeqCst)))
        };
        let outcomes = Peer::new(1).publish(&*store, &disk, 1, 0);
        assert_eq!(outcomes, [Outcome::Refused(ErrorCode::READ_ONLY)]);
        asker.join().unwrap();
        assert!(told.load(Ordering::SeqCst));
        store.close();
    });
}
