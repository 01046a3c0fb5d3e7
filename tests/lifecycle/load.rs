//! Clients of all kinds that go on and on, and whatever goes wrong for them.

use std::{
    cell::{Cell, RefCell},
    fmt::Display,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use futures_util::{SinkExt, StreamExt, future::join_all};
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::{sleep, timeout},
};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Error, Message},
};
use tokio_util::sync::CancellationToken;

use crate::support::{
    SOON, frames,
    pod::Pod,
    raw::{Answer, Raw, upload_head},
    tls_client::Client,
};

pub const ORIGINS: usize = 20;
/// Between two requests of one client.
const PAUSE: Duration = Duration::from_millis(20);
const HEALTH: &str = "GET /health HTTP/1.1\nHost: pods.example\n\n";

pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// What went wrong.
type Failure = String;

pub struct Load {
    address: String,
    /// With it, all connections are TLS.
    pub client: Option<Client>,
    over: CancellationToken,
    registrations: Arc<AtomicUsize>,
    pub requests: Cell<usize>,
    /// New sockets that got an answer to their first frame.
    pub sockets: Cell<usize>,
    /// Those that were told to come back.
    pub told_to_come_back: Cell<usize>,
    pub slugs: RefCell<Vec<String>>,
    /// The longest that a request took, with its connection.
    pub longest: Cell<Duration>,
    /// How long origins were away, each time.
    pub away: RefCell<Vec<Duration>>,
    pub failures: RefCell<Vec<Failure>>,
}

impl Load {
    /// Clients of the broker at `address`, until they are `over`. They count each registration of an origin.
    pub fn new(
        address: String,
        client: Option<Client>,
        over: CancellationToken,
        registrations: Arc<AtomicUsize>,
    ) -> Self {
        Self {
            address,
            client,
            over,
            registrations,
            requests: Cell::default(),
            sockets: Cell::default(),
            told_to_come_back: Cell::default(),
            slugs: RefCell::default(),
            longest: Cell::default(),
            away: RefCell::default(),
            failures: RefCell::default(),
        }
    }

    /// All clients.
    pub async fn run(&self) {
        let pods = ["one", "two", "three"].map(|name| Pod::named(name).padded(100_000).html());
        tokio::join!(
            join_all((0..2).map(|_| self.repeat("request", || self.request()))),
            join_all((0..2).map(|_| self.keep_alive())),
            join_all(
                (1..)
                    .zip(&pods)
                    .map(|(times, pod)| self.repeat("upload", move || self.upload(pod, PAUSE * times)))
            ),
            join_all((0..2).map(|_| self.repeat("visitor", || self.visit()))),
            join_all((0..ORIGINS).map(|number| self.be_origin(format!("pod-{number}")))),
        );
    }

    async fn repeat<F: Future<Output = Result<(), Failure>>>(&self, who: &str, step: impl Fn() -> F) {
        while !self.over.is_cancelled() {
            if let Err(why) = step().await {
                self.failed(who, &why);
            }
            sleep(PAUSE).await;
        }
    }

    fn failed(&self, who: &str, why: &str) {
        self.failures.borrow_mut().push(format!("{who}: {why}"));
    }

    async fn open(&self) -> Result<Box<dyn Stream>, Failure> {
        match &self.client {
            None => {
                let stream = TcpStream::connect(&self.address).await.map_err(told("connecting"))?;
                stream.set_nodelay(true).map_err(told("connecting"))?;
                Ok(Box::new(stream))
            }
            Some(client) => {
                let stream = client.connect(&self.address, "pods.example").await;
                Ok(Box::new(stream.map_err(told("connecting with TLS"))?))
            }
        }
    }

    async fn request(&self) -> Result<(), Failure> {
        let begun = Instant::now();
        let mut raw = Raw::on(self.open().await?);
        send(&mut raw, HEALTH).await?;
        answer(&mut raw).await?;
        count(&self.requests);
        self.longest.set(self.longest.get().max(begun.elapsed()));
        Ok(())
    }

    /// Whether the pod is there.
    pub async fn head(&self, slug: &str) -> Result<(), Failure> {
        let mut raw = Raw::on(self.open().await?);
        send(&mut raw, &format!("HEAD /{slug} HTTP/1.1\nHost: pods.example\n\n")).await?;
        let status = raw.status().await;
        if status == 200 { Ok(()) } else { Err(status.to_string()) }
    }

    /// Requests on one connection, for as long as the broker says that it stays open.
    async fn keep_alive(&self) {
        let kept = RefCell::new(None);
        let request = async || {
            let mut raw = match kept.take() {
                Some(raw) => raw,
                None => Raw::on(self.open().await?),
            };
            send(&mut raw, HEALTH).await?;
            if answer(&mut raw).await?.header("connection") != Some("close") {
                kept.replace(Some(raw));
            }
            count(&self.requests);
            Ok(())
        };
        self.repeat("keep-alive", request).await;
    }

    /// An upload in ten parts.
    async fn upload(&self, pod: &str, pause: Duration) -> Result<(), Failure> {
        let mut raw = Raw::on(self.open().await?);
        send(&mut raw, &upload_head(pod.len())).await?;
        for part in pod.as_bytes().chunks(pod.len() / 10) {
            raw.try_send_bytes(part).await.map_err(told("sending"))?;
            sleep(pause).await;
        }
        let slug = answer(&mut raw).await?.json()["id"].as_str().unwrap().to_owned();
        self.slugs.borrow_mut().push(slug);
        Ok(())
    }

    /// A new socket, or nothing where it was told to come back.
    async fn socket(&self) -> Result<Option<WebSocketStream<Box<dyn Stream>>>, Failure> {
        let stream = self.open().await?;
        match soon(client_async("ws://pods.example/signal", stream)).await? {
            Ok((socket, _)) => Ok(Some(socket)),
            Err(Error::Http(answer))
                if answer.status() == 503 && answer.headers().contains_key("retry-after") =>
            {
                Ok(None)
            }
            Err(error) => Err(format!("upgrading: {error}")),
        }
    }

    /// A visitor asks for a pod that is not there.
    async fn visit(&self) -> Result<(), Failure> {
        let told = match self.socket().await? {
            Some(mut socket) => exchange(&mut socket, &frames::offer("none", "s", "SDP")).await?,
            None => None,
        };
        match told {
            Some(told) if told == frames::error("s", "origin offline") => count(&self.sockets),
            Some(told) => return Err(format!("an offer was answered with {told}")),
            None => count(&self.told_to_come_back),
        }
        Ok(())
    }

    /// As the real host: after any close it waits for a second, then for two, four and so on.
    async fn be_origin(&self, pod_id: String) {
        let (mut away, mut pause) = (None::<Instant>, Duration::from_secs(1));
        while !self.over.is_cancelled() {
            match self.register(&pod_id).await {
                Ok(Some(mut socket)) => {
                    self.registrations.fetch_add(1, Relaxed);
                    self.away.borrow_mut().extend(away.take().map(|since| since.elapsed()));
                    pause = Duration::from_secs(1);
                    // Pings and the close are answered on the way.
                    let closed = async {
                        while let Some(Ok(message)) = socket.next().await {
                            if message.is_close() {
                                away.get_or_insert_with(Instant::now);
                            }
                        }
                    };
                    self.over.run_until_cancelled(closed).await;
                }
                Ok(None) => {}
                Err(why) => self.failed("origin", &why),
            }
            away.get_or_insert_with(Instant::now);
            tokio::select! {
                () = sleep(pause) => pause *= 2,
                () = self.over.cancelled() => {}
            }
        }
    }

    async fn register(&self, pod_id: &str) -> Result<Option<WebSocketStream<Box<dyn Stream>>>, Failure> {
        let Some(mut socket) = self.socket().await? else { return Ok(None) };
        match exchange(&mut socket, &frames::register(pod_id)).await? {
            Some(told) if told == frames::registered(pod_id) => Ok(Some(socket)),
            Some(told) => Err(format!("a registration was answered with {told}")),
            None => Ok(None),
        }
    }
}

fn count(what: &Cell<usize>) {
    what.set(what.get() + 1);
}

fn told<E: Display>(doing: &'static str) -> impl Fn(E) -> Failure {
    move |error| format!("{doing}: {error}")
}

async fn soon<T>(what: impl Future<Output = T>) -> Result<T, Failure> {
    timeout(SOON, what).await.map_err(|_| "nothing came for a long time".into())
}

async fn send(raw: &mut Raw, text: &str) -> Result<(), Failure> {
    raw.try_send_bytes(text.replace('\n', "\r\n").as_bytes()).await.map_err(told("sending"))
}

async fn answer(raw: &mut Raw) -> Result<Answer, Failure> {
    match raw.try_answer().await {
        Some(answer) if answer.status == 200 => Ok(answer),
        Some(answer) => Err(format!("{} {}", answer.status, answer.body)),
        None => Err("the connection was closed without an answer".into()),
    }
}

/// Sends a frame; the one that comes back, or nothing if the socket is closed with 1012.
async fn exchange(
    socket: &mut WebSocketStream<Box<dyn Stream>>,
    frame: &Value,
) -> Result<Option<Value>, Failure> {
    // One that is being closed takes nothing any more; what matters is what came.
    let _ = socket.send(Message::text(frame.to_string())).await;
    loop {
        match soon(socket.next()).await? {
            Some(Ok(Message::Text(text))) => {
                return serde_json::from_str(&text).map(Some).map_err(told("reading"));
            }
            Some(Ok(Message::Close(Some(close)))) if u16::from(close.code) == 1012 => return Ok(None),
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
            other => return Err(format!("a frame was answered with {other:?}")),
        }
    }
}
