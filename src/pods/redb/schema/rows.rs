//! The rows of the tables of pods, and how a record is written in one.

use std::time::{Duration, UNIX_EPOCH};

use redb::{ReadableTable, TableDefinition};
use serde::{Serialize, de::DeserializeOwned};

use crate::pods::PodRecord;

pub const PODS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("pods");
pub const HITS: TableDefinition<'_, &str, u64> = TableDefinition::new("hits");
pub const LAST_HITS: TableDefinition<'_, &str, u64> = TableDefinition::new("last_hits");
pub const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");

/// How a sentence about a record begins that is not what this broker writes.
pub const WRONG_RECORD: &str = "a record cannot be read";
/// The version of an encoded record.
const RECORD_VERSION: u8 = 1;

/// Returns a record with its hits.
pub fn with_hits(
    record: PodRecord,
    hits: &impl ReadableTable<&'static str, u64>,
    last_hits: &impl ReadableTable<&'static str, u64>,
) -> Result<PodRecord, redb::Error> {
    let hits = hits.get(record.slug.as_str())?.map_or(0, |hits| hits.value());
    let last = last_hits.get(record.slug.as_str())?.map(|seconds| Duration::from_secs(seconds.value()));
    Ok(PodRecord { hits, last_hit: last.and_then(|last| UNIX_EPOCH.checked_add(last)), ..record })
}

/// Returns a record as its table holds it.
pub fn encode(record: &impl Serialize) -> Vec<u8> {
    let mut encoded = vec![RECORD_VERSION];
    serde_json::to_writer(&mut encoded, record).expect("a record is plain data");
    encoded
}

/// Returns what a table holds under `key`.
pub fn stored<T: DeserializeOwned>(
    table: &impl ReadableTable<&'static str, &'static [u8]>,
    key: &str,
) -> Result<Option<T>, redb::Error> {
    table.get(key)?.map(|value| decode(value.value())).transpose()
}

/// Returns the record that `encode` wrote.
pub fn decode<T: DeserializeOwned>(value: &[u8]) -> Result<T, redb::Error> {
    let corrupted = |problem: String| redb::Error::Corrupted(format!("{WRONG_RECORD}: {problem}"));
    match value.split_first() {
        Some((&RECORD_VERSION, json)) => {
            serde_json::from_slice(json).map_err(|error| corrupted(error.to_string()))
        }
        Some((version, _)) => Err(corrupted(format!("it is of version {version}"))),
        None => Err(corrupted("it is empty".into())),
    }
}
