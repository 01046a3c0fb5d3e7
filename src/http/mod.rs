//! The HTTP side: one file for each group of routes, one error type.

mod access;
mod compression;
mod conditions;
mod cors;
mod credentials;
mod download;
mod downloads;
mod error;
mod health;
mod host;
mod hsts;
mod isolation;
mod leaving;
mod limit;
mod meta;
mod not_found;
mod owned;
mod owner_request;
mod pod_ids;
mod redirect;
mod small_writes;
mod upgrade;
mod upload;
mod upload_limiter;

use std::sync::{Arc, atomic::AtomicBool};

use arc_swap::ArcSwap;
use salvo::{
    Handler, Router, Service,
    routing::{Filter, get, head},
};
use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    clock::Clock,
    config::{Config, Live},
    net::{crowd::Pool, limits::Limits},
    owner::{admission::Owners, credentials::Credentials, replay::Replay, uploads::UploadAccess},
    pods::{HitCounter, Janitor, Registry},
    signal::socket::Hub,
    tls::{CertStore, HttpChallenges},
};

pub(crate) use self::redirect::service as redirect_service;

/// What the routes work on.
pub(crate) struct App {
    pub live: Live,
    pub registry: Arc<dyn Registry>,
    pub hits: Arc<HitCounter>,
    pub hub: Hub,
    /// Cancelled when the broker stops.
    pub stop: CancellationToken,
    /// Tasks of open sockets.
    pub sockets: TaskTracker,
    pub uploads: ArcSwap<upload_limiter::UploadLimiter>,
    pub compression: ArcSwap<compression::Compression>,
    pub downloads: downloads::Downloads,
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
    /// Bodies of refused uploads that are read at a time.
    pub passing_over: Arc<Semaphore>,
    /// Refusals that are held back at a time.
    pub held: Semaphore,
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
        downloads: Pool,
    ) -> Arc<Self> {
        let config = live.load();
        registry.set_quotas(config.quotas());
        let replay = Arc::new(Replay::new(clock.now()));
        let owners = Owners::new(registry.clone(), live.clone(), clock.clone(), hub.directory.clone());
        Arc::new(Self {
            credentials: Credentials::new(registry.clone(), clock.clone()),
            registry,
            clock,
            replay,
            owners,
            upload_access: Arc::default(),
            passing_over: Arc::new(Semaphore::new(upload::PASSING_OVER)),
            held: Semaphore::new(limit::HELD),
            is_registry_stuck: AtomicBool::new(false),
            hits: Arc::default(),
            hub,
            stop: CancellationToken::new(),
            sockets: TaskTracker::new(),
            uploads: ArcSwap::from_pointee(upload_limiter::UploadLimiter::new(&config.pods)),
            compression: ArcSwap::from_pointee(compression::Compression::new(&config.pods)),
            downloads: downloads::Downloads::new(downloads),
            limits: Arc::new(Limits::new(&config)),
            janitor: Janitor::default(),
            certificates,
            http_challenges,
            live: live.clone(),
        })
    }
}

impl App {
    /// Puts another configuration in place, as far as that can be done while the broker runs.
    pub fn reload(&self, config: Config) {
        self.hub.directory.set_limits(config.signal.clone());
        self.hub.budget.set_limit(config.signal.max_queue_total.as_u64() as usize);
        self.hub.intake.set_limit(config.signal.max_unfinished_total.as_u64() as usize);
        self.limits.reload(&config);
        self.registry.set_quotas(config.quotas());
        // What is in memory stays there, and goes on counting, unless its settings are others.
        if !self.compression.load().fits(&config.pods) {
            self.compression.store(Arc::new(compression::Compression::new(&config.pods)));
        }
        if !self.uploads.load().fits(&config.pods) {
            // Uploads that wait or run go on under the limits that they came in under.
            self.uploads.store(Arc::new(upload_limiter::UploadLimiter::new(&config.pods)));
        }
        self.live.store(config);
    }
}

/// A route that answers `GET`, and `HEAD` with the same head.
fn readable(path: &str, goal: impl Handler) -> Router {
    Router::with_path(path).filter(get().or(head())).goal(goal)
}

/// What only an owner can do. An upload that is signed is none of it: pages upload, too.
fn owner_routes(app: &Arc<App>) -> Router {
    Router::new()
        .hoop(owner_request::FromProgram(app.clone()))
        .push(
            Router::with_path("{slug}")
                .push(Router::new().put(owned::Replace(app.clone())))
                .push(Router::new().delete(owned::Delete(app.clone()))),
        )
        .push(readable("owner/{key}/pods", owned::Mine(app.clone())))
        .push(
            Router::with_path("owner/{key}/pod-ids/{**pod_id}")
                .push(Router::new().put(pod_ids::Claim(app.clone())))
                .push(Router::new().delete(pod_ids::Release(app.clone()))),
        )
        .push(readable("owner/{key}/credentials", credentials::List(app.clone())))
        .push(
            Router::with_path("owner/{key}/credentials")
                .push(Router::new().post(credentials::Add(app.clone())))
                .push(Router::with_path("{name}").delete(credentials::Revoke(app.clone()))),
        )
}

/// All routes: the broker's own, then those of the embedding program, then "not found".
pub(crate) fn service(app: &Arc<App>, others: Vec<Router>) -> Service {
    let mut router = Router::new()
        .push(Router::with_path("signal").goal(upgrade::Upgrade(app.clone())))
        .push(readable("health", health::Health::new(app.clone())))
        .push(
            Router::with_path("pods")
                .push(Router::new().post(upload::Upload(app.clone())))
                .push(Router::new().options(cors::Preflight)),
        );
    for other in others {
        router = router.push(other);
    }
    let router = router
        .push(readable("{slug}", download::Download(app.clone())))
        .push(owner_routes(app))
        .push(readable("{slug}/meta", meta::Meta(app.clone())))
        .push(redirect::challenge_route(app))
        .push(Router::with_path("{**path}").goal(not_found::NotFound));
    Service::new(router)
        .hoop(access::AccessLog(app.clone()))
        .hoop(leaving::SayGoodbye(app.clone()))
        .hoop(hsts::Hsts(app.clone()))
        .hoop(cors::AnyOriginUploads)
        .hoop(limit::Limit(app.clone()))
        .hoop(host::ValidHost(app.clone()))
        .hoop(isolation::PodHosts(app.clone()))
        .catcher(salvo::catcher::Catcher::new(not_found::Otherwise))
}
