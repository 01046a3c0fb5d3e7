//! What is told of a full disk, and what is done with it: when there is room again, and what there is room for.

use std::{fs, path::Path, time::SystemTime};

use gemmapod_signal::{Registry, RegistryError};

use super::freeing::{LIMITS, assert_full, credential, fill, open, registered, store, verified};
use crate::support::mount::Tmpfs;

/// As much as the registry keeps for what frees something.
const RESERVE: u64 = 2 << 20;

/// Whoever is told that there is room again finds it, and the reserve is there again.
#[tokio::test]
async fn room_is_told_when_there_is_some_beside_the_reserve() {
    const TEST: &str = "room_is_told_when_there_is_some_beside_the_reserve";
    let Some(disk) = Tmpfs::mount(TEST, 16 << 20) else { return };
    let registry = open(&disk);
    let pods = store(&registry, 300).await;
    let reserve = disk.path().join("data/reserve");
    let length = |path: &Path| fs::metadata(path).unwrap().len();
    // Until one has used more than it made free.
    for pod in &pods[..100] {
        fill(&disk, &registry).await;
        assert_full(&registry, "before").await;
        fill(&disk, &registry).await;
        assert!(registry.delete(&pod.slug).await.unwrap());
        if length(&reserve) < RESERVE {
            break;
        }
    }
    assert!(length(&reserve) < RESERVE, "nothing of it was used");
    // What the deletions left in the database is for other deletions.
    let filler = disk.fill();
    let refused = [
        registry.add_credential(credential(1), LIMITS).await.map(drop),
        registry.bump_hits(&[(pods[200].slug, 1)], SystemTime::now()).await,
        registry.change_pod_ids(vec![registered("pod".into(), None)]).await.map(drop),
    ];
    for refused in refused {
        assert!(matches!(refused, Err(RegistryError::Full(_))), "{refused:?}");
    }
    let mut told = 0;
    while told == 0 {
        let left =
            length(&filler).checked_sub(64 << 10).expect("room should be told before all of it is free");
        fs::File::options().write(true).open(&filler).unwrap().set_len(left).unwrap();
        registry.check().await;
        match registry.problem() {
            None => told += 1,
            Some(_) if length(&reserve) < RESERVE => {
                let put = registry.put_pod(verified(0, 0)).await;
                assert!(matches!(put, Err(RegistryError::Full(_))) || length(&reserve) == RESERVE, "{put:?}");
            }
            Some(_) => {}
        }
    }
    assert_eq!(length(&reserve), RESERVE);
    registry.put_pod(verified(0, 100_000)).await.unwrap();
    assert_eq!(registry.problem(), None);
}

/// A full disk is no reason not to start, with a reserve or without; what there is no room for is told.
#[tokio::test]
async fn a_registry_is_opened_on_a_full_disk() {
    const TEST: &str = "a_registry_is_opened_on_a_full_disk";
    let Some(disk) = Tmpfs::mount(TEST, 16 << 20) else { return };
    let registry = open(&disk);
    let pods = store(&registry, 300).await;
    fill(&disk, &registry).await;
    registry.close().await.unwrap();
    disk.fill();
    let registry = open(&disk);
    assert_eq!(registry.problem(), None, "the reserve is there, and nobody has written");
    assert!(registry.delete(&pods[0].slug).await.unwrap());
    registry.close().await.unwrap();
    fs::remove_file(disk.path().join("data/reserve")).unwrap();
    let filler = disk.fill();
    let registry = open(&disk);
    assert_full(&registry, "without a reserve").await;
    fs::remove_file(filler).unwrap();
    registry.check().await;
    assert_eq!(registry.problem(), None);
    // Somebody who looks for room removes it once more.
    fs::remove_file(disk.path().join("data/reserve")).unwrap();
    registry.check().await;
    disk.fill();
    assert!(registry.delete(&pods[1].slug).await.unwrap());
}

#[tokio::test]
async fn hits_that_find_no_room_change_nothing_and_can_be_written_later() {
    let Some(disk) = Tmpfs::mount("hits_that_find_no_room_change_nothing_and_can_be_written_later", 16 << 20)
    else {
        return;
    };
    let registry = open(&disk);
    let mut hits = Vec::new();
    for n in 0..1500 {
        let pod = verified(n, 0);
        hits.push((pod.record().slug, 1 + n as u64));
        registry.put_pod(pod).await.unwrap();
    }
    // The first hits of so many pods want more pages than a registration.
    fill(&disk, &registry).await;
    let filler = disk.fill();
    for _ in 0..3 {
        let refused = registry.bump_hits(&hits, SystemTime::now()).await;
        assert!(matches!(refused, Err(RegistryError::Full(_))), "{refused:?}");
        assert!(registry.list(None, 2000).await.unwrap().iter().all(|record| record.hits == 0));
        assert!(registry.get_blob(&hits[0].0).await.unwrap().is_some());
    }
    fs::remove_file(filler).unwrap();
    registry.bump_hits(&hits, SystemTime::now()).await.unwrap();
    registry.close().await.unwrap();
    let registry = open(&disk);
    for (slug, hits) in hits {
        assert_eq!(registry.get_record(&slug).await.unwrap().unwrap().hits, hits);
    }
}

/// What finds room on a full disk, such as a hit or a deletion, does not make it one with room for pods.
#[tokio::test]
async fn a_small_write_does_not_end_the_problem_of_a_full_disk() {
    let Some(disk) = Tmpfs::mount("a_small_write_does_not_end_the_problem_of_a_full_disk", 8 << 20) else {
        return;
    };
    let registry = open(&disk);
    let mut slugs = Vec::new();
    for n in 0..300 {
        let pod = verified(n, 10);
        slugs.push(pod.record().slug);
        registry.put_pod(pod).await.unwrap();
    }
    let hit = async || registry.bump_hits(&[(slugs[0], 1)], SystemTime::now()).await;
    // The database has pages to spare then.
    for slug in slugs.iter().skip(10).step_by(2) {
        assert!(registry.delete(slug).await.unwrap());
    }
    hit().await.unwrap();
    registry.check().await;
    assert_eq!(registry.problem(), None);
    let filler = disk.fill();
    registry.check().await;
    for slug in &slugs[1..6] {
        assert!(registry.delete(slug).await.unwrap());
        let _ = hit().await;
        assert!(registry.problem().unwrap().contains("No space left on device"));
        registry.check().await;
        assert!(registry.problem().is_some(), "{slug} made little room");
        assert!(matches!(registry.put_pod(verified(0, 100_000)).await, Err(RegistryError::Full(_))));
    }
    fs::remove_file(filler).unwrap();
    registry.check().await;
    assert_eq!(registry.problem(), None);
    registry.put_pod(verified(0, 100_000)).await.unwrap();
}
