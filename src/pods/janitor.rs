//! Deletes pods that nobody wants any more: expired ones, ones that nobody fetches, and the ones that were not used for
//! longest where room is short.
//!
//! What was uploaded within the grace time stays, whatever the clock says. Dates are believed only as far as the
//! process can check them: what it saw uploaded, it times itself, and of everything else it knows that it is older
//! than the process.

mod report;
mod room;
mod rules;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

pub use self::{
    report::JanitorReport,
    rules::{JanitorRules, Moment},
};
use self::{
    room::{Candidate, Room},
    rules::{age, uploaded_at, used_at},
};
use super::{PodRecord, Registry, RegistryError, Slug};

/// Records that are looked at, and deleted, at a time.
const PAGE: usize = 1024;
/// How far a clock may be set forward between two rounds without being noticed.
const STEP: Duration = Duration::from_secs(60);

/// Knows which pods are too young to be deleted.
#[derive(Debug, Default)]
pub struct Janitor {
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    /// What was uploaded in the life of this process, and when.
    uploads: HashMap<Slug, Duration>,
    /// Whether uploads are noticed: only for a janitor that works.
    awake: bool,
    /// From when on uploads were noticed, and nothing made dates doubtful.
    calm_since: Duration,
    last: Option<Moment>,
}

/// Why a pod goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reason {
    Expired,
    Unused,
    ForRoom,
}

impl Janitor {
    /// A pod is about to be stored.
    pub fn uploads(&self, slug: Slug, running: Duration) {
        let mut seen = self.seen();
        if seen.awake {
            seen.uploads.insert(slug, running);
        }
    }

    /// The janitor does not work any more: nothing is kept for it.
    pub fn sleep(&self) {
        *self.seen() = Seen::default();
    }

    /// One round. With `dry`, nothing is deleted.
    ///
    /// # Errors
    ///
    /// The registry fails. What was deleted until then is gone.
    pub async fn round(
        &self,
        registry: &dyn Registry,
        rules: &JanitorRules,
        now: Moment,
        dry: bool,
    ) -> Result<JanitorReport, RegistryError> {
        let step = self.seen().look_at(now, rules.grace);
        if let Some(step) = step {
            let (step, grace) = (humantime::format_duration(step), humantime::format_duration(rules.grace));
            tracing::warn!("the clock was set forward by {step}: the janitor deletes nothing for {grace}");
        }
        let mut round = Round::begin(registry, rules, now, dry).await?;
        let mut after: Option<PodRecord> = None;
        loop {
            let page = registry.list_expired(now.date, after.as_ref(), PAGE).await?;
            round.report.looked_at += page.len() as u64;
            let is_last = page.len() < PAGE;
            after = page.last().cloned();
            let grown_up =
                page.into_iter().filter(|record| self.seen().is_grown_up(record, rules.grace, now));
            round.delete(grown_up.collect(), Reason::Expired).await?;
            if is_last {
                break;
            }
        }
        if round.looks_at_all() {
            self.look_at_all(&mut round).await?;
        }
        round.make_room(self).await?;
        Ok(round.report)
    }

    /// Deletes what is not used, and finds what may go for room: this takes a look at each pod.
    async fn look_at_all(&self, round: &mut Round<'_>) -> Result<(), RegistryError> {
        let (date, mut after) = (round.now.date, None);
        loop {
            let page = round.registry.list(after.as_ref(), PAGE).await?;
            let is_last = page.len() < PAGE;
            after = page.last().map(|record| record.slug);
            let mut unused = Vec::new();
            for record in page.into_iter().filter(|record| !record.is_over(date)) {
                round.report.looked_at += 1;
                if !self.seen().is_grown_up(&record, round.rules.grace, round.now) {
                    continue;
                }
                if round.is_unused(&record) {
                    unused.push(record);
                } else {
                    round.keep_in_mind(&record);
                }
            }
            round.delete(unused, Reason::Unused).await?;
            if is_last {
                return Ok(());
            }
        }
    }

    /// The same without a process that saw anything: dates are all there is.
    ///
    /// # Errors
    ///
    /// See [`Janitor::round`].
    pub async fn round_by_dates(
        registry: &dyn Registry,
        rules: &JanitorRules,
        date: SystemTime,
        dry: bool,
    ) -> Result<JanitorReport, RegistryError> {
        let seen = Mutex::new(Seen { awake: true, ..Seen::default() });
        Self { seen }.round(registry, rules, Moment { date, running: rules.grace }, dry).await
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seen {
    /// Notices whether the date went ahead of the time that passed; by how much.
    fn look_at(&mut self, now: Moment, grace: Duration) -> Option<Duration> {
        self.uploads.retain(|_, uploaded| now.running.saturating_sub(*uploaded) < grace);
        if !self.awake {
            (self.awake, self.calm_since) = (true, now.running);
        }
        let last = self.last.replace(now)?;
        let by_date = now.date.duration_since(last.date).ok()?;
        let step = by_date.checked_sub(now.running.saturating_sub(last.running))?;
        if step <= STEP {
            return None;
        }
        self.calm_since = now.running;
        Some(step)
    }

    /// Whether the grace time of a pod is over, by its date and by the time that this process can vouch for.
    fn is_grown_up(&self, record: &PodRecord, grace: Duration, now: Moment) -> bool {
        let since = self.uploads.get(&record.slug).copied().unwrap_or_default().max(self.calm_since);
        now.running.saturating_sub(since) >= grace && age(uploaded_at(record), now.date) >= grace
    }
}

/// One round as far as it has come.
struct Round<'a> {
    registry: &'a dyn Registry,
    rules: &'a JanitorRules,
    now: Moment,
    dry: bool,
    report: JanitorReport,
    room: Room,
}

impl<'a> Round<'a> {
    async fn begin(
        registry: &'a dyn Registry,
        rules: &'a JanitorRules,
        now: Moment,
        dry: bool,
    ) -> Result<Self, RegistryError> {
        let before = registry.usage(None).await?;
        let report = JanitorReport { before, left: before, ..JanitorReport::default() };
        Ok(Self { registry, rules, now, dry, report, room: Room::default() })
    }

    /// Whether the rules are about other pods than those that have expired.
    fn looks_at_all(&self) -> bool {
        self.rules.unused_for.is_some()
            || self.rules.water.is_some_and(|(high, _)| self.report.before.bytes > high)
    }

    fn is_unused(&self, record: &PodRecord) -> bool {
        let age = used_at(record).map(|used| age(used, self.now.date));
        self.rules.unused_for.zip(age).is_some_and(|(limit, age)| age >= limit)
    }

    fn keep_in_mind(&mut self, record: &PodRecord) {
        if self.rules.water.is_some_and(|(high, _)| self.report.before.bytes > high) {
            self.room.add(record, self.rules, self.now);
        }
    }

    async fn delete(&mut self, records: Vec<PodRecord>, reason: Reason) -> Result<(), RegistryError> {
        if records.is_empty() {
            return Ok(());
        }
        // Where it is false, the owner was quicker.
        let gone = if self.dry {
            vec![true; records.len()]
        } else {
            self.registry.delete_versions(&records).await?
        };
        let mut deleted = 0;
        for (record, _) in records.iter().zip(gone).filter(|(_, is_gone)| *is_gone) {
            deleted += 1;
            if self.dry {
                // As if no other pod had the same bytes.
                let left = &mut self.report.left;
                left.pods = left.pods.saturating_sub(1);
                left.bytes = left.bytes.saturating_sub(record.blob_size);
            } else {
                tracing::debug!(slug = %record.slug, ?reason, "the janitor deleted a pod");
            }
        }
        if !self.dry {
            self.report.left = self.registry.usage(None).await?;
        }
        match reason {
            Reason::Expired => self.report.expired += deleted,
            Reason::Unused => self.report.unused += deleted,
            Reason::ForRoom => self.report.for_room += deleted,
        }
        Ok(())
    }

    async fn make_room(&mut self, janitor: &Janitor) -> Result<(), RegistryError> {
        let Some((high, low)) = self.rules.water else { return Ok(()) };
        if self.room.bytes() > high {
            while self.room.bytes() > low {
                let doomed = self.next_for_room(janitor, low).await?;
                if doomed.is_empty() {
                    break;
                }
                self.delete(doomed, Reason::ForRoom).await?;
            }
        }
        if self.report.left.bytes > high {
            tracing::warn!(
                "pods take more than janitor.high_water, and those within janitor.grace are not deleted, nor others for \
                 them; quotas.bytes bounds them"
            );
        }
        Ok(())
    }

    /// Returns those that go next, until no more than `low` bytes are left.
    async fn next_for_room(&mut self, janitor: &Janitor, low: u64) -> Result<Vec<PodRecord>, RegistryError> {
        let mut doomed = Vec::new();
        while self.room.bytes() > low
            && doomed.len() < PAGE
            && let Some(candidate) = self.room.pop()
        {
            // It may have been fetched, replaced or deleted while others were deleted.
            let record = self.registry.get_record(&candidate.slug).await?;
            let is_grown_up =
                |record: &PodRecord| janitor.seen().is_grown_up(record, self.rules.grace, self.now);
            let Some(record) = record.filter(is_grown_up) else {
                self.room.forget(&candidate);
                continue;
            };
            if Candidate::of(&record, self.rules, self.now) == Some(candidate) {
                self.room.forget(&candidate);
                doomed.push(record);
            }
        }
        Ok(doomed)
    }
}
