//! Damage to what was stored. `BROKER_SIM_STRIKES` says how often, `BROKER_SEED` where to begin.

use broker_sim::rot::explore;

use crate::setting;

#[test]
fn damage_is_told_and_never_served() {
    let (seed, strikes) = (
        setting("BROKER_SEED", 1),
        setting("BROKER_SIM_STRIKES", 3_000),
    );
    println!("BROKER_SEED={seed} BROKER_SIM_STRIKES={strikes}");
    match explore(seed, strikes) {
        Ok(done) => println!("{done} times damaged"),
        Err(failure) => panic!("{failure}"),
    }
}
