//! `POST /pods`: a body becomes a verified pod in the registry.

mod format;

use std::{future::pending, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::StreamExt;
use salvo::{
    Request, Response, handler,
    http::{
        ReqBody, StatusCode, header,
        headers::{ContentLength, HeaderMapExt},
    },
};
use serde::Serialize;
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout, timeout_at},
};

use self::format::Format;
use super::{
    App,
    error::{HttpError, render_json},
};
use crate::{
    config::{Config, Lifetime, PodSettings, UploadPolicy},
    net::{client::Client, path::normalize},
    owner::digest::{Announced, DigestError},
    pods::VerifiedPod,
};

/// How much of a refused body is read, and for how long.
const PASS_OVER_BYTES: usize = 64 << 20;
const PASS_OVER_TIME: Duration = Duration::from_secs(5);
/// Refused bodies that are read at the same time.
static PASSING_OVER: Semaphore = Semaphore::const_new(256);

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
        let mut body = request.take_body();
        let taken = self.take(request, &mut body).await;
        answer(request, body, taken, response)
    }
}

/// Answers an upload; of one that was refused, the rest is passed over.
pub fn answer(
    request: &Request,
    body: ReqBody,
    taken: Result<Answer, HttpError>,
    response: &mut Response,
) -> Result<(), HttpError> {
    if taken.is_err() && !request.headers().contains_key(header::EXPECT) {
        pass_over(body);
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
        let mut pod = receive(app, &config, request, body, None).await?;
        if let Some(Lifetime(lifetime)) = config.uploads.lifetime {
            pod = pod.with_lifetime(lifetime);
        }
        let answer = Answer::of(&pod, &config, request);
        app.janitor.uploads(pod.record().slug, app.clock.running());
        app.registry.put_pod(pod).await?;
        tracing::info!(slug = answer.id, bytes = answer.blob_size, "pod uploaded");
        Ok(answer)
    }
}

/// Reads and verifies a pod that this broker takes, and whose bytes are those that were announced.
pub async fn receive(
    app: &App,
    config: &Arc<Config>,
    request: &Request,
    body: &mut ReqBody,
    announced: Option<Announced>,
) -> Result<VerifiedPod, HttpError> {
    let format = Format::of(request)?;
    // The owner of a pod that was taken needs no token for another version of it.
    if announced.is_none() || config.uploads.policy != UploadPolicy::Token {
        let (access, config) = (app.upload_access.clone(), config.clone());
        let authorization =
            request.headers().get(header::AUTHORIZATION).map(|value| value.as_bytes().to_vec());
        blocking(move || access.at_the_door(&config.uploads, authorization.as_deref())).await??;
    }
    let limit = config.pods.max_blob.as_u64();
    let length = request.headers().typed_get::<ContentLength>().map(|length| length.0);
    if length.is_some_and(|length| length > limit) {
        return Err(too_large(limit));
    }
    let client = Client::of(request, &config.trusted_proxies);
    let memory = format.memory(length.unwrap_or(limit));
    let _turn = app.uploads.load_full().enter(client.address, memory).await?;
    let body = read(body, length, &config.pods).await?;
    let max_manifest = config.pods.max_manifest.as_u64() as usize;
    let (access, config) = (app.upload_access.clone(), config.clone());
    let verify = move || {
        if let Some(announced) = announced {
            let wrong = |error: DigestError| HttpError::new(StatusCode::BAD_REQUEST, error.to_string());
            announced.check(&body).map_err(wrong)?;
        }
        let pod = VerifiedPod::verify(format.html(body)?, max_manifest)?;
        access.of_owner(&config.uploads, pod.record().owner_key)?;
        Ok::<_, HttpError>(pod)
    };
    let pod = blocking(verify).await??;
    let record = pod.record();
    app.limits.check_pod(&record.owner_key.0, client.address, record.blob_size)?;
    Ok(pod)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, HttpError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|_| HttpError::new(StatusCode::INTERNAL_SERVER_ERROR, "verification failed"))
}

/// Reads on for a while after a refusal: a client that is still sending could not read why it was refused if the
/// connection were closed under it.
pub(super) fn pass_over(mut body: ReqBody) {
    // Beyond these it is the client's loss.
    let Ok(permit) = PASSING_OVER.try_acquire() else { return };
    let mut left = PASS_OVER_BYTES;
    let rest = async move {
        while let Some(Ok(frame)) = body.next().await {
            left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
            if left == 0 {
                // The rest waits in the client, which has as long to see the answer.
                pending::<()>().await;
            }
        }
    };
    tokio::spawn(async move {
        let _permit = permit;
        // A client that goes on and on is cut off.
        let _ = timeout(PASS_OVER_TIME, rest).await;
    });
}

/// Reads a body whole, as long as it comes fast enough and stays within the limit.
async fn read(body: &mut ReqBody, length: Option<u64>, settings: &PodSettings) -> Result<Bytes, HttpError> {
    let limit = settings.max_blob.as_u64();
    let mut bytes = Vec::with_capacity(length.unwrap_or_default() as usize);
    // Every byte buys time, but what came fast at first buys no long stillness later.
    let mut deadline = Instant::now() + settings.upload_grace;
    loop {
        let frame = match timeout_at(deadline, body.next()).await {
            Ok(None) => return Ok(bytes.into()),
            Ok(Some(Ok(frame))) => frame,
            Ok(Some(Err(_))) => {
                return Err(HttpError::new(
                    StatusCode::BAD_REQUEST,
                    "the body ended before its announced length",
                ));
            }
            Err(_) => {
                let message =
                    format!("the body came slower than {} bytes a second", settings.min_upload_rate.as_u64());
                return Err(HttpError::new(StatusCode::REQUEST_TIMEOUT, message));
            }
        };
        let Ok(data) = frame.into_data() else { continue };
        if bytes.len() as u64 + data.len() as u64 > limit {
            return Err(too_large(limit));
        }
        let bought = Duration::from_secs_f64(data.len() as f64 / settings.min_upload_rate.as_u64() as f64);
        deadline = (deadline + bought).min(Instant::now() + settings.upload_grace);
        bytes.extend_from_slice(&data);
    }
}

fn too_large(limit: u64) -> HttpError {
    HttpError::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        format!("blob too large: this broker takes at most {limit} bytes"),
    )
}

/// Scheme and host under which the pod will be found.
fn base_url(config: &Config, client: Client, request: &Request) -> String {
    if let Some(url) = &config.public_url {
        return url.to_string();
    }
    let local = || request.local_addr().clone().into_std().map(|addr| addr.to_string()).unwrap_or_default();
    format!("{}://{}", client.scheme, client.host.map_or_else(local, |host| host.to_string()))
}
