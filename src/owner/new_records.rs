//! How many records of pod ids one client network may add: whoever comes with many names fills no registry with them.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::Duration,
};

/// Records that one client network may add within a day.
const MAX_PER_NETWORK: u32 = 64;
/// Networks that are counted within a day; others add nothing.
const MAX_NETWORKS: usize = 65_536;
const DAY: Duration = Duration::from_hours(24);

/// Counts the records that were added today.
#[derive(Debug, Default)]
pub struct NewRecords {
    today: Mutex<Today>,
}

#[derive(Debug, Default)]
struct Today {
    began: Duration,
    /// Clients whose network is unknown share one count.
    by_network: HashMap<Option<IpAddr>, u32>,
}

impl NewRecords {
    /// Counts a record that a client in `network` is about to add, at `running` of the process. Returns false if it has
    /// added too many.
    pub fn take(&self, network: Option<IpAddr>, running: Duration) -> bool {
        let mut today = self.today.lock().unwrap_or_else(PoisonError::into_inner);
        if running.saturating_sub(today.began) >= DAY {
            *today = Today { began: running, ..Today::default() };
        }
        let is_known = today.by_network.contains_key(&network);
        if !is_known && today.by_network.len() >= MAX_NETWORKS {
            return false;
        }
        let added = today.by_network.entry(network).or_default();
        let has_room = *added < MAX_PER_NETWORK;
        *added += u32::from(has_room);
        has_room
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_network_has_its_own_count_for_a_day() {
        let records = NewRecords::default();
        let (flood, other) = (Some([192, 0, 2, 1].into()), Some([192, 0, 2, 2].into()));
        let begin = Duration::from_secs(5);
        let added = (0..100).filter(|_| records.take(flood, begin)).count();
        assert_eq!(added, MAX_PER_NETWORK as usize);
        assert!(records.take(other, begin) && records.take(None, begin));
        assert!(!records.take(flood, DAY - Duration::from_secs(1)));
        assert!(records.take(flood, begin + DAY));
    }
}
