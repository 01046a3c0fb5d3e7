//! Who may register a pod id: asked before an origin gets it, and answered by whoever knows of owners.

use async_trait::async_trait;

use super::entitlement::{Entitlement, Key};
use crate::net::network::ClientNetwork;

/// Decides about registrations and offers at one socket.
#[async_trait]
pub trait Admission: Send + Sync {
    /// Returns what a registration of `pod_id` with `token` is good for.
    ///
    /// # Errors
    ///
    /// Returns a sentence that says why it is refused.
    async fn entitlement(&self, pod_id: &str, token: Option<&str>) -> Result<Entitlement, String>;

    /// Records that the socket holds a pod id, after it proved `proof`. Its client is told so when this returns. Returns
    /// whether there is a record now.
    ///
    /// # Errors
    ///
    /// Returns a sentence if the pod id has got another owner meanwhile.
    async fn registered(&self, pod_id: &str, proof: Option<Key>) -> Result<bool, String>;

    /// Counts an offer of the socket's client.
    ///
    /// # Errors
    ///
    /// Returns a sentence if there were too many.
    fn count_offer(&self) -> Result<(), &'static str> {
        Ok(())
    }

    /// The network of the socket's client.
    fn network(&self) -> ClientNetwork;
}

/// Admits everything.
#[cfg(test)]
pub struct AdmitAll;

#[cfg(test)]
#[async_trait]
impl Admission for AdmitAll {
    async fn entitlement(&self, _: &str, _: Option<&str>) -> Result<Entitlement, String> {
        Ok(Entitlement::Open(None))
    }

    async fn registered(&self, _: &str, _: Option<Key>) -> Result<bool, String> {
        Ok(true)
    }

    fn network(&self) -> ClientNetwork {
        ClientNetwork::default()
    }
}
