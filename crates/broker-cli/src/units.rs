//! Durations and sizes as people type them.
//!
//! A duration is whole numbers with units (`90s`, `1h30m`, `250ms`, `2d`); a size is one number
//! with an optional unit (`128`, `64KiB`, `1MB`). Both refuse what they do not know.

use std::time::Duration;

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
        _ => return None,
    };
    number.checked_mul(factor)
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
}
