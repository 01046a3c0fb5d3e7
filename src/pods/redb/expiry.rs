//! How many pods are deleted in one transaction, how long it takes to delete many expired ones, and what uploads feel of
//! it. Run the latter by hand: `cargo test --lib -- --ignored --nocapture a_hundred_thousand`

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use ed25519_dalek::SigningKey;

use super::{
    RedbRegistry,
    file::Source,
    lives::{self, disk},
    schema,
};
use crate::pods::{Janitor, JanitorRules, Quotas, Registry, VerifiedPod, signed::Pod};

const PODS: usize = 100_000;

fn pod(n: usize) -> VerifiedPod {
    let key = SigningKey::from_bytes(&[(n % 200) as u8 + 1; 32]);
    VerifiedPod::verify(Pod::signed_by(key, &format!("pod {n}")).html().into()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes, and measures"]
async fn a_hundred_thousand_expired_pods_go_while_others_come() {
    let directory = tempfile::tempdir().unwrap();
    let registry = Arc::new(RedbRegistry::open(directory.path()).unwrap());
    for first in (0..PODS).step_by(1000) {
        let add = |database: &redb::Database| {
            let txn = schema::begin(database)?;
            schema::change_pods(&txn, |pods| {
                for n in first..first + 1000 {
                    let pod = pod(n).at(UNIX_EPOCH).with_lifetime(Duration::from_secs(n as u64));
                    let (record, blob) = pod.into_parts();
                    fs::write(directory.path().join("blobs").join(record.digest.to_string()), blob)?;
                    pods.insert(&record, &Quotas::default())?.unwrap();
                }
                Ok(())
            })?;
            Ok(txn.commit()?)
        };
        registry.store.write(add).unwrap();
    }
    let is_done = Arc::new(AtomicBool::new(false));
    let uploads = tokio::spawn({
        let (registry, is_done) = (registry.clone(), is_done.clone());
        async move {
            let mut waits = Vec::new();
            while !is_done.load(Ordering::Relaxed) {
                let pod = pod(PODS + waits.len());
                let begun = Instant::now();
                registry.put_pod(pod).await.unwrap();
                waits.push(begun.elapsed());
            }
            waits
        }
    });
    let rules = JanitorRules { grace: Duration::from_secs(1), unused_for: None, water: None };
    let begun = Instant::now();
    let report = Janitor::round_by_dates(&*registry, &rules, SystemTime::now(), false).await.unwrap();
    let took = begun.elapsed();
    is_done.store(true, Ordering::Relaxed);
    let mut waits = uploads.await.unwrap();
    waits.sort();
    println!("{report}: {took:?}");
    println!(
        "{} uploads meanwhile, median {:?}, longest {:?}",
        waits.len(),
        waits[waits.len() / 2],
        waits.last()
    );
    assert_eq!((report.expired, report.looked_at), (PODS as u64, PODS as u64));
    assert_eq!(registry.usage(None).await.unwrap().pods, waits.len() as u64);
}

#[tokio::test]
async fn those_that_go_for_room_share_transactions() {
    const PODS: u64 = 60;
    let (directory, disk) = (lives::directory(), disk());
    let source = Source::new(disk.clone(), 1 << 20);
    let registry =
        RedbRegistry::open_with(directory.path(), &directory.path().join("registry.redb"), source).unwrap();
    let mut size = 0;
    for n in 0..PODS {
        let pod = pod(n as usize).at(UNIX_EPOCH);
        size = pod.record().blob_size;
        registry.put_pod(pod).await.unwrap();
    }
    let rules =
        JanitorRules { grace: Duration::from_secs(1), unused_for: None, water: Some((10 * size, 5 * size)) };
    disk.arm(None);
    let report = Janitor::round_by_dates(&registry, &rules, SystemTime::now(), false).await.unwrap();
    assert!(report.for_room > PODS - 10 && report.left.bytes <= 5 * size, "{report}");
    assert!(report.left.bytes + size + 10 > 5 * size, "no more went than had to: {report}");
    let operations = disk.operations();
    assert!(operations < report.deleted(), "{operations} writes and syncs");
}
