//! Opens the database: for writing, or as a snapshot that needs nothing but reads.

use std::{
    fmt, fs,
    io::{self, ErrorKind},
    ops::Bound,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use redb::{BackendError, Builder, Database, DatabaseError, StorageBackend, backends::FileBackend};

use super::{
    checked::{Checked, Seal},
    damage::guarded,
    overlay::Overlay,
};

/// How to open a database.
pub struct Source {
    open: Box<dyn Fn() -> Result<Database, DatabaseError> + Send + Sync>,
    open_snapshot: Box<dyn Fn(bool) -> Result<Database, DatabaseError> + Send + Sync>,
    seal: Seal,
    /// What lies at least between two attempts to open it again.
    pub pause: Duration,
}

impl Source {
    /// Opens what is on `backend`, with `cache` bytes of pages in memory.
    pub fn new<B: StorageBackend + Clone>(backend: B, cache: usize) -> Self {
        let builder = move |check| {
            let mut builder = Builder::new();
            builder.set_cache_size(cache).set_check_integrity_on_open(check);
            builder
        };
        let backend = Checked::new(backend);
        let (base, seal) = (backend.clone(), backend.seal());
        Self {
            seal,
            pause: Duration::ZERO,
            open: Box::new(move || builder(false).create_with_backend(backend.clone())),
            open_snapshot: Box::new(move |check| {
                builder(check).create_with_backend(Overlay::new(base.clone())?)
            }),
        }
    }

    /// Sets the least time between two attempts to open it again.
    pub fn with_pause(self, pause: Duration) -> Self {
        Self { pause, ..self }
    }

    /// Lets nothing be written any more by whatever is open.
    pub fn seal(&self) {
        self.seal.set();
    }

    /// Opens it for reading and writing.
    pub fn open(&self) -> Result<Database, redb::Error> {
        guarded(|| Ok((self.open)()?))
    }

    /// Opens what is committed for reading alone. What redb writes to recover it stays in memory, so that this works
    /// on a file that cannot be written, and changes none. It stays right until a transaction is committed to the file.
    pub fn open_snapshot(&self) -> Result<Database, redb::Error> {
        guarded(|| Ok((self.open_snapshot)(false)?))
    }

    /// The same, once the checksums of all pages were found right.
    pub fn open_checked_snapshot(&self) -> Result<Database, redb::Error> {
        guarded(|| Ok((self.open_snapshot)(true)?))
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").finish_non_exhaustive()
    }
}

type Bounds = (Bound<u64>, Bound<u64>);

/// A file that is locked from its first opening as a database until it is dropped, so that no other process gets it
/// while one database takes the place of another. Clones are the same file.
#[derive(Clone, Debug)]
pub struct LockedFile(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    file: FileBackend,
    locked: Mutex<Vec<Bounds>>,
}

impl Drop for Inner {
    /// Closing the file is not enough: a process that is being started holds a copy of it for a moment.
    fn drop(&mut self) {
        if let Err(error) = self.file.close() {
            tracing::debug!(%error, "the lock of the registry ends with its file");
        }
    }
}

impl LockedFile {
    /// Opens a file that has something in it.
    pub fn open(path: &Path) -> Result<Self, redb::Error> {
        let file = fs::OpenOptions::new().read(true).write(true).open(path)?;
        if file.metadata()?.len() == 0 {
            return Err(io::Error::new(ErrorKind::InvalidData, "it is empty").into());
        }
        Ok(Self(Arc::new(Inner { file: FileBackend::new(file)?, locked: Mutex::default() })))
    }

    fn lock(
        &self,
        range: Bounds,
        lock: impl FnOnce(&FileBackend) -> Result<bool, BackendError>,
    ) -> Result<bool, BackendError> {
        let mut locked = self.0.locked.lock().unwrap_or_else(PoisonError::into_inner);
        if locked.contains(&range) {
            return Ok(true);
        }
        let done = lock(&self.0.file)?;
        if done {
            locked.push(range);
        }
        Ok(done)
    }
}

impl StorageBackend for LockedFile {
    fn len(&self) -> io::Result<u64> {
        self.0.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.file.read(offset, out)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.0.file.set_len(length)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.file.write(offset, data)
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.lock((start, end), |file| file.try_lock_range(start, end))
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.lock((start, end), |file| file.try_lock_shared_range(start, end))
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.locked.lock().unwrap_or_else(PoisonError::into_inner).retain(|held| *held != (start, end));
        self.0.file.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.file.query_lock_range(start, end)
    }
}
