//! Runs the tests, module by module.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};
use std::{fs, thread};

use super::build::{Target, build, cargo};
use super::{Ran, Report, other};

/// What is asked of a report.
#[derive(Debug, Clone)]
pub struct Options {
    /// How much more than on every change is tried.
    pub depth: u64,
    /// Where chance begins.
    pub seed: u64,
    /// Only these modules; all when empty.
    pub only: Vec<String>,
    /// For how long each parser is fuzzed, in seconds; not at all with 0.
    pub fuzz_seconds: u64,
    /// Whether bugs are planted, to see them caught.
    pub planted: bool,
    /// Whether the tests are built as a release is.
    pub release: bool,
}

/// The tests with simulated disks, networks, and real processes.
const SIMULATION: Target = Target {
    package: "broker-sim",
    which: &["--test", "it"],
    args: &[],
    rustflags: None,
};

/// The tests of schedules, which have threads of their own kind.
const SCHEDULES: Target = Target {
    package: "broker-core",
    which: &["--test", "schedules"],
    args: &["--no-default-features", "--target-dir", "target/schedules"],
    rustflags: Some("--cfg broker_schedules"),
};

/// Nothing runs longer than this at depth 1; more is a hang.
const PATIENCE: Duration = Duration::from_secs(900);
/// Lines of a failure that are shown.
const LINES_SHOWN: usize = 40;

/// Runs everything and tells `progress` what happens, a line each.
///
/// # Errors
/// When something cannot be built or started. A test that fails is no error but part of the report.
pub fn run(options: &Options, progress: &mut (dyn FnMut(&str) + Send)) -> io::Result<Report> {
    let begun = Instant::now();
    let mut report = Report::default();
    let wants = |name: &str| options.only.is_empty() || options.only.iter().any(|o| o == name);
    let mut target = SIMULATION;
    if options.release {
        target.args = &["--release"];
    }
    progress("building the tests");
    let simulation = build(target)?;
    for (module, tests) in modules(&simulation)? {
        if wants(&module) {
            let mut ran = run_tests(&simulation, SIMULATION.package, &tests, options)?;
            ran.name = module;
            tell(&ran, progress);
            report.ran.push(ran);
        }
    }
    if wants("schedules") {
        progress("building the tests of schedules");
        let executable = build(SCHEDULES)?;
        let mut ran = run_tests(&executable, SCHEDULES.package, &[], options)?;
        "schedules".clone_into(&mut ran.name);
        tell(&ran, progress);
        report.ran.push(ran);
    }
    if options.planted {
        let bugs = crate::planted::Options {
            // What each failure has to say is known of this seed.
            seed: 1,
            only: Vec::new(),
        };
        report.planted = crate::planted::run(&bugs, progress)?;
    }
    for target in fuzz_targets()? {
        if options.fuzz_seconds > 0 && (wants("fuzz") || wants(&target)) {
            let ran = fuzz(&target, options)?;
            tell(&ran, progress);
            report.ran.push(ran);
        }
    }
    report.took = begun.elapsed();
    Ok(report)
}

fn tell(ran: &Ran, progress: &mut dyn FnMut(&str)) {
    let verdict = match (&ran.failure, ran.skipped.as_slice()) {
        (Some(failure), _) => format!("FAILED\n{failure}"),
        (None, []) => "held".to_owned(),
        (None, skipped) => format!("held; skipped {}", skipped.join(", ")),
    };
    let seconds = ran.took.as_secs_f64();
    progress(&format!("{:28} {seconds:8.1} s  {verdict}", ran.name));
}

/// The tests of an executable, by the modules in which they lie.
fn modules(executable: &Path) -> io::Result<BTreeMap<String, Vec<String>>> {
    let listed = Command::new(executable).arg("--list").output()?;
    let text = String::from_utf8_lossy(&listed.stdout);
    let mut modules: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for test in text.lines().filter_map(|line| line.strip_suffix(": test")) {
        if let Some((module, _)) = test.split_once("::") {
            let tests = modules.entry(module.to_owned()).or_default();
            tests.push(test.to_owned());
        }
    }
    if modules.is_empty() {
        return Err(other(format!("{} has no tests", executable.display())));
    }
    Ok(modules)
}

/// Runs exactly these tests, or all of them.
fn run_tests(
    executable: &Path,
    package: &str,
    tests: &[String],
    options: &Options,
) -> io::Result<Ran> {
    let mut command = Command::new(executable);
    // Cargo starts them there, too.
    command.current_dir(Path::new("crates").join(package));
    command
        .args(["--nocapture", "--exact"])
        .args(tests)
        .env("BROKER_SEED", options.seed.to_string())
        .env("BROKER_DEPTH", options.depth.to_string());
    let depth = u32::try_from(options.depth).unwrap_or(u32::MAX);
    hear(command, PATIENCE.saturating_mul(depth), &mut Ran::hear)
}

/// Runs a program to its end, or to the end of patience, and hears its lines.
pub(crate) fn hear(
    mut command: Command,
    patience: Duration,
    line: &mut dyn FnMut(&mut Ran, &str),
) -> io::Result<Ran> {
    let begun = Instant::now();
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn()?;
    let (sender, lines) = mpsc::channel();
    let mut listeners = Vec::new();
    if let Some(out) = child.stdout.take() {
        listeners.push(listen(out, sender.clone()));
    }
    if let Some(err) = child.stderr.take() {
        listeners.push(listen(err, sender));
    }
    let mut ran = Ran::default();
    let mut last = std::collections::VecDeque::new();
    let hung = loop {
        match lines.recv_timeout(patience.saturating_sub(begun.elapsed())) {
            Ok(heard) => {
                line(&mut ran, &heard);
                if last.len() == LINES_SHOWN {
                    last.pop_front();
                }
                last.push_back(heard);
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => break false,
            Err(mpsc::RecvTimeoutError::Timeout) => break true,
        }
    };
    let ended = end(&mut child, hung)?;
    ran.took = begun.elapsed();
    if hung || !ended {
        let mut text: Vec<String> = last.into();
        if hung {
            text.push(format!("it was still running after {patience:?}"));
        }
        ran.failure = Some(text.join("\n"));
    }
    Ok(ran)
}

/// Waits for a program that has closed its outputs, or ends one that hangs; says whether it succeeded.
fn end(child: &mut Child, hung: bool) -> io::Result<bool> {
    if hung {
        child.kill()?;
    }
    Ok(child.wait()?.success())
}

fn listen(from: impl Read + Send + 'static, to: mpsc::Sender<String>) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        let mut from = BufReader::new(from);
        let mut bytes = Vec::new();
        while from
            .read_until(b'\n', &mut bytes)
            .is_ok_and(|read| read > 0)
        {
            let line = String::from_utf8_lossy(&bytes).trim_end().to_owned();
            bytes.clear();
            if to.send(line).is_err() {
                return;
            }
        }
    })
}

/// The names of all fuzz targets.
fn fuzz_targets() -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir("fuzz/fuzz_targets")? {
        let path = entry?.path();
        if let Some(name) = path.file_stem().and_then(|name| name.to_str()) {
            names.push(name.to_owned());
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// Feeds one parser with bytes, from its seeds on.
fn fuzz(target: &str, options: &Options) -> io::Result<Ran> {
    let mut ran = Ran {
        name: format!("fuzz {target}"),
        ..Ran::default()
    };
    let there = cargo().args(["fuzz", "--version"]).output()?;
    if !there.status.success() {
        ran.skipped.push("cargo-fuzz".to_owned());
        return Ok(ran);
    }
    let corpus = format!("fuzz/corpus/{target}");
    fs::create_dir_all(&corpus)?;
    let mut command = cargo();
    command.args(["fuzz", "run", "-s", "none", target, &corpus]);
    let seeds = format!("fuzz/seeds/{target}");
    if Path::new(&seeds).is_dir() {
        command.arg(seeds);
    }
    command.args([
        "--".to_owned(),
        format!("-max_total_time={}", options.fuzz_seconds),
        format!("-seed={}", options.seed),
        format!("-dict={}", dictionary(target)),
    ]);
    let patience = PATIENCE + Duration::from_secs(options.fuzz_seconds);
    let name = std::mem::take(&mut ran.name);
    let seed = options.seed;
    let mut ran = hear(command, patience, &mut |ran, line| {
        if let Some(inputs) = inputs(line) {
            let tally = crate::campaign::Tally::new(target, seed).with("inputs", inputs);
            ran.tallies.push(tally);
        }
    })?;
    ran.name = name;
    Ok(ran)
}

/// The words that inputs are made of.
fn dictionary(target: &str) -> &'static str {
    match target {
        "scan" | "recovery" => "fuzz/dict-log",
        _ => "fuzz/dict",
    }
}

/// How many inputs were tried, from `Done 123 runs in 10 second(s)`.
fn inputs(line: &str) -> Option<u64> {
    let rest = line.strip_prefix("Done ")?;
    rest.split_once(" runs in ")?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, patience: Duration) -> Ran {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        hear(command, patience, &mut Ran::hear).expect("sh")
    }

    #[test]
    fn a_program_is_heard_to_its_end() {
        let ran = shell("echo TALLY x seed=1 cuts=3; echo bad >&2", PATIENCE);
        assert_eq!((ran.tallies.len(), ran.failure), (1, None));
        let ran = shell("echo what it was; exit 3", PATIENCE);
        assert_eq!(ran.failure.as_deref(), Some("what it was"));
    }

    #[test]
    fn a_program_that_hangs_is_ended_and_has_failed() {
        let ran = shell("exec sleep 600", Duration::from_millis(50));
        assert!(ran.failure.is_some_and(|why| why.contains("still running")));
    }

    #[test]
    fn the_inputs_of_a_fuzzer_are_counted() {
        assert_eq!(inputs("Done 123456 runs in 10 second(s)"), Some(123_456));
        assert_eq!(inputs("#123 NEW"), None);
    }
}
