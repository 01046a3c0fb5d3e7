//! Every write of the database fails in turn: what was acknowledged stays, what was refused leaves nothing.
//!
//! Blobs are real files here. That their names outlast a power cut rests on the syncs in `blobs.rs`, which no test
//! in this process can see.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use super::{
    OpenError, RedbRegistry,
    faults::{Disk, EIO, ENOSPC, EROFS, Fault, Kind},
    file::Source,
    schema,
};
use crate::pods::{Registry, RegistryError, Slug, VerifiedPod, signed};

pub fn pod(name: &str) -> VerifiedPod {
    VerifiedPod::verify(signed::Pod::named(name).html().into()).unwrap()
}

/// A directory in memory where there is one: hundreds of lives are lived in such.
pub fn directory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// A disk with an empty registry on it.
pub fn disk() -> Disk {
    let disk = Disk::default();
    schema::create(disk.open().unwrap()).unwrap();
    disk
}

pub fn open(directory: &Path, disk: &Disk) -> Result<RedbRegistry, OpenError> {
    open_from(directory, disk, Source::new(disk.clone(), 0))
}

pub fn open_from(directory: &Path, disk: &Disk, source: Source) -> Result<RedbRegistry, OpenError> {
    disk.with_reserve(directory.join("reserve"));
    RedbRegistry::open_with(directory, &directory.join("registry.redb"), source)
}

/// What lies in the directory of blobs.
pub fn files(directory: &Path) -> BTreeSet<String> {
    let files = fs::read_dir(directory.join("blobs")).unwrap();
    files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect()
}

/// How much lies there.
pub fn bytes_in(directory: &Path) -> u64 {
    let files = fs::read_dir(directory.join("blobs")).unwrap();
    files.map(|file| file.unwrap().metadata().unwrap().len()).sum()
}

/// What a pod has to be after all that happened.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fate {
    /// There, with these hits where writing them did not fail.
    There(Option<u64>),
    Gone,
    /// Deleting it failed, or the power did while it was put: whole or not at all.
    Either,
}

/// What the registry said of each pod.
#[derive(Default)]
pub struct Ledger(pub BTreeMap<Slug, (VerifiedPod, Fate)>);

impl Ledger {
    /// Asks for all that can be asked of a registry; pods that it refuses have the fate `refused`.
    async fn live(
        &mut self,
        registry: &RedbRegistry,
        pods: &[VerifiedPod],
        refused: Fate,
        kind: Option<Kind>,
    ) {
        for pod in &pods[..3] {
            self.put(registry, pod, refused, kind).await;
        }
        let deleted = registry.delete(&pods[1].record().slug).await.inspect_err(|error| fits(error, kind));
        if let Some(Kind::Full | Kind::FullForAll | Kind::Once(ENOSPC)) = kind {
            assert!(deleted.is_ok(), "{kind:?}: the reserve has room for a deletion: {deleted:?}");
        }
        let (_, fate) = self.0.get_mut(&pods[1].record().slug).unwrap();
        match (deleted, *fate) {
            (Ok(true), Fate::There(_) | Fate::Either) | (Ok(false), Fate::Gone) => *fate = Fate::Gone,
            (Err(_), Fate::There(_)) => *fate = Fate::Either,
            (Err(_), _) => {}
            (Ok(there), fate) => panic!("deleting {fate:?} was answered with {there}"),
        }
        let hits = [0, 2].map(|n| (pods[n].record().slug, 5 + n as u64));
        let counted = registry
            .bump_hits(&hits, std::time::SystemTime::now())
            .await
            .inspect_err(|error| fits(error, kind));
        for (slug, hits) in hits {
            if let (_, Fate::There(known)) = self.0.get_mut(&slug).unwrap() {
                *known = counted.is_ok().then_some(hits);
            }
        }
        self.put(registry, &pods[3], refused, kind).await;
    }

    async fn put(
        &mut self,
        registry: &RedbRegistry,
        pod: &VerifiedPod,
        refused: Fate,
        kind: Option<Kind>,
    ) -> bool {
        let put = registry.put_pod(pod.clone()).await.inspect_err(|error| fits(error, kind));
        let fate = if put.is_ok() { Fate::There(Some(0)) } else { refused };
        self.0.insert(pod.record().slug, (pod.clone(), fate));
        put.is_ok()
    }

    /// Every pod that was acknowledged is there.
    async fn served(&self, registry: &RedbRegistry, context: &str) {
        for (slug, (_, fate)) in &self.0 {
            if let Fate::There(hits) = fate {
                assert!(
                    registry.get_blob(slug).await.unwrap().is_some(),
                    "{context}: an acknowledged pod is lost"
                );
                let record = registry.get_record(slug).await.unwrap();
                assert!(hits.is_none_or(|hits| record.unwrap().hits == hits), "{context}: hits are lost");
            }
        }
    }

    /// Every pod is as its fate wants it, and there is no blob but theirs.
    pub async fn check(&self, registry: &RedbRegistry, directory: &Path, context: &str) {
        let mut digests = BTreeSet::new();
        for record in registry.list(None, usize::MAX).await.unwrap() {
            let (pod, fate) = &self.0[&record.slug];
            assert_ne!(*fate, Fate::Gone, "{context}: a pod that was refused or deleted is there");
            let blob = registry.get_blob(&record.slug).await.unwrap().unwrap();
            assert_eq!(blob.read().await.unwrap(), pod.blob(), "{context}");
            assert_eq!(record.digest, pod.record().digest, "{context}");
            digests.insert(record.digest.to_string());
        }
        self.served(registry, context).await;
        let usage = registry.usage(None).await.unwrap();
        assert_eq!(usage.bytes, bytes_in(directory), "{context}: the bytes are not those on disk");
        assert_eq!(usage.pods, registry.list(None, usize::MAX).await.unwrap().len() as u64, "{context}");
        assert_eq!(digests, files(directory), "{context}: the files are not those of the pods");
    }
}

/// The upload is answered with 507 where there is no room, and with 500 otherwise.
fn fits(error: &RegistryError, kind: Option<Kind>) {
    let full = matches!(error, RegistryError::Full(_));
    match kind {
        Some(Kind::Full | Kind::FullForAll | Kind::Once(ENOSPC) | Kind::Every(ENOSPC)) => {
            assert!(full, "{error:?}")
        }
        Some(Kind::Once(_) | Kind::Every(_) | Kind::Torn) => assert!(!full, "{error:?}"),
        None => panic!("{error:?}"),
    }
}

/// One registry from its opening to its closing, with one fault; the number of operations, and whether it came.
async fn life(pods: &[VerifiedPod], fault: Option<Fault>, luck: u64) -> (u64, bool) {
    let context = format!("{fault:?}, luck {luck}");
    let kind = fault.map(|fault| fault.kind);
    let torn = matches!(kind, Some(Kind::Torn));
    let refused = if torn { Fate::Either } else { Fate::Gone };
    let (directory, disk, mut ledger) = (directory(), disk(), Ledger::default());
    disk.arm(fault);
    let registry = open(directory.path(), &disk).or_else(|error| {
        assert!(disk.fired(), "{context}: {error}");
        assert!(
            matches!(error, OpenError::Directory { .. }),
            "{context}: that is not the file's fault: {error}"
        );
        disk.heal();
        if torn {
            disk.reboot(luck);
        }
        open(directory.path(), &disk)
    });
    let registry = registry.unwrap_or_else(|error| panic!("{context}: {error}"));
    ledger.live(&registry, pods, refused, kind).await;
    // Reads do not depend on writes.
    if matches!(kind, Some(Kind::Full | Kind::FullForAll | Kind::Every(_))) {
        ledger.served(&registry, &format!("{context}, still broken")).await;
        if matches!(kind, Some(Kind::Every(_))) {
            // The fault may have come after the last commit was safe: it takes one more write to see it.
            let hits = [(pods[0].record().slug, 0)];
            let written = registry.bump_hits(&hits, std::time::SystemTime::now()).await;
            assert_eq!(written.is_err(), disk.is_failing(), "{context}");
            registry.check().await;
            assert_eq!(registry.problem().is_some(), written.is_err(), "{context}");
            ledger.served(&registry, &format!("{context}, still broken after a check")).await;
        }
    }
    if disk.fired() && !torn {
        disk.heal();
        ledger.served(&registry, &format!("{context}, healed")).await;
        registry.check().await;
        assert_eq!(registry.problem(), None, "{context}");
    }
    // Without a new start; if the fault comes only now, at the second attempt.
    if !ledger.put(&registry, &pods[4], refused, kind).await && !torn {
        assert!(disk.fired(), "{context}");
        disk.heal();
        assert!(
            ledger.put(&registry, &pods[4], refused, kind).await,
            "{context}: no upload after it was healed"
        );
    }
    if !torn {
        ledger.check(&registry, directory.path(), &format!("{context}, at the end")).await;
    }
    // Closing may fail: the next opening sees to it.
    let _ = registry.close().await;
    let (operations, fired) = (disk.operations(), disk.fired());
    disk.heal();
    if torn {
        disk.reboot(luck);
    }
    let registry =
        open(directory.path(), &disk).unwrap_or_else(|error| panic!("{context}: opening again: {error}"));
    ledger.check(&registry, directory.path(), &format!("{context}, opened again")).await;
    assert!(ledger.put(&registry, &pods[5], refused, None).await, "{context}");
    ledger.check(&registry, directory.path(), &format!("{context}, opened again and written")).await;
    (operations, fired)
}

/// As many lives as there are operations in one without a fault; the fault comes at another one each time.
async fn lives(kind: Kind, luck: u64) {
    let pods = ["a", "b", "c", "d", "e", "f"].map(pod);
    let (operations, _) = life(&pods, None, 0).await;
    assert!(operations > 50, "only {operations} operations");
    let mut faults = 0;
    for at in 1..=operations {
        let (_, fired) = life(&pods, Some(Fault { at, kind }), luck).await;
        faults += u64::from(fired);
    }
    println!("{kind:?}, luck {luck}: {faults} faults at {operations} operations");
    assert!(faults > operations / 2, "{kind:?} came only {faults} times");
}

#[tokio::test]
async fn any_write_that_fails_once_is_survived() {
    lives(Kind::Once(EIO), 0).await;
    lives(Kind::Once(ENOSPC), 0).await;
}

#[tokio::test]
async fn a_disk_that_breaks_or_fills_at_any_write_is_survived() {
    for error in [EIO, EROFS] {
        lives(Kind::Every(error), 0).await;
    }
    lives(Kind::Full, 0).await;
    lives(Kind::FullForAll, 0).await;
}

#[tokio::test]
async fn a_power_cut_in_any_write_is_survived() {
    for luck in 0..6 {
        lives(Kind::Torn, luck).await;
    }
}
