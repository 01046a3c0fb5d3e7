//! How often the client of one HTTP/2 connection was refused for asking too often.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use tokio_util::sync::CancellationToken;

/// Refusals after which a connection is closed. Each is held back, so a client that waits for its answers takes seconds
/// to get there with all its streams; one that resets them does not wait.
const MOST: u32 = 256;

/// Counts the refusals of a connection; clones are of the same one.
#[derive(Clone, Default)]
pub struct Refusals {
    count: Arc<AtomicU32>,
    too_many: CancellationToken,
}

impl Refusals {
    /// Counts one more.
    pub fn add(&self) {
        if self.count.fetch_add(1, Ordering::Relaxed) + 1 == MOST {
            self.too_many.cancel();
        }
    }

    /// Returns once there were too many.
    pub async fn too_many(&self) {
        self.too_many.cancelled().await;
    }
}
