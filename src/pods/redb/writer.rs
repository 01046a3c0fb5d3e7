//! The one thread that writes: whatever waits shares one directory sync and one transaction.

use std::{collections::BTreeSet, sync::Arc};

use tokio::sync::{mpsc, oneshot};

use super::{
    PodRecord, RegistryError, Slug,
    store::{Store, registry_error},
    tables::{self, Removed},
};
use crate::pods::{Digest, blobs::StagedBlob};

/// Writes that share one transaction at most.
pub const BATCH: usize = 64;

pub enum Job {
    /// `staged` is there until the blob has its name.
    Put {
        record: PodRecord,
        staged: Option<StagedBlob>,
        done: Done<()>,
    },
    Hits {
        hits: Vec<(Slug, u64)>,
        done: Done<()>,
    },
    Delete {
        slug: Slug,
        done: Done<bool>,
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
            while let (true, Ok(job)) = (batch.len() < BATCH, queue.try_recv()) {
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
            Ok(deleted) => {
                let mut deleted = deleted.into_iter();
                for job in batch {
                    match job {
                        Job::Put { done, .. } | Job::Hits { done, .. } => answer(done, Ok(())),
                        Job::Delete { done, .. } => answer(done, Ok(deleted.next().unwrap_or_default())),
                    }
                }
            }
            Err(error) => {
                for record in batch.iter().filter_map(Job::put) {
                    self.refused.insert(record.slug);
                    self.unused.insert(record.digest);
                }
                self.take_back();
                refuse(batch, &error);
            }
        }
    }

    /// Gives the blob of an upload its name; an upload that ends here is answered and gone.
    fn publish(&self, job: Job) -> Option<Job> {
        match job {
            // Nobody waits for it any more: it leaves nothing.
            Job::Put { done, .. } if done.is_closed() => None,
            Job::Put { record, staged: Some(staged), done } => {
                match self.store.blobs.publish(staged, &record.digest) {
                    Ok(()) => Some(Job::Put { record, staged: None, done }),
                    Err(error) => {
                        answer(done, Err(error.into()));
                        None
                    }
                }
            }
            other => Some(other),
        }
    }

    /// Writes the records; for each pod that was to be deleted, whether it was there.
    fn commit(&mut self, batch: &[Job]) -> Result<Vec<bool>, RegistryError> {
        if batch.is_empty() && self.refused.is_empty() {
            return Ok(Vec::new());
        }
        if batch.iter().any(|job| job.put().is_some()) {
            self.store.blobs.sync()?;
        }
        let Self { store, refused, unused } = self;
        let committed = store.attempt(|database| {
            let txn = tables::begin(database)?;
            let mut deleted = Vec::new();
            for slug in &*refused {
                tables::remove(&txn, slug)?;
            }
            for job in batch {
                match job {
                    Job::Put { record, .. } => tables::insert(&txn, record)?,
                    Job::Hits { hits, .. } => tables::add_hits(&txn, hits)?,
                    Job::Delete { slug, .. } => {
                        let removed = tables::remove(&txn, slug)?;
                        deleted.push(!matches!(removed, Removed::Nothing));
                        if let Removed::LastOf(digest) = removed {
                            unused.insert(digest);
                        }
                    }
                }
            }
            txn.commit()?;
            Ok(deleted)
        });
        let deleted = committed.map_err(registry_error)?;
        self.refused.clear();
        self.remove_unused();
        Ok(deleted)
    }

    /// Opens the database again if it has to be, and looks what is left of uploads that were refused.
    fn settle(&mut self) -> Result<(), RegistryError> {
        let refused = &self.refused;
        self.refused = self.store.read(|database| {
            // Refused at once where redb takes no writes since an I/O error.
            tables::begin(database)?.abort()?;
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
        unused.retain(|digest| match store.read(|database| tables::has_blob(database, digest)) {
            Ok(false) => {
                if let Err(error) = store.blobs.remove(digest) {
                    tracing::warn!(%error, "an unused blob was not removed; the next start will try again");
                }
                false
            }
            // The pod that has it may be one that is still to be taken back.
            Ok(true) => !refused.is_empty(),
            Err(_) => true,
        });
    }
}

impl Job {
    fn put(&self) -> Option<&PodRecord> {
        match self {
            Self::Put { record, .. } => Some(record),
            Self::Hits { .. } | Self::Delete { .. } => None,
        }
    }
}

fn refuse(batch: Vec<Job>, error: &RegistryError) {
    for job in batch {
        match job {
            Job::Put { done, .. } | Job::Hits { done, .. } => answer(done, Err(repeat(error))),
            Job::Delete { done, .. } => answer(done, Err(repeat(error))),
        }
    }
}

fn answer<T>(done: Done<T>, result: Result<T, RegistryError>) {
    // Nobody waits for it any more if the request was cancelled: what was done stays done.
    let _ = done.send(result);
}

/// The same error for another job of the batch.
fn repeat(error: &RegistryError) -> RegistryError {
    match error {
        RegistryError::Full(problem) => RegistryError::Full(problem.clone()),
        RegistryError::Failed(cause) => RegistryError::failed(cause.to_string()),
    }
}
