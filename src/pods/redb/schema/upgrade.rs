//! Brings the tables of an older broker up to date.

use std::time::SystemTime;

use redb::{Database, ReadableTable, WriteTransaction};

use super::{
    SCHEMA,
    accounts::{self, Accounts},
    begin,
    indexes::Indexes,
    pod_ids,
    rows::{HITS, LAST_HITS, META, PODS, decode},
    seconds, version,
};
use crate::pods::PodRecord;

/// Brings the tables of an older broker up to [`SCHEMA`] in one transaction.
pub fn upgrade(db: &Database, now: SystemTime) -> Result<(), redb::Error> {
    let found = version(db)?.unwrap_or_default();
    if found == SCHEMA {
        return Ok(());
    }
    let txn = begin(db)?;
    if found < 2 {
        date_hits(&txn, now)?;
        accounts::clear_totals(&txn)?;
    }
    if found < 3 {
        // In schema 2, the owner key in its manifest was charged for a pod, whoever had uploaded it.
        accounts::clear_owners(&txn)?;
        index(&txn, found < 2)?;
        pod_ids::adopt_bindings(&txn)?;
    }
    txn.open_table(META)?.insert("schema", SCHEMA)?;
    Ok(txn.commit()?)
}

/// From schema 1 to 2: pods that were fetched count as fetched at `now`, because it is not known when they were.
fn date_hits(txn: &WriteTransaction, now: SystemTime) -> Result<(), redb::Error> {
    let (mut last_hits, hits) = (txn.open_table(LAST_HITS)?, txn.open_table(HITS)?);
    for entry in hits.iter()? {
        last_hits.insert(entry?.0.value(), seconds(now))?;
    }
    Ok(())
}

/// Adds all records to the indexes and to what their owners have; to the totals, if `with_totals`.
fn index(txn: &WriteTransaction, with_totals: bool) -> Result<(), redb::Error> {
    let (mut indexes, mut accounts) = (Indexes::open(txn)?, Accounts::open(txn)?);
    for entry in txn.open_table(PODS)?.iter()? {
        let record: PodRecord = decode(entry?.1.value())?;
        indexes.add(&record)?;
        accounts.add_to_owner(&record)?;
        if with_totals {
            accounts.add_to_total(&record)?;
        }
    }
    accounts.finish()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use redb::{TableDefinition, backends::InMemoryBackend};

    use super::*;
    use crate::pods::{OwnerKey, Quotas, Usage, VerifiedPod, redb::schema, signed::Pod};

    /// As a broker of schema 2 left it: whatever it counted in total is right.
    #[test]
    fn of_schema_2_the_totals_are_kept_and_owners_are_counted_anew() {
        let database = Database::builder().create_with_backend(InMemoryBackend::new()).unwrap();
        let lifetime = Duration::from_secs(1);
        let pod = VerifiedPod::verify(Pod::named("p").html().into()).unwrap();
        let pod = pod.at(SystemTime::UNIX_EPOCH).with_lifetime(lifetime);
        let (record, _) = pod.into_parts();
        let kept = Usage { pods: 9, bytes: 9000 };
        let txn = database.begin_write().unwrap();
        schema::change_pods(&txn, |pods| pods.insert(&record, &Quotas::default())).unwrap().unwrap();
        txn.delete_table(TableDefinition::<(&[u8; 32], &str), ()>::new("owned")).unwrap();
        txn.delete_table(TableDefinition::<(u64, &str), ()>::new("expiring")).unwrap();
        {
            let mut meta = txn.open_table(META).unwrap();
            for (name, number) in [("schema", 2), ("pods", kept.pods), ("bytes", kept.bytes)] {
                meta.insert(name, number).unwrap();
            }
            let mut owners = txn.open_table(TableDefinition::<&[u8; 32], (u64, u64)>::new("owners")).unwrap();
            owners.insert(&[7; 32], (2, 1000)).unwrap();
        }
        txn.commit().unwrap();
        let blobs = || schema::KnownBlobs::open(&database).unwrap().has(&record.digest).unwrap();
        assert!(blobs());
        upgrade(&database, SystemTime::UNIX_EPOCH).unwrap();
        assert!(blobs());
        assert_eq!(schema::usage(&database, None).unwrap(), kept);
        for key in [OwnerKey([7; 32]), record.owner_key] {
            assert_eq!(schema::usage(&database, Some(&key)).unwrap(), Usage::default());
        }
        let expired = SystemTime::UNIX_EPOCH + lifetime;
        let indexed = [
            schema::owned_records(&database, &record.owner_key, None, 9).unwrap(),
            schema::expired_records(&database, expired, None, 9).unwrap(),
        ];
        assert_eq!(indexed, [[record.clone()], [record]]);
    }
}
