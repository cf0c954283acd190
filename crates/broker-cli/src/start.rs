//! Places in a room, as `--from` and others take them.

use broker_proto::{Micros, Seq, StartAt};

use crate::exit::Failure;
use crate::time;
use crate::units;

/// Reads `start`, `end`, `SEQ`, `-N` or `@TIME`, given as `what`; `now` is in microseconds since 1970.
pub(crate) fn parse(what: &str, text: &str, now: i64) -> Result<StartAt, Failure> {
    parsed(text, now).ok_or_else(|| {
        Failure::usage(format!(
            "{what} takes start, end, a seq from 1, -N for the last N, or @TIME (such as @2h or @2026-11-20T09:30:00Z), not '{text}'"
        ))
    })
}

fn parsed(text: &str, now: i64) -> Option<StartAt> {
    match text {
        "start" => return Some(StartAt::START),
        "end" => return Some(StartAt::END),
        _ => {}
    }
    if let Some(moment) = text.strip_prefix('@') {
        return Some(StartAt::time(Micros::new(time::parse(moment, now)?)));
    }
    if let Some(last) = text.strip_prefix('-') {
        return Some(StartAt::last(units::number(last)?));
    }
    match units::number(text)? {
        0 => None,
        seq => Some(StartAt::seq(Seq::new(seq))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form() {
        let now = 1_800_000_000_000_000;
        let is = |text, wanted| assert_eq!(parsed(text, now), Some(wanted), "{text}");
        is("start", StartAt::START);
        is("end", StartAt::END);
        is("42", StartAt::seq(Seq::new(42)));
        is("-3", StartAt::last(3));
        is("-0", StartAt::last(0));
        is("@1h", StartAt::time(Micros::new(now - 3_600_000_000)));
        is(
            "@1970-01-01T00:00:01Z",
            StartAt::time(Micros::new(1_000_000)),
        );
        for wrong in [
            "",
            "0",
            "-",
            "+1",
            "--1",
            "1.5",
            "@",
            "@soon",
            "first",
            "18446744073709551616",
        ] {
            assert_eq!(parsed(wrong, now), None, "{wrong:?}");
        }
    }
}
