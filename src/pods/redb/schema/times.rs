//! Times by the broker's clock: the table `times`.

use redb::{Database, ReadableDatabase, TableDefinition, TableError, WriteTransaction};

/// In seconds since 1970.
const TIMES: TableDefinition<'_, &str, u64> = TableDefinition::new("times");
const ACCEPTED: &str = "accepted";

/// Returns the latest time at which a signed request was accepted; 0 if none is known.
pub fn accepted(db: &Database) -> Result<u64, redb::Error> {
    match db.begin_read()?.open_table(TIMES) {
        Err(TableError::TableDoesNotExist(_)) => Ok(0),
        times => Ok(times?.get(ACCEPTED)?.map_or(0, |time| time.value())),
    }
}

/// Changes that time.
pub fn set_accepted(txn: &WriteTransaction, time: u64) -> Result<(), redb::Error> {
    txn.open_table(TIMES)?.insert(ACCEPTED, time)?;
    Ok(())
}
