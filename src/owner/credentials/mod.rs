//! Credentials of hosts: who opens a socket with one acts for an owner key as long as the socket is open.
//!
//! Today's hosts send no `ownerToken`, but their WebSocket client makes `Authorization: Basic` of the userinfo in
//! `wss://NAME:SECRET@host/signal`. The secret is made where it is used and never comes here: the broker is told its
//! SHA-256, and keeps that. With 256 random bits in it, a secret needs no slow hash.

pub mod basic;
mod open_sockets;

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use subtle::ConstantTimeEq;
use tokio::time::timeout;

pub use self::open_sockets::CredentialSocket;
use self::{basic::Presented, open_sockets::OpenSockets};
use super::admission::SocketProof;
use crate::{
    clock::Clock,
    net::blocking_limiter::BlockingLimiter,
    pods::{
        AddedCredential, Credential, CredentialLimits, CredentialName, CredentialPodIds, Digest, OwnerKey,
        Registry, RegistryError,
    },
};

/// Credentials of a key that owns something.
const MAX_PER_KEY: usize = 16;
/// Credentials of a key that owns nothing.
const MAX_PER_NEWCOMER: usize = 2;
/// Credentials of all keys: 200 MB at most.
const MAX_TOTAL: u64 = 100_000;
/// Credentials of all keys, from which on keys that own nothing get no more.
const MAX_TOTAL_FOR_NEWCOMERS: u64 = MAX_TOTAL / 2;
/// How long a registry may take to answer.
const REGISTRY_TIMEOUT: Duration = Duration::from_secs(10);

/// Adds, checks and revokes credentials, and closes the sockets of those that are revoked.
pub struct Credentials {
    registry: Arc<dyn Registry>,
    lookups: Arc<BlockingLimiter>,
    clock: Clock,
    open: Arc<OpenSockets>,
}

/// A credential that an owner asks for.
#[derive(Debug)]
pub struct NewCredential {
    /// Its name among those of the owner.
    pub name: CredentialName,
    /// The SHA-256 of the secret as text.
    pub secret_hash: Digest,
    /// The pod ids that it is valid for; `None` stands for all.
    pub pod_ids: Option<CredentialPodIds>,
}

/// Why a socket is refused whose request presented a credential.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// No such credential exists.
    #[error(
        "this credential is unknown or revoked: make one with `gemmapod-signal credentials add` and put the line \
         that it prints into the pod.toml of the host"
    )]
    Unknown,
    /// The registry keeps no credentials.
    #[error("this broker's registry cannot keep credentials: remove NAME:SECRET@ from the signal_url")]
    Unsupported,
    /// The registry does not answer.
    #[error("this broker could not reach its registry")]
    Unreachable,
}

impl Credentials {
    /// Keeps credentials in `registry`. Those of sockets are looked up in turns in `lookups`.
    pub fn new(registry: Arc<dyn Registry>, lookups: Arc<BlockingLimiter>, clock: Clock) -> Self {
        Self { registry, lookups, clock, open: Arc::default() }
    }

    /// Checks a credential that the request of `client` for a socket presented.
    ///
    /// # Errors
    ///
    /// Returns an error if it is unknown, or if the registry does not tell.
    pub async fn check(
        &self,
        presented: &Presented,
        client: Option<IpAddr>,
    ) -> Result<(Credential, CredentialSocket), CredentialError> {
        // It is entered before it is looked up, so that no revocation falls between the two.
        let socket = self.open.enter(presented.secret_hash);
        let (registry, secret_hash) = (self.registry.clone(), presented.secret_hash);
        let look_up = self.lookups.run(client, async move { registry.credential(&secret_hash).await });
        let found = timeout(REGISTRY_TIMEOUT, look_up).await;
        let found = found.map(|found| found.unwrap_or_else(|error| Err(RegistryError::failed(error))));
        let found = match found {
            Ok(Ok(found)) => found,
            Ok(Err(RegistryError::Unsupported(_))) => return Err(CredentialError::Unsupported),
            Ok(Err(error)) => {
                tracing::error!(%error, "the registry could not look up a credential");
                return Err(CredentialError::Unreachable);
            }
            Err(_) => {
                tracing::error!("the registry took too long to look up a credential");
                return Err(CredentialError::Unreachable);
            }
        };
        // Time tells at most how the hash of a guess compares with kept hashes, never anything of a secret. The
        // comparison that decides takes the same time for all.
        match found {
            Some(credential) if bool::from(fits(presented, &credential)) => Ok((credential, socket)),
            _ => Err(CredentialError::Unknown),
        }
    }

    /// Adds a credential; `owns` tells whether the key owns anything here.
    ///
    /// # Errors
    ///
    /// Returns an error if the registry fails.
    pub async fn add(
        &self,
        owner_key: OwnerKey,
        new: NewCredential,
        owns: bool,
    ) -> Result<(AddedCredential, Credential), RegistryError> {
        let NewCredential { name, secret_hash, pod_ids } = new;
        let credential = Credential { owner_key, name, secret_hash, pod_ids, created_at: self.now() };
        let limits = match owns {
            true => CredentialLimits { per_key: MAX_PER_KEY, total: MAX_TOTAL },
            false => CredentialLimits { per_key: MAX_PER_NEWCOMER, total: MAX_TOTAL_FOR_NEWCOMERS },
        };
        Ok((self.registry.add_credential(credential.clone(), limits).await?, credential))
    }

    /// Revokes a credential and closes its sockets, also if the caller does not wait for that. Returns `false` if it is
    /// there no more.
    ///
    /// # Errors
    ///
    /// Returns an error if the registry fails. The sockets are closed then, too: it may have been revoked.
    pub async fn revoke(&self, credential: Credential) -> Result<bool, RegistryError> {
        let (registry, open) = (self.registry.clone(), self.open.clone());
        let revocation = tokio::spawn(async move {
            let revoked = registry.revoke_credential(&credential.owner_key, &credential.name).await;
            open.revoke(&credential.secret_hash);
            // Another may have been given the name meanwhile.
            if let Ok(Some(revoked)) = &revoked {
                open.revoke(&revoked.secret_hash);
            }
            revoked
        });
        let revoked = revocation.await.map_err(RegistryError::failed)?;
        Ok(revoked?.is_some())
    }

    /// The time, cut to the millisecond that is kept.
    fn now(&self) -> SystemTime {
        let since_epoch = self.clock.now().duration_since(UNIX_EPOCH).unwrap_or_default();
        UNIX_EPOCH + Duration::from_millis(since_epoch.as_millis() as u64)
    }
}

impl From<Credential> for SocketProof {
    fn from(credential: Credential) -> Self {
        let pod_ids = credential.pod_ids.map(|pod_ids| Vec::from(pod_ids).into());
        Self { key: credential.owner_key, pod_ids }
    }
}

fn fits(presented: &Presented, credential: &Credential) -> subtle::Choice {
    presented.secret_hash.0.ct_eq(&credential.secret_hash.0)
        & presented.name.as_bytes().ct_eq(credential.name.as_str().as_bytes())
}
