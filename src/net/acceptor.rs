//! Accepts connections from several listeners and makes them ready for HTTP: bounded in number, PROXY header read,
//! TLS handshake done, each within its time.

use std::{io, net::IpAddr, sync::Arc, time::Duration};

use salvo::{conn::SocketAddr, http::uri::Scheme};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpStream, UnixStream, unix},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::{Instant, sleep, timeout},
};
use tokio_rustls::{LazyConfigAcceptor, rustls::server::Acceptor as TlsAcceptor};
use tokio_util::sync::CancellationToken;

use super::{
    client::trusts,
    connection_limiter::{ConnectionCapacity, ConnectionLimiter, ConnectionPermit},
    connection_permits::ConnectionPermits,
    handshake_threads::HandshakeThreads,
    http2_places::{self, Http2Place, Http2Places, TlsConfigs},
    listener::{BACKLOG, Listener, ListeningSocket},
    proxy_protocol::{self, Named},
    silent::{Silent, SilentConnections},
    small_frames::{FrameThrottles, ThrottledFrames},
    stream::{Raw, Stream, Transport},
    throttle::ClientThrottles,
    tls_input::TlsInput,
};
use crate::{
    config::{Listen, Live},
    tls::ACME_TLS_ALPN,
};

/// Connections that are ready, but not yet taken by the HTTP server.
const READY: usize = 64;
/// How long accepting pauses when it fails.
const PAUSE: Duration = Duration::from_millis(200);
/// How long nothing is said of further pauses.
const SILENCE: Duration = Duration::from_secs(10);

/// Silent connections make room for newcomers where less than one place in so many is free.
const NEARLY_FULL: usize = 16;
/// How long a newcomer waits for a place before another silent connection makes room.
const NEXT_TO_MAKE_ROOM: Duration = Duration::from_millis(100);

/// What all listeners share.
#[derive(Clone)]
pub struct AcceptContext {
    pub live: Live,
    /// How TLS is spoken, where any listener does.
    pub tls: Option<TlsConfigs>,
    /// Room for further connections; each listener may hold one more that waits for it.
    pub room: Arc<Semaphore>,
    /// How many connections have room in total, and how many of one address.
    pub pool: ConnectionCapacity,
    pub connection_limiter: Arc<ConnectionLimiter>,
    /// The same for requests on streams of HTTP/2.
    pub requests: Arc<ConnectionLimiter>,
    pub http2_places: Http2Places,
    /// How often the requests on streams of each network are begun.
    pub throttles: Arc<ClientThrottles>,
    /// How fast the frames of each network are read.
    pub frames: Arc<FrameThrottles>,
    /// Where the work that handshakes take of the processor is done.
    pub handshake_threads: HandshakeThreads,
    /// Cancelled when nothing more is to be accepted.
    pub stop: CancellationToken,
    /// Those on which nothing was sent yet.
    pub silent: SilentConnections,
}

impl AcceptContext {
    /// Whether no connection is open.
    pub fn is_empty(&self) -> bool {
        self.room.available_permits() == self.pool.places
    }
}

/// Connections from several listeners, ready for HTTP.
pub struct Acceptor {
    ready: mpsc::Receiver<Ready>,
    handed_over: CancellationToken,
}

/// A connection that is ready for HTTP.
pub struct Ready {
    pub stream: Stream,
    pub local: SocketAddr,
    pub remote: SocketAddr,
    pub scheme: Scheme,
    pub connection_permits: ConnectionPermits,
    /// The place of a connection that is to speak HTTP/2, if its handshake says so.
    pub http2_place: Option<Http2Place>,
}

impl Acceptor {
    /// Begins to accept from `listeners`, until `accept_context.stop`.
    pub fn open(listeners: Vec<Listener>, accept_context: &AcceptContext) -> Self {
        let (sender, ready) = mpsc::channel(READY);
        for listener in listeners {
            tokio::spawn(accept_all(listener, accept_context.clone(), sender.clone()));
        }
        Self { ready, handed_over: CancellationToken::new() }
    }

    /// Cancelled once, after the stop, every connection that was accepted before it has been handed over.
    pub fn handed_over(&self) -> CancellationToken {
        self.handed_over.clone()
    }

    /// The next connection. Pending for ever once there will be none.
    pub async fn next(&mut self) -> Ready {
        match self.ready.recv().await {
            Some(ready) => ready,
            None => {
                self.handed_over.cancel();
                std::future::pending().await
            }
        }
    }
}

/// One listener's loop, until the stop.
async fn accept_all(listener: Listener, accept_context: AcceptContext, ready: mpsc::Sender<Ready>) {
    let mut backoff = AcceptBackoff::default();
    let next = async |backoff: &mut AcceptBackoff| match accept(&listener.socket).await {
        Ok(connection) => {
            let counted = accept_context.count(&connection.remote)?;
            // Only now, so that a listener to which nobody comes holds no room that another one needs.
            let room = accept_context.room(&listener.listen, &connection.remote, counted.as_ref()).await?;
            Some(accept_context.accepted(connection, counted, room))
        }
        Err(error) => {
            backoff.after(&error).await;
            None
        }
    };
    let listen = Arc::new(listener.listen.clone());
    let admit = |admitted| {
        let (listen, accept_context, ready) = (listen.clone(), accept_context.clone(), ready.clone());
        tokio::spawn(async move {
            match prepare(&listen, &accept_context, admitted).await {
                // The server stopped meanwhile: the connection is dropped.
                Ok(prepared) => drop(ready.send(prepared).await),
                Err(error) => tracing::debug!(%error, "a connection did not get as far as HTTP"),
            }
        });
    };
    loop {
        tokio::select! {
            next = next(&mut backoff) => next.into_iter().for_each(&admit),
            () = accept_context.stop.cancelled() => break,
        }
    }
    // Who waits in the system's queue is connected already, as far as they can tell. Those of a socket that systemd
    // holds wait for the next broker; all others would be reset.
    if listener.is_inherited() {
        return;
    }
    let waiting = match Backlog::of(listener.socket) {
        Ok(waiting) => waiting,
        Err(error) => return tracing::warn!(%error, "could not accept connections left in the backlog"),
    };
    for connection in waiting.take(BACKLOG as usize) {
        let Some(counted) = accept_context.count(&connection.remote) else { continue };
        let Ok(room) = accept_context.room.clone().try_acquire_owned() else { return };
        admit(accept_context.accepted(connection, counted, room));
    }
}

impl AcceptContext {
    /// Counts a connection of `peer`, or of nobody where that is a trusted proxy; nothing where there are too many.
    fn count(&self, peer: &SocketAddr) -> Option<Option<ConnectionPermit>> {
        let config = self.live.load();
        match peer.ip() {
            Some(address) if !trusts(&config.trusted_proxies, peer) => {
                let share =
                    self.pool.share(config.http.max_connections_per_address, self.room.available_permits());
                let counted = self.connection_limiter.enter(address, share);
                if counted.is_none() {
                    tracing::debug!(client = %address, "a connection too many of one address was closed");
                }
                Some(Some(counted?))
            }
            _ => Some(None),
        }
    }

    fn accepted(
        &self,
        connection: Connection,
        counted: Option<ConnectionPermit>,
        room: OwnedSemaphorePermit,
    ) -> AcceptedConnection {
        let silent = self.silent.enter(counted.as_ref().map(ConnectionPermit::client));
        AcceptedConnection { connection, counted, room, silent }
    }

    /// Waits for room for a connection. Where there is little, a silent one of others ends; where there is none, one after the
    /// other until there is.
    async fn room(
        &self,
        listen: &Listen,
        peer: &SocketAddr,
        counted: Option<&ConnectionPermit>,
    ) -> Option<OwnedSemaphorePermit> {
        let client = counted.map(ConnectionPermit::client);
        let is_full = self.room.available_permits() == 0;
        if !is_full && !self.announces_client(listen, peer) {
            self.make_room_if_nearly_full(client);
        }
        let room = self.room.clone().acquire_owned();
        let others_end = async {
            loop {
                self.silent.make_room(client);
                sleep(NEXT_TO_MAKE_ROOM).await;
            }
        };
        tokio::select! {
            biased;
            // It is never closed.
            room = room => room.ok(),
            never = others_end => never,
        }
    }

    fn make_room_if_nearly_full(&self, newcomer: Option<IpAddr>) {
        if self.room.available_permits() * NEARLY_FULL < self.pool.places {
            self.silent.make_room(newcomer);
        }
    }

    /// Returns whether a PROXY header is to say whose connection it is.
    fn announces_client(&self, listen: &Listen, peer: &SocketAddr) -> bool {
        listen.proxy_protocol && trusts(&self.live.load().trusted_proxies, peer)
    }
}

/// A connection that has a place.
struct AcceptedConnection {
    connection: Connection,
    counted: Option<ConnectionPermit>,
    room: OwnedSemaphorePermit,
    silent: Silent,
}

struct Connection {
    raw: Raw,
    local: SocketAddr,
    remote: SocketAddr,
}

impl Connection {
    fn tcp(stream: TcpStream, remote: std::net::SocketAddr) -> io::Result<Self> {
        let local = canonical(stream.local_addr()?).into();
        Ok(Self { raw: Raw::Tcp(stream), local, remote: canonical(remote).into() })
    }

    fn unix(stream: UnixStream, remote: unix::SocketAddr) -> io::Result<Self> {
        let local = stream.local_addr()?.into();
        Ok(Self { raw: Raw::Unix(stream), local, remote: remote.into() })
    }
}

async fn accept(socket: &ListeningSocket) -> io::Result<Connection> {
    match socket {
        ListeningSocket::Tcp(listener) => {
            let (stream, remote) = listener.accept().await?;
            Connection::tcp(stream, remote)
        }
        ListeningSocket::Unix(listener) => {
            let (stream, remote) = listener.accept().await?;
            Connection::unix(stream, remote)
        }
    }
}

/// Those who wait to be accepted, as the system has them: the runtime may not have heard of them yet.
enum Backlog {
    Tcp(std::net::TcpListener),
    Unix(std::os::unix::net::UnixListener),
}

impl Backlog {
    fn of(socket: ListeningSocket) -> io::Result<Self> {
        Ok(match socket {
            ListeningSocket::Tcp(listener) => Self::Tcp(listener.into_std()?),
            ListeningSocket::Unix(listener) => Self::Unix(listener.into_std()?),
        })
    }

    fn accept(&self) -> io::Result<Connection> {
        match self {
            Self::Tcp(listener) => {
                let (stream, remote) = listener.accept()?;
                stream.set_nonblocking(true)?;
                Connection::tcp(TcpStream::from_std(stream)?, remote)
            }
            Self::Unix(listener) => {
                let (stream, remote) = listener.accept()?;
                stream.set_nonblocking(true)?;
                Connection::unix(UnixStream::from_std(stream)?, remote.into())
            }
        }
    }
}

impl Iterator for Backlog {
    type Item = Connection;

    fn next(&mut self) -> Option<Connection> {
        loop {
            match self.accept() {
                Ok(connection) => return Some(connection),
                Err(error) if was_gone(&error) => {}
                Err(_) => return None,
            }
        }
    }
}

/// An IPv4 client of a dual-stack listener is an IPv4 client, and reached an IPv4 address.
fn canonical(address: std::net::SocketAddr) -> std::net::SocketAddr {
    (address.ip().to_canonical(), address.port()).into()
}

/// Whether a connection ended before it was accepted; the next one may be there still.
fn was_gone(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

/// Pauses of accepting, and when one was last told of.
#[derive(Default)]
struct AcceptBackoff {
    told: Option<Instant>,
}

impl AcceptBackoff {
    /// A connection that was gone before it was accepted is no news. After any other failure, such as that the
    /// process or the host has no file descriptor left, trying again at once would only spin.
    async fn after(&mut self, error: &io::Error) {
        if was_gone(error) {
            tracing::debug!(%error, "a connection was not accepted");
            return;
        }
        if self.told.is_none_or(|told| told.elapsed() >= SILENCE) {
            self.told = Some(Instant::now());
            let mend = match error.raw_os_error() {
                Some(nix::libc::EMFILE) => "; raise the limit of open files (LimitNOFILE in systemd)",
                _ => "",
            };
            tracing::warn!("accepting connections pauses: {error}{mend}");
        }
        sleep(PAUSE).await;
    }
}

/// Does what must be done before HTTP begins.
async fn prepare(
    listen: &Listen,
    accept_context: &AcceptContext,
    AcceptedConnection { connection, mut counted, room, mut silent }: AcceptedConnection,
) -> io::Result<Ready> {
    let Connection { mut raw, local, mut remote } = connection;
    let config = accept_context.live.load_full();
    let ready = async {
        if accept_context.announces_client(listen, &remote) {
            match proxy_protocol::read_header(&mut raw).await? {
                Named::Proxy => {}
                Named::Nobody => remote = SocketAddr::Unknown,
                Named::Client(client) => {
                    remote = canonical(client).into();
                    let too_many = || io::Error::other("there are too many connections of this client");
                    counted = accept_context.count(&remote).ok_or_else(too_many)?;
                    let client = counted.as_ref().map(ConnectionPermit::client);
                    accept_context.make_room_if_nearly_full(client);
                    silent = accept_context.silent.enter(client);
                }
            }
        }
        let connection_permits = ConnectionPermits {
            live: accept_context.live.clone(),
            room: accept_context.room.clone(),
            pool: accept_context.pool,
            connection_limiter: accept_context.connection_limiter.clone(),
            http2_places: accept_context.http2_places.clone(),
            requests: accept_context.requests.clone(),
            throttles: accept_context.throttles.clone(),
            frames: accept_context.frames.clone(),
            address: remote.ip(),
            client: counted.as_ref().map(ConnectionPermit::client),
        };
        let (transport, http2_place) = match &accept_context.tls {
            Some(tls) if listen.tls => {
                // In a box: connections without TLS need a tenth of its size.
                until_readable(&raw, silent).await?;
                let done =
                    Box::pin(handshake(raw, tls, &accept_context.handshake_threads, &connection_permits))
                        .await?;
                silent = accept_context.silent.enter(connection_permits.client);
                done
            }
            _ => (Transport::Plain(raw), None),
        };
        Ok::<_, io::Error>((transport, http2_place, connection_permits, silent))
    };
    let (transport, http2_place, connection_permits, silent) =
        timeout(config.http.bounds.handshake_timeout, ready).await??;
    let scheme = if listen.tls { Scheme::HTTPS } else { Scheme::HTTP };
    let stream = Stream::new(transport, room, counted, silent);
    Ok(Ready { stream, local, remote, scheme, connection_permits, http2_place })
}

/// Waits for the first bytes of a connection, unless it has to make room for others.
async fn until_readable(raw: &Raw, mut silent: Silent) -> io::Result<()> {
    tokio::select! {
        readable = raw.readable() => readable,
        () = silent.given_up() => Err(io::Error::other("a silent connection made room")),
    }
}

async fn handshake(
    raw: Raw,
    configs: &TlsConfigs,
    threads: &HandshakeThreads,
    permits: &ConnectionPermits,
) -> io::Result<(Transport, Option<Http2Place>)> {
    let raw = TlsInput::new(ThrottledFrames::new(raw, permits.tls_throttle()));
    let mut hello = LazyConfigAcceptor::new(TlsAcceptor::default(), raw).await?;
    hello.io.allow_handshake();
    let place = permits.http2_place();
    let config = configs.of(place.as_ref()).clone();
    let rest = async { hello.into_stream(config).await };
    let mut stream = threads.run(permits.client, rest).await?;
    stream.get_mut().0.allow_record();
    let alpn = stream.get_ref().1.alpn_protocol();
    let place = http2_places::used(place, alpn);
    if alpn == Some(ACME_TLS_ALPN) {
        stream.shutdown().await?;
        return Err(io::Error::other("an ACME directory looked for its challenge"));
    }
    Ok((Transport::Tls(Box::new(stream)), place))
}
