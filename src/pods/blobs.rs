//! The seam where blob bytes lie: files named by their SHA-256 in one directory.
//!
//! A blob is written and synced under a temporary name (many at a time), then gets its name and the directory is
//! synced (by the one writer of the registry, before a record points at it).

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, Weak},
};

use bytes::Bytes;
use tempfile::NamedTempFile;

use super::Digest;

const TEMPORARY: &str = ".upload-";

/// A directory of blobs.
#[derive(Debug)]
pub struct BlobFiles {
    directory: PathBuf,
    /// Blobs that are in memory because somebody reads them.
    in_use: Mutex<HashMap<Digest, Place>>,
}

/// A blob that is in memory, if it still is.
type Place = Arc<Mutex<Weak<Vec<u8>>>>;

/// A blob that all its readers share, however many and however slow they are.
struct Shared(Arc<Vec<u8>>);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// A blob that is on disk, but does not have its name yet; dropping it removes it.
#[derive(Debug)]
pub struct StagedBlob(NamedTempFile);

impl BlobFiles {
    /// Uses `directory`, which is made if it is missing.
    pub fn open(directory: &Path) -> io::Result<Self> {
        fs::create_dir_all(directory)?;
        Ok(Self { directory: directory.into(), in_use: Mutex::default() })
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

    /// A whole blob, if it is there.
    pub fn read(&self, digest: &Digest) -> io::Result<Option<Bytes>> {
        let mut file = match File::open(self.path(digest)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        // One reads, the others wait for it.
        let place = self.place(digest);
        let mut place = place.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(blob) = place.upgrade() {
            return Ok(Some(Bytes::from_owner(Shared(blob))));
        }
        let mut blob = Vec::with_capacity(file.metadata()?.len() as usize);
        file.read_to_end(&mut blob)?;
        let blob = Arc::new(blob);
        *place = Arc::downgrade(&blob);
        Ok(Some(Bytes::from_owner(Shared(blob))))
    }

    /// Where a blob is while it is in memory.
    fn place(&self, digest: &Digest) -> Place {
        let mut in_use = self.in_use.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = in_use.get(digest) {
            return place.clone();
        }
        in_use.retain(|_, place| {
            let is_taken = Arc::strong_count(place) > 1;
            is_taken || place.lock().unwrap_or_else(PoisonError::into_inner).strong_count() > 0
        });
        in_use.entry(*digest).or_default().clone()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_of_a_blob_share_it_for_as_long_as_there_are_any() {
        let directory = tempfile::tempdir().unwrap();
        let blobs = BlobFiles::open(directory.path()).unwrap();
        let digests = [b"one", b"two"].map(|blob| {
            let digest = Digest::of(blob);
            blobs.publish(blobs.stage(blob).unwrap(), &digest).unwrap();
            digest
        });
        let read = |at: usize| blobs.read(&digests[at]).unwrap().unwrap();
        let (first, second, other) = (read(0), read(0), read(1));
        assert_eq!((&first[..], &other[..]), (&b"one"[..], &b"two"[..]));
        assert_eq!(first.as_ptr(), second.as_ptr(), "each reader has a copy of its own");
        drop((first, second));
        assert_eq!(blobs.in_use.lock().unwrap()[&digests[0]].lock().unwrap().strong_count(), 0);
        drop(other);
        assert_eq!(&read(0)[..], b"one");
        read(1);
        assert!(blobs.in_use.lock().unwrap().len() <= 2);

        blobs.remove(&digests[0]).unwrap();
        let kept = read(1);
        assert!(blobs.read(&digests[0]).unwrap().is_none());
        drop(kept);
    }

    #[test]
    fn blobs_that_nobody_reads_leave_no_trace() {
        let directory = tempfile::tempdir().unwrap();
        let blobs = BlobFiles::open(directory.path()).unwrap();
        for blob in 0..100_u32 {
            let blob = blob.to_be_bytes();
            let digest = Digest::of(&blob);
            blobs.publish(blobs.stage(&blob).unwrap(), &digest).unwrap();
            blobs.read(&digest).unwrap().unwrap();
        }
        assert_eq!(blobs.in_use.lock().unwrap().len(), 1);
    }
}
