//! The extension point: where pods are kept.

use std::{
    error::Error,
    io,
    time::{Duration, SystemTime},
};

use async_trait::async_trait;

use super::{
    AddedCredential, Blob, Credential, CredentialLimits, CredentialName, Digest, OwnerKey, PodIdChange,
    PodIdChanged, PodIdRecord, PodRecord, QuotaExceeded, Quotas, Slug, Usage, VerifiedPod,
};

/// Records that are looked through at a time.
const PAGE: usize = 256;

/// Keeps pods. The broker brings [`MemoryRegistry`](super::MemoryRegistry) and
/// [`RedbRegistry`](super::RedbRegistry); a program that embeds it may bring its own.
///
/// Methods are called from many tasks at once and must not block the runtime's workers: what waits for a disk
/// belongs on [`tokio::task::spawn_blocking`].
#[async_trait]
pub trait Registry: Send + Sync + 'static {
    /// A short name, shown in `GET /health`.
    fn name(&self) -> &str;

    /// Keeps a pod. Once this returns, record and blob are safe as far as this registry promises; after an error
    /// neither is there.
    ///
    /// The bytes of an uploaded pod count against `pods.upload_memory` and `pods.max_uploads` until they are dropped: a
    /// registry that keeps them in memory must keep a copy.
    async fn put_pod(&self, pod: VerifiedPod) -> Result<(), RegistryError>;

    /// Puts a new version of a pod in place of the one under the same slug, if that one has the same owner key; whether
    /// it was so. The slug, `created_at`, `hits` and `expires` stay; `updated_at` becomes the new record's `created_at`.
    /// After an error one of the two versions is there, whole.
    ///
    /// A registry that does not bring this answers `PUT` with 501.
    async fn replace_pod(&self, pod: VerifiedPod) -> Result<bool, RegistryError> {
        let _ = pod;
        Err(RegistryError::Unsupported("replace a pod"))
    }

    /// The same if the version that it replaces is still `before`.
    async fn replace_version(&self, pod: VerifiedPod, before: &PodRecord) -> Result<bool, RegistryError> {
        let is_same = |now: PodRecord| now.is_version_of(before);
        Ok(self.get_record(&before.slug).await?.is_some_and(is_same) && self.replace_pod(pod).await?)
    }

    /// The record of a pod, with the hits as far as they were written.
    async fn get_record(&self, slug: &Slug) -> Result<Option<PodRecord>, RegistryError>;

    /// The HTML of a pod, byte for byte.
    async fn get_blob(&self, slug: &Slug) -> Result<Option<Blob>, RegistryError>;

    /// Record and HTML of the same version of a pod.
    async fn get_pod(&self, slug: &Slug) -> Result<Option<(PodRecord, Blob)>, RegistryError> {
        match self.get_record(slug).await? {
            Some(record) => self.open_pod(record).await,
            None => Ok(None),
        }
    }

    /// The same for a pod whose record was read just now; of one that was replaced since, either version. A registry that
    /// finds the HTML by the record need not read the record again.
    async fn open_pod(&self, mut record: PodRecord) -> Result<Option<(PodRecord, Blob)>, RegistryError> {
        loop {
            let blob = self.get_blob(&record.slug).await?;
            // It may have been replaced before or meanwhile.
            match self.get_record(&record.slug).await? {
                Some(after) if after.digest != record.digest => record = after,
                _ => return Ok(blob.map(|blob| (record, blob))),
            }
        }
    }

    /// At most `limit` records of the pods of one owner, in the order of their slugs, from the first one after `after`.
    async fn list_owned(
        &self,
        owner_key: &OwnerKey,
        after: Option<&Slug>,
        limit: usize,
    ) -> Result<Vec<PodRecord>, RegistryError> {
        let (mut owned, mut after) = (Vec::new(), after.copied());
        loop {
            let page = self.list(after.as_ref(), PAGE).await?;
            after = page.last().map(|record| record.slug);
            let is_last = page.len() < PAGE;
            owned.extend(page.into_iter().filter(|record| record.owner_key == *owner_key));
            if is_last || owned.len() >= limit {
                owned.truncate(limit);
                return Ok(owned);
            }
        }
    }

    /// Adds to the hits of several pods, the last of which were at `at`; a pod that is not there is passed over. Called
    /// about once a second.
    async fn bump_hits(&self, hits: &[(Slug, u64)], at: SystemTime) -> Result<(), RegistryError>;

    /// Forgets a pod, record and blob; whether it was there.
    async fn delete(&self, slug: &Slug) -> Result<bool, RegistryError>;

    /// The same for this version of a pod: one that was replaced meanwhile stays.
    async fn delete_version(&self, record: &PodRecord) -> Result<bool, RegistryError> {
        let is_same = |now: PodRecord| now.is_version_of(record);
        Ok(self.get_record(&record.slug).await?.is_some_and(is_same) && self.delete(&record.slug).await?)
    }

    /// The same for many versions, which may share transactions; whether each was there.
    async fn delete_versions(&self, records: &[PodRecord]) -> Result<Vec<bool>, RegistryError> {
        let mut deleted = Vec::with_capacity(records.len());
        for record in records {
            deleted.push(self.delete_version(record).await?);
        }
        Ok(deleted)
    }

    /// At most `limit` records of pods that are not served any more at `now`, in the order in which they expired, from
    /// the first one after `after`.
    async fn list_expired(
        &self,
        now: SystemTime,
        after: Option<&PodRecord>,
        limit: usize,
    ) -> Result<Vec<PodRecord>, RegistryError> {
        let order = |record: &PodRecord| (record.expires, record.slug);
        let (mut expired, mut last) = (Vec::new(), None);
        loop {
            let page = self.list(last.as_ref(), PAGE).await?;
            last = page.last().map(|record| record.slug);
            let is_last = page.len() < PAGE;
            let is_wanted = |record: &PodRecord| {
                record.is_over(now) && after.is_none_or(|after| order(after) < order(record))
            };
            expired.extend(page.into_iter().filter(is_wanted));
            expired.sort_by_key(order);
            expired.truncate(limit);
            if is_last {
                return Ok(expired);
            }
        }
    }

    /// Puts quotas in place. A registry that does not bring this keeps whatever comes.
    fn set_quotas(&self, quotas: Quotas) {
        let _ = quotas;
    }

    /// How much is kept, of all or of one owner. For an owner, only pods whose upload was signed count.
    async fn usage(&self, owner_key: Option<&OwnerKey>) -> Result<Usage, RegistryError> {
        let (mut usage, mut after) = (Usage::default(), None);
        loop {
            let page = self.list(after.as_ref(), PAGE).await?;
            let counts = |record: &&PodRecord| {
                owner_key.is_none_or(|key| record.upload_signed && record.owner_key == *key)
            };
            for record in page.iter().filter(counts) {
                usage.pods += 1;
                usage.bytes += record.blob_size;
            }
            after = page.last().map(|record| record.slug);
            if page.len() < PAGE {
                return Ok(usage);
            }
        }
    }

    /// At most `limit` records in the order of their slugs, from the first one after `after`.
    async fn list(&self, after: Option<&Slug>, limit: usize) -> Result<Vec<PodRecord>, RegistryError>;

    /// Returns the record of a pod id; `None` if it is free. To a registry that does not bring the methods about pod ids,
    /// all of them are free.
    async fn pod_id(&self, pod_id: &str) -> Result<Option<PodIdRecord>, RegistryError> {
        let _ = pod_id;
        Ok(None)
    }

    /// Changes the states of pod ids as [`PodIdRecord::after`] says, one after the other, each as long as it is allowed.
    /// Returns the records afterwards. Once this returns they are as safe as a pod.
    async fn change_pod_ids(
        &self,
        changes: Vec<(String, PodIdChange)>,
    ) -> Result<Vec<PodIdChanged>, RegistryError> {
        let _ = changes;
        Err(RegistryError::Unsupported("keep states of pod ids"))
    }

    /// Returns at most `limit` pod ids that are not free in their order, from the first one after `after`.
    async fn list_pod_ids(
        &self,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(String, PodIdRecord)>, RegistryError> {
        let _ = (after, limit);
        Ok(Vec::new())
    }

    /// Adds to the time for which brokers have run on this registry, by which unused pod ids expire. Returns the day of
    /// that time. Called about once an hour.
    async fn pod_ids_ran(&self, ran: Duration) -> Result<u64, RegistryError> {
        let _ = ran;
        Ok(0)
    }

    /// Returns how many pod ids a key owns.
    async fn owned_pod_ids(&self, owner_key: &OwnerKey) -> Result<u64, RegistryError> {
        let _ = owner_key;
        Ok(0)
    }

    /// Keeps a credential, if its name, its secret and `limits` allow it. Once this returns [`AddedCredential::Added`] it
    /// is as safe as a pod.
    ///
    /// A registry that does not implement the four methods for credentials has none.
    async fn add_credential(
        &self,
        credential: Credential,
        limits: CredentialLimits,
    ) -> Result<AddedCredential, RegistryError> {
        let _ = (credential, limits);
        Err(NO_CREDENTIALS)
    }

    /// Returns the credential whose secret has this SHA-256.
    async fn credential(&self, secret_hash: &Digest) -> Result<Option<Credential>, RegistryError> {
        let _ = secret_hash;
        Err(NO_CREDENTIALS)
    }

    /// Returns the credentials of a key in the order of their names.
    async fn credentials(&self, owner_key: &OwnerKey) -> Result<Vec<Credential>, RegistryError> {
        let _ = owner_key;
        Err(NO_CREDENTIALS)
    }

    /// Removes the credential of this name and returns it, if there is one. Once this returns it does not come back.
    async fn revoke_credential(
        &self,
        owner_key: &OwnerKey,
        name: &CredentialName,
    ) -> Result<Option<Credential>, RegistryError> {
        let _ = (owner_key, name);
        Err(NO_CREDENTIALS)
    }

    /// Returns the time that [`Registry::keep_acceptance_time`] kept last, in this process or a former one.
    ///
    /// A registry that does not implement the two methods for it, and is durable, lets a broker whose clock is behind
    /// after a restart accept signed requests and one-time tokens again that were accepted before.
    fn acceptance_time(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH
    }

    /// Keeps the latest time at which a signed request or a one-time token was accepted, in place of the one before.
    /// Once this returns it is as safe as a pod. Called every ten seconds at most.
    async fn keep_acceptance_time(&self, time: SystemTime) -> Result<(), RegistryError> {
        let _ = time;
        Ok(())
    }

    /// Returns why pods cannot be read or written at present, as one sentence for `GET /health`, which anybody can read.
    /// Called for every such request: it must be quick, and must not be in the hands of those who send requests.
    fn problem(&self) -> Option<String> {
        None
    }

    /// Looks whether pods can be read and written, for [`Registry::problem`]. Called every few seconds.
    async fn check(&self) {}

    /// Writes what is still to be written and lets go of files. Nothing is called after it.
    async fn close(&self) -> Result<(), RegistryError> {
        Ok(())
    }
}

const NO_CREDENTIALS: RegistryError = RegistryError::Unsupported("keep credentials");

/// Why a registry could not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// There is no room. The upload is answered with 507.
    #[error("no room is left for this pod: {0}")]
    Full(String),
    /// A quota is used up. Of all, the upload is answered with 507; of one owner, with 403.
    #[error(transparent)]
    Quota(#[from] QuotaExceeded),
    /// This registry does not do that. The request is answered with 501.
    #[error("this broker's registry cannot {0}")]
    Unsupported(&'static str),
    /// Anything else. The request is answered with 500; the cause is only logged.
    #[error("the registry failed: {0}")]
    Failed(#[source] Box<dyn Error + Send + Sync>),
}

impl RegistryError {
    /// Wraps any other error.
    pub fn failed(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Failed(error.into())
    }

    /// Returns the same error for somebody else.
    pub(super) fn repeated(&self) -> Self {
        match self {
            Self::Full(problem) => Self::Full(problem.clone()),
            Self::Quota(quota) => Self::Quota(*quota),
            Self::Unsupported(what) => Self::Unsupported(what),
            Self::Failed(cause) => Self::failed(cause.to_string()),
        }
    }
}

impl From<io::Error> for RegistryError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full(error.to_string()),
            _ => Self::failed(error),
        }
    }
}
