//! The power is cut everywhere. `BROKER_SIM_STATES` says how many states to look at, `BROKER_SEED` where to begin,
//! `BROKER_SIM_WORKLOAD` which workload to run alone.

use broker_sim::crash_matrix::explore;

use crate::setting;

#[test]
fn sim_crash_matrix() {
    let (seed, states) = (
        setting("BROKER_SEED", 1),
        setting("BROKER_SIM_STATES", 12_000),
    );
    println!("BROKER_SEED={seed} BROKER_SIM_STATES={states}");
    // One workload alone, as a failure names it.
    let only = Some(setting("BROKER_SIM_WORKLOAD", 0)).filter(|number| *number > 0);
    match explore(seed, states, only) {
        Ok(explored) => println!("{explored}"),
        Err(failure) => panic!("{failure}"),
    }
}
