//! What the library logs, on standard error.
//!
//! A command line is quiet by default: what its user should know it says itself, in words, so only
//! errors of the library are logged. `-v` and `BROKER_LOG` change that.

use std::env;
use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use crate::exit::Failure;

/// Sends the log to standard error, as `BROKER_LOG` or the number of `-v` says.
pub(crate) fn start(verbose: u8) -> Result<(), Failure> {
    let log = tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        // A line that cannot be written is lost: told, it would be on standard error too, and panic.
        .log_internal_errors(false);
    match env::var("BROKER_LOG")
        .ok()
        .filter(|filter| !filter.is_empty())
    {
        Some(filter) => {
            let filter = EnvFilter::builder()
                .parse(&filter)
                .map_err(|error| Failure::usage(format!("BROKER_LOG is no log filter: {error}")))?;
            log.with_env_filter(filter).init();
        }
        // A fixed level needs none of the filter's machinery, which costs time at every start.
        None => {
            let level = match verbose {
                0 => LevelFilter::ERROR,
                1 => LevelFilter::INFO,
                _ => LevelFilter::DEBUG,
            };
            log.with_max_level(level).init();
        }
    }
    Ok(())
}
