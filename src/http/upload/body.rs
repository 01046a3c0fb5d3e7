//! Reads the body of an upload, which takes memory as it arrives.

use std::{ops::Range, time::Duration};

use futures_util::StreamExt;
use salvo::http::{ReqBody, StatusCode};
use tokio::time::{Instant, timeout_at};

use crate::{
    config::PodSettings,
    http::{
        error::HttpError,
        upload_limiter::{ArrivingUpload, Mapping, UploadPermit},
    },
    net::request_body::TooManyPieces,
};

/// A body, of which the bytes that have arrived take memory.
pub struct Body {
    map: Mapping,
    arrived: usize,
    /// What of it is the upload.
    content: Range<usize>,
}

impl Body {
    /// Returns an empty body that is written to `map`.
    fn new(map: Mapping) -> Self {
        Self { map, arrived: 0, content: 0..0 }
    }

    fn append(&mut self, data: &[u8]) {
        let end = self.arrived + data.len();
        self.map[self.arrived..end].copy_from_slice(data);
        self.arrived = end;
        self.content.end = end;
    }

    /// Bytes that it takes, however few of them are the upload.
    pub fn memory(&self) -> u64 {
        self.arrived as u64
    }

    /// Leaves out what is beside the upload, as `find` says, which may change all of it.
    ///
    /// # Errors
    ///
    /// Returns the error of `find`.
    pub fn narrow<E>(&mut self, find: impl FnOnce(&mut [u8]) -> Result<Range<usize>, E>) -> Result<(), E> {
        self.content = find(&mut self.map[..self.arrived])?;
        Ok(())
    }
}

impl AsRef<[u8]> for Body {
    fn as_ref(&self) -> &[u8] {
        &self.map[self.content.clone()]
    }
}

/// Checks the `Content-Length` of an upload.
///
/// # Errors
///
/// Returns 413 if it is over `pods.max_blob`.
pub fn check_length(length: Option<u64>, settings: &PodSettings) -> Result<(), HttpError> {
    let limit = settings.max_blob.as_u64();
    if length.is_some_and(|length| length > limit) { Err(too_large(limit)) } else { Ok(()) }
}

/// Reads a body of `length` bytes, if that is known. Returns it once it may be verified and stored.
///
/// # Errors
///
/// Returns why it was not read to its end: it is too large, came too slowly or broke off, or there was no room for it.
pub async fn read(
    body: &mut ReqBody,
    length: Option<u64>,
    settings: &PodSettings,
    mut upload: ArrivingUpload,
) -> Result<(Body, UploadPermit), HttpError> {
    let limit = settings.max_blob.as_u64();
    let ended = upload.ended();
    let body = tokio::select! {
        body = read_whole(body, length.unwrap_or(limit), settings, &mut upload) => Some(body?),
        () = ended.cancelled() => None,
    };
    match body {
        Some(body) => Ok((body, upload.arrived().await?)),
        None => Err(upload.refusal()),
    }
}

/// Reads a body of at most `limit` bytes whole, as long as it comes fast enough.
async fn read_whole(
    body: &mut ReqBody,
    limit: u64,
    settings: &PodSettings,
    upload: &mut ArrivingUpload,
) -> Result<Body, HttpError> {
    // Until there is memory for the body, it is left where it is: what was read of it would wait in buffers.
    upload.grow(limit.min(1), limit).await?;
    let room = upload.room(limit).map_err(|error| {
        tracing::error!(%error, "the system has no memory for an upload");
        HttpError::new(StatusCode::SERVICE_UNAVAILABLE, "there is no memory for this upload; try again later")
    })?;
    let mut whole = Body::new(room);
    // Every byte buys time, but what came fast at first buys no long stillness later.
    let mut deadline = Instant::now() + settings.bounds.upload_grace;
    loop {
        let frame = match timeout_at(deadline, body.next()).await {
            Ok(None) => return Ok(whole),
            Ok(Some(Ok(frame))) => frame,
            Ok(Some(Err(error))) => {
                let message = match TooManyPieces::in_error(&error) {
                    Some(error) => error.to_string(),
                    None => "the body ended before its announced length".to_owned(),
                };
                return Err(HttpError::new(StatusCode::BAD_REQUEST, message));
            }
            Err(_) => {
                let message = format!(
                    "the body came slower than {} bytes a second",
                    settings.bounds.min_upload_rate.as_u64()
                );
                return Err(HttpError::new(StatusCode::REQUEST_TIMEOUT, message));
            }
        };
        let Ok(data) = frame.into_data() else { continue };
        let arrived = (whole.arrived + data.len()) as u64;
        if arrived > limit {
            return Err(too_large(settings.max_blob.as_u64()));
        }
        let bought =
            Duration::from_secs_f64(data.len() as f64 / settings.bounds.min_upload_rate.as_u64() as f64);
        let left =
            (deadline + bought).saturating_duration_since(Instant::now()).min(settings.bounds.upload_grace);
        upload.grow(arrived, limit).await?;
        // What the upload waited for memory does not count against it.
        deadline = Instant::now() + left;
        whole.append(&data);
    }
}

fn too_large(limit: u64) -> HttpError {
    HttpError::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        format!("blob too large: this broker takes at most {limit} bytes"),
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::http::upload_limiter::KeptMappings;

    proptest! {
        /// For every way in which a body is cut, it is put together again.
        #[test]
        fn a_body_in_pieces_is_whole(
            parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300_000), 0..4),
            to_come in 0..300_000_usize,
        ) {
            let length = parts.iter().map(Vec::len).sum::<usize>();
            let mut body = Body::new(KeptMappings::new(u64::MAX).get(length + to_come).unwrap());
            parts.iter().for_each(|part| body.append(part));
            prop_assert_eq!(body.memory(), length as u64);
            prop_assert!(body.as_ref() == parts.concat());
        }
    }
}
