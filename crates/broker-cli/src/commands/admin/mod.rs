//! `broker admin`: looks at a store from outside, without opening it.
//!
//! These commands take no lock, change nothing, and work while a leader serves the store: they read
//! what is proven durable at the moment.

mod dump;
mod lines;
mod verify;

use std::path::{Path, PathBuf};

use broker_core::dir::{DirError, Keeper, StoreDir, SystemProbe, keepers};
use broker_core::log::inspect::Inspector;
use broker_core::log::segment::SegmentName;
use broker_core::log::storage::{FileStorage, Storage};
use broker_proto::StoreId;

use crate::args::{AdminCommand, LogCommand};
use crate::config::{Config, Target};
use crate::connect::unless_stopped;
use crate::exit::{Exit, Failure, chain};
use crate::output::say;
use crate::signals::Stop;

/// Runs the command.
pub(crate) async fn run(
    config: &Config,
    command: AdminCommand,
    mut stop: Stop,
) -> Result<(), Failure> {
    let target = config.target.clone();
    let work = tokio::task::spawn_blocking(move || match command {
        AdminCommand::Verify(args) => verify::run(&directory(args.dir, &target)?, args.json),
        AdminCommand::Log(LogCommand::Dump(args)) => dump::run(&args, &target),
    });
    let joined = async {
        work.await.unwrap_or_else(|error| {
            Err(Failure::new(
                Exit::Protocol,
                format!("the reading thread stopped: {error}"),
            ))
        })
    };
    unless_stopped(&mut stop, joined).await
}

/// The directory that was named, here or as for every command.
fn directory(named: Option<PathBuf>, target: &Target) -> Result<PathBuf, Failure> {
    match (named, target) {
        (Some(dir), _) if dir.as_os_str().is_empty() => {
            Err(Failure::usage("the name of the directory is empty"))
        }
        (Some(dir), _) => Ok(dir),
        (None, Target::Store(dir)) => Ok(dir.clone()),
        (None, Target::Server(_)) => Err(Failure::usage(
            "the files of a store are read, not a broker asked: name the directory",
        )),
    }
}

/// A store's directory, looked at from outside.
struct Site {
    dir: PathBuf,
    storage: FileStorage,
    /// Whose the log is, if the file `store` says.
    log: Option<StoreId>,
    /// What is wrong with the file `store`.
    identity: Option<DirError>,
    /// Who serves the store at the moment.
    keepers: Vec<Keeper>,
}

impl Site {
    /// Opens a directory that holds a store.
    fn open(dir: &Path) -> Result<Self, Failure> {
        let unreachable = |words: String| Failure::new(Exit::Unreachable, words);
        let storage = FileStorage::open(dir).map_err(|error| {
            let what = match error.kind() {
                std::io::ErrorKind::NotFound => "there is no such directory".to_owned(),
                std::io::ErrorKind::NotADirectory => "it is not a directory".to_owned(),
                _ => error.to_string(),
            };
            unreachable(format!(
                "cannot read the store in {}: {what}",
                dir.display()
            ))
        })?;
        let files = storage
            .list()
            .map_err(|error| unreachable(format!("cannot list {}: {error}", dir.display())))?;
        let has_log = files.iter().any(|file| SegmentName::parse(file).is_some());
        let has_store = files.iter().any(|file| file == "store");
        if !has_log && !has_store {
            let words = format!("there is no store in {}", dir.display());
            return Err(unreachable(words));
        }
        let mut site = Self {
            dir: dir.to_owned(),
            storage,
            log: None,
            identity: None,
            keepers: Vec::new(),
        };
        // It refuses directories that a broker must not write to, and they can be read all the same.
        match StoreDir::open(dir, &SystemProbe) {
            Ok(opened) => {
                site.keepers = keepers(&opened);
                match opened.read_store() {
                    Ok(store) => site.log = store.map(|store| store.log_id),
                    Err(error) => site.identity = Some(error),
                }
            }
            Err(error) => say(&format!(
                "the file store and the lock were not looked at: {}",
                chain(&error)
            )),
        }
        Ok(site)
    }

    fn inspect(&self) -> Result<Inspector<'_, FileStorage>, Failure> {
        Inspector::open(&self.storage, self.log).map_err(|error| {
            Failure::new(
                Exit::Protocol,
                format!("cannot read the log in {}: {error}", self.dir.display()),
            )
        })
    }
}
