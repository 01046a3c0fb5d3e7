//! Makes the sockets that the configuration names: TCP, Unix, or handed over by systemd.

use std::{
    env, fs, io,
    net::{SocketAddr, ToSocketAddrs},
    os::{
        fd::OwnedFd,
        unix::{
            self,
            fs::{FileTypeExt, MetadataExt, PermissionsExt},
        },
    },
    path::{Path, PathBuf},
};

use listenfd::ListenFd;
use nix::unistd::Group;
use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};
use tokio::net::{TcpListener, UnixListener};

use crate::config::{Listen, ListenAddress};

/// Connections that the system keeps for us until they are accepted.
pub const BACKLOG: i32 = 4096;

/// Bytes that the system keeps for us before it has sent them.
const UNSENT: u32 = 64 * 1024;

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

/// A Unix socket in the file system; it goes when the listener does.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl SocketFile {
    fn of(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.into(), identity: identity(&fs::symlink_metadata(path)?) })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Another broker may have put its own in this place meanwhile.
        if fs::symlink_metadata(&self.path).is_ok_and(|file| identity(&file) == self.identity) {
            // It lies where nothing can be removed: harmless, as a stale one is replaced.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(file: &fs::Metadata) -> (u64, u64) {
    (file.dev(), file.ino())
}

/// A listener could not be set up.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {}", mend(address, .source))]
pub struct BindError {
    /// What was to be bound, as the configuration names it.
    pub address: ListenAddress,
    /// What the system says.
    pub source: io::Error,
}

fn mend(address: &ListenAddress, error: &io::Error) -> String {
    use io::ErrorKind::{AddrInUse, AddrNotAvailable, NotFound, PermissionDenied};
    let sentence = match (address, error.kind()) {
        (ListenAddress::Tcp { .. }, AddrInUse) => {
            "another process uses this address already; stop it, or choose another port with --port"
        }
        (ListenAddress::Tcp { .. }, PermissionDenied) => {
            "this process may not; ports below 1024 take root or CAP_NET_BIND_SERVICE"
        }
        (ListenAddress::Tcp { .. }, AddrNotAvailable) => {
            "this host has no such address; choose another with --hostname (0.0.0.0 is all of them)"
        }
        (ListenAddress::Unix(_), AddrInUse) => {
            "another process listens there already, or a file that is no socket has this name"
        }
        (ListenAddress::Unix(_), NotFound) => "the directory is missing",
        (ListenAddress::Unix(_), PermissionDenied) => {
            "this process may not; it must be able to write to the directory"
        }
        _ => return error.to_string(),
    };
    sentence.into()
}

impl Listener {
    /// The TCP address that it is bound to.
    pub fn tcp_address(&self) -> Option<SocketAddr> {
        match &self.socket {
            ListeningSocket::Tcp(tcp) => tcp.local_addr().ok(),
            ListeningSocket::Unix(_) => None,
        }
    }

    /// Whether the socket is systemd's, and stays when this process ends.
    pub fn is_inherited(&self) -> bool {
        matches!(self.listen.address, Some(ListenAddress::Systemd(_)))
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
        let Some(address) = listen.address.clone() else { continue };
        let bound = match &address {
            ListenAddress::Tcp { host, port } => {
                tcp(host, *port, listen.ipv6_only).map(|tcp| vec![(ListeningSocket::Tcp(tcp), None)])
            }
            ListenAddress::Unix(path) => unix_socket(path, &listen).map(|bound| vec![bound]),
            ListenAddress::Systemd(name) => inherited.take(name),
        };
        for (socket, file) in bound.map_err(|source| BindError { address, source })? {
            listeners.push(Listener { socket, listen: listen.clone(), _file: file });
        }
    }
    inherited.warn_of_others();
    Ok(listeners)
}

type Bound = (ListeningSocket, Option<SocketFile>);

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
    // Accepted connections inherit both. Without the first a relayed frame can wait 40 ms for an acknowledgement;
    // without the second megabytes queue up for a client that reads slowly, and while the system still sends them it
    // looks as if the client took nothing.
    let socket = SockRef::from(&listener);
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_notsent_lowat(UNSENT)?;
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

fn unix_socket(path: &Path, listen: &Listen) -> io::Result<Bound> {
    let address = SockAddr::unix(path)?;
    if is_stale(path, &address) {
        fs::remove_file(path)?;
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address)?;
    let file = SocketFile::of(path)?;
    if let Some(group) = &listen.group {
        let found = Group::from_name(group.as_str())?;
        let unknown = || io::Error::other(format!("there is no group {:?} on this host", group.as_str()));
        unix::fs::chown(path, None, Some(found.ok_or_else(unknown)?.gid.as_raw()))?;
    }
    fs::set_permissions(path, fs::Permissions::from_mode(listen.mode.0))?;
    // Only now can anybody connect.
    socket.listen(BACKLOG)?;
    Ok((ListeningSocket::Unix(UnixListener::from_std(OwnedFd::from(socket).into())?), Some(file)))
}

/// Whether a socket lies there to which nobody listens any more.
fn is_stale(path: &Path, address: &SockAddr) -> bool {
    let refuses = || {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        // A listener with a full queue is alive, and must not hold us up.
        socket.set_nonblocking(true)?;
        socket.connect(address)
    };
    fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket())
        && refuses().is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

/// What systemd calls a socket without a name.
const UNNAMED: &str = "unknown";

/// Sockets that systemd handed over, with their names (sd_listen_fds(3)).
struct Inherited {
    sockets: ListenFd,
    /// The name of each; nothing once it was taken.
    names: Vec<Option<String>>,
}

impl Inherited {
    fn from_env() -> Self {
        let sockets = ListenFd::from_env();
        let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
        // Names that come with sockets for another process are none of ours.
        let named = |name: &str| Some(if name.is_empty() { UNNAMED } else { name }.to_owned());
        let mut names: Vec<_> = names.split(':').map(named).collect();
        names.resize(sockets.len(), Some(UNNAMED.into()));
        Self { sockets, names }
    }

    /// All sockets of this name: a unit may have several.
    fn take(&mut self, name: &str) -> io::Result<Vec<Bound>> {
        let indices: Vec<_> =
            (0..self.names.len()).filter(|at| self.names[*at].as_deref() == Some(name)).collect();
        if indices.is_empty() {
            let rest = self.rest();
            return Err(io::Error::other(format!(
                "systemd handed over no socket of this name (it handed over: {}); \
                 set FileDescriptorName={name} in the socket unit",
                if rest.is_empty() { "none" } else { &rest }
            )));
        }
        indices.into_iter().map(|index| self.take_at(index)).collect()
    }

    fn take_at(&mut self, index: usize) -> io::Result<Bound> {
        self.names[index] = None;
        let listens = |socket: SockRef<'_>| socket.is_listener().unwrap_or_default();
        let socket = if let Ok(Some(tcp)) = self.sockets.take_tcp_listener(index) {
            listens((&tcp).into()).then(|| adopt_tcp(tcp).map(ListeningSocket::Tcp))
        } else if let Ok(Some(unix)) = self.sockets.take_unix_listener(index) {
            listens((&unix).into()).then(|| {
                unix.set_nonblocking(true)?;
                UnixListener::from_std(unix).map(ListeningSocket::Unix)
            })
        } else {
            None
        };
        let no_listener = || {
            io::Error::other(
                "what systemd handed over is no stream socket that listens; the socket unit needs ListenStream= \
                 and Accept=no",
            )
        };
        Ok((socket.ok_or_else(no_listener)??, None))
    }

    /// A socket that nobody accepts from lets its clients hang.
    fn warn_of_others(&self) {
        let rest = self.rest();
        if !rest.is_empty() {
            tracing::warn!(
                "systemd handed over sockets that no [[listen]] names: {rest}; their clients get no answer"
            );
        }
    }

    /// The names that were not taken.
    fn rest(&self) -> String {
        self.names.iter().flatten().map(String::as_str).collect::<Vec<_>>().join(", ")
    }
}
