//! The database and the blobs beside it. Reads do not depend on writes: where the database cannot be written, what is
//! committed is read from a snapshot, until it can be opened for writing again.

use std::{
    io, mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
    time::Instant,
};

use redb::Database;

use super::{
    blob_files::{BlobFiles, StagedBlob},
    damage::{discard, guarded, guarded_read, is_damage},
    file::Source,
    problem::Problem,
    reserve::Reserve,
    schema,
};
use crate::pods::{Quotas, RegistryError};

/// How often a read is made again because another one, or the writer, made the database unusable.
const RETRIES: usize = 3;
/// Bytes that are written to see whether blobs can be.
const LITTLE: usize = 4 * 1024;
/// The same after something could not be written: what a transaction of some uploads writes.
const ROOM: usize = 256 * 1024;

pub struct Store {
    database: RwLock<Access>,
    /// Held by whoever opens the database again, with what came of the last attempt.
    reopening: Mutex<Option<Attempt>>,
    problem: Problem,
    reserve: Reserve,
    /// Held by whoever writes to the database, through more than one transaction.
    turn: Mutex<()>,
    pub blobs: BlobFiles,
    pub quotas: Mutex<Quotas>,
}

struct Access {
    state: State,
    source: Option<Arc<Source>>,
}

enum State {
    Open(Database),
    /// It cannot be written at present. The snapshot was opened then.
    Snapshot(Database, Instant),
    /// It could be neither written nor read at that moment.
    Broken(Instant),
    Closed,
}

/// An attempt to open the database for writing again.
struct Attempt {
    ended: Instant,
    error: Option<RegistryError>,
}

/// For what the database is opened again.
#[derive(Clone, Copy, PartialEq)]
enum Purpose {
    /// There is a snapshot to read from: this can wait, so that a place that cannot be read costs no opening each time.
    Read,
    Write,
}

impl Store {
    pub fn new(database: Database, source: Source, blobs: BlobFiles, reserve: Reserve) -> Self {
        let access = Access { state: State::Open(database), source: Some(Arc::new(source)) };
        let store = Self {
            database: RwLock::new(access),
            reopening: Mutex::default(),
            problem: Problem::default(),
            reserve,
            turn: Mutex::default(),
            blobs,
            quotas: Mutex::default(),
        };
        // Without room for it the start goes on, and says so.
        let _ = store.keep_reserve();
        store
    }

    /// Waits until nobody else is amid transactions.
    pub fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes and syncs a blob that nobody can see yet, if there is room for it and the reserve.
    pub fn stage(&self, blob: &[u8]) -> Result<StagedBlob, RegistryError> {
        let _held = self.reserve.hold()?;
        Ok(self.blobs.stage(blob)?)
    }

    /// Takes what is missing of the reserve.
    pub fn keep_reserve(&self) -> Result<(), RegistryError> {
        if !self.reserve.is_wanting() {
            return Ok(());
        }
        self.note_reserve(self.reserve.keep())
    }

    /// Runs `work` with the room of the reserve. It may open the database at once, whatever came of the last attempt.
    pub fn lend_reserve<T>(&self, work: impl FnOnce() -> T) -> T {
        let (done, kept) = self.reserve.lend(|| {
            *self.reopening.lock().unwrap_or_else(PoisonError::into_inner) = None;
            work()
        });
        // Told by `problem` until it is whole.
        let _ = self.note_reserve(kept);
        done
    }

    fn note_reserve(&self, kept: io::Result<()>) -> Result<(), RegistryError> {
        let kept = kept.map_err(RegistryError::from);
        kept.inspect_err(|error| self.problem.cannot("written", error))
    }

    /// Runs `work` on what is committed. Where that fails because of the database, opens it and runs `work` again: once
    /// after a failure of its own, and up to [`RETRIES`] times where the database had failed before.
    pub fn read<T>(&self, work: impl Fn(&Database) -> Result<T, redb::Error>) -> Result<T, RegistryError> {
        let mut retries = RETRIES;
        loop {
            let error = match self.attempt_read(&work) {
                Err(error) => error,
                done => return done.map_err(registry_error),
            };
            let is_damage = is_damage(&error);
            if is_damage {
                self.found_damage(&error);
            }
            match error {
                redb::Error::PreviousIo if retries > 0 => retries -= 1,
                redb::Error::Io(_) if retries > 0 => retries = 0,
                _ if is_damage && retries > 0 => retries = 0,
                error => return Err(registry_error(error)),
            }
            if !is_damage && let Err(error) = self.reopen(Purpose::Read) {
                tracing::debug!(%error, "the registry was not opened for writing again");
            }
        }
    }

    fn attempt_read<T>(
        &self,
        work: impl FnOnce(&Database) -> Result<T, redb::Error>,
    ) -> Result<T, redb::Error> {
        match &self.access().state {
            State::Open(database) => guarded(|| work(database)),
            State::Snapshot(database, _) => guarded_read(|| work(database)),
            State::Broken(_) => Err(redb::Error::PreviousIo),
            State::Closed => Err(redb::Error::DatabaseClosed),
        }
    }

    /// Runs `work` once on a database that can be written.
    pub fn write<T>(
        &self,
        work: impl FnOnce(&Database) -> Result<T, redb::Error>,
    ) -> Result<T, RegistryError> {
        let done = match &self.access().state {
            State::Open(database) => guarded(|| work(database)),
            State::Snapshot(..) | State::Broken(_) => Err(redb::Error::PreviousIo),
            State::Closed => Err(redb::Error::DatabaseClosed),
        };
        if let Err(error) = &done
            && is_damage(error)
        {
            self.found_damage(error);
        }
        let done = done.map_err(registry_error);
        // One that works proves nothing of others: a hit needs no room.
        done.inspect_err(|error| self.problem.cannot("written", error))
    }

    /// Opens the database for writing again, if redb refuses to write to it since an error.
    pub fn make_writable(&self) -> Result<(), RegistryError> {
        if self.is_writable()? { Ok(()) } else { self.reopen(Purpose::Write) }
    }

    fn is_writable(&self) -> Result<bool, RegistryError> {
        match &self.access().state {
            State::Closed => Err(closed()),
            State::Open(database) => Ok(self.problem.damage().is_none() && takes_transactions(database)),
            State::Snapshot(..) | State::Broken(_) => Ok(false),
        }
    }

    /// Opens the database again, unless that failed a moment ago, or was done for a reader. Readers wait until there is a snapshot at most, and
    /// go on with that.
    fn reopen(&self, purpose: Purpose) -> Result<(), RegistryError> {
        let mut last = self.reopening.lock().unwrap_or_else(PoisonError::into_inner);
        // Another thread may have been quicker.
        if self.is_writable()? {
            return Ok(());
        }
        self.fall_back();
        if let Some(damage) = self.problem.damage() {
            return Err(RegistryError::failed(damage));
        }
        let Some(source) = self.access().source.clone() else { return Err(closed()) };
        let is_recent = |last: &&Attempt| {
            last.ended.elapsed() < source.pause && (last.error.is_some() || purpose == Purpose::Read)
        };
        if let Some(last) = last.as_ref().filter(is_recent) {
            return Err(last.error.as_ref().map_or_else(unusable, RegistryError::repeated));
        }
        let opened = self.open_for_writing(&source);
        let error = opened.as_ref().err().map(RegistryError::repeated);
        *last = Some(Attempt { ended: Instant::now(), error });
        opened
    }

    fn open_for_writing(&self, source: &Source) -> Result<(), RegistryError> {
        match source.open() {
            Ok(database) => {
                let mut access = self.access_mut();
                if let State::Closed = access.state {
                    return Err(closed());
                }
                discard(mem::replace(&mut access.state, State::Open(database)));
                tracing::info!("the registry was opened again after an I/O error");
                Ok(())
            }
            Err(error) => {
                if is_damage(&error) {
                    self.found_damage(&error);
                }
                let error = registry_error(error);
                self.problem.cannot("written", &error);
                Err(error)
            }
        }
    }

    /// Puts a snapshot in the place of a database that is not to be written any more, or of a snapshot that redb has given
    /// up: it may still read what is in its cache, and nothing else. Of the latter, once in a pause.
    fn fall_back(&self) {
        let mut access = self.access_mut();
        let Some(source) = access.source.clone() else { return };
        match &access.state {
            State::Closed => return,
            State::Snapshot(_, since) | State::Broken(since) if since.elapsed() < source.pause => return,
            State::Snapshot(database, _) if takes_transactions(database) => return,
            _ => discard(mem::replace(&mut access.state, State::Broken(Instant::now()))),
        }
        match source.open_snapshot() {
            Ok(database) => access.state = State::Snapshot(database, Instant::now()),
            Err(error) => {
                access.state = State::Broken(Instant::now());
                drop(access);
                self.problem.cannot("read", &registry_error(error));
            }
        }
    }

    /// Nothing is written from now on: what a damaged file says of free pages cannot be believed.
    fn found_damage(&self, error: &redb::Error) {
        self.problem.found_damage(error);
        // First of all: a database writes when it is dropped.
        if let Some(source) = &self.access().source {
            source.seal();
        }
        self.fall_back();
    }

    /// Looks whether the registry can be read and written, and whether the reserve is there. Only where it could not be written,
    /// something is written to the database for that, as much as an upload writes: nothing less shows that there is room
    /// again.
    pub fn check(&self) {
        if let Err(error) = self.read(schema::version) {
            return self.problem.cannot("read", &error);
        }
        if self.make_writable().is_err() {
            return;
        }
        // Also if somebody else removed it.
        if self.note_reserve(self.reserve.keep()).is_err() {
            return;
        }
        let looked = match self.problem.is_of_access() {
            false => self.blobs.check(LITTLE).map_err(RegistryError::from),
            true => self.try_room().map(|()| self.problem.works()),
        };
        if let Err(error) = looked {
            self.problem.cannot("written", &error);
        }
    }

    /// Looks whether there is room for uploads beside the reserve: for their blobs and their records at the same time.
    fn try_room(&self) -> Result<(), RegistryError> {
        let _turn = self.turn();
        self.keep_reserve()?;
        self.blobs.check(ROOM)?;
        self.write(|database| schema::try_room(database, ROOM))?;
        // What the database took is not there for blobs.
        Ok(self.blobs.check(ROOM)?)
    }

    /// Returns why the registry does not work, if it does not.
    pub fn problem(&self) -> Option<String> {
        self.problem.sentence()
    }

    /// Closes the database and lets go of its file.
    pub fn close(&self) {
        let mut access = self.access_mut();
        discard(mem::replace(&mut access.state, State::Closed));
        access.source = None;
    }

    fn access(&self) -> RwLockReadGuard<'_, Access> {
        self.database.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn access_mut(&self) -> RwLockWriteGuard<'_, Access> {
        self.database.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns whether redb takes transactions: it does not since an I/O error, although it reads on from its cache.
fn takes_transactions(database: &Database) -> bool {
    guarded(|| Ok(schema::begin(database)?.abort()?)).is_ok()
}

fn unusable() -> RegistryError {
    registry_error(redb::Error::PreviousIo)
}

/// Returns the error of whatever is done after the end.
pub fn closed() -> RegistryError {
    RegistryError::failed("the registry is closed")
}

pub fn registry_error(error: redb::Error) -> RegistryError {
    match error {
        redb::Error::Io(error) => error.into(),
        redb::Error::PreviousIo => io::Error::other("it cannot be used since an I/O error").into(),
        redb::Error::DatabaseClosed => closed(),
        other => RegistryError::failed(other),
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("blobs", &self.blobs).finish_non_exhaustive()
    }
}
