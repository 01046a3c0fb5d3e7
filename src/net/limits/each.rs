//! A limit that holds for each key apart.

use std::{hash::Hash, num::NonZeroU32, time::Duration};

use governor::{
    RateLimiter,
    clock::{Clock, DefaultClock},
};

use super::{
    policy::{DAY, Exceeded, Policy},
    table::Table,
};

/// A limit that holds for each key apart.
pub trait Limit<K> {
    /// Counts `count` at once for `key`, or none.
    fn charge(&self, key: &K, count: NonZeroU32) -> Result<(), Exceeded>;

    /// Takes back `count` that were counted.
    fn give_back(&self, key: &K, count: NonZeroU32);
}

/// A limit for each key.
#[derive(Debug)]
pub struct Each<K: Hash + Eq + Clone> {
    pub policy: Policy,
    limiter: RateLimiter<K, Table<K>, DefaultClock>,
    /// What the limiter knows, for what is given back.
    table: Table<K>,
}

impl<K: Hash + Eq + Clone> Each<K> {
    pub fn new(policy: Policy) -> Self {
        Self::with_table(policy, Table::default())
    }

    pub fn with_table(policy: Policy, table: Table<K>) -> Self {
        let limiter = RateLimiter::new(policy.quota, table.clone(), DefaultClock::default());
        Self { policy, limiter, table }
    }
}

impl<K: Hash + Eq + Clone> Limit<K> for Each<K> {
    fn charge(&self, key: &K, count: NonZeroU32) -> Result<(), Exceeded> {
        let now = || self.limiter.clock().now();
        match self.limiter.check_key_n(key, count) {
            Ok(counted) => counted.map_err(|until| self.policy.exceeded(until.wait_time_from(now()))),
            // More than is ever allowed.
            Err(_) => Err(self.policy.exceeded(DAY)),
        }
    }

    fn give_back(&self, key: &K, count: NonZeroU32) {
        let each = self.policy.quota.replenish_interval().max(Duration::from_nanos(1));
        self.table.give_back(key, (each * count.get()).as_nanos() as u64);
    }
}
