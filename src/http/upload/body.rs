//! Reads the body of an upload, which takes memory as it arrives.

use std::time::Duration;

use futures_util::StreamExt;
use salvo::http::{ReqBody, StatusCode};
use tokio::time::{Instant, timeout_at};

use crate::{
    config::PodSettings,
    http::{
        error::HttpError,
        upload_limiter::{ArrivingUpload, UploadPermit},
    },
};

/// Bytes of a piece of a body.
const PIECE: usize = 64 * 1024;

/// A body in pieces of one size: buffers that grow, or are as large as the body may become, fragment the heap beyond what
/// `pods.upload_memory` accounts for.
pub struct Body {
    pieces: Vec<Vec<u8>>,
    length: usize,
    limit: usize,
}

impl Body {
    /// Returns an empty body, which becomes no longer than `limit`.
    fn new(limit: usize) -> Self {
        Self { pieces: Vec::new(), length: 0, limit }
    }

    fn append(&mut self, mut data: &[u8]) {
        while !data.is_empty() {
            if self.pieces.last().is_none_or(|piece| piece.len() == piece.capacity()) {
                self.pieces.push(Vec::with_capacity((self.limit - self.length).min(PIECE)));
            }
            let piece = self.pieces.last_mut().expect("there is one");
            let (fits, rest) = data.split_at(data.len().min(piece.capacity() - piece.len()));
            piece.extend_from_slice(fits);
            self.length += fits.len();
            data = rest;
        }
    }

    /// Returns the bytes in one buffer. Each piece goes as soon as it is copied.
    pub fn into_bytes(self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.length);
        for piece in self.pieces {
            bytes.extend_from_slice(&piece);
        }
        bytes
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
    let mut whole = Body::new(usize::try_from(limit).unwrap_or(usize::MAX));
    // Every byte buys time, but what came fast at first buys no long stillness later.
    let mut deadline = Instant::now() + settings.upload_grace;
    loop {
        let frame = match timeout_at(deadline, body.next()).await {
            Ok(None) => return Ok(whole),
            Ok(Some(Ok(frame))) => frame,
            Ok(Some(Err(_))) => {
                return Err(HttpError::new(
                    StatusCode::BAD_REQUEST,
                    "the body ended before its announced length",
                ));
            }
            Err(_) => {
                let message =
                    format!("the body came slower than {} bytes a second", settings.min_upload_rate.as_u64());
                return Err(HttpError::new(StatusCode::REQUEST_TIMEOUT, message));
            }
        };
        let Ok(data) = frame.into_data() else { continue };
        let arrived = (whole.length + data.len()) as u64;
        if arrived > limit {
            return Err(too_large(settings.max_blob.as_u64()));
        }
        let bought = Duration::from_secs_f64(data.len() as f64 / settings.min_upload_rate.as_u64() as f64);
        let left = (deadline + bought).saturating_duration_since(Instant::now()).min(settings.upload_grace);
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

    proptest! {
        /// For every way in which a body is cut, it is put together again.
        #[test]
        fn a_body_in_pieces_is_whole(
            parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300_000), 0..4),
            to_come in 0..300_000_usize,
        ) {
            let length = parts.iter().map(Vec::len).sum::<usize>();
            let mut body = Body::new(length + to_come);
            parts.iter().for_each(|part| body.append(part));
            prop_assert!(body.pieces.iter().all(|piece| piece.capacity() <= PIECE));
            prop_assert!(body.pieces.iter().map(Vec::capacity).sum::<usize>() <= length + to_come);
            prop_assert_eq!(body.length, length);
            prop_assert!(body.into_bytes() == parts.concat());
        }
    }
}
