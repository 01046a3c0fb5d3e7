//! Serves all connections of a front, each in a task of its own, until it is told to stop.

use salvo::{ConnCtrl, Service};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, timeout_at},
};
use tokio_util::sync::CancellationToken;

use super::{
    acceptor::{Acceptor, Ready},
    client::trusts,
    heads::HeadBudget,
    http::Connection,
};
use crate::config::Live;

/// Serves HTTP on the connections of a [`Acceptor`].
pub struct HttpServer {
    pub acceptor: Acceptor,
    pub live: Live,
    /// Whether WebSockets are served over HTTP/2.
    pub has_sockets: bool,
    pub heads: HeadBudget,
    pub stop: StopServing,
}

/// Stops an [`HttpServer`]; clones stop the same one.
#[derive(Clone, Default)]
pub struct StopServing(watch::Sender<Option<Instant>>);

impl StopServing {
    /// Lets running requests finish until `end`, closes idle connections at once, and takes no further ones.
    pub fn stop_by(&self, end: Instant) {
        self.0.send_replace(Some(end));
    }
}

impl HttpServer {
    /// Serves until it is stopped and all connections have ended. Dropping the future ends them at once.
    pub async fn serve(mut self, service: Service) {
        let mut stop = self.stop.0.subscribe();
        let graceful = CancellationToken::new();
        let mut connections = JoinSet::new();
        let end = loop {
            tokio::select! {
                ready = self.acceptor.next() => self.begin(ready, &service, &graceful, &mut connections),
                Some(ended) = connections.join_next() => report(ended),
                end = stop.wait_for(Option::is_some) => break end.ok().and_then(|end| *end),
            }
        };
        graceful.cancel();
        let drained = async {
            while let Some(ended) = connections.join_next().await {
                report(ended);
            }
        };
        // What goes on for longer is cut off.
        let _ = timeout_at(end.unwrap_or_else(Instant::now), drained).await;
        connections.shutdown().await;
    }

    fn begin(
        &self,
        ready: Ready,
        service: &Service,
        graceful: &CancellationToken,
        connections: &mut JoinSet<()>,
    ) {
        let Ready { stream, local, remote, scheme, connection_permits, http2_place } = ready;
        let (config, conn_ctrl) = (self.live.load_full(), ConnCtrl::new());
        let connection = Connection {
            has_sockets: self.has_sockets,
            is_proxy: connection_permits.client.is_none() && trusts(&config.trusted_proxies, &remote),
            config,
            conn_ctrl: conn_ctrl.clone(),
            connection_permits,
            http2_place,
            heads: self.heads.clone(),
            stop: graceful.clone(),
        };
        let handler = service.hyper_handler(local, remote, scheme, None, conn_ctrl, None);
        // In a box: what is left of the connection after an upgrade may hold a waker, and with it all of a task.
        connections.spawn(Box::pin(async move {
            if let Err(error) = connection.serve(stream, handler).await {
                tracing::debug!(%error, "a connection ended with an error");
            }
        }));
    }
}

fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "the task of a connection failed");
    }
}
