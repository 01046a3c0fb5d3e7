//! How many connections there are, in total and from one address.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// How many places there are, and how many of them one address may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool {
    pub places: usize,
    pub of_address: u32,
}

impl Pool {
    /// Returns a pool of `wanted` places where there are as many. Where there are fewer, no address may have more than a
    /// quarter of them: its own limit was meant for what was wanted.
    pub fn of(wanted: usize, there: usize) -> Self {
        if wanted <= there {
            return Self { places: wanted, of_address: u32::MAX };
        }
        let of_address = u32::try_from(there / 4).unwrap_or(u32::MAX).max(1);
        Self { places: there, of_address }
    }
}

/// Counts connections by client. IPv6 clients count by their /64: a single host has all of one. As one customer may have
/// many of those, the /48 counts too.
#[derive(Debug, Default)]
pub struct Crowd {
    by_client: Mutex<HashMap<IpAddr, u32>>,
    by_site: Mutex<HashMap<IpAddr, u32>>,
}

/// How many times the limit of a /64 holds for its /48.
const SITE_FACTOR: u32 = 4;

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
        let mut by_client = lock(&self.by_client);
        if by_client.get(&client).is_some_and(|connections| *connections >= limit) || limit == 0 {
            return None;
        }
        if let Some(site) = site_of(client) {
            let mut by_site = lock(&self.by_site);
            let connections = by_site.entry(site).or_default();
            if *connections >= limit.saturating_mul(SITE_FACTOR) {
                return None;
            }
            *connections += 1;
        }
        *by_client.entry(client).or_default() += 1;
        Some(Counted { crowd: self.clone(), client })
    }
}

type Counts = HashMap<IpAddr, u32>;

fn lock(counts: &Mutex<Counts>) -> MutexGuard<'_, Counts> {
    counts.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes one away. Nothing stays behind of the last.
fn leave(mut counts: MutexGuard<'_, Counts>, key: &IpAddr) {
    if let Some(connections) = counts.get_mut(key) {
        *connections -= 1;
        if *connections == 0 {
            counts.remove(key);
        }
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
        leave(lock(&self.crowd.by_client), &self.client);
        if let Some(site) = site_of(self.client) {
            leave(lock(&self.crowd.by_site), &site);
        }
    }
}

/// The address that stands for all addresses of one client.
pub fn group_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        address if address.is_loopback() => address,
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(network(address, 64)),
    }
}

/// Returns the /48 of an IPv6 client, or `None` for an IPv4 client.
pub fn site_of(client: IpAddr) -> Option<IpAddr> {
    match client {
        IpAddr::V4(_) => None,
        IpAddr::V6(address) => Some(IpAddr::V6(network(address, 48))),
    }
}

fn network(address: Ipv6Addr, length: u32) -> Ipv6Addr {
    Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << (128 - length)))
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
            ("::1", "::1"),
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
        assert!(lock(&crowd.by_client).is_empty() && lock(&crowd.by_site).is_empty());
    }

    #[test]
    fn a_site_of_many_networks_has_a_few_times_the_limit_of_one() {
        let crowd = Arc::<Crowd>::default();
        let enter = |address: String| crowd.enter(address.parse().unwrap(), 2);
        let mut counted: Vec<_> = (0..256).filter_map(|n| enter(format!("2001:db8:1:{n:x}::1"))).collect();
        assert_eq!(counted.len(), 8);
        assert!(enter("2001:db8:2::1".into()).is_some());
        counted.pop();
        assert!(enter("2001:db8:1:ff::1".into()).is_some());
        drop(counted);
        assert!(lock(&crowd.by_client).is_empty() && lock(&crowd.by_site).is_empty());
    }
}
