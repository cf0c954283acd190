//! Numbers for people: three digits, and a unit that keeps them short.

use crate::stats::Spread;

/// `1.23 M`, `456 k`, `7.89 k`, `12`.
pub(crate) fn count(value: f64) -> String {
    match value {
        v if v >= 1e6 => format!("{} M", digits(v / 1e6)),
        v if v >= 1e3 => format!("{} k", digits(v / 1e3)),
        v => digits(v),
    }
}

/// Microseconds as `123 us`, `1.23 ms`, `1.23 s`.
pub(crate) fn latency(micros: f64) -> String {
    match micros {
        v if v >= 1e6 => format!("{} s", digits(v / 1e6)),
        v if v >= 1e3 => format!("{} ms", digits(v / 1e3)),
        v => format!("{} us", digits(v)),
    }
}

/// `12.3 MiB`.
pub(crate) fn bytes(value: f64) -> String {
    match value {
        v if v >= f64::from(1 << 30) => format!("{} GiB", digits(v / f64::from(1 << 30))),
        v if v >= f64::from(1 << 20) => format!("{} MiB", digits(v / f64::from(1 << 20))),
        v if v >= f64::from(1 << 10) => format!("{} KiB", digits(v / f64::from(1 << 10))),
        v => format!("{v:.0} B"),
    }
}

/// Three digits.
pub(crate) fn digits(value: f64) -> String {
    match value.abs() {
        v if v >= 99.95 => format!("{value:.0}"),
        v if v >= 9.995 => format!("{value:.1}"),
        v if v >= 0.01 || v == 0.0 => format!("{value:.2}"),
        _ => format!("{value:.1e}"),
    }
}

/// The median, and the ends in brackets when there is more than one value.
pub(crate) fn spread(spread: Option<Spread>, text: impl Fn(f64) -> String) -> String {
    match spread {
        None => "-".to_owned(),
        Some(spread) if spread.count < 2 => text(spread.median),
        Some(spread) => format!(
            "{} [{}-{}]",
            text(spread.median),
            text(spread.min),
            text(spread.max)
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_digits_and_a_unit() {
        let counts = [0.0, 7.0, 12.34, 999.0, 1000.0, 45_678.0, 1_234_567.0];
        let texts = counts.map(count);
        let expected = ["0.00", "7.00", "12.3", "999", "1.00 k", "45.7 k", "1.23 M"];
        assert_eq!(texts, expected);
        let latencies = [0.5, 123.4, 1234.0, 2_500_000.0].map(latency);
        assert_eq!(latencies, ["0.50 us", "123 us", "1.23 ms", "2.50 s"]);
        assert_eq!(digits(0.001_84), "1.8e-3");
        assert_eq!(digits(99.96), "100");
    }

    #[test]
    fn bytes_have_the_unit_that_keeps_them_short() {
        let texts = [0.0, 1023.0, 2048.0, 3.5e6, 1e13].map(bytes);
        assert_eq!(texts, ["0 B", "1023 B", "2.00 KiB", "3.34 MiB", "9313 GiB"]);
    }

    #[test]
    fn one_value_has_no_ends() {
        assert_eq!(spread(Spread::of([]), count), "-");
        assert_eq!(spread(Spread::of([2.0]), count), "2.00");
        assert_eq!(
            spread(Spread::of([2.0, 1.0, 3.0]), count),
            "2.00 [1.00-3.00]"
        );
    }
}
