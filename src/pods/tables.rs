//! The tables in redb: what each holds, and the transactions on them.
//!
//! | table | key | value |
//! | --- | --- | --- |
//! | `pods` | slug | a version byte, then the record as JSON |
//! | `hits` | slug | downloads |
//! | `blobs` | SHA-256 | how many pods have this blob |
//! | `meta` | `schema` | the version of all this |

use std::ops::Bound;

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, TableError, WriteTransaction};

use super::{Digest, PodRecord, Slug};

const PODS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("pods");
const HITS: TableDefinition<'_, &str, u64> = TableDefinition::new("hits");
const BLOBS: TableDefinition<'_, &[u8; 32], u64> = TableDefinition::new("blobs");
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");

/// The version of the tables that this broker writes.
pub const SCHEMA: u64 = 1;
/// The version of an encoded record.
const RECORD_VERSION: u8 = 1;

/// The schema version in a database, if it is one of a broker.
pub fn schema(db: &impl ReadableDatabase) -> Result<Option<u64>, redb::Error> {
    match db.begin_read()?.open_table(META) {
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        table => Ok(table?.get("schema")?.map(|version| version.value())),
    }
}

/// Makes all tables in a new database, and closes it.
pub fn create(db: Database) -> Result<(), redb::Error> {
    let txn = begin(&db)?;
    txn.open_table(META)?.insert("schema", SCHEMA)?;
    txn.open_table(PODS)?;
    txn.open_table(HITS)?;
    txn.open_table(BLOBS)?;
    txn.commit()?;
    Ok(db.close()?)
}

/// A transaction that is durable once it is committed, and that leaves the file quick to open after a crash.
pub fn begin(db: &Database) -> Result<WriteTransaction, redb::Error> {
    let mut txn = db.begin_write()?;
    txn.set_quick_repair(true);
    Ok(txn)
}

/// Adds a record, and one to the count of its blob; a record that is there stays as it is.
pub fn insert(txn: &WriteTransaction, record: &PodRecord) -> Result<(), redb::Error> {
    let mut pods = txn.open_table(PODS)?;
    if pods.get(record.slug.as_str())?.is_some() {
        return Ok(());
    }
    let mut encoded = vec![RECORD_VERSION];
    serde_json::to_writer(&mut encoded, record).expect("a record is plain data");
    pods.insert(record.slug.as_str(), encoded.as_slice())?;
    let mut blobs = txn.open_table(BLOBS)?;
    let pods = blobs.get(&record.digest.0)?.map_or(0, |pods| pods.value());
    blobs.insert(&record.digest.0, pods + 1)?;
    Ok(())
}

/// What removing a record leaves.
pub enum Removed {
    /// There was no such pod.
    Nothing,
    /// Other pods have the same blob.
    RecordOnly,
    /// No pod has the blob any more.
    LastOf(Digest),
}

/// Removes a record, and one from the count of its blob.
pub fn remove(txn: &WriteTransaction, slug: &Slug) -> Result<Removed, redb::Error> {
    let Some(record) =
        txn.open_table(PODS)?.remove(slug.as_str())?.map(|value| decode(value.value())).transpose()?
    else {
        return Ok(Removed::Nothing);
    };
    txn.open_table(HITS)?.remove(slug.as_str())?;
    let mut blobs = txn.open_table(BLOBS)?;
    let pods = blobs.get(&record.digest.0)?.map_or(0, |pods| pods.value());
    if pods > 1 {
        blobs.insert(&record.digest.0, pods - 1)?;
        return Ok(Removed::RecordOnly);
    }
    blobs.remove(&record.digest.0)?;
    Ok(Removed::LastOf(record.digest))
}

/// Adds to the hits of the pods that are there.
pub fn add_hits(txn: &WriteTransaction, hits: &[(Slug, u64)]) -> Result<(), redb::Error> {
    let (pods, mut table) = (txn.open_table(PODS)?, txn.open_table(HITS)?);
    for (slug, more) in hits {
        if pods.get(slug.as_str())?.is_some() {
            let before = table.get(slug.as_str())?.map_or(0, |hits| hits.value());
            table.insert(slug.as_str(), before.saturating_add(*more))?;
        }
    }
    Ok(())
}

/// The record of a pod with its hits.
pub fn record(db: &Database, slug: &Slug) -> Result<Option<PodRecord>, redb::Error> {
    let txn = db.begin_read()?;
    let Some(value) = txn.open_table(PODS)?.get(slug.as_str())? else { return Ok(None) };
    let hits = txn.open_table(HITS)?.get(slug.as_str())?.map_or(0, |hits| hits.value());
    Ok(Some(PodRecord { hits, ..decode(value.value())? }))
}

/// At most `limit` records with their hits, in the order of their slugs, from the first one after `after`.
pub fn records(db: &Database, after: Option<&Slug>, limit: usize) -> Result<Vec<PodRecord>, redb::Error> {
    let txn = db.begin_read()?;
    let (pods, hits) = (txn.open_table(PODS)?, txn.open_table(HITS)?);
    let from = after.map_or(Bound::Unbounded, |slug| Bound::Excluded(slug.as_str()));
    pods.range::<&str>((from, Bound::Unbounded))?
        .take(limit)
        .map(|entry| {
            let (slug, value) = entry?;
            let hits = hits.get(slug.value())?.map_or(0, |hits| hits.value());
            Ok(PodRecord { hits, ..decode(value.value())? })
        })
        .collect()
}

/// Whether any pod has this blob.
pub fn has_blob(db: &Database, digest: &Digest) -> Result<bool, redb::Error> {
    Ok(db.begin_read()?.open_table(BLOBS)?.get(&digest.0)?.is_some())
}

fn decode(value: &[u8]) -> Result<PodRecord, redb::Error> {
    let corrupted = |problem: String| redb::Error::Corrupted(format!("a record cannot be read: {problem}"));
    match value.split_first() {
        Some((&RECORD_VERSION, json)) => {
            serde_json::from_slice(json).map_err(|error| corrupted(error.to_string()))
        }
        Some((version, _)) => Err(corrupted(format!("it is of version {version}"))),
        None => Err(corrupted("it is empty".into())),
    }
}
