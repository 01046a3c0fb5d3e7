//! What waits to be sent to one socket: bounded in bytes, for the socket and for all sockets together.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
};

/// Bookkeeping for one waiting frame beside its text.
const FRAME_OVERHEAD: usize = 64;
/// So much of every queue is outside of the common budget: those who spend the budget shut nobody out who reads.
const FREE: usize = 8 * 1024;

/// Why the broker closes a socket: the code and the reason of the close frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Close {
    /// The close code (RFC 6455, section 7.4; 4000 and above are GemmaPod's own).
    pub code: u16,
    /// The reason, for people.
    pub reason: &'static str,
}

impl Close {
    /// Another socket registered the pod id.
    pub const REPLACED: Self = Self { code: 4001, reason: "replaced by new origin" };
    /// The pod id that was registered has a holder, which is there.
    pub const HELD: Self = Self { code: 4003, reason: "pod id is held" };
    /// The registration was refused; an error frame said why.
    pub const REGISTRATION_REFUSED: Self = Self { code: 1008, reason: "registration refused" };
    /// The credential of the socket is wrong, or was revoked; an error frame said so.
    pub const CREDENTIAL_REFUSED: Self = Self { code: 1008, reason: "credential refused" };
    /// Nothing came after the upgrade.
    pub const SILENT: Self = Self { code: 1008, reason: "no frame arrived in time" };
    /// A frame or message was larger than the limit.
    pub const TOO_BIG: Self = Self { code: 1009, reason: "frame too big" };
    /// A text message was not UTF-8.
    pub const NOT_UTF8: Self = Self { code: 1007, reason: "text is not UTF-8" };
    /// The bytes were not WebSocket.
    pub const PROTOCOL: Self = Self { code: 1002, reason: "protocol error" };
    /// The broker stops or restarts.
    pub const RESTART: Self = Self { code: 1012, reason: "service restart" };
    /// All sockets together have sent too much that makes no whole frame yet.
    pub const UNFINISHED: Self = Self { code: 1013, reason: "too many unfinished frames" };
    /// The peer does not read what it is sent.
    pub const TOO_SLOW: Self = Self { code: 1013, reason: "too many unread frames" };
}

/// Bytes that wait in all outboxes together.
#[derive(Debug)]
pub struct Budget {
    used: AtomicUsize,
    limit: AtomicUsize,
}

impl Budget {
    /// A budget of `limit` bytes.
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { used: AtomicUsize::new(0), limit: AtomicUsize::new(limit) })
    }

    /// Allows another number of bytes from now on.
    pub fn set_limit(&self, limit: usize) {
        self.limit.store(limit, Ordering::Relaxed);
    }

    /// Takes `bytes` if that many are left.
    pub fn take(&self, bytes: usize) -> bool {
        let limit = self.limit.load(Ordering::Relaxed);
        let fits = |used: usize| used.checked_add(bytes).filter(|sum| *sum <= limit);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok()
    }

    /// Gives back what was taken.
    pub fn give_back(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// What a socket is to send next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// A frame.
    Frame(String),
    /// A ping: somebody wants to know whether the peer is there.
    Ping,
}

/// What happened to a frame that was pushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Pushed {
    /// It waits to be sent.
    Queued,
    /// The socket is being closed already: the frame is dropped.
    Closed,
    /// This frame was one too many: the socket is closed with 1013 and all that waited is dropped.
    Overflowed,
}

/// The outgoing queue of one socket.
#[derive(Debug)]
pub struct Outbox {
    inner: Mutex<Inner>,
    /// Somebody wants to know whether the peer is there, and does not know yet.
    asked: AtomicBool,
    budget: Arc<Budget>,
    limit: usize,
}

#[derive(Debug, Default)]
struct Inner {
    frames: VecDeque<String>,
    /// What waits here, and what was handed out to be written.
    bytes: usize,
    /// Handed out, and perhaps not written yet.
    leaving: usize,
    ping: bool,
    close: Option<Close>,
    waker: Option<Waker>,
}

impl Outbox {
    /// An empty queue that holds at most `limit` bytes.
    pub fn new(limit: usize, budget: Arc<Budget>) -> Self {
        Self { inner: Mutex::default(), asked: AtomicBool::new(false), budget, limit }
    }

    /// Adds a frame behind those that wait.
    pub fn push(&self, frame: String) -> Pushed {
        let mut inner = self.lock();
        if inner.close.is_some() {
            return Pushed::Closed;
        }
        let cost = frame.len() + FRAME_OVERHEAD;
        let bytes = inner.bytes + cost;
        if bytes > self.limit || !self.budget.take(beyond_free(bytes) - beyond_free(inner.bytes)) {
            self.clear(&mut inner);
            inner.close = Some(Close::TOO_SLOW);
            Self::wake(inner);
            return Pushed::Overflowed;
        }
        inner.bytes = bytes;
        inner.frames.push_back(frame);
        Self::wake(inner);
        Pushed::Queued
    }

    /// Asks for the socket to be closed after what waits was sent. The first reason stays.
    pub fn close(&self, close: Close) {
        let mut inner = self.lock();
        if inner.close.is_none() {
            inner.close = Some(close);
            Self::wake(inner);
        }
    }

    /// Has the peer pinged, ahead of what waits. Once it is heard of, [`Outbox::take_asked`] says so.
    pub fn ask(&self) {
        self.asked.store(true, Ordering::Relaxed);
        let mut inner = self.lock();
        inner.ping = true;
        Self::wake(inner);
    }

    /// Whether somebody asked since this was called last.
    pub fn take_asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed) && self.asked.swap(false, Ordering::Relaxed)
    }

    /// What to send next, or why there will be nothing any more. What was handed out before has been written.
    pub fn poll_next(&self, cx: &mut Context<'_>) -> Poll<Result<Next, Close>> {
        let mut inner = self.lock();
        let left = inner.bytes - std::mem::take(&mut inner.leaving);
        self.shrink(&mut inner, left);
        if inner.close.is_none() && std::mem::take(&mut inner.ping) {
            return Poll::Ready(Ok(Next::Ping));
        }
        if let Some(frame) = Self::pop(&mut inner) {
            return Poll::Ready(Ok(Next::Frame(frame)));
        }
        match &inner.close {
            Some(close) => Poll::Ready(Err(close.clone())),
            None => inner.wait(cx),
        }
    }

    /// The next frame if one waits, to be written together with those before.
    pub fn try_next(&self) -> Option<String> {
        Self::pop(&mut self.lock())
    }

    /// Ready once what is being written to the socket is not worth waiting for any more: the queue overflowed, the
    /// broker stops, or the credential was revoked.
    pub fn poll_hurried(&self, cx: &mut Context<'_>) -> Poll<Close> {
        let mut inner = self.lock();
        match &inner.close {
            Some(close) if [Close::TOO_SLOW, Close::RESTART, Close::CREDENTIAL_REFUSED].contains(close) => {
                Poll::Ready(close.clone())
            }
            _ => inner.wait(cx),
        }
    }

    fn pop(inner: &mut Inner) -> Option<String> {
        let frame = inner.frames.pop_front()?;
        inner.leaving += frame.len() + FRAME_OVERHEAD;
        if inner.frames.is_empty() {
            inner.frames = VecDeque::new();
        }
        Some(frame)
    }

    /// Forgets what waits; what was handed out counts until the socket ends.
    fn clear(&self, inner: &mut Inner) {
        let left = inner.leaving;
        self.shrink(inner, left);
        inner.frames = VecDeque::new();
    }

    fn shrink(&self, inner: &mut Inner, bytes: usize) {
        self.budget.give_back(beyond_free(inner.bytes) - beyond_free(bytes));
        inner.bytes = bytes;
    }

    /// Wakes the socket's task once the queue is free for it.
    fn wake(mut inner: MutexGuard<'_, Inner>) {
        let waker = inner.waker.take();
        drop(inner);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Remembers whom to wake.
    fn wait<T>(&mut self, cx: &Context<'_>) -> Poll<T> {
        match &mut self.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            None => self.waker = Some(cx.waker().clone()),
        }
        Poll::Pending
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        self.shrink(&mut self.lock(), 0);
    }
}

/// What `bytes` of one queue take of the common budget.
fn beyond_free(bytes: usize) -> usize {
    bytes.saturating_sub(FREE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_that_overflows_forgets_all_and_closes_with_1013() {
        let budget = Budget::new(10_000);
        let outbox = Outbox::new(1000, budget.clone());
        assert_eq!(outbox.push("x".repeat(900)), Pushed::Queued);
        assert_eq!(outbox.push("x".repeat(100)), Pushed::Overflowed);
        assert_eq!(outbox.push("x".into()), Pushed::Closed);
        assert_eq!(outbox.try_next(), None);
        let mut cx = Context::from_waker(Waker::noop());
        assert_eq!(outbox.poll_next(&mut cx), Poll::Ready(Err(Close::TOO_SLOW)));
        assert_eq!(budget.used.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn the_common_budget_bounds_all_queues_together() {
        let budget = Budget::new(1000);
        let [hoarder, another, reader] = [(); 3].map(|()| Outbox::new(2 * FREE, budget.clone()));
        assert_eq!(hoarder.push("x".repeat(FREE + 800)), Pushed::Queued);
        assert_eq!(another.push("x".repeat(FREE + 800)), Pushed::Overflowed);
        assert_eq!(reader.push("x".repeat(FREE - FRAME_OVERHEAD)), Pushed::Queued);
        drop(hoarder);
        assert_eq!(budget.used.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn what_is_being_written_counts_until_the_next_is_asked_for() {
        let outbox = Outbox::new(1000, Budget::new(1000));
        let mut cx = Context::from_waker(Waker::noop());
        assert_eq!(outbox.push("x".repeat(500)), Pushed::Queued);
        assert!(outbox.poll_next(&mut cx).is_ready());
        assert!(outbox.poll_next(&mut cx).is_pending());
        assert_eq!(outbox.push("x".repeat(500)), Pushed::Queued);
        assert!(outbox.poll_next(&mut cx).is_ready());
        assert_eq!(outbox.push("x".repeat(500)), Pushed::Overflowed);
    }

    #[test]
    fn a_ping_goes_ahead_and_is_asked_for_once() {
        let outbox = Outbox::new(1000, Budget::new(1000));
        let mut cx = Context::from_waker(Waker::noop());
        assert_eq!(outbox.push("a".into()), Pushed::Queued);
        assert!(!outbox.take_asked());
        outbox.ask();
        outbox.ask();
        assert_eq!(outbox.poll_next(&mut cx), Poll::Ready(Ok(Next::Ping)));
        assert_eq!(outbox.poll_next(&mut cx), Poll::Ready(Ok(Next::Frame("a".into()))));
        assert_eq!(outbox.poll_next(&mut cx), Poll::Pending);
        assert!(outbox.take_asked());
        assert!(!outbox.take_asked());
    }

    #[test]
    fn what_waits_is_sent_before_the_close() {
        let outbox = Outbox::new(1000, Budget::new(1000));
        assert_eq!(outbox.push("a".into()), Pushed::Queued);
        outbox.close(Close::REPLACED);
        outbox.close(Close::RESTART);
        let mut cx = Context::from_waker(Waker::noop());
        assert_eq!(outbox.poll_next(&mut cx), Poll::Ready(Ok(Next::Frame("a".into()))));
        assert_eq!(outbox.poll_next(&mut cx), Poll::Ready(Err(Close::REPLACED)));
    }
}
