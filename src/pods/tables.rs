//! The tables in redb: what each holds, and the transactions on them.
//!
//! | table | key | value |
//! | --- | --- | --- |
//! | `pods` | slug | a version byte, then the record as JSON |
//! | `hits` | slug | downloads |
//! | `blobs` | SHA-256 | how many pods have this blob |
//! | `bindings` | pod id | a version byte, then the owner key that it is bound to, as JSON; made with the first one |
//! | `meta` | `schema` | the version of all this |

use std::ops::Bound;

use redb::{
    Database, ReadableDatabase, ReadableTable, ReadableTableMetadata, Table, TableDefinition, TableError,
    WriteTransaction,
};

use serde::{Serialize, de::DeserializeOwned};

use super::{Binding, Digest, MAX_BINDINGS, PodRecord, Slug};

const PODS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("pods");
const HITS: TableDefinition<'_, &str, u64> = TableDefinition::new("hits");
const BLOBS: TableDefinition<'_, &[u8; 32], u64> = TableDefinition::new("blobs");
const BINDINGS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("bindings");
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
    pods.insert(record.slug.as_str(), encode(record).as_slice())?;
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
    let removed = txn.open_table(PODS)?.remove(slug.as_str())?.map(|value| decode(value.value()));
    let record: Option<PodRecord> = removed.transpose()?;
    let Some(record) = record else { return Ok(Removed::Nothing) };
    txn.open_table(HITS)?.remove(slug.as_str())?;
    let_go(&mut txn.open_table(BLOBS)?, record.digest)
}

/// Puts a record in place of the one under its slug, as [`PodRecord::in_place_of`] says. Nothing where there is none, or
/// one of another owner; else what became of the blob that it had.
pub fn replace(txn: &WriteTransaction, record: &PodRecord) -> Result<Option<Removed>, redb::Error> {
    let mut pods = txn.open_table(PODS)?;
    let before: Option<PodRecord> =
        pods.get(record.slug.as_str())?.map(|value| decode(value.value())).transpose()?;
    let Some(before) = before else { return Ok(None) };
    let Some(record) = record.clone().in_place_of(&before) else { return Ok(None) };
    pods.insert(record.slug.as_str(), encode(&record).as_slice())?;
    if record.digest == before.digest {
        return Ok(Some(Removed::RecordOnly));
    }
    let mut blobs = txn.open_table(BLOBS)?;
    let pods = blobs.get(&record.digest.0)?.map_or(0, |pods| pods.value());
    blobs.insert(&record.digest.0, pods + 1)?;
    Ok(Some(let_go(&mut blobs, before.digest)?))
}

/// Takes one from the count of a blob.
fn let_go(blobs: &mut Table<'_, &'static [u8; 32], u64>, digest: Digest) -> Result<Removed, redb::Error> {
    let pods = blobs.get(&digest.0)?.map_or(0, |pods| pods.value());
    if pods > 1 {
        blobs.insert(&digest.0, pods - 1)?;
        return Ok(Removed::RecordOnly);
    }
    blobs.remove(&digest.0)?;
    Ok(Removed::LastOf(digest))
}

/// Binds a pod id as [`Binding::after`] says. Nothing where the table is full.
pub fn bind(txn: &WriteTransaction, pod_id: &str, binding: Binding) -> Result<Option<Binding>, redb::Error> {
    let mut bindings = txn.open_table(BINDINGS)?;
    let held: Option<Binding> = bindings.get(pod_id)?.map(|value| decode(value.value())).transpose()?;
    if held.is_none() && bindings.len()? >= MAX_BINDINGS {
        return Ok(None);
    }
    let binding = binding.after(held);
    if held != Some(binding) {
        bindings.insert(pod_id, encode(&binding).as_slice())?;
    }
    Ok(Some(binding))
}

/// What a pod id is bound to.
pub fn binding(db: &Database, pod_id: &str) -> Result<Option<Binding>, redb::Error> {
    match db.begin_read()?.open_table(BINDINGS) {
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        table => table?.get(pod_id)?.map(|value| decode(value.value())).transpose(),
    }
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

fn encode(record: &impl Serialize) -> Vec<u8> {
    let mut encoded = vec![RECORD_VERSION];
    serde_json::to_writer(&mut encoded, record).expect("a record is plain data");
    encoded
}

fn decode<T: DeserializeOwned>(value: &[u8]) -> Result<T, redb::Error> {
    let corrupted = |problem: String| redb::Error::Corrupted(format!("a record cannot be read: {problem}"));
    match value.split_first() {
        Some((&RECORD_VERSION, json)) => {
            serde_json::from_slice(json).map_err(|error| corrupted(error.to_string()))
        }
        Some((version, _)) => Err(corrupted(format!("it is of version {version}"))),
        None => Err(corrupted("it is empty".into())),
    }
}
