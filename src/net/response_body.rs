//! A response body on an HTTP/2 stream: one piece at a time is on its way, and the stream's deadline runs while it is.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker, ready},
};

use bytes::Bytes;
use salvo::{
    http::ResBody,
    hyper::body::{Body, Frame, SizeHint},
};

use super::{connection_limiter::ConnectionPermit, streams::StreamProgress};

/// Bytes that the client has to take within the write timeout.
const PIECE: usize = 64 * 1024;

/// A response body of which the next piece comes once the last one was written to the connection.
///
/// It ends only when its last piece was written, so that a response is never left to itself in the buffers of HTTP/2.
pub struct StreamBody {
    inner: ResBody,
    /// What is left of the last frame.
    rest: Bytes,
    piece: Arc<Piece>,
    progress: Arc<StreamProgress>,
    _request: Option<ConnectionPermit>,
}

impl StreamBody {
    /// Returns `inner` for the stream in whose task this is called. `request` counts until all of it was taken.
    pub fn new(inner: ResBody, request: Option<ConnectionPermit>) -> Self {
        let progress = StreamProgress::of_stream();
        Self { inner, rest: Bytes::new(), piece: Arc::default(), progress, _request: request }
    }

    fn hand_over(&mut self) -> Frame<Bytes> {
        let bytes = self.rest.split_to(self.rest.len().min(PIECE));
        self.progress.begin_waiting();
        self.piece.lock().is_out = true;
        Frame::data(Bytes::from_owner(OnItsWay { bytes, piece: self.piece.clone() }))
    }
}

impl Body for StreamBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        ready!(self.piece.poll_written(cx));
        self.progress.end_waiting();
        while self.rest.is_empty() {
            let Some(frame) = ready!(Pin::new(&mut self.inner).poll_frame(cx)?) else {
                return Poll::Ready(None);
            };
            match frame.into_data() {
                Ok(bytes) => self.rest = bytes,
                Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
            }
        }
        Poll::Ready(Some(Ok(self.hand_over())))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && !self.piece.lock().is_out && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// Whether a piece is on its way, and whom to wake once it is not.
#[derive(Default)]
struct Piece(Mutex<State>);

#[derive(Default)]
struct State {
    is_out: bool,
    waker: Option<Waker>,
}

impl Piece {
    fn poll_written(&self, cx: &Context<'_>) -> Poll<()> {
        let mut state = self.lock();
        if !state.is_out {
            return Poll::Ready(());
        }
        state.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    fn written(&self) {
        let mut state = self.lock();
        state.is_out = false;
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A piece on its way; dropping it means that it was written, or that its stream is gone.
struct OnItsWay {
    bytes: Bytes,
    piece: Arc<Piece>,
}

impl AsRef<[u8]> for OnItsWay {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for OnItsWay {
    fn drop(&mut self) {
        self.piece.written();
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use futures_util::poll;

    use super::*;

    #[tokio::test]
    async fn one_piece_is_on_its_way_and_the_end_waits_for_the_last() {
        let whole: Bytes = (0..PIECE * 2 + 5).map(|n| n as u8).collect::<Vec<_>>().into();
        let mut body = StreamBody::new(whole.clone().into(), None);
        assert_eq!(body.size_hint().exact(), Some(whole.len() as u64));
        let mut sent = Vec::new();
        for _ in 0..3 {
            let frame = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await.unwrap().unwrap();
            let piece = frame.into_data().unwrap();
            assert!(piece.len() <= PIECE && !body.is_end_stream());
            assert!(poll!(poll_fn(|cx| Pin::new(&mut body).poll_frame(cx))).is_pending());
            sent.extend_from_slice(&piece);
        }
        assert!(body.is_end_stream());
        assert!(poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await.is_none());
        assert!(sent == whole);
    }
}
