//! How often something may happen to the clients of a network together, where what comes too early waits for its turn.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::crowd::customer_of;

/// How often something may happen, and how much of it at once after a rest: what comes in `burst`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    pub interval: Duration,
    pub burst: Duration,
}

/// What has happened so far.
#[derive(Debug)]
pub struct Pace {
    rate: Rate,
    /// When all of it will have been paid for.
    paid: Instant,
}

/// The paces of all networks that something may happen to.
#[derive(Debug, Default)]
pub struct NetworkPaces(Mutex<HashMap<IpAddr, Arc<Mutex<Pace>>>>);

/// The pace that the clients of a network share, until the last of these is gone.
#[derive(Debug)]
pub struct NetworkPace {
    all: Arc<NetworkPaces>,
    network: IpAddr,
    pace: Arc<Mutex<Pace>>,
}

impl Pace {
    pub fn new(rate: Rate) -> Self {
        Self { rate, paid: Instant::now() }
    }

    /// Counts one. Returns when the next is due.
    pub fn count(&mut self) -> Instant {
        self.paid = self.paid.max(Instant::now()) + self.rate.interval;
        self.paid.checked_sub(self.rate.burst).unwrap_or(self.paid)
    }
}

impl NetworkPaces {
    /// Returns the pace of the network of `client`, which begins with `rate` if it is not there yet.
    pub fn of(self: &Arc<Self>, client: IpAddr, rate: Rate) -> NetworkPace {
        let network = customer_of(client);
        let mut paces = lock(&self.0);
        let pace = paces.entry(network).or_insert_with(|| Arc::new(Mutex::new(Pace::new(rate))));
        NetworkPace { all: self.clone(), network, pace: pace.clone() }
    }
}

impl NetworkPace {
    /// Counts one. Returns when the next of the same client is due: each waits for what was counted before, so that
    /// all get their turn.
    pub fn count(&self) -> Instant {
        lock(&self.pace).count()
    }
}

impl Drop for NetworkPace {
    fn drop(&mut self) {
        let mut paces = lock(&self.all.0);
        // That of the map and this one: nobody else can get another one meanwhile.
        if Arc::strong_count(&self.pace) == 2 {
            paces.remove(&self.network);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate { interval: Duration::from_millis(20), burst: Duration::from_millis(200) };

    #[tokio::test(start_paused = true)]
    async fn the_clients_of_a_network_share_its_rate_and_nothing_stays_behind() {
        let all = Arc::<NetworkPaces>::default();
        let clients = ["192.0.2.1", "192.0.2.1", "2001:db8:1:2::1", "2001:db8:1:3::1", "192.0.2.2"];
        let paces = clients.map(|client| all.of(client.parse().unwrap(), RATE));
        let waits = [0, 1, 0, 1, 2, 3, 4].map(|at| {
            let due = (0..10).fold(Instant::now(), |_, _| paces[at].count());
            (at, due.saturating_duration_since(Instant::now()))
        });
        let (now, later) = (Duration::ZERO, Duration::from_millis(200));
        assert_eq!(
            waits,
            [(0, now), (1, later), (0, later * 2), (1, later * 3), (2, now), (3, later), (4, now)]
        );
        tokio::time::advance(later * 4).await;
        assert_eq!(paces[0].count(), Instant::now() - later + RATE.interval, "after a rest");
        drop(paces);
        assert!(lock(&all.0).is_empty());
    }
}
