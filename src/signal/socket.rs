//! One connection's life: its frames go to the directory, its outbox goes to the wire, silence ends it.

use std::{future::poll_fn, pin::pin, sync::Arc, task::Poll, time::Duration};

use futures_util::{SinkExt, StreamExt};
use tokio::{
    io::{self, AsyncRead, AsyncWrite, AsyncWriteExt},
    time::{Instant, sleep_until, timeout},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Error, Message,
        protocol::{CloseFrame, WebSocketConfig, frame::coding::CloseCode},
    },
};
use tokio_util::sync::CancellationToken;

use super::{
    directory::{Directory, Place},
    outbox::{Budget, Close, Outbox},
};
use crate::config::SignalSettings;

/// How long a peer has to take the last frames and to answer the close frame.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);
/// Frames are gathered up to this many bytes before they are written.
const WRITE_BATCH: usize = 32 * 1024;
/// What is read at a time. Every socket keeps a buffer of this size, so that it decides what an idle origin costs.
const READ_BUFFER: usize = 2 * 1024;
/// Pings that a peer may leave without an answer.
const MAX_UNANSWERED: u32 = 2;

/// The WebSocket limits that follow from the settings.
pub fn websocket_config(limits: &SignalSettings) -> WebSocketConfig {
    let max_frame = Some(limits.max_frame.as_u64() as usize);
    WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(WRITE_BATCH)
        .max_frame_size(max_frame)
        .max_message_size(max_frame)
}

/// What all sockets share.
#[derive(Clone, Debug)]
pub struct Hub {
    /// Who holds which pod id and session.
    pub directory: Arc<Directory>,
    /// Bytes that may wait in all outboxes together.
    pub budget: Arc<Budget>,
    /// Cancelled when the broker stops.
    pub stop: CancellationToken,
}

/// Serves a socket from after the upgrade until it is closed.
pub async fn serve<S>(socket: WebSocketStream<S>, hub: Hub)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let limits = hub.directory.limits();
    let outbox = Arc::new(Outbox::new(limits.max_queue.as_u64() as usize, hub.budget.clone()));
    let place = hub.directory.join(outbox.clone());
    let mut connection =
        Connection { socket, outbox, place, silence: Silence::new(&limits), pace: Pace::new(&limits) };
    let ended = connection.run(&hub.stop).await;
    let Connection { socket, outbox, place, .. } = connection;
    drop(place);
    match ended {
        Ended::ByBroker(close) => close_with(socket, &outbox, close).await,
        Ended::ByPeer => {}
    }
}

struct Connection<S> {
    socket: WebSocketStream<S>,
    outbox: Arc<Outbox>,
    place: Place,
    silence: Silence,
    pace: Pace,
}

/// Why a connection is over.
enum Ended {
    /// The peer closed it, or it broke.
    ByPeer,
    /// The broker closes it.
    ByBroker(Close),
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    async fn run(&mut self, stop: &CancellationToken) -> Ended {
        let ended = loop {
            let step = tokio::select! {
                biased;
                () = stop.cancelled() => Err(Ended::ByBroker(Close::RESTART)),
                next = poll_fn(|cx| self.outbox.poll_next(cx)) => match next {
                    Ok(frame) => self.send(frame).await,
                    Err(close) => Err(Ended::ByBroker(close)),
                },
                () = sleep_until(self.silence.deadline) => self.silent().await,
                message = self.pace.paced(self.socket.next()) => self.receive(message),
            };
            if let Err(ended) = step {
                break ended;
            }
        };
        if let Ended::ByBroker(close) = &ended {
            tracing::debug!(code = close.code, reason = close.reason, "socket closed");
        }
        ended
    }

    fn receive(&mut self, message: Option<Result<Message, Error>>) -> Result<(), Ended> {
        self.silence.heard();
        match message {
            Some(Ok(Message::Text(text))) => self.place.handle(text.as_bytes()),
            Some(Ok(Message::Binary(bytes))) => self.place.handle(&bytes),
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_) | Message::Close(_))) => {
                return Ok(());
            }
            Some(Err(error)) => return Err(ended_by(&error)),
            None => return Err(Ended::ByPeer),
        }
        self.silence.spoke();
        Ok(())
    }

    /// Writes `frame` and what waits behind it. A peer that takes nothing until its outbox overflows is given up.
    async fn send(&mut self, frame: String) -> Result<(), Ended> {
        let mut next = Some(frame);
        let outbox = self.outbox.clone();
        let write = async {
            let mut batch = 0;
            while let Some(frame) = next.take() {
                batch += frame.len();
                self.socket.feed(Message::text(frame)).await?;
                next = if batch < WRITE_BATCH { self.outbox.try_next() } else { None };
            }
            self.socket.flush().await
        };
        let mut write = pin!(timeout(self.silence.patience(), write));
        let written = poll_fn(|cx| match write.as_mut().poll(cx) {
            Poll::Ready(written) => Poll::Ready(Some(written)),
            Poll::Pending => outbox.poll_overflowed(cx).map(|()| None),
        });
        match written.await {
            Some(Ok(Ok(()))) => Ok(()),
            Some(Ok(Err(error))) => Err(ended_by(&error)),
            Some(Err(_)) => Err(Ended::ByPeer),
            None => Err(Ended::ByBroker(Close::TOO_SLOW)),
        }
    }

    /// Nothing came for a while: asks whether the peer is there, or gives it up.
    async fn silent(&mut self) -> Result<(), Ended> {
        match self.silence.step() {
            Step::Ping => {
                let ping =
                    timeout(self.silence.patience(), self.socket.send(Message::Ping(Default::default())));
                match ping.await {
                    Ok(Ok(())) => Ok(()),
                    Ok(Err(_)) | Err(_) => Err(Ended::ByPeer),
                }
            }
            Step::NeverSpoke => Err(Ended::ByBroker(Close::SILENT)),
            Step::Gone => {
                tracing::debug!("peer is gone");
                Err(Ended::ByPeer)
            }
        }
    }
}

/// What a failed read or write means for the connection.
fn ended_by(error: &Error) -> Ended {
    match error {
        Error::Capacity(_) => Ended::ByBroker(Close::TOO_BIG),
        Error::Utf8(_) => Ended::ByBroker(Close::NOT_UTF8),
        Error::Io(error) if error.kind() != io::ErrorKind::InvalidData => Ended::ByPeer,
        Error::ConnectionClosed | Error::AlreadyClosed => Ended::ByPeer,
        _ => Ended::ByBroker(Close::PROTOCOL),
    }
}

/// Sends what still waits and the close frame, then waits for the peer to close, all within [`CLOSE_TIMEOUT`].
async fn close_with<S>(mut socket: WebSocketStream<S>, outbox: &Outbox, close: Close)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let frame = CloseFrame { code: CloseCode::from(close.code), reason: close.reason.into() };
    let closing = async {
        while let Some(frame) = outbox.try_next() {
            socket.feed(Message::text(frame)).await?;
        }
        socket.close(Some(frame)).await?;
        let mut answered = false;
        while let Some(Ok(message)) = socket.next().await {
            answered |= message.is_close();
        }
        if !answered {
            discard(socket.get_mut()).await?;
        }
        Ok::<(), Error>(())
    };
    // A peer that does not take part in the closing is cut off.
    let _ = timeout(CLOSE_TIMEOUT, closing).await;
}

/// Reads on where the bytes are no frames any more, until the peer closes. A connection that is closed over unread
/// bytes is reset, and the close frame may be lost with it.
async fn discard<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) -> io::Result<()> {
    stream.shutdown().await?;
    io::copy(stream, &mut io::sink()).await?;
    Ok(())
}

/// When a peer was last heard of, and what its silence leads to.
struct Silence {
    deadline: Instant,
    ping_interval: Duration,
    /// Until when the first frame must have come; nothing once it has.
    first_frame: Option<Instant>,
    unanswered: u32,
}

enum Step {
    Ping,
    NeverSpoke,
    Gone,
}

impl Silence {
    fn new(limits: &SignalSettings) -> Self {
        let first_frame = Instant::now() + limits.first_frame_timeout;
        Self {
            deadline: first_frame,
            ping_interval: limits.ping_interval,
            first_frame: Some(first_frame),
            unanswered: 0,
        }
    }

    /// Anything at all came, be it a pong.
    fn heard(&mut self) {
        self.unanswered = 0;
        self.deadline = self.first_frame.unwrap_or_else(|| Instant::now() + self.ping_interval);
    }

    /// A frame came.
    fn spoke(&mut self) {
        if self.first_frame.take().is_some() {
            self.heard();
        }
    }

    fn step(&mut self) -> Step {
        if self.first_frame.is_some() {
            return Step::NeverSpoke;
        }
        if self.unanswered == MAX_UNANSWERED {
            return Step::Gone;
        }
        self.unanswered += 1;
        self.deadline = Instant::now() + self.ping_interval / 2;
        Step::Ping
    }

    /// How long one write may take.
    fn patience(&self) -> Duration {
        self.ping_interval
    }
}

/// How fast frames are read: `frames_per_second`, with bursts of twice as many.
struct Pace {
    interval: Duration,
    burst: Duration,
    /// When the frames read so far will have been paid for.
    paid: Instant,
}

impl Pace {
    fn new(limits: &SignalSettings) -> Self {
        let interval = Duration::from_secs(1) / limits.frames_per_second;
        Self { interval, burst: Duration::from_secs(2), paid: Instant::now() }
    }

    /// Reads the next frame when it is its turn. Cancel safe if `read` is.
    async fn paced<T>(&mut self, read: impl Future<Output = T>) -> T {
        let now = Instant::now();
        self.paid = self.paid.max(now);
        if self.paid > now + self.burst {
            sleep_until(self.paid - self.burst).await;
        }
        let read = read.await;
        self.paid += self.interval;
        read
    }
}
