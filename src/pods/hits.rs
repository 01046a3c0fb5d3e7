//! Counts downloads in memory, so that a GET never waits for a disk, and hands them to the registry in batches.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use tokio::sync::{RwLock, RwLockReadGuard};
use tokio_util::sync::CancellationToken;

use super::{Registry, Slug};

/// How often hits are written.
const FLUSH_INTERVAL: Duration = Duration::from_secs(1);

/// Hits that are not in the registry yet.
#[derive(Debug, Default)]
pub struct HitCounter {
    pending: Mutex<Pending>,
    /// Held for writing while hits pass into the registry.
    passing: RwLock<()>,
}

#[derive(Debug, Default)]
struct Pending {
    counted: HashMap<Slug, u64>,
    /// Those that are being written: they count until the registry has them.
    writing: HashMap<Slug, u64>,
}

impl HitCounter {
    /// Counts one hit.
    pub fn count(&self, slug: Slug) {
        *self.lock().counted.entry(slug).or_default() += 1;
    }

    /// While this is held, no hits pass from here into the registry: a record that is read and the hits that are pending
    /// make a sum in which none counts twice.
    pub async fn steady(&self) -> RwLockReadGuard<'_, ()> {
        self.passing.read().await
    }

    /// The hits of a pod that the registry does not know of yet.
    pub fn pending(&self, slug: &Slug) -> u64 {
        let pending = self.lock();
        let of = |hits: &HashMap<Slug, u64>| hits.get(slug).copied().unwrap_or_default();
        of(&pending.counted) + of(&pending.writing)
    }

    /// Writes hits to `registry` about once a second until `stop`, and once more then.
    pub async fn run(&self, registry: &dyn Registry, stop: &CancellationToken) {
        let mut ticks = tokio::time::interval(FLUSH_INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => self.flush(registry).await,
                () = stop.cancelled() => return self.flush(registry).await,
            }
        }
    }

    async fn flush(&self, registry: &dyn Registry) {
        let _passing = self.passing.write().await;
        let batch: Vec<_> = {
            let mut pending = self.lock();
            pending.writing = std::mem::take(&mut pending.counted);
            pending.writing.iter().map(|(slug, hits)| (*slug, *hits)).collect()
        };
        if batch.is_empty() {
            return;
        }
        let written = registry.bump_hits(&batch, SystemTime::now()).await;
        let mut pending = self.lock();
        let writing = std::mem::take(&mut pending.writing);
        if let Err(error) = written {
            tracing::warn!(%error, "hits were not written; they are tried again");
            for (slug, hits) in writing {
                *pending.counted.entry(slug).or_default() += hits;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
