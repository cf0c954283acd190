//! [`Figures`]: what a server tells of itself, as one JSON object.
//!
//! Keys are added, never removed or given another meaning: scripts read them (`docs/protocol.md`,
//! frame 0x15). A figure that is not known while the store is being opened is left out.

use std::fmt::Write as _;

use tokio::time::Instant;

use crate::log::damage::Damage;
use crate::session::{Host, Progress, Stage};
use crate::store::{CursorsInfo, FootersInfo, SpaceInfo, Store, StoreInfo};
use crate::sync::{Arc, AtomicU64, Ordering, RwLock, read, write};

/// What a server is called, and where it is.
#[derive(Debug, Clone, Default)]
pub(super) struct Facts {
    /// What the process is to its store, such as `eligible` or `serve_always`.
    pub(super) role: &'static str,
    /// Name and version of the program.
    pub(super) build: String,
    /// Its process.
    pub(super) pid: u32,
    /// Where it listens, as URLs.
    pub(super) addresses: Vec<String>,
    /// What a person should know, such as a door that could not be opened.
    pub(super) warnings: Vec<String>,
}

/// A server's stage and figures, shared by its connections.
pub(super) struct Figures<S> {
    pub(super) stage: RwLock<Stage<S>>,
    /// Counts the changes of the stage.
    pub(super) generation: AtomicU64,
    pub(super) connections: AtomicU64,
    /// Clients that knew of messages that the store does not have.
    lost_suffix_alarms: AtomicU64,
    pub(super) started: Instant,
    facts: RwLock<Facts>,
}

impl<S: Store> Figures<S> {
    pub(super) fn new(facts: Facts) -> Arc<Self> {
        Arc::new(Self {
            stage: RwLock::new(Stage::Starting(Progress::default())),
            generation: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            lost_suffix_alarms: AtomicU64::new(0),
            started: Instant::now(),
            facts: RwLock::new(facts),
        })
    }

    /// What the server tells of itself.
    pub(super) fn facts(&self) -> Facts {
        read(&self.facts).clone()
    }

    /// Adds to what the server tells of itself.
    pub(super) fn amend(&self, amend: impl FnOnce(&mut Facts)) {
        amend(&mut write(&self.facts));
    }
}

impl<S: Store> Host for Figures<S> {
    fn lost_suffix(&self) {
        self.lost_suffix_alarms.fetch_add(1, Ordering::Relaxed);
    }

    fn status(&self) -> String {
        let (stage, store) = match &*read(&self.stage) {
            Stage::Starting(_) => ("starting", None),
            Stage::Serving(store) => ("serving", Some(Arc::clone(store))),
            Stage::Draining(store) => ("draining", Some(Arc::clone(store))),
            Stage::Leaving(_) => ("leaving", None),
        };
        let facts = self.facts();
        let mut json = Json::new();
        json.text("state", "leader");
        json.text("stage", stage);
        json.text("role", facts.role);
        json.number("pid", facts.pid.into());
        json.text("build", &facts.build);
        json.texts("addresses", &facts.addresses);
        json.texts("warnings", &facts.warnings);
        json.number("uptime_seconds", self.started.elapsed().as_secs());
        json.number("connections", self.connections.load(Ordering::Relaxed));
        let alarms = self.lost_suffix_alarms.load(Ordering::Relaxed);
        json.number("lost_suffix_alarms", alarms);
        if let Some(store) = store {
            put_store(&mut json, &store.info());
        }
        json.finish()
    }
}

fn put_store(json: &mut Json, info: &StoreInfo) {
    json.text("store", &info.store.to_string());
    json.number("term", info.term.get());
    json.number("feature_level", info.feature_level.into());
    json.number("payload_bytes_max", info.payload_bytes_max.into());
    json.number("producer_window_seconds", info.producer_window_secs.into());
    json.number("rooms", info.rooms);
    json.number("messages", info.messages);
    json.number("batches", info.batches);
    json.number("log_bytes", info.log_bytes);
    json.number("segments", info.segments);
    json.flag("direct_io", info.direct_io);
    json.number("damaged", info.damaged);
    match &info.read_only {
        Some(reason) => json.text("read_only", reason),
        None => json.null("read_only"),
    }
    json.objects("damage", info.damage.iter().map(damage));
    let scrub = &info.scrub;
    json.maybe("scrub_every_seconds", scrub.every_secs);
    json.number("scrub_bytes", scrub.bytes);
    json.number("scrub_passes", scrub.passes);
    let ended = scrub.pass_ended.map(|at| at.get() / 1_000_000);
    json.maybe(
        "scrub_pass_ended",
        ended.and_then(|at| u64::try_from(at).ok()),
    );
    json.object("space", space(&info.space));
    json.object("footers", footers(&info.footers));
    json.object("cursors", cursors(&info.cursors));
}

fn footers(footers: &FootersInfo) -> Json {
    let mut json = Json::new();
    json.number("made_again", footers.made_again);
    json.number("in_making", footers.in_making);
    json.number("bytes_left", footers.bytes_left);
    json
}

fn space(space: &SpaceInfo) -> Json {
    let mut json = Json::new();
    json.number("log_bytes", space.log_bytes);
    json.maybe("bytes_max", space.bytes_max);
    json.text("fullness", space.fullness.name());
    json.number("rooms_near_limit", space.rooms_near_limit);
    json.number("messages_trimmed", space.messages_trimmed);
    json.number("bytes_freed", space.bytes_freed);
    json.number("bytes_rewritten", space.bytes_rewritten);
    json.number("segments_deleted", space.segments_deleted);
    json.number("segments_packed", space.segments_packed);
    json.number("bytes_waiting", space.bytes_waiting);
    json.number("checkpoint_bytes", space.checkpoint_bytes);
    json
}

fn cursors(cursors: &CursorsInfo) -> Json {
    let mut json = Json::new();
    json.number("count", cursors.count);
    json.number("pending", cursors.pending);
    json.number("written", cursors.written);
    json.number("interval_ms", cursors.interval_ms);
    json
}

fn damage(damage: &Damage) -> Json {
    let place = &damage.place;
    let mut json = Json::new();
    json.text("part", place.part.word());
    json.text("file", &place.file);
    json.number("offset", place.offset);
    json.number("from", place.from.get());
    json.number("upto", place.upto.get());
    if let Some(span) = &place.room {
        match &span.name {
            Some(name) => json.text("room", name),
            None => json.null("room"),
        }
        json.number("first_seq", span.first.get());
        json.number("last_seq", span.last.get());
    }
    json.text("found_by", damage.found_by.word());
    json
}

/// Writes one JSON object (RFC 8259), on one line.
#[derive(Debug)]
struct Json(String);

impl Json {
    fn new() -> Self {
        Self("{".to_owned())
    }

    fn finish(mut self) -> String {
        self.0.push('}');
        self.0
    }

    fn key(&mut self, key: &str) {
        if self.0.len() > 1 {
            self.0.push(',');
        }
        self.quote(key);
        self.0.push(':');
    }

    fn number(&mut self, key: &str, number: u64) {
        self.key(key);
        self.0.push_str(&number.to_string());
    }

    fn maybe(&mut self, key: &str, number: Option<u64>) {
        match number {
            Some(number) => self.number(key, number),
            None => self.null(key),
        }
    }

    fn objects(&mut self, key: &str, objects: impl Iterator<Item = Self>) {
        self.key(key);
        self.0.push('[');
        for (n, object) in objects.enumerate() {
            if n > 0 {
                self.0.push(',');
            }
            self.0.push_str(&object.finish());
        }
        self.0.push(']');
    }

    fn object(&mut self, key: &str, object: Self) {
        self.key(key);
        self.0.push_str(&object.finish());
    }

    fn flag(&mut self, key: &str, flag: bool) {
        self.key(key);
        self.0.push_str(if flag { "true" } else { "false" });
    }

    fn null(&mut self, key: &str) {
        self.key(key);
        self.0.push_str("null");
    }

    fn text(&mut self, key: &str, text: &str) {
        self.key(key);
        self.quote(text);
    }

    fn texts(&mut self, key: &str, texts: &[String]) {
        self.key(key);
        self.0.push('[');
        for (n, text) in texts.iter().enumerate() {
            if n > 0 {
                self.0.push(',');
            }
            self.quote(text);
        }
        self.0.push(']');
    }

    fn quote(&mut self, text: &str) {
        self.0.push('"');
        for char in text.chars() {
            match char {
                '"' => self.0.push_str("\\\""),
                '\\' => self.0.push_str("\\\\"),
                '\n' => self.0.push_str("\\n"),
                control if control.is_control() => {
                    // All control characters lie below 2^16, so that one escape is enough.
                    let _always = write!(self.0, "\\u{:04x}", u32::from(control));
                }
                other => self.0.push(other),
            }
        }
        self.0.push('"');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_escaped_so_that_it_stays_one_string_on_one_line() {
        let mut json = Json::new();
        json.text("k", "a\"b\\c\nd\u{1}e\u{85}ü😀");
        json.texts("l", &["x".to_owned(), "\"".to_owned()]);
        json.flag("f", true);
        json.number("n", u64::MAX);
        json.null("z");
        assert_eq!(
            json.finish(),
            "{\"k\":\"a\\\"b\\\\c\\nd\\u0001e\\u0085ü😀\",\"l\":[\"x\",\"\\\"\"],\"f\":true,\"n\":18446744073709551615,\"z\":null}"
        );
    }

    #[test]
    fn space_and_cursors_have_the_keys_of_the_documentation() {
        let mut json = Json::new();
        let info = SpaceInfo {
            log_bytes: 90,
            bytes_max: Some(100),
            fullness: crate::store::Fullness::of(90, Some(100)),
            ..SpaceInfo::default()
        };
        json.object("space", space(&info));
        json.object("footers", footers(&FootersInfo::default()));
        json.object("cursors", cursors(&CursorsInfo::default()));
        let text = json.finish();
        let begins = "{\"space\":{\"log_bytes\":90,\"bytes_max\":100,\"fullness\":\"warning\",";
        assert!(text.starts_with(begins), "{text}");
        let documented = include_str!("../../../../docs/protocol.md");
        let keys: Vec<&str> = text.split('"').skip(1).step_by(2).collect();
        assert_eq!(keys.len(), 1 + 11 + 1 + 1 + 3 + 1 + 4);
        for key in keys {
            assert!(
                documented.contains(&format!("`{key}`")),
                "{key} is not documented"
            );
        }
    }
}
