//! What an owner does with pods of their own: `PUT /:slug`, `DELETE /:slug`, `GET|HEAD /owner/:key/pods`. Each is
//! proved by a signature of the owner key over the request.

use std::sync::Arc;

use salvo::{
    Request, Response, handler,
    http::{HeaderValue, ReqBody, StatusCode, header},
};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use super::{
    conditions::{Conditions, precondition_failed},
    download::etags,
    error::HttpError,
    json::render_json,
    meta,
    owner_request::{owner_path, signed, signed_by},
    pod_path::slug_of,
    upload::{self, SignedUpload},
};
use crate::{
    app::App,
    net::client::network_of,
    owner::signature::VerifiedRequest,
    pods::{PodRecord, RegistryError, Slug},
};

/// Pods in one page at most.
const PAGE_PODS: usize = 500;
/// A page ends with the pod that brings it to this many bytes: many pages may wait for clients that take them slowly.
const PAGE_BYTES: usize = 64 * 1024;

/// `DELETE /:slug`.
pub struct Delete(pub Arc<App>);

/// `PUT /:slug`.
pub struct Replace(pub Arc<App>);

/// `GET|HEAD /owner/:key/pods`.
pub struct ListOwned(pub Arc<App>);

#[handler]
impl Delete {
    async fn handle(&self, request: &mut Request, response: &mut Response) -> Result<(), HttpError> {
        let Self(app) = self;
        let slug = slug_of(request, "")?;
        let config = app.live.load_full();
        let signed = signed(app, &config, request, false).await?;
        let before = own(app, request, slug, &signed).await?;
        let conditions = Conditions::of(request.headers());
        conditions.check_change(&etags(&before))?;
        let is_deleted = if conditions.is_empty() {
            app.registry.delete(&slug).await?
        } else {
            app.registry.delete_version(&before).await?
        };
        if !is_deleted {
            return Err(gone_or_changed(app, request, slug, &conditions).await?);
        }
        tracing::info!(%slug, "pod deleted by its owner");
        response.status_code(StatusCode::NO_CONTENT);
        Ok(())
    }
}

#[handler]
impl Replace {
    async fn handle(&self, request: &mut Request, response: &mut Response) -> Result<(), HttpError> {
        let memory = self.0.uploads.load().request(request.version());
        let mut body = request.take_body();
        let replaced = self.replace(request, &mut body).await;
        upload::answer(&self.0, request, body, memory, replaced, response)
    }
}

impl Replace {
    async fn replace(&self, request: &Request, body: &mut ReqBody) -> Result<upload::Answer, HttpError> {
        let Self(app) = self;
        let slug = slug_of(request, "")?;
        let config = app.live.load_full();
        let signed = SignedUpload::take(app, &config, request).await?;
        let key = signed.request.key;
        let before = own(app, request, slug, &signed.request).await?;
        // As a GET says: what expired is not there any more. Its owner can still delete it.
        let is_over = || before.is_over(app.clock.now());
        if is_over() {
            return Err(HttpError::NotFound);
        }
        let conditions = Conditions::of(request.headers());
        conditions.check_change(&etags(&before))?;
        let format = upload::admit(app, &config, request, Some(key), true).await?;
        let pod = upload::receive(app, &config, request, body, format, Some(signed)).await?;
        // The body may have taken its time.
        if is_over() {
            return Err(HttpError::NotFound);
        }
        let pod = pod.with_slug(slug);
        let answer = upload::Answer::of(&pod, &config, request);
        let pod_id = pod.pod_id().map(ToOwned::to_owned);
        app.janitor.uploads(slug, app.clock.running());
        let charge = upload::charge(app, &config, request, &pod)?;
        let replaced = if conditions.is_empty() {
            app.registry.replace_pod(pod).await
        } else {
            app.registry.replace_version(pod, &before).await
        };
        charge.keep_if(matches!(replaced, Ok(true)));
        if !replaced? {
            return Err(gone_or_changed(app, request, slug, &conditions).await?);
        }
        if let Some(pod_id) = pod_id {
            let network = network_of(request, &config.trusted_proxies);
            app.owners.uploaded_signed(&pod_id, key, network).await;
        }
        tracing::info!(%slug, bytes = answer.blob_size, "pod replaced by its owner");
        Ok(answer)
    }
}

/// A pod in its owner's list.
#[derive(Serialize)]
struct Owned {
    #[serde(flatten)]
    meta: meta::PodMeta,
    /// `signed`, or `unsigned` for a page that anybody may have put around a copy of the owner's manifest.
    upload: &'static str,
}

#[derive(Serialize)]
struct OwnedPage {
    pods: Vec<Box<RawValue>>,
    /// The slug to give as `after` for the rest.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<Slug>,
}

impl OwnedPage {
    /// Returns a page that begins with the first of `records`.
    fn of(records: Vec<PodRecord>, app: &App) -> Self {
        let (mut page, mut bytes, mut last) = (Self { pods: Vec::new(), next: None }, 0, None);
        for record in records {
            if page.pods.len() == PAGE_PODS || bytes >= PAGE_BYTES {
                page.next = last;
                break;
            }
            last = Some(record.slug);
            let owned =
                Owned { upload: meta::upload_of(&record), meta: meta::PodMeta::of(record, &app.hits) };
            let json = to_raw_value(&owned).expect("a record is plain data");
            bytes += json.get().len();
            page.pods.push(json);
        }
        page
    }
}

#[handler]
impl ListOwned {
    async fn handle(&self, request: &mut Request, response: &mut Response) -> Result<(), HttpError> {
        let Self(app) = self;
        let (key, rest) = owner_path(request)?;
        if rest != "pods" {
            return Err(HttpError::NotFound);
        }
        let after = after(request)?;
        signed_by(app, request, key, false).await?;
        let records = app
            .look_up(request, async move |registry| {
                registry.list_owned(&key, after.as_ref(), PAGE_PODS + 1).await
            })
            .await?;
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-store"));
        render_json(response, &OwnedPage::of(records, app));
        Ok(())
    }
}

/// Returns why a pod was not changed: it was deleted meanwhile, or is another version than the one whose tags met the
/// conditions.
async fn gone_or_changed(
    app: &App,
    request: &Request,
    slug: Slug,
    conditions: &Conditions,
) -> Result<HttpError, HttpError> {
    let is_there = !conditions.is_empty() && record(app, request, slug).await?.is_some();
    Ok(if is_there { precondition_failed() } else { HttpError::NotFound })
}

async fn record(app: &App, request: &Request, slug: Slug) -> Result<Option<PodRecord>, RegistryError> {
    app.look_up(request, async move |registry| registry.get_record(&slug).await).await
}

/// Returns the record of a pod that belongs to the signer.
async fn own(
    app: &App,
    request: &Request,
    slug: Slug,
    signed: &VerifiedRequest,
) -> Result<PodRecord, HttpError> {
    let record = record(app, request, slug).await?.ok_or(HttpError::NotFound)?;
    if record.owner_key != signed.key {
        let message = "this pod belongs to another owner key than the one that signed the request";
        return Err(HttpError::new(StatusCode::FORBIDDEN, message));
    }
    Ok(record)
}

/// The slug in the query `after=SLUG`.
fn after(request: &Request) -> Result<Option<Slug>, HttpError> {
    let Some(query) = request.uri().query().filter(|query| !query.is_empty()) else { return Ok(None) };
    let slug = query.strip_prefix("after=").and_then(|slug| slug.parse().ok());
    slug.map(Some).ok_or_else(|| HttpError::new(StatusCode::BAD_REQUEST, "expected ?after=SLUG, or no query"))
}
