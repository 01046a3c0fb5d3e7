//! Binds the address that the configuration names.

use std::{
    io,
    net::{SocketAddr, ToSocketAddrs},
};

use salvo::conn::tcp::TcpAcceptor;
use socket2::{Domain, Protocol, Socket, Type};

use crate::config::Config;

/// Connections that the system keeps for us until they are accepted.
const BACKLOG: i32 = 4096;

/// Bytes that the kernel takes for a connection before it can send them.
const UNSENT: u32 = 64 * 1024;

/// A listener could not be set up.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {}", mend(.source))]
pub struct BindError {
    /// What was to be bound, as `host:port`.
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
            "ports below 1024 are for root; choose another with --port, or give this process CAP_NET_BIND_SERVICE"
                .into()
        }
        io::ErrorKind::AddrNotAvailable => {
            "this host has no such address; choose another with --hostname (0.0.0.0 is all of them)".into()
        }
        _ => format!("{error}; check --hostname and --port"),
    }
}

/// Binds `hostname` and `port`; the address that was bound.
pub fn bind(config: &Config) -> Result<(TcpAcceptor, SocketAddr), BindError> {
    let (host, port) = (config.hostname.as_str(), config.port);
    let attempt = || {
        let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for address in (host, port).to_socket_addrs()? {
            match listen(address) {
                Ok(listener) => {
                    let bound = listener.local_addr()?;
                    return Ok((TcpAcceptor::try_from(listener)?, bound));
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    };
    attempt().map_err(|source| {
        let address = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        BindError { address, source }
    })
}

fn listen(address: SocketAddr) -> io::Result<tokio::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    // Accepted connections inherit it: without it a relayed frame can wait 40 ms for an acknowledgement.
    socket.set_tcp_nodelay(true)?;
    // What a client does not read should wait in its outbox, where it is counted, and not in the kernel.
    socket.set_tcp_notsent_lowat(UNSENT)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    tokio::net::TcpListener::from_std(socket.into())
}
