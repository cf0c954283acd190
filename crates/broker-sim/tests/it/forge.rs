//! Payloads that look like the log. `BROKER_FORGED` says how many, `BROKER_FORGED_CASE` which hundred to try alone.

use broker_sim::campaign::{Tally, deep, seed, setting};
use broker_sim::forge::explore;

#[test]
fn payload_cannot_forge() {
    let (seed, inputs) = (seed(1), deep("BROKER_FORGED", 1_000_000));
    println!("BROKER_SEED={seed} BROKER_FORGED={inputs}");
    let only = Some(setting("BROKER_FORGED_CASE", 0)).filter(|number| *number > 0);
    let done = explore(seed, inputs, only).unwrap_or_else(|failure| panic!("{failure}"));
    println!("{done:?}");
    if only.is_none() {
        // Otherwise the scanner had nothing to look for.
        assert!(done.damaged > done.inputs / 3);
        assert!(done.copies > done.inputs / 3);
    }
    let tally = Tally::new("payload_cannot_forge", seed).with("inputs", done.inputs);
    println!("{tally}");
}
