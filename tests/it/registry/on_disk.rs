//! What the registry on disk promises besides: files, closing, opening again.

use std::{collections::BTreeSet, fs, path::Path, sync::Arc};

use gemmapod_signal::{PodRecord, RedbRegistry, Registry, RegistryError};

use super::{is_there, put, slugs, verified};
use crate::support::pod::Pod;

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
    registry.bump_hits(&[(kept.slug, 7)], std::time::SystemTime::now()).await.unwrap();
    registry.close().await.unwrap();

    let closed =
        |error: RegistryError| assert_eq!(error.to_string(), "the registry failed: the registry is closed");
    closed(registry.put_pod(verified(Pod::named("late").html())).await.unwrap_err());
    closed(registry.get_record(&kept.slug).await.unwrap_err());
    closed(registry.get_blob(&kept.slug).await.unwrap_err());
    closed(registry.bump_hits(&[(kept.slug, 1)], std::time::SystemTime::now()).await.unwrap_err());
    closed(registry.delete(&kept.slug).await.unwrap_err());
    closed(registry.list(None, 1).await.unwrap_err());
    registry.close().await.unwrap();
    assert_eq!(blobs(directory.path()), [kept.digest.to_string()].into());

    // The files are let go of, although the closed registry is still there.
    let again = RedbRegistry::open(directory.path()).unwrap();
    let records = again.list(None, 10).await.unwrap();
    let last_hit = records[0].last_hit;
    assert!(last_hit.is_some());
    assert_eq!(records, [PodRecord { hits: 7, last_hit, ..kept.clone() }]);
    assert_eq!(again.get_blob(&kept.slug).await.unwrap().unwrap().read().await.unwrap(), blob);
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
