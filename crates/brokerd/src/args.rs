//! What the command line says: its shape and its help. `config` gives the values their meaning.

use std::ffi::OsString;

use clap::Parser;

const AFTER_HELP: &str = "\
Examples:
  brokerd                              serve the default store at 127.0.0.1:9876
  brokerd --data /srv/broker           serve another one
  brokerd --listen 127.0.0.1:0         at a free port, which the start message names

BROKER_LOG sets what is logged to standard error: error, warn, info (default), debug, or a filter
such as broker_core=debug. SIGTERM and SIGINT finish what was accepted and end with exit code 0;
a second one ends at once.

Exit codes:
  0  ended by request
  2  wrong usage
  65  the store was written by a newer version
  71  the system refuses threads or signal handlers
  74  the disk or the directory fails
  75  the store is served by another process, or the port is taken
  78  refused configuration
  130, 143  ended at once by a second SIGINT, SIGTERM";

/// The daemon of the room broker: serves one store until it is told to stop.
#[derive(Debug, Parser)]
#[command(name = "brokerd", version, max_term_width = 100, after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// Where to accept connections: ADDRESS:PORT, or none for the store's Unix socket alone
    /// [default: the store's address, at first 127.0.0.1:9876]
    #[arg(
        long,
        value_name = "ADDR",
        env = "BROKERD_LISTEN",
        hide_env_values = true
    )]
    pub(crate) listen: Option<String>,

    /// The store's directory, made if it does not exist [default: $XDG_DATA_HOME/broker]
    #[arg(
        short,
        long,
        value_name = "DIR",
        env = "BROKERD_DATA",
        hide_env_values = true
    )]
    pub(crate) data: Option<OsString>,

    /// Accept connections that are not from this machine, although nobody is asked who they are
    #[arg(long, env = "BROKERD_INSECURE_NO_AUTH", hide_env_values = true, value_parser = clap::builder::FalseyValueParser::new())]
    pub(crate) insecure_no_auth: bool,

    /// Never let another process of this user kill this one, even when it is stopped or hangs and
    /// so keeps the store from everybody
    #[arg(long, env = "BROKERD_NO_FENCING", hide_env_values = true, value_parser = clap::builder::FalseyValueParser::new())]
    pub(crate) no_fencing: bool,

    /// Within what time everything that is kept is read and checked once, in the background: 7d, 12h,
    /// or off [default: 7d]
    #[arg(
        long,
        value_name = "TIME",
        env = "BROKERD_SCRUB_EVERY",
        hide_env_values = true
    )]
    pub(crate) scrub_every: Option<String>,
}
