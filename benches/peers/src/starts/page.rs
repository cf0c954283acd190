//! The table of the starts, in Markdown.

use std::fmt::Write as _;

use anyhow::Result;

use super::goals::{self, Goal};
use super::results::{Cache, Ended, Measured, Outcome, StoreResult};
use super::store::Content;
use crate::page::Setting;
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
pub(super) fn page(setting: &Setting, results: &[StoreResult]) -> Result<String> {
    let mut page = String::new();
    writeln!(page, "## How long a start takes\n")?;
    writeln!(
        page,
        "From the start of the process to the first acknowledgement of a message, synced; median [least-most]. \
         *Clean*: the server had been asked to end; *killed*: with SIGKILL, right after more was published. *Cold*: the \
         store's files were put out of the system's memory before. *Listens* and *welcomes* are of the clean, warm starts. \
         Goals are for clean, warm starts and for the memory of a server that was started; what misses one is **bold**. \
         Written by `broker-peers starts` ([how to run it](../benches/peers/README.md)).\n"
    )?;
    setting.write(&mut page)?;
    table(&mut page, results)?;
    rooms(&mut page, results)?;
    cold_rooms(&mut page, results)?;
    Ok(page)
}

/// The stores that were measured.
fn measured(results: &[StoreResult]) -> impl Iterator<Item = (Content, &Measured)> {
    results.iter().filter_map(|result| match &result.outcome {
        Outcome::Measured(measured) => Some((result.content, &**measured)),
        Outcome::Failed(_) => None,
    })
}

fn table(page: &mut String, results: &[StoreResult]) -> Result<()> {
    writeln!(
        page,
        "| stored | on disk | files | goal | clean | clean, cold | killed | killed, cold | listens | welcomes | RSS, filled | goal | RSS, started |"
    )?;
    writeln!(
        page,
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|"
    )?;
    for result in results {
        let name = name(result.content);
        match &result.outcome {
            Outcome::Failed(why) => writeln!(page, "| {name} | failed: {why} |||||||||||| ")?,
            Outcome::Measured(measured) => {
                let cells = cells(measured, goals::of(result.content));
                writeln!(page, "| {name} | {cells} |")?;
            }
        }
    }
    Ok(())
}

/// Bold where more than the goal came out.
fn judged(text: String, value: Option<f64>, goal: Option<f64>) -> String {
    match value.zip(goal) {
        Some((value, goal)) if value > goal => format!("**{text}**"),
        _ => text,
    }
}

fn cells(measured: &Measured, goal: Option<Goal>) -> String {
    let start = |ended, cache| millis(measured.acks_ms(ended, cache));
    let warm = |time: fn(&super::results::Start) -> f64| {
        millis(measured.spread(Ended::Clean, Cache::Warm, time))
    };
    let clean = measured.acks_ms(Ended::Clean, Cache::Warm);
    let acks_goal = goal.map(|goal| goal.acks_ms);
    let rss_goal = goal.and_then(|goal| goal.rss);
    let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    [
        bytes(float(measured.files.disk_bytes)),
        measured.files.count.to_string(),
        or_none(acks_goal.map(|goal| latency(goal * 1e3))),
        judged(millis(clean), clean.map(|clean| clean.median), acks_goal),
        start(Ended::Clean, Cache::Cold),
        start(Ended::Killed, Cache::Warm),
        start(Ended::Killed, Cache::Cold),
        warm(|start| start.listens_ms),
        warm(|start| start.welcomes_ms),
        bytes(measured.rss_filled),
        or_none(rss_goal.map(bytes)),
        judged(
            bytes(measured.rss_started),
            Some(measured.rss_started),
            rss_goal,
        ),
    ]
    .join(" | ")
}

/// What rooms cost beside the time.
fn rooms(page: &mut String, results: &[StoreResult]) -> Result<()> {
    let of_rooms = measured(results).filter_map(|(content, measured)| match content {
        Content::Rooms { count } => Some((count, measured)),
        Content::Messages { .. } => None,
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

/// What a room costs that nothing was said in for long.
fn cold_rooms(page: &mut String, results: &[StoreResult]) -> Result<()> {
    let of_room = measured(results)
        .filter_map(|(content, measured)| Some((content, measured.cold_room.as_ref()?)));
    let mut is_first = true;
    for (content, room) in of_room {
        if std::mem::take(&mut is_first) {
            writeln!(
                page,
                "\nThe newest 10 of 50 messages in a room that got them before all that is stored, from the call on an open \
                 connection to the last of them; median [least-most]. *First*: once after each clean, cold start. *Again*: after \
                 the last of these. *After others*: each time after as many as 512 other places of the store were read, which have, where \
                 it is large, more indexes than are kept in memory. The goal is for *again* and *after others*.\n\n\
                 | behind it | first | goal | again | after others |\n|---|---|---|---|---|"
            )?;
        }
        let again = |values: &[f64]| {
            let values = Spread::of(values.iter().copied());
            let median = values.map(|values| values.median);
            judged(millis(values), median, Some(goals::COLD_ROOM_MS))
        };
        writeln!(
            page,
            "| {} | {} | {} | {} | {} |",
            name(content),
            millis(Spread::of(room.first_ms.iter().copied())),
            latency(goals::COLD_ROOM_MS * 1e3),
            again(&room.again_ms),
            again(&room.after_others_ms),
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use super::super::files::Files;
    use super::super::results::{ColdRoom, Listing, Start};
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
                cold_room: matches!(content, Content::Messages { .. }).then(|| ColdRoom {
                    first_ms: vec![9.0],
                    again_ms: vec![0.5, 1.5, 1.0],
                    after_others_ms: vec![6.0, 2.0, 7.0],
                }),
                verified: 1001,
            })),
        }
    }

    #[test]
    fn what_misses_its_goal_is_bold() {
        let text = || "x".to_owned();
        assert_eq!(judged(text(), Some(2.0), Some(1.0)), "**x**");
        assert_eq!(judged(text(), Some(1.0), Some(1.0)), "x");
        assert_eq!(judged(text(), None, Some(1.0)), "x");
        assert_eq!(judged(text(), Some(2.0), None), "x");
        let goal = |count| goals::of(Content::Rooms { count }).map(|goal| goal.acks_ms);
        assert_eq!(
            [100_000, 1_000_000, 2_000_000].map(goal),
            [Some(25.0), Some(500.0), None]
        );
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
        let page = page(&Setting::made_up(), &results).unwrap();
        for words in [
            "- brokerd 9, 2026-11-21",
            "| 10.0 k messages of 128 B | 3.00 MiB | 3 | 20.0 ms | 4.00 ms [3.00 ms-5.00 ms] | 7.00 ms | 11.0 ms | - |",
            "| 1.00 k | 1.95 KiB | 1000 B | 1.50 ms | 1 | 500 us | 700 us |",
            "| 10.0 k messages of 128 B | 9.00 ms | 5.00 ms | 1.00 ms [500 us-1.50 ms] | **6.00 ms [2.00 ms-7.00 ms]** |",
            "| 2.86 MiB | 30.0 MiB | 1.91 MiB |",
        ] {
            assert!(page.contains(words), "{words}\nis missing in\n{page}");
        }
        let head = page.lines().find(|line| line.starts_with("| stored"));
        let columns = head.unwrap().matches('|').count();
        let rows = page
            .lines()
            .filter(|line| line.contains("messages of 128 B |") || line.contains("failed:"));
        for row in rows.take(2) {
            assert_eq!(row.matches('|').count(), columns, "{row}");
        }
        assert!(page.contains("failed: why not"));
        let line = serde_json::to_string(&results).unwrap();
        assert_eq!(
            serde_json::from_str::<Vec<StoreResult>>(&line).unwrap(),
            results
        );
    }
}
