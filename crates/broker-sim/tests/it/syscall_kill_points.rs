//! A fault at each system call that writes. `BROKER_SYSCALL_SENDS` says how long the workload is.

use broker_sim::campaign::{Tally, deep, seed};
use broker_sim::kernel::calls::{needs_strace, try_all};

use crate::powercut::program;

#[test]
fn syscall_kill_points() {
    let (seed, sends) = (seed(1), deep("BROKER_SYSCALL_SENDS", 20));
    println!("BROKER_SEED={seed} BROKER_SYSCALL_SENDS={sends}");
    if let Err(missing) = needs_strace() {
        println!("{missing}");
        return;
    }
    let sends = u32::try_from(sends).unwrap_or(u32::MAX);
    let tried = try_all(program(), sends, seed).unwrap_or_else(|error| panic!("{error:#}"));
    println!("{tried:?}");
    assert_eq!(tried.kills, tried.calls, "one kill at each call");
    assert!(
        tried.lost_by_lies > 0,
        "a write that never came costs nothing"
    );
    assert!(tried.went_on > tried.read_only, "errors are survived");
    let tally = Tally::new("syscall_kill_points", seed)
        .with("points", tried.faults)
        .with("kills", tried.kills)
        .with("acks", tried.acks);
    println!("{tally}");
}
