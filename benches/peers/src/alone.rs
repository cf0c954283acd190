//! [`Alone`]: what commands work with that measure our own server and no peer.

use std::time::Duration;

use anyhow::Result;
use tempfile::TempDir;

use crate::args::{Place, Programs};
use crate::curves::Lab;
use crate::peer::Tool;
use crate::run::base_dir;
use crate::server::Running;
use crate::tools::Tools;

/// The program, a directory that is gone at the end, and what is running there.
#[derive(Debug)]
pub(crate) struct Alone {
    tools: Tools,
    base: TempDir,
    running: Running,
}

impl Alone {
    /// # Errors
    /// There is no such program or directory; how to get it.
    pub(crate) fn new(place: &Place) -> Result<Self> {
        let tools = Tools::new(Programs {
            brokerd: place.brokerd.clone(),
            ..Programs::default()
        });
        tools.find(Tool::Brokerd).map_err(anyhow::Error::msg)?;
        let base = base_dir(place.dir.as_deref())?;
        let running = Running::default();
        running.end_on_signals(base.path().to_owned())?;
        Ok(Self {
            tools,
            base,
            running,
        })
    }

    /// Where each load is measured for so long.
    pub(crate) fn lab(&self, measured: Duration) -> Lab<'_> {
        Lab {
            tools: &self.tools,
            base: self.base.path(),
            running: &self.running,
            measured,
        }
    }
}
