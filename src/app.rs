//! What the handlers of requests share.

use std::{
    net::IpAddr,
    sync::{Arc, OnceLock, atomic::AtomicBool},
    time::Duration,
};

use arc_swap::ArcSwap;
use salvo::Request;
use tokio::time::Instant;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    clock::Clock,
    config::{Config, Live},
    http::{
        compression::Compression, downloads::Downloads, drain_body::BodyDrain, tarpit::Tarpit,
        upload_limiter::UploadLimiter,
    },
    net::{
        blocking_limiter::BlockingLimiter, client::Client, connection_limiter::ConnectionCapacity,
        limits::Limits,
    },
    owner::{credentials::Credentials, owners::Owners, replay::Replay, uploads::UploadAccess},
    pods::{HitCounter, Janitor, Registry, RegistryError},
    signal::socket::Hub,
    tls::{CertStore, HttpChallenges},
};

/// What one client has looked up at a time, in the registry or in files of settings.
const LOOKUPS_OF_CLIENT: usize = 4;

/// What all clients have: tokio has 512 threads for all that waits for a disk, and the rest is for other things.
const LOOKUPS: usize = 128;

/// What the routes work on.
pub struct App {
    pub live: Live,
    pub registry: Arc<dyn Registry>,
    pub lookups: Arc<BlockingLimiter>,
    pub hits: Arc<HitCounter>,
    pub hub: Hub,
    /// Cancelled when the broker stops.
    pub stop: CancellationToken,
    /// When a stop that has begun ends what still runs.
    pub drain_end: OnceLock<Instant>,
    /// Tasks of open sockets.
    pub sockets: TaskTracker,
    pub uploads: ArcSwap<UploadLimiter>,
    pub compression: ArcSwap<Compression>,
    pub downloads: Downloads,
    pub limits: Arc<Limits>,
    pub janitor: Janitor,
    pub certificates: Arc<CertStore>,
    pub http_challenges: Arc<HttpChallenges>,
    pub clock: Clock,
    /// Signed requests that were taken.
    pub replay: Arc<Replay>,
    pub owners: Arc<Owners>,
    pub credentials: Credentials,
    pub upload_access: Arc<UploadAccess>,
    pub body_drain: BodyDrain,
    pub tarpit: Tarpit,
    /// Whether the registry has not answered for too long.
    pub is_registry_stuck: AtomicBool,
}

impl App {
    pub fn new(
        live: Live,
        registry: Arc<dyn Registry>,
        hub: Hub,
        certificates: Arc<CertStore>,
        http_challenges: Arc<HttpChallenges>,
        clock: Clock,
        downloads: ConnectionCapacity,
    ) -> Arc<Self> {
        let config = live.load();
        registry.set_quotas(config.quotas());
        let lookups = BlockingLimiter::new(LOOKUPS_OF_CLIENT, LOOKUPS);
        let owners = Owners::new(
            registry.clone(),
            lookups.clone(),
            live.clone(),
            clock.clone(),
            hub.directory.clone(),
        );
        owners.acceptance_time.warn_if_ahead(clock.now());
        let replay = Arc::new(Replay::new(clock.now(), owners.acceptance_time.clone()));
        Arc::new(Self {
            credentials: Credentials::new(registry.clone(), lookups.clone(), clock.clone()),
            registry,
            lookups,
            clock,
            replay,
            owners,
            upload_access: Arc::default(),
            body_drain: BodyDrain::default(),
            tarpit: Tarpit::default(),
            is_registry_stuck: AtomicBool::new(false),
            hits: Arc::default(),
            hub,
            stop: CancellationToken::new(),
            drain_end: OnceLock::new(),
            sockets: TaskTracker::new(),
            uploads: ArcSwap::from_pointee(UploadLimiter::new(&config.pods)),
            compression: ArcSwap::from_pointee(Compression::new(&config.pods)),
            downloads: Downloads::new(downloads),
            limits: Arc::new(Limits::new(&config)),
            janitor: Janitor::default(),
            certificates,
            http_challenges,
            live: live.clone(),
        })
    }

    /// Returns the network that a request counts for, or `None` if no limit holds for it.
    pub fn network(&self, request: &Request) -> Option<IpAddr> {
        self.limits.network(Client::of(request, &self.live.load().trusted_proxies).address)
    }

    /// Looks something up in the registry for whoever sent `request`, when it is the turn of that client.
    pub async fn look_up<T, F>(
        &self,
        request: &Request,
        look_up: impl FnOnce(Arc<dyn Registry>) -> F,
    ) -> Result<T, RegistryError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, RegistryError>> + Send + 'static,
    {
        let client = Client::of(request, &self.live.load().trusted_proxies).address;
        let found = self.lookups.run(client, look_up(self.registry.clone())).await;
        found.map_err(RegistryError::failed)?
    }

    /// Returns what is left of `drain_timeout`: nothing before a stop.
    pub fn drain_left(&self) -> Duration {
        self.drain_end.get().map_or(Duration::ZERO, |end| end.saturating_duration_since(Instant::now()))
    }

    /// Puts another configuration in place, as far as that can be done while the broker runs.
    pub fn reload(&self, config: Config) {
        self.hub.directory.set_limits(config.signal.clone());
        self.hub.budget.set_limit(config.signal.max_queue_total.as_u64() as usize);
        self.hub.read_budget.set_limit(config.signal.max_unfinished_total.as_u64() as usize);
        self.limits.reload(&config);
        self.registry.set_quotas(config.quotas());
        // What is in memory stays there, and goes on counting, unless its settings are others.
        if !self.compression.load().fits(&config.pods) {
            self.compression.store(Arc::new(Compression::new(&config.pods)));
        }
        if !self.uploads.load().fits(&config.pods) {
            // Uploads that wait or run go on under the limits that they came in under.
            self.uploads.store(Arc::new(UploadLimiter::new(&config.pods)));
        }
        self.live.store(config);
    }
}
