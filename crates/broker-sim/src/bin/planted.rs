//! Plants one bug after the other and shows which test catches it, and how fast.
//!
//! ```text
//! cargo run -p broker-sim --bin planted
//! ```
//!
//! The bugs exist only in a build of their own (`--cfg broker_planted_bugs`, in `target/planted`), so that none can get into another
//! one; making it takes as long as any first build. Each bug is then tried with each test until one fails. A run without a bug comes
//! first: all tests have to pass there, or a failure would prove nothing. The list is that of `broker-core/src/planted.rs`.
#![expect(clippy::print_stdout, reason = "the table is what it is for")]

use std::io;
use std::process::{Command, ExitCode, Stdio};

use broker_core::clock::{Clock, SystemClock};

const MATRIX: &str = "crash_matrix::sim_crash_matrix";
const DAMAGE: &str = "rot::damage_is_told_and_never_served";
const NETWORK: &str = "net_sim::net_sim";
const KILLS: &str = "kill9_takeover::kill9_takeover";
const HANDOVERS: &str = "kill9_takeover::a_handover_survives_the_death_of_either_side";
const STAMPEDE: &str = "stampede::stampede";
const LEAVER: &str = "takeover_steps::a_leader_is_killed_at_each_step_of_its_handover";
const HEIR: &str = "takeover_steps::an_heir_is_killed_at_each_step_of_a_handover";
const SUCCESSOR: &str = "takeover_steps::a_new_leader_is_killed_at_each_step";

/// Each bug, and the test that is tried first.
const BUGS: [(&str, &str); 15] = [
    ("ack_before_sync", MATRIX),
    ("no_directory_sync", MATRIX),
    ("sync_again_after_error", MATRIX),
    ("trust_tail", MATRIX),
    ("truncate_at_first_bad", DAMAGE),
    ("durable_upto_never_advances", MATRIX),
    ("term_not_raised", MATRIX),
    ("producers_forgotten", MATRIX),
    ("temporary_file_loaded", MATRIX),
    ("lock_dropped_before_last_write", HANDOVERS),
    ("estate_kept", LEAVER),
    ("port_as_arbiter", LEAVER),
    ("resend_under_new_number", NETWORK),
    ("resume_one_late", NETWORK),
    ("sent_said_unsent", NETWORK),
];

/// In the order in which they are tried after the first.
const TESTS: [&str; 9] = [
    MATRIX, DAMAGE, NETWORK, LEAVER, HEIR, SUCCESSOR, KILLS, HANDOVERS, STAMPEDE,
];

fn cargo_test(args: &[&str], bug: &str) -> io::Result<bool> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(["test", "-q", "-p", "broker-sim", "--test", "it"])
        .args(args)
        .env("RUSTFLAGS", "--cfg broker_planted_bugs")
        .env("CARGO_TARGET_DIR", "target/planted")
        .env("BROKER_PLANTED_BUG", bug)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()?;
    Ok(status.success())
}

fn main() -> io::Result<ExitCode> {
    if !cargo_test(&["--no-run"], "")? {
        println!("the build with planted bugs fails");
        return Ok(ExitCode::FAILURE);
    }
    let clock = SystemClock::new();
    let mut escaped = 0;
    println!("{:30} {:68} {:>8}", "bug", "caught by", "after");
    for (bug, first) in [("", MATRIX)].iter().chain(&BUGS) {
        let mut caught = None;
        let mut start = clock.monotonic();
        for test in [first]
            .into_iter()
            .chain(TESTS.iter().filter(|test| *test != first))
        {
            start = clock.monotonic();
            if !cargo_test(&["--", "--exact", test], bug)? {
                caught = Some(*test);
                break;
            }
        }
        let seconds = (clock.monotonic() - start).as_secs_f64();
        let (name, right) = match (*bug, caught) {
            ("", caught) => ("(none)", caught.is_none()),
            (bug, caught) => (bug, caught.is_some()),
        };
        escaped += u32::from(!right);
        let caught = caught.unwrap_or("nothing fails");
        let verdict = if right { "" } else { "  WRONG" };
        println!("{name:30} {caught:68} {seconds:6.1} s{verdict}");
    }
    Ok(if escaped == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

#[cfg(test)]
mod tests {
    use super::BUGS;

    /// The words in quotes between two lines of the file that plants the bugs.
    fn planted() -> Vec<&'static str> {
        let file = include_str!("../../../broker-core/src/planted.rs");
        let list = file.split_once("const ALL").map_or("", |(_, rest)| rest);
        let list = list.split_once("];").map_or("", |(list, _)| list);
        let quoted = list.split('"').skip(1).step_by(2);
        quoted.filter(|word| word.contains('_')).collect()
    }

    #[test]
    fn all_planted_bugs_are_tried() {
        let mut tried = BUGS.map(|(bug, _)| bug);
        let mut planted = planted();
        tried.sort_unstable();
        planted.sort_unstable();
        assert_eq!(planted, tried);
    }
}
