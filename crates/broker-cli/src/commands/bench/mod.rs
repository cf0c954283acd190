//! `broker bench`: load with a stamp on every message, figures, and a check that nothing was lost,
//! doubled or reordered.
//!
//! `load` is what was asked for, `stage` where it runs, `crew` how it is done by `publish` and
//! `subscribe`, `runs` the benchmarks, `report` what is printed.

mod budget;
mod check;
mod cpu;
mod crew;
mod disk;
mod figures;
mod gate;
mod hdr;
mod load;
mod machine;
mod pace;
mod progress;
mod publish;
mod report;
mod rtt;
mod runs;
mod stage;
mod stamp;
mod subscribe;

use std::sync::Arc;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use self::hdr::HdrFiles;
use self::load::{Load, What};
use self::machine::Machine;
use self::progress::Progress;
use self::runs::Bench;
use self::stage::Host;
use crate::args::BenchCommand;
use crate::config::Config;
use crate::connect::unless_stopped;
use crate::exit::Failure;
use crate::output::{self, say};
use crate::signals::Stop;

/// Runs the command.
pub(crate) async fn run(
    config: &Config,
    command: BenchCommand,
    mut stop: Stop,
) -> Result<(), Failure> {
    let (what, options) = match command {
        BenchCommand::Pub(options) => (What::Pub, options),
        BenchCommand::Sub(options) => (What::Sub, options),
        BenchCommand::Fanout(options) => (What::Fanout, options),
        BenchCommand::Replay(options) => (What::Replay, options),
        BenchCommand::Rtt(options) => (What::Rtt, options),
        BenchCommand::Rooms(options) => (What::Rooms, options),
    };
    let load = Arc::new(Load::new(what, &options)?);
    for option in Load::ignored(what, &options) {
        say(&format!("bench {} makes no use of {option}", what.name()));
    }
    let files = HdrFiles::open(options.hdr.as_deref(), load.timed())?;
    let machine = Machine::look();
    raise_descriptor_limit();
    let (host, stage) = unless_stopped(&mut stop, Host::open(config)).await?;
    let bench = Bench {
        stage: Arc::new(stage),
        load,
        machine,
        patience: config.timeout,
        progress: Progress::new(options.json),
    };
    let result = unless_stopped(&mut stop, bench.run()).await;
    let closed = host.close().await;
    let mut report = result?;
    report.files = files.write(&report.measured.figures)?;
    let mut out = output::stdout();
    report.write(options.json, out.buffer());
    out.flush()?;
    closed
}

/// A thousand connections, with both ends in this process, need more descriptors than many systems give
/// at first. Refused, the broker says what it cannot take.
fn raise_descriptor_limit() {
    let maximum = getrlimit(Resource::Nofile).maximum;
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    let _ = setrlimit(Resource::Nofile, raised);
}
