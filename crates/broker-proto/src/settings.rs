//! What can be set of a room and of a store: [`RoomSettings`], [`StoreSettings`], and changes to them.
//!
//! On the wire and in the log both are one list of {u16 key, u16 length, value}, little-endian, the same keys for what is and for
//! what is to change. A key that is absent says "not set", or in a change "as it was"; one with an empty value, in a change, unsets.
//!
//! | key | value | of |
//! |---|---|---|
//! | 1 | topic: UTF-8, at most 256 bytes, one line | room |
//! | 2 | description: UTF-8, at most 2,048 bytes | room |
//! | 3 | label: name, a zero byte, value; once for each | room |
//! | 4 | label to remove: its name; only in changes | room |
//! | 5 | messages are kept so long: u64 microseconds | room, store |
//! | 6 | so many bytes of messages are kept: u64 | room, store |
//! | 7 | so many messages are kept: u64 | room, store |
//! | 8 | visibility: u8, 0 public, 1 private | room |
//! | 9 | limit of bytes: u64 | room, store |
//! | 10 | what happens near the limit: u8, 0 publishes are refused, 1 the oldest messages go first | room |
//! | 11 | a cursor that does not move for so long is forgotten: u64 microseconds | store |
//! | 12 | limit of bytes of each room that has none of its own: u64 | store |

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::error_code::ErrorCode;

/// Longest topic, in bytes.
pub const TOPIC_BYTES_MAX: usize = 256;
/// Longest description, in bytes.
pub const DESCRIPTION_BYTES_MAX: usize = 2048;
/// Most labels of a room.
pub const LABELS_MAX: usize = 16;
/// Longest name of a label, in bytes.
pub const LABEL_NAME_BYTES_MAX: usize = 64;
/// Longest value of a label, in bytes.
pub const LABEL_VALUE_BYTES_MAX: usize = 128;
/// Longest encoded settings or change, in bytes.
pub const SETTINGS_BYTES_MAX: usize = 8192;

const _: () = assert!(
    TOPIC_BYTES_MAX
        + DESCRIPTION_BYTES_MAX
        + 2 * LABELS_MAX * (LABEL_NAME_BYTES_MAX + LABEL_VALUE_BYTES_MAX / 2 + 5)
        + 16 * 12
        < SETTINGS_BYTES_MAX
);

mod key {
    pub(super) const TOPIC: u16 = 1;
    pub(super) const DESCRIPTION: u16 = 2;
    pub(super) const LABEL: u16 = 3;
    pub(super) const LABEL_GONE: u16 = 4;
    pub(super) const KEEP_AGE: u16 = 5;
    pub(super) const KEEP_BYTES: u16 = 6;
    pub(super) const KEEP_COUNT: u16 = 7;
    pub(super) const VISIBILITY: u16 = 8;
    pub(super) const BYTES_MAX: u16 = 9;
    pub(super) const WHEN_FULL: u16 = 10;
    pub(super) const CURSOR_IDLE: u16 = 11;
    pub(super) const ROOM_BYTES_MAX: u16 = 12;
}

/// Why settings, or a change of them, cannot be taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SettingsError {
    /// The list is cut short, or a value has a length that its key does not have.
    #[error("the settings are malformed at key {key}")]
    Malformed {
        /// Where.
        key: u16,
    },
    /// A key that is not known here.
    #[error("setting {key} is not known to this version")]
    Unknown {
        /// Which.
        key: u16,
    },
    /// Over a limit.
    #[error("{what} has {size}, at most {max} are allowed")]
    TooLarge {
        /// What.
        what: &'static str,
        /// How much it has.
        size: usize,
        /// What it may have.
        max: usize,
    },
    /// A text holds a character that it may not.
    #[error("{what} holds a control character")]
    Control {
        /// Which text.
        what: &'static str,
    },
    /// A label has no name, or one that cannot be written as NAME=VALUE.
    #[error("a label needs a name without '='")]
    LabelName,
    /// A limit of nothing.
    #[error("{what} of 0 would keep nothing; remove the room, or trim it, for that")]
    Zero {
        /// Which.
        what: &'static str,
    },
}

impl SettingsError {
    /// The code that tells a peer about it.
    #[must_use]
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::Unknown { .. } => ErrorCode::UNKNOWN_EXTENSION,
            Self::TooLarge { .. } => ErrorCode::TOO_LARGE,
            _ => ErrorCode::BAD_SETTING,
        }
    }
}

/// How much of a history is kept. What is not set does not limit; of several limits each one counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Retention {
    /// Messages older than this go, in whole microseconds.
    pub age: Option<Duration>,
    /// The oldest messages go while all together have more bytes, heads included.
    pub bytes: Option<u64>,
    /// The oldest messages go while there are more.
    pub count: Option<u64>,
}

impl Retention {
    /// Whether everything is kept.
    #[must_use]
    pub const fn keeps_all(&self) -> bool {
        self.age.is_none() && self.bytes.is_none() && self.count.is_none()
    }
}

/// Who may know of a room. Stored, and not enforced before there are permissions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Visibility {
    /// Everybody.
    #[default]
    Public,
    /// Those who are let in.
    Private,
}

impl Visibility {
    /// The word for people and scripts.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Private => "private",
        }
    }
}

/// What happens to a room when its limit, or that of the store, is near.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum WhenFull {
    /// Publishes are refused at the limit; nothing is removed.
    #[default]
    Refuse,
    /// The oldest messages go from 95 % of the limit on.
    Trim,
}

impl WhenFull {
    /// The word for people and scripts.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Refuse => "refuse",
            Self::Trim => "trim",
        }
    }
}

/// What is set of a room.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RoomSettings {
    /// What it is about, in a line.
    pub topic: String,
    /// What it is about, at length.
    pub description: String,
    /// Names and values for finding it.
    pub labels: BTreeMap<String, String>,
    /// How much of its history is kept.
    pub retention: Retention,
    /// How many bytes of messages it may have.
    pub bytes_max: Option<u64>,
    /// What happens near that limit, and near that of the store.
    pub when_full: WhenFull,
    /// Who may know of it.
    pub visibility: Visibility,
}

/// What is to change of a room's settings; what is `None` or empty stays.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RoomChange {
    /// The new topic; empty for none.
    pub topic: Option<String>,
    /// The new description; empty for none.
    pub description: Option<String>,
    /// Labels to set.
    pub set_labels: BTreeMap<String, String>,
    /// Labels to remove.
    pub remove_labels: BTreeSet<String>,
    /// How long messages are kept.
    pub keep_age: Option<Option<Duration>>,
    /// How many bytes are kept.
    pub keep_bytes: Option<Option<u64>>,
    /// How many messages are kept.
    pub keep_count: Option<Option<u64>>,
    /// The limit of bytes.
    pub bytes_max: Option<Option<u64>>,
    /// What happens near it.
    pub when_full: Option<WhenFull>,
    /// Who may know of the room.
    pub visibility: Option<Visibility>,
}

/// What is set of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StoreSettings {
    /// How much is kept of all rooms together: the oldest messages go first, whatever room they are in.
    pub retention: Retention,
    /// How many bytes of log there may be.
    pub bytes_max: Option<u64>,
    /// How many bytes of messages a room may have that has no limit of its own.
    pub room_bytes_max: Option<u64>,
    /// A cursor that does not move for so long is forgotten.
    pub cursor_idle: Option<Duration>,
}

/// What is to change of a store's settings; what is `None` stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StoreChange {
    /// How long messages are kept.
    pub keep_age: Option<Option<Duration>>,
    /// How many bytes are kept.
    pub keep_bytes: Option<Option<u64>>,
    /// How many messages are kept.
    pub keep_count: Option<Option<u64>>,
    /// The limit of bytes of log.
    pub bytes_max: Option<Option<u64>>,
    /// The limit of each room without one of its own.
    pub room_bytes_max: Option<Option<u64>>,
    /// How long a cursor is kept that does not move.
    pub cursor_idle: Option<Option<Duration>>,
}

impl RoomSettings {
    /// Appends them as a list.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let text = |text: &String| (!text.is_empty()).then(|| text.clone());
        let change = RoomChange {
            topic: text(&self.topic),
            description: text(&self.description),
            set_labels: self.labels.clone(),
            remove_labels: BTreeSet::new(),
            keep_age: self.retention.age.map(Some),
            keep_bytes: self.retention.bytes.map(Some),
            keep_count: self.retention.count.map(Some),
            bytes_max: self.bytes_max.map(Some),
            when_full: (self.when_full != WhenFull::default()).then_some(self.when_full),
            visibility: (self.visibility != Visibility::default()).then_some(self.visibility),
        };
        change.encode(out);
    }

    /// Reads a list that was stored. Keys that this version does not know are passed over.
    ///
    /// # Errors
    /// When a known key has a value that it cannot have.
    pub fn decode(list: &[u8]) -> Result<Self, SettingsError> {
        let mut settings = Self::default();
        settings.apply(&RoomChange::read(list, Unknown::PassedOver)?)?;
        Ok(settings)
    }

    /// Whether nothing is set.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Changes them.
    ///
    /// # Errors
    /// When a limit or rule is broken; nothing has changed then.
    pub fn apply(&mut self, change: &RoomChange) -> Result<(), SettingsError> {
        change.check()?;
        let left = self
            .labels
            .keys()
            .filter(|name| !change.remove_labels.contains(*name));
        let count = left
            .chain(change.set_labels.keys())
            .collect::<BTreeSet<_>>()
            .len();
        at_most("the list of labels", count, LABELS_MAX)?;
        self.labels
            .retain(|name, _| !change.remove_labels.contains(name));
        self.labels.extend(change.set_labels.clone());
        replace(&mut self.topic, change.topic.clone());
        replace(&mut self.description, change.description.clone());
        replace(&mut self.retention.age, change.keep_age);
        replace(&mut self.retention.bytes, change.keep_bytes);
        replace(&mut self.retention.count, change.keep_count);
        replace(&mut self.bytes_max, change.bytes_max);
        replace(&mut self.when_full, change.when_full);
        replace(&mut self.visibility, change.visibility);
        Ok(())
    }
}

impl RoomChange {
    /// Appends it as a list.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let text = |out: &mut Vec<u8>, key, text: &Option<String>| {
            if let Some(text) = text {
                put(out, key, text.as_bytes());
            }
        };
        text(out, key::TOPIC, &self.topic);
        text(out, key::DESCRIPTION, &self.description);
        for (name, value) in &self.set_labels {
            put(
                out,
                key::LABEL,
                &[name.as_bytes(), &[0], value.as_bytes()].concat(),
            );
        }
        for name in &self.remove_labels {
            put(out, key::LABEL_GONE, name.as_bytes());
        }
        put_number(out, key::KEEP_AGE, self.keep_age.map(micros));
        put_number(out, key::KEEP_BYTES, self.keep_bytes);
        put_number(out, key::KEEP_COUNT, self.keep_count);
        put_number(out, key::BYTES_MAX, self.bytes_max);
        if let Some(visibility) = self.visibility {
            put(out, key::VISIBILITY, &[visibility as u8]);
        }
        if let Some(when_full) = self.when_full {
            put(out, key::WHEN_FULL, &[when_full as u8]);
        }
    }

    /// Reads a list that came from a peer.
    ///
    /// # Errors
    /// When it breaks a rule, or has a key that this version does not know.
    pub fn decode(list: &[u8]) -> Result<Self, SettingsError> {
        let change = Self::read(list, Unknown::Refused)?;
        change.check()?;
        Ok(change)
    }

    fn read(list: &[u8], unknown: Unknown) -> Result<Self, SettingsError> {
        let mut change = Self::default();
        at_most("the list of settings", list.len(), SETTINGS_BYTES_MAX)?;
        each(list, |key, value| {
            let malformed = SettingsError::Malformed { key };
            match key {
                key::TOPIC => change.topic = Some(text(key, value)?),
                key::DESCRIPTION => change.description = Some(text(key, value)?),
                key::LABEL => {
                    let label = text(key, value)?;
                    let (name, value) = label.split_once('\0').ok_or(malformed)?;
                    change.set_labels.insert(name.to_owned(), value.to_owned());
                }
                key::LABEL_GONE => {
                    change.remove_labels.insert(text(key, value)?);
                }
                key::KEEP_AGE => change.keep_age = Some(duration(key, value)?),
                key::KEEP_BYTES => change.keep_bytes = Some(number(key, value)?),
                key::KEEP_COUNT => change.keep_count = Some(number(key, value)?),
                key::BYTES_MAX => change.bytes_max = Some(number(key, value)?),
                key::VISIBILITY => {
                    change.visibility = Some(match value {
                        [] | [0] => Visibility::Public,
                        [1] => Visibility::Private,
                        _ => return Err(malformed),
                    });
                }
                key::WHEN_FULL => {
                    change.when_full = Some(match value {
                        [] | [0] => WhenFull::Refuse,
                        [1] => WhenFull::Trim,
                        _ => return Err(malformed),
                    });
                }
                key if unknown == Unknown::Refused => return Err(SettingsError::Unknown { key }),
                _ => {}
            }
            Ok(())
        })?;
        Ok(change)
    }

    fn check(&self) -> Result<(), SettingsError> {
        if let Some(topic) = &self.topic {
            at_most("the topic", topic.len(), TOPIC_BYTES_MAX)?;
            no_control("the topic", topic, "")?;
        }
        if let Some(description) = &self.description {
            at_most("the description", description.len(), DESCRIPTION_BYTES_MAX)?;
            no_control("the description", description, "\n\t")?;
        }
        let removed = self.remove_labels.len();
        at_most("the list of labels to remove", removed, LABELS_MAX)?;
        at_most("the list of labels", self.set_labels.len(), LABELS_MAX)?;
        for name in self.set_labels.keys().chain(&self.remove_labels) {
            at_most("the name of a label", name.len(), LABEL_NAME_BYTES_MAX)?;
            no_control("the name of a label", name, "")?;
            if name.is_empty() || name.contains('=') {
                return Err(SettingsError::LabelName);
            }
        }
        for value in self.set_labels.values() {
            at_most("the value of a label", value.len(), LABEL_VALUE_BYTES_MAX)?;
            no_control("the value of a label", value, "")?;
        }
        not_zero("an age", self.keep_age.map(micros))?;
        not_zero("a number of bytes", self.keep_bytes)?;
        not_zero("a number of messages", self.keep_count)?;
        not_zero("a limit", self.bytes_max)
    }
}

impl StoreSettings {
    /// Appends them as a list.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let change = StoreChange {
            keep_age: self.retention.age.map(Some),
            keep_bytes: self.retention.bytes.map(Some),
            keep_count: self.retention.count.map(Some),
            bytes_max: self.bytes_max.map(Some),
            room_bytes_max: self.room_bytes_max.map(Some),
            cursor_idle: self.cursor_idle.map(Some),
        };
        change.encode(out);
    }

    /// Reads a list that was stored. Keys that this version does not know are passed over.
    ///
    /// # Errors
    /// When a known key has a value that it cannot have.
    pub fn decode(list: &[u8]) -> Result<Self, SettingsError> {
        let mut settings = Self::default();
        settings.apply(&StoreChange::read(list, Unknown::PassedOver)?)?;
        Ok(settings)
    }

    /// Changes them.
    ///
    /// # Errors
    /// When a rule is broken; nothing has changed then.
    pub fn apply(&mut self, change: &StoreChange) -> Result<(), SettingsError> {
        change.check()?;
        replace(&mut self.retention.age, change.keep_age);
        replace(&mut self.retention.bytes, change.keep_bytes);
        replace(&mut self.retention.count, change.keep_count);
        replace(&mut self.bytes_max, change.bytes_max);
        replace(&mut self.room_bytes_max, change.room_bytes_max);
        replace(&mut self.cursor_idle, change.cursor_idle);
        Ok(())
    }
}

impl StoreChange {
    /// Appends it as a list.
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_number(out, key::KEEP_AGE, self.keep_age.map(micros));
        put_number(out, key::KEEP_BYTES, self.keep_bytes);
        put_number(out, key::KEEP_COUNT, self.keep_count);
        put_number(out, key::BYTES_MAX, self.bytes_max);
        put_number(out, key::CURSOR_IDLE, self.cursor_idle.map(micros));
        put_number(out, key::ROOM_BYTES_MAX, self.room_bytes_max);
    }

    /// Reads a list that came from a peer.
    ///
    /// # Errors
    /// When it breaks a rule, or has a key that this version does not know.
    pub fn decode(list: &[u8]) -> Result<Self, SettingsError> {
        let change = Self::read(list, Unknown::Refused)?;
        change.check()?;
        Ok(change)
    }

    fn read(list: &[u8], unknown: Unknown) -> Result<Self, SettingsError> {
        let mut change = Self::default();
        at_most("the list of settings", list.len(), SETTINGS_BYTES_MAX)?;
        each(list, |key, value| {
            match key {
                key::KEEP_AGE => change.keep_age = Some(duration(key, value)?),
                key::KEEP_BYTES => change.keep_bytes = Some(number(key, value)?),
                key::KEEP_COUNT => change.keep_count = Some(number(key, value)?),
                key::BYTES_MAX => change.bytes_max = Some(number(key, value)?),
                key::CURSOR_IDLE => change.cursor_idle = Some(duration(key, value)?),
                key::ROOM_BYTES_MAX => change.room_bytes_max = Some(number(key, value)?),
                key if unknown == Unknown::Refused => return Err(SettingsError::Unknown { key }),
                _ => {}
            }
            Ok(())
        })?;
        Ok(change)
    }

    fn check(&self) -> Result<(), SettingsError> {
        not_zero("an age", self.keep_age.map(micros))?;
        not_zero("a number of bytes", self.keep_bytes)?;
        not_zero("a number of messages", self.keep_count)?;
        not_zero("a limit", self.bytes_max)?;
        not_zero("a limit", self.room_bytes_max)?;
        not_zero("an age", self.cursor_idle.map(micros))
    }
}

/// What becomes of a key that this version does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unknown {
    Refused,
    PassedOver,
}

fn replace<T>(place: &mut T, with: Option<T>) {
    if let Some(with) = with {
        *place = with;
    }
}

fn at_most(what: &'static str, size: usize, max: usize) -> Result<(), SettingsError> {
    if size > max {
        return Err(SettingsError::TooLarge { what, size, max });
    }
    Ok(())
}

fn no_control(what: &'static str, text: &str, but: &str) -> Result<(), SettingsError> {
    if text
        .chars()
        .any(|found| found.is_control() && !but.contains(found))
    {
        return Err(SettingsError::Control { what });
    }
    Ok(())
}

fn not_zero(what: &'static str, number: Option<Option<u64>>) -> Result<(), SettingsError> {
    if number == Some(Some(0)) {
        return Err(SettingsError::Zero { what });
    }
    Ok(())
}

/// Whole microseconds; what is longer than half a million years is as good as forever.
fn micros(age: Option<Duration>) -> Option<u64> {
    age.map(|age| u64::try_from(age.as_micros()).unwrap_or(u64::MAX))
}

fn put(out: &mut Vec<u8>, key: u16, value: &[u8]) {
    out.extend_from_slice(&key.to_le_bytes());
    let length = u16::try_from(value.len()).unwrap_or(u16::MAX);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(value.get(..length.into()).unwrap_or_default());
}

/// `None` writes nothing; `Some(None)` an empty value.
fn put_number(out: &mut Vec<u8>, key: u16, number: Option<Option<u64>>) {
    match number {
        None => {}
        Some(None) => put(out, key, &[]),
        Some(Some(number)) => put(out, key, &number.to_le_bytes()),
    }
}

fn each(
    mut list: &[u8],
    mut take: impl FnMut(u16, &[u8]) -> Result<(), SettingsError>,
) -> Result<(), SettingsError> {
    while !list.is_empty() {
        let (key, rest) = list
            .split_first_chunk()
            .ok_or(SettingsError::Malformed { key: 0 })?;
        let key = u16::from_le_bytes(*key);
        let malformed = SettingsError::Malformed { key };
        let (length, rest) = rest.split_first_chunk().ok_or(malformed.clone())?;
        let length = usize::from(u16::from_le_bytes(*length));
        let (value, rest) = rest.split_at_checked(length).ok_or(malformed)?;
        take(key, value)?;
        list = rest;
    }
    Ok(())
}

fn text(key: u16, value: &[u8]) -> Result<String, SettingsError> {
    let text = std::str::from_utf8(value).map_err(|_| SettingsError::Malformed { key })?;
    Ok(text.to_owned())
}

fn number(key: u16, value: &[u8]) -> Result<Option<u64>, SettingsError> {
    if value.is_empty() {
        return Ok(None);
    }
    let bytes = value
        .try_into()
        .map_err(|_| SettingsError::Malformed { key })?;
    Ok(Some(u64::from_le_bytes(bytes)))
}

fn duration(key: u16, value: &[u8]) -> Result<Option<Duration>, SettingsError> {
    Ok(number(key, value)?.map(Duration::from_micros))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    fn full() -> RoomChange {
        let labels = [("team", "red"), ("urgent", "")];
        RoomChange {
            topic: Some("deploys".to_owned()),
            description: Some("What goes out,\nand when.".to_owned()),
            set_labels: labels.map(|(a, b)| (a.to_owned(), b.to_owned())).into(),
            remove_labels: BTreeSet::new(),
            keep_age: Some(Some(Duration::from_secs(3600))),
            keep_bytes: Some(Some(1 << 30)),
            keep_count: Some(Some(1000)),
            bytes_max: Some(Some(2 << 30)),
            when_full: Some(WhenFull::Trim),
            visibility: Some(Visibility::Private),
        }
    }

    #[test]
    fn settings_come_back_as_they_were_written() {
        let mut settings = RoomSettings::default();
        settings.apply(&full()).unwrap();
        let mut list = Vec::new();
        settings.encode(&mut list);
        assert_eq!(RoomSettings::decode(&list), Ok(settings.clone()));
        assert_eq!(RoomChange::decode(&list), Ok(full()));
        for cut in 0..list.len() {
            let _ = RoomSettings::decode(list.get(..cut).unwrap());
        }
        let mut none = Vec::new();
        RoomSettings::default().encode(&mut none);
        assert!(none.is_empty());
    }

    #[test]
    fn a_change_leaves_what_it_does_not_name_and_unsets_what_is_empty() {
        let mut settings = RoomSettings::default();
        settings.apply(&full()).unwrap();
        let change = RoomChange {
            topic: Some(String::new()),
            keep_count: Some(None),
            remove_labels: ["team".to_owned()].into(),
            ..RoomChange::default()
        };
        let mut list = Vec::new();
        change.encode(&mut list);
        settings.apply(&RoomChange::decode(&list).unwrap()).unwrap();
        assert_eq!(settings.topic, "");
        assert_eq!(settings.retention.count, None);
        assert_eq!(settings.retention.bytes, Some(1 << 30));
        assert_eq!(settings.labels.keys().collect::<Vec<_>>(), ["urgent"]);
    }

    #[test]
    fn limits_are_limits_and_nothing_changes_then() {
        let mut settings = RoomSettings::default();
        let long = RoomChange {
            topic: Some("x".repeat(TOPIC_BYTES_MAX + 1)),
            ..RoomChange::default()
        };
        let nothing = RoomChange {
            keep_count: Some(Some(0)),
            ..RoomChange::default()
        };
        let bell = RoomChange {
            topic: Some("\u{7}".to_owned()),
            ..RoomChange::default()
        };
        let many = |range: std::ops::Range<usize>| RoomChange {
            set_labels: range.map(|n| (n.to_string(), String::new())).collect(),
            ..RoomChange::default()
        };
        for change in [long, nothing, bell, many(0..LABELS_MAX + 1)] {
            let mut list = Vec::new();
            change.encode(&mut list);
            assert!(RoomChange::decode(&list).is_err(), "{change:?}");
            assert!(settings.apply(&change).is_err());
        }
        assert!(settings.is_default());
        settings.apply(&many(0..LABELS_MAX)).unwrap();
        assert!(settings.apply(&many(5..LABELS_MAX + 5)).is_err());
    }

    #[test]
    fn an_unknown_key_is_refused_from_a_peer_and_passed_over_in_the_log() {
        let mut list = Vec::new();
        put(&mut list, 900, b"later");
        put(&mut list, key::TOPIC, b"now");
        assert_eq!(
            RoomChange::decode(&list),
            Err(SettingsError::Unknown { key: 900 })
        );
        assert_eq!(RoomSettings::decode(&list).unwrap().topic, "now");
    }

    #[test]
    fn settings_of_a_store_come_back_too() {
        let change = StoreChange {
            keep_age: Some(Some(Duration::from_micros(7))),
            keep_bytes: Some(None),
            bytes_max: Some(Some(1 << 40)),
            room_bytes_max: Some(Some(1 << 20)),
            cursor_idle: Some(Some(Duration::from_secs(86_400))),
            keep_count: None,
        };
        let mut list = Vec::new();
        change.encode(&mut list);
        assert_eq!(StoreChange::decode(&list), Ok(change));
        let mut settings = StoreSettings::default();
        settings.apply(&change).unwrap();
        let mut list = Vec::new();
        settings.encode(&mut list);
        assert_eq!(StoreSettings::decode(&list), Ok(settings));
    }
}
