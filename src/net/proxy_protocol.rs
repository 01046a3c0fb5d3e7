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
/// The byte of a version 2 header that holds version and command.
const COMMAND_V2: usize = 12;
/// Version 2 with the command LOCAL: the proxy speaks for itself.
const LOCAL: u8 = 0x20;

/// Whom a proxy speaks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Named {
    /// This client.
    Client(SocketAddr),
    /// A client whose address it does not know, or that has none.
    Nobody,
    /// Itself, as when it looks whether the broker is there.
    Proxy,
}

/// Reads one header and nothing of what follows it.
pub async fn read_header(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Named> {
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
    if !header.starts_with(v2::PROTOCOL_PREFIX) {
        return Err(no_header());
    }
    if header[COMMAND_V2] == LOCAL {
        // Family and addresses are to be ignored, whatever they are (section 2.2).
        skip(stream, rest).await?;
        return Ok(Named::Proxy);
    }
    if rest > MAX_V2 {
        return Err(no_header());
    }
    header.resize(FIXED_V2 + rest, 0);
    stream.read_exact(&mut header[FIXED_V2..]).await?;
    let header = v2::Header::try_from(&header[..]).map_err(|_| no_header())?;
    Ok(of_v2(header.addresses))
}

/// Reads `length` bytes that mean nothing.
async fn skip(stream: &mut (impl AsyncRead + Unpin), mut length: usize) -> io::Result<()> {
    let mut buffer = [0; 512];
    while length > 0 {
        let part = length.min(buffer.len());
        stream.read_exact(&mut buffer[..part]).await?;
        length -= part;
    }
    Ok(())
}

fn no_header() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "expected a PROXY header at the begin of the connection")
}

fn of_v1(addresses: v1::Addresses) -> Named {
    match addresses {
        v1::Addresses::Tcp4(tcp) => Named::Client((tcp.source_address, tcp.source_port).into()),
        v1::Addresses::Tcp6(tcp) => Named::Client((tcp.source_address, tcp.source_port).into()),
        v1::Addresses::Unknown => Named::Nobody,
    }
}

fn of_v2(addresses: v2::Addresses) -> Named {
    match addresses {
        v2::Addresses::IPv4(ip) => Named::Client((IpAddr::V4(ip.source_address), ip.source_port).into()),
        v2::Addresses::IPv6(ip) => Named::Client((IpAddr::V6(ip.source_address), ip.source_port).into()),
        v2::Addresses::Unix(_) | v2::Addresses::Unspecified => Named::Nobody,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

    async fn read(bytes: &[u8]) -> (io::Result<Named>, usize) {
        let mut rest = bytes;
        let header = read_header(&mut rest).await;
        (header, rest.len())
    }

    fn client(address: &str) -> Named {
        Named::Client(address.parse().unwrap())
    }

    /// A header of version 2: command and version, family, then what it says its length is and the rest.
    fn v2(command: u8, family: u8, length: u16, rest: &[u8]) -> Vec<u8> {
        [V2, &[command, family], &length.to_be_bytes(), rest].concat()
    }

    #[tokio::test]
    async fn headers_are_read_to_their_end_and_no_further() {
        let tcp4 = [192, 0, 2, 1, 198, 51, 100, 1, 0x30, 0x39, 0x01, 0xbb];
        let mut tcp6 = [0; 36];
        tcp6[..16].copy_from_slice(&"2001:db8::1".parse::<std::net::Ipv6Addr>().unwrap().octets());
        tcp6[32..34].copy_from_slice(&12345_u16.to_be_bytes());
        let with_tlv = [&tcp4[..], &[0x04, 0x00, 0x03, 1, 2, 3]].concat();
        for (header, named) in [
            (b"PROXY TCP4 192.0.2.1 198.51.100.1 12345 443\r\n".to_vec(), client("192.0.2.1:12345")),
            (b"PROXY TCP6 2001:db8::1 2001:db8::2 12345 443\r\n".to_vec(), client("[2001:db8::1]:12345")),
            (b"PROXY UNKNOWN\r\n".to_vec(), Named::Nobody),
            (b"PROXY UNKNOWN 192.0.2.1 198.51.100.1 12345 443\r\n".to_vec(), Named::Nobody),
            (v2(0x21, 0x11, 12, &tcp4), client("192.0.2.1:12345")),
            (v2(0x21, 0x11, 18, &with_tlv), client("192.0.2.1:12345")),
            (v2(0x21, 0x21, 36, &tcp6), client("[2001:db8::1]:12345")),
            (v2(0x21, 0x31, 216, &[b'x'; 216]), Named::Nobody),
            (v2(0x21, 0x00, 0, b""), Named::Nobody),
            (v2(0x20, 0x00, 0, b""), Named::Proxy),
            (v2(0x20, 0x11, 12, &tcp4), Named::Proxy),
            // A proxy that speaks for itself may say what it likes of addresses.
            (v2(0x20, 0x11, 0, b""), Named::Proxy),
            (v2(0x20, 0x13, 3, &[1; 3]), Named::Proxy),
            (v2(0x20, 0x41, 1000, &[b'x'; 1000]), Named::Proxy),
            (v2(0x20, 0xff, u16::MAX, &[b'x'; 65_535]), Named::Proxy),
        ] {
            let (read, rest) = read(&[&header[..], b"GET / HTTP/1.1"].concat()).await;
            assert_eq!((read.unwrap(), rest), (named, 14), "{header:?}");
        }
    }

    #[tokio::test]
    async fn anything_else_is_an_error() {
        for bytes in [
            &b"GET / HTTP/1.1\r\n\r\n"[..],
            b"POST /",
            b"PROXY TCP4 x\r\n",
            b"PROXY TCP4 2001:db8::1 2001:db8::2 12345 443\r\n",
            b"PROXY TCP4 192.0.2.1 198.51.100.1 99999 443\r\n",
            b"PROXY TCP4 192.0.2.1 198.51.100.1 12345 443\n\n",
            b"",
            b"PROXY",
            &[b'P'; 5000],
            b"\r\n\r\n\0\r\nQUIX\n\x21\x11\x00\x00",
            &v2(0x21, 0x11, 11, &[1; 11]),
            &v2(0x21, 0x11, 12, &[1; 5]),
            &v2(0x31, 0x11, 12, &[1; 12]),
            &v2(0x2f, 0x11, 12, &[1; 12]),
            &v2(0x21, 0x11, 4097, &[1; 4097]),
            &v2(0x20, 0x11, 12, &[1; 11]),
            &v2(0x10, 0x11, 0, b""),
            &v2(0x30, 0x11, 0, b""),
        ] {
            assert!(read(bytes).await.0.is_err(), "{bytes:?}");
        }
    }

    #[tokio::test]
    async fn no_more_than_the_longest_header_is_read() {
        for (bytes, most) in [(&[b'P'; 5000][..], MAX_V1), (&v2(0x21, 0x11, u16::MAX, &[1; 5000]), FIXED_V2)]
        {
            let rest = read(bytes).await.1;
            assert_eq!(bytes.len() - rest, most);
        }
    }
}
