//! What holds for the whole run, decided once: flag before environment before default.
//!
//! An empty environment variable counts as not set. `--server` and `--data` name the same thing in
//! two ways: giving both as flags is an error, and a flag beats the other's variable.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use broker_core::Address;
use broker_proto::SenderName;
use clap::ArgMatches;
use clap::parser::ValueSource;

use crate::args::{Cli, Command, Global};
use crate::exit::Failure;
use crate::units;

/// Without progress for this long, a command gives up.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);

/// What every command needs to know.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    /// Whom to talk to.
    pub(crate) target: Target,
    /// Who chose it.
    pub(crate) chosen: Chosen,
    /// Where others may connect while this process leads.
    pub(crate) listen: Listen,
    /// Whom the messages are from.
    pub(crate) sender: SenderName,
    /// How long to go on without progress.
    pub(crate) timeout: Duration,
    /// How much to say on standard error.
    pub(crate) verbose: u8,
}

/// Whom to talk to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    /// This broker and no other.
    Server(String),
    /// Whoever serves the store in this directory, or this process. The name is empty for a command
    /// that makes a store of its own, unless somebody named one.
    Store(PathBuf),
}

/// Who chose the target. Commands that fill a store do so only when they were told to, here and now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Chosen {
    /// A flag of this command.
    Flag,
    /// The environment.
    Environment,
    /// Nobody.
    Default,
}

/// Where others may connect while this process leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Listen {
    /// Where the store says; one-shot commands only at its Unix socket.
    Default,
    /// Only at the Unix socket.
    None,
    /// At this address too.
    At(SocketAddr),
}

impl Config {
    /// Judges what was typed and what the environment says.
    pub(crate) fn new(cli: &Cli, matches: &ArgMatches) -> Result<Self, Failure> {
        let global = &cli.global;
        let is_flag = |name| matches.value_source(name) == Some(ValueSource::CommandLine);
        let own_store = matches!(cli.command, Command::Demo(_) | Command::Bench(_));
        let (target, chosen) = match target(global, is_flag("server"), is_flag("data"))? {
            Some(target) => target,
            None if own_store => (Target::Store(PathBuf::new()), Chosen::Default),
            None => (Target::Store(default_data()?), Chosen::Default),
        };
        Ok(Self {
            target,
            chosen,
            listen: listen(filled(global.listen.as_deref()))?,
            sender: sender(filled(global.sender.as_deref()))?,
            timeout: timeout(filled(global.timeout.as_deref()))?,
            verbose: global.verbose,
        })
    }
}

/// What a flag or the environment names.
fn target(
    global: &Global,
    server_is_flag: bool,
    data_is_flag: bool,
) -> Result<Option<(Target, Chosen)>, Failure> {
    if server_is_flag && data_is_flag {
        return Err(Failure::usage(
            "--server names a running broker and --data a store on this machine: give one of them",
        ));
    }
    let data = global.data.as_deref().filter(|dir| !dir.is_empty());
    if data_is_flag && data.is_none() {
        return Err(Failure::usage("--data needs the name of a directory"));
    }
    let by = |is_flag| {
        if is_flag {
            Chosen::Flag
        } else {
            Chosen::Environment
        }
    };
    match filled(global.server.as_deref()) {
        Some(url) if !data_is_flag => Ok(Some((Target::Server(server(url)?), by(server_is_flag)))),
        None if server_is_flag => Err(Failure::usage(
            "--server needs an address: tcp://HOST:PORT or unix:/PATH",
        )),
        _ => Ok(data.map(|dir| (Target::Store(dir.into()), by(data_is_flag)))),
    }
}

fn server(url: &str) -> Result<String, Failure> {
    match url.parse::<Address>() {
        Ok(_) => Ok(url.to_owned()),
        Err(error) => Err(Failure::usage(error.to_string())),
    }
}

fn listen(text: Option<&str>) -> Result<Listen, Failure> {
    let address: SocketAddr = match text {
        None => return Ok(Listen::Default),
        Some("none") => return Ok(Listen::None),
        Some(text) => text.parse().map_err(|_| {
            Failure::usage(format!("--listen takes ADDRESS:PORT (such as 127.0.0.1:9876 or [::1]:9876) or none, not '{text}'"))
        })?,
    };
    if !address.ip().is_loopback() {
        return Err(Failure::usage(format!(
            "{address} can be reached from other machines, and nobody would be asked who they are: listen at 127.0.0.1 or [::1] (brokerd --insecure-no-auth serves other addresses)"
        )));
    }
    Ok(Listen::At(address))
}

fn timeout(text: Option<&str>) -> Result<Duration, Failure> {
    let Some(text) = text else {
        return Ok(TIMEOUT_DEFAULT);
    };
    match units::duration(text, true) {
        Some(timeout) if !timeout.is_zero() => Ok(timeout),
        _ => Err(Failure::usage(format!(
            "--timeout takes a time above zero, such as 10s, 250ms or 2m, not '{text}'"
        ))),
    }
}

fn sender(name: Option<&str>) -> Result<SenderName, Failure> {
    if let Some(name) = name {
        return SenderName::parse(name).map_err(|error| {
            Failure::usage(format!("'{name}' cannot be a sender's name: {error}"))
        });
    }
    let login = login_name();
    SenderName::parse(&login).map_err(|error| Failure::usage(format!("the login name '{login}' cannot be a sender's name: {error}; say who you are with --as NAME")))
}

/// The login name: what the session says, else what the system's list of users says, else the number.
fn login_name() -> String {
    for variable in ["LOGNAME", "USER"] {
        if let Some(name) = env::var(variable).ok().filter(|name| !name.is_empty()) {
            return name;
        }
    }
    let uid = rustix::process::getuid().as_raw();
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    name_of(uid, &users).map_or_else(|| format!("uid{uid}"), str::to_owned)
}

/// Finds a user in the text of `/etc/passwd`: name, password, number, and more, with colons.
fn name_of(uid: u32, users: &str) -> Option<&str> {
    users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let number: u32 = fields.nth(1)?.parse().ok()?;
        (number == uid && !name.is_empty()).then_some(name)
    })
}

/// `$XDG_DATA_HOME/broker`, else `$HOME/.local/share/broker`.
pub(crate) fn default_data() -> Result<PathBuf, Failure> {
    data_below(env::var_os("XDG_DATA_HOME").as_deref(), env::var_os("HOME").as_deref())
        .ok_or_else(|| Failure::usage("neither XDG_DATA_HOME nor HOME says where data belongs: name a directory with --data DIR"))
}

/// A relative `XDG_DATA_HOME` is ignored, as its specification asks.
fn data_below(xdg: Option<&OsStr>, home: Option<&OsStr>) -> Option<PathBuf> {
    let absolute = |path: Option<&OsStr>| path.map(PathBuf::from).filter(|path| path.is_absolute());
    let base = absolute(xdg).or_else(|| Some(absolute(home)?.join(".local/share")))?;
    Some(base.join(OsString::from("broker")))
}

fn filled(text: Option<&str>) -> Option<&str> {
    text.filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn global(server: Option<&str>, data: Option<&str>) -> Global {
        Global {
            server: server.map(str::to_owned),
            data: data.map(OsString::from),
            listen: None,
            sender: None,
            timeout: None,
            verbose: 0,
        }
    }

    fn store(dir: &str) -> Target {
        Target::Store(dir.into())
    }

    #[test]
    fn a_flag_beats_the_environment() {
        let both = global(Some("unix:/s"), Some("/d"));
        let (chosen, _) = target(&both, false, true)
            .expect("a flag and a variable")
            .expect("named");
        assert_eq!(chosen, store("/d"));
        let (chosen, _) = target(&both, true, false)
            .expect("a flag and a variable")
            .expect("named");
        assert_eq!(chosen, Target::Server("unix:/s".to_owned()));
        let (chosen, _) = target(&both, false, false)
            .expect("two variables")
            .expect("named");
        assert_eq!(
            chosen,
            Target::Server("unix:/s".to_owned()),
            "the one that only ever connects"
        );
        assert!(target(&both, true, true).is_err(), "two flags");
    }

    #[test]
    fn an_empty_variable_is_not_set_and_an_empty_flag_is_wrong() {
        let (chosen, by) = target(&global(Some(""), Some("/d")), false, false)
            .expect("a variable")
            .expect("named");
        assert_eq!((chosen, by), (store("/d"), Chosen::Environment));
        assert!(target(&global(Some(""), None), true, false).is_err());
        assert!(target(&global(None, Some("")), false, true).is_err());
    }

    #[test]
    fn addresses() {
        for right in [
            "tcp://127.0.0.1:9876",
            "tcp://localhost",
            "tcp://[::1]:9876",
            "unix:/a",
            "unix:relative",
        ] {
            assert!(server(right).is_ok(), "{right}");
        }
        for wrong in [
            "127.0.0.1:9876",
            "tcp://:9876",
            "tcp://h:99999",
            "unix:",
            "http://h:1",
            "",
        ] {
            assert!(server(wrong).is_err(), "{wrong}");
        }
        assert_eq!(listen(Some("none")).expect("a word"), Listen::None);
        assert!(listen(Some("9876")).is_err());
        assert!(timeout(Some("0")).is_err());
        assert_eq!(timeout(Some("3")).expect("seconds"), Duration::from_secs(3));
    }

    #[test]
    fn users_and_directories() {
        let users = "root:x:0:0:root:/root:/bin/sh\nbroken\nann:x:1000:1000::/home/ann:/bin/sh\n";
        assert_eq!(name_of(1000, users), Some("ann"));
        assert_eq!(name_of(7, users), None);
        let os = |text| Some(OsStr::new(text));
        assert_eq!(data_below(os("/x"), os("/h")), Some("/x/broker".into()));
        assert_eq!(
            data_below(os("relative"), os("/h")),
            Some("/h/.local/share/broker".into())
        );
        assert_eq!(data_below(None, None), None);
        assert_eq!(data_below(os(""), os("")), None);
    }
}
