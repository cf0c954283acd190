//! The power is cut everywhere. `BROKER_SIM_STATES` says how many states to look at, `BROKER_SEED` where to begin,
//! `BROKER_SIM_WORKLOAD` which workload to run alone.

use broker_sim::campaign::{Tally, deep, seed, setting};
use broker_sim::crash_matrix::explore;

#[test]
fn sim_crash_matrix() {
    let (seed, states) = (seed(1), deep("BROKER_SIM_STATES", 200_000));
    println!("BROKER_SEED={seed} BROKER_SIM_STATES={states}");
    // One workload alone, as a failure names it.
    let only = Some(setting("BROKER_SIM_WORKLOAD", 0)).filter(|number| *number > 0);
    let explored = explore(seed, states, only).unwrap_or_else(|failure| panic!("{failure}"));
    println!("{explored}");
    // A few thousand states meet everything; one workload does not.
    if only.is_none() && states >= 20_000 {
        assert_eq!(explored.missing(), [], "no state met these");
    }
    let tally = Tally::new("sim_crash_matrix", seed)
        .with("states", explored.states)
        .with("moments", explored.moments)
        .with("workloads", explored.workloads);
    println!("{tally}");
}
