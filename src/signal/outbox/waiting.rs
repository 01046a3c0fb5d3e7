//! Senders that wait until there is room for a frame.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use super::{Outbox, Share, Ticket, cost};

/// A frame that waits for room in a queue, until it is added or the queue is closed. Dropping it gives it up.
#[derive(Debug)]
pub struct Waiting {
    outbox: Arc<Outbox>,
    pub(super) share: Arc<Share>,
    pub(super) ticket: Ticket,
    pub(super) frame: Option<String>,
}

/// The common budget has no room, and nothing that waits in the queue could make any: the frame may be polled again
/// later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoRoom;

impl Waiting {
    /// Lets a frame that was handed back wait.
    pub fn new(outbox: Arc<Outbox>, share: Arc<Share>, frame: String) -> Self {
        let ticket = outbox.lock().queue.ticket(&share, cost(&frame));
        Self { outbox, share, ticket, frame: Some(frame) }
    }
}

impl Future for Waiting {
    type Output = Result<(), NoRoom>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let outbox = self.outbox.clone();
        outbox.poll_push(cx, &mut self)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.outbox.leave_line(self.ticket);
    }
}
