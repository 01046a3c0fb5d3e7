//! What a limit allows, and what is said of it.

use std::{num::NonZeroU32, time::Duration};

use governor::Quota;

use crate::config::RateLimit;

/// A limit that a request came up against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exceeded {
    /// What the limit is called in `RateLimit-Policy`.
    pub name: &'static str,
    /// How many it allows at once.
    pub quota: u64,
    /// What is counted, where that is not requests.
    pub unit: Option<&'static str>,
    /// In which time so many are allowed again.
    pub window: Duration,
    /// When the next one is.
    pub wait: Duration,
    /// A sentence for the client.
    pub sentence: &'static str,
}

/// How often something may happen, and what is said where it happens too often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    pub name: &'static str,
    pub sentence: &'static str,
    pub quota: Quota,
    /// What is counted, and how many of it are one for the limiter.
    pub unit: Option<(&'static str, u64)>,
}

pub const DAY: Duration = Duration::from_hours(24);

impl Policy {
    pub fn new(name: &'static str, sentence: &'static str, rate: RateLimit) -> Option<Self> {
        let RateLimit::Rate(rate) = rate else { return None };
        let quota = Quota::with_period(rate.interval()).expect("a rate is finite").allow_burst(rate.burst());
        Some(Self { name, sentence, quota, unit: None })
    }

    /// So much in a day; what is used is free again a day later.
    pub fn per_day(name: &'static str, sentence: &'static str, count: u64) -> Self {
        let count = u32::try_from(count.max(1)).ok().and_then(NonZeroU32::new).unwrap_or(NonZeroU32::MAX);
        let quota =
            Quota::with_period(DAY / count.get()).expect("a day has enough nanoseconds").allow_burst(count);
        Self { name, sentence, quota, unit: None }
    }

    /// Returns the policy of a limit that allows `factor` times as much.
    pub fn times(self, factor: u32) -> Self {
        let quota = Quota::with_period(self.quota.replenish_interval() / factor);
        let quota = quota.expect("the fastest rate that can be set has nanoseconds to spare");
        let burst =
            self.quota.burst_size().saturating_mul(NonZeroU32::new(factor).unwrap_or(NonZeroU32::MIN));
        Self { quota: quota.allow_burst(burst), ..self }
    }

    pub fn exceeded(&self, wait: Duration) -> Exceeded {
        Exceeded {
            name: self.name,
            quota: u64::from(self.quota.burst_size().get()) * self.unit.map_or(1, |(_, size)| size),
            unit: self.unit.map(|(name, _)| name),
            window: self.quota.burst_size_replenished_in(),
            wait,
            sentence: self.sentence,
        }
    }
}
