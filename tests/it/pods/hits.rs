//! What `/meta` says of hits while the disk takes its time: it waits for no write, and counts each hit once.

use std::{sync::Arc, time::SystemTime};

use gemmapod_signal::{
    Blob, MemoryRegistry, PodRecord, Registry, RegistryError, SignalServer, Slug, VerifiedPod, async_trait,
};
use serde_json::Value;
use tokio::{
    sync::{Notify, Semaphore},
    time::timeout,
};

use crate::support::{
    SOON,
    pod::Pod,
    server::{TestServer, config},
};

/// Writes hits when it is told to, as a disk does whose syncs hang.
struct SlowWriter {
    inner: MemoryRegistry,
    gate: Arc<Gate>,
}

struct Gate {
    /// A batch has come.
    begun: Notify,
    /// Lets one be written.
    write: Semaphore,
    /// One is written; nobody was told.
    written: Notify,
    /// Lets the broker know.
    answer: Semaphore,
}

#[async_trait]
impl Registry for SlowWriter {
    fn name(&self) -> &str {
        "slow"
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
        self.gate.begun.notify_one();
        self.gate.write.acquire().await.unwrap().forget();
        self.inner.bump_hits(hits, at).await?;
        self.gate.written.notify_one();
        self.gate.answer.acquire().await.unwrap().forget();
        Ok(())
    }

    async fn delete(&self, slug: &Slug) -> Result<bool, RegistryError> {
        self.inner.delete(slug).await
    }

    async fn list(&self, after: Option<&Slug>, limit: usize) -> Result<Vec<PodRecord>, RegistryError> {
        self.inner.list(after, limit).await
    }
}

async fn fetch(server: &TestServer, slug: &str) {
    let answer = server.http.get(server.url(&format!("/{slug}"))).send().await.unwrap();
    assert_eq!(answer.status(), 200);
}

/// What `/meta` says of each pod.
async fn hits<const N: usize>(server: &TestServer, slugs: &[String; N]) -> [u64; N] {
    let mut hits = [0; N];
    for (slug, hits) in slugs.iter().zip(&mut hits) {
        let asking = server.http.get(server.url(&format!("/{slug}/meta"))).send();
        let answer = timeout(SOON, asking).await.expect("/meta should not wait for a write").unwrap();
        *hits = answer.json::<Value>().await.unwrap()["hits"].as_u64().unwrap();
    }
    hits
}

#[tokio::test]
async fn hits_are_told_while_they_are_written() {
    let closed = || Semaphore::new(0);
    let gate = Gate { begun: Notify::new(), write: closed(), written: Notify::new(), answer: closed() };
    let gate = Arc::new(gate);
    let registry = SlowWriter { inner: MemoryRegistry::new(1 << 20), gate: gate.clone() };
    let server = TestServer::from(SignalServer::builder().config(config("")).registry(registry)).await;
    let slugs = [server.store(Pod::named("a").html()).await, server.store(Pod::named("b").html()).await];
    let [fetched, other] = &slugs;
    // Twice: the second batch adds to what the registry has by then.
    for before in [0, 3] {
        fetch(&server, fetched).await;
        fetch(&server, fetched).await;
        timeout(SOON, gate.begun.notified()).await.expect("hits should be written");
        // The batch may have been made after the first of them.
        assert_eq!(hits(&server, &slugs).await, [before + 2, before / 3]);
        fetch(&server, fetched).await;
        fetch(&server, other).await;
        assert_eq!(hits(&server, &slugs).await, [before + 3, before / 3 + 1]);
        gate.write.add_permits(1);
        timeout(SOON, gate.written.notified()).await.expect("hits should be written");
        assert_eq!(hits(&server, &slugs).await, [before + 3, before / 3 + 1]);
        gate.answer.add_permits(1);
        // The rest is the next batch.
        timeout(SOON, gate.begun.notified()).await.expect("hits should be written");
        assert_eq!(hits(&server, &slugs).await, [before + 3, before / 3 + 1]);
        gate.write.add_permits(1);
        timeout(SOON, gate.written.notified()).await.expect("hits should be written");
        gate.answer.add_permits(1);
        assert_eq!(hits(&server, &slugs).await, [before + 3, before / 3 + 1]);
    }
}
