//! Counts downloads in memory, so that a GET never waits for a disk, and hands them to the registry in batches.

use std::{
    collections::HashMap,
    mem,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use tokio_util::sync::CancellationToken;

use super::{PodRecord, Registry, Slug};

/// How often hits are written.
const FLUSH_INTERVAL: Duration = Duration::from_secs(1);

/// Hits that are not in the registry yet.
#[derive(Debug, Default)]
pub struct HitCounter(Mutex<Batches>);

#[derive(Debug, Default)]
struct Batches {
    /// Those that no batch has yet.
    pending: HashMap<Slug, Pending>,
    /// What the registry has of each pod of the last batch once that is written. It may be under way, or written already:
    /// a record that was read meanwhile may be one from before or from after it.
    last: HashMap<Slug, u64>,
}

/// Hits of one pod.
#[derive(Clone, Copy, Debug, Default)]
struct Pending {
    /// What the registry had of the pod when it was last fetched.
    stored: u64,
    hits: u64,
}

impl HitCounter {
    /// Counts one hit of a pod, whose record was read for it.
    pub fn count(&self, record: &PodRecord) {
        let mut batches = self.lock();
        let pending = batches.pending.entry(record.slug).or_default();
        pending.stored = pending.stored.max(record.hits);
        pending.hits = pending.hits.saturating_add(1);
    }

    /// Returns all hits of a pod whose record was read just now, without waiting for a batch that is being written. Each
    /// hit counts once; only where the read took longer than [`FLUSH_INTERVAL`], those written meanwhile may be missing.
    pub fn total(&self, record: &PodRecord) -> u64 {
        let batches = self.lock();
        let stored = batches.last.get(&record.slug).copied().unwrap_or_default().max(record.hits);
        let pending = batches.pending.get(&record.slug).map_or(0, |pending| pending.hits);
        stored.saturating_add(pending)
    }

    /// Writes hits to `registry` about once a second until `stop`, and once more then.
    pub async fn run(&self, registry: &dyn Registry, stop: &CancellationToken) {
        loop {
            // As long from the end of one batch to the next, however long one takes: `total` relies on it.
            tokio::select! {
                () = tokio::time::sleep(FLUSH_INTERVAL) => self.flush(registry).await,
                () = stop.cancelled() => return self.flush(registry).await,
            }
        }
    }

    async fn flush(&self, registry: &dyn Registry) {
        let batch = self.lock().begin();
        if batch.is_empty() {
            return;
        }
        let hits: Vec<_> = batch.iter().map(|(slug, pending)| (*slug, pending.hits)).collect();
        if let Err(error) = registry.bump_hits(&hits, SystemTime::now()).await {
            tracing::warn!(%error, "hits were not written; they are tried again");
            self.lock().take_back(batch);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Batches> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Batches {
    /// Returns the next batch, which is the last one from now on.
    fn begin(&mut self) -> HashMap<Slug, Pending> {
        let mut batch = mem::take(&mut self.pending);
        for (slug, pending) in &mut batch {
            // The pod may have been fetched while the batch before this one was written.
            pending.stored = pending.stored.max(self.last.get(slug).copied().unwrap_or_default());
        }
        let after = |(slug, pending): (&Slug, &Pending)| (*slug, pending.stored.saturating_add(pending.hits));
        self.last = batch.iter().map(after).collect();
        batch
    }

    /// Makes a batch that was not written part of the next one.
    fn take_back(&mut self, batch: HashMap<Slug, Pending>) {
        self.last.clear();
        for (slug, Pending { stored, hits }) in batch {
            let pending = self.pending.entry(slug).or_default();
            pending.stored = pending.stored.max(stored);
            pending.hits = pending.hits.saturating_add(hits);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::pods::{VerifiedPod, signed};

    #[derive(Clone, Copy, Debug)]
    enum Step {
        /// Somebody reads the record of a pod.
        Read(usize),
        /// What was read last becomes a hit.
        Count,
        /// A batch starts, is written, or has ended; then the next can start.
        Write,
        Fail,
    }

    #[derive(Debug)]
    enum Writer {
        Idle,
        Begun(HashMap<Slug, Pending>),
        Written,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => (0..2_usize).prop_map(Step::Read),
            3 => Just(Step::Count),
            3 => Just(Step::Write),
            1 => Just(Step::Fail),
        ]
    }

    proptest! {
        /// Whenever a record is read and its hits are asked for, before, while or after a batch is written.
        #[test]
        fn each_hit_counts_once_at_any_moment(steps in vec(step(), 0..60)) {
            let counter = HitCounter::default();
            let mut stored = [(); 2].map(|()| {
                let html = signed::Pod::named("p").html();
                VerifiedPod::verify(html.into()).unwrap().record().clone()
            });
            let mut counted = [0, 0];
            let (mut writer, mut read) = (Writer::Idle, None);
            let mut ended_since_read = false;
            for step in steps {
                match step {
                    Step::Read(pod) => {
                        (read, ended_since_read) = (Some((pod, stored[pod].clone())), false);
                    }
                    Step::Count => {
                        if let Some((pod, record)) = &read {
                            counter.count(record);
                            counted[*pod] += 1;
                        }
                    }
                    Step::Write | Step::Fail => writer = match (writer, step) {
                        (Writer::Idle, _) => {
                            // No read takes as long as the time from the end of one batch to the next.
                            read = read.filter(|_| !ended_since_read);
                            Writer::Begun(counter.lock().begin())
                        }
                        (Writer::Begun(batch), Step::Fail) => {
                            counter.lock().take_back(batch);
                            ended_since_read = true;
                            Writer::Idle
                        }
                        (Writer::Begun(batch), _) => {
                            for record in &mut stored {
                                record.hits += batch.get(&record.slug).map_or(0, |pending| pending.hits);
                            }
                            Writer::Written
                        }
                        (Writer::Written, _) => {
                            ended_since_read = true;
                            Writer::Idle
                        }
                    }
                }
                for (pod, record) in read.iter().map(|(pod, record)| (*pod, record)).chain(stored.iter().enumerate()) {
                    prop_assert_eq!(counter.total(record), counted[pod]);
                }
            }
        }
    }
}
