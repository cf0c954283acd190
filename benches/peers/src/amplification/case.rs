//! [`Case`]: what is done to see what is written for it.

use serde::{Deserialize, Serialize};

use crate::args::Amplification as Options;
use crate::page::numbers::bytes;
use crate::stats::float;

/// Of so many rooms one keeps everything, where the others keep few messages.
pub(super) const KEEPS_ALL: usize = 10;
/// Part of what is published that is kept, where only so many bytes are.
pub(super) const KEPT_PART: u64 = 4;
/// What is published before each kill.
pub(super) const KILL_BYTES: u64 = 1 << 20;

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Case {
    /// Publishing into one room; everything is kept.
    Publish,
    /// The same, and only so many bytes are kept.
    KeepBytes,
    /// Publishing into many rooms; everything is kept.
    Rooms,
    /// The same, and most of the rooms keep few messages.
    KeepCount,
    /// Many kills that leave small segments, and what becomes of these.
    Merge,
}

impl Case {
    /// All of them, each with retention after what it is compared with.
    pub(crate) const ALL: [Self; 5] = [
        Self::Publish,
        Self::KeepBytes,
        Self::Rooms,
        Self::KeepCount,
        Self::Merge,
    ];

    /// What it is called.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::KeepBytes => "keep-bytes",
            Self::Rooms => "rooms",
            Self::KeepCount => "keep-count",
            Self::Merge => "merge",
        }
    }

    /// The case of a name.
    pub(crate) fn parse(name: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|case| case.name() == name);
        found.ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            format!("'{name}' is none of {names}")
        })
    }

    /// What it does, in words.
    pub(super) fn words(self, options: &Options) -> String {
        let Options {
            rooms,
            keep_count,
            kills,
            ..
        } = options;
        match self {
            Self::Publish => "one room, everything is kept".to_owned(),
            Self::KeepBytes => {
                let kept = bytes(float(options.bytes / KEPT_PART));
                format!("one room, and the store keeps {kept}: whole segments are deleted")
            }
            Self::Rooms => format!("{rooms} rooms in turn, everything is kept"),
            Self::KeepCount => format!(
                "{rooms} rooms in turn; one in {KEEPS_ALL} keeps everything, the others keep {keep_count} messages: segments are dead for \
                 the most part, and are written anew"
            ),
            Self::Merge => format!(
                "one room, everything is kept; {} are published before each of {kills} kills, which leaves small segments that are merged",
                bytes(float(KILL_BYTES))
            ),
        }
    }
}
