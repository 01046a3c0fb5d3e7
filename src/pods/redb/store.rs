//! The database and the blobs beside it. Reads do not depend on writes: where the database cannot be written, what is
//! committed is read from a snapshot, until it can be opened for writing again.

use std::{
    io, mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use redb::Database;

use super::{
    RegistryError, closed,
    damage::{guarded, is_damage},
    file::Source,
    tables,
};
use crate::pods::{Quotas, blobs::BlobFiles};

pub struct Store {
    database: RwLock<Access>,
    /// Held by whoever opens the database again.
    mending: Mutex<()>,
    problem: Mutex<Problem>,
    pub blobs: BlobFiles,
    pub quotas: Mutex<Quotas>,
}

struct Access {
    state: State,
    source: Option<Arc<Source>>,
}

enum State {
    Open(Database),
    /// It cannot be written at present.
    Snapshot(Database),
    /// It can be neither written nor read. Whoever needs it next tries again.
    Broken,
    Closed,
}

/// Why the registry does not work.
#[derive(Default)]
struct Problem {
    /// Since the last attempt to read or write, and until a write succeeds.
    access: Option<String>,
    /// For good: nothing is written to a damaged file.
    damage: Option<String>,
}

impl Store {
    pub fn new(database: Database, source: Source, blobs: BlobFiles) -> Self {
        let access = Access { state: State::Open(database), source: Some(Arc::new(source)) };
        Self {
            database: RwLock::new(access),
            mending: Mutex::default(),
            problem: Mutex::default(),
            blobs,
            quotas: Mutex::default(),
        }
    }

    /// Runs `work` on what is committed; where the database was given up, opens it and runs `work` once more.
    pub fn read<T>(&self, work: impl Fn(&Database) -> Result<T, redb::Error>) -> Result<T, RegistryError> {
        let done = match self.attempt_read(&work) {
            Err(error) if is_damage(&error) => {
                self.found_damage(&error);
                self.attempt_read(&work)
            }
            Err(redb::Error::Io(_) | redb::Error::PreviousIo) => {
                if let Err(error) = self.mend() {
                    tracing::debug!(%error, "the registry was not opened for writing again");
                }
                self.attempt_read(&work)
            }
            done => done,
        };
        done.map_err(registry_error)
    }

    fn attempt_read<T>(
        &self,
        work: impl FnOnce(&Database) -> Result<T, redb::Error>,
    ) -> Result<T, redb::Error> {
        match &self.access().state {
            State::Open(database) | State::Snapshot(database) => guarded(|| work(database)),
            State::Broken => Err(redb::Error::PreviousIo),
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
            State::Snapshot(_) | State::Broken => Err(redb::Error::PreviousIo),
            State::Closed => Err(redb::Error::DatabaseClosed),
        };
        if let Err(error) = &done
            && is_damage(error)
        {
            self.found_damage(error);
        }
        let done = done.map_err(registry_error);
        match &done {
            Ok(_) => self.works(),
            Err(error) => self.cannot("written", error),
        }
        done
    }

    /// Opens the database for writing again, if redb refuses to write to it since an error.
    pub fn make_writable(&self) -> Result<(), RegistryError> {
        if self.is_writable()? { Ok(()) } else { self.mend() }
    }

    fn is_writable(&self) -> Result<bool, RegistryError> {
        match &self.access().state {
            State::Closed => Err(closed()),
            State::Open(database) => Ok(self.problem().damage.is_none() && takes_transactions(database)),
            State::Snapshot(_) | State::Broken => Ok(false),
        }
    }

    /// Opens the database again. Readers wait until there is a snapshot at most, and go on with that.
    fn mend(&self) -> Result<(), RegistryError> {
        let _mending = self.mending.lock().unwrap_or_else(PoisonError::into_inner);
        // Another thread may have been quicker.
        if self.is_writable()? {
            return Ok(());
        }
        self.fall_back();
        if let Some(damage) = &self.problem().damage {
            return Err(RegistryError::failed(damage.clone()));
        }
        let Some(source) = self.access().source.clone() else { return Err(closed()) };
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
            Err(error) if is_damage(&error) => {
                self.found_damage(&error);
                Err(registry_error(error))
            }
            Err(error) => {
                let error = registry_error(error);
                self.cannot("written", &error);
                Err(error)
            }
        }
    }

    /// Puts a snapshot in the place of a database that cannot be read any more, or is not to be written any more.
    fn fall_back(&self) {
        let mut access = self.access_mut();
        let is_readable = |database: &Database| guarded(|| tables::schema(database)).is_ok();
        match &access.state {
            State::Closed => return,
            State::Snapshot(database) if is_readable(database) => return,
            _ => discard(mem::replace(&mut access.state, State::Broken)),
        }
        match access.source.as_ref().map(|source| source.open_snapshot()) {
            Some(Ok(database)) => access.state = State::Snapshot(database),
            Some(Err(error)) => {
                drop(access);
                self.cannot("read", &registry_error(error));
            }
            None => {}
        }
    }

    /// Nothing is written from now on: what a damaged file says of free pages cannot be believed.
    fn found_damage(&self, error: &redb::Error) {
        let is_new = {
            let mut problem = self.problem();
            let is_new = problem.damage.is_none();
            problem.damage.get_or_insert_with(|| {
                "the registry is damaged: nothing can be written to it; stop the broker and restore a backup of its \
                 data directory"
                    .into()
            });
            is_new
        };
        if is_new {
            tracing::error!(%error, "the registry is damaged and nothing is written to it any more; stop the broker and restore a backup of its data directory");
            self.fall_back();
        }
    }

    /// Looks whether the registry can be read and written. Only where it could not be, something is written for that.
    pub fn check(&self) {
        if let Err(error) = self.read(tables::schema) {
            return self.cannot("read", &error);
        }
        if self.make_writable().is_err() {
            return;
        }
        match self.blobs.check() {
            Err(error) => self.cannot("written", &error.into()),
            Ok(()) if self.problem().access.is_some() => {
                if let Err(error) = self.write(tables::touch) {
                    tracing::debug!(%error, "the registry still cannot be written");
                }
            }
            Ok(()) => {}
        }
    }

    /// Why the registry does not work, if it does not.
    pub fn sentence(&self) -> Option<String> {
        let problem = self.problem();
        problem.damage.clone().or_else(|| problem.access.clone())
    }

    fn cannot(&self, what: &str, error: &RegistryError) {
        let cause = match error {
            RegistryError::Full(cause) => cause.clone(),
            other => other.to_string(),
        };
        let sentence = format!("the registry cannot be {what}: {cause}");
        let before = self.problem().access.replace(sentence.clone());
        if before.as_ref() != Some(&sentence) {
            tracing::error!("{sentence}");
        }
    }

    fn works(&self) {
        if self.problem().access.take().is_some() {
            tracing::info!("the registry can be read and written again");
        }
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

    fn problem(&self) -> MutexGuard<'_, Problem> {
        self.problem.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether redb takes transactions: it does not since an I/O error.
fn takes_transactions(database: &Database) -> bool {
    guarded(|| Ok(tables::begin(database)?.abort()?)).is_ok()
}

/// Drops a database, which may panic where it is damaged.
fn discard(state: State) {
    if let Err(error) = guarded(|| {
        drop(state);
        Ok(())
    }) {
        tracing::debug!(%error, "a database was not closed");
    }
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
