//! What settings mean together, after the defaults.

use std::net::IpAddr;

use super::{
    net::{ListenAddress, Purpose},
    settings::{Config, LimitSettings, Listen, QuotaSettings, SignalSettings},
    tls::TlsMode,
};
use crate::pods::Quotas;

impl Config {
    /// Where certificates come from, after the defaults.
    pub fn tls_mode(&self) -> TlsMode {
        match self.tls.mode {
            Some(mode) => mode,
            None if self.tls.domains.is_empty() => TlsMode::Off,
            None => TlsMode::Acme,
        }
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

impl SignalSettings {
    /// Frames a second that are read from all sockets of one address together.
    pub fn frames_per_second_per_address(&self) -> u32 {
        self.frames_per_second.saturating_mul(self.bounds.sockets_at_full_rate)
    }
}

impl LimitSettings {
    /// Whether `client` is one of those that no limit in this section holds for.
    pub fn exempts(&self, client: IpAddr) -> bool {
        self.exempt.iter().any(|network| network.contains(client))
    }
}
