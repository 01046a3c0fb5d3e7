//! The latest time at which anything was accepted that is accepted once, as the registry keeps it across restarts.
//!
//! A process does not know what former ones accepted, and its clock may be behind theirs. So nothing is accepted before
//! the registry has kept a time by which later processes refuse it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use tokio::sync::Mutex;
use tokio_util::task::AbortOnDropHandle;

use super::time::{Utc, seconds};
use crate::pods::{Registry, RegistryError};

/// How far a clock may be set back without a word: those who keep time set it by seconds.
const UNTOLD: u64 = 10;

/// The latest time that was kept; clones are the same one.
#[derive(Clone)]
pub struct AcceptanceTime(Arc<State>);

struct State {
    registry: Arc<dyn Registry>,
    /// In seconds since 1970.
    kept: AtomicU64,
    writing: Mutex<()>,
}

impl AcceptanceTime {
    /// Reads the time that former processes left in `registry`.
    pub fn new(registry: Arc<dyn Registry>) -> Self {
        let kept = AtomicU64::new(seconds(registry.acceptance_time()));
        Self(Arc::new(State { registry, kept, writing: Mutex::default() }))
    }

    /// Returns the latest time that was kept, in seconds since 1970.
    pub fn seconds(&self) -> u64 {
        self.0.kept.load(Ordering::Acquire)
    }

    /// Logs that the clock is behind, or was ahead, if so.
    pub fn warn_if_ahead(&self, now: SystemTime) {
        let (now, kept) = (seconds(now), self.seconds());
        if kept > now.saturating_add(UNTOLD) {
            let (now, kept) = (Utc(now), Utc(kept));
            tracing::warn!(
                "the clock shows {now}, but signed requests were accepted at {kept}: none is accepted until then, and \
                 no one-time token. Set the clock; if it is right now, stop the broker and its sockets, run \
                 `gemmapod-signal reset-clock` with the broker's --config or --data-dir, and start it again"
            );
        }
    }

    /// Returns once `until` or a later time is kept. If none is yet, keeps `now`, which must not be before it.
    ///
    /// # Errors
    ///
    /// Returns an error if the registry fails.
    pub async fn cover(&self, until: u64, now: u64) -> Result<(), RegistryError> {
        if until <= self.seconds() {
            return Ok(());
        }
        let this = self.clone();
        // In a task of its own: a caller may not be polled for as long as its client likes.
        let keeping = AbortOnDropHandle::new(tokio::spawn(async move { this.keep(until, now).await }));
        keeping.await.map_err(RegistryError::failed)?
    }

    async fn keep(&self, until: u64, now: u64) -> Result<(), RegistryError> {
        let _turn = self.0.writing.lock().await;
        if until > self.seconds() {
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(now);
            self.0.registry.keep_acceptance_time(time).await?;
            self.0.kept.store(now, Ordering::Release);
        }
        Ok(())
    }
}

impl std::fmt::Debug for AcceptanceTime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("AcceptanceTime").field(&Utc(self.seconds())).finish()
    }
}
