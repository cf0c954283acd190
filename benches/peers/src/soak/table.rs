//! How a run is told: a row for each sample as it comes, the quarters at the end.

use std::fmt::Write as _;

use anyhow::Result;
use serde::Serialize;

use super::sample::{Flatness, Quarter, Sample};
use crate::page::numbers::{bytes, count, digits, latency};
use crate::stats::float;

/// What came out after the server was killed at the end.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Again {
    /// Messages acknowledged, all stored and seen.
    pub(super) acked: u64,
    /// From the start of the new server to its first acknowledgement.
    pub(super) killed_ms: f64,
    /// Messages read again.
    pub(super) read: u64,
}

/// What is told at the end.
#[derive(Debug, Serialize)]
struct End<'a> {
    #[serde(flatten)]
    again: &'a Again,
    flatness: Option<Flatness>,
}

/// The head of the samples' table.
pub(super) fn head(json: bool) -> String {
    if json {
        return String::new();
    }
    "| time | acked/s | seen/s | ack p50 | ack p99 | server cpu | RSS | files | disk | trimmed |\n\
     |---|---|---|---|---|---|---|---|---|---|\n"
        .to_owned()
}

/// One sample.
pub(super) fn row(json: bool, sample: &Sample) -> Result<String> {
    if json {
        return Ok(serde_json::to_string(sample)? + "\n");
    }
    Ok(format!(
        "| {:.0} s | {} | {} | {} | {} | {:.0} % | {} | {} | {} | {} |\n",
        sample.seconds,
        count(sample.acked_per_second),
        count(sample.seen_per_second),
        latency(sample.ack_p50_us),
        latency(sample.ack_p99_us),
        sample.cpu * 100.0,
        bytes(sample.rss),
        sample.files,
        bytes(float(sample.disk_bytes)),
        sample.trimmed,
    ))
}

/// The end: the quarters and how the last one compares with the first.
pub(super) fn end(json: bool, samples: &[Sample], again: &Again) -> Result<String> {
    let flatness = Flatness::of(samples);
    if json {
        return Ok(serde_json::to_string(&End { again, flatness })? + "\n");
    }
    let mut text = String::new();
    if let Some(flatness) = flatness {
        writeln!(
            text,
            "\n| quarter | acked/s | ack p50 | ack p99 | server cpu | RSS | files | disk |\n|---|---|---|---|---|---|---|---|"
        )?;
        for (number, quarter) in (1..).zip(&flatness.quarters) {
            writeln!(text, "| {number} | {} |", cells(quarter))?;
        }
        let growth = &flatness.growth;
        let times = [
            growth.acked_per_second,
            growth.ack_p50_us,
            growth.ack_p99_us,
            growth.cpu,
            growth.rss,
            growth.files,
            growth.disk_bytes,
        ];
        writeln!(
            text,
            "| *last : first* | {} |",
            times.map(digits).join(" | ")
        )?;
    }
    writeln!(
        text,
        "\n{} acknowledged = stored = seen in order by every subscriber, or told as trimmed. Killed at the end: {} to the first \
         acknowledgement; {} of the newest messages read again in order.",
        again.acked,
        latency(again.killed_ms * 1e3),
        again.read
    )?;
    Ok(text)
}

fn cells(quarter: &Quarter) -> String {
    [
        count(quarter.acked_per_second),
        latency(quarter.ack_p50_us),
        latency(quarter.ack_p99_us),
        format!("{:.0} %", quarter.cpu * 100.0),
        bytes(quarter.rss),
        digits(quarter.files),
        bytes(quarter.disk_bytes),
    ]
    .join(" | ")
}

#[cfg(test)]
mod tests {
    #![expect(
        clippy::unwrap_used,
        clippy::indexing_slicing,
        reason = "a test may panic"
    )]

    use super::super::sample::sample;
    use super::*;

    #[test]
    fn rows_and_the_end_are_told_in_words_and_in_json() {
        let samples: Vec<Sample> = (1..=8).map(sample).collect();
        let again = Again {
            acked: 7,
            killed_ms: 12.0,
            read: 5,
        };
        let width = |text: &str| text.lines().next().unwrap().matches('|').count();
        assert_eq!(
            width(&head(false)),
            width(&row(false, &samples[0]).unwrap())
        );
        let text = end(false, &samples, &again).unwrap();
        assert!(
            text.contains("| *last : first* | 5.60") && text.contains("12.0 ms"),
            "{text}"
        );
        let json: serde_json::Value =
            serde_json::from_str(&end(true, &samples, &again).unwrap()).unwrap();
        assert_eq!(json["acked"], 7);
        assert_eq!(json["flatness"]["quarters"].as_array().unwrap().len(), 4);
        assert!(
            end(false, &samples[..2], &again)
                .unwrap()
                .contains("7 acknowledged")
        );
    }
}
