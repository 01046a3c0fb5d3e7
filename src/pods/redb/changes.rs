//! What the writer changes in a transaction, and what came of it.

use std::{
    collections::BTreeSet,
    time::{Duration, SystemTime},
};

use redb::WriteTransaction;

use super::schema::{self, PodTables, Removed, credentials};
use crate::pods::{
    AddedCredential, Credential, CredentialLimits, CredentialName, Digest, OwnerKey, PodIdChange,
    PodIdChanged, PodRecord, QuotaExceeded, Quotas, Slug,
};

/// Records that a transaction deletes at most where there is no room for more: so the reserve is enough for it.
pub const PIECE: usize = 8;

/// A change, as its job wants it.
#[derive(Clone, Copy)]
pub enum Change<'a> {
    Put(&'a PodRecord),
    Replace {
        record: &'a PodRecord,
        expected: Option<&'a PodRecord>,
    },
    PodIds(&'a [(String, PodIdChange)]),
    PodIdsRan(Duration),
    /// The same by what the time came to in an attempt of which nobody knows whether it counts.
    PodIdsRanFor(Duration),
    AddCredential(&'a Credential, CredentialLimits),
    RevokeCredential(&'a OwnerKey, &'a CredentialName),
    Hits(&'a [(Slug, u64)], SystemTime),
    /// In seconds since 1970.
    AcceptanceTime(u64),
    Delete(&'a Slug),
    DeleteVersions(&'a [PodRecord]),
}

/// What a transaction did for one job.
pub enum Outcome {
    Done,
    /// Whether it found what it was about.
    Found(bool),
    /// The same for each of several.
    FoundEach(Vec<bool>),
    PodIds(Vec<PodIdChanged>),
    /// For how long brokers have run.
    Ran(Duration),
    AddedCredential(AddedCredential),
    Revoked(Option<Credential>),
    NoRoom(QuotaExceeded),
}

impl<'a> Change<'a> {
    /// Returns whether it does nothing but give room or take rights away, or tells which pod ids are used, so that others can
    /// become free, or comes before a request that may do so: a full disk must not be in its way.
    pub fn adds_nothing(&self) -> bool {
        match self {
            Self::Delete(_)
            | Self::DeleteVersions(_)
            | Self::RevokeCredential(..)
            | Self::PodIdsRan(_)
            | Self::PodIdsRanFor(_)
            | Self::AcceptanceTime(_) => true,
            Self::PodIds(changes) => changes.iter().all(|(_, change)| change.adds_nothing()),
            Self::Put(_) | Self::Replace { .. } | Self::AddCredential(..) | Self::Hits(..) => false,
        }
    }

    /// Returns the change to make after an attempt that failed with the outcome `first` and may count all the same.
    pub fn again(self, first: Option<&Outcome>) -> Self {
        match (self, first) {
            (Self::PodIdsRan(_), Some(Outcome::Ran(total))) => Self::PodIdsRanFor(*total),
            (change, _) => change,
        }
    }

    /// Returns whether its record needs a blob.
    pub fn has_blob(&self) -> bool {
        matches!(self, Self::Put(_) | Self::Replace { .. })
    }

    /// Cuts what is about many records into changes of [`PIECE`] of them.
    pub fn pieces(self) -> Vec<Self> {
        match self {
            Self::DeleteVersions(records) if records.len() > PIECE => {
                records.chunks(PIECE).map(Self::DeleteVersions).collect()
            }
            Self::PodIds(changes) if changes.len() > PIECE => {
                changes.chunks(PIECE).map(Self::PodIds).collect()
            }
            small => vec![small],
        }
    }

    /// Makes the change in a transaction. Blobs that have no pod then, if it is committed, are added to `unused`.
    pub fn apply(
        &self,
        txn: &WriteTransaction,
        pods: &mut PodTables<'_>,
        quotas: &Quotas,
        unused: &mut BTreeSet<Digest>,
    ) -> Result<Outcome, redb::Error> {
        Ok(match *self {
            Self::Put(record) => match pods.insert(record, quotas)? {
                Ok(()) => Outcome::Done,
                Err(quota) => {
                    unused.insert(record.digest);
                    Outcome::NoRoom(quota)
                }
            },
            Self::Replace { record, expected } => match pods.replace(record, expected, quotas)? {
                Ok(Some(removed)) => {
                    unused.extend(removed.last_of());
                    Outcome::Found(true)
                }
                other => {
                    unused.insert(record.digest);
                    other.map_or_else(Outcome::NoRoom, |_| Outcome::Found(false))
                }
            },
            Self::PodIds(changes) => Outcome::PodIds(schema::pod_ids::change(txn, changes)?),
            Self::PodIdsRan(ran) => {
                Outcome::Ran(schema::pod_ids::ran(txn, |before| before.saturating_add(ran))?)
            }
            Self::PodIdsRanFor(total) => Outcome::Ran(schema::pod_ids::ran(txn, |before| before.max(total))?),
            Self::AddCredential(credential, limits) => {
                Outcome::AddedCredential(credentials::add(txn, credential, limits)?)
            }
            Self::RevokeCredential(owner_key, name) => {
                Outcome::Revoked(credentials::revoke(txn, owner_key, name)?)
            }
            Self::Hits(hits, at) => {
                pods.add_hits(hits, at)?;
                Outcome::Done
            }
            Self::AcceptanceTime(time) => {
                schema::times::set_accepted(txn, time)?;
                Outcome::Done
            }
            Self::Delete(slug) => {
                let removed = pods.remove(slug)?;
                unused.extend(removed.last_of());
                Outcome::Found(!matches!(removed, Removed::Nothing))
            }
            Self::DeleteVersions(records) => {
                let removed = pods.remove_versions(records)?;
                unused.extend(removed.iter().filter_map(Removed::last_of));
                let found = removed.iter().map(|removed| !matches!(removed, Removed::Nothing));
                Outcome::FoundEach(found.collect())
            }
        })
    }
}

impl Outcome {
    /// Adds what came of the next piece of the same change.
    pub fn and(self, next: Self) -> Self {
        match (self, next) {
            (Self::FoundEach(mut found), Self::FoundEach(more)) => {
                found.extend(more);
                Self::FoundEach(found)
            }
            (Self::PodIds(mut changed), Self::PodIds(more)) => {
                changed.extend(more);
                Self::PodIds(changed)
            }
            (_, next) => next,
        }
    }

    /// Returns what came of a freeing change of which a first attempt failed with the outcome `first`: it may count all the
    /// same, and then the second one finds nothing.
    pub fn after(self, first: Self) -> Self {
        match (self, first) {
            (Self::Found(found), Self::Found(first)) => Self::Found(found || first),
            (Self::FoundEach(found), Self::FoundEach(first)) => {
                Self::FoundEach(found.into_iter().zip(first).map(|(found, first)| found || first).collect())
            }
            (Self::Revoked(revoked), Self::Revoked(first)) => Self::Revoked(revoked.or(first)),
            (Self::PodIds(changed), Self::PodIds(first)) => Self::PodIds(
                changed.into_iter().zip(first).map(|(changed, first)| first.or(changed)).collect(),
            ),
            (outcome, _) => outcome,
        }
    }
}
