//! A broker under attack over one of several transports.

use std::{future::poll_fn, io, ops::Deref};

use ::bytes::Bytes;
use h2::{
    SendStream,
    client::{ResponseFuture, SendRequest},
};
use http::{Method, Request};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf},
    net::TcpStream,
    sync::Mutex,
    time::timeout,
};
use tokio_tungstenite::{WebSocketStream, tungstenite::protocol::Role};

use crate::{
    support::{
        SOON, bytes,
        bytes::Answer,
        http2::{self, Http2, Tunnel, poll_room},
        siege::Siege,
        socket::Socket,
        tls_client::Client,
    },
    wire::Wire,
};

/// How an attack reaches the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Http1,
    /// Without TLS, and without an upgrade before it.
    Http2,
    Http2OverTls,
}

impl Transport {
    pub fn is_http2(self) -> bool {
        self != Self::Http1
    }
}

/// Makes tests of attacks, one for each transport.
macro_rules! over_every_transport {
    ($($attack:ident),+ $(,)?) => { $(
        mod $attack {
            use crate::target::{Attack, Transport};

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn over_http1() {
                super::$attack(Attack { name: stringify!($attack), transport: Transport::Http1 }).await;
            }

            crate::target::over_http2!($attack);
        }
    )+ };
}

/// The same for attacks on what HTTP/1.1 does not have.
macro_rules! over_every_http2 {
    ($($attack:ident),+ $(,)?) => { $(
        mod $attack {
            use crate::target::{Attack, Transport};

            crate::target::over_http2!($attack);
        }
    )+ };
}

macro_rules! over_http2 {
    ($attack:ident) => {
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn over_http2() {
            super::$attack(Attack { name: stringify!($attack), transport: Transport::Http2 }).await;
        }

        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn over_http2_and_tls() {
            super::$attack(Attack { name: stringify!($attack), transport: Transport::Http2OverTls }).await;
        }
    };
}

pub(crate) use {over_every_http2, over_every_transport, over_http2};

/// An attack over one transport.
pub struct Attack {
    pub name: &'static str,
    pub transport: Transport,
}

impl Attack {
    /// Starts the broker with `settings`.
    pub async fn begin(self, settings: &[&str]) -> Target {
        let Self { name, transport } = self;
        let siege = Siege::lay(&format!("{name} {transport:?}"), settings).await;
        // Where the broker has no place for HTTP/2 it chooses HTTP/1.1, whose rules the attack breaks at once.
        let tls = Client::trusting(&siege.authority).with_alpn(&["h2", "http/1.1"]);
        Target { siege, transport, tls, shared: Mutex::default(), shared_narrow: Mutex::default() }
    }
}

/// A broker and the transport over which it is attacked.
pub struct Target {
    siege: Siege,
    pub transport: Transport,
    tls: Client,
    shared: Mutex<Shared>,
    shared_narrow: Mutex<Shared>,
}

/// A connection of HTTP/2 that has room for further streams.
#[derive(Default)]
struct Shared {
    sender: Option<SendRequest<Bytes>>,
    room: usize,
}

/// Streams that the broker grants to a connection.
pub const STREAMS: usize = 32;
/// Bytes that a client of HTTP/2 takes of a response it does not read.
const NARROW: u32 = 1024;
/// As much as the system takes of a response of HTTP/1.1.
const WIDE: u32 = 4 << 20;

impl Deref for Target {
    type Target = Siege;

    fn deref(&self) -> &Siege {
        &self.siege
    }
}

impl Target {
    /// A connection on which nothing was said yet.
    pub async fn connect(&self) -> Wire {
        self.wire(bytes::connect(self.attacked()).await.unwrap()).await
    }

    /// The same whose system takes hardly anything that it does not read.
    pub async fn connect_narrow(&self) -> Wire {
        self.wire(bytes::connect_narrow(self.attacked()).await.unwrap()).await
    }

    /// Where the attackers connect to.
    pub fn attacked(&self) -> &str {
        match self.transport {
            Transport::Http2OverTls => &self.tls_address,
            _ => self.siege.address(),
        }
    }

    async fn wire(&self, tcp: TcpStream) -> Wire {
        match self.transport {
            Transport::Http2OverTls => Wire::on(self.tls.over(tcp, "127.0.0.1").await.unwrap()),
            _ => Wire::on(tcp),
        }
    }

    /// A connection of HTTP/2 of its own.
    pub async fn http2(&self) -> Http2 {
        Http2::quiet(self.connect().await, WIDE).await
    }

    /// Room for a stream on a connection that others share.
    async fn stream(&self, is_narrow: bool) -> SendRequest<Bytes> {
        let (shared, window) = if is_narrow { (&self.shared_narrow, NARROW) } else { (&self.shared, WIDE) };
        let mut shared = shared.lock().await;
        if shared.room == 0 {
            let client = Http2::quiet(self.connect().await, window).await;
            *shared = Shared { sender: Some(client.sender), room: STREAMS };
        }
        shared.room -= 1;
        shared.sender.clone().unwrap()
    }

    /// The bytes of a WebSocket, before its first frame. Those over HTTP/2 share connections.
    pub async fn socket(&self) -> Wire {
        self.any_socket(false).await
    }

    /// The same of a client that takes hardly anything that it does not read.
    pub async fn narrow_socket(&self) -> Wire {
        self.any_socket(true).await
    }

    async fn any_socket(&self, is_narrow: bool) -> Wire {
        if self.transport.is_http2() {
            let mut sender = self.stream(is_narrow).await.ready().await.unwrap();
            let (answer, send) = sender.send_request(http2::extended_connect(), false).unwrap();
            return Wire::Stream(Tunnel::granted(http2::head(answer).await, send));
        }
        let mut wire = if is_narrow { self.connect_narrow().await } else { self.connect().await };
        wire.write_all(bytes::UPGRADE.as_bytes()).await.unwrap();
        let answer = Answer::read_head(&mut wire).await.unwrap();
        assert_eq!(answer.status, 101, "{}", answer.head);
        wire
    }

    /// A WebSocket that is spoken properly, on a connection of its own: those that wait on a connection of HTTP/2 are in
    /// one another's way.
    pub async fn client(&self) -> Socket<Wire> {
        speak(match self.transport.is_http2() {
            true => Wire::Stream(self.http2().await.tunnel().await),
            false => self.socket().await,
        })
        .await
    }

    /// Two of them, which share a connection over HTTP/2, for attacks by more sockets than there are places for such
    /// connections. Neither may wait.
    pub async fn two_clients(&self) -> [Socket<Wire>; 2] {
        if !self.transport.is_http2() {
            return [self.client().await, self.client().await];
        }
        let mut connection = self.http2().await;
        let [one, two] = [connection.tunnel().await, connection.tunnel().await].map(Wire::Stream);
        [speak(one).await, speak(two).await]
    }

    /// Begins a request whose body, if it has any, is still to be written. `body` is its length, if that is told.
    pub async fn request(&self, head: Head<'_>, body: Body) -> (Upload, Download) {
        if self.transport.is_http2() {
            let sender = self.http2().await.sender;
            return head.send(sender, body).await;
        }
        let (read, mut write) = tokio::io::split(self.connect().await);
        write.write_all(head.http1(body).as_bytes()).await.unwrap();
        let upload = Upload::Http1 { write, is_chunked: body == Body::Unknown };
        (upload, Download::Http1(read))
    }

    /// Uploads `body`, reading the answer all the while.
    pub async fn upload(&self, content_type: &str, body: &[u8]) -> Answer {
        let fields = [("content-type", content_type)];
        let head = Head { method: Method::POST, path: "/pods", fields: &fields };
        let (mut upload, mut download) = self.request(head, Body::Length(body.len())).await;
        let write = async {
            upload.write_all(body).await?;
            upload.finish().await
        };
        let (_, answer) = tokio::join!(write, timeout(SOON * 3, download.answer()));
        answer.expect("the upload should have been answered").expect("the answer should be readable")
    }

    /// Asks for `path`; the answer without its body.
    pub async fn get(&self, path: &str, fields: &[(&str, &str)]) -> Answer {
        let head = Head { method: Method::GET, path, fields };
        let (_upload, mut download) = self.request(head, Body::None).await;
        download.head().await.unwrap()
    }

    /// Asks for `path` and reads nothing but that there is an answer. Those over HTTP/2 share connections.
    pub async fn stalled_download(&self, path: &str) -> Stalled {
        let head = Head { method: Method::GET, path, fields: &[] };
        if self.transport.is_http2() {
            let (_, mut download) = head.send(self.stream(true).await, Body::None).await;
            let Download::Http2 { answer, .. } = &mut download else { unreachable!() };
            let answer = http2::head(answer.take().unwrap()).await;
            assert_eq!(answer.status(), 200);
            return Stalled::Http2 { _answer: answer };
        }
        let mut wire = self.connect_narrow().await;
        wire.write_all(head.http1(Body::None).as_bytes()).await.unwrap();
        wire.read_u8().await.unwrap();
        Stalled::Http1 { _wire: wire }
    }

    /// Ends the attack; see [`Siege::lift`].
    pub async fn lift(self) {
        drop((self.shared, self.shared_narrow));
        self.siege.lift().await;
    }
}

/// A download that its client does not read.
pub enum Stalled {
    Http1 { _wire: Wire },
    Http2 { _answer: http::Response<h2::RecvStream> },
}

/// What is known of a request's body before it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    None,
    Length(usize),
    Unknown,
}

/// The head of a request, but for what tells the length of its body.
pub struct Head<'a> {
    pub method: Method,
    pub path: &'a str,
    pub fields: &'a [(&'a str, &'a str)],
}

/// The head of an upload of HTML.
pub const UPLOAD: Head =
    Head { method: Method::POST, path: "/pods", fields: &[("content-type", "text/html")] };

impl Head<'_> {
    fn http1(&self, body: Body) -> String {
        let mut head = format!("{} {} HTTP/1.1\r\nhost: hostile\r\n", self.method, self.path);
        for (name, value) in self.fields {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        match body {
            Body::None => {}
            Body::Length(length) => head.push_str(&format!("content-length: {length}\r\n")),
            Body::Unknown => head.push_str("transfer-encoding: chunked\r\n"),
        }
        head + "\r\n"
    }

    /// Sends it on a new stream of `sender`.
    pub async fn send(&self, sender: SendRequest<Bytes>, body: Body) -> (Upload, Download) {
        let mut request: Request<()> = http2::request(self.method.clone(), self.path).body(()).unwrap();
        for (name, value) in self.fields {
            let name: http::HeaderName = name.parse().unwrap();
            request.headers_mut().append(name, value.parse().unwrap());
        }
        if let Body::Length(length) = body {
            request.headers_mut().insert("content-length", length.into());
        }
        let mut sender = sender.ready().await.unwrap();
        let (answer, send) = sender.send_request(request, body == Body::None).unwrap();
        (Upload::Http2(send), Download::Http2 { answer: Some(answer), body: None, _sender: sender })
    }
}

/// A request's body on its way.
pub enum Upload {
    Http1 { write: WriteHalf<Wire>, is_chunked: bool },
    Http2(SendStream<Bytes>),
}

impl Upload {
    /// Writes more of the body; fails once the broker takes no more.
    pub async fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Http1 { write, is_chunked: false } => write.write_all(bytes).await,
            Self::Http1 { write, is_chunked: true } => {
                write.write_all(format!("{:x}\r\n", bytes.len()).as_bytes()).await?;
                write.write_all(bytes).await?;
                write.write_all(b"\r\n").await
            }
            Self::Http2(send) => {
                while !bytes.is_empty() {
                    let length = poll_fn(|cx| poll_room(send, cx, bytes.len())).await?;
                    let (now, later) = bytes.split_at(length);
                    send.send_data(Bytes::copy_from_slice(now), false).map_err(io::Error::other)?;
                    bytes = later;
                }
                Ok(())
            }
        }
    }

    /// Ends the body.
    pub async fn finish(&mut self) -> io::Result<()> {
        match self {
            Self::Http1 { is_chunked: false, .. } => Ok(()),
            Self::Http1 { write, is_chunked: true } => write.write_all(b"0\r\n\r\n").await,
            Self::Http2(send) => send.send_data(Bytes::new(), true).map_err(io::Error::other),
        }
    }
}

/// An answer on its way.
pub enum Download {
    Http1(ReadHalf<Wire>),
    Http2 { answer: Option<ResponseFuture>, body: Option<h2::RecvStream>, _sender: SendRequest<Bytes> },
}

impl Download {
    /// Reads the head of the answer.
    pub async fn head(&mut self) -> io::Result<Answer> {
        match self {
            Self::Http1(read) => Answer::read_head(read).await,
            Self::Http2 { answer, body, .. } => {
                let answer = answer.take().expect("one answer").await.map_err(io::Error::other)?;
                let (parts, rest) = answer.into_parts();
                *body = Some(rest);
                let fields = parts.headers.iter().map(|(name, value)| {
                    format!("{name}: {}\r\n", String::from_utf8_lossy(value.as_bytes()))
                });
                let head = fields.collect();
                Ok(Answer { status: parts.status.as_u16(), head, body: String::new() })
            }
        }
    }

    /// Reads the whole answer.
    pub async fn answer(&mut self) -> io::Result<Answer> {
        if let Self::Http1(read) = self {
            return Answer::read(read).await;
        }
        let mut answer = self.head().await?;
        answer.body = String::from_utf8_lossy(&self.rest().await?).into_owned();
        Ok(answer)
    }

    /// Reads what comes after that, up to the end.
    pub async fn rest(&mut self) -> io::Result<Vec<u8>> {
        let mut rest = Vec::new();
        match self {
            Self::Http1(read) => {
                read.read_to_end(&mut rest).await?;
            }
            Self::Http2 { body, .. } => {
                let body = body.as_mut().expect("the head was read");
                while let Some(data) = body.data().await {
                    let data = data.map_err(io::Error::other)?;
                    body.flow_control().release_capacity(data.len()).map_err(io::Error::other)?;
                    rest.extend_from_slice(&data);
                }
            }
        }
        Ok(rest)
    }
}

/// Returns a WebSocket that is spoken properly on `wire`.
async fn speak(wire: Wire) -> Socket<Wire> {
    Socket { stream: WebSocketStream::from_raw_socket(wire, Role::Client, None).await }
}
