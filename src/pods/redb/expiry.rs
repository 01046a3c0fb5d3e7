//! How long it takes to delete many expired pods, and what uploads feel of it. Run it by hand:
//! `cargo test --lib -- --ignored --nocapture a_hundred_thousand`

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use ed25519_dalek::SigningKey;

use super::{RedbRegistry, tables};
use crate::pods::{Janitor, Quotas, Registry, Rules, VerifiedPod, signed::Pod};

const PODS: usize = 100_000;

fn pod(n: usize) -> VerifiedPod {
    let key = SigningKey::from_bytes(&[(n % 200) as u8 + 1; 32]);
    VerifiedPod::verify(Pod::signed_by(key, &format!("pod {n}")).html().into(), 1 << 20).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes, and measures"]
async fn a_hundred_thousand_expired_pods_go_while_others_come() {
    let directory = tempfile::tempdir().unwrap();
    let registry = Arc::new(RedbRegistry::open(directory.path()).unwrap());
    for first in (0..PODS).step_by(1000) {
        let add = |database: &redb::Database| {
            let txn = tables::begin(database)?;
            for n in first..first + 1000 {
                let pod = pod(n).at(UNIX_EPOCH).with_lifetime(Duration::from_secs(n as u64));
                let (record, blob) = pod.into_parts();
                fs::write(directory.path().join("blobs").join(record.digest.to_string()), blob)?;
                tables::insert(&txn, &record, &Quotas::default())?.unwrap();
            }
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
    let rules = Rules { grace: Duration::from_secs(1), unused_for: None, water: None };
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
