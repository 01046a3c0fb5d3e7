//! Further orders of the records: by owner key, and by the moment from which on a pod is not served any more. They
//! change in the transaction that changes the record.

use std::{
    ops::Bound,
    time::{SystemTime, UNIX_EPOCH},
};

use redb::{Database, ReadTransaction, ReadableDatabase, Table, TableDefinition, WriteTransaction};

use super::rows::{HITS, LAST_HITS, PODS, stored, with_hits};
use crate::pods::{OwnerKey, PodRecord, Slug};

const OWNED: TableDefinition<'_, (&[u8; 32], &str), ()> = TableDefinition::new("owned");
const EXPIRING: TableDefinition<'_, (u64, &str), ()> = TableDefinition::new("expiring");

/// The indexes in a transaction.
pub struct Indexes<'txn> {
    owned: Table<'txn, (&'static [u8; 32], &'static str), ()>,
    expiring: Table<'txn, (u64, &'static str), ()>,
}

impl<'txn> Indexes<'txn> {
    /// Opens the indexes, and makes them where there are none.
    pub fn open(txn: &'txn WriteTransaction) -> Result<Self, redb::Error> {
        Ok(Self { owned: txn.open_table(OWNED)?, expiring: txn.open_table(EXPIRING)? })
    }

    /// Adds a record that is new. Another version of it changes neither its owner key nor when it expires.
    pub fn add(&mut self, record: &PodRecord) -> Result<(), redb::Error> {
        self.owned.insert((&record.owner_key.0, record.slug.as_str()), ())?;
        if let Some(expires) = record.expires {
            self.expiring.insert((milliseconds(expires), record.slug.as_str()), ())?;
        }
        Ok(())
    }

    /// Removes a record that was there.
    pub fn remove(&mut self, record: &PodRecord) -> Result<(), redb::Error> {
        self.owned.remove((&record.owner_key.0, record.slug.as_str()))?;
        if let Some(expires) = record.expires {
            self.expiring.remove((milliseconds(expires), record.slug.as_str()))?;
        }
        Ok(())
    }
}

/// Returns at most `limit` records of one owner with their hits, in the order of their slugs, from the first one after
/// `after`.
pub fn owned_records(
    db: &Database,
    owner_key: &OwnerKey,
    after: Option<&Slug>,
    limit: usize,
) -> Result<Vec<PodRecord>, redb::Error> {
    let txn = db.begin_read()?;
    let owned = txn.open_table(OWNED)?;
    let from = match after {
        Some(slug) => Bound::Excluded((&owner_key.0, slug.as_str())),
        None => Bound::Included((&owner_key.0, "")),
    };
    let mut slugs = Vec::new();
    for entry in owned.range((from, Bound::Unbounded))?.take(limit) {
        let (key, _) = entry?;
        let (owner, slug) = key.value();
        if *owner != owner_key.0 {
            break;
        }
        slugs.push(slug.to_owned());
    }
    records_of(&txn, slugs)
}

/// Returns at most `limit` records that are over at `now` with their hits, in the order in which they expired, from the
/// first one after `after`.
pub fn expired_records(
    db: &Database,
    now: SystemTime,
    after: Option<(SystemTime, Slug)>,
    limit: usize,
) -> Result<Vec<PodRecord>, redb::Error> {
    let txn = db.begin_read()?;
    let expiring = txn.open_table(EXPIRING)?;
    let from = match &after {
        Some((expires, slug)) => Bound::Excluded((milliseconds(*expires), slug.as_str())),
        None => Bound::Unbounded,
    };
    let mut slugs = Vec::new();
    for entry in expiring.range((from, Bound::Unbounded))?.take(limit) {
        let (key, _) = entry?;
        let (expires, slug) = key.value();
        if expires > milliseconds(now) {
            break;
        }
        slugs.push(slug.to_owned());
    }
    records_of(&txn, slugs)
}

/// The records of what an index names.
fn records_of(txn: &ReadTransaction, slugs: Vec<String>) -> Result<Vec<PodRecord>, redb::Error> {
    if slugs.is_empty() {
        return Ok(Vec::new());
    }
    let (pods, hits, last_hits) = (txn.open_table(PODS)?, txn.open_table(HITS)?, txn.open_table(LAST_HITS)?);
    let record = |slug: String| {
        let record = stored(&pods, &slug)?
            .ok_or_else(|| redb::Error::Corrupted(format!("an index names {slug}, which has no record")))?;
        with_hits(record, &hits, &last_hits)
    };
    slugs.into_iter().map(record).collect()
}

fn milliseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_millis().try_into().unwrap_or(u64::MAX)
}
