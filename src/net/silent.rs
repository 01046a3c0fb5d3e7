//! Connections on which nothing was sent yet.
//!
//! Browsers open connections ahead of need, and a stop must not wait for those. One that was opened just now is most
//! likely about to be used, though, and a browser does not repeat a WebSocket's request on another connection.
//!
//! Where there is little room left for connections, those that stay silent make room for newcomers.

mod customers;

use std::{
    net::IpAddr,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::Instant;
use tokio_util::{
    sync::{CancellationToken, WaitForCancellationFutureOwned},
    task::{TaskTracker, task_tracker::TaskTrackerToken},
};

use self::customers::Customers;
use super::connection_limiter::customer_key;

/// How long after it was opened a connection is expected to be used, on a busy machine too.
const ABOUT_TO_SPEAK: Duration = Duration::from_secs(2);

/// All silent connections of a broker; clones are of the same ones.
#[derive(Clone, Debug, Default)]
pub struct SilentConnections {
    open: TaskTracker,
    last: Arc<Mutex<Option<Instant>>>,
    give_up: CancellationToken,
    customers: Arc<Mutex<Customers>>,
}

/// One silent connection; dropped when something came.
pub struct Silent {
    _counted: TaskTrackerToken,
    given_up: Pin<Box<WaitForCancellationFutureOwned>>,
    customers: Arc<Mutex<Customers>>,
    /// The customer and the connection's number, unless it belongs to nobody.
    place: Option<(IpAddr, u64)>,
}

impl Silent {
    /// Returns once the connection is given up.
    pub async fn given_up(&mut self) {
        self.given_up.as_mut().await;
    }

    /// Ready once the connection is given up.
    pub fn poll_given_up(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.given_up.as_mut().poll(cx)
    }
}

impl SilentConnections {
    /// Counts a connection of `client` that was opened just now. One that belongs to nobody never makes room.
    pub fn enter(&self, client: Option<IpAddr>) -> Silent {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        let give_up = self.give_up.child_token();
        let place = client.map(customer_key).map(|customer| {
            let number = lock(&self.customers).add(customer, give_up.clone());
            (customer, number)
        });
        Silent {
            _counted: self.open.token(),
            given_up: Box::pin(give_up.cancelled_owned()),
            customers: self.customers.clone(),
            place,
        }
    }

    /// Gives up the oldest one of the customer that has most, unless it may be about to be used or the customer of `newcomer`
    /// has as many.
    pub fn make_room(&self, newcomer: Option<IpAddr>) {
        let oldest = lock(&self.customers).take_oldest(newcomer.map(customer_key), ABOUT_TO_SPEAK);
        if let Some(give_up) = oldest {
            give_up.cancel();
        }
    }

    /// Whether one of them may be about to be used.
    pub fn may_speak(&self) -> bool {
        let last = *self.last.lock().unwrap_or_else(PoisonError::into_inner);
        !self.open.is_empty() && last.is_some_and(|last| last.elapsed() < ABOUT_TO_SPEAK)
    }

    /// Closes all of them, and those that still come.
    pub fn give_up(&self) {
        self.give_up.cancel();
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        if let Some((customer, number)) = self.place {
            lock(&self.customers).remove(customer, number);
        }
    }
}

fn lock(customers: &Mutex<Customers>) -> MutexGuard<'_, Customers> {
    customers.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_connection_may_speak_for_two_seconds_unless_it_did() {
        let silent = SilentConnections::default();
        assert!(!silent.may_speak());
        let one = silent.enter(None);
        assert!(silent.may_speak());
        drop(one);
        assert!(!silent.may_speak());
        let _two = silent.enter(None);
        advance(ABOUT_TO_SPEAK).await;
        assert!(!silent.may_speak());
    }

    #[tokio::test(start_paused = true)]
    async fn the_oldest_of_the_customer_that_has_most_makes_room_for_those_who_have_fewer() {
        let silent = SilentConnections::default();
        let client = |address: &str| Some(address.parse::<IpAddr>().unwrap());
        let enter = |address: &str| silent.enter(client(address));
        let mut nobodys = silent.enter(None);
        // Three /64s of one /48, and an address that has two.
        let mut site = ["2001:db8::1", "2001:db8:0:1::1", "2001:db8:0:2::1"].map(enter);
        let mut two = ["192.0.2.1", "::ffff:192.0.2.1"].map(enter);
        let mut are_open = |site: &mut [Silent], two: &mut [Silent]| {
            let mut is_open = |one: &mut Silent| one.given_up().now_or_never().is_none();
            assert!(is_open(&mut nobodys));
            (site.iter_mut().map(&mut is_open).collect(), two.iter_mut().map(&mut is_open).collect())
        };
        let mut after = |newcomer| {
            silent.make_room(newcomer);
            are_open(&mut site, &mut two)
        };
        assert_eq!(after(client("192.0.2.1")), (vec![true; 3], vec![true; 2]), "all were opened just now");
        advance(ABOUT_TO_SPEAK).await;
        assert_eq!(after(client("2001:db8:0:9::1")), (vec![true; 3], vec![true; 2]), "its own has most");
        assert_eq!(after(client("192.0.2.1")), (vec![false, true, true], vec![true; 2]));
        assert_eq!(after(client("192.0.2.1")), (vec![false, true, true], vec![true; 2]), "both have two");
        for _ in 0..9 {
            silent.make_room(client("192.0.2.2"));
        }
        assert_eq!(are_open(&mut site, &mut two), (vec![false; 3], vec![false; 2]));
        drop((site, two));
        assert!(lock(&silent.customers).is_empty());
    }

    /// Nor do those of others make room in its place.
    #[tokio::test(start_paused = true)]
    async fn who_opens_connections_again_and_again_has_nobody_elses_end() {
        let silent = SilentConnections::default();
        let mut idle = silent.enter(Some([192, 0, 2, 1].into()));
        advance(ABOUT_TO_SPEAK).await;
        let _many = [0; 2].map(|_| silent.enter(Some([192, 0, 2, 2].into())));
        for _ in 0..9 {
            silent.make_room(Some([192, 0, 2, 3].into()));
        }
        assert!(idle.given_up().now_or_never().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn what_came_to_be_used_makes_no_room() {
        let silent = SilentConnections::default();
        drop(silent.enter(Some([192, 0, 2, 1].into())));
        advance(ABOUT_TO_SPEAK).await;
        assert!(lock(&silent.customers).is_empty());
        silent.make_room(None);
    }
}
