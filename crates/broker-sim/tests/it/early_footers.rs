//! Starts with and without early footers. `BROKER_FOOTER_STATES` says how many states to compare, `BROKER_FOOTER_CASE` which case to
//! try alone.

use broker_sim::campaign::{Tally, deep, seed, setting};
use broker_sim::early_footers::explore;

#[test]
fn footers_change_nothing_but_the_time() {
    let (seed, states) = (seed(1), deep("BROKER_FOOTER_STATES", 3_000));
    println!("BROKER_SEED={seed} BROKER_FOOTER_STATES={states}");
    let only = Some(setting("BROKER_FOOTER_CASE", 0)).filter(|number| *number > 0);
    let compared = explore(seed, states, only).unwrap_or_else(|failure| panic!("{failure}"));
    println!("{compared:?}");
    if only.is_none() {
        assert!(compared.early * 4 > compared.states, "{compared:?}");
        assert!(compared.newer * 20 > compared.states, "{compared:?}");
    }
    let tally = Tally::new("early_footers", seed)
        .with("states", compared.states)
        .with("early", compared.early)
        .with("newer", compared.newer);
    println!("{tally}");
}
