//! The command line of the room broker: a person's hands, and a script's.
//!
//! `args` is what can be typed, `config` what it means, `connect` the way to a broker, `commands`
//! what is done there, `output`, `format`, `facts` and `escape` how it is printed, `exit` how it ends.
//!
//! **Invariant:** data goes to standard output, words to standard error, and the exit code says
//! which of them to look at.

mod args;
mod commands;
mod config;
mod connect;
mod escape;
mod exit;
mod facts;
mod format;
mod lines;
mod log;
mod output;
mod scratch;
mod settings;
mod signals;
mod start;
mod time;
mod units;

use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory, FromArgMatches};
use tokio::runtime::{Builder, Runtime};

use crate::args::{Cli, Command};
use crate::config::Config;
use crate::exit::{Exit, Failure};
use crate::output::say;
use crate::signals::Stop;

/// After a signal, a command has this long to end in order.
const GRACE: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    match run() {
        Ok(()) => Exit::Ok.into(),
        Err(failure) => {
            if let Some(words) = failure.words {
                say(&words);
            }
            failure.exit.into()
        }
    }
}

fn run() -> Result<(), Failure> {
    let matches = Cli::command().get_matches();
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let config = Config::new(&cli, &matches)?;
    log::start(config.verbose)?;
    let runtime = runtime(&cli.command)
        .map_err(|error| Failure::new(Exit::Protocol, format!("cannot start: {error}")))?;
    let result = runtime.block_on(async {
        let stop = Stop::listen(GRACE + config.timeout).map_err(|error| {
            Failure::new(Exit::Protocol, format!("cannot handle signals: {error}"))
        })?;
        commands::run(&config, cli.command, stop).await
    });
    // A name server that does not answer must not hold up the end.
    runtime.shutdown_background();
    result
}

/// One-shot commands wait for one thing at a time and start fastest on this thread alone. The
/// lasting ones write to pipes that can block, while the connection has to answer pings: it gets a
/// thread of its own. A benchmark may use the whole machine.
fn runtime(command: &Command) -> std::io::Result<Runtime> {
    let mut builder = match command {
        Command::Bench(_) => Builder::new_multi_thread(),
        Command::Read(_) => with_one_worker(),
        Command::Send(send) if send.lines => with_one_worker(),
        Command::Send(_)
        | Command::Rooms(_)
        | Command::Room(_)
        | Command::Cursor(_)
        | Command::Store(_)
        | Command::Status(_)
        | Command::Demo(_)
        | Command::Admin(_) => Builder::new_current_thread(),
    };
    builder.enable_all().build()
}

fn with_one_worker() -> Builder {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(1);
    builder
}
