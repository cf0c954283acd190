//! The rules of names, each broken once.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use broker_proto::{CursorName, NameError, RoomName, SenderName, fuzzing};
use proptest::prelude::*;
use unicode_normalization::is_nfc;

fn refusal(name: &str) -> String {
    RoomName::parse(name).unwrap_err().to_string()
}

#[test]
fn good_names_are_accepted() {
    let longest = "x".repeat(128);
    for name in [
        "a",
        "tea",
        "Tea",
        "a-b.c",
        "küche",
        "茶",
        "👩\u{200d}💻",
        "a@b",
        "x$",
        "dead",
        "a.deadly",
        "#1",
        &longest,
    ] {
        assert_eq!(RoomName::parse(name).unwrap(), name);
        assert_eq!(CursorName::parse(name).unwrap(), name);
    }
    assert_eq!(SenderName::parse(&"x".repeat(64)).unwrap().len(), 64);
}

#[test]
fn every_ascii_character_is_allowed_or_refused_wherever_it_stands() {
    for found in (0..=0x7f_u8).map(char::from) {
        let is_allowed = found.is_ascii_graphic() && !r"/\*>?".contains(found);
        for name in [
            format!("a{found}b"),
            format!("ab{found}"),
            format!("ä{found}b"),
        ] {
            assert_eq!(RoomName::parse(&name).is_ok(), is_allowed, "{name:?}");
        }
        for name in [format!("{found}"), format!("{found}b"), format!("{found}ä")] {
            let is_allowed = is_allowed && !"-.@$".contains(found);
            assert_eq!(RoomName::parse(&name).is_ok(), is_allowed, "{name:?}");
        }
    }
}

#[test]
fn a_name_is_not_empty() {
    assert_eq!(refusal(""), "the room name is empty");
    assert_eq!(
        SenderName::parse("").unwrap_err().to_string(),
        "the sender name is empty"
    );
    assert_eq!(
        CursorName::parse("").unwrap_err().to_string(),
        "the cursor name is empty"
    );
}

#[test]
fn a_name_is_not_too_long() {
    assert_eq!(
        refusal(&"x".repeat(129)),
        "the room name has 129 bytes, at most 128 are allowed"
    );
    assert_eq!(
        refusal(&"ä".repeat(65)),
        "the room name has 130 bytes, at most 128 are allowed"
    );
    let long = SenderName::parse(&"x".repeat(65)).unwrap_err();
    assert_eq!(
        long.to_string(),
        "the sender name has 65 bytes, at most 64 are allowed"
    );
    assert!(CursorName::parse(&"x".repeat(129)).is_err());
}

#[test]
fn a_name_has_no_control_character() {
    for (name, found) in [
        ("ab\n", "a"),
        ("ab\u{0}", "0"),
        ("ab\u{7f}", "7f"),
        ("ab\u{9b}", "9b"),
    ] {
        assert_eq!(
            refusal(name),
            format!("the room name has the control character '\\u{{{found}}}' at byte 2")
        );
    }
}

#[test]
fn a_name_has_no_bidirectional_character() {
    let all = [
        '\u{61c}', '\u{200e}', '\u{200f}', '\u{202a}', '\u{202e}', '\u{2066}', '\u{2069}',
    ];
    for found in all {
        let expected = format!(
            "the room name has the bidirectional character '{}' at byte 1",
            found.escape_unicode()
        );
        assert_eq!(refusal(&format!("a{found}")), expected);
    }
}

#[test]
fn a_name_has_no_white_space() {
    for found in [
        ' ', '\u{a0}', '\u{2003}', '\u{3000}', '\u{2028}', '\u{200b}', '\u{2060}', '\u{feff}',
    ] {
        let expected = format!(
            "the room name has the white space '{}' at byte 1",
            found.escape_unicode()
        );
        assert_eq!(refusal(&format!("a{found}b")), expected);
    }
}

#[test]
fn a_name_has_no_character_of_paths_and_patterns() {
    for found in ['/', '\\', '*', '>', '?'] {
        let expected = format!("the room name has the character '{found}' at byte 1");
        assert_eq!(refusal(&format!("a{found}b")), expected);
    }
}

#[test]
fn a_name_does_not_start_like_an_option_or_a_hidden_file() {
    assert_eq!(refusal("-a"), "the room name starts with '-'");
    assert_eq!(refusal(".a"), "the room name starts with '.'");
    assert_eq!(refusal(".."), "the room name starts with '.'");
}

#[test]
fn a_name_is_in_nfc() {
    let expected = "the room name is not in Unicode's normal form NFC from byte 1 on ('\\u{65}')";
    assert_eq!(refusal("ae\u{301}"), expected);
    assert!(matches!(
        RoomName::parse("\u{212b}"),
        Err(NameError::NotNfc {
            at: 0,
            found: '\u{212b}',
            ..
        })
    ));
    assert!(RoomName::parse("aé").is_ok());
}

#[test]
fn the_brokers_names_are_reserved() {
    for (name, why) in [
        ("@ann", "starts with '@'"),
        ("$sys", "starts with '$'"),
        ("tea.dead", "ends in \".dead\""),
    ] {
        let error = RoomName::parse(name).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("the room name {why}: such names belong to the broker")
        );
        assert_eq!(error.code().name(), "reserved_name");
        let room = RoomName::parse_reserved(name).unwrap();
        assert!(room.is_reserved());
        assert_eq!(CursorName::parse(name).unwrap(), name);
    }
    assert!(!RoomName::parse_reserved("tea").unwrap().is_reserved());
    assert_eq!(
        RoomName::parse_reserved("@a/b").unwrap_err().code().name(),
        "bad_name"
    );
}

#[test]
fn a_sender_has_no_at_sign_and_is_not_the_brokers() {
    for name in ["@ann", "a@b", "ann@"] {
        let at = name.find('@').unwrap();
        let error = SenderName::parse(name).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("the sender name has the character '@' at byte {at}")
        );
    }
    assert_eq!(
        SenderName::parse("$sys").unwrap_err().code().name(),
        "reserved_name"
    );
    assert_eq!(
        SenderName::parse("ann.dead").unwrap_err().code().name(),
        "reserved_name"
    );
}

#[test]
fn case_counts() {
    assert_ne!(
        RoomName::parse("tea").unwrap(),
        RoomName::parse("Tea").unwrap()
    );
}

proptest! {
    #[test]
    fn parsing_any_text_never_panics(text in any::<String>()) {
        fuzzing::name(text.as_bytes());
    }

    #[test]
    fn accepted_names_are_in_nfc(text in "[a-zé\u{300}-\u{310}\u{1100}-\u{1120}\u{1161}-\u{1170}ÅΩ]{1,8}") {
        prop_assert_eq!(RoomName::parse(&text).is_ok(), is_nfc(&text));
    }
}
