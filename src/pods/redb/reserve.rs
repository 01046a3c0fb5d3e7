//! Room on the disk that is kept for writes which free something: redb needs new pages to delete a record.

use std::{
    fs::{self, File},
    io::{self, ErrorKind},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

/// Bytes that are kept. Deletions of up to [`super::changes::PIECE`] pods each write less than a third of it, and the pages of
/// one can be used again by the second after it.
const SIZE: u64 = 2 << 20;
/// Bytes that are allocated at a time: the last pieces take what is left on a disk without room for all.
const STEPS: [u64; 4] = [SIZE, 256 << 10, 32 << 10, 4 << 10];
/// Bytes in a block, as the system counts them.
const BLOCK: u64 = 512;

/// A file that does nothing but take room until it is emptied.
#[derive(Debug)]
pub struct Reserve {
    path: PathBuf,
    state: RwLock<State>,
}

/// How much of it there is.
#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Whole,
    /// Less than all of it: what becomes free belongs to it first.
    Wanting,
    /// It cannot be kept on this file system.
    Impossible,
}

/// Holds the reserve as it is. Whoever writes blobs has one, so that they do not take what a deletion was given.
pub struct Held<'a>(RwLockReadGuard<'a, State>);

impl Reserve {
    /// Uses the file in a data directory. It is made with [`Reserve::keep`].
    pub fn new(directory: &Path) -> Self {
        Self { path: directory.join("reserve"), state: RwLock::new(State::Wanting) }
    }

    /// Returns whether the file was made, by whomever.
    pub fn is_there(&self) -> bool {
        self.path.exists()
    }

    /// Makes the file, where that is possible. A file system that cannot keep room costs a warning.
    pub fn make(&self) {
        if let Err(error) = self.keep()
            && !is_full(&error)
        {
            tracing::warn!(
                %error,
                "{} cannot be kept: while the disk is full, pods may not be deleted, nor credentials revoked, until \
                 there is some room",
                self.path.display()
            );
            *self.state_mut() = State::Impossible;
        }
    }

    /// Takes as much as is missing.
    ///
    /// # Errors
    ///
    /// It is not whole: most likely the disk is full. What there was room for is kept.
    pub fn keep(&self) -> io::Result<()> {
        if self.is_kept() {
            return Ok(());
        }
        let mut state = self.state_mut();
        *state = State::Wanting;
        allocate(&self.path)?;
        *state = State::Whole;
        Ok(())
    }

    /// Returns whether there is nothing to do for it: somebody else may have removed the file. Waits for nobody who holds it.
    fn is_kept(&self) -> bool {
        match *self.state() {
            State::Whole => fs::metadata(&self.path).is_ok_and(|metadata| metadata.len() >= SIZE),
            State::Wanting => false,
            State::Impossible => true,
        }
    }

    /// Returns whether something of it is missing.
    pub fn is_wanting(&self) -> bool {
        *self.state() == State::Wanting
    }

    /// Holds it as it is.
    ///
    /// # Errors
    ///
    /// It is not whole and cannot be made so.
    pub fn hold(&self) -> io::Result<Held<'_>> {
        loop {
            let held = Held(self.state());
            if *held.0 != State::Wanting {
                return Ok(held);
            }
            drop(held);
            self.keep()?;
        }
    }

    /// Runs `work` while the room of the reserve is free, and then takes it again.
    ///
    /// # Errors
    ///
    /// See [`Reserve::keep`]; `work` is done nevertheless.
    pub fn lend<T>(&self, work: impl FnOnce() -> T) -> (T, io::Result<()>) {
        let mut state = self.state_mut();
        if *state == State::Impossible {
            return (work(), Ok(()));
        }
        *state = State::Wanting;
        if let Err(error) = empty(&self.path) {
            tracing::warn!(%error, "{} was not emptied", self.path.display());
        }
        let done = work();
        let taken = allocate(&self.path);
        if taken.is_ok() {
            *state = State::Whole;
        }
        (done, taken)
    }

    fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn state_mut(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns whether something was not written for lack of room.
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}

/// Empties the file at `path`, which is not removed: whoever has it open, such as a backup, would hold its room. The room is
/// free when the file system has written that down.
fn empty(path: &Path) -> io::Result<()> {
    let file = match File::options().write(true).open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        file => file?,
    };
    file.set_len(0)?;
    file.sync_all()
}

/// Gives the file at `path` all blocks of [`SIZE`], or as many as there is room for.
fn allocate(path: &Path) -> io::Result<()> {
    let file = File::options().write(true).create(true).truncate(false).mode(0o600).open(path)?;
    let mut length = blocks_from_start(&file.metadata()?);
    let mut taken = Ok(());
    for step in STEPS {
        while length + step <= SIZE {
            taken = fallocate(&file, length, step);
            match &taken {
                Ok(()) => length += step,
                Err(error) if is_full(error) => break,
                Err(_) => return taken,
            }
        }
    }
    if length == SIZE { Ok(()) } else { taken }
}

/// Returns how many bytes of a file have blocks, counted from its start. Copies of it may have holes.
fn blocks_from_start(metadata: &fs::Metadata) -> u64 {
    match metadata.len() {
        length if length <= SIZE && length <= metadata.blocks() * BLOCK => length,
        _ => 0,
    }
}

#[cfg(target_os = "linux")]
fn fallocate(file: &File, offset: u64, length: u64) -> io::Result<()> {
    use rustix::{
        fs::{FallocateFlags, fallocate},
        io::retry_on_intr,
    };
    Ok(retry_on_intr(|| fallocate(file, FallocateFlags::empty(), offset, length))?)
}

#[cfg(not(target_os = "linux"))]
fn fallocate(_: &File, _: u64, _: u64) -> io::Result<()> {
    Err(ErrorKind::Unsupported.into())
}
