//! Whether a registration acts for the owner of a pod id: what its token proves, and to which key the id is bound.
//!
//! | the pod id | no token | a right token |
//! | --- | --- | --- |
//! | not bound | anybody | claimant: it is bound to the token's key if nobody holds it |
//! | bound to the token's key | | owner |
//! | bound to another key | | refused |
//! | bound by a registration | refused | |
//! | bound by an upload, `signal.bind = "uploads"` | refused | |
//! | bound by an upload, `signal.bind = "first-use"` | anybody | |
//!
//! A wrong token is refused always, and so is a missing one with `signal.require_owner`. With `signal.bind = "off"`
//! nothing is bound, and a token, which is looked at only if it is required, gives no right to replace a holder.
//!
//! A key has rights only where something binds the pod id to it: keys are to be had for nothing, and whoever makes one
//! must not take a pod from a host that is there.

use std::{net::IpAddr, sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::time::timeout;

use super::{
    audience::Reached,
    replay::{Once, Replay},
    time::seconds,
    token::{self, LEEWAY, VerifiedToken},
};
use crate::{
    clock::Clock,
    config::{BindMode, Live},
    pods::{Binding, BoundBy, OwnerKey, Registry, RegistryError},
    signal::admission::{Admission, Key, Standing},
};

/// Bytes of a pod id that can be bound.
const MAX_BOUND: usize = 256;
/// How long a registry may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Knows to whom pod ids belong.
pub struct Owners {
    registry: Arc<dyn Registry>,
    live: Live,
    clock: Clock,
    replay: Arc<Replay>,
}

/// What is known of a socket before it registers anything.
#[derive(Clone, Debug)]
pub struct Registrant {
    /// How the request that became the socket came in.
    pub reached: Reached,
    /// The network of the client: the rate-limit key of its address. `None` if the address is unknown.
    #[expect(dead_code, reason = "read once pod ids have states")]
    pub network: Option<IpAddr>,
    /// What the request proved, for the life of the socket.
    pub proof: Option<SocketProof>,
}

/// An owner key that the request for a socket proved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketProof {
    /// The key.
    pub key: OwnerKey,
    /// The pod ids that it is proven for; `None` means all.
    pub pod_ids: Option<Arc<[String]>>,
}

/// An owner key that is proven for one registration, by its `ownerToken` or by its socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Proof {
    key: OwnerKey,
}

impl SocketProof {
    fn for_pod(&self, pod_id: &str) -> Option<Proof> {
        let covers = |pod_ids: &Arc<[String]>| pod_ids.iter().any(|covered| covered == pod_id);
        self.pod_ids.as_ref().is_none_or(covers).then_some(Proof { key: self.key })
    }
}

impl Registrant {
    /// Refuses a pod id that the proof of the socket is not for.
    fn check(&self, pod_id: &str) -> Result<(), String> {
        match &self.proof {
            Some(proof) if proof.for_pod(pod_id).is_none() => Err(OTHER_POD_ID.into()),
            _ => Ok(()),
        }
    }
}

/// Decides about the registrations of one socket.
struct AtSocket {
    owners: Arc<Owners>,
    registrant: Registrant,
}

impl Owners {
    /// Keeps bindings in `registry`, goes by `clock`, and remembers in `replay` what is taken once.
    pub fn new(registry: Arc<dyn Registry>, live: Live, clock: Clock, replay: Arc<Replay>) -> Arc<Self> {
        Arc::new(Self { registry, live, clock, replay })
    }

    /// Returns what decides about the registrations of one socket.
    pub fn at(self: &Arc<Self>, registrant: Registrant) -> Arc<dyn Admission> {
        Arc::new(AtSocket { owners: self.clone(), registrant })
    }

    /// An uploaded pod names a pod id: it is bound to the pod's owner, if it is not bound yet.
    pub async fn uploaded(&self, pod_id: Option<&str>, owner_key: OwnerKey) -> Result<(), RegistryError> {
        let mode = self.live.load().signal.bind;
        if let Some(pod_id) = pod_id.filter(|pod_id| mode != BindMode::Off && pod_id.len() <= MAX_BOUND) {
            match self.bind(pod_id, owner_key, BoundBy::Upload).await {
                Ok(_) | Err(RegistryError::Unsupported(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn bind(&self, pod_id: &str, owner_key: OwnerKey, by: BoundBy) -> Result<Binding, RegistryError> {
        let since = std::time::UNIX_EPOCH + Duration::from_millis(millis(self.clock.now()));
        self.registry.bind(pod_id, Binding { owner_key, by, since }).await
    }

    async fn standing(
        &self,
        pod_id: &str,
        token: Option<&str>,
        registrant: &Registrant,
    ) -> Result<Standing, String> {
        let (mode, required) = {
            let config = self.live.load();
            (config.signal.bind, config.signal.require_owner)
        };
        if mode == BindMode::Off && !required {
            return Ok(Standing::Anybody);
        }
        let token = token.map(|token| self.verify(pod_id, token, registrant.reached)).transpose()?;
        let of_socket = || registrant.proof.as_ref().and_then(|proof| proof.for_pod(pod_id));
        let proof = token.as_ref().map(|token| Proof { key: token.key }).or_else(of_socket);
        match proof {
            None if required => Err("this broker asks every origin for an ownerToken".into()),
            None => self.without_proof(pod_id, mode).await,
            Some(_) if mode == BindMode::Off => {
                self.take_once(token.as_ref())?;
                Ok(Standing::Anybody)
            }
            Some(proof) => self.with_proof(pod_id, proof, token.as_ref()).await,
        }
    }

    fn verify(&self, pod_id: &str, token: &str, reached: Reached) -> Result<VerifiedToken, String> {
        let audience = reached.audience(&self.live.load());
        if audience.is_empty() {
            return Err(NO_AUDIENCE.into());
        }
        token::verify(token, pod_id, &audience, self.clock.now()).map_err(|error| error.to_string())
    }

    async fn without_proof(&self, pod_id: &str, mode: BindMode) -> Result<Standing, String> {
        let binding = self.registry.binding(pod_id).await.map_err(|error| unreachable(&error))?;
        match binding.map(|binding| binding.by) {
            Some(BoundBy::Registration) => Err(OWNED.into()),
            Some(BoundBy::Upload) if mode == BindMode::Uploads => Err(OWNED.into()),
            Some(BoundBy::Upload) | None => Ok(Standing::Anybody),
        }
    }

    async fn with_proof(
        &self,
        pod_id: &str,
        proof: Proof,
        token: Option<&VerifiedToken>,
    ) -> Result<Standing, String> {
        if pod_id.len() > MAX_BOUND {
            return Err(format!(
                "podId is longer than the {MAX_BOUND} bytes that can be bound to an owner key"
            ));
        }
        let bound = self.registry.binding(pod_id).await.map_err(|error| unreachable(&error))?;
        if bound.is_some_and(|bound| bound.owner_key != proof.key) {
            return Err(OTHER_OWNER.into());
        }
        self.take_once(token)?;
        if bound.is_none() {
            return Ok(Standing::Claimant(proof.key.0));
        }
        // What an upload bound, the owner's own registration binds for good.
        match self.bind(pod_id, proof.key, BoundBy::Registration).await {
            Ok(bound) if bound.owner_key == proof.key => Ok(Standing::Owner),
            Ok(_) => Err(OTHER_OWNER.into()),
            Err(error) => Err(unreachable(&error)),
        }
    }

    /// Takes a token that is good once.
    fn take_once(&self, token: Option<&VerifiedToken>) -> Result<(), String> {
        let Some((token, once)) = token.and_then(|token| Some((token, token.once.as_ref()?))) else {
            return Ok(());
        };
        // The same name in a signature is another one.
        let name = format!("token {once}");
        let once = Once {
            key: token.key,
            name: &name,
            made: seconds(token.issued),
            ends: seconds(token.expires + LEEWAY),
        };
        self.replay
            .take(&once, self.clock.now())
            .map_err(|error| format!("the owner token is refused: {error}"))
    }
}

const NO_AUDIENCE: &str =
    "public_url is not set, so that this broker cannot tell tokens that are made for it";
const OWNED: &str = "this pod id belongs to an owner key: register with an ownerToken of that key";
const OTHER_POD_ID: &str = "the credential of this host is for other pod ids than this one";
const OTHER_OWNER: &str = "this pod id belongs to another owner key than the one of the ownerToken";

fn unreachable(error: &RegistryError) -> String {
    tracing::error!(%error, "the registry could not serve a registration");
    "this broker could not reach its registry".into()
}

fn millis(time: std::time::SystemTime) -> u64 {
    time.duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}

#[async_trait]
impl Admission for AtSocket {
    async fn standing(&self, pod_id: &str, token: Option<&str>) -> Result<Standing, String> {
        self.registrant.check(pod_id)?;
        let standing = self.owners.standing(pod_id, token, &self.registrant);
        timeout(PATIENCE, standing).await.unwrap_or_else(|_| {
            tracing::error!("the registry took too long over a registration");
            Err("this broker could not reach its registry".into())
        })
    }

    async fn registered(&self, pod_id: &str, claimant: Key) {
        let bound = self.owners.bind(pod_id, OwnerKey(claimant), BoundBy::Registration);
        match timeout(PATIENCE, bound).await {
            Ok(Ok(_) | Err(RegistryError::Unsupported(_))) => {}
            // Anybody can bring that about, so that it must not fill the log.
            Ok(Err(error @ RegistryError::Full(_))) => {
                tracing::debug!(%error, pod_id, "a pod id was not bound")
            }
            Ok(Err(error)) => tracing::warn!(%error, pod_id, "the pod id was not bound to its owner"),
            Err(_) => tracing::warn!(pod_id, "the registry took too long to bind a pod id"),
        }
    }
}
