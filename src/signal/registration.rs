//! A registration, from its frame to its record.

use super::{
    admission::Admission,
    directory::{
        handled::{Admitted, Registration},
        member::Member,
    },
    standing::Standing,
};

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
