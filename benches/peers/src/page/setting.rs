//! [`Setting`]: when, where and of what figures are, above the tables of a command.

use std::fmt::Write as _;

use anyhow::Result;

use super::{limits_line, machine_line};
use crate::curves::Lab;
use crate::gauge::limits::Limits;
use crate::gauge::machine::Machine;
use crate::peer::Tool;

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Setting {
    machine: Machine,
    limits: Limits,
    version: String,
    /// The day, in UTC.
    date: String,
}

impl Setting {
    /// Of what is about to be measured.
    pub(crate) fn of(lab: &Lab<'_>) -> Result<Self> {
        Ok(Self {
            machine: Machine::here(lab.base),
            limits: Limits::measure(lab.base)?,
            version: lab.tools.version(Tool::Brokerd).unwrap_or_default(),
            date: jiff::Timestamp::now().strftime("%Y-%m-%d").to_string(),
        })
    }

    /// Writes it.
    pub(crate) fn write(&self, page: &mut String) -> Result<()> {
        writeln!(page, "- {}", machine_line(&self.machine))?;
        writeln!(page, "- Before: {}.", limits_line(&self.limits))?;
        writeln!(page, "- {}, {}\n", self.version, self.date)?;
        Ok(())
    }

    #[cfg(test)]
    pub(crate) fn made_up() -> Self {
        let quantiles = crate::stats::Quantiles {
            p50: 100.0,
            p99: 1000.0,
            p999: 2000.0,
        };
        Self {
            machine: Machine {
                processor: "Abacus".to_owned(),
                cores: 2,
                memory: 24 << 30,
                kernel: "6.1".to_owned(),
                system: "Debian".to_owned(),
                disk: "ext4 on vda".to_owned(),
            },
            limits: Limits {
                write_sync: quantiles,
                direct: true,
                round_trip: quantiles,
            },
            version: "brokerd 9".to_owned(),
            date: "2026-11-21".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    #[test]
    fn machine_limits_version_and_day_are_told() {
        let mut page = String::new();
        Setting::made_up().write(&mut page).unwrap();
        let lines: Vec<&str> = page.lines().collect();
        assert_eq!(lines.len(), 4, "{page}");
        assert!(
            page.starts_with("- Machine: Abacus, 2 threads")
                && page.contains("data on ext4 on vda")
        );
        assert!(
            page.contains("- Before: bare write+sync of 4 KiB p50 100 us, p99 1.00 ms"),
            "{page}"
        );
        assert!(page.ends_with("- brokerd 9, 2026-11-21\n\n"));
    }
}
