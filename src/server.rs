//! Puts the parts together: listener up, serve, drain.

use std::{io, net::SocketAddr, sync::Arc};

use salvo::{Router, Server, conn::tcp::TcpAcceptor, fuse::FuseConfig};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::{
    config::{Config, RegistryKind},
    http::{self, App},
    net::listener::{self, BindError},
    pods::{MemoryRegistry, OpenError, RedbRegistry, Registry, RegistryError},
    signal::{directory::Directory, outbox::Budget, socket::Hub},
};

/// Bytes of a request's head, as in Node: thousands of unfinished ones must fit into memory.
const MAX_HEAD: usize = 16 * 1024;
/// Bytes that are read at a time, and that wait to be written to one connection.
const MAX_BUFFER: usize = 32 * 1024;

/// A broker that listens. Until [`SignalServer::serve`] is called, connections wait.
pub struct SignalServer {
    app: Arc<App>,
    routes: Vec<Router>,
    acceptor: TcpAcceptor,
    addresses: Vec<SocketAddr>,
}

/// Puts a [`SignalServer`] together.
#[derive(Default)]
#[must_use]
pub struct Builder {
    config: Config,
    registry: Option<Arc<dyn Registry>>,
    routes: Vec<Router>,
}

/// Stops a running broker; clones stop the same one.
#[derive(Clone, Debug)]
pub struct ServerHandle {
    stop: CancellationToken,
}

/// The broker could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The registry in the data directory could not be opened.
    #[error(transparent)]
    Registry(#[from] OpenError),
    /// The address could not be bound.
    #[error(transparent)]
    Bind(#[from] BindError),
}

/// The broker ended with something left undone.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Connections could not be served any more.
    #[error("serving failed: {0}")]
    Serve(#[from] io::Error),
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

    /// Opens the registry and binds the address.
    ///
    /// # Errors
    ///
    /// The registry cannot be opened, or the address cannot be bound. The message says how to mend it.
    pub async fn bind(self) -> Result<SignalServer, StartError> {
        let Self { config, registry, routes } = self;
        let (acceptor, address) = listener::bind(&config)?;
        let registry = match registry {
            Some(registry) => registry,
            None => open_registry(&config).await?,
        };
        let hub = Hub {
            directory: Directory::new(config.signal.clone()),
            limits: Arc::new(config.signal.clone()),
            budget: Budget::new(config.signal.max_queue_total.as_u64() as usize),
            intake: Budget::new(config.signal.max_unfinished_total.as_u64() as usize),
            stop: CancellationToken::new(),
        };
        Ok(SignalServer { app: App::new(config, registry, hub), routes, acceptor, addresses: vec![address] })
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

    /// The addresses that it listens on, with the ports that the system chose.
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Something to stop it with.
    pub fn handle(&self) -> ServerHandle {
        ServerHandle { stop: self.app.hub.stop.clone() }
    }

    /// Serves until [`ServerHandle::shutdown`], then drains for at most `drain_timeout`: sockets are closed with
    /// 1012, running uploads and downloads finish.
    ///
    /// # Errors
    ///
    /// Connections can no longer be served, or the registry could not be closed.
    pub async fn serve(self) -> Result<(), ServeError> {
        let Self { app, routes, acceptor, addresses } = self;
        for address in addresses {
            tracing::info!(registry = app.registry.name(), "listening on http://{address}");
        }
        let drain_timeout = app.config.drain_timeout;
        let stop = app.hub.stop.clone();
        let mut server = Server::new(acceptor).fuse_config(fuses(&app.config));
        server.http1_mut().max_header_size(MAX_HEAD).max_buf_size(MAX_BUFFER);
        let salvo = server.handle();
        let hits_stop = CancellationToken::new();
        let hits = tokio::spawn({
            let (app, stop) = (app.clone(), hits_stop.clone());
            async move { app.hits.run(&*app.registry, &stop).await }
        });
        let drain = async {
            stop.cancelled().await;
            salvo.stop_graceful(drain_timeout);
            app.sockets.close();
            if timeout(drain_timeout, app.sockets.wait()).await.is_err() {
                tracing::warn!(sockets = app.sockets.len(), "sockets did not close in time");
            }
        };
        let (served, ()) = tokio::join!(
            async {
                let served = server.try_serve(http::service(&app, routes)).await;
                stop.cancel();
                served
            },
            drain
        );
        hits_stop.cancel();
        // A panic in the task was logged; the hits of the last second are lost.
        let _ = hits.await;
        app.registry.close().await?;
        Ok(served?)
    }
}

impl ServerHandle {
    /// Begins to stop. Returns at once; [`SignalServer::serve`] returns when all is done.
    pub fn shutdown(&self) {
        self.stop.cancel();
    }
}

fn fuses(config: &Config) -> FuseConfig {
    FuseConfig::disabled()
        .with_http1_header_timeout(config.http.head_timeout)
        .with_connection_idle_timeout(config.http.idle_timeout)
        .with_write_stall_timeout(config.http.write_timeout)
}
