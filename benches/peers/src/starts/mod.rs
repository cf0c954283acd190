//! How long it takes from starting the server to its first acknowledgement, by what is stored: messages, bytes, rooms.
//!
//! - [`store`]: one store, filled, ended and started again and again.
//! - [`files`]: its files, and putting them out of the system's memory.
//! - [`results`]: what is kept of it; [`page`]: the table.

mod files;
mod page;
mod results;
mod store;

use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};

pub(crate) use self::files::Files;
use self::results::{Outcome, StoreResult};
use self::store::Content;
use crate::args::{Programs, Starts as Options};
use crate::curves::Lab;
use crate::gauge::machine::Machine;
use crate::peer::Tool;
use crate::run::base_dir;
use crate::say;
use crate::server::Running;
use crate::tools::Tools;

/// Payload of the stores that are told by their bytes.
const PAYLOAD_BYTES: usize = 1024;

/// Runs the command.
pub(crate) fn run(options: &Options) -> Result<()> {
    let contents = chosen(options);
    if contents.is_empty() {
        bail!("there is no store to fill");
    }
    let tools = Tools::new(Programs {
        brokerd: options.brokerd.clone(),
        ..Programs::default()
    });
    tools.find(Tool::Brokerd).map_err(anyhow::Error::msg)?;
    let base = base_dir(options.dir.as_deref())?;
    let running = Running::default();
    running.end_on_signals(base.path().to_owned())?;
    let lab = Lab {
        tools: &tools,
        base: base.path(),
        running: &running,
        measured: Duration::from_secs(1),
    };
    let mut results = Vec::new();
    for (number, content) in contents.iter().enumerate() {
        let outcome = match store::measure(&lab, *content, options.repeat) {
            Ok(measured) => Outcome::Measured(Box::new(measured)),
            Err(error) => Outcome::Failed(format!("{error:#}")),
        };
        let result = StoreResult {
            content: *content,
            outcome,
        };
        let words = page::progress_line(&result);
        say(&format!("[{}/{}] {words}", number + 1, contents.len()));
        results.push(result);
    }
    let version = tools.version(Tool::Brokerd).unwrap_or_default();
    let text = if options.json {
        json(&results)?
    } else {
        page::page(&Machine::here(base.path()), &version, &results)?
    };
    put_out(&options.out, &text)?;
    let is_failed = |result: &&StoreResult| matches!(result.outcome, Outcome::Failed(_));
    match results.iter().filter(is_failed).count() {
        0 => Ok(()),
        failures => bail!("{failures} stores failed"),
    }
}

/// Every store that was asked for.
fn chosen(options: &Options) -> Vec<Content> {
    let mut contents = Vec::new();
    for &size in &options.payloads {
        let counts = options.messages.iter().filter(|count| **count > 0);
        contents.extend(counts.map(|&count| Content::Messages { count, size }));
    }
    let sizes = options.bytes.iter().filter(|bytes| **bytes > 0);
    contents.extend(sizes.map(|bytes| Content::Messages {
        count: (bytes / PAYLOAD_BYTES as u64).max(1),
        size: PAYLOAD_BYTES,
    }));
    let rooms = options.rooms.iter().filter(|count| **count > 0);
    contents.extend(rooms.map(|&count| Content::Rooms { count }));
    contents
}

/// An object a line.
fn json(results: &[StoreResult]) -> Result<String> {
    let mut text = String::new();
    for result in results {
        text += &serde_json::to_string(result)?;
        text.push('\n');
    }
    Ok(text)
}

/// Writes to a file, or to standard output where that is `-`.
fn put_out(out: &Path, text: &str) -> Result<()> {
    if out.as_os_str() == "-" {
        return Ok(std::io::stdout().lock().write_all(text.as_bytes())?);
    }
    fs::write(out, text).with_context(|| format!("cannot write {}", out.display()))
}
