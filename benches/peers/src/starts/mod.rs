//! How long it takes from starting the server to its first acknowledgement, by what is stored: messages, bytes, rooms.
//!
//! - [`store`]: one store, filled, ended and started again and again.
//! - [`files`]: its files, and putting them out of the system's memory.
//! - [`cold_room`]: reading a room of it that nothing was said in for long.
//! - [`results`]: what is kept of it; [`goals`]: what it is to reach; [`page`]: the tables.

mod cold_room;
mod files;
mod goals;
mod page;
mod results;
mod store;

use std::time::Duration;

use anyhow::{Result, bail};

pub(crate) use self::files::Files;
use self::results::{Outcome, StoreResult};
use self::store::Content;
use crate::alone::Alone;
use crate::args::Starts as Options;
use crate::page::{Setting, part};
use crate::say;

/// Its part of a page of several commands.
pub(crate) const PART: &str = "starts";
/// Payload of the stores that are told by their bytes.
const PAYLOAD_BYTES: usize = 1024;

/// Runs the command.
pub(crate) fn run(options: &Options) -> Result<()> {
    let contents = chosen(options);
    if contents.is_empty() {
        bail!("there is no store to fill");
    }
    let alone = Alone::new(&options.place)?;
    let lab = alone.lab(Duration::from_secs(1));
    let setting = Setting::of(&lab)?;
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
    part::put_out(&options.output, PART, &results, || {
        page::page(&setting, &results)
    })?;
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
