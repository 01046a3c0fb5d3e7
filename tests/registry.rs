//! What every registry promises, checked on the two that the broker brings.

mod support;

use std::{collections::BTreeSet, fs, path::Path, sync::Arc};

use bytes::Bytes;
use gemmapod_signal::{MemoryRegistry, PodRecord, RedbRegistry, Registry, RegistryError, Slug, VerifiedPod};

use support::pod::Pod;

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
}

fn verified(html: impl Into<Bytes>) -> VerifiedPod {
    VerifiedPod::verify(html.into(), 1 << 20).unwrap()
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
    registry.bump_hits(&[(unknown, 1)]).await.unwrap();
    registry.bump_hits(&[]).await.unwrap();
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
    registry.bump_hits(&[(first.slug, 2), (gone.slug, 5), (second.slug, 1)]).await.unwrap();
    registry.bump_hits(&[(first.slug, 3), (first.slug, 1)]).await.unwrap();
    let hits = async |slug| registry.get_record(slug).await.unwrap().map(|record| record.hits);
    assert_eq!(hits(&first.slug).await, Some(6));
    assert_eq!(hits(&second.slug).await, Some(1));
    assert_eq!(hits(&gone.slug).await, None);
    registry.bump_hits(&[(first.slug, u64::MAX)]).await.unwrap();
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
    registry.bump_hits(&[(record.slug, 1)]).await.unwrap();
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
    registry.bump_hits(&[(pod.record().slug, 1)]).await.unwrap();
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

fn blobs(directory: &Path) -> BTreeSet<String> {
    let files = fs::read_dir(directory.join("blobs")).unwrap();
    files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect()
}

#[tokio::test]
async fn on_disk_a_blob_lies_once_and_goes_with_the_last_pod_that_has_it() {
    let directory = tempfile::tempdir().unwrap();
    let registry = RedbRegistry::open(directory.path()).unwrap();
    let html = Pod::named("twin").html();
    let (first, second) = (verified(html.clone()), verified(html));
    registry.put_pod(first.clone()).await.unwrap();
    registry.put_pod(second.clone()).await.unwrap();
    let name = first.record().digest.to_string();
    assert_eq!(fs::read(directory.path().join("blobs").join(&name)).unwrap(), *first.blob());
    assert_eq!(blobs(directory.path()), [name.clone()].into());
    registry.delete(&first.record().slug).await.unwrap();
    assert_eq!(blobs(directory.path()), [name].into());
    // What is put again does not count again.
    registry.put_pod(second.clone()).await.unwrap();
    registry.delete(&second.record().slug).await.unwrap();
    assert_eq!(blobs(directory.path()), [].into());
}

#[tokio::test]
async fn closing_keeps_everything_and_whatever_is_asked_later_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let registry = RedbRegistry::open(directory.path()).unwrap();
    let (kept, blob) = put(&registry, "kept").await;
    let (deleted, _) = put(&registry, "deleted").await;
    registry.delete(&deleted.slug).await.unwrap();
    registry.bump_hits(&[(kept.slug, 7)]).await.unwrap();
    registry.close().await.unwrap();

    let closed =
        |error: RegistryError| assert_eq!(error.to_string(), "the registry failed: the registry is closed");
    closed(registry.put_pod(verified(Pod::named("late").html())).await.unwrap_err());
    closed(registry.get_record(&kept.slug).await.unwrap_err());
    closed(registry.get_blob(&kept.slug).await.unwrap_err());
    closed(registry.bump_hits(&[(kept.slug, 1)]).await.unwrap_err());
    closed(registry.delete(&kept.slug).await.unwrap_err());
    closed(registry.list(None, 1).await.unwrap_err());
    registry.close().await.unwrap();
    assert_eq!(blobs(directory.path()), [kept.digest.to_string()].into());

    // The files are let go of, although the closed registry is still there.
    let again = RedbRegistry::open(directory.path()).unwrap();
    assert_eq!(again.list(None, 10).await.unwrap(), [PodRecord { hits: 7, ..kept.clone() }]);
    assert_eq!(again.get_blob(&kept.slug).await.unwrap(), Some(blob));
}

#[tokio::test(flavor = "multi_thread")]
async fn puts_that_meet_a_close_are_there_or_are_refused() {
    for round in 0..20 {
        let directory = tempfile::tempdir().unwrap();
        let registry = Arc::new(RedbRegistry::open(directory.path()).unwrap());
        let puts: Vec<_> = (0..16)
            .map(|n| {
                let (registry, pod) = (registry.clone(), verified(Pod::named(&n.to_string()).html()));
                tokio::spawn(async move { (pod.record().slug, registry.put_pod(pod).await.is_ok()) })
            })
            .collect();
        for _ in 0..round {
            tokio::task::yield_now().await;
        }
        registry.close().await.unwrap();
        let mut acknowledged = BTreeSet::new();
        for put in puts {
            let (slug, done) = put.await.unwrap();
            acknowledged.extend(done.then_some(slug));
        }
        let again = RedbRegistry::open(directory.path()).unwrap();
        assert_eq!(slugs(&again).await, acknowledged);
        assert_eq!(blobs(directory.path()).len(), acknowledged.len());
    }
}

/// A process that is killed leaves such files; the next start removes them.
#[tokio::test]
async fn opening_removes_what_interrupted_uploads_left_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let (record, blob) = {
        let registry = RedbRegistry::open(directory.path()).unwrap();
        let kept = put(&registry, "kept").await;
        registry.close().await.unwrap();
        kept
    };
    let place = directory.path().join("blobs");
    fs::write(place.join(".upload-a1B2c3"), "half of a p").unwrap();
    fs::write(place.join("00".repeat(32)), "a blob without a record").unwrap();
    fs::write(place.join("README"), "a note of the operator").unwrap();
    let registry = RedbRegistry::open(directory.path()).unwrap();
    assert_eq!(blobs(directory.path()), [record.digest.to_string(), "README".into()].into());
    assert!(is_there(&registry, &record, &blob).await);
}
