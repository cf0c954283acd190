//! Latencies as files that the plotters of HdrHistogram read: the percentile distribution as the Java
//! and C libraries print it (`.hgrm`), values in milliseconds.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::figures::{Figure, Latencies};
use crate::exit::{Exit, Failure};

/// Lines for each halving of the distance to 100 %, as the other libraries have by default.
const TICKS: u32 = 5;
/// Values are kept in nanoseconds.
const NANOS_A_MILLI: f64 = 1e6;

/// A file for each figure that has latencies, opened before the benchmark runs: an hour's work shall not
/// end at a wrong path. What was there is replaced at the end only.
#[derive(Debug)]
pub(crate) struct HdrFiles(Vec<HdrFile>);

#[derive(Debug)]
struct HdrFile {
    figure: &'static str,
    path: PathBuf,
    file: File,
    /// Made here and still empty.
    is_new: bool,
}

impl HdrFiles {
    /// Opens the files for these figures; none without a path.
    pub(crate) fn open(path: Option<&Path>, figures: &[&'static str]) -> Result<Self, Failure> {
        let mut files = Self(Vec::new());
        let Some(path) = path else { return Ok(files) };
        for figure in figures {
            let path = match figures {
                [_] => path.to_owned(),
                _ => with_name(path, figure),
            };
            let (file, is_new) = open(&path).map_err(|error| {
                Failure::usage(format!("--hdr: cannot write {}: {error}", path.display()))
            })?;
            files.0.push(HdrFile {
                figure,
                path,
                file,
                is_new,
            });
        }
        Ok(files)
    }

    /// Writes the latencies of these figures; returns which went where.
    pub(crate) fn write(
        mut self,
        figures: &[Figure],
    ) -> Result<Vec<(&'static str, PathBuf)>, Failure> {
        let mut written = Vec::new();
        for file in &mut self.0 {
            let latencies = figures
                .iter()
                .find(|figure| figure.name == file.figure)
                .and_then(|figure| figure.latencies.as_ref());
            let text = latencies.map_or(String::new(), distribution);
            file.replace(&text).map_err(|error| {
                let path = file.path.display();
                let words = format!("--hdr: cannot write {path}: {error}");
                Failure::new(Exit::Protocol, words)
            })?;
            file.is_new = false;
            written.push((file.figure, file.path.clone()));
        }
        Ok(written)
    }
}

impl HdrFile {
    fn replace(&mut self, text: &str) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.write_all(text.as_bytes())
    }
}

impl Drop for HdrFile {
    fn drop(&mut self) {
        if self.is_new {
            // An empty file would look like a result.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Opens a file without changing what is in it; whether it was made.
fn open(path: &Path) -> io::Result<(File, bool)> {
    match OpenOptions::new().write(true).create_new(true).open(path) {
        Ok(file) => Ok((file, true)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            Ok((OpenOptions::new().write(true).open(path)?, false))
        }
        Err(error) => Err(error),
    }
}

/// `x.hgrm` for `deliver` is `x.deliver.hgrm`, `x` is `x.deliver`.
fn with_name(path: &Path, name: &str) -> PathBuf {
    let mut file = path.file_stem().map_or_else(OsString::new, OsString::from);
    file.push(".");
    file.push(name);
    if let Some(extension) = path.extension() {
        file.push(".");
        file.push(extension);
    }
    path.with_file_name(file)
}

/// The distribution: value, percentile, count up to it, and 1/(1 - percentile), which is the plotters'
/// axis.
fn distribution(latencies: &Latencies) -> String {
    let histogram = latencies.histogram();
    let mut text = format!(
        "{:>12} {:>14} {:>10} {:>14}\n\n",
        "Value", "Percentile", "TotalCount", "1/(1-Percentile)"
    );
    let mut count = 0;
    for step in histogram.iter_quantiles(TICKS) {
        count += step.count_since_last_iteration();
        let millis = step.value_iterated_to() as f64 / NANOS_A_MILLI;
        let quantile = step.quantile_iterated_to();
        // Writing to a string cannot fail.
        let _ = write!(text, "{millis:12.6} {quantile:14.12} {count:10} ");
        let _ = if quantile < 1.0 {
            writeln!(text, "{:14.2}", 1.0 / (1.0 - quantile))
        } else {
            writeln!(text, "{:>14}", "inf")
        };
    }
    let millis = |nanos: f64| nanos / NANOS_A_MILLI;
    let _ = writeln!(
        text,
        "#[Mean    = {:12.6}, StdDeviation   = {:12.6}]\n#[Max     = {:12.6}, Total count    = {:12}]",
        millis(histogram.mean()),
        millis(histogram.stdev()),
        millis(histogram.max() as f64),
        histogram.len(),
    );
    text
}

#[cfg(test)]
mod tests {
    #![expect(
        clippy::unwrap_used,
        clippy::indexing_slicing,
        reason = "a test may panic"
    )]

    use std::time::Duration;

    use super::*;

    fn figure(name: &'static str, count: u64) -> Figure {
        let mut latencies = Latencies::new();
        for micros in 1..=count {
            latencies.record(Duration::from_micros(micros));
        }
        Figure {
            name,
            unit: "messages",
            count,
            bytes: 0,
            elapsed: Duration::from_secs(1),
            latencies: Some(latencies),
        }
    }

    #[test]
    fn a_distribution_is_what_plotters_read() {
        let text = distribution(figure("ack", 1000).latencies.as_ref().unwrap());
        let mut lines = text.lines();
        let head: Vec<_> = lines.next().unwrap().split_whitespace().collect();
        assert_eq!(
            head,
            ["Value", "Percentile", "TotalCount", "1/(1-Percentile)"]
        );
        assert_eq!(lines.next(), Some(""));
        let rows: Vec<Vec<f64>> = lines
            .clone()
            .take_while(|line| !line.starts_with('#'))
            .map(|line| {
                line.split_whitespace()
                    .map(|cell| cell.parse().unwrap())
                    .collect()
            })
            .collect();
        for pair in rows.windows(2) {
            let [before, after] = pair else {
                unreachable!()
            };
            assert!(before[0] <= after[0] && before[1] <= after[1] && before[2] <= after[2]);
        }
        let median = rows.iter().find(|row| row[1] >= 0.5).unwrap();
        assert!(
            (median[0] - 0.5).abs() < 0.002 && (median[3] - 2.0).abs() < 0.01,
            "{median:?}"
        );
        let last = rows.last().unwrap();
        assert!((last[0] - 1.0).abs() < 0.002, "{last:?}");
        assert_eq!((last[1], last[2], last[3]), (1.0, 1000.0, f64::INFINITY));
        assert!(text.contains("Total count    =         1000]"), "{text}");
    }

    #[test]
    fn files_are_named_for_figures_when_there_are_several() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.hgrm");
        let both = HdrFiles::open(Some(&path), &["ack", "deliver"]).unwrap();
        let written = both
            .write(&[figure("deliver", 5), figure("ack", 7)])
            .unwrap();
        assert_eq!(written[1], ("deliver", dir.path().join("x.deliver.hgrm")));
        let text = fs::read_to_string(dir.path().join("x.ack.hgrm")).unwrap();
        assert!(text.contains("=            7]"), "{text}");
        let one = HdrFiles::open(Some(&path), &["publish"]).unwrap();
        assert_eq!(
            one.write(&[figure("publish", 1)]).unwrap(),
            [("publish", path)]
        );
        assert_eq!(with_name(Path::new("a/x"), "ack"), Path::new("a/x.ack"));
    }

    #[test]
    fn a_benchmark_that_fails_leaves_files_as_they_were() {
        let dir = tempfile::tempdir().unwrap();
        let (old, new) = (dir.path().join("old"), dir.path().join("new"));
        fs::write(&old, "before").unwrap();
        for path in [&old, &new] {
            drop(HdrFiles::open(Some(path), &["publish"]).unwrap());
        }
        assert_eq!(fs::read_to_string(&old).unwrap(), "before");
        assert!(!new.exists());
        HdrFiles::open(Some(&dir.path().join("no/such")), &["publish"]).unwrap_err();
    }
}
