//! Batches, uploads that are cancelled, reads that fail, registries that cannot be made.

use std::{collections::BTreeSet, fs, task::Poll};

use tokio::sync::oneshot;

use super::{
    RedbRegistry,
    faults::{Disk, EIO, ENOSPC, Fault, Kind},
    lives::{Fate, Ledger, directory, disk, files, open, pod},
    writer::{BATCH, Job, Writer},
};
use crate::pods::{Registry, RegistryError, Slug, VerifiedPod};

/// A registry whose writer is in the hands of the test.
struct Bench {
    directory: tempfile::TempDir,
    disk: Disk,
    registry: RedbRegistry,
    writer: Writer,
}

impl Bench {
    fn new() -> Self {
        let (directory, disk) = (directory(), disk());
        let registry = open(directory.path(), &disk).unwrap();
        let writer = Writer::new(registry.store.clone());
        Self { directory, disk, registry, writer }
    }

    fn put(&self, pod: &VerifiedPod) -> (Job, oneshot::Receiver<Result<(), RegistryError>>) {
        let (done, answer) = oneshot::channel();
        let staged = Some(self.registry.store.blobs.stage(pod.blob()).unwrap());
        (Job::Put { record: pod.record().clone(), staged, done }, answer)
    }

    /// The pods that are there, and what lies in the directory of blobs.
    async fn contents(&self) -> (BTreeSet<Slug>, BTreeSet<String>) {
        let records = self.registry.list(None, usize::MAX).await.unwrap();
        (records.iter().map(|record| record.slug).collect(), files(self.directory.path()))
    }
}

#[tokio::test]
async fn a_pod_is_opened_by_its_record_alone() {
    let (directory, disk) = (directory(), disk());
    let registry = open(directory.path(), &disk).unwrap();
    let pod = pod("pod");
    registry.put_pod(pod.clone()).await.unwrap();
    let record = registry.get_record(&pod.record().slug).await.unwrap().unwrap();
    disk.fail_reads(u64::MAX);
    let (opened, blob) = registry.open_pod(record.clone()).await.unwrap().unwrap();
    assert_eq!((&opened, &blob.read().await.unwrap()), (&record, pod.blob()));
    assert_eq!(disk.reads_to_fail(), u64::MAX, "the record was read again");
    assert!(registry.get_record(&record.slug).await.is_err(), "it is read from the disk");
}

#[tokio::test]
async fn a_batch_is_done_whole_or_refused_whole() {
    let [kept, doomed, new] = ["kept", "doomed", "new"].map(pod);
    let twin = VerifiedPod::verify(new.blob().clone()).unwrap();
    let (mut at, mut refused) = (0, 0);
    loop {
        at += 1;
        let mut bench = Bench::new();
        bench.registry.put_pod(kept.clone()).await.unwrap();
        bench.registry.put_pod(doomed.clone()).await.unwrap();
        let before = bench.contents().await;
        let ((put, answer), (put_twin, answer_twin)) = (bench.put(&new), bench.put(&twin));
        // The bytes of a pod that is there: refusing this one must not take them from the other.
        let again = VerifiedPod::verify(kept.blob().clone()).unwrap();
        let (put_again, answer_again) = bench.put(&again);
        let (done, deleted) = oneshot::channel();
        let delete = Job::Delete { slug: doomed.record().slug, done };
        let (done, counted) = oneshot::channel();
        let hits = Job::Hits { hits: vec![(kept.record().slug, 3)], at: std::time::SystemTime::now(), done };
        bench.disk.arm(Some(Fault { at, kind: Kind::Once(EIO) }));
        bench.writer.write(vec![put, put_twin, delete, hits, put_again]);
        let answers = [
            answer.await.unwrap(),
            answer_twin.await.unwrap(),
            counted.await.unwrap(),
            answer_again.await.unwrap(),
        ];
        let (done, deleted) = (answers.iter().all(Result::is_ok), deleted.await.unwrap());
        assert!(done || answers.iter().all(Result::is_err), "operation {at}: {answers:?}");
        assert_eq!(deleted.is_ok(), done, "operation {at}");
        let after = bench.contents().await;
        if done {
            let slugs = [&kept, &new, &twin, &again].map(|pod| pod.record().slug);
            let digests = [&kept, &new].map(|pod| pod.record().digest.to_string());
            assert_eq!(after, (slugs.into(), digests.into()), "operation {at}");
        } else {
            refused += 1;
            // What could not be deleted may be gone all the same, but then with its blob.
            let without = |of: &(BTreeSet<Slug>, BTreeSet<String>)| {
                let (mut slugs, mut files) = of.clone();
                assert_eq!(
                    slugs.remove(&doomed.record().slug),
                    files.remove(&doomed.record().digest.to_string())
                );
                (slugs, files)
            };
            assert_eq!(without(&after), without(&before), "operation {at}");
        }
        if !bench.disk.fired() {
            assert!(done);
            break;
        }
    }
    assert!(refused > 5, "only {refused} of {at} faults made a difference");
}

#[tokio::test]
async fn more_than_fits_into_one_batch_is_done_all_the_same() {
    let bench = Bench::new();
    let kept = pod("kept");
    bench.registry.put_pod(kept.clone()).await.unwrap();
    let (jobs, queue) = tokio::sync::mpsc::channel(4 * BATCH);
    let mut answers = Vec::new();
    for _ in 0..3 * BATCH + 1 {
        let (done, answer) = oneshot::channel();
        let (hits, at) = (vec![(kept.record().slug, 1)], std::time::SystemTime::now());
        jobs.send(Job::Hits { hits, at, done }).await.unwrap();
        answers.push(answer);
    }
    drop(jobs);
    tokio::task::spawn_blocking(move || bench.writer.run(queue)).await.unwrap();
    for answer in answers {
        answer.await.expect("each job is answered").unwrap();
    }
}

#[tokio::test]
async fn a_blob_that_cannot_have_its_name_is_refused_alone() {
    let mut bench = Bench::new();
    let (unlucky, lucky) = (pod("unlucky"), pod("lucky"));
    let in_the_way = bench.directory.path().join("blobs").join(unlucky.record().digest.to_string());
    fs::create_dir(&in_the_way).unwrap();
    let ((put, answer), (put_other, answer_other)) = (bench.put(&unlucky), bench.put(&lucky));
    bench.writer.write(vec![put, put_other]);
    assert!(answer.await.unwrap().is_err());
    answer_other.await.unwrap().unwrap();
    fs::remove_dir(in_the_way).unwrap();
    let digest = lucky.record().digest.to_string();
    assert_eq!(bench.contents().await, ([lucky.record().slug].into(), [digest].into()));
}

#[tokio::test]
async fn an_upload_whose_client_is_gone_leaves_nothing() {
    let mut bench = Bench::new();
    let (gone, there) = (pod("gone"), pod("there"));
    let ((put, answer), (put_other, _answer)) = (bench.put(&gone), bench.put(&there));
    drop(answer);
    bench.writer.write(vec![put, put_other]);
    let digest = there.record().digest.to_string();
    assert_eq!(bench.contents().await, ([there.record().slug].into(), [digest].into()));
}

#[test]
fn an_upload_that_is_cancelled_at_any_moment_is_whole_or_not_there() {
    let (directory, disk, mut ledger) = (directory(), disk(), Ledger::default());
    let runtime = || tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
    let first = runtime();
    first.block_on(async {
        let registry = open(directory.path(), &disk).unwrap();
        for n in 0..200 {
            let pod = pod(&n.to_string());
            let slug = pod.record().slug;
            ledger.0.insert(slug, (pod.clone(), Fate::Either));
            let mut put = registry.put_pod(pod.clone());
            for _ in 0..n * n {
                if let Poll::Ready(done) = futures_util::poll!(&mut put) {
                    done.unwrap();
                    ledger.0.insert(slug, (pod, Fate::There(Some(0))));
                    break;
                }
                tokio::task::yield_now().await;
            }
        }
        registry.close().await.unwrap();
    });
    // Waits for what is still being staged.
    drop(first);
    assert!(files(directory.path()).iter().all(|name| !name.starts_with('.')), "a temporary file is left");
    let there = ledger.0.values().filter(|(_, fate)| *fate != Fate::Either).count();
    println!("{there} of 200 uploads were done before they could be cancelled");
    runtime().block_on(async {
        let registry = open(directory.path(), &disk).unwrap();
        ledger.check(&registry, directory.path(), "cancelled").await;
    });
}

#[tokio::test]
async fn a_read_that_fails_is_made_on_a_database_opened_again() {
    let bench = Bench::new();
    let pod = pod("kept");
    bench.registry.put_pod(pod.clone()).await.unwrap();
    for _ in 0..3 {
        bench.disk.fail_reads(1);
        let blob = bench.registry.get_blob(&pod.record().slug).await.unwrap().unwrap();
        assert_eq!(blob.read().await.unwrap(), pod.blob());
        // A disk that cannot be read at all is an error, and forgotten when it is over.
        bench.disk.fail_reads(1000);
        bench.registry.get_record(&pod.record().slug).await.unwrap_err();
        bench.registry.list(None, 1).await.unwrap_err();
        bench.disk.fail_reads(0);
        assert_eq!(bench.registry.list(None, 9).await.unwrap().len(), 1);
        // In the midst of a transaction it fails that one, and the next finds redb well again.
        bench.disk.fail_reads(1);
        bench.registry.bump_hits(&[(pod.record().slug, 1)], std::time::SystemTime::now()).await.unwrap_err();
        bench.registry.bump_hits(&[(pod.record().slug, 1)], std::time::SystemTime::now()).await.unwrap();
    }
    assert_eq!(bench.registry.get_record(&pod.record().slug).await.unwrap().unwrap().hits, 3);
}

#[test]
fn a_registry_that_cannot_be_made_leaves_no_file() {
    let mut at = 0;
    let made = loop {
        at += 1;
        let (directory, disk) = (directory(), Disk::default());
        disk.arm(Some(Fault { at, kind: Kind::Once(ENOSPC) }));
        let file = directory.path().join("registry.redb");
        match super::open::create(directory.path(), &file, |_| disk.open()) {
            Ok(_) if disk.fired() => panic!("operation {at} failed, and nobody noticed"),
            Ok(_) => break at,
            Err(_) => assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0, "operation {at}"),
        }
    };
    assert!(made > 5, "only {made} operations");
}
