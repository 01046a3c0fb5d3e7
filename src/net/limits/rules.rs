//! All limits, and how those that did not change go on under another configuration.

use std::{net::IpAddr, num::NonZeroU32, sync::Arc};

use governor::Quota;

use super::{
    all::All,
    each::{Each, Limit},
    per_client::PerClient,
    policy::{Exceeded, Policy},
    request_kind::RequestKind,
};
use crate::config::{Config, LimitSettings};

/// An Ed25519 public key.
pub type Key = [u8; 32];

/// Quotas of bytes count in these: a limiter counts to four billion.
pub const KILOBYTE: u64 = 1024;

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

/// All limits, as one configuration has them.
#[derive(Debug)]
pub struct RateLimits {
    pub settings: LimitSettings,
    /// Of all clients together.
    pub max_sockets: usize,
    pub uploads: Pair,
    pub reads: Pair,
    pub upgrades: Pair,
    pub registrations: Pair,
    pub offers: Pair,
    pub wrong_credentials: Pair,
    pub credentials: Pair,
    pub newcomer_credentials: Pair,
    pub uploads_per_owner: Option<Arc<Each<Key>>>,
    pub pods_per_day: Option<Arc<PerClient>>,
    pub kilobytes_per_day: Option<Arc<PerClient>>,
}

/// One thing's limit for one client, and in total.
#[derive(Clone, Debug)]
pub struct Pair {
    each: Option<Arc<PerClient>>,
    all: Option<Arc<All>>,
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

    /// Returns the limit of a client alone.
    pub fn of_client(&self) -> Self {
        Self { each: self.each.clone(), all: None }
    }

    /// Returns the limit of all clients together alone.
    pub fn of_all(&self) -> Self {
        Self { each: None, all: self.all.clone() }
    }

    /// Counts one for each of `pairs`, or none. The client's own limits come first, so that what they refuse takes nothing
    /// from others.
    pub fn check_all(pairs: &[Self], client: Option<IpAddr>) -> Result<(), Exceeded> {
        for (before, pair) in pairs.iter().enumerate() {
            pair.check_client(client)
                .inspect_err(|_| pairs[..before].iter().for_each(|pair| pair.give_back_to_client(client)))?;
        }
        for (before, pair) in pairs.iter().enumerate() {
            pair.check_total().inspect_err(|_| {
                pairs[..before].iter().for_each(Self::give_back_total);
                pairs.iter().for_each(|pair| pair.give_back_to_client(client));
            })?;
        }
        Ok(())
    }

    fn check_client(&self, client: Option<IpAddr>) -> Result<(), Exceeded> {
        let (Some(each), Some(client)) = (&self.each, client) else { return Ok(()) };
        each.charge(&client, NonZeroU32::MIN)
    }

    fn give_back_to_client(&self, client: Option<IpAddr>) {
        if let (Some(each), Some(client)) = (&self.each, client) {
            each.give_back(&client, NonZeroU32::MIN);
        }
    }

    fn check_total(&self) -> Result<(), Exceeded> {
        self.all.as_ref().map_or(Ok(()), |all| all.check())
    }

    /// Takes back what was counted for all clients together.
    pub fn give_back_total(&self) {
        if let Some(all) = &self.all {
            all.give_back();
        }
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

impl RateLimits {
    pub fn new(config: &Config, before: Option<&Self>) -> Self {
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

    /// Returns the limits that hold for a request.
    pub fn pair(&self, kind: RequestKind) -> Pair {
        match kind {
            RequestKind::OwnerChange => return self.uploads.of_client(),
            RequestKind::NewcomerChange => return self.uploads.of_all(),
            RequestKind::Upload => &self.uploads,
            RequestKind::Read => &self.reads,
            RequestKind::Upgrade => &self.upgrades,
            RequestKind::Registration => &self.registrations,
            RequestKind::Offer => &self.offers,
            RequestKind::WrongCredential => &self.wrong_credentials,
            RequestKind::Credential => &self.credentials,
            RequestKind::NewcomerCredential => &self.newcomer_credentials,
        }
        .clone()
    }

    pub fn is_exempt(&self, client: Option<IpAddr>) -> bool {
        client.is_some_and(|client| self.settings.exempts(client))
    }
}
