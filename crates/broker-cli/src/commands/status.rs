//! `broker status`: who serves the store, where, and how it does.

use serde_json::Value;

use crate::args::ListArgs;
use crate::config::Config;
use crate::connect::{Link, Stay, unless_stopped};
use crate::escape;
use crate::exit::{Exit, Failure};
use crate::output::{self, put, say};
use crate::signals::Stop;

/// Runs the command.
pub(crate) async fn run(config: &Config, args: &ListArgs, mut stop: Stop) -> Result<(), Failure> {
    let link = unless_stopped(&mut stop, Link::open(config, Stay::OneShot)).await?;
    let status = unless_stopped(&mut stop, link.client().status()).await;
    let is_leader = link.is_leader();
    let closed = link.close().await;
    let text = status?;
    let status: Value = serde_json::from_str(&text).map_err(|error| {
        Failure::new(
            Exit::Protocol,
            format!("the broker's status is not JSON: {error}"),
        )
    })?;
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
    closed
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
}
