//! The life of the daemon: lead, say where, wait for a signal, leave in order.

use std::error::Error as StdError;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write as _};
use std::path::Path;
use std::process;

use broker_core::dir::{DirError, ExitClass, SOCKET_NAME};
use broker_core::log::RecoveryError;
use broker_core::{Error, ErrorKind, Node, Role};

use crate::config::{Config, Listen};
use crate::exit::{Exit, Failure};
use crate::shutdown::Signals;

/// Runs the daemon until a signal ends it.
pub(crate) async fn serve(config: &Config) -> Result<(), Failure> {
    let mut signals = Signals::new()
        .map_err(|error| Failure::new(Exit::System, format!("cannot handle signals: {error}")))?;
    let node = tokio::select! {
        biased;
        // Nothing was accepted yet, so there is nothing to finish.
        _ = signals.next() => return Ok(()),
        node = Node::join(node_config(config)) => node.map_err(|error| failure(&error))?,
    };
    announce(config, &node);
    let moved = tokio::select! {
        biased;
        _ = signals.next() => false,
        () = node.moved() => true,
    };
    tokio::select! {
        biased;
        left = node.shutdown() => left.map_err(|error| failure(&error))?,
        second = signals.next() => process::exit(second.number().into()),
    }
    if moved {
        return Err(Failure::new(Exit::Disk, moved_words(&config.data)));
    }
    Ok(())
}

fn moved_words(data: &Path) -> String {
    format!(
        "{} is no longer the directory that was opened: it was moved, replaced or removed; nothing was written since that was noticed. Put it back, or start again with the directory's new place",
        data.display()
    )
}

fn node_config(config: &Config) -> broker_core::Config {
    let node = broker_core::Config::new(&config.data)
        .role(Role::ServeAlways)
        .build(concat!("brokerd ", env!("CARGO_PKG_VERSION")))
        .sender("brokerd")
        .insecure_no_auth(config.insecure_no_auth)
        .may_be_fenced(config.may_be_fenced)
        .scrub_every(config.scrub_every);
    match config.listen {
        Listen::Default => node,
        Listen::None => node.listen(None),
        Listen::At(address) => node.listen(address),
    }
}

/// Says in one line that it serves, and where; whatever the log level is.
fn announce(config: &Config, node: &Node) {
    let data = fs::canonicalize(&config.data).unwrap_or_else(|_| config.data.clone());
    let line = start_line(node.address().map(|address| address.to_string()), &data);
    // Nobody is left to be told when standard error is closed.
    let _ = writeln!(io::stderr().lock(), "{line}");
}

fn start_line(address: Option<String>, data: &Path) -> String {
    let tcp = address
        .map(|address| format!("{address} and "))
        .unwrap_or_default();
    let socket = data.join(SOCKET_NAME);
    format!(
        "brokerd {} listening on {tcp}unix:{}, data in {}",
        env!("CARGO_PKG_VERSION"),
        socket.display(),
        data.display()
    )
}

/// What the service manager and a person have to know of an error.
fn failure(error: &Error) -> Failure {
    let mut words = error.to_string();
    let mut class = None;
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !words.ends_with(&text) {
            // Writing to a string cannot fail.
            let _ = write!(words, ": {text}");
        }
        class = class.or_else(|| class_of(error));
        cause = error.source();
    }
    let exit = match (class, error.kind()) {
        (Some(ExitClass::NewerFormat), _) => Exit::Newer,
        (Some(ExitClass::Held), _) | (None, ErrorKind::Locked) => Exit::Held,
        (Some(ExitClass::RefusedConfig), _) | (None, ErrorKind::Usage) => Exit::Config,
        _ => Exit::Disk,
    };
    Failure::new(exit, words)
}

/// What kind of failure a cause is, if it is one that the directory or the log knows.
fn class_of(error: &(dyn StdError + 'static)) -> Option<ExitClass> {
    let of_log = error.downcast_ref().map(RecoveryError::exit_class);
    of_log.or_else(|| error.downcast_ref().map(DirError::exit_class))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_line() {
        let data = Path::new("/srv/broker");
        let version = env!("CARGO_PKG_VERSION");
        assert_eq!(
            start_line(Some("127.0.0.1:9876".to_owned()), data),
            format!(
                "brokerd {version} listening on 127.0.0.1:9876 and unix:/srv/broker/sock, data in /srv/broker"
            )
        );
        assert_eq!(
            start_line(None, data),
            format!("brokerd {version} listening on unix:/srv/broker/sock, data in /srv/broker")
        );
    }
}
