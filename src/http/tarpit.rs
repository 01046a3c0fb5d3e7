//! Holds refusals back: who asks in a loop is answered a few times a second, and not as fast as it goes.

use salvo::Request;
use tokio::{sync::Semaphore, time::sleep};

use crate::net::refusals::{Refusals, TARPIT_DELAY};

/// Refusals that are held back at a time over HTTP/1.1: each takes some kilobytes. More are answered at once. Over HTTP/2
/// the streams of a connection bound them.
const TARPIT_SLOTS: usize = 2048;

/// Refusals that are held back.
pub struct Tarpit(Semaphore);

impl Default for Tarpit {
    fn default() -> Self {
        Self(Semaphore::new(TARPIT_SLOTS))
    }
}

impl Tarpit {
    /// Waits before `request` is refused.
    pub async fn hold(&self, request: &Request) {
        if let Some(refusals) = request.extensions().get::<Refusals>() {
            // Counted before the client can reset the stream.
            refusals.add();
            return sleep(TARPIT_DELAY).await;
        }
        if let Ok(_held) = self.0.try_acquire() {
            sleep(TARPIT_DELAY).await;
        }
    }
}
