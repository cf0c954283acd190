//! Production server and client on a simulated network with faults. `BROKER_NET_SEEDS` says how many seeds to run, `BROKER_SEED`
//! where to begin; `BROKER_NET_TRACE=1` shows the whole trace of a run that fails.

use broker_sim::campaign::{self, Tally, deep};
use broker_sim::net_sim::{Report, run};

use crate::setting;

#[test]
fn net_sim() {
    let (seed, seeds) = (campaign::seed(1), deep("BROKER_NET_SEEDS", 300));
    println!("BROKER_SEED={seed} BROKER_NET_SEEDS={seeds}");
    let shows = setting("BROKER_NET_TRACE", 0) > 0;
    let mut total = Report::default();
    for seed in seed..seed + seeds {
        match run(seed, shows) {
            Ok(report) => total.add(&report),
            Err(failure) => panic!("{failure}"),
        }
    }
    println!("{seeds} seeds; {total}");
    let faults = total.faults.named().into_iter().map(|(_, count)| count);
    let tally = Tally::new("net_sim", seed)
        .with("seeds", seeds)
        .with("acks", total.counts.acked)
        .with("faults", faults.sum());
    println!("{tally}");
}

#[test]
fn a_seed_repeats_its_run() {
    let seed = campaign::seed(1);
    println!("BROKER_SEED={seed}");
    let [first, again, other] = [seed, seed, seed + 1].map(|seed| match run(seed, false) {
        Ok(report) => report,
        Err(failure) => panic!("{failure}"),
    });
    let mut lines = first.trace.lines().zip(again.trace.lines());
    if let Some((line, otherwise)) = lines.find(|(line, again)| line != again) {
        panic!("the same seed, another course of events:\n{line}\n{otherwise}");
    }
    assert_eq!(first.trace_hash, again.trace_hash, "one run went on");
    assert_ne!(first.trace_hash, other.trace_hash, "all seeds are the same");
}
