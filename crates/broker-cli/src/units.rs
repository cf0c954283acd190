//! Durations and sizes as people type them.
//!
//! A duration is whole numbers with units (`90s`, `1h30m`, `250ms`, `2d`); a size is one number
//! with an optional unit (`128`, `64KiB`, `1MB`). Both refuse what they do not know.

use std::time::Duration;

use crate::output::put;

/// Reads a duration. A number without a unit is refused unless it is the whole text and
/// `bare_seconds` is set, as for `--timeout 10`.
pub(crate) fn duration(text: &str, bare_seconds: bool) -> Option<Duration> {
    if bare_seconds && !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(Duration::from_secs(text.parse().ok()?));
    }
    let mut rest = text;
    let mut total = Duration::ZERO;
    loop {
        let (number, after) = split_where(rest, |byte| !byte.is_ascii_digit())?;
        let (unit, after) = split_where(after, |byte| byte.is_ascii_digit())?;
        let number: u64 = number.parse().ok()?;
        let part = match unit {
            "ms" => Duration::from_millis(number),
            "s" => Duration::from_secs(number),
            "m" => Duration::from_secs(number.checked_mul(60)?),
            "h" => Duration::from_secs(number.checked_mul(3600)?),
            "d" => Duration::from_secs(number.checked_mul(86_400)?),
            "w" => Duration::from_secs(number.checked_mul(604_800)?),
            _ => return None,
        };
        total = total.checked_add(part)?;
        if after.is_empty() {
            return Some(total);
        }
        rest = after;
    }
}

/// Reads a size in bytes.
pub(crate) fn bytes(text: &str) -> Option<u64> {
    let (number, unit) = split_where(text, |byte| !byte.is_ascii_digit())?;
    let number: u64 = number.parse().ok()?;
    let factor = match unit {
        "" | "B" => 1,
        "kB" => 1000,
        "KiB" => 1 << 10,
        "MB" => 1_000_000,
        "MiB" => 1 << 20,
        "GB" => 1_000_000_000,
        "GiB" => 1 << 30,
        "TB" => 1_000_000_000_000,
        "TiB" => 1 << 40,
        _ => return None,
    };
    number.checked_mul(factor)
}

/// Reads a number: digits only, while the standard library would take a plus sign too.
pub(crate) fn number(text: &str) -> Option<u64> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        text.parse().ok()
    } else {
        None
    }
}

/// A duration as [`duration`] reads it, in whole milliseconds, rounded down.
pub(crate) fn write_duration(duration: Duration, out: &mut Vec<u8>) {
    let units = [
        (86_400_000, "d"),
        (3_600_000, "h"),
        (60_000, "m"),
        (1000, "s"),
        (1, "ms"),
    ];
    let mut left = duration.as_millis();
    if left == 0 {
        out.extend_from_slice(b"0ms");
    }
    for (millis, unit) in units {
        let count = left / millis;
        left %= millis;
        if count > 0 {
            put(out, format_args!("{count}{unit}"));
        }
    }
}

/// A size as [`bytes()`] reads it: with a unit when it is a whole number of them.
pub(crate) fn write_bytes(bytes: u64, out: &mut Vec<u8>) {
    let units = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
    let whole = |shift: u32| bytes != 0 && bytes.trailing_zeros() >= shift;
    match units.into_iter().find(|(shift, _)| whole(*shift)) {
        Some((shift, unit)) => put(out, format_args!("{}{unit}", bytes >> shift)),
        None => put(out, format_args!("{bytes}")),
    }
}

/// Splits before the first byte that `stop` accepts, or at the end; `None` when nothing is before.
fn split_where(text: &str, stop: impl Fn(u8) -> bool) -> Option<(&str, &str)> {
    let at = text.bytes().position(stop).unwrap_or(text.len());
    if at == 0 {
        None
    } else {
        text.split_at_checked(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        assert_eq!(duration("250ms", false), Some(Duration::from_millis(250)));
        assert_eq!(duration("90s", false), Some(Duration::from_secs(90)));
        assert_eq!(duration("1h30m", false), Some(Duration::from_secs(5400)));
        assert_eq!(
            duration("2w1d", false),
            Some(Duration::from_secs(15 * 86_400))
        );
        assert_eq!(duration("10", true), Some(Duration::from_secs(10)));
        for wrong in [
            "",
            "10",
            "s",
            "10x",
            "1h30",
            "-1s",
            "1.5s",
            "1 s",
            "99999999999999999999s",
            "9999999999999999999w",
            "1hé",
        ] {
            assert_eq!(duration(wrong, false), None, "{wrong:?}");
        }
        assert_eq!(duration("", true), None);
    }

    #[test]
    fn sizes_have_one_unit() {
        assert_eq!(bytes("128"), Some(128));
        assert_eq!(bytes("64KiB"), Some(65_536));
        assert_eq!(bytes("1MB"), Some(1_000_000));
        assert_eq!(bytes("3GiB"), Some(3 << 30));
        assert_eq!(bytes("2TiB"), Some(2 << 40));
        assert_eq!(bytes("1GB"), Some(1_000_000_000));
        assert_eq!(bytes("1TB"), Some(1_000_000_000_000));
        for wrong in [
            "",
            "KiB",
            "1k",
            "1KB",
            "1KiBKiB",
            "-1",
            "18446744073709551615KiB",
            "1é",
        ] {
            assert_eq!(bytes(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn what_is_written_can_be_typed() {
        let text = |write: &dyn Fn(&mut Vec<u8>)| {
            let mut out = Vec::new();
            write(&mut out);
            String::from_utf8(out).expect("text")
        };
        for (millis, wanted) in [
            (0, "0ms"),
            (250, "250ms"),
            (90_000, "1m30s"),
            (5_400_000, "1h30m"),
            (604_800_000, "7d"),
            (604_800_001, "7d1ms"),
        ] {
            let age = Duration::from_millis(millis);
            let written = text(&|out| write_duration(age, out));
            assert_eq!(
                (written.as_str(), duration(&written, false)),
                (wanted, Some(age))
            );
        }
        for (size, wanted) in [
            (0, "0"),
            (1000, "1000"),
            (1024, "1KiB"),
            (1 << 30, "1GiB"),
            (3 << 40, "3TiB"),
            ((1 << 30) + 1, "1073741825"),
        ] {
            let written = text(&|out| write_bytes(size, out));
            assert_eq!((written.as_str(), bytes(&written)), (wanted, Some(size)));
        }
    }
}
