//! Uploads to a registry that is slow: their bytes count for as long as anything holds them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::SystemTime,
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use gemmapod_signal::{
    Blob, MemoryRegistry, PodRecord, Registry, RegistryError, SignalServer, Slug, VerifiedPod, async_trait,
};
use tokio::{sync::Semaphore, time::timeout};

use super::until;
use crate::support::{
    SOON,
    pod::Pod,
    raw::{Raw, upload_head},
    server::{TestServer, config},
};

/// Keeps pods in memory, once its gate is open: until then it holds them, on a thread that nothing can interrupt.
struct Slow {
    inner: Arc<MemoryRegistry>,
    gate: Arc<Semaphore>,
    held: Arc<AtomicUsize>,
}

#[async_trait]
impl Registry for Slow {
    fn name(&self) -> &str {
        "slow"
    }

    async fn put_pod(&self, pod: VerifiedPod) -> Result<(), RegistryError> {
        let (inner, gate, held) = (self.inner.clone(), self.gate.clone(), self.held.clone());
        let runtime = tokio::runtime::Handle::current();
        held.fetch_add(1, Ordering::SeqCst);
        tokio::task::spawn_blocking(move || {
            runtime.block_on(async {
                let _open = gate.acquire().await;
                let put = inner.put_pod(pod).await;
                held.fetch_sub(1, Ordering::SeqCst);
                put
            })
        })
        .await
        .map_err(RegistryError::failed)?
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

    async fn list(&self, after: Option<&Slug>, limit: usize) -> Result<Vec<PodRecord>, RegistryError> {
        self.inner.list(after, limit).await
    }
}

struct Scene {
    server: TestServer,
    gate: Arc<Semaphore>,
    held: Arc<AtomicUsize>,
}

impl Scene {
    async fn with(toml: &str) -> Self {
        let (gate, held) = (Arc::new(Semaphore::new(0)), Arc::<AtomicUsize>::default());
        let inner = Arc::new(MemoryRegistry::new(1 << 30));
        let registry = Slow { inner, gate: gate.clone(), held: held.clone() };
        let builder = SignalServer::builder().config(config(toml)).registry(registry);
        Self { server: TestServer::from(builder).await, gate, held }
    }

    fn held(&self) -> usize {
        self.held.load(Ordering::SeqCst)
    }

    /// An upload that was sent whole.
    async fn begin(&self, html: &str) -> Raw {
        self.begin_from(1, html).await
    }

    /// An upload of the client 127.0.0.`host`.
    async fn begin_from(&self, host: u8, html: &str) -> Raw {
        let mut raw = Raw::open_from([127, 0, 0, host].into(), &self.server.address).await;
        raw.send(&upload_head(html.len())).await;
        raw.send_bytes(html.as_bytes()).await;
        raw
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        // A test that fails need not wait for threads that wait for it.
        self.gate.add_permits(10_000);
    }
}

const SETTINGS: &str = "[http]\nmax_connections_per_address = 2000\n[pods]\nmax_uploads = 2\nupload_memory = \"100 MiB\"\nmax_blob = \"30 MiB\"\n\
    upload_wait = \"1s\"";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_registry_holds_no_more_than_may_be_uploaded() {
    for count in [40, 1_000] {
        let scene = Scene::with(SETTINGS).await;
        let html = Pod::named("pod").padded(1000).html();
        let mut uploads = Vec::new();
        for _ in 0..count {
            uploads.push(scene.begin(&html).await);
        }
        let answers = uploads.iter_mut().map(async |upload| upload.answer_at_last().await.status);
        let mut answers: FuturesUnordered<_> = answers.collect();
        for _ in 0..count - 2 {
            let answered = timeout(SOON * 6, answers.next()).await.expect("all but two should be answered");
            assert_eq!(answered.unwrap(), 503);
            assert!(scene.held() <= 2, "{} uploads are held", scene.held());
        }
        assert_eq!(scene.held(), 2);
        scene.gate.add_permits(10);
        for _ in 0..2 {
            assert_eq!(answers.next().await.unwrap(), 200);
        }
        drop(answers);
        drop(uploads);
        assert_eq!(scene.server.upload(html).await.status(), 200);
    }
}

/// What a client uploaded before it went away is held all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_goes_away_frees_nothing_that_is_held() {
    let scene = Scene::with(SETTINGS).await;
    let html = Pod::named("pod").padded(1000).html();
    let uploads = [scene.begin(&html).await, scene.begin(&html).await];
    until("both are held", || scene.held() == 2).await;
    drop(uploads);
    for _ in 0..3 {
        assert_eq!(scene.server.upload(html.clone()).await.status(), 503);
        assert_eq!(scene.held(), 2);
    }
    scene.gate.add_permits(10);
    until("the registry is done", || scene.held() == 0).await;
    assert_eq!(scene.server.upload(html).await.status(), 200);
}

/// Large ones share the memory: each counts with its bytes, not with the function that read it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_memory_of_what_is_held_is_counted() {
    let settings = "[pods]\nmax_uploads = 100\nmax_uploads_per_address = 100\nmax_blob = \"10 MiB\"\n\
        upload_memory = \"30 MiB\"\nupload_wait = \"1s\"";
    let scene = Scene::with(settings).await;
    let html = Pod::named("pod").padded(9 << 20).html();
    let mut held = Vec::new();
    for client in 1..4 {
        held.push(scene.begin_from(client, &html).await);
        until("it is held", || scene.held() == held.len()).await;
    }
    let mut fourth = Raw::open(&scene.server.address).await;
    fourth.send(&(upload_head(html.len()) + &"x".repeat(4 << 20))).await;
    assert_eq!(fourth.answer().await.status, 503);
    assert_eq!(scene.held(), 3);
    scene.gate.add_permits(10);
    until("the registry is done", || scene.held() == 0).await;
}

/// A reload is no other broker: what is held goes on counting.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_makes_no_room_for_uploads() {
    let scene = Scene::with(SETTINGS).await;
    let html = Pod::named("pod").padded(1000).html();
    let _held = [scene.begin(&html).await, scene.begin(&html).await];
    until("both are held", || scene.held() == 2).await;
    assert!(scene.server.handle.reload(config(SETTINGS)).is_empty());
    assert_eq!(scene.begin(&html).await.answer().await.status, 503);
    assert_eq!(scene.held(), 2);
    assert!(
        scene
            .server
            .handle
            .reload(config(&SETTINGS.replace("max_uploads = 2", "max_uploads = 3")))
            .is_empty()
    );
    scene.gate.add_permits(10);
    assert_eq!(scene.begin(&html).await.answer().await.status, 200);
}
