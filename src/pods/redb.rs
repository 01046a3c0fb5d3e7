//! The durable registry: records in redb, blobs in files beside it.
//!
//! An upload's blob is staged in parallel with others; then the one writer thread takes all that waits, gives the
//! blobs their names, syncs the directory and commits the records in one transaction. Only then is the upload
//! acknowledged: a crash before that leaves at most files that the next start sweeps away.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, RwLock},
    thread::{self, JoinHandle},
};

use async_trait::async_trait;
use bytes::Bytes;
use redb::{Database, DatabaseError, StorageError};
use tokio::sync::{mpsc, oneshot};

use super::{
    Digest, PodRecord, Registry, RegistryError, Slug, VerifiedPod,
    blobs::{BlobFiles, StagedBlob},
    tables::{self, Removed},
};

/// redb's page cache. Records are small, and blobs are not in it.
const CACHE: usize = 8 << 20;
/// Writes that share one transaction at most.
const BATCH: usize = 64;

/// Keeps pods in a data directory; what it acknowledged survives a power cut.
#[derive(Debug)]
pub struct RedbRegistry {
    store: Arc<Store>,
    jobs: Mutex<Option<mpsc::Sender<Job>>>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

/// The registry in a data directory could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory cannot be made, read or written.
    #[error("cannot use the data directory {}: {source}; make it writable for this user, or choose another with --data-dir", .path.display())]
    Directory {
        /// The directory or the file in it.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Another broker has it open.
    #[error("the data directory {} is in use by another broker; stop that one, or choose another with --data-dir", .0.display())]
    InUse(PathBuf),
    /// A newer broker wrote it.
    #[error("{} was written by a newer broker (schema {found}, this one knows {}); start that version again, or restore a backup", .path.display(), tables::SCHEMA)]
    Newer {
        /// The file.
        path: PathBuf,
        /// The version in the file.
        found: u64,
    },
    /// The file is damaged, or is something else.
    #[error("{} cannot be read as a registry: {problem}; restore a backup, or move it away to begin anew", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What redb says.
        problem: String,
    },
}

type Opener = dyn Fn() -> Result<Database, DatabaseError> + Send + Sync;

/// The database and the blobs. After an I/O error redb wants to be opened again; nothing is open until that works.
struct Store {
    database: RwLock<Option<Database>>,
    open: Box<Opener>,
    blobs: BlobFiles,
}

enum Job {
    Put { record: PodRecord, staged: StagedBlob, done: Done<()> },
    Hits { hits: Vec<(Slug, u64)>, done: Done<()> },
    Delete { slug: Slug, done: Done<bool> },
}

type Done<T> = oneshot::Sender<Result<T, RegistryError>>;

impl RedbRegistry {
    /// Opens the registry in `directory`, which is made if it is missing.
    ///
    /// # Errors
    ///
    /// See [`OpenError`]; the message says how to mend it.
    pub fn open(directory: &Path) -> Result<Self, OpenError> {
        let unusable = |source| OpenError::Directory { path: directory.into(), source };
        make_private(directory).map_err(unusable)?;
        let file = directory.join("registry.redb");
        let open = {
            let file = file.clone();
            move || Database::builder().set_cache_size(CACHE).create(&file)
        };
        Self::open_with(directory, &file, open)
    }

    fn open_with(
        directory: &Path,
        file: &Path,
        open: impl Fn() -> Result<Database, DatabaseError> + Send + Sync + 'static,
    ) -> Result<Self, OpenError> {
        let unusable = |source| OpenError::Directory { path: directory.into(), source };
        let unreadable = |problem: String| OpenError::Unreadable { path: file.into(), problem };
        let database = open().map_err(|error| match error {
            DatabaseError::DatabaseAlreadyOpen => OpenError::InUse(directory.into()),
            DatabaseError::Storage(StorageError::Io(source))
                if source.kind() != io::ErrorKind::InvalidData =>
            {
                OpenError::Directory { path: file.into(), source }
            }
            other => unreadable(other.to_string()),
        })?;
        let found = tables::schema(&database).map_err(|error| unreadable(error.to_string()))?;
        if found > tables::SCHEMA {
            return Err(OpenError::Newer { path: file.into(), found });
        }
        let blobs = BlobFiles::open(&directory.join("blobs")).map_err(unusable)?;
        let store = Arc::new(Store { database: RwLock::new(Some(database)), open: Box::new(open), blobs });
        match store.sweep() {
            Ok(0) => {}
            Ok(removed) => tracing::info!(removed, "removed what interrupted uploads had left"),
            Err(error) => return Err(unreadable(error.to_string())),
        }
        let (jobs, queue) = mpsc::channel(BATCH);
        let writer = {
            let store = store.clone();
            thread::Builder::new()
                .name("registry-writer".into())
                .spawn(move || write_all(&store, queue))
                .map_err(unusable)?
        };
        Ok(Self { store, jobs: Mutex::new(Some(jobs)), writer: Mutex::new(Some(writer)) })
    }

    async fn write<T>(&self, job: impl FnOnce(Done<T>) -> Job) -> Result<T, RegistryError> {
        let jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner).clone().ok_or_else(closed)?;
        let (done, answer) = oneshot::channel();
        jobs.send(job(done)).await.map_err(|_| closed())?;
        answer.await.map_err(|_| closed())?
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Store) -> Result<T, RegistryError> + Send + 'static,
    ) -> Result<T, RegistryError> {
        let store = self.store.clone();
        tokio::task::spawn_blocking(move || work(&store)).await.map_err(RegistryError::failed)?
    }
}

fn closed() -> RegistryError {
    RegistryError::failed("the registry is closed")
}

/// Makes `directory` if it is missing, for this user alone.
fn make_private(directory: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)
}

#[async_trait]
impl Registry for RedbRegistry {
    fn name(&self) -> &str {
        "redb"
    }

    async fn put_pod(&self, pod: VerifiedPod) -> Result<(), RegistryError> {
        let (record, blob) = pod.into_parts();
        let staged = self.blocking(move |store| Ok(store.blobs.stage(&blob)?)).await?;
        self.write(|done| Job::Put { record, staged, done }).await
    }

    async fn get_record(&self, slug: &Slug) -> Result<Option<PodRecord>, RegistryError> {
        let slug = *slug;
        self.blocking(move |store| store.read(|database| tables::record(database, &slug))).await
    }

    async fn get_blob(&self, slug: &Slug) -> Result<Option<Bytes>, RegistryError> {
        let slug = *slug;
        let read = move |store: &Store| match store.read(|database| tables::record(database, &slug))? {
            Some(record) => Ok(store.blobs.read(&record.digest)?),
            None => Ok(None),
        };
        self.blocking(read).await
    }

    async fn bump_hits(&self, hits: &[(Slug, u64)]) -> Result<(), RegistryError> {
        let hits = hits.to_vec();
        self.write(|done| Job::Hits { hits, done }).await
    }

    async fn delete(&self, slug: &Slug) -> Result<bool, RegistryError> {
        let slug = *slug;
        self.write(|done| Job::Delete { slug, done }).await
    }

    async fn list(&self, after: Option<&Slug>, limit: usize) -> Result<Vec<PodRecord>, RegistryError> {
        let after = after.copied();
        self.blocking(move |store| store.read(|database| tables::records(database, after.as_ref(), limit)))
            .await
    }

    async fn close(&self) -> Result<(), RegistryError> {
        drop(self.jobs.lock().unwrap_or_else(PoisonError::into_inner).take());
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.blocking(move |store| {
            writer
                .map(JoinHandle::join)
                .transpose()
                .map_err(|_| RegistryError::failed("the writer panicked"))?;
            *store.database.write().unwrap_or_else(PoisonError::into_inner) = None;
            Ok(())
        })
        .await
    }
}

/// The writer: whatever waits shares one directory sync and one transaction.
fn write_all(store: &Store, mut queue: mpsc::Receiver<Job>) {
    while let Some(first) = queue.blocking_recv() {
        let mut batch = vec![first];
        while let (true, Ok(job)) = (batch.len() < BATCH, queue.try_recv()) {
            batch.push(job);
        }
        store.write(batch);
    }
}

impl Store {
    fn read<T>(&self, read: impl FnOnce(&Database) -> Result<T, redb::Error>) -> Result<T, RegistryError> {
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        let database = database.as_ref().ok_or_else(|| RegistryError::failed("the registry is not open"))?;
        read(database).map_err(registry_error)
    }

    fn sweep(&self) -> Result<usize, RegistryError> {
        self.blobs.sweep(|digest| self.read(|database| tables::has_blob(database, digest)))
    }

    /// Does all jobs of a batch or, where the disk fails, none, and answers each.
    fn write(&self, batch: Vec<Job>) {
        let mut published = Vec::new();
        let mut jobs = Vec::new();
        for job in batch {
            match job {
                Job::Put { record, staged, done } => match self.blobs.publish(staged, &record.digest) {
                    Ok(()) => {
                        published.push(record.digest);
                        jobs.push(Write::Put { record, done });
                    }
                    Err(error) => answer(done, Err(error.into())),
                },
                Job::Hits { hits, done } => jobs.push(Write::Hits { hits, done }),
                Job::Delete { slug, done } => jobs.push(Write::Delete { slug, done }),
            }
        }
        match self.reopen_if_needed().and_then(|()| self.commit(&jobs, !published.is_empty())) {
            Ok(removed) => {
                let unused = removed.iter().filter_map(|removed| match removed {
                    Removed::LastOf(digest) => Some(*digest),
                    Removed::Nothing | Removed::RecordOnly => None,
                });
                self.remove_unused(unused);
                let mut removed = removed.iter();
                for job in jobs {
                    match job {
                        Write::Put { done, .. } | Write::Hits { done, .. } => answer(done, Ok(())),
                        Write::Delete { done, .. } => {
                            answer(done, Ok(!matches!(removed.next(), None | Some(Removed::Nothing))));
                        }
                    }
                }
            }
            Err(error) => {
                self.shut();
                if self.reopen_if_needed().is_ok() {
                    self.remove_unused(published.into_iter());
                }
                for job in jobs {
                    let error = repeat(&error);
                    match job {
                        Write::Put { done, .. } | Write::Hits { done, .. } => answer(done, Err(error)),
                        Write::Delete { done, .. } => answer(done, Err(error)),
                    }
                }
            }
        }
    }

    fn commit(&self, jobs: &[Write], published: bool) -> Result<Vec<Removed>, RegistryError> {
        if published {
            self.blobs.sync()?;
        }
        self.read(|database| {
            let txn = tables::begin(database)?;
            let mut removed = Vec::new();
            for job in jobs {
                match job {
                    Write::Put { record, .. } => tables::insert(&txn, record)?,
                    Write::Hits { hits, .. } => tables::add_hits(&txn, hits)?,
                    Write::Delete { slug, .. } => removed.push(tables::remove(&txn, slug)?),
                }
            }
            txn.commit()?;
            Ok(removed)
        })
    }

    /// Removes blobs that no pod has; where that fails, the next start does it.
    fn remove_unused(&self, digests: impl Iterator<Item = Digest>) {
        for digest in digests {
            let used = self.read(|database| tables::has_blob(database, &digest));
            if matches!(used, Ok(false))
                && let Err(error) = self.blobs.remove(&digest)
            {
                tracing::warn!(%error, "an unused blob was not removed; the next start will try again");
            }
        }
    }

    fn shut(&self) {
        *self.database.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn reopen_if_needed(&self) -> Result<(), RegistryError> {
        let mut database = self.database.write().unwrap_or_else(PoisonError::into_inner);
        if database.is_none() {
            *database = Some((self.open)().map_err(|error| registry_error(error.into()))?);
        }
        Ok(())
    }
}

/// A job whose blob, if it has one, has its name already.
enum Write {
    Put { record: PodRecord, done: Done<()> },
    Hits { hits: Vec<(Slug, u64)>, done: Done<()> },
    Delete { slug: Slug, done: Done<bool> },
}

fn answer<T>(done: Done<T>, result: Result<T, RegistryError>) {
    // Nobody waits for it any more if the request was cancelled: what was done stays done.
    let _ = done.send(result);
}

/// The same error for another job of the batch.
fn repeat(error: &RegistryError) -> RegistryError {
    match error {
        RegistryError::Full(problem) => RegistryError::Full(problem.clone()),
        RegistryError::Failed(cause) => RegistryError::failed(cause.to_string()),
    }
}

fn registry_error(error: redb::Error) -> RegistryError {
    match error {
        redb::Error::Io(error) => error.into(),
        other => RegistryError::failed(other),
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("blobs", &self.blobs).finish_non_exhaustive()
    }
}
