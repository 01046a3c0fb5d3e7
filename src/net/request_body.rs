//! A request body whose fate is known when the response begins.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use salvo::{
    BoxedError,
    http::ReqBody,
    hyper::body::{Body, Frame, Incoming, SizeHint},
};

/// Tells whether a request body was dropped before its end: an HTTP/1.1 connection cannot go on then.
#[derive(Clone, Default)]
pub struct GivenUp(Arc<AtomicBool>);

impl GivenUp {
    /// Whether the body was dropped before its end.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Returns the body for the handlers, and what becomes of it.
pub fn watch(body: Incoming) -> (ReqBody, GivenUp) {
    let given_up = GivenUp::default();
    if body.is_end_stream() {
        return (body.into(), given_up);
    }
    let watched = Watched { inner: body, has_ended: false, given_up: given_up.clone() };
    (ReqBody::Boxed { inner: Box::pin(watched), fuse_config: None }, given_up)
}

struct Watched {
    inner: Incoming,
    has_ended: bool,
    given_up: GivenUp,
}

impl Body for Watched {
    type Data = Bytes;
    type Error = BoxedError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxedError>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx)?);
        self.has_ended |= frame.is_none() || self.inner.is_end_stream();
        Poll::Ready(frame.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if !self.has_ended {
            self.given_up.0.store(true, Ordering::Relaxed);
        }
    }
}
