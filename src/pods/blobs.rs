//! The seam where blob bytes lie: files named by their SHA-256 in one directory.
//!
//! A blob is written and synced under a temporary name (many at a time), then gets its name and the directory is
//! synced (by the one writer of the registry, before a record points at it).

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use tempfile::NamedTempFile;

use super::{Blob, Digest};

const TEMPORARY: &str = ".upload-";

/// A directory of blobs.
#[derive(Debug)]
pub struct BlobFiles {
    directory: PathBuf,
}

/// A blob that is on disk, but does not have its name yet; dropping it removes it.
#[derive(Debug)]
pub struct StagedBlob(NamedTempFile);

impl BlobFiles {
    /// Uses `directory`, which is made if it is missing.
    pub fn open(directory: &Path) -> io::Result<Self> {
        fs::create_dir_all(directory)?;
        Ok(Self { directory: directory.into() })
    }

    /// Whether there are blobs in `directory`, which may be missing.
    pub fn any_in(directory: &Path) -> bool {
        let mut names =
            fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.file_name());
        names.any(|name| name.to_str().is_some_and(|name| name.parse::<Digest>().is_ok()))
    }

    /// Writes and syncs a blob that nobody can see yet.
    pub fn stage(&self, blob: &[u8]) -> io::Result<StagedBlob> {
        let mut file = tempfile::Builder::new().prefix(TEMPORARY).tempfile_in(&self.directory)?;
        file.write_all(blob)?;
        file.as_file().sync_data()?;
        Ok(StagedBlob(file))
    }

    /// Gives a staged blob its name. It lasts once [`BlobFiles::sync`] returned.
    pub fn publish(&self, staged: StagedBlob, digest: &Digest) -> io::Result<()> {
        staged.0.persist(self.path(digest)).map_err(|error| error.error)?;
        Ok(())
    }

    /// Makes the names of published blobs last.
    pub fn sync(&self) -> io::Result<()> {
        File::open(&self.directory)?.sync_all()
    }

    /// A blob, if it is there.
    pub fn open_blob(&self, digest: &Digest) -> io::Result<Option<Blob>> {
        match File::open(self.path(digest)) {
            Ok(file) => Blob::from_file(file).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Removes a blob, if it is there.
    pub fn remove(&self, digest: &Digest) -> io::Result<()> {
        match fs::remove_file(self.path(digest)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Removes what an interrupted upload left: temporary files, and blobs that are not `known`. How many there were.
    pub fn sweep<E: From<io::Error>>(&self, known: impl Fn(&Digest) -> Result<bool, E>) -> Result<usize, E> {
        let mut removed = 0;
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            let left_over = match name.parse::<Digest>() {
                Ok(digest) => !known(&digest)?,
                Err(_) => name.starts_with(TEMPORARY),
            };
            if left_over {
                fs::remove_file(entry.path())?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.directory.join(digest.to_string())
    }
}
