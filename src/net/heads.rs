//! Memory and time for the heads of HTTP/2 requests.
//!
//! A head of 16 KiB takes a hundred kilobytes once it is decoded, and a client may have one on each of its streams and
//! an unfinished one on each of its connections. Ordinary heads take little and are not counted; all others share a
//! budget, and where it is spent only they are refused. The time that a head may take from its first byte to its last is
//! that of HTTP/1.1: whatever else goes on over the connection ends with it, as nothing else can come meanwhile.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use salvo::http::HeaderMap;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Sleep, sleep},
};

/// Bytes for all heads that are not ordinary.
const TOTAL: usize = 32 * 1024 * 1024;
/// Bytes are counted in units of this many.
const UNIT: usize = 1024;
/// Bytes of an ordinary head that is not decoded yet, and of one that is.
const ORDINARY: usize = 4 * 1024;
const ORDINARY_DECODED: usize = 16 * 1024;
/// Bytes that a field takes beside its name and value, in a map that has just grown.
const FIELD: usize = 208;
/// Bytes that a head may take once a part of it is decoded.
const MAX_DECODED: usize = 128 * 1024;

/// The budget of one broker; clones share it.
#[derive(Clone, Debug)]
pub struct HeadBudget(Arc<Semaphore>);

/// The budget is spent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many large heads of requests are under way; send fewer fields, or try again later")]
pub struct TooManyHeads;

/// Memory for one head, if it is not an ordinary one; dropping it gives it back.
#[derive(Debug, Default)]
pub struct HeadPermit(Option<OwnedSemaphorePermit>);

impl Default for HeadBudget {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(TOTAL / UNIT)))
    }
}

impl HeadBudget {
    /// Counts the head of a request, for as long as the permit lives.
    pub fn admit(&self, headers: &HeaderMap) -> Result<HeadPermit, TooManyHeads> {
        let fields = headers.iter().map(|(name, value)| FIELD + name.as_str().len() + value.len());
        let bytes = fields.sum::<usize>();
        let mut permit = HeadPermit::default();
        if bytes > ORDINARY_DECODED {
            self.reserve(&mut permit, bytes)?;
        }
        Ok(permit)
    }

    /// Lets `permit` be one for `bytes` bytes, if it is not one for as many already.
    fn reserve(&self, permit: &mut HeadPermit, bytes: usize) -> Result<(), TooManyHeads> {
        let held = permit.0.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let more = bytes.div_ceil(UNIT).saturating_sub(held);
        if more == 0 {
            return Ok(());
        }
        let more = self.0.clone().try_acquire_many_owned(more as u32).map_err(|_| TooManyHeads)?;
        match &mut permit.0 {
            Some(permit) => permit.merge(more),
            None => permit.0 = Some(more),
        }
        Ok(())
    }
}

/// What bounds the unfinished head of a connection.
pub struct HeadLimits {
    pub budget: HeadBudget,
    /// How long a head may take from its first byte to its last.
    pub timeout: Duration,
}

/// A connection of HTTP/2 whose unfinished head takes from the budget, and has its time.
pub struct BoundedHeads<S> {
    stream: S,
    frames: Frames,
    limits: Option<HeadLimits>,
    permit: HeadPermit,
    deadline: Deadline,
}

impl<S> BoundedHeads<S> {
    /// Returns `stream`, of which nothing was read yet. Without limits its heads are not bounded until they are whole: where
    /// there is no room or no time for one, all that goes on over the connection ends with it.
    pub fn new(stream: S, limits: Option<HeadLimits>) -> Self {
        Self {
            stream,
            frames: Frames::default(),
            limits,
            permit: HeadPermit::default(),
            deadline: Deadline::default(),
        }
    }
}

/// When the head that is under way must have come, with its number.
#[derive(Default)]
struct Deadline(Option<(u64, Pin<Box<Sleep>>)>);

impl Deadline {
    /// Ready once the head that is under way has taken longer than `timeout`.
    fn poll(&mut self, head: Option<u64>, timeout: Duration, cx: &mut Context<'_>) -> Poll<()> {
        if self.0.as_ref().map(|(timed, _)| *timed) != head {
            self.0 = head.map(|head| (head, Box::pin(sleep(timeout))));
        }
        match &mut self.0 {
            Some((_, sleep)) => sleep.as_mut().poll(cx),
            None => Poll::Pending,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for BoundedHeads<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf)?;
        let Self { frames, limits: Some(limits), permit, deadline, .. } = &mut *self else {
            return read.map(Ok);
        };
        frames.read(&buf.filled()[before..]);
        match frames.unfinished() {
            0 => permit.0 = None,
            bytes => limits.budget.reserve(permit, bytes).map_err(io::Error::other)?,
        }
        if deadline.poll(frames.under_way(), limits.timeout, cx).is_ready() {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "a head took too long")));
        }
        read.map(Ok)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for BoundedHeads<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Follows the frames that a client sends (RFC 9113, section 4.1), as far as heads go.
struct Frames {
    header: [u8; Self::HEADER],
    filled: usize,
    /// Bytes of the frame's payload that are still to come.
    left: usize,
    kind: u8,
    /// Whether the head ends with this frame.
    ends_head: bool,
    /// Whether a part of the head came in an earlier frame, and was decoded.
    is_continued: bool,
    /// Bytes of the head in this frame.
    bytes: usize,
    /// Heads that have begun.
    heads: u64,
}

impl Default for Frames {
    fn default() -> Self {
        // The preface is skipped as a frame of no kind is.
        let (left, kind) = (Self::PREFACE, u8::MAX);
        Self {
            header: [0; Self::HEADER],
            filled: 0,
            left,
            kind,
            ends_head: true,
            is_continued: false,
            bytes: 0,
            heads: 0,
        }
    }
}

impl Frames {
    const PREFACE: usize = 24;
    const HEADER: usize = 9;
    const HEADERS: u8 = 1;
    const CONTINUATION: u8 = 9;
    const END_HEADERS: u8 = 4;

    fn read(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.left > 0 {
                let length = self.left.min(bytes.len());
                self.payload(length);
                bytes = &bytes[length..];
                continue;
            }
            let length = bytes.len().min(Self::HEADER - self.filled);
            self.header[self.filled..self.filled + length].copy_from_slice(&bytes[..length]);
            self.filled += length;
            bytes = &bytes[length..];
            if self.filled == Self::HEADER {
                self.filled = 0;
                self.begin();
            }
        }
    }

    fn begin(&mut self) {
        let [a, b, c, kind, flags, ..] = self.header;
        self.left = u32::from_be_bytes([0, a, b, c]) as usize;
        self.kind = kind;
        self.ends_head = flags & Self::END_HEADERS != 0;
        self.heads += u64::from(kind == Self::HEADERS);
        self.payload(0);
    }

    fn payload(&mut self, length: usize) {
        self.left -= length;
        if !self.is_of_head() {
            return;
        }
        self.bytes += length;
        if self.left == 0 {
            self.bytes = 0;
            self.is_continued = !self.ends_head;
        }
    }

    fn is_of_head(&self) -> bool {
        [Self::HEADERS, Self::CONTINUATION].contains(&self.kind)
    }

    /// Returns the number of the head that has begun and is still to come to its end.
    fn under_way(&self) -> Option<u64> {
        let is_under_way = self.is_continued || self.is_of_head() && self.left > 0;
        is_under_way.then_some(self.heads)
    }

    /// Returns how much memory the head that is under way takes beyond that of an ordinary one.
    fn unfinished(&self) -> usize {
        if self.is_continued { MAX_DECODED } else { self.bytes.saturating_sub(ORDINARY) }
    }
}

#[cfg(test)]
mod tests {
    use salvo::http::{HeaderName, HeaderValue};
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    fn frame(kind: u8, flags: u8, length: usize) -> Vec<u8> {
        let mut frame = (length as u32).to_be_bytes()[1..].to_vec();
        frame.extend([kind, flags, 0, 0, 0, 1]);
        frame.resize(frame.len() + length, b'x');
        frame
    }

    #[test]
    fn unfinished_heads_are_found_however_the_bytes_come() {
        let head = |flags, length| frame(Frames::HEADERS, flags, length);
        let more = |flags, length| frame(Frames::CONTINUATION, flags, length);
        let cut = |mut frame: Vec<u8>| {
            frame.pop();
            frame
        };
        for (frames, unfinished) in [
            (vec![], 0),
            (vec![head(4, 16_000)], 0),
            (vec![head(4, 0)], 0),
            (vec![cut(head(4, ORDINARY))], 0),
            (vec![cut(head(4, 16_000))], 15_999 - ORDINARY),
            (vec![head(0, 1)], MAX_DECODED),
            (vec![head(0, 0)], MAX_DECODED),
            (vec![head(0, 1), more(0, 1)], MAX_DECODED),
            (vec![head(0, 1), cut(more(4, 16_000))], MAX_DECODED),
            (vec![head(0, 1), more(4, 1)], 0),
            (vec![head(0, 1), more(4, 0)], 0),
            // Data and settings, as long as a head.
            (vec![cut(frame(0, 0, 16_000))], 0),
            (vec![frame(4, 0, 0), head(4, 20), cut(head(4, 10_000))], 9_999 - ORDINARY),
        ] {
            let bytes = [vec![b'P'; Frames::PREFACE], frames.concat()].concat();
            for step in [1, 2, 9, 1000, bytes.len()] {
                let mut read = Frames::default();
                bytes.chunks(step).for_each(|bytes| read.read(bytes));
                assert_eq!(read.unfinished(), unfinished, "{} frames, {step} bytes at a time", frames.len());
            }
        }
    }

    const TIMEOUT: Duration = Duration::from_secs(15);

    /// A connection on which the preface has come, and its client's end.
    async fn connection() -> (DuplexStream, BoundedHeads<DuplexStream>) {
        let (mut client, server) = duplex(1 << 20);
        client.write_all(&[b'P'; Frames::PREFACE]).await.unwrap();
        let limits = HeadLimits { budget: HeadBudget::default(), timeout: TIMEOUT };
        (client, BoundedHeads::new(server, Some(limits)))
    }

    /// Sends pieces with a pause after each, and returns how the connection ends once its client has gone.
    async fn send(pieces: &[&[u8]], pause: Duration) -> io::Result<()> {
        let (mut client, mut server) = connection().await;
        let sending = async {
            for piece in pieces {
                client.write_all(piece).await.unwrap();
                sleep(pause).await;
            }
            drop(client);
            std::future::pending().await
        };
        let mut buffer = [0; 64];
        let reading = async {
            while server.read(&mut buffer).await? > 0 {}
            Ok(())
        };
        tokio::select! {
            () = sending => unreachable!(),
            ended = reading => ended,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn each_head_has_its_time_and_what_is_none_has_no_end() {
        let head = |flags, length| frame(Frames::HEADERS, flags, length);
        let more = |flags, length| frame(Frames::CONTINUATION, flags, length);
        let (whole, begun, end) = (head(4, 100), head(0, 100), more(4, 100));
        let half = TIMEOUT * 3 / 5;
        // Two heads that come in the same piece and are not one.
        let (next, data) = ([&whole[50..], &whole[..50]].concat(), frame(0, 0, 100));
        for (pieces, pause, is_in_time) in [
            (&[&whole[..50], &whole[50..]][..], half, true),
            (&[&whole[..50], &next, &next, &next, &whole[50..]], half, true),
            (&[&begun, &end, &begun, &end], half, true),
            (&[&whole, &whole], TIMEOUT * 9, true),
            (&[&data[..50], &data[50..]], TIMEOUT * 9, true),
            (&[&begun, &end[..50], &end[50..]], half, false),
            (&[&whole[..50], &whole[50..99], &whole[99..]], half, false),
            (&[&whole[..50], &next[..50], &next[50..], &whole[50..]], half, false),
            (&[&begun], TIMEOUT * 9, false),
            (&[&begun, &end[..5]], TIMEOUT * 9, false),
            (&[&whole[..10]], TIMEOUT * 9, false),
            (&[&whole[..109]], TIMEOUT * 9, true),
            (&[&next[59..]], TIMEOUT * 9, false),
        ] {
            let ended = send(pieces, pause).await.map_err(|error| error.kind());
            let expected = if is_in_time { Ok(()) } else { Err(io::ErrorKind::TimedOut) };
            assert_eq!(ended, expected, "{:?}", pieces.iter().map(|piece| piece.len()).collect::<Vec<_>>());
        }
    }

    #[test]
    fn ordinary_heads_are_admitted_when_the_budget_is_spent() {
        let head = |fields: usize| {
            let field = |n| (HeaderName::try_from(format!("x{n}")).unwrap(), HeaderValue::from_static("v"));
            (0..fields).map(field).collect::<HeaderMap>()
        };
        let budget = HeadBudget::default();
        let mut held: Vec<_> = (0..1000).map_while(|_| budget.admit(&head(400)).ok()).collect();
        assert!(held.len() > 300 && held.len() < 1000, "{}", held.len());
        assert!(budget.admit(&head(60)).is_ok());
        held.pop();
        assert!(budget.admit(&head(400)).is_ok());
        drop(held);
        assert_eq!(budget.0.available_permits(), TOTAL / UNIT);
    }
}
