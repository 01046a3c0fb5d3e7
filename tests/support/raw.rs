//! HTTP written by hand, for what a proper client would not send.

use reqwest::{
    StatusCode,
    header::{HeaderMap, HeaderName, HeaderValue},
};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, BufStream},
    net::TcpStream,
    time::timeout,
};

use super::SOON;

/// One HTTP/1.1 connection.
pub struct Raw {
    stream: BufStream<TcpStream>,
}

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
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream: BufStream::new(stream) }
    }

    /// Writes `text`, in which a newline stands for CR LF.
    pub async fn send(&mut self, text: &str) {
        self.send_bytes(text.replace('\n', "\r\n").as_bytes()).await;
    }

    pub async fn send_bytes(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
        self.stream.flush().await.unwrap();
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
        let head = timeout(SOON, self.read_head()).await.expect("an answer should have come");
        head.expect("the broker should have answered before it closed the connection").0
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
        Some(Answer { status, headers, body: String::from_utf8(body).unwrap() })
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
