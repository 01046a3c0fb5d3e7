//! Who may register a pod id: asked before an origin gets it, and answered by whoever knows of owners.

use async_trait::async_trait;

/// What somebody who registers a pod id has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Nothing that a present holder has not: if there is one, it is asked whether it is still there.
    Anybody,
    /// A key to which nothing binds the pod id yet. It is handed back once the pod id is registered, if nobody held it.
    Claimant(Key),
    /// That it acts for the owner: it gets the pod id at once.
    Owner,
}

/// The key that somebody has shown; nothing to this module but a name.
pub type Key = [u8; 32];

/// Decides about registrations at one socket.
#[async_trait]
pub trait Admission: Send + Sync {
    /// What a registration of `pod_id` with `token` is good for, or a sentence that says why it is refused.
    async fn standing(&self, pod_id: &str, token: Option<&str>) -> Result<Standing, String>;

    /// A claimant got a pod id that nobody held. Its socket is told so when this returns.
    async fn registered(&self, pod_id: &str, claimant: Key);
}
