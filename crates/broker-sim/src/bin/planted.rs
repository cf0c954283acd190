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

const BUGS: [&str; 12] = [
    "ack_before_sync",
    "no_directory_sync",
    "sync_again_after_error",
    "trust_tail",
    "truncate_at_first_bad",
    "durable_upto_never_advances",
    "term_not_raised",
    "producers_forgotten",
    "temporary_file_loaded",
    "resend_under_new_number",
    "resume_one_late",
    "sent_said_unsent",
];

/// In the order in which they are tried.
const TESTS: [&str; 3] = [
    "crash_matrix::sim_crash_matrix",
    "rot::damage_is_told_and_never_served",
    "net_sim::net_sim",
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
    println!("{:28} {:38} {:>8}", "bug", "caught by", "after");
    for bug in [""].iter().chain(&BUGS) {
        let mut caught = None;
        let mut start = clock.monotonic();
        for test in TESTS {
            start = clock.monotonic();
            if !cargo_test(&["--", "--exact", test], bug)? {
                caught = Some(test);
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
        println!("{name:28} {caught:38} {seconds:6.1} s{verdict}");
    }
    Ok(if escaped == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
