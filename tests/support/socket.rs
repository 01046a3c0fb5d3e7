//! A WebSocket client that says what it expects.

use std::panic::Location;

use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpSocket, TcpStream},
    time::timeout,
};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Error, Message, client::IntoClientRequest},
};

use super::{SOON, frames, throttled::Throttled};

pub struct Socket<S = TcpStream> {
    pub stream: WebSocketStream<S>,
}

impl Socket {
    pub async fn connect(address: &str) -> Self {
        Self::try_connect(address, "/signal").await.unwrap()
    }

    pub async fn try_connect(address: &str, path: &str) -> Result<Self, Error> {
        Self::over(TcpStream::connect(address).await?, address, path).await
    }

    /// One whose system takes hardly anything that it does not read.
    pub async fn narrow(address: &str) -> Self {
        Self::over(narrow(address).await, address, "/signal").await.unwrap()
    }

    /// One whose request has these `Authorization` headers.
    pub async fn authorized(address: &str, authorization: &[&str]) -> Self {
        let tcp = TcpStream::connect(address).await.unwrap();
        tcp.set_nodelay(true).unwrap();
        Self::upgraded(tcp, &format!("ws://{address}/signal"), authorization).await
    }

    /// One that a proxy hands over, which says that `client` sends it.
    pub async fn forwarded(address: &str, client: &str) -> Self {
        let mut request = format!("ws://{address}/signal").into_client_request().unwrap();
        request.headers_mut().insert("x-forwarded-for", client.parse().unwrap());
        let (stream, _) = client_async(request, TcpStream::connect(address).await.unwrap()).await.unwrap();
        Self { stream }
    }

    async fn over(tcp: TcpStream, address: &str, path: &str) -> Result<Self, Error> {
        tcp.set_nodelay(true)?;
        let (stream, _) = client_async(format!("ws://{address}{path}"), tcp).await?;
        Ok(Self { stream })
    }
}

impl Socket<Throttled<TcpStream>> {
    /// One on a line that carries so many bytes a second to it.
    pub async fn slow(address: &str, bytes_per_second: u32) -> Self {
        let tcp = narrow(address).await;
        tcp.set_nodelay(true).unwrap();
        let tcp = Throttled::new(tcp, bytes_per_second);
        let (stream, _) = client_async(format!("ws://{address}/signal"), tcp).await.unwrap();
        Self { stream }
    }
}

async fn narrow(address: &str) -> TcpStream {
    let tcp = TcpSocket::new_v4().unwrap();
    tcp.set_recv_buffer_size(4096).unwrap();
    tcp.connect(address.parse().unwrap()).await.unwrap()
}

impl<S: AsyncRead + AsyncWrite + Unpin> Socket<S> {
    /// A socket over `stream` whose request has these `Authorization` headers.
    pub async fn upgraded(stream: S, url: &str, authorization: &[&str]) -> Self {
        let mut request = url.into_client_request().unwrap();
        for value in authorization {
            request.headers_mut().append("authorization", value.parse().unwrap());
        }
        Self { stream: client_async(request, stream).await.unwrap().0 }
    }

    pub async fn send(&mut self, frame: Value) {
        self.send_text(&frame.to_string()).await;
    }

    pub async fn send_text(&mut self, text: &str) {
        self.send_message(Message::text(text)).await;
    }

    pub async fn send_message(&mut self, message: Message) {
        self.stream.send(message).await.unwrap();
    }

    /// The text of the next frame; pings are answered on the way.
    pub async fn receive_text(&mut self) -> String {
        match timeout(SOON, self.next()).await.expect("a frame should have come") {
            Some(Ok(Message::Text(text))) => text.as_str().to_owned(),
            other => panic!("expected a frame, got {other:?}"),
        }
    }

    pub async fn receive(&mut self) -> Value {
        serde_json::from_str(&self.receive_text().await).unwrap()
    }

    pub async fn register(&mut self, pod_id: &str) {
        self.send(frames::register(pod_id)).await;
        self.expect(frames::registered(pod_id)).await;
    }

    /// The next frame must be this one.
    #[track_caller]
    pub fn expect(&mut self, frame: Value) -> impl Future<Output = ()> {
        let caller = Location::caller();
        async move { assert_eq!(self.receive().await, frame, "at {caller}") }
    }

    /// The code and reason with which the broker closes, after frames that are passed over.
    pub async fn closed(&mut self) -> (u16, String) {
        let close = async {
            loop {
                match self.next().await {
                    Some(Ok(Message::Close(Some(frame)))) => {
                        return (frame.code.into(), frame.reason.as_str().to_owned());
                    }
                    Some(Ok(Message::Text(_))) => {}
                    other => panic!("expected a close frame, got {other:?}"),
                }
            }
        };
        timeout(SOON, close).await.expect("the broker should have closed the socket")
    }

    /// The next thing to come must be a close frame with `code`.
    #[track_caller]
    pub fn expect_close(&mut self, code: u16) -> impl Future<Output = ()> {
        let caller = Location::caller();
        async move {
            match timeout(SOON, self.next()).await.expect("a close frame should have come") {
                Some(Ok(Message::Close(Some(frame)))) => {
                    assert_eq!(u16::from(frame.code), code, "at {caller}")
                }
                other => panic!("expected a close frame, got {other:?} at {caller}"),
            }
        }
    }

    /// Answers the broker's close frame, as clients do, and waits for the end of the connection.
    pub async fn answer_close(&mut self) {
        let end = async { while self.stream.next().await.is_some_and(|next| next.is_ok()) {} };
        timeout(SOON, end).await.expect("the connection should have ended");
    }

    /// Proves that nothing is on its way to this socket: the answer to a frame sent now is the next to come.
    pub async fn nothing(&mut self) {
        self.send_text("{").await;
        assert_eq!(self.receive().await, frames::refusal("invalid json"));
    }

    async fn next(&mut self) -> Option<Result<Message, Error>> {
        loop {
            match self.stream.next().await {
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                other => return other,
            }
        }
    }
}
