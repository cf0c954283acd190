//! `broker status`: who serves the store, where, and how it does.

use serde_json::Value;

use crate::args::ListArgs;
use crate::config::Config;
use crate::connect::{Link, Stay, unless_stopped};
use crate::escape;
use crate::exit::{Exit, Failure};
use crate::output::{self, put};
use crate::signals::Stop;

/// Runs the command.
pub(crate) async fn run(config: &Config, args: &ListArgs, mut stop: Stop) -> Result<(), Failure> {
    let link = unless_stopped(&mut stop, Link::open(config, Stay::OneShot)).await?;
    let status = unless_stopped(&mut stop, link.client().status()).await;
    let closed = link.close().await;
    let status: Value = serde_json::from_str(&status?).map_err(|error| {
        Failure::new(
            Exit::Protocol,
            format!("the broker's status is not JSON: {error}"),
        )
    })?;
    let mut out = output::stdout();
    if args.json {
        json(&status, out.buffer());
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
        Value::Array(values) => {
            let words: Vec<String> = values.iter().map(word).collect();
            line(path, &words.join(" "), out);
        }
        value => line(path, &word(value), out),
    }
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

/// JSON on one line, with the same harmless strings as everywhere.
fn json(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::String(text) => escape::for_json(text, out),
        Value::Array(values) => {
            out.push(b'[');
            for (at, value) in values.iter().enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                json(value, out);
            }
            out.push(b']');
        }
        Value::Object(fields) => {
            out.push(b'{');
            for (at, (name, value)) in fields.iter().enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                escape::for_json(name, out);
                out.push(b':');
                json(value, out);
            }
            out.push(b'}');
        }
        value => put(out, format_args!("{value}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_has_its_line_and_comes_back_as_json() {
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
        let mut written = Vec::new();
        json(&value, &mut written);
        assert_eq!(
            serde_json::from_slice::<Value>(&written).expect("JSON"),
            value
        );
    }
}
