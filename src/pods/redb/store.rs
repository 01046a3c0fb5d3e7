//! The database and the blobs beside it; a database that redb gave up is opened again.

use std::sync::{Mutex, PoisonError, RwLock};

use redb::{Database, DatabaseError};

use super::{RegistryError, closed, tables};
use crate::pods::{Quotas, blobs::BlobFiles};

pub type Opener = dyn Fn() -> Result<Database, DatabaseError> + Send + Sync;

pub struct Store {
    database: RwLock<State>,
    open: Box<Opener>,
    pub blobs: BlobFiles,
    pub quotas: Mutex<Quotas>,
}

enum State {
    Open(Database),
    /// It could not be opened again. Whoever needs it next tries.
    Broken,
    Closed,
}

impl Store {
    pub fn new(database: Database, open: Box<Opener>, blobs: BlobFiles) -> Self {
        Self { database: RwLock::new(State::Open(database)), open, blobs, quotas: Mutex::default() }
    }

    /// Runs `work`; where the database was given up, opens it and runs `work` once more.
    pub fn read<T>(&self, work: impl Fn(&Database) -> Result<T, redb::Error>) -> Result<T, RegistryError> {
        match self.attempt(&work) {
            Err(redb::Error::Io(_) | redb::Error::PreviousIo) => {
                self.mend()?;
                self.attempt(work)
            }
            done => done,
        }
        .map_err(registry_error)
    }

    /// Runs `work` once.
    pub fn attempt<T>(
        &self,
        work: impl FnOnce(&Database) -> Result<T, redb::Error>,
    ) -> Result<T, redb::Error> {
        match &*self.database.read().unwrap_or_else(PoisonError::into_inner) {
            State::Open(database) => work(database),
            State::Broken => Err(redb::Error::PreviousIo),
            State::Closed => Err(redb::Error::DatabaseClosed),
        }
    }

    /// Opens the database again, if redb refuses to write to it since an I/O error. Readers wait meanwhile.
    pub fn mend(&self) -> Result<(), RegistryError> {
        let mut state = self.database.write().unwrap_or_else(PoisonError::into_inner);
        match &*state {
            State::Closed => return Err(closed()),
            // Another thread was quicker.
            State::Open(database) if tables::begin(database).is_ok() => return Ok(()),
            State::Open(_) | State::Broken => {}
        }
        // The file is locked until the old database is gone.
        *state = State::Broken;
        *state = State::Open((self.open)().map_err(|error| registry_error(error.into()))?);
        tracing::info!("the registry was opened again after an I/O error");
        Ok(())
    }

    pub fn close(&self) {
        *self.database.write().unwrap_or_else(PoisonError::into_inner) = State::Closed;
    }
}

pub fn registry_error(error: redb::Error) -> RegistryError {
    match error {
        redb::Error::Io(error) => error.into(),
        redb::Error::DatabaseClosed => closed(),
        other => RegistryError::failed(other),
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("blobs", &self.blobs).finish_non_exhaustive()
    }
}
