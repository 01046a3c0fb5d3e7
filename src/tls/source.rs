//! Where certificates come from, by `tls.mode`.

use std::sync::Arc;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{
    acme::{Acme, SetupError},
    context::CertContext,
    files::Files,
    pem::FileError,
    self_signed::{SelfSigned, SelfSignedError},
};
use crate::config::TlsMode;

/// No certificates can be had.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// TLS itself could not be set up.
    #[error("TLS cannot be set up: {0}")]
    Setup(#[from] tokio_rustls::rustls::Error),
    /// A certificate or key file is not right.
    #[error(transparent)]
    File(#[from] FileError),
    /// The broker's own authority or certificate cannot be had.
    #[error(transparent)]
    SelfSigned(#[from] SelfSignedError),
    /// A file that ACME needs is of no use.
    #[error(transparent)]
    Acme(#[from] SetupError),
}

/// A source of certificates that has shown what it has, and goes on when it is run.
pub enum Source {
    /// There is no TLS.
    Off,
    /// PEM files that somebody else renews.
    Files(Files),
    /// An authority of the broker's own.
    SelfSigned(SelfSigned),
    /// An ACME directory.
    Acme(Box<Acme>),
}

impl Source {
    /// Shows the certificates that are there already, and checks what must be right from the start.
    pub fn prepare(context: &CertContext) -> Result<Self, TlsError> {
        match context.live.load().tls_mode() {
            TlsMode::Off => Ok(Self::Off),
            TlsMode::Files => Ok(Self::Files(Files::prepare(context)?)),
            TlsMode::SelfSigned => Ok(Self::SelfSigned(SelfSigned::prepare(context)?)),
            TlsMode::Acme => Ok(Self::Acme(Box::new(Acme::prepare(context)?))),
        }
    }

    /// What has files and configuration looked at again at once.
    pub fn reload_handle(&self) -> Arc<Notify> {
        match self {
            Self::Off => Arc::default(),
            Self::Files(files) => files.reload_handle(),
            Self::SelfSigned(self_signed) => self_signed.reload_handle(),
            Self::Acme(acme) => acme.reload_handle(),
        }
    }

    /// Renews and reloads until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        match self {
            Self::Off => stop.cancelled().await,
            Self::Files(files) => files.run(stop).await,
            Self::SelfSigned(self_signed) => self_signed.run(stop).await,
            Self::Acme(acme) => acme.run(stop).await,
        }
    }
}
