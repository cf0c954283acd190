//! Time and randomness, as things that are handed in.
//!
//! **Invariant:** nothing else in this crate reads a clock or asks the kernel for random bytes; what decides gets both as
//! arguments, so that a simulator can run it and a seed can repeat it.

use std::fmt;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use broker_proto::Micros;

/// A source of time.
pub trait Clock: fmt::Debug + Send + Sync {
    /// The wall clock. It may step, in both directions.
    fn now(&self) -> Micros;

    /// Time since some fixed moment. It never steps back, and means nothing in another process.
    fn monotonic(&self) -> Duration;
}

impl<C: Clock + ?Sized> Clock for Arc<C> {
    fn now(&self) -> Micros {
        (**self).now()
    }

    fn monotonic(&self) -> Duration {
        (**self).monotonic()
    }
}

/// The clocks of the machine.
#[derive(Debug, Clone, Copy)]
pub struct SystemClock {
    start: Instant,
}

impl SystemClock {
    /// The clocks of the machine; [`Clock::monotonic`] counts from here.
    #[must_use]
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one door to the clocks"
    )]
    pub fn new() -> Self {
        Self {
            start: Instant::now(),
        }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one door to the clocks"
    )]
    fn now(&self) -> Micros {
        let micros = |duration: Duration| i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
        match SystemTime::now().duration_since(SystemTime::UNIX_EPOCH) {
            Ok(after) => Micros::new(micros(after)),
            Err(before) => Micros::new(micros(before.duration()).saturating_neg()),
        }
    }

    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }
}

/// A clock that moves only when told; a clone is the same clock.
#[derive(Debug, Clone, Default)]
pub struct ManualClock(Arc<ManualTime>);

#[derive(Debug, Default)]
struct ManualTime {
    wall_micros: AtomicI64,
    monotonic_nanos: AtomicU64,
}

impl ManualClock {
    /// A clock whose wall shows `now`.
    #[must_use]
    pub fn new(now: Micros) -> Self {
        let clock = Self::default();
        clock.step_wall(now);
        clock
    }

    /// Lets time pass, for the wall and the monotonic clock.
    pub fn advance(&self, by: Duration) {
        let micros = i64::try_from(by.as_micros()).unwrap_or(i64::MAX);
        let nanos = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
        self.0.wall_micros.fetch_add(micros, Ordering::SeqCst);
        self.0.monotonic_nanos.fetch_add(nanos, Ordering::SeqCst);
    }

    /// Sets the wall clock, forwards or backwards, as an administrator or NTP does; the monotonic clock does not notice.
    pub fn step_wall(&self, to: Micros) {
        self.0.wall_micros.store(to.get(), Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Micros {
        Micros::new(self.0.wall_micros.load(Ordering::SeqCst))
    }

    fn monotonic(&self) -> Duration {
        Duration::from_nanos(self.0.monotonic_nanos.load(Ordering::SeqCst))
    }
}

/// A source of random bytes, for identities and jitter.
pub trait Random: fmt::Debug + Send {
    /// Fills all of `bytes`.
    fn fill(&mut self, bytes: &mut [u8]);

    /// 16 random bytes: an identity.
    fn bytes_16(&mut self) -> [u8; 16] {
        let mut bytes = [0; 16];
        self.fill(&mut bytes);
        bytes
    }

    /// 64 random bits: an epoch or a marker.
    fn bits_64(&mut self) -> u64 {
        let mut bytes = [0; 8];
        self.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }
}

/// The random numbers of the kernel.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemRandom;

impl Random for SystemRandom {
    /// # Panics
    /// When the kernel has no random numbers. To go on with guessable ones could give two stores one identity.
    fn fill(&mut self, bytes: &mut [u8]) {
        getrandom::fill(bytes)
            .expect("every system that this runs on has a source of random numbers");
    }
}

/// Numbers that look random and repeat for a seed: xoshiro256++ seeded by splitmix64 (Blackman and Vigna). Never for secrets.
#[derive(Debug, Clone)]
pub struct SeededRandom {
    state: [u64; 4],
}

impl SeededRandom {
    /// The sequence of this seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut mixer = seed;
        Self {
            state: std::array::from_fn(|_| split_mix(&mut mixer)),
        }
    }

    /// The next 64 bits.
    pub const fn next(&mut self) -> u64 {
        let [mut a, mut b, mut c, mut d] = self.state;
        let result = a.wrapping_add(d).rotate_left(23).wrapping_add(a);
        let shifted = b << 17;
        c ^= a;
        d ^= b;
        b ^= c;
        a ^= d;
        c ^= shifted;
        d = d.rotate_left(45);
        self.state = [a, b, c, d];
        result
    }
}

const fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

impl Random for SeededRandom {
    fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            for (to, from) in chunk.iter_mut().zip(self.next().to_le_bytes()) {
                *to = from;
            }
        }
    }
}

/// A source that several owners share.
impl<R: Random> Random for Arc<Mutex<R>> {
    fn fill(&mut self, bytes: &mut [u8]) {
        self.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .fill(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_clock_is_past_2020_and_never_steps_back() {
        let clock = SystemClock::new();
        assert!(clock.now() > Micros::new(1_577_836_800_000_000));
        let before = clock.monotonic();
        assert!(clock.monotonic() >= before);
    }

    #[test]
    fn a_manual_clock_moves_only_when_told() {
        let clock = ManualClock::new(Micros::new(1_000));
        let same = Arc::new(clock.clone());
        assert_eq!(
            (same.now(), same.monotonic()),
            (Micros::new(1_000), Duration::ZERO)
        );
        clock.advance(Duration::from_micros(7));
        assert_eq!(
            (same.now(), same.monotonic()),
            (Micros::new(1_007), Duration::from_micros(7))
        );
        clock.step_wall(Micros::new(-5));
        assert_eq!(
            (same.now(), same.monotonic()),
            (Micros::new(-5), Duration::from_micros(7))
        );
    }

    #[test]
    fn system_randomness_does_not_repeat() {
        assert_ne!(SystemRandom.bytes_16(), SystemRandom.bytes_16());
    }

    #[test]
    fn split_mix_and_xoshiro_give_their_known_answers() {
        // splitmix64.c with state 0, and xoshiro256plusplus.c with state 1, 2, 3, 4.
        let mut state = 0;
        assert_eq!(
            [split_mix(&mut state), split_mix(&mut state)],
            [0xE220_A839_7B1D_CDAF, 0x6E78_9E6A_A1B9_65F4]
        );
        let mut random = SeededRandom {
            state: [1, 2, 3, 4],
        };
        assert_eq!(
            [random.next(), random.next(), random.next()],
            [41_943_041, 58_720_359, 3_588_806_011_781_223]
        );
    }

    #[test]
    fn a_seed_repeats_and_another_does_not() {
        let bytes = |seed| {
            let mut bytes = [0; 19];
            SeededRandom::new(seed).fill(&mut bytes);
            bytes
        };
        assert_eq!(bytes(1), bytes(1));
        assert_ne!(bytes(1), bytes(2));
    }

    #[test]
    fn a_shared_source_goes_on_where_the_other_owner_stopped() {
        let mut shared = Arc::new(Mutex::new(SeededRandom::new(3)));
        let mut alone = SeededRandom::new(3);
        let (mut first, mut second) = (shared.clone(), shared.clone());
        assert_eq!(
            [first.bits_64(), second.bits_64(), shared.bits_64()],
            [alone.bits_64(), alone.bits_64(), alone.bits_64()]
        );
    }
}
