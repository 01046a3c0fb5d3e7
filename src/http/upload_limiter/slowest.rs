//! Which upload is ended when others wait for memory: of the network that holds most, the one that would keep it longest
//! at the pace at which it comes of late.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::memory::Ledger;

/// What came one grace ago counts e^8 = 3,000 times less than what comes now: what came fast at first buys no long
/// stillness later.
const FADING: f64 = 8.0;

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
    pub pace: Arc<Pace>,
    /// Cancelled when the upload is to end.
    pub ended: CancellationToken,
    /// When it began, and as much later as it has waited for memory since.
    began: Instant,
    waiting_since: Option<Instant>,
}

impl Arrival {
    /// Returns an upload that begins now. An upload that is younger than `grace` is not ended.
    pub fn new(network: Option<IpAddr>, grace: Duration) -> Self {
        let fading = grace.div_f64(FADING).max(Duration::from_millis(1));
        Self {
            network,
            pace: Arc::new(Pace::new(fading)),
            ended: CancellationToken::new(),
            began: Instant::now(),
            waiting_since: None,
        }
    }

    /// Returns how many seconds it still takes, or `None` if the upload holds no memory, waits, or began less than `grace`
    /// ago.
    fn seconds_left(&self, grace: Duration) -> Option<f64> {
        let may_end = self.waiting_since.is_none() && self.began.elapsed() >= grace;
        if may_end { self.pace.seconds_left() } else { None }
    }
}

/// How fast the body of an upload comes, and how much of it is to come.
pub struct Pace {
    fading: Duration,
    of_late: Mutex<OfLate>,
}

struct OfLate {
    received: u64,
    limit: u64,
    /// Bytes a second, where those of long ago count less and less, at `at`.
    rate: f64,
    at: Instant,
}

impl Pace {
    fn new(fading: Duration) -> Self {
        let of_late = OfLate { received: 0, limit: 0, rate: 0.0, at: Instant::now() };
        Self { fading, of_late: Mutex::new(of_late) }
    }

    /// Notes that `received` bytes have come, of at most `limit`.
    pub fn received(&self, received: u64, limit: u64) {
        let mut of_late = self.lock();
        let more = received.saturating_sub(of_late.received) as f64;
        let rate = self.rate(&of_late) + more / self.fading.as_secs_f64();
        *of_late = OfLate { received, limit, rate, at: Instant::now() };
    }

    fn rate(&self, of_late: &OfLate) -> f64 {
        of_late.rate * (-of_late.at.elapsed().div_duration_f64(self.fading)).exp()
    }

    /// Leaves out a time in which the upload waited.
    fn pass_over(&self, waited: Duration) {
        self.lock().at += waited;
    }

    fn seconds_left(&self) -> Option<f64> {
        let of_late = self.lock();
        let left = of_late.limit.saturating_sub(of_late.received) as f64;
        (of_late.received > 0).then(|| left / self.rate(&of_late))
    }

    fn lock(&self) -> MutexGuard<'_, OfLate> {
        self.of_late.lock().unwrap_or_else(PoisonError::into_inner)
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
        if is_waiting {
            arrival.waiting_since.get_or_insert_with(Instant::now);
        } else if let Some(since) = arrival.waiting_since.take() {
            arrival.began += since.elapsed();
            arrival.pace.pass_over(since.elapsed());
        }
    }

    /// Returns how many seconds each upload that may be ended still takes, with its id.
    pub fn seconds_left(&self, grace: Duration) -> impl Iterator<Item = (f64, u64)> {
        self.by_id.iter().filter_map(move |(id, arrival)| Some((arrival.seconds_left(grace)?, *id)))
    }

    /// Ends an upload of the network that holds most, for one of `waiting` that waits, unless that one holds more: it is
    /// the reason then.
    pub fn end_slowest(&mut self, ledger: &Ledger, waiting: Option<IpAddr>, grace: Duration) {
        if self.ending.is_some() {
            return;
        }
        let held = |id: &u64| ledger.held(self.by_id[id].network);
        let most = self.seconds_left(grace).map(|(_, id)| held(&id)).max().unwrap_or_default();
        if most < ledger.held(waiting) {
            return;
        }
        let left = self.seconds_left(grace).filter(|(_, id)| held(id) == most);
        let Some((_, id)) = left.max_by(|(one, _), (other, _)| one.total_cmp(other)) else { return };
        if let Some(slowest) = self.by_id.remove(&id) {
            tracing::debug!("an upload is ended: others wait for its memory");
            slowest.ended.cancel();
            self.ending = Some(id);
        }
    }
}
