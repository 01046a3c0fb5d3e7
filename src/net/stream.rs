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

use super::crowd::Counted;

/// A connection and its place among all connections, which it gives back at its end, after an upgrade too.
pub struct Stream {
    pub transport: Transport,
    pub _room: OwnedSemaphorePermit,
    pub _counted: Option<Counted>,
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
        Pin::new(&mut self.transport).poll_read(cx, buf)
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
