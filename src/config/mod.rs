//! Every setting: its name, its default, its check; and where its value comes from.
//!
//! A value is looked for in this order: flag, environment, file, default. [`Layers`] puts the four together and
//! reports all that is wrong with the place where it stands.

mod access;
mod error;
mod grace;
mod kind;
mod layers;
mod list;
mod live;
mod nearest;
mod net;
#[cfg(test)]
mod properties;
mod rate;
mod reload;
mod settings;
mod tls;
mod value;

pub use self::{
    access::{BindMode, Lifetime, UploadPolicy},
    error::{ConfigError, Origin},
    grace::Grace,
    kind::{Kind, settings_json},
    layers::Layers,
    list::{Entry, List},
    live::Live,
    net::{FileMode, ListenAddress, Network, Purpose, TrustedProxy},
    rate::{Rate, RateLimit},
    settings::{
        AcmeSettings, CertificateFiles, Config, HealthSettings, HttpSettings, JanitorSettings, LimitSettings,
        Listen, LogSettings, PodSettings, QuotaSettings, SETTINGS, Setting, SignalSettings, TlsSettings,
        UploadSettings,
    },
    tls::{AcmeDirectory, ChallengeKind, Contact, Domain, TlsMode},
    value::{
        Hostname, Isolation, LogFormat, LogLevel, OriginsShown, PublicUrl, RegistryKind, Text, Value, Wrong,
    },
};

use crate::pods::Quotas;

impl Config {
    /// Reads a configuration from the TOML in `text`; what it does not name keeps its default.
    ///
    /// # Errors
    ///
    /// Everything that is wrong: unknown keys, values of the wrong kind, settings that contradict one another.
    pub fn from_toml(text: &str) -> Result<Self, Vec<ConfigError>> {
        Layers::default().toml("configuration", text).finish()
    }

    /// Where certificates come from, after the defaults.
    pub fn tls_mode(&self) -> TlsMode {
        match self.tls.mode {
            Some(mode) => mode,
            None if self.tls.domains.is_empty() => TlsMode::Off,
            None => TlsMode::Acme,
        }
    }

    /// Settings of TLS that contradict one another: the key to blame, and the rest of the sentence.
    fn tls_contradictions(&self) -> Vec<(&'static str, &'static str, &'static str)> {
        let (mode, tls, acme) = (self.tls_mode(), &self.tls, &self.acme);
        let listens_tls = self.listen.iter().any(|listen| listen.tls);
        let needs_domains = matches!(mode, TlsMode::Acme | TlsMode::SelfSigned);
        let is_wildcard = |domain: &Domain| matches!(domain, Domain::Name(name) if name.starts_with("*."));
        let not_for_acme = |domain: &Domain| matches!(domain, Domain::Address(_)) || is_wildcard(domain);
        [
            (mode == TlsMode::Off && listens_tls, "listen", "tls.mode", "has tls = true, but tls.mode is \"off\": set tls.mode, or tls = false"),
            (mode != TlsMode::Off && !self.listen.is_empty() && !listens_tls, "tls.mode", "listen", "gets certificates that no listener uses: set tls = true in one [[listen]], or tls.mode = \"off\""),
            (needs_domains && tls.domains.is_empty(), "tls.domains", "tls.mode", "must name at least one domain for this tls.mode"),
            (mode == TlsMode::Files && tls.certificates.is_empty(), "tls.certificates", "tls.mode", "must name at least one chain and key for tls.mode = \"files\""),
            (mode != TlsMode::Files && !tls.certificates.is_empty(), "tls.certificates", "tls.mode", "is for tls.mode = \"files\" only"),
            (mode == TlsMode::Acme && tls.domains.iter().any(not_for_acme), "tls.domains", "tls.mode", "must be plain domain names for tls.mode = \"acme\": no addresses, no wildcards"),
            (acme.challenges.is_empty(), "acme.challenges", "acme.challenges", "must name at least one challenge"),
            (acme.eab_key_id.is_some() != acme.eab_key_file.is_some(), "acme.eab_key_id", "acme.eab_key_file", "and acme.eab_key_file go together"),
        ]
        .into_iter()
        .filter_map(|(wrong, key, other, problem)| wrong.then_some((key, other, problem)))
        .collect()
    }

    /// Settings of isolation that contradict one another, in the same way.
    fn isolation_contradictions(&self) -> Vec<(&'static str, &'static str, &'static str)> {
        let pods = &self.pods;
        let is_plain = |domain: &Domain| matches!(domain, Domain::Name(name) if !name.starts_with("*."));
        let by_host = pods.isolation == Isolation::Subdomain;
        [
            (by_host && pods.domain.is_none(), "pods.isolation", "pods.domain", "= \"subdomain\" needs pods.domain"),
            (!by_host && pods.domain.is_some(), "pods.domain", "pods.isolation", "is for pods.isolation = \"subdomain\" only"),
            (pods.domain.as_ref().is_some_and(|domain| !is_plain(domain)), "pods.domain", "pods.domain", "must be a domain name, without an asterisk: pods get hosts below it"),
            (by_host && self.tls_mode() == TlsMode::Acme, "pods.isolation", "tls.mode", "= \"subdomain\" needs a wildcard certificate, which tls.mode = \"acme\" does not get: use \"files\", or a proxy"),
        ]
        .into_iter()
        .filter_map(|(wrong, key, other, problem)| wrong.then_some((key, other, problem)))
        .collect()
    }

    /// Settings of the janitor that contradict one another, in the same way.
    fn janitor_contradictions(&self) -> Vec<(&'static str, &'static str, &'static str)> {
        let JanitorSettings { high_water, low_water, .. } = &self.janitor;
        let (high, low) = ("janitor.high_water", "janitor.low_water");
        [
            (high_water.is_some() != low_water.is_some(), high, low, "and janitor.low_water go together"),
            (high_water.is_some() && low_water > high_water, low, high, "must be at most janitor.high_water"),
        ]
        .into_iter()
        .filter_map(|(wrong, key, other, problem)| wrong.then_some((key, other, problem)))
        .collect()
    }

    /// How much may be kept.
    pub fn quotas(&self) -> Quotas {
        let QuotaSettings { pods, bytes, pods_per_owner, bytes_per_owner, .. } = &self.quotas;
        Quotas {
            pods: pods.map(u64::from),
            bytes: bytes.map(|size| size.as_u64()),
            pods_per_owner: pods_per_owner.map(u64::from),
            bytes_per_owner: bytes_per_owner.map(|size| size.as_u64()),
        }
    }

    /// Where to listen, after the defaults.
    pub fn listeners(&self) -> Vec<Listen> {
        if !self.listen.is_empty() {
            return self.listen.clone();
        }
        let tls = self.tls_mode() != TlsMode::Off;
        let on = |port, tls, purpose| {
            let host = self.hostname.as_str().to_owned();
            Listen { address: Some(ListenAddress::Tcp { host, port }), tls, purpose, ..Listen::default() }
        };
        match (self.port, tls) {
            (port, false) => vec![on(port.unwrap_or(8080), false, Purpose::Public)],
            (Some(port), true) => vec![on(port, true, Purpose::Public)],
            (None, true) => vec![on(443, true, Purpose::Public), on(80, false, Purpose::Redirect)],
        }
    }
}
