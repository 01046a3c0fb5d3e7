//! What both sides say to the broker.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};

/// A connection of the client at `address`.
pub async fn connect(address: Ipv4Addr, broker: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(SocketAddr::from((address, 0)))?;
    let stream = socket.connect(broker).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Sends a request and reads the whole answer; its status.
pub async fn ask(stream: &mut TcpStream, request: &[u8]) -> io::Result<u16> {
    stream.write_all(request).await?;
    let mut head = Vec::with_capacity(1024);
    let end = loop {
        if stream.read_buf(&mut head).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let Some(end) = head.windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
    };
    let text = String::from_utf8_lossy(&head[..end]).to_ascii_lowercase();
    let length =
        text.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0_usize);
    let mut left = (end + length).saturating_sub(head.len());
    let mut rest = vec![0; left.min(64 * 1024)];
    while left > 0 {
        let most = left.min(rest.len());
        left -= match stream.read(&mut rest[..most]).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => read,
        };
    }
    Ok(text[9..12].parse().unwrap())
}

/// Fails unless `status` is the one that was expected.
pub fn was(expected: u16, status: u16) -> io::Result<()> {
    if status == expected { Ok(()) } else { Err(io::Error::other(format!("answered with {status}"))) }
}

pub fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nhost: broker\r\n\r\n").into_bytes()
}

pub fn post(html: &str) -> Vec<u8> {
    let head = format!(
        "POST /pods HTTP/1.1\r\nhost: broker\r\ncontent-type: text/html\r\ncontent-length: {}",
        html.len()
    );
    format!("{head}\r\n\r\n{html}").into_bytes()
}

pub fn upgrade() -> Vec<u8> {
    "GET /signal HTTP/1.1\r\nhost: broker\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
     sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        .into()
}

/// Reads the next frame from the broker, which must be a text of less than 64 KiB.
pub async fn read_text(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let first = stream.read_u8().await?;
    let length = match stream.read_u8().await? {
        126 => stream.read_u16().await?,
        length @ 0..126 => length.into(),
        length => return Err(io::Error::other(format!("a frame of length {length}"))),
    };
    let mut payload = vec![0; length.into()];
    stream.read_exact(&mut payload).await?;
    if first == 0x81 { Ok(payload) } else { Err(io::Error::other(format!("a frame of type {first:x}"))) }
}
