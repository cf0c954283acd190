//! How often an idle process wakes up.

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use broker_sim::agent::Work;
use broker_sim::fleet::{Fleet, Program};

/// Lets a leader and a standby do nothing for a while, and prints how often each woke up.
pub(super) fn measure(program: Program, parent: &Path, idle: Duration) -> anyhow::Result<()> {
    let mut fleet = Fleet::new(program, parent)?;
    fleet.start(Work::default())?;
    let leader = fleet.await_leader(0)?;
    let standby = fleet.start(Work::default())?;
    let pid = |fleet: &Fleet, agent| fleet.pid(agent).context("it runs");
    let (leader, standby) = (pid(&fleet, leader.agent)?, pid(&fleet, standby)?);
    // Until the standby has come to rest.
    std::thread::sleep(Duration::from_secs(5));
    let before = [switches(leader)?, switches(standby)?];
    std::thread::sleep(idle);
    let after = [switches(leader)?, switches(standby)?];
    for (who, (before, after)) in ["leader", "standby"].iter().zip(before.iter().zip(after)) {
        let what = format!("wake-ups of an idle {who}");
        let woken = after.saturating_sub(*before);
        println!("{what:44} {woken} in {} s", idle.as_secs());
    }
    fleet.finish()
}

/// How often the threads of a process went to sleep by themselves, which is how often they were woken.
fn switches(pid: u32) -> anyhow::Result<u64> {
    let mut switches = 0;
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let status = std::fs::read_to_string(task?.path().join("status"))?;
        let count = status
            .lines()
            .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        switches += count
            .context("the kernel counts it")?
            .trim()
            .parse::<u64>()?;
    }
    Ok(switches)
}
