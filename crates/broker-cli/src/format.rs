//! How messages look: for people, for fields in a pipe, as bytes, as JSON. Scripts rely on the last
//! three: add, never change.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::output::{Text, put};
use crate::{escape, time};

/// One message, as it is printed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry<'a> {
    /// Its room.
    pub(crate) room: &'a str,
    /// The room's epoch.
    pub(crate) epoch: u64,
    /// Its seq.
    pub(crate) seq: u64,
    /// When it was stored, in microseconds since 1970.
    pub(crate) time: i64,
    /// Whom it is from.
    pub(crate) sender: &'a str,
    /// What it says.
    pub(crate) payload: &'a [u8],
}

/// A range of messages that will never come.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Gap<'a> {
    /// The room.
    pub(crate) room: &'a str,
    /// The room's epoch.
    pub(crate) epoch: u64,
    /// The first seq that is missing.
    pub(crate) from: u64,
    /// The last one.
    pub(crate) to: u64,
    /// `trimmed`, `damaged` or `filtered`.
    pub(crate) reason: &'a str,
}

/// Which of the forms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    /// For people: time, sender, text; harmless to the terminal.
    Terminal {
        /// Whether to set off time and sender.
        colour: bool,
    },
    /// One line of four fields with tabs between them.
    Fields,
    /// Payloads, a newline after each.
    Raw,
    /// One JSON object a line.
    Json,
}

impl Style {
    /// Appends a message.
    pub(crate) fn message(self, entry: &Entry<'_>, out: &mut Vec<u8>) {
        match self {
            Self::Terminal { colour } => terminal(entry, colour, out),
            Self::Fields => fields(entry, out),
            Self::Raw => out.extend_from_slice(entry.payload),
            Self::Json => json(entry, out),
        }
        out.push(b'\n');
    }

    /// Appends what tells that the room's history is another one from here on; only JSON has a form for it.
    pub(crate) fn reset(self, room: &str, previous: u64, epoch: u64, next: u64, out: &mut Vec<u8>) {
        if self != Self::Json {
            return;
        }
        out.extend_from_slice(b"{\"reset\":{\"room\":");
        escape::for_json(room, out);
        put(
            out,
            format_args!(",\"previous\":{previous},\"epoch\":{epoch},\"next\":{next}}}}}\n"),
        );
    }

    /// Appends what takes the place of messages that are gone; only JSON has a form for it.
    pub(crate) fn gap(self, gap: &Gap<'_>, out: &mut Vec<u8>) {
        if self != Self::Json {
            return;
        }
        out.extend_from_slice(b"{\"skip\":{\"room\":");
        escape::for_json(gap.room, out);
        put(
            out,
            format_args!(
                ",\"epoch\":{},\"from\":{},\"to\":{},\"reason\":\"{}\"}}}}\n",
                gap.epoch, gap.from, gap.to, gap.reason
            ),
        );
    }
}

fn terminal(entry: &Entry<'_>, colour: bool, out: &mut Vec<u8>) {
    let (dim, bold, plain) = if colour {
        ("\x1b[2m", "\x1b[1m", "\x1b[0m")
    } else {
        ("", "", "")
    };
    put(out, format_args!("{dim}"));
    // Writing to memory cannot fail.
    let _ = time::write_short(entry.time, &mut Text(out));
    put(out, format_args!("{plain} {bold}"));
    escape::for_terminal(entry.sender.as_bytes(), out);
    put(out, format_args!("{plain}  "));
    escape::for_terminal(entry.payload, out);
}

fn fields(entry: &Entry<'_>, out: &mut Vec<u8>) {
    put(out, format_args!("{}\t", entry.seq));
    let _ = time::write_exact(entry.time, &mut Text(out));
    out.push(b'\t');
    escape::for_field(entry.sender.as_bytes(), out);
    out.push(b'\t');
    escape::for_field(entry.payload, out);
}

fn json(entry: &Entry<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"room\":");
    escape::for_json(entry.room, out);
    put(
        out,
        format_args!(
            ",\"epoch\":{},\"seq\":{},\"time\":\"",
            entry.epoch, entry.seq
        ),
    );
    let _ = time::write_exact(entry.time, &mut Text(out));
    out.extend_from_slice(b"\",\"sender\":");
    escape::for_json(entry.sender, out);
    match std::str::from_utf8(entry.payload) {
        Ok(text) => {
            out.extend_from_slice(b",\"text\":");
            escape::for_json(text, out);
        }
        Err(_) => put(
            out,
            format_args!(",\"data\":\"{}\"", STANDARD.encode(entry.payload)),
        ),
    }
    out.push(b'}');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(style: Style, payload: &[u8]) -> Vec<u8> {
        let entry = Entry {
            room: "lobby",
            epoch: 7,
            seq: 42,
            time: 1_800_000_000_000_001,
            sender: "ann",
            payload,
        };
        let mut out = Vec::new();
        style.message(&entry, &mut out);
        out
    }

    #[test]
    fn the_four_forms() {
        let payload = b"h\xc3\xa9llo\tyou\n\x1b[2J";
        assert_eq!(
            written(Style::Raw, payload),
            b"h\xc3\xa9llo\tyou\n\x1b[2J\n"
        );
        assert_eq!(
            written(Style::Fields, payload),
            "42\t2027-01-15T08:00:00.000001Z\tann\théllo\\tyou\\n\\x1b[2J\n".as_bytes()
        );
        assert_eq!(
            written(Style::Json, payload),
            "{\"room\":\"lobby\",\"epoch\":7,\"seq\":42,\"time\":\"2027-01-15T08:00:00.000001Z\",\"sender\":\"ann\",\"text\":\"héllo\\tyou\\n\\u001b[2J\"}\n".as_bytes()
        );
        assert_eq!(
            written(Style::Terminal { colour: false }, payload),
            "2027-01-15 08:00:00Z ann  héllo\tyou\n    \\x1b[2J\n".as_bytes()
        );
        assert_eq!(
            written(Style::Terminal { colour: true }, b"x"),
            b"\x1b[2m2027-01-15 08:00:00Z\x1b[0m \x1b[1mann\x1b[0m  x\n"
        );
    }

    #[test]
    fn bytes_that_are_no_text_are_data() {
        let line = written(Style::Json, b"\xff\x00");
        let value: serde_json::Value = serde_json::from_slice(&line).expect("it is JSON");
        assert_eq!(
            value.get("data").and_then(serde_json::Value::as_str),
            Some("/wA=")
        );
        assert!(value.get("text").is_none());
        assert_eq!(written(Style::Raw, b"\xff\x00"), b"\xff\x00\n");
        assert_eq!(written(Style::Raw, b""), b"\n");
    }

    #[test]
    fn gaps_are_json_only() {
        let gap = Gap {
            room: "lobby",
            epoch: 7,
            from: 3,
            to: 5,
            reason: "trimmed",
        };
        let mut out = Vec::new();
        for style in [Style::Raw, Style::Fields, Style::Terminal { colour: true }] {
            style.gap(&gap, &mut out);
        }
        assert!(out.is_empty());
        Style::Json.gap(&gap, &mut out);
        assert_eq!(out, b"{\"skip\":{\"room\":\"lobby\",\"epoch\":7,\"from\":3,\"to\":5,\"reason\":\"trimmed\"}}\n");
    }
}
