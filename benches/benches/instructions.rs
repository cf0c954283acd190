//! How many instructions each hot path takes for a message. See the crate's documentation for how to run it.

#![expect(clippy::print_stdout, reason = "the numbers are what it is for")]

use std::env;
use std::path::{Path as FilePath, PathBuf};
use std::process::ExitCode;

use broker_benches::callgrind::{CountError, count, look_for_valgrind};
use broker_benches::paths::{PATHS, Path};

/// The argument before the name of a path and a number of messages.
const RUN: &str = "--run";
/// More than this part above the number that was written down is a failure, when that is asked for.
const WORSE_MAX: f64 = 0.10;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    if let [first, name, messages] = arguments.as_slice()
        && first == RUN
    {
        return run(name, messages);
    }
    let filters: Vec<&String> = arguments
        .iter()
        .filter(|argument| !argument.starts_with("--"))
        .collect();
    let wanted = |path: &&Path| {
        filters.is_empty() || filters.iter().any(|filter| path.name.contains(*filter))
    };
    let paths: Vec<&Path> = PATHS.iter().filter(wanted).collect();
    // Cargo passes this when it is to measure, and not when it only tests that benchmarks run.
    if !has("--bench") {
        for path in paths {
            (path.run)(path.messages);
            println!("{}: ran", path.name);
        }
        return ExitCode::SUCCESS;
    }
    match look_for_valgrind() {
        Ok(()) => measure(&paths, has("--check")),
        Err(CountError::Absent) => {
            println!("instructions: not counted, because there is no valgrind here");
            ExitCode::SUCCESS
        }
        Err(CountError::Failed(why)) => {
            println!("instructions: valgrind does not run: {why}");
            ExitCode::FAILURE
        }
    }
}

/// Does the work that is counted.
fn run(name: &str, messages: &str) -> ExitCode {
    let path = PATHS.iter().find(|path| path.name == name);
    let (Some(path), Ok(messages)) = (path, messages.parse()) else {
        println!("{RUN} needs the name of a path and a number of messages");
        return ExitCode::FAILURE;
    };
    (path.run)(messages);
    ExitCode::SUCCESS
}

fn measure(paths: &[&Path], check: bool) -> ExitCode {
    println!("instructions a message, and the change since they were written down");
    let mut outcome = ExitCode::SUCCESS;
    for path in paths {
        match count_one(path) {
            Ok(counted) => {
                let change = counted / path.recorded - 1.0;
                println!(
                    "{:>18} {counted:>8.1} {:>+6.1} %  {}",
                    path.name,
                    change * 100.0,
                    path.what
                );
                if check && change > WORSE_MAX {
                    println!("{:>18} is worse than {:.1}", path.name, path.recorded);
                    outcome = ExitCode::FAILURE;
                }
            }
            Err(error) => {
                println!("{:>18} {error:?}", path.name);
                outcome = ExitCode::FAILURE;
            }
        }
    }
    outcome
}

/// The instructions of a message: those of twice as many messages, less those of as many.
fn count_one(path: &Path) -> Result<f64, CountError> {
    let program = env::current_exe().map_err(|error| CountError::Failed(error.to_string()))?;
    let profile =
        FilePath::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{}.callgrind", path.name));
    let counted = |messages: u64, profile: &PathBuf| {
        count(&program, &[RUN, path.name, &messages.to_string()], profile)
    };
    let once = counted(path.messages, &profile)?;
    let twice = counted(2 * path.messages, &profile)?;
    let a_message = twice.saturating_sub(once) as f64 / path.messages as f64;
    Ok(a_message)
}
