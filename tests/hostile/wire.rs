//! What carries an attacker's bytes to the broker.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf},
    time::timeout,
};

use crate::support::http2::Tunnel;

/// A connection, or a stream of HTTP/2 that became a WebSocket.
pub enum Wire {
    Connection(Box<dyn Connection>),
    Stream(Tunnel),
}

pub trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connection for T {}

impl Wire {
    pub fn on(connection: impl Connection + 'static) -> Self {
        Self::Connection(Box::new(connection))
    }

    /// Writes until it is done, the broker breaks the connection, or the broker takes no more for a while. What a
    /// stream of HTTP/2 may not send yet waits in the client, as it waits in the system for a connection.
    pub async fn push(&mut self, bytes: &Bytes) {
        match self {
            // Whichever it is: the broker need not like it.
            Self::Connection(connection) => {
                let _ = timeout(Duration::from_secs(2), connection.write_all(bytes)).await;
                let _ = timeout(Duration::from_secs(2), connection.flush()).await;
            }
            Self::Stream(tunnel) => tunnel.queue(bytes.clone()),
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Connection(connection) => Pin::new(connection).poll_read(cx, buf),
            Self::Stream(tunnel) => Pin::new(tunnel).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Connection(connection) => Pin::new(connection).poll_write(cx, buf),
            Self::Stream(tunnel) => Pin::new(tunnel).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Connection(connection) => Pin::new(connection).poll_flush(cx),
            Self::Stream(tunnel) => Pin::new(tunnel).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Connection(connection) => Pin::new(connection).poll_shutdown(cx),
            Self::Stream(tunnel) => Pin::new(tunnel).poll_shutdown(cx),
        }
    }
}
