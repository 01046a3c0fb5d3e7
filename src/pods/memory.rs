//! A registry in memory: for tests, demonstrations and brokers that carry signals only.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use bytes::Bytes;

use super::{
    AddedCredential, Blob, Credential, CredentialLimits, CredentialName, Digest, OwnerKey, PodIdChange,
    PodIdChanged, PodIdRecord, PodRecord, Quotas, Registry, RegistryError, Slug, Usage, VerifiedPod,
    pod_ids::{PodIdCounts, counted_key, day_of},
};

/// Bookkeeping for one pod beside its blob and its name.
const POD_OVERHEAD: u64 = 512;

/// Keeps pods in memory, up to a number of bytes. Everything is lost when it is dropped.
#[derive(Debug)]
pub struct MemoryRegistry {
    pods: RwLock<Pods>,
    limit: u64,
}

#[derive(Debug, Default)]
struct Pods {
    by_slug: BTreeMap<Slug, (PodRecord, Bytes)>,
    /// The same slugs by owner key.
    owned: BTreeMap<OwnerKey, BTreeSet<Slug>>,
    /// The slugs of those that expire, by when they do.
    expiring: BTreeSet<(SystemTime, Slug)>,
    pod_ids: PodIds,
    credentials: BTreeMap<(OwnerKey, CredentialName), Credential>,
    credential_of_secret: BTreeMap<Digest, (OwnerKey, CredentialName)>,
    /// With what is kept beside blobs.
    bytes: u64,
    kept: Usage,
    kept_of: BTreeMap<OwnerKey, Usage>,
    quotas: Quotas,
    acceptance_time: Option<SystemTime>,
}

/// The states of pod ids.
#[derive(Debug, Default)]
struct PodIds {
    by_id: BTreeMap<String, PodIdRecord>,
    anonymous: u64,
    owned: u64,
    owned_by: BTreeMap<OwnerKey, u64>,
    /// For how long brokers have run on this registry.
    seconds: u64,
}

impl PodIds {
    fn change(&mut self, pod_id: String, change: PodIdChange) -> PodIdChanged {
        let before = self.by_id.get(&pod_id).copied();
        let after = PodIdRecord::after(before, change, day_of(self.seconds))?;
        let [was, is] = [before, after].map(|record| record.map(|record| record.state));
        let key = counted_key(was, is);
        let of_key = key.and_then(|key| self.owned_by.get(&key).copied()).unwrap_or_default();
        let counts = PodIdCounts { anonymous: self.anonymous, owned: self.owned, of_key };
        let counts = counts.after(was, is)?;
        (self.anonymous, self.owned) = (counts.anonymous, counts.owned);
        match key {
            Some(key) if counts.of_key == 0 => drop(self.owned_by.remove(&key)),
            Some(key) => drop(self.owned_by.insert(key, counts.of_key)),
            None => {}
        }
        match after {
            Some(record) => drop(self.by_id.insert(pod_id, record)),
            None => drop(self.by_id.remove(&pod_id)),
        }
        Ok(after)
    }
}

impl MemoryRegistry {
    /// An empty registry that takes at most `limit` bytes.
    pub fn new(limit: u64) -> Self {
        Self { pods: RwLock::default(), limit }
    }

    fn read(&self) -> RwLockReadGuard<'_, Pods> {
        self.pods.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn full(&self) -> RegistryError {
        RegistryError::Full(format!("the registry in memory holds at most {} bytes", self.limit))
    }

    /// Keeps a pod in the place of `before`, or beside all others.
    fn put(
        &self,
        pods: &mut Pods,
        before: Option<&PodRecord>,
        record: PodRecord,
        blob: Bytes,
    ) -> Result<(), RegistryError> {
        let bytes = pods.bytes - before.map_or(0, cost) + cost(&record);
        if bytes > self.limit {
            return Err(self.full());
        }
        let usage = [pods.kept, pods.kept_of.get(&record.owner_key).copied().unwrap_or_default()];
        let kept = usage[0].without(before).with(Some(&record));
        let kept_of = usage[1].without(before.filter(is_signed)).with(Some(&record).filter(is_signed));
        pods.quotas.check(usage, [kept, kept_of])?;
        (pods.bytes, pods.kept) = (bytes, kept);
        match kept_of.pods {
            0 => drop(pods.kept_of.remove(&record.owner_key)),
            _ => drop(pods.kept_of.insert(record.owner_key, kept_of)),
        }
        pods.expiring.extend(record.expires.map(|expires| (expires, record.slug)));
        pods.owned.entry(record.owner_key).or_default().insert(record.slug);
        pods.by_slug.insert(record.slug, (record, blob));
        Ok(())
    }

    /// Replaces the pod under the same slug if it has the same owner and is `expected`, where one is.
    fn replace(&self, pod: VerifiedPod, expected: Option<&PodRecord>) -> Result<bool, RegistryError> {
        let (record, blob) = pod.into_parts();
        let blob = detached(blob);
        let mut pods = self.write();
        let before = pods.by_slug.get(&record.slug).map(|(before, _)| before.clone());
        let is_expected = |before: &PodRecord| expected.is_none_or(|expected| before.is_version_of(expected));
        let Some(before) = before.filter(is_expected) else { return Ok(false) };
        let Some(record) = record.in_place_of(&before) else { return Ok(false) };
        self.put(&mut pods, Some(&before), record, blob).map(|()| true)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Pods> {
        self.pods.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pods {
    fn remove(&mut self, slug: &Slug) -> bool {
        let Some((record, _)) = self.by_slug.remove(slug) else { return false };
        self.bytes -= cost(&record);
        if let Some(expires) = record.expires {
            self.expiring.remove(&(expires, *slug));
        }
        self.kept = self.kept.without(Some(&record));
        if let Some(of_owner) = self.kept_of.get_mut(&record.owner_key) {
            *of_owner = of_owner.without(Some(&record).filter(is_signed));
            if of_owner.pods == 0 {
                self.kept_of.remove(&record.owner_key);
            }
        }
        if let Some(owned) = self.owned.get_mut(&record.owner_key) {
            owned.remove(slug);
            if owned.is_empty() {
                self.owned.remove(&record.owner_key);
            }
        }
        true
    }
}

impl Pods {
    fn add_credential(&mut self, credential: Credential, limits: CredentialLimits) -> AddedCredential {
        let key = (credential.owner_key, credential.name.clone());
        if let Some(known) = self.credential_of_secret.get(&credential.secret_hash) {
            let is_repeated = credential.is_repeat_of(&self.credentials[known]);
            return if is_repeated { AddedCredential::Added } else { AddedCredential::SecretTaken };
        }
        if self.credentials.contains_key(&key) {
            return AddedCredential::NameTaken;
        }
        if self.credentials_of(&key.0).count() >= limits.per_key {
            return AddedCredential::TooManyForKey;
        }
        if self.credentials.len() as u64 >= limits.total {
            return AddedCredential::Full;
        }
        self.credential_of_secret.insert(credential.secret_hash, key.clone());
        self.credentials.insert(key, credential);
        AddedCredential::Added
    }

    fn credentials_of(&self, owner_key: &OwnerKey) -> impl Iterator<Item = &Credential> {
        let owner_key = *owner_key;
        let from = (owner_key, CredentialName::FIRST);
        self.credentials
            .range(from..)
            .map(|(_, credential)| credential)
            .take_while(move |credential| credential.owner_key == owner_key)
    }
}

impl Usage {
    fn with(self, record: Option<&PodRecord>) -> Self {
        let Some(record) = record else { return self };
        Self { pods: self.pods + 1, bytes: self.bytes + record.blob_size }
    }

    fn without(self, record: Option<&PodRecord>) -> Self {
        let Some(record) = record else { return self };
        Self { pods: self.pods - 1, bytes: self.bytes - record.blob_size }
    }
}

/// Whether a pod counts for its owner.
fn is_signed(record: &&PodRecord) -> bool {
    record.upload_signed
}

/// Returns a copy of an uploaded pod: what was uploaded counts as an upload for as long as it is held.
fn detached(blob: Bytes) -> Bytes {
    Bytes::copy_from_slice(&blob)
}

fn cost(record: &PodRecord) -> u64 {
    record.blob_size + record.name.len() as u64 + POD_OVERHEAD
}

#[async_trait]
impl Registry for MemoryRegistry {
    fn name(&self) -> &str {
        "memory"
    }

    async fn put_pod(&self, pod: VerifiedPod) -> Result<(), RegistryError> {
        let (record, blob) = pod.into_parts();
        let blob = detached(blob);
        let mut pods = self.write();
        if pods.by_slug.contains_key(&record.slug) {
            return Ok(());
        }
        self.put(&mut pods, None, record, blob)
    }

    async fn replace_pod(&self, pod: VerifiedPod) -> Result<bool, RegistryError> {
        self.replace(pod, None)
    }

    async fn replace_version(&self, pod: VerifiedPod, before: &PodRecord) -> Result<bool, RegistryError> {
        self.replace(pod, Some(before))
    }

    async fn get_record(&self, slug: &Slug) -> Result<Option<PodRecord>, RegistryError> {
        Ok(self.read().by_slug.get(slug).map(|(record, _)| record.clone()))
    }

    async fn get_blob(&self, slug: &Slug) -> Result<Option<Blob>, RegistryError> {
        Ok(self.read().by_slug.get(slug).map(|(_, blob)| blob.clone().into()))
    }

    async fn open_pod(&self, record: PodRecord) -> Result<Option<(PodRecord, Blob)>, RegistryError> {
        Ok(self.read().by_slug.get(&record.slug).map(|(record, blob)| (record.clone(), blob.clone().into())))
    }

    async fn list_owned(
        &self,
        owner_key: &OwnerKey,
        after: Option<&Slug>,
        limit: usize,
    ) -> Result<Vec<PodRecord>, RegistryError> {
        let pods = self.read();
        let Some(owned) = pods.owned.get(owner_key) else { return Ok(Vec::new()) };
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let slugs = owned.range::<Slug, _>((from, Bound::Unbounded)).take(limit);
        Ok(slugs.filter_map(|slug| pods.by_slug.get(slug)).map(|(record, _)| record.clone()).collect())
    }

    async fn bump_hits(&self, hits: &[(Slug, u64)], at: SystemTime) -> Result<(), RegistryError> {
        let mut pods = self.write();
        for (slug, more) in hits {
            if let Some((record, _)) = pods.by_slug.get_mut(slug) {
                record.hits = record.hits.saturating_add(*more);
                record.last_hit = record.last_hit.max(Some(at));
            }
        }
        Ok(())
    }

    async fn delete(&self, slug: &Slug) -> Result<bool, RegistryError> {
        Ok(self.write().remove(slug))
    }

    async fn delete_version(&self, record: &PodRecord) -> Result<bool, RegistryError> {
        let mut pods = self.write();
        let is_same = pods.by_slug.get(&record.slug).is_some_and(|(now, _)| now.is_version_of(record));
        Ok(is_same && pods.remove(&record.slug))
    }

    async fn list_expired(
        &self,
        now: SystemTime,
        after: Option<&PodRecord>,
        limit: usize,
    ) -> Result<Vec<PodRecord>, RegistryError> {
        let after = after.and_then(|record| record.expires.map(|expires| (expires, record.slug)));
        let pods = self.read();
        let expired = pods
            .expiring
            .range((after.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded))
            .take_while(|(expires, _)| *expires <= now)
            .take(limit);
        let records = expired.filter_map(|(_, slug)| pods.by_slug.get(slug));
        Ok(records.map(|(record, _)| record.clone()).collect())
    }

    fn set_quotas(&self, quotas: Quotas) {
        self.write().quotas = quotas;
    }

    async fn usage(&self, owner_key: Option<&OwnerKey>) -> Result<Usage, RegistryError> {
        let pods = self.read();
        Ok(owner_key.map_or(pods.kept, |key| pods.kept_of.get(key).copied().unwrap_or_default()))
    }

    async fn list(&self, after: Option<&Slug>, limit: usize) -> Result<Vec<PodRecord>, RegistryError> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let pods = self.read();
        let range = pods.by_slug.range::<Slug, _>((from, Bound::Unbounded));
        Ok(range.take(limit).map(|(_, (record, _))| record.clone()).collect())
    }

    async fn pod_id(&self, pod_id: &str) -> Result<Option<PodIdRecord>, RegistryError> {
        Ok(self.read().pod_ids.by_id.get(pod_id).copied())
    }

    async fn change_pod_ids(
        &self,
        changes: Vec<(String, PodIdChange)>,
    ) -> Result<Vec<PodIdChanged>, RegistryError> {
        let pod_ids = &mut self.write().pod_ids;
        Ok(changes.into_iter().map(|(pod_id, change)| pod_ids.change(pod_id, change)).collect())
    }

    async fn list_pod_ids(
        &self,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(String, PodIdRecord)>, RegistryError> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let pods = self.read();
        let range = pods.pod_ids.by_id.range::<str, _>((from, Bound::Unbounded));
        Ok(range.take(limit).map(|(pod_id, record)| (pod_id.clone(), *record)).collect())
    }

    async fn pod_ids_ran(&self, ran: Duration) -> Result<u64, RegistryError> {
        let pod_ids = &mut self.write().pod_ids;
        pod_ids.seconds += ran.as_secs();
        Ok(day_of(pod_ids.seconds))
    }

    fn acceptance_time(&self) -> SystemTime {
        self.read().acceptance_time.unwrap_or(SystemTime::UNIX_EPOCH)
    }

    async fn keep_acceptance_time(&self, time: SystemTime) -> Result<(), RegistryError> {
        self.write().acceptance_time = Some(time);
        Ok(())
    }

    async fn owned_pod_ids(&self, owner_key: &OwnerKey) -> Result<u64, RegistryError> {
        Ok(self.read().pod_ids.owned_by.get(owner_key).copied().unwrap_or_default())
    }

    async fn add_credential(
        &self,
        credential: Credential,
        limits: CredentialLimits,
    ) -> Result<AddedCredential, RegistryError> {
        Ok(self.write().add_credential(credential, limits))
    }

    async fn credential(&self, secret_hash: &Digest) -> Result<Option<Credential>, RegistryError> {
        let pods = self.read();
        Ok(pods.credential_of_secret.get(secret_hash).and_then(|key| pods.credentials.get(key)).cloned())
    }

    async fn credentials(&self, owner_key: &OwnerKey) -> Result<Vec<Credential>, RegistryError> {
        Ok(self.read().credentials_of(owner_key).cloned().collect())
    }

    async fn revoke_credential(
        &self,
        owner_key: &OwnerKey,
        name: &CredentialName,
    ) -> Result<Option<Credential>, RegistryError> {
        let mut pods = self.write();
        let removed = pods.credentials.remove(&(*owner_key, name.clone()));
        if let Some(removed) = &removed {
            pods.credential_of_secret.remove(&removed.secret_hash);
        }
        Ok(removed)
    }
}
