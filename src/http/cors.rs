//! Lets pages of any origin upload, as the Fetch standard has browsers ask, and read what they were answered.

use salvo::{
    Depot, FlowCtrl, Request, Response, handler,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
};

use super::error::HttpError;
use crate::net::path::normalize;

/// The path of uploads.
const PODS: &str = "/pods";
/// Response fields that a page needs and could not read otherwise: when to come back, how to be let in.
const EXPOSED: &str =
    "retry-after,ratelimit,ratelimit-policy,www-authenticate,accept-signature,accept-encoding";
/// Request fields that the broker itself reads. Browsers ask for each that a page sets.
const READ_HERE: &str = "content-type,authorization,content-digest,signature-input,signature";
/// Bytes of a list of requested fields that is repeated.
const MAX_REQUESTED: usize = 4096;
/// Fields in a list that is repeated.
const MAX_NAMES: usize = 64;

/// Adds the fields that let a page of any origin read the answer, to all answers at the path of uploads: those of
/// handlers before the router too.
pub struct AnyOriginUploads;

#[handler]
impl AnyOriginUploads {
    async fn handle(
        &self,
        request: &mut Request,
        depot: &mut Depot,
        response: &mut Response,
        flow: &mut FlowCtrl,
    ) {
        let is_upload = normalize(request.uri().path()) == PODS;
        flow.call_next(request, depot, response).await;
        if is_upload {
            let headers = response.headers_mut();
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
            headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED));
        }
    }
}

/// `OPTIONS /pods`: answers a browser that asks whether a page may upload.
pub struct Preflight;

#[handler]
impl Preflight {
    async fn handle(&self, request: &mut Request, response: &mut Response) -> Result<(), HttpError> {
        if normalize(request.uri().path()) != PODS {
            return Err(HttpError::NotFound);
        }
        response.status_code(StatusCode::NO_CONTENT);
        let allowed = requested(request.headers()).unwrap_or(HeaderValue::from_static(READ_HERE));
        let headers = response.headers_mut();
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("POST,OPTIONS"));
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, allowed);
        headers.insert(header::VARY, HeaderValue::from_static("access-control-request-headers"));
        Ok(())
    }
}

/// Returns the fields that the page is going to send, whatever they are: libraries add some to every request (tracing
/// does), and the broker ignores those that it does not know. Returns `None` if there are none, if one is no name of a
/// field, or if there are too many to repeat.
fn requested(headers: &HeaderMap) -> Option<HeaderValue> {
    let mut names = Vec::new();
    let mut bytes = 0;
    for line in headers.get_all(header::ACCESS_CONTROL_REQUEST_HEADERS) {
        bytes += line.len();
        if bytes > MAX_REQUESTED {
            return None;
        }
        for name in line.to_str().ok()?.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            names.push(name.parse::<HeaderName>().ok()?);
        }
    }
    if names.is_empty() || names.len() > MAX_NAMES {
        return None;
    }
    let names: Vec<_> = names.iter().map(HeaderName::as_str).collect();
    HeaderValue::try_from(names.join(",")).ok()
}
