//! `GET|HEAD /:slug/meta`: what is known of a pod, in the reference's seven fields.

use std::sync::Arc;

use salvo::{
    Request, Response, handler,
    http::{HeaderValue, header},
};
use serde::Serialize;

use super::{
    App,
    download::slug_of,
    error::{HttpError, render_json},
};

pub struct Meta(pub Arc<App>);

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Body {
    id: String,
    name: String,
    owner_pubkey: String,
    manifest_size: u64,
    blob_size: u64,
    created_at: String,
    hits: u64,
}

#[handler]
impl Meta {
    async fn handle(&self, request: &mut Request, response: &mut Response) -> Result<(), HttpError> {
        let slug = slug_of(request, "/meta")?;
        let record = self.0.registry.get_record(&slug).await?.ok_or(HttpError::NotFound)?;
        let body = Body {
            id: record.slug.to_string(),
            name: record.name,
            owner_pubkey: record.owner_key.to_string(),
            manifest_size: record.manifest_size,
            blob_size: record.blob_size,
            created_at: humantime::format_rfc3339_millis(record.created_at).to_string(),
            hits: record.hits + self.0.hits.pending(&slug),
        };
        let headers = response.headers_mut();
        headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("strict-origin-when-cross-origin"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-store"));
        render_json(response, &body);
        Ok(())
    }
}
