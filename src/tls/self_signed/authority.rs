//! A small certificate authority that can vouch for the host's own names and for nothing else.
//!
//! A DNS name that is permitted permits the names under it too: RFC 5280 knows no way to leave those out.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::{Duration, SystemTime},
};

use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    GeneralSubtree, IsCa, Issuer, KeyPair, KeyUsagePurpose, NameConstraints, PKCS_ECDSA_P256_SHA256, SanType,
};
use sha2::{Digest, Sha256};
use tokio_rustls::rustls::{
    pki_types::{CertificateDer, PrivateKeyDer},
    sign::CertifiedKey,
};
use x509_parser::{certificate::X509Certificate, extensions::GeneralName};

use crate::{
    config::Domain,
    tls::{
        pem::{self, Problem},
        provider, x509,
    },
};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// People carry the authority to each of their machines by hand: it should outlive them. Since it can vouch for
/// this host only, a long life harms nobody else.
const AUTHORITY_LIFE: Duration = DAY.saturating_mul(3650);
/// As long as Let's Encrypt's; renewal is no work for anybody.
pub const LEAF_LIFE: Duration = DAY.saturating_mul(90);
/// For clients whose clock is behind.
const SKEW: Duration = Duration::from_secs(60 * 60);

/// The authority's certificate and key.
pub struct Authority {
    /// The certificate, for those who are to trust it.
    pub pem: String,
    der: CertificateDer<'static>,
    permitted: Vec<Domain>,
    not_after: SystemTime,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate in PEM with its key in PEM.
pub struct Made {
    pub certificate: String,
    pub key: String,
}

/// A certificate of the host that is good to be served.
pub struct Leaf {
    pub key: CertifiedKey,
    /// The DNS names.
    pub names: Vec<String>,
    pub title: String,
    pub not_after: SystemTime,
    /// When two thirds of its life are over.
    pub renew_at: SystemTime,
}

impl Authority {
    /// A new authority for `domains`.
    pub fn make(domains: &[Domain], now: SystemTime) -> Result<Made, rcgen::Error> {
        let mut params = CertificateParams::default();
        let first = domains.first().map(ToString::to_string).unwrap_or_default();
        // A common name has room for 64 characters.
        params.distinguished_name = name(&format!("GemmaPod CA of {first:.45}"));
        params.not_before = (now - SKEW).into();
        params.not_after = (now + AUTHORITY_LIFE).into();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.name_constraints = Some(constraints(domains));
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let certificate = params.self_signed(&key)?.pem();
        Ok(Made { certificate, key: key.serialize_pem() })
    }

    /// Reads what [`Authority::make`] made; else the reason why it cannot be used.
    pub fn read(certificate: &str, key: &str) -> Result<Self, &'static str> {
        let no_certificate = "does not hold a certificate of an authority";
        let chain = pem::chain(certificate.as_bytes()).map_err(|_| no_certificate)?;
        let [der] = <[_; 1]>::try_from(chain).map_err(|_| "holds more than one certificate")?;
        let parsed = x509::parse(&der).filter(|parsed| parsed.is_ca()).ok_or(no_certificate)?;
        let no_key = "has no key that can be used beside it";
        pem::key(key.as_bytes()).map_err(|problem| match problem {
            Problem::SecondKey { .. } => "has more than one key beside it",
            _ => no_key,
        })?;
        let key = KeyPair::from_pem(key).map_err(|_| no_key)?;
        if key.public_key_raw() != &*parsed.public_key().subject_public_key.data {
            return Err("has a key beside it that does not fit");
        }
        let (permitted, not_after) = (permitted(&parsed), x509::facts(&parsed).not_after);
        let issuer = Issuer::from_ca_cert_der(&der, key).map_err(|_| no_certificate)?;
        Ok(Self { pem: certificate.into(), permitted, not_after, issuer, der })
    }

    /// Returns the SHA-256 fingerprint of the certificate, as browsers and OpenSSL show it.
    pub fn fingerprint(&self) -> String {
        Sha256::digest(&self.der).iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(":")
    }

    /// Whether it can vouch for `domain`.
    pub fn covers(&self, domain: &Domain) -> bool {
        self.permitted.iter().any(|permitted| match (domain, permitted) {
            (Domain::Name(name), Domain::Name(base)) => {
                let plain = base_of(name);
                plain == base || plain.strip_suffix(base.as_str()).is_some_and(|below| below.ends_with('.'))
            }
            (one, other) => one == other,
        })
    }

    /// Whether a certificate that is made now ends before the authority does.
    pub fn outlives_leaf(&self, now: SystemTime) -> bool {
        now + LEAF_LIFE < self.not_after
    }

    /// A new certificate of the host.
    pub fn issue(&self, domains: &[Domain], now: SystemTime) -> Result<Made, rcgen::Error> {
        let mut params = CertificateParams::default();
        // With a space in it nobody takes it for a host name, which the constraints would forbid.
        params.distinguished_name = name("GemmaPod broker");
        params.not_before = (now - SKEW).into();
        params.not_after = (now + LEAF_LIFE).into();
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        for domain in domains {
            params.subject_alt_names.push(match domain {
                Domain::Name(name) => SanType::DnsName(name.as_str().try_into()?),
                Domain::Address(address) => SanType::IpAddress(*address),
            });
        }
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let certificate = params.signed_by(&key, &self.issuer)?.pem();
        Ok(Made { certificate, key: key.serialize_pem() })
    }

    /// The certificate in `made`, if it is this authority's, for exactly `domains`, and was made before `now`.
    pub fn accept(&self, made: &Made, domains: &[Domain], now: SystemTime) -> Option<Leaf> {
        let chain = pem::chain(made.certificate.as_bytes()).ok().filter(|chain| chain.len() == 1)?;
        let key: PrivateKeyDer<'_> = pem::key(made.key.as_bytes()).ok()?;
        let facts = x509::check(&[chain[0].clone(), self.der.clone()], now).ok()?;
        let sorted = |mut titles: Vec<String>| {
            titles.sort();
            titles.dedup();
            titles
        };
        let wanted = sorted(domains.iter().map(ToString::to_string).collect());
        let found = sorted(facts.title.split(", ").map(Into::into).collect());
        let life = facts.not_after.duration_since(facts.not_before).ok()?;
        let key = CertifiedKey::from_der(chain, key, &provider()).ok()?;
        (wanted == found).then_some(Leaf {
            key,
            names: facts.names,
            title: facts.title,
            not_after: facts.not_after,
            renew_at: facts.not_before + life * 2 / 3,
        })
    }
}

fn name(common: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, "GemmaPod");
    name.push(DnType::CommonName, common);
    name
}

fn base_of(name: &str) -> &str {
    name.strip_prefix("*.").unwrap_or(name)
}

/// What is permitted; a kind of name of which nothing is permitted is excluded as a whole, since a kind that is not
/// mentioned would be free.
fn constraints(domains: &[Domain]) -> NameConstraints {
    let permit = |domain: &Domain| match domain {
        Domain::Name(name) => GeneralSubtree::DnsName(base_of(name).into()),
        Domain::Address(address) => {
            let bits = if address.is_ipv4() { 32 } else { 128 };
            GeneralSubtree::IpAddress(CidrSubnet::from_addr_prefix(*address, bits))
        }
    };
    let everywhere = |address: IpAddr| GeneralSubtree::IpAddress(CidrSubnet::from_addr_prefix(address, 0));
    let mut excluded_subtrees = vec![GeneralSubtree::Rfc822Name(String::new())];
    if !domains.iter().any(|domain| matches!(domain, Domain::Name(_))) {
        excluded_subtrees.push(GeneralSubtree::DnsName(String::new()));
    }
    if !domains.iter().any(|domain| matches!(domain, Domain::Address(_))) {
        excluded_subtrees.push(everywhere(Ipv4Addr::UNSPECIFIED.into()));
        excluded_subtrees.push(everywhere(Ipv6Addr::UNSPECIFIED.into()));
    }
    NameConstraints { permitted_subtrees: domains.iter().map(permit).collect(), excluded_subtrees }
}

fn permitted(certificate: &X509Certificate<'_>) -> Vec<Domain> {
    let Ok(Some(constraints)) = certificate.name_constraints() else { return Vec::new() };
    let trees = constraints.value.permitted_subtrees.iter().flatten();
    trees
        .filter_map(|tree| match tree.base {
            GeneralName::DNSName(name) => Some(Domain::Name(name.into())),
            GeneralName::IPAddress(bytes) => {
                let address = x509::address(&bytes[..bytes.len() / 2])?;
                Some(Domain::Address(address.parse().ok()?))
            }
            _ => None,
        })
        .collect()
}
