//! Connections on which nothing was sent yet.
//!
//! Browsers open connections ahead of need, and a stop must not wait for those. One that was opened just now is most
//! likely about to be used, though, and a browser does not repeat a WebSocket's request on another connection.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::Instant;
use tokio_util::{
    sync::{CancellationToken, WaitForCancellationFutureOwned},
    task::{TaskTracker, task_tracker::TaskTrackerToken},
};

/// How long after it was opened a connection is expected to be used, on a busy machine too.
const ABOUT_TO_SPEAK: Duration = Duration::from_secs(2);

/// All silent connections of a broker; clones are of the same ones.
#[derive(Clone, Debug, Default)]
pub struct SilentConnections {
    open: TaskTracker,
    last: Arc<Mutex<Option<Instant>>>,
    give_up: CancellationToken,
}

/// One silent connection; dropped when something came.
pub struct Silent {
    _counted: TaskTrackerToken,
    given_up: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl Silent {
    /// Ready once the connection is given up.
    pub fn poll_given_up(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.given_up.as_mut().poll(cx)
    }
}

impl SilentConnections {
    /// Counts a connection that was opened just now.
    pub fn enter(&self) -> Silent {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        Silent { _counted: self.open.token(), given_up: Box::pin(self.give_up.clone().cancelled_owned()) }
    }

    /// Whether one of them may be about to be used.
    pub fn may_speak(&self) -> bool {
        let last = *self.last.lock().unwrap_or_else(PoisonError::into_inner);
        !self.open.is_empty() && last.is_some_and(|last| last.elapsed() < ABOUT_TO_SPEAK)
    }

    /// Closes all of them, and those that still come.
    pub fn give_up(&self) {
        self.give_up.cancel();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_connection_may_speak_for_two_seconds_unless_it_did() {
        let silent = SilentConnections::default();
        assert!(!silent.may_speak());
        let one = silent.enter();
        assert!(silent.may_speak());
        drop(one);
        assert!(!silent.may_speak());
        let _two = silent.enter();
        tokio::time::advance(ABOUT_TO_SPEAK).await;
        assert!(!silent.may_speak());
    }
}
