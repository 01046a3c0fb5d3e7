//! The tables in redb: what each holds, and the transactions on them.
//!
//! | table | key | value |
//! | --- | --- | --- |
//! | `pods` | slug | a version byte, then the record as JSON |
//! | `hits` | slug | downloads |
//! | `last_hits` | slug | when the last of them was, in seconds since 1970 |
//! | `blobs` | SHA-256 | how many pods have this blob |
//! | `signed_blobs` | SHA-256 | how many of them were uploaded with a signature |
//! | `credentials`, `credential_names` | | as [`credentials`] says |
//! | `owners` | owner key | how many pods it uploaded with a signature, and bytes of their blobs |
//! | `owned` | owner key, slug | nothing: an index of the records by owner key |
//! | `expiring` | milliseconds since 1970, slug | nothing: an index of the records that expire, by when they do |
//! | `meta` | `schema` | the version of all this |
//! | `meta` | `pods`, `bytes` | how many pods there are, and bytes of their blobs |
//! | `times` | `accepted` | when a signed request was accepted last, in seconds since 1970 |
//!
//! [`accounts`] counts, [`indexes`] finds records by other keys. What is kept of pod ids is in tables of its own
//! ([`pod_ids`]).

mod accounts;
pub mod credentials;
mod indexes;
pub mod pod_ids;
pub mod rows;
pub mod times;
mod upgrade;

use std::{
    ops::Bound,
    time::{SystemTime, UNIX_EPOCH},
};

use redb::{Database, ReadableDatabase, ReadableTable, Table, TableDefinition, TableError, WriteTransaction};

use self::{
    accounts::Accounts,
    indexes::Indexes,
    rows::{HITS, LAST_HITS, META, PODS, decode, encode, stored, with_hits},
};
pub use self::{
    accounts::{KnownBlobs, Removed, usage},
    indexes::{expired_records, owned_records},
    upgrade::upgrade,
};
use crate::pods::{PodRecord, QuotaExceeded, Quotas, Slug};

/// There for a moment, to see whether there is room.
const TRIED: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("tried");
/// Bytes in one row of it: some less than a page.
const ROW: usize = 4000;

/// The version of the tables that this broker writes.
pub const SCHEMA: u64 = 3;
/// The schema version in a database, if it is one of a broker.
pub fn version(db: &impl ReadableDatabase) -> Result<Option<u64>, redb::Error> {
    match db.begin_read()?.open_table(META) {
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        table => Ok(table?.get("schema")?.map(|version| version.value())),
    }
}

/// Makes all tables in a new database, and closes it.
pub fn create(db: Database) -> Result<(), redb::Error> {
    let txn = begin(&db)?;
    txn.open_table(META)?.insert("schema", SCHEMA)?;
    change_pods(&txn, |_| Ok(()))?;
    txn.commit()?;
    Ok(db.close()?)
}

/// Writes `bytes` bytes, and leaves nothing of them but room.
pub fn try_room(db: &Database, bytes: usize) -> Result<(), redb::Error> {
    let txn = begin(db)?;
    {
        let mut rows = txn.open_table(TRIED)?;
        for row in 0..bytes.div_ceil(ROW) {
            rows.insert(row as u64, [0; ROW].as_slice())?;
        }
    }
    txn.commit()?;
    let txn = begin(db)?;
    txn.delete_table(TRIED)?;
    txn.commit()?;
    // What a transaction frees can be used once another one is done.
    let txn = begin(db)?;
    txn.open_table(META)?.insert("schema", SCHEMA)?;
    Ok(txn.commit()?)
}

pub fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// A transaction that is durable once it is committed, and that leaves the file quick to open after a crash.
pub fn begin(db: &Database) -> Result<WriteTransaction, redb::Error> {
    let mut txn = db.begin_write()?;
    txn.set_quick_repair(true);
    Ok(txn)
}

/// The tables of pods in a transaction that writes, each of which is opened once.
pub struct PodTables<'txn> {
    pods: Table<'txn, &'static str, &'static [u8]>,
    hits: Table<'txn, &'static str, u64>,
    last_hits: Table<'txn, &'static str, u64>,
    indexes: Indexes<'txn>,
    accounts: Accounts<'txn>,
}

/// Changes pods in a transaction. The tables are made where there are none.
pub fn change_pods<'txn, T>(
    txn: &'txn WriteTransaction,
    change: impl FnOnce(&mut PodTables<'txn>) -> Result<T, redb::Error>,
) -> Result<T, redb::Error> {
    let mut tables = PodTables {
        pods: txn.open_table(PODS)?,
        hits: txn.open_table(HITS)?,
        last_hits: txn.open_table(LAST_HITS)?,
        indexes: Indexes::open(txn)?,
        accounts: Accounts::open(txn)?,
    };
    let changed = change(&mut tables)?;
    tables.accounts.finish()?;
    Ok(changed)
}

impl PodTables<'_> {
    /// Adds a record, unless the quotas forbid it; a record that is there stays as it is.
    pub fn insert(
        &mut self,
        record: &PodRecord,
        quotas: &Quotas,
    ) -> Result<Result<(), QuotaExceeded>, redb::Error> {
        if self.pods.get(record.slug.as_str())?.is_some() {
            return Ok(Ok(()));
        }
        let room = self.accounts.insert(record, quotas)?;
        if room.is_ok() {
            self.pods.insert(record.slug.as_str(), encode(record).as_slice())?;
            self.indexes.add(record)?;
        }
        Ok(room)
    }

    /// Removes a record.
    pub fn remove(&mut self, slug: &Slug) -> Result<Removed, redb::Error> {
        match stored::<PodRecord>(&self.pods, slug.as_str())? {
            Some(record) => {
                self.remove_row(slug)?;
                self.indexes.remove(&record)?;
                self.accounts.remove(&record)
            }
            None => Ok(Removed::Nothing),
        }
    }

    /// The same for these versions of pods: of each table in the order of its keys, so that each page changes once.
    pub fn remove_versions(&mut self, records: &[PodRecord]) -> Result<Vec<Removed>, redb::Error> {
        let mut order: Vec<_> = records.iter().enumerate().collect();
        order.sort_by_key(|(_, record)| record.slug);
        let mut found = Vec::with_capacity(records.len());
        for (n, record) in order {
            match stored::<PodRecord>(&self.pods, record.slug.as_str())? {
                Some(now) if now.is_version_of(record) => {
                    self.remove_row(&now.slug)?;
                    found.push((n, now));
                }
                _ => {}
            }
        }
        found.sort_by_key(|(_, record)| (record.owner_key, record.slug));
        for (_, record) in &found {
            self.indexes.remove(record)?;
        }
        found.sort_by_key(|(_, record)| record.digest);
        let mut removed: Vec<_> = records.iter().map(|_| Removed::Nothing).collect();
        for (n, record) in &found {
            removed[*n] = self.accounts.remove(record)?;
        }
        Ok(removed)
    }

    fn remove_row(&mut self, slug: &Slug) -> Result<(), redb::Error> {
        self.pods.remove(slug.as_str())?;
        self.hits.remove(slug.as_str())?;
        self.last_hits.remove(slug.as_str())?;
        Ok(())
    }

    /// Puts a record in place of the one under its slug, as [`PodRecord::in_place_of`] says, unless the quotas forbid
    /// it. Nothing where there is none, one of another owner, or another version than `expected`; else what became of
    /// the blob that it had.
    pub fn replace(
        &mut self,
        record: &PodRecord,
        expected: Option<&PodRecord>,
        quotas: &Quotas,
    ) -> Result<Result<Option<Removed>, QuotaExceeded>, redb::Error> {
        let before: Option<PodRecord> = stored(&self.pods, record.slug.as_str())?;
        let is_expected = |before: &PodRecord| expected.is_none_or(|expected| before.is_version_of(expected));
        let Some(before) = before.filter(is_expected) else { return Ok(Ok(None)) };
        let Some(record) = record.clone().in_place_of(&before) else { return Ok(Ok(None)) };
        let room = self.accounts.replace(&before, &record, quotas)?;
        if room.is_ok() {
            self.pods.insert(record.slug.as_str(), encode(&record).as_slice())?;
        }
        Ok(room.map(Some))
    }

    /// Adds to the hits of the pods that are there.
    pub fn add_hits(&mut self, hits: &[(Slug, u64)], at: SystemTime) -> Result<(), redb::Error> {
        for (slug, more) in hits {
            let slug = slug.as_str();
            if self.pods.get(slug)?.is_some() {
                let before = self.hits.get(slug)?.map_or(0, |hits| hits.value());
                self.hits.insert(slug, before.saturating_add(*more))?;
                // A clock that is set back makes no pod older.
                let last = self.last_hits.get(slug)?.map_or(0, |last| last.value());
                self.last_hits.insert(slug, last.max(seconds(at)))?;
            }
        }
        Ok(())
    }
}

/// The record of a pod with its hits.
pub fn record(db: &Database, slug: &Slug) -> Result<Option<PodRecord>, redb::Error> {
    let txn = db.begin_read()?;
    let Some(record) = stored(&txn.open_table(PODS)?, slug.as_str())? else { return Ok(None) };
    with_hits(record, &txn.open_table(HITS)?, &txn.open_table(LAST_HITS)?).map(Some)
}

/// At most `limit` records with their hits, in the order of their slugs, from the first one after `after`.
pub fn records(db: &Database, after: Option<&Slug>, limit: usize) -> Result<Vec<PodRecord>, redb::Error> {
    let txn = db.begin_read()?;
    let (pods, hits, last_hits) = (txn.open_table(PODS)?, txn.open_table(HITS)?, txn.open_table(LAST_HITS)?);
    let from = after.map_or(Bound::Unbounded, |slug| Bound::Excluded(slug.as_str()));
    pods.range::<&str>((from, Bound::Unbounded))?
        .take(limit)
        .map(|entry| {
            let (_, value) = entry?;
            with_hits(decode(value.value())?, &hits, &last_hits)
        })
        .collect()
}
