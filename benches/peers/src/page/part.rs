//! A page that several commands write: each has a part of its own, between two comments that Markdown does not show, and leaves
//! the rest as it is.

use std::fs;
use std::io::{ErrorKind, Write as _};
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::Serialize;

use crate::args::Output;

/// What a page begins with that nobody has written before.
const HEAD: &str = "# How costs grow\n";

fn begin(name: &str) -> String {
    format!("<!-- {name}: written by `broker-peers {name}` -->")
}

fn end(name: &str) -> String {
    format!("<!-- {name}: end -->")
}

/// Writes the results of a command, or the part of a page that tells of them.
pub(crate) fn put_out(
    output: &Output,
    name: &str,
    results: &[impl Serialize],
    page: impl FnOnce() -> Result<String>,
) -> Result<()> {
    if output.json {
        put_lines(&output.out, results)
    } else {
        put(&output.out, name, &page()?)
    }
}

/// Writes a part into a file, in the place of the one before; alone to standard output where the file is `-`.
fn put(out: &Path, name: &str, text: &str) -> Result<()> {
    if is_stdout(out) {
        return Ok(std::io::stdout().lock().write_all(text.as_bytes())?);
    }
    let page = read(out)?;
    let page = page.as_deref().filter(|page| !page.trim().is_empty());
    write(out, &replaced(page.unwrap_or(HEAD), name, text)?)
}

/// Writes an object a line to a file, or to standard output where that is `-`.
fn put_lines(out: &Path, objects: &[impl Serialize]) -> Result<()> {
    let mut text = String::new();
    for object in objects {
        text += &serde_json::to_string(object)?;
        text.push('\n');
    }
    if is_stdout(out) {
        return Ok(std::io::stdout().lock().write_all(text.as_bytes())?);
    }
    write(out, &text)
}

/// Writes what is not in a part, and leaves the parts of these names; alone to standard output where the file is `-`.
pub(crate) fn put_around(out: &Path, names: &[&str], text: &str) -> Result<()> {
    if is_stdout(out) {
        return Ok(std::io::stdout().lock().write_all(text.as_bytes())?);
    }
    let old = read(out)?.unwrap_or_default();
    let mut page = text.to_owned();
    for name in names {
        if let Some((from, to)) = found(&old, name)? {
            append(&mut page, old.get(from..to).unwrap_or_default());
        }
    }
    write(out, &page)
}

fn is_stdout(out: &Path) -> bool {
    out.as_os_str() == "-"
}

fn read(out: &Path) -> Result<Option<String>> {
    match fs::read_to_string(out) {
        Ok(page) => Ok(Some(page)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", out.display())),
    }
}

fn write(out: &Path, page: &str) -> Result<()> {
    fs::write(out, page).with_context(|| format!("cannot write {}", out.display()))
}

/// Where a part is in a page, its comments included.
fn found(page: &str, name: &str) -> Result<Option<(usize, usize)>> {
    let (begin, end) = (begin(name), end(name));
    let Some(from) = page.find(&begin) else {
        return Ok(None);
    };
    let rest = page.get(from..).unwrap_or_default();
    match rest.find(&end) {
        Some(at) => Ok(Some((from, from + at + end.len()))),
        None => bail!("the page has \"{begin}\" and no \"{end}\" after it"),
    }
}

fn append(page: &mut String, part: &str) {
    page.truncate(page.trim_end().len());
    page.push_str("\n\n");
    page.push_str(part);
    page.push('\n');
}

/// The page with a part in the place of the one before, or at its end.
fn replaced(page: &str, name: &str, text: &str) -> Result<String> {
    let part = format!("{}\n{}\n\n{}", begin(name), text.trim_end(), end(name));
    if let Some((from, to)) = found(page, name)? {
        let before = page.get(..from).unwrap_or_default();
        let after = page.get(to..).unwrap_or_default();
        return Ok(format!("{before}{part}{after}"));
    }
    let mut page = page.to_owned();
    append(&mut page, &part);
    Ok(page)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    #[test]
    fn parts_take_the_place_of_those_before_and_leave_the_rest() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("page.md");
        let now = || fs::read_to_string(&out).unwrap();
        put(&out, "one", "## One\n\nold\n").unwrap();
        put(&out, "two", "## Two\n").unwrap();
        put(&out, "one", "## One\n\nnew\n").unwrap();
        let parts = "<!-- one: written by `broker-peers one` -->\n## One\n\nnew\n\n<!-- one: end -->\n\n\
                     <!-- two: written by `broker-peers two` -->\n## Two\n\n<!-- two: end -->\n";
        assert_eq!(now(), format!("{HEAD}\n{parts}"));
        put_around(&out, &["one", "two", "three"], "# All\n\nwords\n").unwrap();
        assert_eq!(now(), format!("# All\n\nwords\n\n{parts}"));
        put_around(&out, &["two"], "# All\n").unwrap();
        assert!(now().starts_with("# All\n\n<!-- two: w") && !now().contains("## One"));
    }

    #[test]
    fn a_part_without_an_end_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("page.md");
        let page = format!("# All\n{}\nwords that follow\n", begin("one"));
        fs::write(&out, &page).unwrap();
        assert!(put(&out, "one", "new").is_err());
        assert!(put_around(&out, &["one"], "new").is_err());
        assert_eq!(fs::read_to_string(&out).unwrap(), page);
        assert!(put(dir.path(), "one", "a directory").is_err());
    }

    #[test]
    fn objects_are_written_a_line_each() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("lines");
        put_lines(&out, &[[1, 2], [3, 4]]).unwrap();
        assert_eq!(fs::read_to_string(&out).unwrap(), "[1,2]\n[3,4]\n");
    }
}
