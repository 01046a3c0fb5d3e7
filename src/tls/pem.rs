//! Reads certificates and keys from PEM files, and says what is wrong with them.

mod problem;
mod sections;

use std::path::Path;

use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

pub use self::problem::{FileError, Problem};
use self::sections::sections;
use crate::regular_file;

/// The certificates in `file`, in their order.
pub fn read_chain(file: &Path) -> Result<Vec<CertificateDer<'static>>, FileError> {
    read(file).and_then(|text| chain(&text)).map_err(|problem| problem.of(file))
}

/// The private key in `file`.
pub fn read_key(file: &Path) -> Result<PrivateKeyDer<'static>, FileError> {
    read(file).and_then(|text| key(&text)).map_err(|problem| problem.of(file))
}

fn read(file: &Path) -> Result<Vec<u8>, Problem> {
    let text = regular_file::read(file)?;
    if text.trim_ascii().is_empty() { Err(Problem::Empty) } else { Ok(text) }
}

/// The certificates in PEM text.
pub fn chain(text: &[u8]) -> Result<Vec<CertificateDer<'static>>, Problem> {
    let mut chain = Vec::new();
    for section in sections(text)? {
        match &*section.label {
            // The second is what it was called once.
            "CERTIFICATE" | "X509 CERTIFICATE" => chain.push(section.der("CERTIFICATE")?.into()),
            label if label.ends_with(KEY) => return Err(Problem::KeyInChain),
            label if may_hold_certificates(label) => {
                return Err(Problem::OtherForm { line: section.line(), label: section.label });
            }
            _ => {}
        }
    }
    if chain.is_empty() { Err(Problem::NoCertificate) } else { Ok(chain) }
}

/// The one private key in PEM text. What else is in it may be parameters, or the chain.
pub fn key(text: &[u8]) -> Result<PrivateKeyDer<'static>, Problem> {
    let (mut found, mut problem) = (None, Problem::NoKey);
    for section in sections(text)? {
        let label = &*section.label;
        if !label.ends_with(KEY) {
            if may_hold_certificates(label) {
                problem = Problem::CertificateForKey;
            }
            continue;
        }
        if found.is_some() {
            return Err(Problem::SecondKey { line: section.line() });
        }
        found = Some(match label {
            "ENCRYPTED PRIVATE KEY" => return Err(Problem::Encrypted),
            _ if section.has_password() => return Err(Problem::Encrypted),
            "PRIVATE KEY" => PrivateKeyDer::Pkcs8(section.der(KEY)?.into()),
            "RSA PRIVATE KEY" => PrivateKeyDer::Pkcs1(section.der(label)?.into()),
            "EC PRIVATE KEY" => PrivateKeyDer::Sec1(section.der(label)?.into()),
            _ => return Err(Problem::UnknownKey),
        });
    }
    found.ok_or(problem)
}

const KEY: &str = "PRIVATE KEY";

/// Whether a section is one of certificates, by whatever name. Those that are asked for and revoked are none.
fn may_hold_certificates(label: &str) -> bool {
    label.contains("CERTIFICATE") && !label.ends_with("REQUEST")
        || label.starts_with("PKCS")
        || label == "CMS"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section(label: &str) -> String {
        format!("-----BEGIN {label}-----\nAQID\n-----END {label}-----\n")
    }

    #[test]
    fn certificates_are_taken_by_their_names_and_in_no_other_form() {
        let leaf = section("CERTIFICATE");
        let refused = |label| {
            Err(format!(
                "holds {label:?} in line 4, which is not read here: expected nothing but -----BEGIN CERTIFICATE-----"
            ))
        };
        for (label, certificates) in [
            ("CERTIFICATE", Ok(2)),
            ("X509 CERTIFICATE", Ok(2)),
            ("TRUSTED CERTIFICATE", refused("TRUSTED CERTIFICATE")),
            ("PKCS7", refused("PKCS7")),
            ("PKCS #7 SIGNED DATA", refused("PKCS #7 SIGNED DATA")),
            ("CMS", refused("CMS")),
            // They hold none.
            ("DH PARAMETERS", Ok(1)),
            ("X509 CRL", Ok(1)),
            ("CERTIFICATE REQUEST", Ok(1)),
            ("PUBLIC KEY", Ok(1)),
        ] {
            let found = chain(format!("{leaf}{}", section(label)).as_bytes());
            assert_eq!(
                found.map(|chain| chain.len()).map_err(|problem| problem.to_string()),
                certificates,
                "{label}"
            );
        }
        for label in ["PRIVATE KEY", "EC PRIVATE KEY", "ENCRYPTED PRIVATE KEY", "OPENSSH PRIVATE KEY"] {
            let found = chain(format!("{leaf}{}", section(label)).as_bytes());
            assert!(matches!(found, Err(Problem::KeyInChain)), "{label}: {found:?}");
        }
    }

    #[test]
    fn a_key_is_taken_by_its_name_and_told_what_else_it_is() {
        let found = |text: String| key(text.as_bytes());
        let after_parameters = format!("{}{}", section("EC PARAMETERS"), section("EC PRIVATE KEY"));
        assert!(matches!(found(after_parameters), Ok(PrivateKeyDer::Sec1(_))));
        let joined = format!("{}{}", section("CERTIFICATE").trim_end(), section("PRIVATE KEY"));
        assert!(matches!(found(joined), Ok(PrivateKeyDer::Pkcs8(_))));
        assert!(matches!(
            found(format!("\u{feff}{}", section("RSA PRIVATE KEY"))),
            Ok(PrivateKeyDer::Pkcs1(_))
        ));
        assert!(matches!(found(section("OPENSSH PRIVATE KEY")), Err(Problem::UnknownKey)));
        assert!(matches!(found(section("X509 CERTIFICATE")), Err(Problem::CertificateForKey)));
        let encrypted = section("RSA PRIVATE KEY").replace("AQID", "Proc-Type: 4,ENCRYPTED\n\nAQID");
        assert!(matches!(found(encrypted), Err(Problem::Encrypted)));
        assert!(matches!(found(section("PUBLIC KEY")), Err(Problem::NoKey)));
        let before_chain = format!("{}{}", section("PRIVATE KEY"), section("CERTIFICATE"));
        assert!(matches!(found(before_chain), Ok(PrivateKeyDer::Pkcs8(_))));
        for second in ["PRIVATE KEY", "EC PRIVATE KEY", "ENCRYPTED PRIVATE KEY", "OPENSSH PRIVATE KEY"] {
            let two = format!("{}{}{}", section("PRIVATE KEY"), section("CERTIFICATE"), section(second));
            assert!(matches!(found(two), Err(Problem::SecondKey { line: 7 })), "{second}");
        }
    }
}
