//! The queue into the writer.
//!
//! Sessions put requests in; the writer takes all of them at once, so that what arrives while a
//! batch is being synced forms the next batch by itself. The queue is bounded in bytes: a session
//! whose append does not fit keeps it and hears when there is space again.
//!
//! While nothing but single messages comes, one at a time, a [`Settler`](super::settler) is woken in
//! place of the writer's thread, if there is one.

use std::task::Waker;
use std::time::Duration;

use super::super::sequencer::Trimming;
use super::super::{Append, Ask, Mailbox, Notice, ProducerKey, SessionId, SetCursor, TrimRoom};
use crate::planted::{Bug, planted};
use crate::sync::{Arc, Condvar, Mutex, lock, wait_for};
use broker_proto::RoomName;

/// What the writer is asked to do.
#[derive(Debug)]
pub(super) enum Request {
    Append {
        append: Append,
        to: Arc<Mailbox>,
    },
    Hole {
        key: ProducerKey,
        session: SessionId,
        first_number: u64,
        count: u32,
    },
    Claim {
        key: ProducerKey,
        session: SessionId,
    },
    Release {
        key: ProducerKey,
        session: SessionId,
        forget: bool,
    },
    Cursor {
        room: RoomName,
        name: String,
        tag: u64,
        to: Arc<Mailbox>,
    },
    SetCursor {
        set: SetCursor,
        tag: u64,
        to: Arc<Mailbox>,
    },
    /// A change, or a question about cursors; the writer knows them.
    Ask {
        ask: Ask,
        tag: u64,
        to: Arc<Mailbox>,
    },
    /// The oldest messages of these rooms go.
    Trim {
        trims: Vec<Trimming>,
        /// Who waits for it.
        asked: Option<TrimAsked>,
    },
    /// A checkpoint is wanted.
    Checkpoint,
    /// To leave little for the next leader to read.
    Shorten {
        done: Done,
    },
}

/// Somebody waits for a room to be trimmed.
#[derive(Debug, Clone)]
pub(super) struct TrimAsked {
    pub(super) trim: TrimRoom,
    pub(super) tag: u64,
    pub(super) to: Arc<Mailbox>,
}

/// Called on the writer's thread when something is done.
pub(super) struct Done(pub(super) Box<dyn FnOnce() + Send>);

impl std::fmt::Debug for Done {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Done")
    }
}

/// Memory that a queued append takes beside its payload, roughly.
const APPEND_BYTES: usize = 256;

/// Requests in the queue from which on holes are not noted any more: nothing else bounds how many a
/// peer makes while the disk is stalled. A hole that is not noted costs nobody a message; at most
/// its producer stays a stranger, and is told so with its next number.
const HOLES_BELOW: usize = 1 << 16;

/// So many batches of a single message in a row, and the next one is likely to be another.
pub(super) const LONE_MIN_DEFAULT: u32 = 8;

/// A message of more bytes is not worth keeping everybody else waiting for.
const LONE_BYTES_MAX: usize = 64 << 10;

/// After a batch that was settled slowly, so many more are left to the writer's thread: few after a hiccup, many while each trial
/// is slow again.
const WARY_BATCHES: (i64, i64) = (64, 4096);

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Inbox {
    queue: Mutex<Queue>,
    arrived: Condvar,
    bytes_max: usize,
    lone_min: u32,
}

#[derive(Debug, Default)]
struct Queue {
    requests: Vec<Request>,
    bytes: usize,
    /// Who waits for space.
    waiting: Vec<Arc<Mailbox>>,
    /// Something that is not a request wants the writer's attention.
    nudged: bool,
    closing: bool,
    /// Batches of a single message in a row.
    lone: i64,
    /// How many it is short of when one was settled slowly.
    wary: i64,
    /// Whom to wake for the next lone message.
    settler: Option<Waker>,
}

impl Queue {
    /// Whether a single small message is queued, after others that came alone.
    fn is_lone(&self, lone_min: u32) -> bool {
        let is_small = |append: &Append| append.count == 1 && self.bytes <= LONE_BYTES_MAX;
        matches!(self.requests.as_slice(), [Request::Append { append, .. }] if is_small(append))
            && self.lone >= i64::from(lone_min)
    }

    /// Counts the batch that the queue has become.
    fn count_lone(&mut self) {
        self.lone = match self.requests.as_slice() {
            [] => self.lone,
            [Request::Append { append, .. }] if append.count == 1 => self.lone.saturating_add(1),
            // What a slow disk has earned stays.
            _ => self.lone.min(0),
        };
    }
}

/// What a settler finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    Nothing,
    /// A lone message.
    Lone,
    /// What is the writer's.
    Other,
    Closing,
}

/// Why an append was not queued; it comes back.
#[derive(Debug)]
pub(super) enum NotQueued {
    /// There is no space; the mailbox hears when there is.
    Full(Append),
    /// The store takes nothing any more.
    Closing(Append),
}

/// Why the writer woke up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Woken {
    Work,
    TimedOut,
    Closing,
}

impl Inbox {
    pub(super) fn new(bytes_max: usize, lone_min: u32) -> Self {
        Self {
            queue: Mutex::new(Queue::default()),
            arrived: Condvar::new(),
            bytes_max,
            lone_min,
        }
    }

    /// Queues an append, or gives it back when the queue is full or closing. What is queued is
    /// answered: that the queue closes is looked at under its lock, and the writer stops only when
    /// nothing is left.
    #[expect(
        clippy::result_large_err,
        reason = "the append comes back as it is, in the rare case that the queue is full"
    )]
    pub(super) fn append(&self, append: Append, to: &Arc<Mailbox>) -> Result<(), NotQueued> {
        let bytes = append.entries.len() + APPEND_BYTES;
        let mut queue = lock(&self.queue);
        if queue.closing {
            return Err(NotQueued::Closing(append));
        }
        // One append always fits into an empty queue, however large it is.
        if queue.bytes > 0 && queue.bytes + bytes > self.bytes_max {
            if !queue.waiting.iter().any(|other| Arc::ptr_eq(other, to)) {
                queue.waiting.push(Arc::clone(to));
            }
            return Err(NotQueued::Full(append));
        }
        queue.bytes += bytes;
        let first = queue.requests.is_empty();
        queue.requests.push(Request::Append {
            append,
            to: Arc::clone(to),
        });
        let is_lone = queue.is_lone(self.lone_min);
        let settler = queue.settler.take_if(|_| is_lone);
        drop(queue);
        match settler {
            Some(settler) => settler.wake(),
            None if first => self.arrived.notify_one(),
            None => {}
        }
        Ok(())
    }

    /// Queues a request that has no payload; false when the queue is closing.
    pub(super) fn push(&self, request: Request) -> bool {
        let first = {
            let mut queue = lock(&self.queue);
            if queue.closing {
                return false;
            }
            if matches!(request, Request::Hole { .. }) && queue.requests.len() >= HOLES_BELOW {
                return true;
            }
            queue.requests.push(request);
            queue.requests.len() == 1
        };
        if first {
            self.arrived.notify_one();
        }
        true
    }

    /// Takes everything that is queued, in order, and tells those who wait for space.
    pub(super) fn drain(&self, into: &mut Vec<Request>) {
        let waiting = {
            let mut queue = lock(&self.queue);
            queue.nudged = false;
            queue.bytes = 0;
            queue.count_lone();
            into.append(&mut queue.requests);
            std::mem::take(&mut queue.waiting)
        };
        for mailbox in waiting {
            mailbox.post(Notice::Space);
        }
    }

    /// Waits for a request, for the end, or for so long; without a limit when nothing else is to
    /// be done.
    pub(super) fn wait(&self, limit: Option<Duration>) -> Woken {
        let mut queue = lock(&self.queue);
        loop {
            if !queue.requests.is_empty() || queue.nudged {
                return Woken::Work;
            }
            if queue.closing {
                return Woken::Closing;
            }
            if planted(Bug::WakeupLost) {
                drop(queue);
                queue = lock(&self.queue);
            }
            queue = match limit {
                None => self
                    .arrived
                    .wait(queue)
                    .unwrap_or_else(std::sync::PoisonError::into_inner),
                Some(limit) => {
                    let (queue, timed_out) = wait_for(&self.arrived, queue, limit);
                    if timed_out && queue.requests.is_empty() && !queue.closing {
                        return Woken::TimedOut;
                    }
                    queue
                }
            };
        }
    }

    /// What there is to settle; when that is nothing, `waker` is woken for the next lone message, and at the end.
    pub(super) fn look(&self, waker: &Waker) -> Found {
        let mut queue = lock(&self.queue);
        if queue.closing {
            return Found::Closing;
        }
        if queue.requests.is_empty() {
            queue.settler = Some(waker.clone());
            Found::Nothing
        } else if queue.is_lone(self.lone_min) {
            Found::Lone
        } else {
            Found::Other
        }
    }

    /// Has `waker` woken for the next lone message, and at the end; false when the end has come.
    pub(super) fn settle_later(&self, waker: &Waker) -> bool {
        let mut queue = lock(&self.queue);
        if !queue.closing {
            queue.settler = Some(waker.clone());
        }
        !queue.closing
    }

    /// A batch has woken many: its messages go to so many readers that whoever serves the sockets has no time for the disk.
    pub(super) fn note_crowd(&self) {
        let mut queue = lock(&self.queue);
        queue.lone = queue.lone.min(0);
    }

    /// A lone message has been settled; when that took long, what comes for a while is left to the writer's thread.
    pub(super) fn note_settled(&self, slowly: bool) {
        let (least, most) = WARY_BATCHES;
        let mut queue = lock(&self.queue);
        let wary = queue.wary.clamp(least, most);
        if slowly {
            queue.lone = -wary;
            queue.wary = wary.saturating_mul(4);
        } else {
            queue.wary = wary / 2;
        }
    }

    /// Nobody settles any more.
    pub(super) fn end_settling(&self) {
        lock(&self.queue).settler = None;
        self.pass_on();
    }

    /// Wakes the writer's thread, if there is something for it.
    pub(super) fn pass_on(&self) {
        self.arrived.notify_one();
    }

    /// Makes the writer look around.
    pub(super) fn nudge(&self) {
        lock(&self.queue).nudged = true;
        self.arrived.notify_one();
    }

    /// Makes the writer finish what is queued and stop.
    pub(super) fn close(&self) {
        let settler = {
            let mut queue = lock(&self.queue);
            queue.closing = true;
            queue.settler.take()
        };
        self.arrived.notify_one();
        if let Some(settler) = settler {
            settler.wake();
        }
    }

    pub(super) fn is_closing(&self) -> bool {
        lock(&self.queue).closing
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use std::task::Wake;

    use broker_proto::{ProducerId, SenderName};
    use bytes::Bytes;

    use super::*;
    use crate::sync::{AtomicBool, Ordering};

    fn message(count: u32, bytes: usize) -> (Append, Arc<Mailbox>) {
        let append = Append {
            session: SessionId(1),
            key: ProducerKey {
                sender: SenderName::parse("ann").unwrap(),
                producer: ProducerId::new([1; 16]),
            },
            claimed: true,
            room: RoomName::parse("room").unwrap(),
            first_number: 1,
            count,
            head: Bytes::new(),
            entries: vec![0; bytes].into(),
            expected_head: None,
            resend: false,
        };
        (append, Mailbox::new())
    }

    /// How many lone messages are left to the writer until the settler is woken again.
    fn until_settled(inbox: &Inbox) -> usize {
        let woken = Arc::<Woken>::default();
        let waker = Waker::from(Arc::clone(&woken));
        for count in 0..10_000 {
            assert_eq!(inbox.look(&waker), Found::Nothing);
            let (append, to) = message(1, 0);
            inbox.append(append, &to).unwrap();
            inbox.drain(&mut Vec::new());
            if woken.0.load(Ordering::Relaxed) {
                return count;
            }
        }
        panic!("never");
    }

    #[test]
    fn messages_to_many_readers_are_the_writers() {
        let inbox = Inbox::new(1 << 20, LONE_MIN_DEFAULT);
        assert_eq!(until_settled(&inbox), 8);
        for _ in 0..20 {
            inbox.note_crowd();
            assert!(until_settled(&inbox) > 0);
        }
    }

    #[test]
    fn only_a_small_message_is_lone() {
        let inbox = Inbox::new(1 << 20, LONE_MIN_DEFAULT);
        let look = || inbox.look(Waker::noop());
        let append = |count, bytes| {
            let (append, to) = message(count, bytes);
            inbox.append(append, &to).unwrap();
        };
        let drain = || inbox.drain(&mut Vec::new());
        append(1, 0);
        assert_eq!(look(), Found::Other, "nothing came alone before");
        drain();
        assert_eq!(until_settled(&inbox), 7);
        append(1, 0);
        assert_eq!(look(), Found::Lone);
        append(1, 0);
        assert_eq!(look(), Found::Other);
        drain();
        until_settled(&inbox);
        append(1, LONE_BYTES_MAX);
        assert_eq!(look(), Found::Other, "it is large");
        drain();
        append(2, 0);
        assert_eq!(look(), Found::Other, "it is two");
        drain();
    }

    #[test]
    fn a_batch_of_several_does_not_make_a_slow_disk_forgotten() {
        let inbox = Inbox::new(1 << 20, LONE_MIN_DEFAULT);
        assert_eq!(until_settled(&inbox), 8);
        inbox.note_settled(true);
        let (append, to) = message(2, 0);
        inbox.append(append, &to).unwrap();
        inbox.drain(&mut Vec::new());
        assert_eq!(until_settled(&inbox), 64 + 8);
    }

    #[derive(Default)]
    struct Woken(AtomicBool);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_slow_disk_is_left_to_the_writer_for_longer_and_longer_and_a_hiccup_is_forgiven() {
        let inbox = Inbox::new(1 << 20, LONE_MIN_DEFAULT);
        assert_eq!(until_settled(&inbox), 8);
        assert_eq!(until_settled(&inbox), 0);
        for expected in [64 + 8, 256 + 8, 1024 + 8, 4096 + 8, 4096 + 8] {
            inbox.note_settled(true);
            assert_eq!(until_settled(&inbox), expected);
        }
        for _ in 0..20 {
            inbox.note_settled(false);
            assert_eq!(until_settled(&inbox), 0);
        }
        inbox.note_settled(true);
        assert_eq!(until_settled(&inbox), 64 + 8);
    }

    #[test]
    fn numbers_that_sessions_refuse_do_not_fill_the_memory_while_the_disk_is_stalled() {
        let inbox = Inbox::new(1 << 20, LONE_MIN_DEFAULT);
        let hole = |n: u64| Request::Hole {
            key: ProducerKey {
                sender: SenderName::parse("ann").unwrap(),
                producer: ProducerId::new([u8::try_from(n % 2).unwrap(); 16]),
            },
            session: SessionId(1),
            first_number: n,
            count: 1,
        };
        for n in 1..=200_000 {
            inbox.push(hole(n));
        }
        let mut all = Vec::new();
        inbox.drain(&mut all);
        assert!(all.len() <= 1 << 16, "{} wait", all.len());
        // Once the writer goes on, they are told again.
        inbox.push(hole(1));
        inbox.drain(&mut all);
        assert_eq!(all.len(), (1 << 16) + 1);
    }
}
