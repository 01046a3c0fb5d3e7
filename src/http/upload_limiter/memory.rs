//! The memory for the bodies of uploads, which is taken as they arrive.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{Instant, timeout_at},
};
use tokio_util::sync::CancellationToken;

use super::{
    ledger::Ledger,
    slowest::{Arrival, Arrivals, Pace},
};
use crate::net::connection_limiter::customer_key;

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
        self.memory.lock().ledger.give_back_request(self.bytes);
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
