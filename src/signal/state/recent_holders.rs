//! Pod ids whose origin left a short time ago: it may be on its way back.
//!
//! Bounded in total and for each client network. Where a bound is reached, the pod id that was to be added is not
//! remembered; those that are remembered stay.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    time::Duration,
};

use tokio::time::Instant;

use crate::signal::ids::PodId;

/// How long a pod id is remembered.
pub const REMEMBERED: Duration = Duration::from_secs(120);
/// Pod ids that are remembered for one client network.
const MAX_PER_NETWORK: usize = 1_000;
/// Pod ids that are remembered in total.
const MAX_TOTAL: usize = 16_000;

/// The pod ids, in the order in which their origins left.
#[derive(Debug, Default)]
pub struct RecentHolders {
    by_number: BTreeMap<u64, Departure>,
    by_pod: HashMap<PodId, u64>,
    by_network: HashMap<IpAddr, usize>,
    last: u64,
}

#[derive(Debug)]
struct Departure {
    pod: PodId,
    network: Option<IpAddr>,
    at: Instant,
}

impl RecentHolders {
    /// Remembers that the origin of `pod`, a socket of `network`, left. Without a network, only the total is bounded.
    pub fn remember(&mut self, pod: &PodId, network: Option<IpAddr>, now: Instant) {
        self.forget(pod);
        self.forget_expired(now);
        let of_network =
            network.and_then(|network| self.by_network.get(&network)).copied().unwrap_or_default();
        if of_network >= MAX_PER_NETWORK || self.by_number.len() >= MAX_TOTAL {
            return;
        }
        if let Some(network) = network {
            *self.by_network.entry(network).or_default() += 1;
        }
        self.last += 1;
        self.by_pod.insert(pod.clone(), self.last);
        self.by_number.insert(self.last, Departure { pod: pod.clone(), network, at: now });
    }

    /// Whether the origin of `pod` left a short time ago.
    pub fn contains(&self, pod: &str, now: Instant) -> bool {
        let departure = self.by_pod.get(pod).and_then(|number| self.by_number.get(number));
        departure.is_some_and(|departure| now < departure.at + REMEMBERED)
    }

    /// Forgets a pod id, as it is held again.
    pub fn forget(&mut self, pod: &str) {
        if let Some(number) = self.by_pod.remove(pod)
            && let Some(Departure { network: Some(network), .. }) = self.by_number.remove(&number)
            && let Some(count) = self.by_network.get_mut(&network)
        {
            *count -= 1;
            if *count == 0 {
                self.by_network.remove(&network);
            }
        }
    }

    fn forget_expired(&mut self, now: Instant) {
        while let Some((_, departure)) = self.by_number.first_key_value()
            && departure.at + REMEMBERED <= now
        {
            let pod = departure.pod.clone();
            self.forget(&pod);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(number: usize) -> Option<IpAddr> {
        Some(IpAddr::from((0x0a00_0000 + number as u32).to_be_bytes()))
    }

    #[test]
    fn a_pod_id_is_remembered_for_two_minutes_or_until_it_is_held_again() {
        let (mut recent, start) = (RecentHolders::default(), Instant::now());
        let pod = PodId::from("pod");
        assert!(!recent.contains("pod", start));
        recent.remember(&pod, network(1), start);
        assert!(recent.contains("pod", start + REMEMBERED - Duration::from_millis(1)));
        assert!(!recent.contains("pod", start + REMEMBERED));
        recent.remember(&pod, network(1), start + REMEMBERED / 2);
        assert!(recent.contains("pod", start + REMEMBERED));
        recent.forget("pod");
        assert!(!recent.contains("pod", start));
        assert!(recent.by_number.is_empty() && recent.by_network.is_empty());
    }

    #[test]
    fn strangers_fill_their_own_share_and_push_nobody_out() {
        let (mut recent, start) = (RecentHolders::default(), Instant::now());
        recent.remember(&"owner's".into(), network(0), start);
        for stranger in 1..100 {
            for number in 0..MAX_PER_NETWORK + 10 {
                recent.remember(&format!("{stranger}-{number}").into(), network(stranger), start);
            }
        }
        assert_eq!(recent.by_number.len(), MAX_TOTAL);
        assert!(recent.by_network.values().all(|count| *count <= MAX_PER_NETWORK));
        assert!(recent.contains("owner's", start));
        recent.remember(&"later".into(), network(1), start + REMEMBERED);
        assert_eq!((recent.by_number.len(), recent.by_pod.len(), recent.by_network.len()), (1, 1, 1));
    }
}
