//! How often something may happen to the clients of a network together, where what comes too early waits for its turn.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::Semaphore,
    time::{Instant, sleep_until},
};

use super::connection_limiter::customer_key;

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

/// The paces of all networks. What is not paid for yet outlasts the clients.
#[derive(Debug, Default)]
pub struct NetworkThrottles(Mutex<Networks>);

#[derive(Debug, Default)]
struct Networks {
    throttles: HashMap<IpAddr, Arc<SharedThrottle>>,
    /// With so many of them, those that are over are looked for.
    sweep_at: usize,
}

#[derive(Debug)]
struct SharedThrottle {
    throttle: Mutex<Throttle>,
    /// Of those who wait for a turn, and do it first come, first served.
    queue: tokio::sync::Mutex<()>,
    places: Semaphore,
}

/// The pace that the clients of a network share.
#[derive(Clone, Debug)]
pub struct NetworkThrottle(Arc<SharedThrottle>);

/// As many wait for a turn already as may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many requests of your network wait for their turn; send fewer at a time, or try again later")]
pub struct QueueIsFull;

/// Those of a network that may wait for a turn.
const MAX_WAITING: usize = 256;
const MIN_SWEEP: usize = 64;

impl Throttle {
    pub fn new(rate: Rate) -> Self {
        Self { rate, paid: Instant::now() }
    }

    /// Counts one at `now`. Returns when the next is due.
    pub fn count(&mut self, now: Instant) -> Instant {
        self.paid = self.paid.max(now) + self.rate.interval;
        self.due()
    }

    fn due(&self) -> Instant {
        self.paid.checked_sub(self.rate.burst).unwrap_or(self.paid)
    }
}

impl NetworkThrottles {
    /// Returns the pace of the network of `client`, with `rate` from now on.
    pub fn of(&self, client: IpAddr, rate: Rate) -> NetworkThrottle {
        let network = customer_key(client);
        let mut networks = lock(&self.0);
        if let Some(shared) = networks.throttles.get(&network) {
            lock(&shared.throttle).rate = rate;
            return NetworkThrottle(shared.clone());
        }
        if networks.throttles.len() >= networks.sweep_at {
            let now = Instant::now();
            networks
                .throttles
                .retain(|_, shared| Arc::strong_count(shared) > 1 || lock(&shared.throttle).paid > now);
            networks.sweep_at = (2 * networks.throttles.len()).max(MIN_SWEEP);
        }
        let shared = SharedThrottle {
            throttle: Mutex::new(Throttle::new(rate)),
            queue: tokio::sync::Mutex::default(),
            places: Semaphore::new(MAX_WAITING),
        };
        let shared = Arc::new(shared);
        networks.throttles.insert(network, shared.clone());
        NetworkThrottle(shared)
    }
}

impl NetworkThrottle {
    /// Counts one that happens at `now`. Returns when the next of the same client is due: each waits for what was counted
    /// before, so that all get their turn.
    pub fn count(&self, now: Instant) -> Instant {
        lock(&self.0.throttle).count(now)
    }

    /// Waits for a turn, and counts it. Who gives up before costs the others nothing.
    ///
    /// # Errors
    ///
    /// Too many of the network wait.
    pub async fn turn(&self) -> Result<(), QueueIsFull> {
        let shared = &self.0;
        let _place = shared.places.try_acquire().map_err(|_| QueueIsFull)?;
        let _first = shared.queue.lock().await;
        let due = lock(&shared.throttle).due();
        sleep_until(due).await;
        self.count(Instant::now());
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    const RATE: Rate = Rate { interval: Duration::from_millis(20), burst: Duration::from_millis(200) };

    fn throttle(all: &NetworkThrottles, client: &str) -> NetworkThrottle {
        all.of(client.parse().unwrap(), RATE)
    }

    #[tokio::test(start_paused = true)]
    async fn the_clients_of_a_network_share_its_rate() {
        let all = NetworkThrottles::default();
        let clients = ["192.0.2.1", "192.0.2.1", "2001:db8:1:2::1", "2001:db8:1:3::1", "192.0.2.2"];
        let throttles = clients.map(|client| throttle(&all, client));
        let waits = [0, 1, 0, 1, 2, 3, 4].map(|at| {
            let due = (0..10).fold(Instant::now(), |_, _| throttles[at].count(Instant::now()));
            (at, due.saturating_duration_since(Instant::now()))
        });
        let (now, later) = (Duration::ZERO, Duration::from_millis(200));
        assert_eq!(
            waits,
            [(0, now), (1, later), (0, later * 2), (1, later * 3), (2, now), (3, later), (4, now)]
        );
        tokio::time::advance(later * 4).await;
        assert_eq!(
            throttles[0].count(Instant::now()),
            Instant::now() - later + RATE.interval,
            "after a rest"
        );
    }

    /// Whoever leaves and comes back finds what it has not paid for, and nothing stays for ever.
    #[tokio::test(start_paused = true)]
    async fn what_is_not_paid_for_outlasts_the_clients() {
        let all = NetworkThrottles::default();
        let due = (0..50).fold(Instant::now(), |_, _| throttle(&all, "192.0.2.1").count(Instant::now()));
        for n in 0..10_000_u32 {
            drop(throttle(&all, &format!("198.51.{}.{}", n >> 8, n & 0xff)));
        }
        assert!(lock(&all.0).throttles.len() <= 2 * MIN_SWEEP);
        assert_eq!(throttle(&all, "192.0.2.1").count(Instant::now()), due + RATE.interval);
        tokio::time::advance(Duration::from_secs(60)).await;
        for n in 0..1_000_u32 {
            drop(throttle(&all, &format!("203.0.{}.{}", n >> 8, n & 0xff)));
        }
        assert!(!lock(&all.0).throttles.contains_key(&"192.0.2.1".parse().unwrap()));
    }

    #[tokio::test(start_paused = true)]
    async fn another_rate_holds_for_networks_that_are_there() {
        let all = NetworkThrottles::default();
        let before = throttle(&all, "192.0.2.1");
        let slow = Rate { interval: Duration::from_secs(1), burst: Duration::ZERO };
        assert_eq!(
            all.of("192.0.2.1".parse().unwrap(), slow).count(Instant::now()),
            Instant::now() + slow.interval
        );
        assert_eq!(before.count(Instant::now()), Instant::now() + 2 * slow.interval);
    }

    /// Waits for as many turns as there are, and gives up all but the last.
    #[tokio::test(start_paused = true)]
    async fn who_gives_up_its_turn_costs_the_others_nothing() {
        let all = NetworkThrottles::default();
        let (impatient, patient) = (throttle(&all, "192.0.2.1"), throttle(&all, "192.0.2.1"));
        for _ in 0..=10 {
            assert_eq!(impatient.turn().now_or_never(), Some(Ok(())));
        }
        let begun = Instant::now();
        for _ in 0..1_000 {
            assert_eq!(impatient.turn().now_or_never(), None);
        }
        let mut waiting = (0..MAX_WAITING - 1).map(|_| Box::pin(impatient.turn())).collect::<Vec<_>>();
        assert!(waiting.iter_mut().all(|turn| turn.now_or_never().is_none()));
        let mut turn = Box::pin(patient.turn());
        assert_eq!((&mut turn).now_or_never(), None);
        assert_eq!(impatient.turn().now_or_never(), Some(Err(QueueIsFull)));
        drop(waiting);
        turn.await.unwrap();
        assert_eq!(begun.elapsed(), RATE.interval);
    }
}
