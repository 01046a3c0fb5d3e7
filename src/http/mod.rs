//! The HTTP side: one file for each group of routes, one error type.

mod download;
mod error;
mod health;
mod hsts;
mod meta;
mod not_found;
mod redirect;
mod upgrade;
mod upload;

use std::sync::Arc;

use salvo::{Router, Service};
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use crate::{
    config::Live,
    pods::{HitCounter, Registry},
    signal::socket::Hub,
    tls::{CertStore, HttpChallenges},
};

pub(crate) use self::{
    download::{POD_CSP, POD_PERMISSIONS},
    redirect::service as redirect_service,
};

/// What the routes work on.
pub(crate) struct App {
    pub live: Live,
    pub registry: Arc<dyn Registry>,
    pub hits: Arc<HitCounter>,
    pub hub: Hub,
    /// Tasks of open sockets.
    pub sockets: TaskTracker,
    /// Room for further sockets.
    pub socket_room: Arc<Semaphore>,
    pub uploads: upload::Turnstile,
    pub certificates: Arc<CertStore>,
    pub http_challenges: Arc<HttpChallenges>,
}

impl App {
    pub fn new(
        live: Live,
        registry: Arc<dyn Registry>,
        hub: Hub,
        certificates: Arc<CertStore>,
        http_challenges: Arc<HttpChallenges>,
    ) -> Arc<Self> {
        let config = live.load();
        Arc::new(Self {
            registry,
            hits: Arc::default(),
            hub,
            sockets: TaskTracker::new(),
            socket_room: Arc::new(Semaphore::new(config.signal.max_sockets as usize)),
            uploads: upload::Turnstile::new(&config.pods),
            certificates,
            http_challenges,
            live: live.clone(),
        })
    }
}

/// All routes: the broker's own, then those of the embedding program, then "not found".
pub(crate) fn service(app: &Arc<App>, others: Vec<Router>) -> Service {
    let mut router = Router::new()
        .push(Router::with_path("signal").goal(upgrade::Upgrade(app.clone())))
        .push(Router::with_path("health").get(health::Health(app.clone())))
        .push(
            Router::with_path("pods")
                .push(Router::new().hoop(upload::AllowAnyOrigin).post(upload::Upload(app.clone())))
                .push(Router::new().hoop(upload::AllowAnyOrigin).options(upload::Preflight)),
        );
    for other in others {
        router = router.push(other);
    }
    let router = router
        .push(
            Router::with_path("{slug}")
                .push(Router::new().get(download::Download(app.clone())))
                .push(Router::new().head(download::Download(app.clone()))),
        )
        .push(
            Router::with_path("{slug}/meta")
                .push(Router::new().get(meta::Meta(app.clone())))
                .push(Router::new().head(meta::Meta(app.clone()))),
        )
        .push(redirect::challenge_route(app))
        .push(Router::with_path("{**path}").goal(not_found::NotFound));
    Service::new(router)
        .hoop(hsts::Hsts(app.clone()))
        .catcher(salvo::catcher::Catcher::new(not_found::Otherwise))
}
