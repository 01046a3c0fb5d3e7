//! Bounds how many bytes a client may send over TLS of which nothing comes.
//!
//! rustls keeps a handshake message until all of it has come, up to 64 KiB, before the handshake is done and after it.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes of a ClientHello. One with post-quantum keys, an encrypted hello and a session ticket has fewer than 6 KiB.
const HELLO: usize = 16 * 1024;
/// Bytes until the next plaintext: the largest record takes 18,437 (RFC 5246, section 6.2.3), and there may be some new keys and
/// warnings before it.
const RECORD: usize = 20 * 1024;

/// The connection beneath TLS.
#[derive(Debug)]
pub struct TlsInput<S> {
    stream: S,
    left: usize,
}

impl<S> TlsInput<S> {
    /// Returns a connection on which a handshake begins.
    pub fn new(stream: S) -> Self {
        Self { stream, left: HELLO }
    }

    /// Allows the rest of the handshake, now that the hello came: as much again if the server asks for another one (RFC 8446,
    /// section 4.1.4), and the first record of plaintext, which rustls may read with it.
    pub fn allow_handshake(&mut self) {
        self.left = RECORD + (HELLO - self.left);
    }

    /// Allows another record: the handshake is done, or plaintext came.
    pub fn allow_record(&mut self) {
        self.left = RECORD;
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for TlsInput<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.left == 0 {
            return Poll::Ready(Err(io::Error::other("a message of the TLS handshake is too long")));
        }
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.left = self.left.saturating_sub(buf.filled().len() - before);
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for TlsInput<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
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
mod tests {
    use std::{io::Cursor, pin::pin};

    use tokio::io::AsyncReadExt;
    use tokio_rustls::{LazyConfigAcceptor, rustls::server::Acceptor};

    use super::*;

    #[tokio::test]
    async fn a_hello_that_never_ends_is_read_no_further_than_its_bound() {
        // A ClientHello that announces 65,520 bytes, in records of 16,000.
        let hello = [&b"\x01\x00\xff\xf0\x03\x03"[..], &[b'R'; 65_000]].concat();
        let mut records = Vec::new();
        for part in hello.chunks(16_000) {
            records.extend(b"\x16\x03\x01");
            records.extend((part.len() as u16).to_be_bytes());
            records.extend(part);
        }
        let mut acceptor =
            pin!(LazyConfigAcceptor::new(Acceptor::default(), TlsInput::new(Cursor::new(records))));
        assert!(acceptor.as_mut().await.is_err());
        let taken = acceptor.take_io().unwrap().stream.position() as usize;
        assert!((HELLO..HELLO + 8 * 1024).contains(&taken), "{taken} bytes");
    }

    #[tokio::test]
    async fn each_record_may_be_as_large_as_any() {
        let mut input = TlsInput::new(Cursor::new(vec![0; 10 * RECORD]));
        input.allow_record();
        for _ in 0..4 {
            input.read_exact(&mut [0; 18_437]).await.unwrap();
            input.allow_record();
        }
        input.read_exact(&mut [0; RECORD]).await.unwrap();
        assert!(input.read_u8().await.is_err());
    }
}
