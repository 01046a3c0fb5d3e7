//! Which upload is ended when others wait for memory: the one that comes slowest for what it holds, of the networks that
//! hold more than a few bytes.

use std::{
    cmp::Ordering,
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::ledger::Ledger;

/// What came one grace ago counts e^8 = 3,000 times less than what comes now: what came fast at first buys no long
/// stillness later.
const FADING: f64 = 8.0;

/// Uploads that would take longer than this many graces to come again are as slow as one another: it is what their
/// networks hold that decides then.
const LONG: u32 = 64;

/// How much an upload is in the way of others. What is compared first stands first.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Burden {
    /// How many seconds what it holds would take to come again, of which [`LONG`] graces count at most. How much is to come
    /// plays no part: who has sent all but one byte, and keeps that, would be done at once.
    seconds: f64,
    /// Bytes of its network, and its own.
    held: (u64, u64),
    /// The same without the limit: of two that stand still, the one that came slower.
    all_seconds: f64,
}

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
    /// Bytes of memory.
    held: u64,
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
            held: 0,
            pace: Arc::new(Pace::new(fading)),
            ended: CancellationToken::new(),
            began: Instant::now(),
            waiting_since: None,
        }
    }

    /// Returns its burden, or `None` if the upload holds no memory, waits, or began less than `grace` ago.
    fn burden(&self, of_network: u64, grace: Duration) -> Option<Burden> {
        let may_end = self.waiting_since.is_none() && self.began.elapsed() >= grace;
        let all_seconds = self.held as f64 / self.pace.rate_of_late().filter(|_| may_end)?;
        let seconds = all_seconds.min((grace * LONG).as_secs_f64());
        Some(Burden { seconds, held: (of_network, self.held), all_seconds })
    }
}

/// How fast the body of an upload comes.
pub struct Pace {
    fading: Duration,
    of_late: Mutex<OfLate>,
}

struct OfLate {
    received: u64,
    /// Bytes a second, where those of long ago count less and less, at `at`.
    rate: f64,
    at: Instant,
}

impl Pace {
    fn new(fading: Duration) -> Self {
        let of_late = OfLate { received: 0, rate: 0.0, at: Instant::now() };
        Self { fading, of_late: Mutex::new(of_late) }
    }

    /// Notes that `received` bytes have come.
    pub fn received(&self, received: u64) {
        let mut of_late = self.lock();
        let more = received.saturating_sub(of_late.received) as f64;
        let rate = self.rate(&of_late) + more / self.fading.as_secs_f64();
        *of_late = OfLate { received, rate, at: Instant::now() };
    }

    fn rate(&self, of_late: &OfLate) -> f64 {
        of_late.rate * (-of_late.at.elapsed().div_duration_f64(self.fading)).exp()
    }

    /// Leaves out a time in which the upload waited.
    fn pass_over(&self, waited: Duration) {
        self.lock().at += waited;
    }

    /// Returns bytes a second, or `None` if nothing has come yet.
    fn rate_of_late(&self) -> Option<f64> {
        let of_late = self.lock();
        (of_late.received > 0).then(|| self.rate(&of_late))
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

    /// Notes how much memory an upload holds.
    pub fn set_held(&mut self, id: u64, bytes: u64) {
        if let Some(arrival) = self.by_id.get_mut(&id) {
            arrival.held = bytes;
        }
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

    /// Returns the burden of each upload that may be ended, with its id.
    pub fn burdens(&self, ledger: &Ledger, grace: Duration) -> impl Iterator<Item = (Burden, u64)> {
        let of = move |(id, arrival): (&u64, &Arrival)| {
            let of_network = ledger.held(arrival.network);
            // Nobody is ended who holds little in comparison: it would make no room.
            let is_large = of_network >= ledger.mean() / 2;
            Some((arrival.burden(of_network, grace).filter(|_| is_large)?, *id))
        };
        self.by_id.iter().filter_map(of)
    }

    /// Ends an upload for one of `waiting` that waits, unless that one holds more than the network of the upload: it is the
    /// reason then.
    pub fn end_slowest(&mut self, ledger: &Ledger, waiting: Option<IpAddr>, grace: Duration) {
        if self.ending.is_some() {
            return;
        }
        let larger = self.burdens(ledger, grace).filter(|(burden, _)| burden.held.0 >= ledger.held(waiting));
        let order = |(one, _): &(Burden, _), (other, _): &(Burden, _)| {
            one.partial_cmp(other).unwrap_or(Ordering::Equal)
        };
        let Some((_, id)) = larger.max_by(order) else { return };
        if let Some(slowest) = self.by_id.remove(&id) {
            tracing::debug!("an upload is ended: others wait for its memory");
            slowest.ended.cancel();
            self.ending = Some(id);
        }
    }
}
