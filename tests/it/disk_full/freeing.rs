//! What gives room, or takes rights away, works on a disk that is full to the last byte.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use futures_util::{StreamExt, stream};
use gemmapod_signal::{
    Credential, CredentialLimits, Digest, OwnerKey, PodIdChange, PodIdRecord, PodRecord, RedbRegistry,
    Registry, RegistryError, VerifiedPod,
};

use crate::support::{mount::Tmpfs, pod::Pod};

pub const LIMITS: CredentialLimits = CredentialLimits { per_key: 1000, total: 1000 };
const KEY: OwnerKey = OwnerKey([7; 32]);
/// Pod ids that were registered to fill a database.
static FILLED: AtomicUsize = AtomicUsize::new(0);

pub fn verified(name: usize, padding: usize) -> VerifiedPod {
    let html = Pod::named(&name.to_string()).padded(padding).html();
    VerifiedPod::verify(html.into()).unwrap()
}

pub fn open(disk: &Tmpfs) -> RedbRegistry {
    RedbRegistry::open(&disk.path().join("data")).unwrap()
}

pub fn credential(n: u32) -> Credential {
    let mut hash = [0; 32];
    hash[..4].copy_from_slice(&n.to_be_bytes());
    let (name, secret_hash) = (format!("host-{n}").parse().unwrap(), Digest(hash));
    Credential { owner_key: KEY, name, secret_hash, pod_ids: None, created_at: SystemTime::UNIX_EPOCH }
}

pub fn registered(pod_id: String, proof: Option<OwnerKey>) -> (String, PodIdChange) {
    (pod_id, PodIdChange::Registered { proof, network: None })
}

/// Stores `pods` small pods.
pub async fn store(registry: &RedbRegistry, pods: usize) -> Vec<PodRecord> {
    let mut records = Vec::new();
    for n in 0..pods {
        let pod = verified(n, 10);
        records.push(pod.record().clone());
        registry.put_pod(pod).await.unwrap();
    }
    records
}

/// Fills the disk, and the pages that the database has to spare.
pub async fn fill(disk: &Tmpfs, registry: &RedbRegistry) {
    for at_a_time in [200, 1] {
        loop {
            disk.fill();
            let changes = (0..at_a_time).map(|_| {
                let pod_id = PodIdChange::Registered { proof: None, network: None };
                (format!("filler-{}", FILLED.fetch_add(1, Ordering::Relaxed)), pod_id)
            });
            match registry.change_pod_ids(changes.collect()).await {
                Ok(_) => {}
                Err(RegistryError::Full(_)) => break,
                Err(error) => panic!("{error}"),
            }
        }
    }
    disk.fill();
}

pub async fn assert_full(registry: &RedbRegistry, context: &str) {
    for padding in [0, 100_000] {
        let put = registry.put_pod(verified(0, padding)).await;
        assert!(matches!(put, Err(RegistryError::Full(_))), "{context}: {put:?}");
    }
    registry.check().await;
    let problem = registry.problem().unwrap_or_else(|| panic!("{context}: no problem is told"));
    assert!(problem.contains("No space left on device"), "{context}: {problem}");
}

/// A change that frees something, or without which unused pod ids would not become free or no owner could free anything.
#[derive(Clone, Copy, Debug)]
enum Freeing {
    Accept,
    Ran,
    Hold,
    Delete,
    DeleteVersion,
    DeleteVersions,
    Revoke,
    Release,
    Unbind,
    IgnoreUpload,
    Expire,
    ExpireMany,
}

impl Freeing {
    const ALL: [Self; 12] = [
        Self::Accept,
        Self::Ran,
        Self::Hold,
        Self::Delete,
        Self::DeleteVersion,
        Self::DeleteVersions,
        Self::Revoke,
        Self::Release,
        Self::Unbind,
        Self::IgnoreUpload,
        Self::Expire,
        Self::ExpireMany,
    ];

    /// Makes what each of them frees.
    async fn prepare(registry: &RedbRegistry) {
        for n in 0..3 {
            registry.add_credential(credential(n), LIMITS).await.unwrap();
        }
        let mut changes = vec![
            registered("released".into(), Some(KEY)),
            registered("unbound".into(), Some(KEY)),
            ("uploaded".into(), PodIdChange::Uploaded { key: KEY }),
            registered("unused".into(), None),
        ];
        for kind in ["unused", "held"] {
            changes.extend((0..500).map(|n| registered(format!("{kind}-{n}"), None)));
        }
        let changed = registry.change_pod_ids(changes).await.unwrap();
        assert!(changed.iter().all(Result::is_ok));
        registry.pod_ids_ran(Duration::from_hours(40 * 24)).await.unwrap();
    }

    /// Makes the change, and looks whether it is made.
    async fn make(self, registry: &RedbRegistry, pods: &mut Vec<PodRecord>) {
        let free = async |change, pod_ids: Vec<String>| {
            let changes = pod_ids.iter().map(|pod_id| (pod_id.clone(), change)).collect();
            let changed = registry.change_pod_ids(changes).await.unwrap();
            assert_eq!(changed, vec![Ok(None); pod_ids.len()], "{self:?}");
            for pod_id in pod_ids {
                assert_eq!(registry.pod_id(&pod_id).await.unwrap(), None);
            }
        };
        match self {
            Self::Accept => {
                let time = registry.acceptance_time() + Duration::from_secs(10);
                registry.keep_acceptance_time(time).await.unwrap();
                assert_eq!(registry.acceptance_time(), time);
            }
            // Once, whatever the first attempt came to.
            Self::Ran => assert_eq!(registry.pod_ids_ran(Duration::from_hours(24)).await.unwrap(), 41),
            Self::Hold => {
                let held: Vec<_> = (0..500).map(|n| (format!("held-{n}"), PodIdChange::Held)).collect();
                for (pod_id, _) in &held {
                    assert_eq!(registry.pod_id(pod_id).await.unwrap().unwrap().last_used, 0, "{pod_id}");
                }
                let changed = registry.change_pod_ids(held).await.unwrap();
                let is_used = |record: PodIdRecord| (40..=41).contains(&record.last_used);
                assert!(changed.iter().all(|record| record.unwrap().is_some_and(is_used)), "{changed:?}");
            }
            Self::Delete => {
                let pod = pods.pop().unwrap();
                assert!(registry.delete(&pod.slug).await.unwrap());
                assert!(registry.get_pod(&pod.slug).await.unwrap().is_none());
            }
            Self::DeleteVersion => assert!(registry.delete_version(&pods.pop().unwrap()).await.unwrap()),
            Self::DeleteVersions => {
                let doomed = pods.split_off(pods.len() / 2);
                assert_eq!(registry.delete_versions(&doomed).await.unwrap(), vec![true; doomed.len()]);
                assert_eq!(registry.delete_versions(&doomed).await.unwrap(), vec![false; doomed.len()]);
            }
            Self::Revoke => {
                let Credential { name, secret_hash, .. } = credential(1);
                let revoked = registry.revoke_credential(&KEY, &name).await.unwrap();
                assert_eq!(revoked, Some(credential(1)));
                assert_eq!(registry.credential(&secret_hash).await.unwrap(), None);
            }
            Self::Release => free(PodIdChange::Released { key: KEY }, vec!["released".into()]).await,
            Self::Unbind => free(PodIdChange::Unbound, vec!["unbound".into()]).await,
            Self::IgnoreUpload => free(PodIdChange::UploadIgnored, vec!["uploaded".into()]).await,
            Self::Expire => free(PodIdChange::Expired, vec!["unused".into()]).await,
            Self::ExpireMany => {
                free(PodIdChange::Expired, (0..500).map(|n| format!("unused-{n}")).collect()).await;
            }
        }
    }
}

/// Whatever size the database has, and so whether or not it has pages to spare.
#[tokio::test]
async fn each_change_that_frees_something_is_made_on_a_full_disk() {
    const TEST: &str = "each_change_that_frees_something_is_made_on_a_full_disk";
    for (round, pods) in
        [4, 5, 7, 10, 14, 20, 28, 40, 57, 80, 113, 160, 226, 320, 453, 640].into_iter().enumerate()
    {
        let Some(disk) = Tmpfs::mount(TEST, 16 << 20) else { return };
        let registry = open(&disk);
        Freeing::prepare(&registry).await;
        let mut pods = store(&registry, pods).await;
        // Each is the first one once in a while, which has no room that another one left.
        for n in 0..Freeing::ALL.len() {
            let freeing = Freeing::ALL[(round + n) % Freeing::ALL.len()];
            let context = format!("{freeing:?} after {n} others, {} pods", pods.len());
            fill(&disk, &registry).await;
            assert_full(&registry, &context).await;
            fill(&disk, &registry).await;
            freeing.make(&registry, &mut pods).await;
            // What became free is the reserve's, unless that is whole.
            disk.fill();
            assert_full(&registry, &context).await;
        }
        let left: Vec<_> = registry.list(None, 1000).await.unwrap();
        assert_eq!(left.len(), pods.len());
        fs::remove_file(disk.path().join("filler")).unwrap();
        registry.check().await;
        assert_eq!(registry.problem(), None);
        registry.put_pod(verified(0, 100_000)).await.unwrap();
        registry.close().await.unwrap();
        let registry = open(&disk);
        assert_eq!(registry.list(None, 1000).await.unwrap().len(), pods.len() + 1);
    }
}

#[tokio::test]
async fn as_many_pods_as_the_janitor_deletes_at_a_time_are_deleted_on_a_full_disk() {
    const TEST: &str = "as_many_pods_as_the_janitor_deletes_at_a_time_are_deleted_on_a_full_disk";
    let Some(disk) = Tmpfs::mount(TEST, 64 << 20) else { return };
    let registry = open(&disk);
    // So many that the records of those that go lie on more pages than the reserve has.
    let pods: Vec<PodRecord> = stream::iter((0..60).map(|_| store(&registry, 100)))
        .buffer_unordered(60)
        .flat_map(stream::iter)
        .collect()
        .await;
    fill(&disk, &registry).await;
    assert_full(&registry, "before").await;
    assert_eq!(registry.delete_versions(&pods[..1024]).await.unwrap(), vec![true; 1024]);
    fill(&disk, &registry).await;
    assert_eq!(registry.delete_versions(&pods[1024..]).await.unwrap(), vec![true; 6000 - 1024]);
    assert_eq!(registry.usage(None).await.unwrap().pods, 0);
}

/// Another program takes each byte that becomes free, for as long as there is a pod.
#[tokio::test]
async fn one_deletion_after_the_other_finds_room_where_others_take_all_of_it() {
    const TEST: &str = "one_deletion_after_the_other_finds_room_where_others_take_all_of_it";
    let Some(disk) = Tmpfs::mount(TEST, 16 << 20) else { return };
    let registry = open(&disk);
    for (n, pod) in store(&registry, 600).await.into_iter().enumerate() {
        if n % 10 == 0 {
            fill(&disk, &registry).await;
            assert_full(&registry, &format!("pod {n}")).await;
        }
        disk.fill();
        assert!(registry.delete(&pod.slug).await.unwrap(), "pod {n}");
    }
    assert_eq!(registry.usage(None).await.unwrap().pods, 0);
}

/// Large uploads and looks at the registry come all the time, and write until the disk is full.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn uploads_do_not_take_the_room_of_a_deletion() {
    const TEST: &str = "uploads_do_not_take_the_room_of_a_deletion";
    let Some(disk) = Tmpfs::mount(TEST, 16 << 20) else { return };
    let registry = Arc::new(open(&disk));
    let pods = store(&registry, 200).await;
    fill(&disk, &registry).await;
    let stop = Arc::new(AtomicBool::new(false));
    let looks = tokio::spawn({
        let (registry, stop) = (registry.clone(), stop.clone());
        async move {
            while !stop.load(Ordering::Relaxed) {
                registry.check().await;
            }
        }
    });
    // Of sizes that fill the reserve together.
    let uploads: Vec<_> = [1_000_000, 500_000, 250_000, 120_000, 60_000, 30_000, 15_000, 5000]
        .map(|size| {
            let (registry, stop, pod) = (registry.clone(), stop.clone(), verified(0, size));
            tokio::spawn(async move {
                let mut refused = 0;
                while !stop.load(Ordering::Relaxed) {
                    match registry.put_pod(pod.clone()).await {
                        Err(RegistryError::Full(_)) => refused += 1,
                        Err(error) => panic!("{error}"),
                        // A small one had room for a moment.
                        Ok(()) => {}
                    }
                }
                refused
            })
        })
        .into();
    for pod in pods {
        fill(&disk, &registry).await;
        let deleted = registry.delete(&pod.slug).await;
        assert!(matches!(deleted, Ok(true)), "{deleted:?}");
    }
    stop.store(true, Ordering::Relaxed);
    looks.await.unwrap();
    for uploads in uploads {
        assert!(uploads.await.unwrap() > 0);
    }
}

#[tokio::test]
async fn deleting_makes_room_on_a_full_disk() {
    let Some(disk) = Tmpfs::mount("deleting_makes_room_on_a_full_disk", 8 << 20) else { return };
    let registry = open(&disk);
    let mut stored = Vec::new();
    // Small pods too, so that the database is of some size.
    for n in 0.. {
        let pod = verified(n, if n < 200 { 10 } else { 700_000 });
        let slug = pod.record().slug;
        match registry.put_pod(pod).await {
            Ok(()) => stored.push(slug),
            Err(RegistryError::Full(_)) => break,
            Err(error) => panic!("{error}"),
        }
    }
    fill(&disk, &registry).await;
    assert_full(&registry, "before").await;
    fill(&disk, &registry).await;
    assert!(registry.delete(stored.last().unwrap()).await.unwrap());
    registry.put_pod(verified(0, 100_000)).await.unwrap();
}
