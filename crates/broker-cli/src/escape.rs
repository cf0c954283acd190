//! Making bytes visible: messages come from strangers, and terminals obey what they print.
//!
//! Four audiences: a terminal (line breaks stay, indented, so that no message can pretend to be
//! another), a line of fields (one line a message, reversible), words on standard error, and JSON.
//! In all four, control characters (C0, DEL, C1), line and paragraph separators, and the
//! characters that change direction or hide are escaped.

use crate::output::put;

/// Text for a terminal: as it is, but made harmless. Continuation lines are indented.
pub(crate) fn for_terminal(bytes: &[u8], out: &mut Vec<u8>) {
    visible(bytes, out, |c, out| match c {
        '\n' => out.extend_from_slice(b"\n    "),
        '\t' => out.push(b'\t'),
        c => escaped(c, out),
    });
}

/// Text for the last field of a line. Reversible: a backslash is doubled.
pub(crate) fn for_field(bytes: &[u8], out: &mut Vec<u8>) {
    visible(bytes, out, escaped);
}

/// Words for standard error.
pub(crate) fn for_words(text: &str, out: &mut Vec<u8>) {
    visible(text.as_bytes(), out, |c, out| {
        if matches!(c, '\n' | '\\') {
            out.push(c as u8)
        } else {
            escaped(c, out)
        }
    });
}

/// A JSON string with its quotes.
pub(crate) fn for_json(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    let mut plain = 0;
    for (at, c) in text.char_indices() {
        if c != '"' && !is_special(c) {
            continue;
        }
        out.extend_from_slice(text.as_bytes().get(plain..at).unwrap_or_default());
        plain = at + c.len_utf8();
        match c {
            '"' => out.extend_from_slice(b"\\\""),
            '\\' => out.extend_from_slice(b"\\\\"),
            '\n' => out.extend_from_slice(b"\\n"),
            '\r' => out.extend_from_slice(b"\\r"),
            '\t' => out.extend_from_slice(b"\\t"),
            c => unicode_escape(c, out),
        }
    }
    out.extend_from_slice(text.as_bytes().get(plain..).unwrap_or_default());
    out.push(b'"');
}

/// A JSON text on one line: what is special in its strings is escaped, which says the same. White
/// space between values, the only place where JSON has bare line ends and tabs, becomes spaces.
pub(crate) fn json_text(text: &str, out: &mut Vec<u8>) {
    for c in text.chars() {
        match c {
            '\\' => out.push(b'\\'),
            '\n' | '\r' | '\t' => out.push(b' '),
            c if is_special(c) => unicode_escape(c, out),
            c => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
}

fn unicode_escape(c: char, out: &mut Vec<u8>) {
    c.encode_utf16(&mut [0; 2])
        .iter()
        .for_each(|unit| put(out, format_args!("\\u{unit:04x}")));
}

/// Appends `bytes`: UTF-8 without special characters as it is, special characters as `special`
/// writes them, other bytes as `\xff`.
fn visible(bytes: &[u8], out: &mut Vec<u8>, special: impl Fn(char, &mut Vec<u8>)) {
    for chunk in bytes.utf8_chunks() {
        let text = chunk.valid();
        let mut plain = 0;
        for (at, c) in text.char_indices() {
            if is_special(c) {
                out.extend_from_slice(text.as_bytes().get(plain..at).unwrap_or_default());
                plain = at + c.len_utf8();
                special(c, out);
            }
        }
        out.extend_from_slice(text.as_bytes().get(plain..).unwrap_or_default());
        for byte in chunk.invalid() {
            put(out, format_args!("\\x{byte:02x}"));
        }
    }
}

fn escaped(c: char, out: &mut Vec<u8>) {
    match c {
        '\\' => out.extend_from_slice(b"\\\\"),
        '\n' => out.extend_from_slice(b"\\n"),
        '\r' => out.extend_from_slice(b"\\r"),
        '\t' => out.extend_from_slice(b"\\t"),
        c if c.is_ascii() => put(out, format_args!("\\x{:02x}", u32::from(c))),
        c => put(out, format_args!("\\u{{{:x}}}", u32::from(c))),
    }
}

/// Whether a character is not printed as it is: the backslash, because escapes begin with it, and
/// everything that moves the cursor, changes the direction or cannot be seen.
fn is_special(c: char) -> bool {
    match c {
        ' '..='[' | ']'..='~' => false,
        '\\' => true,
        c => {
            c.is_control()
                || matches!(c, '\u{61c}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}')
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(bytes: &[u8]) -> String {
        let mut out = Vec::new();
        for_field(bytes, &mut out);
        String::from_utf8(out).expect("escaped text is UTF-8")
    }

    fn terminal(bytes: &[u8]) -> String {
        let mut out = Vec::new();
        for_terminal(bytes, &mut out);
        String::from_utf8(out).expect("escaped text is UTF-8")
    }

    fn json(text: &str) -> String {
        let mut out = Vec::new();
        for_json(text, &mut out);
        String::from_utf8(out).expect("JSON is UTF-8")
    }

    #[test]
    fn a_field_is_one_line_and_reversible() {
        assert_eq!(field(b"plain \xc3\xa9 text"), "plain é text");
        assert_eq!(field(b"a\tb\nc\r\\n"), "a\\tb\\nc\\r\\\\n");
        assert_eq!(field(b"\x1b[31m\x00\x7f"), "\\x1b[31m\\x00\\x7f");
        assert_eq!(
            field("\u{9b}31m \u{202e}abc \u{2028}".as_bytes()),
            "\\u{9b}31m \\u{202e}abc \\u{2028}"
        );
        assert_eq!(field(b"ok\xff\xfe\xc3"), "ok\\xff\\xfe\\xc3");
        assert_eq!(field(b""), "");
    }

    #[test]
    fn a_terminal_is_told_nothing_that_it_would_obey() {
        assert_eq!(terminal(b"\x1b]0;title\x07"), "\\x1b]0;title\\x07");
        assert_eq!(terminal(b"one\ntwo\tthree"), "one\n    two\tthree");
        assert_eq!(
            terminal("\u{202e}\u{200f}".as_bytes()),
            "\\u{202e}\\u{200f}"
        );
        assert_eq!(
            terminal("a👩‍👩‍👧b".as_bytes()),
            "a👩‍👩‍👧b",
            "the joiner in emoji stays"
        );
    }

    #[test]
    fn a_json_text_keeps_its_meaning_on_one_line() {
        let text = "{\n\t\"a\\n\": [1, \"\u{202e}\\\\\u{9b}é\"]\r\n}";
        let mut out = Vec::new();
        json_text(text, &mut out);
        let written = String::from_utf8(out).expect("JSON is UTF-8");
        assert_eq!(written, "{  \"a\\n\": [1, \"\\u202e\\\\\\u009bé\"]  }");
        let value = |text| serde_json::from_str::<serde_json::Value>(text).expect("it is JSON");
        assert_eq!(value(&written), value(text));
    }

    #[test]
    fn json_says_the_same_with_harmless_characters() {
        let every: String = (0..=0x2100)
            .filter_map(char::from_u32)
            .chain(['\u{feff}', '😀', '\u{10ffff}'])
            .collect();
        let written = json(&every);
        assert_eq!(
            serde_json::from_str::<String>(&written).expect("it is JSON"),
            every
        );
        assert!(!written.chars().any(|c| c.is_control() || c == '\u{202e}'));
        assert_eq!(json("\u{0}\"\u{7f}"), "\"\\u0000\\\"\\u007f\"");
        assert_eq!(json(""), "\"\"");
    }
}
