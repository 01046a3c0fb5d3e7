//! Certificates of the broker's own making: a small authority that people install once, and a certificate of the host
//! that is renewed by itself.

mod authority;
mod cert_dir;
#[cfg(test)]
mod tests;

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{sync::Notify, time::sleep};
use tokio_util::sync::CancellationToken;

use self::{
    authority::{Authority, Leaf},
    cert_dir::CertDir,
};
use super::{CertStore, context::CertContext, store::Certificate, x509};
use crate::{
    clock::Clock,
    config::{Config, Domain, Live},
};

/// The wall clock may jump: it is looked at this often.
const LOOK: Duration = Duration::from_secs(60 * 60);
/// Between two attempts, at least.
const PAUSE: Duration = Duration::from_secs(60);

/// The broker's own authority or certificate cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum SelfSignedError {
    /// There is no broker whose authority it could be.
    #[error("there is no data directory {}; name that of a broker with --data-dir or data_dir, start the broker once, or make the directory", .0.display())]
    Missing(PathBuf),
    /// Its directory cannot be used.
    #[error("{} cannot be used for the broker's own certificates: {source}; the broker's user must be able to read and write it", .directory.display())]
    Directory {
        /// The directory.
        directory: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// What is there is no authority.
    #[error("{} {problem}: put both files back from a backup, or remove the directory to have a new authority made, which every client must then be given again", .file.display())]
    Damaged {
        /// The authority's certificate.
        file: PathBuf,
        /// What is wrong.
        problem: &'static str,
    },
    /// A certificate could not be made.
    #[error("a certificate for {domains} could not be made: {source}; see whether tls.domains is right")]
    Make {
        /// What it should have been for.
        domains: String,
        /// The reason.
        source: rcgen::Error,
    },
}

/// The host's certificate, and what renews it.
pub struct SelfSigned {
    live: Live,
    store: Arc<CertStore>,
    reload: Arc<Notify>,
    clock: Clock,
    renew_at: SystemTime,
}

impl SelfSigned {
    /// Shows the host's certificate, and makes what is not there yet.
    pub fn prepare(context: &CertContext) -> Result<Self, SelfSignedError> {
        let CertContext { live, store, clock, .. } = context.clone();
        let leaf = ensure(&live.load(), clock.now())?;
        let renew_at = leaf.renew_at;
        show(&store, leaf);
        Ok(Self { live, store, reload: Arc::default(), clock, renew_at })
    }

    /// Has the domains of the configuration looked at again.
    pub fn reload_handle(&self) -> Arc<Notify> {
        self.reload.clone()
    }

    /// Renews until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        loop {
            let left = self.renew_at.duration_since(self.clock.now()).unwrap_or_default();
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.reload.notified() => {}
                () = sleep(left.clamp(PAUSE, LOOK)) => if self.clock.now() < self.renew_at { continue },
            }
            let (live, clock) = (self.live.clone(), self.clock.clone());
            let ensured = tokio::task::spawn_blocking(move || ensure(&live.load(), clock.now())).await;
            match ensured {
                Ok(Ok(leaf)) => {
                    self.renew_at = leaf.renew_at;
                    show(&self.store, leaf);
                }
                Ok(Err(error)) => tracing::error!("the certificate that was served before stays: {error}"),
                Err(error) => tracing::error!(%error, "making a certificate failed"),
            }
        }
    }
}

/// The certificate of the broker's own authority (`tls.mode = "self-signed"`) as PEM. The authority is made if there
/// is none; one that is there is never replaced. A broker may be running with the same data directory, which is never made.
///
/// # Errors
///
/// The data directory is missing, or the authority cannot be read or made.
pub fn authority_pem(config: &Config) -> Result<String, SelfSignedError> {
    let (domains, data_dir) = (&config.tls.domains, &config.data_dir);
    if !data_dir.try_exists().map_err(unusable(data_dir))? {
        return Err(SelfSignedError::Missing(data_dir.clone()));
    }
    let (cert_dir, found) = open(data_dir)?;
    let authority = match found {
        Some(authority) => authority,
        None => found_authority(&cert_dir, domains, SystemTime::now())?,
    };
    if let Some(domain) = domains.iter().find(|domain| !authority.covers(domain)) {
        tracing::warn!(
            "the certificate authority cannot vouch for {domain}: the broker makes a new one when it starts \
             with this configuration"
        );
    }
    Ok(authority.pem)
}

fn show(store: &CertStore, leaf: Leaf) {
    let Leaf { key, names, .. } = leaf;
    store.show(vec![Certificate { key: Arc::new(key), names, public: false }]);
}

/// The host's certificate; what is missing or due is made.
fn ensure(config: &Config, now: SystemTime) -> Result<Leaf, SelfSignedError> {
    let domains = &config.tls.domains;
    let (cert_dir, found) = open(&config.data_dir)?;
    let authority = match found {
        None => found_authority(&cert_dir, domains, now)?,
        Some(old) => {
            let uncovered = domains.iter().find(|domain| !old.covers(domain));
            let reason = match uncovered {
                Some(domain) => format!("the old one cannot vouch for {domain}"),
                None if !old.outlives_leaf(now) => "the old one ends soon".into(),
                None => String::new(),
            };
            if reason.is_empty() {
                old
            } else {
                let kept = keep(&cert_dir, &old).map_err(unusable(&config.data_dir))?;
                let new = found_authority(&cert_dir, domains, now)?;
                tracing::warn!(
                    "{reason}: a new certificate authority is made, with the SHA-256 fingerprint {}; give it to every \
                     client again with `gemmapod-signal ca --config FILE`; the old one, {}, is kept as {} with its key",
                    new.fingerprint(),
                    old.fingerprint(),
                    kept.display()
                );
                new
            }
        }
    };
    // A certificate that cannot be read is not missed by anybody: another is made.
    let kept = cert_dir.read("leaf").ok().flatten().and_then(|made| authority.accept(&made, domains, now));
    if let Some(leaf) = kept.filter(|leaf| now < leaf.renew_at) {
        return Ok(leaf);
    }
    let made = authority.issue(domains, now).map_err(|source| cannot_make(domains, source))?;
    cert_dir.write("leaf", &made).map_err(unusable(&config.data_dir))?;
    let damaged =
        || SelfSignedError::Damaged { file: cert_dir.path("ca.pem"), problem: "issues nothing usable" };
    let leaf = authority.accept(&made, domains, now).ok_or_else(damaged)?;
    tracing::info!(until = x509::date(leaf.not_after), "a certificate for {} was made", leaf.title);
    Ok(leaf)
}

fn open(data_dir: &Path) -> Result<(CertDir, Option<Authority>), SelfSignedError> {
    let cert_dir = CertDir::open(data_dir).map_err(unusable(data_dir))?;
    let damaged = |problem| SelfSignedError::Damaged { file: cert_dir.path("ca.pem"), problem };
    let made = match cert_dir.read("ca") {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(damaged("has no ca.key beside it"));
        }
        read => read.map_err(unusable(data_dir))?,
    };
    let authority = made.map(|made| Authority::read(&made.certificate, &made.key)).transpose();
    let authority = authority.map_err(damaged)?;
    Ok((cert_dir, authority))
}

/// Keeps an authority that is about to be replaced under another name, for whoever wants it back.
fn keep(cert_dir: &CertDir, authority: &Authority) -> io::Result<PathBuf> {
    let digits: String = authority.fingerprint().split(':').take(8).collect();
    let name = format!("ca-{}", digits.to_ascii_lowercase());
    if let Some(made) = cert_dir.read("ca")? {
        cert_dir.write(&name, &made)?;
    }
    Ok(cert_dir.path(&format!("{name}.pem")))
}

fn found_authority(
    cert_dir: &CertDir,
    domains: &[Domain],
    now: SystemTime,
) -> Result<Authority, SelfSignedError> {
    let file = cert_dir.path("ca.pem");
    let made = Authority::make(domains, now).map_err(|source| cannot_make(domains, source))?;
    cert_dir.write("ca", &made).map_err(|source| SelfSignedError::Directory {
        directory: file.parent().unwrap_or(&file).into(),
        source,
    })?;
    tracing::info!("a certificate authority was created: {}", file.display());
    Authority::read(&made.certificate, &made.key)
        .map_err(|problem| SelfSignedError::Damaged { file, problem })
}

fn unusable(data_dir: &Path) -> impl Fn(io::Error) -> SelfSignedError {
    move |source| SelfSignedError::Directory { directory: data_dir.join("tls"), source }
}

fn cannot_make(domains: &[Domain], source: rcgen::Error) -> SelfSignedError {
    let domains: Vec<_> = domains.iter().map(ToString::to_string).collect();
    SelfSignedError::Make { domains: domains.join(", "), source }
}
