//! To whom pod ids belong.

use std::sync::Arc;

use super::{new_records::NewRecords, replay::Replay};
use crate::{
    clock::Clock,
    config::{BindMode, Live},
    net::client_permits::ClientPermits,
    pods::{OwnerKey, PodIdRecord, Registry, RegistryError},
    signal::directory::Directory,
};

/// Knows to whom pod ids belong.
pub struct Owners {
    pub(super) registry: Arc<dyn Registry>,
    pub(super) live: Live,
    pub(super) clock: Clock,
    pub(super) directory: Arc<Directory>,
    /// One-time tokens that were taken.
    pub(super) tokens: Replay,
    pub(super) new_records: NewRecords,
    /// Of the registrations of a client, a few are recorded at a time.
    pub(super) registrations: ClientPermits,
}

/// Registrations of a client that stand in line for the registry: those of others find a few of each client before them.
const REGISTRATIONS_OF_CLIENT: usize = 4;

impl Owners {
    /// Keeps states of pod ids in `registry`; `directory` knows who holds them.
    pub fn new(
        registry: Arc<dyn Registry>,
        live: Live,
        clock: Clock,
        directory: Arc<Directory>,
    ) -> Arc<Self> {
        let tokens = Replay::of_tokens(clock.now());
        let new_records = NewRecords::default();
        let registrations = ClientPermits::new(REGISTRATIONS_OF_CLIENT);
        Arc::new(Self { registry, live, clock, directory, tokens, new_records, registrations })
    }

    pub(super) fn mode(&self) -> BindMode {
        self.live.load().signal.bind
    }

    /// Returns the key that owns a pod id.
    pub(super) async fn owner(
        &self,
        pod_id: &str,
        mode: BindMode,
    ) -> Result<Option<OwnerKey>, RegistryError> {
        if mode == BindMode::Off {
            return Ok(None);
        }
        Ok(self.registry.pod_id(pod_id).await?.and_then(|record| owner_of(&record, mode)))
    }

    /// Returns whether a key owns a stored pod or a pod id.
    ///
    /// # Errors
    ///
    /// Returns an error if the registry fails.
    pub async fn owns_anything(&self, key: &OwnerKey) -> Result<bool, RegistryError> {
        let has_pods = self.registry.usage(Some(key)).await?.pods > 0;
        Ok(has_pods || self.registry.owned_pod_ids(key).await? > 0)
    }
}

pub const OWNED: &str =
    "this pod id belongs to an owner key: register with a credential or an ownerToken of that key";
pub const OTHER_OWNER: &str =
    "this pod id belongs to another owner key than the one of the credential or ownerToken";

/// Returns what an origin is told that registers a pod id of another key.
pub fn other_owner(has_proof: bool) -> &'static str {
    if has_proof { OTHER_OWNER } else { OWNED }
}

/// Returns the key that owns a pod id with this record.
pub fn owner_of(record: &PodIdRecord, mode: BindMode) -> Option<OwnerKey> {
    let state = Some(record.state).filter(|state| mode == BindMode::Uploads || !state.is_by_upload());
    state.and_then(|state| state.owner_key())
}
