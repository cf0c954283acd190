//! The table of the starts, in Markdown.

use std::fmt::Write as _;

use anyhow::Result;

use super::results::{Cache, Ended, Measured, Outcome, StoreResult};
use super::store::Content;
use crate::gauge::machine::Machine;
use crate::page::machine_line;
use crate::page::numbers::{bytes, count, latency, spread};
use crate::stats::{Spread, float};

/// What is stored, in words.
fn name(content: Content) -> String {
    match content {
        Content::Messages { count: n, size } => {
            format!("{} messages of {size} B", count(float(n)))
        }
        Content::Rooms { count: n } => format!("{} rooms", count(float(n))),
    }
}

fn millis(of: Option<Spread>) -> String {
    spread(of, |value| latency(value * 1e3))
}

/// How a store came out, in a line.
pub(super) fn progress_line(result: &StoreResult) -> String {
    let name = name(result.content);
    match &result.outcome {
        Outcome::Failed(why) => format!("{name}: FAILED: {why}"),
        Outcome::Measured(measured) => {
            let start = |ended, cache| millis(measured.acks_ms(ended, cache));
            format!(
                "{name}: clean {}, cold {}; killed {}, cold {}; {} acknowledged = stored",
                start(Ended::Clean, Cache::Warm),
                start(Ended::Clean, Cache::Cold),
                start(Ended::Killed, Cache::Warm),
                start(Ended::Killed, Cache::Cold),
                measured.verified
            )
        }
    }
}

/// The page.
pub(super) fn page(machine: &Machine, version: &str, results: &[StoreResult]) -> Result<String> {
    let mut page = String::new();
    writeln!(page, "# How long a start takes\n")?;
    writeln!(
        page,
        "From the start of the process to the first acknowledgement of a message, synced; median [least-most]. \
         *Clean*: the server had been asked to end; *killed*: with SIGKILL, right after more was published. *Cold*: the \
         store's files were put out of the system's memory before. *Listens* and *welcomes* are of the clean, warm starts. \
         Written by `broker-peers starts`.\n"
    )?;
    writeln!(page, "- {}", machine_line(machine))?;
    writeln!(page, "- {version}\n")?;
    table(&mut page, results)?;
    rooms(&mut page, results)?;
    Ok(page)
}

fn table(page: &mut String, results: &[StoreResult]) -> Result<()> {
    writeln!(
        page,
        "| stored | on disk | files | clean | clean, cold | killed | killed, cold | listens | welcomes | RSS, filled | RSS, started |"
    )?;
    writeln!(page, "|---|---|---|---|---|---|---|---|---|---|---|")?;
    for result in results {
        let name = name(result.content);
        match &result.outcome {
            Outcome::Failed(why) => writeln!(page, "| {name} | failed: {why} |||||||||| ")?,
            Outcome::Measured(measured) => writeln!(page, "| {name} | {} |", cells(measured))?,
        }
    }
    Ok(())
}

fn cells(measured: &Measured) -> String {
    let start = |ended, cache| millis(measured.acks_ms(ended, cache));
    let warm = |time: fn(&super::results::Start) -> f64| {
        millis(measured.spread(Ended::Clean, Cache::Warm, time))
    };
    [
        bytes(float(measured.files.disk_bytes)),
        measured.files.count.to_string(),
        start(Ended::Clean, Cache::Warm),
        start(Ended::Clean, Cache::Cold),
        start(Ended::Killed, Cache::Warm),
        start(Ended::Killed, Cache::Cold),
        warm(|start| start.listens_ms),
        warm(|start| start.welcomes_ms),
        bytes(measured.rss_filled),
        bytes(measured.rss_started),
    ]
    .join(" | ")
}

/// What rooms cost beside the time.
fn rooms(page: &mut String, results: &[StoreResult]) -> Result<()> {
    let of_rooms = results.iter().filter_map(|result| {
        let Content::Rooms { count } = result.content else {
            return None;
        };
        match &result.outcome {
            Outcome::Measured(measured) => Some((count, measured)),
            Outcome::Failed(_) => None,
        }
    });
    let mut is_first = true;
    for (rooms, measured) in of_rooms {
        if std::mem::take(&mut is_first) {
            writeln!(
                page,
                "\n| rooms | RSS of a room, filled | RSS of a room, started | listing all | pages | a page, p50 | a page, p99 |"
            )?;
            writeln!(page, "|---|---|---|---|---|---|---|")?;
        }
        let each = |rss: f64| bytes(((rss - measured.rss_empty) / float(rooms)).max(0.0));
        let listing = &measured.listing;
        writeln!(
            page,
            "| {} | {} | {} | {} | {} | {} | {} |",
            count(float(rooms)),
            each(measured.rss_filled),
            each(measured.rss_started),
            latency(listing.all_ms * 1e3),
            listing.pages,
            latency(listing.page_p50_us),
            latency(listing.page_p99_us),
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use super::super::files::Files;
    use super::super::results::{Listing, Start};
    use super::*;

    fn result(content: Content) -> StoreResult {
        let start = |ended, cache, acks_ms| Start {
            ended,
            cache,
            listens_ms: 1.0,
            welcomes_ms: 2.0,
            acks_ms,
        };
        StoreResult {
            content,
            outcome: Outcome::Measured(Box::new(Measured {
                rss_empty: 1e6,
                rss_filled: 3e6,
                rss_started: 2e6,
                files: Files {
                    count: 3,
                    disk_bytes: 3 << 20,
                },
                starts: vec![
                    start(Ended::Clean, Cache::Warm, 3.0),
                    start(Ended::Clean, Cache::Warm, 5.0),
                    start(Ended::Clean, Cache::Cold, 7.0),
                    start(Ended::Killed, Cache::Warm, 11.0),
                ],
                listing: Listing {
                    rooms: 1000,
                    pages: 1,
                    all_ms: 1.5,
                    page_p50_us: 500.0,
                    page_p99_us: 700.0,
                },
                verified: 1001,
            })),
        }
    }

    #[test]
    fn every_store_has_a_row_and_rooms_have_another() {
        let results = [
            result(Content::Messages {
                count: 10_000,
                size: 128,
            }),
            result(Content::Rooms { count: 1000 }),
            StoreResult {
                content: Content::Rooms { count: 7 },
                outcome: Outcome::Failed("why not".to_owned()),
            },
        ];
        let page = page(
            &Machine::here(std::path::Path::new("/")),
            "brokerd 1",
            &results,
        )
        .unwrap();
        assert!(
            page.contains("| 10.0 k messages of 128 B | 3.00 MiB | 3 | 4.00 ms [3.00 ms-5.00 ms] | 7.00 ms | 11.0 ms | - |"),
            "{page}"
        );
        assert!(
            page.contains("| 1.00 k | 1.95 KiB | 1000 B | 1.50 ms | 1 | 500 us | 700 us |"),
            "{page}"
        );
        assert!(page.contains("failed: why not"));
        let line = serde_json::to_string(&results).unwrap();
        assert_eq!(
            serde_json::from_str::<Vec<StoreResult>>(&line).unwrap(),
            results
        );
    }
}
