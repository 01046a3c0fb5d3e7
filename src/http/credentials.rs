//! The credentials of an owner's hosts: `POST` and `GET|HEAD /owner/:key/credentials`, and
//! `DELETE /owner/:key/credentials/:name`. Each is proved by a signature of the owner key over the request.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use salvo::{
    Request, Response, handler,
    http::{HeaderValue, ReqBody, StatusCode, header},
};
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use super::{
    error::HttpError,
    json::render_json,
    owner_request::{owner_path, signed_by},
};
use crate::{
    app::App,
    net::{client::Client, limits::RequestKind},
    owner::{credentials::NewCredential, digest::Announced},
    pods::{AddedCredential, Credential, CredentialName, CredentialPodIds, Digest, OwnerKey},
};

/// Bytes of a body: as many pod ids as there may be fit.
const MAX_BODY: usize = 16 * 1024;
/// How long a body may take.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// `POST /owner/:key/credentials`.
pub struct Add(pub Arc<App>);

/// `GET|HEAD /owner/:key/credentials`.
pub struct List(pub Arc<App>);

/// `DELETE /owner/:key/credentials/:name`.
pub struct Revoke(pub Arc<App>);

/// What is asked for.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Asked {
    name: CredentialName,
    secret_sha256: Digest,
    pod_ids: Option<CredentialPodIds>,
}

/// What is told of a credential: nothing of its secret.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CredentialInfo {
    name: CredentialName,
    #[serde(skip_serializing_if = "Option::is_none")]
    pod_ids: Option<CredentialPodIds>,
    created_at: String,
}

#[derive(Serialize)]
struct CredentialsPage {
    credentials: Vec<CredentialInfo>,
}

impl From<Credential> for CredentialInfo {
    fn from(credential: Credential) -> Self {
        let Credential { name, pod_ids, created_at, .. } = credential;
        Self { name, pod_ids, created_at: humantime::format_rfc3339_millis(created_at).to_string() }
    }
}

#[handler]
impl Add {
    async fn handle(&self, request: &mut Request, response: &mut Response) -> Result<(), HttpError> {
        let Self(app) = self;
        let key = owner(request)?;
        signed_by(app, request, key, true).await?;
        let announced = Announced::read(request.headers())
            .map_err(|error| HttpError::new(StatusCode::BAD_REQUEST, error.to_string()))?;
        let body = read(request.take_body()).await?;
        announced.check(&body).map_err(|error| HttpError::new(StatusCode::BAD_REQUEST, error.to_string()))?;
        let Asked { name, secret_sha256, pod_ids } = Asked::read(&body)?;
        let client = Client::of(request, &app.live.load().trusted_proxies).address;
        let owns = app.owners.owns_anything(&key, client).await?;
        let kinds: &[_] = match owns {
            true => &[RequestKind::Credential],
            false => &[RequestKind::NewcomerCredential, RequestKind::Credential, RequestKind::NewcomerChange],
        };
        let charge = app.limits.charge(kinds, client)?;
        let new = NewCredential { name, secret_hash: secret_sha256, pod_ids };
        let added = app.credentials.add(key, new, owns).await;
        charge.keep_if(matches!(added, Ok((AddedCredential::Added, _))));
        let (added, credential) = added?;
        refusal(added, &credential.name, owns)?;
        tracing::info!(owner = %key, name = %credential.name, "credential added");
        response.status_code(StatusCode::CREATED);
        render_json(response, &CredentialInfo::from(credential));
        Ok(())
    }
}

#[handler]
impl List {
    async fn handle(&self, request: &mut Request, response: &mut Response) -> Result<(), HttpError> {
        let Self(app) = self;
        let key = owner(request)?;
        signed_by(app, request, key, false).await?;
        let credentials =
            app.look_up(request, async move |registry| registry.credentials(&key).await).await?;
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-store"));
        render_json(
            response,
            &CredentialsPage { credentials: credentials.into_iter().map(CredentialInfo::from).collect() },
        );
        Ok(())
    }
}

#[handler]
impl Revoke {
    async fn handle(&self, request: &mut Request, response: &mut Response) -> Result<(), HttpError> {
        let Self(app) = self;
        let (key, rest) = owner_path(request)?;
        let name = rest.strip_prefix("credentials/").ok_or(HttpError::NotFound)?;
        let name: CredentialName = name.parse().map_err(|_| no_such_credential(name))?;
        signed_by(app, request, key, false).await?;
        let credentials =
            app.look_up(request, async move |registry| registry.credentials(&key).await).await?;
        let found = credentials.into_iter().find(|credential| credential.name == name);
        let credential = found.ok_or_else(|| no_such_credential(name.as_str()))?;
        if !app.credentials.revoke(credential).await? {
            return Err(no_such_credential(name.as_str()));
        }
        tracing::info!(owner = %key, %name, "credential revoked");
        response.status_code(StatusCode::NO_CONTENT);
        Ok(())
    }
}

/// Returns the owner key in the path of all its credentials.
fn owner(request: &Request) -> Result<OwnerKey, HttpError> {
    match owner_path(request)? {
        (key, rest) if rest == "credentials" => Ok(key),
        _ => Err(HttpError::NotFound),
    }
}

async fn read(body: ReqBody) -> Result<Bytes, HttpError> {
    let refuse = |status, message: &str| Err(HttpError::new(status, message));
    match timeout(BODY_TIMEOUT, Limited::new(body, MAX_BODY).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
            refuse(StatusCode::PAYLOAD_TOO_LARGE, "the body is larger than 16 KiB")
        }
        Ok(Err(_)) => refuse(StatusCode::BAD_REQUEST, "the body ended before its announced length"),
        Err(_) => refuse(StatusCode::REQUEST_TIMEOUT, "the body took longer than 10 s"),
    }
}

impl Asked {
    fn read(body: &[u8]) -> Result<Self, HttpError> {
        let is_object = body.trim_ascii_start().starts_with(b"{");
        let read = match is_object {
            true => serde_json::from_slice(body).map_err(|error| error.to_string()),
            // serde takes an array of its fields for a struct, too.
            false => Err("the body is no object".into()),
        };
        read.map_err(|problem| {
            let message = format!(
                "expected JSON such as {{\"name\": \"home\", \"secretSha256\": \"64 hex digits\", \"podIds\": \
                 [\"my-pod\"]}}: {problem}"
            );
            HttpError::new(StatusCode::BAD_REQUEST, message)
        })
    }
}

fn refusal(added: AddedCredential, name: &CredentialName, owns: bool) -> Result<(), HttpError> {
    let (status, message) = match added {
        AddedCredential::Added => return Ok(()),
        AddedCredential::NameTaken => (
            StatusCode::CONFLICT,
            format!("there is a credential named {name} already: revoke it first, or choose another name"),
        ),
        AddedCredential::SecretTaken => {
            (StatusCode::CONFLICT, "this secret is in use already: make another one".into())
        }
        AddedCredential::TooManyForKey if owns => {
            (StatusCode::FORBIDDEN, "this key has as many credentials as it may: revoke one first".into())
        }
        AddedCredential::TooManyForKey => (
            StatusCode::FORBIDDEN,
            "a key that owns nothing here has as many credentials as it may: upload a signed pod of this key first \
             (gemmapod-signal pods put), or revoke one"
                .into(),
        ),
        AddedCredential::Full if owns => {
            (StatusCode::INSUFFICIENT_STORAGE, "this broker keeps as many credentials as it may".into())
        }
        AddedCredential::Full => (
            StatusCode::INSUFFICIENT_STORAGE,
            "this broker keeps as many credentials as it may for keys that own nothing: upload a signed pod of this \
             key first (gemmapod-signal pods put)"
                .into(),
        ),
    };
    Err(HttpError::new(status, message))
}

fn no_such_credential(name: &str) -> HttpError {
    HttpError::new(StatusCode::NOT_FOUND, format!("there is no credential named {name}"))
}
