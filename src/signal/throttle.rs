//! How fast frames are read that nobody else paid for: a socket has a rate, and all sockets of a client share one.

use std::{net::IpAddr, time::Duration};

use tokio::time::{Instant, sleep_until};
use tokio_util::task::AbortOnDropHandle;

use crate::net::throttle::{ClientThrottle, ClientThrottles, Rate, Throttle};

/// Frames of a socket that is seldom heard that do not wait for those of the other sockets of its client.
const ALLOWANCE: u32 = 32;
/// A socket recovers one of them in the time in which so many frames of its client are read. As many sockets as a client
/// may have by default add a fifth to its rate.
const RECOVERS_IN: u32 = 5_000;

/// The pace of one socket.
pub struct SocketThrottle {
    own: Throttle,
    of_client: Option<OfClient>,
    /// When the next frame may be read, unless that is at once.
    next: Option<Instant>,
    /// Ends when it is the socket's turn among those of its client. In a task of its own, as a socket that is being written
    /// to does not poll it, and those behind it wait until it ends.
    turn: Option<AbortOnDropHandle<()>>,
}

/// The pace that a socket shares with the others of its client.
struct OfClient {
    shared: ClientThrottle,
    allowance: Throttle,
}

impl SocketThrottle {
    /// Returns the pace of a socket of `client`, in frames a second, and of all sockets of that client; without one, it shares
    /// nothing with others.
    pub fn new(all: &ClientThrottles, client: Option<IpAddr>, own: u32, of_client: u32) -> Self {
        let rate = |frames_per_second| Rate {
            interval: Duration::from_secs(1) / frames_per_second,
            burst: Duration::from_secs(2),
        };
        let shares = |client| {
            let rate = rate(of_client);
            let shared = all.of(client, rate);
            let interval = rate.interval * RECOVERS_IN;
            let allowance = Throttle::new(Rate { interval, burst: interval * (ALLOWANCE - 1) });
            OfClient { shared, allowance }
        };
        Self { own: Throttle::new(rate(own)), of_client: client.map(shares), next: None, turn: None }
    }

    /// Reads the next frame when it is its turn. Cancel safe if `read` is.
    pub async fn paced<T>(&mut self, read: impl Future<Output = T>) -> T {
        if self.next.is_some() || self.turn.is_some() {
            // In a box, because hardly any socket ever needs it.
            Box::pin(self.wait()).await;
        }
        read.await
    }

    async fn wait(&mut self) {
        if let Some(turn) = &mut self.turn {
            // It ends early where the runtime does.
            let _ = turn.await;
            self.turn = None;
        }
        if let Some(next) = self.next {
            sleep_until(next).await;
            self.next = None;
        }
    }

    /// Counts a frame that was read.
    pub fn count(&mut self) {
        let now = Instant::now();
        let due = self.own.count(now);
        self.next = (due > now).then_some(due);
        let Some(OfClient { shared, allowance }) = &mut self.of_client else { return };
        if !shared.try_count(now) && !allowance.try_count(now) {
            let shared = shared.clone();
            let turn = async move { shared.turn(&shared.wait()).await };
            self.turn = Some(AbortOnDropHandle::new(tokio::spawn(turn)));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    };

    use tokio::time::sleep;

    use super::*;

    /// Frames a second of all sockets of a client.
    const OF_CLIENT: u32 = 50;

    /// Returns how many frames each socket sends in ten seconds that sends as many as are read.
    async fn sent(all: &ClientThrottles, clients: &[&str]) -> Vec<u32> {
        let sockets = clients.iter().map(|client| {
            let network = (!client.is_empty()).then(|| client.parse().unwrap());
            let mut throttle = SocketThrottle::new(all, network, 10, OF_CLIENT);
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
    async fn a_client_has_its_rate_however_many_its_sockets() {
        let all = ClientThrottles::default();
        assert!((120..=122).contains(&sent(&all, &["192.0.2.1"]).await[0]), "ten seconds and a burst");
        for clients in [["192.0.2.1"; 100], ["2001:db8:1:2::"; 100]] {
            let frames = sent(&all, &clients).await;
            let total = frames.iter().sum::<u32>() - 100 * ALLOWANCE;
            assert!((600 - 100..=600 + 100).contains(&total), "{clients:?}: {total}");
            let turns = *frames.iter().min().unwrap() - ALLOWANCE;
            assert!(turns >= 3, "all get their turn: {frames:?}");
        }
        let others = sent(&all, &["192.0.2.2", "192.0.2.3", "", ""]).await;
        assert!(others.iter().all(|frames| (120..=122).contains(frames)), "{others:?}");
    }

    /// Six /64s of one /48 have the rate of four; each /64 has its part, whether it has ten sockets or sixty.
    #[tokio::test(start_paused = true)]
    async fn a_48_has_four_times_the_rate_of_a_client() {
        let all = ClientThrottles::default();
        let networks = (1..=6).map(|network| (format!("2001:db8:1:{network}::"), 10 * network));
        let sockets = networks.clone().flat_map(|(client, sockets)| std::iter::repeat_n(client, sockets));
        let sockets = sockets.collect::<Vec<_>>();
        let mut frames =
            sent(&all, &sockets.iter().map(String::as_str).collect::<Vec<_>>()).await.into_iter();
        let shares = networks.map(|(_, sockets)| frames.by_ref().take(sockets).map(|n| n - ALLOWANCE).sum());
        let shares = shares.collect::<Vec<u32>>();
        let total = shares.iter().sum::<u32>();
        assert!((2_400 - 100..=2_400 + 210).contains(&total), "{total}");
        // The burst is that of the first who come.
        assert!(shares.iter().all(|share| (2_000 / 6..=500).contains(share)), "{shares:?}");
    }

    /// A socket of the same client has its allowance, one of another client in the /48 a rate of its own.
    #[tokio::test(start_paused = true)]
    async fn a_quiet_socket_does_not_wait_for_those_that_flood() {
        let all = ClientThrottles::default();
        let flood = async { sent(&all, &["2001:db8:1:2::"; 900]).await };
        let quiet = async {
            sleep(Duration::from_secs(5)).await;
            for (client, frames) in [("2001:db8:1:2::1", ALLOWANCE), ("2001:db8:1:3::", 100 + ALLOWANCE)] {
                let client_address = client.parse().unwrap();
                let mut throttle = SocketThrottle::new(&all, Some(client_address), 500, OF_CLIENT);
                let begun = Instant::now();
                for _ in 0..frames {
                    throttle.paced(async {}).await;
                    throttle.count();
                }
                throttle.paced(async {}).await;
                assert_eq!(begun.elapsed(), Duration::ZERO, "{client}");
            }
        };
        tokio::join!(flood, quiet);
    }

    /// Nor does one whose turn it is, but which does not read, as its peer takes nothing.
    #[tokio::test(start_paused = true)]
    async fn who_does_not_take_its_turn_holds_up_nobody() {
        let all = ClientThrottles::default();
        let mut stuck = SocketThrottle::new(&all, Some([192, 0, 2, 1].into()), 500, OF_CLIENT);
        while stuck.turn.is_none() {
            stuck.count();
        }
        let total = sent(&all, &["192.0.2.1"; 10]).await.iter().sum::<u32>() - 10 * ALLOWANCE;
        assert!((490..=510).contains(&total), "{total}");
    }
}
