//! The extension point: where pods are kept.

use std::{error::Error, io};

use async_trait::async_trait;

use super::{Blob, PodRecord, Slug, VerifiedPod};

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
    async fn put_pod(&self, pod: VerifiedPod) -> Result<(), RegistryError>;

    /// The record of a pod, with the hits as far as they were written.
    async fn get_record(&self, slug: &Slug) -> Result<Option<PodRecord>, RegistryError>;

    /// The HTML of a pod, byte for byte.
    async fn get_blob(&self, slug: &Slug) -> Result<Option<Blob>, RegistryError>;

    /// Adds to the hits of several pods; a pod that is not there is passed over. Called about once a second.
    async fn bump_hits(&self, hits: &[(Slug, u64)]) -> Result<(), RegistryError>;

    /// Forgets a pod, record and blob; whether it was there.
    async fn delete(&self, slug: &Slug) -> Result<bool, RegistryError>;

    /// At most `limit` records in the order of their slugs, from the first one after `after`.
    async fn list(&self, after: Option<&Slug>, limit: usize) -> Result<Vec<PodRecord>, RegistryError>;

    /// Writes what is still to be written and lets go of files. Nothing is called after it.
    async fn close(&self) -> Result<(), RegistryError> {
        Ok(())
    }
}

/// Why a registry could not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// There is no room. The upload is answered with 507.
    #[error("no room is left for this pod: {0}")]
    Full(String),
    /// Anything else. The request is answered with 500; the cause is only logged.
    #[error("the registry failed: {0}")]
    Failed(#[source] Box<dyn Error + Send + Sync>),
}

impl RegistryError {
    /// Wraps any other error.
    pub fn failed(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Failed(error.into())
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
