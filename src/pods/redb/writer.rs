//! The one thread that writes: whatever waits shares one directory sync and one transaction.

use std::{
    collections::BTreeSet,
    sync::{Arc, PoisonError},
    time::{Duration, SystemTime},
};

use tokio::sync::{mpsc, oneshot};

use super::{
    PodRecord, RegistryError, Slug,
    store::Store,
    tables::{self, KnownBlobs, Removed},
};
use crate::pods::{
    AddedCredential, Credential, CredentialLimits, CredentialName, Digest, OwnerKey, PodIdChange,
    PodIdChanged, QuotaExceeded, blobs::StagedBlob, credential_tables,
};

/// Writes that share one transaction at most.
pub const BATCH: usize = 64;

pub enum Job {
    /// `staged` is there until the blob has its name.
    Put {
        record: PodRecord,
        staged: Option<StagedBlob>,
        done: Done<()>,
    },
    /// The same for another version of a pod that is there, or of this version of it.
    Replace {
        record: PodRecord,
        expected: Option<PodRecord>,
        staged: Option<StagedBlob>,
        done: Done<bool>,
    },
    PodIds {
        changes: Vec<(String, PodIdChange)>,
        done: Done<Vec<PodIdChanged>>,
    },
    PodIdsRan {
        ran: Duration,
        done: Done<u64>,
    },
    AddCredential {
        credential: Credential,
        limits: CredentialLimits,
        done: Done<AddedCredential>,
    },
    RevokeCredential {
        owner_key: OwnerKey,
        name: CredentialName,
        done: Done<Option<Credential>>,
    },
    Hits {
        hits: Vec<(Slug, u64)>,
        at: SystemTime,
        done: Done<()>,
    },
    Delete {
        slug: Slug,
        done: Done<bool>,
    },
    /// The same for pods that were not replaced meanwhile.
    DeleteVersions {
        records: Vec<PodRecord>,
        done: Done<Vec<bool>>,
    },
}

/// What a transaction did for one job.
enum Outcome {
    Done,
    /// Whether it found what it was about.
    Found(bool),
    /// The same for each of several.
    FoundEach(Vec<bool>),
    PodIds(Vec<PodIdChanged>),
    Day(u64),
    AddedCredential(AddedCredential),
    Revoked(Option<Credential>),
    NoRoom(QuotaExceeded),
}

pub type Done<T> = oneshot::Sender<Result<T, RegistryError>>;

pub struct Writer {
    store: Arc<Store>,
    /// Pods that were refused because their transaction failed, and that are there nevertheless.
    refused: BTreeSet<Slug>,
    /// Blobs that may have no pod.
    unused: BTreeSet<Digest>,
}

impl Writer {
    pub fn new(store: Arc<Store>) -> Self {
        Self { store, refused: BTreeSet::new(), unused: BTreeSet::new() }
    }

    /// Does what is in `queue` until it is closed and empty.
    pub fn run(mut self, mut queue: mpsc::Receiver<Job>) {
        while let Some(first) = queue.blocking_recv() {
            let mut batch = vec![first];
            // In this order: a job that is taken out must have a place.
            while batch.len() < BATCH
                && let Ok(job) = queue.try_recv()
            {
                batch.push(job);
            }
            self.write(batch);
        }
        self.take_back();
    }

    /// Does all jobs of a batch or, where the disk fails, none, and answers each.
    pub fn write(&mut self, batch: Vec<Job>) {
        // No blob gets its name before the database can take its record.
        if let Err(error) = self.settle() {
            return refuse(batch, &error);
        }
        let batch: Vec<_> = batch.into_iter().filter_map(|job| self.publish(job)).collect();
        match self.commit(&batch) {
            Ok(outcomes) => {
                for (job, outcome) in batch.into_iter().zip(outcomes) {
                    match (job, outcome) {
                        (job, Outcome::NoRoom(quota)) => job.refuse(&quota.into()),
                        (Job::Put { done, .. } | Job::Hits { done, .. }, _) => answer(done, Ok(())),
                        (Job::Delete { done, .. } | Job::Replace { done, .. }, Outcome::Found(found)) => {
                            answer(done, Ok(found))
                        }
                        (Job::DeleteVersions { done, .. }, Outcome::FoundEach(found)) => {
                            answer(done, Ok(found))
                        }
                        (Job::PodIds { done, .. }, Outcome::PodIds(changed)) => answer(done, Ok(changed)),
                        (Job::PodIdsRan { done, .. }, Outcome::Day(day)) => answer(done, Ok(day)),
                        (Job::AddCredential { done, .. }, Outcome::AddedCredential(added)) => {
                            answer(done, Ok(added))
                        }
                        (Job::RevokeCredential { done, .. }, Outcome::Revoked(revoked)) => {
                            answer(done, Ok(revoked))
                        }
                        (_, _) => {
                            unreachable!("each job has its own kind of outcome")
                        }
                    }
                }
            }
            Err(error) => {
                for job in &batch {
                    match job {
                        Job::Put { record, .. } => {
                            self.refused.insert(record.slug);
                            self.unused.insert(record.digest);
                        }
                        // One of the two versions is there, and either is a whole one.
                        Job::Replace { record, .. } => drop(self.unused.insert(record.digest)),
                        Job::PodIds { .. }
                        | Job::PodIdsRan { .. }
                        | Job::AddCredential { .. }
                        | Job::RevokeCredential { .. }
                        | Job::Hits { .. }
                        | Job::Delete { .. }
                        | Job::DeleteVersions { .. } => {}
                    }
                }
                self.take_back();
                refuse(batch, &error);
            }
        }
    }

    /// Gives the blob of an upload its name; an upload that ends here is answered and gone.
    fn publish(&self, mut job: Job) -> Option<Job> {
        let (record, staged) = match &mut job {
            // Nobody waits for it any more: it leaves nothing.
            Job::Put { done, .. } if done.is_closed() => return None,
            Job::Replace { done, .. } if done.is_closed() => return None,
            Job::Put { record, staged, .. } | Job::Replace { record, staged, .. } => (record, staged.take()),
            _ => return Some(job),
        };
        let published = staged.map_or(Ok(()), |staged| self.store.blobs.publish(staged, &record.digest));
        match published {
            Ok(()) => Some(job),
            Err(error) => {
                job.refuse(&error.into());
                None
            }
        }
    }

    /// Writes the records; what came of each job.
    fn commit(&mut self, batch: &[Job]) -> Result<Vec<Outcome>, RegistryError> {
        if batch.is_empty() && self.refused.is_empty() {
            return Ok(Vec::new());
        }
        if batch.iter().any(Job::has_blob) {
            self.store.blobs.sync()?;
        }
        let Self { store, refused, unused } = self;
        let quotas = *store.quotas.lock().unwrap_or_else(PoisonError::into_inner);
        let committed = store.write(|database| {
            let txn = tables::begin(database)?;
            let mut outcomes = Vec::with_capacity(batch.len());
            tables::change_pods(&txn, |pods| {
                for slug in &*refused {
                    pods.remove(slug)?;
                }
                for job in batch {
                    let (outcome, removed) = match job {
                        Job::Put { record, .. } => {
                            let room = pods.insert(record, &quotas)?;
                            if room.is_err() {
                                unused.insert(record.digest);
                            }
                            (room.map_or_else(Outcome::NoRoom, |()| Outcome::Done), None)
                        }
                        Job::Replace { record, expected, .. } => {
                            match pods.replace(record, expected.as_ref(), &quotas)? {
                                Ok(Some(removed)) => (Outcome::Found(true), Some(removed)),
                                other => {
                                    unused.insert(record.digest);
                                    (other.map_or_else(Outcome::NoRoom, |_| Outcome::Found(false)), None)
                                }
                            }
                        }
                        Job::PodIds { changes, .. } => {
                            (Outcome::PodIds(tables::pod_ids::change(&txn, changes)?), None)
                        }
                        Job::PodIdsRan { ran, .. } => (Outcome::Day(tables::pod_ids::ran(&txn, *ran)?), None),
                        Job::AddCredential { credential, limits, .. } => {
                            let added = credential_tables::add(&txn, credential, *limits)?;
                            (Outcome::AddedCredential(added), None)
                        }
                        Job::RevokeCredential { owner_key, name, .. } => {
                            (Outcome::Revoked(credential_tables::revoke(&txn, owner_key, name)?), None)
                        }
                        Job::Hits { hits, at, .. } => {
                            pods.add_hits(hits, *at)?;
                            (Outcome::Done, None)
                        }
                        Job::Delete { slug, .. } => deleted(pods.remove(slug)?),
                        Job::DeleteVersions { records, .. } => {
                            let removed = pods.remove_versions(records)?;
                            unused.extend(removed.iter().filter_map(Removed::last_of));
                            let found = removed.iter().map(|removed| !matches!(removed, Removed::Nothing));
                            (Outcome::FoundEach(found.collect()), None)
                        }
                    };
                    outcomes.push(outcome);
                    if let Some(Removed::LastOf(digest)) = removed {
                        unused.insert(digest);
                    }
                }
                Ok(())
            })?;
            txn.commit()?;
            Ok(outcomes)
        });
        let outcomes = committed?;
        self.refused.clear();
        self.remove_unused();
        Ok(outcomes)
    }

    /// Opens the database again if it has to be, and looks what is left of uploads that were refused.
    fn settle(&mut self) -> Result<(), RegistryError> {
        // Refused at once where redb takes no writes since an I/O error.
        self.store.make_writable()?;
        let refused = &self.refused;
        self.refused = self.store.read(|database| {
            let mut left = BTreeSet::new();
            for slug in refused {
                left.extend(tables::record(database, slug)?.map(|record| record.slug));
            }
            Ok(left)
        })?;
        self.remove_unused();
        Ok(())
    }

    /// Removes what is left of uploads that were refused; where that fails too, the next transaction does it.
    fn take_back(&mut self) {
        if let Err(error) = self.settle().and_then(|()| self.commit(&[])) {
            tracing::warn!(%error, "the registry does not work; whoever needs it next tries again");
        }
    }

    /// Removes blobs that no pod has; where that fails, the next start does it.
    fn remove_unused(&mut self) {
        let Self { store, refused, unused } = self;
        if unused.is_empty() {
            return;
        }
        let known = store.read(|database| {
            let blobs = KnownBlobs::open(database)?;
            unused.iter().map(|digest| blobs.has(digest)).collect::<Result<Vec<_>, _>>()
        });
        let Ok(known) = known else { return };
        let mut known = known.into_iter();
        unused.retain(|digest| match known.next() {
            Some(false) => {
                if let Err(error) = store.blobs.remove(digest) {
                    tracing::warn!(%error, "an unused blob was not removed; the next start will try again");
                }
                false
            }
            // The pod that has it may be one that is still to be taken back.
            Some(true) => !refused.is_empty(),
            None => true,
        });
    }
}

impl Job {
    fn has_blob(&self) -> bool {
        matches!(self, Self::Put { .. } | Self::Replace { .. })
    }

    fn refuse(self, error: &RegistryError) {
        match self {
            Self::Put { done, .. } | Self::Hits { done, .. } => answer(done, Err(error.repeated())),
            Self::DeleteVersions { done, .. } => answer(done, Err(error.repeated())),
            Self::Delete { done, .. } | Self::Replace { done, .. } => answer(done, Err(error.repeated())),
            Self::PodIds { done, .. } => answer(done, Err(error.repeated())),
            Self::PodIdsRan { done, .. } => answer(done, Err(error.repeated())),
            Self::AddCredential { done, .. } => answer(done, Err(error.repeated())),
            Self::RevokeCredential { done, .. } => answer(done, Err(error.repeated())),
        }
    }
}

/// What came of a deletion, and what it removed.
fn deleted(removed: Removed) -> (Outcome, Option<Removed>) {
    (Outcome::Found(!matches!(removed, Removed::Nothing)), Some(removed))
}

fn refuse(batch: Vec<Job>, error: &RegistryError) {
    batch.into_iter().for_each(|job| job.refuse(error));
}

fn answer<T>(done: Done<T>, result: Result<T, RegistryError>) {
    // Nobody waits for it any more if the request was cancelled: what was done stays done.
    let _ = done.send(result);
}
