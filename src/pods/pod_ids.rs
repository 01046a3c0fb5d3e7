//! The states of a pod id: the whole rule about who may register it.
//!
//! | state | how it begins | who registers | how it ends |
//! | --- | --- | --- | --- |
//! | free | never used, or the others ended | anybody; the first registration decides: without proof it becomes anonymous, with a proof owned | |
//! | anonymous | a registration without proof | anybody, while no live origin holds it; a live one keeps it, whatever the newcomer proves | unused for 30 days; a signed claim from the client network of the socket that holds it now, if all its registrations came from there; the operator |
//! | owned | a registration or a claim with a proof of the key | proofs of that key only. A live holder with such a proof keeps it, and the newcomer stands by. A live holder without one is replaced | its owner's signed request; the operator; unused for a year |
//!
//! An upload changes no state; with `signal.bind = "uploads"` a signed one makes a free pod id owned.
//!
//! A registry keeps a [`PodIdRecord`] for each pod id that is not free, and changes it with
//! [`PodIdRecord::after`]. Who holds a pod id now is for the signalling directory to know, and is part of the change.
//!
//! Days are counted by the registry: one is 24 hours in which a broker ran on it. No date is involved, so that a clock
//! that jumps ends nothing.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::OwnerKey;

/// Bytes of a pod id that has a state, or that a credential names.
pub(crate) const MAX_RECORDED: usize = 256;
/// Anonymous pod ids that a registry keeps.
pub(crate) const MAX_ANONYMOUS: u64 = 100_000;
/// Owned pod ids that a registry keeps.
pub(crate) const MAX_OWNED: u64 = 100_000;
/// Owned pod ids that a registry keeps for one key.
pub(crate) const MAX_OWNED_PER_KEY: u64 = 1000;
/// Days after which an unused anonymous pod id is free.
const ANONYMOUS_DAYS: u64 = 30;
/// Days after which an unused owned pod id is free.
const OWNED_DAYS: u64 = 365;
/// Seconds in a day.
const DAY: u64 = 24 * 60 * 60;

/// A pod id that is not free.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodIdRecord {
    /// Anonymous or owned.
    pub state: PodIdState,
    /// The day of the registry's count on which it was last used.
    pub last_used: u64,
}

/// The state of a pod id that is not free.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum PodIdState {
    /// Registered without proof.
    Anonymous {
        /// The client network of all its registrations; `None` if they came from several, or from unknown ones. Else
        /// whoever registered it before or while its usual host was away could claim it.
        network: Option<NetworkTag>,
    },
    /// Owned by a key.
    #[serde(rename_all = "camelCase")]
    Owned {
        /// The key.
        owner_pubkey: OwnerKey,
        /// What made it so.
        by: BoundBy,
    },
}

/// What bound a pod id to a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BoundBy {
    /// The upload of a pod whose manifest names the pod id. Counts only while `signal.bind = "uploads"`.
    Upload,
    /// A registration or a claim.
    Registration,
}

/// A client network as the record of one pod id has it: a short hash, different for each pod id. It names nobody at a
/// glance, but whoever has the registry can find out an address by trying all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkTag([u8; 8]);

impl NetworkTag {
    /// Returns the tag of a network in the record of `pod_id`.
    pub fn new(pod_id: &str, network: std::net::IpAddr) -> Self {
        let digest = Sha256::new().chain_update(pod_id).chain_update([0]).chain_update(network.to_string());
        let digest: [u8; 32] = digest.finalize().into();
        Self(std::array::from_fn(|at| digest[at]))
    }
}

/// Something that may change the state of a pod id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PodIdChange {
    /// An origin registered it, and holds it.
    Registered {
        /// The key that it proved.
        proof: Option<OwnerKey>,
        /// Its client network.
        network: Option<NetworkTag>,
    },
    /// An origin holds it still.
    Held,
    /// A key claims it with a signed request.
    Claimed {
        /// The key.
        key: OwnerKey,
        /// Who holds it, as the claim sees it.
        holder: Holder,
    },
    /// A signed upload names it, and no origin holds it.
    Uploaded {
        /// The key that signed the upload.
        key: OwnerKey,
    },
    /// Uploads bind nothing: what they bound is free.
    UploadIgnored,
    /// A key gives it up with a signed request.
    Released {
        /// The key.
        key: OwnerKey,
    },
    /// The operator makes it free.
    Unbound,
    /// It is free if it was not used for too long.
    Expired,
}

impl PodIdChange {
    /// Returns whether it can only make a pod id free, or keep what is held from becoming free.
    pub(super) fn adds_nothing(&self) -> bool {
        match self {
            Self::UploadIgnored | Self::Released { .. } | Self::Unbound | Self::Expired | Self::Held => true,
            Self::Registered { .. } | Self::Claimed { .. } | Self::Uploaded { .. } => false,
        }
    }
}

/// Who holds a pod id that is claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// No live origin.
    Nobody,
    /// An origin in the client network of the claim.
    SameNetwork(NetworkTag),
    /// An origin that proved another key.
    OtherKey,
    /// An origin in another network, or in one that cannot be told from others.
    OtherNetwork,
}

/// The record of a pod id after a change, or why it was not changed.
pub type PodIdChanged = Result<Option<PodIdRecord>, PodIdRefused>;

/// Why a pod id is not changed: sentences for whoever asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PodIdRefused {
    /// It is owned, and the key was not proven.
    #[error("this pod id belongs to another owner key")]
    OtherOwner,
    /// It is not owned by anybody.
    #[error("this pod id does not belong to any owner key")]
    NotOwned,
    /// A claim without a holder.
    #[error(
        "this pod id is in use without an owner key, and no host holds it now: connect its host, then claim it from the host's network"
    )]
    NotHeld,
    /// A claim of what a host of another key holds.
    #[error("a host of another owner key holds this pod id: stop that host first")]
    OtherHost,
    /// A claim from elsewhere.
    #[error(
        "this pod id is in use without an owner key: only the network of the host that holds it can claim it, and only if it was never registered from another one; else ask the broker's operator to unbind it"
    )]
    OtherNetwork,
    /// No room for another anonymous pod id.
    #[error("this broker remembers {MAX_ANONYMOUS} pod ids without an owner, and no more")]
    TooManyAnonymous,
    /// No room for another owned pod id.
    #[error("{MAX_OWNED} pod ids on this broker belong to owner keys, and no more can")]
    TooManyOwned,
    /// No room for another pod id of the key.
    #[error("this owner key has {MAX_OWNED_PER_KEY} pod ids, and cannot have more: give one up with unbind")]
    TooManyOfKey,
}

/// How many pod ids a registry keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PodIdCounts {
    pub anonymous: u64,
    pub owned: u64,
    /// Of the key that is about to own another.
    pub of_key: u64,
}

/// Returns the day of a registry on which brokers ran for `seconds`.
pub(crate) fn day_of(seconds: u64) -> u64 {
    seconds / DAY
}

impl PodIdState {
    /// Returns the owner key, or `None` if the pod id is anonymous.
    pub fn owner_key(&self) -> Option<OwnerKey> {
        match self {
            Self::Anonymous { .. } => None,
            Self::Owned { owner_pubkey, .. } => Some(*owner_pubkey),
        }
    }

    /// Returns whether an upload made it owned.
    pub fn is_by_upload(&self) -> bool {
        matches!(self, Self::Owned { by: BoundBy::Upload, .. })
    }

    fn owned(owner_pubkey: OwnerKey, by: BoundBy) -> Self {
        Self::Owned { owner_pubkey, by }
    }

    fn lasts(&self) -> u64 {
        match self {
            Self::Anonymous { .. } => ANONYMOUS_DAYS,
            Self::Owned { .. } => OWNED_DAYS,
        }
    }
}

impl PodIdRecord {
    /// Returns whether it was not used for so long that it is free on `day`.
    pub fn is_expired(&self, day: u64) -> bool {
        day.saturating_sub(self.last_used) >= self.state.lasts()
    }

    /// Returns the record after `change` on `day`, where `None` is a free pod id.
    ///
    /// # Errors
    ///
    /// Returns an error if the table above does not allow the change.
    pub fn after(before: Option<Self>, change: PodIdChange, day: u64) -> PodIdChanged {
        use PodIdChange::{Claimed, Expired, Held, Registered, Released, Unbound, UploadIgnored, Uploaded};
        let state = before.map(|record| record.state);
        let owner = state.and_then(|state| state.owner_key());
        let owned_by = |key| Some(PodIdState::owned(key, BoundBy::Registration));
        let after = match (change, state) {
            (Registered { proof: Some(key), .. }, None) => owned_by(key),
            (Registered { proof: None, network }, None) => Some(PodIdState::Anonymous { network }),
            (Registered { network: now, .. }, Some(PodIdState::Anonymous { network })) => {
                Some(PodIdState::Anonymous { network: network.filter(|_| network == now) })
            }
            (Registered { proof: Some(key), .. }, Some(_)) if owner == Some(key) => owned_by(key),
            (Registered { .. }, Some(_)) => return Err(PodIdRefused::OtherOwner),
            (Held, state) => state,
            (Claimed { key, .. }, Some(PodIdState::Owned { .. })) if owner == Some(key) => owned_by(key),
            (Claimed { .. }, Some(PodIdState::Owned { .. })) => return Err(PodIdRefused::OtherOwner),
            (Claimed { holder: Holder::OtherKey, .. }, _) => return Err(PodIdRefused::OtherHost),
            (Claimed { key, holder: Holder::Nobody | Holder::SameNetwork(_) }, None) => owned_by(key),
            (Claimed { key, holder: Holder::SameNetwork(tag) }, Some(PodIdState::Anonymous { network }))
                if network == Some(tag) =>
            {
                owned_by(key)
            }
            (Claimed { holder: Holder::Nobody, .. }, Some(_)) => return Err(PodIdRefused::NotHeld),
            (Claimed { .. }, _) => return Err(PodIdRefused::OtherNetwork),
            (Uploaded { key }, None) => Some(PodIdState::owned(key, BoundBy::Upload)),
            (Uploaded { .. }, Some(_)) => return Ok(before),
            (UploadIgnored, Some(state)) if state.is_by_upload() => None,
            (UploadIgnored, _) => return Ok(before),
            (Released { key }, Some(_)) if owner == Some(key) => None,
            (Released { .. }, Some(PodIdState::Owned { .. })) => return Err(PodIdRefused::OtherOwner),
            (Released { .. }, _) => return Err(PodIdRefused::NotOwned),
            (Unbound, _) => None,
            (Expired, _) => return Ok(before.filter(|record| !record.is_expired(day))),
        };
        // A registry whose count was restored from a backup makes no pod id older.
        let last_used = before.map_or(day, |before| before.last_used.max(day));
        Ok(after.map(|state| Self { state, last_used }))
    }
}

impl PodIdCounts {
    /// Returns the counts after a pod id went from one state to another.
    ///
    /// # Errors
    ///
    /// Returns an error if there is no room for that.
    pub fn after(self, before: Option<PodIdState>, after: Option<PodIdState>) -> Result<Self, PodIdRefused> {
        let is_anonymous =
            |state: Option<PodIdState>| u64::from(state.is_some_and(|state| state.owner_key().is_none()));
        let is_owned =
            |state: Option<PodIdState>| u64::from(state.is_some_and(|state| state.owner_key().is_some()));
        let count = |count: u64, was: u64, is: u64| count.saturating_sub(was) + is;
        let counts = Self {
            anonymous: count(self.anonymous, is_anonymous(before), is_anonymous(after)),
            owned: count(self.owned, is_owned(before), is_owned(after)),
            of_key: count(self.of_key, is_owned(before), is_owned(after)),
        };
        if counts.anonymous > MAX_ANONYMOUS.max(self.anonymous) {
            return Err(PodIdRefused::TooManyAnonymous);
        }
        if counts.owned > MAX_OWNED.max(self.owned) {
            return Err(PodIdRefused::TooManyOwned);
        }
        if counts.of_key > MAX_OWNED_PER_KEY.max(self.of_key) {
            return Err(PodIdRefused::TooManyOfKey);
        }
        Ok(counts)
    }
}

/// Returns the key for which a change of a pod id counts, if it is about an owned one.
pub fn counted_key(before: Option<PodIdState>, after: Option<PodIdState>) -> Option<OwnerKey> {
    let [before, after] = [before, after].map(|state| state.and_then(|state| state.owner_key()));
    before.or(after)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWNER: OwnerKey = OwnerKey([1; 32]);
    const OTHER: OwnerKey = OwnerKey([2; 32]);
    const HOME: NetworkTag = NetworkTag([1; 8]);
    const AWAY: NetworkTag = NetworkTag([2; 8]);

    fn anonymous(last_used: u64) -> Option<PodIdRecord> {
        Some(PodIdRecord { state: PodIdState::Anonymous { network: Some(HOME) }, last_used })
    }

    fn owned(key: OwnerKey, by: BoundBy, last_used: u64) -> Option<PodIdRecord> {
        Some(PodIdRecord { state: PodIdState::owned(key, by), last_used })
    }

    #[test]
    fn each_change_of_each_state() {
        use BoundBy::{Registration, Upload};
        use PodIdChange::*;
        let registered = |proof| Registered { proof, network: Some(HOME) };
        let claimed = |holder| Claimed { key: OWNER, holder };
        let (mine, theirs) = (owned(OWNER, Registration, 3), owned(OTHER, Registration, 3));
        let uploaded = owned(OWNER, Upload, 3);
        let mixed = Some(PodIdRecord { state: PodIdState::Anonymous { network: None }, last_used: 5 });
        for (before, change, after) in [
            (None, registered(None), Ok(anonymous(5))),
            (None, registered(Some(OWNER)), Ok(owned(OWNER, Registration, 5))),
            (anonymous(3), registered(None), Ok(anonymous(5))),
            (anonymous(3), registered(Some(OWNER)), Ok(anonymous(5))),
            (anonymous(3), Registered { proof: None, network: Some(AWAY) }, Ok(mixed)),
            (mixed, registered(None), Ok(mixed)),
            (mixed, claimed(Holder::SameNetwork(HOME)), Err(PodIdRefused::OtherNetwork)),
            (mine, registered(Some(OWNER)), Ok(owned(OWNER, Registration, 5))),
            (uploaded, registered(Some(OWNER)), Ok(owned(OWNER, Registration, 5))),
            (mine, registered(None), Err(PodIdRefused::OtherOwner)),
            (theirs, registered(Some(OWNER)), Err(PodIdRefused::OtherOwner)),
            (None, Held, Ok(None)),
            (anonymous(3), Held, Ok(anonymous(5))),
            (anonymous(7), Held, Ok(anonymous(7))),
            (None, claimed(Holder::Nobody), Ok(owned(OWNER, Registration, 5))),
            (None, claimed(Holder::SameNetwork(HOME)), Ok(owned(OWNER, Registration, 5))),
            (None, claimed(Holder::OtherNetwork), Err(PodIdRefused::OtherNetwork)),
            (None, claimed(Holder::OtherKey), Err(PodIdRefused::OtherHost)),
            (anonymous(3), claimed(Holder::OtherKey), Err(PodIdRefused::OtherHost)),
            (mine, claimed(Holder::OtherKey), Ok(owned(OWNER, Registration, 5))),
            (anonymous(3), claimed(Holder::Nobody), Err(PodIdRefused::NotHeld)),
            (anonymous(3), claimed(Holder::SameNetwork(HOME)), Ok(owned(OWNER, Registration, 5))),
            (anonymous(3), claimed(Holder::SameNetwork(AWAY)), Err(PodIdRefused::OtherNetwork)),
            (anonymous(3), claimed(Holder::OtherNetwork), Err(PodIdRefused::OtherNetwork)),
            (mine, claimed(Holder::OtherNetwork), Ok(owned(OWNER, Registration, 5))),
            (theirs, claimed(Holder::SameNetwork(HOME)), Err(PodIdRefused::OtherOwner)),
            (None, Uploaded { key: OWNER }, Ok(owned(OWNER, Upload, 5))),
            (anonymous(3), Uploaded { key: OWNER }, Ok(anonymous(3))),
            (theirs, Uploaded { key: OWNER }, Ok(theirs)),
            (uploaded, UploadIgnored, Ok(None)),
            (mine, UploadIgnored, Ok(mine)),
            (mine, Released { key: OWNER }, Ok(None)),
            (theirs, Released { key: OWNER }, Err(PodIdRefused::OtherOwner)),
            (anonymous(3), Released { key: OWNER }, Err(PodIdRefused::NotOwned)),
            (None, Released { key: OWNER }, Err(PodIdRefused::NotOwned)),
            (mine, Unbound, Ok(None)),
            (anonymous(3), Unbound, Ok(None)),
            (anonymous(3), Expired, Ok(anonymous(3))),
        ] {
            assert_eq!(PodIdRecord::after(before, change, 5), after, "{before:?} {change:?}");
        }
        let expired = |before, day| PodIdRecord::after(before, Expired, day).unwrap().is_none();
        assert!(!expired(anonymous(3), 32) && expired(anonymous(3), 33));
        assert!(!expired(mine, 367) && expired(mine, 368));
    }

    #[test]
    fn when_there_is_no_room_nothing_is_added_and_everything_can_go() {
        let (state_of, full) = (
            |record: Option<PodIdRecord>| record.map(|record| record.state),
            PodIdCounts { anonymous: MAX_ANONYMOUS, owned: MAX_OWNED, of_key: 0 },
        );
        let (anonymous, mine) = (state_of(anonymous(0)), state_of(owned(OWNER, BoundBy::Registration, 0)));
        assert_eq!(full.after(None, anonymous), Err(PodIdRefused::TooManyAnonymous));
        assert_eq!(full.after(None, mine), Err(PodIdRefused::TooManyOwned));
        assert_eq!(full.after(anonymous, mine), Err(PodIdRefused::TooManyOwned));
        assert_eq!(full.after(anonymous, None).unwrap().anonymous, MAX_ANONYMOUS - 1);
        assert_eq!(full.after(anonymous, anonymous), Ok(full));
        let of_key = PodIdCounts { of_key: MAX_OWNED_PER_KEY, ..PodIdCounts::default() };
        assert_eq!(of_key.after(None, mine), Err(PodIdRefused::TooManyOfKey));
    }
}
