//! One request over either version of HTTP, with a path that is sent as it is written.

use bytes::Bytes;
use h2::client::SendRequest;
use reqwest::{StatusCode, header::HeaderMap};
use tokio::{net::TcpStream, time::timeout};

use crate::support::{
    SOON,
    raw::{Answer, Raw},
};

/// A version of HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    One,
    Two,
}

pub const VERSIONS: [Version; 2] = [Version::One, Version::Two];

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Ask<'a> {
    pub method: &'a str,
    pub path: &'a str,
    pub host: &'a str,
    pub fields: Vec<(&'a str, &'a str)>,
}

impl<'a> Ask<'a> {
    pub fn new(method: &'a str, path: &'a str) -> Self {
        Self { method, path, host: "broker", fields: Vec::new() }
    }

    pub fn field(mut self, name: &'a str, value: &'a str) -> Self {
        self.fields.push((name, value));
        self
    }

    /// The answer of the broker at `address`.
    pub async fn over(&self, version: Version, address: &str) -> Answer {
        match version {
            Version::One => self.over_http1(address).await,
            Version::Two => {
                let mut sender = connect(address).await;
                self.in_stream(&mut sender).await
            }
        }
    }

    async fn over_http1(&self, address: &str) -> Answer {
        let Self { method, path, host, fields } = self;
        let fields: String = fields.iter().map(|(name, value)| format!("{name}: {value}\n")).collect();
        let mut raw = Raw::open(address).await;
        raw.send(&format!("{method} {path} HTTP/1.1\nHost: {host}\n{fields}\n")).await;
        if *method != "HEAD" {
            return raw.answer().await;
        }
        let answer = raw.head().await;
        // What comes next is the answer to the next request, and no body.
        raw.send("GET /nothing/here HTTP/1.1\nHost: broker\n\n").await;
        raw.answer().await;
        answer
    }

    /// The answer in one stream of a connection.
    pub async fn in_stream(&self, sender: &mut SendRequest<Bytes>) -> Answer {
        let Self { method, path, host, fields } = self;
        let mut request = http::Request::builder()
            .method(*method)
            .uri(format!("http://{host}{path}"))
            .version(http::Version::HTTP_2);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let exchange = async {
            let (answer, _) = sender.send_request(request.body(()).unwrap(), true).unwrap();
            let answer = answer.await.unwrap();
            let (parts, mut body) = answer.into_parts();
            let mut bytes = Vec::new();
            while let Some(data) = body.data().await {
                let data = data.unwrap();
                body.flow_control().release_capacity(data.len()).unwrap();
                bytes.extend_from_slice(&data);
            }
            Answer {
                status: parts.status,
                headers: parts.headers,
                body: String::from_utf8_lossy(&bytes).into_owned(),
            }
        };
        timeout(SOON, exchange).await.expect("an answer should have come")
    }
}

/// A connection of HTTP/2 without TLS.
pub async fn connect(address: &str) -> SendRequest<Bytes> {
    let stream = TcpStream::connect(address).await.unwrap();
    let (sender, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    sender.ready().await.unwrap()
}

/// Status and fields of an answer, without those that tell the time.
pub fn head(answer: &Answer) -> (StatusCode, HeaderMap) {
    let mut headers = answer.headers.clone();
    headers.remove("date");
    (answer.status, headers)
}
