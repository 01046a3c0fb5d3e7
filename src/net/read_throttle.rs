//! How fast a connection or a socket is read: it has a rate, and all those of a client share one.

use std::{
    net::IpAddr,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures_util::FutureExt;
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::task::AbortOnDropHandle;

use super::throttle::{ClientThrottle, ClientThrottles, Rate, Throttle};

/// Frames of one that is seldom heard that do not wait for those of the others of its client.
const ALLOWANCE: u32 = 32;
/// One of them is recovered in the time in which so many frames of its client are read. As many sockets as a client may have
/// by default add a fifth to its rate.
const RECOVERS_IN: u32 = 5_000;

/// The pace of one connection or socket.
pub struct ReadThrottle {
    own: Throttle,
    of_client: Option<OfClient>,
    /// Ends when the next frame may be read, unless that is at once.
    next: Option<Pin<Box<Sleep>>>,
    /// Ends when it is its turn among those of its client. In a task of its own, as what is being written to does not poll
    /// it, and those behind it wait until it ends.
    turn: Option<AbortOnDropHandle<()>>,
}

/// The pace that it shares with the others of its client.
struct OfClient {
    shared: ClientThrottle,
    allowance: Throttle,
}

impl ReadThrottle {
    /// Returns the pace of one of `client`, in frames a second, and of all of that client; without one, it shares nothing
    /// with others.
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
        std::future::poll_fn(|cx| self.poll_ready(cx)).await;
        read.await
    }

    /// Ready once the next frame may be read.
    pub fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(turn) = &mut self.turn {
            // It ends early where the runtime does.
            let _ = ready!(turn.poll_unpin(cx));
            self.turn = None;
        }
        if let Some(next) = &mut self.next {
            ready!(next.as_mut().poll(cx));
            self.next = None;
        }
        Poll::Ready(())
    }

    /// Returns whether the next frame has to wait.
    pub fn is_late(&self) -> bool {
        self.turn.is_some() || self.next.is_some()
    }

    /// Counts frames that were read.
    pub fn count(&mut self, frames: u32) {
        let now = Instant::now();
        let due = self.own.count(now, frames);
        // In a box, because hardly any ever needs it.
        self.next = (due > now).then(|| Box::pin(sleep_until(due)));
        let Some(OfClient { shared, allowance }) = &mut self.of_client else { return };
        if !shared.try_count(now, frames) && !allowance.try_count(now, frames) {
            let shared = shared.clone();
            let turn = async move { shared.turn(&shared.wait(), frames).await };
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
            let mut throttle = ReadThrottle::new(all, network, 10, OF_CLIENT);
            let frames = Arc::<AtomicU32>::default();
            let counted = frames.clone();
            let sends = tokio::spawn(async move {
                loop {
                    throttle.paced(async { counted.fetch_add(1, Relaxed) }).await;
                    throttle.count(1);
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
                let mut throttle = ReadThrottle::new(&all, Some(client_address), 500, OF_CLIENT);
                let begun = Instant::now();
                for _ in 0..frames {
                    throttle.paced(async {}).await;
                    throttle.count(1);
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
        let mut stuck = ReadThrottle::new(&all, Some([192, 0, 2, 1].into()), 500, OF_CLIENT);
        while stuck.turn.is_none() {
            stuck.count(1);
        }
        let total = sent(&all, &["192.0.2.1"; 10]).await.iter().sum::<u32>() - 10 * ALLOWANCE;
        assert!((490..=510).contains(&total), "{total}");
    }
}
