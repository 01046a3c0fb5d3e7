//! The states of pod ids. The tables are made with the first of them.
//!
//! | table | key | value |
//! | --- | --- | --- |
//! | `pod_ids` | pod id | a version byte, then a [`PodIdRecord`] as JSON |
//! | `pod_id_owners` | owner key | how many pod ids it owns |
//! | `pod_id_meta` | `anonymous`, `owned` | how many pod ids are in that state |
//! | `pod_id_meta` | `seconds` | for how long brokers have run on this registry |

use std::{ops::Bound, time::Duration};

use redb::{
    Database, ReadTransaction, ReadableDatabase, ReadableTable, ReadableTableMetadata, Table,
    TableDefinition, TableError, WriteTransaction,
};
use serde::Deserialize;

use super::rows::{decode, encode, stored};
use crate::pods::{
    BoundBy, OwnerKey, PodIdChange, PodIdChanged, PodIdRecord, PodIdState,
    pod_ids::{PodIdCounts, counted_key, day_of},
};

const POD_IDS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("pod_ids");
const OWNERS: TableDefinition<'_, &[u8; 32], u64> = TableDefinition::new("pod_id_owners");
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("pod_id_meta");
/// Of brokers up to 0.1.0: pod id, and a version byte with a [`Binding`] as JSON.
const BINDINGS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("bindings");

/// What a broker up to 0.1.0 wrote about a pod id.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Binding {
    owner_pubkey: OwnerKey,
    by: BoundBy,
}

/// The tables in a transaction that writes.
struct Tables<'txn> {
    pod_ids: Table<'txn, &'static str, &'static [u8]>,
    owners: Table<'txn, &'static [u8; 32], u64>,
    meta: Table<'txn, &'static str, u64>,
}

impl<'txn> Tables<'txn> {
    fn open(txn: &'txn WriteTransaction) -> Result<Self, redb::Error> {
        Ok(Self {
            pod_ids: txn.open_table(POD_IDS)?,
            owners: txn.open_table(OWNERS)?,
            meta: txn.open_table(META)?,
        })
    }

    fn number(&self, name: &str) -> Result<u64, redb::Error> {
        Ok(self.meta.get(name)?.map_or(0, |number| number.value()))
    }

    fn owned_by(&self, key: &OwnerKey) -> Result<u64, redb::Error> {
        Ok(self.owners.get(&key.0)?.map_or(0, |number| number.value()))
    }

    fn change(&mut self, pod_id: &str, change: PodIdChange, day: u64) -> Result<PodIdChanged, redb::Error> {
        let before: Option<PodIdRecord> = stored(&self.pod_ids, pod_id)?;
        let after = match PodIdRecord::after(before, change, day) {
            Ok(after) if after != before => after,
            unchanged => return Ok(unchanged),
        };
        match self.count(before.map(|record| record.state), after.map(|record| record.state))? {
            Ok(()) => {}
            Err(full) => return Ok(Err(full)),
        }
        match after {
            Some(record) => self.pod_ids.insert(pod_id, encode(&record).as_slice())?,
            None => self.pod_ids.remove(pod_id)?,
        };
        Ok(Ok(after))
    }

    /// Counts a change of one pod id, if there is room for it.
    fn count(
        &mut self,
        before: Option<PodIdState>,
        after: Option<PodIdState>,
    ) -> Result<Result<(), crate::pods::PodIdRefused>, redb::Error> {
        let key = counted_key(before, after);
        let of_key = key.map(|key| self.owned_by(&key)).transpose()?.unwrap_or_default();
        let counts =
            PodIdCounts { anonymous: self.number("anonymous")?, owned: self.number("owned")?, of_key };
        let counts = match counts.after(before, after) {
            Ok(counts) => counts,
            Err(full) => return Ok(Err(full)),
        };
        self.meta.insert("anonymous", counts.anonymous)?;
        self.meta.insert("owned", counts.owned)?;
        if let Some(key) = key {
            match counts.of_key {
                0 => drop(self.owners.remove(&key.0)?),
                owned => drop(self.owners.insert(&key.0, owned)?),
            }
        }
        Ok(Ok(()))
    }
}

/// Changes the states of pod ids, one after the other.
pub fn change(
    txn: &WriteTransaction,
    changes: &[(String, PodIdChange)],
) -> Result<Vec<PodIdChanged>, redb::Error> {
    let mut tables = Tables::open(txn)?;
    let day = day_of(tables.number("seconds")?);
    changes.iter().map(|(pod_id, change)| tables.change(pod_id, *change, day)).collect()
}

/// Returns what the changes would come to, and whether any of them writes something; counts are not looked at.
pub fn preview(
    db: &Database,
    changes: &[(String, PodIdChange)],
) -> Result<(Vec<PodIdChanged>, bool), redb::Error> {
    let (mut changed, mut writes) = (Vec::with_capacity(changes.len()), false);
    let txn = db.begin_read()?;
    let (day, pod_ids) = (day(&txn)?, existing(txn.open_table(POD_IDS))?);
    for (pod_id, change) in changes {
        let before = pod_ids.as_ref().map(|pod_ids| stored(pod_ids, pod_id)).transpose()?.flatten();
        let after = PodIdRecord::after(before, *change, day);
        writes |= after.is_ok_and(|after| after != before);
        changed.push(after);
    }
    Ok((changed, writes))
}

/// Changes the time for which brokers have run on this registry; returns it.
pub fn ran(
    txn: &WriteTransaction,
    change: impl FnOnce(Duration) -> Duration,
) -> Result<Duration, redb::Error> {
    let mut tables = Tables::open(txn)?;
    let total = change(Duration::from_secs(tables.number("seconds")?));
    tables.meta.insert("seconds", total.as_secs())?;
    Ok(total)
}

fn day(txn: &ReadTransaction) -> Result<u64, redb::Error> {
    let Some(meta) = existing(txn.open_table(META))? else { return Ok(0) };
    Ok(day_of(meta.get("seconds")?.map_or(0, |seconds| seconds.value())))
}

/// Returns `None` for a table that is not made yet.
fn existing<T>(table: Result<T, TableError>) -> Result<Option<T>, redb::Error> {
    match table {
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        table => Ok(Some(table?)),
    }
}

/// Returns the record of a pod id; `None` if it is free.
pub fn record(db: &Database, pod_id: &str) -> Result<Option<PodIdRecord>, redb::Error> {
    let Some(pod_ids) = existing(db.begin_read()?.open_table(POD_IDS))? else { return Ok(None) };
    stored(&pod_ids, pod_id)
}

/// Returns how many pod ids a key owns.
pub fn owned_by(db: &Database, owner_key: &OwnerKey) -> Result<u64, redb::Error> {
    let Some(owners) = existing(db.begin_read()?.open_table(OWNERS))? else { return Ok(0) };
    Ok(owners.get(&owner_key.0)?.map_or(0, |number| number.value()))
}

/// Returns at most `limit` pod ids with their records in their order, from the first one after `after`.
pub fn records(
    db: &Database,
    after: Option<&str>,
    limit: usize,
) -> Result<Vec<(String, PodIdRecord)>, redb::Error> {
    let Some(pod_ids) = existing(db.begin_read()?.open_table(POD_IDS))? else { return Ok(Vec::new()) };
    let from = after.map_or(Bound::Unbounded, Bound::Excluded);
    pod_ids
        .range::<&str>((from, Bound::Unbounded))?
        .take(limit)
        .map(|entry| {
            let (pod_id, value) = entry?;
            Ok((pod_id.value().to_owned(), decode(value.value())?))
        })
        .collect()
}

/// Takes over the bindings of a broker up to 0.1.0 that a registration made: they are owned pod ids. An upload made others,
/// which nobody had signed: anybody could bind a pod id with a copied manifest, or with a key of their own. A broker up to
/// 0.1.0 let a key have any number of bindings.
pub fn adopt_bindings(txn: &WriteTransaction) -> Result<(), redb::Error> {
    {
        let bindings = txn.open_table(BINDINGS)?;
        if bindings.is_empty()? {
            drop(bindings);
            txn.delete_table(BINDINGS)?;
            return Ok(());
        }
        let mut tables = Tables::open(txn)?;
        let last_used = day_of(tables.number("seconds")?);
        let mut released = 0;
        for entry in bindings.iter()? {
            let (pod_id, value) = entry?;
            let Binding { owner_pubkey, by } = decode(value.value())?;
            if by == BoundBy::Upload {
                released += 1;
                continue;
            }
            let state = PodIdState::Owned { owner_pubkey, by };
            let record = PodIdRecord { state, last_used };
            if tables.pod_ids.insert(pod_id.value(), encode(&record).as_slice())?.is_none() {
                // Without a limit: whoever has more keeps them, and gets no others.
                let (owned, of_key) = (tables.number("owned")?, tables.owned_by(&owner_pubkey)?);
                tables.meta.insert("owned", owned + 1)?;
                tables.owners.insert(&owner_pubkey.0, of_key + 1)?;
            }
        }
        if released > 0 {
            tracing::info!(
                "{released} pod ids are free again that an older broker bound by uploads which nobody signed"
            );
        }
    }
    txn.delete_table(BINDINGS)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use redb::backends::InMemoryBackend;

    use super::*;
    use crate::pods::{PodIdRefused, pod_ids::MAX_OWNED_PER_KEY};

    /// More than a key may own now.
    const MANY: u64 = MAX_OWNED_PER_KEY + 1;

    /// As a broker of schema 2 left them.
    #[test]
    fn bindings_of_an_older_broker_become_owned_pod_ids_if_a_key_was_proven() {
        let database = Database::builder().create_with_backend(InMemoryBackend::new()).unwrap();
        let key = OwnerKey([7; 32]);
        let binding = |by: &str| {
            format!(
                "\u{1}{{\"ownerPubkey\":\"{key}\",\"by\":\"{by}\",\"since\":\"2026-11-20T10:00:00.000Z\"}}"
            )
        };
        let txn = database.begin_write().unwrap();
        {
            txn.open_table(super::super::META).unwrap().insert("schema", 2).unwrap();
            txn.open_table(super::super::PODS).unwrap();
            let mut bindings = txn.open_table(BINDINGS).unwrap();
            bindings.insert("uploaded", binding("upload").as_bytes()).unwrap();
            bindings.insert("registered", binding("registration").as_bytes()).unwrap();
            for n in 1..MANY {
                bindings.insert(&*n.to_string(), binding("registration").as_bytes()).unwrap();
            }
        }
        txn.commit().unwrap();
        super::super::upgrade(&database, SystemTime::UNIX_EPOCH).unwrap();
        let of = |pod_id| record(&database, pod_id).unwrap().map(|record| record.state);
        let registered = PodIdState::Owned { owner_pubkey: key, by: BoundBy::Registration };
        assert_eq!(of("registered"), Some(registered));
        assert_eq!(of("uploaded"), None, "no signature proved the key");
        assert_eq!(records(&database, None, usize::MAX).unwrap().len() as u64, MANY);
        let txn = database.begin_write().unwrap();
        assert_eq!(Tables::open(&txn).unwrap().owned_by(&key).unwrap(), MANY);
        assert_eq!(Tables::open(&txn).unwrap().number("owned").unwrap(), MANY);
        let another = PodIdChange::Registered { proof: Some(key), network: None };
        let refused = change(&txn, &[("another".into(), another)]).unwrap();
        assert_eq!(refused, [Err(PodIdRefused::TooManyOfKey)]);
        let released = [("registered".into(), PodIdChange::Released { key })];
        assert_eq!(change(&txn, &released).unwrap(), [Ok(None)]);
        assert!(!txn.delete_table(BINDINGS).unwrap());
    }
}
