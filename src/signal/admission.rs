//! Who may register a pod id: asked before an origin gets it, and answered by whoever knows of owners.

use async_trait::async_trait;

use super::directory::{Admitted, Member, Registration};
use crate::net::network::ClientNetwork;

/// What a registration is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The pod id has no owner: a holder that is there keeps it. With the key that was proven, if any.
    Open(Option<Key>),
    /// The pod id is owned by this key, which was proven.
    Owner(Key),
}

/// An owner key; nothing to this module but a name.
pub type Key = [u8; 32];

/// Decides about registrations and offers at one socket.
#[async_trait]
pub trait Admission: Send + Sync {
    /// Returns what a registration of `pod_id` with `token` is good for.
    ///
    /// # Errors
    ///
    /// Returns a sentence that says why it is refused.
    async fn standing(&self, pod_id: &str, token: Option<&str>) -> Result<Standing, String>;

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

impl Standing {
    /// Returns the key that was proven, if any.
    pub fn proof(&self) -> Option<Key> {
        match self {
            Self::Open(proof) => *proof,
            Self::Owner(key) => Some(*key),
        }
    }
}

/// Carries out a registration of a socket, as far as `admission` allows, and has it recorded.
pub async fn register(member: &Member, admission: &dyn Admission, registration: Registration) -> Admitted {
    let Registration { pod, token } = registration;
    member.begin_registration();
    let standing = admission.standing(&pod, token.as_deref()).await;
    let proof = standing.as_ref().ok().and_then(Standing::proof);
    let admitted = member.admit(pod.clone(), standing, admission.network());
    if let Admitted::Holds = admitted {
        member.registered(&pod, admission.registered(&pod, proof).await);
    }
    member.end_registration();
    admitted
}

/// Admits everything.
#[cfg(test)]
pub struct AdmitAll;

#[cfg(test)]
#[async_trait]
impl Admission for AdmitAll {
    async fn standing(&self, _: &str, _: Option<&str>) -> Result<Standing, String> {
        Ok(Standing::Open(None))
    }

    async fn registered(&self, _: &str, _: Option<Key>) -> Result<bool, String> {
        Ok(true)
    }

    fn network(&self) -> ClientNetwork {
        ClientNetwork::default()
    }
}
