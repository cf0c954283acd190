//! The open loop: when each message is due, fixed beforehand, and who wakes the publishers then.
//!
//! A publisher that waits for a slow broker sends late but leaves nothing out, and every latency
//! begins when its message was due. So a stall counts against all that was due in it, not only
//! against what happened to be under way (no coordinated omission).

use std::num::NonZeroU64;
use std::sync::{Arc, OnceLock, Weak};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use super::figures::Latencies;
use super::load::{Limit, Load};
use crate::exit::{Exit, Failure};

/// A message that is sent this long after it was due is late; less is how exact a timer is.
pub(crate) const LATE: Duration = Duration::from_millis(1);

/// Publishers are woken at most this often, so that the clockwork leaves the machine to what is
/// measured.
const GRAIN: Duration = Duration::from_micros(20);

/// When all messages are due. Messages of one call are due together; publishers take turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Schedule {
    /// Messages a second.
    rate: u32,
    /// Messages of a call.
    bulk: u32,
    pubs: u32,
    /// Messages altogether.
    messages: u64,
}

/// Messages that are due together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Call {
    /// When, since the start.
    pub(crate) due: Duration,
    /// How many.
    pub(crate) count: u32,
}

const NANOS: u128 = 1_000_000_000;

impl Schedule {
    /// That of a load with a rate.
    pub(crate) fn new(load: &Load) -> Option<Self> {
        let rate = load.rate?;
        let messages = match load.limit {
            Limit::Count(count) => count,
            // All calls that are due before the end.
            Limit::Duration(duration) => {
                let sent = duration.as_nanos().saturating_mul(rate.into());
                let calls = sent.div_ceil(NANOS * u128::from(load.bulk));
                u64::try_from(calls * u128::from(load.bulk)).unwrap_or(u64::MAX)
            }
        };
        Some(Self {
            rate,
            bulk: load.bulk,
            pubs: load.pubs,
            messages,
        })
    }

    /// How many messages there are.
    pub(crate) fn messages(&self) -> u64 {
        self.messages
    }

    fn calls(&self) -> u64 {
        self.messages.div_ceil(self.bulk.into())
    }

    /// When a call is due, since the start.
    fn due(&self, call: u64) -> Duration {
        let nanos = u128::from(call) * u128::from(self.bulk) * NANOS / u128::from(self.rate);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// How many calls are due this long after the start.
    fn calls_due(&self, elapsed: Duration) -> u64 {
        // A call is due at the whole nanosecond at or before its time: the last one is that of the
        // nanosecond's end.
        let upto = (elapsed.as_nanos() + 1).saturating_mul(self.rate.into()) - 1;
        let last = upto / (NANOS * u128::from(self.bulk));
        u64::try_from(last + 1)
            .unwrap_or(u64::MAX)
            .min(self.calls())
    }

    /// The `nth` call of a publisher, from 0; `None` when it has no more.
    pub(crate) fn call(&self, publisher: u32, nth: u64) -> Option<Call> {
        let call = nth
            .checked_mul(self.pubs.into())?
            .checked_add(publisher.into())?;
        let before = call.checked_mul(self.bulk.into())?;
        let left = self.messages.checked_sub(before).filter(|left| *left > 0)?;
        Some(Call {
            due: self.due(call),
            count: u32::try_from(left).map_or(self.bulk, |left| left.min(self.bulk)),
        })
    }

    /// How many of the first `calls` are a publisher's.
    fn share(&self, publisher: u32, calls: u64) -> u64 {
        let pubs = u64::from(self.pubs);
        (calls + pubs - 1 - u64::from(publisher)) / pubs
    }
}

/// Wakes publishers when their calls are due.
#[derive(Debug)]
pub(crate) struct Pace {
    schedule: Schedule,
    start: OnceLock<Instant>,
    /// For each publisher, how many calls are due that it has not taken.
    due: Vec<Semaphore>,
}

impl Pace {
    /// Nothing is due before the start.
    pub(crate) fn new(schedule: Schedule) -> Arc<Self> {
        Arc::new(Self {
            schedule,
            start: OnceLock::new(),
            due: (0..schedule.pubs).map(|_| Semaphore::new(0)).collect(),
        })
    }

    /// Starts it, once. A thread of its own keeps the time: the timers of the runtime are exact to a
    /// millisecond only. It ends after the last call, or when nobody waits any more.
    pub(crate) fn start(self: &Arc<Self>) -> Result<(), Failure> {
        let start = *self.start.get_or_init(Instant::now);
        let pace = Arc::downgrade(self);
        thread::Builder::new()
            .name("pace".to_owned())
            .spawn(move || keep_time(&pace, start))
            .map(drop)
            .map_err(|error| {
                Failure::new(Exit::Protocol, format!("cannot start a thread: {error}"))
            })
    }

    /// Waits until the next call of a publisher is due. Dropping the future loses nothing.
    pub(crate) async fn due(&self, publisher: u32) {
        if let Some(due) = self.due.get(publisher as usize)
            && let Ok(permit) = due.acquire().await
        {
            permit.forget();
        }
    }

    /// The `nth` call of a publisher, from 0; `None` when it has no more.
    pub(crate) fn call(&self, publisher: u32, nth: u64) -> Option<Call> {
        self.schedule.call(publisher, nth)
    }

    /// When it was started; now before that.
    pub(crate) fn began(&self) -> Instant {
        self.start.get().copied().unwrap_or_else(Instant::now)
    }

    /// The moment at which a call is due.
    pub(crate) fn moment(&self, call: Call) -> Instant {
        let start = self.began();
        start.checked_add(call.due).unwrap_or(start)
    }

    /// All calls in this range are due.
    fn tell(&self, from: u64, upto: u64) {
        for (publisher, due) in (0..).zip(&self.due) {
            let share = |calls| self.schedule.share(publisher, calls);
            let count = share(upto) - share(from);
            if count > 0 {
                due.add_permits(usize::try_from(count).unwrap_or(Semaphore::MAX_PERMITS));
            }
        }
    }
}

fn keep_time(pace: &Weak<Pace>, start: Instant) {
    // Refused, it is 50 us less exact.
    #[cfg(target_os = "linux")]
    let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
    let mut told = 0;
    while let Some(pace) = pace.upgrade() {
        let due = pace.schedule.calls_due(start.elapsed());
        pace.tell(told, due);
        told = due;
        if told >= pace.schedule.calls() {
            break;
        }
        let next = pace.schedule.due(told);
        drop(pace);
        thread::sleep(next.saturating_sub(start.elapsed()).max(GRAIN));
    }
}

/// How messages were timed: how long each took, and how many were sent late.
#[derive(Debug, Clone)]
pub(crate) struct Timing {
    /// From when they were due, or in a closed loop sent, to their acknowledgement.
    pub(crate) latencies: Latencies,
    /// Messages sent later than [`LATE`].
    pub(crate) late: u64,
    /// How late the latest was sent.
    pub(crate) worst: Duration,
}

impl Timing {
    /// None yet.
    pub(crate) fn new() -> Self {
        Self {
            latencies: Latencies::new(),
            late: 0,
            worst: Duration::ZERO,
        }
    }

    /// Messages that were due are sent.
    pub(crate) fn sent(&mut self, due: Instant, at: Instant, count: u32) {
        let behind = at.saturating_duration_since(due);
        self.worst = self.worst.max(behind);
        if behind > LATE {
            self.late += u64::from(count);
        }
    }

    /// Messages that were due are acknowledged.
    pub(crate) fn acked(&mut self, due: Instant, at: Instant, count: u32) {
        let latency = at.saturating_duration_since(due);
        self.latencies.record_many(latency, count.into());
    }

    /// Adds those of another publisher.
    pub(crate) fn add(&mut self, other: &Self) {
        self.latencies.add(&other.latencies);
        self.late += other.late;
        self.worst = self.worst.max(other.worst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(rate: u32, bulk: u32, pubs: u32, messages: u64) -> Schedule {
        Schedule {
            rate,
            bulk,
            pubs,
            messages,
        }
    }

    #[test]
    fn times_are_fixed_and_do_not_drift() {
        let plan = schedule(3, 1, 1, u64::MAX);
        let nth = |nth| plan.call(0, nth).expect("no end").due;
        assert_eq!(nth(0), Duration::ZERO);
        assert_eq!(nth(1), Duration::from_nanos(333_333_333));
        assert_eq!(nth(3_000_000), Duration::from_secs(1_000_000));
    }

    #[test]
    fn publishers_take_turns_and_send_all_there_is() {
        for (bulk, pubs, messages) in [(1, 1, 10), (4, 3, 30), (7, 5, 1), (64, 2, 1000)] {
            let plan = schedule(1000, bulk, pubs, messages);
            let mut calls = Vec::new();
            for publisher in 0..pubs {
                let own: Vec<Call> = (0..).map_while(|nth| plan.call(publisher, nth)).collect();
                assert_eq!(own.len() as u64, plan.share(publisher, plan.calls()));
                calls.extend(own);
            }
            calls.sort_by_key(|call| call.due);
            let sent: u64 = calls.iter().map(|call| u64::from(call.count)).sum();
            assert_eq!(sent, messages);
            for (n, call) in (0..).zip(&calls) {
                let millis = n * u64::from(bulk);
                assert_eq!(call.due, Duration::from_millis(millis));
            }
        }
    }

    #[test]
    fn a_call_is_due_exactly_from_its_time_on() {
        for (rate, bulk) in [(1, 1), (3, 1), (7, 4), (1_000_000, 1), (999_983, 64)] {
            let plan = schedule(rate, bulk, 1, 1_000_000);
            for nth in [0, 1, 2, 3, 10, 999, plan.calls() - 1] {
                let due = plan.call(0, nth).expect("there").due;
                assert!(plan.calls_due(due) > nth, "{rate} {bulk} {nth}");
                if let Some(before) = due.checked_sub(Duration::from_nanos(1)) {
                    assert!(plan.calls_due(before) <= nth, "{rate} {bulk} {nth}");
                }
            }
            assert_eq!(plan.calls_due(Duration::MAX), plan.calls());
        }
    }

    /// A broker that answers at once, but not from 10 ms to 50 ms after the start: one message a
    /// millisecond is due, one at a time is under way.
    #[test]
    fn a_stall_counts_against_all_that_was_due_in_it() {
        let ms = Duration::from_millis;
        let (start, stall, over) = (Instant::now(), ms(10), ms(50));
        let plan = schedule(1000, 1, 1, 100);
        let mut timing = Timing::new();
        let mut free = Duration::ZERO;
        for call in (0..).map_while(|nth| plan.call(0, nth)) {
            let sent = call.due.max(free);
            let acked = if (stall..over).contains(&sent) {
                over
            } else {
                sent
            };
            timing.sent(start + call.due, start + sent, call.count);
            timing.acked(start + call.due, start + acked, call.count);
            free = acked;
        }
        let latencies = &timing.latencies;
        assert_eq!(latencies.len(), 100, "nothing is left out");
        // Due at 10 to 49 ms, answered at 50 ms: 40 to 1 ms. From their sending, all but the first
        // would seem to have taken no time.
        assert_eq!(latencies.longer_than(Duration::from_micros(500)), 40);
        assert_eq!(latencies.longer_than(Duration::from_micros(20_500)), 20);
        assert!((latencies.max().as_secs_f64() - 0.040).abs() < 0.0001);
        // The first was sent in time, and one that waited for a millisecond is not late.
        assert_eq!((timing.late, timing.worst), (38, ms(39)));
    }

    #[tokio::test]
    async fn everybody_is_woken_for_every_call() {
        let pace = Pace::new(schedule(1_000_000, 2, 3, 1001));
        assert!(pace.due.iter().all(|due| due.available_permits() == 0));
        pace.start().expect("a thread");
        for publisher in 0..3 {
            for nth in 0.. {
                let Some(call) = pace.call(publisher, nth) else {
                    break;
                };
                pace.due(publisher).await;
                assert!(Instant::now() >= pace.moment(call), "not before its time");
            }
        }
        assert!(pace.due.iter().all(|due| due.available_permits() == 0));
    }
}
