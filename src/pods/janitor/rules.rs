//! Which pods may be deleted, and how old they are.

use std::time::{Duration, SystemTime};

use crate::pods::PodRecord;

/// What is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JanitorRules {
    /// What was uploaded or replaced within this time stays.
    pub grace: Duration,
    /// What was not used for this long goes.
    pub unused_for: Option<Duration>,
    /// Above how many bytes pods go, and down to how many. What is within the grace time does not count.
    pub water: Option<(u64, u64)>,
}

/// A moment, by the date and by a clock that nobody sets.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// The date.
    pub date: SystemTime,
    /// Time since some moment in the life of the process.
    pub running: Duration,
}

/// When the present version was uploaded.
pub fn uploaded_at(record: &PodRecord) -> SystemTime {
    record.updated_at.map_or(record.created_at, |updated| updated.max(record.created_at))
}

/// When somebody last wanted a pod; nothing where that is not known.
pub fn used_at(record: &PodRecord) -> Option<SystemTime> {
    match record.last_hit {
        Some(hit) => Some(hit.max(uploaded_at(record))),
        None => (record.hits == 0).then(|| uploaded_at(record)),
    }
}

/// A date that is ahead has no age.
pub fn age(date: SystemTime, now: SystemTime) -> Duration {
    now.duration_since(date).unwrap_or_default()
}
