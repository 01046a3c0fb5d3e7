//! A client of HTTP/2 that takes as little as it likes.

use bytes::Bytes;
use h2::{
    Reason,
    client::{Builder, ResponseFuture, SendRequest},
    ext::Protocol,
};
use http::{Method, Request, Response, StatusCode, Version};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, duplex},
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
    /// Begins on a connection that is ready for it; the client's window for each response is `window`.
    pub async fn on(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static, window: u32) -> Self {
        let (sender, mut connection) =
            Builder::new().initial_window_size(window).handshake(stream).await.unwrap();
        let mut pings = connection.ping_pong().unwrap();
        let connection = tokio::spawn(connection);
        // The broker's settings come before its answer.
        timeout(SOON, pings.ping(h2::Ping::opaque())).await.expect("a PING should be answered").unwrap();
        tokio::spawn(async move {
            let mut ticks = interval(Duration::from_millis(50));
            while pings.ping(h2::Ping::opaque()).await.is_ok() {
                ticks.tick().await;
            }
        });
        Self { sender: sender.ready().await.unwrap(), connection }
    }

    /// Asks for `path`; the answer's head has come.
    pub async fn get(&mut self, path: &str) -> Response<h2::RecvStream> {
        self.request(Method::GET, path).await
    }

    pub async fn request(&mut self, method: Method, path: &str) -> Response<h2::RecvStream> {
        self.ready().await;
        let request = request(method, path).body(()).unwrap();
        head(self.sender.send_request(request, true).unwrap().0).await
    }

    /// Asks for a WebSocket; the stream that it is on, if it is granted.
    pub async fn connect(&mut self) -> (Response<h2::RecvStream>, h2::SendStream<Bytes>) {
        self.ready().await;
        let (answer, send) = self.sender.send_request(extended_connect(), false).unwrap();
        (head(answer).await, send)
    }

    /// A socket on a stream of its own.
    pub async fn socket(&mut self) -> Socket<DuplexStream> {
        let (answer, mut send) = self.connect().await;
        assert_eq!(answer.status(), StatusCode::OK);
        let mut receive = answer.into_body();
        let (ours, theirs) = duplex(1 << 20);
        let (mut read, mut write) = tokio::io::split(theirs);
        tokio::spawn(async move {
            while let Some(Ok(data)) = receive.data().await {
                receive.flow_control().release_capacity(data.len()).unwrap();
                write.write_all(&data).await.unwrap();
            }
            let _ = write.shutdown().await;
        });
        tokio::spawn(async move {
            let mut buffer = vec![0; 16 << 10];
            while let Ok(length @ 1..) = read.read(&mut buffer).await {
                // What there is no room for now waits within h2.
                if send.send_data(Bytes::copy_from_slice(&buffer[..length]), false).is_err() {
                    return;
                }
            }
            let _ = send.send_data(Bytes::new(), true);
        });
        Socket { stream: WebSocketStream::from_raw_socket(ours, Role::Client, None).await }
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

pub fn request(method: Method, path: &str) -> http::request::Builder {
    Request::builder().method(method).uri(format!("https://pods.example{path}")).version(Version::HTTP_2)
}

pub fn extended_connect() -> Request<()> {
    let request = request(Method::CONNECT, "/signal").header("sec-websocket-version", "13");
    request.extension(Protocol::from_static("websocket")).body(()).unwrap()
}

pub async fn head(answer: ResponseFuture) -> Response<h2::RecvStream> {
    timeout(SOON, answer).await.expect("an answer should have come").unwrap()
}

/// All of a body, which is taken as it comes; the reason if its stream was reset.
pub async fn body(response: Response<h2::RecvStream>) -> Result<Vec<u8>, Option<Reason>> {
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
pub async fn trickle(response: Response<h2::RecvStream>, step: usize) -> Option<Reason> {
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
