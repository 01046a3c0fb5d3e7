//! A rate for frames that carry little, of which a client can send millions a second: each takes the processor as long as
//! many bytes of a large one.
//!
//! What is over the rate is not read, and waits in the client's own connection. What the broker sends over a connection pays
//! for some: clients confirm what they receive.

mod framing;

use std::{
    io::{self, IoSlice},
    net::IpAddr,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use self::framing::{Framing, SmallFrames};
pub use self::framing::{Http2Frames, TlsRecords, WebSocketFrames};
use super::{read_throttle::ReadThrottle, throttle::ClientThrottles};

/// Small frames of HTTP/2 that are read in a second from all connections of a client, beside as many as its sockets may send.
const HTTP2_FRAMES_PER_SECOND: u32 = 5_000;
/// The same for small records of TLS. They cost less, and each small frame within may have one to itself.
const TLS_RECORDS_PER_SECOND: u32 = 50_000;
/// Bytes that are read at a time from a connection whose client is over its rate, so that its connections take short turns.
const TURN: usize = 1024;
/// Bytes sent that pay for one small frame: clients open windows for every 4 KiB that they took, twice, or more seldom.
const PAYS_FOR_ONE: usize = 2 * 1024;
/// Small frames that can be paid for in advance.
const MAX_PAID: usize = 8 * 1024;

/// The paces of all clients beneath their requests and sockets.
#[derive(Debug, Default)]
pub struct FrameThrottles {
    http2: ClientThrottles,
    tls: ClientThrottles,
}

impl FrameThrottles {
    /// Returns the pace of a connection of HTTP/2 of `client`, whose sockets may send `of_sockets` frames a second.
    pub fn http2(&self, client: IpAddr, of_sockets: u32) -> ReadThrottle {
        let rate = of_sockets.saturating_add(HTTP2_FRAMES_PER_SECOND);
        ReadThrottle::new(&self.http2, Some(client), rate, rate)
    }

    /// Returns the pace of a connection of TLS of `client`, whose sockets may send `of_sockets` frames a second.
    pub fn tls(&self, client: IpAddr, of_sockets: u32) -> ReadThrottle {
        let rate = of_sockets.saturating_add(TLS_RECORDS_PER_SECOND);
        ReadThrottle::new(&self.tls, Some(client), rate, rate)
    }
}

/// A stream of frames whose small ones have a rate.
pub struct ThrottledFrames<S, F> {
    stream: S,
    frames: SmallFrames<F>,
    throttle: Option<ReadThrottle>,
    /// Bytes that were sent and have not paid for any frame yet.
    sent: usize,
}

impl<S, F: Framing> ThrottledFrames<S, F> {
    /// Returns `stream`, of which nothing was read yet. Without a throttle, it has no rate.
    pub fn new(stream: S, throttle: Option<ReadThrottle>) -> Self {
        Self { stream, frames: SmallFrames::new(), throttle, sent: 0 }
    }
}

impl<S: AsyncRead + Unpin, F: Framing> AsyncRead for ThrottledFrames<S, F> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { stream, frames, throttle: Some(throttle), sent } = &mut *self else {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        };
        let is_late = throttle.is_late();
        ready!(throttle.poll_ready(cx));
        let before = buf.filled().len();
        if is_late {
            let length = buf.remaining().min(TURN);
            let mut turn = ReadBuf::new(buf.initialize_unfilled_to(length));
            ready!(Pin::new(stream).poll_read(cx, &mut turn))?;
            let length = turn.filled().len();
            buf.advance(length);
        } else {
            ready!(Pin::new(stream).poll_read(cx, buf))?;
        }
        let small = frames.read(&buf.filled()[before..]);
        let paid = small.min((*sent / PAYS_FOR_ONE) as u32);
        *sent -= paid as usize * PAYS_FOR_ONE;
        if small > paid {
            throttle.count(small - paid);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin, F> ThrottledFrames<S, F> {
    fn count_sent(&mut self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(bytes)) = written {
            self.sent = self.sent.saturating_add(bytes).min(MAX_PAID * PAYS_FOR_ONE);
        }
        written
    }
}

impl<S: AsyncWrite + Unpin, F> AsyncWrite for ThrottledFrames<S, F> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.count_sent(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.count_sent(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;
