//! How a stopping broker closes its sockets: one after the other, so that their clients, who wait alike long, do not
//! all come back in one instant.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::{close::Close, directory::Directory};

/// What lies between two sockets, unless they are so many that it must be less.
const APART: Duration = Duration::from_millis(2);

impl Directory {
    /// Asks all sockets to close with 1012, within `at_most`, and at once those who still come.
    pub async fn close_all(&self, at_most: Duration) {
        let outboxes = self.stop();
        let (begin, whole) = (Instant::now(), spread(outboxes.len(), at_most));
        for (number, outbox) in (0_u32..).zip(&outboxes) {
            sleep_until(begin + whole.mul_f64(f64::from(number) / outboxes.len() as f64)).await;
            outbox.close(Close::RESTART);
        }
    }
}

/// The time over which the closing of so many sockets is spread.
fn spread(sockets: usize, at_most: Duration) -> Duration {
    u32::try_from(sockets).map_or(at_most, |sockets| APART.saturating_mul(sockets).min(at_most))
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, sync::Arc};

    use super::*;
    use crate::{
        config::SignalSettings,
        signal::{budget::Budget, outbox::Outbox},
    };

    const AT_MOST: Duration = Duration::from_secs(3);

    /// When each of so many sockets is asked to close, in order.
    async fn closings(sockets: usize) -> Vec<Duration> {
        let directory = Directory::new(SignalSettings::default());
        let budget = Budget::new(0);
        let outboxes: Vec<_> = (0..sockets).map(|_| Arc::new(Outbox::new(1000, budget.clone()))).collect();
        let _places: Vec<_> = outboxes.iter().map(|outbox| directory.join(outbox.clone())).collect();
        let begin = Instant::now();
        let watch = outboxes.iter().map(async |outbox| {
            assert_eq!(poll_fn(|cx| outbox.poll_next(cx)).await, Err(Close::RESTART));
            begin.elapsed()
        });
        let (mut closings, ()) =
            tokio::join!(futures_util::future::join_all(watch), directory.close_all(AT_MOST));
        closings.sort_unstable();
        closings
    }

    #[tokio::test(start_paused = true)]
    async fn a_few_sockets_are_closed_at_once_and_many_over_a_while() {
        assert!(closings(0).await.is_empty());
        assert!(*closings(10).await.last().unwrap() <= Duration::from_millis(20));
        let many = closings(10_000).await;
        assert!((AT_MOST - Duration::from_millis(10)..=AT_MOST).contains(many.last().unwrap()));
        for tenth in 0..10 {
            let (from, to) = (AT_MOST / 10 * tenth, AT_MOST / 10 * (tenth + 1));
            let closed = many.iter().filter(|at| (from..to).contains(*at)).count();
            assert!((900..1100).contains(&closed), "{closed} between {from:?} and {to:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_comes_after_the_stop_is_closed_at_once() {
        let directory = Directory::new(SignalSettings::default());
        directory.close_all(AT_MOST).await;
        let outbox = Arc::new(Outbox::new(1000, Budget::new(0)));
        let _place = directory.join(outbox.clone());
        assert_eq!(poll_fn(|cx| outbox.poll_next(cx)).await, Err(Close::RESTART));
    }
}
