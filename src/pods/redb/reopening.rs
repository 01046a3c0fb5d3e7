//! A database that was given up: when it is opened again, and what is read meanwhile.

use std::{
    cell::Cell,
    time::{Duration, SystemTime},
};

use super::{
    RedbRegistry,
    faults::{Disk, EIO, EROFS, Fault, Kind},
    file::Source,
    lives::{directory, disk, pod},
    schema,
};
use crate::pods::{Quotas, Registry, Slug};

const CACHE: usize = 1 << 20;
/// Some more than fit into the cache.
const PODS: usize = 6000;

/// A registry that lies in its cache in part.
struct Cached {
    _directory: tempfile::TempDir,
    disk: Disk,
    registry: RedbRegistry,
    slugs: Vec<Slug>,
}

impl Cached {
    fn with_pause(pause: Duration) -> Self {
        let (directory, disk) = (directory(), disk());
        let source = Source::new(disk.clone(), CACHE).with_pause(pause);
        let file = directory.path().join("registry.redb");
        let registry = RedbRegistry::open_with(directory.path(), &file, source).unwrap();
        let pod = pod("of many slugs");
        let records: Vec<_> =
            (0..PODS).map(|_| pod.clone().with_slug(Slug::random()).into_parts().0).collect();
        let insert = |database: &redb::Database| {
            let txn = schema::begin(database)?;
            schema::change_pods(&txn, |pods| {
                records
                    .iter()
                    .try_for_each(|record| pods.insert(record, &Quotas::default()).map(Result::unwrap))
            })?;
            Ok(txn.commit()?)
        };
        registry.store.write(insert).unwrap();
        let slugs = records.iter().map(|record| record.slug).collect();
        Self { _directory: directory, disk, registry, slugs }
    }

    async fn hit(&self) -> bool {
        self.registry.bump_hits(&[(self.slugs[0], 1)], SystemTime::now()).await.is_ok()
    }

    fn fail(&self, kind: Kind) {
        self.disk.arm(Some(Fault { at: 1, kind }));
    }
}

#[tokio::test]
async fn a_snapshot_goes_on_after_an_error_of_the_disk() {
    let cached = Cached::with_pause(Duration::ZERO);
    cached.fail(Kind::Every(EROFS));
    assert!(!cached.hit().await);
    // What a look at the registry reads is in the cache of the snapshot now.
    cached.registry.check().await;
    for _ in 0..3 {
        cached.disk.fail_reads(1);
        assert_eq!(cached.registry.list(None, usize::MAX).await.unwrap().len(), PODS);
        assert_eq!(cached.disk.reads_to_fail(), 0, "nothing was read from the disk");
    }
    cached.disk.heal();
    assert!(cached.hit().await);
}

#[tokio::test]
async fn a_snapshot_that_was_given_up_is_opened_again_once_in_a_pause() {
    for (pause, is_opened) in [(Duration::ZERO, true), (Duration::from_hours(1), false)] {
        let cached = Cached::with_pause(pause);
        cached.fail(Kind::Every(EROFS));
        assert!(!cached.hit().await);
        // A failed read on a thread that nobody guards.
        let give_up = |database: &redb::Database| {
            cached.disk.fail_reads(1);
            let all = || schema::records(database, None, usize::MAX).map(drop);
            std::thread::scope(|scope| scope.spawn(all).join().unwrap())
        };
        cached.registry.store.read(give_up).unwrap_err();
        cached.disk.fail_reads(0);
        let openings = cached.disk.openings();
        for _ in 0..5 {
            assert_eq!(cached.registry.list(None, usize::MAX).await.is_ok(), is_opened, "{pause:?}");
        }
        assert_eq!(cached.disk.openings() > openings, is_opened, "{pause:?}");
    }
}

#[tokio::test]
async fn a_read_is_made_again_where_others_made_the_database_unusable() {
    let cached = Cached::with_pause(Duration::ZERO);
    let read = |failures: usize| {
        let left = Cell::new(failures);
        cached.registry.store.read(|_| match left.replace(left.get().saturating_sub(1)) {
            0 => Ok(()),
            _ => Err(redb::Error::PreviousIo),
        })
    };
    for failures in 0..=3 {
        assert!(read(failures).is_ok(), "{failures} failures");
    }
    assert!(read(usize::MAX).is_err());
}

#[tokio::test]
async fn a_broken_disk_is_tried_once_in_a_pause() {
    let cached = Cached::with_pause(Duration::from_hours(1));
    cached.fail(Kind::Every(EIO));
    assert!(!cached.hit().await);
    let operations = cached.disk.operations();
    for slug in &cached.slugs[..20] {
        assert!(!cached.hit().await);
        cached.registry.check().await;
        assert!(cached.registry.get_record(slug).await.unwrap().is_some(), "it can be read");
    }
    assert_eq!(cached.disk.operations(), operations, "no further attempt to write");
    // Now nothing can be read either, except from the cache.
    cached.disk.fail_reads(u64::MAX);
    assert!(cached.registry.list(None, usize::MAX).await.is_err());
    let openings = cached.disk.openings();
    for _ in 0..20 {
        assert!(cached.registry.list(None, usize::MAX).await.is_err());
    }
    assert_eq!(cached.disk.openings(), openings, "no further attempt to open it");
    cached.disk.fail_reads(0);
    assert_eq!(
        cached.registry.list(None, usize::MAX).await.unwrap().len(),
        PODS,
        "it is read without a pause"
    );
}

#[tokio::test]
async fn a_disk_that_cannot_be_read_in_places_is_opened_for_readers_once_in_a_pause() {
    let cached = Cached::with_pause(Duration::from_hours(1));
    let read = async || {
        cached.disk.fail_reads(1);
        assert_eq!(cached.registry.list(None, usize::MAX).await.unwrap().len(), PODS);
    };
    read().await;
    cached.disk.arm(None);
    for _ in 0..5 {
        read().await;
    }
    assert_eq!(cached.disk.operations(), 0, "it was opened for writing");
    assert!(cached.hit().await, "whoever writes does not wait");
}

#[tokio::test]
async fn once_the_pause_is_over_the_database_is_opened_again() {
    let cached = Cached::with_pause(Duration::from_millis(20));
    cached.fail(Kind::Every(EIO));
    assert!(!cached.hit().await);
    cached.disk.heal();
    let works = async {
        while !cached.hit().await {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), works).await.expect("it is opened");
    cached.registry.check().await;
    assert_eq!(cached.registry.problem(), None);
}
