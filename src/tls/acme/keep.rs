//! The life of one domain's certificate: ordered, renewed when it is due, tried again after a failure.

use std::{
    ops::Range,
    time::{Duration, SystemTime},
};

use instant_acme::CertificateIdentifier;

use super::{
    Acme,
    certificate::Held,
    failure::{About, Cause, Failure},
    order::OrderRequest,
    schedule::{self, Turn},
};

impl Acme {
    /// Keeps the certificate of one domain fresh, for ever.
    pub(super) async fn keep(&self, index: usize, mut held: Option<Held>) {
        let domain = &self.domains[index];
        let (mut failures, mut turn, mut fresh) = (0, Turn::default(), false);
        let held_back = self.held_back().get(domain).copied();
        if let Some(deadline) = held_back {
            self.clock.wait(deadline).await;
        }
        loop {
            if let Some(held) = &held {
                self.until_due(domain, held, fresh).await;
            }
            let failure = match self.renew(domain, held.as_ref(), &mut turn).await {
                Ok(new) => {
                    let clock_is_wrong = schedule::two_thirds(&new.validity, 1.0) <= self.clock.now();
                    self.served.put(index, new.shown(domain));
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
            if asked_to_wait {
                self.held_back().insert(domain.clone(), deadline);
            }
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
    ) -> Option<(Range<SystemTime>, Duration)> {
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
            let wish = OrderRequest {
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

    async fn order(&self, wish: &OrderRequest<'_>) -> Result<Held, Failure> {
        let domain = wish.about.domain;
        let account = self.accounts.get(wish.about).await?;
        let pem = self.order_context.obtain(&account, wish).await?;
        let held = Held::read(&pem, domain).map_err(|why| {
            let words = format!("{} issued something of no use: {why}", wish.about.directory);
            Failure::new(Cause::Other, words)
        })?;
        let path = self.order_context.store.certificate(domain);
        self.order_context.store.write(&path, &pem).map_err(|error| Failure::file(&path, &error))?;
        self.order_context.forget(domain)?;
        Ok(held)
    }

    fn about<'a>(&'a self, domain: &'a str) -> About<'a> {
        About { domain, directory: &self.accounts.url, now: self.clock.now() }
    }
}

/// A random number in `0.0..1.0`.
fn roll() -> f64 {
    // Without randomness nothing is spread, which hurts nobody here.
    f64::from(getrandom::u32().unwrap_or_default()) / (f64::from(u32::MAX) + 1.0)
}
