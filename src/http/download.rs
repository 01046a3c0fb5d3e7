//! `GET|HEAD /:slug`: a pod, with the headers that fence it in.

use std::{ops::Range, sync::Arc};

use bytes::Bytes;
use futures_util::StreamExt;
use salvo::{
    Request, Response, handler,
    http::{
        HeaderMap, HeaderValue, Method, StatusCode, header,
        headers::{ContentRange, ETag, HeaderMapExt, IfRange},
    },
};

use super::{
    compression,
    conditions::{Conditions, precondition_failed},
    downloads::DownloadPermit,
    error::HttpError,
    isolation, meta,
    pod_path::slug_of,
};
use crate::{
    app::App,
    config::Config,
    net::{budget::ClientBudget, client::Client},
    pods::{Blob, DiskRead, PodRecord, RegistryError, Slug},
};

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
    let config = app.live.load_full();
    let client = Client::of(request, &config.trusted_proxies).address;
    let permit = app.downloads.begin(client, config.http.max_connections_per_address)?;
    // A HEAD opens the blob too: what it says must be what a GET would find.
    let registry = app.registry.clone();
    let opened = app.downloads.open(client, async move { registry.get_pod(&slug).await }).await?;
    let (record, blob) = opened.ok_or(HttpError::NotFound)?;
    if record.is_over(app.clock.now()) {
        return Err(HttpError::NotFound);
    }
    if isolation::redirect(&slug, request, response, &config) {
        return Ok(());
    }
    if blob.len() != record.blob_size {
        let problem = format!("the blob of {slug} has {} bytes in place of {}", blob.len(), record.blob_size);
        return Err(RegistryError::failed(problem).into());
    }
    let blob = is_get.then_some(blob);
    let answer = choose(app, &record, request, is_get)?;
    fence(response, &record, &config);
    isolation::fence(request, response, &config);
    match answer {
        Chosen::NotModified(etag) => {
            response.headers_mut().typed_insert(etag);
            response.status_code(StatusCode::NOT_MODIFIED);
        }
        Chosen::Compressed(etag, bytes) => {
            response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            response.headers_mut().typed_insert(etag);
            response.headers_mut().insert(header::CONTENT_LENGTH, bytes.len().into());
            if is_get {
                response.body(Bytes::from_owner(Downloaded { bytes, _permit: permit }));
            }
        }
        Chosen::Plain(etag, range) => {
            if let Some(blob) = blob.as_ref().filter(|_| is_compressible(request.headers())) {
                app.compression.load().begin(record.digest, blob);
            }
            response.headers_mut().typed_insert(etag);
            send(
                response,
                record.blob_size,
                range,
                blob,
                (permit, app.downloads.pieces(app.limits.network(client))),
                app.downloads.read(client),
            );
        }
    }
    if is_get {
        app.hits.count(&record);
    }
    Ok(())
}

/// What a request for a pod is answered with.
enum Chosen {
    /// The client has it: this tag is one of those that it named.
    NotModified(ETag),
    /// The pod in gzip.
    Compressed(ETag, Bytes),
    /// The pod as it is, or one range of it.
    Plain(ETag, Option<Range<u64>>),
}

/// Chooses the answer in the order of RFC 9110, section 13.2.2. An error is returned before any field of a
/// representation is written: the answer is none.
fn choose(app: &App, record: &PodRecord, request: &Request, is_get: bool) -> Result<Chosen, HttpError> {
    let headers = request.headers();
    let is_compressible = is_compressible(headers);
    let [plain, compressed] = etags(record);
    let conditions = Conditions::of(headers);
    let at_hand = is_compressible.then(|| app.compression.load().get(&record.digest)).flatten();
    let at_hand = at_hand.filter(|_| conditions.permits(&compressed));
    if at_hand.is_none() && !conditions.permits(&plain) {
        return Err(precondition_failed());
    }
    if conditions.names(&plain) {
        return Ok(Chosen::NotModified(plain));
    }
    if is_compressible && conditions.names(&compressed) {
        return Ok(Chosen::NotModified(compressed));
    }
    if let Some(bytes) = at_hand {
        return Ok(Chosen::Compressed(compressed, bytes));
    }
    let range = if is_get { wanted_range(request, &plain, record.blob_size)? } else { None };
    Ok(Chosen::Plain(plain, range))
}

/// Returns `true` if the client takes gzip and wants no range of the pod as it is.
fn is_compressible(headers: &HeaderMap) -> bool {
    compression::is_accepted(headers) && !headers.contains_key(header::RANGE)
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
    headers.insert(meta::POD_UPLOAD, HeaderValue::from_static(meta::upload_of(record)));
}

/// The tags of a pod as it is and in gzip, which must differ as they are strong (RFC 9110, section 8.8.3.3).
pub fn etags(record: &PodRecord) -> [ETag; 2] {
    ["", "-gzip"]
        .map(|suffix| format!("\"{}{suffix}\"", record.digest).parse().expect("hex digits fit an entity tag"))
}

/// The part that the `Range` header asks for (RFC 9110, section 14). A list of ranges is answered with the whole, and
/// so is what is no range of bytes.
fn wanted_range(request: &Request, etag: &ETag, length: u64) -> Result<Option<Range<u64>>, HttpError> {
    let headers = request.headers();
    let Some(range) = headers.get(header::RANGE).and_then(|range| byte_range(range, length)) else {
        return Ok(None);
    };
    // One that cannot be read is a condition all the same, and false.
    let is_met = |condition: IfRange| !condition.is_modified(Some(etag), None);
    if headers.contains_key(header::IF_RANGE) && !headers.typed_get().is_some_and(is_met) {
        return Ok(None);
    }
    if range.is_empty() { Err(HttpError::OutOfRange(length)) } else { Ok(Some(range)) }
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

/// Bytes of a pod in memory on their way out.
struct Downloaded {
    bytes: Bytes,
    _permit: DownloadPermit,
}

impl AsRef<[u8]> for Downloaded {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Writes a pod of `length` bytes, or a range of it; without `blob`, only what the head says of it.
fn send(
    response: &mut Response,
    length: u64,
    range: Option<Range<u64>>,
    blob: Option<Blob>,
    (permit, budget): (DownloadPermit, ClientBudget),
    in_turn: impl Fn(DiskRead) -> DiskRead + Send + Sync + 'static,
) {
    if let Some(range) = &range {
        let field = ContentRange::bytes(range.clone(), length).expect("the range is within the blob");
        response.status_code(StatusCode::PARTIAL_CONTENT);
        response.headers_mut().typed_insert(field);
    }
    let range = range.unwrap_or(0..length);
    response.headers_mut().insert(header::CONTENT_LENGTH, (range.end - range.start).into());
    let Some(blob) = blob else { return };
    // The permit lasts as long as the bytes are held, which another version may have replaced, or the file is open.
    if let Some(bytes) = blob.memory() {
        let bytes = bytes.slice(range.start as usize..range.end as usize);
        response.body(Bytes::from_owner(Downloaded { bytes, _permit: permit }));
    } else {
        response.stream(blob.pieces(range, move || budget.permit(1), in_turn).map(move |piece| {
            let _ = &permit;
            piece
        }));
    }
}
