use std::time::UNIX_EPOCH;

use async_trait::async_trait;

use super::*;
use crate::pods::{Blob, MemoryRegistry, Usage, VerifiedPod, signed};

const HOUR: Duration = Duration::from_hours(1);
const YEAR: Duration = Duration::from_hours(365 * 24);

#[tokio::test]
async fn a_clock_that_is_set_forward_deletes_nothing_for_a_while() {
    let registry = MemoryRegistry::new(1 << 20);
    let pod = VerifiedPod::verify(signed::Pod::named("p").html().into()).unwrap();
    let came = UNIX_EPOCH + YEAR;
    registry.put_pod(pod.at(came)).await.unwrap();
    let (janitor, rules) =
        (Janitor::default(), JanitorRules { grace: HOUR, unused_for: Some(24 * HOUR), water: None });
    let round = async |hours: u32, ahead: Duration| {
        let running = hours * HOUR;
        let now = Moment { date: came + running + ahead, running };
        janitor.round(&registry, &rules, now, false).await.unwrap()
    };
    for hours in 0..10 {
        assert_eq!(round(hours, Duration::ZERO).await.deleted(), 0);
    }
    assert_eq!(round(10, YEAR).await.deleted(), 0, "the step is noticed");
    // A step back lets nothing look older than it is.
    assert_eq!(round(10, Duration::ZERO).await.deleted(), 0);
    assert_eq!(round(11, YEAR).await.deleted(), 0, "so is the next");
    let report = round(12, YEAR).await;
    assert_eq!((report.unused, report.left), (1, Usage::default()), "the operator had an hour to notice");
}

#[tokio::test]
async fn those_that_were_not_used_for_longest_go_first() {
    let registry = MemoryRegistry::new(1 << 20);
    let (mut slugs, mut sizes) = (Vec::new(), Vec::new());
    for hours in 0..4 {
        let pod = VerifiedPod::verify(signed::Pod::named("p").html().into()).unwrap();
        let pod = pod.at(UNIX_EPOCH + hours * HOUR);
        slugs.push(pod.record().slug);
        sizes.push(pod.record().blob_size);
        registry.put_pod(pod).await.unwrap();
    }
    let (all, kept) = (sizes.iter().sum::<u64>(), sizes[0] + sizes[3]);
    registry.bump_hits(&[(slugs[0], 1)], UNIX_EPOCH + 9 * HOUR).await.unwrap();
    let rules = JanitorRules { grace: HOUR, unused_for: None, water: Some((all - 1, kept)) };
    let report = Janitor::round_by_dates(&registry, &rules, UNIX_EPOCH + 24 * HOUR, false).await.unwrap();
    assert_eq!((report.for_room, report.left.bytes), (2, kept));
    let left: Vec<_> = registry.list(None, 9).await.unwrap().iter().map(|record| record.slug).collect();
    let mut expected = vec![slugs[0], slugs[3]];
    expected.sort();
    assert_eq!(left, expected);
}

/// Keeps a pod that came so many hours after the epoch.
async fn keep(registry: &MemoryRegistry, hours: u32, signed: bool) -> PodRecord {
    let pod = VerifiedPod::verify(signed::Pod::named("p").html().into()).unwrap();
    let owner_key = pod.record().owner_key;
    let pod = if signed { pod.signed_by(owner_key).unwrap() } else { pod };
    let pod = pod.at(UNIX_EPOCH + hours * HOUR);
    let record = pod.record().clone();
    registry.put_pod(pod).await.unwrap();
    record
}

fn bytes(records: &[PodRecord]) -> u64 {
    records.iter().map(|record| record.blob_size).sum()
}

/// Whatever comes within the grace time, and while the janitor works: it pays for itself.
#[tokio::test]
async fn a_flood_of_new_pods_deletes_none_of_the_others() {
    for signed in [false, true] {
        let registry = Flooded { inner: MemoryRegistry::new(1 << 24), date: UNIX_EPOCH + 99 * HOUR };
        let mut old = Vec::new();
        for hours in 0..8 {
            old.push(keep(&registry.inner, hours, false).await);
        }
        for _ in 0..100 {
            keep(&registry.inner, 98, signed).await;
        }
        let round = async |high, low, hours: u32| {
            let rules = JanitorRules { grace: 24 * HOUR, unused_for: None, water: Some((high, low)) };
            Janitor::round_by_dates(&registry, &rules, UNIX_EPOCH + hours * HOUR, false).await.unwrap()
        };
        let report = round(bytes(&old), 0, 99).await;
        assert_eq!((report.for_room, report.left.pods), (0, 108), "signed: {signed}");
        // The others make room among themselves: as much as without the flood.
        let report = round(bytes(&old) - 1, bytes(&old[5..]), 99).await;
        assert_eq!(report.for_room, 5, "signed: {signed}");
        for (n, record) in old.iter().enumerate() {
            let is_left = registry.get_record(&record.slug).await.unwrap().is_some();
            assert_eq!(is_left, n >= 5, "the one of hour {n}");
        }
        // Its own time comes.
        let report = round(bytes(&old), bytes(&old), 98 + 24).await;
        assert!(report.for_room >= 95 && report.left.bytes <= bytes(&old) + 5_000, "{report}");
    }
}

/// Copies take no room, and do not hide what others take either.
#[tokio::test]
async fn pods_of_the_same_bytes_count_once_and_young_copies_not_at_all() {
    let registry = MemoryRegistry::new(1 << 24);
    let html = signed::Pod::named("p").html();
    let pod = |hours: u32| {
        let pod = VerifiedPod::verify(html.clone().into()).unwrap();
        pod.at(UNIX_EPOCH + hours * HOUR)
    };
    for hours in [0, 1, 98] {
        registry.put_pod(pod(hours)).await.unwrap();
    }
    let other = keep(&registry, 2, false).await;
    let size = html.len() as u64;
    for (water, deleted) in [
        (size + other.blob_size, 0),
        // Both copies have to go for their bytes, and then there is room.
        (size + other.blob_size - 1, 2),
    ] {
        let rules = JanitorRules { grace: 24 * HOUR, unused_for: None, water: Some((water, water)) };
        let report = Janitor::round_by_dates(&registry, &rules, UNIX_EPOCH + 99 * HOUR, false).await.unwrap();
        assert_eq!(report.for_room, deleted);
    }
    assert!(registry.get_record(&other.slug).await.unwrap().is_some());
}

#[tokio::test]
async fn unsigned_pods_go_before_signed_ones_unless_they_are_in_use() {
    let registry = MemoryRegistry::new(1 << 24);
    let mut expected = Vec::new();
    for (signed, came, hit) in [
        (false, 1, None),
        (false, 0, Some(2)),
        (true, 0, None),
        (true, 0, Some(1)),
        // Fetched within the grace time.
        (false, 0, Some(90)),
        (true, 0, Some(91)),
        (false, 0, Some(92)),
    ] {
        let record = keep(&registry, came, signed).await;
        if let Some(hit) = hit {
            registry.bump_hits(&[(record.slug, 1)], UNIX_EPOCH + hit * HOUR).await.unwrap();
        }
        expected.push(record.slug);
    }
    let left = async || -> Vec<Slug> {
        registry.list(None, 99).await.unwrap().iter().map(|record| record.slug).collect()
    };
    for next in expected {
        let (before, bytes) = (left().await, registry.usage(None).await.unwrap().bytes);
        let rules = JanitorRules { grace: 24 * HOUR, unused_for: None, water: Some((bytes - 1, bytes - 1)) };
        let report = Janitor::round_by_dates(&registry, &rules, UNIX_EPOCH + 99 * HOUR, false).await.unwrap();
        assert_eq!(report.for_room, 1);
        let left = left().await;
        assert_eq!(before.iter().find(|slug| !left.contains(slug)), Some(&next));
    }
}

/// Takes another new pod whenever some are deleted.
struct Flooded {
    inner: MemoryRegistry,
    date: SystemTime,
}

#[async_trait]
impl Registry for Flooded {
    fn name(&self) -> &str {
        "flooded"
    }

    async fn put_pod(&self, pod: VerifiedPod) -> Result<(), RegistryError> {
        self.inner.put_pod(pod).await
    }

    async fn get_record(&self, slug: &Slug) -> Result<Option<PodRecord>, RegistryError> {
        self.inner.get_record(slug).await
    }

    async fn get_blob(&self, slug: &Slug) -> Result<Option<Blob>, RegistryError> {
        self.inner.get_blob(slug).await
    }

    async fn bump_hits(&self, hits: &[(Slug, u64)], at: SystemTime) -> Result<(), RegistryError> {
        self.inner.bump_hits(hits, at).await
    }

    async fn delete(&self, slug: &Slug) -> Result<bool, RegistryError> {
        self.inner.delete(slug).await
    }

    async fn delete_versions(&self, records: &[PodRecord]) -> Result<Vec<bool>, RegistryError> {
        let pod = VerifiedPod::verify(signed::Pod::named("new").html().into()).unwrap();
        self.put_pod(pod.at(self.date)).await?;
        self.inner.delete_versions(records).await
    }

    async fn list(&self, after: Option<&Slug>, limit: usize) -> Result<Vec<PodRecord>, RegistryError> {
        self.inner.list(after, limit).await
    }
}
