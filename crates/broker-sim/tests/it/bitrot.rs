//! Every bit of a segment, turned. `BROKER_BITROT` says how many blocks are damaged after that.

use broker_sim::bitrot::explore;
use broker_sim::campaign::{Tally, deep, seed};

#[test]
fn bitrot_every_bit() {
    let (seed, blocks) = (seed(1), deep("BROKER_BITROT", 2000));
    println!("BROKER_SEED={seed} BROKER_BITROT={blocks}");
    let done = explore(seed, blocks).unwrap_or_else(|failure| panic!("{failure}"));
    println!("{done:?}");
    assert_eq!(done.flips, 64 * 1024 * 8, "the segment has another size");
    // Otherwise there is little in it that could be hit.
    assert!(done.hits > done.flips / 2);
    let tally = Tally::new("bitrot_every_bit", seed)
        .with("flips", done.flips)
        .with("blows", done.blocks);
    println!("{tally}");
}
