//! Where a rate limiter keeps what it knows of each client: a table of fixed size.
//!
//! Each key belongs to one set of eight places. Where those are taken, the key whose limit has recovered most is
//! forgotten, which is the one that loses least by it; whoever is over a limit stays. Which set a key belongs to is
//! a secret of the process, so that nobody can choose keys that push one another out. A set takes memory once it is
//! used.

use std::{
    fmt,
    hash::{BuildHasher, Hash, RandomState},
    marker::PhantomData,
    sync::{Arc, Mutex, PoisonError},
};

use governor::{nanos::Nanos, state::StateStore};

const PLACES: usize = 8;
const SHARDS: usize = 64;
const SETS_PER_SHARD: usize = 512;

/// Keys that are remembered; the table takes 18 bytes for each.
#[cfg(test)]
pub const CAPACITY: usize = SHARDS * SETS_PER_SHARD * PLACES;

/// The hashes of eight keys, 0 for none, then until when what each did will have been made good.
type Set = [u64; 2 * PLACES];

/// Nothing until one of its sets is used.
type Shard = Vec<Option<Box<Set>>>;

/// A table of clients; the key is whatever stands for one. Clones share what they know.
pub struct Table<K> {
    hasher: RandomState,
    shards: Arc<[Mutex<Shard>]>,
    keys: PhantomData<fn(K)>,
}

impl<K> Clone for Table<K> {
    fn clone(&self) -> Self {
        Self { hasher: self.hasher.clone(), shards: self.shards.clone(), keys: PhantomData }
    }
}

impl<K> Default for Table<K> {
    fn default() -> Self {
        let shards = std::iter::repeat_with(Mutex::default).take(SHARDS).collect();
        Self { hasher: RandomState::new(), shards, keys: PhantomData }
    }
}

impl<K: Hash> StateStore for Table<K> {
    type Key = K;

    fn measure_and_replace<T, F, E>(&self, key: &K, decide: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let hash = self.hasher.hash_one(key);
        let mut shard = self.shards[hash as usize % SHARDS].lock().unwrap_or_else(PoisonError::into_inner);
        if shard.is_empty() {
            shard.resize(SETS_PER_SHARD, None);
        }
        let set = shard[hash as usize / SHARDS % SETS_PER_SHARD].get_or_insert_default();
        let (keys, until) = set.split_at_mut(PLACES);
        // 0 is an empty place.
        let key = hash.max(1);
        let known = keys.iter().position(|other| *other == key);
        let (outcome, next) = decide(known.map(|place| until[place].into()))?;
        let place = known.or_else(|| keys.iter().position(|other| *other == 0));
        let place = place.unwrap_or_else(|| most_recovered(until));
        (keys[place], until[place]) = (key, next.into());
        Ok(outcome)
    }
}

impl<K: Hash> Table<K> {
    /// Takes back what `key` was charged: `charge` nanoseconds of recovery. A key that was forgotten owes nothing.
    pub fn give_back(&self, key: &K, charge: u64) {
        let hash = self.hasher.hash_one(key);
        let mut shard = self.shards[hash as usize % SHARDS].lock().unwrap_or_else(PoisonError::into_inner);
        let Some(Some(set)) = shard.get_mut(hash as usize / SHARDS % SETS_PER_SHARD) else { return };
        let (keys, until) = set.split_at_mut(PLACES);
        if let Some(place) = keys.iter().position(|other| *other == hash.max(1)) {
            until[place] = until[place].saturating_sub(charge);
        }
    }
}

fn most_recovered(until: &[u64]) -> usize {
    (0..PLACES).min_by_key(|place| until[*place]).unwrap_or_default()
}

impl<K> fmt::Debug for Table<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::{num::NonZeroU32, time::Duration};

    use governor::{Quota, RateLimiter, clock::FakeRelativeClock, middleware::NoOpMiddleware};

    use super::*;

    type Limiter = RateLimiter<u32, Table<u32>, FakeRelativeClock, NoOpMiddleware<Nanos>>;

    fn limiter(clock: &FakeRelativeClock) -> Limiter {
        let quota = Quota::with_period(Duration::from_secs(1)).unwrap();
        RateLimiter::new(quota.allow_burst(NonZeroU32::new(5).unwrap()), Table::default(), clock.clone())
    }

    #[test]
    fn each_key_has_its_own_burst_and_recovers() {
        let clock = FakeRelativeClock::default();
        let limiter = limiter(&clock);
        for key in 0..10_000 {
            let passed = (0..7).filter(|_| limiter.check_key(&key).is_ok()).count();
            assert_eq!(passed, 5, "key {key}");
        }
        clock.advance(Duration::from_secs(2));
        for key in 0..10_000 {
            let passed = (0..7).filter(|_| limiter.check_key(&key).is_ok()).count();
            assert_eq!(passed, 2, "key {key}");
        }
    }

    #[test]
    fn whoever_is_over_the_limit_is_remembered_among_millions() {
        let clock = FakeRelativeClock::default();
        let limiter = limiter(&clock);
        let abuser = u32::MAX;
        while limiter.check_key(&abuser).is_ok() {}
        for key in 0..4 * CAPACITY as u32 {
            assert!(limiter.check_key(&key).is_ok(), "a new key is let through");
        }
        assert!(limiter.check_key(&abuser).is_err(), "the abuser was forgotten");
    }
}
