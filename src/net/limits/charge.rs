//! What a pod that is about to be stored is charged to, and how it is given back if it is not stored after all.

use std::{net::IpAddr, num::NonZeroU32, sync::Arc};

use super::{
    each::{Each, Limit},
    per_client::PerClient,
    policy::Exceeded,
    rules::{KILOBYTE, Key, RateLimits},
};

/// What one pod was charged. It stays charged unless it is given back: a client that goes away in the midst of a commit
/// may have had its pod stored.
#[derive(Debug, Default)]
#[must_use]
pub struct Charge {
    owner: Option<Entry<Each<Key>, Key>>,
    kilobytes: Option<Entry<PerClient, IpAddr>>,
    pods: Option<Entry<PerClient, IpAddr>>,
}

/// So many of one limit of one key.
#[derive(Debug)]
struct Entry<L, K> {
    limit: Arc<L>,
    key: K,
    count: NonZeroU32,
}

impl<L: Limit<K>, K: Clone> Entry<L, K> {
    /// Returns `None` if there is no such limit.
    fn charge(limit: Option<&Arc<L>>, key: &K, count: u64) -> Result<Option<Self>, Exceeded> {
        let Some(limit) = limit else { return Ok(None) };
        let count = NonZeroU32::new(u32::try_from(count).unwrap_or(u32::MAX)).unwrap_or(NonZeroU32::MIN);
        limit.charge(key, count)?;
        Ok(Some(Self { limit: limit.clone(), key: key.clone(), count }))
    }

    fn give_back(self) {
        self.limit.give_back(&self.key, self.count);
    }
}

impl Charge {
    /// Charges a pod to all that it is counted for, or to none.
    pub fn of(
        rules: &RateLimits,
        owner: Option<&Key>,
        client: Option<IpAddr>,
        bytes: u64,
    ) -> Result<Self, Exceeded> {
        let mut charge = Self::default();
        let mut charge_all = || {
            if let Some(owner) = owner {
                charge.owner = Entry::charge(rules.uploads_per_owner.as_ref(), owner, 1)?;
            }
            if let Some(client) = client {
                let kilobytes = bytes.div_ceil(KILOBYTE);
                charge.kilobytes = Entry::charge(rules.kilobytes_per_day.as_ref(), &client, kilobytes)?;
                charge.pods = Entry::charge(rules.pods_per_day.as_ref(), &client, 1)?;
            }
            Ok(())
        };
        match charge_all() {
            Ok(()) => Ok(charge),
            Err(exceeded) => {
                charge.give_back();
                Err(exceeded)
            }
        }
    }

    /// Gives everything back if the pod was not stored.
    pub fn keep_if(self, is_stored: bool) {
        if !is_stored {
            self.give_back();
        }
    }

    fn give_back(self) {
        let Self { owner, kilobytes, pods } = self;
        owner.into_iter().for_each(Entry::give_back);
        kilobytes.into_iter().chain(pods).for_each(Entry::give_back);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::Config, net::limits::Limits};

    const OWNER: Key = [1; 32];

    fn limits(per_owner: u32, pods: u32, kilobytes: u64) -> Limits {
        let toml = format!(
            "limits.uploads_per_owner = \"1/day burst {per_owner}\"\nquotas.pods_per_address_and_day = {pods}\n\
                quotas.bytes_per_address_and_day = \"{kilobytes} KiB\""
        );
        Limits::new(&Config::from_toml(&toml).unwrap_or_else(|errors| panic!("{errors:?}")))
    }

    fn address() -> Option<IpAddr> {
        Some("192.0.2.1".parse().unwrap())
    }

    /// How many pods of a kilobyte fit, after `before` was done.
    fn fitting(limits: &Limits, owner: Option<&Key>) -> usize {
        (0..100).take_while(|_| limits.charge_pod(owner, address(), KILOBYTE).is_ok()).count()
    }

    #[test]
    fn what_is_given_back_can_be_charged_again() {
        for (per_owner, pods, kilobytes) in [(5, 50, 50), (50, 5, 50), (50, 50, 5)] {
            let limits = limits(per_owner, pods, kilobytes);
            for _ in 0..100 {
                limits.charge_pod(Some(&OWNER), address(), 2 * KILOBYTE).unwrap().keep_if(false);
            }
            assert_eq!(fitting(&limits, Some(&OWNER)), 5);
            assert!(limits.charge_pod(Some(&OWNER), address(), KILOBYTE).is_err());
        }
    }

    /// For every limit that stops a pod: it costs nothing of the others.
    #[test]
    fn what_one_limit_refuses_is_charged_to_none() {
        for (per_owner, pods, kilobytes) in [(9, 5, 7), (9, 7, 5), (5, 7, 9)] {
            let limits = limits(per_owner, pods, kilobytes);
            assert_eq!(fitting(&limits, Some(&OWNER)), 5);
            for _ in 0..100 {
                let _ = limits.charge_pod(Some(&OWNER), address(), KILOBYTE).unwrap_err();
            }
            // At another address, the owner key has what five left it.
            let elsewhere = Some("192.0.2.2".parse().unwrap());
            let of_owner = (0..100).take_while(|_| limits.charge_pod(Some(&OWNER), elsewhere, 1).is_ok());
            assert_eq!(of_owner.count(), (per_owner as usize - 5).min(pods as usize).min(kilobytes as usize));
            // Under no owner key, the address has what they left it.
            assert_eq!(fitting(&limits, None), (pods as usize).min(kilobytes as usize) - 5);
        }
    }

    #[test]
    fn an_unsigned_pod_is_charged_to_no_owner() {
        let limits = limits(1, 50, 50);
        assert_eq!(fitting(&limits, None), 50);
        let elsewhere = Some("192.0.2.2".parse().unwrap());
        assert!(limits.charge_pod(Some(&OWNER), elsewhere, 1).is_ok());
    }

    /// What is dropped was perhaps stored.
    #[test]
    fn a_charge_that_is_forgotten_stays() {
        let limits = limits(5, 50, 50);
        for _ in 0..4 {
            drop(limits.charge_pod(Some(&OWNER), address(), 1).unwrap());
        }
        limits.charge_pod(Some(&OWNER), address(), 1).unwrap().keep_if(true);
        assert_eq!(fitting(&limits, Some(&OWNER)), 0);
    }
}
