//! How often something may happen to a client, and to all clients of its /48 together, where what comes too early waits
//! for its turn.
//!
//! Those who wait stand in line for their client, and of each client only the first stands in line for the /48. So the
//! clients of a /48 take turns, however many wait for each of them.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, sleep_until};

use super::{
    client_permits::ClientKey,
    connection_limiter::{SITE_FACTOR, rate_limit_key, site_of},
};

/// How often something may happen, and how much of it at once after a rest: what comes in `burst`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    pub interval: Duration,
    pub burst: Duration,
}

/// What has happened so far.
#[derive(Debug)]
pub struct Throttle {
    rate: Rate,
    /// When all of it will have been paid for.
    paid: Instant,
}

/// The paces of all clients and sites. What is not paid for yet outlasts the clients.
#[derive(Debug, Default)]
pub struct ClientThrottles(Mutex<Throttles>);

#[derive(Debug, Default)]
struct Throttles {
    by_key: HashMap<ClientKey, Arc<SharedThrottle>>,
    /// With so many of them, those that are over are looked for.
    sweep_at: usize,
}

/// The pace of a client, which its connections share, or that of a site, which its clients share.
#[derive(Debug)]
struct SharedThrottle {
    paid: Mutex<Paid>,
    /// Of those who wait for a turn, and do it first come, first served.
    line: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct Paid {
    throttle: Throttle,
    waiting: usize,
}

/// The pace of one client, and of the site that it is in.
#[derive(Clone, Debug)]
pub struct ClientThrottle {
    client: Arc<SharedThrottle>,
    site: Option<Arc<SharedThrottle>>,
}

/// Counts one that waits. As long as there are any, nobody else is let in before them.
pub struct Waiting<'a>(&'a SharedThrottle);

const MIN_SWEEP: usize = 64;

impl Rate {
    /// Returns a rate that is `factor` times as high, with a burst of as many times as much.
    fn times(self, factor: u32) -> Self {
        Self { interval: self.interval / factor, ..self }
    }
}

impl Throttle {
    pub fn new(rate: Rate) -> Self {
        Self { rate, paid: Instant::now() }
    }

    /// Counts `number` at `now`. Returns when the next is due.
    pub fn count(&mut self, now: Instant, number: u32) -> Instant {
        self.paid = self.paid.max(now) + self.rate.interval * number;
        self.due()
    }

    /// Counts `number` at `now`, unless the first of them is not due yet. Returns whether they were counted.
    pub fn try_count(&mut self, now: Instant, number: u32) -> bool {
        let is_due = self.due() <= now;
        if is_due {
            self.count(now, number);
        }
        is_due
    }

    fn due(&self) -> Instant {
        self.paid.checked_sub(self.rate.burst).unwrap_or(self.paid)
    }
}

impl ClientThrottles {
    /// Returns the pace of `client`, with `rate` from now on. Its site has [`SITE_FACTOR`] times that.
    pub fn of(&self, client: IpAddr, rate: Rate) -> ClientThrottle {
        let client = rate_limit_key(client);
        let mut throttles = lock(&self.0);
        ClientThrottle {
            client: throttles.of(ClientKey::Client(client), rate),
            site: site_of(client).map(|site| throttles.of(ClientKey::Site(site), rate.times(SITE_FACTOR))),
        }
    }
}

impl Throttles {
    fn of(&mut self, key: ClientKey, rate: Rate) -> Arc<SharedThrottle> {
        if let Some(shared) = self.by_key.get(&key) {
            lock(&shared.paid).throttle.rate = rate;
            return shared.clone();
        }
        if self.by_key.len() >= self.sweep_at {
            let now = Instant::now();
            let is_over =
                |shared: &Arc<SharedThrottle>| Arc::strong_count(shared) == 1 && shared.is_paid(now);
            self.by_key.retain(|_, shared| !is_over(shared));
            self.sweep_at = (2 * self.by_key.len()).max(MIN_SWEEP);
        }
        let paid = Mutex::new(Paid { throttle: Throttle::new(rate), waiting: 0 });
        let shared = Arc::new(SharedThrottle { paid, line: tokio::sync::Mutex::default() });
        self.by_key.insert(key, shared.clone());
        shared
    }
}

impl SharedThrottle {
    fn is_paid(&self, now: Instant) -> bool {
        lock(&self.paid).throttle.paid <= now
    }

    fn wait(&self) -> Waiting<'_> {
        lock(&self.paid).waiting += 1;
        Waiting(self)
    }

    /// Waits until the next is due, which is the only one to be counted then.
    async fn due(&self) {
        let due = lock(&self.paid).throttle.due();
        if due > Instant::now() {
            sleep_until(due).await;
        }
    }
}

impl ClientThrottle {
    /// Counts `number` at `now`, unless the first of them has to wait for its turn. Returns whether they were counted.
    pub fn try_count(&self, now: Instant, number: u32) -> bool {
        let mut client = lock(&self.client.paid);
        if client.waiting > 0 || client.throttle.due() > now {
            return false;
        }
        if let Some(site) = &self.site {
            let mut site = lock(&site.paid);
            if site.waiting > 0 || !site.throttle.try_count(now, number) {
                return false;
            }
        }
        client.throttle.count(now, number);
        true
    }

    /// Joins those of the client that wait.
    pub fn wait(&self) -> Waiting<'_> {
        self.client.wait()
    }

    /// Returns how many of the client wait.
    pub fn waiting(&self) -> usize {
        lock(&self.client.paid).waiting
    }

    /// Waits for a turn, and counts `number`. Who gives up before costs the others nothing. Whoever does not poll it to its
    /// end holds up its client and its site.
    pub async fn turn(&self, _waiting: &Waiting<'_>, number: u32) {
        let _first = self.client.line.lock().await;
        self.client.due().await;
        if let Some(site) = &self.site {
            let _waiting = site.wait();
            let _first = site.line.lock().await;
            site.due().await;
            lock(&site.paid).throttle.count(Instant::now(), number);
        }
        lock(&self.client.paid).throttle.count(Instant::now(), number);
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        lock(&self.0.paid).waiting -= 1;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
