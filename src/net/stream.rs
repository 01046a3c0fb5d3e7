//! A connection as HTTP gets it: TCP or Unix, with TLS or without.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use tokio::{
    io::{AsyncBufRead, AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
    sync::OwnedSemaphorePermit,
};
use tokio_rustls::server::TlsStream;

use super::{
    connection_limiter::ConnectionPermit,
    silent::Silent,
    small_frames::{ThrottledFrames, TlsRecords},
    tls_input::TlsInput,
};

/// A connection and its place among all connections, which it gives back at its end, after an upgrade too.
pub struct Stream {
    transport: Transport,
    // Before the room, in which the next one of the same client may have waited.
    _counted: Option<ConnectionPermit>,
    _room: OwnedSemaphorePermit,
    /// When to give up, as long as nothing has come: browsers open connections ahead of need, and HTTP does not notice
    /// a stop until it knows its version.
    silent: Option<Silent>,
    /// Read to find out the version, and to be read again.
    read: Bytes,
}

/// How a client of HTTP/2 begins (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What is spoken on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    Http1,
    Http2,
}

impl Stream {
    /// A connection that is given up when `silent` says so, as long as nothing has come.
    pub fn new(
        transport: Transport,
        room: OwnedSemaphorePermit,
        counted: Option<ConnectionPermit>,
        silent: Silent,
    ) -> Self {
        Self { transport, _room: room, _counted: counted, silent: Some(silent), read: Bytes::new() }
    }

    /// Reads as much as it takes to tell what the client speaks.
    pub async fn version(&mut self) -> io::Result<Version> {
        let (mut read, mut length) = ([0; PREFACE.len()], 0);
        while length < PREFACE.len() && read[..length] == PREFACE[..length] {
            match self.read(&mut read[length..]).await? {
                0 => break,
                more => length += more,
            }
        }
        self.read = Bytes::copy_from_slice(&read[..length]);
        Ok(if read == PREFACE { Version::Http2 } else { Version::Http1 })
    }

    fn poll_transport(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Transport::Tls(tls) = &mut self.transport else {
            return Pin::new(&mut self.transport).poll_read(cx, buf);
        };
        // One record at a time: `poll_read` goes on until `buf` is full, with any number of records.
        let plaintext = ready!(Pin::new(&mut **tls).poll_fill_buf(cx))?;
        let length = plaintext.len().min(buf.remaining());
        buf.put_slice(&plaintext[..length]);
        Pin::new(&mut **tls).consume(length);
        if length > 0 {
            tls.get_mut().0.allow_record();
        }
        Poll::Ready(Ok(()))
    }
}

pub enum Transport {
    Plain(Raw),
    Tls(Box<TlsStream<TlsInput<ThrottledFrames<Raw, TlsRecords>>>>),
}

pub enum Raw {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Raw {
    /// Waits until something has come, or the connection has ended.
    pub async fn readable(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.readable().await,
            Self::Unix(stream) => stream.readable().await,
        }
    }
}

/// Hands a call on to whichever variant there is.
macro_rules! delegate {
    ($self:ident, $stream:ident => $call:expr, $($variant:path),+) => {
        match $self.get_mut() {
            $( $variant($stream) => { let $stream = Pin::new($stream); $call } )+
        }
    };
}

macro_rules! delegate_io {
    ($type:ty, $($variant:path),+) => {
        impl AsyncRead for $type {
            fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
                delegate!(self, stream => stream.poll_read(cx, buf), $($variant),+)
            }
        }

        impl AsyncWrite for $type {
            fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
                delegate!(self, stream => stream.poll_write(cx, buf), $($variant),+)
            }

            fn poll_write_vectored(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                bufs: &[IoSlice<'_>],
            ) -> Poll<io::Result<usize>> {
                delegate!(self, stream => stream.poll_write_vectored(cx, bufs), $($variant),+)
            }

            fn is_write_vectored(&self) -> bool {
                match self {
                    $( $variant(stream) => stream.is_write_vectored(), )+
                }
            }

            fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                delegate!(self, stream => stream.poll_flush(cx), $($variant),+)
            }

            fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                delegate!(self, stream => stream.poll_shutdown(cx), $($variant),+)
            }
        }
    };
}

delegate_io!(Raw, Raw::Tcp, Raw::Unix);
delegate_io!(Transport, Transport::Plain, Transport::Tls);

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.read.has_remaining() {
            let length = self.read.len().min(buf.remaining());
            buf.put_slice(&self.read.split_to(length));
            // What has come with it is read with it: HTTP would double its buffer for it otherwise.
            return match self.poll_transport(cx, buf) {
                Poll::Pending => Poll::Ready(Ok(())),
                read => read,
            };
        }
        let before = buf.filled().len();
        let read = self.poll_transport(cx, buf)?;
        let Some(silent) = &mut self.silent else { return read.map(Ok) };
        if buf.filled().len() > before {
            self.silent = None;
        } else if silent.poll_given_up(cx).is_ready() {
            return Poll::Ready(Ok(()));
        }
        read.map(Ok)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.transport).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.transport).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.transport.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.transport).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.transport).poll_shutdown(cx)
    }
}
