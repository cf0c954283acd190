//! `broker bench`: load with a stamp on every message, figures, and a check that nothing was lost,
//! doubled or reordered.

mod figures;
mod load;
mod publish;
mod report;
mod rtt;
mod stage;
mod stamp;
mod subscribe;

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use self::figures::{Figure, Latencies};
use self::load::{Budget, Load, What};
use self::publish::{Published, publish};
use self::report::Report;
use self::stage::Stage;
use self::subscribe::{Received, subscribe, violated};
use crate::args::BenchCommand;
use crate::config::Config;
use crate::connect::unless_stopped;
use crate::exit::{Exit, Failure};
use crate::output;
use crate::signals::Stop;

/// Runs the command.
pub(crate) async fn run(config: &Config, command: BenchCommand, mut stop: Stop) -> Result<(), Failure> {
    let (what, options) = match command {
        BenchCommand::Pub(options) => (What::Pub, options),
        BenchCommand::Sub(options) => (What::Sub, options),
        BenchCommand::Rtt(options) => (What::Rtt, options),
        BenchCommand::Rooms(options) => (What::Rooms, options),
    };
    let load = Arc::new(Load::new(what, &options)?);
    let stage = Arc::new(unless_stopped(&mut stop, Stage::open(config)).await?);
    let bench = Bench { stage: Arc::clone(&stage), load, patience: config.timeout };
    let result = unless_stopped(&mut stop, bench.run()).await;
    // Tasks that were cut off by a failure or a signal may still hold the stage; then it ends with them.
    let closed = match Arc::try_unwrap(stage) {
        Ok(stage) => stage.close().await,
        Err(stage) => stage.abandon(),
    };
    let report = result?;
    let mut out = output::stdout();
    report.write(options.json, out.buffer());
    out.flush()?;
    closed
}

struct Bench {
    stage: Arc<Stage>,
    load: Arc<Load>,
    patience: Duration,
}
