//! Credentials when a write of the database fails: what was acknowledged is so, what was refused is as before or as after.

use std::time::SystemTime;

use super::{
    faults::{EIO, ENOSPC, Fault, Kind},
    lives::{directory, disk, open},
};
use crate::pods::{AddedCredential, Credential, CredentialLimits, Digest, OwnerKey, Registry};

const LIMITS: CredentialLimits = CredentialLimits { per_key: 1, total: 10 };

fn credential(key: u8) -> Credential {
    Credential {
        owner_key: OwnerKey([key; 32]),
        name: "home".parse().unwrap(),
        secret_hash: Digest([key; 32]),
        pod_ids: None,
        created_at: SystemTime::UNIX_EPOCH,
    }
}

/// Adds a credential and revokes another, with one fault; the number of operations, and whether it came.
async fn life(fault: Option<Fault>, luck: u64) -> (u64, bool) {
    let context = format!("{fault:?}, luck {luck}");
    let torn = fault.is_some_and(|fault| matches!(fault.kind, Kind::Torn));
    let (directory, disk) = (directory(), disk());
    let (new, old) = (credential(1), credential(2));
    let registry = open(directory.path(), &disk).unwrap();
    registry.add_credential(old.clone(), LIMITS).await.unwrap();
    disk.arm(fault);
    let added = registry.add_credential(new.clone(), LIMITS).await;
    let revoked = registry.revoke_credential(&old.owner_key, &old.name).await;
    if let Some(Kind::Full | Kind::FullForAll | Kind::Once(ENOSPC)) = fault.map(|fault| fault.kind) {
        assert!(revoked.is_ok(), "{context}: {revoked:?}");
    }
    let operations = disk.operations();
    let _ = registry.close().await;
    let fired = disk.fired();
    disk.heal();
    if torn {
        disk.reboot(luck);
    }
    let registry = open(directory.path(), &disk).unwrap_or_else(|error| panic!("{context}: {error}"));
    let kept = registry.credential(&new.secret_hash).await.unwrap();
    match added {
        Ok(added) => {
            assert_eq!((added, kept.as_ref()), (AddedCredential::Added, Some(&new)), "{context}");
        }
        Err(_) => assert!(fired && kept.as_ref().is_none_or(|kept| *kept == new), "{context}"),
    }
    assert_eq!(registry.credentials(&new.owner_key).await.unwrap(), Vec::from_iter(kept), "{context}");
    let kept = registry.credential(&old.secret_hash).await.unwrap();
    match revoked {
        Ok(revoked) => assert_eq!((revoked, &kept), (Some(old.clone()), &None), "{context}: it came back"),
        Err(_) => assert!(fired && kept.as_ref().is_none_or(|kept| *kept == old), "{context}"),
    }
    assert_eq!(registry.credentials(&old.owner_key).await.unwrap(), Vec::from_iter(kept), "{context}");
    // It goes on from there.
    let added = registry.add_credential(new, LIMITS).await.unwrap();
    assert_eq!(added, AddedCredential::Added, "{context}");
    (operations, fired)
}

#[tokio::test]
async fn any_write_of_a_credential_may_fail() {
    let (operations, _) = life(None, 0).await;
    assert!(operations > 10, "only {operations} operations");
    let kinds =
        [Kind::Once(EIO), Kind::Once(ENOSPC), Kind::Every(EIO), Kind::Full, Kind::FullForAll, Kind::Torn];
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
