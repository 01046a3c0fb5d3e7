//! Whether a registration acts for the owner of a pod id: what it proves, and in which state the pod id is. The states
//! are a table in [`crate::pods::PodIdRecord`]'s module.
//!
//! | the pod id | no proof | a right proof |
//! | --- | --- | --- |
//! | free, anonymous | open | open, with the key |
//! | owned by the proven key | | owner |
//! | owned by another key | refused | refused |
//!
//! A wrong token is refused always, and so is a missing proof with `signal.require_owner`. With `signal.bind = "off"` no
//! states are kept, and a proof, which is looked at only if it is required, gives no right to replace a holder.
//!
//! Once a socket holds the pod id, the registration is recorded, and only then is the socket told so and do visitors get
//! through to it. Where there is no room for another record, the origin is registered nevertheless, and its pod id stays
//! free; whoever makes it owned takes it from an origin that came meanwhile.

use std::{net::IpAddr, sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::time::timeout;

use super::{
    audience::ReceivedVia,
    owners::{OTHER_OWNER, OWNED, Owners, other_owner},
    pod_ids::NotRecorded,
    replay::{NotAccepted, Once},
    sender::Sender,
    time::seconds,
    token::{self, LEEWAY, VerifiedToken},
};
use crate::{
    config::BindMode,
    net::network::ClientNetwork,
    pods::{MAX_RECORDED, OwnerKey, RegistryError},
    printable::shown,
    signal::{
        admission::Admission,
        entitlement::{Entitlement, Key},
    },
};

/// How long a registry may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is known of a socket before it registers anything.
#[derive(Clone, Debug)]
pub struct Registrant {
    /// How the request that became the socket came in.
    pub received_via: ReceivedVia,
    /// The network of the client.
    pub network: ClientNetwork,
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
    /// Returns what decides about the registrations of one socket.
    pub fn at(self: &Arc<Self>, registrant: Registrant) -> Arc<dyn Admission> {
        Arc::new(AtSocket { owners: self.clone(), registrant })
    }

    async fn entitlement(
        &self,
        pod_id: &str,
        token: Option<&str>,
        registrant: &Registrant,
    ) -> Result<Entitlement, String> {
        let (mode, required) = {
            let config = self.live.load();
            (config.signal.bind, config.signal.require_owner)
        };
        if mode == BindMode::Off && !required {
            return Ok(Entitlement::Open(None));
        }
        let token = token.map(|token| self.verify(pod_id, token, registrant.received_via)).transpose()?;
        let of_socket = || registrant.proof.as_ref().and_then(|proof| proof.for_pod(pod_id));
        let proof = token.as_ref().map(|token| Proof { key: token.key }).or_else(of_socket);
        if proof.is_none() && required {
            return Err("this broker asks every origin for a credential or an ownerToken".into());
        }
        let owner = self
            .owner(pod_id, mode, registrant.network.counted)
            .await
            .map_err(|error| unreachable(&error))?;
        match (proof, owner) {
            (None, None) => Ok(Entitlement::Open(None)),
            (None, Some(_)) => Err(OWNED.into()),
            (Some(proof), Some(owner)) if owner != proof.key => Err(OTHER_OWNER.into()),
            (Some(_), _) if pod_id.len() > MAX_RECORDED && mode != BindMode::Off => {
                Err(format!("podId is longer than the {MAX_RECORDED} bytes that can belong to an owner key"))
            }
            (Some(proof), owner) => {
                self.take_once(token.as_ref(), registrant.network.counted, owner.is_some()).await?;
                Ok(match owner {
                    Some(_) => Entitlement::Owner(proof.key.0),
                    None if mode == BindMode::Off => Entitlement::Open(None),
                    None => Entitlement::Open(Some(proof.key.0)),
                })
            }
        }
    }

    fn verify(&self, pod_id: &str, token: &str, received_via: ReceivedVia) -> Result<VerifiedToken, String> {
        let audience = received_via.audience(&self.live.load());
        if audience.is_empty() {
            return Err(NO_AUDIENCE.into());
        }
        token::verify(token, pod_id, &audience, self.clock.now()).map_err(|error| error.to_string())
    }

    /// Records that an origin holds a pod id, unless the registry takes too long. Returns whether there is a record, or a
    /// sentence if the origin has no right to the pod id.
    pub(super) async fn record_in_time(
        &self,
        pod_id: &str,
        proof: Option<OwnerKey>,
        network: ClientNetwork,
    ) -> Result<bool, String> {
        match timeout(PATIENCE, self.record(pod_id, proof, network)).await {
            Ok(Err(NotRecorded::OtherOwner)) => Err(other_owner(proof.is_some()).into()),
            Ok(Err(NotRecorded::Failed)) => Ok(false),
            Ok(Ok(())) => Ok(true),
            Err(_) => {
                tracing::warn!(
                    pod_id = &*shown(pod_id),
                    "the registry took too long to record a registration"
                );
                Ok(false)
            }
        }
    }

    /// Takes a token that is good once. `is_owner` tells whether its key owns the pod id.
    async fn take_once(
        &self,
        token: Option<&VerifiedToken>,
        network: Option<IpAddr>,
        is_owner: bool,
    ) -> Result<(), String> {
        let Some((token, name)) = token.and_then(|token| Some((token, token.once.as_ref()?))) else {
            return Ok(());
        };
        let once = Once {
            key: token.key,
            name,
            made: seconds(token.issued),
            ends: seconds(token.expires + LEEWAY),
            from: Sender::new(network, is_owner),
        };
        let accepted = self.tokens.accept(&once, self.clock.now(), self.clock.running()).await;
        accepted.map_err(|error| match error {
            NotAccepted::Refused(error) => format!("the owner token is refused: {error}"),
            NotAccepted::Registry(error) => unreachable(&error),
        })
    }
}

const NO_AUDIENCE: &str =
    "public_url is not set, so that this broker cannot tell tokens that are made for it";
const OTHER_POD_ID: &str = "the credential of this host is for other pod ids than this one";
fn unreachable(error: &RegistryError) -> String {
    tracing::error!(%error, "the registry could not serve a registration");
    "this broker could not reach its registry".into()
}

#[async_trait]
impl Admission for AtSocket {
    async fn entitlement(&self, pod_id: &str, token: Option<&str>) -> Result<Entitlement, String> {
        self.registrant.check(pod_id)?;
        let entitlement = self.owners.entitlement(pod_id, token, &self.registrant);
        timeout(PATIENCE, entitlement).await.unwrap_or_else(|_| {
            tracing::error!("the registry took too long over a registration");
            Err("this broker could not reach its registry".into())
        })
    }

    async fn registered(&self, pod_id: &str, proof: Option<Key>) -> Result<bool, String> {
        let proof = proof.map(OwnerKey);
        self.owners.record_in_time(pod_id, proof, self.registrant.network).await
    }

    fn network(&self) -> ClientNetwork {
        self.registrant.network
    }
}
