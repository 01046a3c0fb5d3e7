//! TLS: how it is spoken, and the certificates that are shown.
//!
//! A source of certificates puts what it has into the [`CertStore`], now and whenever that changes; every handshake
//! takes from there. Replacing a certificate touches no open connection.

pub(crate) mod acme;
pub(crate) mod context;
pub(crate) mod files;
pub(crate) mod http_challenges;
pub(crate) mod pem;
pub(crate) mod self_signed;
pub(crate) mod source;
pub(crate) mod store;
pub(crate) mod x509;

use std::sync::Arc;

use tokio_rustls::rustls::{
    self, ServerConfig,
    crypto::{CryptoProvider, ring},
    version::{TLS12, TLS13},
};

pub(crate) use self::{
    http_challenges::HttpChallenges,
    store::{ACME_TLS_ALPN, CertStore},
};

/// The one provider of cryptography, for TLS, certificates and ACME alike.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// TLS 1.2 and 1.3 with rustls's own choice and order of suites, HTTP/2 and HTTP/1.1, tickets under keys that change by
/// themselves, and certificates from `store`.
pub fn server_config(store: Arc<CertStore>) -> Result<ServerConfig, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13, &TLS12])?
        .with_no_client_auth()
        .with_cert_resolver(store);
    config.alpn_protocols = vec![b"h2".into(), b"http/1.1".into(), ACME_TLS_ALPN.into()];
    config.ignore_client_order = true;
    config.ticketer = ring::Ticketer::new()?;
    Ok(config)
}
