//! What is said of a disk that is full: that there is room again is true for the next upload. What frees something works
//! meanwhile.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use super::{
    RedbRegistry,
    faults::{Disk, Fault, Kind},
    file::Source,
    lives::{directory, disk, open, open_from, pod},
};
use crate::pods::{PodIdChange, Registry, RegistryError, Slug};

/// Uploads until there is no room; the pods that are there.
async fn fill(registry: &RedbRegistry, disk: &Disk) -> Vec<Slug> {
    let mut stored = Vec::new();
    for n in 0.. {
        if n == 3 {
            // Their first hits are there too, and more of them need no room.
            let hits: Vec<_> = stored.iter().map(|slug| (*slug, 1)).collect();
            registry.bump_hits(&hits, SystemTime::now()).await.unwrap();
            disk.arm(Some(Fault { at: 1, kind: Kind::Full }));
        }
        let pod = pod(&n.to_string());
        let slug = pod.record().slug;
        match registry.put_pod(pod).await {
            Ok(()) => stored.push(slug),
            Err(RegistryError::Full(_)) => return stored,
            Err(error) => panic!("{error}"),
        }
    }
    unreachable!("no disk is endless")
}

#[tokio::test]
async fn a_small_write_is_no_sign_of_room() {
    let (directory, disk) = (directory(), disk());
    let registry = open(directory.path(), &disk).unwrap();
    let stored = fill(&registry, &disk).await;
    assert!(stored.len() >= 3, "{} pods", stored.len());
    let (mut small, mut told, mut refused_before) = (0, [0; 2], 0);
    for n in 0..60 {
        // Some room, which is used up sooner or later.
        disk.arm(Some(Fault { at: 1 + 10 * n, kind: Kind::Full }));
        let context = format!("round {n}");
        small += u32::from(registry.bump_hits(&[(stored[0], 1)], SystemTime::now()).await.is_ok());
        small += u32::from(registry.delete(&stored[1 + n as usize % 2]).await.is_ok());
        registry.check().await;
        let problem = registry.problem();
        told[usize::from(problem.is_some())] += 1;
        // The upload may be the first write for which there is no room.
        let was_refused = disk.fired();
        refused_before += u32::from(was_refused);
        let put = registry.put_pod(pod(&format!("another {n}"))).await;
        let is_true = problem.is_some() || put.is_ok() || !was_refused;
        assert!(is_true, "{context}: told that there is room, and then {put:?}");
        if put.is_err() {
            assert!(registry.problem().unwrap().contains("cannot be written"), "{context}");
            small += u32::from(registry.bump_hits(&[(stored[0], 1)], SystemTime::now()).await.is_ok());
            assert!(registry.problem().is_some(), "{context}: a hit was written, and no room found");
        }
    }
    assert!(small > 60 && told.iter().all(|rounds| *rounds > 5), "{small} small writes, {told:?}");
    assert!(refused_before > 5, "{refused_before}");
    disk.heal();
    registry.check().await;
    assert_eq!(registry.problem(), None);
    registry.put_pod(pod("after")).await.unwrap();
}

/// A registry cannot be opened on some file systems either when they are full, and is not tried again at once.
#[tokio::test]
async fn an_opening_that_failed_for_lack_of_room_is_no_reason_to_refuse_a_deletion() {
    let (directory, disk) = (directory(), disk());
    let opened = || {
        let source = Source::new(disk.clone(), 0).with_pause(Duration::from_hours(1));
        open_from(directory.path(), &disk, source).unwrap()
    };
    let pods = ["a", "b", "c"].map(pod);
    let registry = opened();
    for pod in &pods {
        registry.put_pod(pod.clone()).await.unwrap();
    }
    disk.arm(Some(Fault { at: 1, kind: Kind::FullForAll }));
    for pod in &pods[..2] {
        let hit = registry.bump_hits(&[(pods[0].record().slug, 1)], SystemTime::now()).await;
        assert!(matches!(hit, Err(RegistryError::Full(_))), "{hit:?}");
        assert!(registry.delete(&pod.record().slug).await.unwrap());
    }
    let _ = registry.close().await;
    // Nor by another process.
    let registry = opened();
    assert!(registry.delete(&pods[2].record().slug).await.unwrap());
    let refused = registry.put_pod(pod("d")).await;
    assert!(matches!(refused, Err(RegistryError::Full(_))), "{refused:?}");
}

/// A look at the registry, which fails for lack of room, makes nothing else fail.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deletions_do_not_suffer_from_looks() {
    let (directory, disk) = (directory(), disk());
    let registry = Arc::new(open(directory.path(), &disk).unwrap());
    let pods: Vec<_> = (0..200).map(|n| pod(&n.to_string())).collect();
    for pod in &pods {
        registry.put_pod(pod.clone()).await.unwrap();
    }
    disk.arm(Some(Fault { at: 1, kind: Kind::Full }));
    // Until the database has no pages to spare, so that a look fails.
    let registered = PodIdChange::Registered { proof: None, network: None };
    for n in 0.. {
        if registry.change_pod_ids(vec![(n.to_string(), registered)]).await.is_err() {
            break;
        }
    }
    let stop = Arc::new(AtomicBool::new(false));
    let looks = tokio::spawn({
        let (registry, stop) = (registry.clone(), stop.clone());
        async move {
            while !stop.load(Ordering::Relaxed) {
                registry.check().await;
            }
        }
    });
    for pod in &pods {
        let deleted = registry.delete(&pod.record().slug).await;
        assert!(matches!(deleted, Ok(true)), "{deleted:?}");
    }
    stop.store(true, Ordering::Relaxed);
    looks.await.unwrap();
}
