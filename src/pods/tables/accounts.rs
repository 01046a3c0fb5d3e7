//! How much is kept, in all and of each owner key, counted in the transaction that changes it.
//!
//! Pods with the same blob share it, so that its bytes count once. For an owner key, only pods whose upload it signed
//! count: anybody can upload a page around a copy of somebody's manifest.

use redb::{Database, ReadableDatabase, ReadableTable, Table, TableDefinition, WriteTransaction};

use super::{META, PODS, decode};
use crate::pods::{Digest, OwnerKey, PodRecord, QuotaExceeded, Quotas, Usage};

const OWNERS: TableDefinition<'_, &[u8; 32], (u64, u64)> = TableDefinition::new("owners");
const BLOBS: TableDefinition<'_, &[u8; 32], u64> = TableDefinition::new("blobs");
const SIGNED_BLOBS: TableDefinition<'_, &[u8; 32], u64> = TableDefinition::new("signed_blobs");

/// What removing a record leaves.
pub enum Removed {
    /// There was no such pod.
    Nothing,
    /// Other pods have the same blob.
    RecordOnly,
    /// No pod has the blob any more.
    LastOf(Digest),
}

/// The accounts in a transaction.
pub struct Accounts<'txn> {
    meta: Table<'txn, &'static str, u64>,
    owners: Table<'txn, &'static [u8; 32], (u64, u64)>,
    /// How many pods have a blob.
    blobs: Table<'txn, &'static [u8; 32], u64>,
    /// How many of them were uploaded with a signature.
    signed_blobs: Table<'txn, &'static [u8; 32], u64>,
}

impl<'txn> Accounts<'txn> {
    /// Opens the accounts, and makes them where there are none.
    pub fn open(txn: &'txn WriteTransaction) -> Result<Self, redb::Error> {
        Ok(Self {
            meta: txn.open_table(META)?,
            owners: txn.open_table(OWNERS)?,
            blobs: txn.open_table(BLOBS)?,
            signed_blobs: txn.open_table(SIGNED_BLOBS)?,
        })
    }

    /// Counts a record that is new, unless the quotas forbid it.
    pub fn insert(
        &mut self,
        record: &PodRecord,
        quotas: &Quotas,
    ) -> Result<Result<(), QuotaExceeded>, redb::Error> {
        let before = self.usage(&record.owner_key)?;
        self.add(record)?;
        let checked = quotas.check(before, self.usage(&record.owner_key)?);
        if checked.is_err() {
            self.remove(record)?;
        }
        Ok(checked)
    }

    /// Counts `record` in place of another one of the same owner, unless the quotas forbid it. Returns what is left of
    /// the other one's blob.
    pub fn replace(
        &mut self,
        before: &PodRecord,
        record: &PodRecord,
        quotas: &Quotas,
    ) -> Result<Result<Removed, QuotaExceeded>, redb::Error> {
        let usage = self.usage(&record.owner_key)?;
        let removed = self.remove(before)?;
        self.add(record)?;
        if let Err(exceeded) = quotas.check(usage, self.usage(&record.owner_key)?) {
            self.remove(record)?;
            self.add(before)?;
            return Ok(Err(exceeded));
        }
        Ok(Ok(if before.digest == record.digest { Removed::RecordOnly } else { removed }))
    }

    /// Counts a record no longer.
    pub fn remove(&mut self, record: &PodRecord) -> Result<Removed, redb::Error> {
        let mut all = usage_of_all(&self.meta)?;
        all.pods = all.pods.saturating_sub(1);
        let is_last = one_less(&mut self.blobs, &record.digest)? == 0;
        if is_last {
            all.bytes = all.bytes.saturating_sub(record.blob_size);
        }
        self.set_all(all)?;
        if record.upload_signed {
            let mut owned = usage_of(&self.owners, &record.owner_key)?;
            owned.pods = owned.pods.saturating_sub(1);
            if one_less(&mut self.signed_blobs, &record.digest)? == 0 {
                owned.bytes = owned.bytes.saturating_sub(record.blob_size);
            }
            self.set_owned(&record.owner_key, owned)?;
        }
        Ok(if is_last { Removed::LastOf(record.digest) } else { Removed::RecordOnly })
    }

    fn add(&mut self, record: &PodRecord) -> Result<(), redb::Error> {
        let mut all = usage_of_all(&self.meta)?;
        all.pods += 1;
        if one_more(&mut self.blobs, &record.digest)? == 1 {
            all.bytes += record.blob_size;
        }
        self.set_all(all)?;
        if record.upload_signed {
            let mut owned = usage_of(&self.owners, &record.owner_key)?;
            owned.pods += 1;
            if one_more(&mut self.signed_blobs, &record.digest)? == 1 {
                owned.bytes += record.blob_size;
            }
            self.set_owned(&record.owner_key, owned)?;
        }
        Ok(())
    }

    /// Of all, and of one owner.
    fn usage(&self, owner_key: &OwnerKey) -> Result<[Usage; 2], redb::Error> {
        Ok([usage_of_all(&self.meta)?, usage_of(&self.owners, owner_key)?])
    }

    fn set_all(&mut self, usage: Usage) -> Result<(), redb::Error> {
        self.meta.insert("pods", usage.pods)?;
        self.meta.insert("bytes", usage.bytes)?;
        Ok(())
    }

    fn set_owned(&mut self, owner_key: &OwnerKey, usage: Usage) -> Result<(), redb::Error> {
        if usage.pods == 0 {
            self.owners.remove(&owner_key.0)?;
        } else {
            self.owners.insert(&owner_key.0, (usage.pods, usage.bytes))?;
        }
        Ok(())
    }
}

/// Counts all records anew, whatever was counted before.
pub fn rebuild(txn: &WriteTransaction) -> Result<(), redb::Error> {
    txn.delete_table(OWNERS)?;
    txn.delete_table(BLOBS)?;
    txn.delete_table(SIGNED_BLOBS)?;
    let mut accounts = Accounts::open(txn)?;
    accounts.set_all(Usage::default())?;
    for entry in txn.open_table(PODS)?.iter()? {
        accounts.add(&decode(entry?.1.value())?)?;
    }
    Ok(())
}

/// Returns what is kept of one owner, or of all.
pub fn usage(db: &Database, owner_key: Option<&OwnerKey>) -> Result<Usage, redb::Error> {
    let txn = db.begin_read()?;
    match owner_key {
        Some(key) => usage_of(&txn.open_table(OWNERS)?, key),
        None => usage_of_all(&txn.open_table(META)?),
    }
}

/// Returns whether any pod has this blob.
pub fn has_blob(db: &Database, digest: &Digest) -> Result<bool, redb::Error> {
    Ok(db.begin_read()?.open_table(BLOBS)?.get(&digest.0)?.is_some())
}

fn usage_of(
    owners: &impl ReadableTable<&'static [u8; 32], (u64, u64)>,
    owner_key: &OwnerKey,
) -> Result<Usage, redb::Error> {
    let (pods, bytes) = owners.get(&owner_key.0)?.map_or((0, 0), |usage| usage.value());
    Ok(Usage { pods, bytes })
}

fn usage_of_all(meta: &impl ReadableTable<&'static str, u64>) -> Result<Usage, redb::Error> {
    let number = |key| Ok::<_, redb::Error>(meta.get(key)?.map_or(0, |number| number.value()));
    Ok(Usage { pods: number("pods")?, bytes: number("bytes")? })
}

/// Returns how many there are now.
fn one_more(counts: &mut Table<'_, &'static [u8; 32], u64>, digest: &Digest) -> Result<u64, redb::Error> {
    let count = counts.get(&digest.0)?.map_or(0, |count| count.value()) + 1;
    counts.insert(&digest.0, count)?;
    Ok(count)
}

/// Returns how many are left.
fn one_less(counts: &mut Table<'_, &'static [u8; 32], u64>, digest: &Digest) -> Result<u64, redb::Error> {
    let count = counts.get(&digest.0)?.map_or(0, |count| count.value()).saturating_sub(1);
    if count == 0 {
        counts.remove(&digest.0)?;
    } else {
        counts.insert(&digest.0, count)?;
    }
    Ok(count)
}
