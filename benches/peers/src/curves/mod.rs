//! How our own costs grow: with history, rooms, subscribers, slow readers and idle connections. Written to a page of its own,
//! `docs/growth.md`.
//!
//! - [`curve`]: what grows, how far, what is measured, and what of that has to stay the same.
//! - [`site`]: one server with what is known to be stored in it; each point has a new one.
//! - [`history`], [`rooms`], [`subscribers`], [`slow_readers`], [`idle`]: one point of each curve.
//! - [`results`]: what is kept; [`page`]: what is written, and [`words`] what it says beside figures.

mod curve;
mod history;
mod idle;
mod page;
mod results;
mod rooms;
mod site;
mod slow_readers;
mod subscribers;
mod words;

use std::time::Duration;

use anyhow::{Result, bail};
use rustix::process::{Resource, getrlimit};

pub(crate) use self::curve::Curve;
use self::results::{Line, Point, PointResult, Session, Values};
pub(crate) use self::site::{Lab, Site};
use crate::alone::Alone;
use crate::args::Curves as Options;
use crate::gauge::limits::Limits;
use crate::gauge::machine::Machine;
use crate::page::limits_line;
use crate::peer::Tool;
use crate::results::Results;
use crate::run::{raise_file_limit, session_name};
use crate::say;
use crate::tools::target_dir;

/// Runs the command.
pub(crate) fn run(options: &Options) -> Result<()> {
    let path = options
        .results
        .clone()
        .unwrap_or_else(|| target_dir().join("peers/growth.jsonl"));
    if options.report {
        return page::write(&path, &options.out);
    }
    let points = chosen(options);
    if points.is_empty() {
        bail!("no curve has a point there");
    }
    let alone = Alone::new(&options.place)?;
    raise_file_limit(files(&points));
    let lab = alone.lab(Duration::from_secs_f64(options.seconds));
    let results = Results::open(&path, options.append)?;
    let failures = measure_all(&lab, options, &points, results)?;
    page::write(&path, &options.out)?;
    say(&format!(
        "results in {}, page in {}",
        path.display(),
        options.out.display()
    ));
    if failures > 0 {
        bail!("{failures} points failed");
    }
    Ok(())
}

/// Every point that was asked for.
fn chosen(options: &Options) -> Vec<(Curve, u64)> {
    let curves = Curve::ALL
        .into_iter()
        .filter(|curve| options.only.is_empty() || options.only.contains(curve));
    curves
        .flat_map(|curve| {
            curve
                .points(options.least, options.most)
                .into_iter()
                .map(move |at| (curve, at))
        })
        .collect()
}

/// The open files of the point that needs most.
fn files(points: &[(Curve, u64)]) -> u64 {
    let each = points.iter().map(|(curve, at)| curve.files(*at));
    each.max().unwrap_or(0)
}

/// Measures everything; tells how many points failed.
fn measure_all(
    lab: &Lab<'_>,
    options: &Options,
    points: &[(Curve, u64)],
    mut results: Results,
) -> Result<usize> {
    let session = session_name();
    results.add(&Line::Session(Session {
        session,
        machine: Machine::here(lab.base),
        seconds: options.seconds,
        version: lab.tools.version(Tool::Brokerd).unwrap_or_default(),
    }))?;
    let mut failures = 0;
    for round in 1..=options.rounds {
        let limits = Limits::measure(lab.base)?;
        say(&format!("round {round}: {}", limits_line(&limits)));
        results.add(&Line::Limits {
            session,
            round,
            limits,
        })?;
        for (number, &(curve, at)) in points.iter().enumerate() {
            let result = one(lab, curve, at);
            say(&format!(
                "[{round}/{} {}/{}] {:<12} {at:>8}  {}",
                options.rounds,
                number + 1,
                points.len(),
                curve.name(),
                page::progress_line(curve, &result),
            ));
            failures += usize::from(matches!(result, PointResult::Failed(_)));
            results.add(&Line::Point(Point {
                session,
                round,
                curve: curve.name().to_owned(),
                at,
                result,
            }))?;
        }
    }
    Ok(failures)
}

/// Measures a point, if it fits.
fn one(lab: &Lab<'_>, curve: Curve, at: u64) -> PointResult {
    let (needed, allowed) = (curve.files(at), getrlimit(Resource::Nofile).current);
    if let Some(allowed) = allowed.filter(|allowed| *allowed < needed) {
        let words = format!("it needs {needed} open files, and {allowed} are allowed (ulimit -n)");
        return PointResult::Skipped(words);
    }
    match measure(lab, curve, at) {
        Ok(values) => PointResult::Measured(values),
        Err(error) => PointResult::Failed(format!("{error:#}")),
    }
}

fn measure(lab: &Lab<'_>, curve: Curve, at: u64) -> Result<Values> {
    match curve {
        Curve::History => history::measure(lab, at),
        Curve::Rooms => rooms::measure(lab, at),
        Curve::Subscribers => subscribers::measure(lab, at),
        Curve::SlowReaders => slow_readers::measure(lab, at),
        Curve::Idle => idle::measure(lab, at),
    }
}
