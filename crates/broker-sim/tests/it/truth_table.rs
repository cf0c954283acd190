//! What a bad batch is taken for.

use broker_sim::campaign::{Tally, seed};
use broker_sim::truth_table::explore;

#[test]
fn torn_or_rot_truth_table() {
    let seed = seed(1);
    println!("BROKER_SEED={seed}");
    let table = explore(seed).unwrap_or_else(|failure| panic!("{failure}"));
    let mut cases = 0;
    for (row, done) in &table {
        println!("{row}: {done:?}");
        cases += done.cases;
        // Most bytes of a batch mean something.
        assert!(done.rotten + done.dropped > done.cases / 2, "{row}");
        assert!(done.rotten == 0 || done.dropped == 0, "{row}");
    }
    assert_eq!(table.len(), 5);
    println!(
        "{}",
        Tally::new("torn_or_rot_truth_table", seed).with("cases", cases)
    );
}
