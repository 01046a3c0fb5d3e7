//! What visitors and owners see of a registry that is full, or fails.

use std::{
    future::pending,
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::SystemTime,
};

use futures_util::future::join_all;
use gemmapod_signal::{
    Blob, MemoryRegistry, PodRecord, Registry, RegistryError, SignalServer, Slug, VerifiedPod, async_trait,
};
use serde_json::{Value, json};
use tokio::{
    sync::{Semaphore, mpsc},
    time::Instant,
};

use crate::support::{
    pod::Pod,
    raw::{Raw, upload_head},
    server::{TestServer, config},
};

#[tokio::test]
async fn a_registry_in_memory_is_full() {
    let server = TestServer::with("[pods]\nmemory_limit = \"2 KiB\"").await;
    let html = Pod::named("first").html();
    let slug = server.store(html.clone()).await;
    for _ in 0..2 {
        let answer = server.upload(Pod::named("second").html()).await;
        assert_eq!(answer.status(), 507);
        let body: Value = answer.json().await.unwrap();
        assert_eq!(body, json!({ "error": "this broker has no room left for the pod" }));
    }
    // Everything else goes on.
    let served = server.http.get(server.url(&format!("/{slug}"))).send().await.unwrap();
    assert_eq!(served.text().await.unwrap(), html);
    let mut origin = server.origin("pod").await;
    server.visitor(&mut origin, "pod", "s").await;
}

/// Fails at everything, as a registry on a broken disk does, and hangs when it is closed.
struct Broken;

fn broken<T>() -> Result<T, RegistryError> {
    Err(io::Error::other("secret path: input/output error").into())
}

#[async_trait]
impl Registry for Broken {
    fn name(&self) -> &str {
        "broken"
    }

    async fn put_pod(&self, _: VerifiedPod) -> Result<(), RegistryError> {
        broken()
    }

    async fn get_record(&self, _: &Slug) -> Result<Option<PodRecord>, RegistryError> {
        broken()
    }

    async fn get_blob(&self, _: &Slug) -> Result<Option<Blob>, RegistryError> {
        broken()
    }

    async fn bump_hits(&self, _: &[(Slug, u64)], _: SystemTime) -> Result<(), RegistryError> {
        broken()
    }

    async fn delete(&self, _: &Slug) -> Result<bool, RegistryError> {
        broken()
    }

    async fn list(&self, _: Option<&Slug>, _: usize) -> Result<Vec<PodRecord>, RegistryError> {
        broken()
    }

    async fn close(&self) -> Result<(), RegistryError> {
        pending().await
    }
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_hangs_holds_no_stop_up_for_ever() {
    let server = SignalServer::builder().config(config("")).registry(Broken).bind().await.unwrap();
    let handle = server.handle();
    let serving = tokio::spawn(server.serve());
    handle.shutdown();
    let told = serving.await.unwrap().unwrap_err().to_string();
    assert!(told.contains("the registry was not closed within 10 s"), "{told}");
}

/// Keeps nothing, and never answers the janitor.
struct Unlisted;

#[async_trait]
impl Registry for Unlisted {
    fn name(&self) -> &str {
        "unlisted"
    }

    async fn put_pod(&self, _: VerifiedPod) -> Result<(), RegistryError> {
        broken()
    }

    async fn get_record(&self, _: &Slug) -> Result<Option<PodRecord>, RegistryError> {
        Ok(None)
    }

    async fn get_blob(&self, _: &Slug) -> Result<Option<Blob>, RegistryError> {
        Ok(None)
    }

    async fn bump_hits(&self, _: &[(Slug, u64)], _: SystemTime) -> Result<(), RegistryError> {
        Ok(())
    }

    async fn delete(&self, _: &Slug) -> Result<bool, RegistryError> {
        Ok(false)
    }

    async fn list(&self, _: Option<&Slug>, _: usize) -> Result<Vec<PodRecord>, RegistryError> {
        pending().await
    }
}

/// By the clock of the runtime, which stands still while anything is done.
#[tokio::test]
async fn a_stop_ends_with_its_time_whatever_goes_on() {
    let config = config("drain_timeout = \"2s\"\n[janitor]\nenabled = true");
    let server = TestServer::from(SignalServer::builder().config(config).registry(Unlisted)).await;
    let mut upload = Raw::open(&server.address).await;
    upload.send(&upload_head(1000).replace("\n\n", "\nExpect: 100-continue\n\n")).await;
    assert_eq!(upload.head().await.status, 100, "the body is awaited");
    tokio::time::pause();
    let begun = Instant::now();
    server.stop().await;
    let took = begun.elapsed().as_millis();
    assert!((2000..2010).contains(&took), "{took} ms");
}

#[tokio::test]
async fn a_registry_fails() {
    let server = TestServer::from(SignalServer::builder().config(config("")).registry(Broken)).await;
    let get = async |path: &str| server.http.get(server.url(path)).send().await.unwrap();
    for answer in [
        server.upload(Pod::named("pod").html()).await,
        get("/aaaaaaaaaaaa").await,
        get("/aaaaaaaaaaaa/meta").await,
    ] {
        assert_eq!(answer.status(), 500);
        let body: Value = answer.json().await.unwrap();
        assert_eq!(body, json!({ "error": "this broker could not reach its registry" }));
    }
    // What needs no registry goes on, and what is no pod is still told so.
    assert_eq!(server.upload("<p>no pod</p>").await.status(), 400);
    assert_eq!(server.health().await["registry"], "broken");
    let mut origin = server.origin("pod").await;
    server.visitor(&mut origin, "pod", "s").await;
}

/// Counts how often a record is read, how many are read at a time, and how often a pod is opened.
struct Counting {
    inner: MemoryRegistry,
    /// Each read waits for a permit of it, which it gives back.
    gate: Arc<Semaphore>,
    reading: AtomicUsize,
    /// Gets for each read how many there are then.
    reads: mpsc::UnboundedSender<usize>,
    opened: Arc<AtomicUsize>,
}

impl Counting {
    /// Returns a server with it, what its reads send, and what it opened.
    async fn server(gate: &Arc<Semaphore>) -> (TestServer, mpsc::UnboundedReceiver<usize>, Arc<AtomicUsize>) {
        let ((reads, read), opened) = (mpsc::unbounded_channel(), Arc::<AtomicUsize>::default());
        let inner = MemoryRegistry::new(1 << 20);
        let (gate, reading) = (gate.clone(), AtomicUsize::new(0));
        let registry = Self { inner, gate, reading, reads, opened: opened.clone() };
        let server = TestServer::from(SignalServer::builder().config(config("")).registry(registry)).await;
        (server, read, opened)
    }
}

#[async_trait]
impl Registry for Counting {
    fn name(&self) -> &str {
        "counting"
    }

    async fn put_pod(&self, pod: VerifiedPod) -> Result<(), RegistryError> {
        self.inner.put_pod(pod).await
    }

    async fn get_record(&self, slug: &Slug) -> Result<Option<PodRecord>, RegistryError> {
        let _ = self.reads.send(self.reading.fetch_add(1, Ordering::SeqCst) + 1);
        let _open = self.gate.acquire().await;
        self.reading.fetch_sub(1, Ordering::SeqCst);
        self.inner.get_record(slug).await
    }

    async fn get_blob(&self, slug: &Slug) -> Result<Option<Blob>, RegistryError> {
        self.opened.fetch_add(1, Ordering::Relaxed);
        self.inner.get_blob(slug).await
    }

    async fn open_pod(&self, record: PodRecord) -> Result<Option<(PodRecord, Blob)>, RegistryError> {
        self.opened.fetch_add(1, Ordering::Relaxed);
        self.inner.open_pod(record).await
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

#[tokio::test]
async fn a_download_reads_its_record_once() {
    let (server, mut read, opened) = Counting::server(&Arc::new(Semaphore::new(1))).await;
    let mut counts =
        || (std::iter::from_fn(|| read.try_recv().ok()).count(), opened.swap(0, Ordering::Relaxed));
    let slug = server.store(Pod::named("pod").html()).await;
    for (method, path, status, expected) in [
        ("GET", format!("/{slug}"), 200, (1, 1)),
        ("HEAD", format!("/{slug}"), 200, (1, 1)),
        ("GET", format!("/{slug}/meta"), 200, (1, 0)),
        ("GET", "/aaaaaaaaaaaa".into(), 404, (1, 0)),
    ] {
        counts();
        let request = server.http.request(method.parse().unwrap(), server.url(&path));
        assert_eq!(request.send().await.unwrap().status(), status, "{method} {path}");
        assert_eq!(counts(), expected, "{method} {path}");
    }
}

/// Whoever asks for many pods at once waits for their own, and nobody else does.
#[tokio::test]
async fn downloads_of_one_client_are_looked_up_a_few_at_a_time() {
    let gate = Arc::new(Semaphore::new(0));
    let (server, mut read, _) = Counting::server(&gate).await;
    let slug = server.store(Pod::named("pod").html()).await;
    let ask = async |host| {
        let mut raw = Raw::open_from([127, 0, 0, host].into(), &server.address).await;
        raw.send(&format!("GET /{slug} HTTP/1.1\nHost: broker\n\n")).await;
        raw
    };
    let mut many = join_all((0..32).map(|_| ask(1))).await;
    for running in 1..=4 {
        assert_eq!(read.recv().await, Some(running));
    }
    many.push(ask(2).await);
    assert_eq!(read.recv().await, Some(5));
    gate.add_permits(100);
    for raw in &mut many {
        assert_eq!(raw.answer().await.status, 200);
    }
    while let Ok(running) = read.try_recv() {
        assert!(running <= 5, "{running} at a time");
    }
}
