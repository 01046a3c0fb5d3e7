//! `GET /signal`: from an HTTP request to a WebSocket (RFC 6455, section 4.2); over HTTP/2 it is an extended `CONNECT`
//! (RFC 8441), which becomes a WebSocket within one stream.

use std::{net::IpAddr, sync::Arc, time::Duration};

use salvo::{
    ConnCtrl, Request, Response, handler,
    http::{HeaderValue, Method, StatusCode, header},
    hyper::{
        body::Body,
        ext::Protocol,
        upgrade::{OnUpgrade, Upgraded},
    },
    rt::tokio::TokioIo,
};
use tokio::time::sleep;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::{error::HttpError, limit, owner_request, small_writes::SmallWrites};
use crate::{
    app::App,
    net::{
        client::{Client, network_of},
        connection_limiter::ConnectionPermit,
        connection_permits::{self, NoPermit, StreamPermit},
        limits::{Exceeded, RequestKind},
        path::normalize,
    },
    owner::{
        admission::Registrant,
        credentials::{
            CredentialError, CredentialSocket,
            basic::{Malformed, Presented},
        },
    },
    pods::Credential,
    signal::{admission::Admission, close::Close, socket},
};

/// When a refused client may come back.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// How long the refusal of a wrong credential is held back after too many others.
const GUESS_DELAY: Duration = Duration::from_secs(3);

pub struct Upgrade(pub Arc<App>);

#[handler]
impl Upgrade {
    async fn handle(&self, request: &mut Request, response: &mut Response) -> Result<(), HttpError> {
        let accepted = match accept(request) {
            Ok(accepted) => accepted,
            Err(error) => {
                explain(&error, response);
                return Err(error);
            }
        };
        let (client, network) = {
            let proxies = &self.0.live.load().trusted_proxies;
            (Client::of(request, proxies).address, network_of(request, proxies))
        };
        let counted = self.admit(client)?;
        let on_upgrade = request.extensions_mut().remove::<OnUpgrade>().ok_or_else(not_an_upgrade)?;
        let mut granted = Granted { on_upgrade, connection: None };
        let place = place(request)?;
        match accepted {
            Accepted::Connection(key) => {
                granted.connection = request.extensions().get::<ConnCtrl>().cloned();
                response.status_code(StatusCode::SWITCHING_PROTOCOLS);
                let headers = response.headers_mut();
                headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
                headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
                headers.insert(header::SEC_WEBSOCKET_ACCEPT, key);
            }
            Accepted::Stream => {
                response.status_code(StatusCode::OK);
            }
        }
        if let Some(protocol) = first_subprotocol(request) {
            response.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, protocol);
        }
        let registrant =
            Registrant { received_via: owner_request::received_via(request), network, proof: None };
        let connection_permits = SocketPermits { _of_address: counted, of_stream: place };
        match Presented::read(request.headers()) {
            Ok(None) => {
                let admission = limit::SocketLimits::at_socket(&self.0, client, registrant);
                self.serve(granted, connection_permits, admission, self.0.limits.network(client));
            }
            presented => {
                self.serve_with_credential(granted, connection_permits, client, registrant, presented)
            }
        }
        Ok(())
    }
}

impl Upgrade {
    fn admit(&self, client: Option<IpAddr>) -> Result<Option<ConnectionPermit>, HttpError> {
        let Self(app) = self;
        let open = app.sockets.len();
        if open >= app.live.load().signal.max_sockets as usize {
            let message = "this broker has no room for another socket";
            return Err(HttpError::Busy { message, retry_after: RETRY_AFTER });
        }
        Ok(app.limits.socket(client, open)?)
    }

    fn serve(
        &self,
        granted: Granted,
        connection_permits: SocketPermits,
        admission: Arc<dyn Admission>,
        network: Option<IpAddr>,
    ) {
        let hub = self.0.hub.clone();
        self.0.sockets.spawn(async move {
            let Some(upgraded) = granted.taken().await else { return };
            socket::serve(connection_permits.stream(upgraded), hub, admission, network, |_| ()).await;
        });
    }
}

/// A socket whose request presents a credential.
impl Upgrade {
    /// It is refused after the upgrade, if at all: hosts that are refused the upgrade stay away for minutes, and do not
    /// tell why.
    fn serve_with_credential(
        &self,
        granted: Granted,
        connection_permits: SocketPermits,
        client: Option<IpAddr>,
        registrant: Registrant,
        presented: Result<Option<Presented>, Malformed>,
    ) {
        let app = self.0.clone();
        let network = app.limits.network(client);
        let serve = async move {
            let Some(upgraded) = granted.taken().await else { return };
            let stream = connection_permits.stream(upgraded);
            match credential(&app, client, presented).await {
                Ok((credential, socket)) => {
                    let registrant = Registrant { proof: Some(credential.into()), ..registrant };
                    let admission = limit::SocketLimits::at_socket(&app, client, registrant);
                    let opened = |handle| socket.opened(handle);
                    socket::serve(stream, app.hub.clone(), admission, network, opened).await;
                }
                Err(sentence) => {
                    socket::refuse(stream, &app.hub, network, &sentence, Close::CREDENTIAL_REFUSED).await;
                }
            }
        };
        // In a box, so that its state is no part of other sockets' tasks.
        self.0.sockets.spawn(Box::pin(serve));
    }
}

/// Checks the credential that a request presented. Returns a sentence if it is refused.
async fn credential(
    app: &App,
    client: Option<IpAddr>,
    presented: Result<Option<Presented>, Malformed>,
) -> Result<(Credential, CredentialSocket), String> {
    let refused = match presented {
        Ok(Some(presented)) => match app.credentials.check(&presented, client).await {
            Ok(known) => return Ok(known),
            Err(CredentialError::Unknown) => CredentialError::Unknown.to_string(),
            Err(error) => return Err(error.to_string()),
        },
        Ok(None) | Err(Malformed) => Malformed.to_string(),
    };
    // A right one is never refused for wrong ones that came before it from the same address.
    if let Err(exceeded) = app.limits.check(RequestKind::WrongCredential, client) {
        tracing::debug!(limit = exceeded.name, "too many wrong credentials from one address");
        // A real host comes back a second after its socket was closed, and who guesses at once.
        let _ = app.stop.run_until_cancelled(sleep(GUESS_DELAY)).await;
        return Err(exceeded.sentence.into());
    }
    Err(refused)
}

/// An upgrade whose answer is on its way to the client.
struct Granted {
    on_upgrade: OnUpgrade,
    /// Of HTTP/1.1. That of HTTP/2 keeps its time-outs: other streams need them.
    connection: Option<ConnCtrl>,
}

impl Granted {
    /// Returns what was upgraded once the client has the answer, or `None` if it goes away before, which is no news.
    async fn taken(self) -> Option<Upgraded> {
        let upgraded = self.on_upgrade.await.ok()?;
        // The socket has time-outs of its own, but the answer had those of HTTP.
        if let Some(connection) = self.connection {
            connection.relax_timeouts();
        }
        Some(upgraded)
    }
}

/// What a socket counts as for as long as it is open.
struct SocketPermits {
    _of_address: Option<ConnectionPermit>,
    /// Of a socket on a stream of HTTP/2.
    of_stream: Option<StreamPermit>,
}

impl SocketPermits {
    /// Returns the stream of the socket as it is to be written to.
    fn stream(&self, upgraded: Upgraded) -> SmallWrites<TokioIo<Upgraded>> {
        SmallWrites::new(TokioIo::new(upgraded), self.of_stream.is_some())
    }
}

/// Returns the place of a WebSocket on a stream of HTTP/2, which counts as another connection of its client; nothing for
/// one that has a connection to itself, which is counted already.
fn place(request: &Request) -> Result<Option<StreamPermit>, HttpError> {
    let Some(connection_permits) = request.extensions().get::<connection_permits::ConnectionPermits>() else {
        return Ok(None);
    };
    match connection_permits.take() {
        Ok(place) => Ok(Some(place)),
        Err(NoPermit::OfClient) => Err(HttpError::TooMany(Exceeded {
            name: "connections-per-address",
            quota: connection_permits.share().of_client.into(),
            unit: Some("concurrent-requests"),
            window: Duration::ZERO,
            wait: RETRY_AFTER,
            sentence: "too many connections of your address are open, and each socket counts as one; close some, or \
                       try again later",
        })),
        Err(NoPermit::AtAll) => {
            let message = "this broker has no room for another socket";
            Err(HttpError::Busy { message, retry_after: RETRY_AFTER })
        }
    }
}

/// What becomes a WebSocket.
enum Accepted {
    /// A connection of HTTP/1.1, with the answer to the client's key.
    Connection(HeaderValue),
    /// A stream of HTTP/2, whose framing leaves nothing for a key to prove.
    Stream,
}

/// Takes the request if it is a proper upgrade.
fn accept(request: &Request) -> Result<Accepted, HttpError> {
    let uri = request.uri();
    let protocol = request.extensions().get::<Protocol>().map(Protocol::as_str);
    let is_stream = request.method() == Method::CONNECT && protocol == Some("websocket");
    if normalize(uri.path()) != "/signal" {
        return Err(HttpError::new(
            StatusCode::NOT_FOUND,
            "the signalling endpoint is /signal, without a slash at its end",
        ));
    }
    if request.method() == Method::HEAD {
        return Err(not_an_upgrade());
    }
    if request.method() != Method::GET && !is_stream {
        return Err(HttpError::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "the signalling endpoint takes GET with an upgrade to websocket",
        ));
    }
    let has_token = |name: header::HeaderName, token: &str| {
        let values = request.headers().get_all(name);
        values
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .any(|part| part.trim().eq_ignore_ascii_case(token))
    };
    let is_upgrade = || has_token(header::CONNECTION, "upgrade") && has_token(header::UPGRADE, "websocket");
    if !is_stream && !is_upgrade() {
        return Err(not_an_upgrade());
    }
    if uri.query().is_some() {
        return Err(HttpError::new(
            StatusCode::NOT_FOUND,
            "the signalling endpoint is /signal, without a query",
        ));
    }
    if !has_token(header::SEC_WEBSOCKET_VERSION, "13") {
        return Err(HttpError::new(StatusCode::UPGRADE_REQUIRED, "expected Sec-WebSocket-Version: 13"));
    }
    if is_stream {
        return Ok(Accepted::Stream);
    }
    // The frames would come after it, which nobody reads.
    if !request.body().is_end_stream() {
        return Err(HttpError::new(
            StatusCode::BAD_REQUEST,
            "an upgrade to websocket has no body: send it without one",
        ));
    }
    let key = request
        .headers()
        .get(header::SEC_WEBSOCKET_KEY)
        .map(HeaderValue::as_bytes)
        .filter(|key| key.len() == 24);
    let key = key.ok_or_else(|| {
        HttpError::new(StatusCode::BAD_REQUEST, "expected a Sec-WebSocket-Key of 24 characters")
    })?;
    let answer = HeaderValue::try_from(derive_accept_key(key)).expect("base64 fits a header");
    Ok(Accepted::Connection(answer))
}

/// Returns the first of the subprotocols that the client offers. It is accepted whatever it is, because clients fail
/// where none of theirs is.
fn first_subprotocol(request: &Request) -> Option<HeaderValue> {
    let values = request.headers().get_all(header::SEC_WEBSOCKET_PROTOCOL);
    let mut names = values.iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    names.find_map(|name| {
        let name = name.trim_ascii();
        is_token(name).then(|| HeaderValue::from_bytes(name).expect("a token fits a header"))
    })
}

/// Whether `name` is a token (RFC 9110, section 5.6.2).
fn is_token(name: &[u8]) -> bool {
    let fits = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    !name.is_empty() && name.iter().all(fits)
}

fn not_an_upgrade() -> HttpError {
    HttpError::new(StatusCode::UPGRADE_REQUIRED, "expected an upgrade to websocket")
}

/// The headers that go with a refusal.
fn explain(error: &HttpError, response: &mut Response) {
    let headers = response.headers_mut();
    match error {
        HttpError::Refused(StatusCode::UPGRADE_REQUIRED, _) => {
            headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
            headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
            headers.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        }
        HttpError::Refused(StatusCode::METHOD_NOT_ALLOWED, _) => {
            headers.insert(header::ALLOW, HeaderValue::from_static("GET"));
        }
        _ => {}
    }
}
