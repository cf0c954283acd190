//! Numbered cases, worked off by all cores, with the same outcome whatever their number.
//!
//! A case depends on the seed and its number alone. Cases count in the order of their numbers: the first ones that are enough are
//! what was tried, and what a quicker worker did beyond is forgotten, also when it failed. So a seed always tries the same.

use std::collections::BTreeMap;
use std::ops::AddAssign;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use crate::campaign::Broken;
use crate::crash_matrix::Failure;
use crate::rng::Rng;

/// What is known of the cases so far.
struct Sum<T> {
    total: T,
    /// The next case that counts.
    next: u64,
    /// Cases that are done before one with a lower number.
    early: BTreeMap<u64, Result<T, Failure>>,
    failed: Option<Failure>,
}

impl<T: AddAssign> Sum<T> {
    /// Takes in a case; true when no more are wanted.
    fn take(
        &mut self,
        number: u64,
        result: Result<T, Failure>,
        enough: impl Fn(&T) -> bool,
    ) -> bool {
        self.early.insert(number, result);
        while !self.is_over(&enough) {
            match self.early.remove(&self.next) {
                Some(Ok(one)) => self.total += one,
                Some(Err(failure)) => self.failed = Some(failure),
                None => return false,
            }
            self.next += 1;
        }
        true
    }

    fn is_over(&self, enough: impl Fn(&T) -> bool) -> bool {
        self.failed.is_some() || enough(&self.total)
    }
}

/// The numbers of one case.
#[must_use]
pub fn rng_of(seed: u64, number: u64) -> Rng {
    // Neighbours of a seed must not share their cases, one place apart.
    Rng::new(Rng::new(seed).next() ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

/// Tries cases from number 1 on until there are enough.
///
/// # Errors
/// The failed case of the lowest number; a panic is one too.
pub fn explore<T: Default + Send + AddAssign>(
    seed: u64,
    enough: impl Fn(&T) -> bool + Sync,
    case: impl Fn(u64) -> Result<T, Failure> + Sync,
) -> Result<T, Failure> {
    let sum = Mutex::new(Sum {
        total: T::default(),
        next: 1,
        early: BTreeMap::new(),
        failed: None,
    });
    let (numbers, over) = (AtomicU64::new(1), AtomicBool::new(enough(&T::default())));
    let work = || {
        while !over.load(Ordering::Relaxed) {
            let number = numbers.fetch_add(1, Ordering::Relaxed);
            let result = catch_unwind(AssertUnwindSafe(|| case(number)))
                .unwrap_or_else(|panic| Err(panicked(seed, number, panic.as_ref())));
            let mut sum = sum.lock().unwrap_or_else(PoisonError::into_inner);
            if sum.take(number, result, &enough) {
                over.store(true, Ordering::Relaxed);
            }
        }
    };
    let cores = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(work);
        }
    });
    let sum = sum.into_inner().unwrap_or_else(PoisonError::into_inner);
    match sum.failed {
        Some(failure) => Err(failure),
        None => Ok(sum.total),
    }
}

fn panicked(seed: u64, number: u64, panic: &(dyn std::any::Any + Send)) -> Failure {
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied());
    Failure {
        seed,
        place: format!("case {number}"),
        what: Broken::from(format!("it panicked: {}", text.unwrap_or("without a word"))),
        history: String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_outcome_does_not_depend_on_who_is_quicker() {
        let enough = |count: &u64| *count >= 1000;
        let mut slow = Rng::new(1);
        for _ in 0..20 {
            let lazy = slow.below(50);
            let result = explore(1, enough, |number| {
                if number == lazy {
                    thread::yield_now();
                }
                Ok(number)
            });
            assert_eq!(result.ok(), Some((1..=45).sum()));
        }
    }

    #[test]
    fn the_first_failure_counts_and_none_behind_the_end_does() {
        let case = |bad: u64| {
            explore(
                1,
                |count: &u64| *count >= 20,
                move |number| {
                    assert!(number < bad, "number {number}");
                    Ok(1)
                },
            )
        };
        assert_eq!(case(21).ok(), Some(20));
        let failure = case(20).err().map(|failure| failure.to_string());
        let text = failure.unwrap_or_default();
        assert!(
            text.starts_with("BROKEN(other): it panicked: number 20"),
            "{text}"
        );
    }
}
