//! Certificates from an ACME directory: which are wanted, when they are ordered, and what is done when that fails.
//!
//! Each domain has a certificate of its own and a task of its own: a domain whose order fails takes nothing from the
//! others. Nothing here is ever in the way of serving; a certificate stays shown until there is a better one, even
//! after its end.

mod account;
mod certificate;
mod directory;
mod failure;
mod keep;
mod order;
mod schedule;
mod setup_error;
mod store;

use std::{
    collections::HashMap,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use tokio::{
    sync::{Notify, Semaphore},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

pub use self::setup_error::SetupError;
use self::{
    account::Accounts, certificate::Held, directory::DirectoryClient, failure::Failure, order::OrderContext,
    store::AcmeStore,
};
use super::{CertStore, context::CertContext, store::Certificate};
use crate::{
    clock::{Clock, Deadline},
    config::{ChallengeKind, Config, Domain},
    regular_file,
};

/// Orders that are under way at a time.
const ORDERS: usize = 4;

/// The source of certificates for `tls.mode = "acme"`.
pub struct Acme {
    accounts: Accounts,
    order_context: OrderContext,
    clock: Clock,
    served: ServedCertificates,
    kinds: Vec<ChallengeKind>,
    domains: Vec<String>,
    /// What was stored, in the order of `domains`.
    found: Mutex<Vec<Option<Held>>>,
    room: Semaphore,
    context: CertContext,
    /// The configuration that all of this was made from.
    config: Arc<Config>,
    reload: Arc<Notify>,
    /// Ends the pauses that no directory asked for.
    again: Notify,
    /// Until when the directory wants to hear nothing of a domain.
    held_back: Mutex<HashMap<String, Deadline>>,
}

/// The certificates that are shown, in the order of the domains.
struct ServedCertificates {
    store: Arc<CertStore>,
    certificates: Mutex<Vec<Option<Certificate>>>,
}

impl ServedCertificates {
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
    pub fn prepare(context: &CertContext) -> Result<Self, SetupError> {
        let acme = Self::new(context)?;
        acme.load(None);
        Ok(acme)
    }

    fn new(context: &CertContext) -> Result<Self, SetupError> {
        let config = context.live.load_full();
        let url = config.acme.directory.url().to_owned();
        let clock = context.clock.clone();
        let directory = DirectoryClient::new(config.acme.root.as_deref(), clock.clone())?;
        let store = AcmeStore::new(&config.data_dir, &url);
        let domains: Vec<_> = config.tls.domains.iter().filter_map(name).collect();
        let served = ServedCertificates {
            store: context.store.clone(),
            certificates: Mutex::new(vec![None; domains.len()]),
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
        let order_context = OrderContext {
            store,
            directory,
            clock: clock.clone(),
            shown: context.store.clone(),
            http_challenges: context.http_challenges.clone(),
        };
        let kinds = config.acme.challenges.to_vec();
        let (found, room) = (Mutex::default(), Semaphore::new(ORDERS));
        let (context, reload, again) = (context.clone(), Arc::default(), Notify::new());
        Ok(Self {
            accounts,
            order_context,
            clock,
            served,
            kinds,
            domains,
            found,
            room,
            context,
            config,
            reload,
            again,
            held_back: Mutex::default(),
        })
    }

    /// Shows the certificates that are stored, else those that were shown `before`.
    fn load(&self, before: Option<&Self>) {
        self.order_context.store.sweep();
        let mut found = Vec::new();
        for (index, domain) in self.domains.iter().enumerate() {
            let held = stored_certificate(&self.order_context.store, domain, &self.clock);
            let shown = held.as_ref().map(|held| held.shown(domain));
            self.served.lock()[index] = shown.or_else(|| before?.served.get(domain));
            found.push(held);
        }
        *self.found.lock().unwrap_or_else(PoisonError::into_inner) = found;
        self.served.show();
        if let Some(before) = before.filter(|before| before.accounts.url == self.accounts.url) {
            self.held_back().clone_from(&before.held_back());
        }
    }

    /// Has the configuration looked at again at once, and what failed tried again.
    pub fn reload_handle(&self) -> Arc<Notify> {
        self.reload.clone()
    }

    /// Orders and renews until `stop`, for the domains and with the directory that the configuration names.
    pub async fn run(self, stop: CancellationToken) {
        let (context, reload) = (self.context.clone(), self.reload.clone());
        let mut acme = Arc::new(self);
        let mut tasks = acme.clone().keep_all();
        while stop.run_until_cancelled(reload.notified()).await.is_some() {
            if !acme.is_outdated() {
                acme.again.notify_waiters();
                continue;
            }
            match Self::new(&context) {
                Ok(next) => {
                    // What they were doing is taken up by the others. Only then is it read what they stored.
                    tasks.shutdown().await;
                    next.load(Some(&acme));
                    acme = Arc::new(next);
                    tasks = acme.clone().keep_all();
                }
                Err(error) => tracing::error!("certificates are ordered as before: {error}"),
            }
        }
    }

    fn held_back(&self) -> MutexGuard<'_, HashMap<String, Deadline>> {
        self.held_back.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_outdated(&self) -> bool {
        let now = self.context.live.load();
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
}

fn name(domain: &Domain) -> Option<String> {
    match domain {
        Domain::Name(name) => Some(name.clone()),
        // Refused with the settings.
        Domain::Address(_) => None,
    }
}

/// The certificate on disk. One that cannot be read is put aside; another will be ordered.
fn stored_certificate(store: &AcmeStore, domain: &str, clock: &Clock) -> Option<Held> {
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
    let text = regular_file::read_text(Path::new(path))
        .map_err(|error| wrong(format!("cannot be read ({error})")))?;
    let mut lines = (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty());
    if let Some((line, _)) = lines.nth(1) {
        return Err(wrong(format!("holds more than one line (line {line})")));
    }
    let key = BASE64_URL_SAFE_NO_PAD
        .decode(text.trim().trim_end_matches('='))
        .map_err(|_| wrong("holds something else".into()))?;
    Ok(Some((id.as_str().into(), key)))
}
