//! Plants one bug after the other and shows which test catches it, and how fast.
//!
//! ```text
//! cargo run -p broker-sim --bin planted                         all of them
//! cargo run -p broker-sim --bin planted -- trust_tail           only this one
//! ```
//!
//! The first build with bugs takes as long as any first build, and stays in `target/planted`.
#![expect(clippy::print_stdout, reason = "the table is what it is for")]

use std::io;
use std::process::ExitCode;

use broker_sim::campaign::seed;
use broker_sim::planted::{Caught, Options, run};

fn main() -> io::Result<ExitCode> {
    let options = Options {
        seed: seed(1),
        only: std::env::args().skip(1).collect(),
    };
    let caught = run(&options, &mut |line| println!("{line}"))?;
    let count = caught.iter().filter(|bug| bug.is_caught()).count();
    println!("\n{count} of {} caught", caught.len());
    caught.iter().for_each(|bug| println!("{bug}"));
    Ok(if caught.iter().all(Caught::is_caught) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
