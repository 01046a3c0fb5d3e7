//! Frames that wait until there is room for them. They wait in the queue's own line, so that the queue takes them without
//! the help of their senders.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use tokio::time::{sleep, timeout};

use super::{
    super::queue::{Share, Ticket, cost},
    Outbox,
    line::Parked,
};

/// How often a frame that waits for other queues to shrink tries again.
pub(super) const RETRY: Duration = Duration::from_millis(100);

/// A frame that waits for room in a queue, until it is added or the queue is closed. Dropping it gives it up.
#[derive(Debug)]
pub struct Waiting {
    outbox: Arc<Outbox>,
    ticket: Ticket,
}

/// The common budget has no room, and nothing in the queue could make any: the frame may be polled again later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoRoom;

impl Waiting {
    /// Lets a frame that was handed back wait.
    pub fn new(outbox: Arc<Outbox>, share: Arc<Share>, frame: String) -> Self {
        let mut inner = outbox.lock();
        let ticket = inner.queue.ticket(&share, cost(&frame));
        if inner.close.is_none() {
            inner.queue.reserve(ticket, &share);
            inner.line.0.insert(ticket, Parked { share, frame, waker: None });
        }
        drop(inner);
        let waiting = Self { outbox, ticket };
        // There may be room by now.
        waiting.advance();
        waiting
    }

    /// Waits for room for at most `limit`, then gives the frame up. Returns `false` if the frame was given up.
    pub async fn pass(mut self, limit: Duration) -> bool {
        let passed = timeout(limit, async {
            // Other queues have spent the common budget; when they give some of it back is not told.
            while let Err(NoRoom) = (&mut self).await {
                sleep(RETRY).await;
            }
        });
        // It may have been added to the queue since it was looked at last.
        passed.await.is_ok() || !self.give_up()
    }

    /// Returns whether the frame still waited.
    fn give_up(&self) -> bool {
        let waited = self.outbox.lock().line.remove(self.ticket).is_some();
        if waited {
            self.advance();
        }
        waited
    }

    /// Has the line move on, as far as there is room.
    fn advance(&self) {
        let mut inner = self.outbox.lock();
        let mut woken = self.outbox.advance(&mut inner);
        woken.extend(inner.waker.take());
        drop(inner);
        woken.into_iter().for_each(Waker::wake);
    }
}

impl Future for Waiting {
    type Output = Result<(), NoRoom>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.advance();
        let mut inner = self.outbox.lock();
        let is_empty = inner.bytes == 0;
        match inner.line.0.get_mut(&self.ticket) {
            None => Poll::Ready(Ok(())),
            Some(_) if is_empty => Poll::Ready(Err(NoRoom)),
            Some(parked) => {
                parked.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.give_up();
    }
}
