//! The certificates that are shown now, by the name that a client asks for.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use arc_swap::ArcSwap;
use tokio_rustls::rustls::{
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

/// The protocol by which an ACME directory looks for a challenge (RFC 8737).
pub const ACME_TLS_ALPN: &[u8] = b"acme-tls/1";

/// A certificate with its key, and what is known of it.
#[derive(Clone)]
pub struct Certificate {
    /// Chain and key.
    pub key: Arc<CertifiedKey>,
    /// The DNS names that it is for, in lower case; the first label may be `*`.
    pub names: Vec<String>,
    /// Whether the world's browsers trust it, as far as can be known here.
    pub public: bool,
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate")
            .field("names", &self.names)
            .field("public", &self.public)
            .finish_non_exhaustive()
    }
}

/// Holds the certificates; handshakes read, sources write.
#[derive(Debug, Default)]
pub struct CertStore {
    shown: ArcSwap<Shown>,
    challenges: Mutex<HashMap<String, Arc<CertifiedKey>>>,
}

#[derive(Debug, Default)]
struct Shown {
    by_name: HashMap<String, Certificate>,
    /// For clients that name no known name: the first certificate.
    first: Option<Certificate>,
}

impl CertStore {
    /// Shows these certificates from now on, and no others. Where two have the same name, the earlier one counts.
    pub fn show(&self, certificates: Vec<Certificate>) {
        let mut by_name = HashMap::new();
        for certificate in &certificates {
            for name in &certificate.names {
                by_name.entry(name.clone()).or_insert_with(|| certificate.clone());
            }
        }
        self.shown.store(Arc::new(Shown { by_name, first: certificates.into_iter().next() }));
    }

    /// Whether a certificate that the world trusts is shown for `name`.
    pub fn is_public(&self, name: &str) -> bool {
        self.shown.load().find(name).is_some_and(|certificate| certificate.public)
    }

    /// What clients are shown that name no known name.
    #[cfg(test)]
    pub fn first(&self) -> Option<Certificate> {
        self.shown.load().first.clone()
    }

    /// Shows `key` to an ACME directory that looks for the tls-alpn-01 challenge of `name`.
    pub fn show_challenge(&self, name: &str, key: Arc<CertifiedKey>) {
        self.challenges().insert(name.to_ascii_lowercase(), key);
    }

    /// Ends [`CertStore::show_challenge`].
    pub fn end_challenge(&self, name: &str) {
        self.challenges().remove(&name.to_ascii_lowercase());
    }

    fn challenges(&self) -> MutexGuard<'_, HashMap<String, Arc<CertifiedKey>>> {
        self.challenges.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shown {
    /// The certificate for `name` itself, else the one for its wildcard.
    fn find(&self, name: &str) -> Option<&Certificate> {
        let name = name.to_ascii_lowercase();
        let wildcard = || self.by_name.get(&format!("*.{}", name.split_once('.')?.1));
        self.by_name.get(&name).or_else(wildcard)
    }
}

impl ResolvesServerCert for CertStore {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name();
        if hello.alpn().is_some_and(|mut protocols| protocols.any(|protocol| protocol == ACME_TLS_ALPN)) {
            return self.challenges().get(&name?.to_ascii_lowercase()).cloned();
        }
        let shown = self.shown.load();
        let found = name.and_then(|name| shown.find(name)).or(shown.first.as_ref());
        found.map(|certificate| certificate.key.clone())
    }
}
