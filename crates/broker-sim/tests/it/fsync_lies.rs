//! Syncs that fail once and then lie. `BROKER_FSYNC_LIES` says how many, `BROKER_FSYNC_LIES_CASE` which one to try alone.

use broker_sim::campaign::{Tally, deep, seed, setting};
use broker_sim::fsync_lies::explore;

#[test]
fn fsync_lies() {
    let (seed, cases) = (seed(1), deep("BROKER_FSYNC_LIES", 1000));
    println!("BROKER_SEED={seed} BROKER_FSYNC_LIES={cases}");
    let only = Some(setting("BROKER_FSYNC_LIES_CASE", 0)).filter(|number| *number > 0);
    let lies = explore(seed, cases, only).unwrap_or_else(|failure| panic!("{failure}"));
    println!("{lies:?}");
    if only.is_none() && cases >= 500 {
        // Otherwise the cases are not the ones that they are meant to be.
        assert!(lies.names > cases / 50, "syncs of the directory");
        assert!(lies.shown > cases / 2, "caches that show what is not there");
        assert!(lies.rewritten > cases / 2, "tails that were written again");
    }
    let tally = Tally::new("fsync_lies", seed)
        .with("cases", lies.cases)
        .with("states", lies.states);
    println!("{tally}");
}
