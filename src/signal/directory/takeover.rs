//! How a takeover is decided.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep_until};

use super::Directory;
use crate::signal::ids::PodId;

/// A holder has at least this time to answer, whatever `takeover_timeout` is.
const SHORTEST_TIMEOUT: Duration = Duration::from_millis(50);

/// A takeover that has just begun.
#[derive(Debug)]
pub struct Takeover {
    pub(in crate::signal) directory: Arc<Directory>,
    pub(in crate::signal) pod: PodId,
    pub(in crate::signal) number: u64,
}

impl Takeover {
    /// Pings the holder several times in each `patience`, and replaces it once it leaves a ping unanswered for that time, as
    /// long as anybody waits.
    pub async fn decide(self, patience: Duration) {
        while let Some(next) = self.check_holder(Instant::now(), patience) {
            sleep_until(next).await;
        }
    }

    /// Looks at the holder. Returns when to look again, or `None` if the takeover is over.
    pub fn check_holder(&self, now: Instant, patience: Duration) -> Option<Instant> {
        self.directory.check_holder(&self.pod, self.number, now, patience.max(SHORTEST_TIMEOUT))
    }
}

#[cfg(test)]
mod properties;
