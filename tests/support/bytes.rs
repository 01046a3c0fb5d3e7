//! A client that says whatever it likes: raw TCP, raw HTTP, raw WebSocket frames.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::atomic::{AtomicU32, Ordering},
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::timeout,
};

use super::SOON;

pub const TEXT: u8 = 0x1;
pub const BINARY: u8 = 0x2;
pub const CONTINUATION: u8 = 0x0;
pub const CLOSE: u8 = 0x8;
pub const PING: u8 = 0x9;
pub const FIN: u8 = 0x80;

/// Connects from one of many local addresses, so that ports do not run out.
pub async fn connect(address: &str) -> io::Result<TcpStream> {
    connect_with(address, None).await
}

/// The same with a small window: what is sent to it soon waits in the broker.
pub async fn connect_narrow(address: &str) -> io::Result<TcpStream> {
    connect_with(address, Some(4096)).await
}

async fn connect_with(address: &str, receive_buffer: Option<u32>) -> io::Result<TcpStream> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let host = NEXT.fetch_add(1, Ordering::Relaxed) % 250 + 2;
    let socket = TcpSocket::new_v4()?;
    if let Some(bytes) = receive_buffer {
        socket.set_recv_buffer_size(bytes)?;
    }
    socket.bind(SocketAddr::from((Ipv4Addr::new(127, 0, 1, host as u8), 0)))?;
    let stream = socket.connect(address.parse().unwrap()).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// The head of an upgrade to a signalling socket.
pub const UPGRADE: &str = "GET /signal HTTP/1.1\r\nHost: hostile\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n";

/// Makes a signalling socket of a connection.
pub async fn upgrade(mut stream: TcpStream) -> TcpStream {
    stream.write_all(UPGRADE.as_bytes()).await.unwrap();
    let answer = Answer::read_head(&mut stream).await.unwrap();
    assert_eq!(answer.status, 101, "{}", answer.head);
    stream
}

/// The header of a frame that claims `length` bytes, masked with zeros.
pub fn frame_header(first_byte: u8, length: u64) -> Vec<u8> {
    let mut header = vec![first_byte];
    match length {
        0..126 => header.push(0x80 | length as u8),
        126..0x1_0000 => {
            header.push(0x80 | 126);
            header.extend((length as u16).to_be_bytes());
        }
        _ => {
            header.push(0x80 | 127);
            header.extend(length.to_be_bytes());
        }
    }
    header.extend([0; 4]);
    header
}

pub fn frame(first_byte: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = frame_header(first_byte, payload.len() as u64);
    frame.extend(payload);
    frame
}

pub fn text(payload: &str) -> Vec<u8> {
    frame(FIN | TEXT, payload.as_bytes())
}

/// The code of the close frame that ends a signalling socket; nothing if it ends without one.
pub async fn close_code(stream: &mut (impl AsyncRead + Unpin)) -> Option<u16> {
    let frames = async {
        loop {
            let first = stream.read_u8().await?;
            let length = match stream.read_u8().await? {
                126 => u64::from(stream.read_u16().await?),
                127 => stream.read_u64().await?,
                length => u64::from(length),
            };
            let mut payload = vec![0; length as usize];
            stream.read_exact(&mut payload).await?;
            if first == FIN | CLOSE && payload.len() >= 2 {
                return Ok::<u16, io::Error>(u16::from_be_bytes([payload[0], payload[1]]));
            }
        }
    };
    timeout(SOON * 3, frames).await.expect("the broker should have ended the socket").ok()
}

/// What the broker answers to a request.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    pub async fn read(stream: &mut (impl AsyncReadExt + Unpin)) -> io::Result<Self> {
        let mut answer = Self::read_head(stream).await?;
        let length = answer.header("content-length").map_or(0, |length| length.parse().unwrap());
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await?;
        answer.body = String::from_utf8_lossy(&body).into_owned();
        Ok(answer)
    }

    pub async fn read_head(stream: &mut (impl AsyncReadExt + Unpin)) -> io::Result<Self> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await?);
        }
        let head = String::from_utf8(head).unwrap();
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status line");
        Ok(Self { status, head, body: String::new() })
    }

    /// The slug of the pod that was uploaded.
    pub fn slug(&self) -> String {
        let answer: serde_json::Value = serde_json::from_str(&self.body).unwrap();
        answer["id"].as_str().unwrap().to_owned()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}
