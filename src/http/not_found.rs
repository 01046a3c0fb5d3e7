//! Paths that lead nowhere, and errors that no route wrote.

use salvo::{
    FlowCtrl, Response, handler,
    http::{HeaderValue, StatusCode, header},
};

use super::error::HttpError;

/// Answers as the reference does: 404, whatever the method.
pub struct NotFound;

#[handler]
impl NotFound {
    async fn handle(&self, response: &mut Response) {
        render_not_found(response);
    }
}

pub fn render_not_found(response: &mut Response) {
    const BODY: &str = "404 Not Found";
    response.status_code(StatusCode::NOT_FOUND);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=UTF-8"));
    headers.insert(header::CONTENT_LENGTH, BODY.len().into());
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response.body(BODY);
}

/// Gives an error status without a body its sentence.
pub struct Otherwise;

#[handler]
impl Otherwise {
    async fn handle(&self, response: &mut Response, flow: &mut FlowCtrl) -> Result<(), HttpError> {
        flow.skip_rest();
        match response.status_code {
            None | Some(StatusCode::NOT_FOUND) => Err(HttpError::NotFound),
            Some(status) => Err(HttpError::new(status, status.canonical_reason().unwrap_or("error"))),
        }
    }
}
