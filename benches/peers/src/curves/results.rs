//! What is kept of a curve: a JSON object a line, in a file of its own beside that of `run`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::gauge::limits::Limits;
use crate::gauge::machine::Machine;

/// One line of the file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub(crate) enum Line {
    /// A run has begun.
    Session(Session),
    /// What the bare machine did at the beginning of a round.
    Limits {
        session: u64,
        round: u32,
        limits: Limits,
    },
    /// A point of a curve was measured.
    Point(Point),
}

/// How a run was made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Session {
    /// When it began, in seconds since 1970; its name in the other lines.
    pub(crate) session: u64,
    pub(crate) machine: Machine,
    /// How long each load was measured.
    pub(crate) seconds: f64,
    /// What the server says that it is.
    pub(crate) version: String,
}

/// One point of a curve in one round.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Point {
    pub(crate) session: u64,
    pub(crate) round: u32,
    pub(crate) curve: String,
    /// How far it has grown.
    pub(crate) at: u64,
    pub(crate) result: PointResult,
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum PointResult {
    /// It was measured and verified.
    Measured(Values),
    /// It does not fit this machine: why.
    Skipped(String),
    /// It went wrong.
    Failed(String),
}

/// What was measured, by the keys of the columns, and what was verified.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Values {
    pub(crate) values: BTreeMap<String, f64>,
    pub(crate) verified: String,
}

impl Values {
    /// Adds a value.
    pub(crate) fn put(&mut self, key: &str, value: f64) {
        self.values.insert(key.to_owned(), value);
    }

    /// A value, where there is one.
    pub(crate) fn get(&self, key: &str) -> Option<f64> {
        self.values.get(key).copied()
    }
}
