//! The memory for the bodies of uploads, which is taken as they arrive.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{Instant, timeout_at},
};
use tokio_util::sync::CancellationToken;

use super::slowest::{Arrival, Arrivals, Pace};
use crate::net::connection_limiter::customer_key;

/// The share of the memory that is kept for uploads which need no more than it to be complete.
const KEPT: u64 = 3;

/// The share of the memory that requests take at most: bodies find room however many uploads wait. What exceeds it is bounded as
/// connections are.
const REQUESTS: u64 = 3;

/// The memory of all uploads. Whoever fits is served, in no order: a large upload that waits must not hold up small ones.
pub struct UploadMemory {
    state: Mutex<State>,
    given_back: Notify,
    /// How long an upload waits for memory before the slowest one is ended.
    patience: Duration,
}

struct State {
    ledger: Ledger,
    arrivals: Arrivals,
}

/// Who holds how much.
pub struct Ledger {
    total: u64,
    /// What bodies have not taken.
    left: u64,
    /// What requests have of that.
    requests: u64,
    by_network: HashMap<Option<IpAddr>, u64>,
}

impl Ledger {
    fn new(total: u64) -> Self {
        Self { total, left: total, requests: 0, by_network: HashMap::new() }
    }

    /// Returns what the uploads of a network hold together.
    pub fn held(&self, network: Option<IpAddr>) -> u64 {
        self.by_network.get(&network).copied().unwrap_or_default()
    }

    /// Returns what a network holds on average.
    pub fn mean(&self) -> u64 {
        self.by_network.values().sum::<u64>() / (self.by_network.len() as u64).max(1)
    }

    /// Takes `bytes` for a request, or as much of it as there is for requests. Returns how much was taken.
    fn take_request(&mut self, bytes: u64) -> u64 {
        let taken = bytes.min((self.total / REQUESTS).saturating_sub(self.requests));
        self.requests += taken;
        taken
    }

    /// Takes `step` bytes for an upload that needs `need` to be complete, or all that it needs. Returns how much was
    /// taken, or `None` if it has to wait.
    ///
    /// No network takes more than would make what it holds exceed what is left before: however slow its uploads are, they
    /// leave half of the memory to the others. An upload takes a step only if any other of its network could still be
    /// completed then, however many requests come, so that uploads which keep arriving never all wait for one another; once
    /// that is not so, it is all that it needs or nothing.
    fn take(&mut self, network: Option<IpAddr>, step: u64, need: u64) -> Option<u64> {
        // Clients without an address share nothing with one another but the total.
        let held = network.map_or(0, |_| self.held(network));
        let room_beside = |requests: u64| self.left.saturating_sub(requests).saturating_sub(held);
        let kept = (self.total / KEPT).saturating_add(step.saturating_mul(2));
        let is_ample = room_beside(self.total / REQUESTS) >= kept;
        let taken = if is_ample { step } else { need };
        if taken > room_beside(self.requests) {
            return None;
        }
        self.left -= taken;
        *self.by_network.entry(network).or_default() += taken;
        Some(taken)
    }

    fn give_back(&mut self, network: Option<IpAddr>, bytes: u64) {
        self.left += bytes;
        if let Some(held) = self.by_network.get_mut(&network) {
            *held -= bytes;
            if *held == 0 {
                self.by_network.remove(&network);
            }
        }
    }
}

impl UploadMemory {
    /// Returns memory of `bytes` bytes for uploads that wait for it for `wait` at most.
    pub fn new(bytes: u64, wait: Duration) -> Arc<Self> {
        let state = State { ledger: Ledger::new(bytes), arrivals: Arrivals::default() };
        Arc::new(Self { state: Mutex::new(state), given_back: Notify::new(), patience: wait / 4 })
    }

    /// Takes `bytes` for the request of an upload, without waiting: it is there already.
    pub fn request(self: &Arc<Self>, bytes: u64) -> RequestMemory {
        let bytes = self.lock().ledger.take_request(bytes);
        RequestMemory { memory: self.clone(), bytes }
    }

    /// Returns the reservation of an upload of `client`, which begins to arrive now: nothing yet.
    pub fn reservation(self: &Arc<Self>, client: Option<IpAddr>) -> Reservation {
        let network = client.map(customer_key);
        let arrival = Arrival::new(network, self.patience);
        let (pace, ended) = (arrival.pace.clone(), arrival.ended.clone());
        let id = self.lock().arrivals.begin(arrival);
        Reservation { memory: self.clone(), network, bytes: 0, id, pace, ended }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Memory of a request; dropping it gives it back.
pub struct RequestMemory {
    memory: Arc<UploadMemory>,
    bytes: u64,
}

impl Drop for RequestMemory {
    fn drop(&mut self) {
        self.memory.lock().ledger.requests -= self.bytes;
        self.memory.given_back.notify_waiters();
    }
}

/// Memory of the body of one upload; dropping it gives it back.
pub struct Reservation {
    memory: Arc<UploadMemory>,
    network: Option<IpAddr>,
    bytes: u64,
    id: u64,
    pace: Arc<Pace>,
    ended: CancellationToken,
}

impl Reservation {
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Waits for `step` more bytes, or for all `need` that the upload may still take.
    pub async fn grow(&mut self, step: u64, need: u64) {
        let memory = self.memory.clone();
        let mut patience = Instant::now() + memory.patience;
        loop {
            let given_back = memory.given_back.notified();
            if self.take(step, need) {
                return;
            }
            if timeout_at(patience, given_back).await.is_err() {
                let State { arrivals, ledger } = &mut *memory.lock();
                arrivals.end_slowest(ledger, self.network, memory.patience);
                patience += memory.patience;
            }
        }
    }

    fn take(&mut self, step: u64, need: u64) -> bool {
        let State { ledger, arrivals } = &mut *self.memory.lock();
        let taken = ledger.take(self.network, step, need);
        arrivals.set_waiting(self.id, taken.is_none());
        self.bytes += taken.unwrap_or_default();
        arrivals.set_held(self.id, self.bytes);
        taken.is_some()
    }

    /// Notes how many bytes of the upload have arrived.
    pub fn received(&self, bytes: u64) {
        self.pace.received(bytes);
    }

    /// Notes that all have: the upload is not slow any more.
    pub fn mark_arrived(&self) {
        self.memory.lock().arrivals.remove(self.id);
    }

    /// Returns a token that is cancelled when the upload came slowest while others waited.
    pub fn ended(&self) -> CancellationToken {
        self.ended.clone()
    }

    /// Gives back what exceeds `bytes`.
    pub fn shrink(&mut self, bytes: u64) {
        let spare = self.bytes.saturating_sub(bytes);
        self.bytes -= spare;
        self.memory.lock().ledger.give_back(self.network, spare);
        self.memory.given_back.notify_waiters();
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.mark_arrived();
        self.shrink(0);
    }
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
