//! In which form an upload brings the HTML of a pod.

use std::ops::Range;

use bytes::Bytes;
use salvo::{
    Request,
    http::{HeaderMap, StatusCode, header},
};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::unescape::unescape;
use crate::http::{error::HttpError, upload_limiter::UploadPermit};

/// The byte order mark of UTF-8, which editors and PowerShell write before JSON (RFC 8259, section 8.1).
const BOM: &[u8] = "\u{feff}".as_bytes();

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
    pub fn html(self, body: Vec<u8>, permit: UploadPermit) -> Result<Bytes, HttpError> {
        match self {
            Self::Html => Ok(permit.hold(body)),
            Self::Json => {
                let html =
                    html_of_json(body).map_err(|problem| HttpError::new(StatusCode::BAD_REQUEST, problem))?;
                Ok(permit.hold(html))
            }
        }
    }
}

/// Whether a `Content-Encoding` says anything but `identity`, which is none (RFC 9110, section 8.4).
fn is_encoded(headers: &HeaderMap) -> bool {
    let is_none = |coding: &str| coding.is_empty() || coding.eq_ignore_ascii_case("identity");
    let mut fields = headers.get_all(header::CONTENT_ENCODING).iter();
    fields.any(|field| field.to_str().map_or(true, |field| !field.split(',').map(str::trim).all(is_none)))
}

/// Returns the HTML in JSON. It lies where the JSON was: an upload takes no more than its length.
fn html_of_json(mut body: Vec<u8>) -> Result<Vec<u8>, &'static str> {
    const NO_STRING: &str = "expected the 'html' field to be a string";
    let string = html_string(&body)?;
    if body[string.start] != b'"' {
        return Err(NO_STRING);
    }
    let html = string.start + 1..string.end - 1;
    if html.is_empty() {
        return Err("missing 'html' field");
    }
    body.truncate(html.end);
    body.drain(..html.start);
    unescape(&mut body).ok_or(NO_STRING)?;
    body.shrink_to_fit();
    Ok(body)
}

/// Returns where the value of the field `html` is.
fn html_string(body: &[u8]) -> Result<Range<usize>, &'static str> {
    #[derive(Deserialize)]
    struct Body<'a> {
        #[serde(borrow)]
        html: Option<&'a RawValue>,
    }
    const NOT_AN_OBJECT: &str = "the body is not a JSON object with one field 'html'";
    let json = body.strip_prefix(BOM).unwrap_or(body);
    if !json.trim_ascii_start().starts_with(b"{") {
        // serde takes an array of its fields for a struct, too.
        return Err(NOT_AN_OBJECT);
    }
    let parsed: Body<'_> = serde_json::from_slice(json).map_err(|_| NOT_AN_OBJECT)?;
    let html = parsed.html.map(RawValue::get).filter(|html| *html != "null").ok_or("missing 'html' field")?;
    // It is borrowed from the body.
    let start = html.as_ptr().addr() - body.as_ptr().addr();
    Ok(start..start + html.len())
}
