//! Who may register a pod id: asked before an origin gets it, and answered by whoever knows of owners.

use async_trait::async_trait;

/// What somebody who registers a pod id has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Nothing that a present holder has not: if there is one, it is asked whether it is still there.
    Anybody,
    /// That it acts for the owner: it gets the pod id at once.
    Owner,
}

/// Decides about registrations at one socket.
#[async_trait]
pub trait Admission: Send + Sync {
    /// What a registration of `pod_id` with `token` is good for, or a sentence that says why it is refused.
    async fn standing(&self, pod_id: &str, token: Option<&str>) -> Result<Standing, String>;
}
