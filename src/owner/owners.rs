//! To whom pod ids belong.

use std::{net::IpAddr, sync::Arc};

use super::{acceptance::AcceptanceTime, new_records::NewRecords, replay::Replay};
use crate::{
    clock::Clock,
    config::{BindMode, Live},
    net::{blocking_limiter::BlockingLimiter, client_permits::ClientPermits},
    pods::{OwnerKey, PodIdRecord, Registry, RegistryError},
    signal::directory::Directory,
};

/// Knows to whom pod ids belong.
pub struct Owners {
    pub(super) registry: Arc<dyn Registry>,
    pub(super) lookups: Arc<BlockingLimiter>,
    pub(super) live: Live,
    pub(super) clock: Clock,
    pub(super) directory: Arc<Directory>,
    pub acceptance_time: AcceptanceTime,
    /// One-time tokens that were taken.
    pub(super) tokens: Replay,
    pub(super) new_records: NewRecords,
    /// Of the registrations and claims of a client, a few are recorded at a time.
    pub(super) registrations: ClientPermits,
}

/// Registrations of a client that stand in line for the registry: those of others find a few of each client before them.
const REGISTRATIONS_OF_CLIENT: usize = 4;

impl Owners {
    /// Keeps states of pod ids in `registry`; `directory` knows who holds them. What clients ask of the registry takes turns
    /// in `lookups`.
    pub fn new(
        registry: Arc<dyn Registry>,
        lookups: Arc<BlockingLimiter>,
        live: Live,
        clock: Clock,
        directory: Arc<Directory>,
    ) -> Arc<Self> {
        let acceptance_time = AcceptanceTime::new(registry.clone());
        let tokens = Replay::of_tokens(clock.now(), acceptance_time.clone());
        let new_records = NewRecords::default();
        let registrations = ClientPermits::new(REGISTRATIONS_OF_CLIENT);
        Arc::new(Self {
            registry,
            lookups,
            live,
            clock,
            directory,
            acceptance_time,
            tokens,
            new_records,
            registrations,
        })
    }

    pub(super) fn mode(&self) -> BindMode {
        self.live.load().signal.bind
    }

    /// Looks something up in the registry when it is the turn of `client`.
    async fn look_up<T, F>(
        &self,
        client: Option<IpAddr>,
        look_up: impl FnOnce(Arc<dyn Registry>) -> F,
    ) -> Result<T, RegistryError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, RegistryError>> + Send + 'static,
    {
        let found = self.lookups.run(client, look_up(self.registry.clone())).await;
        found.map_err(RegistryError::failed)?
    }

    /// Returns what is recorded of a pod id, for a client.
    pub(super) async fn pod_id(
        &self,
        pod_id: &str,
        client: Option<IpAddr>,
    ) -> Result<Option<PodIdRecord>, RegistryError> {
        let pod_id = pod_id.to_owned();
        self.look_up(client, async move |registry| registry.pod_id(&pod_id).await).await
    }

    /// Returns the key that owns a pod id, for a client.
    pub(super) async fn owner(
        &self,
        pod_id: &str,
        mode: BindMode,
        client: Option<IpAddr>,
    ) -> Result<Option<OwnerKey>, RegistryError> {
        if mode == BindMode::Off {
            return Ok(None);
        }
        Ok(self.pod_id(pod_id, client).await?.and_then(|record| owner_of(&record, mode)))
    }

    /// Returns whether a key owns a stored pod or a pod id, for a client.
    ///
    /// # Errors
    ///
    /// Returns an error if the registry fails.
    pub async fn owns_anything(&self, key: &OwnerKey, client: Option<IpAddr>) -> Result<bool, RegistryError> {
        let key = *key;
        self.look_up(client, async move |registry| {
            let has_pods = registry.usage(Some(&key)).await?.pods > 0;
            Ok(has_pods || registry.owned_pod_ids(&key).await? > 0)
        })
        .await
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
