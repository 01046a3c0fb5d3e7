//! Holds refusals back: who asks in a loop is answered a few times a second, and not as fast as it goes.

use salvo::Request;
use tokio::{sync::Semaphore, time::sleep};

use crate::net::refusals::{HOLD, Refusals};

/// Refusals that are held back at a time over HTTP/1.1: each takes some kilobytes. More are answered at once. Over HTTP/2
/// the streams of a connection bound them.
const MAX_HELD: usize = 2048;

/// Refusals that are held back.
pub struct RefusalDelay(Semaphore);

impl Default for RefusalDelay {
    fn default() -> Self {
        Self(Semaphore::new(MAX_HELD))
    }
}

impl RefusalDelay {
    /// Waits before `request` is refused.
    pub async fn hold(&self, request: &Request) {
        if let Some(refusals) = request.extensions().get::<Refusals>() {
            // Counted before the client can reset the stream.
            refusals.add();
            return sleep(HOLD).await;
        }
        if let Ok(_held) = self.0.try_acquire() {
            sleep(HOLD).await;
        }
    }
}
