//! Crashes inside recoveries. `BROKER_RECOVERY_STATES` says how many states to recover from, `BROKER_RECOVERY_CASE` which case to try
//! alone.

use broker_sim::campaign::{Tally, deep, seed, setting};
use broker_sim::recovery_crashes::explore;

#[test]
fn recovery_crashes() {
    let (seed, states) = (seed(1), deep("BROKER_RECOVERY_STATES", 20_000));
    println!("BROKER_SEED={seed} BROKER_RECOVERY_STATES={states}");
    let only = Some(setting("BROKER_RECOVERY_CASE", 0)).filter(|number| *number > 0);
    let explored = explore(seed, states, only).unwrap_or_else(|failure| panic!("{failure}"));
    println!("{explored}");
    let tally = Tally::new("recovery_crashes", seed)
        .with("states", explored.states)
        .with("moments", explored.moments)
        .with("workloads", explored.workloads);
    println!("{tally}");
}
