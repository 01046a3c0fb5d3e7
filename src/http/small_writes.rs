//! Writes to a WebSocket on a stream of HTTP/2 in small pieces.
//!
//! hyper hands what is written there from one task to another and takes up to four writes, of whatever length, before
//! it makes the writer wait. Nobody counts those, so they have to be small.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes that are written at a time: four of these are as much as each socket may queue outside of the common budget.
const PIECE: usize = 2 * 1024;

/// A stream that is written to in small pieces, if it has to be.
pub struct SmallWrites<S> {
    stream: S,
    at_most: usize,
}

impl<S> SmallWrites<S> {
    /// Returns `stream`, which may be one of HTTP/2.
    pub fn new(stream: S, is_http2: bool) -> Self {
        Self { stream, at_most: if is_http2 { PIECE } else { usize::MAX } }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for SmallWrites<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for SmallWrites<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let length = buf.len().min(self.at_most);
        Pin::new(&mut self.stream).poll_write(cx, &buf[..length])
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
