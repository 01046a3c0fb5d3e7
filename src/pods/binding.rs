//! Which owner key a pod id belongs to.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::{OwnerKey, RegistryError, record::iso8601};

/// Pod ids that a registry binds at most: each is a small record that is never given up by itself.
pub(crate) const MAX_BINDINGS: u64 = 100_000;

/// That a pod id belongs to an owner key, and since when.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Binding {
    /// The key.
    #[serde(rename = "ownerPubkey")]
    pub owner_key: OwnerKey,
    /// What bound it.
    pub by: BoundBy,
    /// Since when, to the millisecond.
    #[serde(with = "iso8601")]
    pub since: SystemTime,
}

/// What bound a pod id to a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BoundBy {
    /// The upload of a pod whose manifest names the pod id.
    Upload,
    /// A registration with an owner token.
    Registration,
}

impl Binding {
    /// What holds where `held` is there already and this one comes: the first key stays, and what it has shown grows.
    pub fn after(self, held: Option<Self>) -> Self {
        match held {
            Some(held) if held.owner_key != self.owner_key => held,
            Some(held) => Self { by: held.by.max(self.by), ..held },
            None => self,
        }
    }
}

pub(crate) fn too_many_bindings() -> RegistryError {
    RegistryError::Full(format!("{MAX_BINDINGS} pod ids are bound already"))
}
