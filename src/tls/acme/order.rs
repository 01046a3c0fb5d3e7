//! One order: from the wish for a certificate to the certificate, through crashes.
//!
//! The order's URL and the certificate's key are on disk before any challenge is answered. Whatever ends the process,
//! the next one goes on with the same order and key, so that crashes use up none of the directory's limits.

use std::{sync::Arc, time::Duration};

use instant_acme::{
    Account, AuthorizationStatus, CertificateIdentifier, Challenge, ChallengeStatus, ChallengeType, Error,
    Identifier, NewOrder, Order, OrderStatus,
};
use rcgen::KeyPair;
use serde::{Deserialize, Serialize};

use super::{
    certificate,
    directory::DirectoryClient,
    failure::{About, Cause, Failure},
    store::AcmeStore,
};
use crate::{
    clock::Clock,
    config::ChallengeKind,
    tls::{CertStore, HttpChallenges},
};

/// How long a directory may take to look for a challenge, and again to issue.
const PATIENCE: Duration = Duration::from_secs(5 * 60);
/// The first pause between two looks at an order; later ones are longer.
const FIRST_LOOK: Duration = Duration::from_millis(250);
const LONGEST_LOOK: Duration = Duration::from_secs(10);

/// What orders work on.
pub struct OrderContext {
    pub store: AcmeStore,
    pub directory: DirectoryClient,
    pub clock: Clock,
    pub shown: Arc<CertStore>,
    pub http_challenges: Arc<HttpChallenges>,
}

/// What is wanted.
pub struct OrderRequest<'a> {
    pub about: About<'a>,
    /// The challenge to answer first of all those in `kinds`.
    pub first: usize,
    pub kinds: &'a [ChallengeKind],
    /// The certificate that this one will replace.
    pub replaces: Option<CertificateIdentifier<'static>>,
}

/// An order under way, as it is stored.
#[derive(Serialize, Deserialize)]
struct UnderWay {
    order: String,
    /// The certificate's private key, in PEM.
    key: String,
}

impl OrderContext {
    /// The private key and the chain, in PEM.
    pub async fn obtain(&self, account: &Account, wish: &OrderRequest<'_>) -> Result<String, Failure> {
        if let Some((order, under_way)) = self.resume(account, wish).await? {
            match self.drive(order, &under_way, wish).await {
                // What failed while nobody was there to answer says nothing about now.
                Err(failure) if matches!(failure.cause, Cause::Challenge | Cause::Gone) => {
                    tracing::debug!(domain = wish.about.domain, "an old order came to nothing: {failure}");
                }
                done => return done,
            }
        }
        let (order, under_way) = self.begin(account, wish).await?;
        self.drive(order, &under_way, wish).await
    }

    /// Nothing of the order is needed any more.
    pub fn forget(&self, domain: &str) -> Result<(), Failure> {
        let path = self.store.order(domain);
        self.store.remove(&path).map_err(|error| Failure::file(&path, &error))
    }

    /// The order that an earlier attempt, or process, left under way.
    async fn resume(
        &self,
        account: &Account,
        wish: &OrderRequest<'_>,
    ) -> Result<Option<(Order, UnderWay)>, Failure> {
        let domain = wish.about.domain;
        let path = self.store.order(domain);
        let text = self.store.read(&path).map_err(|error| Failure::file(&path, &error))?;
        let Some(under_way) = text.and_then(|text| serde_json::from_str::<UnderWay>(&text).ok()) else {
            return Ok(None);
        };
        match account.order(under_way.order.clone()).await {
            Ok(mut order) => {
                if order.state().status == OrderStatus::Invalid {
                    return self.forget(domain).map(|()| None);
                }
                tracing::info!(domain, order = order.url(), "going on with an ACME order");
                Ok(Some((order, under_way)))
            }
            Err(error) => {
                let failure = wish.about.request(&error);
                if matches!(failure.cause, Cause::DirectoryClient | Cause::UnknownAccount) {
                    return Err(failure);
                }
                self.forget(domain).map(|()| None)
            }
        }
    }

    async fn begin(&self, account: &Account, wish: &OrderRequest<'_>) -> Result<(Order, UnderWay), Failure> {
        let domain = wish.about.domain;
        let identifiers = [Identifier::Dns(domain.into())];
        let new = NewOrder::new(&identifiers);
        let plain = || NewOrder::new(&identifiers);
        let order = match &wish.replaces {
            None => account.new_order(&new).await,
            Some(replaced) => match account.new_order(&new.replaces(replaced.clone())).await {
                // Naming the old certificate is a courtesy; a directory that does not want it gets none.
                Err(error) if wish.about.request(&error).cause == Cause::Other => {
                    account.new_order(&plain()).await
                }
                order => order,
            },
        };
        let order = order.map_err(|error| wish.about.request(&error))?;
        let key = KeyPair::generate().map_err(|error| cannot(&error))?.serialize_pem();
        let under_way = UnderWay { order: order.url().into(), key };
        let path = self.store.order(domain);
        let text = serde_json::to_string(&under_way).expect("strings are always JSON");
        self.store.write(&path, &text).map_err(|error| Failure::file(&path, &error))?;
        Ok((order, under_way))
    }

    async fn drive(
        &self,
        mut order: Order,
        under_way: &UnderWay,
        wish: &OrderRequest<'_>,
    ) -> Result<String, Failure> {
        let about = &wish.about;
        let done = self.advance(&mut order, under_way, wish).await;
        // An order that cannot be completed would be in the way of the next one.
        let is_dead = order.state().status == OrderStatus::Invalid;
        if let Err(failure) = &done
            && (is_dead || matches!(failure.cause, Cause::Challenge | Cause::Gone | Cause::Other))
        {
            self.forget(about.domain)?;
        }
        done
    }

    async fn advance(
        &self,
        order: &mut Order,
        under_way: &UnderWay,
        wish: &OrderRequest<'_>,
    ) -> Result<String, Failure> {
        let about = &wish.about;
        let failed = |error| about.request(&error);
        if order.state().status == OrderStatus::Pending {
            self.authorise(order, wish).await?;
        }
        let mut looks = Poller::new(&self.clock);
        loop {
            match order.state().status {
                OrderStatus::Ready => {
                    let request = certificate::signing_request(about.domain, &under_way.key)
                        .map_err(|error| cannot(&error))?;
                    order.finalize_csr(&request).await.map_err(failed)?;
                }
                OrderStatus::Valid => {
                    let chain = order.certificate().await.map_err(failed)?;
                    let chain = chain.ok_or_else(|| {
                        Failure::new(Cause::DirectoryClient, "the order has no certificate")
                    })?;
                    return Ok(format!("{}{chain}", under_way.key));
                }
                OrderStatus::Invalid => {
                    return Err(match &order.state().error {
                        Some(problem) => about.request(&instant_acme::Error::Api(problem.clone())),
                        None => Failure::new(Cause::Other, format!("{} gave up the order", about.directory)),
                    });
                }
                OrderStatus::Pending | OrderStatus::Processing => {
                    let asked = self.directory.wait_of(order.url());
                    looks.pause(asked, "issuing the certificate", about).await?;
                    order.refresh().await.map_err(failed)?;
                }
            }
        }
    }

    /// Proves control of the domain by one challenge.
    async fn authorise(&self, order: &mut Order, wish: &OrderRequest<'_>) -> Result<(), Failure> {
        let about = &wish.about;
        let failed = |error| about.request(&error);
        let none = || Failure::new(Cause::Other, format!("{} asks for no proof at all", about.directory));
        let kind;
        let _answer;
        let mut refused = None;
        {
            // An order for one name has one authorization.
            let mut authorizations = order.authorizations();
            let mut authorization = authorizations.next().await.ok_or_else(none)?.map_err(failed)?;
            if authorization.status == AuthorizationStatus::Valid {
                return Ok(());
            }
            kind = choose(&authorization.challenges, wish)?;
            let mut challenge = authorization.challenge(wire(kind)).ok_or_else(none)?;
            let key_authorization = challenge.key_authorization();
            _answer = match kind {
                ChallengeKind::TlsAlpn01 => {
                    let key = certificate::for_challenge(about.domain, key_authorization.digest().as_ref())
                        .map_err(|error| cannot(&error))?;
                    Answer::tls(&self.shown, about.domain, key)
                }
                ChallengeKind::Http01 => {
                    Answer::http(&self.http_challenges, &challenge.token, key_authorization.as_str())
                }
            };
            if challenge.status == ChallengeStatus::Pending {
                match challenge.set_ready().await {
                    // A directory that was quick tells already what it found; the authorization tells whether it did.
                    Err(error @ Error::Api(_)) => refused = Some(error),
                    ready => ready.map_err(failed)?,
                }
            }
        }
        let mut looks = Poller::new(&self.clock);
        let mut asked = None;
        loop {
            looks.pause(asked, "looking for the challenge", about).await?;
            let mut authorizations = order.authorizations();
            let mut authorization = authorizations.next().await.ok_or_else(none)?.map_err(failed)?;
            authorization.refresh().await.map_err(failed)?;
            asked = self.directory.wait_of(authorization.url());
            match authorization.status {
                AuthorizationStatus::Pending => {
                    if let Some(error) = refused {
                        return Err(failed(error));
                    }
                }
                AuthorizationStatus::Valid => break,
                _ => {
                    let problem =
                        authorization.challenges.iter().find_map(|challenge| challenge.error.as_ref());
                    return Err(match problem {
                        Some(problem) => about.challenge(kind, problem),
                        None => Failure::new(
                            Cause::Challenge,
                            format!("{} withdrew the challenge", about.directory),
                        ),
                    });
                }
            }
        }
        order.refresh().await.map_err(failed)?;
        Ok(())
    }
}

/// The challenge to answer: one that was begun already, else the next in turn that the directory offers.
fn choose(offered: &[Challenge], wish: &OrderRequest<'_>) -> Result<ChallengeKind, Failure> {
    let find = |kind| offered.iter().find(|challenge| challenge.r#type == wire(kind));
    let begun = |kind: &ChallengeKind| find(*kind).is_some_and(|c| c.status == ChallengeStatus::Processing);
    let mut turns = wish.kinds.iter().cycle().skip(wish.first).take(wish.kinds.len());
    let chosen = wish.kinds.iter().copied().find(begun);
    chosen.or_else(|| turns.find(|kind| find(**kind).is_some()).copied()).ok_or_else(|| {
        let words = format!("{} offers none of acme.challenges: change the setting", wish.about.directory);
        Failure::new(Cause::Other, words)
    })
}

fn wire(kind: ChallengeKind) -> ChallengeType {
    match kind {
        ChallengeKind::TlsAlpn01 => ChallengeType::TlsAlpn01,
        ChallengeKind::Http01 => ChallengeType::Http01,
    }
}

fn cannot(error: &rcgen::Error) -> Failure {
    Failure::new(Cause::Other, format!("no key or request for a certificate could be made: {error}"))
}

/// An answer to a challenge, for as long as it lives.
enum Answer {
    Tls(Arc<CertStore>, String),
    Http(Arc<HttpChallenges>, String),
}

impl Answer {
    fn tls(store: &Arc<CertStore>, domain: &str, key: Arc<tokio_rustls::rustls::sign::CertifiedKey>) -> Self {
        store.show_challenge(domain, key);
        Self::Tls(store.clone(), domain.into())
    }

    fn http(challenges: &Arc<HttpChallenges>, token: &str, authorization: &str) -> Self {
        challenges.answer(token, authorization);
        Self::Http(challenges.clone(), token.into())
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        match self {
            Self::Tls(store, domain) => store.end_challenge(domain),
            Self::Http(challenges, token) => challenges.end(token),
        }
    }
}

/// Pauses between looks at something that the directory works on.
struct Poller<'a> {
    clock: &'a Clock,
    next: Duration,
    left: Duration,
}

impl<'a> Poller<'a> {
    fn new(clock: &'a Clock) -> Self {
        Self { clock, next: FIRST_LOOK, left: PATIENCE }
    }

    async fn pause(&mut self, asked: Option<Duration>, what: &str, about: &About<'_>) -> Result<(), Failure> {
        let pause = asked.unwrap_or_default().max(self.next);
        self.next = (self.next * 2).min(LONGEST_LOOK);
        let left = self.left.checked_sub(pause);
        self.left = left.ok_or_else(|| Failure {
            wait: asked,
            ..Failure::new(
                Cause::DirectoryClient,
                format!("{} takes long for {what}: the order stays open", about.directory),
            )
        })?;
        self.clock.wait(self.clock.after(pause)).await;
        Ok(())
    }
}
