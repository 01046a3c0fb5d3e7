//! What is said of a disk that is full: that there is room again is true for the next upload.

use std::time::SystemTime;

use super::{
    RedbRegistry,
    faults::{Disk, Fault, Kind},
    lives::{directory, disk, open, pod},
};
use crate::pods::{Registry, RegistryError, Slug};

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
    let (mut small, mut told) = (0, [0; 2]);
    for n in 0..60 {
        // Some room, which is used up sooner or later.
        disk.arm(Some(Fault { at: 1 + 10 * n, kind: Kind::Full }));
        let context = format!("round {n}");
        small += u32::from(registry.bump_hits(&[(stored[0], 1)], SystemTime::now()).await.is_ok());
        small += u32::from(registry.delete(&stored[1 + n as usize % 2]).await.is_ok());
        registry.check().await;
        let problem = registry.problem();
        told[usize::from(problem.is_some())] += 1;
        let put = registry.put_pod(pod(&format!("another {n}"))).await;
        assert!(problem.is_some() || put.is_ok(), "{context}: told that there is room, and then {put:?}");
        if put.is_err() {
            assert!(registry.problem().unwrap().contains("cannot be written"), "{context}");
            small += u32::from(registry.bump_hits(&[(stored[0], 1)], SystemTime::now()).await.is_ok());
            assert!(registry.problem().is_some(), "{context}: a hit was written, and no room found");
        }
    }
    assert!(small > 60 && told.iter().all(|rounds| *rounds > 5), "{small} small writes, {told:?}");
    disk.heal();
    registry.check().await;
    assert_eq!(registry.problem(), None);
    registry.put_pod(pod("after")).await.unwrap();
}
