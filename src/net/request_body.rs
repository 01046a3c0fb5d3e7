//! A request body of which is known, when the response begins, whether the connection can go on after it.

use std::{
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
    let watched = WatchedBody { inner: body, unread: unread.clone() };
    (ReqBody::Boxed { inner: Box::pin(watched), fuse_config: None }, unread)
}

fn rest(body: &Incoming) -> u64 {
    if body.is_end_stream() { 0 } else { body.size_hint().exact().unwrap_or(UNKNOWN) }
}

struct WatchedBody {
    inner: Incoming,
    unread: Unread,
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
