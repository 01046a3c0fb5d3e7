//! What an owner asks of a broker, from the owner's own machine: signed requests.

use std::{error::Error, fmt, ops::Deref, path::Path, time::SystemTime};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri, header, request};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use tokio::time::{Duration, timeout};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::{audience::plain_origin, client_hints, components::Parts, key::OwnerSecret, signature};
use crate::{
    host,
    pods::{OwnerKey, Slug},
    printable::printable,
    regular_file,
    tls::pem,
};

/// A broker that does not answer within this time is given up; uploads of 50 MB must fit.
const TIMEOUT: Duration = Duration::from_mins(10);
/// Bytes of an answer.
const LARGEST_ANSWER: usize = 16 << 20;

/// The client of one broker.
pub struct OwnerClient {
    http: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    broker: String,
}

/// Why a broker did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The URL is not one of a broker.
    #[error("{0:?} is not the URL of a broker: expected scheme and host such as https://pods.example.org")]
    NotABroker(String),
    /// The file with a further certificate authority cannot be used.
    #[error("{file} cannot be used: {problem}")]
    Roots {
        /// The file.
        file: String,
        /// What is wrong with it.
        problem: String,
    },
    /// There was no answer.
    #[error("{broker} gave no answer: {problem}{hint}")]
    NoAnswer {
        /// The broker.
        broker: String,
        /// What went wrong.
        problem: Told,
        /// What may mend it; may be empty.
        hint: &'static str,
    },
    /// The answer is none that this client knows.
    #[error("{broker} gave an answer that is not one of a broker (status {status}){}", client_hints::of_redirect(broker, *status))]
    Strange {
        /// The broker.
        broker: String,
        /// The HTTP status.
        status: StatusCode,
    },
    /// A page of a list leads back to one before it.
    #[error(
        "{broker} gave a list of pods that does not end: after {next} it goes on with {next} or one before it"
    )]
    Endless {
        /// The broker.
        broker: String,
        /// The slug after which it says that the list goes on.
        next: Slug,
    },
    /// The broker refused; this is what it said.
    #[error("{broker} refused ({status}): {sentence}")]
    Refused {
        /// The broker.
        broker: String,
        /// The HTTP status.
        status: StatusCode,
        /// What it said.
        sentence: Told,
    },
}

/// Text of a broker, which may be anybody's, as it can be shown.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(from = "String")]
pub struct Told(String);

impl From<String> for Told {
    fn from(text: String) -> Self {
        Self(printable(&text).into_owned())
    }
}

impl Deref for Told {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// A pod that was taken.
#[derive(Debug, Deserialize)]
pub struct Taken {
    /// Its slug.
    pub id: Told,
    /// Where it is served.
    pub url: Told,
}

/// A pod in the owner's list.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Listed {
    /// Its slug.
    pub id: Told,
    /// Its display name.
    pub name: Told,
    /// Bytes of its HTML.
    pub blob_size: u64,
    /// When it was uploaded.
    pub created_at: Told,
    /// How often it was fetched.
    pub hits: u64,
    /// From when on it is not served any more.
    pub expires: Option<Told>,
    /// `signed`, or `unsigned` if anybody may have put the page around a copy of the owner's manifest.
    pub upload: Option<Told>,
}

#[derive(Deserialize)]
struct PodPage {
    pods: Vec<Listed>,
    next: Option<Slug>,
}

impl OwnerClient {
    /// A client of the broker at the URL `broker`, which trusts the system's certificate authorities and those in `roots`.
    ///
    /// # Errors
    ///
    /// The URL is none of a broker, or the file cannot be read.
    pub fn new(broker: &str, roots: Option<&Path>) -> Result<Self, ClientError> {
        let not_a_broker = || ClientError::NotABroker(broker.into());
        let origin = plain_origin(broker);
        let uri: Uri = origin.parse().map_err(|_| not_a_broker())?;
        let names_host = uri.authority().is_some_and(|authority| host::is_host_and_port(authority.as_str()));
        let is_plain = matches!(uri.scheme_str(), Some("http" | "https")) && uri.path() == "/";
        if !is_plain || !names_host || uri.query().is_some() {
            return Err(not_a_broker());
        }
        let config = ClientConfig::builder_with_provider(crate::tls::provider())
            .with_safe_default_protocol_versions()
            .expect("the provider knows the versions of TLS")
            .with_root_certificates(trusted(roots)?)
            .with_no_client_auth();
        let connector =
            HttpsConnectorBuilder::new().with_tls_config(config).https_or_http().enable_http1().build();
        Ok(Self { http: Client::builder(TokioExecutor::new()).build(connector), broker: origin })
    }

    /// The broker's URL, as requests are signed for it.
    pub fn broker(&self) -> &str {
        &self.broker
    }

    /// Uploads a pod of this owner under a new slug, with an upload token if the broker wants one.
    ///
    /// # Errors
    ///
    /// The broker does not take it, or does not answer.
    pub async fn upload(
        &self,
        secret: &OwnerSecret,
        html: Bytes,
        token: Option<&str>,
    ) -> Result<Taken, ClientError> {
        let body = ("text/html", html);
        let mut request = self.sign(secret, Method::POST, "/pods", Some(&body));
        if let Some(token) = token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        self.read(self.ask(request.body(Full::new(body.1))).await?)
    }

    /// Puts another version in place of the pod under `slug`.
    ///
    /// # Errors
    ///
    /// The broker does not take it, or does not answer.
    pub async fn replace(
        &self,
        secret: &OwnerSecret,
        slug: &Slug,
        html: Bytes,
    ) -> Result<Taken, ClientError> {
        let answer = self.signed(secret, Method::PUT, &format!("/{slug}"), Some(("text/html", html))).await?;
        self.read(answer)
    }

    /// Deletes the pod under `slug`.
    ///
    /// # Errors
    ///
    /// The broker does not do it, or does not answer.
    pub async fn delete(&self, secret: &OwnerSecret, slug: &Slug) -> Result<(), ClientError> {
        self.signed(secret, Method::DELETE, &format!("/{slug}"), None).await.map(drop)
    }

    /// All pods of the owner.
    ///
    /// # Errors
    ///
    /// The broker does not tell, does not answer, or repeats itself.
    pub async fn list(&self, secret: &OwnerSecret) -> Result<Vec<Listed>, ClientError> {
        let key: OwnerKey = secret.owner_key();
        let (mut pods, mut after) = (Vec::new(), None);
        loop {
            let query = after.map_or_else(String::new, |after: Slug| format!("?after={after}"));
            let answer = self.signed(secret, Method::GET, &format!("/owner/{key}/pods{query}"), None).await?;
            let page: PodPage = self.read(answer)?;
            pods.extend(page.pods);
            match page.next {
                // Pods are listed in the order of their slugs.
                Some(next) if after.is_some_and(|after| next <= after) => {
                    return Err(ClientError::Endless { broker: self.broker.clone(), next });
                }
                Some(next) => after = Some(next),
                None => return Ok(pods),
            }
        }
    }

    /// Claims a pod id for the owner's key.
    ///
    /// # Errors
    ///
    /// The broker refuses, or does not answer.
    pub async fn claim(&self, secret: &OwnerSecret, pod_id: &str) -> Result<(), ClientError> {
        self.signed(secret, Method::PUT, &pod_id_path(secret, pod_id), None).await.map(drop)
    }

    /// Gives up a pod id that belongs to the owner's key.
    ///
    /// # Errors
    ///
    /// The broker refuses, or does not answer.
    pub async fn release(&self, secret: &OwnerSecret, pod_id: &str) -> Result<(), ClientError> {
        self.signed(secret, Method::DELETE, &pod_id_path(secret, pod_id), None).await.map(drop)
    }

    /// Sends a signed request; a body comes with its content type.
    pub(super) async fn signed(
        &self,
        secret: &OwnerSecret,
        method: Method,
        path_and_query: &str,
        body: Option<(&'static str, Bytes)>,
    ) -> Result<(StatusCode, Bytes), ClientError> {
        let request = self.sign(secret, method, path_and_query, body.as_ref());
        let body = body.map(|(_, body)| body).unwrap_or_default();
        self.ask(request.body(Full::new(body))).await
    }

    /// Begins a request that is signed, with the fields that the signature needs.
    fn sign(
        &self,
        secret: &OwnerSecret,
        method: Method,
        path_and_query: &str,
        body: Option<&(&'static str, Bytes)>,
    ) -> request::Builder {
        let headers = HeaderMap::new();
        let parts = Parts { method: &method, origin: &self.broker, path_and_query, headers: &headers };
        let bytes = body.map(|(_, bytes)| &**bytes);
        let fields = signature::sign(secret, &parts, bytes, &nonce(), SystemTime::now());
        let mut request = Request::builder().method(&method).uri(format!("{}{path_and_query}", self.broker));
        for (name, value) in fields {
            request = request.header(name, value);
        }
        if let Some((content_type, _)) = body {
            request = request.header(header::CONTENT_TYPE, *content_type);
        }
        request
    }

    async fn ask(
        &self,
        request: http::Result<Request<Full<Bytes>>>,
    ) -> Result<(StatusCode, Bytes), ClientError> {
        let broker = || self.broker.clone();
        let no_answer =
            |problem: String| ClientError::NoAnswer { broker: broker(), problem: problem.into(), hint: "" };
        let mut request = request.map_err(|error| no_answer(error.to_string()))?;
        const AGENT: &str = concat!("gemmapod-signal/", env!("CARGO_PKG_VERSION"));
        request.headers_mut().insert(header::USER_AGENT, HeaderValue::from_static(AGENT));
        let asked = async {
            let answer = self.http.request(request).await.map_err(|error| ClientError::NoAnswer {
                broker: broker(),
                problem: innermost(&error).into(),
                hint: client_hints::of_failure(&error),
            })?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), LARGEST_ANSWER).collect().await;
            Ok((status, body.map_err(|error| no_answer(error.to_string()))?.to_bytes()))
        };
        let (status, body) = timeout(TIMEOUT, asked)
            .await
            .unwrap_or_else(|_| Err(no_answer(format!("none came within {} s", TIMEOUT.as_secs()))))?;
        if status.is_success() {
            return Ok((status, body));
        }
        #[derive(Deserialize)]
        struct ServerRefusal {
            error: Told,
        }
        let sentence = match serde_json::from_slice::<ServerRefusal>(&body) {
            Ok(refusal) => refusal.error,
            Err(_) if status == StatusCode::NOT_FOUND => {
                String::from("there is no such pod, or this broker does not do that").into()
            }
            Err(_) => return Err(ClientError::Strange { broker: broker(), status }),
        };
        Err(ClientError::Refused { broker: broker(), status, sentence })
    }

    pub(super) fn read<T: for<'a> Deserialize<'a>>(
        &self,
        (status, body): (StatusCode, Bytes),
    ) -> Result<T, ClientError> {
        serde_json::from_slice(&body)
            .map_err(|_| ClientError::Strange { broker: self.broker.clone(), status })
    }
}

fn pod_id_path(secret: &OwnerSecret, pod_id: &str) -> String {
    let pod_id = utf8_percent_encode(pod_id, NON_ALPHANUMERIC);
    format!("/owner/{}/pod-ids/{pod_id}", secret.owner_key())
}

/// A name that no other request has.
///
/// # Panics
///
/// If the system has no random numbers to give.
pub fn nonce() -> String {
    random_text::<16>()
}

/// Returns `N` random bytes as base64url (RFC 4648, section 5).
///
/// # Panics
///
/// If the system has no random numbers to give.
pub(super) fn random_text<const N: usize>() -> String {
    let mut bits = [0; N];
    getrandom::fill(&mut bits).expect("the system gives random numbers");
    BASE64_URL_SAFE_NO_PAD.encode(bits)
}

fn trusted(file: Option<&Path>) -> Result<RootCertStore, ClientError> {
    let mut roots = RootCertStore::empty();
    // Certificates of the system that cannot be read are no reason to trust none.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(path) = file {
        let wrong = |problem: String| ClientError::Roots { file: path.display().to_string(), problem };
        let text = regular_file::read(path).map_err(|error| wrong(error.to_string()))?;
        for certificate in pem::chain(&text).map_err(|problem| wrong(format!("it {problem}")))? {
            roots.add(certificate).map_err(|error| wrong(error.to_string()))?;
        }
    }
    Ok(roots)
}

/// The innermost cause: the outer ones only say that a request failed.
fn innermost(error: &dyn Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}
