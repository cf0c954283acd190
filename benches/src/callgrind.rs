//! Counts the instructions of another run of the same program, with `valgrind --tool=callgrind`.

use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

/// Why nothing was counted.
#[derive(Debug)]
pub enum CountError {
    /// There is no valgrind here.
    Absent,
    /// Valgrind, or what it ran, failed.
    Failed(String),
}

/// Whether valgrind is there.
///
/// # Errors
/// [`CountError`] says why it cannot be used.
pub fn look_for_valgrind() -> Result<(), CountError> {
    let output = Command::new("valgrind").arg("--version").output();
    match output {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(CountError::Failed(
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(CountError::Absent),
        Err(error) => Err(CountError::Failed(error.to_string())),
    }
}

/// Instructions that a program takes, all of its threads together. Its profile is left in `profile`.
///
/// # Errors
/// [`CountError`] says what failed.
pub fn count(program: &Path, arguments: &[&str], profile: &Path) -> Result<u64, CountError> {
    let failed = |what: String| CountError::Failed(what);
    let output = Command::new("valgrind")
        .arg("--tool=callgrind")
        .arg(format!("--callgrind-out-file={}", profile.display()))
        .arg(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| failed(error.to_string()))?;
    if !output.status.success() {
        return Err(failed(String::from_utf8_lossy(&output.stderr).into_owned()));
    }
    let profile = std::fs::read_to_string(profile).map_err(|error| failed(error.to_string()))?;
    total(&profile).ok_or_else(|| failed("the profile has no total".to_owned()))
}

/// The total of a profile: the last line that gives one.
fn total(profile: &str) -> Option<u64> {
    let line = profile.lines().rev().find_map(|line| {
        line.strip_prefix("totals: ")
            .or(line.strip_prefix("summary: "))
    })?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::total;

    #[test]
    fn the_total_is_the_number_behind_its_word() {
        let profile = "events: Ir\nsummary: 12\n\nfn=(1) a\n3 4\n\ntotals: 34567\n";
        assert_eq!(total(profile), Some(34_567));
        assert_eq!(total("events: Ir\nsummary: 12\n"), Some(12));
        assert_eq!(total("events: Ir\n"), None);
    }
}
