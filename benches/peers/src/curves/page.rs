//! The page of the curves: a table each, and whether what has to stay the same does.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Result, bail};

use super::curve::{Column, Curve, FLAT_MAX, Rule, Unit};
use super::results::{Line, Point, PointResult, Session};
use super::words::{INTRODUCTION, bends, method, thing, title};
use crate::gauge::limits::Limits;
use crate::page::numbers::{count, digits, latency, spread};
use crate::page::{limits_line, machine_line, part};
use crate::stats::{Spread, float, ratio};
use crate::{amplification, results, starts};

/// The commands whose parts of the page stay.
const OTHERS: [&str; 2] = [starts::PART, amplification::PART];

/// All results of one file.
#[derive(Debug, Default)]
struct Data {
    sessions: Vec<Session>,
    limits: Vec<Limits>,
    points: Vec<Point>,
}

impl Data {
    fn of(lines: Vec<Line>) -> Self {
        let mut data = Self::default();
        for line in lines {
            match line {
                Line::Session(session) => data.sessions.push(session),
                Line::Limits { limits, .. } => data.limits.push(limits),
                Line::Point(point) => data.points.push(point),
            }
        }
        data
    }

    /// The points of a curve in this place, one for each round.
    fn points(&self, curve: Curve, at: u64) -> impl Iterator<Item = &Point> {
        let points = self.points.iter();
        points.filter(move |point| point.curve == curve.name() && point.at == at)
    }

    /// Where a curve was measured.
    fn places(&self, curve: Curve) -> Vec<u64> {
        let mut places: Vec<u64> = self
            .points
            .iter()
            .filter(|point| point.curve == curve.name())
            .map(|point| point.at)
            .collect();
        places.sort_unstable();
        places.dedup();
        places
    }

    /// The values of a column in a place, each with its round.
    fn values(&self, curve: Curve, at: u64, key: &str) -> Vec<((u64, u32), f64)> {
        let values = self.points(curve, at).filter_map(|point| {
            let PointResult::Measured(values) = &point.result else {
                return None;
            };
            Some(((point.session, point.round), values.get(key)?))
        });
        values.collect()
    }

    /// How many times the last row costs what the first one does that counts, in rounds that have both.
    fn growth(&self, curve: Curve, column: &Column) -> Option<Spread> {
        let Rule::Flat { from } = column.rule else {
            return None;
        };
        let mut rows = self
            .places(curve)
            .into_iter()
            .filter(|at| *at >= from)
            .map(|at| self.values(curve, at, column.key))
            .filter(|values| !values.is_empty());
        let first = rows.next()?;
        let last = rows.next_back()?;
        // Of a rate, less is more cost.
        ratio(&first, &last, column.unit == Unit::Rate)
    }
}

/// Writes the page of a file of results.
pub(super) fn write(results: &Path, out: &Path) -> Result<()> {
    part::put_around(out, &OTHERS, &page(results::read(results)?)?)
}

/// How a point ended, in a line.
pub(super) fn progress_line(curve: Curve, result: &PointResult) -> String {
    match result {
        PointResult::Measured(values) => {
            let texts = curve.columns().iter().filter_map(|column| {
                let value = values.get(column.key)?;
                Some(format!("{} {}", column.title, text(column.unit, value)))
            });
            let texts: Vec<String> = texts.collect();
            format!("{}; {}", texts.join(", "), values.verified)
        }
        PointResult::Skipped(why) => format!("SKIPPED: {why}"),
        PointResult::Failed(why) => format!("FAILED: {why}"),
    }
}

fn page(lines: Vec<Line>) -> Result<String> {
    let data = Data::of(lines);
    if data.sessions.is_empty() || data.points.is_empty() {
        bail!("there are no results");
    }
    let mut page = String::new();
    introduction(&mut page, &data)?;
    summary(&mut page, &data)?;
    for curve in Curve::ALL {
        if !data.places(curve).is_empty() {
            table(&mut page, &data, curve)?;
        }
    }
    writeln!(page, "## Runs\n")?;
    for session in &data.sessions {
        let points = data
            .points
            .iter()
            .filter(|point| point.session == session.session);
        let rounds = points.clone().map(|point| point.round).max().unwrap_or(0);
        writeln!(
            page,
            "- {}: {} points, {rounds} rounds, each load {} s after a quarter of that to warm up.",
            session.version,
            points.count(),
            session.seconds,
        )?;
    }
    Ok(page)
}

fn introduction(page: &mut String, data: &Data) -> Result<()> {
    writeln!(page, "{INTRODUCTION}")?;
    let mut machines: Vec<String> = Vec::new();
    for session in &data.sessions {
        let machine = machine_line(&session.machine);
        if !machines.contains(&machine) {
            writeln!(page, "- {machine}")?;
            machines.push(machine);
        }
    }
    for limits in &data.limits {
        writeln!(
            page,
            "- At the beginning of a round: {}.",
            limits_line(limits)
        )?;
    }
    writeln!(page)?;
    Ok(())
}

/// One line for each curve: what has to be flat and is, and what is not.
fn summary(page: &mut String, data: &Data) -> Result<()> {
    writeln!(
        page,
        "## In short\n\n| what grows | from | to | has to be flat and is | is not |\n|---|---|---|---|---|"
    )?;
    for curve in Curve::ALL {
        let places = data.places(curve);
        let (Some(first), Some(last)) = (places.first(), places.last()) else {
            continue;
        };
        let (mut flat, mut bent) = (Vec::new(), Vec::new());
        for column in curve.columns() {
            if let Some(growth) = data.growth(curve, column) {
                let words = format!("{} {}", column.title, digits(growth.median));
                if growth.median <= FLAT_MAX {
                    flat.push(words);
                } else {
                    bent.push(format!("**{words}**"));
                }
            }
        }
        let list = |words: &[String]| match words {
            [] => "-".to_owned(),
            words => words.join("; "),
        };
        writeln!(
            page,
            "| {} | {} | {} | {} | {} |",
            thing(curve),
            count(float(*first)),
            count(float(*last)),
            list(&flat),
            list(&bent),
        )?;
    }
    writeln!(page)?;
    Ok(())
}

/// The table of one curve.
fn table(page: &mut String, data: &Data, curve: Curve) -> Result<()> {
    let columns = curve.columns();
    writeln!(page, "## {}\n\n{}\n", title(curve), method(curve))?;
    let titles: Vec<&str> = columns.iter().map(|column| column.title).collect();
    writeln!(page, "| {} | {} |", thing(curve), titles.join(" | "))?;
    writeln!(page, "|---{}|", "|---".repeat(columns.len()))?;
    let mut notes = Vec::new();
    for at in data.places(curve) {
        let cells = columns.iter().map(|column| {
            let values = data.values(curve, at, column.key);
            let values = values.into_iter().map(|(_, value)| value);
            spread(Spread::of(values), |value| text(column.unit, value))
        });
        let cells: Vec<String> = cells.collect();
        writeln!(page, "| {at} | {} |", cells.join(" | "))?;
        for point in data.points(curve, at) {
            match &point.result {
                PointResult::Measured(_) => {}
                PointResult::Skipped(why) => notes.push(format!("{at}: skipped, {why}")),
                PointResult::Failed(why) => {
                    notes.push(format!("{at}: **failed** in round {}: {why}", point.round));
                }
            }
        }
    }
    let growths: Vec<String> = columns
        .iter()
        .map(|column| growth(data, curve, column))
        .collect();
    writeln!(page, "| *last : first* | {} |\n", growths.join(" | "))?;
    for note in notes {
        writeln!(page, "- {note}")?;
    }
    let verified = data
        .points
        .iter()
        .rev()
        .find_map(|point| match &point.result {
            PointResult::Measured(values) if point.curve == curve.name() => Some(&values.verified),
            _ => None,
        });
    if let Some(verified) = verified {
        writeln!(
            page,
            "Verified at every point; at the last one: {verified}."
        )?;
    }
    writeln!(page, "\n{}\n", bends(curve))?;
    Ok(())
}

/// The last cell of a column.
fn growth(data: &Data, curve: Curve, column: &Column) -> String {
    match (column.rule, data.growth(curve, column)) {
        (Rule::Free, _) => String::new(),
        (Rule::Flat { .. }, None) => "-".to_owned(),
        (Rule::Flat { from }, Some(growth)) => {
            let value = spread(Some(growth), digits);
            let since = match from {
                0 => String::new(),
                from => format!(", from {}", count(float(from))),
            };
            if growth.median <= FLAT_MAX {
                format!("{value}{since}")
            } else {
                format!("**{value} grows**{since}")
            }
        }
    }
}

/// A value with its unit.
fn text(unit: Unit, value: f64) -> String {
    match unit {
        Unit::Rate => format!("{}/s", count(value)),
        Unit::Micros => latency(value),
        Unit::Nanos => format!("{} ns", digits(value)),
        Unit::Millis => latency(value * 1e3),
        Unit::Bytes => bytes(value),
        Unit::Percent => format!("{} %", digits(value)),
    }
}

fn bytes(value: f64) -> String {
    match value.abs() {
        v if v >= f64::from(1 << 20) => format!("{} MiB", digits(value / f64::from(1 << 20))),
        v if v >= 1024.0 => format!("{} KiB", digits(value / 1024.0)),
        _ => format!("{value:.0} B"),
    }
}

#[cfg(test)]
mod tests;
