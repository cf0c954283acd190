//! Builds the tests with the bugs in them, and runs them.

use std::collections::VecDeque;
use std::collections::btree_map::{BTreeMap, Entry};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use super::table::{BUGS, Build, Planted, Test};
use super::{Caught, Outcome};
use crate::report::{Ran, build, hear};

/// Bugs tried at the same time.
const AT_ONCE: usize = 2;
/// Nothing takes longer than this; more is a hang, which catches nothing.
const PATIENCE: Duration = Duration::from_secs(240);

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where chance begins.
    pub seed: u64,
    /// Only these bugs; all when empty.
    pub only: Vec<String>,
}

/// One test, run once.
struct Tried {
    ran: Ran,
    /// It has said one of the expected words.
    said: bool,
}

/// Tries all bugs and tells `progress` what became of each, a line each.
///
/// # Errors
/// When the tests cannot be built or started, or a bug that is asked for does not exist.
pub fn run(options: &Options, progress: &mut (dyn FnMut(&str) + Send)) -> io::Result<Vec<Caught>> {
    let bugs = chosen(&options.only)?;
    let mut executables = BTreeMap::new();
    for bug in &bugs {
        let build_of = bug.test.build;
        if let Entry::Vacant(entry) = executables.entry(build_of) {
            progress(&format!("building {build_of:?} with bugs in them"));
            entry.insert(build(build_of.target())?);
        }
    }
    let mut tests: Vec<&Test> = Vec::new();
    for bug in &bugs {
        if !tests.iter().any(|test| test.name == bug.test.name) {
            tests.push(bug.test);
        }
    }
    let told = Mutex::new(progress);
    let tell = |line: &str| (told.lock().unwrap_or_else(PoisonError::into_inner))(line);
    let controls = side_by_side(&tests, |test| {
        let tried = try_one(&executables, test, "", &[], options)?;
        let unfit = unfit(&tried);
        let seconds = tried.ran.took.as_secs_f64();
        let verdict = unfit.as_deref().unwrap_or("passes");
        tell(&format!(
            "{:34} {:4} {seconds:6.1} s  {}: {verdict}",
            "without a bug", "", test.name
        ));
        Ok((test.name, unfit))
    })?;
    let controls: BTreeMap<&str, Option<String>> = controls.into_iter().collect();
    side_by_side(&bugs, |bug| {
        let unfit = controls.get(bug.test.name).cloned().flatten();
        let caught = match unfit {
            Some(why) => bug.became(Outcome::Unclear(why), Duration::ZERO),
            None => {
                let tried = try_one(&executables, bug.test, bug.name, bug.says, options)?;
                bug.became(outcome(&tried), tried.ran.took)
            }
        };
        tell(&caught.to_string());
        Ok(caught)
    })
}

fn chosen(only: &[String]) -> io::Result<Vec<&'static Planted>> {
    if let Some(unknown) = only
        .iter()
        .find(|name| !BUGS.iter().any(|bug| bug.name == name.as_str()))
    {
        return Err(io::Error::other(format!("there is no bug {unknown}")));
    }
    let wanted = |bug: &&Planted| only.is_empty() || only.iter().any(|name| name == bug.name);
    Ok(BUGS.iter().filter(wanted).collect())
}

impl Planted {
    fn became(&self, outcome: Outcome, after: Duration) -> Caught {
        Caught {
            bug: self.name,
            promise: self.promise,
            test: self.test.name,
            after,
            outcome,
        }
    }
}

/// Does the same with each, a few at a time; the answers are in the order of the questions.
fn side_by_side<T: Sync, R: Send>(
    all: &[T],
    ask: impl Fn(&T) -> io::Result<R> + Sync,
) -> io::Result<Vec<R>> {
    let waiting: Mutex<VecDeque<(usize, &T)>> = Mutex::new(all.iter().enumerate().collect());
    let answers = Mutex::new(Vec::new());
    let work = || -> io::Result<()> {
        loop {
            let next = waiting
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .pop_front();
            let Some((at, one)) = next else {
                return Ok(());
            };
            let answer = ask(one)?;
            answers
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push((at, answer));
        }
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| {
            let ended = worker.join();
            ended.unwrap_or_else(|_| Err(io::Error::other("a test could not be tried")))
        })
    })?;
    let mut answers = answers.into_inner().unwrap_or_else(PoisonError::into_inner);
    answers.sort_unstable_by_key(|(at, _)| *at);
    Ok(answers.into_iter().map(|(_, answer)| answer).collect())
}

/// Runs one test, with one bug or none.
fn try_one(
    executables: &BTreeMap<Build, PathBuf>,
    test: &Test,
    bug: &str,
    says: &[&str],
    options: &Options,
) -> io::Result<Tried> {
    let executable = executables.get(&test.build);
    let executable = executable.ok_or_else(|| io::Error::other("a test was not built"))?;
    let mut command = Command::new(executable);
    // Cargo starts them there, too.
    command.current_dir(Path::new("crates").join(test.build.target().package));
    command
        .args(["--exact", "--nocapture", test.name])
        // What is shown of a failure is to be its words.
        .env("RUST_BACKTRACE", "0")
        .env("BROKER_PLANTED_BUG", bug)
        .env("BROKER_SEED", options.seed.to_string())
        .env("BROKER_DEPTH", "1")
        .envs(test.settings.iter().copied());
    let mut said = false;
    let ran = hear(command, PATIENCE, &mut |ran, line| {
        said |= says.iter().any(|words| line.contains(words));
        ran.hear(line);
    })?;
    Ok(Tried { ran, said })
}

/// Why a test proves nothing: without a bug it has to pass, and to be there at all.
fn unfit(tried: &Tried) -> Option<String> {
    match &tried.ran.failure {
        Some(why) => Some(format!("it fails without a bug as well\n{why}")),
        None if tried.ran.passed == 0 => Some("there is no such test".to_owned()),
        None => None,
    }
}

fn outcome(tried: &Tried) -> Outcome {
    match &tried.ran.failure {
        None => Outcome::Missed,
        Some(_) if tried.said => Outcome::Caught,
        Some(why) => Outcome::Unclear(format!("it says something else\n{why}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tried(failure: Option<&str>, passed: u64, said: bool) -> Tried {
        let ran = Ran {
            failure: failure.map(str::to_owned),
            passed,
            ..Ran::default()
        };
        Tried { ran, said }
    }

    #[test]
    fn only_the_right_failure_counts() {
        assert_eq!(
            outcome(&tried(Some("seq 4 is gone"), 0, true)),
            Outcome::Caught
        );
        assert_eq!(outcome(&tried(None, 1, true)), Outcome::Missed);
        let other = outcome(&tried(Some("out of memory"), 0, false));
        assert!(matches!(other, Outcome::Unclear(why) if why.contains("out of memory")));
    }

    #[test]
    fn a_test_that_fails_or_is_not_there_proves_nothing() {
        assert_eq!(unfit(&tried(None, 1, false)), None);
        assert!(unfit(&tried(None, 0, false)).is_some());
        assert!(unfit(&tried(Some("x"), 0, false)).is_some());
    }

    #[test]
    fn answers_come_in_the_order_of_the_questions() {
        let all: Vec<u32> = (0..50).collect();
        let doubled = side_by_side(&all, |n| Ok(n * 2)).ok();
        assert_eq!(doubled, Some(all.iter().map(|n| n * 2).collect()));
        assert!(side_by_side(&all, |_| Err::<(), _>(io::Error::other("no"))).is_err());
    }

    #[test]
    fn an_unknown_bug_is_refused() {
        assert!(chosen(&["none".to_owned()]).is_err());
        assert_eq!(chosen(&[]).map(|all| all.len()).ok(), Some(BUGS.len()));
    }
}
