//! Any page of a small registry is damaged, while it is closed and while it is open: nothing panics, nothing wrong is
//! served after a start, and what is acknowledged is there.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::{Duration, UNIX_EPOCH},
};

use ed25519_dalek::SigningKey;
use redb::TableDefinition;

use super::{
    OpenError, RedbRegistry,
    faults::{EROFS, Fault, Kind},
    lives::{directory, disk, open, pod},
    schema,
};
use crate::pods::{OwnerKey, PodIdChange, PodRecord, Registry, Slug, Usage, VerifiedPod, signed::Pod};

const PAGE: usize = 4096;
const OWNERS: u8 = 3;

#[derive(Clone, Copy, Debug)]
enum Damage {
    Zeros,
    /// Every bit of some bytes.
    Flipped,
    /// The page at the same place of another registry.
    Foreign,
}

fn damage(page: &mut [u8], kind: Damage, other: &[u8]) {
    match kind {
        Damage::Zeros => page.fill(0),
        Damage::Flipped => page.iter_mut().skip(5).step_by(97).for_each(|byte| *byte = !*byte),
        Damage::Foreign => page.copy_from_slice(other),
    }
}

fn owned(owner: u8, n: usize) -> VerifiedPod {
    let key = SigningKey::from_bytes(&[owner + 1; 32]);
    let pod = VerifiedPod::verify(Pod::signed_by(key, &format!("pod {n}")).html().into()).unwrap();
    let pod = pod.at(UNIX_EPOCH + Duration::from_secs(1_700_000_000 + n as u64));
    if n.is_multiple_of(3) { pod.with_lifetime(Duration::from_secs(1_000_000_000)) } else { pod }
}

/// What a registry holds, as far as it can be asked.
#[derive(Debug, PartialEq)]
struct Contents {
    pods: BTreeMap<Slug, (PodRecord, Vec<u8>)>,
    owned: Vec<Vec<Slug>>,
    usage: Vec<Usage>,
    pod_id: String,
}

async fn contents(registry: &RedbRegistry) -> Contents {
    let mut pods = BTreeMap::new();
    for record in registry.list(None, usize::MAX).await.unwrap() {
        let (same, blob) = registry.get_pod(&record.slug).await.unwrap().unwrap();
        assert_eq!(same, record);
        pods.insert(record.slug, (record, blob.read().await.unwrap().to_vec()));
    }
    let keys: Vec<_> = (0..OWNERS).map(|owner| self::owned(owner, 0).record().owner_key).collect();
    let (mut owned, mut usage) = (Vec::new(), vec![registry.usage(None).await.unwrap()]);
    for key in &keys {
        let records = registry.list_owned(key, None, usize::MAX).await.unwrap();
        owned.push(records.iter().map(|record| record.slug).collect());
        usage.push(registry.usage(Some(key)).await.unwrap());
    }
    let pod_id = format!("{:?}", registry.pod_id("pod").await.unwrap());
    Contents { pods, owned, usage, pod_id }
}

/// Fills a registry with a bit of everything.
async fn fill(registry: &RedbRegistry, pods: usize) {
    for n in 0..pods {
        let pod = owned(n as u8 % OWNERS, n);
        let slug = pod.record().slug;
        registry.put_pod(pod).await.unwrap();
        registry
            .bump_hits(&[(slug, n as u64)], UNIX_EPOCH + Duration::from_secs(1_800_000_000))
            .await
            .unwrap();
        if n.is_multiple_of(10) {
            registry.delete(&slug).await.unwrap();
        }
    }
    let change = PodIdChange::Registered { proof: Some(OwnerKey([1; 32])), network: None };
    registry.change_pod_ids(vec![("pod".into(), change)]).await.unwrap();
}

/// A closed registry of that many pods.
async fn template(pods: usize) -> (tempfile::TempDir, Contents) {
    let directory = directory();
    let registry = RedbRegistry::open(directory.path()).unwrap();
    fill(&registry, pods).await;
    let contents = contents(&registry).await;
    registry.close().await.unwrap();
    (directory, contents)
}

/// A data directory with this registry and the blobs of `template`.
fn copy(template: &Path, registry: &[u8]) -> tempfile::TempDir {
    let copy = directory();
    fs::create_dir(copy.path().join("blobs")).unwrap();
    for blob in blobs(template) {
        fs::hard_link(&blob, copy.path().join("blobs").join(blob.file_name().unwrap())).unwrap();
    }
    fs::write(copy.path().join("registry.redb"), registry).unwrap();
    copy
}

fn blobs(directory: &Path) -> Vec<PathBuf> {
    fs::read_dir(directory.join("blobs")).unwrap().map(|entry| entry.unwrap().path()).collect()
}

#[tokio::test]
async fn a_registry_with_any_page_damaged_is_refused_or_right() {
    let (template, truth) = template(40).await;
    let (other, _) = self::template(70).await;
    let [whole, other] =
        [&template, &other].map(|directory| fs::read(directory.path().join("registry.redb")).unwrap());
    let (mut refused, mut right) = (0, 0);
    for at in (0..whole.len()).step_by(PAGE) {
        for kind in [Damage::Zeros, Damage::Flipped, Damage::Foreign] {
            let mut bytes = whole.clone();
            let foreign = other.get(at..at + PAGE).unwrap_or(&[0; PAGE]);
            damage(&mut bytes[at..at + PAGE], kind, foreign);
            if bytes == whole {
                continue;
            }
            let context = format!("{kind:?} at {at}");
            let copy = copy(template.path(), &bytes);
            match RedbRegistry::open(copy.path()) {
                Err(error) => {
                    refused += 1;
                    assert!(
                        matches!(error, OpenError::Unreadable { .. } | OpenError::Newer { .. }),
                        "{context}: {error:?}"
                    );
                    assert_eq!(blobs(copy.path()).len(), blobs(template.path()).len(), "{context}");
                    let after = fs::read(copy.path().join("registry.redb")).unwrap();
                    assert!(after == bytes, "{context}: the file was changed");
                }
                Ok(registry) => {
                    right += 1;
                    assert_eq!(contents(&registry).await, truth, "{context}");
                    goes_on(&registry, copy.path(), &context).await;
                }
            }
        }
    }
    println!("{refused} damaged registries were refused, {right} were right");
    assert!(refused > 30 && right > 30, "{refused} refused, {right} right");
}

/// What is written now is there, and after a restart too.
async fn goes_on(registry: &RedbRegistry, directory: &Path, context: &str) {
    let new = owned(1, 1000);
    let gone = registry.list(None, 1).await.unwrap()[0].slug;
    registry.put_pod(new.clone()).await.unwrap_or_else(|error| panic!("{context}: {error}"));
    assert!(registry.delete(&gone).await.unwrap(), "{context}");
    let before = contents(registry).await;
    assert!(before.pods.contains_key(&new.record().slug) && !before.pods.contains_key(&gone), "{context}");
    registry.close().await.unwrap();
    let registry = RedbRegistry::open(directory).unwrap_or_else(|error| panic!("{context}: {error}"));
    assert_eq!(contents(&registry).await, before, "{context}");
    registry.close().await.unwrap();
}

/// Nothing panics, nothing wrong is read, the writer lives on, and what it acknowledged is read again.
#[tokio::test]
async fn a_page_that_is_damaged_while_the_registry_is_open_is_an_error() {
    let template = disk();
    {
        let directory = directory();
        let registry = open(directory.path(), &template).unwrap();
        fill(&registry, 40).await;
        registry.close().await.unwrap();
    }
    let mut whole = Vec::new();
    template.damage(|bytes| whole.clone_from(bytes));
    let (mut failed, mut fine) = (0, 0);
    for at in (0..whole.len()).step_by(PAGE) {
        for kind in [Damage::Zeros, Damage::Flipped] {
            let context = format!("{kind:?} at {at}");
            let (directory, disk) = (directory(), disk());
            disk.damage(|bytes| bytes.clone_from(&whole));
            let registry = open(directory.path(), &disk).unwrap();
            let (records, usage) =
                (registry.list(None, usize::MAX).await.unwrap(), registry.usage(None).await.unwrap());
            disk.damage(|bytes| {
                if let Some(page) = bytes.get_mut(at..at + PAGE) {
                    damage(page, kind, &[]);
                }
            });
            for _ in 0..2 {
                let (listed, used) = (registry.list(None, usize::MAX).await, registry.usage(None).await);
                assert!(listed.is_err() || listed.unwrap() == records, "{context}");
                assert!(used.is_err() || used.unwrap() == usage, "{context}");
                assert_eq!(registry.get_record(&Slug::random()).await.unwrap_or_default(), None, "{context}");
            }
            let put = registry.put_pod(pod("new")).await;
            for n in 0..3 {
                let another = pod(&format!("another {n}"));
                let slug = another.record().slug;
                match registry.put_pod(another).await {
                    Ok(()) => assert!(registry.get_pod(&slug).await.unwrap().is_some(), "{context}"),
                    Err(error) => {
                        assert!(registry.problem().is_some(), "{context}: {error}");
                        assert!(!error.to_string().contains("closed"), "{context}: the writer is gone");
                    }
                }
            }
            registry.check().await;
            match put {
                Ok(()) => fine += 1,
                Err(_) => failed += 1,
            }
            registry.close().await.unwrap_or_else(|error| panic!("{context}: {error}"));
        }
    }
    println!("{failed} damaged registries refused to write, {fine} wrote");
    assert!(failed > 10 && fine > 10, "{failed} failed, {fine} went on");
}

/// Whoever asks for a damaged pod again and again costs nobody else their pods, nor any opening.
#[tokio::test]
async fn a_page_that_is_damaged_costs_no_opening_for_each_read() {
    let (whole, records) = {
        let (directory, disk) = (directory(), disk());
        let registry = open(directory.path(), &disk).unwrap();
        fill(&registry, 100).await;
        let records = registry.list(None, usize::MAX).await.unwrap();
        registry.close().await.unwrap();
        let mut whole = Vec::new();
        disk.damage(|bytes| whole.clone_from(bytes));
        (whole, records)
    };
    let (lost, kept) = (records.first().unwrap(), records.last().unwrap());
    let mut damaged = 0;
    for at in (0..whole.len()).step_by(PAGE) {
        let (directory, disk) = (directory(), disk());
        disk.damage(|bytes| bytes.clone_from(&whole));
        let registry = open(directory.path(), &disk).unwrap();
        // It is read from a snapshot from now on.
        disk.arm(Some(Fault { at: 1, kind: Kind::Every(EROFS) }));
        registry.bump_hits(&[(kept.slug, 1)], UNIX_EPOCH).await.unwrap_err();
        disk.damage(|bytes| bytes.get_mut(at..at + PAGE).into_iter().for_each(|page| page.fill(0)));
        let is_lost = registry.get_record(&lost.slug).await.is_err();
        if is_lost && registry.get_record(&kept.slug).await.is_ok() {
            damaged += 1;
            let openings = disk.openings();
            for _ in 0..20 {
                registry.get_record(&lost.slug).await.unwrap_err();
                assert!(registry.get_record(&kept.slug).await.unwrap().is_some());
            }
            assert_eq!(disk.openings(), openings, "the registry was opened again");
        }
        registry.close().await.unwrap();
    }
    assert!(damaged > 0, "no page was that of one pod and not of the other");
}

/// Of damage that is no I/O error redb knows nothing, and would write when it is dropped.
#[tokio::test]
async fn a_registry_that_was_found_damaged_is_written_by_nobody() {
    let (directory, disk) = (directory(), disk());
    let registry = open(directory.path(), &disk).unwrap();
    fill(&registry, 12).await;
    let lost = registry.list(None, 1).await.unwrap().remove(0);
    let lose = |database: &redb::Database| {
        let txn = schema::begin(database)?;
        txn.open_table(TableDefinition::<&str, &[u8]>::new("pods"))?.remove(lost.slug.as_str())?;
        Ok(txn.commit()?)
    };
    registry.store.write(lose).unwrap();
    // Without a cache, redb writes pages that it still has when it needs room for those that are read.
    registry.list(None, usize::MAX).await.unwrap();
    disk.arm(None);
    let error = registry.list_owned(&lost.owner_key, None, usize::MAX).await.unwrap_err();
    assert!(error.to_string().contains("has no record"), "{error}");
    assert!(registry.problem().unwrap().contains("the registry is damaged"));
    registry.put_pod(pod("new")).await.unwrap_err();
    let left = registry.list(None, usize::MAX).await.unwrap();
    assert!(left.len() > 5 && !left.contains(&lost), "the others are served");
    registry.check().await;
    registry.close().await.unwrap();
    assert_eq!(disk.operations(), 0, "the file was written");
}
