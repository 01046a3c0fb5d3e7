//! How much is kept, in total and of each owner key, counted in the transaction that changes it.
//!
//! Pods with the same blob share it, so that its bytes count once. For an owner key, only pods whose upload it signed
//! count: anybody can upload a page around a copy of somebody's manifest.

use std::collections::BTreeMap;

use redb::{
    Database, ReadOnlyTable, ReadableDatabase, ReadableTable, Table, TableDefinition, WriteTransaction,
};

use super::rows::META;
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

impl Removed {
    /// Returns the blob that no pod has any more.
    pub fn last_of(&self) -> Option<Digest> {
        match self {
            Self::LastOf(digest) => Some(*digest),
            Self::Nothing | Self::RecordOnly => None,
        }
    }
}

/// The accounts in a transaction. The usage that changed is written by [`Accounts::finish`].
pub struct Accounts<'txn> {
    total: Usage,
    changed: BTreeMap<OwnerKey, Usage>,
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
        let meta = txn.open_table(META)?;
        Ok(Self {
            total: usage_of_all(&meta)?,
            changed: BTreeMap::new(),
            meta,
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
        self.total.pods = self.total.pods.saturating_sub(1);
        let is_last = one_less(&mut self.blobs, &record.digest)? == 0;
        if is_last {
            self.total.bytes = self.total.bytes.saturating_sub(record.blob_size);
        }
        if record.upload_signed {
            let mut owned = self.owned(&record.owner_key)?;
            owned.pods = owned.pods.saturating_sub(1);
            if one_less(&mut self.signed_blobs, &record.digest)? == 0 {
                owned.bytes = owned.bytes.saturating_sub(record.blob_size);
            }
            self.changed.insert(record.owner_key, owned);
        }
        Ok(if is_last { Removed::LastOf(record.digest) } else { Removed::RecordOnly })
    }

    fn add(&mut self, record: &PodRecord) -> Result<(), redb::Error> {
        self.add_to_total(record)?;
        self.add_to_owner(record)
    }

    /// Counts a record in the totals alone.
    pub fn add_to_total(&mut self, record: &PodRecord) -> Result<(), redb::Error> {
        self.total.pods += 1;
        if one_more(&mut self.blobs, &record.digest)? == 1 {
            self.total.bytes += record.blob_size;
        }
        Ok(())
    }

    /// Counts a record for its owner alone, if its upload was signed.
    pub fn add_to_owner(&mut self, record: &PodRecord) -> Result<(), redb::Error> {
        if record.upload_signed {
            let mut owned = self.owned(&record.owner_key)?;
            owned.pods += 1;
            if one_more(&mut self.signed_blobs, &record.digest)? == 1 {
                owned.bytes += record.blob_size;
            }
            self.changed.insert(record.owner_key, owned);
        }
        Ok(())
    }

    /// Of all, and of one owner.
    fn usage(&self, owner_key: &OwnerKey) -> Result<[Usage; 2], redb::Error> {
        Ok([self.total, self.owned(owner_key)?])
    }

    fn owned(&self, owner_key: &OwnerKey) -> Result<Usage, redb::Error> {
        match self.changed.get(owner_key) {
            Some(changed) => Ok(*changed),
            None => usage_of(&self.owners, owner_key),
        }
    }

    /// Writes the usage that changed.
    pub fn finish(mut self) -> Result<(), redb::Error> {
        if self.total != usage_of_all(&self.meta)? {
            self.meta.insert("pods", self.total.pods)?;
            self.meta.insert("bytes", self.total.bytes)?;
        }
        for (owner_key, usage) in self.changed {
            if usage.pods == 0 {
                self.owners.remove(&owner_key.0)?;
            } else {
                self.owners.insert(&owner_key.0, (usage.pods, usage.bytes))?;
            }
        }
        Ok(())
    }
}

/// Forgets what was counted for owners.
pub fn clear_owners(txn: &WriteTransaction) -> Result<(), redb::Error> {
    txn.delete_table(OWNERS)?;
    txn.delete_table(SIGNED_BLOBS)?;
    Ok(())
}

/// Forgets the totals.
pub fn clear_totals(txn: &WriteTransaction) -> Result<(), redb::Error> {
    txn.delete_table(BLOBS)?;
    let mut meta = txn.open_table(META)?;
    meta.remove("pods")?;
    meta.remove("bytes")?;
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

/// The blobs that pods have, at one moment.
pub struct KnownBlobs(ReadOnlyTable<&'static [u8; 32], u64>);

impl KnownBlobs {
    pub fn open(db: &Database) -> Result<Self, redb::Error> {
        Ok(Self(db.begin_read()?.open_table(BLOBS)?))
    }

    /// Returns whether any pod has this blob.
    pub fn has(&self, digest: &Digest) -> Result<bool, redb::Error> {
        Ok(self.0.get(&digest.0)?.is_some())
    }
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
