//! A registration, from its frame to its record.

use super::{
    admission::Admission,
    directory::{
        handled::{Admitted, Registration},
        member::Member,
    },
    entitlement::Entitlement,
};

/// Carries out a registration of a socket, as far as `admission` allows, and has it recorded.
pub async fn register(member: &Member, admission: &dyn Admission, registration: Registration) -> Admitted {
    let Registration { pod, token } = registration;
    member.begin_registration();
    let entitlement = admission.entitlement(&pod, token.as_deref()).await;
    let proof = entitlement.as_ref().ok().and_then(Entitlement::proof);
    let admitted = member.admit(pod.clone(), entitlement, admission.network());
    if let Admitted::Holds = admitted {
        member.registered(&pod, admission.registered(&pod, proof).await);
    }
    member.end_registration();
    admitted
}
