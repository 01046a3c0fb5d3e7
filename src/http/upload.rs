//! `POST /pods`: a body becomes a verified pod in the registry.

mod body;
mod format;
mod json;
mod unescape;

use std::sync::Arc;

use salvo::{
    Request, Response, handler,
    http::{
        HeaderValue, ReqBody, StatusCode, Version, header,
        headers::{ContentLength, HeaderMapExt},
    },
};
use serde::Serialize;

pub use self::format::Format;
use super::{error::HttpError, json::render_json, owner_request, upload_limiter::RequestMemory};
use crate::{
    app::App,
    config::{Config, Lifetime, UploadPolicy},
    net::{
        client::{Client, network_of},
        limits::Charge,
        path::normalize,
    },
    owner::{
        digest::{Announced, DigestError},
        signature::{SIGNATURE, SIGNATURE_INPUT, VerifiedRequest},
    },
    pods::{OwnerKey, RegistryError, VerifiedPod},
};

pub struct Upload(pub Arc<App>);

/// What is answered to an upload.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    id: String,
    url: String,
    owner_pubkey: String,
    pub blob_size: u64,
}

impl Answer {
    /// As the pod will be found by whoever sent `request`.
    pub fn of(pod: &VerifiedPod, config: &Config, request: &Request) -> Self {
        let record = pod.record();
        let client = Client::of(request, &config.trusted_proxies);
        Self {
            id: record.slug.to_string(),
            url: format!("{}/{}", base_url(config, client, request), record.slug),
            owner_pubkey: record.owner_key.to_string(),
            blob_size: record.blob_size,
        }
    }
}

#[handler]
impl Upload {
    async fn handle(&self, request: &mut Request, response: &mut Response) -> Result<(), HttpError> {
        let memory = self.0.uploads.load().request(request.version());
        let mut body = request.take_body();
        let taken = self.take(request, &mut body).await;
        answer(&self.0, request, body, memory, taken, response)
    }
}

/// Answers an upload; of one that was refused, the rest is passed over.
pub fn answer(
    app: &App,
    request: &Request,
    body: ReqBody,
    memory: RequestMemory,
    taken: Result<Answer, HttpError>,
    response: &mut Response,
) -> Result<(), HttpError> {
    if let Err(refused) = &taken
        && !request.headers().contains_key(header::EXPECT)
    {
        // RFC 9110, section 15.5.9.
        if refused.status() == StatusCode::REQUEST_TIMEOUT && request.version() < Version::HTTP_2 {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        app.body_drain.drain(app.network(request), body, memory);
    }
    render_json(response, &taken?);
    Ok(())
}

impl Upload {
    async fn take(&self, request: &Request, body: &mut ReqBody) -> Result<Answer, HttpError> {
        let Self(app) = self;
        if normalize(request.uri().path()) != "/pods" {
            return Err(HttpError::NotFound);
        }
        let config = app.live.load_full();
        let signed = signed(app, &config, request).await?;
        let format =
            admit(app, &config, request, signed.as_ref().map(|signed| signed.request.key), false).await?;
        let mut pod = receive(app, &config, request, body, format, signed).await?;
        if let Some(Lifetime(lifetime)) = config.uploads.lifetime {
            pod = pod.with_lifetime(lifetime);
        }
        let answer = Answer::of(&pod, &config, request);
        let (pod_id, owner_key) = (pod.pod_id().map(ToOwned::to_owned), pod.record().owner_key);
        let is_signed = pod.record().upload_signed;
        app.janitor.uploads(pod.record().slug, app.clock.running());
        let charge = charge(app, &config, request, &pod)?;
        let stored = app.registry.put_pod(pod).await;
        charge.keep_if(stored.is_ok());
        stored?;
        if let Some(pod_id) = pod_id.filter(|_| is_signed) {
            let network = network_of(request, &config.trusted_proxies);
            app.owners.uploaded_signed(&pod_id, owner_key, network).await;
        }
        tracing::info!(slug = answer.id, bytes = answer.blob_size, signed = is_signed, "pod uploaded");
        Ok(answer)
    }
}

/// A signature over an upload, and the digest of the body that it covers.
pub struct SignedUpload {
    pub request: VerifiedRequest,
    pub digest: Announced,
}

impl SignedUpload {
    /// Takes a request that is signed.
    pub async fn take(app: &App, config: &Config, request: &Request) -> Result<Self, HttpError> {
        let verified = owner_request::signed(app, config, request, true).await?;
        let digest = Announced::read(request.headers())
            .map_err(|error| HttpError::new(StatusCode::BAD_REQUEST, error.to_string()))?;
        Ok(Self { request: verified, digest })
    }
}

/// Returns the signature of an upload that may do without one. One that is there must be right.
async fn signed(app: &App, config: &Config, request: &Request) -> Result<Option<SignedUpload>, HttpError> {
    let headers = request.headers();
    let is_signed = headers.contains_key(SIGNATURE) || headers.contains_key(SIGNATURE_INPUT);
    Ok(if is_signed { Some(SignedUpload::take(app, config, request).await?) } else { None })
}

/// Checks what the head of an upload says, before its body is read: the form, and whether this broker takes uploads of
/// `signer`. The owner of a pod that is there needs no token for another version of it.
pub async fn admit(
    app: &App,
    config: &Arc<Config>,
    request: &Request,
    signer: Option<OwnerKey>,
    is_version: bool,
) -> Result<Format, HttpError> {
    let format = Format::of(request)?;
    let needs_no_token = is_version && config.uploads.policy == UploadPolicy::Token;
    let authorization = request.headers().get(header::AUTHORIZATION).map(|value| value.as_bytes().to_vec());
    let (access, settings) = (app.upload_access.clone(), config.clone());
    let check = move || {
        if !needs_no_token {
            access.check_before_body(&settings.uploads, authorization.as_deref())?;
        }
        access.of_owner(&settings.uploads, signer)
    };
    let client = Client::of(request, &config.trusted_proxies).address;
    app.lookups.run(client, blocking(check)).await.map_err(RegistryError::failed)???;
    Ok(format)
}

/// Reads and verifies a pod. If the upload was signed, the body is the one that was signed, and the pod is the signer's.
pub async fn receive(
    app: &App,
    config: &Arc<Config>,
    request: &Request,
    body: &mut ReqBody,
    format: Format,
    signed: Option<SignedUpload>,
) -> Result<VerifiedPod, HttpError> {
    let length = request.headers().typed_get::<ContentLength>().map(|length| length.0);
    body::check_length(length, &config.pods)?;
    let client = Client::of(request, &config.trusted_proxies);
    let upload = app.uploads.load_full().begin(client.address).await?;
    let (body, permit) = body::read(body, length, &config.pods, upload).await?;
    let verify = move || {
        if let Some(signed) = &signed {
            let wrong = |error: DigestError| HttpError::new(StatusCode::BAD_REQUEST, error.to_string());
            signed.digest.check(body.as_ref()).map_err(wrong)?;
        }
        let pod = VerifiedPod::verify(format.html(body, permit)?)?;
        match signed {
            Some(signed) => pod.signed_by(signed.request.key).ok_or_else(|| {
                let message = "the pod is signed by another owner key than the one that signed the request";
                HttpError::new(StatusCode::FORBIDDEN, message)
            }),
            None => Ok(pod),
        }
    };
    blocking(verify).await?
}

/// Charges a pod to its client and, if its owner signed the upload, to the owner key.
pub fn charge(app: &App, config: &Config, request: &Request, pod: &VerifiedPod) -> Result<Charge, HttpError> {
    let record = pod.record();
    let owner = record.upload_signed.then_some(&record.owner_key.0);
    let client = Client::of(request, &config.trusted_proxies);
    Ok(app.limits.charge_pod(owner, client.address, record.blob_size)?)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, HttpError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|_| HttpError::new(StatusCode::INTERNAL_SERVER_ERROR, "verification failed"))
}

/// Scheme and host under which the pod will be found.
fn base_url(config: &Config, client: Client, request: &Request) -> String {
    if let Some(url) = &config.public_url {
        return url.to_string();
    }
    let local = || request.local_addr().clone().into_std().map(|addr| addr.to_string()).unwrap_or_default();
    format!("{}://{}", client.scheme, client.host.map_or_else(local, |host| host.to_string()))
}
