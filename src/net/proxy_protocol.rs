//! The PROXY protocol, versions 1 and 2: a proxy says whom it speaks for before the connection's own bytes.

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use ppp::{v1, v2};
use tokio::io::{AsyncRead, AsyncReadExt};

/// Longest header of version 1, with its line end.
const MAX_V1: usize = 107;
/// Longest rest of a version 2 header that is read; real ones have a few dozen bytes.
const MAX_V2: usize = 4096;
/// Bytes of a version 2 header before the rest, whose length is in the last two.
const FIXED_V2: usize = 16;

/// Reads one header and nothing of what follows it. The client's address, or nothing where the proxy speaks for
/// itself (`LOCAL`, `UNKNOWN`).
pub async fn read_header(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<SocketAddr>> {
    let mut header = vec![stream.read_u8().await?];
    if header == b"P" {
        while !header.ends_with(b"\r\n") && header.len() < MAX_V1 {
            header.push(stream.read_u8().await?);
        }
        return Ok(of_v1(v1::Header::try_from(&header[..]).map_err(|_| no_header())?.addresses));
    }
    header.resize(FIXED_V2, 0);
    stream.read_exact(&mut header[1..]).await?;
    let rest = usize::from(u16::from_be_bytes([header[FIXED_V2 - 2], header[FIXED_V2 - 1]]));
    if !header.starts_with(v2::PROTOCOL_PREFIX) || rest > MAX_V2 {
        return Err(no_header());
    }
    header.resize(FIXED_V2 + rest, 0);
    stream.read_exact(&mut header[FIXED_V2..]).await?;
    let header = v2::Header::try_from(&header[..]).map_err(|_| no_header())?;
    Ok(if header.command == v2::Command::Proxy { of_v2(header.addresses) } else { None })
}

fn no_header() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "expected a PROXY header at the begin of the connection")
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
