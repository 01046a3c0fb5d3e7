//! A connection as HTTP gets it: TCP or Unix, with TLS or without.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
    sync::OwnedSemaphorePermit,
};
use tokio_rustls::server::TlsStream;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::crowd::Counted;

/// A connection and its place among all connections, which it gives back at its end, after an upgrade too.
pub struct Stream {
    transport: Transport,
    _room: OwnedSemaphorePermit,
    _counted: Option<Counted>,
    /// When to give up, as long as nothing has come: browsers open connections ahead of need, and HTTP does not notice
    /// a stop until it knows its version.
    silent: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
}

impl Stream {
    /// A connection that is given up if it is silent until `silent` is cancelled.
    pub fn new(
        transport: Transport,
        room: OwnedSemaphorePermit,
        counted: Option<Counted>,
        silent: CancellationToken,
    ) -> Self {
        Self { transport, _room: room, _counted: counted, silent: Some(Box::pin(silent.cancelled_owned())) }
    }
}

pub enum Transport {
    Plain(Raw),
    Tls(Box<TlsStream<Raw>>),
}

pub enum Raw {
    Tcp(TcpStream),
    Unix(UnixStream),
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
        let before = buf.filled().len();
        let read = Pin::new(&mut self.transport).poll_read(cx, buf)?;
        let Some(silent) = &mut self.silent else { return read.map(Ok) };
        if buf.filled().len() > before {
            self.silent = None;
        } else if silent.as_mut().poll(cx).is_ready() {
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
