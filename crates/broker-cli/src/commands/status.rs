//! `broker status`: who serves the store, where, and how it does.

use serde_json::Value;

use super::store::parsed;
use crate::args::StatusArgs;
use crate::config::Config;
use crate::connect::{Link, Stay, unless_stopped};
use crate::exit::Failure;
use crate::output::{self, put, say};
use crate::signals::Stop;
use crate::{escape, units};

/// Runs the command.
pub(crate) async fn run(config: &Config, args: &StatusArgs, mut stop: Stop) -> Result<(), Failure> {
    let link = unless_stopped(&mut stop, Link::open(config, Stay::OneShot)).await?;
    let status = unless_stopped(&mut stop, link.client().status()).await;
    let is_leader = link.is_leader();
    let closed = link.close().await;
    let text = status?;
    let status = parsed(&text)?;
    if is_leader {
        say("nobody was serving the store; this command did, to answer");
    }
    let mut out = output::stdout();
    if args.json {
        // As the broker wrote it, with the order of its keys.
        escape::json_text(&text, out.buffer());
        out.buffer().push(b'\n');
    } else {
        lines(&status, "", out.buffer());
    }
    out.flush()?;
    if !args.json
        && let Some(words) = warning(&status)
    {
        say(&words);
    }
    closed
}

/// What a person should do about the space, if anything.
fn warning(status: &Value) -> Option<String> {
    let space = status.get("space")?;
    let fullness = space.get("fullness")?.as_str()?;
    let follows = match fullness {
        "fine" => return None,
        "full" => "messages are refused",
        "trimming" => "the oldest messages go from rooms that allow it",
        _ => "at the limit messages are refused",
    };
    let bytes = |key: &str| {
        let mut text = Vec::new();
        units::write_bytes(space.get(key)?.as_u64()?, &mut text);
        String::from_utf8(text).ok()
    };
    let (used, max) = (bytes("log_bytes")?, bytes("bytes_max")?);
    Some(format!(
        "the log has {used} of at most {max} bytes ({fullness}): {follows}; trim or remove rooms (broker rooms --long, broker room trim, broker room rm), keep less (broker store set --keep-age), or raise the limit (broker store set --max-bytes)"
    ))
}

/// A line for every value: its path and what it is. The broker may add to its status at any time,
/// so no name is known here.
fn lines(value: &Value, path: &str, out: &mut Vec<u8>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let path = if path.is_empty() {
                    name.clone()
                } else {
                    format!("{path}.{name}")
                };
                lines(value, &path, out);
            }
        }
        Value::Array(values) if path == "damage" => {
            for damage in values {
                line(path, &damage_words(damage), out);
            }
        }
        Value::Array(values) => {
            let words: Vec<String> = values.iter().map(word).collect();
            line(path, &words.join(" "), out);
        }
        value => line(path, &word(value), out),
    }
}

/// A damaged place in words; the rest of its values are in the JSON.
fn damage_words(damage: &Value) -> String {
    let value = |key: &str| damage.get(key).map(word).unwrap_or_default();
    let mut words = format!(
        "{} in {} at byte {}, log {} to {}",
        value("part"),
        value("file"),
        value("offset"),
        value("from"),
        value("upto")
    );
    if damage.get("first_seq").is_some() {
        words.push_str(&format!(
            ", room {} seq {} to {}",
            value("room"),
            value("first_seq"),
            value("last_seq")
        ));
    }
    words.push_str(&format!(", found by {}", value("found_by")));
    words
}

fn line(path: &str, word: &str, out: &mut Vec<u8>) {
    let mut key = Vec::new();
    escape::for_field(path.as_bytes(), &mut key);
    put(out, format_args!("{:<24} ", String::from_utf8_lossy(&key)));
    escape::for_field(word.as_bytes(), out);
    out.push(b'\n');
}

fn word(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        value => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_has_its_line() {
        let value = serde_json::json!({"pid": 7, "store": {"id": "ab", "dir": "/d\u{1b}"}, "addresses": ["a", "b"], "none": null});
        let mut text = Vec::new();
        lines(&value, "", &mut text);
        let text = String::from_utf8(text).expect("text");
        for line in [
            "pid                      7\n",
            "store.id                 ab\n",
            "store.dir                /d\\x1b\n",
            "addresses                a b\n",
        ] {
            assert!(text.contains(line), "{text}");
        }
    }

    #[test]
    fn a_person_is_warned_before_the_log_is_full() {
        let status = |fullness: &str| serde_json::json!({"space": {"log_bytes": 900, "bytes_max": 1024, "fullness": fullness}});
        assert_eq!(warning(&status("fine")), None);
        assert_eq!(warning(&serde_json::json!({"pid": 7})), None);
        for (fullness, word) in [
            ("warning", "at the limit"),
            ("trimming", "oldest"),
            ("full", "are refused"),
        ] {
            let words = warning(&status(fullness)).expect("a warning");
            for word in [word, fullness, "900", "1KiB", "--max-bytes"] {
                assert!(words.contains(word), "no {word:?} in {words}");
            }
        }
    }
}
