//! What waits to be sent to one socket: bounded in bytes, for each session, for the socket and for all sockets together.
//!
//! The sender pays. A frame for which there is no room is handed back, and its sender waits or is told; nothing that
//! others send closes a socket whose peer reads.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
};

use super::{
    close::Close,
    queue::{Queue, Share, cost},
    reply_credit::ReplyCredit,
};
use crate::net::budget::ClientBudget;

mod line;
pub mod waiting;

use self::line::Line;

/// So much of every queue is outside of the common budget: those who spend the budget shut nobody out who reads.
const FREE: usize = 8 * 1024;
/// Bytes of the broker's own frames, all of them answers to what the peer sent, over which nothing more is read from
/// it.
const MAX_OWN: usize = 4 * 1024;
/// Frames in the line that wait for the common budget and are passed by others.
const MAX_PASSED: usize = 64;

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

/// What there is not enough of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lack {
    /// Room in the queue, or in the session's share of it.
    Queue,
    /// Room in the common budget.
    Budget,
}

/// The outgoing queue of one socket.
#[derive(Debug)]
pub struct Outbox {
    inner: Mutex<Inner>,
    /// Somebody wants to know whether the peer is there, and does not know yet.
    asked: AtomicBool,
    /// Bytes of the broker's own frames that wait.
    own: AtomicUsize,
    credit: ReplyCredit,
    budget: ClientBudget,
    limit: usize,
}

#[derive(Debug, Default)]
struct Inner {
    queue: Queue,
    line: Line,
    /// What waits here, and what was handed out to be written.
    bytes: usize,
    /// Handed out, and perhaps not written yet.
    leaving: usize,
    ping: bool,
    close: Option<Close>,
    /// What is being written is not worth waiting for any more.
    is_hurried: bool,
    waker: Option<Waker>,
}

impl Outbox {
    /// An empty queue that holds at most `limit` bytes.
    pub fn new(limit: usize, budget: ClientBudget) -> Self {
        let (asked, own) = (AtomicBool::new(false), AtomicUsize::new(0));
        Self { inner: Mutex::default(), asked, own, credit: ReplyCredit::default(), budget, limit }
    }

    /// Adds a frame of a session.
    pub fn push(&self, share: &Arc<Share>, frame: String) -> Pushed {
        let mut inner = self.lock();
        if inner.close.is_some() {
            return Pushed::Closed;
        }
        let ticket = inner.queue.ticket(share, cost(&frame));
        if !inner.line.is_next(ticket) || self.take_room(&mut inner, share, cost(&frame)).is_err() {
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
        self.add_own(&mut inner, frame);
        Self::wake(inner);
    }

    fn add_own(&self, inner: &mut Inner, frame: String) {
        let bytes = inner.bytes + cost(&frame);
        self.budget.take_anyway(beyond_free(bytes) - beyond_free(inner.bytes));
        inner.bytes = bytes;
        inner.queue.add_own(frame);
        self.own.store(inner.queue.own(), Ordering::Relaxed);
    }

    /// Returns whether the peer has to take some of the broker's own frames before it is read from again.
    pub fn owes_too_much(&self) -> bool {
        self.own.load(Ordering::Relaxed) > MAX_OWN
    }

    /// Returns what the peer may send in reply to what was put here for it.
    pub fn credit(&self) -> &ReplyCredit {
        &self.credit
    }

    /// Asks for the socket to be closed after what waits was sent. The first reason stays.
    pub fn close(&self, close: Close) {
        let mut inner = self.lock();
        inner.is_hurried |= close == Close::RESTART;
        inner.close.get_or_insert(close);
        Self::wake_all(inner);
    }

    /// Returns whether the socket is being closed.
    pub fn is_closing(&self) -> bool {
        self.lock().close.is_some()
    }

    /// Closes and forgets what waits: it will not be sent.
    pub fn discard(&self, close: Close) {
        let mut inner = self.lock();
        self.clear(&mut inner);
        inner.close.get_or_insert(close);
        Self::wake_all(inner);
    }

    /// Closes, and forgets what waits, as the peer has no right to it any more: it is sent nothing but `told`, and what is
    /// being written is not waited for. The first reason stays.
    pub fn expel(&self, close: Close, told: Option<String>) {
        let mut inner = self.lock();
        self.clear(&mut inner);
        if let Some(frame) = told.filter(|_| inner.close.is_none()) {
            self.add_own(&mut inner, frame);
        }
        inner.is_hurried = true;
        inner.close.get_or_insert(close);
        Self::wake_all(inner);
    }

    fn clear(&self, inner: &mut Inner) {
        inner.queue.clear();
        let left = inner.leaving;
        self.shrink(inner, left);
        self.own.store(inner.queue.own(), Ordering::Relaxed);
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
        let woken = self.advance(&mut inner);
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
        drop(inner);
        woken.into_iter().for_each(Waker::wake);
        next
    }

    /// The same while frames are held back: only pings, and the end.
    pub fn poll_ping(&self, cx: &mut Context<'_>) -> Poll<Result<Next, Close>> {
        let mut inner = self.lock();
        match inner.close.clone() {
            Some(close) => Poll::Ready(Err(close)),
            None if std::mem::take(&mut inner.ping) => Poll::Ready(Ok(Next::Ping)),
            None => inner.wait(cx),
        }
    }

    /// The next frame if one waits, to be written together with those before.
    pub fn try_next(&self) -> Option<String> {
        self.pop(&mut self.lock())
    }

    /// Ready once what is being written to the socket is not worth waiting for any more: the broker stops, or the peer was
    /// expelled.
    pub fn poll_hurried(&self, cx: &mut Context<'_>) -> Poll<Close> {
        let mut inner = self.lock();
        match inner.close.clone().filter(|_| inner.is_hurried) {
            Some(close) => Poll::Ready(close),
            None => inner.wait(cx),
        }
    }

    /// Moves frames from the line into the queue as far as there is room. Returns whom to wake once the queue is free.
    fn advance(&self, inner: &mut Inner) -> Vec<Waker> {
        let (mut woken, mut passed) = (Vec::new(), 0);
        while let Some((ticket, share, cost)) = inner.line.nth(passed) {
            match self.take_room(inner, &share, cost) {
                Ok(()) => {
                    let (frame, waker) = inner.line.remove(ticket).expect("it was found under the same lock");
                    inner.queue.add(ticket, share, frame);
                    woken.extend(waker);
                }
                // Those behind it may be small enough for what every queue has for itself.
                Err(Lack::Budget) if passed < MAX_PASSED => passed += 1,
                Err(_) => break,
            }
        }
        if inner.bytes == 0 {
            // Nothing in this queue will make room for them: they look again now and then.
            woken.extend(inner.line.take_wakers());
        }
        woken
    }

    /// Takes room for a frame. A session may have as much waiting as there is room left, so that one more session
    /// always finds some.
    fn take_room(&self, inner: &mut Inner, share: &Share, cost: usize) -> Result<(), Lack> {
        let room = self.limit.saturating_sub(inner.bytes);
        if share.queued() + cost > room {
            return Err(Lack::Queue);
        }
        let (held, then) = (beyond_free(inner.bytes), beyond_free(inner.bytes + cost));
        if !self.budget.take(then - held, held) {
            return Err(Lack::Budget);
        }
        inner.bytes += cost;
        Ok(())
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

    /// Gives up what waits for room, and wakes its senders and the socket's task.
    fn wake_all(mut inner: MutexGuard<'_, Inner>) {
        let woken = std::mem::take(&mut inner.line).take_wakers();
        Self::wake(inner);
        woken.into_iter().for_each(Waker::wake);
    }

    /// Returns how many frames wait for room.
    #[cfg(test)]
    pub fn frames_in_line(&self) -> usize {
        self.lock().line.len()
    }

    /// Returns how many bytes those take.
    #[cfg(test)]
    pub fn bytes_in_line(&self) -> usize {
        self.lock().line.bytes()
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
