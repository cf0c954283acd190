//! `broker admin verify`: reads every byte of a store's log and checks it.

use std::io::{self, IsTerminal, Write};
use std::ops::ControlFlow;
use std::path::Path;

use broker_core::log::damage::{DamagePart, Place};
use broker_core::log::inspect::{Finding, FindingClass, Inspector, Seen};
use broker_core::log::position::LogPosition;
use broker_core::log::storage::FileStorage;

use super::Site;
use super::lines::{Object, finding_json, finding_line};
use crate::escape;
use crate::exit::{Exit, Failure, chain};
use crate::output::{self, OutputError, Stdout, put};

/// So many bytes are read between two lines of progress.
const PROGRESS_BYTES: u64 = 16 << 20;

/// What was counted.
#[derive(Debug, Default)]
struct Counts {
    batches: u64,
    records: u64,
    messages: u64,
    bytes: u64,
    /// Bytes of whole batches behind what is proven durable.
    tail: u64,
    damaged: u64,
    /// Findings because of which a broker would not open the store, and that are no damage.
    refused: u64,
}

/// What the walk prints, counts and stops at.
struct Report {
    out: Stdout,
    json: bool,
    counts: Counts,
    closed: Option<OutputError>,
}

/// Runs the command.
pub(super) fn run(dir: &Path, json: bool) -> Result<(), Failure> {
    let site = Site::open(dir)?;
    let mut report = Report {
        out: output::stdout(),
        json,
        counts: Counts::default(),
        closed: None,
    };
    if !json {
        report.served(&site);
    }
    let mut log = site.inspect()?;
    let early = site.identity.as_ref().map(identity);
    let early = early.into_iter().chain(log.findings().iter().cloned());
    for finding in early.collect::<Vec<_>>() {
        let _ = report.finding(&finding);
    }
    report.walk(&mut log);
    if report.closed.is_none()
        && let Some(finding) = log.broken_checkpoint()
    {
        let _ = report.finding(&finding);
    }
    report.summary(&site, &log);
    report.end()
}

/// A file `store` that cannot be used.
fn identity(error: &broker_core::dir::DirError) -> Finding {
    use broker_core::dir::DirError;
    let newer = matches!(
        error,
        DirError::NewerFormat { .. } | DirError::NewerFeatureLevel { .. }
    );
    Finding {
        class: if newer {
            FindingClass::Newer
        } else {
            FindingClass::Damaged
        },
        place: Place {
            file: "store".to_owned(),
            offset: 0,
            from: LogPosition::START,
            upto: LogPosition::START,
            part: DamagePart::Identity,
            room: None,
        },
        detail: Some(chain(error)),
    }
}

impl Report {
    fn served(&mut self, site: &Site) {
        let out = self.out.buffer();
        let dir = site.dir.display().to_string();
        escape::for_field(dir.as_bytes(), out);
        let by: Vec<String> = site.keepers.iter().map(ToString::to_string).collect();
        if by.is_empty() {
            out.extend_from_slice(b": nobody serves this store\n");
        } else {
            out.extend_from_slice(b": served by ");
            escape::for_field(by.join(", ").as_bytes(), out);
            out.extend_from_slice(b"; what is durable now is checked\n");
        }
    }

    fn walk(&mut self, log: &mut Inspector<'_, FileStorage>) {
        let total: u64 = log.segments().iter().map(data_bytes).sum();
        let mut progress = Progress::new(total);
        for segment in 0..log.segments().len() {
            let flow = log.walk(segment, &mut |seen| {
                let flow = self.seen(&seen);
                progress.tell(self.counts.bytes);
                flow
            });
            if flow.is_break() {
                break;
            }
        }
        progress.clear();
    }

    fn seen(&mut self, seen: &Seen<'_>) -> ControlFlow<()> {
        match seen {
            Seen::Batch(batch) => {
                let bytes = u64::from(batch.length);
                if !batch.kind.is_mark() {
                    self.counts.batches += 1;
                    self.counts.bytes += bytes;
                    self.counts.tail += if batch.is_tail { bytes } else { 0 };
                }
            }
            Seen::Record(record) => {
                self.counts.records += 1;
                self.counts.messages += u64::from(!record.room.is_none());
            }
            Seen::Finding(finding) => return self.finding(finding),
            _ => {}
        }
        ControlFlow::Continue(())
    }

    fn finding(&mut self, finding: &Finding) -> ControlFlow<()> {
        match finding.class {
            FindingClass::Damaged => self.counts.damaged += 1,
            FindingClass::Newer | FindingClass::Misplaced => self.counts.refused += 1,
            _ => {}
        }
        if self.json {
            finding_json(finding, self.out.buffer());
        } else {
            finding_line(finding, self.out.buffer());
        }
        match self.out.settle() {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                self.closed = Some(error);
                ControlFlow::Break(())
            }
        }
    }

    fn summary(&mut self, site: &Site, log: &Inspector<'_, FileStorage>) {
        let counts = &self.counts;
        let segments = log.segments().len() as u64;
        if self.json {
            let mut line = Object::new(self.out.buffer());
            line.flag("clean", counts.damaged == 0)
                .number("damaged", counts.damaged)
                .number("not_openable", counts.refused)
                .number("segments", segments)
                .number("batches", counts.batches)
                .number("records", counts.records)
                .number("messages", counts.messages)
                .number("bytes", counts.bytes)
                .number("tail_bytes", counts.tail)
                .place("durable", log.durable());
            match log.checkpoint() {
                Some(at) => line.place("checkpoint", at),
                None => line.null("checkpoint"),
            };
            let keepers = site.keepers.iter().map(|keeper| u64::from(keeper.pid));
            line.numbers("served_by", keepers);
            line.end();
            return;
        }
        put(
            self.out.buffer(),
            format_args!(
                "segments {segments}, batches {}, records {}, messages among them {}, bytes read {}; durable up to {}\n",
                counts.batches,
                counts.records,
                counts.messages,
                counts.bytes,
                log.durable()
            ),
        );
        let verdict = match (counts.damaged, counts.refused) {
            (0, 0) => "no damage".to_owned(),
            (0, _) => "no damage, but a broker of this version does not open this store".to_owned(),
            (1, _) => "1 damaged place".to_owned(),
            (n, _) => format!("{n} damaged places"),
        };
        put(self.out.buffer(), format_args!("{verdict}\n"));
    }

    fn end(mut self) -> Result<(), Failure> {
        let failed = self.closed.take().or(self.out.flush().err());
        match failed {
            // Whoever closes the pipe still wants to know.
            None | Some(OutputError::Closed) => {}
            Some(error) => return Err(error.into()),
        }
        match (self.counts.damaged, self.counts.refused) {
            (0, 0) => Ok(()),
            (0, _) => Err(Failure::quiet(Exit::Unreachable)),
            _ => Err(Failure::quiet(Exit::Protocol)),
        }
    }
}

fn data_bytes(seen: &broker_core::log::inspect::SegmentSeen) -> u64 {
    let base = seen.header.as_ref().map(|header| header.base);
    base.map_or(0, |base| seen.end.since(base))
}

/// Says on a terminal how far it is.
struct Progress {
    total: u64,
    next: u64,
    is_shown: bool,
}

impl Progress {
    fn new(total: u64) -> Self {
        let wanted = io::stderr().is_terminal();
        Self {
            total,
            next: if wanted { PROGRESS_BYTES } else { u64::MAX },
            is_shown: false,
        }
    }

    fn tell(&mut self, done: u64) {
        if done < self.next {
            return;
        }
        self.next = done.saturating_add(PROGRESS_BYTES);
        self.is_shown = true;
        let percent = (u128::from(done) * 100)
            .checked_div(u128::from(self.total))
            .unwrap_or(100)
            .min(100);
        let mib = done >> 20;
        // Nobody is left to be told when standard error is closed.
        let _ = write!(io::stderr().lock(), "\r{percent:3}%  {mib} MiB checked");
    }

    fn clear(&self) {
        if self.is_shown {
            let _ = write!(io::stderr().lock(), "\r\x1b[K");
        }
    }
}
