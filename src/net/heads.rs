//! Memory for the heads of HTTP/2 requests.
//!
//! A head of 16 KiB takes a hundred kilobytes once it is decoded, and a client may have one on each of its streams and
//! an unfinished one on each of its connections. Ordinary heads take little and are not counted; all others share a
//! budget, and where it is spent only they are refused.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use salvo::http::HeaderMap;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::{OwnedSemaphorePermit, Semaphore},
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

/// A connection of HTTP/2 whose unfinished head takes from the budget.
pub struct CountedHeads<S> {
    stream: S,
    frames: Frames,
    budget: Option<HeadBudget>,
    permit: HeadPermit,
}

impl<S> CountedHeads<S> {
    /// Returns `stream`, of which nothing was read yet. Without a budget its heads are not counted until they are whole:
    /// where there is no room for one, all that goes on over the connection ends with it.
    pub fn new(stream: S, budget: Option<HeadBudget>) -> Self {
        Self { stream, frames: Frames::default(), budget, permit: HeadPermit::default() }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for CountedHeads<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        let Self { frames, budget: Some(budget), permit, .. } = &mut *self else {
            return Poll::Ready(Ok(()));
        };
        frames.read(&buf.filled()[before..]);
        match frames.unfinished() {
            0 => permit.0 = None,
            bytes => budget.reserve(permit, bytes).map_err(io::Error::other)?,
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for CountedHeads<S> {
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
        self.payload(0);
    }

    fn payload(&mut self, length: usize) {
        self.left -= length;
        if ![Self::HEADERS, Self::CONTINUATION].contains(&self.kind) {
            return;
        }
        self.bytes += length;
        if self.left == 0 {
            self.bytes = 0;
            self.is_continued = !self.ends_head;
        }
    }

    /// Returns how much memory the head that is under way takes beyond that of an ordinary one.
    fn unfinished(&self) -> usize {
        if self.is_continued { MAX_DECODED } else { self.bytes.saturating_sub(ORDINARY) }
    }
}

#[cfg(test)]
mod tests {
    use salvo::http::{HeaderName, HeaderValue};

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

    #[test]
    fn ordinary_heads_are_admitted_when_the_budget_is_spent() {
        let head = |fields: usize| {
            let field = |n| (HeaderName::try_from(format!("x{n}")).unwrap(), HeaderValue::from_static("v"));
            (0..fields).map(field).collect::<HeaderMap>()
        };
        let budget = HeadBudget::default();
        let mut held = Vec::new();
        while let Ok(permit) = budget.admit(&head(400)) {
            held.push(permit);
        }
        assert!(held.len() > 300, "{}", held.len());
        assert!(budget.admit(&head(60)).is_ok());
        held.pop();
        assert!(budget.admit(&head(400)).is_ok());
        drop(held);
        assert_eq!(budget.0.available_permits(), TOTAL / UNIT);
    }
}
