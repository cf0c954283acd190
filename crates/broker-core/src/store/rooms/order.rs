//! Rooms in the order of their names, for those who list them.
//!
//! Rooms are sorted in runs of a few thousand numbers, each once and only when somebody wants to see rooms in order, so that no
//! publish and no start pays for it, and nobody waits long: a listing finds its place in every run and goes on with the
//! smallest name of all of them. Two bytes a room.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use broker_proto::RoomId;

/// Rooms of a run.
const RUN: usize = 4096;

/// The runs that were sorted so far.
#[derive(Debug, Default)]
pub(super) struct Order {
    runs: Vec<Vec<u16>>,
}

impl Order {
    /// Sorts at most so many runs of the first `numbers` rooms; says whether all are.
    pub(super) fn sort_some<'a>(
        &mut self,
        numbers: usize,
        mut most: usize,
        name_of: &dyn Fn(RoomId) -> &'a str,
    ) -> bool {
        // The last run was not full when it was sorted, and may have grown since.
        let last = self.runs.len().saturating_sub(1);
        let now = numbers.saturating_sub(last * RUN).min(RUN);
        if self.runs.last().is_some_and(|run| run.len() != now) {
            self.runs.pop();
        }
        while self.runs.len() * RUN < numbers {
            if most == 0 {
                return false;
            }
            most -= 1;
            let number = self.runs.len();
            let count = (numbers - number * RUN).min(RUN);
            let mut run: Vec<u16> = (0..count).filter_map(|at| u16::try_from(at).ok()).collect();
            run.sort_unstable_by_key(|at| name_of(id_of(number, *at)));
            self.runs.push(run);
        }
        true
    }

    /// The rooms from the first on whose name is not `before`, in order. All must have been sorted.
    pub(super) fn walk<'s, 'a: 's>(
        &'s self,
        before: impl Fn(&str) -> bool,
        name_of: &'s dyn Fn(RoomId) -> &'a str,
    ) -> impl Iterator<Item = RoomId> + 's {
        let mut heads: BinaryHeap<Reverse<(&'a str, usize, usize)>> = BinaryHeap::new();
        for (number, run) in self.runs.iter().enumerate() {
            let at = run.partition_point(|at| before(name_of(id_of(number, *at))));
            if let Some(first) = run.get(at) {
                heads.push(Reverse((name_of(id_of(number, *first)), number, at)));
            }
        }
        std::iter::from_fn(move || {
            let Reverse((_, number, at)) = heads.pop()?;
            let run = self.runs.get(number)?;
            if let Some(next) = run.get(at + 1) {
                heads.push(Reverse((name_of(id_of(number, *next)), number, at + 1)));
            }
            run.get(at).map(|at| id_of(number, *at))
        })
    }
}

/// The room at a place of a run.
fn id_of(run: usize, at: u16) -> RoomId {
    RoomId::new(u32::try_from(run * RUN + usize::from(at) + 1).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rooms_come_in_order_however_they_were_made() {
        let names: Vec<String> = (0..10_000_u32)
            .map(|n| format!("room-{}", n.wrapping_mul(2_654_435_761)))
            .collect();
        let name_of = |id: RoomId| {
            let at = id.get() as usize - 1;
            names.get(at).map_or("", String::as_str)
        };
        let mut order = Order::default();
        for numbers in [1, 5000, 5001, 8192, 8192, 10_000] {
            let mut calls = 1;
            while !order.sort_some(numbers, 1, &name_of) {
                calls += 1;
            }
            assert!(calls <= 3, "{calls} for {numbers}");
            let mut sorted: Vec<&str> = names.iter().take(numbers).map(String::as_str).collect();
            sorted.sort_unstable();
            let from = sorted.get(numbers / 3).copied().unwrap_or("");
            let walked = order.walk(|name| name <= from, &name_of);
            let walked: Vec<&str> = walked.map(name_of).collect();
            let expected: Vec<&str> = sorted.into_iter().filter(|name| *name > from).collect();
            assert_eq!(walked, expected, "{numbers}");
        }
    }
}
