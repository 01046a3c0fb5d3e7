//! How fast frames are read that nobody else paid for: a socket has a rate, and all sockets of a network share one.

use std::{net::IpAddr, sync::Arc, time::Duration};

use tokio::time::{Instant, sleep_until};

use crate::{
    config::SignalSettings,
    net::throttle::{NetworkThrottle, NetworkThrottles, Rate, Throttle},
};

/// The pace of one socket.
pub struct SocketThrottle {
    own: Throttle,
    of_network: Option<NetworkThrottle>,
    /// When the next frame may be read, unless that is at once.
    next: Option<Instant>,
}

impl SocketThrottle {
    /// Returns the pace of a socket of `network`; without one, it shares nothing with others.
    pub fn new(all: &Arc<NetworkThrottles>, network: Option<IpAddr>, limits: &SignalSettings) -> Self {
        let rate = |frames_per_second| Rate {
            interval: Duration::from_secs(1) / frames_per_second,
            burst: Duration::from_secs(2),
        };
        Self {
            own: Throttle::new(rate(limits.frames_per_second)),
            of_network: network.map(|network| all.of(network, rate(limits.frames_per_second_per_address))),
            next: None,
        }
    }

    /// Reads the next frame when it is its turn. Cancel safe if `read` is.
    pub async fn paced<T>(&mut self, read: impl Future<Output = T>) -> T {
        if let Some(next) = self.next {
            // In a box, because hardly any socket ever needs it.
            Box::pin(sleep_until(next)).await;
            self.next = None;
        }
        read.await
    }

    /// Counts a frame that was read.
    pub fn count(&mut self) {
        let now = Instant::now();
        let own = self.own.count(now);
        let due = self.of_network.as_ref().map_or(own, |network| own.max(network.count(now)));
        self.next = (due > now).then_some(due);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

    use tokio::time::sleep;

    use super::*;

    /// Returns how many frames each socket sends in ten seconds that sends as many as are read.
    async fn sent(all: &Arc<NetworkThrottles>, clients: &[&str]) -> Vec<u32> {
        let limits = SignalSettings {
            frames_per_second: 10,
            frames_per_second_per_address: 50,
            ..SignalSettings::default()
        };
        let sockets = clients.iter().map(|client| {
            let network = (!client.is_empty()).then(|| client.parse().unwrap());
            let mut throttle = SocketThrottle::new(all, network, &limits);
            let frames = Arc::<AtomicU32>::default();
            let counted = frames.clone();
            let sends = tokio::spawn(async move {
                loop {
                    throttle.paced(async { counted.fetch_add(1, Relaxed) }).await;
                    throttle.count();
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
        let all = Arc::<NetworkThrottles>::default();
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
    }
}
