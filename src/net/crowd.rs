//! How many connections there are, in all and from one address.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Counts connections by client. IPv6 clients count by their /64: a single host has all of one.
#[derive(Debug, Default)]
pub struct Crowd {
    by_client: Mutex<HashMap<IpAddr, u32>>,
}

/// One counted connection; dropping it is its end.
#[derive(Debug)]
pub struct Counted {
    crowd: Arc<Crowd>,
    client: IpAddr,
}

impl Crowd {
    /// Counts a connection of `address`, unless there are `limit` already.
    pub fn enter(self: &Arc<Self>, address: IpAddr, limit: u32) -> Option<Counted> {
        let client = group_of(address);
        let mut by_client = self.lock();
        let connections = by_client.entry(client).or_default();
        if *connections >= limit {
            return None;
        }
        *connections += 1;
        Some(Counted { crowd: self.clone(), client })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, u32>> {
        self.by_client.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counted {
    /// Returns the address that the connection counts for.
    pub fn client(&self) -> IpAddr {
        self.client
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut by_client = self.crowd.lock();
        if let Some(connections) = by_client.get_mut(&self.client) {
            *connections -= 1;
            if *connections == 0 {
                by_client.remove(&self.client);
            }
        }
    }
}

/// The address that stands for all addresses of one client.
pub fn group_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ipv6_counts_by_its_64_and_mapped_ipv4_as_ipv4() {
        for (address, group) in [
            ("192.0.2.7", "192.0.2.7"),
            ("::ffff:192.0.2.7", "192.0.2.7"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
            ("2001:db8:1:2::", "2001:db8:1:2::"),
        ] {
            assert_eq!(group_of(address.parse().unwrap()), group.parse::<IpAddr>().unwrap(), "{address}");
        }
    }

    #[test]
    fn one_address_has_a_limit_and_leaves_nothing_behind() {
        let crowd = Arc::<Crowd>::default();
        let enter = |address: &str| crowd.enter(address.parse().unwrap(), 2);
        let (one, two) = (enter("2001:db8::1").unwrap(), enter("2001:db8::2").unwrap());
        assert!(enter("2001:db8::3").is_none());
        assert!(enter("2001:db8:0:1::3").is_some());
        drop(one);
        assert!(enter("2001:db8::3").is_some());
        drop(two);
        assert!(crowd.lock().is_empty());
    }
}
