//! The daemon of the room broker: serves one store until it is told to stop.
//!
//! `args` is what can be typed, `config` what it means, `serve` the life of the daemon, `shutdown`
//! the signals that end it, `exit` the numbers that it ends with. Everything else is the library's.

mod args;
mod config;
mod exit;
mod log;
mod serve;
mod shutdown;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::parser::ValueSource;
use clap::{CommandFactory, FromArgMatches};
use tokio::runtime::Builder;

use crate::args::Args;
use crate::config::Config;
use crate::exit::{Exit, Failure};

fn main() -> ExitCode {
    match run() {
        Ok(()) => Exit::Ok.into(),
        Err(failure) => {
            say(&failure.words);
            failure.exit.into()
        }
    }
}

fn run() -> Result<(), Failure> {
    let matches = Args::command().get_matches();
    let args = Args::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let data_is_flag = matches.value_source("data") == Some(ValueSource::CommandLine);
    let config = Config::new(&args, data_is_flag)?;
    log::start()?;
    // The server has a runtime of its own; this one waits for signals.
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Exit::System, format!("cannot start: {error}")))?;
    let result = runtime.block_on(serve::serve(&config));
    runtime.shutdown_background();
    result
}

/// Says one line on standard error.
fn say(words: &str) {
    // Nobody is left to be told when standard error is closed.
    let _ = writeln!(io::stderr().lock(), "brokerd: {words}");
}
