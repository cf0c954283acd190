//! What the daemon was asked to do: flag before environment before default.
//!
//! An empty environment variable counts as not set.

use std::env;
use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use broker_core::store::SCRUB_EVERY_DEFAULT;

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
    /// Within what time everything is read and checked once, if at all.
    pub(crate) scrub_every: Option<Duration>,
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
            scrub_every: scrub_every(args.scrub_every.as_deref())?,
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

fn scrub_every(text: Option<&str>) -> Result<Option<Duration>, Failure> {
    match text.filter(|text| !text.is_empty()) {
        None => Ok(Some(SCRUB_EVERY_DEFAULT)),
        Some("off") => Ok(None),
        Some(text) => seconds(text).map(|seconds| Some(Duration::from_secs(seconds))).ok_or_else(|| {
            Failure::new(Exit::Config, format!("--scrub-every takes a time of at least a second, such as 7d, 12h, 30m or 90s, or off, not '{text}'"))
        }),
    }
}

/// One number with a unit, in seconds; at most ten years.
fn seconds(text: &str) -> Option<u64> {
    const MOST: u64 = 10 * 366 * 86_400;
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let unit = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        "w" => 604_800,
        _ => return None,
    };
    if !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let seconds = number.parse::<u64>().ok()?.checked_mul(unit)?;
    (1..=MOST).contains(&seconds).then_some(seconds)
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
            scrub_every: None,
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
    fn how_often_everything_is_read() {
        let every = |text: &str| scrub_every(Some(text)).ok();
        let some = |seconds| Some(Some(Duration::from_secs(seconds)));
        assert_eq!(every("7d"), some(604_800));
        assert_eq!(every(""), some(604_800));
        assert_eq!(every("90s"), some(90));
        assert_eq!(every("off"), Some(None));
        for wrong in [
            "7",
            "0s",
            "d",
            "-1d",
            "+1d",
            "1.5h",
            "1y",
            "99999999999w",
            "ü",
            "5 m",
        ] {
            assert_eq!(every(wrong), None, "{wrong}");
        }
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
