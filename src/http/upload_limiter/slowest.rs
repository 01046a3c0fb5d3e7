//! Which upload is ended when others wait for memory: of the network that holds most, the one that came slowest.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::memory::Ledger;

/// Uploads whose bodies arrive.
#[derive(Default)]
pub struct Arrivals {
    next: u64,
    by_id: HashMap<u64, Arrival>,
    /// One that is to end and has not given its memory back yet.
    ending: Option<u64>,
}

/// An upload whose body arrives.
pub struct Arrival {
    network: Option<IpAddr>,
    pub received: Arc<AtomicU64>,
    /// Cancelled when the upload is to end.
    pub ended: CancellationToken,
    /// When it began, and as much later as it has waited for memory since.
    began: Instant,
    waiting_since: Option<Instant>,
}

impl Arrival {
    pub fn new(network: Option<IpAddr>) -> Self {
        Self {
            network,
            received: Arc::default(),
            ended: CancellationToken::new(),
            began: Instant::now(),
            waiting_since: None,
        }
    }

    /// Returns the bytes a second, or `None` if the upload holds no memory, waits, or began less than `grace` ago.
    fn rate(&self, grace: Duration) -> Option<f64> {
        let (received, time) = (self.received.load(Ordering::Relaxed), self.began.elapsed());
        let counts = received > 0 && self.waiting_since.is_none() && time >= grace;
        counts.then(|| received as f64 / time.as_secs_f64())
    }
}

impl Arrivals {
    /// Adds an upload. Returns its id.
    pub fn begin(&mut self, arrival: Arrival) -> u64 {
        self.next += 1;
        self.by_id.insert(self.next, arrival);
        self.next
    }

    pub fn remove(&mut self, id: u64) {
        self.by_id.remove(&id);
        self.ending = self.ending.filter(|ending| *ending != id);
    }

    /// Notes whether an upload waits for memory, which is no fault of its client.
    pub fn set_waiting(&mut self, id: u64, is_waiting: bool) {
        let Some(arrival) = self.by_id.get_mut(&id) else { return };
        if !is_waiting {
            arrival.began += arrival.waiting_since.take().map_or(Duration::ZERO, |since| since.elapsed());
        } else if arrival.waiting_since.is_none() {
            arrival.waiting_since = Some(Instant::now());
        }
    }

    /// Returns the bytes a second of the uploads that may be ended, with their ids.
    pub fn rates(&self, grace: Duration) -> impl Iterator<Item = (f64, u64)> {
        self.by_id.iter().filter_map(move |(id, arrival)| Some((arrival.rate(grace)?, *id)))
    }

    /// Ends the slowest upload of the network that holds most, for one of `waiting` that waits, unless that one holds
    /// more: it is the reason then.
    pub fn end_slowest(&mut self, ledger: &Ledger, waiting: Option<IpAddr>, grace: Duration) {
        if self.ending.is_some() {
            return;
        }
        let held = |id: &u64| ledger.held(self.by_id[id].network);
        let most = self.rates(grace).map(|(_, id)| held(&id)).max().unwrap_or_default();
        if most < ledger.held(waiting) {
            return;
        }
        let rates = self.rates(grace).filter(|(_, id)| held(id) == most);
        let Some((rate, id)) = rates.min_by(|(one, _), (other, _)| one.total_cmp(other)) else { return };
        if let Some(slowest) = self.by_id.remove(&id) {
            tracing::debug!(bytes_per_second = rate as u64, "an upload is ended: others wait for its memory");
            slowest.ended.cancel();
            self.ending = Some(id);
        }
    }
}
