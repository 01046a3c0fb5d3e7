//! `GET|HEAD /:slug/meta`: what is known of a pod, in the reference's seven fields; two more where they are set.

use std::sync::Arc;

use salvo::{
    Request, Response, handler,
    http::{HeaderName, HeaderValue, header},
};
use serde::Serialize;

use super::{error::HttpError, json::render_json, pod_path::slug_of};
use crate::{
    app::App,
    pods::{HitCounter, PodRecord},
};

/// Says whether the owner signed the upload, and so the page; if not, `x-pod-owner` is only whose manifest is in it.
pub const POD_UPLOAD: HeaderName = HeaderName::from_static("x-pod-upload");

/// Returns how the pod was uploaded, as clients are told.
pub fn upload_of(record: &PodRecord) -> &'static str {
    if record.upload_signed { "signed" } else { "unsigned" }
}

pub struct Meta(pub Arc<App>);

/// What is known of a pod. The last two are left out where they are not set.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PodMeta {
    id: String,
    name: String,
    owner_pubkey: String,
    manifest_size: u64,
    blob_size: u64,
    created_at: String,
    hits: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    updated_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires: Option<String>,
}

impl PodMeta {
    /// With the hits that are not written yet.
    pub fn of(record: PodRecord, hits: &HitCounter) -> Self {
        let hits = hits.total(&record);
        let text = |time| humantime::format_rfc3339_millis(time).to_string();
        Self {
            id: record.slug.to_string(),
            name: record.name,
            owner_pubkey: record.owner_key.to_string(),
            manifest_size: record.manifest_size,
            blob_size: record.blob_size,
            created_at: text(record.created_at),
            hits,
            updated_at: record.updated_at.map(text),
            expires: record.expires.map(text),
        }
    }
}

#[handler]
impl Meta {
    async fn handle(&self, request: &mut Request, response: &mut Response) -> Result<(), HttpError> {
        let slug = slug_of(request, "/meta")?;
        let record = self
            .0
            .look_up(request, async move |registry| registry.get_record(&slug).await)
            .await?
            .ok_or(HttpError::NotFound)?;
        if record.is_over(self.0.clock.now()) {
            return Err(HttpError::NotFound);
        }
        let upload = HeaderValue::from_static(upload_of(&record));
        let body = PodMeta::of(record, &self.0.hits);
        let headers = response.headers_mut();
        headers.insert(POD_UPLOAD, upload);
        headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("strict-origin-when-cross-origin"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-store"));
        render_json(response, &body);
        Ok(())
    }
}
