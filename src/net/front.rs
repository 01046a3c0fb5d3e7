//! Accepts connections from several listeners and makes them ready for HTTP: bounded in number, PROXY header read,
//! TLS handshake done, each within its time.

use std::{io, sync::Arc, time::Duration};

use salvo::{
    ConnCtrl,
    conn::{Accepted, Acceptor, Holding, SocketAddr, StraightStream, tcp::TcpCoupler},
    fuse::{ArcFusePolicy, FuseConfig},
    http::uri::Scheme,
};
use tokio::{
    io::AsyncWriteExt,
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, rustls::ServerConfig};
use tokio_util::sync::CancellationToken;

use super::{
    client::trusts,
    crowd::Crowd,
    listener::{Listener, ListeningSocket},
    proxy_protocol,
    stream::{Raw, Stream, Transport},
};
use crate::{
    config::{Config, Live},
    tls::ACME_TLS_ALPN,
};

/// Connections that are ready, but not yet taken by the HTTP server.
const READY: usize = 64;
/// How long accepting pauses when the process has no file descriptor left.
const PAUSE: Duration = Duration::from_millis(200);

/// What all listeners share.
#[derive(Clone)]
pub struct Entrance {
    pub live: Live,
    /// How TLS is spoken, where any listener does.
    pub tls: Option<Arc<ServerConfig>>,
    /// Room for further connections.
    pub room: Arc<Semaphore>,
    pub crowd: Arc<Crowd>,
    /// Cancelled when nothing more is to be accepted.
    pub stop: CancellationToken,
}

impl Entrance {
    /// Whether no connection is open.
    pub fn is_empty(&self) -> bool {
        self.room.available_permits() == self.live.load().http.max_connections as usize
    }
}

/// An acceptor for salvo that takes from all listeners.
pub struct Front {
    ready: mpsc::Receiver<Ready>,
    live: Live,
    handed_over: CancellationToken,
}

struct Ready {
    stream: Stream,
    local: SocketAddr,
    remote: SocketAddr,
    scheme: Scheme,
}

impl Front {
    /// Begins to accept from `listeners`, until `entrance.stop`.
    pub fn open(listeners: Vec<Listener>, entrance: &Entrance) -> Self {
        let (sender, ready) = mpsc::channel(READY);
        for listener in listeners {
            tokio::spawn(accept_all(Arc::new(listener), entrance.clone(), sender.clone()));
        }
        Self { ready, live: entrance.live.clone(), handed_over: CancellationToken::new() }
    }

    /// Cancelled once, after the stop, every connection that was accepted before it has been handed over.
    pub fn handed_over(&self) -> CancellationToken {
        self.handed_over.clone()
    }
}

impl Acceptor for Front {
    type Coupler = TcpCoupler<Self::Stream>;
    type Stream = StraightStream<Stream>;

    fn holdings(&self) -> &[Holding] {
        &[]
    }

    async fn accept(
        &mut self,
        _: Option<ArcFusePolicy>,
    ) -> io::Result<Accepted<Self::Coupler, Self::Stream>> {
        let Some(Ready { stream, local, remote, scheme }) = self.ready.recv().await else {
            self.handed_over.cancel();
            return std::future::pending().await;
        };
        let fuses = Some(fuses(&self.live.load()));
        let conn_ctrl = ConnCtrl::new();
        Ok(Accepted {
            coupler: TcpCoupler::new(),
            stream: StraightStream::new(stream, fuses, conn_ctrl.clone(), None),
            fuse_config: fuses,
            conn_ctrl,
            local_addr: local,
            remote_addr: remote,
            http_scheme: scheme,
        })
    }
}

/// One listener's loop, until the stop.
async fn accept_all(listener: Arc<Listener>, entrance: Entrance, ready: mpsc::Sender<Ready>) {
    loop {
        let next = async {
            // The semaphore is never closed.
            let room = entrance.room.clone().acquire_owned().await.map_err(io::Error::other)?;
            accept(&listener.socket).await.map(|connection| (connection, room))
        };
        let next = tokio::select! {
            next = next => next,
            () = entrance.stop.cancelled() => return,
        };
        match next {
            Ok((connection, room)) => {
                let (listener, entrance, ready) = (listener.clone(), entrance.clone(), ready.clone());
                tokio::spawn(async move {
                    if let Some(prepared) = prepare(&listener, &entrance, connection, room).await {
                        // The server stopped meanwhile: the connection is dropped.
                        let _ = ready.send(prepared).await;
                    }
                });
            }
            Err(error) => pause_after(&error).await,
        }
    }
}

struct Connection {
    raw: Raw,
    local: SocketAddr,
    remote: SocketAddr,
}

async fn accept(socket: &ListeningSocket) -> io::Result<Connection> {
    match socket {
        ListeningSocket::Tcp(listener) => {
            let (stream, remote) = listener.accept().await?;
            let local = stream.local_addr()?;
            Ok(Connection { raw: Raw::Tcp(stream), local: local.into(), remote: canonical(remote).into() })
        }
        ListeningSocket::Unix(listener) => {
            let (stream, remote) = listener.accept().await?;
            let local = stream.local_addr()?;
            Ok(Connection { raw: Raw::Unix(stream), local: local.into(), remote: remote.into() })
        }
    }
}

/// An IPv4 client of a dual-stack listener is an IPv4 client.
fn canonical(address: std::net::SocketAddr) -> std::net::SocketAddr {
    (address.ip().to_canonical(), address.port()).into()
}

/// A connection that was gone before it was accepted is no news; where the process or the host has no file
/// descriptor left, trying again at once would only spin.
async fn pause_after(error: &io::Error) {
    const NO_FILES: [Option<i32>; 2] = [Some(nix::libc::EMFILE), Some(nix::libc::ENFILE)];
    if NO_FILES.contains(&error.raw_os_error()) {
        tracing::warn!(
            "no file descriptor is left: accepting pauses; raise the limit (LimitNOFILE in systemd)"
        );
        tokio::time::sleep(PAUSE).await;
    } else {
        tracing::debug!(%error, "a connection was not accepted");
    }
}

/// Does what must be done before HTTP begins; nothing where the connection is refused or fails.
async fn prepare(
    listener: &Listener,
    entrance: &Entrance,
    Connection { mut raw, local, mut remote }: Connection,
    room: OwnedSemaphorePermit,
) -> Option<Ready> {
    let config = entrance.live.load();
    let trusted = trusts(&config.trusted_proxies, &remote);
    let counted = match remote.ip() {
        Some(address) if !trusted => {
            Some(entrance.crowd.enter(address, config.http.max_connections_per_address)?)
        }
        _ => None,
    };
    let ready = async {
        if listener.listen.proxy_protocol
            && trusted
            && let Some(client) = proxy_protocol::read_header(&mut raw).await?
        {
            remote = canonical(client).into();
        }
        let transport = match &entrance.tls {
            Some(tls) if listener.listen.tls => handshake(raw, tls).await?,
            _ => Transport::Plain(raw),
        };
        Ok::<_, io::Error>(transport)
    };
    let transport = match timeout(config.http.handshake_timeout, ready).await {
        Ok(Ok(transport)) => transport,
        Ok(Err(error)) => {
            tracing::debug!(%error, "a connection did not get as far as HTTP");
            return None;
        }
        Err(_) => {
            tracing::debug!("a connection took too long before HTTP");
            return None;
        }
    };
    let scheme = if listener.listen.tls { Scheme::HTTPS } else { Scheme::HTTP };
    Some(Ready { stream: Stream { transport, _room: room, _counted: counted }, local, remote, scheme })
}

async fn handshake(raw: Raw, config: &Arc<ServerConfig>) -> io::Result<Transport> {
    let mut stream = TlsAcceptor::from(config.clone()).accept(raw).await?;
    if stream.get_ref().1.alpn_protocol() == Some(ACME_TLS_ALPN) {
        stream.shutdown().await?;
        return Err(io::Error::other("an ACME directory looked for its challenge"));
    }
    Ok(Transport::Tls(Box::new(stream)))
}

/// How long a connection may do nothing, once it is HTTP.
fn fuses(config: &Config) -> FuseConfig {
    FuseConfig::disabled()
        .with_http1_header_timeout(config.http.head_timeout)
        .with_connection_idle_timeout(config.http.idle_timeout)
        .with_write_stall_timeout(config.http.write_timeout)
}
