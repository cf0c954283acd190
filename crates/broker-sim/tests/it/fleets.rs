//! What the tests with real processes share.

use std::time::Duration;

use anyhow::ensure;
use broker_sim::agent::Work;
use broker_sim::campaign::{self, Tally};
use broker_sim::fleet::{Fleet, Leader, PATIENCE, Program, Spread};
use broker_sim::history::check::Verdict;
use broker_sim::history::monotonic_nanos;

/// A take-over that takes longer than this is a failure, on any machine.
const TAKEOVER_MAX: Duration = Duration::from_secs(10);

/// The program that is an agent.
pub(crate) fn program() -> Program {
    Program::agent(env!("CARGO_BIN_EXE_agent"))
}

/// The seed of a test: from `BROKER_SEED`, else always the same. What depends on time differs all the same.
pub(crate) fn seed() -> u64 {
    campaign::seed(1)
}

/// Rooms that everybody uses.
pub(crate) fn rooms() -> Vec<String> {
    vec!["lobby".to_owned(), "ops".to_owned()]
}

/// Sends all the time, a few messages ahead, and asks now and then.
pub(crate) fn publisher() -> Work {
    Work {
        rooms: rooms(),
        publish: true,
        pipeline: 16,
        rate: 400,
        ask_every: 50,
        ..Work::default()
    }
}

/// Reads everything and moves its cursor.
pub(crate) fn subscriber() -> Work {
    Work {
        rooms: rooms(),
        subscribe: true,
        cursor_every: 50,
        ..Work::default()
    }
}

/// Waits until a living process of the fleet has written a term after `term` into the lock.
pub(crate) fn await_holder(fleet: &mut Fleet, term: u64) -> anyhow::Result<Leader> {
    let patience = u64::try_from(PATIENCE.as_nanos())?;
    let deadline = monotonic_nanos() + patience;
    loop {
        if let Some(holder) = fleet.holder()?
            && holder.term > term
        {
            return Ok(holder);
        }
        ensure!(monotonic_nanos() < deadline, "nobody takes the lock");
        std::thread::sleep(Duration::from_micros(200));
    }
}

/// What a test with real processes did, for a report.
pub(crate) fn tally(test: &str, kills: u64, verdict: &Verdict) -> Tally {
    Tally::new(test, seed())
        .with("kills", kills)
        .with("acks", verdict.counts.acked)
        .with("terms", verdict.counts.terms)
}

/// Fails unless everything was kept and no application saw a failure.
pub(crate) fn expect_clean(verdict: &Verdict) {
    assert!(verdict.is_clean(), "{verdict}");
    assert!(verdict.failures.is_empty(), "{verdict}");
    assert_eq!(
        (verdict.counts.skips, verdict.counts.told_missing),
        (0, 0),
        "{verdict}"
    );
    assert!(verdict.counts.acked > 0, "{verdict}");
}

/// How long nobody was answered after kills; those that the next kill came before are only counted.
pub(crate) fn pauses(fleet: &Fleet) -> anyhow::Result<(Spread, usize)> {
    let pauses = fleet.pauses()?;
    let cut_short = pauses.iter().filter(|pause| pause.is_none()).count();
    let spread: Spread = pauses
        .iter()
        .flatten()
        .map(|pause| pause.new_leader)
        .collect();
    ensure!(spread.max() < TAKEOVER_MAX, "a take-over took {spread}");
    Ok((spread, cut_short))
}
