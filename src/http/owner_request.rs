//! Requests that an owner key signs.

use std::sync::Arc;

use http::StatusCode;
use salvo::{
    Request, handler,
    http::{HeaderMap, header},
};

use super::error::HttpError;
use crate::{
    app::App,
    config::Config,
    net::{
        client::{Client, network_of},
        path::normalize,
    },
    owner::{
        audience::{ReceivedVia, plain_origin},
        components::Parts,
        replay::{NotAccepted, Once, ReplayError},
        sender::Sender,
        signature::{self, VerifiedRequest},
        signature_error::SignatureError,
    },
    pods::OwnerKey,
};

/// Returns the key in the path `/owner/:key/…`, and what follows it.
pub fn owner_path(request: &Request) -> Result<(OwnerKey, String), HttpError> {
    let path = normalize(request.uri().path());
    let (key, rest) =
        path.strip_prefix("/owner/").and_then(|path| path.split_once('/')).ok_or(HttpError::NotFound)?;
    Ok((key.parse().map_err(|_| HttpError::NotFound)?, rest.to_owned()))
}

/// Lets an owner request through that a program made for this broker, and none that a web page made: a page can carry a
/// signature that was made beforehand, and sends it from the network of whoever opens the page.
pub struct FromProgram(pub Arc<App>);

#[handler]
impl FromProgram {
    async fn handle(&self, request: &mut Request) -> Result<(), HttpError> {
        let config = self.0.live.load_full();
        let checked = check_sender(request.headers()).and_then(|()| check_host(request, &config));
        if checked.is_err() && !request.headers().contains_key(header::EXPECT) {
            self.0.body_drain.drain(self.0.network(request), request.take_body(), ());
        }
        checked
    }
}

/// Refuses what browsers say of their requests. With every method but `GET` and `HEAD` they send `Origin`, even without TLS.
fn check_sender(headers: &HeaderMap) -> Result<(), HttpError> {
    // Programs on Node send `Sec-Fetch-Mode`, and that alone. Browsers send none of these fields without `Sec-Fetch-Site`.
    let is_of_page = |name: &str| {
        name == header::ORIGIN.as_str() || (name.starts_with("sec-fetch-") && name != "sec-fetch-mode")
    };
    match headers.keys().find(|name| is_of_page(name.as_str())) {
        Some(name) => {
            let message = format!(
                "a web page made this request (it has the field {name}): owner requests come from programs, such as \
                 gemmapod-signal, and never from a browser"
            );
            Err(HttpError::new(StatusCode::FORBIDDEN, message))
        }
        None => Ok(()),
    }
}

/// Refuses a request for another host than that of `public_url`. The port does not count: some proxies leave it out.
fn check_host(request: &Request, config: &Config) -> Result<(), HttpError> {
    let called = Client::of(request, &config.trusted_proxies).host;
    let (Some(url), Some(called)) = (&config.public_url, called) else { return Ok(()) };
    if same_name(&url.host(), called.host()) {
        return Ok(());
    }
    let message = format!(
        "this request is for the host {called}, and owner requests to this broker are signed for {url} and sent there; a \
         proxy in between must pass Host on"
    );
    Err(HttpError::new(StatusCode::MISDIRECTED_REQUEST, message))
}

/// Compares two names of hosts. A dot at the end makes a name absolute, and is no part of it.
fn same_name(one: &str, other: &str) -> bool {
    let bare = |name: &str| name.strip_suffix('.').unwrap_or(name).to_owned();
    bare(one).eq_ignore_ascii_case(&bare(other))
}

/// How a request came in.
pub fn received_via(request: &Request) -> ReceivedVia {
    ReceivedVia { tls: request.scheme().as_str() == "https", local: request.local_addr().clone().into_std() }
}

/// Returns who signed the request, as the signature alone proves it.
fn verify(
    app: &App,
    config: &Config,
    request: &Request,
    has_body: bool,
) -> Result<VerifiedRequest, HttpError> {
    let audience = received_via(request).audience(config);
    // With several names for one listener, the one by which the client called it.
    let Client { scheme, host, .. } = Client::of(request, &[]);
    let called = host.map(|host| plain_origin(&format!("{scheme}://{host}")));
    let called = audience.iter().find(|url| called.as_ref() == Some(url));
    let origin = called.or(audience.first()).ok_or_else(|| {
        let message =
            "public_url is not set, so that this broker cannot tell requests that are signed for it";
        HttpError::new(StatusCode::FORBIDDEN, message)
    })?;
    let path_and_query = request.uri().path_and_query().map_or("/", |path| path.as_str());
    let parts = Parts { method: request.method(), origin, path_and_query, headers: request.headers() };
    signature::verify(&parts, has_body, app.clock.now()).map_err(|error| match error {
        SignatureError::BadSignature => {
            HttpError::NotSigned(format!("{error}; requests to this broker are signed for {origin}"))
        }
        error => HttpError::NotSigned(error.to_string()),
    })
}

/// Returns who signed the request, which is taken with that: whatever comes of it, nobody can send it again.
pub async fn signed(
    app: &App,
    config: &Config,
    request: &Request,
    has_body: bool,
) -> Result<VerifiedRequest, HttpError> {
    let signed = verify(app, config, request, has_body)?;
    take_once(app, request, &signed).await?;
    Ok(signed)
}

/// Takes a request that `key` must have signed.
pub async fn signed_by(app: &App, request: &Request, key: OwnerKey, has_body: bool) -> Result<(), HttpError> {
    let signed = verify(app, &app.live.load_full(), request, has_body)?;
    if signed.key != key {
        let message = "sign with the owner key in the path: nobody else can do this for it";
        return Err(HttpError::new(StatusCode::FORBIDDEN, message));
    }
    take_once(app, request, &signed).await
}

/// Takes a signed request, if it was not taken before.
async fn take_once(app: &App, request: &Request, signed: &VerifiedRequest) -> Result<(), HttpError> {
    let network = network_of(request, &app.live.load().trusted_proxies).counted;
    let VerifiedRequest { key, created, expires, nonce } = signed;
    // Where this fails, the request counts for a stranger.
    let from = Sender::new(network, app.owners.owns_anything(key, network).await.unwrap_or(false));
    let once = Once { key: *key, name: nonce, made: *created, ends: *expires, from };
    let accepted = app.replay.accept(&once, app.clock.now(), app.clock.running()).await;
    accepted.map_err(|error| match error {
        NotAccepted::Registry(error) => error.into(),
        NotAccepted::Refused(error) => match error {
            ReplayError::TooManyForKey | ReplayError::TooManyForNetwork => {
                HttpError::new(StatusCode::TOO_MANY_REQUESTS, error.to_string())
            }
            ReplayError::Full => HttpError::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string()),
            _ => HttpError::NotSigned(error.to_string()),
        },
    })
}
