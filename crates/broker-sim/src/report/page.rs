//! The page, for people.

use std::fmt;

use super::{Ran, Report};
use crate::campaign::Harm;

/// What is added up at the top, and what one of it is called.
const FIGURES: [(&str, &str); 11] = [
    ("states", "crash states"),
    ("cuts", "power cuts on a real kernel"),
    ("points", "system calls killed, failed or made to lie"),
    ("kills", "leaders and heirs killed"),
    ("schedules", "schedules of threads"),
    ("inputs", "inputs to parsers and recovery"),
    ("flips", "bits flipped"),
    ("blows", "blocks and bits damaged at random"),
    ("cases", "cases of damage and alarm"),
    ("seeds", "networks simulated"),
    ("acks", "acknowledgements checked by real processes"),
];

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "What the log survived")?;
        for (name, value) in &self.setting {
            writeln!(f, "  {name:10} {value}")?;
        }
        writeln!(
            f,
            "\nTried, in {} minutes",
            self.took.as_secs().div_ceil(60)
        )?;
        for (what, words) in FIGURES {
            let total = grouped(self.total(what));
            writeln!(f, "  {total:>14} {words}")?;
        }
        writeln!(f, "\nFound")?;
        for harm in Harm::ALL {
            writeln!(f, "  {:>14} {}", self.broken(harm), harm.as_str())?;
        }
        let failed = self.ran.iter().filter(|ran| ran.failure.is_some()).count();
        writeln!(
            f,
            "  {failed:>14} of {} groups of tests failed",
            self.ran.len()
        )?;
        self.bugs(f)?;
        writeln!(f, "\nSkipped")?;
        let skipped: Vec<&Ran> = self
            .ran
            .iter()
            .filter(|ran| !ran.skipped.is_empty())
            .collect();
        if skipped.is_empty() {
            writeln!(f, "  nothing")?;
        }
        for ran in skipped {
            writeln!(f, "  {}: {}", ran.name, ran.skipped.join(", "))?;
        }
        writeln!(f, "\nTest by test")?;
        self.ran.iter().try_for_each(|ran| details(f, ran))
    }
}

impl Report {
    fn bugs(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\nBugs planted on purpose")?;
        if self.planted.is_empty() {
            return writeln!(f, "  not asked for");
        }
        let caught = self.planted.iter().filter(|bug| bug.is_caught()).count();
        writeln!(f, "  {caught} of {} caught", self.planted.len())?;
        for bug in &self.planted {
            writeln!(f, "  {bug}")?;
        }
        Ok(())
    }
}

fn details(f: &mut fmt::Formatter<'_>, ran: &Ran) -> fmt::Result {
    let verdict = if ran.failure.is_some() {
        "FAILED"
    } else {
        "held"
    };
    let seconds = ran.took.as_secs_f64();
    writeln!(f, "  {:28} {seconds:8.1} s  {verdict}", ran.name)?;
    for tally in &ran.tallies {
        write!(f, "    {}:", tally.test())?;
        for (what, count) in tally.counts().filter(|(what, _)| *what != "seed") {
            write!(f, " {} {what}", grouped(count))?;
        }
        writeln!(f)?;
    }
    Ok(())
}

/// A number that can be read: `1,234,567`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::campaign::Tally;
    use crate::planted::{Caught, Outcome};
    use std::time::Duration;

    #[test]
    fn numbers_can_be_read() {
        let read = [0, 999, 1_000, 1_234_567].map(grouped);
        assert_eq!(read, ["0", "999", "1,000", "1,234,567"]);
    }

    #[test]
    fn the_page_says_what_failed_and_what_was_skipped() {
        let mut ran = Ran {
            name: "powercut".to_owned(),
            tallies: vec![Tally::new("powercut_fs", 1).with("cuts", 1_040)],
            skipped: vec!["xfs".to_owned()],
            failure: Some("BROKEN(phantom): seq 4".to_owned()),
            ..Ran::default()
        };
        ran.broken.insert(Harm::Phantom, 1);
        let report = Report {
            ran: vec![ran],
            planted: vec![Caught {
                bug: "trust_tail",
                promise: "P4",
                test: "sim_crash_matrix",
                after: Duration::from_secs(2),
                outcome: Outcome::Missed,
            }],
            ..Report::default()
        };
        let page = report.to_string();
        for line in [
            "         1,040 power cuts on a real kernel",
            "             1 phantom",
            "             1 of 1 groups of tests failed",
            "  0 of 1 caught",
            "  powercut: xfs",
            "    powercut_fs: 1,040 cuts",
        ] {
            assert!(page.contains(line), "{line:?} is not in\n{page}");
        }
        assert!(!report.is_clean());
    }
}
