//! How much is written to the disk for what is published: alone, with retention, and while segments are written anew; and
//! what that does to the acknowledgements meanwhile.
//!
//! - [`case`]: what is done; [`work`]: doing it with one server.
//! - [`counts`]: what the server has written, by the kernel and by its own account; waiting until it writes no more.
//! - [`results`]: what is kept of it; [`page`]: the tables.

mod case;
mod counts;
mod page;
mod results;
mod work;

use std::time::Duration;

use anyhow::{Result, bail};

pub(crate) use self::case::Case;
use self::results::{Outcome, RunResult};
use self::work::Work;
use crate::alone::Alone;
use crate::args::Amplification as Options;
use crate::page::{Setting, part};
use crate::say;

/// Its part of a page of several commands.
pub(crate) const PART: &str = "amplification";

/// Runs the command.
pub(crate) fn run(options: &Options) -> Result<()> {
    let alone = Alone::new(&options.place)?;
    let lab = alone.lab(Duration::from_secs(1));
    let setting = Setting::of(&lab)?;
    let works = chosen(options);
    let mut results = Vec::new();
    for (number, work) in works.iter().enumerate() {
        let outcome = work.measure(&lab);
        let result = RunResult {
            case: work.case,
            size: work.size,
            outcome: outcome.unwrap_or_else(|error| Outcome::Failed(format!("{error:#}"))),
        };
        let words = page::progress_line(&result);
        say(&format!("[{}/{}] {words}", number + 1, works.len()));
        results.push(result);
    }
    part::put_out(&options.output, PART, &results, || {
        page::page(&setting, options, &results)
    })?;
    let is_failed = |result: &&RunResult| matches!(result.outcome, Outcome::Failed(_));
    match results.iter().filter(is_failed).count() {
        0 => Ok(()),
        failures => bail!("{failures} runs failed"),
    }
}

/// Everything that was asked for.
fn chosen(options: &Options) -> Vec<Work> {
    let sizes = options.payloads.iter();
    let works = sizes.flat_map(|&size| {
        let cases = Case::ALL.into_iter();
        let cases = cases.filter(|case| options.only.is_empty() || options.only.contains(case));
        cases.map(move |case| Work::new(options, case, size))
    });
    works.collect()
}
