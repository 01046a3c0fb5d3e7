//! What waits to be sent to one socket: bounded in bytes, for each session, for the socket and for all sockets together.
//!
//! The sender pays. A frame for which there is no room is handed back, and its sender waits or is told; nothing that
//! others send closes a socket whose peer reads.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
};

use super::{
    budget::Budget,
    close::Close,
    queue::{Queue, Share, Ticket, cost},
};

mod waiting;

pub use self::waiting::{NoRoom, Waiting};

/// So much of every queue is outside of the common budget: those who spend the budget shut nobody out who reads.
const FREE: usize = 8 * 1024;
/// Bytes of the broker's own frames, all of them answers to what the peer sent, over which nothing more is read from
/// it.
const MAX_OWN: usize = 4 * 1024;

/// What a socket is to send next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// A frame.
    Frame(String),
    /// A ping: somebody wants to know whether the peer is there.
    Ping,
}

/// What happened to a frame that was pushed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Pushed {
    /// It waits to be sent.
    Queued,
    /// The socket is being closed already: the frame is dropped.
    Closed,
    /// There is no room for it now, or others came first.
    Full(String),
}

/// The outgoing queue of one socket.
#[derive(Debug)]
pub struct Outbox {
    inner: Mutex<Inner>,
    /// Somebody wants to know whether the peer is there, and does not know yet.
    asked: AtomicBool,
    /// Bytes of the broker's own frames that wait.
    own: AtomicUsize,
    budget: Arc<Budget>,
    limit: usize,
}

#[derive(Debug, Default)]
struct Inner {
    queue: Queue,
    /// Senders that wait for room, the first of them first.
    line: BTreeMap<Ticket, Waker>,
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
        let (asked, own) = (AtomicBool::new(false), AtomicUsize::new(0));
        Self { inner: Mutex::default(), asked, own, budget, limit }
    }

    /// Adds a frame of a session.
    pub fn push(&self, share: &Arc<Share>, frame: String) -> Pushed {
        let mut inner = self.lock();
        if inner.close.is_some() {
            return Pushed::Closed;
        }
        let ticket = inner.queue.ticket(share, cost(&frame));
        if !inner.is_next(ticket) || !self.has_taken(&mut inner, share, cost(&frame)) {
            return Pushed::Full(frame);
        }
        inner.queue.add(ticket, share.clone(), frame);
        Self::wake(inner);
        Pushed::Queued
    }

    /// Adds a frame of the broker's own, whatever waits. Nothing is read from a peer to which too much is owed, so
    /// that it cannot cause any number of them.
    pub fn tell(&self, frame: String) {
        let mut inner = self.lock();
        if inner.close.is_some() {
            return;
        }
        let bytes = inner.bytes + cost(&frame);
        self.budget.take_anyway(beyond_free(bytes) - beyond_free(inner.bytes));
        inner.bytes = bytes;
        inner.queue.add_own(frame);
        self.own.store(inner.queue.own(), Ordering::Relaxed);
        Self::wake(inner);
    }

    /// Returns whether the peer has to take some of the broker's own frames before it is read from again.
    pub fn owes_too_much(&self) -> bool {
        self.own.load(Ordering::Relaxed) > MAX_OWN
    }

    /// Asks for the socket to be closed after what waits was sent. The first reason stays.
    pub fn close(&self, close: Close) {
        let mut inner = self.lock();
        if inner.close.is_none() {
            inner.close = Some(close);
            Self::wake_all(inner);
        }
    }

    /// Returns whether the socket is being closed.
    pub fn is_closing(&self) -> bool {
        self.lock().close.is_some()
    }

    /// Closes and forgets what waits: it will not be sent.
    pub fn discard(&self, close: Close) {
        let mut inner = self.lock();
        inner.queue.clear();
        let left = inner.leaving;
        self.shrink(&mut inner, left);
        inner.close.get_or_insert(close);
        Self::wake_all(inner);
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
        let next = if inner.close.is_none() && std::mem::take(&mut inner.ping) {
            Poll::Ready(Ok(Next::Ping))
        } else if let Some(frame) = self.pop(&mut inner) {
            Poll::Ready(Ok(Next::Frame(frame)))
        } else {
            match &inner.close {
                Some(close) => Poll::Ready(Err(close.clone())),
                None => inner.wait(cx),
            }
        };
        Self::wake_first(inner);
        next
    }

    /// The next frame if one waits, to be written together with those before.
    pub fn try_next(&self) -> Option<String> {
        self.pop(&mut self.lock())
    }

    /// Ready once what is being written to the socket is not worth waiting for any more: the broker stops, or the
    /// credential was revoked.
    pub fn poll_hurried(&self, cx: &mut Context<'_>) -> Poll<Close> {
        let mut inner = self.lock();
        match &inner.close {
            Some(close) if [Close::RESTART, Close::CREDENTIAL_REFUSED].contains(close) => {
                Poll::Ready(close.clone())
            }
            _ => inner.wait(cx),
        }
    }

    /// Adds a frame that was handed back as soon as there is room for it and nobody before it waits. Fails if nothing
    /// that waits here could make room.
    fn poll_push(&self, cx: &Context<'_>, waiting: &mut Waiting) -> Poll<Result<(), NoRoom>> {
        let mut inner = self.lock();
        let Waiting { share, ticket, frame, .. } = waiting;
        let Some(cost) = frame.as_deref().map(cost).filter(|_| inner.close.is_none()) else {
            return Poll::Ready(Ok(()));
        };
        let is_next = inner.is_next(*ticket);
        let delivered = match is_next && self.has_taken(&mut inner, share, cost) {
            true => Ok(()),
            false if is_next && inner.bytes == 0 => Err(NoRoom),
            false => {
                inner.line.insert(*ticket, cx.waker().clone());
                return Poll::Pending;
            }
        };
        inner.line.remove(ticket);
        if let Some(frame) = frame.take_if(|_| delivered.is_ok()) {
            inner.queue.add(*ticket, share.clone(), frame);
            if let Some(waker) = inner.waker.take() {
                waker.wake();
            }
        }
        Self::wake_first(inner);
        Poll::Ready(delivered)
    }

    fn leave_line(&self, ticket: Ticket) {
        let mut inner = self.lock();
        if inner.line.remove(&ticket).is_some() {
            Self::wake_first(inner);
        }
    }

    /// Takes room for a frame. A session may have as much waiting as there is room left, so that one more session
    /// always finds some.
    fn has_taken(&self, inner: &mut Inner, share: &Share, cost: usize) -> bool {
        let room = self.limit.saturating_sub(inner.bytes);
        let (held, then) = (beyond_free(inner.bytes), beyond_free(inner.bytes + cost));
        let has_taken = share.queued() + cost <= room && self.budget.take_fairly(then - held, held);
        if has_taken {
            inner.bytes += cost;
        }
        has_taken
    }

    fn pop(&self, inner: &mut Inner) -> Option<String> {
        let frame = inner.queue.pop()?;
        inner.leaving += cost(&frame);
        self.own.store(inner.queue.own(), Ordering::Relaxed);
        Some(frame)
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

    /// Wakes the first of those who wait for room, if any does.
    fn wake_first(inner: MutexGuard<'_, Inner>) {
        let first = inner.line.first_key_value().map(|(_, waker)| waker.clone());
        drop(inner);
        if let Some(waker) = first {
            waker.wake();
        }
    }

    /// Wakes all who wait for room, and the socket's task.
    fn wake_all(mut inner: MutexGuard<'_, Inner>) {
        let line = std::mem::take(&mut inner.line);
        Self::wake(inner);
        line.into_values().for_each(Waker::wake);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Returns whether nobody waits who comes before `ticket`.
    fn is_next(&self, ticket: Ticket) -> bool {
        self.line.first_key_value().is_none_or(|(first, _)| *first >= ticket)
    }

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
        let mut inner = self.lock();
        inner.queue.clear();
        self.shrink(&mut inner, 0);
    }
}

/// What `bytes` of one queue take of the common budget.
fn beyond_free(bytes: usize) -> usize {
    bytes.saturating_sub(FREE)
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
