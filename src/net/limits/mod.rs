//! How often one client may ask for something, and all clients together.
//!
//! The limiters are governor's (GCRA); what they know of single clients lies in tables of fixed size ([`table`]).

mod charge;
mod per_client;
mod table;

use std::{hash::Hash, net::IpAddr, num::NonZeroU32, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use governor::{
    Quota, RateLimiter,
    clock::{Clock, DefaultClock},
    state::{InMemoryState, NotKeyed},
};

pub use self::charge::Charge;
use self::{per_client::PerClient, table::Table};
use super::crowd::{Counted, Crowd, Share, group_of};
use crate::config::{Config, LimitSettings, RateLimit};

/// An Ed25519 public key.
pub type Key = [u8; 32];

/// What is limited for one client and in total.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Pods that come in.
    Upload,
    /// Requests of owners that change something: for an address as uploads, and not in total, which strangers can use up.
    OwnerChange,
    /// Those of them that add something for a key that owns nothing yet: as uploads in total.
    NewcomerChange,
    /// Everything that is looked up.
    Read,
    /// Requests that become sockets.
    Upgrade,
    /// `register` frames.
    Registration,
    /// `offer` frames.
    Offer,
    /// Sockets with a wrong credential.
    WrongCredential,
    /// Credentials that are made.
    Credential,
    /// Those of them that are for keys that own nothing.
    NewcomerCredential,
}

/// All limits as they are set now.
#[derive(Debug)]
pub struct Limits {
    rules: ArcSwap<Rules>,
    sockets: Arc<Crowd>,
}

#[derive(Debug)]
struct Rules {
    settings: LimitSettings,
    /// Of all clients together.
    max_sockets: usize,
    uploads: Pair,
    reads: Pair,
    upgrades: Pair,
    registrations: Pair,
    offers: Pair,
    wrong_credentials: Pair,
    credentials: Pair,
    newcomer_credentials: Pair,
    uploads_per_owner: Option<Arc<Each<Key>>>,
    pods_per_day: Option<Arc<PerClient>>,
    kilobytes_per_day: Option<Arc<PerClient>>,
}

/// One thing's limit for one client, and in total.
#[derive(Clone, Debug)]
struct Pair {
    each: Option<Arc<PerClient>>,
    all: Option<Arc<All>>,
}

/// A limit that a request came up against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exceeded {
    /// What the limit is called in `RateLimit-Policy`.
    pub name: &'static str,
    /// How many it allows at once.
    pub quota: u64,
    /// What is counted, where that is not requests.
    pub unit: Option<&'static str>,
    /// In which time so many are allowed again.
    pub window: Duration,
    /// When the next one is.
    pub wait: Duration,
    /// A sentence for the client.
    pub sentence: &'static str,
}

/// A limit that holds for each key apart.
trait Limit<K> {
    /// Counts `count` at once for `key`, or none.
    fn charge(&self, key: &K, count: NonZeroU32) -> Result<(), Exceeded>;

    /// Takes back `count` that were counted.
    fn give_back(&self, key: &K, count: NonZeroU32);
}

/// A limit for each key.
#[derive(Debug)]
struct Each<K: Hash + Eq + Clone> {
    policy: Policy,
    limiter: RateLimiter<K, Table<K>, DefaultClock>,
    /// What the limiter knows, for what is given back.
    table: Table<K>,
}

/// A limit for all clients together.
#[derive(Debug)]
struct All {
    policy: Policy,
    limiter: RateLimiter<NotKeyed, InMemoryState, DefaultClock>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Policy {
    name: &'static str,
    sentence: &'static str,
    quota: Quota,
    /// What is counted, and how many of it are one for the limiter.
    unit: Option<(&'static str, u64)>,
}

const DAY: Duration = Duration::from_hours(24);
/// Quotas of bytes count in these: a limiter counts to four billion.
const KILOBYTE: u64 = 1024;

impl Policy {
    fn new(name: &'static str, sentence: &'static str, rate: RateLimit) -> Option<Self> {
        let RateLimit::Rate(rate) = rate else { return None };
        let quota = Quota::with_period(rate.interval()).expect("a rate is finite").allow_burst(rate.burst());
        Some(Self { name, sentence, quota, unit: None })
    }

    /// So much in a day; what is used is free again a day later.
    fn per_day(name: &'static str, sentence: &'static str, count: u64) -> Self {
        let count = u32::try_from(count.max(1)).ok().and_then(NonZeroU32::new).unwrap_or(NonZeroU32::MAX);
        let quota =
            Quota::with_period(DAY / count.get()).expect("a day has enough nanoseconds").allow_burst(count);
        Self { name, sentence, quota, unit: None }
    }

    /// Returns the policy of a limit that allows `factor` times as much.
    fn times(self, factor: u32) -> Self {
        let quota = Quota::with_period(self.quota.replenish_interval() / factor);
        let quota = quota.expect("the fastest rate that can be set has nanoseconds to spare");
        let burst =
            self.quota.burst_size().saturating_mul(NonZeroU32::new(factor).unwrap_or(NonZeroU32::MIN));
        Self { quota: quota.allow_burst(burst), ..self }
    }

    fn exceeded(&self, wait: Duration) -> Exceeded {
        Exceeded {
            name: self.name,
            quota: u64::from(self.quota.burst_size().get()) * self.unit.map_or(1, |(_, size)| size),
            unit: self.unit.map(|(name, _)| name),
            window: self.quota.burst_size_replenished_in(),
            wait,
            sentence: self.sentence,
        }
    }
}

impl<K: Hash + Eq + Clone> Each<K> {
    fn new(policy: Policy) -> Self {
        Self::with_table(policy, Table::default())
    }

    fn with_table(policy: Policy, table: Table<K>) -> Self {
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

impl All {
    fn new(policy: Policy) -> Self {
        Self { policy, limiter: RateLimiter::direct(policy.quota) }
    }

    fn check(&self) -> Result<(), Exceeded> {
        let now = || self.limiter.clock().now();
        self.limiter.check().map_err(|until| self.policy.exceeded(until.wait_time_from(now())))
    }
}

impl Pair {
    /// The limits of these policies; those of `before` go on where nothing changed.
    fn new(each: Option<Policy>, all: Option<Policy>, before: Option<&Self>) -> Self {
        Self {
            each: go_on(
                each,
                before.and_then(|before| before.each.as_ref()),
                |limit| limit.policy(),
                PerClient::new,
            ),
            all: go_on(all, before.and_then(|before| before.all.as_ref()), |limit| limit.policy, All::new),
        }
    }

    fn check(&self, client: Option<IpAddr>) -> Result<(), Exceeded> {
        // First the client's own limit, so that one client alone does not use up what is for all.
        self.check_client(client)?;
        self.check_total().inspect_err(|_| {
            if let (Some(each), Some(client)) = (&self.each, client) {
                each.give_back(&client, NonZeroU32::MIN);
            }
        })
    }

    fn check_client(&self, client: Option<IpAddr>) -> Result<(), Exceeded> {
        let (Some(each), Some(client)) = (&self.each, client) else { return Ok(()) };
        each.charge(&client, NonZeroU32::MIN)
    }

    fn check_total(&self) -> Result<(), Exceeded> {
        self.all.as_ref().map_or(Ok(()), |all| all.check())
    }
}

fn go_on<L>(
    policy: Option<Policy>,
    before: Option<&Arc<L>>,
    of: impl Fn(&L) -> Policy,
    new: impl Fn(Policy) -> L,
) -> Option<Arc<L>> {
    let policy = policy?;
    match before.filter(|before| of(before) == policy) {
        Some(before) => Some(before.clone()),
        None => Some(Arc::new(new(policy))),
    }
}

impl Rules {
    fn new(config: &Config, before: Option<&Self>) -> Self {
        let (settings, quotas) = (&config.limits, &config.quotas);
        let pair = |name: [_; 2], each, all, of: fn(&Self) -> &Pair| {
            let each = Policy::new(
                name[0],
                "too many requests of this kind from your address; try again later",
                each,
            );
            let all =
                Policy::new(name[1], "this broker gets too many requests of this kind; try again later", all);
            Pair::new(each, all, before.map(of))
        };
        let per_owner = Policy::new(
            "uploads-per-owner",
            "too many uploads of this owner key; try again later",
            settings.uploads_per_owner,
        );
        let of_before = before.and_then(|before| before.uploads_per_owner.as_ref());
        Self {
            uploads: pair(
                ["uploads-per-address", "uploads"],
                settings.uploads_per_address,
                settings.uploads,
                |rules| &rules.uploads,
            ),
            reads: pair(
                ["reads-per-address", "reads"],
                settings.reads_per_address,
                settings.reads,
                |rules| &rules.reads,
            ),
            upgrades: pair(
                ["upgrades-per-address", "upgrades"],
                settings.upgrades_per_address,
                settings.upgrades,
                |rules| &rules.upgrades,
            ),
            registrations: pair(
                ["registrations-per-address", "registrations"],
                settings.registrations_per_address,
                settings.registrations,
                |rules| &rules.registrations,
            ),
            offers: Pair::new(
                Policy::new(
                    "offers-per-address",
                    "too many offers from your address; try again later",
                    settings.offers_per_address,
                ),
                None,
                before.map(|rules| &rules.offers),
            ),
            wrong_credentials: Pair::new(
                Some(WRONG_CREDENTIALS),
                None,
                before.map(|rules| &rules.wrong_credentials),
            ),
            credentials: Pair::new(
                Some(Policy::per_day("credentials-per-address-and-day", OF_CREDENTIALS, CREDENTIALS_PER_DAY)),
                None,
                before.map(|rules| &rules.credentials),
            ),
            newcomer_credentials: Pair::new(
                Some(Policy::per_day(
                    "newcomer-credentials-per-address-and-day",
                    OF_NEWCOMERS,
                    NEWCOMER_CREDENTIALS_PER_DAY,
                )),
                None,
                before.map(|rules| &rules.newcomer_credentials),
            ),
            uploads_per_owner: go_on(per_owner, of_before, |limit| limit.policy, Each::new),
            pods_per_day: go_on(
                quotas
                    .pods_per_address_and_day
                    .map(|pods| Policy::per_day("pods-per-address-and-day", OF_A_DAY, pods.into())),
                before.and_then(|before| before.pods_per_day.as_ref()),
                |limit| limit.policy(),
                PerClient::new,
            ),
            kilobytes_per_day: go_on(
                quotas.bytes_per_address_and_day.map(|bytes| Policy {
                    unit: Some(("content-bytes", KILOBYTE)),
                    ..Policy::per_day("bytes-per-address-and-day", OF_A_DAY, bytes.as_u64() / KILOBYTE)
                }),
                before.and_then(|before| before.kilobytes_per_day.as_ref()),
                |limit| limit.policy(),
                PerClient::new,
            ),
            settings: settings.clone(),
            max_sockets: config.signal.max_sockets as usize,
        }
    }

    fn is_exempt(&self, client: Option<IpAddr>) -> bool {
        client.is_some_and(|client| self.settings.exempts(client))
    }
}

impl Limits {
    /// The limits that the settings ask for.
    pub fn new(config: &Config) -> Self {
        Self { rules: ArcSwap::from_pointee(Rules::new(config, None)), sockets: Arc::default() }
    }

    /// Puts other limits in place; those that did not change go on as they are.
    pub fn reload(&self, config: &Config) {
        let rules = Rules::new(config, Some(&self.rules.load()));
        self.rules.store(Arc::new(rules));
    }

    /// Counts one of `kind`, unless there were too many. A client without an address is counted among all only.
    pub fn check(&self, kind: Kind, client: Option<IpAddr>) -> Result<(), Exceeded> {
        let rules = self.rules.load();
        if rules.is_exempt(client) {
            return Ok(());
        }
        let pair = match kind {
            Kind::OwnerChange => return rules.uploads.check_client(client),
            Kind::NewcomerChange => return rules.uploads.check_total(),
            Kind::Upload => &rules.uploads,
            Kind::Read => &rules.reads,
            Kind::Upgrade => &rules.upgrades,
            Kind::Registration => &rules.registrations,
            Kind::Offer => &rules.offers,
            Kind::WrongCredential => &rules.wrong_credentials,
            Kind::Credential => &rules.credentials,
            Kind::NewcomerCredential => &rules.newcomer_credentials,
        };
        pair.check(client)
    }

    /// The network that stands for a client, or `None` if no limit holds for it.
    pub fn network(&self, client: Option<IpAddr>) -> Option<IpAddr> {
        client.filter(|_| !self.rules.load().is_exempt(client)).map(group_of)
    }

    /// A place for one more socket of `client`; it is free again when what comes back is dropped.
    pub fn socket(&self, client: Option<IpAddr>) -> Result<Option<Counted>, Exceeded> {
        let rules = self.rules.load();
        let Some(address) = client.filter(|_| !rules.is_exempt(client)) else { return Ok(None) };
        let limit = rules.settings.sockets_per_address;
        let share = Share::of(limit, rules.max_sockets);
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

/// Wrong credentials that a client may present without being held back.
const WRONG_CREDENTIALS: Policy = Policy {
    name: "wrong-credentials-per-address",
    sentence: "too many wrong credentials from your address; try again later",
    quota: Quota::per_minute(NonZeroU32::new(10).unwrap()),
    unit: None,
};
const CREDENTIALS_PER_DAY: u64 = 100;
const OF_CREDENTIALS: &str = "your address has made as many credentials in a day as it may; try again later";
const NEWCOMER_CREDENTIALS_PER_DAY: u64 = 10;
const OF_NEWCOMERS: &str = "your address has made as many credentials in a day as it may for keys that own nothing here; upload a signed pod of the key first (gemmapod-signal pods put)";
const OF_A_DAY: &str = "your address has uploaded as much as it may in a day; try again later";
/// When a client that has too many sockets may try again: nobody knows when one of them ends.
const SOCKET_WAIT: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(toml: &str) -> Config {
        Config::from_toml(&format!("[limits]\n{toml}")).unwrap()
    }

    fn ip(address: &str) -> Option<IpAddr> {
        Some(address.parse().unwrap())
    }

    fn passed(limits: &Limits, kind: Kind, client: Option<IpAddr>) -> usize {
        (0..20).filter(|_| limits.check(kind, client).is_ok()).count()
    }

    #[test]
    fn one_client_has_its_limit_and_all_have_theirs() {
        let limits = Limits::new(&settings(
            "uploads_per_address = \"1/day burst 5\"\nuploads = \"1/day burst 12\"\nreads_per_address = \"off\"",
        ));
        assert_eq!(passed(&limits, Kind::Upload, ip("192.0.2.1")), 5);
        assert_eq!(passed(&limits, Kind::Upload, ip("2001:db8::1")), 5);
        assert_eq!(passed(&limits, Kind::Upload, ip("2001:db8::2")), 0, "one /64 is one client");
        assert_eq!(passed(&limits, Kind::Upload, ip("192.0.2.2")), 2);
        assert_eq!(passed(&limits, Kind::Upload, None), 0);
        assert_eq!(passed(&limits, Kind::Read, ip("192.0.2.1")), 20);
        assert_eq!(passed(&limits, Kind::Upload, ip("127.0.0.1")), 20, "loopback is exempt");
        let exceeded = limits.check(Kind::Upload, ip("192.0.2.1")).unwrap_err();
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

    #[test]
    fn a_million_addresses_take_less_than_100_mb() {
        let config = Config::default();
        let taken = allocation_counter::measure(|| {
            let limits = Limits::new(&config);
            for n in 0..1_000_000_u64 {
                // Each in a /48 of its own, which is remembered too.
                let bits = (0x2001_0000_0000 + u128::from(n)) << 80;
                let address = Some(IpAddr::V6(std::net::Ipv6Addr::from_bits(bits)));
                for kind in [Kind::Upload, Kind::Read, Kind::Upgrade, Kind::Registration, Kind::Offer] {
                    let _ = limits.check(kind, address);
                }
                let mut owner = [0; 32];
                owner[..8].copy_from_slice(&n.to_le_bytes());
                let _ = limits.charge_pod(Some(&owner), address, 1000);
            }
        });
        println!("{} bytes at most", taken.bytes_max);
        assert!(taken.bytes_max < 100_000_000, "{taken:?}");
    }

    #[test]
    fn other_settings_keep_what_did_not_change() {
        let limits =
            Limits::new(&settings("uploads_per_address = \"1/day burst 5\"\nreads_per_address = \"1/day\""));
        assert_eq!(passed(&limits, Kind::Upload, ip("192.0.2.1")), 5);
        assert_eq!(passed(&limits, Kind::Read, ip("192.0.2.1")), 1);
        limits.reload(&settings(
            "uploads_per_address = \"1/day burst 5\"\nreads_per_address = \"1/day burst 3\"",
        ));
        assert_eq!(passed(&limits, Kind::Upload, ip("192.0.2.1")), 0);
        assert_eq!(passed(&limits, Kind::Read, ip("192.0.2.1")), 3);
        limits.reload(&settings("exempt = [\"192.0.2.0/24\"]\nuploads_per_address = \"1/day burst 5\""));
        assert_eq!(passed(&limits, Kind::Upload, ip("192.0.2.1")), 20);
        assert!(limits.check(Kind::Upload, ip("127.0.0.1")).is_ok());
    }

    #[test]
    fn sockets_of_one_client_are_counted_while_they_are_open() {
        let limits = Limits::new(&settings("sockets_per_address = 2"));
        let enter = || limits.socket(ip("2001:db8::1"));
        let (one, _two) = (enter().unwrap(), enter().unwrap());
        assert_eq!(enter().unwrap_err().name, "sockets-per-address");
        drop(one);
        assert!(enter().unwrap().is_some());
        let exempt: Vec<_> = (0..9).map(|_| limits.socket(ip("::1")).unwrap()).collect();
        assert!(exempt.iter().all(Option::is_none));
    }

    #[test]
    fn no_client_and_no_site_has_more_than_half_of_all_sockets() {
        let limits = Limits::new(&settings("sockets_per_address = 50\n[signal]\nmax_sockets = 60"));
        let open = |address: String| limits.socket(ip(&address));
        let of_site = (0..60).filter_map(|n| open(format!("2001:db8:1:{n:x}::1")).ok()).collect::<Vec<_>>();
        let of_client = (0..60).filter_map(|_| open("192.0.2.1".into()).ok()).collect::<Vec<_>>();
        assert_eq!((of_site.len(), of_client.len()), (30, 30));
        assert_eq!(open("192.0.2.1".into()).unwrap_err().quota, 30);
    }
}
