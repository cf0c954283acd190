//! One agent of `broker_sim::agent` as a process. Started by the tests, see `tests/it`.

use broker_sim::agent;
use clap::Parser;

/// Takes part in a store and writes down what it does and sees.
#[derive(Debug, Parser)]
struct Command {
    #[command(flatten)]
    agent: agent::Args,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    agent::run(Command::parse().agent).await
}
