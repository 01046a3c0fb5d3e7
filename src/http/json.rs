//! Answers in JSON.

use bytes::Bytes;
use salvo::{
    Response,
    http::{HeaderValue, header},
};
use serde::Serialize;

/// Writes `body` as the JSON of a response.
pub fn render_json(response: &mut Response, body: &impl Serialize) {
    send_json(response, json_of(body));
}

/// Returns `body` as JSON.
pub fn json_of(body: &impl Serialize) -> Bytes {
    serde_json::to_vec(body).expect("the bodies of answers are plain data").into()
}

/// Writes JSON as a response.
pub fn send_json(response: &mut Response, json: Bytes) {
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CONTENT_LENGTH, json.len().into());
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response.body(json);
}
