//! The seam where blob bytes lie: files named by their SHA-256 in one directory.
//!
//! A blob is written and synced under a temporary name (many at a time), then gets its name and the directory is
//! synced (by the one writer of the registry, before a record points at it). A blob is compared with its digest when it is
//! first read, and again whenever its file has changed.

use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use quick_cache::sync::Cache;
use sha2::{Digest as _, Sha256};
use tempfile::NamedTempFile;

use crate::pods::{Blob, Digest};

const TEMPORARY: &str = ".upload-";
/// How many blobs are remembered as right, at about 100 bytes each.
const REMEMBERED: usize = 16_384;
/// Blobs that can be compared with their digests at a time.
const COMPARED: usize = 64;
/// Bytes that are hashed at a time.
const PIECE: usize = 64 * 1024;

/// A directory of blobs.
#[derive(Debug)]
pub struct BlobFiles {
    directory: PathBuf,
    verified: Cache<Digest, FileVersion>,
    /// Held by whoever compares a blob with its digest, so that others who want the same one wait for that and do not
    /// read it as well. Which it is goes by the first byte of the digest.
    comparing: [Mutex<()>; COMPARED],
}

/// What changes whenever a file is written or another takes its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FileVersion {
    device: u64,
    inode: u64,
    length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl FileVersion {
    fn of(metadata: &fs::Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            length: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// A blob that is on disk, but does not have its name yet; dropping it removes it.
#[derive(Debug)]
pub struct StagedBlob(NamedTempFile);

impl BlobFiles {
    /// Uses `directory`, which is made if it is missing.
    pub fn open(directory: &Path) -> io::Result<Self> {
        fs::create_dir_all(directory)?;
        Ok(Self {
            directory: directory.into(),
            verified: Cache::new(REMEMBERED),
            comparing: std::array::from_fn(|_| Mutex::default()),
        })
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

    /// Opens a blob of `length` bytes. Returns `None` if it is missing.
    ///
    /// # Errors
    ///
    /// It cannot be read, or is not what its name says.
    pub fn open_blob(&self, digest: &Digest, length: u64) -> io::Result<Option<Blob>> {
        let file = match File::open(self.path(digest)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let metadata = file.metadata()?;
        let version = FileVersion::of(&metadata);
        if version.length != length {
            return Err(damaged(digest, &format!("it has {} bytes in place of {length}", version.length)));
        }
        if !self.is_verified(digest, &version) {
            self.verify(digest, version, &file)?;
        }
        Ok(Some(Blob::from_version(file, &metadata)))
    }

    fn is_verified(&self, digest: &Digest, version: &FileVersion) -> bool {
        self.verified.get(digest).as_ref() == Some(version)
    }

    /// Compares a blob with its digest, or waits for another thread that does.
    fn verify(&self, digest: &Digest, version: FileVersion, file: &File) -> io::Result<()> {
        let comparing = &self.comparing[usize::from(digest.0[0]) % COMPARED];
        let _comparing = comparing.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_verified(digest, &version) {
            return Ok(());
        }
        if digest_of(file)? != *digest {
            return Err(damaged(digest, "its bytes are not those that were uploaded"));
        }
        // What was written meanwhile makes another version, which is not remembered.
        self.verified.insert(*digest, version);
        Ok(())
    }

    /// Looks whether there is room for `bytes` bytes of blobs, and whether the directory can be written.
    pub fn check(&self, bytes: usize) -> io::Result<()> {
        // Without a name, and not synced: in most cases nothing of it reaches the disk.
        let file = tempfile::tempfile_in(&self.directory);
        file.and_then(|mut file| file.write_all(&vec![0; bytes])).map_err(|error| {
            match error.raw_os_error() {
                Some(code) => io::Error::from_raw_os_error(code),
                // Without the path, which is not for everybody.
                None => error.kind().into(),
            }
        })
    }

    /// Removes a blob, if it is there.
    pub fn remove(&self, digest: &Digest) -> io::Result<()> {
        self.verified.remove(digest);
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

fn damaged(digest: &Digest, problem: &str) -> io::Error {
    let problem =
        format!("the blob {digest} is damaged: {problem}; upload the pod again, or restore a backup of it");
    io::Error::new(io::ErrorKind::InvalidData, problem)
}

fn digest_of(file: &File) -> io::Result<Digest> {
    let (mut hash, mut piece, mut offset) = (Sha256::new(), vec![0; PIECE], 0);
    loop {
        let read = match file.read_at(&mut piece, offset) {
            Ok(0) => return Ok(Digest(hash.finalize().into())),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        hash.update(&piece[..read]);
        offset += read as u64;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    const READERS: usize = 8;
    const LENGTH: usize = 16 << 20;

    /// Returns how many bytes this thread has read so far.
    fn bytes_read() -> usize {
        let accounts = fs::read_to_string("/proc/thread-self/io").unwrap();
        let read = accounts.lines().find_map(|line| line.strip_prefix("rchar: ")).unwrap();
        read.parse().unwrap()
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_blob_that_many_want_is_compared_once() {
        let directory = tempfile::tempdir().unwrap();
        let blobs = BlobFiles::open(directory.path()).unwrap();
        let blob = vec![7; LENGTH];
        let digest = Digest::of(&blob);
        blobs.publish(blobs.stage(&blob).unwrap(), &digest).unwrap();
        let barrier = Barrier::new(READERS);
        let read = || {
            barrier.wait();
            let before = bytes_read();
            assert_eq!(blobs.open_blob(&digest, LENGTH as u64).unwrap().unwrap().len(), LENGTH as u64);
            bytes_read() - before
        };
        let read: usize = std::thread::scope(|scope| {
            let readers: Vec<_> = (0..READERS).map(|_| scope.spawn(read)).collect();
            readers.into_iter().map(|reader| reader.join().unwrap()).sum()
        });
        assert!((LENGTH..LENGTH + LENGTH / 2).contains(&read), "{read} bytes were read of {LENGTH}");
    }
}
