//! How often one client may ask for something, and all clients together.
//!
//! The limiters are governor's (GCRA); what they know of single clients lies in tables of fixed size ([`table`]).

mod all;
mod charge;
mod each;
mod per_client;
mod policy;
mod request_charge;
mod request_kind;
mod rules;
mod table;

use std::{net::IpAddr, sync::Arc, time::Duration};

use arc_swap::ArcSwap;

use self::rules::{Pair, RateLimits};
pub use self::{
    charge::Charge, policy::Exceeded, request_charge::RequestCharge, request_kind::RequestKind, rules::Key,
};
use super::connection_limiter::{AddressLimits, ConnectionLimiter, ConnectionPermit, rate_limit_key};
use crate::config::Config;

/// All limits as they are set now.
#[derive(Debug)]
pub struct Limits {
    rules: ArcSwap<RateLimits>,
    sockets: Arc<ConnectionLimiter>,
}

impl Limits {
    /// The limits that the settings ask for.
    pub fn new(config: &Config) -> Self {
        Self { rules: ArcSwap::from_pointee(RateLimits::new(config, None)), sockets: Arc::default() }
    }

    /// Puts other limits in place; those that did not change go on as they are.
    pub fn reload(&self, config: &Config) {
        let rules = RateLimits::new(config, Some(&self.rules.load()));
        self.rules.store(Arc::new(rules));
    }

    /// Counts one of `kind`, unless there were too many. A client without an address is counted among all only.
    pub fn check(&self, kind: RequestKind, client: Option<IpAddr>) -> Result<(), Exceeded> {
        let rules = self.rules.load();
        if rules.is_exempt(client) {
            return Ok(());
        }
        Pair::check_all(&[rules.pair(kind)], client)
    }

    /// Counts one of each of `kinds`, or none if there were too many of one. What is not done after all is given back to
    /// all clients together.
    ///
    /// # Errors
    ///
    /// Returns an error if there were too many of one.
    pub fn charge(&self, kinds: &[RequestKind], client: Option<IpAddr>) -> Result<RequestCharge, Exceeded> {
        let rules = self.rules.load();
        if rules.is_exempt(client) {
            return Ok(RequestCharge::default());
        }
        RequestCharge::of(kinds.iter().map(|kind| rules.pair(*kind)).collect(), client)
    }

    /// Charges a pod of `bytes` bytes to the owner key that signed its upload, if one did, and to the client's day.
    ///
    /// # Errors
    ///
    /// Returns an error if one of them has had too many; then nothing is charged.
    pub fn charge_pod(
        &self,
        owner: Option<&Key>,
        client: Option<IpAddr>,
        bytes: u64,
    ) -> Result<Charge, Exceeded> {
        let rules = self.rules.load();
        if rules.is_exempt(client) { Ok(Charge::default()) } else { Charge::of(&rules, owner, client, bytes) }
    }

    /// The network that stands for a client, or `None` if no limit holds for it.
    pub fn network(&self, client: Option<IpAddr>) -> Option<IpAddr> {
        client.filter(|_| !self.rules.load().is_exempt(client)).map(rate_limit_key)
    }

    /// A place for one more socket of `client`, where `open` are open; it is free again when what comes back is dropped.
    pub fn socket(&self, client: Option<IpAddr>, open: usize) -> Result<Option<ConnectionPermit>, Exceeded> {
        let rules = self.rules.load();
        let Some(address) = client.filter(|_| !rules.is_exempt(client)) else { return Ok(None) };
        let limit = rules.settings.sockets_per_address;
        let share = AddressLimits::of(limit, rules.max_sockets, rules.max_sockets.saturating_sub(open));
        self.sockets.enter(address, share).map(Some).ok_or(Exceeded {
            name: "sockets-per-address",
            quota: share.of_client.into(),
            unit: Some("concurrent-requests"),
            window: Duration::ZERO,
            wait: SOCKET_WAIT,
            sentence: "too many sockets of your address are open; close some, or try again later",
        })
    }
}

/// When a client that has too many sockets may try again: nobody knows when one of them ends.
const SOCKET_WAIT: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use super::{policy::DAY, table::CAPACITY, *};

    fn settings(toml: &str) -> Config {
        Config::from_toml(&format!("[limits]\n{toml}")).unwrap()
    }

    fn ip(address: &str) -> Option<IpAddr> {
        Some(address.parse().unwrap())
    }

    fn passed(limits: &Limits, kind: RequestKind, client: Option<IpAddr>) -> usize {
        (0..20).filter(|_| limits.check(kind, client).is_ok()).count()
    }

    #[test]
    fn one_client_has_its_limit_and_all_have_theirs() {
        let limits = Limits::new(&settings(
            "uploads_per_address = \"1/day burst 5\"\nuploads = \"1/day burst 12\"\nreads_per_address = \"off\"",
        ));
        assert_eq!(passed(&limits, RequestKind::Upload, ip("192.0.2.1")), 5);
        assert_eq!(passed(&limits, RequestKind::Upload, ip("2001:db8::1")), 5);
        assert_eq!(passed(&limits, RequestKind::Upload, ip("2001:db8::2")), 0, "one /64 is one client");
        assert_eq!(passed(&limits, RequestKind::Upload, ip("192.0.2.2")), 2);
        assert_eq!(passed(&limits, RequestKind::Upload, None), 0);
        assert_eq!(passed(&limits, RequestKind::Read, ip("192.0.2.1")), 20);
        assert_eq!(passed(&limits, RequestKind::Upload, ip("127.0.0.1")), 20, "loopback is exempt");
        let exceeded = limits.check(RequestKind::Upload, ip("192.0.2.1")).unwrap_err();
        assert_eq!((exceeded.name, exceeded.quota), ("uploads-per-address", 5));
        assert_eq!(exceeded.window, Duration::from_hours(5 * 24));
        assert!(exceeded.wait > Duration::from_hours(23) && exceeded.wait <= Duration::from_hours(24));
    }

    #[test]
    fn an_owner_key_is_limited_at_any_address() {
        let limits = Limits::new(&settings("uploads_per_owner = \"1/day burst 3\""));
        let passed = |key| {
            (0..9)
                .filter(|n| limits.charge_pod(Some(&[key; 32]), ip(&format!("192.0.2.{n}")), 1).is_ok())
                .count()
        };
        assert_eq!((passed(1), passed(2)), (3, 3));
    }

    #[test]
    fn an_address_may_upload_so_much_in_a_day() {
        let limits = Limits::new(&settings(
            "[quotas]\npods_per_address_and_day = 5\nbytes_per_address_and_day = \"1 MiB\"",
        ));
        let check = |address: &str, bytes| limits.charge_pod(Some(&[1; 32]), ip(address), bytes).map(drop);
        let exceeded = check("192.0.2.1", (1 << 20) + 1).unwrap_err();
        assert_eq!((exceeded.name, exceeded.wait), ("bytes-per-address-and-day", DAY));
        check("192.0.2.1", 1 << 19).unwrap();
        check("192.0.2.1", (1 << 19) - 2048).unwrap();
        let exceeded = check("192.0.2.1", 4096).unwrap_err();
        assert_eq!((exceeded.quota, exceeded.unit), (1 << 20, Some("content-bytes")));
        assert!(
            exceeded.wait > Duration::from_secs(160) && exceeded.wait < Duration::from_secs(170),
            "{exceeded:?}"
        );
        for _ in 0..5 {
            check("192.0.2.2", 1).unwrap();
        }
        assert_eq!(check("192.0.2.2", 1).unwrap_err().name, "pods-per-address-and-day");
        assert!((0..99).all(|_| check("127.0.0.1", 1 << 30).is_ok()), "loopback is exempt");
    }

    /// Where a table takes no more memory for another key, it takes none for a million.
    #[test]
    fn any_number_of_addresses_takes_less_than_100_mb() {
        let limits = Limits::new(&Config::default());
        let ask = |numbers: Range<u64>| {
            for n in numbers {
                // Each in a /48 of its own, which is remembered too.
                let bits = (0x2001_0000_0000 + u128::from(n)) << 80;
                let address = Some(IpAddr::V6(std::net::Ipv6Addr::from_bits(bits)));
                for kind in [
                    RequestKind::Upload,
                    RequestKind::Read,
                    RequestKind::Upgrade,
                    RequestKind::Registration,
                    RequestKind::Offer,
                ] {
                    let _ = limits.check(kind, address);
                }
                let mut owner = [0; 32];
                owner[..8].copy_from_slice(&n.to_le_bytes());
                let _ = limits.charge_pod(Some(&owner), address, 1000);
            }
        };
        let places = CAPACITY as u64;
        let full = allocation_counter::measure(|| ask(0..places));
        // Of 32,768 sets, some eleven of each table have had no key yet.
        let more = allocation_counter::measure(|| ask(places..places + places / 4));
        println!("{} bytes at most, then {} more", full.bytes_max, more.bytes_max);
        assert!(full.bytes_max < 99_000_000, "{full:?}");
        assert!(more.bytes_max < 100_000, "{more:?}");
    }

    #[test]
    fn other_settings_keep_what_did_not_change() {
        let limits =
            Limits::new(&settings("uploads_per_address = \"1/day burst 5\"\nreads_per_address = \"1/day\""));
        assert_eq!(passed(&limits, RequestKind::Upload, ip("192.0.2.1")), 5);
        assert_eq!(passed(&limits, RequestKind::Read, ip("192.0.2.1")), 1);
        limits.reload(&settings(
            "uploads_per_address = \"1/day burst 5\"\nreads_per_address = \"1/day burst 3\"",
        ));
        assert_eq!(passed(&limits, RequestKind::Upload, ip("192.0.2.1")), 0);
        assert_eq!(passed(&limits, RequestKind::Read, ip("192.0.2.1")), 3);
        limits.reload(&settings("exempt = [\"192.0.2.0/24\"]\nuploads_per_address = \"1/day burst 5\""));
        assert_eq!(passed(&limits, RequestKind::Upload, ip("192.0.2.1")), 20);
        assert!(limits.check(RequestKind::Upload, ip("127.0.0.1")).is_ok());
    }

    #[test]
    fn sockets_of_one_client_are_counted_while_they_are_open() {
        let limits = Limits::new(&settings("sockets_per_address = 2"));
        let enter = || limits.socket(ip("2001:db8::1"), 0);
        let (one, _two) = (enter().unwrap(), enter().unwrap());
        assert_eq!(enter().unwrap_err().name, "sockets-per-address");
        drop(one);
        assert!(enter().unwrap().is_some());
        let exempt: Vec<_> = (0..9).map(|_| limits.socket(ip("::1"), 0).unwrap()).collect();
        assert!(exempt.iter().all(Option::is_none));
    }

    #[test]
    fn no_client_and_no_site_has_more_than_half_of_all_sockets() {
        let open = |address: &dyn Fn(usize) -> String| {
            let limits = Limits::new(&settings("sockets_per_address = 50\n[signal]\nmax_sockets = 60"));
            let mut held = Vec::new();
            let mut quota = None;
            for n in 0..60 {
                match limits.socket(ip(&address(n)), held.len()) {
                    Ok(socket) => held.push(socket),
                    Err(exceeded) => quota = Some(exceeded.quota),
                }
            }
            (held.len(), quota)
        };
        assert_eq!(open(&|n| format!("2001:db8:1:{n:x}::1")).0, 30);
        assert_eq!(open(&|_| "192.0.2.1".into()), (30, Some(30)));
    }
}
