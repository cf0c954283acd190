//! The log, on standard error.

use std::env;
use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;

use crate::exit::{Exit, Failure};

/// Sends the log to standard error at the level of `BROKER_LOG`, by default `info`.
pub(crate) fn start() -> Result<(), Failure> {
    let filter = env::var("BROKER_LOG")
        .ok()
        .filter(|filter| !filter.is_empty());
    let filter = EnvFilter::builder()
        .parse(filter.as_deref().unwrap_or("info"))
        .map_err(|error| {
            Failure::new(
                Exit::Config,
                format!("BROKER_LOG is no log filter: {error}"),
            )
        })?;
    tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        // A line that cannot be written is lost: told, it would be on standard error too, and the
        // daemon would die of a full disk below its log.
        .log_internal_errors(false)
        .with_env_filter(filter)
        .init();
    Ok(())
}
