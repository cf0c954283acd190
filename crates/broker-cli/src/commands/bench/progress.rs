//! [`Progress`]: one line on a terminal, written again and again, that says how far a benchmark is.
//!
//! It goes to standard error, and only when that is a terminal that can go back in its line; scripts
//! that ask for JSON are not shown any.

use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use super::figures::grouped;
use super::load::Limit;

/// Between two lines.
const EVERY: Duration = Duration::from_millis(250);
/// A line that wraps could not be written over.
const COLUMNS: usize = 79;

/// Whether progress is shown.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Progress {
    is_shown: bool,
}

/// A part of a benchmark that takes time. Its line goes with it.
#[derive(Debug)]
pub(crate) struct Phase {
    done: Done,
    line: Option<JoinHandle<()>>,
}

/// How much is done, counted by the workers, and now and then: they share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Done(Arc<AtomicU64>);

impl Done {
    /// So much more is done.
    pub(crate) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }
}

impl Progress {
    /// Shown where it can be, unless the output is JSON.
    pub(crate) fn new(as_json: bool) -> Self {
        let capable = std::env::var_os("TERM").is_some_and(|term| term != "dumb");
        Self {
            is_shown: !as_json && capable && io::stderr().is_terminal(),
        }
    }

    /// Begins a phase that ends at this limit.
    pub(crate) fn phase(self, name: &'static str, limit: Limit) -> Phase {
        let done = Done::default();
        let line = self
            .is_shown
            .then(|| tokio::spawn(show(name, limit, done.clone())));
        Phase { done, line }
    }
}

impl Phase {
    /// Where workers count.
    pub(crate) fn done(&self) -> Done {
        self.done.clone()
    }
}

impl Drop for Phase {
    fn drop(&mut self) {
        if let Some(line) = self.line.take() {
            line.abort();
            write("\r\x1b[K");
        }
    }
}

async fn show(name: &'static str, limit: Limit, done: Done) {
    let began = Instant::now();
    let mut ticks = tokio::time::interval(EVERY);
    loop {
        ticks.tick().await;
        let done = done.0.load(Ordering::Relaxed);
        let line: String = line(name, limit, began.elapsed(), done)
            .chars()
            .take(COLUMNS)
            .collect();
        write(&format!("\r{line}\x1b[K"));
    }
}

fn write(text: &str) {
    let mut stderr = io::stderr().lock();
    // Nobody is left to be shown it when standard error is closed.
    let _ = stderr.write_all(text.as_bytes());
    let _ = stderr.flush();
}

/// `publish  1.2 s, 1,234,567 done, 1,028,806/s, 1.8 s left`.
fn line(name: &str, limit: Limit, elapsed: Duration, done: u64) -> String {
    let seconds = elapsed.as_secs_f64();
    // Counts stay far below 2^52, where this loses digits.
    let rate = if seconds > 0.0 {
        done as f64 / seconds
    } else {
        0.0
    };
    let left = match limit {
        Limit::Duration(duration) => Some(duration.saturating_sub(elapsed).as_secs_f64()),
        Limit::Count(count) if rate > 0.0 => Some(count.saturating_sub(done) as f64 / rate),
        Limit::Count(_) => None,
    };
    let left = left.map_or(String::new(), |left| format!(", {left:.1} s left"));
    let (done, rate) = (grouped(done as f64), grouped(rate));
    format!("{name}  {seconds:.1} s, {done} done, {rate}/s{left}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_how_far_and_how_long() {
        let second = Duration::from_secs(1);
        assert_eq!(
            line("fill", Limit::Count(4000), second, 1000),
            "fill  1.0 s, 1,000 done, 1,000/s, 3.0 s left"
        );
        assert_eq!(
            line("fill", Limit::Count(4000), second, 0),
            "fill  1.0 s, 0 done, 0/s"
        );
        let over = line("publish", Limit::Duration(second), 2 * second, 10);
        assert_eq!(over, "publish  2.0 s, 10 done, 5/s, 0.0 s left");
        let long = line(
            "publish",
            Limit::Duration(1000 * second),
            999 * second,
            99_999_999_999,
        );
        assert!(long.len() < COLUMNS, "{long}");
    }
}
