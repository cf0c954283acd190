//! Small histories, all of their ends. `BROKER_EXHAUSTIVE_OPS` says how many changes that are not synced may be open at once: 6, or 9
//! when more depth is asked for; from 7 on, the histories are also put together in pairs.

use broker_sim::campaign::{Tally, depth, setting};
use broker_sim::exhaustive::explore;

#[test]
fn exhaustive_small() {
    let ops = setting("BROKER_EXHAUSTIVE_OPS", if depth() > 1 { 9 } else { 6 });
    println!("BROKER_EXHAUSTIVE_OPS={ops}");
    let done = explore(ops, ops > 6).unwrap_or_else(|failure| panic!("{failure}"));
    println!("{done}");
    // Most moments have fewer open changes, so all of their ends were tried; what the others have beyond that are footers, which only
    // help and are never synced.
    assert!(done.uncovered * 8 <= done.moments, "{done}");
    assert!(done.states > 5000, "{done}");
    // There is no chance in it.
    let tally = Tally::new("exhaustive_small", 0)
        .with("states", done.states)
        .with("moments", done.moments);
    println!("{tally}");
}
