//! A registry in memory: for tests, demonstrations and brokers that carry signals only.

use std::{
    collections::BTreeMap,
    ops::Bound,
    sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use async_trait::async_trait;
use bytes::Bytes;

use super::{
    Binding, Blob, MAX_BINDINGS, PodRecord, Registry, RegistryError, Slug, VerifiedPod,
    binding::too_many_bindings,
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
    bindings: BTreeMap<String, Binding>,
    bytes: u64,
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

    fn write(&self) -> RwLockWriteGuard<'_, Pods> {
        self.pods.write().unwrap_or_else(PoisonError::into_inner)
    }
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
        let mut pods = self.write();
        if pods.by_slug.contains_key(&record.slug) {
            return Ok(());
        }
        let bytes = pods.bytes + cost(&record);
        if bytes > self.limit {
            return Err(self.full());
        }
        pods.bytes = bytes;
        pods.by_slug.insert(record.slug, (record, blob));
        Ok(())
    }

    async fn replace_pod(&self, pod: VerifiedPod) -> Result<bool, RegistryError> {
        let (record, blob) = pod.into_parts();
        let mut pods = self.write();
        let Some((before, _)) = pods.by_slug.get(&record.slug) else { return Ok(false) };
        let Some(record) = record.in_place_of(before) else { return Ok(false) };
        let bytes = pods.bytes - cost(before) + cost(&record);
        if bytes > self.limit {
            return Err(self.full());
        }
        pods.bytes = bytes;
        pods.by_slug.insert(record.slug, (record, blob));
        Ok(true)
    }

    async fn get_record(&self, slug: &Slug) -> Result<Option<PodRecord>, RegistryError> {
        Ok(self.read().by_slug.get(slug).map(|(record, _)| record.clone()))
    }

    async fn get_blob(&self, slug: &Slug) -> Result<Option<Blob>, RegistryError> {
        Ok(self.read().by_slug.get(slug).map(|(_, blob)| blob.clone().into()))
    }

    async fn bump_hits(&self, hits: &[(Slug, u64)]) -> Result<(), RegistryError> {
        let mut pods = self.write();
        for (slug, more) in hits {
            if let Some((record, _)) = pods.by_slug.get_mut(slug) {
                record.hits = record.hits.saturating_add(*more);
            }
        }
        Ok(())
    }

    async fn delete(&self, slug: &Slug) -> Result<bool, RegistryError> {
        let mut pods = self.write();
        let Some((record, _)) = pods.by_slug.remove(slug) else { return Ok(false) };
        pods.bytes -= cost(&record);
        Ok(true)
    }

    async fn list(&self, after: Option<&Slug>, limit: usize) -> Result<Vec<PodRecord>, RegistryError> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let pods = self.read();
        let range = pods.by_slug.range::<Slug, _>((from, Bound::Unbounded));
        Ok(range.take(limit).map(|(_, (record, _))| record.clone()).collect())
    }

    async fn binding(&self, pod_id: &str) -> Result<Option<Binding>, RegistryError> {
        Ok(self.read().bindings.get(pod_id).copied())
    }

    async fn bind(&self, pod_id: &str, binding: Binding) -> Result<Binding, RegistryError> {
        let mut pods = self.write();
        let held = pods.bindings.get(pod_id).copied();
        if held.is_none() && pods.bindings.len() as u64 >= MAX_BINDINGS {
            return Err(too_many_bindings());
        }
        let binding = binding.after(held);
        pods.bindings.insert(pod_id.into(), binding);
        Ok(binding)
    }
}
