//! Versions and bindings when a write of the database fails: what was acknowledged is so, what was refused is as before
//! or as after, and whole.

use super::{
    faults::{EIO, ENOSPC, EROFS, Fault, Kind},
    lives::{directory, disk, files, open},
};
use crate::pods::{OwnerKey, PodIdChange, PodIdRecord, RedbRegistry, Registry, VerifiedPod, signed::Pod};

/// A pod and another version of it.
fn versions() -> [VerifiedPod; 2] {
    let old = Pod::named("old");
    let new = Pod::signed_by(old.key.clone(), "new").padded(100);
    let [old, new] = [old, new].map(|pod| VerifiedPod::verify(pod.html().into()).unwrap());
    let slug = old.record().slug;
    [old, new.with_slug(slug)]
}

/// Puts a version and binds a pod id, with one fault; the number of operations, and whether it came.
async fn life(fault: Option<Fault>, luck: u64) -> (u64, bool) {
    let context = format!("{fault:?}, luck {luck}");
    let torn = fault.is_some_and(|fault| matches!(fault.kind, Kind::Torn));
    let (directory, disk, [old, new]) = (directory(), disk(), versions());
    let slug = old.record().slug;
    let registry = open(directory.path(), &disk).unwrap();
    registry.put_pod(old.clone()).await.unwrap();
    disk.arm(fault);
    let key = OwnerKey([1; 32]);
    let bind = async |registry: &RedbRegistry| {
        let registered = PodIdChange::Registered { proof: Some(key), network: None };
        let changed = registry.change_pod_ids(vec![("pod".into(), registered)]).await;
        changed.map(|mut changed| changed.pop().unwrap().unwrap())
    };
    let owner = |record: Option<PodIdRecord>| record.and_then(|record| record.state.owner_key());
    let replaced = registry.replace_pod(new.clone()).await;
    let bound = bind(&registry).await;
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
    let kept = owner(registry.pod_id("pod").await.unwrap());
    match bound {
        Ok(bound) => assert_eq!((owner(bound), kept), (Some(key), Some(key)), "{context}"),
        Err(_) => assert!(fired && kept.is_none_or(|kept| kept == key), "{context}"),
    }
    // It goes on from there.
    let [_, newer] = versions();
    assert!(!registry.replace_pod(newer).await.unwrap(), "{context}: it is another owner's");
    assert!(registry.replace_pod(new.clone()).await.unwrap(), "{context}");
    assert_eq!(owner(bind(&registry).await.unwrap()), Some(key), "{context}");
    (operations, fired)
}

#[tokio::test]
async fn any_write_of_a_version_or_a_binding_may_fail() {
    let (operations, _) = life(None, 0).await;
    assert!(operations > 10, "only {operations} operations");
    let kinds =
        [Kind::Once(EIO), Kind::Once(ENOSPC), Kind::Every(EIO), Kind::Every(EROFS), Kind::Full, Kind::Torn];
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
