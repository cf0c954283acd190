//! Settings as people type them, and as they are printed.

use std::time::Duration;

use broker_core::{RoomChange, RoomState, StoreChange, Visibility, WhenFull};

use crate::args::{KeepArgs, RoomSetArgs, StoreSetArgs};
use crate::exit::Failure;
use crate::facts::{Fact, Facts};
use crate::units;

/// What `broker room set` is to change.
pub(crate) fn room_change(args: &RoomSetArgs) -> Result<RoomChange, Failure> {
    let keep = Keep::new(&args.keep)?;
    let mut change = RoomChange {
        topic: args.topic.clone(),
        description: args.description.clone(),
        keep_age: keep.age,
        keep_bytes: keep.bytes,
        keep_count: keep.count,
        bytes_max: keep.bytes_max,
        when_full: args.when_full.as_deref().map(|word| match word {
            "trim" => WhenFull::Trim,
            _ => WhenFull::Refuse,
        }),
        visibility: args.visibility.as_deref().map(|word| match word {
            "private" => Visibility::Private,
            _ => Visibility::Public,
        }),
        remove_labels: args.no_labels.iter().cloned().collect(),
        ..RoomChange::default()
    };
    for label in &args.labels {
        let Some((name, value)) = label.split_once('=') else {
            return Err(Failure::usage(format!(
                "--label takes NAME=VALUE, with a value that may be empty, not '{label}'"
            )));
        };
        if change.remove_labels.contains(name) {
            return Err(Failure::usage(format!(
                "--label and --no-label both name '{name}': give one of them"
            )));
        }
        let value = value.to_owned();
        if change.set_labels.insert(name.to_owned(), value).is_some() {
            return Err(Failure::usage(format!("--label names '{name}' twice")));
        }
    }
    if change == RoomChange::default() {
        return Err(Failure::usage(
            "nothing is to be set: give --keep-age, --keep-bytes, --keep-count, --max-bytes, --when-full, --topic, --description, --label, --no-label or --visibility (broker room info shows what is set)",
        ));
    }
    Ok(change)
}

/// What `broker store set` is to change.
pub(crate) fn store_change(args: &StoreSetArgs) -> Result<StoreChange, Failure> {
    let keep = Keep::new(&args.keep)?;
    let change = StoreChange {
        keep_age: keep.age,
        keep_bytes: keep.bytes,
        keep_count: keep.count,
        bytes_max: keep.bytes_max,
        room_bytes_max: size("--room-max-bytes", args.room_max_bytes.as_deref())?,
        cursor_idle: age("--cursor-idle", args.cursor_idle.as_deref())?,
    };
    if change == StoreChange::default() {
        return Err(Failure::usage(
            "nothing is to be set: give --keep-age, --keep-bytes, --keep-count, --max-bytes, --room-max-bytes or --cursor-idle (broker store info shows what is set)",
        ));
    }
    Ok(change)
}

/// What a room and the store have in common. The outer `None` leaves it, the inner one unsets it.
struct Keep {
    age: Option<Option<Duration>>,
    bytes: Option<Option<u64>>,
    count: Option<Option<u64>>,
    bytes_max: Option<Option<u64>>,
}

impl Keep {
    fn new(args: &KeepArgs) -> Result<Self, Failure> {
        Ok(Self {
            age: age("--keep-age", args.keep_age.as_deref())?,
            bytes: size("--keep-bytes", args.keep_bytes.as_deref())?,
            count: count("--keep-count", args.keep_count.as_deref())?,
            bytes_max: size("--max-bytes", args.max_bytes.as_deref())?,
        })
    }
}

fn age(flag: &str, text: Option<&str>) -> Result<Option<Option<Duration>>, Failure> {
    let parse = |text: &str| units::duration(text, false).filter(|age| !age.is_zero());
    limit(
        flag,
        text,
        parse,
        "a time above zero, such as 7d, 12h or 90s",
    )
}

fn size(flag: &str, text: Option<&str>) -> Result<Option<Option<u64>>, Failure> {
    let parse = |text: &str| units::bytes(text).filter(|bytes| *bytes > 0);
    limit(
        flag,
        text,
        parse,
        "bytes above zero, such as 1GiB, 500MB or 65536",
    )
}

fn count(flag: &str, text: Option<&str>) -> Result<Option<Option<u64>>, Failure> {
    let parse = |text: &str| units::number(text).filter(|count| *count > 0);
    limit(flag, text, parse, "a number above zero")
}

fn limit<T>(
    flag: &str,
    text: Option<&str>,
    parse: impl Fn(&str) -> Option<T>,
    takes: &str,
) -> Result<Option<Option<T>>, Failure> {
    match text {
        None => Ok(None),
        Some("none") => Ok(Some(None)),
        Some(text) => match parse(text) {
            Some(value) => Ok(Some(Some(value))),
            None => Err(Failure::usage(format!(
                "{flag} takes {takes}, or none, not '{text}'"
            ))),
        },
    }
}

/// All that is known of a room, to be printed.
pub(crate) fn room_facts(room: &RoomState) -> Facts<'_> {
    let (info, settings) = (&room.info, &room.settings);
    let created = room.created.get();
    vec![
        ("room", Fact::Text(&info.name)),
        ("epoch", Fact::Number(info.epoch.get())),
        ("first", Fact::Number(info.first.get())),
        ("head", Fact::Number(info.head.get())),
        ("messages", Fact::Number(room.messages())),
        ("bytes", Fact::Bytes(room.bytes)),
        ("time", Fact::Moment(Some(info.last_time.get()))),
        ("created", Fact::Moment((created != 0).then_some(created))),
        ("created_by", Fact::Known(room.created_by.as_deref())),
        ("version", Fact::Number(room.version)),
        ("topic", Fact::Text(&settings.topic)),
        ("description", Fact::Text(&settings.description)),
        ("labels", Fact::Labels(&settings.labels)),
        ("keep_age", Fact::Age(settings.retention.age)),
        ("keep_bytes", Fact::BytesLimit(settings.retention.bytes)),
        ("keep_count", Fact::Limit(settings.retention.count)),
        ("max_bytes", Fact::BytesLimit(settings.bytes_max)),
        ("when_full", Fact::Text(settings.when_full.name())),
        ("visibility", Fact::Text(settings.visibility.name())),
    ]
}
