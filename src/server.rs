//! Puts the parts together: listeners up, serve.

use std::{
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use salvo::Router;
use tokio::{
    sync::{Notify, Semaphore},
    time::{MissedTickBehavior, timeout},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::{
    app::App,
    clock::Clock,
    config::{self, Config, Purpose, RegistryKind},
    drain::Drain,
    http, janitor,
    net::{
        acceptor::{AcceptContext, Acceptor},
        budget::Budget,
        connection_limiter::ConnectionCapacity,
        handshake_threads::HandshakeThreads,
        heads::HeadBudget,
        http2_places::{Http2Places, TlsConfigs},
        listener::{self, BindError, Listener},
        serving::{HttpServer, StopServing},
        silent::SilentConnections,
    },
    pods::{MemoryRegistry, OpenError, RedbRegistry, Registry, RegistryError},
    signal::{
        directory::{Directory, Stats},
        socket::Hub,
    },
    tls::{
        self, CertStore,
        context::CertContext,
        source::{Source, TlsError},
    },
};

/// How long the end waits for a round of the janitor.
const JANITOR: Duration = Duration::from_millis(300);
/// How long the registry has to close.
const CLOSE: Duration = Duration::from_secs(10);
const NOT_CLOSED: &str =
    "the registry was not closed within 10 s, its disk may hang; what was acknowledged is on the disk";
/// How often the registry is looked at, beside what its reads and writes show.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);
/// A look that takes longer than this is a problem: it waits behind a write, which waits for the disk.
const CHECK_TIMEOUT: Duration = Duration::from_secs(15);

/// A broker that listens. Until [`SignalServer::serve`] is called, connections wait.
pub struct SignalServer {
    app: Arc<App>,
    routes: Vec<Router>,
    listeners: Vec<Listener>,
    accept_context: AcceptContext,
    certificates: Source,
}

/// Puts a [`SignalServer`] together.
#[derive(Default)]
#[must_use]
pub struct Builder {
    config: Config,
    registry: Option<Arc<dyn Registry>>,
    routes: Vec<Router>,
    clock: Clock,
}

/// Stops a running broker, gives it other settings, tells what it does; clones speak of the same one.
#[derive(Clone)]
pub struct ServerHandle {
    app: Arc<App>,
    certificates: Arc<Notify>,
}

/// The broker could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The registry in the data directory could not be opened.
    #[error(transparent)]
    Registry(#[from] OpenError),
    /// An address could not be bound.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// There is no certificate to begin with, or TLS cannot be set up.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// The broker ended with something left undone.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The registry could not be closed.
    #[error("closing the registry failed: {0}")]
    Registry(#[from] RegistryError),
}

impl Builder {
    /// Takes these settings in place of the defaults.
    pub fn config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }

    /// Keeps pods in `registry`, whatever the settings say.
    pub fn registry(mut self, registry: impl Registry) -> Self {
        self.registry = Some(Arc::new(registry));
        self
    }

    /// Serves `routes` beside the broker's own. Where both match, the broker's own win, except over `/:slug`.
    pub fn routes(mut self, routes: Router) -> Self {
        self.routes.push(routes);
        self
    }

    /// Goes by `clock` where certificates and proofs of ownership depend on the time.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Binds all addresses, opens the registry and prepares certificates.
    ///
    /// # Errors
    ///
    /// Something of it fails. The message says how to mend it.
    pub async fn bind(self) -> Result<SignalServer, StartError> {
        let Self { config, registry, routes, clock } = self;
        let listeners = listener::bind(config.listeners())?;
        let registry = match registry {
            Some(registry) => registry,
            None => open_registry(&config).await?,
        };
        let hub = Hub {
            directory: Directory::new(config.signal.clone()),
            budget: Budget::new(config.signal.max_queue_total.as_u64() as usize),
            read_budget: Budget::new(config.signal.max_unfinished_total.as_u64() as usize),
            throttles: Arc::default(),
        };
        let files = OpenFiles::of(&config);
        let pool = files.connections;
        let room = Arc::new(Semaphore::new(pool.places));
        let live = config::Live::new(config);
        let (store, http_challenges) = (Arc::<CertStore>::default(), Arc::default());
        let context =
            CertContext { live: live.clone(), store: store.clone(), http_challenges, clock: clock.clone() };
        let certificates = Source::prepare(&context)?;
        let tls = match certificates {
            Source::Off => None,
            _ => Some(TlsConfigs::new(tls::server_config(store).map_err(TlsError::from)?)),
        };
        let app = App::new(
            live.clone(),
            registry,
            hub,
            context.store,
            context.http_challenges,
            clock,
            files.downloads,
        );
        let accept_context = AcceptContext {
            live,
            tls,
            room,
            pool,
            connection_limiter: Arc::default(),
            http2_places: Http2Places::new(pool.places),
            requests: Arc::default(),
            throttles: Arc::default(),
            frames: Arc::default(),
            handshake_threads: HandshakeThreads::default(),
            stop: app.stop.clone(),
            silent: SilentConnections::default(),
        };
        Ok(SignalServer { app, routes, listeners, accept_context, certificates })
    }
}

/// How the files that the process may open are shared out: what exceeds a share waits or is refused, while uploads and the
/// registry still find one.
struct OpenFiles {
    connections: ConnectionCapacity,
    downloads: ConnectionCapacity,
}

impl OpenFiles {
    fn of(config: &Config) -> Self {
        // Where the limit is unknown, the settings alone hold.
        let files = rlimit::Resource::NOFILE.get_soft().unwrap_or(u64::MAX) as usize;
        Self::share(files, config.http.max_connections as usize)
    }

    fn share(files: usize, connections: usize) -> Self {
        Self {
            connections: ConnectionCapacity::of(connections, files / 8 * 5),
            downloads: ConnectionCapacity::of(connections, files / 4),
        }
    }
}

async fn open_registry(config: &Config) -> Result<Arc<dyn Registry>, OpenError> {
    Ok(match config.registry {
        RegistryKind::Memory => Arc::new(MemoryRegistry::new(config.pods.memory_limit.as_u64())),
        RegistryKind::Redb => {
            let directory = config.data_dir.clone();
            let opening = tokio::task::spawn_blocking(move || RedbRegistry::open(&directory));
            Arc::new(opening.await.expect("opening a registry ends with a result")?)
        }
    })
}

impl SignalServer {
    /// Starts with the default settings.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// The TCP addresses that it listens on, in the order of the configuration, with the ports that the system chose.
    pub fn local_addrs(&self) -> Vec<SocketAddr> {
        self.listeners.iter().filter_map(Listener::tcp_address).collect()
    }

    /// Something to stop it with.
    pub fn handle(&self) -> ServerHandle {
        ServerHandle { app: self.app.clone(), certificates: self.certificates.reload_handle() }
    }

    /// Serves until [`ServerHandle::shutdown`], then drains for at most `drain_timeout`: sockets are closed with
    /// 1012, running uploads and downloads finish.
    ///
    /// # Errors
    ///
    /// The registry could not be closed.
    pub async fn serve(self) -> Result<(), ServeError> {
        let Self { app, routes, listeners, accept_context, certificates } = self;
        for listener in &listeners {
            tracing::info!(registry = app.registry.name(), "listening on {}", listener.url());
        }
        let https_port =
            listeners.iter().filter(|listener| listener.listen.tls).find_map(Listener::tcp_address);
        let https_port = https_port.map_or(443, |address| address.port());
        let (public, redirect): (Vec<_>, Vec<_>) =
            listeners.into_iter().partition(|listener| listener.listen.purpose == Purpose::Public);
        let (public, redirect) =
            (Acceptor::open(public, &accept_context), Acceptor::open(redirect, &accept_context));
        let handed_over = [public.handed_over(), redirect.handed_over()];
        let servers = [StopServing::default(), StopServing::default()];
        let heads = HeadBudget::default();
        let serving = |acceptor, has_sockets, stop: &StopServing| HttpServer {
            acceptor,
            live: app.live.clone(),
            has_sockets,
            heads: heads.clone(),
            stop: stop.clone(),
        };
        let (public, redirect) = (serving(public, true, &servers[0]), serving(redirect, false, &servers[1]));

        let stop = app.stop.clone();
        let hits_stop = CancellationToken::new();
        let hits = tokio::spawn({
            let (app, stop) = (app.clone(), hits_stop.clone());
            async move { app.hits.run(&*app.registry, &stop).await }
        });
        tokio::spawn(check_registry(app.clone(), stop.child_token()));
        let janitor = tokio::spawn(janitor::run(app.clone(), stop.child_token()));
        tokio::spawn(app.owners.clone().keep_records(stop.child_token()));
        tokio::spawn(certificates.run(stop.child_token()));
        let directory = app.hub.directory.clone();
        let offers =
            AbortOnDropHandle::new(tokio::spawn(async move { directory.expire_waiting_offers().await }));
        let owners = app.owners.clone();
        let promotions =
            AbortOnDropHandle::new(tokio::spawn(async move { owners.record_promotions().await }));
        let drain = Drain { app: app.clone(), accept_context, handed_over, servers }.run();
        // Among the workers of the runtime: the thread that waits for this would be woken for each connection.
        let serving = [
            public.serve(http::service(&app, routes)),
            redirect.serve(http::redirect_service(&app, https_port)),
        ];
        let serving = serving.map(|serving| AbortOnDropHandle::new(tokio::spawn(serving)));
        let serve = async {
            for serving in serving {
                serving.await.expect("serving does not panic");
            }
        };
        tokio::join!(serve, drain);
        drop((offers, promotions));
        // It ends after its round; nothing of it is lost where that takes too long.
        let _ = timeout(JANITOR.min(app.drain_left()), janitor).await;
        hits_stop.cancel();
        let close = async {
            // A panic in the task was logged; the hits of the last second are lost.
            let _ = hits.await;
            app.registry.close().await
        };
        timeout(CLOSE, close).await.map_err(|_| RegistryError::failed(NOT_CLOSED))??;
        Ok(())
    }
}

/// Has the registry looked at until `stop`, for `GET /health`.
async fn check_registry(app: Arc<App>, stop: CancellationToken) {
    let checks = check_for_ever(|| app.registry.check(), &app.is_registry_stuck);
    stop.run_until_cancelled(checks).await;
}

/// Calls `check` now and then. `is_stuck` is set while one takes too long.
async fn check_for_ever<F: Future>(mut check: impl FnMut() -> F, is_stuck: &AtomicBool) {
    let mut ticks = tokio::time::interval(CHECK_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let mut checked = pin!(check());
        if timeout(CHECK_TIMEOUT, &mut checked).await.is_err() {
            is_stuck.store(true, Ordering::Relaxed);
            tracing::error!("the registry does not answer; its disk may hang");
            checked.await;
            is_stuck.store(false, Ordering::Relaxed);
        }
    }
}

impl ServerHandle {
    /// Begins to stop. Returns at once; [`SignalServer::serve`] returns when all is done.
    pub fn shutdown(&self) {
        self.app.stop.cancel();
    }

    /// Whether it was told to stop.
    pub fn is_stopping(&self) -> bool {
        self.app.stop.is_cancelled()
    }

    /// Returns how much of `drain_timeout` is left since [`ServerHandle::shutdown`]; nothing before it.
    pub fn drain_left(&self) -> Duration {
        self.app.drain_left()
    }

    /// Puts other settings in place, for all that comes from now on; open sockets keep the limits of their own. Returns
    /// the keys that differ and take effect only after a restart.
    pub fn reload(&self, config: Config) -> Vec<&'static str> {
        let (config, after_restart) = self.app.live.load().reloaded(&config);
        self.app.reload(config);
        self.reload_certificates();
        after_restart
    }

    /// How many pod ids and sessions are live.
    pub fn stats(&self) -> Stats {
        self.app.hub.directory.stats()
    }

    /// Has the source of certificates look again at once: files are read, `tls.domains` is compared. What is wrong
    /// is logged and changes nothing; no connection is touched.
    pub fn reload_certificates(&self) {
        self.certificates.notify_one();
    }
}

#[cfg(test)]
mod stuck_handshakes;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_address_can_have_all_files() {
        let pool = |places, of_address| ConnectionCapacity { places, of_address };
        for (files, connections, expected) in [
            (usize::MAX, 10_000, [pool(10_000, u32::MAX), pool(10_000, u32::MAX)]),
            (20_000, 10_000, [pool(10_000, u32::MAX), pool(5_000, 1_250)]),
            (1024, 10_000, [pool(640, 160), pool(256, 64)]),
            (1024, 2, [pool(2, u32::MAX), pool(2, u32::MAX)]),
            (8, 10_000, [pool(5, 1), pool(2, 1)]),
        ] {
            let OpenFiles { connections, downloads } = OpenFiles::share(files, connections);
            assert_eq!([connections, downloads], expected, "{files}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_registry_that_does_not_answer_is_a_problem_until_it_does() {
        let (is_stuck, done) = (AtomicBool::new(false), Notify::new());
        let checks = check_for_ever(|| done.notified(), &is_stuck);
        let is_stuck_after = async |time| {
            tokio::time::sleep(time).await;
            is_stuck.load(Ordering::Relaxed)
        };
        let watch = async {
            let second = Duration::from_secs(1);
            assert!(!is_stuck_after(CHECK_TIMEOUT - second).await);
            assert!(is_stuck_after(second * 2).await);
            assert!(is_stuck_after(CHECK_TIMEOUT * 10).await);
            done.notify_one();
            assert!(!is_stuck_after(second).await);
            assert!(is_stuck_after(CHECK_INTERVAL + CHECK_TIMEOUT).await);
        };
        tokio::select! {
            () = checks => unreachable!(),
            () = watch => {}
        }
    }
}
