//! Finds peers that take nothing of what is written to them.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep_until},
};

/// A stream whose writes fail with [`io::ErrorKind::TimedOut`] once the peer has taken nothing for a while. One that
/// takes something now and then, however little, may take any time.
#[derive(Debug)]
pub struct WriteStallTimeout<S> {
    stream: S,
    patience: Duration,
    /// When the peer took something last, if there is more for it to take.
    stalled: Option<Instant>,
    /// Goes off when the time is up, or before: what was taken meanwhile does not move it.
    alarm: Option<Pin<Box<Sleep>>>,
    taken: Taken,
}

/// Whether the peer made room for more while data waited for it, which shows that it is there.
#[derive(Clone, Debug, Default)]
pub struct Taken(Arc<AtomicBool>);

impl Taken {
    /// Returns whether it did since this was called last.
    pub fn take(&self) -> bool {
        self.0.load(Relaxed) && self.0.swap(false, Relaxed)
    }
}

impl<S> WriteStallTimeout<S> {
    /// Lets the peer take nothing for `patience`.
    pub fn new(stream: S, patience: Duration) -> Self {
        Self { stream, patience, stalled: None, alarm: None, taken: Taken::default() }
    }

    /// Returns what tells whether the peer made room.
    pub fn taken(&self) -> Taken {
        self.taken.clone()
    }

    fn watch<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            if self.stalled.take().is_some() && matches!(written, Poll::Ready(Ok(_))) {
                self.taken.0.store(true, Relaxed);
            }
            return written;
        }
        let deadline = *self.stalled.get_or_insert_with(Instant::now) + self.patience;
        let alarm = self.alarm.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        loop {
            ready!(alarm.as_mut().poll(cx));
            if deadline <= Instant::now() {
                // A close frame may still be tried.
                self.stalled = None;
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            alarm.as_mut().reset(deadline);
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for WriteStallTimeout<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for WriteStallTimeout<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.watch(cx, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.watch(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt, duplex},
        time::sleep,
    };

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_takes_something_now_and_then_may_take_any_time() {
        let (ours, mut theirs) = duplex(64);
        let mut stream = WriteStallTimeout::new(ours, PATIENCE);
        let begin = Instant::now();
        let read = async {
            for _ in 0..100 {
                sleep(PATIENCE - Duration::from_secs(1)).await;
                theirs.read_u8().await.unwrap();
            }
            begin.elapsed()
        };
        let write = async { stream.write_all(&[0; 1000]).await.unwrap_err() };
        let (read, error) = tokio::join!(read, write);
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(begin.elapsed(), read + PATIENCE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_for_which_nothing_waits_may_be_idle() {
        let (ours, mut theirs) = duplex(64);
        let mut stream = WriteStallTimeout::new(ours, PATIENCE);
        for _ in 0..3 {
            let write = async { stream.write_all(&[0; 100]).await.unwrap() };
            let read = async { theirs.read_exact(&mut [0; 100]).await.unwrap() };
            tokio::join!(write, read);
            sleep(PATIENCE * 2).await;
        }
    }
}
