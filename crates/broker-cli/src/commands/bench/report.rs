//! What a benchmark prints: figures with everything that they depend on, because one without the other
//! says nothing.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::disk::DiskProbe;
use super::figures::{grouped, micros, readable};
use super::load::Load;
use super::machine::Machine;
use super::pace::LATE;
use super::runs::Measured;
use crate::output::put;

/// A finished benchmark.
#[derive(Debug)]
pub(crate) struct Report {
    /// What was done.
    pub(crate) load: Load,
    /// Where.
    pub(crate) place: String,
    /// The broker's program and version, as it calls itself.
    pub(crate) server_build: Option<String>,
    /// On what.
    pub(crate) machine: Machine,
    /// What its disk takes by itself, or why that is not known.
    pub(crate) disk: Result<DiskProbe, String>,
    /// What was measured.
    pub(crate) measured: Measured,
    /// How many messages were read back and found right.
    pub(crate) verified: u64,
    /// Where latencies were written: figure and file.
    pub(crate) files: Vec<(&'static str, PathBuf)>,
}

/// Name and version of this program.
const CLIENT: &str = concat!("broker ", env!("CARGO_PKG_VERSION"));

impl Report {
    /// Appends it.
    pub(crate) fn write(&self, as_json: bool, out: &mut Vec<u8>) {
        if as_json {
            put(out, format_args!("{}\n", self.json()));
        } else {
            self.lines(out);
        }
    }

    fn lines(&self, out: &mut Vec<u8>) {
        let mut line = |name: &str, text: &str| put(out, format_args!("{name:<10} {text}\n"));
        let what = self.load.what.name();
        line(&format!("bench {what}:"), &self.load.text());
        line("at", &format!("{}; every message synced", self.place));
        let server = self.server_build.as_deref().unwrap_or("unknown");
        line("versions", &format!("client: {CLIENT}; server: {server}"));
        line("machine", &self.machine.text());
        match &self.disk {
            Ok(probe) => line("disk", &probe.text()),
            Err(reason) => line("disk", reason),
        }
        for figure in &self.measured.figures {
            put(out, format_args!("{}", figure.text()));
        }
        let mut line = |name: &str, text: &str| put(out, format_args!("{name:<10} {text}\n"));
        if self.load.rate.is_some() {
            line("late", &self.late_text());
        }
        line("cpu", &self.measured.cpu.text());
        let verified = grouped(self.verified as f64);
        let right = "none lost, doubled or reordered";
        line("verified", &format!("{verified} messages: {right}"));
        for (figure, path) in &self.files {
            let path = path.display();
            line("hdr", &format!("latencies of {figure} in {path}"));
        }
    }

    fn late_text(&self) -> String {
        let timing = &self.measured.sent.timing;
        format!(
            "{} of {} messages sent more than {} after they were due, the latest {}; latencies begin when due",
            grouped(timing.late as f64),
            grouped(self.measured.sent.count() as f64),
            readable(LATE),
            readable(timing.worst)
        )
    }

    fn json(&self) -> Value {
        let (disk, no_disk) = match &self.disk {
            Ok(probe) => (Some(probe.json()), None),
            Err(reason) => (None, Some(reason)),
        };
        let mut value = json!({
            "bench": self.load.what.name(),
            "version": env!("CARGO_PKG_VERSION"),
            "client": CLIENT,
            "server": self.server_build,
            "place": self.place,
            "settings": self.load.json(),
            "machine": self.machine.json(),
            "disk": disk,
            "cpu": self.measured.cpu.json(),
            "verified": {"messages": self.verified, "violations": 0},
        });
        let Some(object) = value.as_object_mut() else {
            return value;
        };
        let mut put = |name: &str, value: Value| object.insert(name.to_owned(), value);
        if let Some(reason) = no_disk {
            put("no_disk", json!(reason));
        }
        for figure in &self.measured.figures {
            put(figure.name, figure.json());
        }
        if self.load.rate.is_some() {
            let timing = &self.measured.sent.timing;
            let (after, worst) = (micros(LATE), micros(timing.worst));
            put(
                "late",
                json!({"messages": timing.late, "worst_us": worst, "after_us": after}),
            );
        }
        if !self.files.is_empty() {
            let files = self.files.iter();
            let files = files.map(|(figure, path)| {
                let path = path.to_string_lossy().into_owned();
                ((*figure).to_owned(), Value::from(path))
            });
            put("hdr", Value::Object(files.collect()));
        }
        value
    }
}
