//! What every registry promises, checked on the two that the broker brings.

mod credentials;
mod on_disk;

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use gemmapod_signal::{
    MemoryRegistry, OwnerKey, PodIdChange, PodIdRefused, PodRecord, RedbRegistry, Registry, RegistryError,
    Slug, Usage, VerifiedPod,
};

use credentials::credentials_are_kept_until_they_are_revoked;

use crate::support::pod::Pod;

const ROOM: u64 = 64 << 20;

/// Runs each case on a registry of either kind.
macro_rules! promises {
    ($($case:ident),* $(,)?) => {
        mod memory {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $case() {
                super::$case(std::sync::Arc::new(super::MemoryRegistry::new(super::ROOM))).await;
            })*
        }

        mod redb {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $case() {
                let directory = tempfile::tempdir().unwrap();
                super::$case(std::sync::Arc::new(super::RedbRegistry::open(directory.path()).unwrap())).await;
            })*
        }
    };
}

promises! {
    a_pod_comes_back_as_it_went_in,
    an_unknown_slug_is_nothing,
    pods_are_listed_page_by_page_in_the_order_of_their_slugs,
    hits_add_up_and_pass_over_pods_that_are_gone,
    a_deleted_pod_is_gone_and_stays_gone,
    pods_of_the_same_bytes_live_and_die_apart,
    a_pod_that_is_put_again_is_there_once,
    pods_put_at_the_same_time_are_all_there,
    another_version_takes_the_place_of_the_one_of_the_same_owner,
    only_the_version_that_is_expected_is_replaced,
    pod_ids_have_states,
    one_key_owns_a_thousand_pod_ids_and_no_more,
    the_pods_of_an_owner_are_listed,
    what_expired_is_listed_by_when_it_did,
    an_unsigned_version_counts_for_nobody,
    credentials_are_kept_until_they_are_revoked,
}

fn verified(html: impl Into<Bytes>) -> VerifiedPod {
    VerifiedPod::verify(html.into()).unwrap()
}

/// Puts a new pod named `name`.
async fn put(registry: &dyn Registry, name: &str) -> (PodRecord, Bytes) {
    let pod = verified(Pod::named(name).html());
    registry.put_pod(pod.clone()).await.unwrap();
    pod.into_parts()
}

async fn is_there(registry: &dyn Registry, record: &PodRecord, blob: &Bytes) -> bool {
    let (record_there, blob_there) =
        (registry.get_record(&record.slug).await.unwrap(), registry.get_blob(&record.slug).await.unwrap());
    assert_eq!(record_there.is_some(), blob_there.is_some(), "a record and its blob come and go together");
    match (record_there, blob_there) {
        (Some(record_there), Some(blob_there)) => {
            let blob_there = blob_there.read().await.unwrap();
            assert_eq!((&PodRecord { hits: record.hits, ..record_there }, &blob_there), (record, blob));
            true
        }
        _ => false,
    }
}

async fn slugs(registry: &dyn Registry) -> BTreeSet<Slug> {
    registry.list(None, usize::MAX).await.unwrap().into_iter().map(|record| record.slug).collect()
}

async fn a_pod_comes_back_as_it_went_in(registry: Arc<impl Registry>) {
    let (record, blob) = put(&*registry, "Grüße an alle 🌱").await;
    assert!(is_there(&*registry, &record, &blob).await);
    assert_eq!(record.name, "Grüße an alle 🌱");
    assert_eq!(registry.get_record(&record.slug).await.unwrap().unwrap(), record);
    assert_eq!(registry.list(None, 10).await.unwrap(), [record]);
}

async fn an_unknown_slug_is_nothing(registry: Arc<impl Registry>) {
    let unknown = Slug::random();
    assert!(registry.get_record(&unknown).await.unwrap().is_none());
    assert!(registry.get_blob(&unknown).await.unwrap().is_none());
    assert!(!registry.delete(&unknown).await.unwrap());
    registry.bump_hits(&[(unknown, 1)], SystemTime::now()).await.unwrap();
    registry.bump_hits(&[], SystemTime::now()).await.unwrap();
    assert!(registry.get_record(&unknown).await.unwrap().is_none());
    assert_eq!(registry.list(None, 10).await.unwrap(), []);
}

async fn pods_are_listed_page_by_page_in_the_order_of_their_slugs(registry: Arc<impl Registry>) {
    let mut all = BTreeSet::new();
    for n in 0..23 {
        all.insert(put(&*registry, &format!("pod {n}")).await.0.slug);
    }
    let mut seen = Vec::new();
    loop {
        let page = registry.list(seen.last(), 5).await.unwrap();
        assert!(page.len() == 5 || seen.len() + page.len() == 23);
        seen.extend(page.iter().map(|record| record.slug));
        if page.len() < 5 {
            break;
        }
    }
    // A set gives its slugs in order, and text orders as its bytes do.
    assert_eq!(seen, all.into_iter().collect::<Vec<_>>());
    assert!(seen.is_sorted_by_key(|slug| slug.to_string()));
    assert_eq!(registry.list(seen.last(), 5).await.unwrap(), []);
    assert_eq!(registry.list(None, 0).await.unwrap(), []);
    // A page can begin after a pod that is gone.
    registry.delete(&seen[10]).await.unwrap();
    assert_eq!(registry.list(Some(&seen[10]), 1).await.unwrap()[0].slug, seen[11]);
}

async fn hits_add_up_and_pass_over_pods_that_are_gone(registry: Arc<impl Registry>) {
    let (first, _) = put(&*registry, "first").await;
    let (second, _) = put(&*registry, "second").await;
    let (gone, _) = put(&*registry, "gone").await;
    registry.delete(&gone.slug).await.unwrap();
    registry
        .bump_hits(&[(first.slug, 2), (gone.slug, 5), (second.slug, 1)], SystemTime::now())
        .await
        .unwrap();
    registry.bump_hits(&[(first.slug, 3), (first.slug, 1)], SystemTime::now()).await.unwrap();
    let hits = async |slug| registry.get_record(slug).await.unwrap().map(|record| record.hits);
    assert_eq!(hits(&first.slug).await, Some(6));
    assert_eq!(hits(&second.slug).await, Some(1));
    assert_eq!(hits(&gone.slug).await, None);
    registry.bump_hits(&[(first.slug, u64::MAX)], SystemTime::now()).await.unwrap();
    assert_eq!(hits(&first.slug).await, Some(u64::MAX));
    let listed = registry.list(None, 10).await.unwrap();
    assert_eq!(listed.iter().map(|record| record.hits).max(), Some(u64::MAX));
}

async fn a_deleted_pod_is_gone_and_stays_gone(registry: Arc<impl Registry>) {
    let (record, blob) = put(&*registry, "short-lived").await;
    let (other, other_blob) = put(&*registry, "other").await;
    assert!(registry.delete(&record.slug).await.unwrap());
    assert!(!is_there(&*registry, &record, &blob).await);
    assert!(!registry.delete(&record.slug).await.unwrap());
    registry.bump_hits(&[(record.slug, 1)], SystemTime::now()).await.unwrap();
    assert!(!is_there(&*registry, &record, &blob).await);
    assert!(is_there(&*registry, &other, &other_blob).await);
    assert_eq!(slugs(&*registry).await, [other.slug].into());
}

async fn pods_of_the_same_bytes_live_and_die_apart(registry: Arc<impl Registry>) {
    let html = Pod::named("twin").html();
    let (first, second) = (verified(html.clone()), verified(html));
    registry.put_pod(first.clone()).await.unwrap();
    registry.put_pod(second.clone()).await.unwrap();
    let ((first, blob), (second, _)) = (first.into_parts(), second.into_parts());
    assert_eq!(first.digest, second.digest);
    assert!(registry.delete(&first.slug).await.unwrap());
    assert!(!is_there(&*registry, &first, &blob).await);
    assert!(is_there(&*registry, &second, &blob).await);
    assert!(registry.delete(&second.slug).await.unwrap());
    assert!(!is_there(&*registry, &second, &blob).await);
    // The same bytes may come again.
    let third = verified(blob.clone());
    registry.put_pod(third.clone()).await.unwrap();
    assert!(is_there(&*registry, third.record(), &blob).await);
}

async fn a_pod_that_is_put_again_is_there_once(registry: Arc<impl Registry>) {
    let pod = verified(Pod::named("insistent").html());
    registry.put_pod(pod.clone()).await.unwrap();
    registry.bump_hits(&[(pod.record().slug, 1)], SystemTime::now()).await.unwrap();
    registry.put_pod(pod.clone()).await.unwrap();
    assert_eq!(registry.list(None, 10).await.unwrap().len(), 1);
    assert!(registry.delete(&pod.record().slug).await.unwrap());
    assert!(!is_there(&*registry, pod.record(), pod.blob()).await);
}

async fn pods_put_at_the_same_time_are_all_there(registry: Arc<impl Registry>) {
    let twin = Pod::named("twin").html();
    let puts = (0..40).map(|n| {
        let pod = verified(if n % 4 == 0 { twin.clone() } else { Pod::named(&n.to_string()).html() });
        let registry = registry.clone();
        tokio::spawn(async move {
            registry.put_pod(pod.clone()).await.unwrap();
            if n % 3 == 0 {
                assert!(registry.delete(&pod.record().slug).await.unwrap());
            }
            (n % 3 != 0, pod)
        })
    });
    let mut expected = BTreeSet::new();
    for done in futures_util::future::join_all(puts).await {
        let (kept, pod) = done.unwrap();
        assert_eq!(is_there(&*registry, pod.record(), pod.blob()).await, kept);
        if kept {
            expected.insert(pod.record().slug);
        }
    }
    assert_eq!(slugs(&*registry).await, expected);
}

#[tokio::test]
async fn memory_is_bounded_and_comes_back_when_a_pod_is_deleted() {
    // Pods of the same size each: that of the first is learnt by trying.
    let pods: Vec<_> = ["a", "b", "c"].map(|name| verified(Pod::named(name).padded(5000).html())).into();
    let size = pods[0].record().blob_size;
    let registry = MemoryRegistry::new(2 * size + 2000);
    registry.put_pod(pods[0].clone()).await.unwrap();
    registry.put_pod(pods[1].clone()).await.unwrap();
    let full = registry.put_pod(pods[2].clone()).await.unwrap_err();
    assert!(matches!(full, RegistryError::Full(_)), "{full:?}");
    assert_eq!(
        full.to_string(),
        format!(
            "no room is left for this pod: the registry in memory holds at most {} bytes",
            2 * size + 2000
        )
    );
    assert!(!is_there(&registry, pods[2].record(), pods[2].blob()).await);
    // Deleting what is not there gives no room, deleting a pod gives room for exactly one, again and again.
    registry.delete(&pods[2].record().slug).await.unwrap();
    assert!(registry.put_pod(pods[2].clone()).await.is_err());
    for _ in 0..50 {
        assert!(registry.delete(&pods[0].record().slug).await.unwrap());
        registry.put_pod(pods[2].clone()).await.unwrap();
        assert!(registry.put_pod(pods[0].clone()).await.is_err());
        assert!(registry.delete(&pods[2].record().slug).await.unwrap());
        registry.put_pod(pods[0].clone()).await.unwrap();
    }
}

async fn only_the_version_that_is_expected_is_replaced(registry: Arc<impl Registry>) {
    let old = Pod::named("old");
    let first = verified(old.html());
    let slug = first.record().slug;
    registry.put_pod(first).await.unwrap();
    let version = |name: &str| verified(Pod::signed_by(old.key.clone(), name).html()).with_slug(slug);
    let record = async || registry.get_record(&slug).await.unwrap().unwrap();
    let before = record().await;
    assert!(registry.replace_version(version("second"), &before).await.unwrap());
    let second = record().await;
    assert!(!registry.replace_version(version("third"), &before).await.unwrap());
    assert_eq!(record().await, second);
    assert!(!registry.delete_version(&before).await.unwrap());
    // Of many who saw the same version, one replaces it.
    let replacing = (0..20).map(|n| {
        let (registry, second) = (registry.clone(), second.clone());
        let version = version(&format!("of many {n}"));
        tokio::spawn(async move { registry.replace_version(version, &second).await.unwrap() })
    });
    let replaced = futures_util::future::join_all(replacing.collect::<Vec<_>>()).await;
    assert_eq!(replaced.into_iter().filter(|replaced| *replaced.as_ref().unwrap()).count(), 1);
    assert!(record().await.name.starts_with("of many"));
    assert!(registry.delete(&slug).await.unwrap());
    assert!(!registry.replace_version(version("late"), &second).await.unwrap());
}

async fn another_version_takes_the_place_of_the_one_of_the_same_owner(registry: Arc<impl Registry>) {
    let old = Pod::named("old");
    let first = verified(old.html());
    let (before, twin) = (first.record().clone(), verified(old.html()));
    registry.put_pod(first).await.unwrap();
    registry.put_pod(twin.clone()).await.unwrap();
    registry.bump_hits(&[(before.slug, 3)], SystemTime::now()).await.unwrap();
    let new = Pod::signed_by(old.key.clone(), "new").padded(100);
    let version = verified(new.html()).with_slug(before.slug);
    let changed_at = version.record().created_at;
    assert!(registry.replace_pod(version).await.unwrap());
    let (after, blob) = registry.get_pod(&before.slug).await.unwrap().unwrap();
    assert_eq!(blob.read().await.unwrap(), new.html());
    // Whoever read the record before gets both of one version, too: the old bytes are still those of the other pod.
    let (opened, blob) = registry.open_pod(before.clone()).await.unwrap().unwrap();
    let of_version = if opened.digest == before.digest { old.html() } else { new.html() };
    assert_eq!(blob.read().await.unwrap(), of_version);
    assert_eq!((after.name.as_str(), after.hits, after.created_at), ("new", 3, before.created_at));
    assert_eq!((after.updated_at, after.blob_size), (Some(changed_at), new.html().len() as u64));
    // The other pod of the same bytes is untouched.
    assert!(is_there(&*registry, twin.record(), twin.blob()).await);
    // The same bytes again, which are in the place of themselves.
    assert!(registry.replace_pod(verified(new.html()).with_slug(before.slug)).await.unwrap());
    assert_eq!(registry.get_blob(&before.slug).await.unwrap().unwrap().read().await.unwrap(), new.html());
    // Another owner's, and one for a slug that is not there.
    let theirs = verified(Pod::named("theirs").html());
    assert!(!registry.replace_pod(theirs.clone().with_slug(before.slug)).await.unwrap());
    assert!(!registry.replace_pod(theirs.clone()).await.unwrap());
    assert_eq!(registry.get_record(&theirs.record().slug).await.unwrap(), None);
    assert_eq!(registry.get_blob(&before.slug).await.unwrap().unwrap().read().await.unwrap(), new.html());
    assert!(registry.delete(&before.slug).await.unwrap());
    assert!(registry.open_pod(after).await.unwrap().is_none());
    assert!(is_there(&*registry, twin.record(), twin.blob()).await);
}

async fn pod_ids_have_states(registry: Arc<impl Registry>) {
    let [mine, theirs] = [1, 2].map(|key| OwnerKey([key; 32]));
    let change = async |pod_id: &str, change| {
        let changed = registry.change_pod_ids(vec![(pod_id.into(), change)]).await.unwrap();
        assert_eq!(changed.len(), 1);
        changed[0]
    };
    let registered = |proof| PodIdChange::Registered { proof, network: None };
    assert_eq!(registry.pod_id("pod").await.unwrap(), None);
    let owned = change("pod", registered(Some(mine))).await.unwrap();
    assert_eq!(owned.unwrap().state.owner_key(), Some(mine));
    assert_eq!(change("pod", registered(Some(theirs))).await, Err(PodIdRefused::OtherOwner));
    assert_eq!(registry.pod_id("pod").await.unwrap(), owned);
    let anonymous = change("", registered(None)).await.unwrap();
    assert_eq!(change("", registered(Some(mine))).await, Ok(anonymous));
    let all = vec![("".into(), anonymous.unwrap()), ("pod".into(), owned.unwrap())];
    assert_eq!(registry.list_pod_ids(None, 9).await.unwrap(), all);
    assert_eq!(registry.list_pod_ids(Some(""), 9).await.unwrap(), all[1..]);
    assert_eq!(registry.list_pod_ids(None, 1).await.unwrap(), all[..1]);
    // Several changes are one after the other.
    let changes = [PodIdChange::Released { key: mine }, registered(None), PodIdChange::Unbound];
    let changed =
        registry.change_pod_ids(changes.map(|change| ("pod".into(), change)).to_vec()).await.unwrap();
    assert!(matches!(changed[..], [Ok(None), Ok(Some(_)), Ok(None)]), "{changed:?}");
    // Time passes while a broker runs.
    assert_eq!(registry.pod_ids_ran(Duration::from_hours(30 * 24 - 1)).await.unwrap(), 29);
    assert_eq!(change("", PodIdChange::Expired).await, Ok(anonymous));
    assert_eq!(registry.pod_ids_ran(Duration::from_hours(1)).await.unwrap(), 30);
    assert_eq!(change("", PodIdChange::Expired).await, Ok(None));
    assert_eq!(registry.list_pod_ids(None, 9).await.unwrap(), []);
}

async fn one_key_owns_a_thousand_pod_ids_and_no_more(registry: Arc<impl Registry>) {
    let key = OwnerKey([1; 32]);
    let registered = |n: u32| (n.to_string(), PodIdChange::Registered { proof: Some(key), network: None });
    let changed = registry.change_pod_ids((0..1001).map(registered).collect()).await.unwrap();
    assert!(changed[..1000].iter().all(Result::is_ok));
    assert_eq!(changed[1000], Err(PodIdRefused::TooManyOfKey));
    let released = vec![("7".into(), PodIdChange::Released { key }), registered(1000), registered(1001)];
    let changed = registry.change_pod_ids(released).await.unwrap();
    assert!(changed[0].is_ok() && changed[1].is_ok(), "{changed:?}");
    assert_eq!(changed[2], Err(PodIdRefused::TooManyOfKey));
}

async fn the_pods_of_an_owner_are_listed(registry: Arc<impl Registry>) {
    let owner = Pod::named("first");
    let mut mine = BTreeSet::new();
    for n in 0..300 {
        let pod = verified(Pod::signed_by(owner.key.clone(), &format!("pod {n}")).html());
        mine.insert(pod.record().slug);
        registry.put_pod(pod).await.unwrap();
        if n % 2 == 0 {
            put(&*registry, "another's").await;
        }
    }
    let key = owner.owner().parse().unwrap();
    let listed = async |after: Option<Slug>, limit| -> Vec<Slug> {
        let records = registry.list_owned(&key, after.as_ref(), limit).await.unwrap();
        records.into_iter().map(|record| record.slug).collect()
    };
    let mine: Vec<_> = mine.into_iter().collect();
    assert_eq!(listed(None, usize::MAX).await, mine);
    assert_eq!(listed(Some(mine[9]), 290).await, mine[10..]);
    assert_eq!(listed(Some(mine[9]), 5).await, mine[10..15]);
    assert_eq!(listed(None, 0).await, []);
    assert_eq!(registry.list_owned(&OwnerKey([0; 32]), None, 9).await.unwrap(), []);
}

async fn what_expired_is_listed_by_when_it_did(registry: Arc<impl Registry>) {
    let (start, mut expiring) = (SystemTime::now(), Vec::new());
    for n in 0..12 {
        let pod = verified(Pod::named("p").html());
        // One never does.
        let pod = if n == 0 { pod } else { pod.with_lifetime(Duration::from_hours(20 - n)) };
        registry.put_pod(pod.clone()).await.unwrap();
        expiring.extend(pod.record().expires.map(|expires| (expires, pod.record().slug)));
    }
    expiring.sort();
    let listed = async |hours| {
        let (mut listed, mut after) = (Vec::new(), None::<PodRecord>);
        loop {
            let now = start + Duration::from_hours(hours);
            let page = registry.list_expired(now, after.as_ref(), 4).await.unwrap();
            listed.extend(page.iter().map(|record| (record.expires.unwrap(), record.slug)));
            match page.last() {
                Some(last) if page.len() == 4 => after = Some(last.clone()),
                _ => return listed,
            }
        }
    };
    assert_eq!(listed(9).await, []);
    assert_eq!(listed(14).await, expiring[..5]);
    assert_eq!(listed(99).await, expiring);
    let gone = expiring.remove(5).1;
    assert!(registry.delete(&gone).await.unwrap());
    assert_eq!(listed(99).await, expiring);
    assert_eq!(registry.list_expired(start + Duration::from_hours(99), None, 0).await.unwrap(), []);
}

async fn an_unsigned_version_counts_for_nobody(registry: Arc<impl Registry>) {
    let owner = Pod::named("signed");
    let signed = verified(owner.html());
    let (slug, owner_key) = (signed.record().slug, signed.record().owner_key);
    registry.put_pod(signed.signed_by(owner_key).unwrap()).await.unwrap();
    assert_eq!(registry.usage(Some(&owner_key)).await.unwrap().pods, 1);
    let unsigned = verified(Pod::signed_by(owner.key.clone(), "unsigned").html()).with_slug(slug);
    assert!(registry.replace_pod(unsigned).await.unwrap());
    assert_eq!(registry.usage(Some(&owner_key)).await.unwrap(), Usage::default());
    assert_eq!(registry.usage(None).await.unwrap().pods, 1);
}
