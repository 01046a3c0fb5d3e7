//! Which uploads are ended when others wait for memory: the one that comes slowest for what it holds, and those that stand still,
//! of the networks that hold more than a few bytes.

use std::{
    cmp::Ordering,
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::ledger::{Ledger, Payer};

/// What came one grace ago counts e^8 = 3,000 times less than what comes now: what came fast at first buys no long
/// stillness later.
const FADING: f64 = 8.0;

/// Uploads that would take longer than this many graces to come again are as slow as one another: it is what their
/// networks hold that decides then.
const LONG: u32 = 64;

/// Uploads that would take longer than this many graces to come again stand still. An upload of which nothing came for a grace
/// would take at least e^8 / 8 = 372 graces.
const STILL: u32 = 256;

/// Uploads that would come again within this many graces are never ended: they come fast enough, and are the slowest only
/// because all others wait or have just begun.
const STEADY: u32 = 4;

/// For how much of a grace it is known which uploads come slowest: all that wait use what one of them has found out.
const FRESH: u32 = 16;

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
    /// Those that are to end and have not given their memory back yet, and what each holds.
    ending: HashMap<u64, u64>,
    /// Those that may be ended, and when that was found out: the slowest stands last.
    slowest: Vec<(Burden, u64)>,
    looked: Option<Instant>,
}

/// An upload whose body arrives.
pub struct Arrival {
    pub payer: Payer,
    pub pace: Arc<Pace>,
    /// Cancelled when the upload is to end.
    pub ended: CancellationToken,
    /// When it began, and as much later as it has waited for memory since.
    began: Instant,
    waiting_since: Option<Instant>,
}

impl Arrival {
    fn new(payer: Payer, grace: Duration) -> Self {
        let fading = grace.div_f64(FADING).max(Duration::from_millis(1));
        Self {
            payer,
            pace: Arc::new(Pace::new(fading)),
            ended: CancellationToken::new(),
            began: Instant::now(),
            waiting_since: None,
        }
    }

    /// Returns its burden, or `None` if the upload holds no memory, waits, began less than `grace` ago, or comes fast enough.
    fn burden(&self, of_network: u64, held: u64, grace: Duration) -> Option<Burden> {
        let may_end = self.waiting_since.is_none() && self.began.elapsed() >= grace;
        let all_seconds = held as f64 / self.pace.rate_of_late().filter(|_| may_end)?;
        if all_seconds < (grace * STEADY).as_secs_f64() {
            return None;
        }
        let seconds = all_seconds.min((grace * LONG).as_secs_f64());
        Some(Burden { seconds, held: (of_network, held), all_seconds })
    }
}

impl Burden {
    fn stands_still(&self, grace: Duration) -> bool {
        self.all_seconds >= (grace * STILL).as_secs_f64()
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
    /// Adds an upload of `network` that begins now, and that is not ended while it is younger than `grace`. Returns its id and
    /// the upload.
    pub fn begin(&mut self, network: Option<IpAddr>, grace: Duration) -> (u64, &Arrival) {
        self.next += 1;
        let payer = network.map_or(Payer::Upload(self.next), Payer::Network);
        (self.next, self.by_id.entry(self.next).or_insert_with(|| Arrival::new(payer, grace)))
    }

    pub fn remove(&mut self, id: u64) {
        self.by_id.remove(&id);
        self.ending.remove(&id);
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
            let of_network = ledger.held(arrival.payer);
            let held = ledger.held_by(arrival.payer, *id);
            // Nobody is ended who holds little in comparison: it would make no room.
            let is_large = of_network >= ledger.mean() / 2;
            Some((arrival.burden(of_network, held, grace).filter(|_| is_large)?, *id))
        };
        self.by_id.iter().filter_map(of)
    }

    /// Ends the slowest upload for one of `waiting` that waits, and as many more of those that stand still as give back the
    /// `missing` bytes. None of a network that holds less than `waiting` is ended: that one is the reason then.
    ///
    /// Returns whether some give their memory back.
    pub fn end_slowest(&mut self, ledger: &Ledger, waiting: Payer, missing: u64, grace: Duration) -> bool {
        self.look(ledger, grace);
        let held = ledger.held(waiting);
        let mut given_back: u64 = self.ending.values().sum();
        for at in (0..self.slowest.len()).rev() {
            let (burden, id) = self.slowest[at];
            if !self.ending.is_empty() && (given_back >= missing || !burden.stands_still(grace)) {
                break;
            }
            if burden.held.0 >= held {
                self.slowest.remove(at);
                given_back += self.end(id, burden.held.1);
            }
        }
        !self.ending.is_empty()
    }

    /// Finds out which uploads come slowest, unless that is known.
    fn look(&mut self, ledger: &Ledger, grace: Duration) {
        if self.looked.is_some_and(|looked| looked.elapsed() < grace / FRESH) {
            return;
        }
        self.looked = Some(Instant::now());
        self.slowest = self.burdens(ledger, grace).collect();
        self.slowest
            .sort_unstable_by(|(one, _), (other, _)| one.partial_cmp(other).unwrap_or(Ordering::Equal));
    }

    /// Ends an upload, unless it has ended or waits. Returns how much of the `held` bytes it gives back.
    fn end(&mut self, id: u64, held: u64) -> u64 {
        if self.by_id.get(&id).is_some_and(|slowest| slowest.waiting_since.is_none())
            && let Some(slowest) = self.by_id.remove(&id)
        {
            tracing::debug!("an upload is ended: others wait for its memory");
            slowest.ended.cancel();
            self.ending.insert(id, held);
            return held;
        }
        0
    }
}
