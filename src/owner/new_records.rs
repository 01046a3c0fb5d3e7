//! How many records of pod ids one network may add: whoever comes with many names fills no registry with them.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use super::sender::Sender;

/// Records that one client network may add within a day, and as many again with keys that own something here.
const MAX_PER_NETWORK: u32 = 64;
/// Networks that are counted within a day; others add nothing.
const MAX_NETWORKS: usize = 65_536;
/// Networks of keys that own nothing here.
const MAX_OF_STRANGERS: usize = MAX_NETWORKS / 2;
const DAY: Duration = Duration::from_hours(24);

/// Counts the records that were added today.
#[derive(Debug, Default)]
pub struct NewRecords {
    today: Mutex<Today>,
}

#[derive(Debug, Default)]
struct Today {
    began: Duration,
    /// The owners in a network have a count of their own.
    added: HashMap<Sender, u32>,
    /// How many of the counts are of keys that own nothing here.
    of_strangers: usize,
}

impl NewRecords {
    /// Counts a record that `sender` is about to add, at `running` of the process. Returns false if it has added too
    /// many.
    pub fn take(&self, sender: Sender, running: Duration) -> bool {
        let mut today = self.today.lock().unwrap_or_else(PoisonError::into_inner);
        if running.saturating_sub(today.began) >= DAY {
            *today = Today { began: running, ..Today::default() };
        }
        if !today.added.contains_key(&sender) {
            let is_full = today.added.len() >= MAX_NETWORKS;
            if is_full || (!sender.is_owner && today.of_strangers >= MAX_OF_STRANGERS) {
                return false;
            }
            today.of_strangers += usize::from(!sender.is_owner);
        }
        let added = today.added.entry(sender).or_default();
        let has_room = *added < MAX_PER_NETWORK;
        *added += u32::from(has_room);
        has_room
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const BEGIN: Duration = Duration::from_secs(5);

    fn sender(network: u32, is_owner: bool) -> Sender {
        Sender::new(Some(Ipv4Addr::from(network).into()), is_owner)
    }

    #[test]
    fn each_network_has_its_own_count_for_a_day() {
        let records = NewRecords::default();
        let (flood, other) = (sender(1, false), sender(2, false));
        let added = (0..100).filter(|_| records.take(flood, BEGIN)).count();
        assert_eq!(added, MAX_PER_NETWORK as usize);
        assert!(records.take(other, BEGIN) && records.take(Sender::new(None, false), BEGIN));
        assert!(records.take(sender(1, true), BEGIN), "an owner in the same network");
        assert!(!records.take(flood, DAY - Duration::from_secs(1)));
        assert!(records.take(flood, BEGIN + DAY));
    }

    #[test]
    fn all_networks_of_a_site_have_one_count() {
        let records = NewRecords::default();
        let take = |address: String| {
            let network = Some(address.parse().unwrap());
            records.take(Sender::new(network, false), BEGIN)
        };
        let added = (0..1000).filter(|n| take(format!("2001:db8:1:{n:x}::"))).count();
        assert_eq!(added, MAX_PER_NETWORK as usize);
        assert!(take("2001:db8:2::".into()));
    }

    #[test]
    fn strangers_from_any_number_of_networks_leave_the_owners_their_half() {
        let records = NewRecords::default();
        let added = (0..MAX_NETWORKS as u32).filter(|network| records.take(sender(*network, false), BEGIN));
        assert_eq!(added.count(), MAX_OF_STRANGERS);
        assert!(records.take(sender(u32::MAX, true), BEGIN));
        assert!(!records.take(sender(u32::MAX, false), BEGIN));
    }
}
