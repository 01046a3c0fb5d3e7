//! The pod that a path names.

use salvo::Request;

use super::error::HttpError;
use crate::{net::path::normalize, pods::Slug};

/// The slug in a path of the form `/SLUG` and `suffix`.
pub fn slug_of(request: &Request, suffix: &str) -> Result<Slug, HttpError> {
    let path = normalize(request.uri().path());
    let slug = path.strip_prefix('/').and_then(|path| path.strip_suffix(suffix));
    slug.and_then(|slug| slug.parse().ok()).ok_or(HttpError::NotFound)
}
