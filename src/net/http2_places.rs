//! Places for connections of HTTP/2, each of which takes as much memory as eight of HTTP/1.1.
//!
//! HTTP/2 lets a client send bodies before anybody reads them, as many bytes as the window of its connection has (RFC 9113,
//! section 6.9.1), beside the heads of its requests. Where there is no place, TLS offers HTTP/1.1 alone, and who speaks HTTP/2 unasked is told to use HTTP/1.1.

use std::{io, net::IpAddr, sync::Arc};

use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio_rustls::rustls::ServerConfig;

use super::budget::{Budget, BudgetPermit};

/// The protocol's name in a TLS handshake (RFC 9113, section 3.2).
const ALPN: &[u8] = b"h2";
/// Connections of HTTP/1.1 that take as much memory as one of HTTP/2.
const WEIGHT: usize = 8;
/// So many take little: where there is room for no more connections than this, all of them may be of HTTP/2.
const FEW: usize = 256;
const REFUSAL: &[u8] = b"too many connections of HTTP/2; use HTTP/1.1";

/// The places of one broker; clones share them. No client takes more than it leaves to others.
#[derive(Clone, Debug)]
pub struct Http2Places(Arc<Budget>);

/// The place of one connection; dropping it gives it back.
#[derive(Debug)]
pub struct Http2Place {
    _permit: BudgetPermit,
}

impl Http2Places {
    /// Returns the places of a broker with room for `connections` of any kind.
    pub fn new(connections: usize) -> Self {
        Self(Budget::new(connections.min((connections / WEIGHT).max(FEW))))
    }

    /// Returns a place for a connection of `client`, or `None` if the client would then have more than it leaves.
    pub fn take(&self, client: Option<IpAddr>) -> Option<Http2Place> {
        self.0.of(client).permit(1).map(|permit| Http2Place { _permit: permit })
    }
}

/// How TLS is spoken, with a place for a connection of HTTP/2 and without.
#[derive(Clone)]
pub struct TlsConfigs {
    http2: Arc<ServerConfig>,
    http1: Arc<ServerConfig>,
}

impl TlsConfigs {
    pub fn new(config: ServerConfig) -> Self {
        let mut http1 = config.clone();
        http1.alpn_protocols.retain(|protocol| protocol != ALPN);
        Self { http2: Arc::new(config), http1: Arc::new(http1) }
    }

    /// Returns the configuration for a handshake.
    pub fn of(&self, place: Option<&Http2Place>) -> &Arc<ServerConfig> {
        if place.is_some() { &self.http2 } else { &self.http1 }
    }
}

/// Returns the place if the handshake came to use it.
pub fn used(place: Option<Http2Place>, alpn: Option<&[u8]>) -> Option<Http2Place> {
    place.filter(|_| alpn == Some(ALPN))
}

/// Tells a client of HTTP/2 to use HTTP/1.1: settings, as the protocol begins, and GOAWAY with HTTP_1_1_REQUIRED
/// (RFC 9113, sections 3.4, 6.8 and 7).
pub async fn refuse(mut stream: impl AsyncWrite + Unpin) -> io::Result<()> {
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    let goaway = [0, 0, 8 + REFUSAL.len() as u8, 7, 0, 0, 0, 0, 0];
    let (last_stream, http_1_1_required) = ([0; 4], [0, 0, 0, 0xd]);
    stream.write_all(&[&settings[..], &goaway, &last_stream, &http_1_1_required, REFUSAL].concat()).await?;
    stream.shutdown().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_leaves_as_many_places_as_it_takes() {
        for (connections, places) in [(20_000, 2_500), (3_000, 375), (1_000, 256), (200, 200), (1, 1)] {
            let all = Http2Places::new(connections);
            let taken: Vec<_> = (0..places).map_while(|_| all.take(None)).collect();
            assert_eq!(taken.len(), places, "{connections}");
            assert!(all.take(None).is_none());
            drop(taken);
            let client = |n: u8| Some(IpAddr::from([192, 0, 2, n]));
            let taken: Vec<_> = std::iter::from_fn(|| all.take(client(1))).collect();
            assert_eq!(taken.len(), places.div_ceil(2), "{connections}");
            assert!(places < 4 || all.take(client(2)).is_some());
        }
    }
}
