//! The durable registry: records in redb, blobs in files beside it.
//!
//! An upload's blob is staged in parallel with others; then the one [`writer`] thread takes all that waits, gives the
//! blobs their names, syncs the directory and commits the records in one transaction. Only then is the upload
//! acknowledged: a crash before that leaves at most files that the next start sweeps away.

#[cfg(test)]
mod accounting;
mod blob_files;
mod changes;
mod checked;
#[cfg(test)]
mod credential_faults;
mod damage;
#[cfg(test)]
mod damaged;
#[cfg(test)]
mod expiry;
#[cfg(test)]
mod faults;
mod file;
#[cfg(test)]
mod full;
mod line;
#[cfg(test)]
mod lives;
mod open;
mod overlay;
mod problem;
#[cfg(test)]
mod reopening;
mod reserve;
mod schema;
mod store;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod versions;
mod writer;

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use tokio::sync::oneshot;

pub use self::open::OpenError;
use self::{
    line::Line,
    store::{Store, closed},
    writer::{Done, Job},
};
use super::{
    AddedCredential, Blob, Credential, CredentialLimits, CredentialName, Digest, OwnerKey, PodIdChange,
    PodIdChanged, PodIdRecord, PodRecord, Quotas, Registry, RegistryError, Slug, Usage, VerifiedPod,
};

/// Pods that one transaction deletes at most: uploads wait for it.
const DELETIONS: usize = 1024;

/// Keeps pods in a data directory; what it acknowledged survives a power cut.
#[derive(Debug)]
pub struct RedbRegistry {
    store: Arc<Store>,
    line: Mutex<Option<Line>>,
    writer: Mutex<Option<JoinHandle<()>>>,
    /// In seconds since 1970.
    acceptance_time: AtomicU64,
}

impl RedbRegistry {
    async fn write<T>(&self, job: impl FnOnce(Done<T>) -> Job) -> Result<T, RegistryError> {
        let line = self.line.lock().unwrap_or_else(PoisonError::into_inner).clone().ok_or_else(closed)?;
        let (done, answer) = oneshot::channel();
        line.join(job(done)).await?;
        answer.await.map_err(|_| closed())?
    }

    /// Replaces the pod under the same slug if it has the same owner and is `expected`, where one is.
    async fn replace(&self, pod: VerifiedPod, expected: Option<PodRecord>) -> Result<bool, RegistryError> {
        let (record, blob) = pod.into_parts();
        let staged = self.blocking(move |store| store.stage(&blob)).await?;
        self.write(|done| Job::Replace { record, expected, staged: Some(staged), done }).await
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Store) -> Result<T, RegistryError> + Send + 'static,
    ) -> Result<T, RegistryError> {
        let store = self.store.clone();
        tokio::task::spawn_blocking(move || work(&store)).await.map_err(RegistryError::failed)?
    }
}

fn open_pod(store: &Store, mut record: PodRecord) -> Result<Option<(PodRecord, Blob)>, RegistryError> {
    loop {
        if let Some(blob) = store.blobs.open_blob(&record.digest, record.blob_size)? {
            return Ok(Some((record, blob)));
        }
        // A blob that is gone was replaced or deleted since.
        match store.read(|database| schema::record(database, &record.slug))? {
            Some(again) if again.digest != record.digest => record = again,
            Some(PodRecord { slug, digest, .. }) => {
                let problem = format!("the blob {digest} of the pod {slug} is missing");
                return Err(RegistryError::failed(problem));
            }
            None => return Ok(None),
        }
    }
}

#[async_trait]
impl Registry for RedbRegistry {
    fn name(&self) -> &str {
        "redb"
    }

    async fn put_pod(&self, pod: VerifiedPod) -> Result<(), RegistryError> {
        let (record, blob) = pod.into_parts();
        let staged = self.blocking(move |store| store.stage(&blob)).await?;
        self.write(|done| Job::Put { record, staged: Some(staged), done }).await
    }

    async fn replace_pod(&self, pod: VerifiedPod) -> Result<bool, RegistryError> {
        self.replace(pod, None).await
    }

    async fn replace_version(&self, pod: VerifiedPod, before: &PodRecord) -> Result<bool, RegistryError> {
        self.replace(pod, Some(before.clone())).await
    }

    async fn get_record(&self, slug: &Slug) -> Result<Option<PodRecord>, RegistryError> {
        let slug = *slug;
        self.blocking(move |store| store.read(|database| schema::record(database, &slug))).await
    }

    async fn get_blob(&self, slug: &Slug) -> Result<Option<Blob>, RegistryError> {
        Ok(self.get_pod(slug).await?.map(|(_, blob)| blob))
    }

    async fn get_pod(&self, slug: &Slug) -> Result<Option<(PodRecord, Blob)>, RegistryError> {
        let slug = *slug;
        let open = move |store: &Store| match store.read(|database| schema::record(database, &slug))? {
            Some(record) => open_pod(store, record),
            None => Ok(None),
        };
        self.blocking(open).await
    }

    async fn open_pod(&self, record: PodRecord) -> Result<Option<(PodRecord, Blob)>, RegistryError> {
        self.blocking(|store| open_pod(store, record)).await
    }

    async fn list_owned(
        &self,
        owner_key: &OwnerKey,
        after: Option<&Slug>,
        limit: usize,
    ) -> Result<Vec<PodRecord>, RegistryError> {
        let (owner_key, after) = (*owner_key, after.copied());
        let read = move |store: &Store| {
            store.read(|database| schema::owned_records(database, &owner_key, after.as_ref(), limit))
        };
        self.blocking(read).await
    }

    async fn bump_hits(&self, hits: &[(Slug, u64)], at: SystemTime) -> Result<(), RegistryError> {
        let hits = hits.to_vec();
        self.write(|done| Job::Hits { hits, at, done }).await
    }

    async fn delete(&self, slug: &Slug) -> Result<bool, RegistryError> {
        let slug = *slug;
        self.write(|done| Job::Delete { slug, done }).await
    }

    async fn delete_version(&self, record: &PodRecord) -> Result<bool, RegistryError> {
        let deleted = self.delete_versions(std::slice::from_ref(record)).await?;
        Ok(deleted.first().copied().unwrap_or_default())
    }

    async fn delete_versions(&self, records: &[PodRecord]) -> Result<Vec<bool>, RegistryError> {
        let mut deleted = Vec::with_capacity(records.len());
        for records in records.chunks(DELETIONS) {
            let records = records.to_vec();
            deleted.extend(self.write(|done| Job::DeleteVersions { records, done }).await?);
        }
        Ok(deleted)
    }

    async fn list_expired(
        &self,
        now: SystemTime,
        after: Option<&PodRecord>,
        limit: usize,
    ) -> Result<Vec<PodRecord>, RegistryError> {
        let after = after.and_then(|record| record.expires.map(|expires| (expires, record.slug)));
        let read =
            move |store: &Store| store.read(|database| schema::expired_records(database, now, after, limit));
        self.blocking(read).await
    }

    fn set_quotas(&self, quotas: Quotas) {
        *self.store.quotas.lock().unwrap_or_else(PoisonError::into_inner) = quotas;
    }

    async fn usage(&self, owner_key: Option<&OwnerKey>) -> Result<Usage, RegistryError> {
        let owner_key = owner_key.copied();
        self.blocking(move |store| store.read(|database| schema::usage(database, owner_key.as_ref()))).await
    }

    async fn list(&self, after: Option<&Slug>, limit: usize) -> Result<Vec<PodRecord>, RegistryError> {
        let after = after.copied();
        self.blocking(move |store| store.read(|database| schema::records(database, after.as_ref(), limit)))
            .await
    }

    async fn pod_id(&self, pod_id: &str) -> Result<Option<PodIdRecord>, RegistryError> {
        let pod_id = pod_id.to_owned();
        self.blocking(move |store| store.read(|database| schema::pod_ids::record(database, &pod_id))).await
    }

    async fn change_pod_ids(
        &self,
        changes: Vec<(String, PodIdChange)>,
    ) -> Result<Vec<PodIdChanged>, RegistryError> {
        // Most registrations change nothing: only the others wait for the disk.
        let preview = move |store: &Store| {
            let preview = store.read(|database| schema::pod_ids::preview(database, &changes))?;
            Ok((changes, preview))
        };
        let (changes, (unchanged, writes)) = self.blocking(preview).await?;
        if !writes {
            return Ok(unchanged);
        }
        self.write(|done| Job::PodIds { changes, place: None, done }).await
    }

    async fn list_pod_ids(
        &self,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(String, PodIdRecord)>, RegistryError> {
        let after = after.map(ToOwned::to_owned);
        let read = move |store: &Store| {
            store.read(|database| schema::pod_ids::records(database, after.as_deref(), limit))
        };
        self.blocking(read).await
    }

    async fn pod_ids_ran(&self, ran: Duration) -> Result<u64, RegistryError> {
        self.write(|done| Job::PodIdsRan { ran, done }).await
    }

    async fn owned_pod_ids(&self, owner_key: &OwnerKey) -> Result<u64, RegistryError> {
        let owner_key = *owner_key;
        self.blocking(move |store| store.read(|database| schema::pod_ids::owned_by(database, &owner_key)))
            .await
    }

    async fn add_credential(
        &self,
        credential: Credential,
        limits: CredentialLimits,
    ) -> Result<AddedCredential, RegistryError> {
        self.write(|done| Job::AddCredential { credential, limits, done }).await
    }

    async fn credential(&self, secret_hash: &Digest) -> Result<Option<Credential>, RegistryError> {
        let secret_hash = *secret_hash;
        self.blocking(move |store| store.read(|database| schema::credentials::find(database, &secret_hash)))
            .await
    }

    async fn credentials(&self, owner_key: &OwnerKey) -> Result<Vec<Credential>, RegistryError> {
        let owner_key = *owner_key;
        self.blocking(move |store| store.read(|database| schema::credentials::of_key(database, &owner_key)))
            .await
    }

    async fn revoke_credential(
        &self,
        owner_key: &OwnerKey,
        name: &CredentialName,
    ) -> Result<Option<Credential>, RegistryError> {
        let (owner_key, name) = (*owner_key, name.clone());
        self.write(|done| Job::RevokeCredential { owner_key, name, done }).await
    }

    fn acceptance_time(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(self.acceptance_time.load(Ordering::Acquire))
    }

    async fn keep_acceptance_time(&self, time: SystemTime) -> Result<(), RegistryError> {
        let time = schema::seconds(time);
        self.write(|done| Job::AcceptanceTime { time, done }).await?;
        self.acceptance_time.store(time, Ordering::Release);
        Ok(())
    }

    fn problem(&self) -> Option<String> {
        self.store.problem()
    }

    async fn check(&self) {
        let check = |store: &Store| {
            store.check();
            Ok(())
        };
        if let Err(error) = self.blocking(check).await {
            tracing::error!(%error, "the registry was not looked at");
        }
    }

    async fn close(&self) -> Result<(), RegistryError> {
        drop(self.line.lock().unwrap_or_else(PoisonError::into_inner).take());
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.blocking(move |store| {
            let written = writer.map(JoinHandle::join).transpose();
            store.close();
            written.map(drop).map_err(|_| RegistryError::failed("the writer panicked"))
        })
        .await
    }
}
