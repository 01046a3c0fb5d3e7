//! The tables that may stand several times, and what must be right within one.

use super::{
    list::Entry,
    net::{ListenAddress, Purpose},
    setting::Setting,
    settings::{CertificateFiles, Listen},
};

impl Entry for Listen {
    const NAME: &'static str = "listen";
    const SETTINGS: &'static [Setting<Self>] = Self::SETTINGS;

    fn check(&self) -> Result<(), String> {
        let Some(address) = &self.address else {
            return Err("address is missing: expected an address such as \"0.0.0.0:443\"".into());
        };
        let is_unix = matches!(address, ListenAddress::Unix(_));
        let is_ipv6 = matches!(address, ListenAddress::Tcp { host, .. } if host.contains(':'));
        let wrong = [
            (
                self.tls && self.purpose == Purpose::Redirect,
                "a listener with purpose = \"redirect\" cannot have tls = true: it leads from http to https",
            ),
            (self.group.is_some() && !is_unix, "group is for Unix sockets only"),
            (self.mode != Self::default().mode && !is_unix, "mode is for Unix sockets only"),
            (self.ipv6_only && !is_ipv6, "ipv6_only is for IPv6 addresses only, such as \"[::]:443\""),
        ];
        match wrong.into_iter().find(|(wrong, _)| *wrong) {
            Some((_, sentence)) => Err(sentence.into()),
            None => Ok(()),
        }
    }
}

impl Entry for CertificateFiles {
    const NAME: &'static str = "tls.certificates";
    const SETTINGS: &'static [Setting<Self>] = Self::SETTINGS;

    fn check(&self) -> Result<(), String> {
        match (&self.chain, &self.key) {
            (None, _) => Err("chain is missing: expected the path of a certificate chain (PEM)".into()),
            (_, None) => Err("key is missing: expected the path of a private key (PEM)".into()),
            (Some(_), Some(_)) => Ok(()),
        }
    }
}
