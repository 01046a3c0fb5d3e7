//! A deadline for what is flushed: TLS takes 64 KiB from its writer before its client takes any of it.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use salvo::ConnCtrl;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep},
};

/// A stream on which a flush or a shutdown fails with [`io::ErrorKind::TimedOut`] if it takes longer than a limit, unless
/// the timeouts of the connection are relaxed. Writes are left to whatever wraps this.
pub struct FlushDeadline<S> {
    stream: S,
    limit: Duration,
    conn_ctrl: ConnCtrl,
    is_waiting: bool,
    alarm: Option<Pin<Box<Sleep>>>,
}

impl<S> FlushDeadline<S> {
    /// Wraps `stream`, whose flushes may take `limit`.
    pub fn new(stream: S, limit: Duration, conn_ctrl: ConnCtrl) -> Self {
        Self { stream, limit, conn_ctrl, is_waiting: false, alarm: None }
    }

    fn watch(&mut self, cx: &mut Context<'_>, flushed: Poll<io::Result<()>>) -> Poll<io::Result<()>> {
        if flushed.is_ready() || self.conn_ctrl.is_relaxed() {
            self.is_waiting = false;
            return flushed;
        }
        let alarm = self.alarm.get_or_insert_with(|| Box::pin(sleep(self.limit)));
        if !self.is_waiting {
            self.is_waiting = true;
            // A limit that no clock reaches stays what it is.
            if let Some(deadline) = Instant::now().checked_add(self.limit) {
                alarm.as_mut().reset(deadline);
            }
        }
        ready!(alarm.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    /// Starts the time anew where something was taken.
    fn written(&mut self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        self.is_waiting &= !matches!(written, Poll::Ready(Ok(1..)));
        written
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for FlushDeadline<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for FlushDeadline<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.written(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.written(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.watch(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.watch(cx, shut)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, BufWriter, duplex};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(30);

    #[tokio::test(start_paused = true)]
    async fn a_flush_that_the_peer_does_not_take_fails_and_so_does_a_shutdown() {
        let (ours, mut theirs) = duplex(64);
        let mut stream = FlushDeadline::new(BufWriter::new(ours), LIMIT, ConnCtrl::new());
        stream.write_all(&[0; 100]).await.unwrap();
        let begun = Instant::now();
        assert_eq!(stream.flush().await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(begun.elapsed(), LIMIT);
        theirs.read_exact(&mut [0; 64]).await.unwrap();
        stream.flush().await.unwrap();
        stream.write_all(&[0; 100]).await.unwrap();
        assert_eq!(stream.shutdown().await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(begun.elapsed(), LIMIT * 2);
    }

    #[tokio::test(start_paused = true)]
    async fn an_upgraded_connection_may_take_any_time() {
        let (ours, mut theirs) = duplex(64);
        let conn_ctrl = ConnCtrl::new();
        let mut stream = FlushDeadline::new(BufWriter::new(ours), LIMIT, conn_ctrl.clone());
        conn_ctrl.relax_timeouts();
        stream.write_all(&[0; 100]).await.unwrap();
        let take = async {
            sleep(LIMIT * 3).await;
            theirs.read_exact(&mut [0; 64]).await.unwrap();
        };
        let (flushed, ()) = tokio::join!(stream.flush(), take);
        flushed.unwrap();
    }
}
