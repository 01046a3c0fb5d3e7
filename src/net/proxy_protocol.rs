//! The PROXY protocol, versions 1 and 2: a proxy says whom it speaks for before the connection's own bytes.

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use ppp::{HeaderResult, PartialResult, v1, v2};
use tokio::io::{AsyncRead, AsyncReadExt};

/// Longest header that is read: version 1 has 107 bytes at most, version 2 as many as its length field says.
const MAX_HEADER: usize = 4096;

/// Reads one header, byte by byte, so that nothing of what follows is taken. The client's address, or nothing where
/// the proxy speaks for itself (`LOCAL`, `UNKNOWN`).
pub async fn read_header(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<SocketAddr>> {
    let mut header = Vec::with_capacity(128);
    loop {
        header.push(stream.read_u8().await?);
        let parsed = HeaderResult::parse(&header);
        if parsed.is_incomplete() && header.len() < MAX_HEADER {
            continue;
        }
        return match parsed {
            HeaderResult::V1(Ok(header)) => Ok(of_v1(header.addresses)),
            HeaderResult::V2(Ok(header)) if header.command == v2::Command::Proxy => {
                Ok(of_v2(header.addresses))
            }
            HeaderResult::V2(Ok(_)) => Ok(None),
            _ => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "no PROXY header at the begin of the connection",
            )),
        };
    }
}

fn of_v1(addresses: v1::Addresses) -> Option<SocketAddr> {
    match addresses {
        v1::Addresses::Tcp4(tcp) => Some((tcp.source_address, tcp.source_port).into()),
        v1::Addresses::Tcp6(tcp) => Some((tcp.source_address, tcp.source_port).into()),
        v1::Addresses::Unknown => None,
    }
}

fn of_v2(addresses: v2::Addresses) -> Option<SocketAddr> {
    match addresses {
        v2::Addresses::IPv4(ip) => Some((IpAddr::V4(ip.source_address), ip.source_port).into()),
        v2::Addresses::IPv6(ip) => Some((IpAddr::V6(ip.source_address), ip.source_port).into()),
        v2::Addresses::Unix(_) | v2::Addresses::Unspecified => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(bytes: &[u8]) -> (io::Result<Option<SocketAddr>>, usize) {
        let mut rest = bytes;
        let header = read_header(&mut rest).await;
        (header, rest.len())
    }

    #[tokio::test]
    async fn headers_are_read_to_their_end_and_no_further() {
        let v2_tcp4 = [
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c".as_slice(),
            &[192, 0, 2, 1, 198, 51, 100, 1, 0x30, 0x39, 0x01, 0xbb],
        ];
        let v2_local = [b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00".as_slice(), b""];
        for (header, client) in [
            (b"PROXY TCP4 192.0.2.1 198.51.100.1 12345 443\r\n".to_vec(), Some("192.0.2.1:12345")),
            (b"PROXY TCP6 2001:db8::1 2001:db8::2 12345 443\r\n".to_vec(), Some("[2001:db8::1]:12345")),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
            (v2_tcp4.concat(), Some("192.0.2.1:12345")),
            (v2_local.concat(), None),
        ] {
            let (client_read, rest) = read(&[&header[..], b"GET / HTTP/1.1"].concat()).await;
            assert_eq!(
                (client_read.unwrap(), rest),
                (client.map(|client| client.parse().unwrap()), 14),
                "{header:?}"
            );
        }
    }

    #[tokio::test]
    async fn anything_else_is_an_error() {
        for bytes in [
            &b"GET / HTTP/1.1\r\n\r\n"[..],
            b"POST /",
            b"PROXY TCP4 x\r\n",
            b"",
            b"PROXY",
            b"\r\n\r\n\0\r\nQUIX\n",
        ] {
            assert!(read(bytes).await.0.is_err(), "{bytes:?}");
        }
    }
}
