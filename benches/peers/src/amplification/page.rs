//! The tables of what is written, in Markdown.

use std::fmt::Write as _;

use anyhow::Result;

use super::case::Case;
use super::counts::{SETTLE_MAX, Settled};
use super::results::{Outcome, Published, RunResult, for_a_byte};
use crate::args::Amplification as Options;
use crate::page::Setting;
use crate::page::numbers::{bytes, count, digits, latency};
use crate::stats::float;

/// How a run came out, in a line.
pub(super) fn progress_line(result: &RunResult) -> String {
    let name = format!("{:<10} {:>5} B", result.case.name(), result.size);
    match &result.outcome {
        Outcome::Failed(why) => format!("{name}: FAILED: {why}"),
        Outcome::Published(published) => format!(
            "{name}: {} written for {}, {} x; acks p50 {}, p99 {}; {} acknowledged = stored",
            space(published.counts.written),
            space(published.payload_bytes),
            digits(for_a_byte(
                published.counts.written,
                published.payload_bytes
            )),
            latency(published.ack_us.p50),
            latency(published.ack_us.p99),
            published.verified
        ),
        Outcome::Merged(merged) => format!(
            "{name}: {} written by merging for {}, {} segments became {}; {} acknowledged = stored",
            space(merged.merging.rewritten),
            space(merged.payload_bytes),
            merged.segments_before,
            merged.segments_after,
            merged.verified
        ),
    }
}

/// The page.
pub(super) fn page(setting: &Setting, options: &Options, results: &[RunResult]) -> Result<String> {
    let mut page = String::new();
    writeln!(page, "## What is written to the disk\n")?;
    writeln!(
        page,
        "Bytes that the kernel counts as written by the server (`write_bytes` of `/proc/PID/io`, less \
         `cancelled_write_bytes`) for each byte of payload that it acknowledged: the log, the zeros that space is prepared with, headers, \
         checkpoints, footers, and segments that are written anew. 16 publishers with 64 messages in flight each, as fast as they are \
         acknowledged; then it is waited until nothing more is written or freed. *Acks* are of the time of publishing, and \
         *meanwhile* is what was written anew within it. Each line is a server of its own. \
         Written by `broker-peers amplification` ([how to run it](../benches/peers/README.md)).\n"
    )?;
    setting.write(&mut page)?;
    for case in Case::ALL {
        if results.iter().any(|result| result.case == case) {
            writeln!(page, "- *{}*: {}.", case.name(), case.words(options))?;
        }
    }
    writeln!(page)?;
    publishing(&mut page, results)?;
    merging(&mut page, results)?;
    failures(&mut page, results)?;
    Ok(page)
}

/// Publishing, a row each.
fn publishing(page: &mut String, results: &[RunResult]) -> Result<()> {
    let rows = results.iter().filter_map(|result| match &result.outcome {
        Outcome::Published(published) => Some((result, cells(published))),
        _ => None,
    });
    let mut is_first = true;
    for (result, cells) in rows {
        if std::mem::take(&mut is_first) {
            writeln!(
                page,
                "| work | message | payload | written | for a byte | of it anew | of it checkpoints | acks/s | p50 | p99 | anew meanwhile | settled after | on disk | files |\n\
                 |---|---|---|---|---|---|---|---|---|---|---|---|---|---|"
            )?;
        }
        writeln!(
            page,
            "| {} | {} B | {cells} |",
            result.case.name(),
            result.size
        )?;
    }
    Ok(())
}

fn cells(published: &Published) -> String {
    let counts = &published.counts;
    [
        space(published.payload_bytes),
        space(counts.written),
        digits(for_a_byte(counts.written, published.payload_bytes)),
        space(counts.rewritten),
        space(counts.checkpoints),
        count(published.acks_per_second),
        latency(published.ack_us.p50),
        latency(published.ack_us.p99),
        space(published.rewritten_meanwhile),
        settled(published.settled),
        space(published.files.disk_bytes),
        published.files.count.to_string(),
    ]
    .join(" | ")
}

/// Merging, a row each.
fn merging(page: &mut String, results: &[RunResult]) -> Result<()> {
    let rows = results.iter().filter_map(|result| match &result.outcome {
        Outcome::Merged(merged) => Some((result.size, merged)),
        _ => None,
    });
    let mut is_first = true;
    for (size, merged) in rows {
        if std::mem::take(&mut is_first) {
            writeln!(
                page,
                "\n*Merge*: what the servers that were killed had written, each from its start on; then, while nothing is published, \
                 what merging wrote for each byte of payload in all of these segments. The last ones wait for a checkpoint.\n\n\
                 | message | kills | payload | written until then | for a byte | segments | then written | of it anew | for a byte | settled after | segments | on disk | files |\n\
                 |---|---|---|---|---|---|---|---|---|---|---|---|---|"
            )?;
        }
        let for_a_byte = |count: u64| digits(for_a_byte(count, merged.payload_bytes));
        let cells = [
            merged.kills.to_string(),
            space(merged.payload_bytes),
            space(merged.killed.written),
            for_a_byte(merged.killed.written),
            merged.segments_before.to_string(),
            space(merged.merging.written),
            space(merged.merging.rewritten),
            for_a_byte(merged.merging.rewritten),
            settled(merged.settled),
            merged.segments_after.to_string(),
            space(merged.files.disk_bytes),
            merged.files.count.to_string(),
        ];
        writeln!(page, "| {size} B | {} |", cells.join(" | "))?;
    }
    Ok(())
}

/// What went wrong.
fn failures(page: &mut String, results: &[RunResult]) -> Result<()> {
    for result in results {
        if let Outcome::Failed(why) = &result.outcome {
            writeln!(
                page,
                "\n- *{}* of {} B **failed**: {why}",
                result.case.name(),
                result.size
            )?;
        }
    }
    Ok(())
}

fn space(count: u64) -> String {
    bytes(float(count))
}

fn settled(settled: Settled) -> String {
    match settled.is_still {
        true => format!("{} s", digits(settled.seconds)),
        false => format!("not in {:.0} s", SETTLE_MAX.as_secs_f64()),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use super::super::counts::Counts;
    use super::super::results::Merged;
    use super::*;
    use crate::starts::Files;
    use crate::stats::Quantiles;

    const FILES: Files = Files {
        count: 30,
        disk_bytes: 1 << 30,
    };

    fn published(case: Case, is_still: bool) -> RunResult {
        RunResult {
            case,
            size: 1024,
            outcome: Outcome::Published(Box::new(Published {
                payload_bytes: 1 << 30,
                acks_per_second: 400_000.0,
                ack_us: Quantiles {
                    p50: 900.0,
                    p99: 5000.0,
                    p999: 9000.0,
                },
                rewritten_meanwhile: 1 << 20,
                counts: Counts {
                    written: 9 << 28,
                    rewritten: 3 << 20,
                    checkpoints: 2 << 10,
                    ..Counts::default()
                },
                settled: Settled {
                    seconds: 1.25,
                    is_still,
                },
                files: FILES,
                verified: 1 << 20,
            })),
        }
    }

    fn merged() -> RunResult {
        let counts = |written: u64, rewritten| Counts {
            written,
            rewritten,
            ..Counts::default()
        };
        RunResult {
            case: Case::Merge,
            size: 128,
            outcome: Outcome::Merged(Box::new(Merged {
                kills: 40,
                payload_bytes: 40 << 20,
                killed: counts(100 << 20, 0),
                segments_before: 81,
                merging: counts(70 << 20, 60 << 20),
                settled: Settled {
                    seconds: 0.5,
                    is_still: true,
                },
                segments_after: 9,
                files: FILES,
                verified: 7,
            })),
        }
    }

    fn options() -> Options {
        use clap::Parser;
        let cli = crate::args::Cli::parse_from(["broker-peers", "amplification"]);
        match cli.command {
            crate::args::Command::Amplification(options) => options,
            other => unreachable!("{other:?} is not what was asked for"),
        }
    }

    #[test]
    fn every_run_has_a_row_and_columns_fit() {
        let results = [
            published(Case::Publish, true),
            published(Case::KeepBytes, false),
            merged(),
            RunResult {
                case: Case::KeepCount,
                size: 128,
                outcome: Outcome::Failed("why not".to_owned()),
            },
        ];
        let page = page(&Setting::made_up(), &options(), &results).unwrap();
        for words in [
            "- *merge*: one room, everything is kept; 1.00 MiB are published before each of 40 kills",
            "- *keep-bytes*: one room, and the store keeps 512 MiB",
            "| publish | 1024 B | 1.00 GiB | 2.25 GiB | 2.25 | 3.00 MiB | 2.00 KiB | 400 k | 900 us | 5.00 ms | 1.00 MiB | 1.25 s | 1.00 GiB | 30 |",
            "| 1.00 MiB | not in 240 s | 1.00 GiB | 30 |",
            "| 128 B | 40 | 40.0 MiB | 100 MiB | 2.50 | 81 | 70.0 MiB | 60.0 MiB | 1.50 | 0.50 s | 9 | 1.00 GiB | 30 |",
            "- *keep-count* of 128 B **failed**: why not",
        ] {
            assert!(page.contains(words), "{words}\nis missing in\n{page}");
        }
        assert!(
            !page.contains("*rooms*"),
            "what was not measured is not there"
        );
        let mut width = None;
        for line in page.lines() {
            let columns = line.starts_with('|').then(|| line.matches('|').count());
            assert!(
                columns.is_none() || width.is_none() || columns == width,
                "{line}"
            );
            width = columns;
        }
        let lines: Vec<String> = results.iter().map(progress_line).collect();
        assert!(
            lines.concat().contains("2.25 x") && lines.concat().contains("81 segments became 9"),
            "{lines:?}"
        );
        let json = serde_json::to_string(&results).unwrap();
        assert_eq!(
            serde_json::from_str::<Vec<RunResult>>(&json).unwrap(),
            results
        );
    }
}
