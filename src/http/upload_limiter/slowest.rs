//! Which upload is ended when others wait for memory: of the network that would keep most of it for longest, at the pace at
//! which its uploads come of late, the one that keeps most.

use std::{
    cmp::Ordering,
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

/// Of uploads that take longer than this many graces it is what they hold that matters most.
const LONG: u32 = 16;

/// What an upload, or all those of a network, would keep from the others.
#[derive(Clone, Copy, Default)]
pub struct Burden {
    /// Bytes by the seconds for which they are kept, of which [`LONG`] graces count at most.
    byte_seconds: f64,
    /// Decides between two that are equal.
    seconds: f64,
}

impl Burden {
    fn add(&mut self, other: Self) {
        self.byte_seconds += other.byte_seconds;
        self.seconds += other.seconds;
    }

    fn total_cmp(&self, other: &Self) -> Ordering {
        self.byte_seconds.total_cmp(&other.byte_seconds).then(self.seconds.total_cmp(&other.seconds))
    }
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
    fn burden(&self, grace: Duration) -> Option<Burden> {
        let may_end = self.waiting_since.is_none() && self.began.elapsed() >= grace;
        let seconds = self.pace.seconds_left().filter(|_| may_end)?;
        Some(Burden { byte_seconds: self.held as f64 * seconds.min((grace * LONG).as_secs_f64()), seconds })
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
        let left = of_late.limit.saturating_sub(of_late.received);
        // The rate of one that stands still becomes 0.
        let seconds = || if left == 0 { 0.0 } else { left as f64 / self.rate(&of_late) };
        (of_late.received > 0).then(seconds)
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
    pub fn burdens(&self, grace: Duration) -> impl Iterator<Item = (Burden, u64)> {
        self.by_id.iter().filter_map(move |(id, arrival)| Some((arrival.burden(grace)?, *id)))
    }

    /// Ends an upload for one of `waiting` that waits, unless that one holds more than the network of the upload: it is the
    /// reason then.
    pub fn end_slowest(&mut self, ledger: &Ledger, waiting: Option<IpAddr>, grace: Duration) {
        if self.ending.is_some() {
            return;
        }
        let mut by_network = HashMap::<_, Burden>::new();
        for (burden, id) in self.burdens(grace) {
            by_network.entry(self.by_id[&id].network).or_default().add(burden);
        }
        let largest = |(_, one): &(_, Burden), (_, other): &(_, Burden)| one.total_cmp(other);
        let Some((network, _)) = by_network.into_iter().max_by(largest) else { return };
        if ledger.held(network) < ledger.held(waiting) {
            return;
        }
        let of_network = self.burdens(grace).filter(|(_, id)| self.by_id[id].network == network);
        let Some((_, id)) = of_network.max_by(|(one, _), (other, _)| one.total_cmp(other)) else { return };
        if let Some(slowest) = self.by_id.remove(&id) {
            tracing::debug!("an upload is ended: others wait for its memory");
            slowest.ended.cancel();
            self.ending = Some(id);
        }
    }
}
