//! Asks of every request whether its client may make one more of its kind, before anything else is done for it.

use std::{mem, net::IpAddr, sync::Arc, time::Duration};

use salvo::{
    Request, handler,
    http::{Method, header},
};
use tokio::time::{Instant, sleep};

use super::{challenge::challenge_answer, error::HttpError};
use crate::{
    app::App,
    net::{
        client::Client,
        limits::{Limits, RequestKind},
        network::ClientNetwork,
        path::normalize,
    },
    owner::admission::Registrant,
    signal::{
        admission::Admission,
        entitlement::{Entitlement, Key},
    },
};

/// How long a registration waits for its turn.
const PATIENCE: Duration = Duration::from_secs(5);

/// Refuses what comes too often, with 429.
pub struct Limit(pub Arc<App>);

#[handler]
impl Limit {
    async fn handle(&self, request: &mut Request) -> Result<(), HttpError> {
        let Self(app) = self;
        let Some(kind) = kind_of(app, request) else { return Ok(()) };
        check(app, kind, request).await
    }
}

/// The same for a listener that only redirects: everything is a read.
pub struct LimitReads(pub Arc<App>);

#[handler]
impl LimitReads {
    async fn handle(&self, request: &mut Request) -> Result<(), HttpError> {
        let Self(app) = self;
        let Some(_) = kind_of(app, request) else { return Ok(()) };
        check(app, RequestKind::Read, request).await
    }
}

async fn check(app: &App, kind: RequestKind, request: &mut Request) -> Result<(), HttpError> {
    let client = Client::of(request, &app.live.load().trusted_proxies);
    let Err(exceeded) = app.limits.check(kind, client.address) else { return Ok(()) };
    let network = app.limits.network(client.address);
    tracing::debug!(limit = exceeded.name, "a request came too often");
    // A head of many fields takes a hundred kilobytes, and nothing of it is needed any more.
    let headers = mem::take(request.headers_mut());
    let is_read_on = matches!(kind, RequestKind::Upload | RequestKind::OwnerChange)
        && !headers.contains_key(header::EXPECT);
    drop(headers);
    app.tarpit.hold(request, network).await;
    if is_read_on {
        app.body_drain.drain(network, request.take_body(), ());
    }
    Err(exceeded.into())
}

/// What a request counts as. Only an ACME directory that looks for its challenge counts as nothing: nobody else knows
/// the token.
fn kind_of(app: &App, request: &Request) -> Option<RequestKind> {
    let (method, path) = (request.method(), normalize(request.uri().path()));
    match (&*path, method) {
        (path, &(Method::GET | Method::HEAD)) if challenge_answer(app, path).is_some() => None,
        (_, &Method::OPTIONS) => Some(RequestKind::Read),
        ("/signal", _) => Some(RequestKind::Upgrade),
        ("/pods", _) => Some(RequestKind::Upload),
        (_, &(Method::GET | Method::HEAD)) => Some(RequestKind::Read),
        (_, &(Method::PUT | Method::DELETE)) => Some(RequestKind::OwnerChange),
        (path, &Method::POST) if path.starts_with("/owner/") => Some(RequestKind::OwnerChange),
        _ => Some(RequestKind::Upload),
    }
}

/// Bounds the registrations and offers of one socket's client. One registration too many waits for a while, because real
/// origins take no notice of an error frame and come back a second after their socket was closed.
pub struct SocketLimits {
    limits: Arc<Limits>,
    client: Option<IpAddr>,
    admission: Arc<dyn Admission>,
}

impl SocketLimits {
    /// For a socket of `client`.
    pub fn at_socket(app: &App, client: Option<IpAddr>, registrant: Registrant) -> Arc<dyn Admission> {
        Arc::new(Self { limits: app.limits.clone(), client, admission: app.owners.at(registrant) })
    }
}

#[salvo::async_trait]
impl Admission for SocketLimits {
    async fn entitlement(&self, pod_id: &str, token: Option<&str>) -> Result<Entitlement, String> {
        let end = Instant::now() + PATIENCE;
        while let Err(exceeded) = self.limits.check(RequestKind::Registration, self.client) {
            if Instant::now() + exceeded.wait > end {
                return Err("too many registrations; try again later".into());
            }
            sleep(exceeded.wait).await;
        }
        self.admission.entitlement(pod_id, token).await
    }

    async fn registered(&self, pod_id: &str, proof: Option<Key>) -> Result<bool, String> {
        self.admission.registered(pod_id, proof).await
    }

    fn count_offer(&self) -> Result<(), &'static str> {
        self.limits.check(RequestKind::Offer, self.client).map_err(|exceeded| {
            tracing::debug!(limit = exceeded.name, "an offer came too often");
            exceeded.sentence
        })
    }

    fn network(&self) -> ClientNetwork {
        self.admission.network()
    }
}
