//! Credentials: secrets with which a host proves an owner key when it opens its socket.

use std::{fmt, str::FromStr, time::SystemTime};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use super::{Digest, OwnerKey, pod_ids::MAX_RECORDED, record::iso8601};

/// Bytes of all pod ids of one credential.
const MAX_BYTES: usize = 1024;

/// A credential as a registry keeps it: with the hash of its secret in place of the secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Credential {
    /// The owner key that it proves.
    #[serde(rename = "ownerPubkey")]
    pub owner_key: OwnerKey,
    /// Its name among those of the key.
    pub name: CredentialName,
    /// The SHA-256 of the secret as text. No two credentials have the same.
    pub secret_hash: Digest,
    /// The pod ids that it is valid for; `None` stands for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_ids: Option<CredentialPodIds>,
    /// When it was added, to the millisecond.
    #[serde(with = "iso8601")]
    pub created_at: SystemTime,
}

impl Credential {
    /// Returns whether both are the same but for the time at which they were added.
    pub(super) fn is_repeat_of(&self, other: &Self) -> bool {
        let Self { owner_key, name, secret_hash, pod_ids, created_at: _ } = self;
        (owner_key, name, secret_hash, pod_ids)
            == (&other.owner_key, &other.name, &other.secret_hash, &other.pod_ids)
    }
}

/// The name of a credential: 1 to 32 characters that need no escape in a URL.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CredentialName(String);

/// A text is not the name of a credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the name of a credential has 1 to {} characters out of A-Z, a-z, 0-9, ., - and _",
    CredentialName::MAX
)]
pub struct NotACredentialName;

impl CredentialName {
    /// Characters in a name at most.
    pub const MAX: usize = 32;

    /// What orders before every name.
    pub(super) const FIRST: Self = Self(String::new());

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for CredentialName {
    type Err = NotACredentialName;

    fn from_str(text: &str) -> Result<Self, NotACredentialName> {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
        let is_name = (1..=Self::MAX).contains(&text.len()) && text.bytes().all(fits);
        if is_name { Ok(Self(text.into())) } else { Err(NotACredentialName) }
    }
}

impl fmt::Display for CredentialName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for CredentialName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl Serialize for CredentialName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for CredentialName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// The pod ids that a credential is valid for: at least one, and not too many.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<String>")]
pub struct CredentialPodIds(Vec<String>);

/// A list cannot be the pod ids of a credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a credential is valid for all pod ids, or for 1 to {} of 1 to {MAX_RECORDED} bytes each and {MAX_BYTES} together",
    CredentialPodIds::MAX
)]
pub struct NotCredentialPodIds;

impl CredentialPodIds {
    /// Pod ids of one credential at most.
    pub const MAX: usize = 16;
}

impl From<CredentialPodIds> for Vec<String> {
    fn from(pod_ids: CredentialPodIds) -> Self {
        pod_ids.0
    }
}

impl TryFrom<Vec<String>> for CredentialPodIds {
    type Error = NotCredentialPodIds;

    fn try_from(pod_ids: Vec<String>) -> Result<Self, NotCredentialPodIds> {
        let fits = |pod_id: &String| (1..=MAX_RECORDED).contains(&pod_id.len());
        let bytes: usize = pod_ids.iter().map(String::len).sum();
        let is_list =
            (1..=Self::MAX).contains(&pod_ids.len()) && pod_ids.iter().all(fits) && bytes <= MAX_BYTES;
        if is_list { Ok(Self(pod_ids)) } else { Err(NotCredentialPodIds) }
    }
}

/// How many credentials a registry keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CredentialLimits {
    /// Of one key.
    pub per_key: usize,
    /// Of all keys together.
    pub total: u64,
}

/// What became of a credential that was to be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddedCredential {
    /// It is kept, or was kept already.
    Added,
    /// The key has another one of this name.
    NameTaken,
    /// Another credential has this secret.
    SecretTaken,
    /// The key has as many as it may.
    TooManyForKey,
    /// All keys together have as many as they may.
    Full,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_need_no_escape_in_a_url() {
        for name in ["a", "home", "Home-2.b_c", &"x".repeat(32)] {
            assert_eq!(name.parse::<CredentialName>().unwrap().as_str(), name);
        }
        for name in ["", "a:b", "a b", "ü", "a/b", "a@b", "a%41", "~", &"x".repeat(33)] {
            assert_eq!(name.parse::<CredentialName>(), Err(NotACredentialName), "{name}");
        }
    }

    #[test]
    fn a_credential_is_for_all_pod_ids_or_for_a_few() {
        let ids = |count: usize, length: usize| CredentialPodIds::try_from(vec!["x".repeat(length); count]);
        assert!(ids(1, 1).is_ok() && ids(16, 64).is_ok() && ids(4, 256).is_ok());
        for (count, length) in [(0, 1), (17, 1), (1, 0), (1, 257), (5, 256), (16, 65)] {
            assert_eq!(ids(count, length), Err(NotCredentialPodIds), "{count} of {length}");
        }
    }
}
