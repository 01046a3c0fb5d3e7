//! When the requests on streams of an HTTP/2 connection begin: the connections of a client take turns.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use tokio::{sync::Mutex, time::Instant};

use super::throttle::{ClientThrottle, Waiting};

/// The pace of one connection; clones are of the same one.
#[derive(Clone, Debug)]
pub struct RequestThrottle {
    client: ClientThrottle,
    own: Arc<Own>,
}

#[derive(Debug, Default)]
struct Own {
    /// Of the requests that wait; the first of them stands in line for the client.
    line: Mutex<()>,
    waiting: AtomicUsize,
}

/// A connection has as many requests waiting as its client has room left for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many requests of your network wait for their turn; send fewer at a time, or try again later")]
pub struct QueueIsFull;

/// Requests of a client that may wait for a turn, beside one of each connection.
const MAX_WAITING: usize = 256;

struct Place<'a> {
    own: &'a Own,
    of_client: Waiting<'a>,
}

impl RequestThrottle {
    pub fn new(client: ClientThrottle) -> Self {
        Self { client, own: Arc::default() }
    }

    /// Takes a turn if nothing has to wait for it. Returns whether it was counted.
    pub fn try_turn(&self) -> bool {
        self.client.try_count(Instant::now(), 1)
    }

    /// Waits for a turn, and counts it. Who gives up before costs the others nothing.
    ///
    /// # Errors
    ///
    /// Requests of the connection wait, and as many as the client has room left for: those that have most waiting are
    /// refused first.
    pub async fn turn(&self) -> Result<(), QueueIsFull> {
        if self.try_turn() {
            return Ok(());
        }
        let place = self.place()?;
        let _first = self.own.line.lock().await;
        self.client.turn(&place.of_client, 1).await;
        Ok(())
    }

    fn place(&self) -> Result<Place<'_>, QueueIsFull> {
        let own = self.own.waiting.fetch_add(1, Relaxed);
        // Dropped, it is taken back.
        let place = Place { own: &self.own, of_client: self.client.wait() };
        let is_full = own > 0 && own + self.client.waiting() > MAX_WAITING;
        if is_full { Err(QueueIsFull) } else { Ok(place) }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.own.waiting.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt, future::BoxFuture};
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::net::throttle::{ClientThrottles, Rate};

    type Turn<'a> = BoxFuture<'a, Result<(), QueueIsFull>>;

    /// Connections of one client, which has no turn left. There is one each millisecond.
    fn connections(count: usize) -> Vec<RequestThrottle> {
        let one = std::time::Duration::from_millis(1);
        let client = ClientThrottles::default().of([192, 0, 2, 1].into(), Rate { interval: one, burst: one });
        while client.try_count(Instant::now(), 1) {}
        (0..count).map(|_| RequestThrottle::new(client.clone())).collect()
    }

    /// Returns as many of these requests as wait, and how many were refused.
    fn ask(connection: &RequestThrottle, requests: usize) -> (Vec<Turn<'_>>, usize) {
        let mut turns = (0..requests).map(|_| connection.turn().boxed()).collect::<Vec<_>>();
        turns.retain_mut(|turn| turn.now_or_never() != Some(Err(QueueIsFull)));
        let refused = requests - turns.len();
        (turns, refused)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Whatever others have waiting, a connection's request is not refused, and waits for one of each at most.
        #[test]
        fn connections_take_turns(floods in vec(0..40_usize, 0..300)) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
            runtime.unwrap().block_on(async {
                let connections = connections(floods.len() + 1);
                let (quiet, others) = connections.split_last().unwrap();
                let mut waiting = Vec::new();
                for (connection, requests) in others.iter().zip(&floods) {
                    waiting.extend(ask(connection, *requests).0);
                }
                prop_assert!(waiting.len() <= MAX_WAITING + floods.len());
                let mut turn = quiet.turn().boxed();
                prop_assert_eq!((&mut turn).now_or_never(), None);
                let begun = Instant::now();
                let mut others = futures_util::future::join_all(waiting);
                tokio::select! {
                    done = &mut turn => prop_assert_eq!(done, Ok(())),
                    _ = &mut others => turn.await.unwrap(),
                }
                let most = floods.iter().filter(|requests| **requests > 0).count() as u128 + 1;
                prop_assert!(begun.elapsed().as_millis() <= most, "{:?}", begun.elapsed());
                Ok(())
            })?;
        }
    }

    /// Connections that have little waiting find room where others find none any more.
    #[tokio::test(start_paused = true)]
    async fn those_that_have_most_waiting_are_refused_first() {
        let connections = connections(11);
        let (modest, floods) = connections.split_last().unwrap();
        let mut waiting = Vec::new();
        for _ in 0..1_000 {
            for flood in floods {
                waiting.extend(ask(flood, 1).0);
            }
        }
        let (turns, refused) = ask(modest, 12);
        assert_eq!(refused, 0, "{} others wait", waiting.len());
        drop((turns, waiting));
        assert_eq!(ask(modest, 32).1, 0, "nothing stays behind");
    }
}
