//! `broker admin log dump`: what lies in a log, a line for each batch and record.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use broker_core::log::batch::BatchKind;
use broker_core::log::inspect::{BatchSeen, Field, RecordSeen, Seen, SegmentSeen, kind_name};
use broker_core::log::segment::SegmentName;

use super::lines::{Object, finding_json, finding_words};
use super::{Site, directory};
use crate::args::DumpArgs;
use crate::config::Target;
use crate::escape;
use crate::exit::{Exit, Failure};
use crate::output::{self, OutputError, Stdout, Text, put};
use crate::time;

/// How the lines are written.
#[derive(Debug, Clone, Copy)]
struct Style {
    json: bool,
    payload: bool,
}

/// Runs the command.
pub(super) fn run(args: &DumpArgs, target: &Target) -> Result<(), Failure> {
    let (dir, only) = place(args.path.as_deref(), target)?;
    let site = Site::open(&dir)?;
    let mut log = site.inspect()?;
    let style = Style {
        json: args.json,
        payload: args.payload,
    };
    let mut out = output::stdout();
    let is_wanted = |name: SegmentName| only.is_none_or(|only| only == name);
    let wanted: Vec<usize> = (0..)
        .zip(log.segments())
        .filter(|(_, seen)| is_wanted(seen.name))
        .map(|(at, _)| at)
        .collect();
    for finding in log.findings() {
        let is_of = |name: SegmentName| {
            name.file() == finding.place.file || name.footer() == finding.place.file
        };
        if only.is_none_or(is_of) {
            style.finding(finding, out.buffer());
        }
    }
    for at in wanted {
        if let Some(seen) = log.segments().get(at) {
            style.segment(seen, out.buffer());
        }
        let mut failed: Option<OutputError> = None;
        let _ended = log.walk(at, &mut |seen| match style.seen(&seen, &mut out) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                failed = Some(error);
                ControlFlow::Break(())
            }
        });
        if let Some(error) = failed {
            return Err(error.into());
        }
    }
    Ok(out.flush()?)
}

/// The directory, and the segment in it if one was named.
fn place(path: Option<&Path>, target: &Target) -> Result<(PathBuf, Option<SegmentName>), Failure> {
    let Some(path) = path else {
        return Ok((directory(None, target)?, None));
    };
    let name = path.file_name().and_then(|name| name.to_str());
    let Some(name) = name.filter(|_| !path.is_dir()).and_then(SegmentName::parse) else {
        if path.is_file() {
            return Err(Failure::usage(format!(
                "{} is no segment: these are named like 0000000000000001-0000.seg",
                path.display()
            )));
        }
        return Ok((directory(Some(path.to_owned()), target)?, None));
    };
    if !path.exists() {
        let words = format!("there is no segment {}", path.display());
        return Err(Failure::new(Exit::Unreachable, words));
    }
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    Ok((dir.unwrap_or(Path::new(".")).to_owned(), Some(name)))
}

fn batch_word(kind: BatchKind) -> &'static str {
    match kind {
        BatchKind::Records => "batch",
        BatchKind::CloseMark => "close_mark",
        BatchKind::IdleMark => "idle_mark",
        BatchKind::CutMark => "cut_mark",
    }
}

fn batch_checks(batch: &BatchSeen) -> &'static str {
    match (batch.head_ok, batch.table_ok) {
        (true, true) => "ok",
        (false, _) => "bad_head",
        (true, false) => "bad_table",
    }
}

fn record_checks(record: &RecordSeen<'_>) -> &'static str {
    match (record.head_ok, record.payload_ok) {
        (true, true) => "ok",
        (true, false) => "bad_payload",
        (false, _) => "bad_record",
    }
}

fn record_word(record: &RecordSeen<'_>) -> String {
    match record.kind {
        Some(kind) => kind_name(kind).map_or_else(|| format!("kind_{kind}"), str::to_owned),
        None => "unreadable".to_owned(),
    }
}

impl Style {
    fn seen(self, seen: &Seen<'_>, out: &mut Stdout) -> Result<(), OutputError> {
        let buffer = out.buffer();
        match seen {
            Seen::Batch(batch) => self.batch(batch, buffer),
            Seen::Record(record) => self.record(record, buffer),
            Seen::Finding(finding) => self.finding(finding, buffer),
            _ => {}
        }
        out.settle()
    }

    fn finding(self, finding: &broker_core::log::inspect::Finding, out: &mut Vec<u8>) {
        if self.json {
            finding_json(finding, out);
        } else {
            put(out, format_args!("{}\tfinding\t", finding.place.from));
            escape::for_field(finding_words(finding).as_bytes(), out);
            out.push(b'\n');
        }
    }

    /// The marker is left out: who does not know it cannot forge a batch.
    fn segment(self, seen: &SegmentSeen, out: &mut Vec<u8>) {
        let header = seen.header.as_ref();
        if self.json {
            let mut line = Object::new(out);
            line.text("what", "segment").text("file", &seen.name.file());
            if let Some(header) = header {
                line.place("base", header.base)
                    .place("end", seen.end)
                    .number("term", header.term)
                    .time("created", header.created);
                if header.packed_end().is_some() {
                    line.number("covers_last", header.covers_last.0);
                }
            }
            line.flag("last", seen.is_last)
                .number("file_bytes", seen.file_bytes);
            line.end();
            return;
        }
        let file = seen.name.file();
        match header {
            Some(header) => {
                put(
                    out,
                    format_args!(
                        "{}\tsegment\t{file}\tend={} term={} file_bytes={}",
                        header.base, seen.end, header.term, seen.file_bytes
                    ),
                );
                if header.packed_end().is_some() {
                    put(out, format_args!(" covers_last={}", header.covers_last));
                }
                out.push(b'\n');
            }
            None => put(out, format_args!("-\tsegment\t{file}\tunreadable\n")),
        }
    }

    fn batch(self, batch: &BatchSeen, out: &mut Vec<u8>) {
        let what = batch_word(batch.kind);
        let checks = batch_checks(batch);
        if self.json {
            let mut line = Object::new(out);
            line.text("what", what)
                .place("position", batch.position)
                .number("offset", batch.offset)
                .time("time", batch.time)
                .number("length", batch.length.into())
                .text("checks", checks)
                .number("records", batch.records.into())
                .number("term", batch.term)
                .place("durable_upto", batch.durable_upto)
                .flag("tail", batch.is_tail);
            line.end();
            return;
        }
        put(out, format_args!("{}\t{what}\t-\t-\t", batch.position));
        moment(batch.time, out);
        let tail = if batch.is_tail { " tail" } else { "" };
        put(
            out,
            format_args!(
                "\t{}\t{checks}\trecords={} term={} durable_upto={}{tail}\n",
                batch.length, batch.records, batch.term, batch.durable_upto
            ),
        );
    }

    fn record(self, record: &RecordSeen<'_>, out: &mut Vec<u8>) {
        if self.json {
            self.record_json(record, out);
            return;
        }
        let what = record_word(record);
        put(out, format_args!("{}\t{what}\t", record.position));
        if record.room.is_none() {
            out.extend_from_slice(b"-\t-\t");
        } else {
            match record.room_name {
                Some(name) => escape::for_field(name.as_bytes(), out),
                None => put(out, format_args!("number {}", record.room)),
            }
            put(out, format_args!("\t{}\t", record.seq));
        }
        moment(record.time, out);
        let checks = record_checks(record);
        put(out, format_args!("\t{}\t{checks}\t", record.length));
        let mut between = "";
        for (key, field) in &record.fields {
            put(out, format_args!("{between}{key}="));
            field_text(field, out);
            between = " ";
        }
        if self.payload {
            put(out, format_args!("{between}payload="));
            escape::for_field(record.payload, out);
        }
        out.push(b'\n');
    }

    fn record_json(self, record: &RecordSeen<'_>, out: &mut Vec<u8>) {
        let mut line = Object::new(out);
        line.text("what", &record_word(record))
            .place("position", record.position)
            .number("offset", record.offset);
        if !record.room.is_none() {
            match record.room_name {
                Some(name) => line.text("room", name),
                None => line.null("room"),
            };
            line.number("room_number", record.room.get().into())
                .number("seq", record.seq.get());
        }
        line.time("time", record.time)
            .number("length", record.length as u64)
            .text("checks", record_checks(record))
            .flag("tail", record.is_tail);
        for (key, field) in &record.fields {
            // A state record's own room must not look like the room of a message.
            let key = match *key {
                "room" => "of_room",
                "name" => "named",
                key => key,
            };
            match field {
                Field::Number(number) if *number == u64::MAX => line.null(key),
                Field::Number(number) => line.number(key, *number),
                Field::Time(micros) => line.time(key, *micros),
                Field::Text(text) => line.text(key, text),
                Field::Id(bytes) => line.text(key, &hex(bytes)),
                Field::Flag(flag) => line.flag(key, *flag),
                _ => line.null(key),
            };
        }
        if self.payload {
            let mut escaped = Vec::new();
            escape::for_field(record.payload, &mut escaped);
            line.text("payload", &String::from_utf8_lossy(&escaped));
        }
        line.end();
    }
}

fn field_text(field: &Field<'_>, out: &mut Vec<u8>) {
    match field {
        Field::Number(number) => put(out, format_args!("{number}")),
        Field::Time(micros) => moment(*micros, out),
        Field::Text(text) => escape::for_field(text.as_bytes(), out),
        Field::Id(bytes) => out.extend_from_slice(hex(bytes).as_bytes()),
        Field::Flag(flag) => put(out, format_args!("{flag}")),
        _ => out.push(b'?'),
    }
}

fn moment(micros: i64, out: &mut Vec<u8>) {
    if micros == 0 || micros == i64::MIN {
        out.push(b'-');
    } else {
        // Writing to memory cannot fail.
        let _ = time::write_exact(micros, &mut Text(out));
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
