//! Where certificates come from, by `tls.mode`.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::{
    CertStore, HttpChallenges,
    acme::{Acme, SetupError},
};
use crate::{
    clock::Clock,
    config::{Live, TlsMode},
};

/// No certificates can be had.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// TLS itself could not be set up.
    #[error("TLS cannot be set up: {0}")]
    Setup(#[from] tokio_rustls::rustls::Error),
    /// A file that ACME needs is of no use.
    #[error(transparent)]
    Acme(#[from] SetupError),
}

/// A source of certificates that has shown what it has, and goes on when it is run.
pub enum Source {
    /// There is no TLS.
    Off,
    Acme(Box<Acme>),
}

/// What sources work on.
#[derive(Clone)]
pub struct Workshop {
    pub live: Live,
    pub store: Arc<CertStore>,
    pub http_challenges: Arc<HttpChallenges>,
    pub clock: Clock,
}

impl Source {
    /// Shows the certificates that are there already, and checks what must be right from the start.
    pub fn prepare(workshop: &Workshop) -> Result<Self, TlsError> {
        match workshop.live.load().tls_mode() {
            TlsMode::Off => Ok(Self::Off),
            TlsMode::Acme => Ok(Self::Acme(Box::new(Acme::prepare(workshop)?))),
            TlsMode::Files | TlsMode::SelfSigned => unimplemented!("in the commits to come"),
        }
    }

    /// Renews and reloads until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        match self {
            Self::Off => stop.cancelled().await,
            Self::Acme(acme) => acme.run(stop).await,
        }
    }
}
