//! The page of results that were made up.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use super::*;
use crate::curves::results::Values;
use crate::gauge::machine::Machine;

fn session() -> Line {
    Line::Session(Session {
        session: 1,
        machine: Machine {
            processor: "Abacus".to_owned(),
            cores: 2,
            memory: 24 << 30,
            kernel: "6.1".to_owned(),
            system: "Debian".to_owned(),
            disk: "ext4 on vda".to_owned(),
        },
        seconds: 2.0,
        version: "brokerd 9".to_owned(),
    })
}

fn point(curve: Curve, at: u64, round: u32, result: PointResult) -> Line {
    Line::Point(Point {
        session: 1,
        round,
        curve: curve.name().to_owned(),
        at,
        result,
    })
}

fn measured(pairs: &[(&str, f64)]) -> PointResult {
    let mut values = Values {
        verified: "all of it".to_owned(),
        ..Values::default()
    };
    for (key, value) in pairs {
        values.put(key, *value);
    }
    PointResult::Measured(values)
}

#[test]
fn what_is_flat_and_what_grows_is_told() {
    let mut lines = vec![session()];
    for (round, pace) in [(1, 1.0), (2, 0.5), (3, 1.1)] {
        for (at, rate, cpu) in [
            (1, 800_000.0, 1.0),
            (10, 1.0, 99.0),
            (10_000, 400_000.0, 1.1),
        ] {
            let values = measured(&[("rate", rate * pace), ("cpu_us", cpu), ("rss", 9e6)]);
            lines.push(point(Curve::Idle, at, round, values));
        }
    }
    let page = page(lines).unwrap();
    for words in [
        // By pairs of a round, so the machine's pace is of no account; half the rate is twice the cost.
        "| *last : first* | - | - | **2.00 [2.00-2.00] grows** | 1.10 [1.10-1.10] |  |  | - |",
        "| idle connections | 1.00 | 10.0 k | its server cpu 1.10 | **publish 64x16 2.00** |",
        "| 10000 | - | - | 400 k/s [200 k/s-440 k/s] | 1.10 us [1.10 us-1.10 us] | - | 8.58 MiB [8.58 MiB-8.58 MiB] | - |",
        "Verified at every point; at the last one: all of it.",
        "Machine: Abacus, 2 threads",
        "- brokerd 9: 9 points, 3 rounds, each load 2 s",
    ] {
        assert!(page.contains(words), "{words}\nis missing in\n{page}");
    }
    assert!(
        !page.contains("## History"),
        "what was not measured is not there"
    );
}

#[test]
fn a_column_that_is_flat_from_a_point_on_is_compared_from_there() {
    let rss = |at, bytes| point(Curve::History, at, 1, measured(&[("rss", bytes)]));
    let page = page(vec![
        session(),
        rss(10_000, 1e6),
        rss(1_000_000, 8e6),
        rss(10_000_000, 8.8e6),
    ]);
    let page = page.unwrap();
    assert!(page.contains("| 1.10, from 1.00 M |"), "{page}");
}

#[test]
fn points_that_fail_or_do_not_fit_are_told() {
    let page = page(vec![
        session(),
        point(Curve::Idle, 1, 1, measured(&[("one_p50", 150.0)])),
        point(
            Curve::Idle,
            10,
            1,
            PointResult::Failed("9 of 10 came".to_owned()),
        ),
        point(
            Curve::Idle,
            10_000,
            1,
            PointResult::Skipped("too many files".to_owned()),
        ),
    ]);
    let page = page.unwrap();
    for words in [
        "| 10 | - | - |",
        "- 10: **failed** in round 1: 9 of 10 came",
        "- 10000: skipped, too many files",
    ] {
        assert!(page.contains(words), "{words}\nis missing in\n{page}");
    }
}

#[test]
fn there_is_no_page_of_nothing() {
    assert!(page(Vec::new()).is_err());
    assert!(page(vec![session()]).is_err());
}

#[test]
fn units_are_short() {
    let texts = [
        (Unit::Rate, 1.2e6, "1.20 M/s"),
        (Unit::Micros, 150.0, "150 us"),
        (Unit::Nanos, 85.0, "85.0 ns"),
        (Unit::Millis, 12.0, "12.0 ms"),
        (Unit::Bytes, 100.0, "100 B"),
        (Unit::Bytes, 2048.0, "2.00 KiB"),
        (Unit::Bytes, -4096.0, "-4.00 KiB"),
        (Unit::Percent, 0.5, "0.50 %"),
    ];
    for (unit, value, expected) in texts {
        assert_eq!(text(unit, value), expected);
    }
}
