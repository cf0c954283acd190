//! Lines of fields and of JSON, for what is found in a log.

use broker_core::log::inspect::{Finding, FindingClass};
use broker_core::log::position::LogPosition;

use crate::escape;
use crate::output::{Text, put};
use crate::time;

/// Writes one JSON object on one line.
pub(super) struct Object<'a> {
    out: &'a mut Vec<u8>,
    is_empty: bool,
}

impl<'a> Object<'a> {
    pub(super) fn new(out: &'a mut Vec<u8>) -> Self {
        out.push(b'{');
        Self {
            out,
            is_empty: true,
        }
    }

    fn key(&mut self, key: &str) {
        if !self.is_empty {
            self.out.push(b',');
        }
        self.is_empty = false;
        escape::for_json(key, self.out);
        self.out.push(b':');
    }

    pub(super) fn text(&mut self, key: &str, text: &str) -> &mut Self {
        self.key(key);
        escape::for_json(text, self.out);
        self
    }

    pub(super) fn number(&mut self, key: &str, number: u64) -> &mut Self {
        self.key(key);
        put(self.out, format_args!("{number}"));
        self
    }

    pub(super) fn flag(&mut self, key: &str, flag: bool) -> &mut Self {
        self.key(key);
        put(self.out, format_args!("{flag}"));
        self
    }

    pub(super) fn null(&mut self, key: &str) -> &mut Self {
        self.key(key);
        self.out.extend_from_slice(b"null");
        self
    }

    /// A moment, or null for none.
    pub(super) fn time(&mut self, key: &str, micros: i64) -> &mut Self {
        self.key(key);
        if micros == 0 || micros == i64::MIN {
            self.out.extend_from_slice(b"null");
            return self;
        }
        self.out.push(b'"');
        // Writing to memory cannot fail.
        let _ = time::write_exact(micros, &mut Text(self.out));
        self.out.push(b'"');
        self
    }

    /// A place in the log, or null for none.
    pub(super) fn place(&mut self, key: &str, at: LogPosition) -> &mut Self {
        if at == LogPosition::NONE {
            self.null(key)
        } else {
            self.number(key, at.get())
        }
    }

    pub(super) fn numbers(&mut self, key: &str, numbers: impl Iterator<Item = u64>) -> &mut Self {
        self.key(key);
        let list: Vec<String> = numbers.map(|number| number.to_string()).collect();
        put(self.out, format_args!("[{}]", list.join(",")));
        self
    }

    pub(super) fn end(self) {
        self.out.extend_from_slice(b"}\n");
    }
}

/// A finding as a JSON line.
pub(super) fn finding_json(finding: &Finding, out: &mut Vec<u8>) {
    let place = &finding.place;
    let mut line = Object::new(out);
    line.text("finding", finding.class.word())
        .text("part", place.part.word())
        .text("file", &place.file)
        .number("offset", place.offset)
        .number("from", place.from.get())
        .number("upto", place.upto.get());
    if let Some(span) = &place.room {
        match &span.name {
            Some(name) => line.text("room", name),
            None => line.null("room"),
        };
        line.number("room_number", span.room.get().into())
            .number("first_seq", span.first.get())
            .number("last_seq", span.last.get());
    }
    if let Some(detail) = &finding.detail {
        line.text("detail", detail);
    }
    line.end();
}

/// A finding as words.
pub(super) fn finding_words(finding: &Finding) -> String {
    let place = &finding.place;
    let mut words = format!(
        "{}  {} in {} at byte {}",
        finding.class.word(),
        place.part.word(),
        place.file,
        place.offset
    );
    if place.upto > place.from {
        words.push_str(&format!(", log {} to {}", place.from, place.upto));
    }
    if let Some(span) = &place.room {
        match &span.name {
            Some(name) => words.push_str(&format!(", room {name}")),
            None => words.push_str(&format!(", room number {}", span.room)),
        }
        words.push_str(&format!(" seq {}", span.first));
        if span.last > span.first {
            words.push_str(&format!(" to {}", span.last));
        }
    }
    if let Some(detail) = &finding.detail {
        words.push_str(&format!(" ({detail})"));
    }
    if finding.class == FindingClass::Tail {
        words.push_str(" (behind what is proven durable: cut short or being written, no damage)");
    }
    words
}

/// The same, harmless on a terminal, as a line.
pub(super) fn finding_line(finding: &Finding, out: &mut Vec<u8>) {
    escape::for_field(finding_words(finding).as_bytes(), out);
    out.push(b'\n');
}
