//! `broker demo`: what there is to see, in a store of its own.
//!
//! `steps` is the plain one: two processes and a room, step by step. The others are `--takeover`:
//! `takeover` directs the play, `crew` are its processes, each of which runs `agent` and tells with
//! `report` what happens to it; `checker` judges, `screen` shows, `tally` counts.

mod agent;
mod checker;
mod crew;
mod report;
mod screen;
mod steps;
mod takeover;
mod tally;

use std::io;

use crate::args::DemoArgs;
use crate::config::Config;
use crate::exit::{Exit, Failure};
use crate::signals::Stop;

/// The room of the take-over demo.
const ROOM: &str = "takeover";

/// Runs the command.
pub(crate) async fn run(config: &Config, args: DemoArgs, stop: Stop) -> Result<(), Failure> {
    let plan = takeover::Plan::new(config, &args)?;
    match args.agent {
        Some(number) => agent::run(config, number, plan.rate, stop).await,
        None if args.takeover => takeover::run(config, plan, stop).await,
        None => steps::run(config, stop).await,
    }
}

fn broken(tried: &str, error: &io::Error) -> Failure {
    Failure::new(Exit::Protocol, format!("cannot {tried}: {error}"))
}
