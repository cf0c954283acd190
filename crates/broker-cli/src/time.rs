//! Moments: reading `@TIME`, writing RFC 3339.
//!
//! Every time that the program prints is UTC, so a time that is typed without an offset is too:
//! what was printed can be pasted back.

use std::fmt::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::fmt::StdFmtWrite;
use jiff::fmt::temporal::DateTimePrinter;
use jiff::tz::TimeZone;

use crate::units;

/// With microseconds, which is all that a record has.
const EXACT: DateTimePrinter = DateTimePrinter::new().precision(Some(6));
/// To the second, for people.
const SHORT: DateTimePrinter = DateTimePrinter::new().precision(Some(0)).separator(b' ');

/// Microseconds since 1970, now.
pub(crate) fn now() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or(Duration::ZERO);
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

/// Reads what follows the `@`: RFC 3339 (also a date alone, UTC unless an offset is given), whole
/// seconds since 1970, or an age before `now`. In microseconds since 1970.
pub(crate) fn parse(text: &str, now: i64) -> Option<i64> {
    if let Some(age) = units::duration(text, false) {
        return now.checked_sub(i64::try_from(age.as_micros()).ok()?);
    }
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse::<i64>().ok()?.checked_mul(1_000_000);
    }
    if let Ok(moment) = text.parse::<Timestamp>() {
        return Some(moment.as_microsecond());
    }
    let civil: DateTime = text.parse().ok()?;
    Some(
        civil
            .to_zoned(TimeZone::UTC)
            .ok()?
            .timestamp()
            .as_microsecond(),
    )
}

/// Writes `2026-11-20T21:29:24.000001Z`. A time beyond the years -9999 to 9999 is written as the
/// nearest one within.
pub(crate) fn write_exact(micros: i64, out: &mut impl Write) -> std::fmt::Result {
    EXACT
        .print_timestamp(&timestamp(micros), StdFmtWrite(out))
        .map_err(|_| std::fmt::Error)
}

/// Writes `2026-11-20 21:29:24Z`.
pub(crate) fn write_short(micros: i64, out: &mut impl Write) -> std::fmt::Result {
    SHORT
        .print_timestamp(&timestamp(micros), StdFmtWrite(out))
        .map_err(|_| std::fmt::Error)
}

fn timestamp(micros: i64) -> Timestamp {
    Timestamp::from_microsecond(micros).unwrap_or(if micros < 0 {
        Timestamp::MIN
    } else {
        Timestamp::MAX
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_800_000_000_000_000;

    fn exact(micros: i64) -> String {
        let mut text = String::new();
        write_exact(micros, &mut text).expect("a string takes everything");
        text
    }

    #[test]
    fn ages_dates_and_seconds() {
        assert_eq!(parse("2h", NOW), Some(NOW - 7_200_000_000));
        assert_eq!(parse("1d", NOW), Some(NOW - 86_400_000_000));
        assert_eq!(parse("1800000000", NOW), Some(NOW));
        assert_eq!(parse("2027-01-15T08:00:00Z", NOW), Some(NOW));
        assert_eq!(parse("2027-01-15T10:00:00+02:00", NOW), Some(NOW));
        assert_eq!(parse("2027-01-15T08:00:00", NOW), Some(NOW));
        assert_eq!(parse("2027-01-15 08:00:00Z", NOW), Some(NOW));
        assert_eq!(parse("2027-01-15", NOW), Some(NOW - 8 * 3_600_000_000));
        assert_eq!(parse("2027-01-15T08:00:00.000001Z", NOW), Some(NOW + 1));
        for wrong in [
            "",
            "yesterday",
            "2h ago",
            "-2h",
            "2027-13-01",
            "2027-01-15T25:00:00Z",
            "99999999999999",
        ] {
            assert_eq!(parse(wrong, NOW), None, "{wrong:?}");
        }
    }

    #[test]
    fn what_was_printed_can_be_pasted_back() {
        for micros in [NOW, NOW + 1, 0, -1, 1_763_674_164_123_456] {
            assert_eq!(parse(&exact(micros), NOW), Some(micros));
        }
        assert_eq!(exact(NOW + 1), "2027-01-15T08:00:00.000001Z");
        let mut short = String::new();
        write_short(NOW + 1, &mut short).expect("a string takes everything");
        assert_eq!(short, "2027-01-15 08:00:00Z");
        assert_eq!(parse(&short, NOW), Some(NOW));
    }

    #[test]
    fn impossible_times_are_written_as_the_nearest() {
        assert!(exact(i64::MAX).starts_with("9999-"));
        assert!(exact(i64::MIN).starts_with("-009999-"));
    }
}
