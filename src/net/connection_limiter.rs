//! How many connections there are, in total and from one address.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// How many places there are, and how many of them one address may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionCapacity {
    pub places: usize,
    pub of_address: u32,
}

/// How many places one client may have, and how many its site.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressLimits {
    pub of_client: u32,
    of_site: u32,
}

impl AddressLimits {
    /// Returns the share of a client that may have `limit` of `places` places, of which `free` are free now. Its site may
    /// have a few times as many, but neither ever more than [`share_of_one`].
    pub fn of(limit: u32, places: usize, free: usize) -> Self {
        let share = share_of_one(places, free);
        Self { of_client: limit.min(share), of_site: limit.saturating_mul(SITE_FACTOR).min(share) }
    }
}

/// Returns how many of `places` places one network may have when `free` of them are free: half, and where fewer than half
/// are free, an eighth of that for each time that their number halves. Who has none may always have one.
///
/// With a share in proportion to what is free ([`super::budget`]), each network that fills up before the next one comes
/// takes half of what is left, so that two dozen have all. With the cube, all `n` places are taken only by about n^(2/3)
/// networks or more, in whatever order they come.
fn share_of_one(places: usize, free: usize) -> u32 {
    let half = places as u128 / 2;
    let free = half.min(free as u128);
    let share = (free * free * free).checked_div(half * half).unwrap_or_default();
    u32::try_from(share).unwrap_or(u32::MAX).max(1)
}

impl ConnectionCapacity {
    /// Returns a pool of `wanted` places where there are as many. Where there are fewer, no address may have more than a
    /// quarter of them: its own limit was meant for what was wanted.
    pub fn of(wanted: usize, there: usize) -> Self {
        if wanted <= there {
            return Self { places: wanted, of_address: u32::MAX };
        }
        let of_address = u32::try_from(there / 4).unwrap_or(u32::MAX).max(1);
        Self { places: there, of_address }
    }

    /// Returns the share of a client that may have `limit` places as far as the settings go, where `free` are free now.
    pub fn share(self, limit: u32, free: usize) -> AddressLimits {
        AddressLimits::of(limit.min(self.of_address), self.places, free)
    }
}

/// Counts connections by client. IPv6 clients count by their /64: a single host has all of one. As one customer may have
/// many of those, the /48 counts too.
#[derive(Debug, Default)]
pub struct ConnectionLimiter {
    by_client: Mutex<HashMap<IpAddr, u32>>,
    by_site: Mutex<HashMap<IpAddr, u32>>,
}

/// How many times the limit of a /64 holds for its /48.
pub const SITE_FACTOR: u32 = 4;

/// One counted connection; dropping it is its end.
#[derive(Debug)]
pub struct ConnectionPermit {
    connection_limiter: Arc<ConnectionLimiter>,
    client: IpAddr,
}

impl ConnectionLimiter {
    /// Counts a connection of `address`, unless its client or its site has its share already.
    pub fn enter(self: &Arc<Self>, address: IpAddr, share: AddressLimits) -> Option<ConnectionPermit> {
        let client = rate_limit_key(address);
        let mut by_client = lock(&self.by_client);
        if by_client.get(&client).copied().unwrap_or_default() >= share.of_client {
            return None;
        }
        if let Some(site) = site_of(client) {
            let mut by_site = lock(&self.by_site);
            let connections = by_site.entry(site).or_default();
            if *connections >= share.of_site {
                return None;
            }
            *connections += 1;
        }
        *by_client.entry(client).or_default() += 1;
        Some(ConnectionPermit { connection_limiter: self.clone(), client })
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

impl ConnectionPermit {
    /// Returns the address that the connection counts for.
    pub fn client(&self) -> IpAddr {
        self.client
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        leave(lock(&self.connection_limiter.by_client), &self.client);
        if let Some(site) = site_of(self.client) {
            leave(lock(&self.connection_limiter.by_site), &site);
        }
    }
}

/// The address that stands for all addresses of one client.
pub fn rate_limit_key(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        address if address.is_loopback() => address,
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            translated(address).map_or_else(|| IpAddr::V6(network(address, 64)), IpAddr::V4)
        }
    }
}

/// Returns the IPv4 address of a client behind a translator that uses the well-known prefix (RFC 6052, section 2.1). All
/// of them share one /64. Addresses of this host and of no network are never translated.
fn translated(address: Ipv6Addr) -> Option<Ipv4Addr> {
    const PREFIX: Ipv6Addr = Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0);
    let ipv4 = Ipv4Addr::from_bits(address.to_bits() as u32);
    let is_translated = network(address, 96) == PREFIX && ![0, 127].contains(&ipv4.octets()[0]);
    is_translated.then_some(ipv4)
}

/// Returns the /48 of an IPv6 client, or `None` for an IPv4 client and for this host.
pub fn site_of(client: IpAddr) -> Option<IpAddr> {
    match client {
        client if client.is_loopback() => None,
        IpAddr::V4(_) => None,
        IpAddr::V6(address) => Some(IpAddr::V6(network(address, 48))),
    }
}

/// Returns the network that one customer may have all of: the /48 of an IPv6 client, or else its address.
pub fn customer_key(client: IpAddr) -> IpAddr {
    let client = rate_limit_key(client);
    site_of(client).unwrap_or(client)
}

fn network(address: Ipv6Addr, length: u32) -> Ipv6Addr {
    Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << (128 - length)))
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use salvo::Request;

    use super::*;
    use crate::{
        config::Config,
        net::{
            client::network_of,
            limits::{Limits, RequestKind},
        },
    };

    #[test]
    fn ipv6_counts_by_its_64_and_its_site_and_mapped_or_translated_ipv4_as_ipv4() {
        for (address, group, site) in [
            ("192.0.2.7", "192.0.2.7", None),
            ("::ffff:192.0.2.7", "192.0.2.7", None),
            ("64:ff9b::192.0.2.7", "192.0.2.7", None),
            ("64:ff9b::c000:208", "192.0.2.8", None),
            // Another prefix, or an address that no translator makes.
            ("64:ff9b::1:c000:207", "64:ff9b::", Some("64:ff9b::")),
            ("64:ff9b:0:1::192.0.2.7", "64:ff9b:0:1::", Some("64:ff9b::")),
            ("64:ff9b:1::192.0.2.7", "64:ff9b:1::", Some("64:ff9b:1::")),
            ("64:ff9b:1:2::192.0.2.7", "64:ff9b:1:2::", Some("64:ff9b:1::")),
            ("64:ff9b::127.0.0.1", "64:ff9b::", Some("64:ff9b::")),
            ("64:ff9b::", "64:ff9b::", Some("64:ff9b::")),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::", Some("2001:db8:1::")),
            ("2001:db8:1:2::", "2001:db8:1:2::", Some("2001:db8:1::")),
            ("127.0.0.1", "127.0.0.1", None),
            ("::ffff:127.0.0.1", "127.0.0.1", None),
            ("::1", "::1", None),
        ] {
            let found = rate_limit_key(address.parse().unwrap());
            assert_eq!(found, group.parse::<IpAddr>().unwrap(), "{address}");
            assert_eq!(rate_limit_key(found), found, "{address}: a network is its own");
            assert_eq!(site_of(found), site.map(|site| site.parse().unwrap()), "{address}");
        }
    }

    /// Returns which of the limits, and of those who ask for a network, take the addresses for one client.
    fn who_takes_for_one(one: IpAddr, other: IpAddr) -> Vec<bool> {
        let settings = "[limits]\nexempt = []\nuploads_per_address = \"1/day\"\nreads_per_address = \"1/day\"\n\
            upgrades_per_address = \"1/day\"\nregistrations_per_address = \"1/day\"\nsockets_per_address = 1\n\
            [quotas]\npods_per_address_and_day = 1";
        let config = Config::from_toml(settings).unwrap();
        let limits = Limits::new(&config);
        let kinds = [RequestKind::Upload, RequestKind::Read, RequestKind::Upgrade, RequestKind::Registration];
        let refused = kinds.map(|kind| {
            limits.check(kind, Some(one)).unwrap();
            limits.check(kind, Some(other)).is_err()
        });
        let _charged = limits.charge_pod(None, Some(one), 1).unwrap();
        let connection_limiter = Arc::<ConnectionLimiter>::default();
        let _held = (
            limits.socket(Some(one), 0).unwrap(),
            connection_limiter.enter(one, AddressLimits::of(1, 100, 100)).unwrap(),
        );
        let network = |address: IpAddr| {
            let mut request = Request::default();
            *request.remote_addr_mut() = SocketAddr::new(address, 1).into();
            network_of(&request, &[])
        };
        [
            &refused[..],
            &[
                limits.charge_pod(None, Some(other), 1).is_err(),
                limits.socket(Some(other), 1).is_err(),
                connection_limiter.enter(other, AddressLimits::of(1, 100, 100)).is_none(),
                limits.network(Some(one)) == limits.network(Some(other)),
                network(one) == network(other),
            ],
        ]
        .concat()
    }

    #[test]
    fn all_limits_take_the_same_addresses_for_one_client() {
        for (one, other, is_one) in [
            ("192.0.2.7", "::ffff:192.0.2.7", true),
            ("192.0.2.7", "64:ff9b::192.0.2.7", true),
            ("::ffff:192.0.2.7", "64:ff9b::c000:207", true),
            ("64:ff9b::192.0.2.7", "64:ff9b::192.0.2.8", false),
            ("64:ff9b:1::192.0.2.7", "64:ff9b:1::192.0.2.8", true),
            ("64:ff9b:1::192.0.2.7", "192.0.2.7", false),
            ("2001:db8::1", "2001:db8::2", true),
            ("2001:db8::1", "2001:db8:0:1::1", false),
        ] {
            let found = who_takes_for_one(one.parse().unwrap(), other.parse().unwrap());
            assert_eq!(found, vec![is_one; found.len()], "{one} and {other}");
        }
    }

    #[test]
    fn one_address_has_a_limit_and_leaves_nothing_behind() {
        let connection_limiter = Arc::<ConnectionLimiter>::default();
        let enter = |address: &str| {
            connection_limiter.enter(address.parse().unwrap(), AddressLimits::of(2, 100, 100))
        };
        let (one, two) = (enter("2001:db8::1").unwrap(), enter("2001:db8::2").unwrap());
        assert!(enter("2001:db8::3").is_none());
        assert!(enter("2001:db8:0:1::3").is_some());
        drop(one);
        assert!(enter("2001:db8::3").is_some());
        drop(two);
        assert!(
            lock(&connection_limiter.by_client).is_empty() && lock(&connection_limiter.by_site).is_empty()
        );
    }

    #[test]
    fn a_site_of_many_networks_has_a_few_times_the_limit_of_one() {
        let connection_limiter = Arc::<ConnectionLimiter>::default();
        let enter = |address: String| {
            connection_limiter.enter(address.parse().unwrap(), AddressLimits::of(2, 100, 100))
        };
        let mut counted: Vec<_> = (0..256).filter_map(|n| enter(format!("2001:db8:1:{n:x}::1"))).collect();
        assert_eq!(counted.len(), 8);
        assert!(enter("2001:db8:2::1".into()).is_some());
        counted.pop();
        assert!(enter("2001:db8:1:ff::1".into()).is_some());
        drop(counted);
        assert!(
            lock(&connection_limiter.by_client).is_empty() && lock(&connection_limiter.by_site).is_empty()
        );
    }

    /// Counts twice as many connections as there are places, of the clients that `address` names; returns how many had
    /// one.
    fn entered(limit: u32, pool: ConnectionCapacity, address: impl Fn(usize) -> String) -> usize {
        let connection_limiter = Arc::<ConnectionLimiter>::default();
        let mut held = Vec::new();
        for n in 0..2 * pool.places {
            let share = pool.share(limit, pool.places - held.len());
            held.extend(connection_limiter.enter(address(n).parse().unwrap(), share));
        }
        held.len()
    }

    #[test]
    fn no_client_and_no_site_has_more_than_half_of_the_places() {
        for (limit, wanted, there, of_client, of_site) in [
            // An address may have a quarter of what is there, and so would four /64s have all.
            (1_000, 10_000, 640, 160, 320),
            (1_000, 10_000, 8, 2, 4),
            (u32::MAX, 10_000, 5_000, 1_250, 2_500),
            // The settings let one address have more than there is.
            (1_000, 1_000, usize::MAX, 500, 500),
            (u32::MAX, 100, usize::MAX, 50, 50),
            (60, 100, usize::MAX, 50, 50),
            (10, 1_000, usize::MAX, 10, 40),
            (1_000, 3, usize::MAX, 1, 1),
            (1_000, 1, usize::MAX, 1, 1),
            (0, 100, usize::MAX, 0, 0),
        ] {
            let (pool, at) =
                (ConnectionCapacity::of(wanted, there), format!("{limit} of {wanted}, {there} there"));
            assert_eq!(entered(limit, pool, |_| "192.0.2.1".into()), of_client, "{at}");
            assert_eq!(entered(limit, pool, |n| format!("2001:db8::{n:x}")), of_client, "{at}");
            assert_eq!(entered(limit, pool, |n| format!("2001:db8:1:{n:x}::1")), of_site, "{at}");
        }
    }
}
