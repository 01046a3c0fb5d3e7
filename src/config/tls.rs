//! The kinds of values that say where certificates come from.

use std::{fmt, net::IpAddr};

use salvo::http::uri::Uri;

use super::value::{Value, expected, named_values};
use crate::host;

/// Where certificates come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsMode {
    /// No TLS: for a broker behind a proxy, or in a network of one's own.
    Off,
    /// PEM files that somebody else renews.
    Files,
    /// A small certificate authority of the broker's own.
    SelfSigned,
    /// An ACME directory such as Let's Encrypt.
    Acme,
}

named_values!(
    TlsMode,
    "\"off\", \"files\", \"self-signed\" or \"acme\"",
    "off" => TlsMode::Off, "files" => TlsMode::Files, "self-signed" => TlsMode::SelfSigned, "acme" => TlsMode::Acme
);

/// A name that a certificate is for: a DNS name in lower case, or an IP address.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Domain {
    /// A DNS name.
    Name(String),
    /// An address; only `self-signed` certificates have them.
    Address(IpAddr),
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(address) => address.fmt(f),
        }
    }
}

impl Value for Domain {
    const EXPECTED: &'static str = "a domain such as \"pods.example.org\"";

    fn from_text(text: &str) -> Result<Self, String> {
        if let Ok(address) = text.parse() {
            return Ok(Self::Address(address));
        }
        let label = |label: &str| {
            (1..=63).contains(&label.len())
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        };
        let plain = text.strip_prefix("*.").unwrap_or(text);
        if text.len() <= 253 && host::is_name(plain) && plain.split('.').all(label) {
            Ok(Self::Name(text.to_ascii_lowercase()))
        } else {
            Err(expected::<Self>(&format!("{text:?}")))
        }
    }

    fn to_toml(&self) -> Option<String> {
        Some(format!("\"{self}\""))
    }
}

/// An ACME directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcmeDirectory(String);

impl AcmeDirectory {
    const NAMED: [(&'static str, &'static str); 2] = [
        ("letsencrypt", "https://acme-v02.api.letsencrypt.org/directory"),
        ("letsencrypt-staging", "https://acme-staging-v02.api.letsencrypt.org/directory"),
    ];

    /// The URL of the directory object.
    pub fn url(&self) -> &str {
        Self::NAMED.iter().find(|(name, _)| *name == self.0).map_or(&self.0, |(_, url)| url)
    }
}

impl Value for AcmeDirectory {
    const EXPECTED: &'static str = "\"letsencrypt\", \"letsencrypt-staging\" or an https URL";

    fn from_text(text: &str) -> Result<Self, String> {
        let is_url =
            || text.parse::<Uri>().is_ok_and(|uri| uri.scheme_str() == Some("https") && uri.host().is_some());
        if Self::NAMED.iter().any(|(name, _)| *name == text) || is_url() {
            Ok(Self(text.into()))
        } else {
            Err(expected::<Self>(&format!("{text:?}")))
        }
    }

    fn to_toml(&self) -> Option<String> {
        Some(format!("{:?}", self.0))
    }
}

/// Where an ACME directory may write to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contact(String);

impl Contact {
    /// The contact as a URL.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Value for Contact {
    const EXPECTED: &'static str = "an address such as \"mailto:admin@example.org\"";

    fn from_text(text: &str) -> Result<Self, String> {
        let address = text.strip_prefix("mailto:").unwrap_or(text);
        let plain = address.split_once('@').is_some_and(|(user, host)| !user.is_empty() && !host.is_empty());
        if plain && address.is_ascii() && !address.contains([' ', ',', '?']) {
            Ok(Self(format!("mailto:{address}")))
        } else {
            Err(expected::<Self>(&format!("{text:?}")))
        }
    }

    fn to_toml(&self) -> Option<String> {
        Some(format!("{:?}", self.0))
    }
}

/// How control of a domain is proved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChallengeKind {
    /// A certificate on port 443 (RFC 8737).
    TlsAlpn01,
    /// A file on port 80 (RFC 8555, section 8.3).
    Http01,
}

named_values!(
    ChallengeKind,
    "\"tls-alpn-01\" or \"http-01\"",
    "tls-alpn-01" => ChallengeKind::TlsAlpn01, "http-01" => ChallengeKind::Http01
);
