//! Numbers that look random and repeat for a seed, in the shapes that a simulation needs.
//!
//! The generator is that of [`SeededRandom`]. A test prints the seed that it began with; every number follows from it, so it must
//! not depend on anything that varies: no addresses, no hash order, no time.

use broker_core::clock::{Random, SeededRandom};

/// A seeded source of numbers.
#[derive(Debug, Clone)]
pub struct Rng(SeededRandom);

impl Rng {
    /// The sequence of this seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(SeededRandom::new(seed))
    }

    /// The next 64 bits.
    pub const fn next(&mut self) -> u64 {
        self.0.next()
    }

    /// A number below `bound`, or 0 if that is 0. Slightly uneven for bounds near 2^64, which no simulation notices.
    pub const fn below(&mut self, bound: u64) -> u64 {
        match bound {
            0 => 0,
            _ => self.next() % bound,
        }
    }

    /// An index below `len`, or 0 if that is 0.
    pub fn index(&mut self, len: usize) -> usize {
        let bound = u64::try_from(len).unwrap_or(u64::MAX);
        usize::try_from(self.below(bound)).unwrap_or(0)
    }

    /// True in `wins` of `tries` cases.
    pub const fn chance(&mut self, wins: u64, tries: u64) -> bool {
        self.below(tries) < wins
    }

    /// Tosses a coin.
    pub const fn coin(&mut self) -> bool {
        self.next() & 1 == 1
    }

    /// One of the items, or `None` if there are none.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        items.get(self.index(items.len()))
    }

    /// Puts the items in any order, each with the same probability (Fisher and Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let other = self.index(last + 1);
            items.swap(last, other);
        }
    }

    /// A source of its own, whose numbers do not depend on how many are drawn here later.
    #[must_use]
    pub fn fork(&mut self) -> Self {
        Self::new(self.next())
    }
}

impl Random for Rng {
    fn fill(&mut self, bytes: &mut [u8]) {
        self.0.fill(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_and_another_differs() {
        let numbers = |seed| {
            let mut rng = Rng::new(seed);
            (0..10).map(|_| rng.below(1_000)).collect::<Vec<_>>()
        };
        assert_eq!(numbers(7), numbers(7));
        assert_ne!(numbers(7), numbers(8));
    }

    #[test]
    fn numbers_stay_below_their_bound_and_reach_all_of_it() {
        let mut rng = Rng::new(1);
        let mut seen = [0_u32; 7];
        for _ in 0..7_000 {
            if let Some(count) = seen.get_mut(rng.index(7)) {
                *count += 1;
            }
        }
        assert_eq!(seen.iter().sum::<u32>(), 7_000);
        assert!(
            seen.iter().all(|count| (800..1_200).contains(count)),
            "{seen:?}"
        );
        assert_eq!((rng.below(0), rng.below(1), rng.index(0)), (0, 0, 0));
        assert_eq!(rng.pick::<u8>(&[]), None);
    }

    #[test]
    fn shuffling_keeps_all_items_and_reaches_every_order() {
        let mut rng = Rng::new(2);
        let mut orders = std::collections::BTreeSet::new();
        for _ in 0..200 {
            let mut items = [1, 2, 3];
            rng.shuffle(&mut items);
            orders.insert(items);
        }
        assert_eq!(orders.len(), 6);
    }

    #[test]
    fn a_fork_does_not_hear_its_parent() {
        let (mut first, mut second) = (Rng::new(3), Rng::new(3));
        let (mut fork, mut same) = (first.fork(), second.fork());
        first.next();
        assert_eq!(fork.next(), same.next());
        assert_ne!(first.next(), second.next());
    }
}
