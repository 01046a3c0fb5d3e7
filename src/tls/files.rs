//! Certificates from PEM files that somebody else renews.
//!
//! The files are looked at every few seconds: device, inode, size and times of what their paths lead to now, so that
//! links may change as well as files. A change is read once it has lasted from one look to the next, for a chain and
//! its key are seldom replaced in one step; `reload` reads at once. A pair that is wrong changes nothing, and is read at
//! each look: its files may become right without a change, as a certificate whose time begins does.

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
    context::CertContext,
    pem::{FileError, Problem, read_chain, read_key},
    provider,
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
    /// Why it was without.
    problem: Option<String>,
    /// What the last look saw.
    seen: Identity,
    good: Option<Good>,
}

struct Good {
    certificate: Certificate,
    facts: Facts,
    warned: SystemTime,
}

/// What tells the files of a pair from those that were in their places before.
type Identity = [Option<FileIdentity>; 2];

#[derive(Clone, Copy, PartialEq, Eq)]
struct FileIdentity {
    inode: (u64, u64),
    size: u64,
    modified: (i64, i64),
    /// Other than the time of the content, nobody sets it, and it is that of permissions too.
    changed: (i64, i64),
}

impl Files {
    /// Reads and shows all pairs, which must be right.
    pub fn prepare(context: &CertContext) -> Result<Self, FileError> {
        let CertContext { live, store, .. } = context.clone();
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
                None => Pair { files, read: None, problem: None, seen: [None; 2], good: None },
            };
            changed |= pair.look(at_once, SystemTime::now());
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
        Ok(Self { files, read: Some(seen), problem: None, seen, good: Some(good) })
    }

    /// Reads the pair if it is new or was wrong; whether there is something new to show.
    fn look(&mut self, at_once: bool, now: SystemTime) -> bool {
        let seen = identity(&self.files);
        let settled = seen == self.seen;
        self.seen = seen;
        let is_new = self.read != Some(seen) || self.problem.is_some();
        let wanted = at_once || self.read.is_none() || (settled && is_new);
        if !wanted {
            return false;
        }
        self.read = Some(seen);
        match Good::read(&self.files, now) {
            Ok(new) => {
                self.problem = None;
                self.take(new)
            }
            Err(error) => {
                self.complain(error.to_string(), at_once);
                false
            }
        }
    }

    /// Whether `new` is another one than that which is shown.
    fn take(&mut self, new: Good) -> bool {
        if self.good.as_ref().is_some_and(|old| new.is(old)) {
            return false;
        }
        let until = x509::date(new.facts.not_after);
        tracing::info!(file = %chain_of(&self.files).display(), until, "a new certificate for {} is served", new.facts.title);
        self.good = Some(new);
        true
    }

    /// Logs a problem that is new, or that somebody asks for.
    fn complain(&mut self, problem: String, at_once: bool) {
        if at_once || self.problem.as_ref() != Some(&problem) {
            match self.good {
                Some(_) => tracing::error!("the certificate that was served before stays: {problem}"),
                None => tracing::error!("a certificate is not served: {problem}"),
            }
        }
        self.problem = Some(problem);
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
        Some(FileIdentity {
            inode: (file.dev(), file.ino()),
            size: file.size(),
            modified: (file.mtime(), file.mtime_nsec()),
            changed: (file.ctime(), file.ctime_nsec()),
        })
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

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};
    use tempfile::TempDir;

    use super::*;

    /// A chain and its key for `name`, valid for a day from `begin` on.
    fn made(name: &str, begin: SystemTime) -> [String; 2] {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.into()]).unwrap();
        (params.not_before, params.not_after) = (begin.into(), (begin + DAY).into());
        [params.self_signed(&key).unwrap().pem(), key.serialize_pem()]
    }

    fn write(directory: &TempDir, made: &[String; 2]) -> CertificateFiles {
        let paths = ["pair.pem", "pair.key"].map(|name| directory.path().join(name));
        paths.iter().zip(made).for_each(|(path, text)| fs::write(path, text).unwrap());
        let [chain, key] = paths.map(Some);
        CertificateFiles { chain, key }
    }

    fn title(pair: &Pair) -> &str {
        &pair.good.as_ref().unwrap().facts.title
    }

    #[test]
    fn a_certificate_whose_time_begins_later_is_taken_then() {
        let (directory, now) = (tempfile::tempdir().unwrap(), SystemTime::now());
        let mut pair = Pair::new(write(&directory, &made("old.example", now - DAY / 2))).unwrap();
        write(&directory, &made("new.example", now + DAY / 2));
        for _ in 0..5 {
            assert!(!pair.look(false, now));
        }
        assert_eq!(title(&pair), "old.example");
        assert!(pair.problem.as_ref().unwrap().contains("is not valid before"), "{:?}", pair.problem);
        assert!(pair.look(false, now + DAY));
        assert_eq!((title(&pair), &pair.problem), ("new.example", &None));
        assert!(!pair.look(false, now + DAY));
    }

    /// Tools that copy keep the time of the content.
    #[test]
    fn a_file_with_the_size_and_the_time_of_the_old_one_is_new_all_the_same() {
        let (directory, now) = (tempfile::tempdir().unwrap(), SystemTime::now());
        let old = made("old.example", now - DAY / 2);
        let mut pair = Pair::new(write(&directory, &old)).unwrap();
        // Signatures are of several lengths.
        let same_size = |new: &[String; 2]| new.iter().map(String::len).eq(old.iter().map(String::len));
        let new = std::iter::repeat_with(|| made("new.example", now - DAY / 2)).find(same_size).unwrap();
        let changed = || {
            fs::metadata(directory.path().join("pair.pem"))
                .map(|file| (file.ctime(), file.ctime_nsec()))
                .unwrap()
        };
        let before = changed();
        // Clocks of file systems are coarse.
        while changed() == before {
            let times = ["pair.pem", "pair.key"].map(|name| {
                let path = directory.path().join(name);
                let modified = fs::metadata(&path).unwrap().modified().unwrap();
                (path, modified)
            });
            write(&directory, &new);
            for (path, modified) in times {
                fs::File::options().write(true).open(path).unwrap().set_modified(modified).unwrap();
            }
        }
        assert!(!pair.look(false, now), "it has not lasted for two looks");
        assert!(pair.look(false, now));
        assert_eq!(title(&pair), "new.example");
    }
}
