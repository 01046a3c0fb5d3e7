//! What certificates say: their names, their time, who issued them.

use std::time::{Duration, SystemTime};

use tokio_rustls::rustls::pki_types::CertificateDer;
use x509_parser::{
    certificate::X509Certificate, error::X509Error, extensions::GeneralName, oid_registry::OID_CT_LIST_SCT,
    prelude::FromDer, time::ASN1Time, x509::X509Name,
};

/// What is wrong with a chain, as the rest of a sentence that begins with its file.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum InvalidCertificate {
    /// Something that is no certificate.
    #[error("holds something in place {0} that is no X.509 certificate: write it again from where it came")]
    NotX509(usize),
    /// An issuer that is not the next one in the chain.
    #[error(
        "is out of order: certificate {place} ({subject}) was issued by {issuer}, but {next} comes next; \
         expected the server's certificate first, then each one's issuer"
    )]
    Order {
        /// Counted from 1.
        place: usize,
        /// Whose certificate it is.
        subject: String,
        /// Who issued it.
        issuer: String,
        /// Whose certificate follows.
        next: String,
    },
    /// The next certificate has the issuer's name, but another key.
    #[error(
        "is out of order: certificate {0} was not signed with the key of the next one, although that has its \
         issuer's name; take the chain that came with the certificate"
    )]
    Signature(usize),
    /// Its time is over.
    #[error("holds a certificate for {names} that expired on {date}: get a new one")]
    Expired {
        /// Whom it is for.
        names: String,
        /// The day.
        date: String,
    },
    /// Its time has not begun.
    #[error(
        "holds a certificate for {names} that is not valid before {date}: see whether the host's clock is right"
    )]
    TooEarly {
        /// Whom it is for.
        names: String,
        /// The day.
        date: String,
    },
}

/// What is known of a server's certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The DNS names, in lower case.
    pub names: Vec<String>,
    /// The names and addresses, for people.
    pub title: String,
    /// When it begins to be valid.
    pub not_before: SystemTime,
    /// When it ceases to be valid.
    pub not_after: SystemTime,
    /// Whether the world's browsers trust it, as far as it can be known here. See [`is_public`].
    pub public: bool,
}

/// Checks that `chain` is in order and valid at `now`; what its first certificate says.
pub fn check(chain: &[CertificateDer<'_>], now: SystemTime) -> Result<Facts, InvalidCertificate> {
    let parse = |(place, der)| parse(der).ok_or(InvalidCertificate::NotX509(place + 1));
    let chain: Vec<_> = chain.iter().enumerate().map(parse).collect::<Result<_, _>>()?;
    for (place, pair) in (1..).zip(chain.windows(2)) {
        issued_by(place, &pair[0], &pair[1])?;
    }
    let facts = facts(chain.first().ok_or(InvalidCertificate::NotX509(1))?);
    let (names, date) = (facts.title.clone(), |time| date(time));
    if now > facts.not_after {
        Err(InvalidCertificate::Expired { names, date: date(facts.not_after) })
    } else if now < facts.not_before {
        Err(InvalidCertificate::TooEarly { names, date: date(facts.not_before) })
    } else {
        Ok(facts)
    }
}

/// Reads one certificate.
pub fn parse<'a>(der: &'a CertificateDer<'_>) -> Option<X509Certificate<'a>> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Some(certificate),
        _ => None,
    }
}

/// What `certificate` says.
pub fn facts(certificate: &X509Certificate<'_>) -> Facts {
    let (mut names, mut addresses) = (Vec::new(), Vec::new());
    if let Ok(Some(extension)) = certificate.subject_alternative_name() {
        for name in &extension.value.general_names {
            match name {
                GeneralName::DNSName(name) => names.push(name.to_ascii_lowercase()),
                GeneralName::IPAddress(bytes) => addresses.extend(address(bytes)),
                _ => {}
            }
        }
    }
    let all: Vec<_> = names.iter().cloned().chain(addresses).collect();
    let title = if all.is_empty() { certificate.subject().to_string() } else { all.join(", ") };
    let validity = certificate.validity();
    Facts {
        names,
        title,
        not_before: system_time(validity.not_before),
        not_after: system_time(validity.not_after),
        public: is_public(certificate),
    }
}

/// Whether `certificate` holds receipts of Certificate Transparency logs: browsers trust none without them, and
/// private authorities do not get them. Those of Let's Encrypt's staging are of test logs.
pub fn is_public(certificate: &X509Certificate<'_>) -> bool {
    let in_logs = certificate.iter_extensions().any(|extension| extension.oid == OID_CT_LIST_SCT);
    in_logs && !certificate.issuer().to_string().contains("STAGING")
}

fn issued_by(
    place: usize,
    certificate: &X509Certificate<'_>,
    next: &X509Certificate<'_>,
) -> Result<(), InvalidCertificate> {
    if certificate.issuer().as_raw() != next.subject().as_raw() {
        return Err(InvalidCertificate::Order {
            place,
            subject: title(certificate.subject()),
            issuer: title(certificate.issuer()),
            next: title(next.subject()),
        });
    }
    match certificate.verify_signature(Some(next.public_key())) {
        Err(X509Error::SignatureVerificationError) => Err(InvalidCertificate::Signature(place)),
        // Some algorithms are unknown here: clients judge.
        _ => Ok(()),
    }
}

fn title(name: &X509Name<'_>) -> String {
    let title = name.to_string();
    if title.is_empty() { "a certificate without a subject".into() } else { title }
}

/// An address as certificates hold it.
pub fn address(bytes: &[u8]) -> Option<String> {
    let v4 = || <[u8; 4]>::try_from(bytes).map(|bytes| std::net::IpAddr::from(bytes).to_string());
    let v6 = || <[u8; 16]>::try_from(bytes).map(|bytes| std::net::IpAddr::from(bytes).to_string());
    v4().or_else(|_| v6()).ok()
}

fn system_time(time: ASN1Time) -> SystemTime {
    let seconds = time.timestamp();
    let distance = Duration::from_secs(seconds.unsigned_abs());
    let time = if seconds < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(distance)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(distance)
    };
    time.unwrap_or(SystemTime::UNIX_EPOCH)
}

/// The day, as logs and errors write it.
pub fn date(time: SystemTime) -> String {
    // RFC 3339 begins with the day; humantime cannot write years after 9999.
    let last = SystemTime::UNIX_EPOCH + Duration::from_secs(253_402_300_799);
    humantime::format_rfc3339_seconds(time.clamp(SystemTime::UNIX_EPOCH, last)).to_string()[..10].into()
}
