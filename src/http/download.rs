//! `GET|HEAD /:slug`: a pod, with the headers that fence it in.

use std::{ops::Range, sync::Arc};

use salvo::{
    Request, Response, handler,
    http::{
        HeaderValue, Method, StatusCode, header,
        headers::{ContentRange, ETag, HeaderMapExt, IfNoneMatch, IfRange},
    },
};

use super::{App, compression, error::HttpError, isolation};
use crate::{
    config::Config,
    pods::{Blob, PodRecord, Slug},
};

/// What a pod may load and talk to: inline scripts, WebAssembly, any signalling broker, and the model CDNs of the
/// in-browser fallback. The same, value by value, as the reference's.
pub const POD_CSP: &str = "default-src 'none'; \
    script-src 'self' 'unsafe-inline' 'wasm-unsafe-eval' https://cdn.jsdelivr.net; \
    style-src 'self' 'unsafe-inline'; \
    connect-src 'self' wss: stun: https://cdn.jsdelivr.net https://huggingface.co https://*.hf.co https://cas-bridge.xethub.hf.co; \
    worker-src 'self' blob:; \
    img-src 'self' data: blob:; \
    font-src 'self' data:; \
    frame-ancestors *; \
    form-action 'none'; \
    base-uri 'self'";

/// The browser features that a pod may not use.
pub const POD_PERMISSIONS: &str = "camera=(), microphone=(), geolocation=(), payment=(), usb=(), \
    magnetometer=(), accelerometer=(), gyroscope=()";

pub struct Download(pub Arc<App>);

#[handler]
impl Download {
    async fn handle(&self, request: &mut Request, response: &mut Response) -> Result<(), HttpError> {
        serve(&self.0, slug_of(request, "")?, request, response).await
    }
}

/// Serves a pod, or leads to where it is served.
pub async fn serve(
    app: &App,
    slug: Slug,
    request: &Request,
    response: &mut Response,
) -> Result<(), HttpError> {
    let is_get = request.method() == Method::GET;
    let (record, blob) = if is_get {
        let (record, blob) = app.registry.get_pod(&slug).await?.ok_or(HttpError::NotFound)?;
        (record, Some(blob))
    } else {
        (app.registry.get_record(&slug).await?.ok_or(HttpError::NotFound)?, None)
    };
    if record.is_over(app.clock.now()) {
        return Err(HttpError::NotFound);
    }
    let config = app.live.load_full();
    if isolation::redirect(&slug, request, response, &config) {
        return Ok(());
    }
    fence(response, &record, &config);
    isolation::fence(request, response, &config);
    let is_compressible =
        compression::is_accepted(request.headers()) && !request.headers().contains_key(header::RANGE);
    let (plain, compressed) = (etag(&record, ""), etag(&record, "-gzip"));
    if is_known(request, &plain) {
        unchanged(response, plain);
    } else if is_compressible && is_known(request, &compressed) {
        unchanged(response, compressed);
    } else if is_compressible && let Some(bytes) = app.compression.load().get(&record.digest) {
        response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        response.headers_mut().typed_insert(compressed);
        response.headers_mut().insert(header::CONTENT_LENGTH, bytes.len().into());
        if is_get {
            response.body(bytes);
        }
    } else {
        response.headers_mut().typed_insert(plain.clone());
        if let Some(blob) = blob {
            if is_compressible {
                app.compression.load().begin(record.digest, &blob);
            }
            send(response, blob, wanted_range(request, &plain, record.blob_size))?;
        } else {
            response.headers_mut().insert(header::CONTENT_LENGTH, record.blob_size.into());
        }
    }
    if is_get {
        app.hits.count(slug);
    }
    Ok(())
}

/// Whether the client has this representation already (RFC 9110, section 13.1.2).
fn is_known(request: &Request, etag: &ETag) -> bool {
    request.headers().typed_get::<IfNoneMatch>().is_some_and(|known| !known.precondition_passes(etag))
}

fn unchanged(response: &mut Response, etag: ETag) {
    response.headers_mut().typed_insert(etag);
    response.status_code(StatusCode::NOT_MODIFIED);
}

fn fence(response: &mut Response, record: &PodRecord, config: &Config) {
    let owner = HeaderValue::try_from(record.owner_key.to_string()).expect("hex digits fit a header");
    let headers = response.headers_mut();
    headers.insert("permissions-policy", config.pods.permissions_policy.clone());
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("strict-origin-when-cross-origin"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=300, must-revalidate"));
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    headers.insert("x-pod-owner", owner);
}

/// The slug in a path of the form `/SLUG` and `suffix`, to the letter.
pub fn slug_of(request: &Request, suffix: &str) -> Result<Slug, HttpError> {
    let path = request.uri().path();
    let slug = path.strip_prefix('/').and_then(|path| path.strip_suffix(suffix));
    slug.and_then(|slug| slug.parse().ok()).ok_or(HttpError::NotFound)
}

/// The tag of a pod in one coding: `suffix` tells codings apart, as strong tags must (RFC 9110, section 8.8.3.3).
fn etag(record: &PodRecord, suffix: &str) -> ETag {
    format!("\"{}{suffix}\"", record.digest).parse().expect("hex digits fit an entity tag")
}

/// Which part of `length` bytes is asked for.
enum Wanted {
    All,
    Part(u64, u64),
    Unsatisfiable,
}

/// What the `Range` header asks for (RFC 9110, section 14). A list of ranges is answered with the whole, and so is
/// what is no range of bytes.
fn wanted_range(request: &Request, etag: &ETag, length: u64) -> Wanted {
    let headers = request.headers();
    let Some(range) = headers.get(header::RANGE).and_then(|range| byte_range(range, length)) else {
        return Wanted::All;
    };
    if headers.typed_get::<IfRange>().is_some_and(|condition| condition.is_modified(Some(etag), None)) {
        return Wanted::All;
    }
    if range.is_empty() { Wanted::Unsatisfiable } else { Wanted::Part(range.start, range.end) }
}

/// The one range that the header names, cut to `length`: empty if it lies outside, nothing if it is malformed.
fn byte_range(header: &HeaderValue, length: u64) -> Option<Range<u64>> {
    let (first, last) = header.to_str().ok()?.strip_prefix("bytes=")?.trim().split_once('-')?;
    let number = |digits: &str| {
        let plain = !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit());
        plain.then(|| digits.parse().unwrap_or(u64::MAX))
    };
    if first.is_empty() {
        return Some(length.saturating_sub(number(last)?)..length);
    }
    let first = number(first)?;
    let last = if last.is_empty() { u64::MAX } else { number(last)? };
    (first <= last).then(|| first..last.saturating_add(1).min(length))
}

fn send(response: &mut Response, blob: Blob, wanted: Wanted) -> Result<(), HttpError> {
    let length = blob.len();
    let range = match wanted {
        Wanted::All => 0..length,
        Wanted::Part(start, end) => {
            let range = ContentRange::bytes(start..end, length).expect("the range is within the blob");
            response.status_code(StatusCode::PARTIAL_CONTENT);
            response.headers_mut().typed_insert(range);
            start..end
        }
        Wanted::Unsatisfiable => {
            response.headers_mut().typed_insert(ContentRange::unsatisfied_bytes(length));
            let message = format!("the range is outside of the pod's {length} bytes");
            return Err(HttpError::new(StatusCode::RANGE_NOT_SATISFIABLE, message));
        }
    };
    response.headers_mut().insert(header::CONTENT_LENGTH, (range.end - range.start).into());
    if let Some(bytes) = blob.memory() {
        response.body(bytes.slice(range.start as usize..range.end as usize));
    } else {
        response.stream(blob.pieces(range));
    }
    Ok(())
}
