//! HTTP written by hand, for what a proper client would not send.

use std::{io, net::IpAddr, path::Path, time::Duration};

use reqwest::{
    StatusCode,
    header::{HeaderMap, HeaderName, HeaderValue},
};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufStream},
    net::{TcpSocket, TcpStream, UnixStream},
    time::{interval, timeout},
};

use super::SOON;

/// One HTTP/1.1 connection.
pub struct Raw {
    stream: BufStream<Box<dyn Stream>>,
}

/// A TCP or a Unix connection.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

impl Raw {
    pub async fn open(address: &str) -> Self {
        Self::over(TcpStream::connect(address).await.unwrap())
    }

    /// One whose own address is `source`: anything in 127.0.0.0/8 is this host.
    pub async fn open_from(source: IpAddr, address: &str) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((source, 0).into()).unwrap();
        Self::over(socket.connect(address.parse().unwrap()).await.unwrap())
    }

    pub fn over(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        Self::on(stream)
    }

    /// One that goes through TLS or whatever else.
    pub fn on(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Self {
        Self { stream: BufStream::new(Box::new(stream)) }
    }

    pub async fn unix(path: &Path) -> Self {
        Self::on(UnixStream::connect(path).await.unwrap())
    }

    /// Writes `text`, in which a newline stands for CR LF.
    pub async fn send(&mut self, text: &str) {
        self.send_bytes(text.replace('\n', "\r\n").as_bytes()).await;
    }

    pub async fn send_bytes(&mut self, bytes: &[u8]) {
        self.try_send_bytes(bytes).await.unwrap();
    }

    /// Fails once the broker has closed the connection.
    pub async fn try_send_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }

    /// Waits until something was answered, or the connection was closed.
    pub async fn stir(&mut self) {
        let _ = self.stream.fill_buf().await;
    }

    /// Sends `bytes` every 20 ms until the broker answers or closes the connection.
    pub async fn dribble(&mut self, bytes: &[u8]) {
        let mut ticks = interval(Duration::from_millis(20));
        let dribbling = async {
            loop {
                tokio::select! {
                    biased;
                    () = self.stir() => return,
                    _ = ticks.tick() => {}
                }
                if self.try_send_bytes(bytes).await.is_err() {
                    return;
                }
            }
        };
        timeout(SOON, dribbling).await.expect("the broker should have had enough");
    }

    /// Reads at most as much as there is room in `buffer`; nothing at the end.
    pub async fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.read(buffer).await
    }

    /// The next answer: its head, and as much of a body as its `Content-Length` says.
    pub async fn answer(&mut self) -> Answer {
        self.try_answer().await.expect("the broker should have answered before it closed the connection")
    }

    /// The next answer, or nothing if the broker closed the connection.
    pub async fn try_answer(&mut self) -> Option<Answer> {
        timeout(SOON, self.read_answer()).await.expect("an answer should have come")
    }

    /// The next answer, however long the clock of the test says that it takes.
    pub async fn answer_at_last(&mut self) -> Answer {
        self.read_answer().await.expect("the broker should have answered")
    }

    /// The status of an answer that has no body, whatever its head says.
    pub async fn status(&mut self) -> StatusCode {
        self.head().await.status
    }

    /// An answer that has no body, whatever its head says.
    pub async fn head(&mut self) -> Answer {
        let head = timeout(SOON, self.read_head()).await.expect("an answer should have come");
        let (status, headers) =
            head.expect("the broker should have answered before it closed the connection");
        Answer { status, headers, body: String::new() }
    }

    /// Says that nothing more will be sent.
    pub async fn finish(&mut self) {
        self.stream.shutdown().await.unwrap();
    }

    async fn read_answer(&mut self) -> Option<Answer> {
        let (status, headers) = self.read_head().await?;
        let length =
            headers.get("content-length").map_or(0, |value| value.to_str().unwrap().parse().unwrap());
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).await.ok()?;
        Some(Answer { status, headers, body: String::from_utf8_lossy(&body).into_owned() })
    }

    async fn read_head(&mut self) -> Option<(StatusCode, HeaderMap)> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(self.stream.read_u8().await.ok()?);
        }
        let head = String::from_utf8(head).unwrap();
        let mut lines = head.split_terminator("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let fields = lines.filter_map(|line| line.split_once(": "));
        let fields = fields.map(|(name, value)| {
            (name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap())
        });
        Some((status, fields.collect()))
    }
}

/// The answer to one request of a connection of its own.
pub async fn ask(address: &str, request: &str) -> Answer {
    let mut raw = Raw::open(address).await;
    raw.send(request).await;
    raw.answer().await
}

/// Asks for a WebSocket at the signalling endpoint.
pub const UPGRADE: &str = "GET /signal HTTP/1.1\nHost: broker\nConnection: Upgrade\nUpgrade: websocket\n\
    Sec-WebSocket-Version: 13\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\n\n";

/// The head of an upload of so many bytes.
pub fn upload_head(length: usize) -> String {
    format!("POST /pods HTTP/1.1\nHost: broker\nContent-Type: text/html\nContent-Length: {length}\n\n")
}
