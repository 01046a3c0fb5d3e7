//! A request body of which is known, when the response begins, whether the connection can go on after it.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use salvo::{
    BoxedError,
    http::ReqBody,
    hyper::body::{Body, Frame, Incoming, SizeHint},
};

/// The rest of a body for which a connection is kept open: it is most likely on its way already.
const MAX_REST: u64 = 64 * 1024;
/// The rest of a body whose length is not known, or that nobody reads.
const UNKNOWN: u64 = u64::MAX;

/// Pieces in which a body may come, whatever their length; each costs as much of the processor as some kilobytes.
const FREE_PIECES: u64 = 10_000;
/// The bytes that each further piece must have, on average over all of the body.
const MIN_PIECE: u64 = 64;

/// A body comes in more pieces than its length explains.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the body comes in too many small pieces; send chunks of at least {MIN_PIECE} bytes")]
pub struct TooManyPieces;

impl TooManyPieces {
    /// Returns it if it is within `error`, which may be wrapped in others.
    pub fn in_error(mut error: &io::Error) -> Option<&Self> {
        loop {
            let inner = error.get_ref()?;
            if let Some(found) = inner.downcast_ref() {
                return Some(found);
            }
            error = inner.downcast_ref()?;
        }
    }
}

/// How much of a request body is still to be read.
#[derive(Clone, Default)]
pub struct Unread(Arc<AtomicU64>);

impl Unread {
    /// Returns whether an HTTP/1.1 connection ends with the response: what is left of the body is in the way of the
    /// next request, and nobody reads it or it may be more than the broker reads.
    pub fn ends_connection(&self) -> bool {
        self.0.load(Ordering::Relaxed) > MAX_REST
    }

    fn set(&self, bytes: u64) {
        self.0.store(bytes, Ordering::Relaxed);
    }
}

/// Returns the body for the handlers, and how much of it is unread.
pub fn watch(body: Incoming) -> (ReqBody, Unread) {
    let unread = Unread::default();
    if body.is_end_stream() {
        return (body.into(), unread);
    }
    unread.set(rest(&body));
    let watched = WatchedBody { inner: body, unread: unread.clone(), pieces: 0, bytes: 0 };
    (ReqBody::Boxed { inner: Box::pin(watched), fuse_config: None }, unread)
}

fn rest(body: &Incoming) -> u64 {
    if body.is_end_stream() { 0 } else { body.size_hint().exact().unwrap_or(UNKNOWN) }
}

struct WatchedBody {
    inner: Incoming,
    unread: Unread,
    /// What has come.
    pieces: u64,
    bytes: u64,
}

impl Body for WatchedBody {
    type Data = Bytes;
    type Error = BoxedError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxedError>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx)?);
        self.unread.set(if frame.is_none() { 0 } else { rest(&self.inner) });
        let bytes = frame.as_ref().and_then(Frame::data_ref).map_or(0, Bytes::len);
        self.pieces += 1;
        self.bytes += bytes as u64;
        if self.pieces > FREE_PIECES + self.bytes / MIN_PIECE {
            return Poll::Ready(Some(Err(TooManyPieces.into())));
        }
        Poll::Ready(frame.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for WatchedBody {
    fn drop(&mut self) {
        if self.unread.0.load(Ordering::Relaxed) > 0 {
            self.unread.set(UNKNOWN);
        }
    }
}
