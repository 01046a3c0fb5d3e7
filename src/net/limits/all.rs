//! A limit for all clients together.

use std::{
    num::NonZeroU64,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use governor::{
    RateLimiter,
    clock::{Clock, DefaultClock},
    nanos::Nanos,
    state::{NotKeyed, StateStore},
};

use super::policy::{Exceeded, Policy};

/// A limit for all clients together.
#[derive(Debug)]
pub struct All {
    pub policy: Policy,
    limiter: RateLimiter<NotKeyed, Until, DefaultClock>,
    /// What the limiter knows, for what is given back.
    until: Until,
}

/// Until when all that was counted will have been made good, or 0; clones share it.
#[derive(Clone, Debug, Default)]
struct Until(Arc<AtomicU64>);

impl StateStore for Until {
    type Key = NotKeyed;

    fn measure_and_replace<T, F, E>(&self, _: &NotKeyed, decide: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let mut before = self.0.load(Ordering::Relaxed);
        loop {
            let (outcome, next) = decide(NonZeroU64::new(before).map(|until| until.get().into()))?;
            match self.0.compare_exchange_weak(before, next.into(), Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Ok(outcome),
                Err(changed) => before = changed,
            }
        }
    }
}

impl All {
    pub fn new(policy: Policy) -> Self {
        let until = Until::default();
        let limiter = RateLimiter::new(policy.quota, until.clone(), DefaultClock::default());
        Self { policy, limiter, until }
    }

    /// Counts one, unless there were too many.
    pub fn check(&self) -> Result<(), Exceeded> {
        let now = || self.limiter.clock().now();
        self.limiter.check().map_err(|until| self.policy.exceeded(until.wait_time_from(now())))
    }

    /// Takes back one that was counted.
    pub fn give_back(&self) {
        let each = self.policy.quota.replenish_interval().max(Duration::from_nanos(1)).as_nanos() as u64;
        let _ = self
            .until
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |until| Some(until.saturating_sub(each)));
    }
}
