//! [`Facts`]: named values of one thing, printed as lines for people or as one JSON object, from the same list.
//!
//! Scripts rely on the names: add, never change. Sizes and times are written as they can be typed.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::escape;
use crate::output::{Text, put};
use crate::time;
use crate::units;

/// A value.
#[derive(Debug)]
pub(crate) enum Fact<'a> {
    /// A text.
    Text(&'a str),
    /// A text that may be unknown.
    Known(Option<&'a str>),
    /// A number.
    Number(u64),
    /// A number that may be not set.
    Limit(Option<u64>),
    /// A number of bytes.
    Bytes(u64),
    /// A number of bytes that may be not set.
    BytesLimit(Option<u64>),
    /// A time that may be not set; its name gets `_ms` in JSON.
    Age(Option<Duration>),
    /// Microseconds since 1970; nothing at all when it is not known.
    Moment(Option<i64>),
    /// Names with values.
    Labels(&'a BTreeMap<String, String>),
}

/// Named values, in order.
pub(crate) type Facts<'a> = Vec<(&'static str, Fact<'a>)>;

/// Appends an object and the end of the line.
pub(crate) fn put_json(facts: &Facts<'_>, out: &mut Vec<u8>) {
    for (n, (name, fact)) in facts.iter().enumerate() {
        out.push(if n == 0 { b'{' } else { b',' });
        let unit = if matches!(fact, Fact::Age(_)) {
            "_ms"
        } else {
            ""
        };
        put(out, format_args!("\"{name}{unit}\":"));
        fact.json(out);
    }
    out.extend_from_slice(b"}\n");
}

/// Appends a line for each.
pub(crate) fn put_lines(facts: &Facts<'_>, out: &mut Vec<u8>) {
    for (name, fact) in facts {
        put(out, format_args!("{name:<24} "));
        fact.word(out);
        out.push(b'\n');
    }
}

impl Fact<'_> {
    fn json(&self, out: &mut Vec<u8>) {
        match self {
            Self::Text(text) | Self::Known(Some(text)) => escape::for_json(text, out),
            Self::Number(number)
            | Self::Bytes(number)
            | Self::Limit(Some(number))
            | Self::BytesLimit(Some(number)) => put(out, format_args!("{number}")),
            Self::Age(Some(age)) => put(out, format_args!("{}", age.as_millis())),
            Self::Moment(Some(moment)) => {
                out.push(b'"');
                // Writing to memory cannot fail.
                let _ = time::write_exact(*moment, &mut Text(out));
                out.push(b'"');
            }
            Self::Labels(labels) => {
                out.push(b'{');
                for (n, (name, value)) in labels.iter().enumerate() {
                    if n > 0 {
                        out.push(b',');
                    }
                    escape::for_json(name, out);
                    out.push(b':');
                    escape::for_json(value, out);
                }
                out.push(b'}');
            }
            Self::Known(None)
            | Self::Limit(None)
            | Self::BytesLimit(None)
            | Self::Age(None)
            | Self::Moment(None) => out.extend_from_slice(b"null"),
        }
    }

    fn word(&self, out: &mut Vec<u8>) {
        match self {
            Self::Text(text) | Self::Known(Some(text)) => escape::for_field(text.as_bytes(), out),
            Self::Number(number) | Self::Limit(Some(number)) => put(out, format_args!("{number}")),
            Self::Bytes(bytes) | Self::BytesLimit(Some(bytes)) => units::write_bytes(*bytes, out),
            Self::Age(Some(age)) => units::write_duration(*age, out),
            Self::Moment(Some(moment)) => {
                // Writing to memory cannot fail.
                let _ = time::write_exact(*moment, &mut Text(out));
            }
            Self::Labels(labels) => {
                for (n, (name, value)) in labels.iter().enumerate() {
                    if n > 0 {
                        out.push(b' ');
                    }
                    escape::for_field(name.as_bytes(), out);
                    out.push(b'=');
                    escape::for_field(value.as_bytes(), out);
                }
            }
            Self::Known(None) | Self::Moment(None) => out.extend_from_slice(b"unknown"),
            Self::Limit(None) | Self::BytesLimit(None) | Self::Age(None) => {
                out.extend_from_slice(b"none");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_list_is_lines_and_json() {
        let labels = [
            ("a".to_owned(), "b\n".to_owned()),
            ("c".to_owned(), String::new()),
        ]
        .into();
        let facts = vec![
            ("name", Fact::Text("t\u{1b}\"")),
            ("by", Fact::Known(None)),
            ("count", Fact::Limit(None)),
            ("size", Fact::Bytes(2048)),
            ("keep", Fact::Age(Some(Duration::from_secs(86_400)))),
            ("never", Fact::Age(None)),
            ("at", Fact::Moment(Some(0))),
            ("labels", Fact::Labels(&labels)),
        ];
        let text = |put: &dyn Fn(&Facts<'_>, &mut Vec<u8>)| {
            let mut out = Vec::new();
            put(&facts, &mut out);
            String::from_utf8(out).expect("text")
        };
        assert_eq!(
            text(&put_json),
            "{\"name\":\"t\\u001b\\\"\",\"by\":null,\"count\":null,\"size\":2048,\"keep_ms\":86400000,\"never_ms\":null,\"at\":\"1970-01-01T00:00:00.000000Z\",\"labels\":{\"a\":\"b\\n\",\"c\":\"\"}}\n"
        );
        let lines = text(&put_lines);
        for line in [
            "name                     t\\x1b\"\n",
            "by                       unknown\n",
            "count                    none\n",
            "size                     2KiB\n",
            "keep                     1d\n",
            "labels                   a=b\\n c=\n",
        ] {
            assert!(lines.contains(line), "no {line:?} in {lines}");
        }
    }
}
