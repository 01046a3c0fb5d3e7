//! What an owner asks of a broker about the credentials of hosts.

use http::Method;
use serde::{Deserialize, Serialize};

use super::{
    client::{ClientError, OwnerClient, Told, random_text},
    key::OwnerSecret,
};
use crate::pods::{CredentialName, CredentialPodIds, Digest};

/// The secret of a credential: 256 random bits in base64url (RFC 4648, section 5), which needs no escape in a URL.
///
/// It is made here and goes from here into the host's `pod.toml` only. The broker is told its SHA-256, so that neither
/// the request nor the broker's memory, log or disk can give the secret away.
pub struct CredentialSecret(String);

impl CredentialSecret {
    /// Returns a new secret.
    ///
    /// # Panics
    ///
    /// If the system has no random numbers to give.
    pub fn random() -> Self {
        Self(random_text::<32>())
    }

    /// The secret as text.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

/// A credential as the broker tells of it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ListedCredential {
    /// Its name.
    pub name: CredentialName,
    /// The pod ids that it is valid for; `None` stands for all.
    pub pod_ids: Option<Vec<String>>,
    /// When it was added.
    pub created_at: Told,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct New<'a> {
    name: &'a CredentialName,
    secret_sha256: Digest,
    #[serde(skip_serializing_if = "Option::is_none")]
    pod_ids: Option<&'a CredentialPodIds>,
}

#[derive(Deserialize)]
struct Page {
    credentials: Vec<ListedCredential>,
}

impl OwnerClient {
    /// Adds a credential for all pod ids of the owner, or for those in `pod_ids`.
    ///
    /// # Errors
    ///
    /// Returns an error if the broker refuses or does not answer.
    pub async fn add_credential(
        &self,
        secret: &OwnerSecret,
        name: &CredentialName,
        credential: &CredentialSecret,
        pod_ids: Option<&CredentialPodIds>,
    ) -> Result<(), ClientError> {
        let new = New { name, secret_sha256: Digest::of(credential.expose().as_bytes()), pod_ids };
        let body = serde_json::to_vec(&new).expect("a credential is plain data").into();
        let path = format!("/owner/{}/credentials", secret.owner_key());
        self.signed(secret, Method::POST, &path, Some(("application/json", body))).await.map(drop)
    }

    /// Returns the credentials of the owner in the order of their names.
    ///
    /// # Errors
    ///
    /// Returns an error if the broker refuses or does not answer.
    pub async fn credentials(&self, secret: &OwnerSecret) -> Result<Vec<ListedCredential>, ClientError> {
        let path = format!("/owner/{}/credentials", secret.owner_key());
        let page: Page = self.read(self.signed(secret, Method::GET, &path, None).await?)?;
        Ok(page.credentials)
    }

    /// Revokes a credential; the broker closes the sockets that were opened with it.
    ///
    /// # Errors
    ///
    /// Returns an error if the broker refuses or does not answer.
    pub async fn revoke_credential(
        &self,
        secret: &OwnerSecret,
        name: &CredentialName,
    ) -> Result<(), ClientError> {
        let path = format!("/owner/{}/credentials/{name}", secret.owner_key());
        self.signed(secret, Method::DELETE, &path, None).await.map(drop)
    }
}
