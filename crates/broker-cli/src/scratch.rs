//! A directory of one's own, removed at the end.

use std::ffi::OsString;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process;

/// How many names are tried; the others are left by processes that were killed.
const NAMES_MAX: u32 = 1000;

/// A directory that only this user may enter, removed with everything in it when this is dropped.
#[derive(Debug)]
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    /// Makes `parent/NAME-PID`, and `parent` if need be.
    pub(crate) fn new(parent: &Path, name: &str) -> io::Result<Self> {
        fs::create_dir_all(parent)?;
        let mut last = io::ErrorKind::AlreadyExists.into();
        for attempt in 0..NAMES_MAX {
            let mut file = OsString::from(format!("{name}-{}", process::id()));
            if attempt > 0 {
                file.push(format!("-{attempt}"));
            }
            let path = parent.join(file);
            // Making it is what claims the name: a directory that is there already is never used.
            match DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => return Ok(Self(path)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => last = error,
                Err(error) => return Err(error),
            }
        }
        Err(last)
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // It is in nobody's way, and there is nothing better to do about it.
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn names_are_claimed_and_given_back() {
        let parent = tempfile::tempdir().unwrap();
        let one = Scratch::new(&parent.path().join("a/b"), "bench").unwrap();
        let two = Scratch::new(&parent.path().join("a/b"), "bench").unwrap();
        assert_ne!(one.path(), two.path());
        assert_eq!(
            fs::metadata(one.path()).unwrap().permissions().mode() & 0o777,
            0o700
        );
        fs::write(one.path().join("x"), b"x").unwrap();
        let gone = one.path().to_owned();
        drop(one);
        assert!(!gone.exists() && two.path().exists());
    }
}
