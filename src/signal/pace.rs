//! How fast frames are read that nobody else paid for: a socket has a rate, and all sockets of a network share one.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, sleep_until};

use crate::net::crowd::customer_of;

/// The rates of all networks that have sockets.
#[derive(Debug, Default)]
pub struct NetworkPaces(Mutex<HashMap<IpAddr, Arc<Mutex<Pace>>>>);

/// The pace of one socket.
pub struct SocketPace {
    own: Pace,
    of_network: Option<NetworkPace>,
    /// When the next frame may be read.
    next: Instant,
}

/// The pace that a socket shares with the others of its network, until the last of them is gone.
struct NetworkPace {
    all: Arc<NetworkPaces>,
    network: IpAddr,
    pace: Arc<Mutex<Pace>>,
}

/// A rate, with bursts of what comes in two seconds.
#[derive(Debug)]
struct Pace {
    interval: Duration,
    /// When the frames read so far will have been paid for.
    paid: Instant,
}

impl Pace {
    const BURST: Duration = Duration::from_secs(2);

    fn new(frames_per_second: u32) -> Self {
        Self { interval: Duration::from_secs(1) / frames_per_second, paid: Instant::now() }
    }

    /// Counts a frame. Returns when its sender may send another.
    fn count(&mut self) -> Instant {
        self.paid = self.paid.max(Instant::now()) + self.interval;
        self.paid.checked_sub(Self::BURST).unwrap_or(self.paid)
    }
}

impl NetworkPaces {
    fn of(self: &Arc<Self>, client: IpAddr, frames_per_second: u32) -> NetworkPace {
        let network = customer_of(client);
        let mut paces = lock(&self.0);
        let pace = paces.entry(network).or_insert_with(|| Arc::new(Mutex::new(Pace::new(frames_per_second))));
        NetworkPace { all: self.clone(), network, pace: pace.clone() }
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

impl SocketPace {
    /// Returns the pace of a socket that may send `own` frames a second, and together with the others of its network
    /// `of_network`. A client without a network shares nothing.
    pub fn new(all: &Arc<NetworkPaces>, network: Option<IpAddr>, own: u32, of_network: u32) -> Self {
        let of_network = network.map(|network| all.of(network, of_network));
        Self { own: Pace::new(own), of_network, next: Instant::now() }
    }

    /// Reads the next frame when it is its turn. Cancel safe if `read` is.
    pub async fn paced<T>(&self, read: impl Future<Output = T>) -> T {
        if self.next > Instant::now() {
            // In a box, because hardly any socket ever needs it.
            Box::pin(sleep_until(self.next)).await;
        }
        read.await
    }

    /// Counts a frame that was read. The sockets of a network take turns, as each waits for what was read before.
    pub fn count(&mut self) {
        self.next = self.own.count();
        if let Some(network) = &self.of_network {
            self.next = self.next.max(lock(&network.pace).count());
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

    use tokio::time::sleep;

    use super::*;

    /// Returns how many frames each socket sends in ten seconds that sends as many as are read.
    async fn sent(all: &Arc<NetworkPaces>, clients: &[&str]) -> Vec<u32> {
        let sockets = clients.iter().map(|client| {
            let network = (!client.is_empty()).then(|| client.parse().unwrap());
            let mut pace = SocketPace::new(all, network, 10, 50);
            let frames = Arc::<AtomicU32>::default();
            let counted = frames.clone();
            let sends = tokio::spawn(async move {
                loop {
                    pace.paced(async { counted.fetch_add(1, Relaxed) }).await;
                    pace.count();
                }
            });
            (sends, frames)
        });
        let sockets = sockets.collect::<Vec<_>>();
        sleep(Duration::from_secs(10)).await;
        sockets
            .into_iter()
            .map(|(sends, frames)| {
                sends.abort();
                frames.load(Relaxed)
            })
            .collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_network_has_its_rate_however_many_its_sockets() {
        let all = Arc::<NetworkPaces>::default();
        assert!((120..=122).contains(&sent(&all, &["192.0.2.1"]).await[0]), "ten seconds and a burst");
        for clients in [
            ["192.0.2.1"; 100],
            ["2001:db8:1:2::"; 100],
            std::array::from_fn(|n| if n % 2 == 0 { "2001:db8:2:2::" } else { "2001:db8:2:3::" }),
        ] {
            let frames = sent(&all, &clients).await;
            let total = frames.iter().sum::<u32>();
            assert!((600..=600 + 100).contains(&total), "{clients:?}: {total}");
            let turns = *frames.iter().min().unwrap();
            assert!(turns >= 4, "all get their turn: {frames:?}");
        }
        let others = sent(&all, &["192.0.2.2", "192.0.2.3", "", ""]).await;
        assert!(others.iter().all(|frames| (120..=122).contains(frames)), "{others:?}");
        tokio::task::yield_now().await;
        assert!(lock(&all.0).is_empty(), "nothing should stay behind");
    }
}
