//! One connection's life: its frames go to the directory, its outbox goes to the wire, silence ends it.

use std::{
    collections::VecDeque,
    future::{pending, poll_fn},
    net::IpAddr,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::Poll,
    time::Duration,
};

use bytes::Bytes;
use futures_util::{FutureExt, SinkExt, StreamExt};
use tokio::{
    io::{self, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    task::JoinHandle,
    time::{Instant, Sleep, sleep, sleep_until, timeout},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Error, Message,
        protocol::{
            CloseFrame, Role, WebSocketConfig,
            frame::{
                Frame,
                coding::{CloseCode, Data, OpCode},
            },
        },
    },
};

use super::{
    admission::Admission,
    close::Close,
    directory::{
        Directory,
        handled::{Admitted, Handled, Passing},
        member::Member,
        place::Place,
    },
    outbox::{Next, Outbox},
    read_budget::ReadBudget,
    registration::register,
    wire,
    write_stall::{Taken, WriteStallTimeout},
};
use crate::{
    config::SignalSettings,
    net::{
        budget::Budget,
        read_throttle::ReadThrottle,
        small_frames::{ThrottledFrames, WebSocketFrames},
        throttle::ClientThrottles,
    },
};

/// How long a peer has to take the last frames and to answer the close frame.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);
/// The same while the broker stops: among many peers some are always gone, and the next broker waits for this one.
const RESTART_TIMEOUT: Duration = Duration::from_secs(1);
/// Frames are gathered up to this many bytes before they are written.
const WRITE_BATCH: usize = 16 * 1024;
/// Bytes of a fragment. Every socket keeps a buffer for one beside [`WRITE_BATCH`].
const MAX_FRAGMENT: usize = 4 * 1024;
/// What the WebSocket takes from the [`ReadBudget`] at a time. Every socket keeps a buffer of at least this size.
const READ_BUFFER: usize = 512;
/// Bytes that are read, and thrown away, from a peer that sends on after it was told to close.
const MAX_DISCARDED: u64 = 32 << 20;
/// Frames that are read at most while none is handled; the [`ReadBudget`] bounds their bytes.
const MAX_AHEAD: usize = 16;
/// How long a visitor is read no further after an offer over the rate of its network: one that offers in a loop does not
/// keep the broker busy.
const REFUSAL_DELAY: Duration = Duration::from_millis(250);
/// Pings that a peer may leave without an answer.
const MAX_UNANSWERED: u32 = 2;

/// What all sockets share.
#[derive(Clone, Debug)]
pub struct Hub {
    /// Who holds which pod id and session.
    pub directory: Arc<Directory>,
    /// Bytes that may wait in all outboxes together.
    pub budget: Arc<Budget>,
    /// Bytes of unfinished frames that all sockets together may send.
    pub read_budget: Arc<Budget>,
    /// How fast the sockets of each network are read.
    pub throttles: Arc<ClientThrottles>,
}

/// Closes an open socket from outside of its task.
#[derive(Clone, Debug)]
pub struct SocketHandle(Member);

impl SocketHandle {
    /// Returns a handle of the socket in this place.
    pub fn of(place: &Place) -> Self {
        Self(Member::clone(place))
    }

    /// Sends an error frame, then closes the socket, which loses all that it holds at once.
    pub fn close(&self, sentence: &str, close: Close) {
        self.0.expel(sentence, close);
    }
}

/// The WebSocket over a stream whose reads and writes are watched.
type Stream<S> = WebSocketStream<ReadBudget<WriteStallTimeout<ThrottledFrames<S, WebSocketFrames>>>>;

/// Serves a connection of a client in `network` from after the upgrade until it is closed; `admission` decides what it
/// may register, and `opened` is given the handle of the socket.
pub async fn serve<S>(
    stream: S,
    hub: Hub,
    admission: Arc<dyn Admission>,
    network: Option<IpAddr>,
    opened: impl FnOnce(SocketHandle),
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    // In boxes, so that the beginning and the end are no part of each open socket's state.
    let mut connection = Box::pin(Connection::open(stream, hub, admission, network)).await;
    opened(SocketHandle::of(&connection.place));
    let ended = connection.run().await;
    Box::pin(connection.finish(ended)).await;
}

/// Tells a client in `network` right after the upgrade why it is not served, and closes.
pub async fn refuse<S>(stream: S, hub: &Hub, network: Option<IpAddr>, sentence: &str, close: Close)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (socket, outbox) = open(stream, hub, network, &hub.directory.limits()).await;
    outbox.tell(wire::error(None, sentence));
    outbox.close(close.clone());
    close_with(socket, &outbox, close, false).await;
}

async fn open<S>(
    stream: S,
    hub: &Hub,
    network: Option<IpAddr>,
    limits: &SignalSettings,
) -> (Stream<S>, Arc<Outbox>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let max_frame = limits.max_frame.as_u64() as usize;
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(WRITE_BATCH)
        .max_frame_size(Some(max_frame))
        .max_message_size(Some(max_frame));
    let stream = ThrottledFrames::new(stream, Some(throttle(hub, network, limits)));
    let write_stall = WriteStallTimeout::new(stream, limits.ping_interval);
    let read_budget = ReadBudget::new(write_stall, max_frame, hub.read_budget.of(network));
    let outbox = Arc::new(Outbox::new(limits.max_queue.as_u64() as usize, hub.budget.of(network)));
    (WebSocketStream::from_raw_socket(read_budget, Role::Server, Some(config)).await, outbox)
}

/// Returns the pace of a socket.
fn throttle(hub: &Hub, network: Option<IpAddr>, limits: &SignalSettings) -> ReadThrottle {
    let of_client = limits.frames_per_second_per_address();
    ReadThrottle::new(&hub.throttles, network, limits.frames_per_second, of_client)
}

struct Connection<S> {
    socket: Stream<S>,
    outbox: Arc<Outbox>,
    place: Place,
    admission: Arc<dyn Admission>,
    taken: Taken,
    takeover_timeout: Duration,
    silence: Keepalive,
    /// Goes off when `silence` is due, or before: its deadline moves with every frame, the alarm need not.
    alarm: Pin<Box<Sleep>>,
    throttle: ReadThrottle,
    /// How long a frame waits for room in the queue of its receiver.
    max_pause: Duration,
    /// Waits for that room, or after a refusal; the frames that follow are not handled meanwhile.
    pause: Option<Pause>,
    /// Registers a pod id; the frames that follow are not handled meanwhile, and those for the peer are held back.
    registering: Option<Registering>,
    /// Whether some fragments of a text were written, and others were not.
    is_mid_text: Arc<AtomicBool>,
    /// Frames that were read while none was to be handled.
    ahead: VecDeque<Message>,
}

/// Ends when the frame that waits has been passed on, or with its session id if it is to be given up.
type Pause = Pin<Box<dyn Future<Output = Result<(), Box<str>>> + Send>>;

/// Ends when a registration was recorded or refused. In a task of its own, as a socket that is being written to does not
/// poll it, and it stands in line for the registry with those of others.
type Registering = JoinHandle<()>;

/// Why a connection is over.
enum Ended {
    /// The peer closed it, or it broke.
    ByPeer,
    /// The broker closes it.
    ByBroker(Close),
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    async fn open(stream: S, hub: Hub, admission: Arc<dyn Admission>, network: Option<IpAddr>) -> Self {
        let limits = hub.directory.limits();
        let (socket, outbox) = open(stream, &hub, network, &limits).await;
        let silence = Keepalive::new(&limits);
        Self {
            taken: socket.get_ref().inner().taken(),
            place: hub.directory.join(outbox.clone(), network),
            socket,
            outbox,
            admission,
            takeover_timeout: limits.takeover_timeout,
            alarm: Box::pin(sleep_until(silence.deadline)),
            silence,
            throttle: throttle(&hub, network, &limits),
            max_pause: limits.ping_interval,
            pause: None,
            registering: None,
            is_mid_text: Arc::default(),
            ahead: VecDeque::new(),
        }
    }

    /// Leaves and closes. A registration that is being recorded may not be stopped halfway.
    async fn finish(self, ended: Ended) {
        let Self { socket, outbox, place, pause, registering, is_mid_text, .. } = self;
        // A frame that waits in another's queue is given up with it.
        drop(pause);
        drop(place);
        let close = async {
            match ended {
                Ended::ByPeer => outbox.discard(Close::ENDED),
                Ended::ByBroker(close) => {
                    match close {
                        Close::TOO_SLOW => outbox.discard(close.clone()),
                        _ => outbox.close(close.clone()),
                    }
                    close_with(socket, &outbox, close, is_mid_text.load(Relaxed)).await;
                }
            }
        };
        let record = async {
            if let Some(registering) = registering {
                let _ = registering.await;
            }
        };
        tokio::join!(close, record);
    }

    async fn run(&mut self) -> Ended {
        let ended = loop {
            let is_registering = self.registering.is_some();
            let is_paused = is_registering || self.pause.is_some() || self.outbox.owes_too_much();
            self.socket.get_mut().pause(is_paused);
            if !is_paused && let Some(frame) = self.ahead.pop_front() {
                self.socket.get_mut().control(frame.len());
                self.handle(&frame.into_data());
                continue;
            }
            // In no fixed order, so that a peer that is sent much is heard nevertheless.
            let step = tokio::select! {
                next = poll_fn(|cx| match is_registering {
                    // A client is told that it holds a pod id once that is recorded.
                    true => self.outbox.poll_ping(cx),
                    false => self.outbox.poll_next(cx),
                }) => match next {
                    Ok(Next::Frame(frame)) => self.send(frame).await,
                    Ok(Next::Ping) => self.ping().await,
                    Err(close) => Err(Ended::ByBroker(close)),
                },
                () = &mut self.alarm => self.alarmed().await,
                message = self.throttle.paced(self.socket.next()), if self.ahead.len() < MAX_AHEAD => {
                    self.receive(message, is_paused).await
                }
                passed = end_of(&mut self.pause) => {
                    self.resume(passed);
                    Ok(())
                }
                _ = end_of(&mut self.registering) => {
                    self.registering = None;
                    Ok(())
                }
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

    /// Handles what was read, or keeps a frame that is not to be handled yet.
    async fn receive(
        &mut self,
        message: Option<Result<Message, Error>>,
        is_paused: bool,
    ) -> Result<(), Ended> {
        self.silence.heard();
        if !self.outbox.credit().spend() {
            self.throttle.count(1);
        }
        let read_budget = self.socket.get_mut();
        match &message {
            Some(Ok(Message::Text(_) | Message::Binary(_))) if is_paused => {}
            Some(Ok(Message::Text(_) | Message::Binary(_))) => read_budget.complete(),
            Some(Ok(Message::Ping(payload) | Message::Pong(payload))) => read_budget.control(payload.len()),
            _ => {}
        }
        // A peer that says goodbye does not keep its pod id.
        let is_there = matches!(&message, Some(Ok(message)) if !message.is_close());
        if is_there && self.outbox.take_asked() {
            self.place.is_there();
        }
        match message {
            Some(Ok(frame @ (Message::Text(_) | Message::Binary(_)))) if is_paused => {
                self.ahead.push_back(frame);
            }
            Some(Ok(Message::Text(text))) => self.handle(text.as_bytes()),
            Some(Ok(Message::Binary(bytes))) => self.handle(&bytes),
            // A peer that takes no pongs is not read from.
            Some(Ok(Message::Ping(_))) => return self.write(async |socket| socket.flush().await).await,
            Some(Ok(Message::Pong(_) | Message::Frame(_) | Message::Close(_))) => return Ok(()),
            Some(Err(error)) => return Err(ended_by(&error)),
            None => return Err(Ended::ByPeer),
        }
        if self.silence.spoke() {
            self.alarm.as_mut().reset(self.silence.deadline);
        }
        Ok(())
    }

    fn handle(&mut self, frame: &[u8]) {
        match self.place.handle(frame, &*self.admission) {
            Handled::Done => {}
            Handled::Registers(registration) => {
                let (member, admission) = (Member::clone(&self.place), self.admission.clone());
                let takeover_timeout = self.takeover_timeout;
                let mut registering = Box::pin(async move {
                    let admitted = register(&member, &*admission, registration).await;
                    if let Admitted::TakesOver(takeover) = admitted {
                        tokio::spawn(takeover.decide(takeover_timeout));
                    }
                });
                // What has to wait for nothing needs no task, and is done before the next frame of anybody.
                if registering.as_mut().now_or_never().is_none() {
                    self.registering = Some(tokio::spawn(registering));
                }
            }
            Handled::Waits(Passing { waiting, session_id }) => {
                let passed = waiting.pass(self.max_pause);
                self.pause = Some(Box::pin(async move { passed.await.then_some(()).ok_or(session_id) }));
            }
            Handled::TooMany => {
                self.pause = Some(Box::pin(async {
                    sleep(REFUSAL_DELAY).await;
                    Ok(())
                }));
            }
        }
    }

    /// Reads on after a pause.
    fn resume(&mut self, passed: Result<(), Box<str>>) {
        self.pause = None;
        if let Err(session_id) = passed {
            self.place.give_up(&session_id);
        }
    }

    async fn ping(&mut self) -> Result<(), Ended> {
        self.outbox.credit().grant_frame();
        self.write(async |socket| socket.send(Message::Ping(Default::default())).await).await
    }

    /// Writes `frame` and what waits behind it.
    async fn send(&mut self, frame: String) -> Result<(), Ended> {
        let (outbox, is_mid_text) = (self.outbox.clone(), self.is_mid_text.clone());
        let write = async |socket: &mut Stream<S>| {
            let (mut next, mut batch) = (Some(frame), 0);
            while let Some(frame) = next.take() {
                batch += frame.len();
                feed(socket, frame, &is_mid_text).await?;
                next = if batch < WRITE_BATCH { outbox.try_next() } else { None };
            }
            socket.flush().await
        };
        self.write(write).await
    }

    /// Waits for a write, which fails if the peer takes nothing for too long, unless the broker stops meanwhile. A peer
    /// that takes some of it is there: its pongs are not read meanwhile.
    async fn write(
        &mut self,
        write: impl AsyncFnOnce(&mut Stream<S>) -> Result<(), Error>,
    ) -> Result<(), Ended> {
        let Self { socket, outbox, place, silence, taken, .. } = self;
        let mut write = pin!(write(socket));
        poll_fn(|cx| {
            let written = write.as_mut().poll(cx);
            if taken.take() {
                silence.heard();
                if outbox.take_asked() {
                    place.is_there();
                }
            }
            match written {
                Poll::Ready(written) => Poll::Ready(written.map_err(|error| ended_by(&error))),
                Poll::Pending => outbox.poll_hurried(cx).map(|close| Err(Ended::ByBroker(close))),
            }
        })
        .await
    }

    /// Nothing came for a while: asks whether the peer is there, or gives it up.
    async fn alarmed(&mut self) -> Result<(), Ended> {
        if self.silence.is_due() {
            match self.silence.step() {
                Step::Ping => self.ping().await?,
                Step::NeverSpoke => return Err(Ended::ByBroker(Close::SILENT)),
                Step::Gone => {
                    tracing::debug!("peer is gone");
                    return Err(Ended::ByPeer);
                }
            }
        }
        self.alarm.as_mut().reset(self.silence.deadline);
        Ok(())
    }
}

/// Writes a text in pieces (RFC 6455, section 5.4): the buffer that it passes through stays with the socket.
async fn feed<S: AsyncRead + AsyncWrite + Unpin>(
    socket: &mut Stream<S>,
    text: String,
    is_mid_text: &AtomicBool,
) -> Result<(), Error> {
    if text.len() <= MAX_FRAGMENT {
        return socket.feed(Message::text(text)).await;
    }
    let (mut rest, mut data) = (Bytes::from(text), Data::Text);
    while !rest.is_empty() {
        let piece = rest.split_to(rest.len().min(MAX_FRAGMENT));
        let fragment = Frame::message(piece, OpCode::Data(data), rest.is_empty());
        is_mid_text.store(true, Relaxed);
        socket.feed(Message::Frame(fragment)).await?;
        data = Data::Continue;
    }
    is_mid_text.store(false, Relaxed);
    Ok(())
}

/// Waits for the end of something that may go on; for ever if nothing does.
async fn end_of<F: Future + Unpin>(under_way: &mut Option<F>) -> F::Output {
    match under_way {
        Some(under_way) => under_way.await,
        None => pending().await,
    }
}

/// What a failed read or write means for the connection.
fn ended_by(error: &Error) -> Ended {
    match error {
        Error::Capacity(_) => Ended::ByBroker(Close::TOO_BIG),
        Error::Utf8(_) => Ended::ByBroker(Close::NOT_UTF8),
        Error::Io(error) if error.kind() == io::ErrorKind::FileTooLarge => Ended::ByBroker(Close::TOO_BIG),
        Error::Io(error) if error.kind() == io::ErrorKind::QuotaExceeded => {
            Ended::ByBroker(Close::UNFINISHED)
        }
        Error::Io(error) if error.kind() == io::ErrorKind::TimedOut => Ended::ByBroker(Close::TOO_SLOW),
        Error::Io(_) => Ended::ByPeer,
        Error::ConnectionClosed | Error::AlreadyClosed => Ended::ByPeer,
        _ => Ended::ByBroker(Close::PROTOCOL),
    }
}

/// Sends what still waits, unless a text is written in part, and the close frame, then waits for the peer to close, all within a bounded time.
async fn close_with<S>(mut socket: Stream<S>, outbox: &Outbox, close: Close, is_mid_text: bool)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let limit = if close == Close::RESTART { RESTART_TIMEOUT } else { CLOSE_TIMEOUT };
    let frame = CloseFrame { code: CloseCode::from(close.code), reason: close.reason.into() };
    let closing = async {
        socket.get_mut().pause(false);
        while let Some(frame) = outbox.try_next().filter(|_| !is_mid_text) {
            feed(&mut socket, frame, &AtomicBool::default()).await?;
        }
        socket.close(Some(frame)).await?;
        let mut answered = false;
        while let Some(Ok(message)) = socket.next().await {
            answered |= message.is_close();
        }
        if !answered {
            discard(socket.get_mut().stream()).await?;
        }
        Ok::<(), Error>(())
    };
    // A peer that does not take part in the closing is cut off.
    let _ = timeout(limit, closing).await;
}

/// Reads on where the bytes are no frames any more, until the peer closes. A connection that is closed over unread
/// bytes is reset, and the close frame may be lost with it.
async fn discard<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) -> io::Result<()> {
    stream.shutdown().await?;
    io::copy(&mut stream.take(MAX_DISCARDED), &mut io::sink()).await?;
    Ok(())
}

/// When a peer was last heard of, and what its silence leads to.
struct Keepalive {
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

impl Keepalive {
    fn new(limits: &SignalSettings) -> Self {
        let first_frame = Instant::now() + limits.bounds.first_frame_timeout;
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

    /// A frame came; whether it was the first, with which the deadline may come nearer.
    fn spoke(&mut self) -> bool {
        let is_first = self.first_frame.take().is_some();
        if is_first {
            self.heard();
        }
        is_first
    }

    fn is_due(&self) -> bool {
        self.deadline <= Instant::now()
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
}

#[cfg(test)]
mod tests;
