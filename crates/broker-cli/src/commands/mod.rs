//! What can be done, a file each.

mod admin;
pub(crate) mod bench;
mod cursor;
mod demo;
mod read;
mod room;
mod rooms;
mod send;
mod status;
mod store;

use crate::args::Command;
use crate::config::Config;
use crate::exit::Failure;
use crate::signals::Stop;

/// Does what was asked for.
pub(crate) async fn run(config: &Config, command: Command, stop: Stop) -> Result<(), Failure> {
    match command {
        Command::Send(args) => send::run(config, args, stop).await,
        Command::Read(args) => read::run(config, args, stop).await,
        Command::Rooms(args) => rooms::run(config, &args, stop).await,
        Command::Room(command) => room::run(config, command, stop).await,
        Command::Cursor(command) => cursor::run(config, command, stop).await,
        Command::Store(command) => store::run(config, command, stop).await,
        Command::Status(args) => status::run(config, &args, stop).await,
        Command::Bench(args) => bench::run(config, args.what, stop).await,
        Command::Demo(args) => demo::run(config, args, stop).await,
        Command::Admin(command) => admin::run(config, command, stop).await,
    }
}
