//! A small file that is read again when it has changed.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use crate::regular_file;

/// What a file holds, as it was when it was looked at last.
#[derive(Debug)]
pub struct ReloadingFile<T> {
    seen: Mutex<Option<Seen<T>>>,
    parse: fn(&str) -> Result<T, String>,
}

#[derive(Debug)]
struct Seen<T> {
    path: PathBuf,
    stamp: Stamp,
    value: Arc<T>,
}

/// What tells one state of a file from another.
#[derive(Debug, PartialEq, Eq)]
struct Stamp {
    file: (u64, u64),
    length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// The file cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot use {}: {problem}", .path.display())]
pub struct Unusable {
    path: PathBuf,
    problem: String,
}

impl<T> ReloadingFile<T> {
    /// Reads files with `parse`, whose error is the rest of a sentence.
    pub fn new(parse: fn(&str) -> Result<T, String>) -> Self {
        Self { seen: Mutex::default(), parse }
    }

    /// What is in the file at `path` now. Waits for the disk.
    ///
    /// # Errors
    ///
    /// The file cannot be read or says what it should not. What it said before does not count any more.
    pub fn read(&self, path: &Path) -> Result<Arc<T>, Unusable> {
        let unusable = |problem: String| Unusable { path: path.into(), problem };
        let metadata = fs::metadata(path).map_err(|error| unusable(error.to_string()))?;
        let stamp = Stamp {
            file: (metadata.dev(), metadata.ino()),
            length: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        };
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(seen) = seen.as_ref().filter(|seen| seen.path == path && seen.stamp == stamp) {
            return Ok(seen.value.clone());
        }
        *seen = None;
        let text = regular_file::read_text(path).map_err(|error| unusable(error.to_string()))?;
        let value = Arc::new((self.parse)(&text).map_err(unusable)?);
        *seen = Some(Seen { path: path.into(), stamp, value: value.clone() });
        Ok(value)
    }
}

/// The lines that say something: without comments, which begin with `#`, and blank ones; with their numbers.
pub fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let plain = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    plain.enumerate().map(|(at, line)| (at + 1, line)).filter(|(_, line)| !line.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_file_is_read_again_and_a_broken_one_counts_no_more() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("list");
        let reloading_file: ReloadingFile<u32> =
            ReloadingFile::new(|text| text.trim().parse().map_err(|_| "no number".into()));
        let read = || reloading_file.read(&path).map(|value| *value).map_err(|error| error.problem);
        assert!(read().is_err());
        fs::write(&path, "1").unwrap();
        assert_eq!(read(), Ok(1));
        assert_eq!(read(), Ok(1));
        let new = directory.path().join("new");
        fs::write(&new, "2").unwrap();
        fs::rename(&new, &path).unwrap();
        assert_eq!(read(), Ok(2));
        fs::write(&path, "x").unwrap();
        assert_eq!(read(), Err("no number".into()));
        fs::write(&path, "x".repeat((1 << 20) + 1)).unwrap();
        assert!(read().unwrap_err().contains("larger"));
        fs::remove_file(&path).unwrap();
        assert!(read().is_err());
    }
}
