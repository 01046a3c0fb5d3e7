//! Asks of every request whether its client may make one more of its kind, before anything else is done for it.

use std::sync::Arc;

use salvo::{
    Request, Response, handler,
    http::{HeaderValue, Method, header},
};

use super::{App, error::HttpError, upload::pass_over};
use crate::net::{client::Client, limits::Kind};

/// Refuses what comes too often, with 429.
pub struct Limit(pub Arc<App>);

#[handler]
impl Limit {
    async fn handle(&self, request: &mut Request, response: &mut Response) -> Result<(), HttpError> {
        let Self(app) = self;
        let Some(kind) = kind_of(request) else { return Ok(()) };
        let client = Client::of(request, &app.live.load().trusted_proxies);
        let Err(exceeded) = app.limits.check(kind, client.address) else { return Ok(()) };
        tracing::debug!(limit = exceeded.name, "a request came too often");
        if kind == Kind::Upload {
            // A page of any origin may upload, so it may read why it was refused.
            response.headers_mut().insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
            if !request.headers().contains_key(header::EXPECT) {
                pass_over(request.take_body());
            }
        }
        Err(exceeded.into())
    }
}

/// What a request counts as. An ACME directory that looks for its challenge, and a browser that asks before it
/// uploads, count as nothing.
fn kind_of(request: &Request) -> Option<Kind> {
    let (method, path) = (request.method(), request.uri().path());
    let is_upload = path == "/pods" || !matches!(*method, Method::GET | Method::HEAD);
    match path {
        "/signal" => Some(Kind::Upgrade),
        _ if path.starts_with("/.well-known/acme-challenge/") || *method == Method::OPTIONS => None,
        _ if is_upload => Some(Kind::Upload),
        _ => Some(Kind::Read),
    }
}
