//! HTTP to an ACME directory: roots, time-outs, bounds, and what it asks us to wait.

use std::{
    collections::HashMap,
    error::Error as StdError,
    io,
    path::Path,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Request, StatusCode,
    header::{RETRY_AFTER, USER_AGENT},
};
use http_body_util::{BodyExt, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient, Problem};
use tokio::time::timeout;
use tokio_rustls::rustls::{
    self, ClientConfig, RootCertStore, pki_types::UnixTime, time_provider::TimeProvider,
};

use super::setup_error::SetupError;
use crate::{
    clock::Clock,
    regular_file,
    tls::{pem, provider},
};

/// A directory that does not answer within this time is taken for unreachable.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Certificate chains are the largest answers, some kilobytes each.
const LARGEST_ANSWER: usize = 1 << 20;
/// Answers whose `Retry-After` is remembered.
const REMEMBERED: usize = 64;

/// The client of one directory; clones share connections.
#[derive(Clone)]
pub struct DirectoryClient {
    client: Client<HttpsConnector<HttpConnector>, BodyWrapper<Bytes>>,
    clock: Clock,
    /// What successful answers of an URL asked us to wait before the next request.
    waits: Arc<Mutex<HashMap<String, Duration>>>,
}

/// The directory gave no answer that ACME knows how to go on with.
#[derive(Debug, thiserror::Error)]
pub enum NoAnswer {
    #[error("it did not answer within {} s", TIMEOUT.as_secs())]
    TimedOut,
    #[error("{0}")]
    Tls(rustls::Error),
    #[error("{0}")]
    Unreachable(String),
    #[error("HTTP status {status}")]
    Refused { status: StatusCode, problem: Option<Problem>, retry_after: Option<Duration> },
}

impl DirectoryClient {
    /// A client that trusts the system's roots and the one in `root`.
    pub fn new(root: Option<&Path>, clock: Clock) -> Result<Self, SetupError> {
        let mut roots = RootCertStore::empty();
        // Certificates of the system that cannot be read are no reason to trust none.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if let Some(path) = root {
            let wrong = |why: String| SetupError::Root { path: path.into(), why };
            let text =
                regular_file::read(path).map_err(|error| wrong(format!("cannot be read ({error})")))?;
            for certificate in pem::chain(&text).map_err(|problem| wrong(problem.to_string()))? {
                roots.add(certificate).map_err(|_| wrong("holds something that is no root".into()))?;
            }
        }
        let config = ClientConfig::builder_with_details(provider(), Arc::new(Dates(clock.clone())))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(config)
            .https_only()
            .enable_http1()
            .enable_http2()
            .build();
        let client = Client::builder(TokioExecutor::new()).build(connector);
        Ok(Self { client, clock, waits: Arc::default() })
    }

    /// What the last answer of `url` asked us to wait.
    pub fn wait_of(&self, url: &str) -> Option<Duration> {
        self.waits.lock().unwrap_or_else(PoisonError::into_inner).remove(url)
    }

    fn remember(&self, url: String, wait: Duration) {
        let mut waits = self.waits.lock().unwrap_or_else(PoisonError::into_inner);
        if waits.len() >= REMEMBERED {
            waits.clear();
        }
        waits.insert(url, wait);
    }

    async fn ask(self, mut request: Request<BodyWrapper<Bytes>>) -> Result<BytesResponse, NoAnswer> {
        const AGENT: &str = concat!("gemmapod-signal/", env!("CARGO_PKG_VERSION"), " instant-acme");
        request.headers_mut().insert(USER_AGENT, HeaderValue::from_static(AGENT));
        let url = request.uri().to_string();
        let answer = self.client.request(request).await.map_err(|error| no_answer(&error))?;
        let (parts, body) = answer.into_parts();
        let body = Limited::new(body, LARGEST_ANSWER).collect().await.map_err(|error| no_answer(&*error))?;
        let body = body.to_bytes();
        let retry_after = retry_after(&parts.headers, self.clock.now());
        // instant-acme itself looks for rejected nonces among answers with status 400.
        let problem =
            serde_json::from_slice::<Problem>(&body).ok().filter(|problem| problem.r#type.is_some());
        let is_error = parts.status.is_client_error() || parts.status.is_server_error();
        if is_error && (parts.status != StatusCode::BAD_REQUEST || problem.is_none()) {
            return Err(NoAnswer::Refused { status: parts.status, problem, retry_after });
        }
        if let Some(wait) = retry_after {
            self.remember(url, wait);
        }
        Ok(BytesResponse { parts, body: Box::new(body) })
    }
}

impl HttpClient for DirectoryClient {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let asked = timeout(TIMEOUT, self.clone().ask(request));
        Box::pin(async move {
            asked
                .await
                .unwrap_or(Err(NoAnswer::TimedOut))
                .map_err(|no_answer| Error::Other(Box::new(no_answer)))
        })
    }
}

/// The clock by which the directory's own certificate is checked.
#[derive(Debug)]
struct Dates(Clock);

impl TimeProvider for Dates {
    fn current_time(&self) -> Option<UnixTime> {
        self.0.now().duration_since(SystemTime::UNIX_EPOCH).ok().map(UnixTime::since_unix_epoch)
    }
}

/// What `Retry-After` asks for, as seconds or as a date.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    match value.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => Some(httpdate::parse_http_date(value).ok()?.duration_since(now).unwrap_or_default()),
    }
}

fn no_answer(error: &(dyn StdError + 'static)) -> NoAnswer {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(tls) = error.downcast_ref::<rustls::Error>() {
            return NoAnswer::Tls(tls.clone());
        }
        // The source of an `io::Error` is that of what it wraps, which would be passed over.
        let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        cause = wrapped.map(|wrapped| -> &(dyn StdError + 'static) { wrapped }).or_else(|| error.source());
    }
    NoAnswer::Unreachable(plain(error).to_string())
}

/// The innermost cause: the outer ones only say that a request failed.
fn plain<'a>(mut error: &'a (dyn StdError + 'static)) -> &'a (dyn StdError + 'static) {
    while let Some(source) = error.source() {
        error = source;
    }
    error
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        let of = |value: &'static str| {
            retry_after(&HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_static(value))]), now)
        };
        assert_eq!(of("120"), Some(Duration::from_secs(120)));
        assert_eq!(of("Sun, 06 Nov 1994 08:50:37 GMT"), Some(Duration::from_secs(60)));
        assert_eq!(of("Sun, 06 Nov 1994 08:00:00 GMT"), Some(Duration::ZERO));
        assert_eq!(of("soon"), None);
    }
}
