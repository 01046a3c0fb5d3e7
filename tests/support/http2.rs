//! A client of HTTP/2 that takes as little as it likes.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::{
    Reason, RecvStream, SendStream,
    client::{Builder, ResponseFuture, SendRequest},
    ext::Protocol,
};
use http::{Method, Request, Response, StatusCode, Version};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    task::JoinHandle,
    time::{Duration, interval, timeout},
};
use tokio_tungstenite::{WebSocketStream, tungstenite::protocol::Role};

use super::{SOON, socket::Socket};

/// One connection, whose settings have come.
pub struct Http2 {
    pub sender: SendRequest<Bytes>,
    /// Ends with the connection.
    pub connection: JoinHandle<Result<(), h2::Error>>,
}

impl Http2 {
    /// Begins on a connection that is ready for it; the client's window for each response is `window`. It sends PINGs
    /// as long as the connection lasts.
    pub async fn on(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static, window: u32) -> Self {
        let (client, mut pings) = Self::begin(stream, window).await;
        tokio::spawn(async move {
            let mut ticks = interval(Duration::from_millis(50));
            while pings.ping(h2::Ping::opaque()).await.is_ok() {
                ticks.tick().await;
            }
        });
        client
    }

    /// The same without PINGs.
    pub async fn quiet(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static, window: u32) -> Self {
        Self::begin(stream, window).await.0
    }

    async fn begin(
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        window: u32,
    ) -> (Self, h2::PingPong) {
        let mut builder = Builder::new();
        builder.initial_window_size(window).initial_connection_window_size(window.max(0xffff));
        let (sender, mut connection) = builder.handshake(stream).await.unwrap();
        let mut pings = connection.ping_pong().unwrap();
        let connection = tokio::spawn(connection);
        // The broker's settings come before its answer.
        timeout(SOON, pings.ping(h2::Ping::opaque())).await.expect("a PING should be answered").unwrap();
        (Self { sender: sender.ready().await.unwrap(), connection }, pings)
    }

    /// Asks for `path`; the answer's head has come.
    pub async fn get(&mut self, path: &str) -> Response<RecvStream> {
        self.request(Method::GET, path).await
    }

    pub async fn request(&mut self, method: Method, path: &str) -> Response<RecvStream> {
        self.ready().await;
        let request = request(method, path).body(()).unwrap();
        head(self.sender.send_request(request, true).unwrap().0).await
    }

    /// Asks for a WebSocket; the stream that it is on, if it is granted.
    pub async fn connect(&mut self) -> (Response<RecvStream>, SendStream<Bytes>) {
        self.ready().await;
        let (answer, send) = self.sender.send_request(extended_connect(), false).unwrap();
        (head(answer).await, send)
    }

    /// A socket on a stream of its own.
    pub async fn socket(&mut self) -> Socket<Tunnel> {
        Socket { stream: WebSocketStream::from_raw_socket(self.tunnel().await, Role::Client, None).await }
    }

    /// The bytes of a socket on a stream of its own.
    pub async fn tunnel(&mut self) -> Tunnel {
        let (answer, send) = self.connect().await;
        Tunnel::granted(answer, send)
    }

    /// Waits until the broker has closed the connection.
    pub async fn closed(self) {
        let Self { sender, connection } = self;
        // Any result is an end.
        let _ = timeout(SOON, connection).await.expect("the broker should have closed the connection");
        drop(sender);
    }

    async fn ready(&mut self) {
        let ready = timeout(SOON, self.sender.clone().ready());
        self.sender = ready.await.expect("there should be room for another stream").unwrap();
    }
}

/// What a stream of HTTP/2 carries after an extended CONNECT (RFC 8441). It takes as much as the broker opens its window
/// for, and opens its own as it is read. Dropping it resets the stream.
pub struct Tunnel {
    send: SendStream<Bytes>,
    receive: RecvStream,
    /// Came, and is still to be read.
    rest: Bytes,
}

impl Tunnel {
    /// The stream that was granted with `answer`.
    pub fn granted(answer: Response<RecvStream>, send: SendStream<Bytes>) -> Self {
        assert_eq!(answer.status(), StatusCode::OK);
        Self { send, receive: answer.into_body(), rest: Bytes::new() }
    }

    /// Sends `data` as soon as the broker takes it, which need not be now.
    pub fn queue(&mut self, data: Bytes) {
        // A stream that was reset takes nothing.
        let _ = self.send.send_data(data, false);
    }
}

impl AsyncRead for Tunnel {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.rest.is_empty() {
            match ready!(self.receive.poll_data(cx)) {
                Some(Ok(data)) => self.rest = data,
                Some(Err(error)) => return Poll::Ready(Err(io::Error::other(error))),
                None => return Poll::Ready(Ok(())),
            }
        }
        let length = self.rest.len().min(buf.remaining());
        buf.put_slice(&self.rest.split_to(length));
        // A stream that was reset needs no window.
        let _ = self.receive.flow_control().release_capacity(length);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let length = ready!(poll_room(&mut self.send, cx, buf.len()))?;
        let data = Bytes::copy_from_slice(&buf[..length]);
        Poll::Ready(self.send.send_data(data, false).map(|()| length).map_err(io::Error::other))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.send.send_data(Bytes::new(), true).map_err(io::Error::other))
    }
}

/// How many of `length` bytes the broker takes now; fails once it takes no more.
pub fn poll_room(
    send: &mut SendStream<Bytes>,
    cx: &mut Context<'_>,
    length: usize,
) -> Poll<io::Result<usize>> {
    send.reserve_capacity(length);
    while send.capacity() == 0 && length > 0 {
        match ready!(send.poll_capacity(cx)) {
            Some(room) => room.map_err(io::Error::other)?,
            None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        };
    }
    Poll::Ready(Ok(send.capacity().min(length)))
}

pub fn request(method: Method, path: &str) -> http::request::Builder {
    Request::builder().method(method).uri(format!("https://pods.example{path}")).version(Version::HTTP_2)
}

pub fn extended_connect() -> Request<()> {
    let request = request(Method::CONNECT, "/signal").header("sec-websocket-version", "13");
    request.extension(Protocol::from_static("websocket")).body(()).unwrap()
}

pub async fn head(answer: ResponseFuture) -> Response<RecvStream> {
    timeout(SOON, answer).await.expect("an answer should have come").unwrap()
}

/// All of a body, which is taken as it comes; the reason if its stream was reset.
pub async fn body(response: Response<RecvStream>) -> Result<Vec<u8>, Option<Reason>> {
    let mut receive = response.into_body();
    let mut body = Vec::new();
    while let Some(data) = timeout(SOON, receive.data()).await.expect("the body should go on or end") {
        let data = data.map_err(|error| error.reason())?;
        receive.flow_control().release_capacity(data.len()).unwrap();
        body.extend_from_slice(&data);
    }
    Ok(body)
}

/// Takes `step` bytes of a body every 50 ms, however many have come; the reason for which its stream was reset.
pub async fn trickle(response: Response<RecvStream>, step: usize) -> Option<Reason> {
    let mut receive = response.into_body();
    let mut ticks = interval(Duration::from_millis(50));
    let mut held = 0;
    let trickle = async {
        loop {
            tokio::select! {
                data = receive.data() => match data {
                    Some(Ok(data)) => held += data.len(),
                    Some(Err(error)) => return error.reason(),
                    None => panic!("the body came whole"),
                },
                _ = ticks.tick() => {
                    let taken = step.min(held);
                    held -= taken;
                    receive.flow_control().release_capacity(taken).unwrap();
                }
            }
        }
    };
    timeout(SOON, trickle).await.expect("the broker should have reset the stream")
}
