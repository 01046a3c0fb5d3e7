//! The one thread that writes: whatever waits shares one directory sync and one transaction.

use std::{
    collections::BTreeSet,
    sync::{Arc, PoisonError},
    time::{Duration, SystemTime},
};

use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use super::{
    blob_files::StagedBlob,
    changes::{Change, Outcome, PIECE},
    schema::{self, KnownBlobs},
    store::Store,
};
use crate::pods::{
    AddedCredential, Credential, CredentialLimits, CredentialName, Digest, OwnerKey, PodIdChange,
    PodIdChanged, PodRecord, RegistryError, Slug, pod_ids::day_of,
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
        /// Of a registration, while it stands in line.
        place: Option<OwnedSemaphorePermit>,
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
    /// In seconds since 1970.
    AcceptanceTime {
        time: u64,
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
            // Others may stand in line while these are written.
            batch.iter_mut().filter_map(Job::registration_place).for_each(|place| *place = None);
            self.write(batch);
        }
        self.take_back();
    }

    /// Does all jobs of a batch or, where the disk fails, none, and answers each. Where it is full, what frees something is
    /// done nevertheless.
    pub fn write(&mut self, batch: Vec<Job>) {
        let store = self.store.clone();
        // An attempt of others that fails would be the end of this one.
        let _turn = store.turn();
        // No blob gets its name before the database can take its record.
        if let Err(error) = self.settle() {
            let refused = self.free(batch, Vec::new(), &error);
            return refuse(refused, &error);
        }
        let room = store.keep_reserve();
        let batch: Vec<_> = batch.into_iter().filter_map(|job| self.publish(job, &room)).collect();
        let mut outcomes = Vec::with_capacity(batch.len());
        match self.commit(batch.iter().map(Job::change).collect(), usize::MAX, &mut outcomes) {
            Ok(()) => {
                // What became free is the reserve's first; while it is not whole, `problem` says so.
                let _ = store.keep_reserve();
                batch.into_iter().zip(outcomes).for_each(|(job, outcome)| job.answer(outcome));
            }
            Err(error) => {
                for job in &batch {
                    match job.change() {
                        Change::Put(record) => {
                            self.refused.insert(record.slug);
                            self.unused.insert(record.digest);
                        }
                        // One of the two versions is there, and either is a whole one.
                        Change::Replace { record, .. } => drop(self.unused.insert(record.digest)),
                        _ => {}
                    }
                }
                let refused = self.free(batch, outcomes, &error);
                self.take_back();
                refuse(refused, &error);
            }
        }
    }

    /// Gives the blob of an upload its name; a job that ends here is answered and gone. Without `room` for the reserve, only
    /// what frees something goes on: anything else could use up what that needs.
    fn publish(&self, mut job: Job, room: &Result<(), RegistryError>) -> Option<Job> {
        if let Err(error) = room
            && !job.change().adds_nothing()
        {
            job.refuse(error);
            return None;
        }
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

    /// Does what frees something of a batch that failed, if the disk is full, and answers that. `outcomes` are those of the
    /// transaction that failed. Returns the rest.
    fn free(&mut self, batch: Vec<Job>, outcomes: Vec<Outcome>, error: &RegistryError) -> Vec<Job> {
        if !matches!(error, RegistryError::Full(_)) {
            return batch;
        }
        let (mut first, mut rest) = (outcomes.into_iter(), Vec::new());
        for job in batch {
            let first = first.next();
            if !job.change().adds_nothing() {
                rest.push(job);
                continue;
            }
            match self.change_in_reserve(job.change().again(first.as_ref())) {
                Ok(outcome) => job.answer(match first {
                    Some(first) => outcome.after(first),
                    None => outcome,
                }),
                Err(error) => job.refuse(&error),
            }
        }
        rest
    }

    /// Makes a change within the room of the reserve, in as many transactions as that takes.
    fn change_in_reserve(&mut self, change: Change<'_>) -> Result<Outcome, RegistryError> {
        let store = self.store.clone();
        let mut outcomes = Vec::new();
        for piece in change.pieces() {
            store.lend_reserve(|| {
                self.settle()?;
                self.commit(vec![piece], PIECE, &mut outcomes)
            })?;
        }
        let outcome = outcomes.into_iter().reduce(Outcome::and);
        Ok(outcome.expect("a change has a piece at least"))
    }

    /// Makes changes in one transaction; what came of each goes to `outcomes`, also if the transaction fails then. At most
    /// `limit` uploads that were refused are removed in it.
    fn commit(
        &mut self,
        changes: Vec<Change<'_>>,
        limit: usize,
        outcomes: &mut Vec<Outcome>,
    ) -> Result<(), RegistryError> {
        if changes.is_empty() && self.refused.is_empty() {
            return Ok(());
        }
        if changes.iter().any(Change::has_blob) {
            self.store.blobs.sync()?;
        }
        let Self { store, refused, unused } = self;
        let taken_back: Vec<_> = refused.iter().take(limit).copied().collect();
        let quotas = *store.quotas.lock().unwrap_or_else(PoisonError::into_inner);
        store.write(|database| {
            let txn = schema::begin(database)?;
            schema::change_pods(&txn, |pods| {
                for slug in &taken_back {
                    pods.remove(slug)?;
                }
                for change in &changes {
                    outcomes.push(change.apply(&txn, pods, &quotas, unused)?);
                }
                Ok(())
            })?;
            Ok(txn.commit()?)
        })?;
        for slug in taken_back {
            self.refused.remove(&slug);
        }
        self.remove_unused();
        Ok(())
    }

    /// Opens the database again if it has to be, and looks what is left of uploads that were refused.
    fn settle(&mut self) -> Result<(), RegistryError> {
        // Refused at once where redb takes no writes since an I/O error.
        self.store.make_writable()?;
        let refused = &self.refused;
        self.refused = self.store.read(|database| {
            let mut left = BTreeSet::new();
            for slug in refused {
                left.extend(schema::record(database, slug)?.map(|record| record.slug));
            }
            Ok(left)
        })?;
        self.remove_unused();
        Ok(())
    }

    /// Removes what is left of uploads that were refused; where that fails too, the next transaction does it.
    fn take_back(&mut self) {
        if let Err(error) = self.settle().and_then(|()| self.commit(Vec::new(), usize::MAX, &mut Vec::new()))
        {
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
    /// Returns where a registration keeps its place in the line.
    pub fn registration_place(&mut self) -> Option<&mut Option<OwnedSemaphorePermit>> {
        match self {
            Self::PodIds { changes, place, .. } => {
                let is_registration = |(_, change): &(_, _)| matches!(change, PodIdChange::Registered { .. });
                changes.iter().any(is_registration).then_some(place)
            }
            _ => None,
        }
    }

    fn change(&self) -> Change<'_> {
        match self {
            Self::Put { record, .. } => Change::Put(record),
            Self::Replace { record, expected, .. } => Change::Replace { record, expected: expected.as_ref() },
            Self::PodIds { changes, .. } => Change::PodIds(changes),
            Self::PodIdsRan { ran, .. } => Change::PodIdsRan(*ran),
            Self::AddCredential { credential, limits, .. } => Change::AddCredential(credential, *limits),
            Self::RevokeCredential { owner_key, name, .. } => Change::RevokeCredential(owner_key, name),
            Self::Hits { hits, at, .. } => Change::Hits(hits, *at),
            Self::AcceptanceTime { time, .. } => Change::AcceptanceTime(*time),
            Self::Delete { slug, .. } => Change::Delete(slug),
            Self::DeleteVersions { records, .. } => Change::DeleteVersions(records),
        }
    }

    fn answer(self, outcome: Outcome) {
        match (self, outcome) {
            (job, Outcome::NoRoom(quota)) => job.refuse(&quota.into()),
            (Self::Put { done, .. } | Self::Hits { done, .. } | Self::AcceptanceTime { done, .. }, _) => {
                answer(done, Ok(()))
            }
            (Self::Delete { done, .. } | Self::Replace { done, .. }, Outcome::Found(found)) => {
                answer(done, Ok(found))
            }
            (Self::DeleteVersions { done, .. }, Outcome::FoundEach(found)) => answer(done, Ok(found)),
            (Self::PodIds { done, .. }, Outcome::PodIds(changed)) => answer(done, Ok(changed)),
            (Self::PodIdsRan { done, .. }, Outcome::Ran(total)) => answer(done, Ok(day_of(total.as_secs()))),
            (Self::AddCredential { done, .. }, Outcome::AddedCredential(added)) => answer(done, Ok(added)),
            (Self::RevokeCredential { done, .. }, Outcome::Revoked(revoked)) => answer(done, Ok(revoked)),
            (_, _) => unreachable!("each job has its own kind of outcome"),
        }
    }

    fn refuse(self, error: &RegistryError) {
        match self {
            Self::Put { done, .. } | Self::Hits { done, .. } | Self::AcceptanceTime { done, .. } => {
                answer(done, Err(error.repeated()))
            }
            Self::DeleteVersions { done, .. } => answer(done, Err(error.repeated())),
            Self::Delete { done, .. } | Self::Replace { done, .. } => answer(done, Err(error.repeated())),
            Self::PodIds { done, .. } => answer(done, Err(error.repeated())),
            Self::PodIdsRan { done, .. } => answer(done, Err(error.repeated())),
            Self::AddCredential { done, .. } => answer(done, Err(error.repeated())),
            Self::RevokeCredential { done, .. } => answer(done, Err(error.repeated())),
        }
    }
}

fn refuse(batch: Vec<Job>, error: &RegistryError) {
    batch.into_iter().for_each(|job| job.refuse(error));
}

fn answer<T>(done: Done<T>, result: Result<T, RegistryError>) {
    // Nobody waits for it any more if the request was cancelled: what was done stays done.
    let _ = done.send(result);
}
