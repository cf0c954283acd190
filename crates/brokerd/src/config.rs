//! What the daemon was asked to do: flag before environment before default.
//!
//! An empty environment variable counts as not set.

use std::env;
use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::args::Args;
use crate::exit::{Exit, Failure};

/// What the daemon was asked to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Config {
    /// The store's directory.
    pub(crate) data: PathBuf,
    /// Where to accept connections.
    pub(crate) listen: Listen,
    /// Whether an address that others can reach is wanted.
    pub(crate) insecure_no_auth: bool,
    /// Whether another process may kill this one when it hangs.
    pub(crate) may_be_fenced: bool,
}

/// Where to accept connections, beside the store's Unix socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Listen {
    /// At the store's own address.
    Default,
    /// Nowhere else.
    None,
    /// Here.
    At(SocketAddr),
}

impl Config {
    /// Judges what was typed and what the environment says.
    pub(crate) fn new(args: &Args, data_is_flag: bool) -> Result<Self, Failure> {
        if data_is_flag && args.data.as_deref().is_some_and(OsStr::is_empty) {
            // Most likely a variable that is not set; the default store is not what was meant.
            return Err(Failure::new(
                Exit::Config,
                "--data needs the name of a directory",
            ));
        }
        let listen = listen(args.listen.as_deref())?;
        if let Listen::At(address) = listen
            && !address.ip().is_loopback()
            && !args.insecure_no_auth
        {
            return Err(Failure::new(Exit::Config, not_loopback(address)));
        }
        let data = match args.data.as_deref().filter(|dir| !dir.is_empty()) {
            Some(dir) => dir.into(),
            None => default_data(env::var_os("XDG_DATA_HOME").as_deref(), env::var_os("HOME").as_deref()).ok_or_else(|| {
                Failure::new(Exit::Config, "neither XDG_DATA_HOME nor HOME says where data belongs: name a directory with --data DIR")
            })?,
        };
        Ok(Self {
            data,
            listen,
            insecure_no_auth: args.insecure_no_auth,
            may_be_fenced: !args.no_fencing,
        })
    }
}

fn listen(text: Option<&str>) -> Result<Listen, Failure> {
    match text.filter(|text| !text.is_empty()) {
        None => Ok(Listen::Default),
        Some("none") => Ok(Listen::None),
        Some(text) => text.parse().map(Listen::At).map_err(|_| {
            Failure::new(Exit::Config, format!("--listen takes ADDRESS:PORT (such as 127.0.0.1:9876 or [::1]:9876) or none, not '{text}'"))
        }),
    }
}

fn not_loopback(address: SocketAddr) -> String {
    format!(
        "{address} can be reached from other machines, and nobody would be asked who they are: \
         listen at 127.0.0.1:{port} or [::1]:{port} and let others in through a tunnel (ssh -L), \
         or give --insecure-no-auth if everybody on that network may read and write everything",
        port = address.port(),
    )
}

/// A relative `XDG_DATA_HOME` is ignored, as its specification asks.
fn default_data(xdg: Option<&OsStr>, home: Option<&OsStr>) -> Option<PathBuf> {
    let absolute = |path: Option<&OsStr>| path.map(PathBuf::from).filter(|path| path.is_absolute());
    let base = absolute(xdg).or_else(|| Some(absolute(home)?.join(".local/share")))?;
    Some(base.join("broker"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(listen: Option<&str>, insecure_no_auth: bool) -> Args {
        Args {
            listen: listen.map(str::to_owned),
            data: Some("/d".into()),
            insecure_no_auth,
            no_fencing: false,
        }
    }

    #[test]
    fn addresses_of_this_machine_need_no_leave() {
        for address in ["127.0.0.1:9876", "127.8.9.1:0", "[::1]:9876"] {
            let config = Config::new(&args(Some(address), false), false).expect("loopback");
            assert_eq!(
                config.listen,
                Listen::At(address.parse().expect("an address"))
            );
        }
        assert_eq!(
            Config::new(&args(Some("none"), false), false)
                .expect("a word")
                .listen,
            Listen::None
        );
        assert_eq!(
            Config::new(&args(Some(""), false), false)
                .expect("not set")
                .listen,
            Listen::Default
        );
    }

    #[test]
    fn other_addresses_are_refused_with_both_ways_out() {
        for address in [
            "0.0.0.0:9876",
            "[::]:9876",
            "192.168.1.2:9876",
            "[::ffff:127.0.0.1]:9876",
        ] {
            let failure =
                Config::new(&args(Some(address), false), false).expect_err("not loopback");
            assert_eq!(failure.exit, Exit::Config);
            assert!(
                failure.words.contains("127.0.0.1:9876")
                    && failure.words.contains("--insecure-no-auth"),
                "{}",
                failure.words
            );
            assert!(Config::new(&args(Some(address), true), false).is_ok());
        }
        assert_eq!(
            Config::new(&args(Some("9876"), false), false)
                .expect_err("no address")
                .exit,
            Exit::Config
        );
    }

    #[test]
    fn the_default_directory() {
        let os = |text| Some(OsStr::new(text));
        assert_eq!(default_data(os("/x"), os("/h")), Some("/x/broker".into()));
        assert_eq!(
            default_data(os("x"), os("/h")),
            Some("/h/.local/share/broker".into())
        );
        assert_eq!(default_data(None, os("")), None);
    }
}
