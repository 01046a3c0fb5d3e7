//! Opens a data directory, or says why not; a directory that is refused is left as it is.

use std::{
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, SystemTime},
};

use redb::{Builder, Database, DatabaseError};

use super::blob_files::BlobFiles;
use super::{
    RedbRegistry,
    damage::{discard, guarded, is_damage},
    file::{LockedFile, Source},
    line::Line,
    reserve::{Reserve, is_full},
    schema,
    store::Store,
    writer::{BATCH, Writer},
};

/// redb's page cache. Records are small, and blobs are not in it.
const CACHE: usize = 8 << 20;
/// What lies at least between two attempts to open a database that has failed.
const PAUSE: Duration = Duration::from_secs(1);
/// How the name of a registry begins that is not made yet.
const UNFINISHED: &str = ".registry-";
/// What redb calls a file whose format is newer than it knows; nothing else tells it from a damaged one.
const NEWER_FORMAT: &str = "Expected file format version <= ";

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
    /// There is nothing to open.
    #[error("there is no registry in {}; name the data directory of a broker with --data-dir or data_dir", .0.display())]
    Missing(PathBuf),
    /// Another broker has it open.
    #[error("the data directory {} is in use by another broker; stop that one, or choose another with --data-dir", .0.display())]
    InUse(PathBuf),
    /// A broker has it open that a command wants to look after.
    #[error("the data directory {} is in use by a running broker; stop it and its sockets first", .0.display())]
    BrokerRunning(PathBuf),
    /// A newer broker wrote it.
    #[error("{} was written by a newer broker ({found}); start that version again, or restore a backup", .path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// What is newer, and what this broker knows.
        found: String,
    },
    /// The file is damaged, or is something else.
    #[error("{} cannot be read as a registry: {problem}; restore a backup of the data directory, or choose another with --data-dir", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
}

impl RedbRegistry {
    /// Opens the registry in `directory`, which is made if it is missing.
    ///
    /// # Errors
    ///
    /// See [`OpenError`]; the message says how to mend it.
    pub fn open(directory: &Path) -> Result<Self, OpenError> {
        let file = registry_in(directory);
        make_private(directory).map_err(|source| OpenError::Directory { path: directory.into(), source })?;
        let mut is_new = false;
        if !file.try_exists().map_err(|error| refusal(&file, redb::Error::Io(error)))? {
            if BlobFiles::any_in(&blobs_in(directory)) {
                let problem = "it is missing, but its blobs are there".into();
                return Err(OpenError::Unreadable { path: file, problem });
            }
            is_new = create(directory, &file, |unfinished| builder().create(unfinished))
                .map_err(|error| refusal(&file, error))?;
        }
        let locked = LockedFile::open(&file).map_err(|error| refusal(&file, error))?;
        let source = Source::new(locked, CACHE).with_pause(PAUSE);
        if is_new { Self::open_sound(directory, source) } else { Self::open_with(directory, &file, source) }
    }

    /// Opens the registry in `directory`, which must be there: for commands that look after one.
    ///
    /// # Errors
    ///
    /// See [`OpenError`]; the message says how to mend it.
    pub fn open_existing(directory: &Path) -> Result<Self, OpenError> {
        let is_there = registry_in(directory).try_exists();
        let is_there = is_there.map_err(|source| OpenError::Directory { path: directory.into(), source })?;
        if !is_there && !BlobFiles::any_in(&blobs_in(directory)) {
            return Err(OpenError::Missing(directory.into()));
        }
        Self::open(directory).map_err(|error| match error {
            OpenError::InUse(directory) => OpenError::BrokerRunning(directory),
            other => other,
        })
    }

    /// Opens the registry whose database is opened by `source`, now and after I/O errors.
    pub(super) fn open_with(directory: &Path, file: &Path, source: Source) -> Result<Self, OpenError> {
        check(file, &source)?;
        Self::open_sound(directory, source)
    }

    fn open_sound(directory: &Path, source: Source) -> Result<Self, OpenError> {
        let reserve = Reserve::new(directory);
        let opened = match open_database(directory, &source) {
            Err(OpenError::Directory { source: error, .. }) if is_full(&error) && reserve.is_there() => {
                reserve.lend(|| open_database(directory, &source)).0
            }
            opened => opened,
        };
        let (database, blobs) = opened?;
        let accepted = guarded(|| schema::times::accepted(&database));
        let accepted = accepted.map_err(|error| refusal(&registry_in(directory), error))?;
        reserve.make();
        let store = Arc::new(Store::new(database, source, blobs, reserve));
        let (line, queue) = Line::new(BATCH);
        let writer = Writer::new(store.clone());
        let writer = thread::Builder::new()
            .name("registry-writer".into())
            .spawn(move || writer.run(queue))
            .map_err(|source| OpenError::Directory { path: directory.into(), source })?;
        Ok(Self {
            store,
            line: Mutex::new(Some(line)),
            writer: Mutex::new(Some(writer)),
            acceptance_time: accepted.into(),
        })
    }
}

/// Opens the database of a directory and makes it ready.
fn open_database(directory: &Path, source: &Source) -> Result<(Database, BlobFiles), OpenError> {
    let file = &registry_in(directory);
    let database = source.open().map_err(|error| refusal(file, error))?;
    match prepare(directory, &database) {
        Ok(blobs) => Ok((database, blobs)),
        Err(error) => {
            if let Unprepared::Database(error) = &error
                && is_damage(error)
            {
                source.seal();
            }
            discard(database);
            Err(match error {
                Unprepared::Database(error) => refusal(file, error),
                Unprepared::Directory(source) => OpenError::Directory { path: directory.into(), source },
            })
        }
    }
}

/// Why a database that was opened is not used.
enum Unprepared {
    Database(redb::Error),
    Directory(io::Error),
}

impl From<redb::Error> for Unprepared {
    fn from(error: redb::Error) -> Self {
        Self::Database(error)
    }
}

impl From<io::Error> for Unprepared {
    fn from(error: io::Error) -> Self {
        Self::Directory(error)
    }
}

/// Brings the tables up to date, and removes what interrupted uploads left.
fn prepare(directory: &Path, database: &Database) -> Result<BlobFiles, Unprepared> {
    guarded(|| schema::upgrade(database, SystemTime::now()))?;
    let blobs = BlobFiles::open(&blobs_in(directory))?;
    remove_unfinished(directory)?;
    sync(directory)?;
    let known = guarded(|| schema::KnownBlobs::open(database))?;
    let removed = blobs.sweep(|digest| Ok::<_, Unprepared>(guarded(|| known.has(digest))?))?;
    if removed > 0 {
        tracing::info!(removed, "removed what interrupted uploads had left");
    }
    Ok(blobs)
}

fn builder() -> Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE);
    builder
}

fn registry_in(directory: &Path) -> PathBuf {
    directory.join("registry.redb")
}

fn blobs_in(directory: &Path) -> PathBuf {
    directory.join("blobs")
}

/// Makes a registry with nothing in it. It gets its name when it is whole: redb does not open a file whose making
/// was interrupted. Returns false if another broker was quicker.
pub(super) fn create(
    directory: &Path,
    file: &Path,
    make: impl FnOnce(&Path) -> Result<Database, DatabaseError>,
) -> Result<bool, redb::Error> {
    let unfinished = tempfile::Builder::new().prefix(UNFINISHED).tempfile_in(directory);
    // Without the random name, which helps nobody.
    let unfinished = unfinished.map_err(|error| io::Error::from(error.kind()))?;
    schema::create(make(unfinished.path())?)?;
    match unfinished.persist_noclobber(file) {
        Ok(_) => Ok(true),
        // The lock decides which of the two goes on.
        Err(_) if file.try_exists()? => Ok(false),
        Err(error) => Err(error.error.into()),
    }
}

/// Removes registries whose making was interrupted.
fn remove_unfinished(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Checks a registry that was made before. A damaged page is found here, and not by the request that needs it. Opening for
/// writing changes the file, which must not be changed where it is damaged, or where a newer broker wrote it.
fn check(file: &Path, source: &Source) -> Result<(), OpenError> {
    let schema =
        source.open_checked_snapshot().and_then(|snapshot| guarded(move || schema::version(&snapshot)));
    known(file, schema.map_err(|error| refusal(file, error))?)
}

/// Checks that the tables are ones that this broker knows.
fn known(file: &Path, schema: Option<u64>) -> Result<(), OpenError> {
    match schema {
        Some(1..=schema::SCHEMA) => Ok(()),
        Some(found) => {
            let found = format!("schema {found}, this one knows {}", schema::SCHEMA);
            Err(OpenError::Newer { path: file.into(), found })
        }
        None => {
            let problem = "it is a database of another program".into();
            Err(OpenError::Unreadable { path: file.into(), problem })
        }
    }
}

/// What redb says of `file`, for the operator.
fn refusal(file: &Path, error: redb::Error) -> OpenError {
    let unreadable = |problem: String| OpenError::Unreadable { path: file.into(), problem };
    match error {
        redb::Error::DatabaseAlreadyOpen => OpenError::InUse(file.parent().unwrap_or(file).into()),
        redb::Error::Io(error) => match error.kind() {
            io::ErrorKind::UnexpectedEof => unreadable("it is cut off".into()),
            io::ErrorKind::InvalidData => unreadable(error.to_string()),
            _ => OpenError::Directory { path: file.into(), source: error },
        },
        redb::Error::Corrupted(problem) => match problem.strip_prefix(NEWER_FORMAT) {
            Some(versions) => {
                let (known, found) = versions.split_once(", found ").unwrap_or((versions, "unknown"));
                let found = format!("file format {found}, this one knows {known}");
                OpenError::Newer { path: file.into(), found }
            }
            None => unreadable(problem),
        },
        other => unreadable(other.to_string()),
    }
}

/// Makes `directory` if it is missing, for this user alone, and makes its name last.
fn make_private(directory: &Path) -> io::Result<()> {
    if directory.is_dir() || directory.as_os_str().is_empty() {
        return Ok(());
    }
    let parent = directory.parent().unwrap_or(directory);
    make_private(parent)?;
    match DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            if directory.is_dir() {
                Ok(())
            } else {
                Err(io::ErrorKind::NotADirectory.into())
            }
        }
        made => made.and_then(|()| sync(parent)),
    }
}

/// Makes the names in `directory` last.
fn sync(directory: &Path) -> io::Result<()> {
    let here = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
    File::open(here)?.sync_all()
}
