//! How pod ids change their states: registrations, claims, signed uploads, and time.

use std::{net::IpAddr, sync::Arc, time::Duration};

use futures_util::{StreamExt, stream, stream::FuturesUnordered};
use tokio_util::sync::CancellationToken;

use super::{
    owners::{Owners, other_owner, owner_of},
    sender::Sender,
};
use crate::{
    config::BindMode,
    net::network::ClientNetwork,
    pods::{
        Holder, MAX_RECORDED, NetworkTag, OwnerKey, PodIdChange, PodIdChanged, PodIdRefused, RegistryError,
    },
    printable::shown,
    signal::state::holder_socket::{HolderSocket, Record},
};

/// How often pod ids that are held are marked as used, and unused ones are looked for.
const ROUND: Duration = Duration::from_hours(1);
/// Pod ids that are looked at or changed at a time.
const PAGE: usize = 512;
/// Registrations that are recorded at a time.
const AT_A_TIME: usize = 64;

/// Why a registration is not on record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotRecorded {
    /// The pod id belongs to another key than the one that was proven.
    OtherOwner,
    /// There is no room, or the registry failed. The pod id is as it was.
    Failed,
}

/// Why a claim or a release is refused.
#[derive(Debug, thiserror::Error)]
pub enum NotClaimed {
    /// The broker keeps no states.
    #[error("pod ids do not belong to owner keys on this broker: signal.bind is \"off\"")]
    Off,
    /// The pod id cannot have a state.
    #[error("expected a pod id of 1 to {MAX_RECORDED} bytes")]
    Length,
    /// The network added too many today.
    #[error("too many new pod ids from this network today: try again tomorrow")]
    TooManyOfNetwork,
    /// The table of states does not allow it.
    #[error(transparent)]
    Refused(#[from] PodIdRefused),
    /// The pod id is in use, and whoever else has the address of the claim may be another client.
    #[error(
        "this pod id is in use without an owner key, and this claim comes from the broker's own machine or through a \
         proxy that the broker does not trust, so it could be anybody's. Connect both the host and this command to a \
         non-loopback address of a proxy in trusted_proxies, or claim the pod id while it is free, or ask the broker's \
         operator to unbind it"
    )]
    SharedAddress,
    /// The registry failed.
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

impl Owners {
    /// Records that an origin holds a pod id, after it proved `proof`.
    pub(super) async fn record(
        &self,
        pod_id: &str,
        proof: Option<OwnerKey>,
        network: ClientNetwork,
    ) -> Result<(), NotRecorded> {
        let mode = self.mode();
        if mode == BindMode::Off || pod_id.len() > MAX_RECORDED {
            return Err(NotRecorded::Failed);
        }
        let registered = PodIdChange::Registered {
            proof,
            network: network.claims_from.map(|network| NetworkTag::new(pod_id, network)),
        };
        let _turn = self.registrations.enter(network.counted).await;
        match self.add(pod_id, mode, registered, proof, network.counted).await {
            Ok(()) => {
                if let Some(key) = proof {
                    self.evict_others(pod_id, mode, key, None, network.counted).await;
                }
                Ok(())
            }
            Err(NotClaimed::Registry(RegistryError::Unsupported(_))) => Ok(()),
            Err(NotClaimed::Refused(PodIdRefused::OtherOwner)) => Err(NotRecorded::OtherOwner),
            Err(NotClaimed::Registry(error)) => {
                tracing::warn!(%error, pod_id = &*shown(pod_id), "a registration was not recorded");
                Err(NotRecorded::Failed)
            }
            // Anybody can bring that about, so that it must not fill the log.
            Err(error) => {
                tracing::debug!(%error, pod_id = &*shown(pod_id), "a registration was not recorded");
                Err(NotRecorded::Failed)
            }
        }
    }

    /// Carries out a change that may add a record, for a client that is counted by `network` and proved `key`.
    async fn add(
        &self,
        pod_id: &str,
        mode: BindMode,
        change: PodIdChange,
        key: Option<OwnerKey>,
        network: Option<IpAddr>,
    ) -> Result<(), NotClaimed> {
        let before = self.pod_id(pod_id, network).await?;
        // Whether or not the registry can write: nobody but its owner has a right to it.
        if before.as_ref().and_then(|before| owner_of(before, mode)).is_some_and(|owner| Some(owner) != key) {
            return Err(PodIdRefused::OtherOwner.into());
        }
        let ignores_upload =
            before.is_some_and(|record| mode != BindMode::Uploads && record.state.is_by_upload());
        if before.is_none() || ignores_upload {
            let is_owner = match key {
                Some(key) => self.owns_anything(&key, network).await?,
                None => false,
            };
            if !self.new_records.take(Sender::new(network, is_owner), self.clock.running()) {
                return Err(NotClaimed::TooManyOfNetwork);
            }
        }
        let mut changes = Vec::with_capacity(2);
        if ignores_upload {
            changes.push((pod_id.to_owned(), PodIdChange::UploadIgnored));
        }
        changes.push((pod_id.to_owned(), change));
        let changed: Option<PodIdChanged> = self.registry.change_pod_ids(changes).await?.pop();
        changed.transpose()?;
        Ok(())
    }

    /// Makes a pod id owned by a key that signed for it, in a request from `network`.
    ///
    /// # Errors
    ///
    /// See [`NotClaimed`].
    pub async fn claim(&self, pod_id: &str, key: OwnerKey, network: ClientNetwork) -> Result<(), NotClaimed> {
        let mode = self.checked(pod_id)?;
        let holder = self.directory.holder(pod_id);
        let judged = holder.map(|holder| holder.socket);
        let holder = match holder {
            None => Holder::Nobody,
            Some(holder) if holder.proof.is_some_and(|proof| proof != key.0) => Holder::OtherKey,
            Some(holder) => match network.claims_from {
                Some(network) if holder.network.claims_from == Some(network) => {
                    Holder::SameNetwork(NetworkTag::new(pod_id, network))
                }
                _ => Holder::OtherNetwork,
            },
        };
        let _turn = self.registrations.enter(network.counted).await;
        let claimed = PodIdChange::Claimed { key, holder };
        self.add(pod_id, mode, claimed, Some(key), network.counted).await.map_err(
            |refused| match refused {
                NotClaimed::Refused(PodIdRefused::OtherNetwork) if network.claims_from.is_none() => {
                    NotClaimed::SharedAddress
                }
                refused => refused,
            },
        )?;
        self.evict_others(pod_id, mode, key, judged, network.counted).await;
        Ok(())
    }

    /// Takes a pod id that `key` owns since a moment ago from an origin that got it meanwhile without a proof of that key, and
    /// perhaps without a record. `judged` is a holder that may stay.
    async fn evict_others(
        &self,
        pod_id: &str,
        mode: BindMode,
        key: OwnerKey,
        judged: Option<u64>,
        client: Option<IpAddr>,
    ) {
        let holder = self.directory.holder(pod_id);
        let others = |holder: &HolderSocket| Some(holder.socket) != judged && holder.proof != Some(key.0);
        if let Some(holder) = holder.filter(others)
            && let Ok(Some(owner)) = self.owner(pod_id, mode, client).await
            && owner == key
        {
            self.directory.evict(holder.socket, pod_id, other_owner(holder.proof.is_some()));
        }
    }

    /// Makes a pod id free that belongs to a key that signed for it, in a request from `network`.
    ///
    /// # Errors
    ///
    /// See [`NotClaimed`].
    pub async fn release(
        &self,
        pod_id: &str,
        key: OwnerKey,
        network: Option<IpAddr>,
    ) -> Result<(), NotClaimed> {
        self.checked(pod_id)?;
        let _turn = self.registrations.enter(network).await;
        let released = vec![(pod_id.to_owned(), PodIdChange::Released { key })];
        self.registry.change_pod_ids(released).await?.pop().transpose()?;
        Ok(())
    }

    fn checked(&self, pod_id: &str) -> Result<BindMode, NotClaimed> {
        match self.mode() {
            BindMode::Off => Err(NotClaimed::Off),
            _ if pod_id.is_empty() || pod_id.len() > MAX_RECORDED => Err(NotClaimed::Length),
            mode => Ok(mode),
        }
    }

    /// A client in `network` uploaded a pod that names a pod id, with a request that `key` signed: with
    /// `signal.bind = "uploads"` a free pod id that no origin holds becomes owned. The upload does not depend on it.
    pub async fn uploaded_signed(&self, pod_id: &str, key: OwnerKey, network: ClientNetwork) {
        let mode = self.mode();
        let is_held = self.directory.holder(pod_id).is_some();
        if mode != BindMode::Uploads || pod_id.len() > MAX_RECORDED || is_held {
            return;
        }
        let _turn = self.registrations.enter(network.counted).await;
        match self.add(pod_id, mode, PodIdChange::Uploaded { key }, Some(key), network.counted).await {
            Ok(()) => self.evict_others(pod_id, mode, key, None, network.counted).await,
            Err(NotClaimed::Registry(RegistryError::Unsupported(_))) => {}
            Err(NotClaimed::Registry(error)) => {
                tracing::warn!(%error, pod_id = &*shown(pod_id), "a signed upload did not bind its pod id");
            }
            // Anybody can bring that about, so that it must not fill the log.
            Err(error) => {
                tracing::debug!(%error, pod_id = &*shown(pod_id), "a signed upload did not bind its pod id")
            }
        }
    }

    /// Records the registrations of newcomers that got the pod id that they waited for. Never returns.
    pub async fn record_promotions(&self) {
        let any_promoted = self.directory.any_promoted();
        // None waits for the records of those before.
        let mut recording = FuturesUnordered::new();
        loop {
            tokio::select! {
                () = any_promoted.notified() => {
                    let promoted = self.directory.take_promoted().into_iter();
                    recording.extend(promoted.map(|(pod_id, holder)| self.record_holder(pod_id, holder)));
                }
                Some(()) = recording.next() => {}
            }
        }
    }

    /// Keeps the records of pod ids up to date until `stop`: those that are held are used, and unused ones expire.
    pub async fn keep_records(self: Arc<Self>, stop: CancellationToken) {
        let (mut counted, mut day) = (self.clock.running(), 0);
        let mut due = self.clock.after(ROUND);
        loop {
            tokio::select! {
                () = self.clock.wait(due) => {
                    due = self.clock.after(ROUND);
                    let ran = Duration::from_secs((self.clock.running() - counted).as_secs());
                    counted += ran;
                    match self.round(ran, day).await {
                        Ok(today) => day = today,
                        Err(RegistryError::Unsupported(_)) => {}
                        Err(error) => tracing::warn!(%error, "the records of pod ids were not kept up to date"),
                    }
                }
                () = stop.cancelled() => return,
            }
        }
    }

    /// One round after brokers ran for another `ran`, the last one of which was on day `before`. Returns the day.
    pub(super) async fn round(&self, ran: Duration, before: u64) -> Result<u64, RegistryError> {
        if self.mode() == BindMode::Off {
            return Ok(before);
        }
        let day = self.registry.pod_ids_ran(ran).await?;
        let (mut recorded, mut missing) = (Vec::new(), Vec::new());
        for (pod_id, holder) in self.directory.holders() {
            match holder.record {
                Record::Written => recorded.push((pod_id, holder)),
                Record::Missing => missing.push((pod_id, holder)),
                // By whoever carries the registration out.
                Record::Pending => {}
            }
        }
        for page in recorded.chunks(PAGE) {
            let held = page.iter().map(|(pod_id, _)| (pod_id.to_string(), PodIdChange::Held)).collect();
            self.registry.change_pod_ids(held).await?;
        }
        self.record_held(missing).await;
        if day != before {
            self.expire(day).await?;
        }
        Ok(day)
    }

    pub(super) async fn record_held(&self, held: Vec<(Arc<str>, HolderSocket)>) {
        let each = stream::iter(held);
        each.for_each_concurrent(AT_A_TIME, |(pod_id, holder)| self.record_holder(pod_id, holder)).await;
    }

    async fn record_holder(&self, pod_id: Arc<str>, holder: HolderSocket) {
        let recorded = self.record_in_time(&pod_id, holder.proof.map(OwnerKey), holder.network).await;
        self.directory.registered(holder.socket, &pod_id, recorded);
    }

    /// Makes pod ids free that were not used for too long.
    async fn expire(&self, day: u64) -> Result<(), RegistryError> {
        let mut after: Option<String> = None;
        loop {
            let page = self.registry.list_pod_ids(after.as_deref(), PAGE).await?;
            let is_last = page.len() < PAGE;
            after = page.last().map(|(pod_id, _)| pod_id.clone());
            let unused = page
                .into_iter()
                .filter(|(pod_id, record)| record.is_expired(day) && self.directory.holder(pod_id).is_none());
            let expired: Vec<_> = unused.map(|(pod_id, _)| (pod_id, PodIdChange::Expired)).collect();
            if !expired.is_empty() {
                tracing::info!(pod_ids = expired.len(), "pod ids are free that were not used for long");
                self.registry.change_pod_ids(expired).await?;
            }
            if is_last {
                return Ok(());
            }
        }
    }
}
