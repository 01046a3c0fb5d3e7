//! A certificate of a domain with its key, as it is stored and shown.

use std::{
    ops::Range,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use instant_acme::CertificateIdentifier;
use rcgen::{CertificateParams, CustomExtension, KeyPair};
use tokio_rustls::rustls::{
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::CertifiedKey,
};
use x509_parser::{parse_x509_certificate, time::ASN1Time};

use crate::tls::{provider, store::Certificate, x509};

/// A certificate that can be shown.
pub struct Held {
    pub key: Arc<CertifiedKey>,
    /// From when until when it is valid.
    pub validity: Range<SystemTime>,
    /// Its name in RFC 9773, if it has one.
    pub identifier: Option<CertificateIdentifier<'static>>,
    public: bool,
}

impl Held {
    /// Reads the private key and the chain in `pem`, and checks that they belong to one another and to `domain`.
    pub fn read(pem: &str, domain: &str) -> Result<Self, String> {
        let key = PrivateKeyDer::from_pem_slice(pem.as_bytes())
            .map_err(|error| format!("its private key cannot be read: {error}"))?;
        let chain = CertificateDer::pem_slice_iter(pem.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| format!("its chain cannot be read: {error}"))?;
        let first = chain.first().ok_or("it holds no certificate")?;
        if PrivateKeyDer::pem_slice_iter(pem.as_bytes()).nth(1).is_some() {
            return Err("it holds more than one private key".into());
        }
        // The reader passes over a first line that is cut off.
        if !pem.trim_end().ends_with("-----END CERTIFICATE-----") {
            return Err("it is cut off".into());
        }
        let (_, parsed) = parse_x509_certificate(first)
            .map_err(|error| format!("its certificate cannot be read: {error}"))?;
        let names = parsed.subject_alternative_name().ok().flatten().map(|names| &names.value.general_names);
        let is_domain = |name: &x509_parser::extensions::GeneralName<'_>| matches!(name, x509_parser::extensions::GeneralName::DNSName(name) if name.eq_ignore_ascii_case(domain));
        if !names.is_some_and(|names| names.iter().any(is_domain)) {
            return Err(format!("its certificate is not for {domain}"));
        }
        let validity = time(parsed.validity.not_before)..time(parsed.validity.not_after);
        let identifier = CertificateIdentifier::try_from(first).ok().map(CertificateIdentifier::into_owned);
        let public = x509::is_public(&parsed);
        let key = CertifiedKey::from_der(chain, key, &provider())
            .map_err(|error| format!("key and certificate do not fit: {error}"))?;
        Ok(Self { key: Arc::new(key), validity, identifier, public })
    }

    /// As handshakes take it.
    pub fn shown(&self, domain: &str) -> Certificate {
        Certificate { key: self.key.clone(), names: vec![domain.into()], public: self.public }
    }
}

fn time(time: ASN1Time) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(time.timestamp().try_into().unwrap_or_default())
}

/// A request for a certificate of `domain` with the key in `key_pem`.
pub fn signing_request(domain: &str, key_pem: &str) -> Result<Vec<u8>, rcgen::Error> {
    let mut params = CertificateParams::new([domain.to_owned()])?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    Ok(params.serialize_request(&KeyPair::from_pem(key_pem)?)?.der().to_vec())
}

/// What a directory wants to see for tls-alpn-01 (RFC 8737): a certificate with `digest` in it.
pub fn for_challenge(domain: &str, digest: &[u8]) -> Result<Arc<CertifiedKey>, rcgen::Error> {
    let mut params = CertificateParams::new([domain.to_owned()])?;
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    let der = PrivateKeyDer::try_from(key.serialize_der()).map_err(|_| rcgen::Error::CouldNotParseKeyPair)?;
    let signing =
        provider().key_provider.load_private_key(der).map_err(|_| rcgen::Error::CouldNotParseKeyPair)?;
    // Not `from_der`: its check refuses the critical extension that makes it a challenge.
    Ok(Arc::new(CertifiedKey::new(vec![certificate.der().clone()], signing)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pem(domain: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new([domain.to_owned()]).unwrap().self_signed(&key).unwrap();
        (key.serialize_pem(), certificate.pem())
    }

    #[test]
    fn key_and_chain_come_from_one_file() {
        let (key, chain) = pem("pods.example.org");
        let held = Held::read(&format!("{key}{chain}"), "pods.example.org").unwrap();
        assert_eq!(held.key.cert.len(), 1);
        assert!(held.validity.start < held.validity.end);
    }

    #[test]
    fn a_challenge_can_be_shown() {
        assert_eq!(for_challenge("pods.example.org", &[7; 32]).unwrap().cert.len(), 1);
    }

    #[test]
    fn a_chain_that_is_cut_off_is_refused() {
        let ((key, chain), (_, issuer)) = (pem("pods.example.org"), pem("ca.example.org"));
        let whole = format!("{key}{chain}{issuer}");
        assert!(Held::read(&whole, "pods.example.org").is_ok());
        // Between two certificates nothing tells that there was a second one.
        let between = chain.trim_end().len() + key.len()..=chain.len() + key.len();
        let end = whole.trim_end().len();
        for length in (0..end).filter(|length| !between.contains(length)) {
            assert!(Held::read(&whole[..length], "pods.example.org").is_err(), "{length} bytes of {end}");
        }
    }

    #[test]
    fn what_does_not_fit_is_told() {
        let ((key, chain), (other_key, _)) = (pem("pods.example.org"), pem("pods.example.org"));
        let why = |text: String, domain| Held::read(&text, domain).err().unwrap();
        assert!(why(format!("{key}{chain}"), "b.example.org").contains("not for b.example.org"));
        assert!(why(format!("{other_key}{chain}"), "pods.example.org").contains("do not fit"));
        assert!(why(key.clone(), "pods.example.org").contains("no certificate"));
        assert!(why(chain.clone(), "pods.example.org").contains("private key"));
        assert!(
            why(format!("{key}{other_key}{chain}"), "pods.example.org").contains("more than one private key")
        );
        assert!(why(format!("{key}{chain}{}", &chain[..200]), "pods.example.org").contains("chain"));
        assert!(why("\u{fffd}".into(), "pods.example.org").contains("private key"));
    }
}
