//! Versions, bindings and credentials when a write of the database fails: what was acknowledged is so, what was refused is as before
//! or as after, and whole.

use std::time::SystemTime;

use super::{
    faults::{EIO, ENOSPC, Fault, Kind},
    lives::{directory, disk, files, open},
};
use crate::pods::{
    AddedCredential, Binding, BoundBy, Credential, CredentialLimits, Digest, OwnerKey, Registry, VerifiedPod,
    signed::Pod,
};

/// A pod and another version of it.
fn versions() -> [VerifiedPod; 2] {
    let old = Pod::named("old");
    let new = Pod::signed_by(old.key.clone(), "new").padded(100);
    let [old, new] = [old, new].map(|pod| VerifiedPod::verify(pod.html().into(), 1 << 20).unwrap());
    let slug = old.record().slug;
    [old, new.with_slug(slug)]
}

fn credential() -> Credential {
    Credential {
        owner_key: OwnerKey([1; 32]),
        name: "home".parse().unwrap(),
        secret_hash: Digest([2; 32]),
        pod_ids: None,
        created_at: SystemTime::UNIX_EPOCH,
    }
}

const LIMITS: CredentialLimits = CredentialLimits { per_key: 1, total: None };

/// Puts a version, binds a pod id, adds a credential and revokes another, with one fault; the number of operations, and whether it came.
async fn life(fault: Option<Fault>, luck: u64) -> (u64, bool) {
    let context = format!("{fault:?}, luck {luck}");
    let torn = fault.is_some_and(|fault| matches!(fault.kind, Kind::Torn));
    let (directory, disk, [old, new]) = (directory(), disk(), versions());
    let slug = old.record().slug;
    let registry = open(directory.path(), &disk).unwrap();
    registry.put_pod(old.clone()).await.unwrap();
    let doomed = Credential { owner_key: OwnerKey([3; 32]), secret_hash: Digest([3; 32]), ..credential() };
    registry.add_credential(doomed.clone(), LIMITS).await.unwrap();
    disk.arm(fault);
    let binding =
        Binding { owner_key: OwnerKey([1; 32]), by: BoundBy::Registration, since: SystemTime::UNIX_EPOCH };
    let replaced = registry.replace_pod(new.clone()).await;
    let bound = registry.bind("pod", binding).await;
    let added = registry.add_credential(credential(), LIMITS).await;
    let revoked = registry.revoke_credential(&doomed.owner_key, &doomed.name).await;
    let operations = disk.operations();
    let _ = registry.close().await;
    let fired = disk.fired();
    disk.heal();
    if torn {
        disk.reboot(luck);
    }
    let registry = open(directory.path(), &disk).unwrap_or_else(|error| panic!("{context}: {error}"));
    let (record, blob) = registry.get_pod(&slug).await.unwrap().unwrap();
    let is_new = blob.read().await.unwrap() == new.blob();
    let there = if is_new { &new } else { &old };
    assert_eq!(record.digest, there.record().digest, "{context}");
    assert_eq!(record.name, there.record().name, "{context}");
    assert_eq!(files(directory.path()), [record.digest.to_string()].into(), "{context}");
    match replaced {
        Ok(found) => assert!(found && is_new, "{context}: an acknowledged version is lost"),
        Err(_) => assert!(fired, "{context}"),
    }
    let kept = registry.binding("pod").await.unwrap();
    match bound {
        Ok(bound) => assert_eq!((bound, kept), (binding, Some(binding)), "{context}"),
        Err(_) => assert!(fired && kept.is_none_or(|kept| kept == binding), "{context}"),
    }
    let kept = registry.credential(&credential().secret_hash).await.unwrap();
    match added {
        Ok(added) => assert_eq!((added, kept), (AddedCredential::Added, Some(credential())), "{context}"),
        Err(_) => assert!(fired && kept.is_none_or(|kept| kept == credential()), "{context}"),
    }
    let kept = registry.credential(&doomed.secret_hash).await.unwrap();
    match revoked {
        Ok(revoked) => assert_eq!((revoked, kept), (Some(doomed), None), "{context}: a revocation is lost"),
        Err(_) => assert!(fired && kept.is_none_or(|kept| kept == doomed), "{context}"),
    }
    // It goes on from there.
    let [_, newer] = versions();
    assert!(!registry.replace_pod(newer).await.unwrap(), "{context}: it is another owner's");
    assert!(registry.replace_pod(new.clone()).await.unwrap(), "{context}");
    assert_eq!(registry.bind("pod", binding).await.unwrap(), binding, "{context}");
    let added = registry.add_credential(credential(), LIMITS).await.unwrap();
    assert_eq!(added, AddedCredential::Added, "{context}");
    (operations, fired)
}

#[tokio::test]
async fn any_write_of_a_version_or_a_binding_may_fail() {
    let (operations, _) = life(None, 0).await;
    assert!(operations > 10, "only {operations} operations");
    let kinds = [Kind::Once(EIO), Kind::Once(ENOSPC), Kind::Broken, Kind::Full, Kind::Torn];
    for (kind, luck) in kinds.into_iter().flat_map(|kind| (0..4).map(move |luck| (kind, luck))) {
        if luck > 0 && !matches!(kind, Kind::Torn) {
            continue;
        }
        let mut faults = 0;
        for at in 1..=operations {
            faults += u64::from(life(Some(Fault { at, kind }), luck).await.1);
        }
        assert!(faults > operations / 4, "{kind:?} came only {faults} times in {operations} operations");
    }
}
