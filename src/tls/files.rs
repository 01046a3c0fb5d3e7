//! Certificates from PEM files that somebody else renews.
//!
//! The files are looked at every few seconds: device, inode, size and time of what their paths lead to now, so that
//! links may change as well as files. A change is read once it has lasted from one look to the next, for a chain and
//! its key are seldom replaced in one step; `reload` reads at once. A pair that is wrong changes nothing.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{
    sync::Notify,
    time::{MissedTickBehavior, interval},
};
use tokio_rustls::rustls::{Error as RustlsError, sign::CertifiedKey};
use tokio_util::sync::CancellationToken;

use super::{
    CertStore,
    pem::{FileError, Problem, read_chain, read_key},
    provider,
    source::Workshop,
    store::Certificate,
    x509::{self, Facts},
};
use crate::config::{CertificateFiles, Live};

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(2);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// A certificate that ends within this time is warned of, every day.
const SOON: Duration = Duration::from_secs(14 * 24 * 60 * 60);

/// The files that certificates come from, and what was read from them.
pub struct Files {
    live: Live,
    store: Arc<CertStore>,
    pairs: Vec<Pair>,
    reload: Arc<Notify>,
}

/// A chain and its key.
struct Pair {
    files: CertificateFiles,
    /// What was last read, with success or without.
    read: Option<Identity>,
    /// What the last look saw.
    seen: Identity,
    good: Option<Good>,
}

struct Good {
    certificate: Certificate,
    facts: Facts,
    warned: SystemTime,
}

/// What tells a file from the one that was at its place before.
type Identity = [Option<(u64, u64, u64, i64, i64)>; 2];

impl Files {
    /// Reads and shows all pairs, which must be right.
    pub fn prepare(workshop: &Workshop) -> Result<Self, FileError> {
        let Workshop { live, store, .. } = workshop.clone();
        let listed = live.load().tls.certificates.clone();
        let pairs: Vec<_> = listed.into_iter().map(Pair::new).collect::<Result<_, _>>()?;
        let mut files = Self { live, store, pairs, reload: Arc::default() };
        files.show();
        files.warn_of_ends(SystemTime::now());
        Ok(files)
    }

    /// Has everything read again at once.
    pub fn reload_handle(&self) -> Arc<Notify> {
        self.reload.clone()
    }

    /// Looks at the files until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let reload = self.reload.clone();
        loop {
            let at_once = tokio::select! {
                () = stop.cancelled() => return,
                () = reload.notified() => true,
                _ = look.tick() => false,
            };
            let looked = tokio::task::spawn_blocking(move || {
                self.look(at_once);
                self
            });
            match looked.await {
                Ok(files) => self = files,
                Err(error) => {
                    return tracing::error!(%error, "certificate files are no longer looked at");
                }
            }
        }
    }

    fn look(&mut self, at_once: bool) {
        let listed = self.live.load().tls.certificates.clone();
        let mut changed = listed.len() != self.pairs.len();
        let mut old: Vec<_> = std::mem::take(&mut self.pairs).into_iter().map(Some).collect();
        for files in listed {
            let same = |pair: &Option<Pair>| pair.as_ref().is_some_and(|pair| pair.files == files);
            let place = old.iter().position(same);
            changed |= place != Some(self.pairs.len());
            let mut pair = match place.and_then(|place| old[place].take()) {
                Some(pair) => pair,
                None => Pair { files, read: None, seen: [None; 2], good: None },
            };
            changed |= pair.look(at_once);
            self.pairs.push(pair);
        }
        if changed {
            self.show();
        }
        self.warn_of_ends(SystemTime::now());
    }

    /// Puts what is good into the store. The last good certificate stays where all are wrong.
    fn show(&self) {
        let certificates: Vec<_> =
            self.pairs.iter().filter_map(|pair| Some(pair.good.as_ref()?.certificate.clone())).collect();
        if !certificates.is_empty() {
            self.store.show(certificates);
        }
    }

    fn warn_of_ends(&mut self, now: SystemTime) {
        for Pair { files, good, .. } in &mut self.pairs {
            let Some(good) = good else { continue };
            if now.duration_since(good.warned).is_ok_and(|since| since >= DAY)
                && let Some(warning) = end_of(&good.facts, now)
            {
                tracing::warn!(file = %chain_of(files).display(), "{warning}");
                good.warned = now;
            }
        }
    }
}

impl Pair {
    fn new(files: CertificateFiles) -> Result<Self, FileError> {
        let seen = identity(&files);
        let good = Good::read(&files, SystemTime::now())?;
        Ok(Self { files, read: Some(seen), seen, good: Some(good) })
    }

    /// Reads the pair if it is new; whether there is something new to show.
    fn look(&mut self, at_once: bool) -> bool {
        let seen = identity(&self.files);
        let settled = seen == self.seen;
        self.seen = seen;
        let wanted = at_once || self.read.is_none() || (settled && self.read != Some(seen));
        if !wanted {
            return false;
        }
        self.read = Some(seen);
        let chain = chain_of(&self.files).display();
        match (Good::read(&self.files, SystemTime::now()), &mut self.good) {
            (Ok(new), Some(old)) if new.is(old) => false,
            (Ok(new), good) => {
                tracing::info!(file = %chain, until = x509::date(new.facts.not_after), "a new certificate for {} is served", new.facts.title);
                *good = Some(new);
                true
            }
            (Err(error), Some(_)) => {
                tracing::error!("the certificate that was served before stays: {error}");
                false
            }
            (Err(error), None) => {
                tracing::error!("a certificate is not served: {error}");
                false
            }
        }
    }
}

impl Good {
    fn read(files: &CertificateFiles, now: SystemTime) -> Result<Self, FileError> {
        let (chain_file, key_file) = (chain_of(files), files.key.as_deref().unwrap_or(Path::new("")));
        let chain = read_chain(chain_file)?;
        let facts = x509::check(&chain, now).map_err(|wrong| Problem::from(wrong).of(chain_file))?;
        let key = CertifiedKey::from_der(chain, read_key(key_file)?, &provider()).map_err(|error| {
            match error {
                RustlsError::InconsistentKeys(_) => Problem::OtherKey { chain: chain_file.into() },
                _ => Problem::UnknownKey,
            }
            .of(key_file)
        })?;
        let certificate =
            Certificate { key: Arc::new(key), names: facts.names.clone(), public: facts.public };
        Ok(Self { certificate, facts, warned: SystemTime::UNIX_EPOCH })
    }

    fn is(&self, other: &Self) -> bool {
        self.certificate.key.cert == other.certificate.key.cert
    }
}

fn chain_of(files: &CertificateFiles) -> &Path {
    files.chain.as_deref().unwrap_or(Path::new(""))
}

fn identity(files: &CertificateFiles) -> Identity {
    [&files.chain, &files.key].map(|file| {
        let file = fs::metadata(file.as_deref()?).ok()?;
        Some((file.dev(), file.ino(), file.size(), file.mtime(), file.mtime_nsec()))
    })
}

/// The warning about a certificate that ends soon, or has ended.
fn end_of(facts: &Facts, now: SystemTime) -> Option<String> {
    let Facts { title, not_after, .. } = facts;
    let date = x509::date(*not_after);
    match not_after.duration_since(now) {
        Err(_) => Some(format!("the certificate for {title} expired on {date}: clients refuse it")),
        Ok(left) if left <= SOON => Some(format!(
            "the certificate for {title} ends on {date}, in {} days: renew it",
            left.as_secs() / DAY.as_secs()
        )),
        Ok(_) => None,
    }
}
