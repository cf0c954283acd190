//! How many schedules are tried, and how one is repeated.

use shuttle::scheduler::{PctScheduler, RandomScheduler};
use shuttle::{Config, Runner};

/// Changes of thread that the second half of the schedules has.
const CHANGES: usize = 3;
/// Schedules at depth 1, of all tests together.
const ALL: u64 = 200_000;

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Runs `case` in so many of a hundred of all schedules.
pub(crate) fn explore(test: &str, percent: u64, case: fn()) {
    let mut config = Config::new();
    // Recovery reads with buffers on the stack of its callers.
    config.stack_size = 1 << 18;
    if let Ok(schedule) = std::env::var("BROKER_SCHEDULE") {
        shuttle::replay(case, &schedule);
        return;
    }
    let seed = setting("BROKER_SEED").unwrap_or(1);
    let depth = setting("BROKER_DEPTH").unwrap_or(1).max(1);
    let all = setting("BROKER_SCHEDULES").unwrap_or(ALL * depth);
    let schedules = usize::try_from(all * percent / 100).unwrap().max(2);
    eprintln!("{test}: seed {seed}, {schedules} schedules");
    let by_chance = RandomScheduler::new_from_seed(seed, schedules / 2);
    let mut tried = Runner::new(by_chance, config.clone()).run(case);
    let by_changes = PctScheduler::new_from_seed(seed, CHANGES, schedules - schedules / 2);
    tried += Runner::new(by_changes, config).run(case);
    assert!(tried >= schedules, "only {tried} of {schedules} were run");
    println!("TALLY {test} seed={seed} schedules={tried}");
}
