//! What a benchmark prints: its settings with its figures, because one without the other says nothing.

use serde_json::{Value, json};

use super::figures::Figure;
use super::load::Load;
use crate::output::put;

/// A finished benchmark.
#[derive(Debug)]
pub(crate) struct Report {
    /// What was done.
    pub(crate) load: Load,
    /// Where.
    pub(crate) place: String,
    /// What was measured.
    pub(crate) figures: Vec<Figure>,
    /// How many messages were read back and found right.
    pub(crate) verified: u64,
}

impl Report {
    /// Appends it.
    pub(crate) fn write(&self, as_json: bool, out: &mut Vec<u8>) {
        if as_json {
            put(out, format_args!("{}\n", self.json()));
            return;
        }
        put(
            out,
            format_args!("bench {}: {}\n", self.load.what.name(), self.load.text()),
        );
        put(
            out,
            format_args!("at {}; every message synced; {}\n", self.place, machine()),
        );
        for figure in &self.figures {
            put(out, format_args!("{}", figure.text()));
        }
        put(
            out,
            format_args!(
                "{:<10} {} messages: none lost, doubled or reordered\n",
                "verified", self.verified
            ),
        );
    }

    fn json(&self) -> Value {
        let mut value = json!({
            "bench": self.load.what.name(),
            "version": env!("CARGO_PKG_VERSION"),
            "cpus": cpus(),
            "place": self.place,
            "settings": self.load.json(),
            "verified": {"messages": self.verified, "violations": 0},
        });
        if let Some(object) = value.as_object_mut() {
            for figure in &self.figures {
                object.insert(figure.name.to_owned(), figure.json());
            }
        }
        value
    }
}

fn machine() -> String {
    format!(
        "broker {}, {} CPUs, {} {}",
        env!("CARGO_PKG_VERSION"),
        cpus(),
        std::env::consts::OS,
        std::env::consts::ARCH
    )
}

fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
