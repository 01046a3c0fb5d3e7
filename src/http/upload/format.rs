//! In which form an upload brings the HTML of a pod.

use bytes::Bytes;
use salvo::{
    Request,
    http::{HeaderMap, StatusCode, header},
};

use super::{body::Body, json::html_of_json};
use crate::http::{error::HttpError, upload_limiter::UploadPermit};

/// Where the HTML is.
#[derive(Clone, Copy)]
pub enum Format {
    /// It is the body.
    Html,
    /// It is the field `html` of a JSON object.
    Json,
}

impl Format {
    /// Returns what the header fields say.
    ///
    /// # Errors
    ///
    /// Returns 415 for another content type, and for an encoded body.
    pub fn of(request: &Request) -> Result<Self, HttpError> {
        if is_encoded(request.headers()) {
            return Err(HttpError::Encoded);
        }
        let content_type = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let media_type = content_type.unwrap_or_default().split(';').next().unwrap_or_default().trim();
        match media_type.to_ascii_lowercase().as_str() {
            "text/html" | "text/plain" => Ok(Self::Html),
            "application/json" => Ok(Self::Json),
            _ => Err(HttpError::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "expected content-type text/html or application/json {html}",
            )),
        }
    }

    /// Returns the HTML in `body`; it keeps the upload's permit for as long as it is held.
    ///
    /// # Errors
    ///
    /// Returns 400 if the body is no JSON object with the HTML in it.
    pub fn html(self, mut body: Body, permit: UploadPermit) -> Result<Bytes, HttpError> {
        if let Self::Json = self {
            body.narrow(html_of_json).map_err(|problem| HttpError::new(StatusCode::BAD_REQUEST, problem))?;
        }
        let memory = body.memory();
        Ok(permit.hold(body, memory))
    }
}

/// Whether a `Content-Encoding` says anything but `identity`, which is none (RFC 9110, section 8.4).
fn is_encoded(headers: &HeaderMap) -> bool {
    let is_none = |coding: &str| coding.is_empty() || coding.eq_ignore_ascii_case("identity");
    let mut fields = headers.get_all(header::CONTENT_ENCODING).iter();
    fields.any(|field| field.to_str().map_or(true, |field| !field.split(',').map(str::trim).all(is_none)))
}
