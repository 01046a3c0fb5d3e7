//! The answers to the http-01 challenges of ACME (RFC 8555, section 8.3).

use std::sync::Arc;

use salvo::{
    Request, Response, Router, handler,
    http::{HeaderValue, header},
};

use super::{error::HttpError, get_or_head::get_or_head};
use crate::{app::App, net::path::normalize};

/// The route at which an ACME directory looks for http-01.
pub fn challenge_route(app: &Arc<App>) -> Router {
    get_or_head(".well-known/acme-challenge/{token}", Challenge(app.clone()))
}

/// Returns the answer to the http-01 challenge under a normalized path, or `None` if none is awaited there.
pub fn challenge_answer(app: &App, path: &str) -> Option<String> {
    app.http_challenges.get(path.strip_prefix("/.well-known/acme-challenge/")?)
}

struct Challenge(Arc<App>);

#[handler]
impl Challenge {
    async fn handle(&self, request: &mut Request, response: &mut Response) -> Result<(), HttpError> {
        let path = normalize(request.uri().path());
        let answer = challenge_answer(&self.0, &path).ok_or(HttpError::NotFound)?;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        headers.insert(header::CONTENT_LENGTH, answer.len().into());
        response.body(answer);
        Ok(())
    }
}
