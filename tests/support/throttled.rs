//! A connection that takes what it is sent no faster than a slow line does.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep_until},
};

/// Bytes that are taken at a time.
const PIECE: usize = 8 * 1024;

pub struct Throttled<S> {
    stream: S,
    bytes_per_second: u32,
    next_piece: Pin<Box<Sleep>>,
}

impl<S> Throttled<S> {
    pub fn new(stream: S, bytes_per_second: u32) -> Self {
        Self { stream, bytes_per_second, next_piece: Box::pin(sleep_until(Instant::now())) }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Throttled<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.next_piece.as_mut().poll(cx));
        let mut piece = [0; PIECE];
        let mut piece = ReadBuf::new(&mut piece[..buf.remaining().min(PIECE)]);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut piece))?;
        buf.put_slice(piece.filled());
        let read = piece.filled().len();
        // What is late is made up for, so that the rate holds on a busy machine too.
        let due = self.next_piece.deadline().max(Instant::now() - Duration::from_secs(1));
        let pause = Duration::from_secs(read as u64) / self.bytes_per_second;
        self.next_piece.as_mut().reset(due + pause);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Throttled<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
