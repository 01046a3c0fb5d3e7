//! Certificates from an ACME directory: which are wanted, when they are ordered, and what is done when that fails.
//!
//! Each domain has a certificate of its own and a task of its own: a domain whose order fails takes nothing from the
//! others. Nothing here is ever in the way of serving; a certificate stays shown until there is a better one, even
//! after its end.

mod account;
mod certificate;
mod directory;
mod failure;
mod order;
mod schedule;
mod store;

use std::{
    ops::Range,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use instant_acme::CertificateIdentifier;
use tokio::{
    sync::{Notify, Semaphore},
    task::JoinSet,
};
use tokio_rustls::rustls;
use tokio_util::sync::CancellationToken;

use self::{
    account::Accounts,
    certificate::Held,
    directory::Directory,
    failure::{About, Cause, Failure},
    order::{Desk, Wish},
    schedule::Turn,
    store::Store,
};
use super::{CertStore, source::Workshop, store::Certificate};
use crate::{
    clock::Clock,
    config::{ChallengeKind, Config, Domain},
};

/// Orders that are under way at a time.
const ORDERS: usize = 4;

/// A setting of ACME names a file that is of no use.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The root certificate.
    #[error("acme.root: {} {why}: it must be the PEM file of a root certificate that vouches for acme.directory", path.display())]
    Root {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The key of the external account binding.
    #[error("acme.eab_key_file: {} {why}: it must hold the key as the directory gave it, in base64url", path.display())]
    Binding {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// TLS with the directory.
    #[error("TLS cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
}

/// The source of certificates for `tls.mode = "acme"`.
pub struct Acme {
    accounts: Accounts,
    desk: Desk,
    clock: Clock,
    shelf: Shelf,
    kinds: Vec<ChallengeKind>,
    domains: Vec<String>,
    /// What was stored, in the order of `domains`.
    found: Mutex<Vec<Option<Held>>>,
    room: Semaphore,
    workshop: Workshop,
    /// The configuration that all of this was made from.
    config: Arc<Config>,
    reload: Arc<Notify>,
    /// Ends the pauses that no directory asked for.
    again: Notify,
}

/// The certificates that are shown, in the order of the domains.
struct Shelf {
    store: Arc<CertStore>,
    certificates: Mutex<Vec<Option<Certificate>>>,
    public: bool,
}

impl Shelf {
    fn put(&self, index: usize, certificate: Certificate) {
        self.lock()[index] = Some(certificate);
        self.show();
    }

    fn show(&self) {
        self.store.show(self.lock().iter().flatten().cloned().collect());
    }

    /// The certificate that is shown for `domain`.
    fn get(&self, domain: &str) -> Option<Certificate> {
        let is_for = |certificate: &&Certificate| certificate.names.iter().any(|name| name == domain);
        self.lock().iter().flatten().find(is_for).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Option<Certificate>>> {
        self.certificates.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Acme {
    /// Checks the files that the settings name, and shows the certificates that are stored.
    pub fn prepare(workshop: &Workshop) -> Result<Self, SetupError> {
        let acme = Self::new(workshop)?;
        acme.load(None);
        Ok(acme)
    }

    fn new(workshop: &Workshop) -> Result<Self, SetupError> {
        let config = workshop.live.load_full();
        let url = config.acme.directory.url().to_owned();
        let clock = workshop.clock.clone();
        let directory = Directory::new(config.acme.root.as_deref(), clock.clone())?;
        let store = Store::new(&config.data_dir, &url);
        let domains: Vec<_> = config.tls.domains.iter().filter_map(name).collect();
        let shelf = Shelf {
            store: workshop.store.clone(),
            certificates: Mutex::new(vec![None; domains.len()]),
            public: config.acme.directory.is_public(),
        };
        let accounts = Accounts {
            directory: directory.clone(),
            url,
            contacts: config.acme.contact.iter().map(|contact| contact.as_str().to_owned()).collect(),
            binding: binding(&config)?,
            store: store.clone(),
            clock: clock.clone(),
            ready: tokio::sync::Mutex::default(),
        };
        let desk = Desk {
            store,
            directory,
            clock: clock.clone(),
            shown: workshop.store.clone(),
            http_challenges: workshop.http_challenges.clone(),
        };
        let kinds = config.acme.challenges.to_vec();
        let (found, room) = (Mutex::default(), Semaphore::new(ORDERS));
        let (workshop, reload, again) = (workshop.clone(), Arc::default(), Notify::new());
        Ok(Self {
            accounts,
            desk,
            clock,
            shelf,
            kinds,
            domains,
            found,
            room,
            workshop,
            config,
            reload,
            again,
        })
    }

    /// Shows the certificates that are stored, else those that were shown `before`.
    fn load(&self, before: Option<&Shelf>) {
        self.desk.store.sweep();
        let mut found = Vec::new();
        for (index, domain) in self.domains.iter().enumerate() {
            let held = stored_certificate(&self.desk.store, domain, &self.clock);
            let shown = held.as_ref().map(|held| held.shown(domain, self.shelf.public));
            self.shelf.lock()[index] = shown.or_else(|| before?.get(domain));
            found.push(held);
        }
        *self.found.lock().unwrap_or_else(PoisonError::into_inner) = found;
        self.shelf.show();
    }

    /// Has the configuration looked at again at once, and what failed tried again.
    pub fn reload_handle(&self) -> Arc<Notify> {
        self.reload.clone()
    }

    /// Orders and renews until `stop`, for the domains and with the directory that the configuration names.
    pub async fn run(self, stop: CancellationToken) {
        let (workshop, reload) = (self.workshop.clone(), self.reload.clone());
        let mut acme = Arc::new(self);
        let mut tasks = acme.clone().keep_all();
        while stop.run_until_cancelled(reload.notified()).await.is_some() {
            if !acme.is_outdated() {
                acme.again.notify_waiters();
                continue;
            }
            match Self::new(&workshop) {
                Ok(next) => {
                    // What they were doing is taken up by the others. Only then is it read what they stored.
                    tasks.shutdown().await;
                    next.load(Some(&acme.shelf));
                    acme = Arc::new(next);
                    tasks = acme.clone().keep_all();
                }
                Err(error) => tracing::error!("certificates are ordered as before: {error}"),
            }
        }
    }

    fn is_outdated(&self) -> bool {
        let now = self.workshop.live.load();
        (&now.acme, &now.tls.domains) != (&self.config.acme, &self.config.tls.domains)
    }

    /// Keeps the certificates of all domains fresh, until the tasks are dropped.
    fn keep_all(self: Arc<Self>) -> JoinSet<()> {
        let found = std::mem::take(&mut *self.found.lock().unwrap_or_else(PoisonError::into_inner));
        let mut tasks = JoinSet::new();
        for (index, held) in found.into_iter().enumerate() {
            let acme = self.clone();
            tasks.spawn(async move { acme.keep(index, held).await });
        }
        tasks
    }

    /// Keeps the certificate of one domain fresh, for ever.
    async fn keep(&self, index: usize, mut held: Option<Held>) {
        let domain = &self.domains[index];
        let (mut failures, mut turn, mut fresh) = (0, Turn::default(), false);
        loop {
            if let Some(held) = &held {
                self.until_due(domain, held, fresh).await;
            }
            let failure = match self.renew(domain, held.as_ref(), &mut turn).await {
                Ok(new) => {
                    let clock_is_wrong = schedule::two_thirds(&new.validity, 1.0) <= self.clock.now();
                    self.shelf.put(index, new.shown(domain, self.shelf.public));
                    let until = humantime::format_rfc3339_seconds(new.validity.end);
                    tracing::info!(domain, "a certificate was issued; it is valid until {until}");
                    (held, fresh) = (Some(new), true);
                    if !clock_is_wrong {
                        failures = 0;
                        continue;
                    }
                    let now = humantime::format_rfc3339_seconds(self.clock.now());
                    let words = format!(
                        "the new certificate is old by this host's clock, which shows {now}: set the clock right"
                    );
                    Failure::new(Cause::Other, words)
                }
                Err(failure) => failure,
            };
            failures += 1;
            let pause = schedule::pause(failures, failure.wait, roll());
            let deadline = self.clock.after(pause);
            let next = humantime::format_rfc3339_seconds(self.clock.now() + pause);
            let state = held.as_ref().map_or_else(
                || format!("there is no certificate for {domain} yet"),
                |held| {
                    let until = humantime::format_rfc3339_seconds(held.validity.end);
                    format!("the certificate for {domain}, valid until {until}, was not renewed")
                },
            );
            tracing::warn!(domain, "{state}: {failure}; next try at {next}");
            let asked_to_wait = failure.wait.is_some();
            tokio::select! {
                () = self.clock.wait(deadline) => {}
                () = self.again.notified(), if !asked_to_wait => {}
            }
        }
    }

    /// Waits until `held` is to be renewed: at two thirds of its lifetime, or when the directory suggests.
    ///
    /// A directory is not asked about a `fresh` certificate at once: one that wants each new certificate to be replaced
    /// would be sent order after order.
    async fn until_due(&self, domain: &str, held: &Held, mut fresh: bool) {
        let (roll, mut suggested) = (roll(), None::<Range<SystemTime>>);
        loop {
            let mut poll = schedule::POLL;
            if !std::mem::take(&mut fresh)
                && let Some(identifier) = &held.identifier
                && let Some((window, wait)) = self.suggested(domain, identifier).await
            {
                suggested = Some(window);
                poll = wait;
            }
            let due = match &suggested {
                Some(window) => schedule::within(window, &held.validity, roll),
                None => schedule::two_thirds(&held.validity, roll),
            };
            let Ok(left) = due.duration_since(self.clock.now()) else { return };
            tracing::debug!(domain, "to be renewed at {}", humantime::format_rfc3339_seconds(due));
            self.clock.wait(self.clock.after(left.min(poll))).await;
        }
    }

    /// The window that the directory suggests, and when to ask again; nothing where it suggests none now.
    async fn suggested(
        &self,
        domain: &str,
        identifier: &CertificateIdentifier<'static>,
    ) -> Option<(Range<SystemTime>, std::time::Duration)> {
        let about = self.about(domain);
        let asked = async {
            let account = self.accounts.get(about).await?;
            account.renewal_info(identifier).await.map_err(|error| about.request(&error))
        };
        match asked.await {
            Ok((info, wait)) => {
                let window = info.suggested_window;
                if let Some(page) = info.explanation_url {
                    tracing::info!(domain, "the ACME directory explains when to renew at {page}");
                }
                Some((window.start.into()..window.end.into(), schedule::poll(wait)))
            }
            Err(failure) => {
                tracing::debug!(domain, "no time to renew was suggested: {failure}");
                None
            }
        }
    }

    /// One attempt: each challenge in turn, until one succeeds.
    async fn renew(&self, domain: &str, held: Option<&Held>, turn: &mut Turn) -> Result<Held, Failure> {
        // The semaphore is never closed.
        let _room = self.room.acquire().await;
        let mut words = Vec::new();
        let mut known = true;
        loop {
            let wish = Wish {
                about: self.about(domain),
                first: turn.index(self.kinds.len()),
                kinds: &self.kinds,
                replaces: held.and_then(|held| held.identifier.clone()),
            };
            let mut failure = match self.order(&wish).await {
                Ok(held) => {
                    turn.succeeded();
                    return Ok(held);
                }
                Err(failure) => failure,
            };
            match failure.cause {
                Cause::UnknownAccount if known => {
                    known = false;
                    self.accounts.register_again(wish.about).await?;
                    continue;
                }
                Cause::Challenge if turn.failed(self.kinds.len()) => {
                    words.push(failure.words);
                    continue;
                }
                _ => self.accounts.reset().await,
            }
            words.push(failure.words);
            failure.words = words.join("; ");
            return Err(failure);
        }
    }

    async fn order(&self, wish: &Wish<'_>) -> Result<Held, Failure> {
        let domain = wish.about.domain;
        let account = self.accounts.get(wish.about).await?;
        let pem = self.desk.obtain(&account, wish).await?;
        let held = Held::read(&pem, domain).map_err(|why| {
            let words = format!("{} issued something of no use: {why}", wish.about.directory);
            Failure::new(Cause::Other, words)
        })?;
        let path = self.desk.store.certificate(domain);
        self.desk.store.write(&path, &pem).map_err(|error| Failure::file(&path, &error))?;
        self.desk.forget(domain)?;
        Ok(held)
    }

    fn about<'a>(&'a self, domain: &'a str) -> About<'a> {
        About { domain, directory: &self.accounts.url, now: self.clock.now() }
    }
}

fn name(domain: &Domain) -> Option<String> {
    match domain {
        Domain::Name(name) => Some(name.clone()),
        // Refused with the settings.
        Domain::Address(_) => None,
    }
}

/// The certificate on disk. One that cannot be read is put aside; another will be ordered.
fn stored_certificate(store: &Store, domain: &str, clock: &Clock) -> Option<Held> {
    let path = store.certificate(domain);
    let text = match store.read(&path) {
        Ok(text) => text?,
        Err(error) => {
            tracing::warn!("{}", Failure::file(&path, &error));
            return None;
        }
    };
    Held::read(&text, domain)
        .inspect_err(|why| {
            let aside = store.put_aside(&path, clock.now());
            let kept = aside.as_ref().map_or(&path, |aside| aside).display();
            tracing::warn!(
                "{} is of no use: {why}; it is kept as {kept}, and another is ordered",
                path.display()
            );
        })
        .ok()
}

/// The external account binding, if there is one.
fn binding(config: &Config) -> Result<Option<(String, Vec<u8>)>, SetupError> {
    let (Some(id), Some(path)) = (&config.acme.eab_key_id, &config.acme.eab_key_file) else {
        return Ok(None);
    };
    let wrong = |why: String| SetupError::Binding { path: Path::new(path).into(), why };
    let text = std::fs::read_to_string(path).map_err(|error| wrong(format!("cannot be read ({error})")))?;
    let key = BASE64_URL_SAFE_NO_PAD
        .decode(text.trim().trim_end_matches('='))
        .map_err(|_| wrong("holds something else".into()))?;
    Ok(Some((id.as_str().into(), key)))
}

/// A random number in `0.0..1.0`.
fn roll() -> f64 {
    // Without randomness nothing is spread, which hurts nobody here.
    f64::from(getrandom::u32().unwrap_or_default()) / (f64::from(u32::MAX) + 1.0)
}
