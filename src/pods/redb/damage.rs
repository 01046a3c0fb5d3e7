//! What redb does where the file is damaged: it reports an error, or it panics.

use std::{
    any::Any,
    cell::Cell,
    io,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
};

use super::checked::Changed;
use super::schema::rows::WRONG_RECORD;

/// Runs `work` on a database, and makes an error of a panic.
pub fn guarded<T>(work: impl FnOnce() -> Result<T, redb::Error>) -> Result<T, redb::Error> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        Err(match panic.downcast::<io::Error>() {
            Ok(error) => redb::Error::Io(*error),
            Err(panic) => redb::Error::Corrupted(format!("redb ended with a panic: {}", message(&*panic))),
        })
    })
}

thread_local! {
    /// Whether this thread reads from a snapshot.
    static READS_SNAPSHOT: Cell<bool> = const { Cell::new(false) };
}

/// Runs `work`, which only reads, on a snapshot. A read of the storage that fails ends `work` and not the snapshot: redb
/// gives a database up at the first error of its storage, and an opening for each read of a damaged page would cost
/// more than the page is worth.
pub fn guarded_read<T>(work: impl FnOnce() -> Result<T, redb::Error>) -> Result<T, redb::Error> {
    READS_SNAPSHOT.set(true);
    let done = guarded(work);
    READS_SNAPSHOT.set(false);
    done
}

/// Returns the error of a read of a snapshot's storage to redb, or past redb to [`guarded_read`] where that runs.
pub fn failed_read(error: io::Error) -> io::Error {
    if cfg!(panic = "unwind") && READS_SNAPSHOT.get() {
        resume_unwind(Box::new(error));
    }
    error
}

/// Returns whether `error` shows that the file, or the database in memory, is not whole.
pub fn is_damage(error: &redb::Error) -> bool {
    match error {
        redb::Error::Io(error) => error.get_ref().is_some_and(|cause| cause.is::<Changed>()),
        redb::Error::Corrupted(problem) => !problem.starts_with(WRONG_RECORD),
        redb::Error::LockPoisoned(_)
        | redb::Error::TransactionPoisoned
        | redb::Error::TableTypeMismatch { .. }
        | redb::Error::TypeDefinitionChanged { .. }
        | redb::Error::TableDoesNotExist(_)
        | redb::Error::TableIsMultimap(_)
        | redb::Error::TableIsNotMultimap(_) => true,
        _ => false,
    }
}

/// Drops a database, which may panic where it is damaged.
pub fn discard<T>(database: T) {
    let dropped = guarded(|| {
        drop(database);
        Ok(())
    });
    if let Err(error) = dropped {
        tracing::debug!(%error, "a database was not closed");
    }
}

fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a message")
}
