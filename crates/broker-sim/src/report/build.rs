//! Has cargo build the tests, and finds the executables.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::{env, fs, io};

use super::other;

/// One test target of the workspace.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Target {
    /// Its package.
    pub(crate) package: &'static str,
    /// How cargo is told which of its targets: `--test` and a name, or `--lib`.
    pub(crate) which: &'static [&'static str],
    /// What else cargo has to be told.
    pub(crate) args: &'static [&'static str],
    /// Flags of the compiler, for builds that are kept apart.
    pub(crate) rustflags: Option<&'static str>,
}

/// Cargo, as it was started or as the path finds it.
pub(super) fn cargo() -> Command {
    Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// Builds a target and says where its executable is. What cargo says is shown when it fails.
///
/// # Errors
/// When it cannot be built.
pub(crate) fn build(target: Target) -> io::Result<PathBuf> {
    let mut command = cargo();
    command
        .args(["test", "--no-run", "--package", target.package])
        .args(target.which)
        .args(target.args)
        .stdin(Stdio::null());
    if let Some(flags) = target.rustflags {
        command.env("RUSTFLAGS", flags);
    }
    let output = command.output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(other(format!(
            "{} of {} does not build:\n{said}",
            target.which.join(" "),
            target.package
        )));
    }
    let path = executable(&said);
    let path = path.ok_or_else(|| other(format!("cargo names no executable:\n{said}")))?;
    fs::canonicalize(path)
}

/// The path in `  Executable tests/it/main.rs (target/debug/deps/it-0123)`.
fn executable(said: &str) -> Option<&str> {
    let line = said.lines().find(|line| line.contains("Executable "))?;
    let (_, rest) = line.rsplit_once('(')?;
    rest.strip_suffix(')')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_executable_is_found_in_what_cargo_says() {
        let said = "   Compiling x v0.1.0 (/p)\n    Finished `test` profile [optimized] target(s) in 1s\n  Executable tests/it/main.rs (target/debug/deps/it-f363)\n";
        assert_eq!(executable(said), Some("target/debug/deps/it-f363"));
        assert_eq!(executable("nothing"), None);
    }
}
