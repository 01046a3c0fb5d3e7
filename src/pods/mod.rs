//! Pods: self-contained HTML files with a signed manifest, verified before they are stored.
//!
//! An upload goes from [`manifest`] (find, decode, verify) as a [`VerifiedPod`] into a [`Registry`]; a download
//! comes from there. [`MemoryRegistry`] and [`RedbRegistry`] are the registries of the broker itself.

mod blob;
mod cbor;
mod credential;
mod hits;
mod janitor;
mod manifest;
mod memory;
mod pod_ids;
mod quota;
mod record;
mod redb;
mod registry;
/// The pods of the integration tests, for unit tests too.
#[cfg(test)]
#[allow(dead_code, missing_docs)]
#[path = "../../tests/support/pod.rs"]
mod signed;
mod subdomain;

pub(crate) use self::blob::DiskRead;
pub(crate) use self::pod_ids::MAX_RECORDED;
pub(crate) use self::subdomain::{label_of, slug_of_label};
pub use self::{
    blob::Blob,
    credential::{
        AddedCredential, Credential, CredentialLimits, CredentialName, CredentialPodIds, NotACredentialName,
        NotCredentialPodIds,
    },
    hits::HitCounter,
    janitor::{Janitor, JanitorReport, JanitorRules, Moment},
    manifest::{InvalidPod, VerifiedPod},
    memory::MemoryRegistry,
    pod_ids::{
        BoundBy, Holder, NetworkTag, PodIdChange, PodIdChanged, PodIdRecord, PodIdRefused, PodIdState,
    },
    quota::{QuotaExceeded, Quotas, Usage},
    record::{Digest, OwnerKey, PodRecord, Slug},
    redb::{OpenError, RedbRegistry},
    registry::{Registry, RegistryError},
};
