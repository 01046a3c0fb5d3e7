//! Makes the sockets that the configuration names: TCP, Unix, or handed over by systemd.

use std::{
    env, fs, io,
    net::{SocketAddr, ToSocketAddrs},
    os::unix::{
        self,
        fs::{FileTypeExt, PermissionsExt},
    },
    path::{Path, PathBuf},
};

use listenfd::ListenFd;
use nix::unistd::Group;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::{TcpListener, UnixListener};

use crate::config::{Listen, ListenAddress};

/// Connections that the system keeps for us until they are accepted.
const BACKLOG: i32 = 4096;

/// A socket that listens, and how it was asked for.
#[derive(Debug)]
pub struct Listener {
    pub socket: ListeningSocket,
    pub listen: Listen,
    /// Of a Unix socket that was made here.
    _file: Option<SocketFile>,
}

#[derive(Debug)]
pub enum ListeningSocket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// The name of a Unix socket in the file system; it goes when the listener does.
#[derive(Debug)]
pub struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Somebody removed it already, or it lies where nothing can be removed: both are harmless.
        let _ = fs::remove_file(&self.0);
    }
}

/// A listener could not be set up.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {}", mend(.source))]
pub struct BindError {
    /// What was to be bound, as the configuration names it.
    pub address: String,
    /// What the system says.
    pub source: io::Error,
}

fn mend(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "another process uses this address already; stop it, or choose another port with --port".into()
        }
        io::ErrorKind::PermissionDenied => {
            "this process may not; ports below 1024 take root or CAP_NET_BIND_SERVICE, a Unix socket a directory that it can write".into()
        }
        io::ErrorKind::AddrNotAvailable => {
            "this host has no such address; choose another with --hostname (0.0.0.0 is all of them)".into()
        }
        _ => error.to_string(),
    }
}

impl Listener {
    /// The TCP address that it is bound to.
    pub fn tcp_address(&self) -> Option<SocketAddr> {
        match &self.socket {
            ListeningSocket::Tcp(tcp) => tcp.local_addr().ok(),
            ListeningSocket::Unix(_) => None,
        }
    }

    /// What a client is to be told: a URL for TCP, the configured address otherwise.
    pub fn url(&self) -> String {
        let scheme = if self.listen.tls { "https" } else { "http" };
        match (self.tcp_address(), &self.listen.address) {
            (Some(address), _) => format!("{scheme}://{address}"),
            (None, Some(address)) => address.to_string(),
            (None, None) => String::new(),
        }
    }
}

/// Makes all `listens`; systemd's sockets are taken from the environment, once.
pub fn bind(listens: Vec<Listen>) -> Result<Vec<Listener>, BindError> {
    let mut inherited = Inherited::from_env();
    let mut listeners = Vec::with_capacity(listens.len());
    for listen in listens {
        let Some(address) = &listen.address else { continue };
        let bound = match address {
            ListenAddress::Tcp { host, port } => {
                tcp(host, *port, listen.ipv6_only).map(|tcp| (ListeningSocket::Tcp(tcp), None))
            }
            ListenAddress::Unix(path) => unix_socket(path, &listen),
            ListenAddress::Systemd(name) => inherited.take(name).map(|socket| (socket, None)),
        };
        let (socket, file) = bound.map_err(|source| BindError { address: address.to_string(), source })?;
        listeners.push(Listener { socket, listen, _file: file });
    }
    Ok(listeners)
}

fn tcp(host: &str, port: u16, ipv6_only: bool) -> io::Result<TcpListener> {
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in (host, port).to_socket_addrs()? {
        match tcp_on(address, ipv6_only) {
            Ok(listener) => return Ok(listener),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn tcp_on(address: SocketAddr, ipv6_only: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(ipv6_only)?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    adopt_tcp(socket.into())
}

fn adopt_tcp(listener: std::net::TcpListener) -> io::Result<TcpListener> {
    // Accepted connections inherit it: without it a relayed frame can wait 40 ms for an acknowledgement.
    SockRef::from(&listener).set_tcp_nodelay(true)?;
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

fn unix_socket(path: &Path, listen: &Listen) -> io::Result<(ListeningSocket, Option<SocketFile>)> {
    let is_stale = fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket())
        && std::os::unix::net::UnixStream::connect(path).is_err();
    if is_stale {
        fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    let file = SocketFile(path.into());
    if let Some(group) = &listen.group {
        let found = Group::from_name(group.as_str())?;
        let unknown = || io::Error::other(format!("there is no group {:?} on this host", group.as_str()));
        unix::fs::chown(path, None, Some(found.ok_or_else(unknown)?.gid.as_raw()))?;
    }
    fs::set_permissions(path, fs::Permissions::from_mode(listen.mode.0))?;
    Ok((ListeningSocket::Unix(listener), Some(file)))
}

/// Sockets that systemd handed over, with their names (sd_listen_fds(3)).
struct Inherited {
    sockets: ListenFd,
    names: Vec<String>,
}

impl Inherited {
    fn from_env() -> Self {
        let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
        Self { sockets: ListenFd::from_env(), names: names.split(':').map(Into::into).collect() }
    }

    fn take(&mut self, name: &str) -> io::Result<ListeningSocket> {
        let missing = || {
            let names =
                self.names.iter().filter(|name| !name.is_empty()).cloned().collect::<Vec<_>>().join(", ");
            let have = if names.is_empty() { "none".to_owned() } else { names };
            io::Error::other(format!(
                "systemd handed over no socket of this name (it handed over: {have}); \
                 set FileDescriptorName={name} in the socket unit"
            ))
        };
        let index = self.names.iter().position(|have| have == name).ok_or_else(missing)?;
        if let Ok(Some(listener)) = self.sockets.take_tcp_listener(index) {
            return adopt_tcp(listener).map(ListeningSocket::Tcp);
        }
        let listener = self.sockets.take_unix_listener(index)?.ok_or_else(missing)?;
        listener.set_nonblocking(true)?;
        UnixListener::from_std(listener).map(ListeningSocket::Unix)
    }
}
