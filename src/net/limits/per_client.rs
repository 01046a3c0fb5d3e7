//! A limit for each client, and for each IPv6 /48, all of which one customer may have.

use std::{net::IpAddr, num::NonZeroU32};

use super::{
    each::{Each, Limit},
    policy::{Exceeded, Policy},
    table::Table,
};
use crate::net::{
    client_permits::ClientKey,
    connection_limiter::{SITE_FACTOR, rate_limit_key, site_of},
};

/// A limit for each client. All clients of one IPv6 /48 together have [`SITE_FACTOR`] times as much.
#[derive(Debug)]
pub struct PerClient {
    of_client: Each<ClientKey>,
    of_site: Each<ClientKey>,
}

impl PerClient {
    pub fn new(policy: Policy) -> Self {
        let table = Table::default();
        let of_site = Each::with_table(policy.times(SITE_FACTOR), table.clone());
        Self { of_client: Each::with_table(policy, table), of_site }
    }

    pub fn policy(&self) -> Policy {
        self.of_client.policy
    }
}

impl Limit<IpAddr> for PerClient {
    fn charge(&self, address: &IpAddr, count: NonZeroU32) -> Result<(), Exceeded> {
        let (client, site) = networks(*address);
        // First the client's own limit: what it is refused takes nothing from others in its /48.
        self.of_client.charge(&client, count)?;
        let Some(site) = site else { return Ok(()) };
        self.of_site.charge(&site, count).inspect_err(|_| self.of_client.give_back(&client, count))
    }

    fn give_back(&self, address: &IpAddr, count: NonZeroU32) {
        let (client, site) = networks(*address);
        self.of_client.give_back(&client, count);
        if let Some(site) = site {
            self.of_site.give_back(&site, count);
        }
    }
}

fn networks(address: IpAddr) -> (ClientKey, Option<ClientKey>) {
    let client = rate_limit_key(address);
    (ClientKey::Client(client), site_of(client).map(ClientKey::Site))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::Config,
        net::limits::{Limits, RequestKind},
    };

    const RATES: [&str; 5] = [
        "uploads_per_address",
        "reads_per_address",
        "upgrades_per_address",
        "registrations_per_address",
        "offers_per_address",
    ];

    /// Counts one for the client at an address, if it may have one more.
    type Take = Box<dyn Fn(&Limits, IpAddr) -> bool>;

    /// Everything that is counted for an address.
    fn takes() -> Vec<(&'static str, Take)> {
        let of =
            |kind| -> Take { Box::new(move |limits, address| limits.check(kind, Some(address)).is_ok()) };
        let pod = |limits: &Limits, address| limits.charge_pod(None, Some(address), 1 << 10).is_ok();
        vec![
            ("uploads", of(RequestKind::Upload)),
            ("reads", of(RequestKind::Read)),
            ("upgrades", of(RequestKind::Upgrade)),
            ("registrations", of(RequestKind::Registration)),
            ("offers", of(RequestKind::Offer)),
            ("changes of owners", of(RequestKind::OwnerChange)),
            ("wrong credentials", of(RequestKind::WrongCredential)),
            ("credentials", of(RequestKind::Credential)),
            ("credentials of newcomers", of(RequestKind::NewcomerCredential)),
            ("pods of a day", Box::new(pod)),
        ]
    }

    /// Limits of five for an address; `totals` are those of all clients.
    fn config(totals: &str) -> Config {
        let rates = RATES.map(|name| format!("{name} = \"1/day burst 5\"\n")).concat();
        Config::from_toml(&format!(
            "[limits]\n{rates}{totals}\n[quotas]\npods_per_address_and_day = 5\nbytes_per_address_and_day = \"1 MiB\""
        ))
        .unwrap_or_else(|errors| panic!("{errors:?}"))
    }

    /// An address in a /64 of a /48.
    fn address(site: u16, network: u16) -> IpAddr {
        [0x2001, 0xdb8, site, network, 0, 0, 0, 1].into()
    }

    fn taken(take: &Take, limits: &Limits, addresses: impl Iterator<Item = IpAddr>) -> u32 {
        addresses.map(|address| u32::from(take(limits, address))).sum()
    }

    /// Wrong credentials are made good within seconds, which a test on a busy machine may take.
    fn assert_taken(what: &str, taken: u32, expected: u32) {
        let recovered = if what == "wrong credentials" { 5 } else { 0 };
        assert!((expected..=expected + recovered).contains(&taken), "{what}: {taken} in place of {expected}");
    }

    #[test]
    fn a_48_has_a_few_times_the_limit_of_an_address_and_takes_nothing_from_others() {
        for (what, take) in takes() {
            let limit = match what {
                "wrong credentials" | "credentials of newcomers" => 10,
                "credentials" => 100,
                _ => 5,
            };
            let limits = Limits::new(&config(""));
            // One /64 is over its limit, and leaves the others of its /48 what they may have.
            let one = std::iter::repeat_n(address(1, 0), 500);
            assert_taken(what, taken(&take, &limits, one), limit);
            let others = (0..2_000).map(|n| address(1, 1 + n));
            assert_taken(what, taken(&take, &limits, others), (SITE_FACTOR - 1) * limit);
            for stranger in [address(2, 1), [192, 0, 2, 1].into()] {
                let stranger = std::iter::repeat_n(stranger, 500);
                assert_taken(what, taken(&take, &limits, stranger), limit);
            }
        }
    }

    #[test]
    fn what_its_48_is_refused_is_not_charged_to_an_address() {
        let limits = Limits::new(&config(""));
        let charge = |network| limits.charge_pod(None, Some(address(1, network)), 1);
        let charged: Vec<_> = (0..5 * SITE_FACTOR as u16).map(|n| charge(n / 5).unwrap()).collect();
        for _ in 0..100 {
            let _ = charge(9).unwrap_err();
        }
        for charge in charged {
            charge.keep_if(false);
        }
        assert_eq!((0..100).filter(|_| charge(9).is_ok()).count(), 5);
    }

    #[test]
    fn a_48_has_a_few_times_as_many_bytes_a_day() {
        let mut config = config("");
        config.quotas.pods_per_address_and_day = None;
        let limits = Limits::new(&config);
        let take: Take = Box::new(|limits, address| limits.charge_pod(None, Some(address), 1 << 18).is_ok());
        assert_eq!(taken(&take, &limits, (0..500).map(|n| address(1, n))), 4 * SITE_FACTOR);
    }

    /// Nor does it cost an address or its /48 anything that the broker as a whole has too much to do.
    #[test]
    fn what_the_total_refuses_is_charged_to_nobody() {
        let totals = ["uploads", "reads", "upgrades", "registrations"];
        let with = |rate: &str| config(&totals.map(|name| format!("{name} = \"{rate}\"\n")).concat());
        for (what, take) in takes().into_iter().take(totals.len()) {
            let limits = Limits::new(&with("1/day burst 1"));
            assert!(take(&limits, [192, 0, 2, 1].into()), "{what}");
            assert_eq!(taken(&take, &limits, (0..500).map(|n| address(1, n % 50))), 0, "{what}");
            limits.reload(&with("off"));
            assert_eq!(taken(&take, &limits, std::iter::repeat_n(address(1, 0), 500)), 5, "{what}");
            let others = (0..500).map(|n| address(1, 1 + n));
            assert_eq!(taken(&take, &limits, others), 5 * (SITE_FACTOR - 1), "{what}");
        }
    }
}
