//! Conditional requests (RFC 9110, section 13). A pod has entity tags and no `Last-Modified`, so that `If-Match` and
//! `If-None-Match` count, and the conditions on dates are ignored.

use salvo::http::{
    HeaderMap, StatusCode,
    headers::{ETag, HeaderMapExt, IfMatch, IfNoneMatch},
};

use super::error::HttpError;

/// The preconditions of a request.
pub struct Conditions {
    if_match: Option<IfMatch>,
    if_none_match: Option<IfNoneMatch>,
}

impl Conditions {
    /// Reads the conditions from the fields of a request.
    pub fn of(headers: &HeaderMap) -> Self {
        Self { if_match: headers.typed_get(), if_none_match: headers.typed_get() }
    }

    /// Returns `true` if the request has no condition.
    pub fn is_empty(&self) -> bool {
        self.if_match.is_none() && self.if_none_match.is_none()
    }

    /// Returns `true` if `If-Match` permits the representation with this tag.
    pub fn permits(&self, etag: &ETag) -> bool {
        self.if_match.as_ref().is_none_or(|condition| condition.precondition_passes(etag))
    }

    /// Returns `true` if `If-None-Match` names this tag: the client has that representation.
    pub fn names(&self, etag: &ETag) -> bool {
        self.if_none_match.as_ref().is_some_and(|condition| !condition.precondition_passes(etag))
    }

    /// Checks the conditions of a request that changes a pod, one representation of which has each of these tags.
    ///
    /// # Errors
    ///
    /// Returns 412 if a condition is false.
    pub fn check_change(&self, etags: &[ETag]) -> Result<(), HttpError> {
        let is_permitted = etags.iter().any(|etag| self.permits(etag));
        let is_named = etags.iter().any(|etag| self.names(etag));
        if is_permitted && !is_named { Ok(()) } else { Err(precondition_failed()) }
    }
}

/// The refusal of a request whose condition is false.
pub fn precondition_failed() -> HttpError {
    let message = "the pod is not in the version that If-Match or If-None-Match asks for";
    HttpError::new(StatusCode::PRECONDITION_FAILED, message)
}
